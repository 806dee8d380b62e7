"""Cost of one call: one peer and the empty function, in one process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measures.bursts import close_lanes, net, open_lane, rotate
from benchmarks.peers import load
from benchmarks.summary import describe, median


def run(peer: str, bursts: int = 60, seconds: float = 1.5) -> dict[str, Any]:
    """Measure one peer.

    Args:
        peer: Its name.
        bursts: Samples to take.
        seconds: Time limit; at least five samples are taken.

    Returns:
        `call_ns` and `empty_ns` (each with median and percentiles over bursts, the bare loop
        subtracted), `ratio` of their medians, `loop_ns`, and `calls` verified in the output. Or
        `unavailable` with the reason, if the peer is not installed.
    """
    try:
        subject = load(peer)
    except ImportError as error:
        return {"unavailable": f"{type(error).__name__}: {error}"}
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        lanes = [
            open_lane(load("empty_fastcall"), Path(scratch) / "empty"),
            open_lane(subject, Path(scratch) / "peer"),
        ]
        bare = rotate(lanes, bursts=bursts, seconds=seconds)
        close_lanes(lanes)
        empty, call = (describe(net(lane, bare)) for lane in lanes)
        return {
            "call_ns": call,
            "empty_ns": empty,
            "ratio": call["median"] / empty["median"],
            "loop_ns": median(bare.samples),
            "burst": lanes[1].burst,
            "calls": lanes[1].done,
            "facts": subject.facts(),
            "versions": subject.versions(),
        }
