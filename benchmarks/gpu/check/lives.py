"""Scripts run in separate processes: `python -m benchmarks.gpu.check.lives NAME RUN`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.check.judge import STARTED
from benchmarks.gpu.check.leftovers import end_leftovers
from benchmarks.gpu.check.lines import flushed
from benchmarks.gpu.check.machines import Machine, find
from benchmarks.machine import ROOT
from foundry_fastlog import Recorder

BUSY_S = 0.5
STEPS = 8
KEPT_BYTES = 4096
"""Largest storage that the recorder keeps, in bytes; see docs/device_scalars.md."""
SMALL, LARGE = 1, 64 << 20
"""Elements, of four bytes."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int | None
    """None: it timed out and was killed."""
    seconds: float
    output: str

    def facts(self) -> dict[str, Any]:
        """Return the JSON object on the last line; {} if there is none."""
        with contextlib.suppress(ValueError):
            found = json.loads(self.output.strip().rpartition("\n")[2])
            return found if isinstance(found, dict) else {}
        return {}


def live(
    name: str, run: Path, timeout_s: float, environment: dict[str, str], *wrapper: str
) -> Ended:
    """Run one of the functions below in its own process, and copy its output to ours."""
    command = [*wrapper, sys.executable, "-X", "faulthandler", "-m", "benchmarks.gpu.check.lives"]
    started = time.monotonic()
    status = None
    # Use a file: processes that a wrapper leaves behind would keep a pipe open.
    with tempfile.TemporaryFile() as file:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = subprocess.run(
                [*command, name, str(run)],
                check=False,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
            ).returncode
        seconds = time.monotonic() - started
        end_leftovers()
        file.seek(0)
        output = file.read().decode("utf-8", "replace")
    print(output, flush=True)
    return Ended(status, seconds, output)


def other_stream(run: Path) -> None:
    """Create on a side stream, record on the main one behind a kernel, free, and reuse there."""
    import torch

    machine = find()
    side, count = torch.cuda.Stream(), 64
    reused = {True: 0, False: 0}
    busy = 0

    def step_with(step: int, recorder: Recorder | None) -> None:
        """Free a value, and check whether its memory is reused at once."""
        nonlocal busy
        with torch.cuda.stream(side):
            value = torch.full((), step + 0.5, device="cuda")
        torch.cuda.current_stream().wait_stream(side)
        machine.keep_busy(BUSY_S / 4)
        if recorder is not None:
            recorder.record(step, v=value)
        address = value.data_ptr()
        del value
        with torch.cuda.stream(side):
            others = [torch.full((), -1.0, device="cuda") for _ in range(count)]
        side.synchronize()
        reused[recorder is not None] += any(other.data_ptr() == address for other in others)
        busy += recorder is not None and machine.busy()

    with Recorder(run) as recorder:
        recorder.record(-1, v=machine.scalar(0.0))
        flushed(recorder)
        for step in range(STEPS):
            step_with(step, None)
            step_with(step, recorder)
        flushed(recorder)
    torch.cuda.synchronize()
    found = {"steps": STEPS, "reused": reused[True], "control": reused[False], "busy": busy}
    print(json.dumps(found))


def given_back(
    machine: Machine, side: Any, elements: int, step: int, recorder: Recorder | None
) -> tuple[int, bool]:
    """Record a value of a side stream behind a kernel, free it, and let torch empty its cache.

    The recorder itself keeps a storage of at most 4 KiB. From a larger one it reads a value, like
    any kernel of this stream: there, the caller must use `record_stream()`, as the guide says.

    Returns:
        Bytes returned to the driver, and whether the kernel was still running by then.
    """
    import torch

    torch.cuda.empty_cache()
    with torch.cuda.stream(side):
        block = torch.full((elements,), step + 0.5, device="cuda")
    torch.cuda.current_stream().wait_stream(side)
    machine.keep_busy(BUSY_S)
    reserved = torch.cuda.memory_reserved()
    if recorder is not None:
        recorder.record(step, v=block[-1])
    if elements * block.element_size() > KEPT_BYTES:
        block.record_stream(torch.cuda.current_stream())
    del block
    torch.cuda.empty_cache()
    busy = machine.busy()
    return int(reserved - torch.cuda.memory_reserved()), busy


def unmapped(run: Path) -> None:
    """Record behind a kernel, free, and return to the driver with `empty_cache()`.

    With expandable segments, this unmaps the memory after waiting for the stream of its allocation
    and, after `record_stream()`, for the others (torch's CUDACachingAllocator.cpp). By then, a
    small value, which the recorder keeps, is not copied yet, and a large one's copy has ended.
    """
    import torch

    machine = find()
    side = torch.cuda.Stream()
    with Recorder(run) as recorder:
        recorder.record(-1, v=machine.scalar(0.0))
        flushed(recorder)
        control, _ = given_back(machine, side, SMALL, -1, None)
        small = [given_back(machine, side, SMALL, step, recorder) for step in range(2)]
        large = [given_back(machine, side, LARGE, step, recorder) for step in range(2, 4)]
        flushed(recorder)
        segments = torch.cuda.memory_snapshot()
    torch.cuda.synchronize()  # raises the error of an access to unmapped memory
    works = torch.ones(4, device="cuda").sum().item() == 4
    expandable = any(each.get("is_expandable", True) for each in segments)
    busy = all(ran for _, ran in small)
    found = {"control": control, "small": min(small)[0], "large": min(large)[0], "size": LARGE * 4}
    print(json.dumps({**found, "busy": busy, "works": works, "expandable": expandable}))


def exit_busy(run: Path) -> None:
    """Exit without close() while the device is busy for longer than closing may take."""
    machine = find()
    recorder = Recorder(run, close_timeout_s=1.0, flush_interval_s=0.005)
    value = machine.scalar(1.5)
    recorder.record(0, v=value)
    flushed(recorder)
    machine.keep_busy(6.0)
    recorder.record(1, v=value, lr=0.1)


def twenty_records(run: Path) -> None:
    """Make twenty records of two scalars, for a sanitizer."""
    machine = find(clock=False)
    value = machine.scalar(0.0)
    with Recorder(run) as recorder:
        for step in range(20):
            machine.add(value, 1.0)
            if step == 0:
                machine.synchronize()
                print(STARTED, flush=True)
            recorder.record(step, v=value, w=value)
        flushed(recorder)


LIVES: dict[str, Any] = {
    each.__name__: each for each in (other_stream, unmapped, exit_busy, twenty_records)
}


if __name__ == "__main__":
    LIVES[sys.argv[1]](Path(sys.argv[2]))
