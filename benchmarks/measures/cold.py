"""Cost of one step's logging where it is paid: between computations that leave the caches cold.

Before each call, a matrix is multiplied and 64 MB are read, as a training step does. The empty C
function is called in the same state, in turn; the clock and the loop around a single call are part
of both.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measures.bursts import Lane, close_lanes, open_lane
from benchmarks.peers import load
from benchmarks.summary import describe
from benchmarks.workload import Row, rows

SIDE = 700
SWEEP_BYTES = 64 << 20
WARM_UP = 256


def run(peer: str, steps: int = 300) -> dict[str, Any]:
    """Measure one peer beside the empty C function.

    Args:
        peer: Its name.
        steps: Calls of each.

    Returns:
        `cold_ns` and `empty_ns` (each with median and percentiles), `ratio` of the medians; `calls`
        verified in the output. Or `unavailable` with the reason, if the peer is not installed.
    """
    try:
        subject = load(peer)
    except ImportError as error:
        return {"unavailable": f"{type(error).__name__}: {error}"}
    matrix = np.ones((SIDE, SIDE), np.float32)
    swept = np.ones(SWEEP_BYTES // 8)

    def time_one(lane: Lane, steps_left: Iterator[Row]) -> int:
        _ = matrix @ matrix
        swept.sum()
        one = iter((next(steps_left),))
        start = now()
        lane.loop(one)
        return now() - start

    now = time.perf_counter_ns
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        lanes = [
            open_lane(load("empty_fastcall"), Path(scratch) / "empty"),
            open_lane(subject, Path(scratch) / "peer"),
        ]
        turns = []
        for lane in lanes:
            lane.loop(rows(0, WARM_UP))
            lane.done = WARM_UP + steps
            turns.append((lane, rows(WARM_UP, steps)))
        gc.collect()
        gc.freeze()
        for _ in range(steps):
            for lane, steps_left in turns:
                lane.samples.append(time_one(lane, steps_left))
            turns.reverse()
        close_lanes(lanes)
        empty, cold = (describe(lane.samples) for lane in lanes)
        return {
            "cold_ns": cold,
            "empty_ns": empty,
            "ratio": cold["median"] / empty["median"],
            "calls": lanes[1].done,
            "versions": subject.versions(),
        }
