"""Timers whose stream changes inside the block, and values in a green context."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.check import judge
from benchmarks.gpu.check.lines import flushed
from benchmarks.gpu.check.machines import Machine, find
from benchmarks.gpu.check.report import Report
from foundry_fastlog import Recorder

SHORT_S, LONG_S = 0.05, 0.3
"""Seconds of the kernels in the blocks, or before them."""
ROOM_S = 0.02
"""Seconds that launches and events may add to a kernel."""
BY_FRAMEWORK = "backend_error"


def blocks(machine: Machine, run: Path) -> dict[str, dict[str, Any]]:
    """Time three blocks; return their lines by name."""
    first, second = machine.stream(), machine.stream()
    with Recorder(run) as recorder:
        with machine.on(first), recorder.timer("one stream", device=True):
            machine.keep_busy(SHORT_S)
        machine.synchronize()
        # The end is recorded on an idle stream, and reached long before the begin.
        timer = recorder.timer("begins late", device=True)
        with machine.on(first):
            machine.keep_busy(LONG_S)
            timer.__enter__()
        with machine.on(second):
            timer.__exit__(None, None, None)
        machine.synchronize()
        timer = recorder.timer("ends late", device=True)
        with machine.on(first):
            timer.__enter__()
        with machine.on(second):
            machine.keep_busy(LONG_S)
            timer.__exit__(None, None, None)
        return {line["name"]: line for line in flushed(recorder, "performance")}


def in_green_context(machine: Machine, run: Path) -> list[dict[str, Any]]:
    """Record behind a kernel in a green context, then in the primary one; return the lines.

    Raises:
        LookupError: This torch or this driver has no green contexts.
    """
    import torch

    try:
        from torch.cuda.green_contexts import SUPPORTED, GreenContext
    except ImportError as error:
        raise LookupError("this torch has no green contexts") from error
    if not SUPPORTED:
        raise LookupError("this torch is built without green contexts")
    try:
        context = GreenContext.create(num_sms=8, device_id=torch.cuda.current_device())
    except RuntimeError as error:
        raise LookupError(f"no green context could be made: {error}") from error
    value = machine.scalar(0.0)
    with Recorder(run) as recorder:
        recorder.record(0, v=value)
        flushed(recorder)
        torch.cuda.synchronize()
        context.set_context()
        try:
            machine.keep_busy(0.3)
            value.add_(1.0)
            recorder.record(1, v=value)
            torch.cuda.synchronize()
        finally:
            context.pop_context()
        value.add_(1.0)
        recorder.record(2, v=value)
        return flushed(recorder)


def judged(
    found: Mapping[str, Mapping[str, Any]], *, rehearsal: bool
) -> dict[str, tuple[str, str]]:
    """Judge each block by the known length of its kernels.

    Returns:
        By name: the expectation, and what is wrong. The fake device may be late, never early.
    """

    def kernel(name: str, seconds: float) -> tuple[str, str]:
        factor = judge.KERNEL_FACTOR
        most = math.inf if rehearsal else seconds * factor + ROOM_S
        why = judge.block(found.get(name, {}), seconds / factor, most)
        return f"the time of a kernel of {seconds * 1e3:g} ms", why

    late = judge.unordered(found.get("begins late", {}))
    return {
        "one stream": kernel("one stream", SHORT_S),
        "begins late": ("no time, as `unordered`: its end ran before its begin", late),
        "ends late": kernel("ends late", LONG_S),
    }


def run(report: Report) -> None:
    """Time the blocks, and record in a green context."""
    machine = find()
    expects = "the lines of three blocks"
    with report.attempt("streams", expects=expects), tempfile.TemporaryDirectory() as scratch:
        found = blocks(machine, Path(scratch) / "run")
        for name, (wanted, why) in judged(found, rehearsal=report.rehearsal).items():
            line = found.get(name, {})
            seconds = line.get("device_duration_s")
            shows = f"{name}: {seconds if seconds is not None else line.get('missing')}"
            report.judge(name, why, expects=wanted, shows=shows, line=line)
    expects = "values in the order of the green context's work, and of the primary one's around it"
    if machine.fake:
        report.needs_gpu("green context", "the fake driver has none", expects=expects)
        return
    with report.attempt("green context", expects=expects), tempfile.TemporaryDirectory() as scratch:
        try:
            lines = in_green_context(machine, Path(scratch) / "run")
        except LookupError as error:
            report.not_judged("green context", str(error), expects=expects)
            return
        lost = judge.missing(lines)
        if list(lost) == [BY_FRAMEWORK] and not judge.values(lines, {0: 0.0, 2: 2.0}, "v"):
            # Reported, but the framework's doing: it does not show whether a copy keeps the order.
            why = f"torch made no copy there: {lost}"
            report.not_judged("green context", why, expects=expects, lines=lines)
            return
        expected = {step: float(step) for step in range(3)}
        why = judge.values(lines, expected, "v")
        report.judge("green context", why, expects=expects, shows="3 values", lines=lines)
