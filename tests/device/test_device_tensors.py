"""What the core asks Python about tensors: each answer, with torch's stand-ins."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from device import fakes
from recorded import eventually

from foundry_fastlog.recording import device_tensors
from foundry_fastlog.recording.device_tensors import block_stream, describe_tensor

Patch = pytest.MonkeyPatch


class Cuda:
    """As torch.cuda: two devices, in use."""

    initialized = True

    def is_initialized(self) -> bool:
        """Tell whether a device was used; so there is one, and this is no forked child."""
        return self.initialized

    def current_device(self) -> int:
        return 1

    def device_count(self) -> int:
        return 2


def torch_device(text: Any) -> Any:
    if isinstance(text, SimpleNamespace):
        return text
    if not isinstance(text, str):
        raise TypeError(f"not a device: {text!r}")
    kind, _, index = text.partition(":")
    if kind not in ("cpu", "cuda", "xpu"):
        raise RuntimeError(f"Expected one of cpu, cuda, xpu: {text}")
    return SimpleNamespace(type=kind, index=int(index) if index else None)


@pytest.fixture
def torch(monkeypatch: Patch) -> Any:
    """A module in torch's place; streams are 1000 + the device's index."""
    made = SimpleNamespace(
        cuda=Cuda(),
        device=torch_device,
        version=SimpleNamespace(hip=None),
        _C=SimpleNamespace(_cuda_getCurrentRawStream=lambda index: 1000 + index),
    )
    monkeypatch.setitem(sys.modules, "torch", made)  # type: ignore[arg-type]
    return made


# ---- block_stream --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        *((device, (2, 1, 1001)) for device in (True, 1, "cuda")),
        *((device, (2, 0, 1000)) for device in (0, "cuda:0")),
        (SimpleNamespace(type="cuda", index=0), (2, 0, 1000)),
        *(("cpu", None), ("xpu:0", None)),
    ],
)
def test_a_block_is_timed_on_the_device_named(torch: Any, device: Any, expected: Any) -> None:
    """By an index, a device or its text; the current one by default."""
    assert block_stream(device) == expected


def test_a_block_on_rocm_has_rocms_device_type(torch: Any) -> None:
    """Torch's module is called cuda there, too."""
    torch.version.hip = "6.2"
    assert block_stream(device=True) == (fakes.ROCM, 1, 1001)


def test_a_block_is_not_timed_where_no_device_is_in_use(torch: Any, monkeypatch: Patch) -> None:
    """Nothing is initialised for it, and nothing imported; devices are known without torch, too."""
    torch.cuda.initialized = False
    assert block_stream(device=True) is None
    monkeypatch.delitem(sys.modules, "torch")
    assert block_stream(device=True) is None
    assert "torch" not in sys.modules
    for device in (0, 255, "cuda", "cuda:3", "xpu", SimpleNamespace(type="cpu")):
        assert block_stream(device) is None


def test_what_the_first_value_needs_is_made_where_cuda_is_in_use(torch: Any) -> None:
    """For the current device. A torch that is just being imported is asked later, by that value."""
    made: list[tuple[int, int]] = []
    device_tensors.prepare(lambda *place: made.append(place))
    assert made == [(fakes.CUDA, 1)]
    torch.cuda.initialized = False
    device_tensors.prepare(lambda *place: made.append(place))
    del torch.cuda
    device_tensors.prepare(lambda *place: made.append(place))
    assert made == [(fakes.CUDA, 1)]


class Unprintable:
    """As a tensor on a device, whose text would wait for it."""

    device = SimpleNamespace(type="cuda")
    shape = ()

    __repr__ = Mock(side_effect=AssertionError("it was read"))


NO_DEVICES = [
    *("nonsense", "gpu", "", "cuda:", "cuda:-1", "cuda:256", -1, 256, 1.5, object, Unprintable()),
    *(SimpleNamespace(type="cuda", index=256), SimpleNamespace(type=len, index=0)),
]


@pytest.mark.parametrize("state", ["in use", "not in use", "no torch"])
def test_what_is_no_device_is_refused(torch: Any, monkeypatch: Patch, state: str) -> None:
    """With the argument, whether CUDA is in use or not: the same code would raise later."""
    torch.cuda.initialized = state == "in use"
    if state == "no torch":
        monkeypatch.delitem(sys.modules, "torch")
    for device in NO_DEVICES:
        with pytest.raises(TypeError, match="device must be True, an index from 0 to 255, or a to"):
            block_stream(device)


def test_a_device_that_torch_does_not_see_is_refused(torch: Any) -> None:
    """In other words than torch's, which is asked only then; its other errors go on."""
    torch._C._cuda_getCurrentRawStream = Mock(side_effect=RuntimeError("of torch"))
    with pytest.raises(TypeError, match="one of the 2 that torch sees, got 99"):
        block_stream(99)
    with pytest.raises(RuntimeError, match="of torch"):
        block_stream(1)


# ---- describe_tensor -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "stream"),
    [
        ((fakes.CUDA, 1), 1001),
        *((device, 0) for device in ((fakes.CPU, 0), (fakes.XPU, 1), (fakes.MPS, 0), (12, 3))),
    ],
)
def test_a_tensor_is_described(torch: Any, device: Any, stream: int) -> None:
    """Device, address, type as DLPack's; the current stream of a CUDA device."""
    for name, (code, bits, *_) in fakes.DTYPES.items():
        tensor = fakes.load_tensors().FakeTensor(4096, (code, bits, 1), device)
        if name in ("complex64", "fp4"):
            with pytest.raises(TypeError, match="not a single real number"):
                describe_tensor(tensor)
        else:
            assert describe_tensor(tensor) == (*device, 4096, code, bits, stream, tensor)


def test_what_cannot_be_described_is_refused(monkeypatch: Patch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    make = type("Tensor", (fakes.load_tensors().FakeTensor,), {})
    raises = Mock(side_effect=RuntimeError("cannot access data pointer"))
    for value, words in (
        (make(4096, shape=(2,)), r"more than one element: pass a scalar such as value.mean"),
        (make(4096, shape=(0,)), "no element"),
        (make(0, null_data=True), "no memory of its own"),
        (type("Sparse", (make,), {"data_ptr": raises})(4096), "no memory of its own"),
        (type("M", (make,), {"device": SimpleNamespace(type="meta")})(4096), "it has no value"),
        (type("N", (make,), {"device": None})(4096), "no memory of its own"),
    ):
        with pytest.raises(TypeError, match=words):
            describe_tensor(value)


# ---- start_transfer ------------------------------------------------------------------------------


def test_transfers_are_delivered_by_a_thread_that_ends(torch: Any, monkeypatch: Patch) -> None:
    """Each when its event says so; what raises is delivered as nothing."""
    ready: dict[Any, Any] = {}

    def query(device: Any) -> bool:
        if ready.setdefault(device, False) is None:
            raise RuntimeError("lost")
        return bool(ready[device])

    torch.Event = lambda device: SimpleNamespace(record=lambda: None, query=lambda: query(device))
    delivered: list[tuple[list[int], list[Any]]] = []
    transfers = device_tensors._Transfers()
    monkeypatch.setattr(device_tensors, "_transfers", transfers)
    tensors = [fakes.host_tensor(2.5, device=(fakes.XPU, i)) for i in range(3)]
    for i, tensor in enumerate(tensors):
        slots = [(tensor, i), (tensor, i + 10)]
        device_tensors.start_transfer(slots, lambda *found: delivered.append(found))
    for count, (i, answer) in enumerate([(1, True), (2, None), (0, True)], start=1):
        ready[tensors[i].device] = answer
        assert eventually(lambda count=count: len(delivered) == count)
        slots, values = delivered[-1]
        kinds = [value if value is None else value.device.type for value in values]
        assert (slots, kinds) == ([i, i + 10], [answer and "cpu"] * 2)
    names = {"fastlog-transfers"}
    assert eventually(lambda: names.isdisjoint(thread.name for thread in threading.enumerate()))
    assert not transfers._running.locked()


def test_a_transfer_whose_thread_cannot_start_waits_for_the_next(monkeypatch: Patch) -> None:
    """Nothing is raised, nothing waits for a lock, and the next one's thread delivers both."""
    delivered: list[list[int]] = []
    transfers = device_tensors._Transfers()

    def transfer(slot: int) -> device_tensors._Transfer:
        copies: Any = SimpleNamespace(arrived=lambda: True, tensors=[])
        return device_tensors._Transfer(copies, [slot], lambda slots, _: delivered.append(slots))

    refuse = Mock(side_effect=RuntimeError("can't start new thread"))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        transfers.add(transfer(1))
    with transfers._running:
        transfers.add(transfer(2))
    assert delivered == []
    transfers.add(transfer(3))
    assert eventually(lambda: len(delivered) == 3)
