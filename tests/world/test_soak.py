"""The soak: one process that records for long while others die around it and the disk fills up."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from crash.driving import RELEASE, size

from world.driver import World
from world.schedule import Schedule
from world.session import Session
from world.steady import MIB, MOST_GROWTH, Sample, ends, find_growth, take_sample

TRAINER = 2
#: Small: ring and key table are full, and segments are left, before the warm-up ends.
OPTIONS = {
    "ring_bytes": 1 << 18,
    "segment_bytes": 1 << 18,
    "flush_interval_s": 0.01,
    "block_timeout_s": 0.2,
}


class Soak(World):
    """A world in which one process lives long; its samples are taken when it stands still."""

    def __init__(self, session: Session, seed: int, seconds: float) -> None:
        super().__init__(session, Schedule(seed))
        self.rng = random.Random(seed)
        self.seconds = seconds
        self.numbers = itertools.count(TRAINER + 1)
        self.samples: list[Sample] = []

    def happen(self) -> None:
        self.act("start", child=TRAINER, how="exec", run="run0", options=OPTIONS)
        begun = time.monotonic()
        while (at := time.monotonic() - begun) < self.seconds or len(self.samples) < 20:
            self.round()
            trainer = self.known[TRAINER]
            self.settle(trainer)
            self.samples.append(take_sample(trainer.pid, at))

    def act(self, do: str, **details: Any) -> None:
        self.counts[do] += 1
        self.do({"do": do, **details})

    def round(self) -> None:
        """Start a process or two, which end while the trainer goes on."""
        rng, born = self.rng, []
        full = rng.random() < 0.1
        if full:
            self.act("fill")
        for _ in range(rng.randint(1, 2)):
            born.append(child := next(self.numbers))
            how = rng.choice(("fork", "fork", "fork", "nested", "rank"))
            if how == "rank":
                options = {**OPTIONS, "rank": rng.choice((1, 2))}
                self.act("start", child=child, how="fork", run="run0", options=options)
                self.act("record", who=child, threads=2, count=self.some(), pause_us=0)
            elif rng.random() < 0.05:
                self.act("spawn", who=TRAINER, child=child)
            else:
                parent = born[0] if how == "nested" and len(born) > 1 else TRAINER
                way = rng.choice(("plain", "multiprocessing", "item"))
                threads = rng.choice((0, 1, 3))
                self.act("fork", who=parent, child=child, way=way, threads=threads, count=20)
            self.act("record", who=TRAINER, threads=3, count=self.some(), pause_us=0)
        time.sleep(rng.uniform(0, 0.2))
        for child in born:
            if rng.random() < 0.5:
                self.act("kill", who=child, settled=rng.random() < 0.5)
            else:
                self.act("exit", who=child, how=rng.choice(("exit", "_exit", "term")))
        self.act("ends", who=TRAINER)
        if full:
            self.act("free")

    def some(self) -> int:
        return self.rng.choice((1, 5, 20))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="needs pidfds and /proc")
def test_a_long_run_stays_whole_and_the_same_size(figures: dict[str, Any]) -> None:
    """Kills, forks and a full disk for minutes: nothing is lost, nothing grows, nothing is left."""
    with Session() as session:
        soak = Soak(session, 7, size(600, 10))
        result = soak.play()
        able = "tmpfs" in session.mounted
    assert [(violation.kind, violation.text) for violation in result.violations] == []
    # Within seconds arenas still fill, on a busy machine late: the long run judges what is left.
    assert find_growth(soak.samples, MOST_GROWTH if RELEASE else 4 * MIB) == []
    first, last = ends(soak.samples, "rss")
    figures["kills"] = result.counts["kills"]
    figures["forks"] = result.counts["fork"]
    figures["spawned"] = result.counts["spawn"]
    figures["times without space"] = result.counts["fill"] if able else 0
    figures["acked records"] = result.counts["acked"]
    figures["violations"] = 0
    figures["MiB RSS behind the warm-up"] = round(first / MIB, 1)
    figures["MiB RSS at the end"] = round(last / MIB, 1)


def make_samples(
    growth: Callable[[float], float] = lambda t: 0.0, *, fds: float = 0, threads: float = 0
) -> list[Sample]:
    """Make samples of ten minutes: 30 MiB with noise and peaks, and what grows, in MiB or units."""
    rng = random.Random(9)
    samples = []
    for i in range(600):
        rss = 30 + rng.gauss(0, 0.1) + (20 if rng.random() < 0.05 else 0) + growth(i / 599)
        samples.append(Sample(i, int(rss * MIB), 10 + int(fds * i), 5 + int(threads * i)))
    return samples


MOST = MOST_GROWTH / MIB
STEP = ["grew from 30.0 to 32.0 MiB"]
LINEAR = ["memory grew from", "grows steadily"]


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        pytest.param(make_samples(), [], id="noise and peaks"),
        pytest.param(make_samples(lambda t: min(t, 0.3) * 100), [], id="in the warm-up"),
        pytest.param(make_samples(lambda t: -5 * t), [], id="less"),
        pytest.param(make_samples(lambda t: 3 * t), ["steadily"], id="a slow leak, by the fit"),
        *(
            pytest.param(make_samples(lambda t, at=at: 2.0 * (t > at)), STEP, id=f"a step at {at}")  # type: ignore[misc]
            for at in (0.55, 0.65, 0.8)
        ),
        pytest.param(make_samples(lambda t: (t - 1 / 3) * 0.75 * MOST), [], id="half of the bound"),
        pytest.param(make_samples(lambda t: (t - 1 / 3) * 3 * MOST), LINEAR, id="twice the bound"),
        pytest.param(make_samples(fds=1 / 120), ["fds grew from 12 to 14"], id="files"),
        pytest.param(make_samples(threads=1 / 120), ["threads grew from 7 to 9"], id="threads"),
    ],
)
def test_what_grows_is_found(samples: list[Sample], said: list[str]) -> None:
    """By the fit, or by the medians of the ends; noise, peaks and the warm-up are no growth."""
    found = find_growth(samples)
    assert bool(found) == bool(said)
    assert all(any(text in sentence for sentence in found) for text in said), found


def test_too_few_samples_are_no_evidence() -> None:
    """A process that was hardly looked at is not passed."""
    with pytest.raises(ValueError, match="say nothing"):
        find_growth(make_samples()[:9])
