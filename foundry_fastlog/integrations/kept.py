"""What stands for a value that is no scalar: its class and size, as a text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from types import ModuleType
from typing import Any

__all__ = ["Kept", "described", "size_of", "without_media"]

_DEEPEST = 32
_DRAWS = ("savefig", "to_plotly_json")  # of matplotlib, its pyplot among it, and of plotly
_INT64 = 1 << 63


class Kept:
    """A value whose `str` is recorded instead of it."""


def size_of(value: object) -> str:
    """Return how large a value is, such as ``3x224x224`` or ``12``; "" where nothing says it."""
    try:
        shape = getattr(value, "shape", None)
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
    drawn = value if isinstance(value, ModuleType) else type(value)
    if any(hasattr(drawn, name) for name in _DRAWS):
        return "Figure"
    try:
        shape = getattr(value, "shape", None)
        if shape is not None and all(int(one) == 1 for one in shape):
            return None
    except Exception:  # noqa: BLE001 - no shape of an array
        return None
    if shape is None and not hasattr(value, "__len__"):
        return None
    size = size_of(value)
    kind = type(value).__name__
    return f"{kind} of {size}" if size else kind


def without_media(
    data: Mapping[Any, Any], kept: dict[str, str], prefix: str = "", depth: int = 0
) -> dict[Any, Any]:
    """Replace values that are no scalars by what stands for them.

    Args:
        data: Values by name, which may be nested.
        kept: Receives what stands for them, by their dotted names.
        prefix: Of the names.
        depth: Of the nesting so far; what is deeper than any real one is a value that has itself.
    """
    found: dict[Any, Any] = {}
    for name, value in data.items():
        full = f"{prefix}{name}"
        if isinstance(value, Mapping):
            inner = _items(value) if depth < _DEEPEST else None
            if inner is None:
                found[name] = kept[full] = type(value).__name__
            else:
                found[name] = without_media(inner, kept, f"{full}.", depth + 1)
        elif (text := described(value)) is not None:
            found[name] = kept[full] = text
        else:
            found[name] = _as_others_store_it(value)
    return found


def _items(data: Mapping[Any, Any]) -> dict[Any, Any] | None:
    """Return what is in a mapping of a user's, None of one that cannot be read."""
    try:
        return dict(data.items())
    except Exception:  # noqa: BLE001 - whatever it raises
        return None


def _as_others_store_it(value: object) -> object:
    """Return the number or text that wandb and TensorBoard store, where `Recorder` has none."""
    if type(value) is float or type(value) is str:
        return value
    if isinstance(value, Enum) and not isinstance(value, (int, float, str)):
        return value.value
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        try:
            return float(value)
        except OverflowError:
            return str(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, (Decimal, PurePath, complex)) else value
