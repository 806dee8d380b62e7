"""Where the wall time of a run went, as a page shows it."""

from __future__ import annotations

from typing import Any

from foundry_fastlog.analysis.goodput import measure_goodput
from foundry_fastlog.base.formatting import printable
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run
from foundry_fastlog.show.goodput import LOOKS

__all__ = ["goodput_of"]

_MOST_NOTES = 10


def goodput_of(run: Run, starts: Starts) -> dict[str, Any] | None:
    """Say where the wall time of a run went.

    Args:
        run: The run.
        starts: A number for that start alone; whatever else counts, all of them took time.

    Returns:
        What `assets/goodput.js` shows; None where nothing says when the run was.
    """
    try:
        found = measure_goodput(run, starts="all" if isinstance(starts, str) else starts)
    except LookupError:
        return None
    parts = [(*LOOKS[kind], seconds) for kind, seconds in found.parts.items() if seconds]
    return {
        "wall_s": found.wall_s,
        "rank": found.rank,
        "goodput": found.goodput,
        "parts": [{"name": name, "colour": c, "seconds": s} for name, _, c, s in parts],
        "loss": found.largest_loss(),
        "notes": [printable(note, 400) for note in found.notes[:_MOST_NOTES]],
    }
