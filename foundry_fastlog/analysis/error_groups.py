"""The errors of a run, equal ones together."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from foundry_fastlog.base.fingerprint import normalised
from foundry_fastlog.base.formatting import jsonable, text_of
from foundry_fastlog.reading.counting import Starts, is_marker
from foundry_fastlog.reading.lines import Record
from foundry_fastlog.reading.run import Run

__all__ = ["ErrorGroup", "group_errors"]


@dataclass
class ErrorGroup:
    """Errors of a run that are equal: they have one fingerprint.

    Attributes:
        fingerprint: 16 hex digits; ``""`` for events, and in runs of old versions. Then errors are
            equal whose class and message are, without numbers and paths.
        error_type: Class of the exception, or ``""``.
        message: What the first one said.
        event: What it is instead of an exception, such as ``nonfinite``, or ``""``.
        level: The level of the first one.
        logger: The logger of the first one.
        count: How many there are.
        first: Timestamp of the first one (UTC).
        last: Timestamp of the last one.
        first_step: The first step that one of them has, None if there is none.
        last_step: The last step that one has.
        ranks: The ranks that had them, ascending.
        traceback: That of the first one that has one, or ``""``.
    """

    fingerprint: str
    error_type: str
    message: str
    event: str
    level: str
    logger: str
    count: int = 0
    first: str = ""
    last: str = ""
    first_step: int | None = None
    last_step: int | None = None
    ranks: tuple[int, ...] = ()
    traceback: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result


def group_errors(
    run: Run, *, starts: Starts = "latest", rank: int | None = None
) -> list[ErrorGroup]:
    """Group the errors of a run by their fingerprints.

    Args:
        run: The run, from ``read_run``.
        starts: ``"latest"``, ``"all"`` or a number; see ``Run.lines``. Errors never stop to count.
        rank: Only the errors of this rank.

    Returns:
        The groups, the most frequent first, and of equal ones the earliest.

    Raises:
        ValueError: An unknown start.
    """
    groups: dict[Hashable, ErrorGroup] = {}
    for stamp, series, record, _ in run.entries(["errors"], starts=starts, rank=rank):
        if not is_marker(record):
            _add(groups, stamp, series.writer.rank, record)
    return sorted(groups.values(), key=lambda group: (-group.count, group.first))


def _add(groups: dict[Hashable, ErrorGroup], stamp: str, rank: int, record: Record) -> None:
    kind, event = text_of(record.get("error_type")), text_of(record.get("event"))
    said = text_of(record.get("error_message")) or record["message"]
    mark = text_of(record.get("fingerprint"))
    group = groups.setdefault(
        mark or (kind, event, normalised(said)),
        ErrorGroup(mark, kind, said, event, record["level"], text_of(record.get("logger"))),
    )
    group.count += 1
    group.first = min(group.first or stamp, stamp)
    group.last = max(group.last, stamp)
    if (step := record.get("step")) is not None:
        group.first_step = step if group.first_step is None else group.first_step
        group.last_step = step
    if rank not in group.ranks:
        group.ranks = tuple(sorted({*group.ranks, rank}))
    group.traceback = group.traceback or text_of(record.get("traceback"))
