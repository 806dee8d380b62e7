"""Finds the least actions with which a world still fails in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from world.schedule import Action, Schedule

Fails = Callable[[Schedule], bool]


def minimise(schedule: Schedule, fails: Fails, seconds: float) -> Schedule:
    """Leave out processes, then actions, as long as it fails in the same way."""
    end = time.monotonic() + seconds

    def shorter(actions: list[Action], left: list[Action]) -> list[Action]:
        if len(left) == len(actions) or time.monotonic() > end:
            return actions
        return left if fails(replace(schedule, actions=left)) else actions

    actions = schedule.actions
    processes = {action["child"] for action in actions if "child" in action}
    for number in sorted(processes, reverse=True):
        others = [a for a in actions if number not in (a.get("who"), a.get("child"))]
        actions = shorter(actions, others)
    size = len(actions) // 2
    while size:
        before = len(actions)
        for begin in range(len(actions) - size, -1, -size):
            actions = shorter(actions, actions[:begin] + actions[begin + size :])
        if size > 1 or len(actions) == before:
            size //= 2
    return replace(schedule, actions=actions)
