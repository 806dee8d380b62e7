"""What the migration makes of scripts: `tests/golden/migrate` has each before and after.

A file has several modules, each below a line `#: title {options}`. After a module stands what its
report says of prints that stay, by line. Where something is to change, look at the difference after
`GOLDEN=write pytest tests/unit/test_migrate_golden.py`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from foundry_fastlog.migrate import Options, migrate_source

FOLDER = Path(__file__).parents[1] / "golden" / "migrate"
PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
PAIR = re.compile(
    r"^Before:\n\n```python\n(?P<old>.*?)^```\n\nAfter:\n\n```python\n(?P<new>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
LOGGER = "from foundry_fastlog import StructuredLogger\nlogger = StructuredLogger(__name__)\n"
DEFINITION = "from foundry_fastlog import StructuredLogger\n\nlogger = StructuredLogger(__name__)\n"


def migrated(title: str, code: str) -> str:
    """Return a module after the migration, which must change nothing when it is repeated."""
    given = json.loads(title[title.index("{") :]) if "{" in title else {}
    report = migrate_source(code, Options(**given))
    assert report.error is None
    again = migrate_source(report.result, Options(**given))
    assert (again.result, again.count("convert")) == (report.result, 0)
    told = ((found.line, found.status, found.reason or found.note) for found in report.findings)
    return report.result + "".join(f"#! {n} {what}: {why}\n" for n, what, why in told if why)


@pytest.mark.parametrize("before", sorted(FOLDER.glob("*.before.txt")), ids=lambda path: path.name)
def test_scripts_are_migrated_as_they_were(before: Path) -> None:
    """Messages, levels, fields; where the logger goes, which one is used; what stays, and why."""
    _, *parts = re.split(r"^(#: .*\n)", before.read_text("utf-8"), flags=re.MULTILINE)
    modules = zip(parts[::2], parts[1::2], strict=True)
    found = "".join(title + migrated(title, code) for title, code in modules)
    after = before.with_name(before.name.replace("before", "after"))
    if os.environ.get("GOLDEN") == "write":
        after.write_text(found, "utf-8")
    assert found == after.read_text("utf-8")


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
    assert len(pairs) == 3
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
