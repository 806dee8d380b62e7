"""The goals, judged from a result."""

from __future__ import annotations

from typing import Any

OURS, BASE, NOISE = "fastlog", "none", "none_again"
LARGEST_RATIO = 2.0
LARGEST_SHARE = 0.01
SHARE_AT_MS = 5.0


def goal(name: str, found: str, met: bool | None) -> dict[str, Any]:
    """Return a judged goal; `met` is None where nothing can be said."""
    return {"goal": name, "found": found, "met": met}


def percent(ratio: float) -> str:
    """Return a throughput ratio as its distance from 1."""
    return f"{(ratio - 1.0) * 100:+.2f} %"


def within_noise(section: dict[str, Any]) -> bool:
    """Tell whether the interval of our throughput overlaps that of no logging against itself."""
    ours, noise = section["arms"][OURS]["throughput"], section["arms"][NOISE]["throughput"]
    return bool(ours["low"] <= noise["high"] and noise["low"] <= ours["high"])


def no_waits(result: dict[str, Any]) -> dict[str, Any]:
    """Judge the synchronisations that recording adds to a step."""
    name = "0 synchronisations a step"
    profiled = [section for section in result["training"] if section["arms"][OURS]["profile"]]
    if not profiled:
        return goal(name, "not profiled", None)
    added = sum(
        section["arms"][OURS]["profile"]["waits_per_step"]
        - section["arms"][BASE]["profile"]["waits_per_step"]
        for section in profiled
    )
    return goal(name, f"{added:g} more than without logging", added <= 0)


def near_bare_copies(result: dict[str, Any]) -> dict[str, Any]:
    """Judge four device scalars beside four bare copies."""
    found = result["scalars"]["counts"]["4"]["ratio"]["record"]
    text = f"{found['median']:.2f}x ({found['low']:.2f} - {found['high']:.2f})"
    name = f"4 device scalars in at most {LARGEST_RATIO:g}x the four bare copies"
    return goal(name, text, found["median"] <= LARGEST_RATIO)


def small_share(result: dict[str, Any]) -> dict[str, Any]:
    """Judge the time in the call as a share of the step of about 5 ms."""
    name = f"under {LARGEST_SHARE:.0%} of a {SHARE_AT_MS:g} ms step"
    sections = [each for each in result["training"] if each["wanted_ms"] == SHARE_AT_MS]
    if not sections:
        return goal(name, "not measured", None)
    call_us = sections[0]["arms"][OURS]["call_us"]["median"]
    step_ms = sections[0]["arms"][BASE]["step_ms"]["median"]
    # Of the wanted 5 ms, should the calibration have found a longer step.
    share = call_us / 1e3 / min(step_ms, SHARE_AT_MS)
    text = f"{share:.2%} ({call_us:.1f} us of {step_ms:.2f} ms)"
    return goal(name, text, share < LARGEST_SHARE)


def judge(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every goal with what was found; a smoke run meets and misses none."""
    goals = [no_waits(result), near_bare_copies(result), small_share(result)]
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
