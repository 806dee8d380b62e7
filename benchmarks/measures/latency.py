"""Distribution of single calls, and the clock's own cost."""

from __future__ import annotations

import gc
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import load
from benchmarks.peers.base import Peer
from benchmarks.workload import VALUES, rows

POINTS = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
Call = Callable[..., object]


def percentiles(samples: array[int]) -> dict[str, float]:
    """Return p50, p99, p99.9 and the maximum, in ns."""
    ordered = sorted(samples)
    found = {name: float(ordered[int(q * (len(ordered) - 1))]) for name, q in POINTS}
    return {**found, "max": float(ordered[-1])}


def clock_samples(count: int) -> array[int]:
    """Return differences of two clock readings with nothing between them, in ns."""
    now, samples = time.perf_counter_ns, array("q", bytes(8 * count))
    for index in range(count):
        start = now()
        samples[index] = now() - start
    return samples


def back_to_back(call: Call, count: int) -> array[int]:
    """Time each of `count` consecutive calls, in ns: the ring fills, and some calls wait."""
    now, samples = time.perf_counter_ns, array("q", bytes(8 * count))
    for step, (loss, lr, grad_norm, tokens_per_sec) in rows(0, count):
        start = now()
        call(step, loss=loss, lr=lr, grad_norm=grad_norm, tokens_per_sec=tokens_per_sec)
        samples[step] = now() - start
    return samples


def paced(call: Call, count: int, interval_ns: int) -> array[int]:
    """Time each of `count` calls, one per `interval_ns`, in ns; the thread spins in between."""
    now, samples = time.perf_counter_ns, array("q", bytes(8 * count))
    due = now()
    for step, (loss, lr, grad_norm, tokens_per_sec) in rows(0, count):
        while now() < due:
            pass
        start = now()
        call(step, loss=loss, lr=lr, grad_norm=grad_norm, tokens_per_sec=tokens_per_sec)
        samples[step] = now() - start
        due += interval_ns
    return samples


def single_call(subject: Peer, directory: Path) -> Call:
    """Return the peer's single call, without its loop."""
    loop = subject.setup(directory)
    if subject.name == "fastlog":
        call: Call = subject.recorder.record  # type: ignore[attr-defined]  # Fastlog has it
        return call
    one = [(0, VALUES[0])]

    def step_call(
        step: int, *, loss: float, lr: float, grad_norm: float, tokens_per_sec: float
    ) -> None:
        one[0] = (step, (loss, lr, grad_norm, tokens_per_sec))
        loop(iter(one))

    return step_call


def run(peer: str, count: int, interval_ns: int = 0) -> dict[str, Any]:
    """Measure the distribution of one peer's calls.

    Args:
        peer: "fastlog" (its method is called directly) or any other peer (through a small wrapper,
            whose cost of about 0.3 us is part of the figure).
        count: Calls.
        interval_ns: Interval between calls; 0 for back to back.

    Returns:
        Percentiles of `call_ns` and of `clock_ns` (two readings of the clock with nothing
        between; not subtracted).
    """
    subject = load(peer)
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        directory = Path(scratch)
        call = single_call(subject, directory)
        gc.collect()
        gc.freeze()
        clock = clock_samples(min(count, 200_000))
        samples = paced(call, count, interval_ns) if interval_ns else back_to_back(call, count)
        subject.finish()
        subject.verify(directory, count)
        return {"count": count, "call_ns": percentiles(samples), "clock_ns": percentiles(clock)}
