"""Calls of the driver that wait: no other Python thread does, and may do what it likes."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from device.alone import alone
from device.driving import of_child, one_line, timed_stream, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import eventually, in_child, lines

from foundry_fastlog import Recorder, RecorderClosedError


def while_waiting(cuda: Cuda, function: str, helper: Callable[[], Any]) -> threading.Thread:
    """Let calls of a function wait until a Python thread has helped: it runs once one waits."""

    def help_out() -> None:
        eventually(lambda: cuda.count("waiting_calls") > 0)
        try:
            helper()
        finally:
            cuda.stall(function, stalled=False)

    cuda.stall(function)
    thread = threading.Thread(target=help_out)
    thread.start()
    return thread


SENDING = [
    *("cuDevicePrimaryCtxRetain", "cuMemHostAlloc", "cuCtxGetCurrent", "cuStreamIsCapturing"),
    *("cuThreadExchangeStreamCaptureMode", "cuEventCreate", "cuMemcpyDtoHAsync_v2"),
    "cuEventRecord",
]
CALLS = [
    *(("record", function) for function in SENDING),
    *(("enter", function) for function in SENDING if function != "cuMemcpyDtoHAsync_v2"),
    *(("leave", function) for function in ("cuCtxGetCurrent", "cuEventRecord")),
]


@pytest.mark.parametrize(("call", "function"), CALLS)
@alone
def test_a_wait_stops_no_other_thread(cuda: Cuda, run: Path, call: str, function: str) -> None:
    """The device may wait for one of them: a store, another rank, an abort of a collective."""
    timed_stream(cuda)
    loss = cuda.tensor(1.5)
    with Recorder(run) as recorder:
        block = recorder.timer("block", device=True)
        if call == "leave":
            block.__enter__()
        thread = while_waiting(cuda, function, lambda: None)
        if call == "record":
            recorder.record(0, loss=loss)
        else:
            if call == "enter":
                block.__enter__()
            block.__exit__(None, None, None)
        thread.join()
    line = one_line(run, "metrics" if call == "record" else "performance")
    assert "missing" not in line


@alone
def test_a_full_launch_queue_keeps_the_caller_alone(cuda: Cuda, run: Path) -> None:
    """The stream goes on when a thread of this process lets it; values and order stay right."""
    stream = working_stream(cuda)
    loss = cuda.tensor(0.0)
    beats = 0

    def beat() -> None:
        nonlocal beats
        eventually(lambda: cuda.count("waiting_calls") > 0)
        for beats in range(1, 101):
            recorder.record(-beats, beat=1.0)
        cuda.release(stream)

    heart = threading.Thread(target=beat)
    with Recorder(run) as recorder:
        cuda.hang(stream)
        cuda.queue_depth(16)
        heart.start()
        for step in range(200):
            cuda.store(stream, loss.data_ptr(), float(step))
            recorder.record(step, loss=loss)
        heart.join()
    assert beats == 100
    found = {line["step"]: line["metrics"]["loss"] for line in lines(run) if line["step"] >= 0}
    assert list(found.items()) == [(step, float(step)) for step in range(200)]
    assert cuda.count("synchronisations") == 0


@alone
def test_what_was_given_may_change_while_the_call_waits(cuda: Cuda, run: Path) -> None:
    """Another thread empties the dict, and all that it had is collected."""
    working_stream(cuda)
    values = {f"v{i}": cuda.tensor(float(i)) for i in range(20)}
    with Recorder(run) as recorder:
        thread = while_waiting(cuda, "cuMemcpyDtoHAsync_v2", values.clear)
        recorder.record_dict(0, values)
        thread.join()
    assert values == {}
    assert one_line(run)["metrics"] == {f"v{i}": float(i) for i in range(20)}


@alone
def test_the_recorder_may_be_closed_while_the_call_waits(cuda: Cuda, run: Path) -> None:
    """The call says so then; its tickets come back to the next recorder."""
    timed_stream(cuda)
    loss = cuda.tensor(1.5)
    recorder = Recorder(run)
    thread = while_waiting(cuda, "cuMemcpyDtoHAsync_v2", recorder.close)
    with pytest.raises(RecorderClosedError):
        recorder.record(0, loss=loss)
    thread.join()
    other = Recorder(run / "other")
    thread = while_waiting(cuda, "cuEventRecord", other.close)
    with pytest.raises(RecorderClosedError):
        other.timer("block", device=True).__enter__()
    thread.join()
    with Recorder(run / "third", flush_interval_s=0.005) as third:
        assert third.record(0, loss=loss)
        assert third.flush(20)
    assert lines(run) == lines(run / "other") == []
    assert one_line(run / "third")["metrics"] == {"loss": 1.5}


@alone
def test_a_signal_or_a_collection_may_record_while_the_call_waits(cuda: Cuda, run: Path) -> None:
    """The handler runs in this thread behind the call, finalizers in the thread that collects."""
    working_stream(cuda)
    signal.signal(signal.SIGUSR1, lambda *_: recorder.record(2, signal=1.0, loss=loss))
    loss = cuda.tensor(1.5)

    class Cycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            recorder.record(1, collected=1.0)

    def disturb() -> None:
        Cycle()
        gc.collect()
        os.kill(os.getpid(), signal.SIGUSR1)

    with Recorder(run) as recorder:
        thread = while_waiting(cuda, "cuMemcpyDtoHAsync_v2", disturb)
        recorder.record(0, loss=loss)
        thread.join()
    found = {line["step"]: line["metrics"] for line in lines(run)}
    assert found == {0: {"loss": 1.5}, 1: {"collected": 1.0}, 2: {"signal": 1.0, "loss": 1.5}}
    assert list(found).index(0) < list(found).index(2)


@alone
def test_another_thread_may_fork_while_the_call_waits(cuda: Cuda, run: Path) -> None:
    """Whatever is held for the first value: the child records, and calls no driver."""
    working_stream(cuda)
    loss = cuda.tensor(1.5)
    ended: list[bool] = []

    def child() -> None:
        assert recorder.record(1, loss=loss, lr=0.5)
        assert recorder.record(2, lr=0.5)
        assert recorder.close()

    with Recorder(run) as recorder:
        thread = while_waiting(cuda, "cuMemHostAlloc", lambda: ended.append(in_child(child) > 0))
        recorder.record(0, loss=loss)
        thread.join()
    assert ended == [True]
    assert cuda.calls_in_child() == 0
    assert one_line(run)["metrics"] == {"loss": 1.5}
    first, second = of_child(run)
    assert (first["metrics"], second["metrics"]) == ({"loss": None, "lr": 0.5}, {"lr": 0.5})
    assert first["missing"] == {"loss": "forked"}


@alone
def test_a_driver_that_hangs_in_a_question_costs_no_record(cuda: Cuda, run: Path) -> None:
    """It holds up the flush thread: record() goes on, and the next start writes what waits."""
    working_stream(cuda)
    recorder = Recorder(run, flush_interval_s=0.005)
    cuda.stall("cuEventQuery")
    recorder.record(0, loss=cuda.tensor(1.5))
    assert eventually(lambda: cuda.count("waiting_calls") > 0)
    for step in range(1, 5):
        assert recorder.record(step, lr=0.1)
        assert recorder.event(f"message {step}")
    assert not recorder.flush(0.1, stream="log")
    assert not recorder.close(0.2)
    assert lines(run, "log") == []
    cuda.stall("cuEventQuery", stalled=False)
    assert recorder.close(20)
    assert [line["metrics"] for line in lines(run)] == [{"loss": 1.5}, *[{"lr": 0.1}] * 4]
    assert len(lines(run, "log")) == 4
