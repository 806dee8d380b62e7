"""Values that the native calls do not read themselves, and texts for what is no metric."""

from __future__ import annotations

from typing import Any

from foundry_fastlog.base.json_text import cut, safe_str, text_of_value
from foundry_fastlog.base.unread import described_unread, device_of
from foundry_fastlog.recording.extension import core

__all__ = ["element_of_other", "metric_value", "name_of", "text_of"]

_MAX_TEXT = 1000  # characters


def metric_value(name: object, value: object) -> float | int | bool | str | None:
    """Return what ``record()`` writes for a value on the host.

    Args:
        name: Its key, for the error message.
        value: As for ``record()``. A masked element becomes None.

    Raises:
        TypeError: ``record()`` does not take it, or it is on a device.
        OverflowError: An int beyond 64 bits.
    """
    return core.metric_value(name, value)


def element_of_other(value: Any) -> Any:  # noqa: ANN401 - anything
    """Return the element of what has one, as an array does, and is none for DLPack.

    Args:
        value: A Series of pandas or polars, an array of xarray, ...

    Returns:
        What its ``item()`` returns; NotImplemented if there is not exactly one, or it is a date,
        of which some make a number.

    Raises:
        TypeError: It is on a device.
    """
    shape = getattr(value, "shape", None)
    single = isinstance(shape, tuple) and all(size == 1 for size in shape)
    if not (single and callable(getattr(value, "item", None))):
        return NotImplemented
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
        return NotImplemented
    if (device := device_of(value)) is not None:
        raise TypeError(f"reading it would wait for {device}: pass value.item(), which does")
    return value.item()


def name_of(key: object) -> str:
    """Return the name of a metric; a key that is not a str is converted to text."""
    return key if isinstance(key, str) else safe_str(key)


def text_of(value: object) -> str:
    """Return a text of limited length for a value that is not a metric.

    Args:
        value: Any object. Device values are not read.
    """
    if (device := device_of(value)) is not None:
        return described_unread(value) or f"<{type(value).__name__} on {device}>"
    return cut(text_of_value(value), _MAX_TEXT)
