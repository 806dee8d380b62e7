"""Values, points and log records as OTLP has them in JSON: 64-bit integers are texts there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from foundry_fastlog.reading.lines import Record

__all__ = ["any_value", "attributes_of", "data_point", "log_record"]

_SEVERITIES = {"DEBUG": 5, "INFO": 9, "WARNING": 13, "ERROR": 17, "CRITICAL": 21}
_NO_VALUE = 1  # a flag of a point
#: The names that OpenTelemetry has for fields of a line.
_FIELDS = {
    "step": "step",
    "event": "event.name",
    "error_type": "exception.type",
    "error_message": "exception.message",
    "traceback": "exception.stacktrace",
    "fingerprint": "fingerprint",
    "context": "context",
}


def any_value(value: object) -> dict[str, Any]:
    """Return a value of JSON as an ``AnyValue``; null is an empty one."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": _double(value)}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": attributes_of(value)}}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(item) for item in value]}}
    return {"stringValue": str(value)}  # text, or an integer that does not fit


def attributes_of(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return values by key as a list of ``KeyValue``."""
    return [{"key": key, "value": any_value(value)} for key, value in values.items()]


def data_point(value: float | None, time: int, attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a point of a gauge; one of no value has the flag that says so.

    Args:
        value: A number, bool or None.
        time: In nanoseconds since 1970.
        attributes: Its attributes.
    """
    point: dict[str, Any] = {"timeUnixNano": str(time), "attributes": attributes}
    if value is None:
        point["flags"] = _NO_VALUE
    elif isinstance(value, int):  # a bool is one
        point["asInt"] = str(int(value))
    else:
        point["asDouble"] = _double(value)
    return point


def log_record(record: Record, time: int) -> dict[str, Any]:
    """Return a message or an error as a log record.

    Args:
        record: The line.
        time: In nanoseconds since 1970.
    """
    level = record.get("level")
    facts = {
        name: record[key] for key, name in _FIELDS.items() if record.get(key) not in (None, {})
    }
    made = {
        "timeUnixNano": str(time),
        "severityText": level,
        "body": any_value(record.get("message")),
        "attributes": attributes_of(facts),
    }
    if level in _SEVERITIES:
        made["severityNumber"] = _SEVERITIES[level]
    return made


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
