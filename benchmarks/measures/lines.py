"""The cache lines that one call touches; runs in callgrind, see benchmarks/lines.py."""

from __future__ import annotations

import ctypes
import gc
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measures.bursts import close_lanes, open_lane
from benchmarks.peers import load
from benchmarks.workload import rows

WARM_UP = 256


def run(peer: str, counter: str, steps: int) -> dict[str, Any]:
    """Let callgrind count each of some calls on its own.

    Args:
        peer: Its name.
        counter: The shared object of floor/callgrind.c.
        steps: Calls to count.

    Returns:
        `calls` verified in the output, `versions`. Or `unavailable` with the reason, if the peer is
        not installed.
    """
    try:
        subject = load(peer)
    except ImportError as error:
        return {"unavailable": f"{type(error).__name__}: {error}"}
    count = ctypes.CDLL(counter)
    start, end = count.count_start, count.count_end
    start.restype = end.restype = None
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        lane = open_lane(subject, Path(scratch) / "peer")
        lane.loop(rows(0, WARM_UP))
        gc.collect()
        gc.freeze()
        counted = rows(WARM_UP, steps)
        for _ in range(steps):
            one = iter((next(counted),))
            start()
            lane.loop(one)
            end()
        lane.done = WARM_UP + steps
        close_lanes([lane])
        return {"calls": lane.done, "versions": subject.versions()}
