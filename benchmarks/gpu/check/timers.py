"""Timers whose stream changes inside the block, and values in a green context."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu.check import judge
from benchmarks.gpu.check.lines import flushed
from benchmarks.gpu.check.machines import Machine, find
from benchmarks.gpu.check.report import Report
from foundry_fastlog import Recorder


def blocks(machine: Machine, run: Path) -> dict[str, dict[str, Any]]:
    """Time three blocks; return their lines by name."""
    first, second = machine.stream(), machine.stream()
    with Recorder(run) as recorder:
        with machine.on(first), recorder.timer("one stream", device=True):
            machine.keep_busy(0.05)
        machine.synchronize()
        # The end is recorded on an idle stream, and reached long before the begin.
        timer = recorder.timer("begins late", device=True)
        with machine.on(first):
            machine.keep_busy(0.3)
            timer.__enter__()
        with machine.on(second):
            timer.__exit__(None, None, None)
        machine.synchronize()
        timer = recorder.timer("ends late", device=True)
        with machine.on(first):
            timer.__enter__()
        with machine.on(second):
            machine.keep_busy(0.3)
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


def run(report: Report) -> None:
    """Time the blocks, and record in a green context."""
    machine = find()
    expects = "a time that is not negative, or a reason that says what it is"
    with report.attempt("streams", expects=expects), tempfile.TemporaryDirectory() as scratch:
        found = blocks(machine, Path(scratch) / "run")
        for name in ("one stream", "begins late", "ends late"):
            line = found.get(name, {})
            seconds = line.get("device_duration_s")
            report.judge(
                name,
                judge.block(line),
                expects=expects,
                shows=f"{name}: {seconds if seconds is not None else line.get('missing')}",
                line=line,
            )
    expects = "a value in the order of the green context's work, or missing with a reason"
    if machine.fake:
        report.needs_gpu("green context", "the fake driver has none", expects=expects)
        return
    with report.attempt("green context", expects=expects), tempfile.TemporaryDirectory() as scratch:
        try:
            lines = in_green_context(machine, Path(scratch) / "run")
        except LookupError as error:
            report.needs_gpu("green context", str(error), expects=expects)
            return
        expected = {step: float(step) for step in range(3)}
        report.judge(
            "green context",
            judge.values(lines, expected, "v"),
            expects=expects,
            shows=f"missing {judge.missing(lines)}",
            lines=lines,
        )
