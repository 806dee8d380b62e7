"""Summarise a run: metrics, timings, errors, files and completeness.

``summarize(run)`` computes, ``render(summary, console)`` displays. The first needs only this
package, the second also rich.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from foundry_fastlog.analysis.accumulate import MetricStats, percentile, seconds_between, stats_of
from foundry_fastlog.analysis.summary import (
    AttemptSummary,
    ErrorSummary,
    FileSummary,
    Summary,
    TimingSummary,
)
from foundry_fastlog.base.statistics import total_of
from foundry_fastlog.reading.counting import Starts, is_marker
from foundry_fastlog.reading.lines import Record
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.checks import SeriesCheck
from foundry_fastlog.run.files import STREAMS, Writer

if TYPE_CHECKING:  # of the extension
    from foundry_fastlog.reading.scan import MetricSum as _MetricSum
    from foundry_fastlog.reading.scan import TimerSum as _TimerSum

__all__ = [
    "AttemptSummary",
    "ErrorSummary",
    "FileSummary",
    "MetricStats",
    "Summary",
    "TimingSummary",
    "summarize",
]

#: The timer around a whole step: the shares of other timers are relative to its total.
STEP_TIMER = "step"

_LAST_ERRORS = 5


class _Summing:
    """The state of one pass over a run."""

    def __init__(self, run: Run, starts: Starts, rank: int | None) -> None:
        self.metrics: list[MetricStats] = []
        self.curves: dict[str, list[tuple[float, float]]] = {}
        self.timers: list[_TimerSum] = []
        self.missing: dict[str, dict[str, int]] = {}
        self.by_type: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.by_level: dict[str, Counter[str]] = {"errors": Counter(), "log": Counter()}
        self.last_errors: list[ErrorSummary] = []
        self.last_events: list[ErrorSummary] = []
        self.begun: dict[Writer, str] = {}  # when the earliest block of each did
        self.attempts = {
            writer: AttemptSummary(writer.label, writer.rank, writer.attempt, writer.stamp)
            for writer in run.writers
            if (isinstance(starts, str) or run.number_of(writer) == starts)
            and rank in (None, writer.rank)
        }

    def add_sums(
        self, run: Run, stream: str, starts: Starts, rank: int | None
    ) -> list[SeriesCheck]:
        """Add a stream that the native reader sums up."""
        first = {writer: attempt.first for writer, attempt in self.attempts.items()}
        found, checks = run.sums(stream, first, starts=starts, ranks=rank)
        if found is None:
            return checks
        for check, source in zip(checks, found.sources(), strict=True):
            attempt = self.attempts[check.series.writer]
            attempt.first, last, begun, first_step, last_step = source
            attempt.last = max(attempt.last, last)
            if begun:
                self.begun[check.series.writer] = begun
            if stream == "metrics":
                attempt.first_step, attempt.last_step = first_step, last_step
        # An epoch's values are not mixed with those of its steps.
        ending = " (system)" if stream == "system" else ""
        ordered = [(sums, ending) for sums in found.metrics()]
        ordered += [(sums, " (epoch)") for sums in found.summaries()]
        for sums, ending in sorted(ordered, key=_place_of):
            self._metric(sums, ending)
        if stream == "performance":
            self.timers = found.timers()
            for timer in self.timers:
                self._miss(timer["name"], timer["missing"])
        return checks

    def _metric(self, sums: _MetricSum, ending: str) -> None:
        name = sums["name"] + ending
        self.metrics.append(stats_of(sums, name))
        if sums["curve"]:
            self.curves[name] = sums["curve"]
        self._miss(name, sums["missing"])

    def _miss(self, name: str, reasons: list[tuple[str, int]]) -> None:
        if reasons:
            self.missing[name] = dict(Counter(dict(reasons)).most_common())

    def event(self, stream: str, record: Record, label: str) -> None:
        level = record["level"]
        self.by_level[stream][level] += 1
        if stream != "errors":
            return
        kind = str(record.get("error_type") or "")
        name = record.get("event")
        if isinstance(name, str) and not kind:
            self.events[name] += 1
            last = self.last_events
        else:
            self.by_type[kind] += 1
            last = self.last_errors
        last.append(
            ErrorSummary(
                timestamp=record["timestamp"],
                level=level,
                error_type=kind,
                message=record["message"] or str(record.get("error_message", "")),
                step=record.get("step"),
                label=label,
            )
        )
        del last[:-_LAST_ERRORS]


def summarize(run: Run, *, starts: Starts = "latest", rank: int | None = None) -> Summary:
    """Read a run once and summarise it.

    Args:
        run: The run, from ``read_run``.
        starts: ``"latest"``, ``"all"`` or a number; see ``Run.lines``.
        rank: Only what this rank recorded.

    Returns:
        The summary. ``complete`` and ``problems`` show whether lines are missing.

    Raises:
        ImportError: The extension is missing; the message says how to build it.
        ValueError: An unknown start, or a rank that did not record.
    """
    if rank is not None and rank not in run.ranks:
        known = ", ".join(map(str, run.ranks)) or "none"
        raise ValueError(f"{run.path} has no rank {rank}; it has {known}")
    state = _Summing(run, starts, rank)
    checks: list[SeriesCheck] = []
    for stream in ("metrics", "performance", "system"):
        checks += state.add_sums(run, stream, starts, rank)
    for stream in ("errors", "log"):
        for stamp, series, record, _ in run.entries(
            [stream], starts=starts, rank=rank, checks=checks
        ):
            attempt = state.attempts[series.writer]
            attempt.first = min(attempt.first, stamp) if attempt.first else stamp
            attempt.last = max(attempt.last, stamp)
            if not is_marker(record):
                state.event(stream, record, series.writer.label)
    summary = _finish(run, state, checks)
    summary.starts = [
        report
        for report in run.report_starts()
        if isinstance(starts, str) or report.number == starts
    ]
    return summary


def _finish(run: Run, state: _Summing, checks: list[SeriesCheck]) -> Summary:
    ranks = tuple(sorted({writer.rank for writer in state.attempts}))
    summary = Summary(run.path, run.info, ranks=ranks, checks=checks, rings=list(run.rings))
    dropped: Counter[str] = Counter()
    lines = {(check.series.writer, check.series.stream): check.lines for check in checks}
    for check in checks:
        dropped[check.series.stream] += check.dropped
    begins: dict[Writer, str] = {}
    summary.left_out = {s: dict(names) for s, names in run.left_out.items() if names}
    summary.dropped = {stream: count for stream, count in dropped.items() if count}
    for writer, attempt in state.attempts.items():
        begins[writer] = min(attempt.first, state.begun.get(writer, attempt.first))
        attempt.wall_s = seconds_between(begins[writer], attempt.last) or 0.0
        attempt.lines = {s: lines[writer, s] for s in STREAMS if (writer, s) in lines}
        summary.attempts.append(attempt)
    seen = [attempt for attempt in summary.attempts if attempt.first]
    if seen:
        summary.first = min(attempt.first for attempt in seen)
        summary.last = max(attempt.last for attempt in seen)
        begun = min(begin for begin in begins.values() if begin)
        summary.wall_s = seconds_between(begun, summary.last) or 0.0
    summary.first_step = min((a.first_step for a in seen if a.first_step is not None), default=None)
    summary.last_step = max((a.last_step for a in seen if a.last_step is not None), default=None)
    summary.metrics = state.metrics
    summary.curves = state.curves
    _add_timings(summary, [timer for timer in state.timers if timer["count"]])
    summary.missing = state.missing
    summary.errors_by_type = dict(state.by_type.most_common())
    summary.events = dict(state.events.most_common())
    summary.errors_by_level = dict(state.by_level["errors"].most_common())
    summary.log_by_level = dict(state.by_level["log"].most_common())
    summary.last_errors = state.last_errors
    summary.last_events = state.last_events
    summary.files = [
        FileSummary(
            segment.path.name,
            series.stream,
            series.writer.label,
            segment.name.segment,
            segment.size,
        )
        for series in run.series
        if series.writer in state.attempts
        for segment in series.segments
    ]
    summary.unread = run.unread
    summary.problems = run.problems
    summary.problems_omitted = run.problems_omitted
    return summary


def _add_timings(summary: Summary, timers: list[_TimerSum]) -> None:
    step = next((timer for timer in timers if timer["name"] == STEP_TIMER), None)
    if step is not None:
        summary.timing_base = "step"
        summary.timing_base_s = step["total"]
    else:
        summary.timing_base_s = total_of(
            [attempt.wall_s for attempt in summary.attempts if "performance" in attempt.lines]
        )
    base = summary.timing_base_s
    for timer in timers:
        ascending = timer["ascending"]
        seconds = timer["total"] if step is None else timer["in_step"]
        summary.timings.append(
            TimingSummary(
                name=timer["name"],
                count=timer["count"],
                total_s=timer["total"],
                mean_s=timer["total"] / timer["count"],
                p50_s=percentile(ascending, 0.50),
                p95_s=percentile(ascending, 0.95),
                p99_s=percentile(ascending, 0.99),
                max_s=timer["max"],
                share=seconds / base if base > 0 and (seconds or step is None) else None,
                errors=timer["errors"],
                sampled=timer["count"] > len(ascending),
            )
        )
    summary.timings.sort(key=lambda timing: -timing.total_s)


def _place_of(metric: tuple[_MetricSum, str]) -> tuple[int, int, int, int]:
    """Return where a metric stood first: time, writer, row, and place in the line."""
    return metric[0]["place"]
