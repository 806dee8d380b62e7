"""The fake tensors show what torch's show, and their table is that of DLPack 1.3."""

from __future__ import annotations

import ctypes
import gc
import math
import struct
from ctypes import POINTER, byref, c_int, c_int32, c_int64, c_uint32, c_uint64, c_void_p, py_object
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
        *(("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32)),
        *(("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class Table(ctypes.Structure):
    """DLPackExchangeAPI."""

    _fields_: ClassVar = [
        *(("major", c_uint32), ("minor", c_uint32), ("previous", c_void_p)),
        *((name, c_void_p) for name in ("allocator", "managed_from_object", "managed_to_object")),
        ("tensor_from_object", ctypes.PYFUNCTYPE(c_int, py_object, POINTER(Tensor))),
        ("current_work_stream", ctypes.PYFUNCTYPE(c_int, c_int32, c_int32, POINTER(c_void_p))),
    ]


def table_of(kind: type) -> Table:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = c_void_p, [py_object, ctypes.c_char_p]
    capsule = kind.__dlpack_c_exchange_api__  # type: ignore[attr-defined]
    return Table.from_address(pointer(capsule, b"dlpack_exchange_api"))


def exported(tensor: Any) -> Tensor:
    out = Tensor()
    assert table_of(type(tensor)).tensor_from_object(tensor, byref(out)) == 0
    return out


def work_stream(kind: type, device_type: int, index: int) -> int | None:
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
    """All 8-bit codes as torch reads them, and bf16 as torch writes it."""
    torch = pytest.importorskip("torch")
    codes = torch.arange(256, dtype=torch.uint8)
    for dtype in (name for name in DTYPES if name.startswith("fp8")):
        theirs = codes.view(getattr(torch, DTYPES[dtype][3])).to(torch.float64).tolist()
        ours = [fakes.value_of_byte(code, dtype) for code in range(256)]
        # repr() tells zeros apart and takes all NaNs as one.
        assert list(map(repr, ours)) == list(map(repr, theirs))
    for value in (1.0, -2.75, 2.0**-126, 3.0 * 2**100, math.inf):
        theirs = torch.tensor(value).to(torch.bfloat16).view(torch.int16).item() & 0xFFFF
        assert struct.unpack("<H", fakes.encode(value, "bf16"))[0] == theirs, value


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_has_the_bits_of_its_value_on_the_device(cuda: FakeDriver, dtype: str) -> None:
    value = {"bool": True, "fp8_e8m0fnu": 4.0, "complex64": 1 + 2j}.get(dtype, 3)
    tensor = cuda.tensor(value, dtype)
    assert cuda.load(tensor.data_ptr(), dtype) == value
    assert tensor.dtype == f"torch.{DTYPES[dtype][3]}"
    assert tensor.element_size() == fakes.size_of(dtype)
    out = exported(tensor)
    assert (out.code, out.bits, out.lanes) == (*DTYPES[dtype][:2], 1)


# ---- exchange ------------------------------------------------------------------------------------


def test_the_table_exports_a_view(cuda: FakeDriver, fake_tensor: ModuleType) -> None:
    """All fields, of a scalar and of a shape; NULL as of torch's fake tensors, or an exception."""
    tensor = cuda.tensor(1.0, "bf16", device=1)
    out = exported(tensor)
    assert (out.data, out.byte_offset) == (tensor.data_ptr(), 0)
    assert (out.device_type, out.device_id, out.ndim) == (fakes.CUDA, 1, 0)
    shaped = fake_tensor.FakeTensor(4096, (0, 64, 1), (2, 0), (2, 3), byte_offset=8)
    out = exported(shaped)
    assert (out.ndim, out.shape[0:2], out.strides[0:2]) == (2, [2, 3], [3, 1])
    assert (out.data, out.byte_offset, shaped.data_ptr()) == (4096, 8, 4104)
    null = cuda.tensor(1.0, null_data=True)
    assert (exported(null).data, null.data_ptr()) == (None, 0)
    with pytest.raises(BufferError, match="cannot be exported"):
        exported(cuda.tensor(1.0, raises=BufferError))


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
def test_attributes_are_as_in_torch(cuda: FakeDriver, fake_tensor: ModuleType, kind: str) -> None:
    """Of a scalar on a device, and of one on the CPU. Detached ones share memory, without graph."""
    make = getattr(fake_tensor, kind)
    tensor = cuda.tensor(1.0, "fp16", 1, kind=make, requires_grad=True, is_neg=True, is_conj=True)
    detached = tensor.detach()
    assert type(tensor) is type(detached) is make
    assert (tensor.requires_grad, detached.requires_grad) == (True, False)
    assert detached.data_ptr() == tensor.data_ptr()
    for each in (tensor, detached):
        assert (each.device.type, each.device.index) == ("cuda", 1)
        assert (each.dtype, each.shape, each.ndim) == ("torch.float16", (), 0)
        assert (each.numel(), each.element_size()) == (1, 2)
        assert (each.is_neg(), each.is_conj()) == (True, True)
    plain = fakes.host_tensor(1.0, kind=make)
    assert (plain.device.type, plain.device.index) == ("cpu", None)
    assert [plain.requires_grad, plain.is_neg(), plain.is_conj()] == [False] * 3


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


def test_leaked_tensors_can_be_counted(fake_tensor: ModuleType) -> None:
    """Of subclasses, which have the table too, in cycles, and of bad arguments none is left."""
    gc.collect()
    before = fake_tensor.live()

    class Parameter(fake_tensor.FakeTensor):  # type: ignore[misc, name-defined]
        """A subclass from Python."""

    for _ in range(100):
        parameter = Parameter(4096, requires_grad=True)
        assert exported(parameter).data == 4096
        assert type(parameter.detach()) is Parameter
    assert fake_tensor.live() == before + 1
    del parameter
    cycle: list[Any] = []
    cycle.append(fake_tensor.FakeTensor(4096, owner=cycle))
    del cycle
    gc.collect()
    with pytest.raises(ValueError, match="at most 8"):
        fake_tensor.FakeTensor(0, shape=(1,) * 9)
    for data, shape in (("0", ()), (0, ("x",))):
        with pytest.raises(TypeError):
            fake_tensor.FakeTensor(data, shape=shape)
    assert fake_tensor.live() == before
