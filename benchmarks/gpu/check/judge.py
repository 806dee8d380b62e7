"""Judges figures: pure functions that return what is wrong, or ""."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.check.report import NOT_JUDGED, OK, SHORT
from benchmarks.gpu.goals import LARGEST_SHARE, SHARE_AT_MS

NOT_READY = 600
SENDING = ("copy", "copy on NULL", "event record", "event record on NULL")
PROMPT_MS = 100.0
"""A call that takes longer than this behind a one-second kernel is assumed to have waited."""
SMALLEST_GAP_MS = 100.0
GAP_RATIO = 3.0
KERNEL_FACTOR = 2.0
"""Tolerated factor for a kernel of known length, because the clock changes."""
STARTED = "first kernel launched"
"""Printed by the script under the sanitizer: torch works there."""
SANITIZER_ERROR = 99
COLLECTED = "collected"
LACKING = ("needs two GPUs", "this torch has no", "could not import 'triton'")
"""Skip reasons that mean the machine lacks something."""


def quantile(samples: Sequence[float], part: float) -> float:
    """Return the quantile `part` of the samples."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def driver_floor(ns: Mapping[str, float], scalars: int = 4) -> str:
    """Judge the driver's own calls for one record, with nothing queued."""
    names = ("get current", "is capturing", "event record")
    sum_us = (sum(ns[name] for name in names) + scalars * ns["copy"]) / 1e3
    limit_us = LARGEST_SHARE * SHARE_AT_MS * 1e3
    return "" if sum_us < limit_us else f"they take {sum_us:.1f} us, not under {limit_us:g} us"


def behind_kernel(ms: Mapping[str, float], busy: Mapping[str, bool]) -> str:
    """Judge calls made behind a long kernel: none may wait for it.

    Args:
        ms: The duration of each call.
        busy: Whether the kernel was still running when the call returned.
    """
    waited = [
        f"{name} ({ms[name]:.1f} ms)" for name in ms if not busy[name] or ms[name] > PROMPT_MS
    ]
    return f"waited: {', '.join(waited)}" if waited else ""


def allocation(ms: float, *, busy: bool, kernel_ms: float) -> tuple[bool, str]:
    """Return whether an allocation waits for a kernel of known length; waiting is not a fault.

    Returns:
        Whether it waits, and why that is unknown, or "".
    """
    waits = not busy or ms > PROMPT_MS
    unknown = "the kernel ended too early: nothing is known" if ms < kernel_ms / 2 else ""
    return waits, unknown if waits else ""


def relaxed_matrix(rows: Sequence[Mapping[str, Any]], calls: int) -> str:
    """Judge the calls in relaxed mode: each succeeds, and the other thread's capture stays valid.

    This proves something only if the default mode, the control, refuses some of them.
    """
    made = [sum(row["mode"] == mode for row in rows) for mode in ("default", "relaxed")]
    if made != [calls, calls]:
        return f"{made[0]} and {made[1]} calls were made, not {calls} in each mode"
    if not default_matrix(rows):
        return "the default mode refuses nothing: no capture was seen"
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
    """Return whether sending also needs the relaxed mode."""
    return any(each.startswith(name + " ") for each in refused for name in SENDING)


def heartbeat(lanes: Mapping[str, Mapping[str, Any]]) -> str:
    """Judge the largest gap of a thread that runs during calls into a full queue.

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


def values(
    lines: Sequence[Mapping[str, Any]], expected: Mapping[int, float], keys: Sequence[str]
) -> str:
    """Judge recorded values: each has arrived and is right."""
    found = {line["step"]: line for line in lines}
    for step, value in expected.items():
        if step not in found:
            return f"step {step} is not in the file"
        for key in keys:
            got = found[step]["metrics"].get(key)
            if got == value:
                continue
            if found[step].get("missing", {}).get(key):
                return f"values are missing, {key} of step {step} is the first: {missing(lines)}"
            return f"step {step} has {got!r}, the device had {value!r}"
    return ""


def missing(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the reasons of missing values."""
    counts: dict[str, int] = {}
    for line in lines:
        for reason in line.get("missing", {}).values():
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def block(line: Mapping[str, Any], least_s: float, most_s: float = math.inf) -> str:
    """Judge a block whose kernel is known: its time is the kernel's."""
    seconds = line.get("device_duration_s")
    if seconds is None:
        reason = line.get("missing", {}).get("device_duration_s")
        return f"no time: {reason}" if reason else "neither a time nor a reason"
    if least_s <= seconds <= most_s:
        return ""
    return f"{seconds:.6f} s, not {least_s:g} to {most_s:g} s"


def unordered(line: Mapping[str, Any]) -> str:
    """Judge a block whose end ran before its begin: it has no time, and says why."""
    seconds = line.get("device_duration_s")
    reason = line.get("missing", {}).get("device_duration_s")
    if seconds is not None:
        return f"it has a time, {seconds:.6f} s"
    return "" if reason == "unordered" else f"the reason is {reason!r}, not 'unordered'"


def kernel(asked_s: float, ran_s: float) -> str:
    """Judge a kernel of known length, on which all judgements of times depend."""
    if asked_s / KERNEL_FACTOR <= ran_s <= asked_s * KERNEL_FACTOR:
        return ""
    return f"a kernel of {asked_s * 1e3:.0f} ms ran {ran_s * 1e3:.1f} ms"


def reused(facts: Mapping[str, int]) -> str:
    """Judge that memory freed at once is reused at once, unless a record keeps it.

    Args:
        facts: `steps`; `control`, how often it was reused without a record; `busy`, in how many
            steps the copy was still in flight by then.
    """
    if not facts["control"]:
        return "without a record the memory was not reused: nothing was tested"
    if facts["busy"] * 2 < facts["steps"]:
        return f"the copy was in flight in only {facts['busy']} of {facts['steps']} steps"
    return ""


def unmapped(facts: Mapping[str, int]) -> str:
    """Judge that a small value's memory is kept until it is copied, and a large one's is not.

    Args:
        facts: Bytes returned to the driver: `control`, for a small value without a record;
            `small`, the minimum with a record; `large`, the same for a block of `size` bytes.
            `busy`, whether the small values' copies were in flight by then (those of the large
            ones have ended, because torch waits for `record_stream()`). `works`, whether the
            device works in the end.
    """
    if facts["control"] <= 0:
        return "without a record no memory was returned: nothing was tested"
    if not facts["busy"]:
        return "no copy of a small value was in flight: nothing was tested"
    if facts["small"] > 0:
        return f"{facts['small']} bytes of a small value were returned before it was copied"
    if facts["large"] * 2 < facts["size"]:
        return f"{facts['large']} of {facts['size']} bytes were returned: nothing was tested"
    return "" if facts["works"] else "the device no longer works"


def ended(status: int | None, seconds: float, limit_s: float) -> str:
    """Judge how a process ended; a status of None means that it timed out and was killed."""
    if status:
        return f"it ended with {status}"
    late = status is None or seconds > limit_s
    return f"it took {seconds:.1f} s to end, not {limit_s:g} s" if late else ""


def sanitized(status: int | None, output: str, limit_s: float) -> tuple[str, str]:
    """Judge compute-sanitizer's report on memory, if there is one.

    Returns:
        The verdict, and why it is not OK.
    """
    counts = [int(count) for count in re.findall(r"ERROR SUMMARY: (\d+) error", output)]
    if sum(counts) or status == SANITIZER_ERROR:
        found = re.findall(r"^=+ (?:Invalid|Misaligned|Program hit|Out-of).*", output, re.MULTILINE)
        return SHORT, f"{sum(counts)} errors: {found[0] if found else 'see its output'}"
    if status is None:
        what = "the records did not end" if STARTED in output else "torch did not start"
        return NOT_JUDGED, f"{what} within {limit_s:g} s under compute-sanitizer"
    if STARTED not in output or not counts:
        last = output.strip().rpartition("\n")[2]
        return NOT_JUDGED, f"compute-sanitizer did not check it, exit status {status}: {last}"
    return (SHORT, f"it ended with {status}") if status else (OK, "")


def test(outcome: str, said: str) -> tuple[str, str]:
    """Judge the outcome of a test: passed, skipped, failed, hung or crashed.

    Returns:
        The verdict, and why it is not OK.
    """
    if outcome == "passed":
        return OK, ""
    if outcome == "skipped" and any(reason in said for reason in LACKING):
        return NOT_JUDGED, said
    # Any other skip is a test that checked nothing on a machine it is meant for.
    return SHORT, outcome if said in ("", outcome) else f"{outcome}: {said}"


def tests(outcomes: Mapping[str, str]) -> str:
    """Judge whether the tests ran: every collected test did, and at least one passed."""
    left = [name for name, outcome in outcomes.items() if outcome == COLLECTED]
    if left:
        shown = ", ".join(name.rpartition("/")[2] for name in left[:4])
        return f"{len(left)} of {len(outcomes)} were not run: {shown}{', ...' * (len(left) > 4)}"
    return "" if "passed" in outcomes.values() else "no test passed"
