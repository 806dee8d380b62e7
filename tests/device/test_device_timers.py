"""Blocks timed on a device: by events, in the order of its stream, without waiting for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from device import fakes
from device.alone import Nursery, alone, at_once, eventually
from device.driving import one_line, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines
from ring_checks import check_against_recovery

from foundry_fastlog import Recorder
from foundry_fastlog.recording import device_tensors

US = 1_000_000


def timed_stream(cuda: Cuda, device: int = 0) -> int:
    """Make a stream on which blocks are timed, as torch would name it."""
    stream = working_stream(cuda, device)
    device_tensors.block_stream = lambda which: (2, device, stream)
    return stream


def device_times(run: Path) -> dict[str, Any]:
    """Return the time on the device by the block's name."""
    return {line["name"]: line["device_duration_s"] for line in lines(run, "performance")}


@alone
def test_a_blocks_time_on_the_device_is_that_of_its_work(cuda: Cuda, run: Path) -> None:
    """Not the wall clock's, which only saw the work being given out."""
    stream = timed_stream(cuda)
    with Recorder(run) as recorder:
        cuda.delay(stream, 20_000)  # before the block
        with at_once(0.1), recorder.timer("forward", step=3, device=True):
            cuda.delay(stream, 200_000)
        cuda.delay(stream, 20_000)  # and behind it
        assert recorder.flush(20)
    line = one_line(run, "performance")
    assert (line["name"], line["step"], line["device"]) == ("forward", 3, "cuda:0")
    assert 0.19 < line["device_duration_s"] < 0.4
    assert line["duration_s"] < 0.1
    assert "missing" not in line
    assert list(line)[-2:] == ["device", "device_duration_s"]
    assert cuda.count("synchronisations") == 0


@alone
def test_blocks_nest_on_the_device_too(cuda: Cuda, run: Path) -> None:
    """With others that are timed by the wall clock only."""
    stream = timed_stream(cuda)
    with Recorder(run) as recorder:
        with recorder.timer("step", step=1, device=True):
            with recorder.timer("forward", device=True):
                cuda.delay(stream, 50_000)
            with recorder.timer("host"), recorder.timer("backward", device=True):
                cuda.delay(stream, 100_000)
        assert recorder.flush(20)
    found = {line["name"]: line for line in lines(run, "performance")}
    assert list(found) == ["forward", "backward", "host", "step"]
    assert "device" not in found["host"]
    assert (found["backward"]["parent"], found["backward"]["depth"]) == ("host", 2)
    assert {line["step"] for line in found.values()} == {1}
    times = device_times_of(found)
    assert 0.045 < times["forward"] < 0.15
    assert 0.095 < times["backward"] < 0.2
    assert times["step"] >= times["forward"] + times["backward"] - 0.001


def device_times_of(found: dict[str, Any]) -> dict[str, float]:
    """Return the times on the device of lines by name."""
    return {
        name: line["device_duration_s"]
        for name, line in found.items()
        if "device_duration_s" in line
    }


@alone
def test_a_function_can_be_timed_on_the_device(cuda: Cuda, run: Path) -> None:
    """As a decorator, called again and again."""
    stream = timed_stream(cuda)
    with Recorder(run) as recorder:

        @recorder.timer("work", device="cuda:0")
        def work(microseconds: int) -> int:
            cuda.delay(stream, microseconds)
            return microseconds

        assert [work(n * 10_000) for n in range(1, 6)] == [n * 10_000 for n in range(1, 6)]
        assert recorder.flush(20)
    times = [line["device_duration_s"] for line in lines(run, "performance")]
    assert times == sorted(times)
    assert all(n * 0.01 - 0.001 < taken for n, taken in enumerate(times, start=1))


@alone
def test_a_block_that_raises_is_timed(cuda: Cuda, run: Path) -> None:
    """Its line names the error, and the exception goes on."""
    stream = timed_stream(cuda)
    with Recorder(run) as recorder:

        @recorder.timer("forward", device=True)
        def fail() -> None:
            cuda.delay(stream, 10_000)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
    line = one_line(run, "performance")
    assert line["error"] == "ZeroDivisionError"
    assert line["device_duration_s"] > 0.009


@alone
def test_a_block_on_a_device_that_hangs_waits_for_nothing(cuda: Cuda, run: Path) -> None:
    """Its line has the wall clock's time when it is given up; later ones are right."""
    stream = timed_stream(cuda)
    with Recorder(run, device_timeout_s=0.1, flush_interval_s=0.01) as recorder:
        with cuda.hanging(stream), at_once(10):
            for _ in range(20):
                with recorder.timer("stuck", device=True):
                    pass
            recorder.event("message")
            recorder.record(0, lr=0.1)
            assert recorder.flush(20)
        assert cuda.wait(stream)
        for _ in range(20):
            with recorder.timer("fine", device=True):
                cuda.delay(stream, 2000)
        assert recorder.flush(20)
        assert eventually(lambda: recorder.stats()["device"]["waiting"] == 0)
    found = lines(run, "performance")
    assert [line["name"] for line in found] == ["stuck"] * 20 + ["fine"] * 20
    for line in found[:20]:
        assert line["device_duration_s"] is None
        assert line["missing"] == {"device_duration_s": "timeout"}
        assert line["duration_s"] >= 0
    assert all(0.0015 < line["device_duration_s"] < 1 for line in found[20:])


@pytest.mark.parametrize(
    ("function", "count", "reason"),
    [
        ("cuEventRecord", 1, "driver_error_999"),
        ("cuEventCreate", 1, "driver_error_999"),
        ("cuEventElapsedTime", 1, "driver_error_999"),
        ("cuCtxGetCurrent", -1, "driver_error_999"),
        ("cuEventQuery", 1, "driver_error_999"),
    ],
)
@alone
def test_a_block_that_cannot_be_timed_says_why(
    cuda: Cuda, run: Path, function: str, count: int, reason: str
) -> None:
    """The wall clock's time is there in any case."""
    timed_stream(cuda)
    with Recorder(run) as recorder:
        cuda.fail(function, 999, count)
        with recorder.timer("block", step=2, device=True):
            time.sleep(0.02)
        assert recorder.flush(20)
    line = one_line(run, "performance")
    assert line["duration_s"] >= 0.02
    assert (line["device"], line["device_duration_s"]) == ("cuda:0", None)
    assert line["missing"] == {"device_duration_s": reason}


@alone
def test_an_end_that_fails_says_why(cuda: Cuda, run: Path) -> None:
    """The begin was recorded. The next block is timed again, by the same events."""
    stream = timed_stream(cuda)
    with Recorder(run) as recorder:
        with recorder.timer("bad", device=True):
            cuda.fail("cuEventRecord", 999)
        with recorder.timer("captured", device=True):
            cuda.begin_capture(stream)
        assert cuda.end_capture(stream)
        assert cuda.count("captured_ops") == 0
        with recorder.timer("moved", device=True):
            device_tensors.block_stream = lambda which: None  # no CUDA any more
        timed_stream(cuda)
        with recorder.timer("fine", device=True):
            cuda.delay(stream, 1000)
        assert recorder.flush(20)
        assert eventually(lambda: recorder.stats()["device"]["waiting"] == 0)
    found = {line["name"]: line for line in lines(run, "performance")}
    assert found["bad"]["missing"] == {"device_duration_s": "driver_error_999"}
    assert found["captured"]["missing"] == {"device_duration_s": "capture"}
    assert found["moved"]["missing"] == {"device_duration_s": "backend_error"}
    assert "missing" not in found["fine"]


@alone
def test_a_block_that_waits_gives_its_room_to_others(cuda: Cuda, run: Path) -> None:
    """A small ring: metrics are neither dropped nor held up by a device that hangs."""
    stream = timed_stream(cuda)
    with Recorder(run, ring_bytes=64 << 10, flush_interval_s=0.02) as recorder:
        with cuda.hanging(stream):
            with recorder.timer("stuck", device=True):
                pass
            for step in range(3000):
                with at_once(0.9):
                    assert recorder.record(step, lr=float(step))
            assert recorder.flush(20, stream="metrics")
            assert len(lines(run)) == 3000
        assert recorder.stats()["dropped"] == 0
    assert one_line(run, "performance")["missing"] == {"device_duration_s": "no_room"}


def dies_in_a_timed_block(cuda: Cuda, run: Path) -> None:
    """Leave a block whose time on the device is on its way, and be killed."""
    stream = timed_stream(cuda)
    recorder = Recorder(run)
    cuda.hang(stream)
    with recorder.timer("forward", step=4, device="cuda:0"):
        pass
    recorder.flush(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_loses_only_the_time_on_the_device(nursery: Nursery, tmp_path: Path) -> None:
    """The wall clock's is recovered, once."""
    run = tmp_path / "run"
    nursery(dies_in_a_timed_block, tmp_path / "output", exit_status=-signal.SIGKILL, run=run)
    check_against_recovery(run)
    line = one_line(run, "performance")
    assert (line["name"], line["step"], line["device"]) == ("forward", 4, "cuda:0")
    assert line["duration_s"] >= 0
    assert line["device_duration_s"] is None
    assert line["missing"] == {"device_duration_s": "lost"}


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("ends", [True, False])
@alone
def test_a_block_that_begins_or_ends_in_a_capture_has_the_wall_clocks_time(
    cuda: Cuda, run: Path, begins: bool, ends: bool
) -> None:
    """Nothing is captured for it, and no error hides one of the block's."""
    stream = timed_stream(cuda)
    with Recorder(run) as recorder:

        @recorder.timer("block", device=True)
        def fail() -> None:
            if begins and not ends:
                assert cuda.end_capture(stream)
            if ends and not begins:
                cuda.begin_capture(stream)
            raise ZeroDivisionError

        if begins:
            cuda.begin_capture(stream)
        with pytest.raises(ZeroDivisionError):
            fail()
        if ends:
            assert cuda.end_capture(stream)
        assert cuda.count("captured_ops") == 0
        assert recorder.flush(20)
        assert recorder.stats()["device"]["missing"] == (begins or ends)
        assert recorder.stats()["device"]["waiting"] == 0
    line = one_line(run, "performance")
    assert (line["duration_s"] >= 0, line["error"]) == (True, "ZeroDivisionError")
    captured = {"device_duration_s": "capture"} if begins or ends else None
    assert line.get("missing") == captured


@alone
def test_a_stream_may_change_within_a_block(cuda: Cuda, run: Path) -> None:
    """The end is recorded on what is current then, as torch's own events would be."""
    first = timed_stream(cuda)
    second = cuda.stream(0, nonblocking=True)
    with Recorder(run) as recorder:
        with recorder.timer("block", device=True):
            cuda.delay(first, 1000)
            device_tensors.block_stream = lambda which: (2, 0, second)
            cuda.delay(second, 100_000)
        assert recorder.flush(20)
    assert device_times(run)["block"] > 0.09


@alone
def test_a_block_whose_end_runs_before_its_begin_has_no_time(cuda: Cuda, run: Path) -> None:
    """On streams that do not wait for each other. Values behind its end are not held up."""
    first = timed_stream(cuda)
    second = cuda.stream(0, nonblocking=True)
    with Recorder(run, flush_interval_s=0.005) as recorder:
        with cuda.hanging(first):
            with recorder.timer("block", device=True):
                device_tensors.block_stream = lambda which: (2, 0, second)
            cuda.set_stream(second, 0)
            recorder.record(0, loss=cuda.tensor(1.5, stream=second))
            assert recorder.flush(20, stream="metrics")
            assert recorder.stats()["device"]["waiting"] == 1
        assert recorder.flush(20)
    line = one_line(run, "performance")
    assert line["device_duration_s"] is None
    assert line["missing"] == {"device_duration_s": "unordered"}
    assert one_line(run)["metrics"] == {"loss": 1.5}


@alone
def test_without_cuda_only_the_wall_clock_is_recorded(run: Path) -> None:
    """Torch is not imported, so nothing can be on a device."""
    with Recorder(run) as recorder, recorder.timer("block", device=True):
        pass
    line = one_line(run, "performance")
    assert "device" not in line
    assert line["duration_s"] >= 0


@pytest.mark.parametrize("device", [None, False])
@alone
def test_no_device_is_no_device(cuda: Cuda, run: Path, device: bool | None) -> None:
    """As by default."""
    timed_stream(cuda)
    with Recorder(run) as recorder, recorder.timer("block", device=device):
        pass
    assert "device" not in one_line(run, "performance")


@alone
def test_an_error_of_the_framework_is_shown_on_entering(cuda: Cuda, run: Path) -> None:
    """A wrong device is the caller's fault. The block is not entered."""

    def refuse(which: object) -> None:
        raise TypeError(f"device must be True, an index or a device, got {which!r}")

    device_tensors.block_stream = refuse
    with Recorder(run) as recorder:
        with pytest.raises(TypeError, match="got 'nonsense'"):
            recorder.timer("block", device="nonsense").__enter__()
        with pytest.raises(RuntimeError, match="without having been entered"):
            recorder.timer("block").__exit__(None, None, None)
    assert lines(run, "performance") == []


@alone
def test_a_name_without_room_in_the_key_table_has_no_device_time(cuda: Cuda, run: Path) -> None:
    """Its line is made at once."""
    timed_stream(cuda)
    with Recorder(run) as recorder:
        with recorder.timer("k" * 300, device=True):
            pass
        assert recorder.flush(20)
        assert recorder.stats()["device"]["waiting"] == 0
    line = one_line(run, "performance")
    assert line["missing"] == {"device_duration_s": "no_key_space"}


@alone
def test_blocks_of_rocm_are_timed_as_cuda_ones(hip: Cuda, run: Path) -> None:
    """Torch calls both `cuda`."""
    stream = working_stream(hip)
    device_tensors.block_stream = lambda which: (fakes.ROCM, 0, stream)
    with Recorder(run) as recorder:
        with recorder.timer("block", device=True):
            hip.delay(stream, 30_000)
        assert recorder.flush(20)
    line = one_line(run, "performance")
    assert line["device"] == "cuda:0"
    assert 0.029 < line["device_duration_s"] < 0.2


def test_the_block_around_may_end_while_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
