"""A fault that costs all values of a device is told once, with its reason, and in stats()."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from device import fakes
from device.alone import alone, eventually
from device.driving import one_line, working_stream
from device.fakes import FakeDriver as Cuda
from device.test_device_timers import timed_stream
from recorded import lines

from foundry_fastlog import Recorder

NOWHERE = "/nowhere/libcuda.so.1"


@contextmanager
def told() -> Iterator[list[str]]:
    """Collect what the package says."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("foundry_fastlog")
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


@pytest.mark.parametrize("kind", ["wrong path", "no driver", "not set"])
@alone
def test_a_driver_that_cannot_be_used_is_told_with_the_reason(
    cuda: Cuda, run: Path, kind: str
) -> None:
    """Once in the process, by whichever recorder; values go their framework's way."""
    timed_stream(cuda)
    wrong = {"wrong path": NOWHERE, "no driver": str(fakes.build_tensors()), "not set": ""}[kind]
    os.environ["FASTLOG_CUDA_LIBRARY"] = wrong
    with told() as said:
        for name in ("first", "second"):
            with Recorder(run / name) as recorder:
                with recorder.timer("block", device=True):
                    pass
                assert recorder.flush(20)
                recorder.record(0, lr=0.1)  # the call that tells
                error = recorder.stats()["device"]["error"]
            line = one_line(run / name, "performance")
            assert line["missing"] == {"device_duration_s": "backend_error"}
    assert said == [error]
    reason = {
        "wrong path": f"the library that FASTLOG_CUDA_LIBRARY names, {NOWHERE}, cannot be loaded",
        "no driver": f"the library that FASTLOG_CUDA_LIBRARY names, {wrong}, lacks cuDeviceGet",
        "not set": "libcuda.so.1 is not loaded",
    }[kind]
    assert f"cannot use the driver of CUDA: {reason}" in str(error)
    assert "Values on GPUs are copied by their framework" in str(error)


@pytest.mark.parametrize("function", ["cuEventQuery", "cuCtxSetCurrent"])
@alone
def test_a_device_that_is_lost_is_told_once(cuda: Cuda, run: Path, function: str) -> None:
    """With the driver's error; the lines that follow name it."""
    stream = working_stream(cuda)
    with told() as said, Recorder(run, flush_interval_s=0.005) as recorder:
        with cuda.hanging(stream):
            recorder.record(0, loss=cuda.tensor(1.0, stream=stream))
            cuda.fail(function, 700, -1)
        assert recorder.flush(20)
        cuda.fail(function, 0, 0)
        for step in range(1, 4):
            recorder.record(step, loss=cuda.tensor(1.0), lr=0.1)
        assert recorder.flush(20)
        error = recorder.stats()["device"]["error"]
        assert eventually(lambda: recorder.record(4, lr=0.1) and said)
    assert said == [error]
    assert "lost cuda:0: its driver reports error 700" in str(error)
    assert [line.get("missing") for line in lines(run)[:4]] == [{"loss": "driver_error_700"}] * 4


@alone
def test_one_call_that_fails_costs_its_own_values_only(cuda: Cuda, run: Path) -> None:
    """A copy or an event that cannot be made: the next one may be, and nothing is told."""
    working_stream(cuda)
    with told() as said, Recorder(run) as recorder:
        for step, function in enumerate(
            ("cuMemcpyDtoHAsync_v2", "cuEventRecord", "cuEventCreate", "")
        ):
            if function:
                cuda.fail(function, 999, 1)
            recorder.record(step, loss=cuda.tensor(1.0))
        assert recorder.flush(20)
        assert recorder.stats()["device"]["error"] is None
    values = [line["metrics"]["loss"] for line in lines(run)]
    assert values == [None, None, None, 1.0]
    assert said == []
