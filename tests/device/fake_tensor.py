"""Tensors as the recorder sees torch's: for tests of it without torch and without a device.

What would wait for the device is counted, and answered with nothing true.
"""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from typing import Any, NamedTuple

from device import fakes

_exports = fakes.load_exports()
live, set_stream = _exports.live, _exports.set_stream
_calls: Counter[str] = Counter()
# By DLPack's types: those of the CPU, pinned memory, managed memory too.
_DEVICES = {1: "cpu", 2: "cuda", 3: "cpu", 8: "mps", 10: "cuda", 11: "cpu", 13: "cuda", 14: "xpu"}
_DTYPES = {(code, bits): name for code, bits, _, name in fakes.DTYPES.values()}


class Device(NamedTuple):
    type: str
    index: int | None


def item_calls() -> int:
    """Return how many calls would have waited: item, cpu, float() ..."""
    return _calls["item"]


def to_calls() -> int:
    return _calls["to"]


def reset() -> None:
    """Forget streams and counts; what lives is still counted."""
    _exports.reset()
    _calls.clear()


class LegacyFakeTensor(_exports.Exported):  # type: ignore[misc, name-defined]
    """A tensor without a table: torch before 2.10."""

    def __new__(
        cls,
        data: int,
        dtype: tuple[int, int, int] = (2, 32, 1),
        device: tuple[int, int] = (fakes.CUDA, 0),
        shape: tuple[int, ...] = (),
        *,
        requires_grad: bool = False,
        is_neg: bool = False,
        is_conj: bool = False,
        null_data: bool = False,
        byte_offset: int = 0,
        raises: Any = None,
        owner: Any = None,
    ) -> Any:
        """Make a tensor over memory; `raises` is what exporting it raises."""
        shown = 0 if null_data else data
        self = super().__new__(cls, shown, dtype, device, shape, byte_offset, raises, owner)
        self.shape, self.requires_grad = shape, requires_grad
        self._place, self._dtype, self._signs = device, dtype, (is_neg, is_conj)
        self._data, self._offset, self._raises = shown, byte_offset, raises
        return self

    @property
    def device(self) -> Device:
        name = _DEVICES.get(self._place[0], "privateuseone")
        return Device(name, None if name == "cpu" else self._place[1])

    @property
    def dtype(self) -> str:
        code, bits, _ = self._dtype
        return f"torch.{_DTYPES.get((code, bits), f'unknown_{code}_{bits}')}"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return math.prod(self.shape)

    def element_size(self) -> int:
        return (self._dtype[1] * self._dtype[2] + 7) // 8

    def is_neg(self) -> bool:
        return self._signs[0]

    def is_conj(self) -> bool:
        return self._signs[1]

    def data_ptr(self) -> int:
        return self._data + self._offset if self._data else 0

    def untyped_storage(self) -> Any:
        """Return what keeps the memory alive, without the tensor."""
        return self.owner

    def _alias(self, data: int, offset: int, device: tuple[int, int], owner: Any) -> Any:
        return LegacyFakeTensor.__new__(
            type(self), data, self._dtype, device, self.shape, byte_offset=offset,
            is_neg=self._signs[0], is_conj=self._signs[1], raises=self._raises, owner=owner,
        )  # fmt: skip

    def detach(self) -> Any:
        """Return a tensor over the same memory, outside of any graph."""
        return self._alias(self._data, self._offset, self._place, self.owner)

    def to(self, *_: Any, **__: Any) -> Any:
        """Copy to the CPU at once, from devices whose memory the host can read in these fakes."""
        _calls["to"] += 1
        if self.device.type == "cuda":
            raise RuntimeError("a fake CUDA tensor has no copy of torch's")
        raw = ctypes.string_at(self.data_ptr(), self.element_size() * self.numel())
        memory = ctypes.create_string_buffer(raw, len(raw))
        made = self._alias(ctypes.addressof(memory), 0, (fakes.CPU, 0), memory)
        made.requires_grad = self.requires_grad
        return made

    def item(self) -> float:
        _calls["item"] += 1
        return 0.0

    tolist = cpu = __float__ = item

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())


class FakeTensor(LegacyFakeTensor):
    __dlpack_c_exchange_api__ = _exports.TABLE


class FutureFakeTensor(LegacyFakeTensor):
    """With a table of major version 2, and nothing older behind it."""

    __dlpack_c_exchange_api__ = _exports.FUTURE


class ChainedFakeTensor(LegacyFakeTensor):
    """With a table of major version 2 that has one of version 1 behind it."""

    __dlpack_c_exchange_api__ = _exports.CHAINED


class OwningOnlyFakeTensor(LegacyFakeTensor):
    """With a table without dltensor_from_py_object_no_sync, as it may be."""

    __dlpack_c_exchange_api__ = _exports.OWNING
