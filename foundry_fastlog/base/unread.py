"""Describe values without reading them: the name of a class, and where a tensor lies.

The text of a device tensor contains its values, and making it waits for everything queued on the
device. Making the text of a tensor whose memory was freed crashes the process. So no such text is
made, not even for a container or another standard Python object that would show the tensor.
"""

from __future__ import annotations

import builtins
import gc
import sys
from collections import UserList, deque
from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from functools import partial
from itertools import count, repeat
from types import MethodType, SimpleNamespace
from typing import Any

__all__ = [
    "args_of",
    "class_name",
    "described_unread",
    "device_of",
    "has_lost_memory",
    "is_a",
    "parts_of",
    "shows_unread",
]

_DEEPEST = 2000  # twice as deep as Python makes texts
_GROUPS: Any = getattr(builtins, "BaseExceptionGroup", ())  # Python 3.11+
_ITERABLES = (list, tuple, set, frozenset, deque, UserList, KeysView, ValuesView, ItemsView)
# Their texts show what they refer to. Other types are not searched: a function refers to everything
# in its module.
_SHOWING = (SimpleNamespace, partial, slice, MethodType, repeat, count)


def class_name(kind: type) -> str:
    """Return the name of a class, whatever its metaclass does."""
    name: str = type.__dict__["__name__"].__get__(kind)
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def is_a(value: object, kinds: type | tuple[type, ...]) -> bool:
    """Return whether a value is of a class, whatever it says that its ``__class__`` is."""
    return issubclass(type(value), kinds)


def device_of(value: object) -> str | None:
    """Return the device of a tensor's memory; None for anything that the host can read at once.

    Args:
        value: Any object. It is not read.
    """
    try:
        device = getattr(value, "device", None)
        return None if getattr(device, "type", "cpu") == "cpu" else str(device)
    except Exception:  # noqa: BLE001 - a value of any type, with any property
        return None


def has_lost_memory(value: Any) -> bool:  # noqa: ANN401 - anything
    """Return whether a tensor extends beyond its storage, as after ``resize_(0)`` of the storage.

    Args:
        value: Any object. It is not read.
    """
    try:
        storage = getattr(value, "untyped_storage", None)
        if storage is None or issubclass(type(value), type) or 0 in value.shape:
            return False
        steps = zip(value.shape, value.stride(), strict=True)
        last = value.storage_offset() + sum((size - 1) * stride for size, stride in steps)
        return bool((last + 1) * value.element_size() > storage().nbytes())
    except Exception:  # noqa: BLE001 - from a sparse tensor, for example, or a value of any type
        return False


def described_unread(value: object) -> str | None:
    """Describe an unread tensor by class, type, shape and device; None for anything else.

    Args:
        value: Any object. One with a device but no shape, such as a model, is not a tensor.
    """
    if issubclass(type(value), type):  # bypassing its own `__class__`
        return None
    lost = ""
    if (device := device_of(value)) is None:
        if not has_lost_memory(value):
            return None
        device, lost = "cpu", ", whose memory was freed"
    try:
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        if not isinstance(shape, tuple):
            return None
        of = "" if dtype is None else f" of {dtype}"
        return f"<{class_name(type(value))}{of}, shape {tuple(shape)}, on {device}{lost}>"
    except Exception:  # noqa: BLE001 - as above
        return f"<{class_name(type(value))} on {device}>"


def shows_unread(value: object) -> bool:
    """Return whether ``str(value)`` would read a tensor that must not be read, as far as is known.

    Args:
        value: Any object. See `parts_of` for what is searched, at all depths that a text can have.
    """
    level, seen = [value], {id(value)}
    kept = []  # parts may be created on the fly: their ids are valid only while they live
    for _ in range(_DEEPEST):
        below = []
        for one in level:
            parts = parts_of(one)
            kept.append(parts)
            for part in parts:
                kind = type(part)
                if kind is float or kind is int or kind is str or id(part) in seen:
                    continue
                if described_unread(part) is not None:
                    return True
                seen.add(id(part))
                below.append(part)
        if not below:
            return False
        level = below
    return True  # it makes its parts as they are looked at: its text would have no end, either


def parts_of(value: Any) -> list[Any]:  # noqa: ANN401 - anything
    """List what the text of a value shows, if Python or numpy makes that text.

    Args:
        value: Any object. Third-party classes make their own text and have no parts.
    """
    try:
        if isinstance(value, Mapping):
            return [*value, *value.values()]
        if isinstance(value, _ITERABLES):
            return list(value)
        if isinstance(value, _SHOWING):
            return [part for part in gc.get_referents(value) if not issubclass(type(part), type)]
        if isinstance(value, _GROUPS):
            return []  # its text does not show the exceptions inside
        if isinstance(value, BaseException):
            return list(args_of(value))
        # numpy's arrays of objects. A mock has whatever it is asked for, and no end of it.
        if getattr(getattr(value, "dtype", None), "hasobject", False) is True:
            found = value.tolist()
            return found if isinstance(found, list) else [found]
        argparse: Any = sys.modules.get("argparse")
        if argparse is not None and isinstance(value, argparse.Namespace):
            return [vars(value)]
        return [getattr(value, name) for name in getattr(type(value), "__dataclass_fields__", ())]
    except Exception:  # noqa: BLE001 - a value of any type, with any property
        return []


def args_of(error: BaseException) -> tuple[Any, ...]:
    """Return an exception's arguments, bypassing the class's own ``__getattribute__``."""
    args: tuple[Any, ...] = BaseException.__dict__["args"].__get__(error)
    return args
