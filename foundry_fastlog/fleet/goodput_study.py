"""Where the time of one run went, by `measure_goodput`, and how many ranks it was the time of."""

from __future__ import annotations

import math
from typing import Any

from foundry_fastlog.analysis.goodput import KINDS, StartGoodput, measure_goodput
from foundry_fastlog.fleet.goodput import EMPTY
from foundry_fastlog.reading.run import Run
from foundry_fastlog.reading.start_states import StartReport

__all__ = ["study_goodput"]


def study_goodput(run: Run) -> dict[str, Any]:
    """Say where the time of a run went, on a worker: fields of ``RunGoodput``."""
    try:
        found = measure_goodput(run)
    except LookupError as error:
        if type(error) is not LookupError:
            raise
        return {EMPTY: str(error.args[0])}
    ranks = {report.number: _ranks_of(report) for report in run.report_starts()}
    weights = [(one, ranks[one.number]) for one in found.starts]
    device_parts = {
        kind: math.fsum(_part(one, kind) * count for one, count in weights) for kind in KINDS
    }
    return {
        "ranks": max(count for _, count in weights),
        "wall_s": found.wall_s,
        "device_s": math.fsum(device_parts.values()),
        "parts": found.parts,
        "device_parts": device_parts,
        "ideal_device_s": (found.ideal_step_s or 0.0)
        * sum(one.steps * count for one, count in weights),
        "steps": found.steps,
        "steps_again": found.steps_again,
        "running": found.running,
        "complete": found.complete,
        "largest_loss": found.largest_loss(),
    }


def _ranks_of(report: StartReport) -> int:
    """Return how many ranks a start had: not all of them need to have recorded."""
    world = report.entry.get("world_size")
    return max(world if type(world) is int else 0, len(report.ranks), 1)


def _part(one: StartGoodput, kind: str) -> float:
    # Until a start begins, its ranks wait.
    return one.dead_s if kind == "dead" else one.parts[kind]
