"""The cost of a call in a step that leaves the caches cold, beside an empty C call there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.child import spawn
from benchmarks.gates.trying import Outcome, Reading, until_passed

BOUNDS = {
    "fastlog": 1.8,  # the goal is 1.5
    "fastlog_timer": 3.0,
    "fastlog_time_block": 4.0,
    "fastlog_metrics_logger": 3.3,  # the goal is 3
    "fastlog_demo_step": 5.5,  # 40 us where the empty call takes 7.2
}


@pytest.mark.parametrize(("peer", "bound"), BOUNDS.items())
def test_a_call_touches_little_memory(
    check: Callable[[str, Outcome], None], peer: str, bound: float
) -> None:
    """The bounds are the goals, with room where those are near; the output is verified."""

    def measure() -> Reading:
        found = spawn("cold", peer=peer)
        cold, empty = found["cold_ns"]["median"] / 1e3, found["empty_ns"]["median"] / 1e3
        ratio = found["ratio"]
        text = f"{ratio:.2f}x ({cold:.1f} us to {empty:.1f} us; bound {bound:g}x)"
        return Reading(ratio < bound, text)

    check(f"{peer}, caches cold, over an empty C call", until_passed(measure))
