"""Whether other Python threads keep running while driver calls wait for room in its queue."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.check import judge
from benchmarks.gpu.check.lines import flushed
from benchmarks.gpu.check.machines import Machine, find
from benchmarks.gpu.check.report import Report

BEAT_S = 0.001
KEYS = ("a", "b", "c", "d")
LANES = 3
"""Number of tries to have record() itself, and not the kernel next to it, find a full queue."""


class Heart:
    """A thread that stamps every millisecond, if it gets the interpreter."""

    def __enter__(self) -> Heart:  # noqa: PYI034 - Self needs Python 3.11
        """Start it."""
        self.stop = threading.Event()
        self.beats = [time.perf_counter()]
        self.thread = threading.Thread(target=self._beat, daemon=True)
        self.thread.start()
        return self

    def _beat(self) -> None:
        while not self.stop.is_set():
            time.sleep(BEAT_S)
            self.beats.append(time.perf_counter())

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop.set()
        self.thread.join()
        self.beats.append(time.perf_counter())

    def gap_ms(self) -> float:
        """Return the longest time without a stamp."""
        pairs = zip(self.beats, self.beats[1:], strict=False)
        return max((after - before) * 1e3 for before, after in pairs)


def lane(
    machine: Machine,
    kernel_s: float,
    count: int,
    work: Callable[[], None],
    before: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Call `work` repeatedly behind a kernel, each time after `before`; return gaps and times.

    `blocked` says whether one call of `work` took about as long as the kernel, which means that it
    found the queue full.
    """
    machine.synchronize()
    calls = []
    with Heart() as heart:
        machine.keep_busy(kernel_s)
        start = time.perf_counter()
        for _ in range(count):
            before()
            begun = time.perf_counter()
            work()
            calls.append((time.perf_counter() - begun) * 1e6)
        spent = time.perf_counter() - start
    machine.synchronize()
    return {
        "gap_ms": heart.gap_ms(),
        "p50_us": judge.quantile(calls, 0.5),
        "p99_us": judge.quantile(calls, 0.99),
        "max_us": max(calls),
        "seconds": spent,
        "blocked": max(calls) > kernel_s * 1e6 / 2,
    }


def measured(
    machine: Machine, kernel_s: float, count: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the figures of each lane, and the lines of the one that records."""
    from foundry_fastlog import Recorder

    x = machine.scalar(0.0)
    lanes = {"add": lane(machine, kernel_s, count, lambda: machine.add(x, 1.0))}
    if not machine.fake:

        def to() -> None:
            machine.add(x, 1.0)
            x.to("cpu", non_blocking=True)

        lanes["to"] = lane(machine, kernel_s, count, to)
    x = machine.scalar(0.0)
    with tempfile.TemporaryDirectory() as scratch, Recorder(Path(scratch) / "run") as recorder:
        recorder.record(-1, a=x)  # finds the driver and pins memory
        steps = iter(range(LANES * count))

        def record() -> None:
            recorder.record(next(steps), a=x, b=x, c=x, d=x)

        for _ in range(LANES):
            lanes["record"] = lane(machine, kernel_s, count, record, lambda: machine.add(x, 1.0))
            lines = flushed(recorder)
            if lanes["record"]["blocked"] or machine.fake:
                break
        return lanes, lines


def run(report: Report) -> None:
    """Fill the queue behind a kernel of two seconds."""
    machine = find()
    kernel_s, count = (0.3, 300) if machine.fake else (2.0, 3000)
    sys.setswitchinterval(0.001)
    expects = (
        "another thread keeps running while record() waits for room in the queue, as with add_()"
    )
    with report.attempt("other threads", expects=expects):
        lanes, lines = measured(machine, kernel_s, count)
        report.judge_times(
            "other threads",
            judge.heartbeat(lanes),
            expects=expects,
            shows="; ".join(
                f"{name}: gap {each['gap_ms']:.1f} ms, p50 {each['p50_us']:.0f}, p99 "
                f"{each['p99_us']:.0f}, max {each['max_us']:.0f} us"
                for name, each in lanes.items()
            ),
            lanes=lanes,
            kernel_s=kernel_s,
            calls=count,
        )
        expects = "every value is that of its step, although the queue was full"
        expected = {step: step + 1.0 for step in range(max(count, len(lines) - 1))}
        why = judge.values(lines, expected, KEYS)
        report.judge("values", why, expects=expects, missing=judge.missing(lines))
