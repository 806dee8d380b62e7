"""What the native core asks Python about tensors: only where their own C interface does not tell.

Nothing here imports torch: a tensor exists only once its framework is imported. Nothing here waits
for a device.
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

# Codes and bits of DLPack by the names of torch's types.
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
#: Kinds of devices that torch itself knows; with torch at hand it is asked.
_TORCHS = {"cpu", "cuda", "hip", "hpu", "meta", "mps", "mtia", "privateuseone", "xla", "xpu"}
_LAST_INDEX = 255  # a line's index has eight bits

#: How often the thread that waits for a framework's copies looks, in seconds.
_POLL_S = 0.005


def describe_tensor(value: Any) -> tuple[int, int, int, int, int, int, Any]:  # noqa: ANN401 - likewise
    """Describe the one element of a tensor of torch 2.4 to 2.9, which has no C interface for it.

    Args:
        value: The tensor.

    Returns:
        Device type (DLPack's), device index, address, type code and bits (DLPack's), the device's
        current stream, and the tensor whose memory that is: ``value``, or the one behind it.

    Raises:
        TypeError: It is no single number; the text says what to do.
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
        raise TypeError(f"its type {value.dtype} is no single real number: pass value.abs() or so")
    try:
        address = value.data_ptr()
    except RuntimeError:
        address = 0
    # A wrapper without memory of its own shows null, plus what its view begins at.
    if address < _FIRST_PAGE or value.is_neg():
        return describe_tensor(plain_tensor(value))
    kind, index = value.device.type, value.device.index or 0
    stream = 0
    device_type = _DEVICE_TYPES.get(kind, _EXTENSION)
    if kind == "cuda":
        device_type, stream = _cuda_type(), _cuda_stream(index)
    return device_type, index, address, *code_bits, stream, value


def _cuda_stream(index: int) -> int:
    # What torch.cuda.current_stream(index).cuda_stream gives, without making an object.
    return int(sys.modules["torch"]._C._cuda_getCurrentRawStream(index))  # noqa: SLF001 - likewise


def block_stream(device: Any) -> tuple[int, int, int] | None:  # noqa: ANN401 - a torch.device
    """Name the device that a block is timed on, and its current stream.

    Args:
        device: True for the current device; or an index, a torch.device or its text.

    Returns:
        Device type (DLPack's), index and stream; None where no CUDA device is in use.

    Raises:
        TypeError: ``device`` is no device, whether CUDA is in use or not; or where it is, there is
            no such CUDA device.
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
    """Take a text or a torch.device apart, once: blocks may be timed very often."""
    return _kind_and_index(device)


def _kind_and_index(device: Any) -> tuple[str, int | None]:  # noqa: ANN401 - as above
    """Take a device apart as torch does, though torch may not be there.

    Raises:
        TypeError: It is no device.
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
    """Tell whether torch knows a kind of device."""
    if torch is None:
        return kind in _TORCHS
    try:
        torch.device(kind)
    except (TypeError, RuntimeError):
        return False
    return True


def prepare(make: Callable[[int, int], None]) -> None:
    """Make what the first value of a GPU needs, where CUDA is in use: later that may wait for it.

    Args:
        make: Takes the current device's type (DLPack's) and index. Not called without CUDA in use.
    """
    try:
        place = block_stream(device=True)
    except Exception:  # noqa: BLE001 - a torch that is just being imported; the first value makes it
        return
    if place is not None:
        make(place[0], place[1])


class _Transfer(NamedTuple):
    """Copies of some tensors, under way on one stream."""

    copies: HostCopies
    slots: list[int]
    deliver: Callable[[list[int], list[Any]], None]


class _Transfers:
    """Waits, in a thread of its own, for the copies that frameworks make.

    ``add`` may be called by any thread; everything else is the thread's.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Transfer] = deque()
        # Held while the thread runs. Only tried: a signal's handler may record while it is held.
        self._running = threading.Lock()

    def add(self, transfer: _Transfer) -> None:
        self._waiting.append(transfer)
        if self._running.acquire(blocking=False):
            try:
                threading.Thread(target=self._run, name="fastlog-transfers", daemon=True).start()
            except RuntimeError:  # no more threads: a later one delivers, or the value is late
                self._running.release()

    def _run(self) -> None:
        while True:
            waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            for transfer in waiting:
                if not self._deliver(transfer):
                    self._waiting.append(transfer)
            if not self._waiting:
                self._running.release()
                # One that came meanwhile has seen the lock held, and is this thread's.
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
    """Copy scalars to the host by their framework's own means, and deliver what arrives.

    For devices without a driver API that the core knows: XPU, MPS and others that torch has.

    Args:
        tensors: Tensors of one device with the slots that wait for them.
        deliver: Takes slots and their values.

    Raises:
        Exception: What the framework raises.
    """
    copies = HostCopies([tensor for tensor, _ in tensors])
    _transfers.add(_Transfer(copies, [slot for _, slot in tensors], deliver))
