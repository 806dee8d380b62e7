"""Statistics beside the standard library's, which computes them exactly."""

from __future__ import annotations

import gc
import math
import statistics
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_fastlog.base.statistics import describe
from foundry_fastlog.recording.extension import core

KEYS = {"count", "mean", "std", "min", "max", "total"}
NOTHING = {"count": 0, "mean": None, "std": None, "min": None, "max": None, "total": None}
# Seconds, in nanoseconds: squares of much smaller numbers would be zero.
durations = st.lists(st.integers(0, 10**15).map(lambda ns: ns / 1e9), max_size=30)


# Of much smaller or larger numbers the squares are zero or infinite.
sizable = st.floats(-1e150, 1e150).map(lambda x: x if abs(x) > 1e-140 else 0.0)


@given(st.lists(sizable, min_size=1, max_size=30))
def test_like_the_standard_library(numbers: list[float]) -> None:
    """Mean, deviation, sum and extremes."""
    found = describe(numbers)
    assert set(found) == KEYS
    ends = (len(numbers), min(numbers), max(numbers))
    assert (found["count"], found["min"], found["max"]) == ends
    assert found["total"] == math.fsum(numbers)
    exact = statistics.mean(numbers)
    assert found["mean"] == pytest.approx(exact, rel=1e-12, abs=1e-300)
    spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    assert found["std"] == pytest.approx(spread, rel=1e-9)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=10))
def test_no_finite_numbers_are_too_large(numbers: list[float]) -> None:
    """No exception and no NaN; the mean lies within."""
    found = describe(numbers)
    assert min(numbers) <= found["mean"] <= max(numbers)
    assert found["std"] >= 0
    exact = sum(map(Fraction, numbers))
    try:
        assert found["total"] == float(exact)
    except OverflowError:
        assert found["total"] == (math.inf if exact > 0 else -math.inf)


def test_the_largest_floats() -> None:
    """Sum and deviation that no float can say are infinite."""
    big = sys.float_info.max
    same = {"count": 2, "mean": big, "std": 0.0, "min": big, "max": big, "total": math.inf}
    assert describe([big, big]) == same
    assert describe([-big, big, -big, -big])["std"] <= math.inf
    assert describe([-big, -big])["total"] == -math.inf


def test_a_sum_that_is_too_large_only_on_the_way() -> None:
    """As if it had been summed in another order."""
    assert describe([1e308, 1e308, -1e308])["total"] == 1e308
    assert describe([1e308, 1.7e308, -1e308, -1.7e308, 5e-324])["total"] == 5e-324


def test_none_and_one() -> None:
    """Nothing has no mean; one number has no spread."""
    assert describe([]) == NOTHING
    one = {"count": 1, "mean": 2.5, "std": 0.0, "min": 2.5, "max": 2.5, "total": 2.5}
    found = core.Durations(1)
    found.add(2.5)
    assert describe([2.5]) == found.describe() == one


@given(durations.filter(bool), st.integers(1, 40))
def test_one_by_one_as_all_at_once(numbers: list[float], most: int) -> None:
    """What is added one by one is described alike, and the latest are kept."""
    durations = core.Durations(most)
    for number in numbers:
        durations.add(number)
    found, wanted = durations.describe(), describe(numbers)
    for key in ("count", "min", "max"):
        assert found[key] == wanted[key]
    assert found["total"] == pytest.approx(wanted["total"], rel=1e-14)
    assert found["mean"] == pytest.approx(wanted["mean"], rel=1e-12)
    assert found["std"] == pytest.approx(wanted["std"], rel=1e-6, abs=max(numbers) * 1e-7)
    assert durations.latest() == numbers[-most:]


def test_a_small_spread_of_large_numbers() -> None:
    """Where sums of squares would have lost it."""
    durations = core.Durations(1)
    for i in range(1000):
        durations.add(1e6 + (i % 2) * 1e-3)
    assert durations.describe()["std"] == pytest.approx(5.0025e-4, rel=1e-4)


def test_the_garbage_collector_may_add_durations() -> None:
    """It runs code while the list of the latest is made, which has room for those before."""
    durations = core.Durations(1000)
    durations.add(1.0)

    def add(*_: object) -> None:
        durations.add(2.0)

    gc.callbacks.append(add)
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(100):
            assert set(durations.latest()) <= {1.0, 2.0}
            assert durations.describe()["min"] == 1.0
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(add)
    assert durations.describe()["count"] > 1


def test_durations_that_are_none() -> None:
    with pytest.raises(ValueError, match="at least 1 is kept, got 0"):
        core.Durations(0)
    with pytest.raises(TypeError):
        core.Durations(1).add("long")  # type: ignore[arg-type]
