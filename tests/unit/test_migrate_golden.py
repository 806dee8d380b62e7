"""What the migration makes of scripts: `tests/golden/migrate` has each before and after.

A file has several modules, each below a line `#: title {options}`. After a module stands what its
report says of prints that stay, by line. `script` has a whole program, which runs. Where something
is to change, look at the difference after `GOLDEN=write pytest tests/unit/test_migrate_golden.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from print_losses import losses_of

from foundry_fastlog.migrate import Options, migrate_source

FOLDER = Path(__file__).parents[1] / "golden" / "migrate"
PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
PAIR = re.compile(
    r"^Before:\n\n```python\n(?P<old>.*?)^```\n\nAfter:\n\n```python\n(?P<new>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
LOGGER = "from foundry_fastlog import StructuredLogger\nlogger = StructuredLogger(__name__)\n"
DEFINITION = "from foundry_fastlog import StructuredLogger\n\nlogger = StructuredLogger(__name__)\n"


# What the modules below use as decoration.
DECORATION = frozenset({"LINE", "EDGE", "Fore.RED", "Fore.RESET"})


def migrated(title: str, code: str, path: str = "") -> tuple[str, str]:
    """Return a module after the migration, and what its report says.

    It must lose nothing that the prints show, and change nothing when it is repeated.
    """
    given = json.loads(title[title.index("{") :]) if "{" in title else {}
    report = migrate_source(code, Options(**given), path)
    assert report.error is None
    again = migrate_source(report.result, Options(**given), path)
    assert (again.result, again.count("convert")) == (report.result, 0)
    assert losses_of(report, DECORATION) == []
    told = ((found.line, found.status, found.reason or found.note) for found in report.findings)
    return report.result, "".join(f"#! {n} {what}: {why}\n" for n, what, why in told if why)


def check(path: Path, found: str) -> None:
    if os.environ.get("GOLDEN") == "write":
        path.write_text(found, "utf-8")
    assert found == path.read_text("utf-8")


@pytest.mark.parametrize("before", sorted(FOLDER.glob("*.before.txt")), ids=lambda path: path.name)
def test_scripts_are_migrated_as_they_were(before: Path) -> None:
    """Messages, levels, fields; where the logger goes, which one is used; what stays, and why."""
    _, *parts = re.split(r"^(#: .*\n)", before.read_text("utf-8"), flags=re.MULTILINE)
    modules = zip(parts[::2], parts[1::2], strict=True)
    found = "".join(title + "".join(migrated(title, code)) for title, code in modules)
    check(before.with_name(before.name.replace("before", "after")), found)


# ---- a program -----------------------------------------------------------------------------

SCRIPT = FOLDER / "script"
TQDM = """
class tqdm(list):
    def __init__(self, rows, desc=""):
        super().__init__(rows)
    write = staticmethod(print)
"""
RUNNER = """
import json, logging, runpy, sys, time
time.perf_counter = lambda: 7.0
class Handler(logging.Handler):
    def emit(self, record):
        entry = json.loads(record.getMessage())
        entries.append({**entry, "traceback": record.exc_info is not None})
_, out, *sys.argv = sys.argv
entries = []
logging.getLogger("__main__").addHandler(Handler())
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    with open(out, "w") as file:
        json.dump(entries, file)
"""
NUMBER = re.compile(r"-?\d+(?:\.(?P<digits>\d+))?(?:e(?P<power>[+-]\d+))?")
NO_LOSS = {"error", "warning", "to", "for", "after", "in", "of", "kb", "s"}


def run(script: Path, folder: Path, arguments: list[str]) -> tuple[int, str, list[dict[str, Any]]]:
    """Run a script; return its exit code, what it printed, and what it logged."""
    folder.mkdir()
    (folder / "tqdm.py").write_text(TQDM)
    command = [sys.executable, "-c", RUNNER, "entries.json", str(script), *arguments]
    paths = os.pathsep.join([str(folder), str(PAGE.parents[1])])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    text = done.stdout + done.stderr.partition("Traceback")[0]
    return done.returncode, text, json.loads((folder / "entries.json").read_text())


def is_number_said(match: re.Match[str], numbers: list[float]) -> bool:
    """Return whether a number is one of others, rounded, or as a percentage."""
    margin = 0.51 * 10.0 ** (int(match["power"] or 0) - len(match["digits"] or ""))
    shown = float(match.group())
    return any(min(abs(it - shown), abs(100 * it - shown)) <= margin for it in numbers)


def test_a_program_is_migrated_as_a_reviewer_would_accept() -> None:
    """Functions, classes, progress, errors, tables, a command line; its own output stays."""
    result, told = migrated("", (SCRIPT / "before.py").read_text("utf-8"), "train.py")
    check(SCRIPT / "after.py", result)
    check(SCRIPT / "report.txt", told)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "tracebacks"),
    [
        (["--verbose"], 0, 0),
        (["--lr", "0.001", "--out", "no/such/folder"], 0, 1),
        (["--data", "nowhere"], 1, 2),
        (["--lr", "nan"], 1, 1),
        (["--version"], 0, 0),
    ],
    ids=["well", "not saved", "no data", "not finite", "version"],
)
def test_a_migrated_program_says_all_that_it_printed(
    tmp_path: Path, arguments: list[str], code: int, tracebacks: int
) -> None:
    """Both run; each word and each number of the prints is printed, or in a message or a field."""
    before, printed, logged = run(SCRIPT / "before.py", tmp_path / "before", arguments)
    after, output, entries = run(SCRIPT / "after.py", tmp_path / "after", arguments)
    assert (before, after, logged) == (code, code, [])
    assert sum(entry["traceback"] for entry in entries) == tracebacks
    said = output + "".join(
        f" {entry['message']} {json.dumps(entry['context'])}" for entry in entries
    )
    words = set(re.findall(r"[^\W\d_]+", said.lower())) | NO_LOSS
    assert set(re.findall(r"[^\W\d_]+", NUMBER.sub(" ", printed).lower())) - words == set()
    numbers = [float(match.group()) for match in NUMBER.finditer(said)]
    lost = [it.group() for it in NUMBER.finditer(printed) if not is_number_said(it, numbers)]
    assert lost == []


# ---- details -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "options"),
    [
        (
            'import a\n\f\nif x:\n  print("b", y_, z_)\n',
            'import a\n{}\f\nif x:\n  logger.info(\n    "b",\n    y=y_,\n    z=z_,\n  )\n',
            {"line_length": 1},
        ),
        ('import a\r\nprint("a")', 'import a\r\n{}\r\nlogger.info("a")', {}),
        (
            "if a:\n    def f(): print('b')\nimport c",
            'if a:\n    def f(): logger.info("b")\nimport c\n{}',
            {},
        ),
    ],
    ids=["a form feed", "line ends and a missing last one", "an import without a line end"],
)
def test_line_ends_are_the_files(before: str, after: str, options: dict[str, Any]) -> None:
    definition = DEFINITION.replace("\n", "\r\n") if "\r" in before else DEFINITION
    assert migrate_source(before, Options(**options)).result == after.replace("{}", definition)


def test_the_guide_shows_what_the_command_does() -> None:
    """Each example after the migration is the one before it, migrated."""
    pairs = PAIR.findall(PAGE.read_text("utf-8"))
    assert len(pairs) == 4
    for old, new in pairs:
        report = migrate_source(old)
        assert (report.result, report.count("left")) == (new, 0)


def test_a_report_says_what_is_added() -> None:
    report = migrate_source('import a\nprint("b")\n')
    assert (report.added, report.added_at) == (DEFINITION.splitlines(), 2)
    found = {"line": 2, "column": 0, "status": "convert", "level": "info"}
    assert report.to_dict()["prints"] == [{**found, "old": 'print("b")', "new": 'logger.info("b")'}]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        # LibCST loses a space or a mark here and there: such a source is not touched.
        ('\ufeffprint("a")', "is not reproduced unchanged by LibCST: see line 1"),
        ("x = 1\nprint 'a'\n", "is not valid Python: see line 2"),
        ("print(" + "-" * 3000 + "1)", ""),  # too deep to walk
        ("this is no Python, and says nothing", None),  # without a print it is not parsed
    ],
    ids=["not the same", "Python 2", "deep", "no print"],
)
def test_a_source_that_cannot_be_migrated_is_named_and_left(source: str, error: str | None) -> None:
    report = migrate_source(source)
    assert (report.error is None) == (error is None)
    assert error in (None, "", report.error)
    assert (report.result, report.findings) == (source, [])


@pytest.mark.parametrize(
    "options", [{"logger": "a.b"}, {"logger": "class"}, {"level": "loud"}, {"line_length": 0}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Options(**options)
