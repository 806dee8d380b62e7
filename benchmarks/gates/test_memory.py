"""Memory of the recorder, which must not grow with records."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.child import spawn
from benchmarks.gates.trying import Outcome, Reading, until_passed
from benchmarks.measures.memory import MIB

COUNT = 1_000_000
BOUND_MB = 100.0
GROWTH_BOUND_MB = 4.0
"""For nine tenths of a million records: less than five bytes per record."""


def test_the_recorder_takes_less_than_100_mb(check: Callable[[str, Outcome], None]) -> None:
    """Peak resident set over a million records, minus that before the import, and its growth."""

    def measure() -> Reading:
        found = spawn("memory", count=COUNT)
        peak, growth = found["recorder"] * MIB / 1e6, found["growth"] * MIB / 1e6
        text = (
            f"{peak:.1f} MB at the peak (bound {BOUND_MB:g} MB), growth {growth:.2f} MB over "
            f"{found['count']:,} records (bound {GROWTH_BOUND_MB:g} MB)"
        )
        return Reading(peak < BOUND_MB and growth < GROWTH_BOUND_MB, text)

    check("recorder memory", until_passed(measure, tries=2))
