"""The cost of a message with five fields for its caller, against common loggers."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.child import spawn
from benchmarks.gates.trying import Outcome, Reading, until_passed

OURS = "message_fastlog"
PEERS = ("message_stdlib", "message_structlog", "message_loguru")


def test_a_message_costs_less_than_with_other_loggers(
    check: Callable[[str, Outcome], None],
) -> None:
    """The stdlib with json, structlog + orjson and loguru take longer; every output is verified."""

    def measure() -> Reading:
        found = spawn("compare", peers=[OURS, *PEERS], bursts=30)
        ours = found[OURS]["median"]
        ratios = {peer: found[peer]["median"] / ours for peer in PEERS}
        listed = ", ".join(f"{peer.split('_')[1]} {ratio:.1f}x" for peer, ratio in ratios.items())
        return Reading(min(ratios.values()) > 1, f"{listed} of {ours:.0f} ns (bound 1x)")

    check("other loggers over StructuredLogger.info()", until_passed(measure))
