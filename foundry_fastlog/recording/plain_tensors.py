"""Find the tensor to read for a given tensor; shared by everything that reads tensors.

Nothing here imports torch: a tensor exists only if its framework is already imported. Nothing here
waits for a device.
"""

from __future__ import annotations

import sys
from typing import Any

from foundry_fastlog.base.unread import described_unread, has_lost_memory

__all__ = ["device_kind", "plain_tensor", "readable_tensor"]

_WRAPPERS = {"DTensor", "AsyncCollectiveTensor"}
_TRACED = {"FakeTensor", "FunctionalTensor"}


def readable_tensor(value: Any) -> Any:  # noqa: ANN401 - any framework's tensor
    """Return the tensor to read: the given one, or the one it wraps.

    Args:
        value: A tensor.

    Returns:
        A tensor on the same device.

    Raises:
        TypeError: There is no single value to read; the text says why and what to do.
    """
    if has_lost_memory(value):
        raise TypeError(f"{described_unread(value)} no longer has a value")
    kind = type(value)
    wrapped = any(base.__name__ in _WRAPPERS for base in kind.__mro__)
    traced = kind.__name__ in _TRACED and kind.__module__.startswith("torch.")
    if wrapped or traced or device_kind(value) == "meta":
        return readable_tensor(plain_tensor(value))
    return value


def plain_tensor(value: Any) -> Any:  # noqa: ANN401 - any framework's tensor
    """Return the tensor that a wrapper wraps and that has its own memory.

    Args:
        value: A tensor without its own memory: a DTensor, the result of a collective, ...

    Returns:
        A tensor on the same device; operations on it are enqueued on the current stream.

    Raises:
        TypeError: There is no single value to read; the text says why and what to do.
    """
    names = {base.__name__ for base in type(value).__mro__}
    if "DTensor" in names:
        placements = value.placements
        if not all(placement.is_replicate() for placement in placements):
            raise TypeError(
                f"it is a DTensor with the placements {tuple(placements)}, and each rank has only "
                "a part of it: pass value.full_tensor(), in which all ranks take part"
            )
        return value.to_local()
    if "AsyncCollectiveTensor" in names:
        return value.wait() if hasattr(value, "wait") else value.trigger_wait()
    if type(value).__name__ in _TRACED or device_kind(value) == "meta":
        raise TypeError("it has no value: record outside traced code and 'meta' tensors")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value._is_zerotensor():  # noqa: SLF001 - torch has no public name for it
            return torch.zeros((), dtype=value.dtype, device=value.device)
        if value.numel() == 1 and value.layout == torch.strided and value.is_neg():
            return value.resolve_neg()
        functorch = torch._C._functorch  # noqa: SLF001 - likewise
        if functorch.is_functorch_wrapped_tensor(value):
            raise TypeError("it belongs to a torch.func transform: record outside of it")
    raise TypeError("it has no memory of its own to read: pass value.item()")


def device_kind(value: Any) -> str:  # noqa: ANN401 - any framework's tensor
    """Return the type of a tensor's device, "" if it has none."""
    try:
        return str(getattr(getattr(value, "device", None), "type", ""))
    except Exception:  # noqa: BLE001 - a value of any type, with any property
        return ""
