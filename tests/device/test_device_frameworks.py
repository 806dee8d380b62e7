"""Devices without a driver that is known here: their framework copies, and tells when it has."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from device import fakes
from device.alone import alone, at_once, eventually
from device.driving import one_line, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import Recorder, _core


class Event:
    """As torch.Event; what it does is set on the class."""

    ready = True
    made: list[Any] = []  # noqa: RUF012 - shared by purpose

    def __init__(self, device: Any) -> None:
        """Belong to a device."""
        self.made.append(device)
        self.recorded = False

    def record(self) -> None:
        """Be recorded on the current stream."""
        self.recorded = True

    def query(self) -> bool:
        """Tell whether the work before it has ended."""
        assert self.recorded
        return type(self).ready


def with_torch() -> type[Event]:
    """Be a process that has imported torch, as far as it is asked."""
    sys.modules["torch"] = SimpleNamespace(Event=Event)  # type: ignore[assignment]
    return Event


def on(device: int, value: Any, dtype: str = "fp32", **options: Any) -> Any:
    """Make a tensor of a device whose memory the host reads."""
    return fakes.host_tensor(value, dtype, device=(device, 0), **options)


def waiting(recorder: Recorder) -> int:
    """Return how many values a recorder waits for."""
    return recorder.stats()["device"]["waiting"]


@pytest.mark.parametrize("device", [fakes.XPU, fakes.MPS, 12])
@alone
def test_values_of_other_devices_arrive(fake_tensor: ModuleType, run: Path, device: int) -> None:
    """Of Intel's, of Apple's and of kinds that only their framework knows; more than eight, too."""
    event = with_torch()
    with Recorder(run) as recorder:
        for step in range(20):
            values = {f"v{i}": on(device, i + step / 4, requires_grad=True) for i in range(11)}
            assert recorder.record_dict(step, {"lr": 0.5, **values, "n": on(device, 7, "i64")})
    assert [line["metrics"] for line in lines(run)] == [
        {"lr": 0.5, **{f"v{i}": i + step / 4 for i in range(11)}, "n": 7} for step in range(20)
    ]
    assert len(event.made) == 20
    assert fake_tensor.item_calls() == 0


@alone
def test_values_of_a_framework_stand_beside_those_of_a_driver(cuda: Cuda, run: Path) -> None:
    """In one record: each goes its own way."""
    with_torch()
    stream = working_stream(cuda)
    with Recorder(run) as recorder:
        cuda.delay(stream, 20_000)
        recorder.record(0, a=cuda.tensor(1.5, stream=stream), b=on(fakes.XPU, 2.5), c=3.5)
    assert one_line(run)["metrics"] == {"a": 1.5, "b": 2.5, "c": 3.5}


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
    assert [line["metrics"]["loss"] for line in lines(run)] == [float(i) for i in range(100)]
    # The thread that asks ends when there is nothing to ask for.
    assert eventually(
        lambda: not any(thread.name == "fastlog-transfers" for thread in threading.enumerate())
    )


@alone
def test_an_event_that_raises_makes_its_values_missing(run: Path) -> None:
    """The next ones arrive."""
    event = with_torch()
    good = event.query

    def broken(self: Event) -> bool:
        raise RuntimeError("device lost")

    event.query = broken  # type: ignore[method-assign]
    with Recorder(run) as recorder:
        recorder.record(0, loss=on(fakes.XPU, 1.5), grad=on(fakes.XPU, 1.5), lr=0.1)
        assert recorder.flush(20)
        event.query = good  # type: ignore[method-assign]
        recorder.record(1, loss=on(fakes.XPU, 2.5))
    first, second = lines(run)
    assert first["metrics"] == {"loss": None, "grad": None, "lr": 0.1}
    assert first["missing"] == {"loss": "backend_error", "grad": "backend_error"}
    assert second["metrics"] == {"loss": 2.5}


@pytest.mark.parametrize("fault", ["to", "event", "record", "torch"])
@alone
def test_a_framework_that_fails_does_not_end_training(run: Path, fault: str) -> None:
    """The fault is shown where Python shows what nobody can catch; the line is written."""
    event = with_torch()
    kind = fakes.load_tensors().FakeTensor

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    if fault == "to":
        kind = type("Broken", (kind,), {"to": broken})
    elif fault == "torch":
        del sys.modules["torch"]
    else:
        setattr(event, {"event": "__init__", "record": "record"}[fault], broken)
    seen: list[Any] = []
    sys.unraisablehook = seen.append
    with Recorder(run) as recorder:
        assert recorder.record(0, loss=on(fakes.XPU, 1.5, kind=kind), lr=0.1)
        assert recorder.flush(20)
        assert eventually(lambda: waiting(recorder) == 0)
    assert len(seen) == 1
    assert isinstance(seen[0].exc_value, KeyError if fault == "torch" else RuntimeError)
    line = one_line(run)
    assert line["metrics"] == {"loss": None, "lr": 0.1}
    assert line["missing"] == {"loss": "backend_error"}


@alone
def test_a_copy_that_takes_too_long_is_given_up(run: Path) -> None:
    """Its slot is used again only when the framework has delivered."""
    event = with_torch()
    event.ready = False
    with Recorder(run, device_timeout_s=0.1, flush_interval_s=0.005) as recorder:
        recorder.record(0, loss=on(fakes.MPS, 1.5), lr=0.1)
        assert recorder.flush(20)
        assert one_line(run)["missing"] == {"loss": "timeout"}
        assert waiting(recorder) == 0
        event.ready = True
        recorder.record(1, loss=on(fakes.MPS, 2.5))
        assert recorder.flush(20)
        assert eventually(lambda: waiting(recorder) == 0)
    assert lines(run)[1]["metrics"] == {"loss": 2.5}


@alone
def test_a_recorder_closes_though_a_framework_hangs(run: Path) -> None:
    """In time, with the line; and the process ends."""
    event = with_torch()
    event.ready = False
    recorder = Recorder(run)
    recorder.record(0, loss=on(fakes.XPU, 1.5), lr=0.1)
    begin = time.monotonic()
    assert recorder.close(0.5)
    assert time.monotonic() - begin < 3
    assert one_line(run)["missing"] == {"loss": "timeout"}


@alone
def test_slots_of_frameworks_run_out_and_come_back(run: Path) -> None:
    """As those of a driver do; nothing is asked of the framework for what has none."""
    event = with_torch()
    event.ready = False
    tickets = 4096
    with Recorder(run) as recorder:
        loss = on(fakes.XPU, 1.5)
        for step in range(tickets + 20):
            assert recorder.record(step, loss=loss)
        assert len(event.made) == tickets
        event.ready = True
        assert recorder.flush(30)
        assert eventually(lambda: waiting(recorder) == 0)
        recorder.record(-1, loss=loss)
    found = [line.get("missing", {}).get("loss") for line in lines(run)]
    assert found == [None] * tickets + ["no_slot"] * 20 + [None]


@alone
def test_values_that_are_no_numbers_are_missing(run: Path) -> None:
    """Whatever a framework hands over."""
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
