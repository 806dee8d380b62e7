"""What stands for a value that is no scalar: its class and size, as a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Kept", "described", "size_of", "without_media"]


class Kept:
    """A value whose `str` is recorded instead of it."""


def size_of(value: object) -> str:
    """Return how large a value is, such as ``3x224x224`` or ``12``; "" where nothing says it."""
    shape = getattr(value, "shape", None)
    try:
        if shape is not None:
            return "x".join(str(int(one)) for one in shape)
        return str(len(value)) if hasattr(value, "__len__") else ""
    except Exception:  # noqa: BLE001 - any object of a user's
        return ""


def described(value: object) -> str | None:
    """Return what to record instead of a value that is no scalar; None of one that may be.

    An array or tensor of one element may be a scalar; whatever else has a shape or a length is not.
    """
    if isinstance(value, Kept):
        return str(value)
    if value is None or isinstance(value, (str, bytes, Mapping)):
        return None
    shape = getattr(value, "shape", None)
    if shape is not None:
        try:
            if all(int(one) == 1 for one in shape):
                return None
        except Exception:  # noqa: BLE001 - no shape of an array
            return None
    elif not hasattr(value, "__len__"):
        return None
    size = size_of(value)
    kind = type(value).__name__
    return f"{kind} of {size}" if size else kind


def without_media(
    data: Mapping[Any, Any], kept: dict[str, str], prefix: str = ""
) -> dict[Any, Any]:
    """Replace values that are no scalars by what stands for them.

    Args:
        data: Values by name, which may be nested.
        kept: Receives what stands for them, by their dotted names.
        prefix: Of the names.
    """
    found: dict[Any, Any] = {}
    for name, value in data.items():
        full = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found[name] = without_media(value, kept, f"{full}.")
        elif (text := described(value)) is not None:
            found[name] = kept[full] = text
        else:
            found[name] = value
    return found
