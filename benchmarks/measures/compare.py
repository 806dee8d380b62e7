"""Cost of one call for several peers in one process, in alternating bursts: for the gates."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measures.bursts import close_lanes, net, open_lane, rotate
from benchmarks.peers import load
from benchmarks.summary import describe


def run(peers: list[str], bursts: int = 60, seconds: float = 10.0) -> dict[str, Any]:
    """Measure several in-process peers in one rotation.

    Args:
        peers: Their names.
        bursts: Samples of each.
        seconds: Time limit for the rotation.

    Returns:
        For each peer `median` and percentiles in ns per call (the bare loop subtracted) and
        `calls`, the number of records verified in its output.
    """
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        lanes = [open_lane(load(name), Path(scratch) / name) for name in peers]
        bare = rotate(lanes, bursts=bursts, seconds=seconds)
        close_lanes(lanes)
        return {
            name: {**describe(net(lane, bare)), "calls": lane.done}
            for name, lane in zip(peers, lanes, strict=True)
        }
