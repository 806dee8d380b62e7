"""Summarise a run: metrics, timings, errors, files and completeness, in one pass.

``summarize(run)`` computes, ``render(summary, console)`` displays. The first needs only this
package, the second also rich.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from foundry_fastlog.analysis.accumulate import (
    BATCH,
    Durations,
    MetricStats,
    Values,
    percentile,
    total,
)
from foundry_fastlog.analysis.summary import (
    AttemptSummary,
    ErrorSummary,
    FileSummary,
    Summary,
    TimingSummary,
)
from foundry_fastlog.reading.counting import Starts, is_marker
from foundry_fastlog.reading.lines import Record, restore_nonfinite
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.checks import SeriesCheck
from foundry_fastlog.run.files import STREAMS

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

_FOLD_AT = 32 * BATCH  # buffered values of all metrics
_LAST_ERRORS = 5


class _Summing:
    """The state of one pass over a run."""

    def __init__(self, run: Run) -> None:
        self.values: dict[str, Values] = {}
        self.durations: dict[str, Durations] = {}
        self.missing: dict[str, Counter[str]] = {}
        self.by_type: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.by_level: dict[str, Counter[str]] = {"errors": Counter(), "log": Counter()}
        self.last_errors: list[ErrorSummary] = []
        self.last_events: list[ErrorSummary] = []
        self.attempts = {
            writer: AttemptSummary(writer.label, writer.rank, writer.attempt, writer.stamp)
            for writer in run.writers
        }
        self.buffered = 0

    def metrics(self, stream: str, record: Record, attempt: AttemptSummary) -> None:
        step = record.get("step")
        body = record.get("metrics")
        ending = ""
        if stream == "system":
            body = record["system"]
            ending = " (system)"
        elif body is None:  # an epoch's values are not mixed with those of its steps
            body = record["summary"]
            ending = " (epoch)"
        elif step is not None:
            if attempt.first_step is None or step < attempt.first_step:
                attempt.first_step = step
            if attempt.last_step is None or step > attempt.last_step:
                attempt.last_step = step
        if "nonfinite" in record:
            restore_nonfinite(record)
        values = self.values
        for key, value in body.items():
            if ending:
                key += ending
            metric = values.get(key)
            if metric is None:
                metric = values[key] = Values(key)
            metric.values.append(value)
            metric.steps.append(step)
        if names := record.get("missing"):
            for key, reason in names.items():
                if body.get(key, 0) is None:
                    self._miss(key + ending, reason)
        self.buffered += len(body)
        if self.buffered >= _FOLD_AT:
            for metric in values.values():
                metric.fold()
            self.buffered = 0

    def performance(self, record: Record) -> None:
        name = record["name"]
        self._time(name, record["duration_s"], failed="error" in record)
        if record.get("device") is not None:
            name = f"{name} ({record['device']})"
            taken = record.get("device_duration_s")
            if taken is not None:
                self._time(name, taken)
            elif reason := (record.get("missing") or {}).get("device_duration_s"):
                self._miss(name, reason)

    def _time(self, name: str, duration_s: float, *, failed: bool = False) -> None:
        timer = self.durations.get(name)
        if timer is None:
            timer = self.durations[name] = Durations()
        timer.values.append(duration_s)
        if failed:
            timer.errors += 1
        if len(timer.values) >= BATCH:
            timer.fold()

    def _miss(self, name: str, reason: str) -> None:
        self.missing.setdefault(name, Counter())[reason] += 1

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


def summarize(run: Run, *, starts: Starts = "latest") -> Summary:
    """Read a run once and summarise it.

    Args:
        run: The run, from ``read_run``.
        starts: ``"latest"``, ``"all"`` or a number; see ``Run.lines``.

    Returns:
        The summary. ``complete`` and ``problems`` show whether lines are missing.
    """
    state = _Summing(run)
    checks: list[SeriesCheck] = []
    for stream in STREAMS:
        for stamp, series, record, _ in run.entries([stream], starts=starts, checks=checks):
            attempt = state.attempts[series.writer]
            if not attempt.first or stamp < attempt.first:
                attempt.first = stamp
                if stream == "performance" and not is_marker(record):
                    attempt.wall_s = max(attempt.wall_s, record["duration_s"])
            if stamp > attempt.last:
                attempt.last = stamp
            if is_marker(record):
                continue
            if stream in ("metrics", "system"):
                state.metrics(stream, record, attempt)
            elif stream == "performance":
                state.performance(record)
            else:
                state.event(stream, record, series.writer.label)
    return _finish(run, state, checks)


def _finish(run: Run, state: _Summing, checks: list[SeriesCheck]) -> Summary:
    summary = Summary(run.path, run.info, ranks=run.ranks, checks=checks, rings=list(run.rings))
    dropped: Counter[str] = Counter()
    lines = {(check.series.writer, check.series.stream): check.lines for check in checks}
    for check in checks:
        dropped[check.series.stream] += check.dropped
    summary.starts = run.report_starts()
    summary.left_out = {s: dict(names) for s, names in run.left_out.items() if names}
    summary.dropped = {stream: count for stream, count in dropped.items() if count}
    for writer, attempt in state.attempts.items():
        # Until here, wall_s holds the duration of the first block: a timing is stamped at its end.
        attempt.wall_s += _seconds(attempt.first, attempt.last)
        attempt.lines = {s: lines[writer, s] for s in STREAMS if (writer, s) in lines}
        summary.attempts.append(attempt)
    seen = [attempt for attempt in summary.attempts if attempt.first]
    if seen:
        summary.first = min(attempt.first for attempt in seen)
        summary.last = max(attempt.last for attempt in seen)
        summary.wall_s = _seconds(summary.first, summary.last)
    summary.first_step = min((a.first_step for a in seen if a.first_step is not None), default=None)
    summary.last_step = max((a.last_step for a in seen if a.last_step is not None), default=None)
    for name, values in state.values.items():
        summary.metrics.append(values.stats())
        if points := values.curve.points():
            summary.curves[name] = points
    _add_timings(summary, state.durations)
    summary.missing = {name: dict(found.most_common()) for name, found in state.missing.items()}
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
        for segment in series.segments
    ]
    summary.unread = run.unread
    summary.problems = run.problems
    summary.problems_omitted = run.problems_omitted
    return summary


def _add_timings(summary: Summary, durations: dict[str, Durations]) -> None:
    for timer in durations.values():
        timer.fold()
    if STEP_TIMER in durations:
        summary.timing_base = "step"
        summary.timing_base_s = durations[STEP_TIMER].total
    else:
        summary.timing_base_s = total(
            [attempt.wall_s for attempt in summary.attempts if "performance" in attempt.lines]
        )
    base = summary.timing_base_s
    for name, timer in durations.items():
        ascending = timer.sorted_samples()
        summary.timings.append(
            TimingSummary(
                name=name,
                count=timer.count,
                total_s=timer.total,
                mean_s=timer.total / timer.count,
                p50_s=percentile(ascending, 0.50),
                p95_s=percentile(ascending, 0.95),
                p99_s=percentile(ascending, 0.99),
                max_s=timer.max,
                share=timer.total / base if base > 0 else None,
                errors=timer.errors,
                sampled=timer.sampled,
            )
        )
    summary.timings.sort(key=lambda timing: -timing.total_s)


def _seconds(first: str, last: str) -> float:
    """Return the seconds between two timestamps; 0 if one cannot be parsed."""
    try:
        begin, end = (datetime.fromisoformat(t.replace("Z", "+00:00")) for t in (first, last))
        return (end - begin).total_seconds()
    except (ValueError, TypeError):  # not a time, or one without and one with a time zone
        return 0.0
