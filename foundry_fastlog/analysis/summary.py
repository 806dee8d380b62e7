"""The figures of a run, as returned by ``summarize``."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_fastlog.analysis.accumulate import MetricStats
from foundry_fastlog.base.formatting import jsonable
from foundry_fastlog.run.checks import Problem, SeriesCheck

if TYPE_CHECKING:  # loaded only if a run has rings, or on request
    from foundry_fastlog.reading.found_rings import RingReport
    from foundry_fastlog.reading.start_states import StartReport

__all__ = ["AttemptSummary", "ErrorSummary", "FileSummary", "Summary", "TimingSummary"]


@dataclass(frozen=True)
class TimingSummary:
    """One timer name over a run. Durations are in seconds.

    Attributes:
        name: The timer's name; with the device in parentheses for the time on that device.
        count: Blocks timed.
        total_s: Sum of their durations.
        mean_s: Mean duration.
        p50_s: Median duration.
        p95_s: 95th percentile.
        p99_s: 99th percentile.
        max_s: Longest duration.
        share: What of the sum was within blocks named ``step``, divided by the sum of these; None
            if nothing was. Where no ``step`` was timed, the sum divided by the wall time of the
            processes. None if nothing can be divided by. Above 1 if threads overlap.
        errors: Blocks that ended with an exception.
        sampled: Whether the percentiles are of a random sample (over 131,072 blocks).
    """

    name: str
    count: int
    total_s: float
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float
    share: float | None
    errors: int
    sampled: bool


@dataclass(frozen=True)
class ErrorSummary:
    """One recorded error or event.

    Attributes:
        timestamp: When it was recorded (UTC text).
        level: Its level.
        error_type: Class of the exception, ``""`` if the line has none.
        message: The message recorded with it, or the exception's own.
        step: Training step, None if unknown.
        label: Label of the process.
    """

    timestamp: str
    level: str
    error_type: str
    message: str
    step: int | None
    label: str


@dataclass(frozen=True)
class FileSummary:
    """One stream file.

    Attributes:
        name: File name inside the run.
        stream: Its stream.
        label: Label of its process.
        segment: Number of the segment.
        bytes: Size when the run was opened.
    """

    name: str
    stream: str
    label: str
    segment: int
    bytes: int


@dataclass
class AttemptSummary:
    """One process that recorded in the run.

    Attributes:
        label: Its label, ``""`` for the main process's first attempt.
        rank: Its rank.
        attempt: Its attempt.
        stamp: Start time in its file names, or ``""``.
        first: Timestamp of its earliest line, ``""`` without lines.
        last: Timestamp of its latest line.
        wall_s: Seconds from the start of its first block or line to its last line.
        first_step: Lowest step in its metrics, None if there is none.
        last_step: Highest step in its metrics.
        lines: Lines per stream, including drop markers.
    """

    label: str
    rank: int
    attempt: int
    stamp: str
    first: str = ""
    last: str = ""
    wall_s: float = 0.0
    first_step: int | None = None
    last_step: int | None = None
    lines: dict[str, int] = field(default_factory=dict)


@dataclass
class Summary:
    """The summary of a run.

    Attributes:
        path: The run directory.
        info: The contents of ``run.json``, or empty.
        first: Timestamp of the earliest line, ``""`` in a run without lines.
        last: Timestamp of the latest line.
        wall_s: Seconds from the start of its first block or line to its last line.
        first_step: Lowest step in the metrics, None if there is none.
        last_step: Highest step in the metrics.
        ranks: Ranks that recorded.
        metrics: Per metric, in the order of first appearance; values of epoch summaries under their
            key followed by `` (epoch)``.
        timings: Per timer name, largest total first.
        timing_base: What shares are relative to: ``"step"`` or ``"wall"``.
        timing_base_s: Its total, in seconds.
        missing: Per metric, or timer and device, how many values are missing, by reason.
        errors_by_type: Count of errors per exception class.
        events: Count per name of events in the errors stream that are not exceptions.
        errors_by_level: Count of errors per level.
        log_by_level: Count of messages per level.
        last_errors: The latest errors, oldest first.
        last_events: The latest of those events.
        dropped: Dropped records per stream; streams without any are omitted.
        left_out: Values omitted because a later start recorded them again, or the process went back
            to an earlier step, by stream and name.
        starts: The state of each start that is summed up, or of the one.
        attempts: Per process, by rank and start.
        files: Per stream file.
        checks: Completeness per stream and process.
        rings: One report per ring file of the run's processes. Lines of killed processes are read
            from them.
        unread: Rings and files of the run that cannot be read; see ``Run.unread``.
        problems: What is wrong with the files.
        problems_omitted: Number of further problems.
        curves: Points ``(step, value)`` per numeric metric, reduced to at most 2048.
    """

    path: Path
    info: dict[str, Any]
    first: str = ""
    last: str = ""
    wall_s: float = 0.0
    first_step: int | None = None
    last_step: int | None = None
    ranks: tuple[int, ...] = ()
    metrics: list[MetricStats] = field(default_factory=list)
    timings: list[TimingSummary] = field(default_factory=list)
    timing_base: str = "wall"
    timing_base_s: float = 0.0
    missing: dict[str, dict[str, int]] = field(default_factory=dict)
    errors_by_type: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    errors_by_level: dict[str, int] = field(default_factory=dict)
    log_by_level: dict[str, int] = field(default_factory=dict)
    last_errors: list[ErrorSummary] = field(default_factory=list)
    last_events: list[ErrorSummary] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    starts: list[StartReport] = field(default_factory=list)
    attempts: list[AttemptSummary] = field(default_factory=list)
    files: list[FileSummary] = field(default_factory=list)
    checks: list[SeriesCheck] = field(default_factory=list)
    rings: list[RingReport] = field(default_factory=list)
    unread: int = 0
    problems: list[Problem] = field(default_factory=list)
    problems_omitted: int = 0
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every accepted record is there, once and readable."""
        return not self.unread and all(check.complete for check in self.checks)

    @property
    def bytes(self) -> int:
        """Total bytes of all stream files."""
        return sum(file.bytes for file in self.files)

    def metric(self, name: str) -> MetricStats | None:
        """Look up a metric by its key; None if the run has no such metric."""
        return next((stats for stats in self.metrics if stats.name == name), None)

    def keep_metrics(self, patterns: Collection[str]) -> None:
        """Keep the metrics whose names fit one of the patterns (``val_*``), and their curves."""

        def fits(name: str) -> bool:
            names = (name, name.removesuffix(" (epoch)"))
            return any(n == p or fnmatchcase(n, p) for n in names for p in patterns)

        self.metrics = [stats for stats in self.metrics if fits(stats.name)]
        self.curves = {name: points for name, points in self.curves.items() if fits(name)}

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the curves and the series as JSON values.

        NaN and infinities, which strict JSON does not have, become the strings ``nan``, ``inf`` and
        ``-inf``.
        """
        result: dict[str, Any] = {"complete": self.complete, "bytes": self.bytes}
        for item in dataclasses.fields(self):
            if item.name == "checks":
                result["checks"] = [_check_dict(check) for check in self.checks]
            elif item.name == "info":
                result["info"] = self.info  # already JSON, and perhaps deeply nested
            elif item.name != "curves":
                result[item.name] = jsonable(getattr(self, item.name))
        return result


def _check_dict(check: SeriesCheck) -> dict[str, Any]:
    result: dict[str, Any] = {
        "stream": check.series.stream,
        "label": check.series.writer.label,
        "complete": check.complete,
    }
    for item in dataclasses.fields(check):
        if item.name != "series":
            result[item.name] = jsonable(getattr(check, item.name))
    return result
