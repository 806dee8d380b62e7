"""Time until a million records are complete in their file."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from benchmarks.child import spawn
from benchmarks.gates.trying import Outcome, Reading, until_passed

COUNT = 1_000_000
ROUNDS = 3
PEERS = ("fastlog", "orjson_write")


def test_a_million_records_are_durable_before_orjson_has_written_them(
    check: Callable[[str, Outcome], None],
) -> None:
    """The clock stops when close() has returned and all lines are in the file; then verify them."""

    def measure() -> Reading:
        seconds: dict[str, list[float]] = {peer: [] for peer in PEERS}
        for turn in range(ROUNDS):
            for peer in PEERS if turn % 2 == 0 else PEERS[::-1]:
                seconds[peer].append(spawn("durable", peer=peer, count=COUNT)["complete_s"])
        fastlog, orjson = (median(seconds[peer]) for peer in PEERS)
        text = f"{fastlog / orjson:.2f}x (bound < 1x), {fastlog:.3f} s to {orjson:.3f} s"
        return Reading(fastlog < orjson, text)

    check(f"{COUNT:,} records to durable over orjson + write", until_passed(measure))
