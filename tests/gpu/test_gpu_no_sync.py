"""Recording waits for nothing: a long kernel runs on, and the profiler sees no synchronisation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gpu_support import busy, flushed, keep_busy, metrics
from recorded import lines, run_python

from foundry_fastlog import MetricsLogger, Recorder

pytest.importorskip("torch")

import torch

from benchmarks.gpu.proof import blind, wrong_copies
from benchmarks.gpu.syncs import copies_to_host, trace, waits

# torch's own warnings differ from machine to machine: shown, no errors.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

PROMPT_S = 0.02
BUSY_S = 1.0


@pytest.fixture
def scalars() -> dict[str, Any]:
    made = {
        "loss": torch.tensor(2.5, device="cuda"),
        "grad_norm": torch.tensor(0.75, device="cuda", dtype=torch.bfloat16),
        "tokens": torch.tensor(8192, device="cuda"),
        "z_loss": torch.tensor(0.125, device="cuda"),
    }
    torch.cuda.synchronize()
    return made


EXPECTED = {"loss": 2.5, "grad_norm": 0.75, "tokens": 8192, "z_loss": 0.125}


def prompt(call: Callable[[], object]) -> None:
    """Check that a call returns while a kernel of a second runs, and runs on."""
    keep_busy(BUSY_S)
    start = time.perf_counter()
    call()
    spent = time.perf_counter() - start
    still_busy = busy()
    assert still_busy, f"the device was idle after {spent:.3f} s: the call waited for it"
    assert spent < PROMPT_S


def test_every_way_in_returns_while_the_device_is_busy(
    recorder: Recorder, scalars: dict[str, Any]
) -> None:
    """All of them, four scalars each, behind one kernel of a second."""

    def calls() -> None:
        recorder.record(0, lr=0.1, **scalars)
        recorder.record_dict(1, scalars)
        recorder.log(scalars, step=2)

    prompt(calls)
    assert metrics(recorder) == {0: {"lr": 0.1, **EXPECTED}, 1: EXPECTED, 2: EXPECTED}


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_log_step_returns_while_the_device_is_busy(
    recorder: Recorder, scalars: dict[str, Any], level: int, tmp_path: Path
) -> None:
    """With and without the echo of the step to a logger."""
    echo = logging.getLogger(f"test.gpu.echo.{level}")
    echo.setLevel(level)
    with MetricsLogger("exp", tmp_path / "m", logger=echo, recorder=recorder) as logger:
        prompt(lambda: logger.log_step(0, 1, scalars))
        flushed(recorder)
        (line,) = lines(recorder.path)
    assert line["metrics"] == EXPECTED


def test_the_first_record_of_a_process_does_not_wait_either(tmp_path: Path) -> None:
    """Where CUDA was in use when the recorder opened: that made all that a first value needs."""
    run_python(
        """
import sys, time
import torch
from foundry_fastlog import Recorder
from gpu_support import busy, keep_busy

value = torch.tensor(2.5, device="cuda")
with Recorder(sys.argv[1]) as recorder:
    keep_busy(0.01)
    torch.cuda.synchronize()
    keep_busy(3.0)
    start = time.perf_counter()
    recorder.record(0, v=value)
    spent = time.perf_counter() - start
    assert busy(), f"the first record() took {spent} s"
""",
        tmp_path / "run",
    )
    assert lines(tmp_path / "run")[0]["metrics"] == {"v": 2.5}


@pytest.fixture
def sync_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_record_passes_where_torch_raises_for_a_sync(
    recorder: Recorder,
    scalars: dict[str, Any],
    sync_is_an_error: None,  # comes last: making the scalars waits
) -> None:
    """The debug mode in which `.item()` raises."""
    with pytest.raises(RuntimeError, match="synchronizing"):
        scalars["loss"].item()
    for step in range(10):
        recorder.record(step, **scalars)
    recorder.record_dict(10, scalars)
    with recorder.timer("block", device=True):
        scalars["loss"].add_(0)
    torch.cuda.set_sync_debug_mode("default")
    assert metrics(recorder) == dict.fromkeys(range(11), EXPECTED)


def test_the_profiler_sees_no_wait_and_no_pageable_copy(
    recorder: Recorder, scalars: dict[str, Any]
) -> None:
    """Fifty steps of four scalars and a timed block: as many copies, all into pinned memory."""

    def steps() -> None:
        for step in range(50):
            with recorder.timer("block", device=True):
                scalars["loss"].mul_(1)
            recorder.record(step, **scalars)
        time.sleep(0.1)  # the flush thread asks for the values meanwhile

    traced = trace(steps)
    assert metrics(recorder) == dict.fromkeys(range(50), EXPECTED)
    item = waits(trace(scalars["loss"].item).events).total()
    if why := blind(traced.seen, item, wanted=1):
        pytest.skip(f"this profiler proves nothing: {why}")
    assert waits(traced.events) == {}
    assert wrong_copies(copies_to_host(traced.events), 50 * len(scalars)) == ""


def test_flush_waits_for_values_and_not_longer_than_told(
    recorder: Recorder, scalars: dict[str, Any]
) -> None:
    """False when the time was up before the value arrived; True when it is in the file."""
    keep_busy(BUSY_S)
    recorder.record(0, v=scalars["loss"])
    start = time.perf_counter()
    assert recorder.flush(timeout=0.05) is False
    assert time.perf_counter() - start < BUSY_S / 2
    assert busy()
    assert recorder.flush(timeout=60.0) is True
    assert lines(recorder.path)[0]["metrics"] == {"v": 2.5}


def test_close_waits_for_values_and_not_longer_than_told(
    tmp_path: Path, scalars: dict[str, Any]
) -> None:
    """False when the time was up; called again, it waits on, and nothing is lost."""
    recorder = Recorder(tmp_path / "run")
    recorder.record(0, v=scalars["loss"])
    flushed(recorder)
    keep_busy(BUSY_S)
    recorder.record(1, v=scalars["loss"])
    start = time.perf_counter()
    assert recorder.close(timeout=0.05) is False
    assert time.perf_counter() - start < BUSY_S / 2
    assert recorder.close(timeout=60.0) is True
    assert [line["metrics"] for line in lines(tmp_path / "run")] == [{"v": 2.5}] * 2


def test_floats_alone_do_not_wait_for_the_device(
    recorder: Recorder, scalars: dict[str, Any]
) -> None:
    """Lines without device scalars, before those with one, are written while the device is busy."""
    keep_busy(BUSY_S)
    recorder.record(0, lr=0.1)
    assert recorder.flush(timeout=0.5) is True
    assert busy()
    assert lines(recorder.path)[0]["metrics"] == {"lr": 0.1}
    recorder.record(1, v=scalars["loss"])
    assert metrics(recorder)[1] == {"v": 2.5}
