"""Is a process that runs for long the same size at the end? Samples of it, and who judges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median

MIB = 1 << 20

#: The first part of a run is no evidence: tables, buffers and the allocator's arenas fill then.
WARM_UP = 1 / 3
#: Bytes that memory may grow by over the rest. What is bounded by design (file names of segments,
#: a few more threads' arenas) stays below half of it; a leak of 2 MiB does not.
MOST_GROWTH = 3 * MIB // 2
#: Medians of open files and of threads may differ by this much.
MOST_MORE = 1
#: Points of the fit: it looks at all pairs of them.
_FIT_POINTS = 120


@dataclass(frozen=True)
class Sample:
    """A process at one moment; memory in bytes."""

    at_s: float
    rss: int
    fds: int
    threads: int


def take_sample(pid: int, at_s: float) -> Sample:
    place = Path(f"/proc/{pid}")
    status = (place / "status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in status)
    rss = int(fields["VmRSS"].split()[0]) * 1024
    return Sample(at_s, rss, len(list((place / "fd").iterdir())), int(fields["Threads"]))


def behind_warm_up(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.at_s >= WARM_UP * samples[-1].at_s]


def ends(samples: Sequence[Sample], field: str) -> tuple[float, float]:
    """Return a field's medians over the first and over the last quarter behind the warm-up."""
    values = [getattr(sample, field) for sample in behind_warm_up(samples)]
    quarter = max(1, len(values) // 4)
    return median(values[:quarter]), median(values[-quarter:])


def fitted_growth(samples: Sequence[Sample]) -> float:
    """Return how many bytes memory grows by behind the warm-up: Theil and Sen's slope times time.

    The median of the slopes of all pairs: peaks do not tilt it, as long as they are few.
    """
    judged = behind_warm_up(samples)
    thinned = judged[:: max(1, len(judged) // _FIT_POINTS)]
    slopes = [(b.rss - a.rss) / (b.at_s - a.at_s) for a, b in combinations(thinned, 2)]
    return median(slopes) * (judged[-1].at_s - judged[0].at_s)


def find_growth(samples: Sequence[Sample], most: int = MOST_GROWTH) -> list[str]:
    """Say what has grown, a sentence each; nothing when the process is as it was.

    Memory is judged twice: the fit sees a slow leak in all of the run, the medians of its ends see
    a step, which a fit may take for an outlier.
    """
    if len(behind_warm_up(samples)) < 8:
        raise ValueError(f"{len(samples)} samples say nothing")
    found = []
    first, last = ends(samples, "rss")
    if last - first > most:
        found.append(f"memory grew from {first / MIB:.1f} to {last / MIB:.1f} MiB")
    if (growth := fitted_growth(samples)) > most:
        found.append(f"memory grows steadily, by {growth / MIB:.1f} MiB behind the warm-up")
    for field in ("fds", "threads"):
        first, last = ends(samples, field)
        if last - first > MOST_MORE:
            found.append(f"{field} grew from {first:g} to {last:g}")
    return found
