"""What is said of values that are not read: the name of a class, and of a tensor where it lies.

The text of a tensor on a device has its values, and waits until the device has everything done that
was queued before. So none is made, not even within what holds such a tensor.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

__all__ = ["args_of", "class_name", "described_on_device", "device_of", "shows_device_tensors"]

_GROUPS: Any = getattr(builtins, "BaseExceptionGroup", ())  # from Python 3.11 on


def class_name(kind: type) -> str:
    """Return the name of a class, whatever its metaclass does."""
    name: str = type.__dict__["__name__"].__get__(kind)
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def device_of(value: object) -> str | None:
    """Name the device on which a tensor's memory lies; None for what the host reads at once.

    Args:
        value: Any object. It is not read.
    """
    try:
        device = getattr(value, "device", None)
        return None if getattr(device, "type", "cpu") == "cpu" else str(device)
    except Exception:  # noqa: BLE001 - a value of any type, with any property
        return None


def described_on_device(value: object) -> str | None:
    """Describe a tensor on a device by its class, type, shape and device; None for all else.

    Args:
        value: Any object. What names its device and has no shape, as a model, is no tensor.
    """
    if (device := device_of(value)) is None:
        return None
    try:
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        if not isinstance(shape, tuple):
            return None
        of = "" if dtype is None else f" of {dtype}"
        return f"<{class_name(type(value))}{of}, shape {tuple(shape)}, on {device}>"
    except Exception:  # noqa: BLE001 - as above
        return f"<{class_name(type(value))} on {device}>"


def shows_device_tensors(value: object) -> bool:
    """Tell whether ``str(value)`` would read a tensor on a device, as far as can be known.

    Args:
        value: Any object. Searched are containers, dataclasses and the arguments of exceptions.
    """
    waiting, seen = [value], {id(value)}
    while waiting:
        for part in _parts_of(waiting.pop()):
            kind = type(part)
            if kind is float or kind is int or kind is str or id(part) in seen:
                continue
            if described_on_device(part) is not None:
                return True
            seen.add(id(part))
            waiting.append(part)
    return False


def _parts_of(value: Any) -> list[Any]:  # noqa: ANN401 - anything
    try:
        if isinstance(value, Mapping):
            return [*value, *value.values()]
        if isinstance(value, (list, tuple, set, frozenset)):
            return list(value)
        if isinstance(value, _GROUPS):
            return []  # its text does not show the exceptions in it
        if isinstance(value, BaseException):
            return list(args_of(value))
        return [getattr(value, name) for name in getattr(type(value), "__dataclass_fields__", ())]
    except Exception:  # noqa: BLE001 - a value of any type, with any property
        return []


def args_of(error: BaseException) -> tuple[Any, ...]:
    """Return an exception's arguments, past a class's own ``__getattribute__``."""
    args: tuple[Any, ...] = BaseException.__dict__["args"].__get__(error)
    return args
