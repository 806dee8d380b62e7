"""Devices without a driver that is known here: their framework copies, and tells when it has."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from device import fakes
from device.alone import alone, at_once
from device.driving import losses, one_line, waiting, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import eventually, lines

from foundry_fastlog import Recorder, _core


class Event:
    """As torch.Event; what it does is set on the class."""

    ready = True
    made: list[Any] = []  # noqa: RUF012 - shared by purpose

    def __init__(self, device: Any) -> None:
        self.made.append(device)
        self.recorded = False

    def record(self) -> None:
        self.recorded = True

    def query(self) -> bool:
        assert self.recorded
        return type(self).ready


def with_torch() -> type[Event]:
    """Be a process that has imported torch, as far as it is asked."""
    sys.modules["torch"] = SimpleNamespace(Event=Event)  # type: ignore[assignment]
    return Event


def on(device: int, value: Any, dtype: str = "fp32", **options: Any) -> Any:
    """Make a tensor of a device whose memory the host reads."""
    return fakes.host_tensor(value, dtype, device=(device, 0), **options)


@pytest.mark.parametrize("device", [fakes.XPU, fakes.MPS, 12])
@alone
def test_values_of_other_devices_arrive(
    cuda: Cuda, fake_tensor: ModuleType, run: Path, device: int
) -> None:
    """Of Intel's, of Apple's and of kinds that only their framework knows, beside a driver's."""
    event = with_torch()
    stream = working_stream(cuda)
    with Recorder(run) as recorder:
        for step in range(20):
            if step % 10 == 0:
                cuda.delay(stream, 10_000)
            values = {f"v{i}": on(device, i + step / 4, requires_grad=True) for i in range(11)}
            values |= {"n": on(device, 7, "i64"), "gpu": cuda.tensor(float(step), stream=stream)}
            assert recorder.record_dict(step, {"lr": 0.5, **values})
    assert [line["metrics"] for line in lines(run)] == [
        {"lr": 0.5, **{f"v{i}": i + step / 4 for i in range(11)}, "n": 7, "gpu": float(step)}
        for step in range(20)
    ]
    assert len(event.made) == 20
    assert fake_tensor.item_calls() == 0


@alone
def test_a_copy_that_is_not_ready_is_asked_for_again(run: Path) -> None:
    """Nobody waits; other streams go on."""
    event = with_torch()
    event.ready = False
    with Recorder(run, flush_interval_s=0.005) as recorder:
        with at_once():
            for step in range(100):
                recorder.record(step, loss=on(fakes.XPU, step))
        recorder.event("message")
        assert recorder.flush(20, stream="log")
        assert not recorder.flush(0.05)
        assert lines(run) == []
        event.ready = True
        assert recorder.flush(20)
        assert eventually(lambda: waiting(recorder) == 0)
    assert losses(run) == [float(i) for i in range(100)]
    # The thread that asks ends when there is nothing to ask for.
    assert eventually(
        lambda: not any(thread.name == "fastlog-transfers" for thread in threading.enumerate())
    )


@pytest.mark.parametrize("fault", ["to", "__init__", "record", "query", "torch"])
@alone
def test_a_framework_that_fails_does_not_end_training(run: Path, fault: str) -> None:
    """The fault is shown where Python shows what nobody can catch; the next values arrive."""
    event = with_torch()
    kind = fakes.load_tensors().FakeTensor
    odd = kind

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    if fault == "to":
        odd = type("Broken", (kind,), {"to": broken})
    elif fault == "torch":
        del sys.modules["torch"]
    else:
        good = getattr(event, fault)
        setattr(event, fault, broken)
    seen: list[Any] = []
    sys.unraisablehook = seen.append
    with Recorder(run) as recorder:
        values = {"loss": on(fakes.XPU, 1.5, kind=odd), "grad": on(fakes.XPU, 1.5, kind=odd)}
        assert recorder.record(0, lr=0.1, **values)
        assert recorder.flush(20)
        assert eventually(lambda: waiting(recorder) == 0)
        if fault not in ("to", "torch"):
            setattr(event, fault, good)
        with_torch()
        recorder.record(1, loss=on(fakes.XPU, 2.5))
    if fault != "query":  # it is asked by the package's own thread
        assert isinstance(seen.pop().exc_value, KeyError if fault == "torch" else RuntimeError)
    assert seen == []
    first, second = lines(run)
    assert first["metrics"] == {"lr": 0.1, "loss": None, "grad": None}
    assert first["missing"] == {"loss": "backend_error", "grad": "backend_error"}
    assert second["metrics"] == {"loss": 2.5}


@alone
def test_a_copy_that_takes_too_long_is_given_up(run: Path) -> None:
    """Its slot is used again only when the framework has delivered. close() ends in time, too."""
    event = with_torch()
    event.ready = False
    with Recorder(run / "a", device_timeout_s=0.1, flush_interval_s=0.005) as recorder:
        recorder.record(0, loss=on(fakes.MPS, 1.5), lr=0.1)
        assert recorder.flush(20)
        assert one_line(run / "a")["missing"] == {"loss": "timeout"}
        assert waiting(recorder) == 0
        event.ready = True
        recorder.record(1, loss=on(fakes.MPS, 2.5))
        assert recorder.flush(20)
    assert lines(run / "a")[1]["metrics"] == {"loss": 2.5}
    event.ready = False
    recorder = Recorder(run / "b")
    recorder.record(0, loss=on(fakes.XPU, 1.5), lr=0.1)
    with at_once(3):
        assert recorder.close(0.5)
    assert one_line(run / "b")["missing"] == {"loss": "timeout"}


@alone
def test_values_that_are_no_numbers_are_missing(run: Path) -> None:
    event = with_torch()
    kind = fakes.load_tensors().FakeTensor
    odd: list[Any] = [[1], 1j, fakes.host_tensor(bytes(8), shape=(2,)), 2**70, None]
    with Recorder(run) as recorder:
        for step, value in enumerate([*odd, 2.5, 3]):
            gives = type("Gives", (kind,), {"detach": lambda self: self})
            gives.to = lambda self, *a, value=value, **k: value  # type: ignore[attr-defined]
            recorder.record(step, loss=on(fakes.XPU, 1.5, kind=gives))
    assert len(event.made) == 7
    found = lines(run)
    assert [line.get("missing") for line in found] == [{"loss": "backend_error"}] * 5 + [None] * 2
    assert [line["metrics"]["loss"] for line in found[5:]] == [2.5, 3]


def test_delivering_to_no_slot_is_an_error() -> None:
    """The function is called by this package only, and checks all the same."""
    with pytest.raises(ValueError, match="as many values as slots"):
        _core.deliver([1], [])
    with pytest.raises(ValueError, match="no such slot"):
        _core.deliver([4096 * 8], [None])
