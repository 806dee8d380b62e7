"""Host cost of 1, 2, 4 and 8 device scalars: this package, bare copies and torch.

Bursts of calls with an idle device, lanes in turn; between them, off the clock, the device is
drained and the recorder flushed. A burst is short enough that the driver's queue never fills.
`.item()` waits for the device, so its figure here is its minimum: in training, it also waits for
everything queued before it.
"""

from __future__ import annotations

import gc
import random
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.bare import BareCopies
from benchmarks.gpu.ratios import bootstrap, ratio
from benchmarks.gpu.target import Target
from benchmarks.peers.base import VerificationError, json_lines
from benchmarks.peers.fastlog import check_accounting, metric_files
from benchmarks.summary import describe
from foundry_fastlog import Recorder

COUNTS = (1, 2, 4, 8)
BURST = 32
"""Calls in a burst: at most 8 times as many copies are pending on the device."""
ROWS = 64
"""Sets of tensors, used in turn, so that a value in the wrong place is detected."""
WARM_UP = 3

Steps = Iterator[tuple[int, tuple[Any, ...]]]
Burst = Callable[[Steps], None]


def record_loop(recorder: Recorder, count: int) -> Burst:
    """Return a loop of record() calls, written inline as in training code."""
    record = recorder.record

    def one(steps: Steps) -> None:
        for step, (a,) in steps:
            record(step, a=a)

    def two(steps: Steps) -> None:
        for step, (a, b) in steps:
            record(step, a=a, b=b)

    def four(steps: Steps) -> None:
        for step, (a, b, c, d) in steps:
            record(step, a=a, b=b, c=c, d=d)

    def eight(steps: Steps) -> None:
        for step, (a, b, c, d, e, f, g, h) in steps:
            record(step, a=a, b=b, c=c, d=d, e=e, f=f, g=g, h=h)

    return {1: one, 2: two, 4: four, 8: eight}[count]


def item_loop(steps: Steps) -> None:
    """Read every value with `.item()`."""
    for _, row in steps:
        for tensor in row:
            tensor.item()


def to_loop(steps: Steps) -> None:
    """Start an asynchronous copy of every value with torch."""
    for _, row in steps:
        for tensor in row:
            tensor.to("cpu", non_blocking=True)


class Lanes:
    """The lanes of one count of scalars."""

    def __init__(self, count: int, target: Target, bare: BareCopies, directory: Path) -> None:
        draw = random.Random(count)
        self.values = [[draw.uniform(-4.0, 4.0) for _ in range(count)] for _ in range(ROWS)]
        made = torch.tensor(self.values, dtype=torch.float32, device=target.device)
        self.rows = [tuple(value.clone() for value in row.unbind()) for row in made]
        self.values = made.double().tolist()
        self.target, self.bare, self.count = target, bare, count
        self.run = directory / f"run-{count}"
        self.recorder = Recorder(self.run)
        self.done = 0
        self.loops: dict[str, Burst] = {
            "record": record_loop(self.recorder, count),
            "to": to_loop,
            "item": item_loop,
        }
        self.samples: dict[str, list[float]] = {"record": [], "bare": [], "item": [], "to": []}

    def time(self, lane: str) -> float:
        """Run one burst of a lane.

        Returns:
            Nanoseconds per call.
        """
        self.target.synchronize()
        if lane == "bare":
            pointers = [tensor.data_ptr() for tensor in self.rows[0]]
            spent = self.bare.time(pointers, [4] * self.count, self.target.stream(), BURST)
            self.target.synchronize()
            if self.bare.last_floats(self.count) != self.values[0]:
                raise VerificationError("the bare copies returned wrong values")
            return spent
        steps = zip(range(self.done, self.done + BURST), cycle(self.rows))
        start = time.perf_counter_ns()
        self.loops[lane](steps)
        spent = (time.perf_counter_ns() - start) / BURST
        if lane == "record":
            self.done += BURST
            if not self.recorder.flush(timeout=60.0):
                raise VerificationError("flush() timed out")
        return spent

    def turn(self, first: int) -> None:
        """Run one burst of each lane, starting with lane number `first`."""
        names = list(self.samples)
        first %= len(names)
        for name in names[first:] + names[:first]:
            self.samples[name].append(self.time(name))

    def close(self) -> None:
        """Close the run and compare every line with the device's values.

        Raises:
            VerificationError: A line is missing or has another value.
        """
        if not self.recorder.close(timeout=60.0):
            raise VerificationError("close() timed out")
        check_accounting(self.recorder.stats(), self.done)
        found = (line for path in metric_files(self.run) for line in json_lines(path))
        step = -1
        for step, line in enumerate(found):
            # Each burst starts with the first row.
            expected = self.values[step % BURST % ROWS]
            if line["step"] != step or list(line["metrics"].values()) != expected:
                raise VerificationError(f"step {step} is {line}, not {expected}")
        if step + 1 != self.done:
            raise VerificationError(f"{step + 1} of {self.done} steps are in the output")

    def result(self) -> dict[str, Any]:
        """Return each lane's nanoseconds per call, and its ratio to the bare copies per round."""
        lanes = {
            name: {**describe(samples), "interval": bootstrap(samples)}
            for name, samples in self.samples.items()
        }
        bare = self.samples["bare"]
        ratios = {
            name: ratio(samples, bare) for name, samples in self.samples.items() if name != "bare"
        }
        return {"ns": lanes, "ratio": ratios, "verified": self.done}


def run(device: str, rounds: int) -> dict[str, Any]:
    """Measure all counts.

    Args:
        device: "cuda", or "cpu" for the smoke mode.
        rounds: Bursts of each lane.

    Returns:
        `gpu` (the device's facts) and `counts`: for each number of scalars what `Lanes.result`
        returns.
    """
    target = Target(device)
    torch.zeros(1, device=target.device)
    target.synchronize()
    if struct.calcsize("f") != 4:
        raise RuntimeError("float is not 32 bits wide here")
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        directory = Path(scratch)
        bare = BareCopies(directory, driver=target.cuda)
        everyone = [Lanes(count, target, bare, directory) for count in COUNTS]
        gc.collect()
        gc.freeze()
        for number in range(rounds + WARM_UP):
            if number == WARM_UP:
                for lanes in everyone:
                    for samples in lanes.samples.values():
                        samples.clear()
            for lanes in everyone:
                lanes.turn(number)
        for lanes in everyone:
            lanes.close()
        counts = {str(lanes.count): lanes.result() for lanes in everyone}
        return {"gpu": target.facts(), "rounds": rounds, "burst": BURST, "counts": counts}
