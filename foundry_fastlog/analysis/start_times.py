"""What one process did with its time in one start of a run: its steps, and its timed blocks.

Times are whole microseconds since 1970: sums of them are exact.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from foundry_fastlog.analysis.clocks import SET_BACK, Clock
from foundry_fastlog.analysis.spans import Cover
from foundry_fastlog.base.arguments import exactly
from foundry_fastlog.base.environment import moment_of
from foundry_fastlog.base.formatting import format_seconds, printable
from foundry_fastlog.reading.columns import Columns
from foundry_fastlog.reading.lines import find_rewinds
from foundry_fastlog.reading.scan import Choice, scan_series, sum_series
from foundry_fastlog.run.checks import Problems, SeriesCheck
from foundry_fastlog.run.files import STREAMS, Writer

if TYPE_CHECKING:
    from foundry_fastlog.reading.run import Run
    from foundry_fastlog.reading.start_states import StartReport

__all__ = ["LAYERS", "StartTimes", "read_start"]

_Array = np.ndarray[Any, Any]

#: Kinds of blocks: where several are open at once, the first counts.
LAYERS = ("checkpoint", "evaluation", "data", "step", "other")

_WHOLE = re.compile(r"(?:^|[/.])(?:train_|training_)?step$", re.IGNORECASE)
_LONGEST_S = 1e9
_NONE = np.empty(0, np.int64)


@dataclass
class StartTimes:
    """The time of one start, as one of its processes recorded it.

    Attributes:
        report: What is known of the start.
        begin: When it began.
        end: When it ended, or recorded last; of a start that runs, now.
        covers: By layer, what its blocks and those of the layers before cover.
        ends: The end of each step.
        numbers: The number of each; empty where nothing says it.
        passes: Which pass through the steps each is in: after a step back the next begins.
        first: When the first step began; None where only its end is known.
        source: What says when steps ended: ``blocks``, a metric's name, or ``""``.
        notes: What is to be said of it.
        complete: Whether all its lines could be read.
    """

    report: StartReport
    begin: int
    end: int
    covers: list[Cover]
    ends: _Array = field(default_factory=lambda: _NONE)
    numbers: _Array = field(default_factory=lambda: _NONE)
    passes: _Array = field(default_factory=lambda: _NONE)
    first: int | None = None
    source: str = ""
    notes: list[str] = field(default_factory=list)
    complete: bool = True


@dataclass(frozen=True)
class _Rows:
    """Blocks, in the order of their lines."""

    begins: _Array
    ends: _Array
    threads: _Array
    steps: _Array
    stepped: _Array  # which of them have a step
    inner: _Array  # which of them are within another
    seqs: _Array

    def take(self, chosen: _Array) -> _Rows:
        return _Rows(*(getattr(self, part.name)[chosen] for part in fields(self)))

    def outside(self, cover: Cover) -> _Rows:
        return self.take(~(self.inner & cover.encloses(self.begins, self.ends)))

    def earlier(self, by: _Array) -> _Rows:
        return replace(self, begins=self.begins - by, ends=self.ends - by)


def read_start(
    run: Run, report: StartReport, writer: Writer | None, kinds: Mapping[str, Sequence[str]]
) -> StartTimes | None:
    """Read a start.

    Args:
        run: The run.
        report: Which start.
        writer: The process whose records tell of it; None where it has none.
        kinds: By layer, the names of its blocks.

    Returns:
        What was found; None where nothing says when it was.

    Raises:
        ImportError: The extension is missing; the message says how to build it.
    """
    reader = _Reader(run, writer)
    rows = {layer: reader.blocks(kinds.get(layer, ())) for layer in LAYERS}
    rows = reader.set_clock(rows)
    started, ended = _moment(report.started), _moment(report.ended)
    # A process is not older than its start says, whatever the durations of its blocks.
    spans = [
        (int((one.ends if started else one.begins).min()), int(one.ends.max()))
        for one in rows.values()
        if len(one.ends)
    ]
    others = [moment for span in reader.other_streams() for moment in span]
    others += [moment for moment in (started, ended) if moment]
    if not spans and reader.marks is not None and len(times := reader.marks[1]):
        spans = [(int(times.min()), int(times.max()))]
    moments = [moment for span in spans for moment in span]
    if reader.clock.most:
        others = [reader.clock.right(one, min(moments), max(moments)) for one in others]
    moments += others
    if not moments:
        return None
    found = StartTimes(report, min(moments), max(moments), [])
    if report.state == "running":
        found.end = max(found.end, time.time_ns() // 1000)
    _find_steps(found, rows, reader, kinds.get("step", ()))
    if reader.clock.most:
        said = f"the clock was set back by {reader.clock.most / 1e6:,.0f} s"
        found.notes.append(f"{said}; what was before that is taken as so much earlier")
    found.complete = reader.complete
    return found


class _Reader:
    """Reads the streams of one process."""

    def __init__(self, run: Run, writer: Writer | None) -> None:
        self._series = {one.stream: one for one in run.series if one.writer == writer}
        self._unread = run.unread
        self._sums: Any = None
        self.clock = Clock(_NONE, _NONE, _NONE)
        self.complete = True

    def columns(self, stream: str, choice: Choice) -> Columns | None:
        series = self._series.get(stream)
        if series is None:
            return None
        check = SeriesCheck(series, unread=self._unread)
        frame = scan_series([series], choice, [check], Problems()).frame(STREAMS.index(stream))
        self.complete &= check.complete
        return Columns(frame)

    def blocks(self, names: Sequence[str]) -> _Rows:
        """Read the blocks with these names, whatever counts of them."""
        found = self.columns("performance", _named(names)) if names else None
        if found is None:
            never = _NONE.astype(bool)
            return _Rows(_NONE, _NONE, _NONE, _NONE, never, never, _NONE)
        parts = found.batches()
        ends = found.array("timestamp", parts)[1]
        seconds = np.clip(found.array("duration_s", parts)[1], 0.0, _LONGEST_S)
        begins = ends - np.rint(seconds * 1e6).astype(np.int64)
        steps, stepped = _known(found, "step", parts)
        threads, _ = _known(found, "thread", parts)
        depths, _ = _known(found, "depth", parts)
        seqs = found.array("seq", parts)[1]
        rows = _Rows(begins, ends, threads, steps, stepped, depths > 0, seqs)
        return rows.earlier(self.clock.ahead(seqs)) if self.clock.most else rows

    def set_clock(self, rows: dict[str, _Rows]) -> dict[str, _Rows]:
        """Find where the clock was set back, and return the rows by the right one."""
        if not any((one.ends[:-1] - one.ends[1:] > SET_BACK).any() for one in rows.values()):
            return rows  # what follows takes long
        names = [part.name for part in fields(_Rows)]
        joined = (np.concatenate([getattr(one, name) for one in rows.values()]) for name in names)
        every = _Rows(*joined)
        every = every.take(np.argsort(every.seqs, kind="stable"))
        # A block is behind the line before for as long as it took, unless it is around that one.
        around = ~every.inner & np.append(False, every.inner[:-1])
        taken = np.where(around, 0, every.ends - every.begins)
        self.clock = Clock(every.ends, every.seqs, taken)
        return {layer: one.earlier(self.clock.ahead(one.seqs)) for layer, one in rows.items()}

    @cached_property
    def marks(self) -> tuple[str, _Array, _Array, _Array] | None:
        """The metric that most lines have, and time, step and number of those that have a step.

        It says when steps ended where no block does.
        """
        metrics = [] if self._sums is None else self._sums.metrics()
        if not metrics:
            return None
        metric = max(metrics, key=lambda one: one["count"])["name"]
        found = self.columns("metrics", _named([metric], exact=True))
        assert found is not None
        parts = found.batches()
        steps, stepped = _known(found, "step", parts)
        times, seqs = (found.array(name, parts)[1][stepped] for name in ("timestamp", "seq"))
        usual = max(0, int(np.median(np.diff(times)))) if len(times) > 1 else 0
        clock = Clock(times, seqs, np.full(len(times), usual), self.clock)
        if not self.clock.most:
            self.clock = clock
        return metric, times - clock.ahead(seqs), steps[stepped], seqs

    def other_streams(self) -> Iterator[tuple[int, int]]:
        """Return when the first and the last line of each stream but the timings were recorded."""
        if (series := self._series.get("metrics")) is not None:
            check = SeriesCheck(series, unread=self._unread)
            self._sums = sum_series([series], Choice(), [""], [check], Problems())
            self.complete &= check.complete
            ((first, last, *_),) = self._sums.sources()
            if first:
                yield _moment(first), _moment(last)
        for stream in ("system", "errors", "log"):
            found = self.columns(stream, Choice())
            if found is not None and found.rows:
                times = found.array("timestamp", found.batches())[1]
                yield int(times.min()), int(times.max())

    def rewinds(self, stream: str) -> _Array:
        """Return the numbers of the lines that say that the process went back."""
        return np.array(sorted(seq for seq, *_ in find_rewinds(self._series[stream])), np.int64)


def _named(names: Sequence[str], *, exact: bool = False) -> Choice:
    return Choice(names=names if exact else exactly(names), exact=exact)


def _known(columns: Columns, name: str, parts: Any) -> tuple[_Array, _Array]:  # noqa: ANN401 - native
    """Return a column of integers, with 0 where a row has none, and which rows have one."""
    kind, values, valid = columns.array(name, parts)
    if kind != "int64":
        return np.zeros(columns.rows, np.int64), np.zeros(columns.rows, bool)
    if valid is None:
        return values, np.ones(len(values), bool)
    return np.where(valid, values, 0), valid


def _moment(timestamp: str) -> int:
    """Return a timestamp as microseconds since 1970; 0 for none."""
    moment = moment_of(timestamp)
    return round(moment * 1e6) if moment == moment else 0


# ---- steps -----------------------------------------------------------------------------------


def _find_steps(
    found: StartTimes, rows: dict[str, _Rows], reader: _Reader, names: Sequence[str]
) -> None:
    """Find the steps, by blocks or else by a metric, and what blocks cover."""
    threads = _threads_of(rows)
    for layer, one in rows.items():
        here = np.isin(one.threads, threads)
        aside = int((one.ends - one.begins)[~here].sum()) / 1e6
        if aside and layer != "other":
            said = f"{layer} blocks of other threads ran beside: {format_seconds(aside)}"
            found.notes.append(said)
        rows[layer] = one.take(here)
    saving, testing = rows["checkpoint"], rows["evaluation"]
    covers = [Cover(saving.begins, saving.ends)]
    covers.append(covers[0].plus(testing.begins, testing.ends))
    steps = rows["step"].outside(covers[1])
    if len(steps.ends) and not steps.stepped.any():
        whole = next((name for name in names if _WHOLE.search(name)), names[0])
        steps = reader.blocks([whole])
        steps = steps.take(np.isin(steps.threads, threads)).outside(covers[1])
        _set_unnumbered(found, steps, whole)
    elif len(steps.ends):
        steps = steps.take(steps.stepped)
        found.source = "blocks"
        found.first = int(steps.begins[steps.steps == steps.steps[0]].min())
        rewinds = reader.rewinds("performance")
        _set_steps(found, steps.ends, steps.steps, steps.seqs, rewinds, last=True)
    elif reader.marks is not None:
        metric, times, numbers, seqs = reader.marks
        found.source = metric if len(times) else ""
        _set_steps(found, times, numbers, seqs, reader.rewinds("metrics"))
    for layer in LAYERS[2:]:
        one = rows[layer]
        if layer != "step":  # what is around whole steps says nothing of what they did
            one = one.take(~_contains(one, found.ends))
        covers.append(covers[-1].plus(one.begins, one.ends))
    found.covers = covers


def _contains(rows: _Rows, moments: _Array) -> _Array:
    """Say within which blocks one of the moments is; these are ascending."""
    before = np.searchsorted(moments, rows.begins, side="right")
    return np.searchsorted(moments, rows.ends) > before


def _threads_of(rows: Mapping[str, _Rows]) -> _Array:
    """Return the threads in which steps ran; without any the one whose blocks took longest."""
    stepping = rows["step"]
    if len(stepping.threads):
        return np.unique(stepping.threads)
    threads = np.concatenate([one.threads for one in rows.values()])
    known, place = np.unique(threads, return_inverse=True)
    taken = np.zeros(len(known))
    np.add.at(taken, place, np.concatenate([one.ends - one.begins for one in rows.values()]))
    return known[[int(taken.argmax())]] if len(known) else known


def _set_unnumbered(found: StartTimes, steps: _Rows, name: str) -> None:
    """Set the steps by blocks without one: each of this name is a step."""
    found.source = "blocks"
    found.ends = np.sort(steps.ends)
    found.passes = np.zeros(len(found.ends), np.int64)
    found.first = int(steps.begins.min()) if len(steps.begins) else None
    said = f"the blocks have no step: each {printable(name, 40)} counts as one"
    found.notes.append(f"{said}, and nobody can say which were trained again")


def _set_steps(
    found: StartTimes,
    times: _Array,
    numbers: _Array,
    seqs: _Array,
    rewinds: _Array,
    *,
    last: bool = False,
) -> None:
    """Set the steps by lines that have their numbers: each ends with its first line, or its last.

    Args:
        found: Is filled.
        times: When each line was recorded.
        numbers: Its step.
        seqs: Its own number.
        rewinds: Numbers of the lines that say that the process went back.
        last: Whether a step ends with its last line.
    """
    if not len(times):
        return
    times = np.clip(times, found.begin, found.end)
    passes = np.searchsorted(rewinds, seqs)
    times, numbers, passes = _grouped(np.maximum.accumulate(times), numbers, passes, last=last)
    # A line about a step before, between two that go on: it is late, and nothing went back.
    late = np.zeros(len(numbers), bool)
    late[1:] = (numbers[1:] < numbers[:-1]) & (passes[1:] == passes[:-1])
    late[1:-1] &= (numbers[2:] >= numbers[:-2]) & (passes[2:] == passes[1:-1])
    keep = ~late
    times, numbers, passes = _grouped(times[keep], numbers[keep], passes[keep], last=last)
    ahead = np.append(False, (numbers[1:] <= numbers[:-1]) | (passes[1:] != passes[:-1]))
    found.ends, found.numbers, found.passes = times, numbers, np.cumsum(ahead)


def _grouped(
    times: _Array, numbers: _Array, passes: _Array, *, last: bool
) -> tuple[_Array, _Array, _Array]:
    """Take neighbours with the same step as one."""
    changes = (numbers[1:] != numbers[:-1]) | (passes[1:] != passes[:-1])
    firsts = np.flatnonzero(np.append(True, changes))
    place = np.append(firsts[1:], len(numbers)) - 1 if last else firsts
    return times[place], numbers[firsts], passes[firsts]
