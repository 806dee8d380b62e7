"""A fault that costs all values of a device is told once, with its reason, and in stats()."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from device import fakes
from device.alone import alone
from device.driving import losses, one_line, timed_stream, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import eventually, lines

from foundry_fastlog import Recorder

NOWHERE = "/nowhere/libcuda.so.1"
NAMED = "the library that FASTLOG_CUDA_LIBRARY names, "


@contextmanager
def told() -> Iterator[list[str]]:
    said: list[str] = []
    hear = lambda record: said.append(record.getMessage()) is None  # noqa: E731 - it is removed
    logging.getLogger("foundry_fastlog").addFilter(hear)
    yield said
    logging.getLogger("foundry_fastlog").removeFilter(hear)


@pytest.mark.parametrize("kind", ["wrong path", "no driver", "not set"])
@alone
def test_an_unusable_driver_is_told_with_the_reason(cuda: Cuda, run: Path, kind: str) -> None:
    """Once in the process; values go their framework's way, which has no copy here."""
    timed_stream(cuda)
    unraisable: list[object] = []
    sys.unraisablehook = unraisable.append
    wrong = {"wrong path": NOWHERE, "no driver": str(fakes.build_exports()), "not set": ""}[kind]
    os.environ["FASTLOG_CUDA_LIBRARY"] = wrong
    with told() as said:
        for name in ("first", "second"):
            with Recorder(run / name) as recorder:
                with recorder.timer("block", device=True):
                    pass
                assert recorder.flush(20)
                recorder.record(0, loss=cuda.tensor(1.0), lr=0.1)  # the call that tells
                error = recorder.stats()["device"]["error"]
            line = one_line(run / name, "performance")
            assert line["missing"] == {"device_duration_s": "backend_error"}
            line = one_line(run / name)
            assert line["metrics"] == {"loss": None, "lr": 0.1}
            assert line["missing"] == {"loss": "backend_error"}
    assert said == [error]
    assert len(unraisable) == 1
    assert cuda.count("cuMemcpyDtoHAsync_v2") == 0
    reason = {
        "wrong path": f"{NAMED}{NOWHERE}, cannot be loaded",
        "no driver": f"{NAMED}{wrong}, lacks cuDeviceGet",
        "not set": "libcuda.so.1 is not loaded",
    }[kind]
    assert f"cannot use the driver of CUDA: {reason}" in str(error)
    assert "Values on GPUs are copied by their framework" in str(error)


@pytest.mark.parametrize("function", ["cuEventQuery", "cuCtxSetCurrent"])
@alone
def test_a_device_that_is_lost_is_told_once(cuda: Cuda, run: Path, function: str) -> None:
    """With the driver's error; the lines that follow name it, and other devices go on."""
    stream = working_stream(cuda)
    working_stream(cuda, 1)
    with told() as said, Recorder(run, flush_interval_s=0.005) as recorder:
        with cuda.hanging(stream):
            recorder.record(0, loss=cuda.tensor(1.0, stream=stream), lr=0.1)
            cuda.fail(function, 700, -1)
        assert recorder.flush(20)
        cuda.fail(function, 0, 0)
        for step in range(1, 4):
            recorder.record(step, loss=cuda.tensor(1.0), other=cuda.tensor(2.0, device=1))
        assert recorder.flush(20)
        error = recorder.stats()["device"]["error"]
        assert eventually(lambda: recorder.record(4, lr=0.1) and said)
    assert said == [error]
    assert "lost cuda:0: its driver reports error 700" in str(error)
    found = lines(run)[:4]
    assert [line.get("missing") for line in found] == [{"loss": "driver_error_700"}] * 4
    assert [line["metrics"].get("other") for line in found] == [None, 2.0, 2.0, 2.0]


@alone
def test_one_call_that_fails_costs_its_own_values_only(cuda: Cuda, run: Path) -> None:
    """A copy or an event that cannot be made: the next one may be, and nothing is told."""
    working_stream(cuda)
    with told() as said, Recorder(run) as recorder:
        for function in ("cuMemcpyDtoHAsync_v2", "cuEventRecord", "cuEventCreate", ""):
            if function:
                cuda.fail(function, 999, 1)
            recorder.record(0, loss=cuda.tensor(1.0))
        cuda.fail("cuStreamIsCapturing", 999, -1)  # no answer is no capture
        recorder.record(0, loss=cuda.tensor(2.0))
        assert recorder.flush(20)
        assert recorder.stats()["device"]["error"] is None
    assert losses(run) == [None, None, None, 1.0, 2.0]
    assert said == []
