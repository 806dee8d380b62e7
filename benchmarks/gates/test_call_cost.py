"""The cost of one call with four float metrics, against the empty C call and orjson + write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.child import spawn
from benchmarks.gates.trying import Outcome, Reading, until_passed

EMPTY_BOUND = 5.0
EMPTY_GOAL = 3.0
TENSOR_BOUND = 5.0
ORJSON_BOUND = 6.0
ORJSON_GOAL = 10.0

Check = Callable[[str, Outcome], None]


def medians(*peers: str) -> dict[str, float]:
    """Measure the peers in alternating bursts, and verify every output.

    Returns:
        Median ns per call of each, minus the bare loop.
    """
    found: dict[str, Any] = spawn("compare", peers=list(peers))
    return {peer: row["median"] for peer, row in found.items()}


def test_record_costs_at_most_five_empty_calls(check: Check) -> None:
    """Four floats take at most five times the empty call (goal: three), in both forms of a call.

    `rec.record(...)` is compared with an empty method, and the bound method with an empty
    function, so that CPython's attribute look-up is in both.
    """

    def measure() -> Reading:
        ns = medians("empty_method", "fastlog", "empty_fastcall", "fastlog_bound")
        method = ns["fastlog"] / ns["empty_method"]
        bound = ns["fastlog_bound"] / ns["empty_fastcall"]
        text = (
            f"rec.record() {method:.2f}x ({ns['fastlog']:.1f} ns to {ns['empty_method']:.1f} ns), "
            f"bound once {bound:.2f}x ({ns['fastlog_bound']:.1f} ns to "
            f"{ns['empty_fastcall']:.1f} ns); bound {EMPTY_BOUND:g}x, goal {EMPTY_GOAL:g}x"
        )
        return Reading(max(method, bound) <= EMPTY_BOUND, text)

    check("record() over the empty C call", until_passed(measure))


def test_a_tensor_costs_at_most_five_times_a_float(check: Check) -> None:
    """`record(step, loss=cpu_tensor)` over `record(step, loss=float)`; less than with `.item()`."""

    def measure() -> Reading:
        rows: dict[str, Any] = spawn("tensors")
        ns = {name: row["median"] for name, row in rows.items()}
        tensor = ns["tensor_1"] / ns["float_1"]
        saved = [ns[f"item_{n}"] / ns[f"tensor_{n}"] for n in (1, 4)]
        text = (
            f"one value {tensor:.2f}x ({ns['tensor_1']:.0f} ns to {ns['float_1']:.0f} ns; bound "
            f"{TENSOR_BOUND:g}x), `.item()` takes {saved[0]:.2f}x as long; four values "
            f"{ns['tensor_4'] / ns['float_4']:.2f}x ({ns['tensor_4']:.0f} ns to "
            f"{ns['float_4']:.0f} ns), `.item()` takes {saved[1]:.2f}x as long"
        )
        return Reading(tensor <= TENSOR_BOUND and min(saved) > 1, text)

    check("a CPU tensor over a float", until_passed(measure))


def test_record_is_six_times_faster_than_orjson_and_write(check: Check) -> None:
    """`orjson.dumps` + buffered write takes at least six times as long (goal: ten times)."""

    def measure() -> Reading:
        ns = medians("fastlog", "orjson_write")
        ratio = ns["orjson_write"] / ns["fastlog"]
        text = (
            f"{ratio:.1f}x (bound {ORJSON_BOUND:g}x, goal {ORJSON_GOAL:g}x), "
            f"{ns['orjson_write']:.0f} ns to {ns['fastlog']:.1f} ns"
        )
        return Reading(ratio >= ORJSON_BOUND, text)

    check("orjson + write over record()", until_passed(measure))
