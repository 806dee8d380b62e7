"""The migration's options and results."""

from __future__ import annotations

import keyword
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["LEVELS", "FileReport", "Finding", "LeftAloneError", "Options", "Status"]

SET_UP = ("main", "always", "never")
LEVELS = ("debug", "info", "warning", "error", "critical")

#: The outcome of a print: it can be (or was) converted; it stays and needs a person's decision;
#: it stays because its author marked it.
Status = Literal["convert", "left", "kept"]


class LeftAloneError(Exception):
    """A print that is not converted. Its message is the reason, shown to the user."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert.

    Attributes:
        logger: Name of the module's logger and of the attribute of ``self`` that holds one.
        level: One of `LEVELS` for all calls, or "auto": by the wording of each message.
        line_length: Characters per line; longer calls are split into one argument per line.
        assume_structured: Treat a logger of unknown type as a StructuredLogger.
        drop_empty: Remove prints that show only an empty line or decoration.
        set_up: Where to insert the call that sets up logging, in a file that gets a logger:
            in its main block ("main"), without one after the logger ("always"), or "never".

    Raises:
        ValueError: A value is invalid.
    """

    logger: str = "logger"
    level: str = "auto"
    line_length: int = 100
    assume_structured: bool = False
    drop_empty: bool = False
    set_up: str = "main"

    def __post_init__(self) -> None:
        if not self.logger.isidentifier() or keyword.iskeyword(self.logger):
            raise ValueError(f"the logger's name must be a Python name, not {self.logger!r}")
        if self.level != "auto" and self.level not in LEVELS:
            raise ValueError(f"the level must be auto or one of {', '.join(LEVELS)}")
        if self.set_up not in SET_UP:
            raise ValueError(f"set_up must be one of {', '.join(SET_UP)}")
        if self.line_length < 1:
            raise ValueError("the line length must be at least 1")


@dataclass(frozen=True, slots=True)
class Finding:
    """One use of print.

    Attributes:
        line: First line, from 1, in the file or in the cell.
        column: First column, from 0, in characters.
        status: "convert", "left" or "kept".
        old: Its source.
        new: Its replacement, if it is converted; an empty string removes it.
        level: The level of the new call.
        reason: Why it stays.
        note: A remark on the conversion.
        cell: The cell of a notebook, from 1.
    """

    line: int
    column: int
    status: Status
    old: str
    new: str | None = None
    level: str | None = None
    reason: str | None = None
    note: str | None = None
    cell: int | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the finding for JSON, without fields that do not apply."""
        names = ("cell", "line", "column", "status", "level", "old", "new", "reason", "note")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(slots=True)
class FileReport:
    """The findings in one file.

    Attributes:
        path: The file, as the user named it.
        findings: Every use of print, in file order.
        added: Additional lines that the converted file needs: an import, a logger.
        added_at: The line before which they are inserted, from 1.
        set_up: The call that sets up logging for the file; "" if it has one, or needs none.
        set_up_at: The line before which it is inserted, from 1; 0: it is not.
        cell: The cell of a notebook to which `added_at` belongs, from 1; 0 in a module.
        source: The original text.
        result: The converted text; equal to `source` if there is nothing to do.
        error: Why the file could not be examined or written.
    """

    path: str
    findings: list[Finding] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    added_at: int = 0
    set_up: str = ""
    set_up_at: int = 0
    cell: int = 0
    source: str = ""
    result: str = ""
    error: str | None = None

    def count(self, status: Status) -> int:
        """Count the findings of a status."""
        return sum(finding.status == status for finding in self.findings)

    def to_dict(self) -> dict[str, object]:
        """Return the report for JSON."""
        return {
            "path": self.path,
            "error": self.error,
            "added": self.added,
            "added_at": self.added_at,
            "set_up": self.set_up,
            "set_up_at": self.set_up_at,
            **({"cell": self.cell} if self.cell else {}),
            "prints": [finding.to_dict() for finding in self.findings],
        }
