"""Judges the goals from a result."""

from __future__ import annotations

from collections import Counter
from typing import Any

from benchmarks.gpu import proof

OURS, BASE, NOISE, FLOOR, ITEM = "fastlog", "none", "none_again", "bare", "fastlog_item"
SCALARS = 4
"""Device scalars per step."""
LARGEST_RATIO = 2.0
LARGEST_SHARE = 0.01
SHARE_AT_MS = 5.0


def goal(name: str, found: str, met: bool | None) -> dict[str, Any]:
    """Return a judged goal; `met` is None if it cannot be judged."""
    return {"goal": name, "found": found, "met": met}


def percent(ratio: float) -> str:
    """Return a throughput ratio as its difference from 1."""
    return f"{(ratio - 1.0) * 100:+.2f} %"


def within_noise(section: dict[str, Any]) -> bool:
    """Return whether our throughput's interval overlaps that of no logging against itself."""
    ours, noise = section["arms"][OURS]["throughput"], section["arms"][NOISE]["throughput"]
    return bool(ours["low"] <= noise["high"] and noise["low"] <= ours["high"])


def no_waits(result: dict[str, Any]) -> dict[str, Any]:
    """Judge the synchronisations and copies that recording adds to a step.

    A trace counts only if it shows its controls and the waits of `.item()`.
    """
    name = "0 synchronisations a step"
    profiled = [section for section in result["training"] if section["arms"][OURS]["profile"]]
    if not profiled:
        return goal(name, "not profiled", None)
    added = 0.0
    for section in profiled:
        profiles = {arm: found["profile"] for arm, found in section["arms"].items()}
        ours, base, item = profiles[OURS], profiles[BASE], profiles.get(ITEM)
        item_waits = item["waits_per_step"] - base["waits_per_step"] if item else None
        if why := proof.blind(ours["seen"], item_waits, SCALARS):
            return goal(name, why, None)
        extra = Counter(ours["copies_to_host"])
        extra.subtract(base["copies_to_host"])
        if why := proof.wrong_copies(extra, SCALARS * ours["steps"]):
            return goal(name, why, met=False)
        added += ours["waits_per_step"] - base["waits_per_step"]
    return goal(name, f"{added:g} more than without logging", added <= 0)


def near_bare_copies(result: dict[str, Any]) -> dict[str, Any]:
    """Judge four device scalars against four bare copies."""
    found = result["scalars"]["counts"]["4"]["ratio"]["record"]
    text = f"{found['median']:.2f}x ({found['low']:.2f} - {found['high']:.2f})"
    name = f"4 device scalars in at most {LARGEST_RATIO:g}x the four bare copies"
    return goal(name, text, found["median"] <= LARGEST_RATIO)


def small_share(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Judge the time in the call as a share of the step of about 5 ms, in two ways.

    With nothing queued, the time is the call's own. In the loop, the host is ahead of the device,
    and every driver call may wait for room in its queue: there the floor is the time of four bare
    copies and an event in the same loop.
    """
    limit = f"under {LARGEST_SHARE:.0%} of a {SHARE_AT_MS:g} ms step"
    idle, loop = f"{limit}, nothing queued", f"{limit} above four bare copies, in the loop"
    sections = [each for each in result["training"] if each["wanted_ms"] == SHARE_AT_MS]
    if not sections:
        return [goal(idle, "not measured", None), goal(loop, "not measured", None)]
    arms = sections[0]["arms"]
    # Use the target of 5 ms, even if the calibration found a longer step.
    step_ms = min(arms[BASE]["step_ms"]["median"], SHARE_AT_MS)
    bare = arms.get(FLOOR)
    judged = []
    for name, key in ((idle, "idle_call_us"), (loop, "call_us")):
        if not arms[OURS][key] or (key == "call_us" and bare is None):
            judged.append(goal(name, "not measured", None))
            continue
        call_us = arms[OURS][key]["median"]
        floor_us = bare[key]["median"] if bare and bare[key] else None
        counted = call_us - (floor_us or 0.0) if key == "call_us" else call_us
        share = counted / 1e3 / step_ms
        text = f"{share:.2%} ({call_us:.1f} us of {step_ms:.2f} ms; bare copies "
        text += f"{floor_us:.1f} us)" if floor_us is not None else "not measured)"
        judged.append(goal(name, text, share < LARGEST_SHARE))
    return judged


def judge(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every goal with its finding; a smoke run neither meets nor misses any."""
    goals = [no_waits(result), near_bare_copies(result), *small_share(result)]
    for section in result["training"]:
        if OURS in section["arms"] and NOISE in section["arms"]:
            ours, noise = (section["arms"][arm]["throughput"] for arm in (OURS, NOISE))
            text = (
                f"{percent(ours['median'])} ({percent(ours['low'])} to {percent(ours['high'])}); "
                f"no logging against itself {percent(noise['low'])} to {percent(noise['high'])}"
            )
            name = f"throughput within noise of no logging, {section['wanted_ms']:g} ms steps"
            goals.append(goal(name, text, within_noise(section)))
    if result["smoke"]:
        return [{**each, "met": None} for each in goals]
    return goals


def line(judged: dict[str, Any]) -> str:
    """Return a goal as a line of text."""
    word = {True: "met", False: "MISSED", None: "not judged"}[judged["met"]]
    return f"{word}: {judged['goal']}: {judged['found']}"
