"""Medians of paired ratios, with intervals by bootstrap."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.summary import median, quantile

RESAMPLES = 2000


def bootstrap(
    samples: Sequence[float], confidence: float = 0.95, seed: int = 1
) -> dict[str, float]:
    """Return `median`, and `low` and `high` of its two-sided interval.

    Args:
        samples: One ratio per round; rounds are assumed to be independent.
        confidence: Probability that the interval covers the true median.
        seed: Seed of the resampling, so that a page can be regenerated.
    """
    draw = random.Random(seed)
    medians = [median(draw.choices(samples, k=len(samples))) for _ in range(RESAMPLES)]
    tail = (1.0 - confidence) / 2.0
    return {
        "median": median(samples),
        "low": quantile(medians, tail),
        "high": quantile(medians, 1.0 - tail),
    }


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Return the median of `above[i] / below[i]` with its interval; pairs are rounds."""
    return bootstrap([a / b for a, b in zip(above, below, strict=True)])
