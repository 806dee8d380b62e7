"""What docs/migration.md shows is what the command does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foundry_fastlog.migrate import migrate_source

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
PAIR = re.compile(
    r"^Before:\n\n```python\n(?P<old>.*?)^```\n\nAfter:\n\n```python\n(?P<new>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


def pairs() -> list[tuple[str, str]]:
    """List what the page shows before and after."""
    return [(match["old"], match["new"]) for match in PAIR.finditer(PAGE.read_text("utf-8"))]


@pytest.mark.parametrize(("old", "new"), pairs())
def test_the_guide_shows_what_the_command_does(old: str, new: str) -> None:
    """Each example after the migration is the one before it, migrated."""
    report = migrate_source(old)
    assert report.result == new
    assert report.count("left") == 0


def test_the_guide_has_examples() -> None:
    """The pattern above finds the page's examples."""
    assert len(pairs()) == 3
