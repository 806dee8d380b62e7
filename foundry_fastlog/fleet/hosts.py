"""Which hosts are slow, by many runs in which they took part beside different others.

In each run one host is the slowest, if only by chance. What tells is a host that is it again and
again. If all ranks of a run were alike, the slowest would be on a host with the chance of its share
of the ranks. Where its place is the slowest more often in other runs with as many ranks (the first
rank may write checkpoints), the chance is that share of those runs instead. So the number of runs
in which a host is the slowest is a sum of events with known chances (Poisson binomial), and its
tail says how likely so many are. A host that is slow all the time shows in all runs; one that is so
now and then, in those runs that have a straggler: the lesser of both tails counts, twice. Over all
hosts that is corrected after Holm (1979).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from foundry_fastlog.base.formatting import format_moment, format_seconds, jsonable
from foundry_fastlog.fleet.findings import UNREADABLE

__all__ = ["FleetHosts", "Host", "format_chance", "judge_hosts"]

_ALPHA = 0.01  # of all hosts together: how often one is accused by chance
_LEAST_RATIO = 1.02  # of the median rank's time: what is less is not worth a repair
_LEAST_TIMES = 2  # as a straggler of a run, which is worth it always
_NAMED_RUNS = 5
_LEAST_CHANCE = 1e-12


@dataclass(frozen=True)
class Host:
    """A host, over the runs in which it took part.

    Attributes:
        host: Its name.
        runs: In how many runs with several ranks it took part.
        straggler: In how many of them it, or a rank of it, was a straggler (``compare_ranks``).
        compared: In how many it can be compared with other hosts.
        slowest: In how many of those it had the slowest rank.
        expected: In how many it would by chance.
        p_value: How likely that is by chance, corrected for the number of hosts (Holm).
        suspect: Whether it is slow: ``p_value`` is below 1 %, and it was a straggler twice, or is
            2 % slower than the median rank in the median run.
        ratio: Time of its slowest rank for its own work over that of the median rank of the run:
            the median over runs. None where nothing says it.
        lost_s: Seconds that runs took longer because of it, in those runs where it was a straggler
            or the slowest: S_w of its slowest rank, less that of the median rank.
        lost_device_s: The same times the ranks of the run, which all waited.
        last: When it was seen last: timestamp (UTC), or ``""``.
        always: The ranks that it had in all runs that are compared, if it had no others; else
            ``()``. Then it may be their work that is slow.
        worst: The runs in which it cost the most.
    """

    host: str
    runs: int
    straggler: int
    compared: int
    slowest: int
    expected: float
    p_value: float
    suspect: bool
    ratio: float | None
    lost_s: float
    lost_device_s: float
    last: str
    always: tuple[int, ...] = ()
    worst: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Say whether it is slow, and by what that is known."""
        if not self.compared:
            return f"{self.host} is in no run that compares it with other hosts."
        counted = (
            f"the slowest in {self.slowest:,} of {self.compared:,} runs, "
            f"{self.expected:.1f} by chance"
        )
        if not self.suspect:
            return f"{self.host} is no suspect: {counted}."
        ratio = "" if self.ratio is None else f", {self.ratio:.2f} x the median rank"
        said = f"{self.host} is slow: {counted} (p {format_chance(self.p_value, '= ')}){ratio}"
        said += f"; it cost {format_seconds(self.lost_s)}, last seen {format_moment(self.last)}"
        if self.always:
            said += ". It had the same ranks in all of them, whose work may be what is slow"
        return f"{said}."


@dataclass(frozen=True)
class FleetHosts:
    """The hosts of many runs.

    Attributes:
        hosts: The hosts that have a name: first suspects, then those that cost the most.
        runs: How many runs with timings of several ranks there are.
        compared: In how many of them hosts can be compared.
        single: How many runs have one rank, or timed blocks of one: they say nothing of hosts.
        alone: How many have all of their ranks on one host.
        unnamed: How many have hosts that no name is known of.
        short: How many have too few steps, or ranks that take equally long.
        incomplete: Runs of which lines are damaged: what is said is of the rest.
        unreadable: Runs that could not be read, and why.
    """

    hosts: tuple[Host, ...]
    runs: int
    compared: int
    single: int
    alone: int
    unnamed: int
    short: int
    incomplete: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def suspects(self) -> tuple[Host, ...]:
        """The hosts that are slow."""
        return tuple(one for one in self.hosts if one.suspect)

    @property
    def sentences(self) -> list[str]:
        """What was found: the first one is the answer."""
        if found := [one.sentence for one in self.suspects]:
            return found
        if not self.compared:
            return ["No run compares hosts: that takes timed blocks with a step on several hosts."]
        return [f"No host is the slowest in more of {self.compared:,} runs than by chance."]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        hosts = [{**jsonable(one), "sentence": one.sentence} for one in self.hosts]
        return {"sentences": self.sentences, **jsonable(vars(self)), "hosts": hosts}


@dataclass(frozen=True)
class _Part:
    """The part of a host in a run that is compared.

    Attributes:
        size: How many ranks the run has.
        ranks: Those of the host.
        slowest: The slowest of all.
        is_straggler: Whether that is a straggler.
    """

    size: int
    ranks: tuple[int, ...]
    slowest: int
    is_straggler: bool

    @property
    def is_slowest(self) -> bool:
        return self.slowest in self.ranks


def format_chance(chance: float, equal: str = "") -> str:
    """Return a chance as a text; of one that is too small to mean its digits, what it is below."""
    return f"{equal}{chance:.1g}" if chance >= _LEAST_CHANCE else f"< {_LEAST_CHANCE:.0e}"


def judge_hosts(said: Mapping[str, dict[str, Any]], single: int = 0) -> FleetHosts:
    """Say which hosts are slow.

    Args:
        said: What workers said of runs with several ranks, by name.
        single: How many runs there are besides, which have one rank.
    """
    seen: dict[str, _Seen] = defaultdict(_Seen)
    parts: dict[str, list[_Part]] = defaultdict(list)
    every, found = _Places(), _Places()
    counts: Counter[str] = Counter(single=single)
    for run, facts in said.items():
        if UNREADABLE in facts:
            continue
        counts[_kind_of(facts["starts"])] += 1
        for start in facts["starts"]:
            for name, host in start["hosts"].items():
                seen[name].add(run, start, host)
        for start in _compared(facts["starts"]):
            every.add(start)
            if start["has_straggler"]:
                found.add(start)
            for name, host in start["hosts"].items():
                ranks = tuple(host["ranks"])
                part = _Part(start["ranks"], ranks, start["slowest"], start["has_straggler"])
                parts[name].append(part)
    tails = {name: _Tail(parts[name], every, found) for name in seen}
    corrected = _holm({name: tail.p_value for name, tail in tails.items()})
    hosts = [one.judge(name, tails[name], corrected[name]) for name, one in seen.items()]
    hosts.sort(key=lambda one: (not one.suspect, -one.lost_device_s, one.host))
    return FleetHosts(
        hosts=tuple(hosts),
        runs=sum(counts.values()) - counts["single"],
        compared=counts["compared"],
        single=counts["single"],
        alone=counts["alone"],
        unnamed=counts["unnamed"],
        short=counts["short"],
        incomplete=tuple(run for run, facts in said.items() if not facts.get("complete", True)),
        unreadable={run: facts[UNREADABLE] for run, facts in said.items() if UNREADABLE in facts},
    )


def _compared(starts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the start of a run that is compared, if any: starts of one run are not independent."""
    some = [one for one in starts if one["slowest"] is not None and _is_shared(one)]
    return sorted(some, key=lambda one: one["steps"])[-1:]


def _is_shared(start: dict[str, Any]) -> bool:
    """Whether a host that has a name has some of the ranks, and not all of them."""
    return any(len(host["ranks"]) < start["ranks"] for host in start["hosts"].values())


def _kind_of(starts: Sequence[dict[str, Any]]) -> str:
    """Say what becomes of a run."""
    if not starts:
        return "single"
    if _compared(starts):
        return "compared"
    if any(map(_is_shared, starts)):
        return "short"
    return "alone" if all(one["hosts"] for one in starts) else "unnamed"


class _Seen:
    """What is seen of a host, run by run."""

    def __init__(self) -> None:
        self._runs: set[str] = set()
        self._straggler: set[str] = set()
        self._ratios: list[float] = []
        self._lost: dict[str, float] = defaultdict(float)
        self._lost_device_s = 0.0
        self._last = ""

    def add(self, run: str, start: dict[str, Any], host: dict[str, Any]) -> None:
        """Take in a start of a run."""
        self._runs.add(run)
        self._last = max(self._last, start["seen"])
        if host["ratio"] is not None:
            self._ratios.append(host["ratio"])
        if host["straggler"]:
            self._straggler.add(run)
        if host["straggler"] or start["slowest"] in host["ranks"]:
            self._lost[run] += host["lost_s"]
            self._lost_device_s += host["lost_s"] * start["ranks"]

    def _rank(self, run: str) -> tuple[float, str]:
        return -self._lost[run], run

    def judge(self, name: str, tail: _Tail, p_value: float) -> Host:
        """Say what they come to."""
        ratio = median(self._ratios) if self._ratios else None
        worth = len(self._straggler) >= _LEAST_TIMES or (ratio or 0.0) >= _LEAST_RATIO
        return Host(
            host=name,
            runs=len(self._runs),
            straggler=len(self._straggler),
            compared=tail.compared,
            slowest=tail.slowest,
            expected=tail.expected,
            p_value=p_value,
            suspect=p_value < _ALPHA and worth,
            ratio=ratio,
            lost_s=math.fsum(self._lost.values()),
            lost_device_s=self._lost_device_s,
            last=self._last,
            always=tail.always,
            worst=tuple(sorted(filter(self._lost.get, self._lost), key=self._rank)[:_NAMED_RUNS]),
        )


class _Places:
    """Which ranks are the slowest, over the runs with as many ranks."""

    def __init__(self) -> None:
        self._runs: Counter[int] = Counter()
        self._slowest: dict[int, Counter[int]] = defaultdict(Counter)
        self._hits: dict[tuple[int, tuple[int, ...]], int] = {}

    def add(self, start: dict[str, Any]) -> None:
        """Take in a run."""
        self._runs[start["ranks"]] += 1
        self._slowest[start["ranks"]][start["slowest"]] += 1

    def chances(self, parts: Sequence[_Part]) -> Iterator[float]:
        """Yield for each part of a host in a run the chance that its place has the slowest rank.

        That is its share of the ranks; or how often these ranks have it in other runs with as many,
        counted with one more run that has that share, whichever is more.
        """
        own = Counter((part.size, part.ranks) for part in parts)
        own_hits = Counter((part.size, part.ranks) for part in parts if part.is_slowest)
        for part in parts:
            place, share = (part.size, part.ranks), len(part.ranks) / part.size
            if place not in self._hits:
                self._hits[place] = sum(self._slowest[part.size][rank] for rank in part.ranks)
            hits = self._hits[place] - own_hits[place]
            yield max(share, (hits + share) / (self._runs[part.size] - own[place] + 1))


class _Tail:
    """How likely a host is the slowest as often as it was, by chance."""

    def __init__(self, parts: Sequence[_Part], every: _Places, found: _Places) -> None:
        stragglers = [part for part in parts if part.is_straggler]
        chances = list(every.chances(parts))
        self.compared = len(parts)
        self.slowest = sum(part.is_slowest for part in parts)
        self.expected = math.fsum(chances)
        among = _tail(list(found.chances(stragglers)), sum(part.is_slowest for part in stragglers))
        self.p_value = min(1.0, 2 * min(_tail(chances, self.slowest), among))
        places = {part.ranks for part in parts}
        self.always = places.pop() if len(places) == 1 and len(parts) > 1 else ()


def _tail(chances: Sequence[float], count: int) -> float:
    """Return how likely `count` or more of independent events with these chances come about.

    1 where no more came about than is expected: how likely that is need not be known.
    """
    if count <= math.fsum(chances):
        return 1.0
    import numpy as np  # who compares ranks has it

    exactly, reached = np.zeros(count), 0.0  # fewer than `count` so far
    exactly[0] = 1.0
    for chance in chances:
        reached += float(exactly[-1]) * chance
        exactly[1:] += chance * (exactly[:-1] - exactly[1:])
        exactly[0] *= 1 - chance
    return min(1.0, reached)


def _holm(values: Mapping[str, float]) -> dict[str, float]:
    """Correct the chances of many tests, so that the least of them can be believed."""
    found, largest = {}, 0.0
    for rank, name in enumerate(sorted(values, key=lambda name: values[name])):
        largest = max(largest, min(1.0, values[name] * (len(values) - rank)))
        found[name] = largest
    return found
