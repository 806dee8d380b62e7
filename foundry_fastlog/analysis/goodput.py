"""Where the wall time of a run went: how much of it trained, and what took the rest.

    >>> from foundry_fastlog import read_run  # doctest: +SKIP
    >>> found = read_run("runs/exp0").goodput(tokens=16_384)
    >>> found.goodput, found.parts["stalls"], found.largest_loss()

See `docs/goodput.md` for the definitions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from foundry_fastlog.analysis.identity import pick_names
from foundry_fastlog.analysis.start_times import StartTimes, read_start
from foundry_fastlog.analysis.throughput import Throughput, read_throughput
from foundry_fastlog.analysis.time_split import StartSplit, split_times
from foundry_fastlog.base.arguments import check_choice
from foundry_fastlog.base.formatting import format_seconds, jsonable, text_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from foundry_fastlog.reading.run import Run

__all__ = ["KINDS", "PATTERNS", "Goodput", "StartGoodput", "measure_goodput"]

#: What wall time is split into.
KINDS = (
    *("step", "data", "checkpoint", "evaluation", "start_up"),
    *("stalls", "again", "dead", "other"),
)

#: Which blocks are what: patterns of their names, or of what follows the last ``/`` or ``.`` in
#: them, in small letters. The first kind that fits counts.
PATTERNS: dict[str, tuple[str, ...]] = {
    "checkpoint": ("*checkpoint*", "*ckpt*", "save_model", "load_model"),
    "evaluation": ("eval*", "valid*", "val", "val_*", "test", "test_*"),
    "data": (
        *("data", "*dataload*", "*data_load*", "load_data", "fetch_data", "data_wait"),
        *("get_batch", "next_batch", "load_batch", "fetch_batch"),
    ),
    "step": (
        *("step", "train_step", "training_step", "train_batch"),
        *("forward*", "backward*", "optimizer*"),
    ),
}


class _Tokens(TypedDict, total=False):
    """Arguments of `read_throughput`."""

    tokens: float | str | None
    flops_per_token: float | None
    peak_flops: float | None
    devices: int | None


@dataclass(frozen=True)
class StartGoodput:
    """The wall time of one start.

    Attributes:
        number: Which start.
        state: As its ``StartReport`` says.
        host: Where it began, or ``""``.
        begin_s: When it began, in seconds since 1970; what an earlier start took is not counted.
        wall_s: Seconds from then to its end: to its last record if that is later or it was killed,
            to now if it runs.
        dead_s: Seconds before it in which no start ran.
        parts: Seconds by kind; they sum to ``wall_s``.
        steps: Steps that it trained first.
        steps_again: Steps that it trained again.
        first_step: The lowest step that it recorded, None without any.
        last_step: The highest.
        source: What says when steps ended: ``blocks``, the name of a metric, or ``""``.
        longest_stall_s: The longest stall.
        longest_stall_step: The step that came after it, None where that has no number.
    """

    number: int
    state: str
    host: str
    begin_s: float
    wall_s: float
    dead_s: float
    parts: dict[str, float]
    steps: int
    steps_again: int
    first_step: int | None
    last_step: int | None
    source: str
    longest_stall_s: float
    longest_stall_step: int | None


@dataclass(frozen=True)
class Goodput:
    """Where the wall time of a run went, over its starts.

    Attributes:
        path: The run's directory.
        rank: The rank whose records tell of it.
        running: Whether a start runs: then its time is that until now.
        wall_s: Seconds from the begin of the first start to the end of the last.
        parts: Seconds by kind, of all ``KINDS``; they sum to ``wall_s``.
        ideal_step_s: Mean seconds of the steps that took no longer than the median and three times
            the median absolute deviation, as in Google's ml-goodput; without time for data,
            checkpoints and evaluations. None without steps.
        limit_s: What a step may take before the rest is a stall: the ideal or the median, whichever
            is longer, and three times that deviation.
        steps: How many steps were trained, each counted once.
        steps_again: How many were trained again.
        goodput: ``ideal_step_s * steps / wall_s``: the share of wall time that the training
            would have taken had nothing been lost. None without steps.
        ettr: The effective training time ratio (arXiv 2410.21680): productive time / wall time.
            Unproductive are here start-up, steps trained again, stalls, and the time between
            starts.
        throughput: Tokens per second and model FLOPs utilisation, None where no tokens are known.
        starts: The starts.
        blocks: By kind, the names of the blocks that are taken for it.
        notes: What is to be said of these figures.
        complete: Whether all lines could be read.
    """

    path: str
    rank: int
    running: bool
    wall_s: float
    parts: dict[str, float]
    ideal_step_s: float | None
    limit_s: float | None
    steps: int
    steps_again: int
    goodput: float | None
    ettr: float
    throughput: Throughput | None
    starts: tuple[StartGoodput, ...]
    blocks: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    complete: bool = True

    def largest_loss(self) -> str:
        """Say in a sentence what took most of the time that did not train."""
        losses = {kind: seconds for kind, seconds in self.parts.items() if kind != "step"}
        kind = max(losses, key=lambda one: losses[one])
        if losses[kind] <= 0 or not self.wall_s:
            return "Nothing was lost."
        taken = f"{format_seconds(losses[kind])} ({losses[kind] / self.wall_s:.1%})"
        return f"The largest loss: {taken} {self._told(kind)}."

    def _told(self, kind: str) -> str:
        """Say what a loss is, and of most where it was."""
        if kind == "stalls":
            one = max(self.starts, key=lambda start: start.longest_stall_s)
            step = one.longest_stall_step
            where = "behind the last step" if step is None else f"before step {step:,} ended"
            return f"of stalls, the longest {format_seconds(one.longest_stall_s)} {where}"
        if kind == "again":
            return f"for {self.steps_again:,} steps that were trained again"
        if kind in ("dead", "start_up"):
            said, where = (
                ("of start-up", "in") if kind == "start_up" else ("between starts", "before")
            )
            times = {one.number: one.parts.get(kind, one.dead_s) for one in self.starts}
            start = max(times, key=lambda number: times[number])
            most = (
                f"{format_seconds(times[start])} of it "
                if sum(map(bool, times.values())) > 1
                else ""
            )
            return said if len(times) == 1 else f"{said}, {most}{where} start {start}"
        return {
            "data": "of waiting for data",
            "checkpoint": "of checkpoints",
            "evaluation": "of evaluation",
            "other": "that no block of a known kind explains",
        }[kind]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**jsonable(self), "largest_loss": self.largest_loss()}


def measure_goodput(
    run: Run,
    *,
    rank: int | None = None,
    starts: Literal["all"] | int = "all",
    blocks: Mapping[str, str | Iterable[str]] | None = None,
    **throughput: Unpack[_Tokens],
) -> Goodput:
    """Split the wall time of a run into what trained and what did not.

    Args:
        run: The run.
        rank: Whose records tell of it. Default: the lowest that recorded.
        starts: ``"all"``, or the number of one.
        blocks: By kind (``data``, ``checkpoint``, ``evaluation``, ``step``), names or patterns of
            the blocks that are of it, instead of those of ``PATTERNS``.
        **throughput: ``tokens``, ``flops_per_token``, ``peak_flops``, ``devices``; see
            `throughput.read_throughput`.

    Raises:
        ImportError: The extension is missing; the message says how to build it.
        LookupError: There are no records, no such blocks or no such metric.
        TypeError, ValueError: An unknown rank, start or kind, or a figure that is none.
    """
    rank = _chosen_rank(run, rank)
    if isinstance(starts, bool) or starts not in ("all", *run.starts):
        numbers = ", ".join(map(str, run.starts)) or "none"
        raise ValueError(f"starts must be 'all' or one of {numbers}, got {starts!r}")
    known = run.names("performance", ranks=rank) if "performance" in run.streams else []
    kinds = _kinds_of(known, blocks or {})
    notes: list[str] = []
    times = list(_read_starts(run, rank, kinds, notes))
    if not times:
        raise LookupError(f"nothing in {run.path} says when it ran: there are no records yet")
    split = split_times(times)
    chosen = list(zip(times, split.starts, strict=True))
    if starts != "all":
        chosen = [(one, part) for one, part in chosen if one.report.number == starts]
        for _, part in chosen:
            part.dead = 0
    found = tuple(_start_of(one, part) for one, part in chosen)
    # In microseconds: sums of these are exact.
    total = {kind: sum(part.parts[kind] for _, part in chosen) for kind in KINDS if kind != "dead"}
    total["dead"] = sum(part.dead for _, part in chosen)
    wall = sum(total.values())
    lost = sum(total[kind] for kind in ("start_up", "again", "stalls", "dead"))
    steps = sum(one.steps for one in found)
    ideal = split.ideal_s if steps else None
    share = ideal * steps * 1e6 / wall if ideal is not None and wall else None
    rate = read_throughput(run, rank, ideal, share, **throughput)
    notes += split.notes
    notes += [f"start {one.report.number}: {said}" for one, _ in chosen for said in one.notes]
    if rate is not None and rate.by_step and split.unit > 1:
        notes.append(
            f"step numbers are {split.unit:,} apart, and each number is taken for a step: so are "
            "the tokens of a step"
        )
    if rate is not None and rate.ideal_mfu is not None and rate.ideal_mfu > 1:
        notes.append(
            f"no device can do more than its peak, as an MFU of {rate.ideal_mfu:.1%} says: check "
            "flops_per_token, peak_flops, the tokens of a step, and the number of devices"
        )
    return Goodput(
        path=str(run.path),
        rank=rank,
        running=any(one.state == "running" for one in found),
        wall_s=wall / 1e6,
        parts={kind: total[kind] / 1e6 for kind in KINDS},
        ideal_step_s=ideal,
        limit_s=split.limit_s if steps else None,
        steps=steps,
        steps_again=sum(one.steps_again for one in found),
        # A first step, which is not among those of the mean, may be faster than they are.
        goodput=None if share is None else min(1.0, share),
        ettr=(wall - lost) / wall if wall else 0.0,
        throughput=rate,
        starts=found,
        blocks={kind: names for kind, names in kinds.items() if names},
        notes=tuple(notes),
        complete=all(one.complete for one, _ in chosen) and not run.unread,
    )


def _chosen_rank(run: Run, rank: int | None) -> int:
    if rank is None:
        return min(run.ranks, default=0)
    if rank not in run.ranks:
        known = ", ".join(map(str, run.ranks)) or "none"
        raise ValueError(f"{run.path} has no rank {rank}; it has {known}")
    return rank


def _kinds_of(known: list[str], given: Mapping[str, str | Iterable[str]]) -> dict[str, list[str]]:
    """Return the names of the blocks of each kind, of `other` too."""
    kinds: dict[str, list[str]] = {}
    for kind, patterns in given.items():
        check_choice("a kind of blocks", kind, tuple(PATTERNS))
        kinds[kind] = pick_names(known, patterns, "timed block")
    taken = {name for names in kinds.values() for name in names}
    usual = {kind: patterns for kind, patterns in PATTERNS.items() if kind not in given}
    for name in known:
        if name not in taken:
            fits = (kind for kind, patterns in usual.items() if _fits(name, patterns))
            kinds.setdefault(next(fits, "other"), []).append(name)
    return kinds


def _fits(name: str, patterns: Iterable[str]) -> bool:
    lowered = name.lower()
    last = re.split(r"[/.]", lowered)[-1]
    return any(fnmatchcase(one, pattern) for one in (lowered, last) for pattern in patterns)


def _read_starts(
    run: Run, rank: int, kinds: Mapping[str, list[str]], notes: list[str]
) -> Iterator[StartTimes]:
    """Read the starts, each by one process of the rank; say what is not looked at."""
    for report in run.report_starts():
        writers = [one for one in run.writers if run.number_of(one) == report.number]
        mine = sorted((w for w in writers if w.rank == rank), key=lambda w: (w.children, w.peer))
        if writers and not mine:
            notes.append(f"start {report.number} has no records of rank {rank}; it is not counted")
            continue
        others = [writer.display for writer in mine[1:] if not writer.children]
        if others:
            said = f"start {report.number}: other processes of rank {rank} recorded, too"
            notes.append(f"{said}, and are not counted twice: {', '.join(others[:10])}")
        found = read_start(run, report, mine[0] if mine else None, kinds)
        if found is not None:
            yield found


def _start_of(one: StartTimes, part: StartSplit) -> StartGoodput:
    stalled = None
    at = len(one.ends) - part.counted + part.stall_at if part.stall_at is not None else 0
    if part.stall_at is not None and at < len(one.numbers):
        stalled = int(one.numbers[at])
    return StartGoodput(
        number=one.report.number,
        state=one.report.state,
        host=text_of(one.report.entry.get("host")),
        begin_s=part.begin / 1e6,
        wall_s=part.wall / 1e6,
        dead_s=part.dead / 1e6,
        parts={kind: part.parts[kind] / 1e6 for kind in KINDS if kind != "dead"},
        steps=part.steps,
        steps_again=part.again,
        first_step=int(one.numbers.min()) if len(one.numbers) else None,
        last_step=int(one.numbers.max()) if len(one.numbers) else None,
        source=one.source,
        longest_stall_s=part.stall / 1e6,
        longest_stall_step=stalled,
    )
