"""Metric values, as `Recorder.record()` takes them, for the calls that are not native."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundry_fastlog.base.json_text import cut, read_context, safe_str, text_of_value
from foundry_fastlog.base.unread import described_unread, device_of
from foundry_fastlog.recording.plain_tensors import readable_tensor

__all__ = ["MAX_TEXT", "MetricValue", "metric_value", "name_of", "recordable", "text_of"]

MetricValue = float | int | bool | str | None

MAX_TEXT = 1000
"""Maximum characters kept of a value that is not a metric, and of a text too large for a record."""

_INT64 = 1 << 63


def metric_value(name: object, value: Any) -> MetricValue:  # noqa: ANN401 - anything with item()
    """Return a value as it can be written in a line.

    Args:
        name: Its key, for the error message.
        value: A float, int, bool, None, str, numpy scalar, or a one-element array or tensor on the
            CPU. A masked element becomes None.

    Raises:
        TypeError: Anything else.
        OverflowError: An int beyond 64 bits.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if _is_single(value) and callable(getattr(value, "item", None)):
        if _is_masked(value):
            return None
        if (device := device_of(value)) is not None:
            raise TypeError(
                f"value of {name!r} is on {device}, and reading it would wait for the device"
            )
        try:
            value = readable_tensor(value).item()
        except Exception as error:
            raise TypeError(f"value of {name!r} cannot be read: {safe_str(error)}") from error
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, int) and _INT64 <= value < 2 * _INT64:  # of type uint64
            return float(value)
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise OverflowError(f"value of {name!r} does not fit in a signed 64-bit integer")
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise TypeError(
        f"value of {name!r} has type {type(value).__name__}, which is not a metric; pass a float, "
        "int, bool, None, str, a numpy scalar, or an array or tensor of one element"
    )


def _is_single(value: object) -> bool:
    shape = getattr(value, "shape", None)
    return isinstance(shape, tuple) and all(size == 1 for size in shape)


def _is_masked(value: object) -> bool:
    """Return whether a value is a one-element numpy masked array whose element is masked."""
    return any(base.__name__ == "MaskedArray" for base in type(value).__mro__) and bool(
        getattr(value, "mask", False)
    )


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
    return cut(text_of_value(value), MAX_TEXT)


def recordable(
    metrics: Mapping[Any, Any], *, from_devices: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Make any mapping recordable: a value that is not a metric becomes its text.

    Each value is converted independently of the others; other types become truncated text.

    Args:
        metrics: Keys and values of any type.
        from_devices: Leave one-element device tensors as they are, for record() to take without
            waiting; replace other device tensors with a description.

    Returns:
        The values by name, and the names whose value or key was converted to text.
    """
    values: dict[str, Any] = {}
    odd: list[str] = []
    for key, value in read_context(metrics).items():
        name = name_of(key)
        try:
            values[name], regular = _recordable(name, value, from_devices=from_devices)
        except Exception:  # noqa: BLE001 - a value of any type, with any property
            values[name], regular = text_of(value), False
        if name is not key or not regular:
            odd.append(name)
    return values, odd


def _recordable(name: str, value: object, *, from_devices: bool) -> tuple[Any, bool]:
    """Return what to record for a value, and whether it is a metric."""
    if from_devices and device_of(value) is not None:
        single = _is_single(value)
        return (value if single else text_of(value)), single
    return metric_value(name, value), True
