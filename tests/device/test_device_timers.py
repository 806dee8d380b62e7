"""Blocks timed on a device: by events, in the order of its stream, without waiting for it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from device.alone import alone
from device.driving import one_line, timed_stream, waiting
from device.fakes import FakeDriver as Cuda
from recorded import eventually, lines

from foundry_fastlog import Recorder
from foundry_fastlog.recording import device_tensors


@pytest.mark.parametrize("make", ["cuda", "hip"])
@alone
def test_a_blocks_device_time_is_its_works(cuda: Cuda, hip: Cuda, run: Path, make: str) -> None:
    """Not the wall clock's, which only saw the work being given out; torch calls ROCm cuda, too."""
    driver = {"cuda": cuda, "hip": hip}[make]
    stream = timed_stream(driver)
    with Recorder(run) as recorder:
        driver.delay(stream, 20_000)  # before the block
        with recorder.timer("forward", step=3, device=True):
            driver.delay(stream, 200_000)
        driver.delay(stream, 20_000)  # and behind it
        assert recorder.flush(20)
    line = one_line(run, "performance")
    assert (line["name"], line["step"], line["device"]) == ("forward", 3, "cuda:0")
    assert 0.19 < line["device_duration_s"] < 0.4
    assert line["duration_s"] < line["device_duration_s"]
    assert "missing" not in line
    assert list(line)[-2:] == ["device", "device_duration_s"]
    assert driver.count("synchronisations") == 0


@alone
def test_blocks_nest_on_the_device_too(cuda: Cuda, run: Path) -> None:
    """With others that are timed by the wall clock only; as decorators, and when they raise."""
    stream = timed_stream(cuda)
    with Recorder(run) as recorder:

        @recorder.timer("backward", device="cuda:0")
        def backward() -> None:
            cuda.delay(stream, 100_000)
            raise ZeroDivisionError

        with recorder.timer("step", step=1, device=True):
            with recorder.timer("forward", device=True):
                cuda.delay(stream, 50_000)
            for device in (None, False):
                with recorder.timer("host", device=device), pytest.raises(ZeroDivisionError):
                    backward()
        assert recorder.flush(20)
    found = lines(run, "performance")
    names = [line["name"] for line in found]
    assert names == ["forward", "backward", "host", "backward", "host", "step"]
    assert {line["step"] for line in found} == {1}
    forward, backward_line, host, again, _, step = found
    assert "device" not in host
    assert backward_line["error"] == "ZeroDivisionError"
    assert (backward_line["parent"], backward_line["depth"]) == ("host", 2)
    times = [line["device_duration_s"] for line in (forward, backward_line, again)]
    assert 0.045 < times[0] < 0.15
    assert all(0.095 < time < 0.2 for time in times[1:])
    assert step["device_duration_s"] >= sum(times) - 0.001


@alone
def test_a_block_that_cannot_be_timed_says_why(cuda: Cuda, run: Path) -> None:
    """With the wall clock's time; nothing is captured for it, and no error hides the block's."""
    stream = timed_stream(cuda)
    usual = device_tensors.block_stream

    def no_cuda() -> None:
        device_tensors.block_stream = lambda which: None

    begins: dict[str, Any] = {
        "cuEventRecord": lambda: cuda.fail("cuEventRecord", 999),
        "cuCtxGetCurrent": lambda: cuda.fail("cuCtxGetCurrent", 999, -1),
        "in a capture": lambda: cuda.begin_capture(stream),
        "out of a capture": lambda: cuda.begin_capture(stream),
    }
    ends: dict[str, Any] = {
        "bad": lambda: cuda.fail("cuEventRecord", 999),
        "out of a capture": lambda: cuda.end_capture(stream),
        "into a capture": lambda: cuda.begin_capture(stream),
        "moved": no_cuda,
    }

    def block(name: str) -> None:
        with recorder.timer(name, step=2, device=True):
            ends.get(name, int)()
            raise ZeroDivisionError

    with Recorder(run) as recorder:
        for name in (*begins, *(ends.keys() - begins.keys()), "fine"):
            begins.get(name, int)()
            with pytest.raises(ZeroDivisionError):
                block(name)
            cuda.fail("cuCtxGetCurrent", 0, 0)
            assert cuda.end_capture(stream) == name.startswith("in")
            device_tensors.block_stream = usual
        assert cuda.count("captured_ops") == 0
        assert recorder.flush(20)
        assert eventually(lambda: waiting(recorder) == 0)
        assert recorder.stats()["device"]["missing"] == 7
    found = {line["name"]: line for line in lines(run, "performance")}
    reasons = {name: line.get("missing", {}).values() for name, line in found.items()}
    assert {name: list(reason) for name, reason in reasons.items()} == {
        **{name: ["driver_error_999"] for name in ("cuEventRecord", "cuCtxGetCurrent", "bad")},
        **{name: ["capture"] for name in found if name.endswith("capture")},
        "moved": ["backend_error"],
        "fine": [],
    }
    for line in found.values():
        assert (line["device"], line["error"]) == ("cuda:0", "ZeroDivisionError")
        assert line["duration_s"] >= 0


@alone
def test_without_cuda_only_the_wall_clock_is_recorded(run: Path) -> None:
    """Torch is not imported, so nothing can be on a device."""
    with Recorder(run) as recorder, recorder.timer("block", device=True):
        pass
    line = one_line(run, "performance")
    assert "device" not in line
    assert line["duration_s"] >= 0


@alone
def test_an_error_of_the_framework_is_shown_on_entering(cuda: Cuda, run: Path) -> None:
    """A wrong device is the caller's fault. The block is not entered."""
    device_tensors.block_stream = Mock(side_effect=TypeError("got 'nonsense'"))
    with Recorder(run) as recorder:
        with pytest.raises(TypeError, match="got 'nonsense'"):
            recorder.timer("block", device="nonsense").__enter__()
        with pytest.raises(RuntimeError, match="without having been entered"):
            recorder.timer("block").__exit__(None, None, None)
    device_tensors.block_stream.assert_called_once_with("nonsense")
    assert lines(run, "performance") == []


def test_outer_blocks_end_while_one_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework is asked for its stream by Python code, which may end a generator's block."""
    with Recorder(tmp_path) as recorder:

        def suspended() -> Generator[None, None, None]:
            with recorder.timer("".join(["around ", "x" * 300])):  # known to nobody else
                yield

        around = [suspended()]
        next(around[0])
        others: list[str] = []

        def stream(_: object) -> None:
            around.clear()
            others.extend("".join(["another", "y" * 300]) for _ in range(1000))

        monkeypatch.setattr(device_tensors, "block_stream", stream)
        with recorder.timer("inside", device=True):
            pass
    around_line, inside = lines(tmp_path, "performance")
    assert around_line["name"] == inside["parent"] == "around " + "x" * 300
