"""What a worker finds out about one run, as a line that is kept until the run changes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from foundry_fastlog.analysis.error_groups import group_errors
from foundry_fastlog.analysis.run_summary import RunSummary, sum_up
from foundry_fastlog.analysis.runs_cache import pack, unpack
from foundry_fastlog.reading.run import read_run
from foundry_fastlog.run.tree import FoundRun

__all__ = ["Row", "read_row", "reason_of", "row_of", "unreadable"]

_MOST_TEXT = 4000  # of a message, and the end of a traceback
_MOST_GROUPS = 200


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        found: The run as it was found.
        summary: What it is.
        errors: Its kinds of errors as a line of JSON.
        line: The summary as it is kept until a file of the run changes; None where it may change
            without that, or cannot be kept.
    """

    found: FoundRun
    summary: RunSummary
    errors: bytes = b"[]"
    line: bytes | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the line instead of the summary: metrics that nobody asks for are never made."""
        return row_of, (self.found, self.line or self.summary, self.errors)

    def error_groups(self) -> list[dict[str, Any]]:
        """Return its kinds of errors; see ``ErrorGroup``."""
        groups: list[dict[str, Any]] = json.loads(self.errors)
        return groups


def row_of(found: FoundRun, known: RunSummary | bytes, errors: bytes) -> Row:
    """Return a row of what is known: of a summary, or of a line that is kept."""
    if isinstance(known, bytes):
        return Row(found, unpack(known, found.path, found.name), errors, known)
    return Row(found, known, errors)


def unreadable(found: FoundRun, reason: str) -> Row:
    """Return the row of a run that cannot be read."""
    return Row(found, RunSummary(found.path, found.name, found.path.name, "unreadable", reason))


def read_row(stalled_after_s: float, found: FoundRun) -> Row:
    """Read a run, on a worker; whatever is wrong with it is said in its row.

    Args:
        stalled_after_s: After how long a run that is running is stalled.
        found: The run.
    """
    idle_s = time.time() - found.recorded if found.recorded else 0.0
    try:
        run = read_run(found.path)
        summary, settled = sum_up(run, found.name, idle_s=idle_s, stalled_after_s=stalled_after_s)
        groups = group_errors(run) if "errors" in run.streams else []
        errors = json.dumps([_plain(group.to_dict()) for group in groups[:_MOST_GROUPS]]).encode()
    except Exception as error:  # noqa: BLE001 - of one run among thousands
        return unreadable(found, reason_of(found, error))
    return Row(found, summary, errors, pack(summary) if settled else None)


def reason_of(found: FoundRun, error: Exception) -> str:
    """Say why a run could not be read."""
    if not found.path.exists():
        return "is gone: it was removed meanwhile"
    said = error.strerror if isinstance(error, OSError) else None
    return f"cannot be read: {said or f'{type(error).__name__}: {error}'}"


def _plain(group: dict[str, Any]) -> dict[str, Any]:
    cut = {"message": group["message"][:_MOST_TEXT], "traceback": group["traceback"][-_MOST_TEXT:]}
    return {**group, **cut}
