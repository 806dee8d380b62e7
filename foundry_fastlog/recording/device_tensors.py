"""Tensor queries that the native core makes in Python, where tensors have no C interface for them.

Nothing here imports torch: a tensor exists only if its framework is already imported. Nothing here
waits for a device.
"""

from __future__ import annotations

import functools
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from foundry_fastlog.base.json_text import text_of_value
from foundry_fastlog.recording.host_copies import HostCopies
from foundry_fastlog.recording.host_copies import cuda_type as _cuda_type
from foundry_fastlog.recording.plain_tensors import device_kind, plain_tensor

__all__ = ["block_stream", "describe_tensor", "plain_tensor", "prepare", "start_transfer"]

# Device types of DLPack: https://dmlc.github.io/dlpack/latest/c_api.html
_CPU, _METAL, _EXTENSION, _ONE_API = 1, 8, 12, 14
_DEVICE_TYPES = {"cpu": _CPU, "mps": _METAL, "xpu": _ONE_API}

# DLPack type codes and bits by torch dtype name.
_DTYPES = {
    "bool": (6, 8),
    **{f"int{bits}": (0, bits) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (1, bits) for bits in (8, 16, 32, 64)},
    **{f"float{bits}": (2, bits) for bits in (16, 32, 64)},
    "bfloat16": (4, 16),
    "float8_e4m3fn": (10, 8),
    "float8_e4m3fnuz": (11, 8),
    "float8_e5m2": (12, 8),
    "float8_e5m2fnuz": (13, 8),
    "float8_e8m0fnu": (14, 8),
}

_FIRST_PAGE = 4096

_DEVICE_TEXT = re.compile(r"([a-z_0-9]+?)(?::([0-9]+))?")
#: Device kinds that torch itself knows. If torch is loaded, it is asked instead.
_TORCHS = {"cpu", "cuda", "hip", "hpu", "meta", "mps", "mtia", "privateuseone", "xla", "xpu"}
_LAST_INDEX = 255  # a line has eight bits for the index

#: How often the thread polls a framework's copies, in seconds.
_POLL_S = 0.005


def describe_tensor(value: Any) -> tuple[int, int, int, int, int, int, Any]:  # noqa: ANN401 - likewise
    """Describe the one element of a tensor of torch 2.4 to 2.9, which lacks a C interface for it.

    Args:
        value: The tensor.

    Returns:
        Device type (DLPack's), device index, address, type code and bits (DLPack's), the device's
        current stream, and the tensor that owns the memory: ``value``, or the tensor it wraps.

    Raises:
        TypeError: It is not a single number; the text says what to do.
    """
    if (count := value.numel()) != 1:
        raise TypeError(
            "it has more than one element: pass a scalar such as value.mean()"
            if count
            else "it has no element"
        )
    if device_kind(value) in ("meta", ""):
        return describe_tensor(plain_tensor(value))
    code_bits = _DTYPES.get(str(value.dtype).removeprefix("torch."))
    if code_bits is None:
        raise TypeError(
            f"its type {value.dtype} is not a single real number: pass value.abs(), for example"
        )
    try:
        address = value.data_ptr()
    except RuntimeError:
        address = 0
    # A wrapper without its own memory has a null address plus its view's offset.
    if address < _FIRST_PAGE or value.is_neg():
        return describe_tensor(plain_tensor(value))
    kind, index = value.device.type, value.device.index or 0
    stream = 0
    device_type = _DEVICE_TYPES.get(kind, _EXTENSION)
    if kind == "cuda":
        device_type, stream = _cuda_type(), _cuda_stream(index)
    return device_type, index, address, *code_bits, stream, value


def _cuda_stream(index: int) -> int:
    # The same as torch.cuda.current_stream(index).cuda_stream, without creating an object.
    return int(sys.modules["torch"]._C._cuda_getCurrentRawStream(index))  # noqa: SLF001 - likewise


def block_stream(device: Any) -> tuple[int, int, int] | None:  # noqa: ANN401 - a torch.device
    """Return the device that a block is timed on, and its current stream.

    Args:
        device: True for the current device; or an index, a torch.device or its name.

    Returns:
        Device type (DLPack's), index and stream; None if no CUDA device is in use.

    Raises:
        TypeError: ``device`` is not a device (checked even if CUDA is not in use), or CUDA is in
            use and has no such device.
    """
    kind, index = "cuda", None
    if device is True:
        pass
    elif type(device) is int and 0 <= device <= _LAST_INDEX:
        index = device
    elif isinstance(device, str) or type(device).__module__ == "torch":
        kind, index = _known(device)
    else:
        kind, index = _kind_and_index(device)
    torch = sys.modules.get("torch")
    if kind != "cuda" or torch is None or not torch.cuda.is_initialized():
        return None
    if index is None:
        index = torch.cuda.current_device()
    try:
        stream = _cuda_stream(index)
    except Exception:
        if index < (count := torch.cuda.device_count()):
            raise
        raise TypeError(f"device must be one of the {count} that torch sees, got {index}") from None
    return _cuda_type(), index, stream


@functools.lru_cache(maxsize=64)
def _known(device: Any) -> tuple[str, int | None]:  # noqa: ANN401 - as above
    """Parse a device name or torch.device, cached because blocks may be timed very often."""
    return _kind_and_index(device)


def _kind_and_index(device: Any) -> tuple[str, int | None]:  # noqa: ANN401 - as above
    """Parse a device as torch does, though torch may not be loaded.

    Raises:
        TypeError: It is not a device.
    """
    kind: Any = getattr(device, "type", None)
    index: Any = getattr(device, "index", None)
    if isinstance(device, int):
        kind, index = "cuda", device
    elif isinstance(device, str) and (match := _DEVICE_TEXT.fullmatch(device)) is not None:
        kind, index = match[1], None if match[2] is None else int(match[2])
    fits = index is None or (isinstance(index, int) and 0 <= index <= _LAST_INDEX)
    if fits and isinstance(kind, str) and _is_kind(kind, sys.modules.get("torch")):
        return kind, index
    raise TypeError(
        f"device must be True, an index from 0 to {_LAST_INDEX}, or a torch.device or its text, "
        f"got {text_of_value(device)}"
    )


def _is_kind(kind: str, torch: Any) -> bool:  # noqa: ANN401 - a module
    """Return whether torch knows a kind of device."""
    if torch is None:
        return kind in _TORCHS
    try:
        torch.device(kind)
    except (TypeError, RuntimeError):
        return False
    return True


def prepare(make: Callable[[int, int], None]) -> None:
    """Allocate what the first GPU value needs, if CUDA is in use: later this could block.

    Args:
        make: Takes the current device's type (DLPack's) and index. Not called if CUDA is not in
            use.
    """
    try:
        place = block_stream(device=True)
    except Exception:  # noqa: BLE001 - torch is still being imported; the first value allocates instead
        return
    if place is not None:
        make(place[0], place[1])


class _Transfer(NamedTuple):
    """Copies of some tensors in progress on one stream."""

    copies: HostCopies
    slots: list[int]
    deliver: Callable[[list[int], list[Any]], None]


class _Transfers:
    """Waits in its own thread for copies made by frameworks.

    ``add`` may be called from any thread; everything else belongs to the waiting thread.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Transfer] = deque()
        # Held while the thread runs. Never blocks: a signal handler may record while it is held.
        self._running = threading.Lock()

    def add(self, transfer: _Transfer) -> None:
        self._waiting.append(transfer)
        if self._running.acquire(blocking=False):
            try:
                threading.Thread(target=self._run, name="fastlog-transfers", daemon=True).start()
            except RuntimeError:  # no thread: a later transfer delivers these, or they time out
                self._running.release()

    def _run(self) -> None:
        while True:
            waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            for transfer in waiting:
                if not self._deliver(transfer):
                    self._waiting.append(transfer)
            if not self._waiting:
                self._running.release()
                # A transfer added in between saw the lock held, so this thread must serve it.
                if not self._waiting or not self._running.acquire(blocking=False):
                    return
            time.sleep(_POLL_S)

    def _deliver(self, transfer: _Transfer) -> bool:
        values: list[Any]
        try:
            if not transfer.copies.arrived():
                return False
            values = transfer.copies.tensors
        except Exception:  # noqa: BLE001 - whatever a framework raises, the values are missing
            values = [None] * len(transfer.slots)
        transfer.deliver(transfer.slots, values)
        return True


_transfers = _Transfers()


def start_transfer(
    tensors: list[tuple[Any, int]], deliver: Callable[[list[int], list[Any]], None]
) -> None:
    """Copy scalars to the host through their framework, and deliver them as they arrive.

    For devices whose driver API the core does not use: XPU, MPS and other torch devices.

    Args:
        tensors: Tensors of one device with the slots waiting for them.
        deliver: Takes slots and their values.

    Raises:
        Exception: Whatever the framework raises.
    """
    copies = HostCopies([tensor for tensor, _ in tensors])
    _transfers.add(_Transfer(copies, [slot for _, slot in tensors], deliver))
