"""What the core asks Python about tensors: each answer, with torch's stand-ins."""

from __future__ import annotations

import sys
import threading
from ctypes import addressof, create_string_buffer
from types import SimpleNamespace
from typing import Any

import pytest
from device import fakes
from device.alone import eventually

from foundry_fastlog.recording import device_tensors
from foundry_fastlog.recording.device_tensors import block_stream, describe_tensor, plain_tensor


class Cuda:
    """As torch.cuda: two devices, in use."""

    available = initialized = True

    def is_initialized(self) -> bool:
        """Tell whether a device was used; so there is one, and this is no forked child."""
        return self.available and self.initialized

    def current_device(self) -> int:
        """Return the current index."""
        return 1

    def device_count(self) -> int:
        """Return how many there are."""
        return 2


def torch_device(text: Any) -> Any:
    """As torch.device."""
    if isinstance(text, SimpleNamespace):
        return text
    if not isinstance(text, str):
        raise TypeError(f"not a device: {text!r}")
    kind, _, index = text.partition(":")
    if kind not in ("cpu", "cuda", "xpu"):
        raise RuntimeError(f"Expected one of cpu, cuda, xpu: {text}")
    return SimpleNamespace(type=kind, index=int(index) if index else None)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module in torch's place; streams are 1000 + the device's index."""

    class Tensor(fakes.load_tensors().FakeTensor):  # type: ignore[misc, name-defined]
        """As torch.Tensor, as far as it is asked."""

        layout = "strided"
        zero = wrapped = False

        def _is_zerotensor(self) -> bool:
            return self.zero

        def resolve_neg(self) -> str:
            return "resolved"

    made = SimpleNamespace(
        Tensor=Tensor,
        strided="strided",
        cuda=Cuda(),
        device=torch_device,
        version=SimpleNamespace(hip=None),
        zeros=lambda shape, dtype, device: ("zeros", shape, dtype),
        _C=SimpleNamespace(
            _cuda_getCurrentRawStream=lambda index: 1000 + index,
            _functorch=SimpleNamespace(is_functorch_wrapped_tensor=lambda value: value.wrapped),
        ),
    )
    monkeypatch.setitem(sys.modules, "torch", made)  # type: ignore[arg-type]
    return made


# ---- block_stream --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (True, (2, 1, 1001)),
        (0, (2, 0, 1000)),
        (1, (2, 1, 1001)),
        ("cuda", (2, 1, 1001)),
        ("cuda:0", (2, 0, 1000)),
        (SimpleNamespace(type="cuda", index=0), (2, 0, 1000)),
        ("cpu", None),
        ("xpu:0", None),
    ],
)
def test_a_block_is_timed_on_the_device_that_is_named(
    torch: Any, device: Any, expected: Any
) -> None:
    """By an index, a device or its text; the current one by default."""
    assert block_stream(device) == expected


def test_a_block_on_rocm_has_rocms_device_type(torch: Any) -> None:
    """Torch's module is called cuda there, too."""
    torch.version.hip = "6.2"
    assert block_stream(device=True) == (fakes.ROCM, 1, 1001)


@pytest.mark.parametrize("state", ["available", "initialized"])
def test_a_block_is_not_timed_where_no_device_is_in_use(torch: Any, state: str) -> None:
    """Nothing is initialised for it."""
    setattr(torch.cuda, state, False)
    assert block_stream(device=True) is None


def test_a_block_is_not_timed_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is imported for it."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert block_stream(device=True) is None
    assert "torch" not in sys.modules


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

    def __repr__(self) -> str:
        raise AssertionError("it was read")


NO_DEVICES = [
    *("nonsense", "gpu", "", "cuda:", "cuda:-1", "cuda:256", -1, 256, 1.5, object, Unprintable()),
    *(SimpleNamespace(type="cuda", index=256), SimpleNamespace(type=len, index=0)),
]


@pytest.mark.parametrize("state", ["in use", "not in use", "no torch"])
@pytest.mark.parametrize("device", NO_DEVICES)
def test_what_is_no_device_is_refused(
    torch: Any, monkeypatch: pytest.MonkeyPatch, device: Any, state: str
) -> None:
    """With the argument, whether CUDA is in use or not: the same code would raise later."""
    torch.cuda.initialized = state == "in use"
    if state == "no torch":
        monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(TypeError, match="device must be True, an index from 0 to 255, or a torch"):
        block_stream(device)


@pytest.mark.parametrize("device", [0, 255, "cuda", "cuda:3", "xpu", SimpleNamespace(type="cpu")])
def test_devices_are_known_without_torch(monkeypatch: pytest.MonkeyPatch, device: Any) -> None:
    """By index or text, and by what a torch.device shows."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert block_stream(device) is None


def test_a_device_that_torch_does_not_see_is_refused(torch: Any) -> None:
    """In other words than torch's, which is asked only then; its other errors go on."""

    def raw_stream(index: int) -> int:
        raise RuntimeError(f"of torch, about {index}")

    torch._C._cuda_getCurrentRawStream = raw_stream
    with pytest.raises(TypeError, match="one of the 2 that torch sees, got 99"):
        block_stream(99)
    with pytest.raises(RuntimeError, match="of torch, about 1"):
        block_stream(1)


# ---- describe_tensor -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "expected", "stream"),
    [
        ((fakes.CPU, 0), (fakes.CPU, 0), 0),
        ((fakes.CUDA, 1), (fakes.CUDA, 1), 1001),
        ((fakes.XPU, 1), (fakes.XPU, 1), 0),
        ((fakes.MPS, 0), (fakes.MPS, 0), 0),
        ((12, 3), (12, 3), 0),
    ],
)
def test_a_tensor_is_described(torch: Any, device: Any, expected: Any, stream: int) -> None:
    """Device, address, type; the current stream of a CUDA device."""
    tensor = fakes.load_tensors().FakeTensor(4096, (4, 16, 1), device)
    assert describe_tensor(tensor) == (*expected, 4096, 4, 16, stream, tensor)


@pytest.mark.parametrize("dtype", fakes.DTYPES)
def test_types_are_described_as_dlpack_does(torch: Any, dtype: str) -> None:
    """But for those that are not a single real number."""
    tensor = fakes.host_tensor(1, dtype)
    if dtype in ("complex64", "fp4"):
        with pytest.raises(TypeError, match="not a single real number"):
            describe_tensor(tensor)
    else:
        assert describe_tensor(tensor)[3:5] == fakes.DTYPES[dtype][:2]


def test_what_cannot_be_described_is_refused(torch: Any) -> None:
    """Several elements, no memory, none that can be told, no device of a known kind."""
    make = torch.Tensor
    with pytest.raises(TypeError, match=r"more than one element: pass a scalar such as value.mean"):
        describe_tensor(make(4096, shape=(2,)))
    with pytest.raises(TypeError, match="no element"):
        describe_tensor(make(4096, shape=(0,)))
    with pytest.raises(TypeError, match="no memory of its own"):
        describe_tensor(make(0, null_data=True))

    class Without(make):  # type: ignore[misc, valid-type]
        """As tensors of sparse layout, and wrappers."""

        def data_ptr(self) -> int:
            raise RuntimeError("cannot access data pointer")

    with pytest.raises(TypeError, match="no memory of its own"):
        describe_tensor(Without(4096))
    for device in (SimpleNamespace(type="meta", index=0), None):
        kind = type("Meta", (make,), {"device": device})
        with pytest.raises(TypeError, match=r"no value|no memory"):
            describe_tensor(kind(4096))


def test_a_wrapper_is_described_by_the_tensor_behind_it(torch: Any) -> None:
    """A sign that is to be applied, a DTensor on all ranks."""
    inner = torch.Tensor(4096, (2, 64, 1), (fakes.CPU, 0))

    class Negated(torch.Tensor):  # type: ignore[misc, name-defined]
        """As the imaginary part of a conjugated number."""

        def resolve_neg(self) -> Any:
            return inner

    assert describe_tensor(Negated(8192, is_neg=True)) == (fakes.CPU, 0, 4096, 2, 64, 0, inner)


# ---- plain_tensor --------------------------------------------------------------------------------


def test_zeros_without_memory_become_zeros(torch: Any) -> None:
    """On the same device."""
    value = torch.Tensor(0, (2, 32, 1))
    value.zero = True
    assert plain_tensor(value) == ("zeros", (), "torch.float32")


def test_a_sign_is_resolved(torch: Any) -> None:
    """Of a tensor of the usual layout; others have no sign of that kind."""
    value = torch.Tensor(4096, is_neg=True)
    assert plain_tensor(value) == "resolved"
    value.layout = "sparse"
    with pytest.raises(TypeError, match="no memory of its own"):
        plain_tensor(value)


def test_a_tensor_of_a_transform_is_refused(torch: Any) -> None:
    """torch.vmap, torch.func.grad."""
    value = torch.Tensor(0)
    value.wrapped = True
    with pytest.raises(TypeError, match=r"torch.func transform: record outside"):
        plain_tensor(value)


@pytest.mark.parametrize("name", ["FakeTensor", "FunctionalTensor"])
def test_a_tensor_of_a_trace_is_refused(name: str) -> None:
    """By the name of its class: nothing is imported to know it."""
    value = type(name, (), {"device": None})()
    with pytest.raises(TypeError, match="it has no value: record outside traced code"):
        plain_tensor(value)


# ---- start_transfer ------------------------------------------------------------------------------


def test_transfers_are_delivered_in_a_thread_that_ends(
    torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each when its event says so; what raises is delivered as nothing."""
    ready: dict[Any, Any] = {}

    class Event:
        def __init__(self, device: Any) -> None:
            self.device = device

        def record(self) -> None:
            ready.setdefault(self.device, False)

        def query(self) -> bool:
            if isinstance(ready[self.device], Exception):
                raise ready[self.device]
            return bool(ready[self.device])

    torch.Event = Event
    delivered: list[tuple[list[int], list[Any]]] = []
    transfers = device_tensors._Transfers()
    monkeypatch.setattr(device_tensors, "_transfers", transfers)
    buffer = create_string_buffer(b"\0\0\x20\x40")
    tensors = [
        fakes.load_tensors().FakeTensor(addressof(buffer), (2, 32, 1), (fakes.XPU, i))
        for i in range(3)
    ]
    for i, tensor in enumerate(tensors):
        device_tensors.start_transfer(
            [(tensor, i), (tensor, i + 10)], lambda slots, values: delivered.append((slots, values))
        )
    ready[tensors[1].device] = True
    assert eventually(lambda: delivered)[0][0] == [1, 11]
    assert [value.device.type for value in delivered[0][1]] == ["cpu", "cpu"]
    ready[tensors[2].device] = RuntimeError("lost")
    assert eventually(lambda: len(delivered) == 2)
    assert delivered[1] == ([2, 12], [None, None])
    ready[tensors[0].device] = True
    assert eventually(lambda: len(delivered) == 3)
    names = {"fastlog-transfers"}
    assert eventually(lambda: names.isdisjoint(thread.name for thread in threading.enumerate()))
    assert not transfers._running.locked()


def test_a_transfer_whose_thread_cannot_start_waits_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is raised, nothing waits for a lock, and the next one's thread delivers both."""
    delivered: list[list[int]] = []
    transfers = device_tensors._Transfers()

    def transfer(slot: int) -> device_tensors._Transfer:
        copies: Any = SimpleNamespace(arrived=lambda: True, tensors=[])
        return device_tensors._Transfer(copies, [slot], lambda slots, _: delivered.append(slots))

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        transfers.add(transfer(1))
    with transfers._running:
        transfers.add(transfer(2))
    assert delivered == []
    transfers.add(transfer(3))
    assert eventually(lambda: len(delivered) == 3)
