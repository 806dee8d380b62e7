"""What is wrong with figures: pure functions, "" where nothing is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.goals import LARGEST_SHARE, SHARE_AT_MS

NOT_READY = 600
SENDING = ("copy", "copy on NULL", "event record", "event record on NULL")
PROMPT_MS = 100.0
"""A call that takes longer behind a kernel of a second is taken to have waited."""
SMALLEST_GAP_MS = 100.0
GAP_RATIO = 3.0


def quantile(samples: Sequence[float], part: float) -> float:
    """Return the value below which `part` of the samples are."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def driver_floor(ns: Mapping[str, float], scalars: int = 4) -> str:
    """Judge the driver's own calls for one record, with nothing queued."""
    names = ("get current", "is capturing", "event record")
    sum_us = (sum(ns[name] for name in names) + scalars * ns["copy"]) / 1e3
    limit_us = LARGEST_SHARE * SHARE_AT_MS * 1e3
    return "" if sum_us < limit_us else f"they take {sum_us:.1f} us, not under {limit_us:g} us"


def behind_kernel(ms: Mapping[str, float], busy: Mapping[str, bool]) -> str:
    """Judge calls made behind a long kernel: none may have waited for it.

    Args:
        ms: What each call took.
        busy: Whether the kernel still ran when the call had returned.
    """
    waited = [
        f"{name} ({ms[name]:.1f} ms)" for name in ms if not busy[name] or ms[name] > PROMPT_MS
    ]
    return f"waited: {', '.join(waited)}" if waited else ""


def relaxed_matrix(rows: Sequence[Mapping[str, Any]]) -> str:
    """Judge the calls in relaxed mode: each succeeds, and the other thread's capture ends well."""
    wrong = [
        f"{row['call']}: code {row['code']}, capture {'valid' if row['valid'] else 'ended'}"
        for row in rows
        if row["mode"] == "relaxed" and not (row["code"] in (0, NOT_READY) and row["valid"])
    ]
    return "; ".join(wrong)


def default_matrix(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the calls that the default mode refuses, or that end the other thread's capture."""
    return [
        f"{row['call']} {row['code']}{'' if row['valid'] else ' (ends the capture)'}"
        for row in rows
        if row["mode"] == "default" and not (row["code"] in (0, NOT_READY) and row["valid"])
    ]


def needs_relaxed(refused: Sequence[str]) -> bool:
    """Tell whether sending, too, needs the relaxed mode."""
    return any(each.startswith(name + " ") for each in refused for name in SENDING)


def heartbeat(lanes: Mapping[str, Mapping[str, Any]]) -> str:
    """Judge the largest gap of a thread that runs beside calls into a full queue.

    Args:
        lanes: By name ("record", "add"): `gap_ms`, and `blocked`, whether the queue was full.
    """
    record, add = lanes["record"], lanes["add"]
    if not record["blocked"]:
        return "the queue was never full: nothing is proven"
    limit = max(SMALLEST_GAP_MS, GAP_RATIO * add["gap_ms"])
    if record["gap_ms"] <= limit:
        return ""
    return f"no other thread ran for {record['gap_ms']:.0f} ms, not under {limit:.0f} ms"


def values(lines: Sequence[Mapping[str, Any]], expected: Mapping[int, float], key: str) -> str:
    """Judge recorded values: each is right, or missing with its reason; none is wrong or lost."""
    found = {line["step"]: line for line in lines}
    for step, value in expected.items():
        if step not in found:
            return f"step {step} is not in the file"
        line = found[step]
        if line["metrics"].get(key) == value:
            continue
        if not line.get("missing", {}).get(key):
            return f"step {step} has {line['metrics'].get(key)!r}, the device had {value!r}"
    return ""


def missing(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the reasons of missing values."""
    counts: dict[str, int] = {}
    for line in lines:
        for reason in line.get("missing", {}).values():
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def block(line: Mapping[str, Any]) -> str:
    """Judge a block's line: a time that is not negative, or a reason that means something."""
    seconds = line.get("device_duration_s")
    if seconds is not None:
        return "" if seconds >= 0 else f"a negative time: {seconds}"
    reason = line.get("missing", {}).get("device_duration_s")
    if not reason:
        return "neither a time nor a reason"
    if reason == f"driver_error_{NOT_READY}":
        return f"{reason}: events of two streams were read before both had ended"
    return ""


def ended(status: int, seconds: float, limit_s: float) -> str:
    """Judge how a process ended."""
    if status:
        return f"it ended with {status}"
    return "" if seconds <= limit_s else f"it took {seconds:.1f} s to end, not {limit_s:g} s"


def tests(outcomes: Mapping[str, str]) -> str:
    """Judge the outcomes of tests by their names: passed, skipped, failed, hung or crashed."""
    bad = [name for name, outcome in outcomes.items() if outcome not in ("passed", "skipped")]
    if bad:
        shown = ", ".join(f"{name.rpartition('/')[2]} ({outcomes[name]})" for name in bad[:8])
        return f"{len(bad)} of {len(outcomes)}: {shown}{', ...' if len(bad) > 8 else ''}"
    if "passed" not in outcomes.values():
        return "no test passed"
    return ""
