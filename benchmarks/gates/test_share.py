"""What the recorder says of its own cost, beside a clock around the calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.child import spawn
from benchmarks.gates.trying import Outcome, Reading, until_passed

WITHIN = 0.2


@pytest.mark.parametrize(("kind", "steps"), [("demo", 120), ("1 ms", 3000)])
def test_the_recorders_own_figure_is_true(
    check: Callable[[str, Outcome], None], kind: str, steps: int
) -> None:
    """Within 20 % of what a clock around each call shows, less an empty call in its place."""

    def measure() -> Reading:
        found = spawn("share", kind=kind, steps=steps)
        own, outside, ratio = found["own_us"], found["outside_us"], found["ratio"]
        text = (
            f"{ratio:.2f} ({own:.1f} us of {outside:.1f} us a step; "
            f"bound {1 - WITHIN:g} to {1 + WITHIN:g})"
        )
        return Reading(abs(ratio - 1) <= WITHIN, text)

    check(f"own figure over an outside clock, {kind}", until_passed(measure))
