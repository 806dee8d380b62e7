"""What one run is, in few figures: a row of the table of runs."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foundry_fastlog.analysis.accumulate import MetricStats, seconds_between, stats_of
from foundry_fastlog.analysis.where import ABSENT
from foundry_fastlog.base.formatting import jsonable, text_of
from foundry_fastlog.reading.run import Run
from foundry_fastlog.reading.start_states import StartReport
from foundry_fastlog.run.files import Writer

__all__ = [
    "ROOTS",
    "STALLED_AFTER_S",
    "STATES",
    "RunSummary",
    "is_settled",
    "read_summary",
    "state_of",
    "sum_up",
]

#: A run that is running, but has no new metrics or timings for so long, is stalled.
STALLED_AFTER_S = 600.0

#: What a run can be.
STATES = ("running", "stalled", "ended", "failed", "killed", "unknown", "unreadable")

_STATISTICS = ("first", "last", "min", "max", "mean", "count", "nonfinite")
_FIELDS = ("path", "name", "run", "state", "error", "starts", "started", "ended", "duration")
_MORE_FIELDS = ("step", "ranks", "host", "git", "bytes", "complete", "tags", "config")

#: With what names of an expression about a run begin.
ROOTS = (*_FIELDS, *_MORE_FIELDS, *_STATISTICS)

# How the state of a start is called as that of a run.
_STATE_OF = {"closed": "ended", "exception": "failed", "signal": "failed"}
_EPOCH = " (epoch)"


@dataclass(frozen=True)
class RunSummary:
    """One run.

    Attributes:
        path: Its directory.
        run: Its path below the directory that was searched.
        name: The name in its ``run.json``, or else that of its directory.
        state: ``running``; ``stalled``: running, but nothing new for a time; ``ended``; ``failed``,
            by an exception or a signal; ``killed``; ``unknown``: nobody can say from here;
            ``unreadable``.
        error: What it failed with, or why it cannot be read; or ``""``.
        starts: How many starts it has.
        started: When its first start began (UTC), or ``""``.
        ended: When its last start ended, or recorded last if that was killed; ``""`` while it runs.
        duration_s: Seconds that its starts took together, each from its begin to its end or to its
            last metrics; None if that is unknown.
        step: The highest step in its metrics, None if there is none.
        ranks: How many ranks recorded.
        host: Where its last start began, or ``""``.
        git: Git commit of its last start, or ``""``.
        bytes: Size of its stream files.
        complete: Whether nothing is missing in it; None where nobody looked.
        config: Its configuration: that of its last start which had one.
        metrics: Its metrics by name; values of epoch summaries under their key followed by
            `` (epoch)``.
    """

    path: Path
    run: str
    name: str
    state: str
    error: str = ""
    starts: int = 0
    started: str = ""
    ended: str = ""
    duration_s: float | None = None
    step: int | None = None
    ranks: int = 0
    host: str = ""
    git: str = ""
    bytes: int = 0
    complete: bool | None = None
    config: dict[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, MetricStats] = field(default_factory=dict)

    def look_up(self, root: str) -> Any:  # noqa: ANN401 - any JSON
        """Return what a name of an expression begins with; see ``where``."""
        if root in _STATISTICS:
            return _Statistic(self.metrics, root)
        if root == "config":
            return self.config
        if root == "tags":
            return self.config.get("tags", ABSENT)
        if root == "complete":
            return self.is_complete
        if root == "path":
            return os.fspath(self.path)
        value = getattr(self, "duration_s" if root == "duration" else root, None)
        return ABSENT if value is None or value == "" else value

    @functools.cached_property
    def is_complete(self) -> bool:
        """Whether nothing is missing in it; it is read to its end where nobody looked."""
        if self.complete is not None:
            return self.complete
        try:
            return _is_complete(Run(self.path))
        except OSError:
            return False

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; NaN and infinities become ``nan``, ``inf`` and ``-inf``."""
        result: dict[str, Any] = jsonable(replace(self, config={}, metrics={}))
        result["config"] = self.config  # already JSON, and perhaps deeply nested
        result["metrics"] = {name: jsonable(stats) for name, stats in self.metrics.items()}
        return result


class _Statistic(Mapping[str, Any]):
    """One figure of each metric, by name; that of an epoch's values where its steps have none."""

    def __init__(self, metrics: Mapping[str, MetricStats], name: str) -> None:
        self._metrics = metrics
        self._name = name

    def __getitem__(self, metric: str) -> Any:  # noqa: ANN401 - any JSON
        key = metric if metric in self._metrics else f"{metric}{_EPOCH}"
        value = getattr(self._metrics[key], self._name)
        if value is None:
            raise KeyError(metric)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)


def read_summary(
    path: Path, run: str, *, idle_s: float = 0.0, stalled_after_s: float, complete: bool
) -> tuple[RunSummary, bool]:
    """Read a run.

    Args:
        path: Its directory.
        run: Its path below the directory that was searched.
        idle_s: For how long nothing was recorded in it.
        stalled_after_s: After how long it is stalled.
        complete: Whether to look if it is complete.

    Returns:
        The summary; and whether it stays as it is until a file of the run changes.
    """
    try:
        opened = Run(path)
        found, settled = sum_up(opened, run, idle_s=idle_s, stalled_after_s=stalled_after_s)
        return replace(found, complete=_is_complete(opened)) if complete else found, settled
    except OSError as error:
        said = f"cannot be read: {error.strerror or error}"
        return RunSummary(path, run, path.name, "unreadable", said), False


def sum_up(
    opened: Run, run: str, *, idle_s: float, stalled_after_s: float
) -> tuple[RunSummary, bool]:
    """Sum up a run that is open; arguments and result as of ``read_summary``.

    Raises:
        OSError: It cannot be read.
    """
    reports = opened.report_starts()
    found = _read(opened, run, reports)
    if found.state == "running" and idle_s > stalled_after_s:
        found = replace(found, state="stalled")
    return found, is_settled(opened, reports)


def is_settled(run: Run, reports: Iterable[StartReport]) -> bool:
    """Whether a run changes only with its files: nobody records, and no ring is elsewhere."""
    private = os.fspath(run.path)
    rings = all(
        ring.outcome in ("quarantined", "absent")
        or (ring.outcome == "recoverable" and ring.ring.startswith(private))
        for ring in run.rings
    )
    return rings and all(report.state != "running" for report in reports)


def _read(run: Run, name: str, reports: list[StartReport]) -> RunSummary:
    sums, _ = run.sums("metrics", {})
    spans: dict[int, tuple[str, str]] = {}
    step = None
    metrics: dict[str, MetricStats] = {}
    if sums is not None:
        writers = [series.writer for series in run.series if series.stream == "metrics"]
        for writer, source in zip(writers, sums.sources(), strict=True):
            _extend(spans, run, writer, source[0], source[1])
            if source[4] is not None:
                step = source[4] if step is None else max(step, source[4])
        for found, ending in ((sums.metrics(), ""), (sums.summaries(), _EPOCH)):
            for one in found:
                metrics[one["name"] + ending] = stats_of(one, one["name"] + ending)
    last = reports[-1] if reports else None
    config = next((report.config for report in reversed(reports) if report.config), None)
    if config is None:
        config = run.info.get("config")
    return RunSummary(
        path=run.path,
        run=name,
        name=text_of(run.info.get("name")) or run.path.resolve().name,
        state=state_of(reports),
        error=last.error if last is not None else "",
        starts=len(run.starts),
        started=min((report.started for report in reports if report.started), default="")
        or min((first for first, _ in spans.values()), default=""),
        ended=_ended(last, spans),
        duration_s=_duration(reports, spans),
        step=step,
        ranks=len(run.ranks),
        host=text_of((last.entry if last is not None else run.info).get("host")),
        git=text_of((last.entry if last is not None else {}).get("git_hash"))
        or text_of(run.info.get("git_hash")),
        bytes=sum(series.size for series in run.series),
        config=config if isinstance(config, dict) else {},
        metrics=metrics,
    )


def _extend(
    spans: dict[int, tuple[str, str]], run: Run, writer: Writer, first: str, last: str
) -> None:
    """Take in when a writer recorded first and last."""
    if first:
        number = run.number_of(writer)
        begin, end = spans.get(number, (first, last))
        spans[number] = min(begin, first), max(end, last)


def state_of(reports: Sequence[StartReport]) -> str:
    """Return what a run is, by its starts: all of ``STATES`` but stalled and unreadable."""
    if any(report.state == "running" for report in reports):
        return "running"
    state = reports[-1].state if reports else "unknown"
    return _STATE_OF.get(state, state if state in STATES else "unknown")


def _ended(last: StartReport | None, spans: Mapping[int, tuple[str, str]]) -> str:
    if last is None or last.state == "running":
        return ""
    return last.ended or spans.get(last.number, ("", ""))[1]


def _duration(reports: Iterable[StartReport], spans: Mapping[int, tuple[str, str]]) -> float | None:
    taken = []
    for report in reports:
        first, last = spans.get(report.number, ("", ""))
        begin = min((one for one in (report.started, first) if one), default="")
        seconds = seconds_between(begin, max(report.ended, last))
        if seconds is not None:
            taken.append(max(0.0, seconds))  # a clock may have gone back
    return sum(taken) if taken else None


def _is_complete(run: Run) -> bool:
    return not run.unread and all(check.complete for check in run.check())
