"""What many runs come to, together or by what tells them apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from foundry_fastlog.analysis.direction import is_more_better
from foundry_fastlog.analysis.run_summary import RunSummary
from foundry_fastlog.analysis.runs import Runs
from foundry_fastlog.analysis.where import ABSENT
from foundry_fastlog.base.formatting import jsonable
from foundry_fastlog.base.statistics import describe

__all__ = ["Totals", "best_value", "grouped", "total_up"]


@dataclass(frozen=True)
class Totals:
    """Some runs together.

    Attributes:
        key: What they have in common, None of all runs, or of those that have no such value.
        runs: How many there are.
        states: How many are in each state, the most frequent first.
        duration_s: Seconds that they took together.
        steps: The sum of their highest steps.
        bytes: The size of their files.
        metric: Of their last values of a metric ``count``, ``mean``, ``std``, ``min``, ``max`` and
            ``total``; empty where none was named.
    """

    key: Any
    runs: int
    states: dict[str, int]
    duration_s: float
    steps: int
    bytes: int
    metric: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result


def total_up(runs: Runs, by: str | None, metric: str | None) -> list[Totals]:
    """Add up runs.

    Args:
        runs: The runs.
        by: An expression as for ``Runs.where``; runs for which it has one value are together.
        metric: The metric to describe.

    Returns:
        One of all runs, or one for each value, those with the most runs first.

    Raises:
        WhereError: The expression cannot be understood.
    """
    found = [_totals(key, chosen, metric) for key, chosen in grouped(runs, by)]
    return sorted(found, key=lambda one: -one.runs)


def grouped(runs: Runs, by: str | None) -> list[tuple[Any, Sequence[RunSummary]]]:
    """Return runs by the value of an expression, None where they have none; all without one.

    Raises:
        WhereError: The expression cannot be understood.
    """
    if by is None:
        return [(None, runs)]
    groups: dict[Hashable, tuple[Any, list[RunSummary]]] = {}
    for run, value in zip(runs, runs.column(by), strict=True):
        key = None if value is ABSENT else value
        groups.setdefault(_identity(key), (key, []))[1].append(run)
    return list(groups.values())


def _identity(value: Any) -> Hashable:  # noqa: ANN401 - any JSON
    """Return what is equal for equal values: those of 1 and 1.0, not of 1 and true."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return value
    if isinstance(value, dict):
        return frozenset((name, _identity(one)) for name, one in value.items())
    if isinstance(value, list):
        return tuple(map(_identity, value))
    return repr(value)


def _totals(key: Any, chosen: Sequence[RunSummary], metric: str | None) -> Totals:  # noqa: ANN401 - any JSON
    values = [run.look_up("last").get(metric) for run in chosen] if metric is not None else []
    return Totals(
        key,
        len(chosen),
        dict(Counter(run.state for run in chosen).most_common()),
        math.fsum(run.duration_s or 0.0 for run in chosen),
        sum(run.step or 0 for run in chosen),
        sum(run.bytes for run in chosen),
        {} if metric is None else describe([value for value in values if _is_number(value)]),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def best_value(run: RunSummary, metric: str) -> float | None:
    """Return the best value that a run had of a metric, None without a finite one."""
    value: float | None = run.look_up("max" if is_more_better(metric) else "min").get(metric)
    return value
