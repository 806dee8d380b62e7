"""Copies of device scalars through their framework, without waiting for the device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from foundry_fastlog.base.unread import device_of
from foundry_fastlog.recording.plain_tensors import readable_tensor

__all__ = ["HostCopies", "checked", "cuda_type", "is_device_scalar"]

_CUDA, _ROCM = 2, 10  # device types of DLPack

#: A scalar inside a larger allocation (in bytes) is copied on its device, to not keep all of it.
_MOST_KEPT = 4096

#: The same text as `record()` raises.
_CAPTURED = (
    "a value on a device cannot be recorded while a stream is being captured into a graph: each "
    "replay would copy into the same place. Record after the capture, and after each replay"
)

#: Calls a function that queries devices of a type (DLPack's), without invalidating another
#: thread's graph capture. Set by the recorder to the native core's function.
ask_relaxed: Callable[[int, Callable[[], Any]], Any] | None = None

#: Raises RuntimeError if the current stream of any tensor is being captured. Set likewise.
refuse_captured: Callable[[list[Any]], None] | None = None


def cuda_type() -> int:
    """Return DLPack's type of the devices that torch calls ``cuda``."""
    return _ROCM if getattr(sys.modules["torch"].version, "hip", None) else _CUDA


def is_device_scalar(value: object) -> bool:
    """Return whether a value is a one-element tensor on a device."""
    return device_of(value) is not None and all(n == 1 for n in getattr(value, "shape", (0,)))


def _small(scalar: Any) -> Any:  # noqa: ANN401 - any framework's tensor
    """Return the tensor to keep until the copy is done; never a part of a large allocation."""
    plain = scalar.detach()
    try:
        if len(plain.untyped_storage()) > _MOST_KEPT:
            return plain.clone()
    except Exception:  # noqa: BLE001 - no storage, or no memory for a copy: keep it as it is
        return plain
    return plain


def _common_type(scalars: Sequence[Any]) -> int:
    return cuda_type() if any(scalar.device.type == "cuda" for scalar in scalars) else 0


def checked(scalars: Sequence[Any]) -> list[Any]:
    """Return the tensors to copy for some scalars, with the same checks as `record()`.

    Args:
        scalars: One-element torch tensors.

    Raises:
        TypeError: One of them has no value of its own, such as a part of a DTensor.
        RuntimeError: A current stream is being captured into a graph.
    """
    found = [readable_tensor(scalar) for scalar in scalars]
    if refuse_captured is not None:
        refuse_captured(found)
    elif _common_type(found) and sys.modules["torch"].cuda.is_current_stream_capturing():
        raise RuntimeError(_CAPTURED)
    return found


class HostCopies:
    """Copies of some scalars to the host, queued on their current streams.

    Attributes:
        tensors: The copies, in order; valid once `arrived` returns True.
    """

    def __init__(self, scalars: Sequence[Any]) -> None:
        """Start the copies.

        Args:
            scalars: One-element torch tensors, as returned by `checked`.

        Raises:
            Exception: Whatever torch raises.
        """
        self._type = _common_type(scalars)
        self._scalars: Sequence[Any] = scalars
        self._sources: list[Any] = []
        self.tensors: list[Any] = []
        self._events: list[Any] = []
        self._ask(self._begin)

    def _begin(self) -> None:
        torch = sys.modules["torch"]
        # Kept until copied: another stream could own this memory and reuse it.
        self._sources = [_small(scalar) for scalar in self._scalars]
        self._scalars = ()
        self.tensors = [source.to("cpu", non_blocking=True) for source in self._sources]
        for device in dict.fromkeys(source.device for source in self._sources):
            # torch.Event is newer than torch 2.4; before, each kind of device has its own module.
            make = getattr(torch, "Event", None)
            event = getattr(torch, device.type).Event() if make is None else make(device)
            if device.type == "cuda":
                event.record(torch.cuda.current_stream(device))
            else:
                event.record()
            self._events.append(event)

    def arrived(self) -> bool:
        """Return whether all copies are complete; queries the devices without waiting.

        Raises:
            Exception: Whatever torch raises when a device has failed.
        """
        if not self._ask(self._have_arrived):
            return False
        self._sources = []
        return True

    def _ask(self, function: Callable[[], Any]) -> Any:  # noqa: ANN401 - its result
        return function() if ask_relaxed is None else ask_relaxed(self._type, function)

    def _have_arrived(self) -> bool:
        while self._events and self._events[-1].query():
            self._events.pop()
        return not self._events
