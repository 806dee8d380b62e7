"""Scripts in processes of their own: `python -m benchmarks.gpu.check.lives NAME RUN`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.check.lines import flushed
from benchmarks.gpu.check.machines import find
from benchmarks.machine import ROOT
from foundry_fastlog import Recorder

BUSY_S = 0.5
STEPS = 8


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    seconds: float
    output: str


def live(
    name: str, run: Path, timeout_s: float, environment: dict[str, str], *wrapper: str
) -> Ended:
    """Run one of the functions below in a process of its own; its output goes to ours, too.

    Raises:
        subprocess.TimeoutExpired: It took longer; it was killed.
    """
    command = [*wrapper, sys.executable, "-X", "faulthandler", "-m", "benchmarks.gpu.check.lives"]
    started = time.monotonic()
    done = subprocess.run(
        [*command, name, str(run)],
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_s,
    )
    print(done.stdout, flush=True)
    return Ended(done.returncode, time.monotonic() - started, done.stdout)


def other_stream(run: Path) -> None:
    """Made on a side stream, recorded on the main one behind a kernel, freed, reused there."""
    import torch

    machine = find()
    side, count = torch.cuda.Stream(), 64
    reused = {True: 0, False: 0}

    def step_with(step: int, recorder: Recorder | None) -> None:
        """Free a value, and see whether its memory has another owner at once."""
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

    with Recorder(run) as recorder:
        recorder.record(-1, v=machine.scalar(0.0))
        flushed(recorder)
        for step in range(STEPS):
            step_with(step, None)
            step_with(step, recorder)
        flushed(recorder)
    torch.cuda.synchronize()
    # Without a record the memory must be reused, or nothing was tried.
    print(f"reused {reused[True]} of {STEPS}, without a record {reused[False]}")


def unmapped(run: Path) -> None:
    """Recorded behind a kernel, freed, and given back to the driver by `empty_cache()`."""
    import torch

    machine = find()
    side = torch.cuda.Stream()
    with Recorder(run) as recorder:
        recorder.record(-1, v=machine.scalar(0.0))
        flushed(recorder)
        for step in range(4):
            with torch.cuda.stream(side):
                block = torch.full((64 << 20,), step + 0.5, device="cuda")
            torch.cuda.current_stream().wait_stream(side)
            machine.keep_busy(BUSY_S)
            recorder.record(step, v=block[-1])
            del block
            torch.cuda.empty_cache()
        flushed(recorder)
    torch.cuda.synchronize()  # raises the error of an access to memory that was gone
    print(f"works on {torch.ones(4, device='cuda').sum().item()}")


def exit_busy(run: Path) -> None:
    """End without close() while the device is busy for longer than closing may take."""
    machine = find()
    recorder = Recorder(run, close_timeout_s=1.0, flush_interval_s=0.005)
    value = machine.scalar(1.5)
    recorder.record(0, v=value)
    flushed(recorder)
    machine.keep_busy(6.0)
    recorder.record(1, v=value, lr=0.1)


def twenty_records(run: Path) -> None:
    """Twenty records of two scalars, for a sanitizer."""
    machine = find(clock=False)
    value = machine.scalar(0.0)
    with Recorder(run) as recorder:
        for step in range(20):
            machine.add(value, 1.0)
            recorder.record(step, v=value, w=value)
        flushed(recorder)


LIVES: dict[str, Any] = {
    each.__name__: each for each in (other_stream, unmapped, exit_busy, twenty_records)
}


if __name__ == "__main__":
    LIVES[sys.argv[1]](Path(sys.argv[2]))
