"""When a run saved checkpoints, as far as its timings and messages say so."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np
import orjson

from foundry_fastlog.analysis.points import Asked, first_record
from foundry_fastlog.base.arguments import exactly
from foundry_fastlog.base.environment import moment_of

if TYPE_CHECKING:
    from foundry_fastlog.reading.counting import Starts
    from foundry_fastlog.reading.run import Run

__all__ = ["checkpoints_of", "saves_of"]

_OTHERS = re.compile("load|restor|resum|delet|prun|find", re.IGNORECASE)
_SAVED = re.compile(r"\bcheckpoint\b.*\bsaved\b|\bsaved\b.*\bcheckpoint\b", re.IGNORECASE)


def saves_of(run: Run, starts: Starts) -> dict[int, float]:
    """Return the steps at which checkpoints were saved, each with its time in seconds since 1970.

    A checkpoint is a timed block whose name has ``checkpoint`` in it, but no word for loading or
    removing one. A run without such blocks is searched for messages with a step that say
    that a checkpoint was saved.

    Args:
        run: The run.
        starts: Which starts count.
    """
    return _from_timings(run, starts) or _from_messages(run, starts)


def checkpoints_of(run: Run, asked: Asked) -> list[float]:
    """Return where on the x axis checkpoints were saved, ascending; see `saves_of`.

    On axes of epochs and metrics there are none.

    Args:
        run: The run.
        asked: What the x axis is, and which steps and starts.
    """
    if asked.x not in ("step", "time", "relative"):
        return []
    first, last = asked.steps or (None, None)
    found = {
        step: time
        for step, time in saves_of(run, asked.starts).items()
        if (first is None or step >= first) and (last is None or step <= last)
    }
    if asked.x == "step":
        return sorted(map(float, found))
    begin = first_record(run) if asked.x == "relative" else 0.0
    return sorted(time - begin for time in found.values())


def _from_timings(run: Run, starts: Starts) -> dict[int, float]:
    names = [name for name in run.names("performance") if "checkpoint" in name.lower()]
    names = exactly(name for name in names if not _OTHERS.search(name))
    if not names:
        return {}
    columns = run.arrow("performance", names=names, starts=starts).to_numpy()
    (_, steps, known), (_, times, _) = columns["step"], columns["timestamp"]
    chosen = np.ones(len(times), bool) if known is None else known
    return dict(zip(steps[chosen].tolist(), (times[chosen] / 1e6).tolist(), strict=True))


def _from_messages(run: Run, starts: Starts) -> dict[int, float]:
    found = {}
    for _, raw in run.raw_lines(["log"], starts=starts):
        if b"heckpoint" in raw and _SAVED.search((line := orjson.loads(raw))["message"]):
            step, moment = line.get("step"), moment_of(line["timestamp"])
            if type(step) is int and math.isfinite(moment):
                found[step] = moment
    return found
