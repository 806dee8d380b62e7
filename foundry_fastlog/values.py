"""Values of metrics, as `Recorder.record()` takes them, for the calls that are not native."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from foundry_fastlog.members import safe_str

__all__ = ["MetricValue", "device_of", "metric_value", "recordable", "text_of"]

MetricValue = float | int | bool | str | None

_INT64 = 1 << 63
_MOST_TEXT = 1000  # characters of a value that is no metric
_CONTAINERS = (list, tuple, dict, set, frozenset)
_some = reprlib.Repr()  # looks at a few items of a container only, however many it has
_some.maxlist = _some.maxtuple = _some.maxdict = _some.maxset = _some.maxfrozenset = 50
_some.maxstring = _some.maxother = _some.maxlong = 100


def metric_value(name: object, value: Any) -> MetricValue:  # noqa: ANN401 - anything with item()
    """Return a value as a line can say it.

    Args:
        name: Its key, for the message.
        value: A float, int, bool, None, str, numpy scalar, an array without dimensions, or a tensor
            of one element; reading one that lies on a GPU waits for it. A masked element is None.

    Raises:
        TypeError: Anything else.
        OverflowError: An int beyond 64 bits.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if _is_single(value) and callable(item := getattr(value, "item", None)):
        if _is_masked(value):
            return None
        try:
            value = item()
        except Exception as error:
            raise TypeError(f"value of {name!r} cannot be read: {safe_str(error)}") from error
        if value is None or isinstance(value, (bool, str)):
            return value
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise OverflowError(f"value of {name!r} does not fit in a signed 64-bit integer")
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise TypeError(
        f"value of {name!r} has type {type(value).__name__}, which is no metric; pass a float, "
        "int, bool, None, str, a numpy scalar, or an array or tensor without dimensions"
    )


def _is_single(value: object) -> bool:
    """Tell whether a value has one element, in the shapes that record() takes."""
    shape = getattr(value, "shape", None)
    if shape == ():
        return True
    return hasattr(type(value), "data_ptr") and all(size == 1 for size in shape or (0,))


def _is_masked(value: object) -> bool:
    """Tell whether numpy's masked array of no dimension has its element masked."""
    return any(base.__name__ == "MaskedArray" for base in type(value).__mro__) and bool(
        getattr(value, "mask", False)
    )


def text_of(value: object) -> str:
    """Return a bounded text for what is no metric: its str(), cut where it is long.

    Args:
        value: Any object. What lies on a device is not read, and of a container a few items are.
    """
    if (device := device_of(value)) is not None:
        return f"<{type(value).__name__} on {device}>"
    try:
        text = _some.repr(value) if isinstance(value, _CONTAINERS) else safe_str(value)
    except Exception:  # noqa: BLE001 - an item's __repr__ may raise anything
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}... ({len(text)} characters)"


def device_of(value: object) -> str | None:
    """Name the device on which a tensor's memory lies; None for what the host reads at once.

    Args:
        value: Any object. It is not read: that would wait for the device.
    """
    try:
        device = getattr(value, "device", None)
        return None if getattr(device, "type", "cpu") == "cpu" else str(device)
    except Exception:  # noqa: BLE001 - a value of any type, with any property
        return None


def recordable(
    metrics: Mapping[Any, Any], *, from_devices: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Make something that can be recorded of any mapping: what is no metric becomes its text.

    Args:
        metrics: Keys and values of any type.
        from_devices: Leave tensors of one element that lie on a device as they are, for record()
            to take without waiting; say of others where they lie.

    Returns:
        The values by name, and the names whose value or key had to become text.
    """
    values: dict[str, Any] = {}
    odd: list[str] = []
    for key, value in metrics.items():
        name = key if isinstance(key, str) else safe_str(key)
        if from_devices and device_of(value) is not None:
            single = all(size == 1 for size in getattr(value, "shape", (0,)))
            values[name] = value if single else text_of(value)
            if name is not key or not single:
                odd.append(name)
            continue
        try:
            values[name] = metric_value(name, value)
            if name is not key:
                odd.append(name)
        except (TypeError, OverflowError):
            values[name] = text_of(value)
            odd.append(name)
    return values, odd
