"""Notebooks: their code cells are one program, and only the sources of changed cells change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foundry_fastlog.migrate import FileReport, Options, migrate_notebook
from foundry_fastlog.migrate.tree import migrate_file

OUTPUT = {"name": "stdout", "output_type": "stream", "text": ["print é\n"]}
LOGGER = [
    "from foundry_fastlog import StructuredLogger, setup_logging\n",
    "\n",
    "logger = StructuredLogger(__name__)\n",
    'setup_logging(__name__, experiment="a_run")\n',
]


def notebook(*sources: str | list[str], **more: Any) -> dict[str, Any]:
    """Return a notebook with a cell of text, then one of code for each source."""
    code = {"cell_type": "code", "id": "x", "outputs": [OUTPUT]}
    text = {"cell_type": "markdown", "source": ["print('a')"]}
    cells = [text, *({**code, "source": source} for source in sources)]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more}


def migrated(data: object, **layout: Any) -> FileReport:
    """Migrate a notebook; all but the sources must stay, and a second run must change nothing."""
    text = json.dumps(data, **layout) + "\n"
    report = migrate_notebook(text, Options(), "a run.ipynb")
    again = migrate_notebook(report.result, Options(), "a run.ipynb")
    assert (again.result, again.count("convert")) == (report.result, 0)
    if report.error is None:
        assert without_sources(json.loads(report.result)) == without_sources(json.loads(text))
    return report


def without_sources(data: Any) -> Any:
    return {**data, "cells": [{**cell, "source": ""} for cell in data.get("cells", ())]}


def sources(report: FileReport) -> list[str]:
    cells = json.loads(report.result)["cells"][1:]
    return ["".join(cell["source"]) for cell in cells]


@pytest.mark.parametrize(
    "layout",
    [
        {"indent": 1, "ensure_ascii": False},
        {"indent": 4},
        {},
        {"separators": (",", ":"), "ensure_ascii": False},
    ],
    ids=["Jupyter's", "indented", "flat", "dense"],
)
def test_the_layout_of_the_json_stays(layout: dict[str, Any]) -> None:
    """The result is what the same tool would have written: byte for byte."""
    data = notebook(
        ["import a\n", 'x = "é"'], ["for bb in c:\n", '    print("née", bb)\n'], "d = 1"
    )
    report = migrated(data, **layout)
    expected = notebook(
        ["import a\n", *LOGGER, "\n", 'x = "é"'],
        ["for bb in c:\n", '    logger.info("née", bb=bb)\n'],
        "d = 1",
    )
    assert report.result == json.dumps(expected, **layout) + "\n"
    (found,) = report.findings
    assert (found.cell, found.line, found.column) == (3, 2, 4)
    assert (report.cell, report.added_at, report.set_up_at) == (2, 2, 2)
    assert report.to_dict()["cell"] == 2
    assert found.to_dict()["cell"] == 3


def test_a_source_may_be_one_text_and_lines_may_be_written_in_any_way() -> None:
    """Unchanged lines keep their escapes, and the cell its end."""
    text = json.dumps(notebook("print('a b')\n\n", ["x = 1\n", "print('c')"]))
    report = migrate_notebook(text.replace("x", "\\u0078"))
    assert sources(report)[0].endswith('\nlogger.info("a b")\n\n')
    assert sources(report)[1] == 'x = 1\nlogger.info("c")'
    assert '"\\u0078 = 1\\n"' in report.result


@pytest.mark.parametrize(
    "magics",
    [
        "%matplotlib inline\n",
        "!pip install torch \\\n    numpy\n",
        "files = !ls\n",
        "a, b = %sql select 1\n",
        "if x:\n    !ls {x}\n    %cd /\n",
        "len?\n",
        "??len\n",
        "%timeit?\n",
        "%%time\n",
        "%%capture out\n",
        "await f()\n",
    ],
)
def test_lines_of_ipython_stay(magics: str) -> None:
    """A magic is no Python, and does not hide the prints beside it."""
    report = migrated(notebook(["# about\n", "import os"], f"{magics}print('a b')"))
    assert report.error is None
    assert sources(report)[1] == f'{magics}logger.info("a b")'


def test_a_logger_comes_after_the_magics_at_the_start() -> None:
    report = migrated(notebook(["%pip install a\n", "# why"], ["# begin\n", "print('a')"]))
    assert sources(report)[0] == "%pip install a\n# why"
    assert sources(report)[1].startswith("# begin\nfrom foundry_fastlog import StructuredLogger")


def test_cells_are_one_program() -> None:
    """A logger, or another print, of one cell is seen in the next; the set-up is added once."""
    first = "from foundry_fastlog import StructuredLogger\nlog = StructuredLogger('a')"
    data = notebook(first, "print('a b')", "def f():\n    print('DEBUG: c')")
    report = migrate_notebook(json.dumps(data), Options(logger="log", set_up="never"), "a.ipynb")
    assert sources(report) == [first, 'log.info("a b")', 'def f():\n    log.debug("c")']
    assert report.set_up == 'setup_logging("a", experiment="a", level="DEBUG")'
    report = migrated(notebook("print = show", "print('a b')"))
    assert report.findings[-1].reason == "print is not the builtin here (line 1)"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print('a'\n", "is in a cell that is not valid Python: see its line 1"),
        ("x = 1\n%%time\nprint 'a'", "is in a cell that is not valid Python: see its line 3"),
        ("%ls\nprint('''a\n%ls\n''')", "is in a cell that is not valid Python: a text in it has"),
        ("print('a\0')", "is in a cell that is not valid Python: "),
        (f"print({'-' * 200_000}1)", "is in a cell that is not valid Python: "),
        ("%%writefile a.py\nprint('a')", "is in a cell of %%writefile, which was not looked at"),
    ],
    ids=["not closed", "Python 2", "a magic in a text", "a null character", "too deep", "a file"],
)
def test_a_cell_that_cannot_be_parsed_is_named_and_left(source: str, reason: str) -> None:
    """The others are migrated."""
    report = migrated(notebook("print('a b')", source))
    assert report.error is None
    assert [found.status for found in report.findings] == ["convert", "left"]
    assert (report.findings[1].cell, sources(report)[1]) == (3, source)
    assert (report.findings[1].reason or "").startswith(reason)


@pytest.mark.parametrize(
    "data",
    [
        notebook("%%bash\necho print", "  \n", ""),
        notebook("x = 1  # print"),
        notebook("x[print"[:3]),
        notebook("print(x)", metadata={"kernelspec": {"language": "R"}}),
        notebook("print(x)", metadata={"kernelspec": None, "language_info": {"name": "julia"}}),
        notebook(),
    ],
    ids=["bash", "a comment", "not valid, no print", "R", "Julia", "empty"],
)
def test_what_prints_nothing_is_no_finding(data: dict[str, Any]) -> None:
    report = migrated(data)
    assert (report.error, report.findings) == (None, [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("print", "is not valid JSON: see line 1"),
        ('{\n"cells": ["print",\n', "is not valid JSON: see line 3"),
        (f'["print", {"9" * 5000}]', "is not valid JSON"),  # more digits than Python converts
        (f'["print", {"[" * 99999}', "is nested too deeply"),
        *(
            (text, "is not a notebook of format 4")
            for text in (
                '["print"]',
                '{"nbformat": 3, "a": "print"}',
                '{"nbformat": "print"}',
                '{"nbformat": 4, "a": "print"}',
                '{"nbformat": 4, "cells": "print"}',
                '{"nbformat": 4, "cells": ["print"]}',
                '{"nbformat": 4, "cells": [{"source": {"print": 1}}]}',
                '{"nbformat": 4, "cells": [{"source": [["print"]]}]}',
            )
        ),
    ],
)
def test_what_is_no_notebook_is_an_error(text: str, reason: str) -> None:
    """Never an all-clear for what was not looked at; the reason is the true one."""
    report = migrate_notebook(text)
    assert report.error == f"{reason}, so it was not looked at"
    assert report.result == report.source


@pytest.mark.parametrize(
    ("line", "magic"),
    [
        ("%time print('a', 2)", "%time"),
        ("    %timeit -n1 print(3)", "%timeit"),
        ("out = %prun print(x)", "%prun"),
        ("%%timeit print(x)", "%%timeit"),
        ("%time print(3)  # noqa: T201", None),
    ],
)
def test_prints_in_lines_of_ipython_are_listed(line: str, magic: str | None) -> None:
    """They stay and count, unless they are marked; a shell's do not."""
    head = "if x:\n" if line.startswith(" ") else ""
    source = f"{head}{line}\n!python -c 'print(1)'\n"
    report = migrated(notebook(f"{source}print('a b')"))
    assert source in sources(report)[0]
    found = report.findings[0]
    assert (found.line, found.cell, found.old) == (1 + bool(head), 2, line.strip())
    reason = f"is in a line of {magic}, which was not looked at" if magic else "marked with noqa"
    assert (found.status, found.reason) == ("left" if magic else "kept", reason)
    assert len(report.findings) == 2


def test_a_notebook_that_says_nothing_of_print_is_not_parsed() -> None:
    assert migrate_notebook("[").error is None


def test_cells_that_cannot_be_migrated_together_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line of all cells together is nobody's, so it is not named."""
    failed = FileReport("", error="is not reproduced unchanged by LibCST: see line 1")
    monkeypatch.setattr("foundry_fastlog.migrate.notebook.migrate_source", lambda *a: failed)
    report = migrate_notebook(json.dumps(notebook("print('a')")))
    assert report.error == "is not reproduced unchanged by LibCST"
    assert report.result == report.source


def test_a_notebook_is_written_and_listed_by_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    """The command finds notebooks in folders, names cells, and fails where it could not look."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a run.ipynb"
    path.write_text(json.dumps(notebook("x = 1", "print('é')"), ensure_ascii=False), "utf-8")
    (tmp_path / "clean.ipynb").write_text(json.dumps(notebook("x = 1")))
    out = command("migrate", "--check", ".", code=1).out
    assert "a run.ipynb:cell 2, line 1  adds a logger\n" in out
    assert "a run.ipynb:cell 3, line 1  info\n  - print('é')\n" in out
    command("migrate", "--write", ".")
    assert 'logger.info(\\"é\\")' in path.read_text("utf-8")
    command("migrate", "--check", ".")
    (tmp_path / "old.ipynb").write_text('{"nbformat": 3, "worksheets": ["print"]}')
    assert "old.ipynb: is not a notebook of format 4" in command("migrate", ".", code=1).out
    (tmp_path / "old.ipynb").unlink()
    marked = b"\xef\xbb\xbf" + json.dumps(notebook("print('a')")).encode()
    (tmp_path / "mark.ipynb").write_bytes(marked)
    command("migrate", "--write", ".")
    assert (tmp_path / "mark.ipynb").read_bytes().startswith(b'\xef\xbb\xbf{"cells"')
    assert b"logger.info" in (tmp_path / "mark.ipynb").read_bytes()
    (tmp_path / "bad.ipynb").write_bytes(b"\xff print")
    assert (migrate_file(tmp_path / "bad.ipynb", Options()).error or "").startswith("cannot be")
