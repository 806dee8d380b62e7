"""Checks that nothing waits: by the profiler, with controls, and by timing behind a kernel."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import proof
from benchmarks.gpu.check import judge
from benchmarks.gpu.check.lines import flushed
from benchmarks.gpu.check.machines import Machine, find
from benchmarks.gpu.check.report import Report
from foundry_fastlog import Recorder

STEPS = 50
SCALARS = 4
KERNEL_S = 1.0
KEYS = "abcd"


def by_time(machine: Machine, recorder: Recorder) -> tuple[float, bool, list[dict[str, Any]]]:
    """Record behind a kernel of a second.

    Returns:
        What the call took in ms, whether the kernel ran on, and the lines.
    """
    value = machine.scalar(0.5)
    recorder.record(0, a=value, b=value, c=value, d=value)
    flushed(recorder)
    machine.synchronize()
    machine.keep_busy(KERNEL_S)
    before = time.perf_counter()
    recorder.record(1, a=value, b=value, c=value, d=value)
    spent = (time.perf_counter() - before) * 1e3
    return spent, machine.busy(), flushed(recorder)


def by_trace(recorder: Recorder) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Trace fifty records of four scalars, and as many `.item()`; return figures and lines."""
    import torch

    from benchmarks.gpu.syncs import copies_to_host, trace, waits

    values = [torch.full((), float(i), device="cuda") for i in range(SCALARS)]
    torch.cuda.synchronize()

    def steps() -> None:
        for step in range(2, STEPS + 2):
            values[0].add_(0)
            recorder.record(step, **dict(zip(KEYS, values, strict=True)))
        time.sleep(0.1)  # meanwhile, the flush thread queries the values

    def items() -> None:
        for value in values:
            value.item()

    traced, item = trace(steps), trace(items)
    figures = {
        "waits": dict(waits(traced.events)),
        "copies": dict(copies_to_host(traced.events)),
        "seen": traced.seen,
        "item_waits": waits(item.events).total(),
    }
    return figures, flushed(recorder)


def run(report: Report) -> None:
    """Check it in both ways."""
    machine = find()
    with tempfile.TemporaryDirectory() as scratch, Recorder(Path(scratch) / "run") as recorder:
        expects = "record() returns while a one-second kernel runs, and the kernel keeps running"
        with report.attempt("by time", expects=expects):
            ms, busy, lines = by_time(machine, recorder)
            why = "" if busy else "the device was idle afterwards: the call waited for it"
            why = why or judge.values(lines, {0: 0.5, 1: 0.5}, KEYS)
            if not machine.fake:
                why = why or judge.behind_kernel({"record": ms}, {"record": busy})
            report.judge(
                "by time",
                why,
                expects=expects,
                shows=f"{ms:.3f} ms",
                ms=ms,
                busy=busy,
                missing=judge.missing(lines),
            )
        expects = "the trace shows waits that were made in the driver, and those of .item()"
        nothing = f"no wait in {STEPS} records, {STEPS * SCALARS} copies, all into pinned memory"
        if machine.fake:
            for name, wanted in (("controls", expects), ("by trace", nothing)):
                report.needs_gpu(name, "the profiler traces a GPU", expects=wanted)
            return
        with report.attempt("controls", expects=expects):
            found, lines = by_trace(recorder)
            blind = proof.blind(found["seen"], found["item_waits"], SCALARS)
            report.judge("controls", blind, expects=expects, shows=f"seen {found['seen']}", **found)
            waited = f"waits: {found['waits']}" if found["waits"] else ""
            why = waited or proof.wrong_copies(found["copies"], STEPS * SCALARS)
            if blind and not why:
                why = f"not judged: {blind}"
            for number, key in enumerate(KEYS):
                expected = dict.fromkeys(range(2, STEPS + 2), float(number))
                why = why or judge.values(lines, expected, key)
            report.judge(
                "by trace",
                why,
                expects=nothing,
                shows=f"{found['copies']}",
                waits=found["waits"],
                missing=judge.missing(lines),
            )
