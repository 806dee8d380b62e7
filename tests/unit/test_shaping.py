"""Curves smoothed, averaged and thinned, beside slow and obvious computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_fastlog.analysis.shaping import mean_of_runs, smooth, thin, usual_distance

finite = st.floats(-1e300, 1e300)
places = st.lists(st.integers(1, 10**6), min_size=1, max_size=40).map(sorted)


def adam(values: list[float], weight: float) -> list[float]:
    """Kingma and Ba 2015, algorithm 1: the first moment and its bias correction."""
    moment, found = 0.0, []
    for number, value in enumerate(values, 1):
        moment = weight * moment + (1 - weight) * value
        found.append(moment / (1 - weight**number))
    return found


@pytest.mark.parametrize("weight", [0.1, 0.6, 0.9, 0.99])
def test_evenly_spaced_values_are_smoothed_as_adam_does_it(weight: float) -> None:
    values = np.random.default_rng(3).normal(2, 1, 200)
    found = smooth(np.arange(200) * 50, values, weight)
    np.testing.assert_allclose(found, adam(values.tolist(), weight), rtol=1e-9)


def test_what_is_far_away_counts_less() -> None:
    """A gap of three times the unit is one of three values, without those in between."""
    found = smooth(np.array([0, 1, 4, 4]), np.array([1.0, 5.0, 2.0, 3.0]), 0.5, 1.0)
    weights = np.array([0.5**4, 0.5**3, 1, 1])
    assert found[3] == pytest.approx(weights @ [1, 5, 2, 3] / weights.sum())
    assert usual_distance(np.array([0, 2, 4, 4, 100])) == 2
    assert usual_distance(np.array([7, 7])) == 0


@given(places, st.data(), st.floats(0, 1))
def test_a_smoothed_value_is_within_what_was_there(
    x: list[int], data: st.DataObject, weight: float
) -> None:
    y = data.draw(st.lists(finite, min_size=len(x), max_size=len(x)))
    found = smooth(np.array(x), np.array(y), weight)
    assert np.isfinite(found).all()
    slack = 1e-9 * max(map(abs, y))
    assert all(min(y) - slack <= one <= max(y) + slack for one in found)
    assert found[0] == pytest.approx(y[0], rel=1e-12)
    if weight == 0:
        assert found.tolist() == y


def test_full_weight_is_the_mean_so_far_and_more_is_refused() -> None:
    found = smooth(np.array([0, 1, 5]), np.array([1.0, 2.0, 6.0]), 1.0)
    assert found.tolist() == pytest.approx([1, 1.5, 3])
    for weight in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            smooth(np.empty(0), np.empty(0), weight)


def test_the_mean_over_runs_and_its_error() -> None:
    """Of those that reach a place; between its values a run is interpolated."""
    curves = [([0, 1, 2], [1.0, 2, 3]), ([0, 2, 2], [3.0, 9, 5]), ([], []), ([2, 3], [10.0, 20])]
    found = mean_of_runs((np.array(x, float), np.array(y, float)) for x, y in curves)
    there = [[1, 3], [2, 4], [3, 5, 10], [20]]
    assert found.x.tolist() == [0, 1, 2, 3]
    assert found.count.tolist() == [2, 2, 3, 1]
    assert found.mean.tolist() == pytest.approx([np.mean(one) for one in there])
    errors = [np.std(one, ddof=1) / len(one) ** 0.5 for one in there[:3]]
    assert found.error.tolist() == pytest.approx([*errors, 0])
    assert len(mean_of_runs([]).x) == 0


@given(places, st.data(), st.integers(1, 8), st.booleans())
def test_thinned_curves_keep_ends_and_extremes_of_each_column(
    x: list[int], data: st.DataObject, columns: int, log: bool
) -> None:
    y = data.draw(st.lists(finite, min_size=len(x), max_size=len(x)))
    kept = thin(np.array(x, float), np.array(y), columns, log=log).tolist()
    assert kept == sorted(set(kept))
    if len(x) <= 4 * columns:
        assert kept == list(range(len(x)))
        return
    assert len(kept) <= 4 * columns
    assert {0, len(x) - 1} <= set(kept)
    at = [math.log(one) for one in x] if log else x
    span = (at[-1] - at[0]) or 1
    by_column: dict[int, list[int]] = {}
    for number, one in enumerate(at):
        # On the boundary of a column rounding decides; both may have it.
        column = min(int((one - at[0]) / span * columns), columns - 1)
        by_column.setdefault(column, []).append(number)
    values = {y[number] for number in kept}
    if not log:
        for numbers in by_column.values():
            assert {min(y[n] for n in numbers), max(y[n] for n in numbers)} <= values
    assert {min(y), max(y)} <= values
