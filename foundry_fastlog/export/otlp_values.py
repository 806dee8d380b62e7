"""Values, points and log records as OTLP has them in JSON: 64-bit integers are texts there."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from foundry_fastlog.reading.lines import Record

__all__ = ["any_value", "attributes_of", "data_point", "log_record"]

_SEVERITIES = {"DEBUG": 5, "INFO": 9, "WARNING": 13, "ERROR": 17, "CRITICAL": 21}
_NO_VALUE = 1  # a flag of a point
# Fields of a message that are a log record's own: names, forms, and how they are read. Ids of zeros
# alone are none (https://www.w3.org/TR/trace-context/#trace-id).
_IDS: tuple[tuple[str, str, re.Pattern[str], Callable[[str], Any]], ...] = (
    ("trace_id", "traceId", re.compile(r"(?!0+$)[0-9a-f]{32}"), str),
    ("span_id", "spanId", re.compile(r"(?!0+$)[0-9a-f]{16}"), str),
    ("trace_flags", "flags", re.compile(r"[0-9a-f]{2}"), partial(int, base=16)),
)
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

    The ids of the span in which it was logged are fields of the record itself, as in the logs data
    model (https://opentelemetry.io/docs/specs/otel/logs/data-model/#trace-context-fields).

    Args:
        record: The line.
        time: In nanoseconds since 1970.
    """
    level = record.get("level")
    ids, context = _trace_context(record.get("context"))
    record = {**record, "context": context}
    facts = {
        name: record[key] for key, name in _FIELDS.items() if record.get(key) not in (None, {})
    }
    made = {
        "timeUnixNano": str(time),
        "severityText": level,
        "body": any_value(record.get("message")),
        "attributes": attributes_of(facts),
        **ids,
    }
    if level in _SEVERITIES:
        made["severityNumber"] = _SEVERITIES[level]
    return made


def _trace_context(context: Any) -> tuple[dict[str, Any], Any]:  # noqa: ANN401 - any JSON
    """Split a context into the ids of a span, as a log record has them, and everything else."""
    if not isinstance(context, dict):
        return {}, context
    found: dict[str, tuple[str, Any]] = {}
    for key, name, form, read in _IDS:
        if form.fullmatch(text := str(context.get(key))):
            found[key] = name, read(text)
    if "trace_id" not in found:  # a span is known by its trace alone
        return {}, context
    return dict(found.values()), {k: v for k, v in context.items() if k not in found}


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
