"""The migrate command, as a user meets it, and the files that it reads and writes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from foundry_fastlog.migrate import Options, tree
from foundry_fastlog.migrate.tree import migrate_file, python_files

Command = Callable[..., Any]
Caplog, Patch = pytest.LogCaptureFixture, pytest.MonkeyPatch
OLD = 'import os\n\nprint(f"Loaded {len(os.sep)} examples")\n'
IMPORT = "from foundry_fastlog import StructuredLogger\n"
DEFINITION = f"{IMPORT}\nlogger = StructuredLogger(__name__)\n\n"
NEW = f'import os\n{DEFINITION}logger.info("Loaded examples", num_examples=len(os.sep))\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: Patch) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "data.py").write_text(OLD)
    (tmp_path / "sub" / "mixed.py").write_text('print("Error: a")\nprint(b)\nprint()\n')
    (tmp_path / "clean.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def test_the_listing_shows_each_print_and_changes_nothing(project: Path, command: Command) -> None:
    added = f"  adds a logger\n  + {IMPORT}  + \n  + logger = StructuredLogger(__name__)\n"
    assert command("migrate", ".").out == (
        f"data.py:2{added}data.py:3  info\n"
        '  - print(f"Loaded {len(os.sep)} examples")\n'
        '  + logger.info("Loaded examples", num_examples=len(os.sep))\n'
        f"sub/mixed.py:1{added}sub/mixed.py:1  error\n"
        '  - print("Error: a")\n'
        '  + logger.error("a")\n'
        "sub/mixed.py:2  left: shows a value without words: nothing says what it is\n"
        "    print(b)\n"
        "sub/mixed.py:3  left: shows only an empty line or decoration\n"
        "    print()\n"
        "3 files: 2 prints can be converted, 2 left\n"
        "Nothing was changed. Run the command again with --write to apply this.\n"
        "The messages show only in a program that sets up logging. Call, where it starts:\n"
        "    from foundry_fastlog import setup_logging\n"
        '    setup_logging(__name__, experiment="data")  # data.py\n'
        '    setup_logging(__name__, experiment="mixed")  # sub/mixed.py\n'
    )
    assert (project / "data.py").read_text() == OLD


def test_write_changes_the_files(project: Path, command: Command, caplog: Caplog) -> None:
    """--write makes the calls; what is left gives exit code 1, and a second run does nothing."""
    assert "1 file: 1 print converted, 0 left" in command("migrate", "--write", "data.py").out
    assert (project / "data.py").read_text() == NEW
    command("migrate", "--write", ".", code=1)
    out = command("migrate", "--write", "--drop-empty", ".", code=1).out
    assert (project / "sub" / "mixed.py").read_text().endswith('logger.error("a")\nprint(b)\n')
    assert "removed\n  - print()\n" in out
    command("migrate", "--write", "data.py", "clean.py")
    assert (project / "data.py").read_text() == NEW
    # The new code runs on this package's logger.
    exec(compile(NEW, "data.py", "exec"), {"__name__": "migrated"})
    (record,) = (each for each in caplog.records if each.name == "migrated")
    entry = json.loads(record.getMessage())
    assert (entry["level"], entry["message"]) == ("INFO", "Loaded examples")
    assert entry["context"]["num_examples"] == 1


def test_check_fails_while_there_are_prints(project: Path, command: Command) -> None:
    """--check is for CI: marked prints are no failure."""
    for path in (".", "data.py"):  # also where all of them could be converted
        command("migrate", "--check", path, code=1)
    (project / "data.py").write_text('print("usage: a")  # noqa: T201\n')
    out = command("migrate", "--check", "data.py", "clean.py").out
    assert "data.py:1  kept: marked with noqa" in out
    assert "2 files: 0 prints can be converted, 0 left, 1 kept as marked\n" in out
    assert (project / "data.py").read_text() == 'print("usage: a")  # noqa: T201\n'


def test_options_reach_the_conversion(project: Path, command: Command) -> None:
    (project / "data.py").write_text("from a import log\nprint('one two', x1, y1)\n")
    options = ["--logger", "log", "--level", "DEBUG", "--line-length", "20", "--assume-structured"]
    new = '  + log.debug(\n  +     "one two",\n  +     x1=x1,\n  +     y1=y1,\n  + )\n'
    assert new in command("migrate", *options, "data.py").out


def test_the_calls_that_make_messages_show_are_offered(project: Path, command: Command) -> None:
    """By package or module, once each; where there is a main block, the call is inserted."""
    package = project / "src" / "app" / "sub"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    code = "def f():\n    print('DEBUG: a')\n"
    for path in (package / "a.py", package / "b.py", project / "src" / "tool.py"):
        path.write_text(code)
    (project / "src" / "my run.py").write_text(f'{code}\nif __name__ == "__main__":\n    f()\n')
    out = command("migrate", "src").out
    assert "  + from foundry_fastlog import StructuredLogger, setup_logging\n" in out
    call = 'setup_logging(__name__, experiment="my_run", level="DEBUG")'
    assert f"src/my run.py:5  sets up logging\n  + {call}\n" in out
    assert out.endswith(
        "    from foundry_fastlog import setup_logging\n"
        '    setup_logging("tool", level="DEBUG")  # src/tool.py\n'
        '    setup_logging("app", level="DEBUG")  # src/app/sub/a.py\n'
    )
    command("migrate", "--write", "src")
    assert f'if __name__ == "__main__":\n    {call}\n' in (project / "src/my run.py").read_text()
    for index in range(12):
        (project / f"m{index:02}.py").write_text(code)
    out = command("migrate", *(f"m{index:02}.py" for index in range(12))).out
    assert out.endswith("# m07.py\n    and 4 more calls: --json lists all\n")
    out = command("migrate", "--set-up", "always", "m00.py").out
    assert '  + setup_logging(__name__, level="DEBUG")\n' in out
    assert "Call, where it starts" not in out


@pytest.mark.parametrize(
    ("file", "code", "call"),
    [
        ("old.py", "f()", '__name__, experiment="old"'),
        ("old.py", "if f:\n    exit(f())", '__name__, experiment="old"'),
        ("old.py", "atexit.register(f)\nx = f()\ng()", '"old"'),
        ("old.py", "g = lambda: f()\nclass A:\n    f()", '"old"'),
        ("pk/__main__.py", "f()", '__name__, experiment="pk"'),
        ("pk/__init__.py", "print('a b')", '"pk"'),
        ("pk/core.py", "f()", '"pk"'),
    ],
)
def test_the_call_names_the_logger_that_the_file_has(
    project: Path, command: Command, file: str, code: str, call: str
) -> None:
    """A file that runs something is a program, unless it is a package's; its logger is __main__."""
    (project / "pk").mkdir()
    (project / "pk" / "__init__.py").write_text("")
    (project / file).write_text(f"def f():\n    print('a b')\n{code}\n")
    assert f"    setup_logging({call})  # {file}\n" in command("migrate", file).out


def test_json_is_for_programs(project: Path, command: Command) -> None:
    answer = json.loads(command("migrate", "--json", "sub").out)
    (file,) = answer["files"]
    assert (answer["written"], file["path"]) == (False, "sub/mixed.py")
    assert [found["status"] for found in file["prints"]] == ["convert", "left", "left"]


def test_notes_and_blank_lines_of_long_calls_are_shown(project: Path, command: Command) -> None:
    """A note stands below its call; control characters in a source reach no terminal."""
    (project / "data.py").write_text(
        "import logging\nclass A:\n    logger = logging.getLogger()\n    def f(self):\n"
        "        print(\n            'see',\n\n            x1\n        )\n"
        "        print('\x1b[2J')\n"
    )
    out = command("migrate", "data.py").out
    note = "self.logger (line 3) is a logging.Logger, so the module's logger is used"
    assert "  - print(\n  -     'see',\n  - \n  -     x1\n  - )\n" in out
    assert f"    note: {note}" in out
    assert "print('\\x1b[2J')" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or directory"),
        (["--write", "--check", "."], "--check changes nothing"),
        (["--logger", "a b", "."], "must be a Python name"),
        (["--level", "loud", "."], "the level must be auto or one of debug"),
        (["--set-up", "here", "."], "set_up must be one of main, always, never"),
    ],
)
def test_wrong_arguments_are_named(
    project: Path, command: Command, arguments: list[str], message: str
) -> None:
    assert message in command("migrate", *arguments, code=2).err


def test_without_libcst(project: Path, command: Command, monkeypatch: Patch) -> None:
    """The extra is named; another missing module is a fault of the installation."""
    for name in list(sys.modules):
        if f"{name}.".startswith("foundry_fastlog.migrate."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "libcst", None)
    assert "pip install 'foundry_fastlog[migrate]'" in command("migrate", ".", code=2).err
    monkeypatch.delitem(sys.modules, "libcst")
    monkeypatch.setitem(sys.modules, "foundry_fastlog.migrate.source", None)
    with pytest.raises(ModuleNotFoundError):
        command("migrate", ".")


def test_trees_are_searched_for_code_of_the_project(project: Path) -> None:
    """Hidden folders, environments and build outputs are left out, unless they are named."""
    for folder in (".git", "build", "__pycache__", "env", "pkg"):
        (project / folder).mkdir()
        (project / folder / "a.py").write_text("")
    (project / "env" / "pyvenv.cfg").write_text("")
    (project / "notes.txt").write_text("")
    found = [str(path) for path in python_files([Path(), Path("data.py"), Path("build")])]
    assert found == ["clean.py", "data.py", "pkg/a.py", "sub/mixed.py", "build/a.py"]


@pytest.mark.parametrize(
    ("raw", "call"),
    [
        (b"\xef\xbb\xbfprint('a')\r\n", b'logger.info("a")'),
        (b"# coding: latin-1\nprint('\xe9')\n", b'logger.info("\xe9")'),
        (b"\xef\xbb\xbf# coding: utf-8\nprint('\xc3\xa9')", b'logger.info("\xc3\xa9")'),
        # An escape may stand for a character that the file itself cannot have.
        (b"# coding: latin-1\nprint('5 \\u20ac', 'b')\n", b'logger.info("5 \\u20ac b")'),
    ],
)
def test_encodings_and_marks_are_kept(tmp_path: Path, raw: bytes, call: bytes) -> None:
    """A file keeps its encoding, byte order mark and line ends."""
    path = tmp_path / "a.py"
    path.write_bytes(raw)
    assert migrate_file(path, Options(), write=True).error is None
    definition = DEFINITION.encode()
    if b"\r" in raw:
        definition = definition.replace(b"\n", b"\r\n")
    head, _, tail = raw.partition(b"print")
    assert path.read_bytes() == head + definition + call + tail.partition(b")")[2]


def test_mode_and_links_are_kept(tmp_path: Path) -> None:
    path, link = tmp_path / "a.py", tmp_path / "b.py"
    path.write_text(OLD)
    path.chmod(0o755)
    link.symlink_to(path)
    assert migrate_file(link, Options(), write=True).error is None
    assert link.is_symlink()
    assert path.read_text() == NEW
    assert path.stat().st_mode & 0o777 == 0o755


def test_a_file_that_cannot_be_read_or_decoded_is_reported(project: Path, command: Command) -> None:
    """One bad file is a line in the listing and the exit code 1; the others are done."""
    (project / "bad.py").write_bytes(b"print('\xff')\n")
    (project / "two.py").write_text("print 'a'\n")
    (project / "coding.py").write_text("# coding: nonsense\nprint('a')\n")
    (project / "gone.py").symlink_to("nowhere.py")
    out = command("migrate", "--write", ".", code=1).out
    for line in (
        "bad.py: cannot be decoded: ",
        "two.py: is not valid Python: see line 1\n",
        "coding.py: cannot be decoded: unknown encoding",
        "gone.py: cannot be read: No such file or directory\n",
        "4 files could not be migrated",
    ):
        assert line in out
    assert (project / "data.py").read_text() == NEW


def test_a_file_that_cannot_be_written_stays_whole(tmp_path: Path, monkeypatch: Patch) -> None:
    """A write that fails leaves the old file and nothing beside it."""
    path = tmp_path / "a.py"
    path.write_text(OLD)
    fail = Mock(side_effect=OSError(28, "No space left on device"))
    for owner, name, fault, reason in (
        (Path, "replace", fail, "No space left on device"),
        (os, "access", lambda *arguments: False, "Permission denied"),
    ):
        monkeypatch.setattr(owner, name, fault)
        report = migrate_file(path, Options(), write=True)
        assert report.error == f"cannot be written: {reason}"
    assert [item.name for item in tmp_path.iterdir()] == ["a.py"]
    assert path.read_text() == OLD


def test_many_files_are_reported_as_they_are_done(tmp_path: Path) -> None:
    """Reports come one after the other: a tree is never in memory as a whole."""
    (tmp_path / "a.py").write_text(OLD)
    reports = tree.migrate_paths([tmp_path], Options())
    assert next(reports).count("convert") == 1
    assert next(reports, None) is None
