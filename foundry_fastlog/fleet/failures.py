"""What went wrong in many runs, equal errors together."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from foundry_fastlog.base.fingerprint import normalised
from foundry_fastlog.base.formatting import jsonable
from foundry_fastlog.fleet.rows import Row

__all__ = ["Failure", "group_failures"]

_ERRORS = ("ERROR", "CRITICAL")


@dataclass
class Failure:
    """Errors of many runs that are equal: they have one fingerprint.

    Attributes:
        fingerprint: As that of an ``ErrorGroup``; ``""`` where only the end of runs tells of it.
        error_type: Class of the exception, the name of the signal, or ``""``.
        message: What the first one said.
        event: What it is instead of an exception, such as ``nonfinite``, or ``""``.
        count: How many errors there are in all runs.
        ended: How many runs ended with it.
        runs: The runs that had it, by their paths below the directory that was searched.
        hosts: Where those began last, as far as that is known.
        first: Timestamp of the first one (UTC), or ``""``.
        last: Timestamp of the last one.
        traceback: The end of one traceback, or ``""``.
    """

    fingerprint: str
    error_type: str
    message: str
    event: str
    count: int = 0
    ended: int = 0
    runs: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    first: str = ""
    last: str = ""
    traceback: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result

    def add(self, row: Row, first: str, last: str) -> None:
        """Take in that a run had it, and when."""
        if not self.runs or self.runs[-1] != row.found.name:
            self.runs.append(row.found.name)
        if row.summary.host and row.summary.host not in self.hosts:
            self.hosts.append(row.summary.host)
        self.first = min(filter(None, (self.first, first)), default="")
        self.last = max(self.last, last)


def group_failures(rows: Iterable[Row]) -> list[Failure]:
    """Group the errors of runs, and with what runs ended, by fingerprint.

    Args:
        rows: The runs.

    Returns:
        The failures: first what ended the most runs, then what was in the most runs.
    """
    failures: dict[Hashable, Failure] = {}
    for row in sorted(rows, key=lambda one: one.found.name):
        own: dict[tuple[str, str], Failure] = {}
        for group in row.error_groups():
            if group["level"] not in _ERRORS and not group["event"]:
                continue
            failure = _add(failures, row, group)
            own[group["error_type"], normalised(group["message"])] = failure
        if row.summary.state == "failed":
            _add_end(failures, row, own)
    return sorted(
        failures.values(), key=lambda one: (-one.ended, -len(one.runs), -one.count, one.first)
    )


def _add(failures: dict[Hashable, Failure], row: Row, group: dict[str, Any]) -> Failure:
    kind, event, said = group["error_type"], group["event"], group["message"]
    mark = group["fingerprint"]
    failure = failures.setdefault(
        mark or (kind, event, normalised(said)), Failure(mark, kind, said, event)
    )
    failure.count += group["count"]
    failure.traceback = failure.traceback or group["traceback"]
    failure.add(row, group["first"], group["last"])
    return failure


def _add_end(
    failures: dict[Hashable, Failure], row: Row, own: dict[tuple[str, str], Failure]
) -> None:
    """Take in with what a run ended: one of its own errors, or one that nobody else noted."""
    kind, _, said = row.summary.error.partition(": ")
    failure = own.get((kind, normalised(said)))
    if failure is None:
        failure = failures.setdefault((kind, "", normalised(said)), Failure("", kind, said, ""))
        failure.count += 1
        failure.add(row, row.summary.ended, row.summary.ended)
    failure.ended += 1
