"""Timed bursts of calls, shared by the call benchmarks and the gates.

A burst is a few thousand calls in a row, short enough to fit into the recorder's ring. Between
bursts, off the clock, asynchronous peers get time to drain their backlog: this measures what a
training step pays, not what happens when a ring is full (see time to durable). The loop itself is
measured in the same rotation and subtracted from everything, including the floor.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.base import Loop, Peer
from benchmarks.summary import median
from benchmarks.workload import PERIOD, bare_loop, rows

MAX_BURST = 8192
TARGET_NS = 2_000_000


@dataclass
class Lane:
    """One peer in a rotation, with its samples (ns per call, including the loop)."""

    peer: Peer | None
    loop: Loop
    directory: Path | None
    burst: int = MAX_BURST
    done: int = 0
    samples: list[float] = field(default_factory=list)

    def time_burst(self) -> float:
        """Run one burst.

        Returns:
            Nanoseconds per call, including the loop's own cost.
        """
        batch = rows(self.done, self.burst)
        start = time.perf_counter_ns()
        self.loop(batch)
        elapsed = time.perf_counter_ns() - start
        self.done += self.burst
        if self.peer is not None:
            self.peer.settle()
        return elapsed / self.burst

    def warm_up(self) -> None:
        """Warm up and choose the burst's length: about 2 ms, at most `MAX_BURST` calls."""
        self.burst = PERIOD
        self.time_burst()
        while self.burst < MAX_BURST and self.time_burst() * self.burst < TARGET_NS / 2:
            self.burst *= 2
        self.time_burst()


def open_lane(peer: Peer, directory: Path) -> Lane:
    """Set up a peer under `directory`, which is created."""
    directory.mkdir()
    return Lane(peer, peer.setup(directory), directory)


def rotate(lanes: list[Lane], *, bursts: int, seconds: float) -> Lane:
    """Measure all lanes in turn, one burst each; every turn starts with a different lane.

    Args:
        lanes: The peers; each gets `bursts` samples, or as many as fit in `seconds`, at least 5.
        bursts: Samples per lane.
        seconds: Limit for the whole rotation.

    Returns:
        The lane of the bare loop, measured in the same rotation.
    """
    bare = Lane(None, bare_loop, None)
    everyone = [bare, *lanes]
    for lane in everyone:
        lane.warm_up()
    gc.collect()
    gc.freeze()
    deadline = time.perf_counter() + seconds
    for turn in range(bursts):
        first = turn % len(everyone)
        for lane in everyone[first:] + everyone[:first]:
            lane.samples.append(lane.time_burst())
        if turn >= 4 and time.perf_counter() > deadline:
            break
    return bare


def close_lanes(lanes: list[Lane]) -> None:
    """Finish every peer and verify its output.

    Raises:
        VerificationError: An output differs from the peer's input.
    """
    for lane in lanes:
        assert lane.peer is not None
        assert lane.directory is not None
        lane.peer.finish()
        lane.peer.verify(lane.directory, lane.done)


def net(lane: Lane, bare: Lane) -> list[float]:
    """Return the lane's samples minus the median cost of the bare loop, in ns per call."""
    loop_ns = median(bare.samples)
    return [sample - loop_ns for sample in lane.samples]
