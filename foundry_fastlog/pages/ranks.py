"""What a page says of ranks: which one is slow, their figures, and a heat map of rank x step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from foundry_fastlog.analysis.ranks import compare_ranks
from foundry_fastlog.base.formatting import jsonable, printable
from foundry_fastlog.pages.encoding import encode
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run

if TYPE_CHECKING:
    from foundry_fastlog.analysis.rank_results import HeatMap

__all__ = ["rank_map"]

_MOST_SENTENCES = 20
_LARGEST = 100.0  # ratio; no colour tells more


def rank_map(run: Run, starts: Starts) -> dict[str, Any] | None:
    """Compare the ranks of a run for a page.

    Args:
        run: The run.
        starts: Which starts count.

    Returns:
        What `assets/ranks.js` shows; None of a run with one rank, or without timings.
    """
    if len(run.ranks) < 2 or "performance" not in run.streams:
        return None
    found = compare_ranks(run, starts=starts)
    return {
        "sentences": [printable(one, 400) for one in found.sentences[:_MOST_SENTENCES]],
        "more": max(0, len(found.sentences) - _MOST_SENTENCES),
        "notes": [printable(one, 400) for one in found.notes],
        "slowdown": found.slowdown,
        "ranks": [jsonable(one) for one in found.ranks],
        "slow": [[list(one.ranks), one.since, one.until] for one in found.stragglers],
        "heat": None if found.heat_map is None else _heat(found.heat_map),
    }


def _heat(found: HeatMap) -> dict[str, Any]:
    """Return a heat map; its cells are hundredths, 0 where there is no time."""
    hundredths = np.rint(np.clip(np.nan_to_num(found.ratio), 0.0, _LARGEST) * 100)
    cells = np.where(np.isnan(found.ratio), 0.0, np.maximum(hundredths, 1.0))
    return {
        "ranks": list(found.ranks),
        "steps": list(found.steps),
        "last": found.last_step,
        "width": found.width,
        "typical_s": found.typical_s,
        "cells": encode([cells.ravel()]),
    }
