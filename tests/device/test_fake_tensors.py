"""The fake tensors show what torch's show, and their table is that of DLPack 1.3."""

from __future__ import annotations

import ctypes
import gc
import math
import struct
from ctypes import (
    POINTER,
    byref,
    c_int,
    c_int32,
    c_int64,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
    py_object,
)
from types import ModuleType
from typing import Any, ClassVar

import pytest
from device import fakes
from device.fakes import DTYPES, FakeDriver

# ---- a consumer, in ctypes -----------------------------------------------------------------------


class Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_: ClassVar = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class Managed(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_: ClassVar = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("manager_ctx", c_void_p),
        ("deleter", ctypes.PYFUNCTYPE(None, c_void_p)),
        ("flags", c_uint64),
        ("tensor", Tensor),
    ]


class Table(ctypes.Structure):
    """DLPackExchangeAPI."""

    _fields_: ClassVar = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("previous", c_void_p),
        ("allocator", c_void_p),
        ("managed_from_object", ctypes.PYFUNCTYPE(c_int, py_object, POINTER(POINTER(Managed)))),
        ("managed_to_object", c_void_p),
        ("tensor_from_object", ctypes.PYFUNCTYPE(c_int, py_object, POINTER(Tensor))),
        ("current_work_stream", ctypes.PYFUNCTYPE(c_int, c_int32, c_int32, POINTER(c_void_p))),
    ]


def table_of(kind: type) -> Table:
    """Return the table of a class of tensors."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = c_void_p, [py_object, ctypes.c_char_p]
    capsule = kind.__dlpack_c_exchange_api__  # type: ignore[attr-defined]
    return Table.from_address(pointer(capsule, b"dlpack_exchange_api"))


def exported(tensor: Any) -> Tensor:
    """Export without owning."""
    out = Tensor()
    assert table_of(type(tensor)).tensor_from_object(tensor, byref(out)) == 0
    return out


def work_stream(kind: type, device_type: int, index: int) -> int | None:
    """Ask the table for the current stream."""
    stream = c_void_p(1)
    assert table_of(kind).current_work_stream(device_type, index, byref(stream)) == 0
    return stream.value


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e4m3fnuz", "fp8_e5m2", "fp8_e5m2fnuz"])
def test_every_eight_bit_float_is_encoded_as_it_is_decoded(dtype: str) -> None:
    """All 256 codes, but for NaN's many."""
    for code in range(256):
        value = fakes.value_of_byte(code, dtype)
        again = fakes.encode(value, dtype)[0]
        assert again == code or math.isnan(value), code


def test_encoded_values_agree_with_torch() -> None:
    """All 8-bit codes as torch reads them, and bf16 rounded as torch rounds."""
    torch = pytest.importorskip("torch")
    codes = torch.arange(256, dtype=torch.uint8)
    for dtype in (name for name in DTYPES if name.startswith("fp8")):
        theirs = codes.view(getattr(torch, DTYPES[dtype][3])).to(torch.float64).tolist()
        ours = [fakes.value_of_byte(code, dtype) for code in range(256)]
        # repr() tells zeros apart and takes all NaNs as one.
        assert list(map(repr, ours)) == list(map(repr, theirs))
    for value in (1.0, 1 / 3, -2.7e-5, 3.1415926, 65504.0, math.inf, 1.00390625, 1.01171875):
        theirs = torch.tensor(value).to(torch.bfloat16).view(torch.int16).item() & 0xFFFF
        assert struct.unpack("<H", fakes.encode(value, "bf16"))[0] == theirs, value


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_has_the_bits_of_its_value_on_the_device(cuda: FakeDriver, dtype: str) -> None:
    """Each type, by its short name and by torch's."""
    value = {"bool": True, "fp8_e8m0fnu": 4.0, "complex64": 1 + 2j}.get(dtype, 3)
    for name in (dtype, DTYPES[dtype][3]):
        tensor = cuda.tensor(value, name)
        assert cuda.load(tensor.data_ptr(), dtype) == value
        assert tensor.dtype == f"torch.{DTYPES[dtype][3]}"
        assert tensor.element_size() == fakes.size_of(dtype)
        out = exported(tensor)
        assert (out.code, out.bits, out.lanes) == (*DTYPES[dtype][:2], 1)


def test_a_kernel_writes_the_value_in_stream_order(cuda: FakeDriver) -> None:
    """With a stream, the memory has something else until the kernel has run."""
    stream = cuda.stream(0)
    with cuda.hanging(stream):
        tensor = cuda.tensor(2.0, device=0, stream=stream)
        assert cuda.load(tensor.data_ptr()) != 2.0
    assert cuda.wait(stream)
    assert cuda.load(tensor.data_ptr()) == 2.0


# ---- exchange ------------------------------------------------------------------------------------


def test_the_table_exports_a_view(cuda: FakeDriver, fake_tensor: ModuleType) -> None:
    """All fields, for a scalar and for a shape."""
    tensor = cuda.tensor(1.0, "bf16", device=1)
    out = exported(tensor)
    assert (out.data, out.byte_offset) == (tensor.data_ptr(), 0)
    assert (out.device_type, out.device_id, out.ndim) == (fakes.CUDA, 1, 0)
    shaped = fake_tensor.FakeTensor(4096, (0, 64, 1), (2, 0), (2, 3), byte_offset=8)
    out = exported(shaped)
    assert (out.ndim, out.shape[0:2], out.strides[0:2]) == (2, [2, 3], [3, 1])
    assert (out.data, out.byte_offset, shaped.data_ptr()) == (4096, 8, 4104)
    assert fake_tensor.exports() == 2


@pytest.mark.parametrize("source", ["fake", "torch"])
def test_the_layout_is_that_of_torch(source: str, fake_tensor: ModuleType) -> None:
    """One consumer reads both tables, of version 1, and the value behind the pointer."""
    if source == "torch":
        torch = pytest.importorskip("torch")
        if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
            pytest.skip("torch before 2.10 has no table")
        tensor = torch.tensor(2.5)
    else:
        tensor = fakes.host_tensor(2.5)
    table = table_of(type(tensor))
    assert table.major == 1
    assert table.minor >= 3
    out = exported(tensor)
    assert (out.device_type, out.ndim, out.code, out.bits, out.lanes) == (fakes.CPU, 0, 2, 32, 1)
    assert ctypes.string_at(out.data, 4) == struct.pack("<f", 2.5)
    assert work_stream(type(tensor), fakes.CPU, 0) is None
    owning = POINTER(Managed)()
    assert table.managed_from_object(tensor, byref(owning)) == 0
    managed = owning.contents
    assert managed.major == 1
    assert managed.tensor.data == out.data
    managed.deleter(ctypes.addressof(managed))


def test_the_current_stream_is_that_of_its_device(
    cuda: FakeDriver, fake_tensor: ModuleType
) -> None:
    """Zero until it is set; a reset forgets it."""
    first, second = cuda.stream(0), cuda.stream(1)
    assert work_stream(fake_tensor.FakeTensor, fakes.CUDA, 0) is None
    cuda.set_stream(first)
    cuda.set_stream(second, device=1)
    assert work_stream(fake_tensor.FakeTensor, fakes.CUDA, 0) == first
    assert fake_tensor.get_stream(fakes.CUDA, 1) == second
    with pytest.raises(ValueError, match="no such device"):
        work_stream(fake_tensor.FakeTensor, fakes.CUDA, 99)
    cuda.reset()
    assert work_stream(fake_tensor.FakeTensor, fakes.CUDA, 0) is None


def test_a_tensor_can_export_null_or_raise(cuda: FakeDriver) -> None:
    """NULL as torch's fake tensors do, an exception as sparse ones do."""
    null = cuda.tensor(1.0, null_data=True)
    assert exported(null).data is None
    assert null.data_ptr() == 0
    with pytest.raises(BufferError, match="cannot be exported"):
        exported(cuda.tensor(1.0, raises=BufferError))


def test_classes_differ_in_their_table(fake_tensor: ModuleType) -> None:
    """None, a newer one, a newer one with an older behind it, one without the fast function."""
    assert not hasattr(fake_tensor.LegacyFakeTensor, "__dlpack_c_exchange_api__")
    future = table_of(fake_tensor.FutureFakeTensor)
    assert (future.major, future.previous) == (2, None)
    chained = table_of(fake_tensor.ChainedFakeTensor)
    assert chained.major == 2
    assert Table.from_address(chained.previous or 0).major == 1
    owning = table_of(fake_tensor.OwningOnlyFakeTensor)
    assert owning.major == 1
    assert not owning.tensor_from_object
    assert owning.current_work_stream


# ---- what Python sees ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["FakeTensor", "LegacyFakeTensor"])
def test_attributes_are_those_of_torch(
    cuda: FakeDriver, fake_tensor: ModuleType, kind: str
) -> None:
    """Of a scalar on a device, and of one on the CPU."""
    make = getattr(fake_tensor, kind)
    tensor = cuda.tensor(1.0, "fp16", 1, kind=make, requires_grad=True, is_neg=True, is_conj=True)
    assert type(tensor) is make
    assert (tensor.device.type, tensor.device.index) == ("cuda", 1)
    assert (tensor.dtype, tensor.shape, tensor.ndim) == ("torch.float16", (), 0)
    assert (tensor.numel(), tensor.element_size(), tensor.is_cuda) == (1, 2, True)
    assert tensor.requires_grad
    assert tensor.is_neg()
    assert tensor.is_conj()
    plain = fakes.host_tensor(1.0, kind=make)
    assert (plain.device.type, plain.device.index, plain.is_cuda) == ("cpu", None, False)
    assert [plain.requires_grad, plain.is_neg(), plain.is_conj()] == [False] * 3


def test_detached_tensors_share_memory_and_have_no_graph(cuda: FakeDriver) -> None:
    """The class stays."""
    tensor = cuda.tensor(1.0, requires_grad=True)
    detached = tensor.detach()
    assert type(detached) is type(tensor)
    assert detached.data_ptr() == tensor.data_ptr()
    assert not detached.requires_grad
    assert exported(detached).data == tensor.data_ptr()


def test_everything_that_would_wait_is_counted(cuda: FakeDriver, fake_tensor: ModuleType) -> None:
    """item(), cpu(), tolist() and the conversions."""
    tensor = cuda.tensor(1.0)
    assert fake_tensor.item_calls() == 0
    for count, wait in enumerate(
        (tensor.item, tensor.cpu, tensor.tolist, tensor.__float__, tensor.__int__, tensor.__bool__),
        start=1,
    ):
        wait()
        assert fake_tensor.item_calls() == count


def test_a_tensor_of_a_readable_device_can_be_copied_to_the_cpu(
    cuda: FakeDriver, fake_tensor: ModuleType
) -> None:
    """XPU and MPS, for the generic path; CUDA refuses, as its path never asks."""
    tensor = fakes.host_tensor(2.5, "fp64", device=(fakes.XPU, 0), requires_grad=True)
    assert tensor.device.type == "xpu"
    copied = tensor.detach().to("cpu", non_blocking=True)
    assert (copied.device.type, copied.requires_grad) == ("cpu", False)
    del tensor
    assert ctypes.string_at(copied.data_ptr(), 8) == struct.pack("<d", 2.5)
    with pytest.raises(RuntimeError, match="no copy"):
        cuda.tensor(1.0).to("cpu")
    assert fake_tensor.to_calls() == 2


def test_leaked_tensors_and_exports_can_be_counted(
    cuda: FakeDriver, fake_tensor: ModuleType
) -> None:
    """A reference too many keeps a tensor alive, and so does an owning export."""
    gc.collect()
    before = fake_tensor.live()
    tensor = cuda.tensor(1.0)
    exported(tensor)
    other = tensor.detach()
    assert fake_tensor.live() == before + 2
    del other
    owning = POINTER(Managed)()
    table = table_of(fake_tensor.OwningOnlyFakeTensor)
    assert table.managed_from_object(tensor, byref(owning)) == 0
    del tensor
    assert (fake_tensor.live(), fake_tensor.live_exports()) == (before + 1, 1)
    owning.contents.deleter(ctypes.addressof(owning.contents))
    assert (fake_tensor.live(), fake_tensor.live_exports()) == (before, 0)


def test_a_subclass_has_the_table_too(fake_tensor: ModuleType) -> None:
    """As torch's Parameter does; and it comes and goes without a leak."""
    before = fake_tensor.live()

    class Parameter(fake_tensor.FakeTensor):  # type: ignore[misc, name-defined]
        """A subclass from Python."""

    for _ in range(100):
        parameter = Parameter(4096, requires_grad=True)
        assert exported(parameter).data == 4096
        assert type(parameter.detach()) is Parameter
    del parameter
    assert fake_tensor.live() == before


def test_a_tensor_in_a_cycle_with_its_owner_is_collected(fake_tensor: ModuleType) -> None:
    """It takes part in garbage collection."""
    before = fake_tensor.live()
    cycle: list[Any] = []
    cycle.append(fake_tensor.FakeTensor(4096, owner=cycle))
    del cycle
    gc.collect()
    assert fake_tensor.live() == before


def test_bad_arguments_are_refused_without_a_leak(fake_tensor: ModuleType) -> None:
    """Of the wrong type, and too many dimensions."""
    before = fake_tensor.live()
    with pytest.raises(ValueError, match="at most 8"):
        fake_tensor.FakeTensor(0, shape=(1,) * 9)
    with pytest.raises(TypeError):
        fake_tensor.FakeTensor("0")
    with pytest.raises(TypeError):
        fake_tensor.FakeTensor(0, shape=("x",))
    assert fake_tensor.live() == before
