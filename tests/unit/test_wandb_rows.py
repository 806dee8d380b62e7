"""W&B rows with values on a device: nobody waits, and rows stay in order."""

from __future__ import annotations

import sys
import weakref
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from foundry_fastlog.recording import host_copies
from foundry_fastlog.recording.host_copies import HostCopies, checked, is_device_scalar
from foundry_fastlog.recording.values import text_of
from foundry_fastlog.sinks import wandb as wandb_sink
from foundry_fastlog.sinks import wandb_rows
from foundry_fastlog.sinks.wandb import WandBLogger
from foundry_fastlog.sinks.wandb_rows import DelayedRows

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Device:
    """A device as torch names it."""

    type: str = "xpu"
    index: int = 0


@dataclass
class Machine:
    """What stands for torch: devices that are busy until somebody says that they are not."""

    busy: bool = True
    broken: bool = False
    records: list[str] = field(default_factory=list)

    def query(self) -> bool:
        if self.broken:
            raise RuntimeError("the device has failed")
        return not self.busy

    def event(self, device: Device) -> Any:
        def record(stream: str = "default") -> None:
            self.records.append(f"{device.type} {stream}")

        return SimpleNamespace(query=self.query, record=record)


class Scalar:
    """A tensor of one element on a device; reading it there is a fault."""

    shape: tuple[int, ...] = (1,)

    def __init__(self, value: float, device: Device | None = None, *, copied: bool = False) -> None:
        self.value = value
        self.device = Device("cpu") if copied else device or Device()
        self.copied = copied

    def detach(self) -> Scalar:
        return self

    def to(self, target: str, *, non_blocking: bool) -> Scalar:
        assert (target, non_blocking) == ("cpu", True)
        return Scalar(self.value, copied=True)

    def item(self) -> float:
        assert self.copied, "reading it on the device would wait"
        return self.value


@pytest.fixture
def machine(monkeypatch: Patch) -> Machine:
    made = Machine()
    current = SimpleNamespace(
        current_stream=lambda device: f"stream of {device.index}", is_initialized=lambda: False
    )
    fake = SimpleNamespace(Event=made.event, cuda=current, version=SimpleNamespace(hip=None))
    monkeypatch.setitem(sys.modules, "torch", fake)
    return made


class Rows(DelayedRows):
    """Rows that are kept where they are written, as what fails is."""

    def __init__(self, **options: float) -> None:
        self.written: list[tuple[str, int, dict[str, Any]]] = []
        self.failures: list[tuple[str, Exception]] = []
        super().__init__(
            lambda what, step, row: self.written.append((what, step, dict(row))) is None,
            lambda *failure: self.failures.append(failure) is not None,
            **options,
        )

    def failed(self) -> list[str]:
        return [f"{what}: {type(error).__name__}" for what, error in self.failures]


@pytest.fixture
def rows() -> Rows:
    return Rows()


def test_rows_wait_for_values_in_order(machine: Machine, rows: Rows) -> None:
    """W&B takes no older steps: what is on the host waits as well."""
    assert rows.add("log", 1, {"lr": 0.1})
    assert rows.add("log", 2, {"loss": Scalar(2.5), "lr": 0.2})
    assert rows.add("log", 3, {"lr": 0.3})
    assert rows.written == [("log", 1, {"lr": 0.1})]
    assert (len(rows), rows.newest_step(1)) == (2, 3)
    machine.busy = False
    assert rows.add("log", 4, {"lr": 0.4})
    late = [("log", 2, {"loss": 2.5, "lr": 0.2}), ("log", 3, {"lr": 0.3}), ("log", 4, {"lr": 0.4})]
    assert rows.written[1:] == late
    assert rows.newest_step(4) == 4


def test_finish_sends_what_arrives_in_time(machine: Machine, rows: Rows) -> None:
    """A device that hangs costs its values, not the row."""
    scalar = Scalar(2.5)
    kept = weakref.ref(scalar)
    rows.add("log", 2, {"loss": scalar, "lr": 0.2})
    rows.finish(0.01)
    del scalar
    assert kept() is not None  # its copy may still be under way
    assert rows.written == [("log", 2, {"lr": 0.2})]
    assert rows.failed() == ["log: TimeoutError"]
    rows.add("log", 3, {"loss": Scalar(3.5)})
    machine.busy = False
    rows.finish(0.01)
    assert rows.written[1:] == [("log", 3, {"loss": 3.5})]


def test_a_device_that_fails_costs_its_values_only(machine: Machine, rows: Rows) -> None:
    """While the copy is under way, and when it cannot be begun."""
    rows.add("log", 1, {"loss": Scalar(1.0), "lr": 0.1})
    machine.broken = True
    rows.send_arrived()
    broken = Scalar(2.0)
    broken.shape = ()
    broken.detach = None  # type: ignore[assignment,method-assign]  # calling it raises
    assert rows.add("log", 2, {"loss": broken, "lr": 0.2})
    assert rows.written == [("log", 1, {"lr": 0.1}), ("log", 2, {"lr": 0.2})]
    assert rows.failed() == ["log: RuntimeError", "log: TypeError"]


def test_each_device_has_an_event_on_its_current_stream(machine: Machine) -> None:
    cuda, xpu = Device("cuda", 1), Device()
    copies = HostCopies([Scalar(1.0, cuda), Scalar(2.0, xpu), Scalar(3.0, cuda)])
    assert machine.records == ["cuda stream of 1", "xpu default"]
    assert not copies.arrived()
    machine.busy = False
    assert copies.arrived()
    assert [tensor.item() for tensor in copies.tensors] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("size", "kind", "copied"),
    [(None, "xpu", False), (4096, "xpu", False), (4097, "xpu", True), (4097, "cuda", True)],
)
def test_a_scalar_is_kept_until_it_is_copied_or_a_copy_of_it_where_it_is_part_of_large_memory(
    machine: Machine, size: int | None, kind: str, copied: bool
) -> None:
    """Its memory may be another stream's, and be used again there."""

    class Part(Scalar):
        def untyped_storage(self) -> bytes:
            return bytes(size or 0)

        def clone(self) -> Scalar:
            return Scalar(2.5, self.device)

    scalar = (Part if size else Scalar)(1.5, Device(kind))
    kept = weakref.ref(scalar)
    copies = HostCopies([scalar])
    del scalar
    assert (kept() is None) == copied
    machine.busy = False
    assert copies.arrived()
    assert kept() is None
    assert [tensor.item() for tensor in copies.tensors] == [2.5 if copied else 1.5]


def test_nothing_is_copied_into_a_graph(machine: Machine, monkeypatch: Patch) -> None:
    """Where no recorder was imported, torch is asked; see also tests/device."""
    monkeypatch.setattr(host_copies, "refuse_captured", None)
    sys.modules["torch"].cuda.is_current_stream_capturing = iter([True, False]).__next__
    with pytest.raises(RuntimeError, match="while a stream is being captured into a graph"):
        checked([Scalar(1.0, Device("cuda"))])
    scalar = Scalar(1.0, Device("cuda"))
    assert checked([scalar]) == [scalar]


def test_a_row_waits_no_longer_than_a_line(machine: Machine, monkeypatch: Patch) -> None:
    """A value that never comes holds up the rows behind it for a while only, and is no leak."""
    monkeypatch.setattr(wandb_rows, "_given_up", [])
    rows = Rows(longest=0.0)
    rows.add("log", 1, {"loss": Scalar(1.0), "lr": 0.1})
    rows.add("log", 2, {"loss": Scalar(2.0)})
    assert rows.written == [("log", 1, {"lr": 0.1})]
    ((_, failure),) = rows.failures
    assert str(failure) == "values of step 1 have not arrived from their device"
    assert len(wandb_rows._given_up) == 1
    machine.busy = False
    machine.broken = True
    rows.send_arrived()
    machine.broken = False
    machine.busy = True
    rows.add("log", 3, {"loss": Scalar(3.0)})
    rows.add("log", 4, {"lr": 0.4})
    assert len(rows) == 0
    assert len(wandb_rows._given_up) == 2
    machine.busy = False
    wandb_rows._keep(wandb_rows._given_up[0])
    assert len(wandb_rows._given_up) == 1


def test_events_of_an_older_torch(machine: Machine, monkeypatch: Patch) -> None:
    """Torch 2.4 has one kind of event for each kind of device."""
    older = SimpleNamespace(xpu=SimpleNamespace(Event=lambda: machine.event(Device())))
    monkeypatch.setitem(sys.modules, "torch", older)
    assert not HostCopies([Scalar(1.0)]).arrived()
    assert machine.records == ["xpu default"]


def test_what_is_a_scalar_on_a_device() -> None:
    assert is_device_scalar(Scalar(1.0))
    matrix = Scalar(1.0)
    matrix.shape = (1, 2)
    for other in (Scalar(1.0, copied=True), 1.0, matrix):
        assert not is_device_scalar(other)


@pytest.fixture
def logger() -> WandBLogger:
    made = WandBLogger(enabled=False)
    rows: list[tuple[int, dict[str, Any]]] = []
    made.run = SimpleNamespace(id="none", rows=rows)
    made.run.log = lambda row, *, step: rows.append((step, row))
    made.enabled = made._joined = True
    made._at_exit = lambda: None
    return made


def test_the_logger_waits_for_no_device(machine: Machine, logger: WandBLogger) -> None:
    """Rows come in order, system metrics among them; an older step is refused at once."""
    run = logger.run
    assert logger.log_metrics(5, {"train": {"loss": Scalar(0.5)}})
    assert logger.log_system_metrics()
    assert not logger.log_metrics(4, {"lr": 0.1})
    assert run.rows == []
    assert logger.stats()["refused"] == 1
    machine.busy = False
    assert logger.log_metrics(6, {"lr": 0.1})
    assert [step for step, _ in run.rows] == [5, 5, 6]
    assert run.rows[0][1] == {"train.loss": 0.5}
    logger.log_metrics(7, {"loss": Scalar(0.25)})
    machine.busy = False
    logger.finish()
    assert run.rows[-1] == (7, {"loss": 0.25})


class Unread(Scalar):
    """A tensor of six elements on a device; whatever asks for its values is a fault."""

    dtype = "torch.float32"
    shape = (2, 3)

    def _ask(self, *_: object) -> Any:
        raise AssertionError("it was read")

    __str__ = __repr__ = __float__ = __iter__ = __len__ = cpu = to = detach = tolist = _ask


def test_no_value_that_shows_a_tensor_on_a_device_is_read(
    machine: Machine, logger: WandBLogger
) -> None:
    """By us or by wandb: it goes as a text that describes it."""
    several, scalar = Unread(0.0, Device("cuda")), Scalar(1.0)
    image = type("Image", (), {"__module__": "wandb.sdk.data_types.image"})()  # is passed on
    odd: dict[str, Any] = {
        "several": several,
        "list": [scalar],
        "tuple": (scalar, 1),
        "nested": [{"a": scalar}],
        "deque": deque([several]),
        "error": ValueError(several),
    }
    plain = {"lr": 0.1, "plain": [1, 2], "image": image, "all": [image]}
    assert logger.log_metrics(1, odd | plain)
    ((_, row),) = logger.run.rows
    assert {name: row[name] for name in odd} == {n: text_of(value) for n, value in odd.items()}
    text = "<Unread of torch.float32, shape (2, 3), on Device(type='cuda', index=0)>"
    assert row["several"] == text
    assert row["image"] is image
    assert (row["lr"], row["plain"]) == (0.1, [1, 2])


def test_rows_are_sent_at_exit(machine: Machine, logger: WandBLogger) -> None:
    """Not in a forked child, and not where it is finished or gone."""
    run, reference = logger.run, weakref.ref(logger)
    logger.log_metrics(7, {"loss": Scalar(0.25)})
    machine.busy = False
    wandb_sink._send_rest(reference)
    assert run.rows == [(7, {"loss": 0.25})]
    logger.finish()
    wandb_sink._send_rest(reference)
    del logger
    wandb_sink._send_rest(reference)
    assert len(run.rows) == 1
