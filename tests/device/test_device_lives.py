"""Ends of processes with values on their way: closing, leaving, forks, kills."""

from __future__ import annotations

import os
import signal
import sys
from ctypes import c_void_p
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from device import fakes
from device.alone import Nursery, alone, at_once
from device.driving import busy_tickets, losses, of_child, one_line, timed_stream, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import in_child, lines
from ring_checks import check_against_recovery

from foundry_fastlog import Recorder, read_run, recover
from foundry_fastlog.recording import device_tensors

# ---- closing -------------------------------------------------------------------------------------


@alone
def test_closing_waits_for_values_but_not_for_a_device_that_hangs(cuda: Cuda, run: Path) -> None:
    """Those that arrive within half of its time are in the file; and every line is."""
    stream = working_stream(cuda)
    recorder = Recorder(run)
    cuda.delay(stream, 100_000)
    recorder.record(0, loss=cuda.tensor(1.5, stream=stream), lr=0.0)
    assert recorder.flush(20)
    with cuda.hanging(stream):
        for step in range(1, 100):
            recorder.record(step, loss=cuda.tensor(1.5, stream=stream), lr=float(step))
        with at_once(5):
            assert recorder.close(1.0)
    assert not recorder.stats()["ring_path"] or not Path(recorder.stats()["ring_path"]).exists()
    assert losses(run) == [1.5] + [None] * 99
    assert losses(run, "lr") == [float(step) for step in range(100)]
    assert all(line["missing"] == {"loss": "timeout"} for line in lines(run)[1:])


@alone
def test_two_recorders_share_the_slots(cuda: Cuda, run: Path) -> None:
    """Each has its own values; one may be closed while the other's wait."""
    stream = working_stream(cuda)
    slow = cuda.stream(0, nonblocking=True)
    first, second = Recorder(run / "a"), Recorder(run / "b", flush_interval_s=0.005)
    with cuda.hanging(slow):
        for step in range(300):
            cuda.set_stream(slow, 0)
            first.record(step, loss=cuda.tensor(step + 0.5, stream=slow))
            cuda.set_stream(stream, 0)
            second.record(step, loss=cuda.tensor(-step * 1.0, stream=stream))
        assert second.close()
        assert first.close(0.4)
    with Recorder(run / "c", flush_interval_s=0.005) as third:
        assert cuda.wait(slow)
        assert busy_tickets(cuda, third, stream) == 0  # the first one's, too
    assert losses(run / "b") == [-float(i) for i in range(300)]
    assert {line["missing"]["loss"] for line in lines(run / "a")} == {"timeout"}


# ---- ends of processes ---------------------------------------------------------------------------


def leaves(cuda: Cuda, run: Path, how: str) -> None:
    stream = timed_stream(cuda)
    recorder = Recorder(run, close_timeout_s=1.0 if how == "hang" else 20.0)
    cuda.delay(stream, 100_000)
    for step in range(50):
        recorder.record(step, loss=cuda.tensor(step / 2, stream=stream), lr=0.1)
    with recorder.timer("forward", step=4, device=True):
        pass
    if how == "hang":
        cuda.hang(stream)
        recorder.record(50, loss=cuda.tensor(1.0, stream=stream), lr=0.1)
    elif how == "exit":
        sys.exit(3)
    elif how == "raise":
        raise KeyError("unhandled")
    elif how == "_exit":
        os._exit(4)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("how", "status"), [("return", 0), ("exit", 3), ("raise", 1), ("hang", 0)])
def test_a_process_that_leaves_without_closing_loses_nothing(
    nursery: Nursery, tmp_path: Path, how: str, status: int
) -> None:
    """Its values are waited for, not for ever; a device that hangs does not keep it."""
    run, output = tmp_path / "run", tmp_path / "output"
    with at_once(15):
        said = nursery(leaves, output, exit_status=status, run=run, how=how)
    assert ("KeyError: 'unhandled'" in said) == (how == "raise")
    found = lines(run)
    assert [line["metrics"]["loss"] for line in found[:50]] == [i / 2 for i in range(50)]
    assert len(found) == (51 if how == "hang" else 50)
    if how == "hang":
        assert found[50]["metrics"] == {"loss": None, "lr": 0.1}
        assert found[50]["missing"] == {"loss": "timeout"}


@pytest.mark.parametrize(("how", "status"), [("_exit", 4), ("kill", -signal.SIGKILL)])
def test_a_process_that_dies_loses_only_values_that_had_not_arrived(
    nursery: Nursery, tmp_path: Path, how: str, status: int
) -> None:
    """Readers show their lines at once, recovery writes the same bytes, each of them once."""
    run = tmp_path / "run"
    nursery(leaves, tmp_path / "output", exit_status=status, run=run, how=how)
    parsed = list(read_run(run).lines("metrics"))
    (report,) = check_against_recovery(run)  # by the bytes
    assert report.outcome == "recoverable"
    for step, line in enumerate(lines(run)):
        assert (line["step"], line["metrics"]) == (step, {"loss": None, "lr": 0.1})
        assert line["missing"] == {"loss": "lost"}
    assert len(parsed) == 50
    block = one_line(run, "performance")
    assert (block["name"], block["step"], block["device"]) == ("forward", 4, "cuda:0")
    assert (block["duration_s"] >= 0, block["device_duration_s"]) == (True, None)
    assert block["missing"] == {"device_duration_s": "lost"}
    assert list(read_run(run).lines("metrics")) == parsed
    assert recover(run) == []


def dies_with_streams_apart(cuda: Cuda, run: Path, kills_at: int) -> None:
    """Let metrics wait while the other streams go on, and be killed."""
    stream = working_stream(cuda)
    recorder = Recorder(run, flush_interval_s=0.002)
    for step in range(20):
        recorder.record(step, loss=cuda.tensor(float(step), stream=stream))
    recorder.flush(20)
    cuda.hang(stream)
    for step in range(20, 120):
        recorder.record(step, loss=cuda.tensor(float(step), stream=stream), lr=0.1)
        with recorder.timer("block", step=step):
            recorder.event("fault", error=ValueError("x"), step=step)
        recorder.event(f"message {step}")
        if step == kills_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step % 20 == 0:
            for name in ("log", "errors", "performance"):
                recorder.flush(20, stream=name)


@pytest.mark.parametrize("kills_at", [20, 21, 60, 119])
def test_a_kill_with_streams_ahead_of_each_other_loses_and_doubles_nothing(
    nursery: Nursery, tmp_path: Path, kills_at: int
) -> None:
    """What the others had written stays; what metrics waited for is recovered as lost."""
    run = tmp_path / "run"
    output, killed = tmp_path / "o", -signal.SIGKILL
    nursery(dies_with_streams_apart, output, exit_status=killed, run=run, kills_at=kills_at)
    names = ("metrics", "log", "errors")
    before = {name: list(read_run(run).lines(name)) for name in names}
    check_against_recovery(run)
    assert before == {name: list(read_run(run).lines(name)) for name in names}
    count = kills_at - 19
    metrics = lines(run)
    assert [line["step"] for line in metrics] == list(range(kills_at + 1))
    assert losses(run) == [*map(float, range(20)), *[None] * count]
    assert all(line["missing"] == {"loss": "lost"} for line in metrics[20:])
    assert [line["step"] for line in lines(run, "performance")] == list(range(20, kills_at + 1))
    assert [len(lines(run, name)) for name in ("log", "errors")] == [count, count]


# ---- forks ---------------------------------------------------------------------------------------


@alone
def test_a_forked_child_touches_neither_driver_nor_slots(cuda: Cuda, run: Path) -> None:
    """Its values of the CPU are recorded, inherited tensors' are missing; the parent goes on."""
    stream = timed_stream(cuda)
    loss = cuda.tensor(1.5, stream=stream)
    other = fakes.host_tensor(1.5, device=(fakes.XPU, 0))
    seen: list[Any] = []
    with Recorder(run) as recorder:
        outer = recorder.timer("outer", device=True)

        def child() -> None:
            sys.unraisablehook = seen.append
            for step in range(20):
                recorder.record(step, loss=loss, xpu=other, lr=float(step))
            with recorder.timer("own", device=True):
                pass
            outer.__exit__(None, None, None)  # which its parent began
            assert recorder.flush(20)
            assert recorder.stats()["device"]["missing"] == 20 * 2 + 2
            assert recorder.close()
            assert seen == []

        with cuda.hanging(stream):
            recorder.record(0, loss=loss)
            outer.__enter__()
            in_child(child)
        outer.__exit__(None, None, None)
        assert cuda.calls_in_child() == 0
        recorder.record(1, loss=loss)
        assert recorder.flush(20)
        assert recorder.stats()["device"]["missing"] == 0
    for step, line in enumerate(of_child(run)):
        assert line["metrics"] == {"loss": None, "xpu": None, "lr": float(step)}
        assert line["missing"] == {"loss": "forked", "xpu": "forked"}
    assert step == 19
    blocks = of_child(run, "performance")
    assert [line["name"] for line in blocks] == ["own", "outer"]
    for line in blocks:
        assert line["device_duration_s"] is None
        assert line["missing"] == {"device_duration_s": "forked"}
    assert "missing" not in one_line(run, "performance")
    assert losses(run) == [1.5, 1.5]


@alone
def test_a_child_does_not_ask_for_values_that_its_parent_gave_up(cuda: Cuda, run: Path) -> None:
    """They are the parent's to wait for."""
    stream = working_stream(cuda)
    with Recorder(run, device_timeout_s=0.05, flush_interval_s=0.005) as recorder:

        def child() -> None:
            recorder.record(1, loss=cuda.tensor(2.5), lr=0.5)
            assert recorder.flush(20)
            assert recorder.close()

        with cuda.hanging(stream):
            recorder.record(0, loss=cuda.tensor(1.5, stream=stream))
            assert recorder.flush(20)
            given_up = {"scalars": 1, "waiting": 0, "missing": 1, "error": None}
            assert recorder.stats()["device"] == given_up
            in_child(child)
            assert cuda.calls_in_child() == 0
        assert cuda.wait(stream)
        assert busy_tickets(cuda, recorder, stream) == 0
    assert of_child(run)[0]["missing"] == {"loss": "forked"}


@alone
def test_a_child_can_be_the_first_to_record_a_value(cuda: Cuda, run: Path) -> None:
    """The parent had only opened the recorder, and had asked for nothing of the driver."""
    working_stream(cuda)
    loss = cuda.tensor(1.5)
    cuda.call("cuCtxGetCurrent", c_void_p())
    with Recorder(run) as recorder:
        recorder.record(0, cpu=fakes.host_tensor(0.5))

        def child() -> None:
            os.environ["FASTLOG_CUDA_LIBRARY"] = "/nonexistent"  # the first sight of it
            recorder.record(0, lr=0.1)
            assert recorder.close()

        in_child(child)
        assert cuda.calls_in_child() == 0
        recorder.record(1, loss=loss)
    assert lines(run)[1]["metrics"] == {"loss": 1.5}
    assert of_child(run)[0]["metrics"] == {"lr": 0.1}


@alone
def test_a_child_forked_before_the_first_value_says_so_too(cuda: Cuda, run: Path) -> None:
    """Its tensor is the parent's, whose driver answers once that it is not initialised here."""
    timed_stream(cuda)
    loss = cuda.tensor(1.5)
    with Recorder(run) as recorder:

        def child() -> None:
            for step in range(3):
                recorder.record(step, loss=loss, lr=0.5)
            with recorder.timer("block", device=True):
                pass
            assert recorder.close()

        in_child(child)
        assert cuda.calls_in_child() <= 3  # a capture mode, there and back, and a device
        recorder.record(0, loss=loss)
    assert [line["missing"] for line in of_child(run)] == [{"loss": "forked"}] * 3
    (block,) = of_child(run, "performance")
    assert block["missing"] == {"device_duration_s": "forked"}
    assert one_line(run)["metrics"] == {"loss": 1.5}


@alone
def test_a_child_of_a_parent_without_a_device_may_use_one(run: Path) -> None:
    """As launchers fork their workers, before anybody has used CUDA."""
    with Recorder(run) as recorder:
        recorder.record(0, lr=0.5)

        def child() -> None:
            cuda = fakes.load_driver()
            os.environ["FASTLOG_CUDA_LIBRARY"] = str(cuda.path)
            working_stream(cuda)
            recorder.record(1, loss=cuda.tensor(1.5))
            assert recorder.close()

        in_child(child)
    assert [line["metrics"] for line in of_child(run)] == [{"loss": 1.5}]


# ---- making ahead --------------------------------------------------------------------------------


@pytest.mark.parametrize("in_use", [True, False])
@alone
def test_what_the_first_value_needs_is_made_by_the_recorder_where_cuda_is_in_use(
    cuda: Cuda, run: Path, in_use: bool
) -> None:
    """Later it may wait for all that is queued. Where CUDA is not in use, nothing is asked."""
    stream = working_stream(cuda)
    sys.modules["torch"] = ModuleType("torch")
    with Recorder(run / "importing"):  # torch is just being imported
        assert cuda.count("cuDeviceGet") == 0
    device_tensors.block_stream = lambda device: (2, 0, stream) if in_use else None
    cuda.reset_counts()
    with Recorder(run) as recorder:
        assert cuda.count("cuMemHostAlloc") == in_use
        assert (cuda.count("cuDeviceGet") == 0) == (not in_use)
        made = cuda.count("cuEventCreate")
        recorder.record(0, loss=cuda.tensor(1.5), grad_norm=cuda.tensor(2.5))
        assert cuda.count("cuMemHostAlloc") == 1
        assert (cuda.count("cuEventCreate") == made) == in_use
    assert one_line(run)["metrics"] == {"loss": 1.5, "grad_norm": 2.5}
