"""Summaries of samples: medians, quantiles and a distribution-free interval of the median."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

__all__ = ["describe", "median", "median_interval", "quantile"]


def quantile(samples: Sequence[float], q: float) -> float:
    """Return the `q` quantile (0..1), linear between neighbours.

    Raises:
        ValueError: There are no samples.
    """
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (position - low))


def describe(samples: Sequence[float]) -> dict[str, Any]:
    """Return median, tenth and ninetieth percentile, extremes and count."""
    return {
        "median": median(samples),
        "p10": quantile(samples, 0.1),
        "p90": quantile(samples, 0.9),
        "min": min(samples),
        "max": max(samples),
        "n": len(samples),
    }


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return a two-sided interval of the median from order statistics.

    It assumes independent samples but no distribution, so each outlier (a preempted step) widens it
    by only one rank.

    Args:
        samples: At least 10.
        confidence: Probability that the interval covers the median.

    Raises:
        ValueError: Too few samples.
    """
    n = len(samples)
    if n < 10:
        raise ValueError(f"{n} samples are too few for an interval")
    ordered = sorted(samples)
    # P(X <= k) for X ~ Binomial(n, 1/2), summed in logarithms: n can be thousands.
    tail, cumulated, rank = (1.0 - confidence) / 2.0, 0.0, 0
    log_half = n * math.log(0.5)
    while rank < n // 2:
        log_p = math.lgamma(n + 1) - math.lgamma(rank + 1) - math.lgamma(n - rank + 1) + log_half
        cumulated += math.exp(log_p)
        if cumulated > tail:
            break
        rank += 1
    low = max(rank - 1, 0)
    return float(ordered[low]), float(ordered[n - 1 - low])
