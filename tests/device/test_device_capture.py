"""Graph captures: recording into one is refused, and none is ended by what we ask."""

from __future__ import annotations

import sys
import threading
import time
from ctypes import c_int
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from device import fakes
from device.alone import alone
from device.driving import in_thread, losses, recorded_event, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import MetricsLogger, Recorder
from foundry_fastlog.recording import host_copies
from foundry_fastlog.recording.host_copies import HostCopies
from foundry_fastlog.sinks.wandb_rows import DelayedRows

MODES = [fakes.GLOBAL, fakes.THREAD_LOCAL, fakes.RELAXED]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("mode", MODES)
@alone
def test_recording_in_a_capture_is_refused(cuda: Cuda, run: Path, mode: int, first: bool) -> None:
    """Nothing is captured, and the capture stays valid, even if nothing was recorded before."""
    stream = working_stream(cuda)
    loss = cuda.tensor(1.5)
    with Recorder(run) as recorder, MetricsLogger("exp", run, recorder=recorder) as metrics:
        if not first:
            recorder.record(0, loss=loss)
        cuda.begin_capture(stream, mode)
        for call in (
            lambda: recorder.record(1, loss=loss, lr=0.1),
            lambda: recorder.record_dict(1, {"loss": loss}),
            lambda: recorder.log({"loss": loss}),
            lambda: metrics.log_step(1, None, {"loss": loss}),
            lambda: metrics.log_epoch_summary(1, {"loss": loss}),
        ):
            with pytest.raises(RuntimeError, match=r"value on a device .* captured into a graph"):
                call()
        recorder.record(1, lr=0.1)  # of the CPU only
        assert cuda.end_capture(stream)
        assert cuda.count("captured_ops") == 0
        cuda.store(stream, loss.data_ptr(), 2.5)  # a replay
        recorder.record(2, loss=loss)
    found = [(line["step"], line["metrics"]) for line in lines(run)]
    assert found[-2:] == [(1, {"lr": 0.1}), (2, {"loss": 2.5})]
    assert found[:-2] == [(0, {"loss": 1.5})] * (not first)


@alone
def test_one_captured_stream_of_several_devices_refuses_the_record(cuda: Cuda, run: Path) -> None:
    working_stream(cuda, 0)
    stream = working_stream(cuda, 1)
    with Recorder(run) as recorder:
        cuda.begin_capture(stream)
        with pytest.raises(RuntimeError, match="captured into a graph"):
            recorder.record(0, a=cuda.tensor(1.0), b=cuda.tensor(2.0, device=1))
        assert cuda.end_capture(stream)
        assert cuda.count("cuMemcpyDtoHAsync_v2") == 0


@pytest.mark.parametrize("mode", MODES)
@alone
def test_a_capture_in_another_thread_survives_the_polling(cuda: Cuda, run: Path, mode: int) -> None:
    """The flush thread asks for events all the time; a strict driver would end the capture."""
    stream = working_stream(cuda)
    other = cuda.stream(0, nonblocking=True)
    valid: list[bool] = []

    def capture() -> None:
        cuda.use(0)
        while len(valid) < 20 or cuda.count("cuEventQuery") <= 20:
            cuda.begin_capture(other, mode)
            time.sleep(0.01)
            valid.append(cuda.end_capture(other))

    thread = threading.Thread(target=capture)
    with Recorder(run, flush_interval_s=0.001) as recorder:
        thread.start()
        step = 0
        while thread.is_alive():
            cuda.delay(stream, 1500)
            recorder.record(step, loss=cuda.tensor(float(step), stream=stream))
            step += 1
            time.sleep(0.0005)
        thread.join()
    assert all(valid)
    assert losses(run) == [float(i) for i in range(step)]


@alone
def test_rows_of_wandb_are_refused_in_a_capture_of_their_own_stream(
    cuda: Cuda, fake_tensor: ModuleType, run: Path
) -> None:
    """In the words of record(): told as an error of theirs; the row has what is on the CPU."""
    stream = working_stream(cuda)
    loss = cuda.tensor(1.5)
    sys.modules["torch"] = SimpleNamespace(version=SimpleNamespace(hip=None))  # type: ignore[assignment]
    written: list[Any] = []
    failed: list[str] = []
    rows = DelayedRows(
        lambda *row: written.append(row) is None,
        lambda what, error: failed.append(str(error)) is not None,
    )
    with Recorder(run) as recorder:
        cuda.begin_capture(stream)
        with pytest.raises(RuntimeError, match="captured") as seen:
            recorder.record(0, loss=loss)
        assert rows.add("log", 1, {"loss": loss, "lr": 0.1})
        assert cuda.end_capture(stream)
    assert failed == [str(seen.value)] == [host_copies._CAPTURED]
    assert written == [("log", 1, {"lr": 0.1})]
    assert fake_tensor.to_calls() == cuda.count("captured_ops") == 0


@alone
def test_copies_of_frameworks_end_no_capture_elsewhere(cuda: Cuda, fake_tensor: ModuleType) -> None:
    """Theirs are asked for by W&B's rows, from threads of Python. The mode is put back."""
    stream = working_stream(cuda)
    event = recorded_event(cuda, stream)
    assert cuda.wait(stream)
    asked: list[int] = []

    def ask(*_: object) -> bool:
        asked.append(cuda.call("cuEventQuery", event))
        return True

    class Scalar(fake_tensor.FakeTensor):  # type: ignore[misc, name-defined]
        """A tensor whose copy allocates, as torch's does."""

        def to(self, *_: object, **__: object) -> Scalar:
            ask()
            return self

    event_of: Any = SimpleNamespace(query=ask, record=lambda stream: None)
    sys.modules["torch"] = SimpleNamespace(  # type: ignore[assignment]
        Event=lambda device: event_of,
        cuda=SimpleNamespace(current_stream=lambda device: None),
        version=SimpleNamespace(hip=None),
    )
    captured = cuda.stream(0, nonblocking=True)
    in_thread(lambda: cuda.begin_capture(captured))
    assert HostCopies([cuda.tensor(1.5, kind=Scalar)]).arrived()
    assert asked == [0, 0]
    assert cuda.end_capture(captured)
    mode = c_int(fakes.GLOBAL)
    assert cuda.call("cuThreadExchangeStreamCaptureMode", mode) == 0
    assert mode.value == fakes.GLOBAL
