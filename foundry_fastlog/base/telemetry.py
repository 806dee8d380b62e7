"""What OpenTelemetry knows of this process: its resource, and the span that is active.

OpenTelemetry is never imported here: it is asked where the program has imported it. Its resource is
also in two environment variables, which need no package at all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from sys import modules
from typing import Any

__all__ = ["RECORD_FIELDS", "TRACE", "resource", "span_of_record", "with_span"]

#: The module that knows the active span, if the program has imported it.
TRACE = "opentelemetry.trace"

#: What OpenTelemetry's instrumentation of `logging` adds to each LogRecord.
RECORD_FIELDS = ("otelTraceID", "otelSpanID", "otelTraceSampled", "otelServiceName")

_LOGS = "opentelemetry._logs"
_SDK = "opentelemetry.sdk.resources"
_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"
_SERVICE = "OTEL_SERVICE_NAME"

_log = logging.getLogger("foundry_fastlog")


def with_span(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the ids of the active span to a message's fields, if there is one.

    They are named and written as the specification has it for logs that are not OTLP
    (https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/): ``trace_id``,
    ``span_id`` and ``trace_flags``, in lower-case hexadecimal digits.

    Args:
        context: The message's own fields. Those with these names stay as they are.
    """
    try:
        span = modules[TRACE].get_current_span().get_span_context()
        if not span.is_valid:
            return context
        return _added(context, f"{span.trace_id:032x}", f"{span.span_id:016x}", span.trace_flags)
    except Exception:  # noqa: BLE001 - half imported, another tracer's span: the message counts
        return context


def span_of_record(record: logging.LogRecord, context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the ids that OpenTelemetry's instrumentation of `logging` noted in a LogRecord.

    They are those of the span in which the message was logged, also where a handler gets it later
    and in another thread. Outside of a span the instrumentation notes ``"0"``, which is no id.

    Args:
        record: The record.
        context: Its fields, as for `with_span`.
    """
    trace, span = getattr(record, "otelTraceID", "0"), getattr(record, "otelSpanID", "0")
    if trace == "0" or span == "0":
        return context
    return _added(context, trace, span, bool(getattr(record, "otelTraceSampled", False)))


def _added(context: Mapping[str, Any], trace: str, span: str, flags: int) -> Mapping[str, Any]:
    ids = {"trace_id": trace, "span_id": span, "trace_flags": f"{flags:02x}"}
    return {**context, **ids} if ids.keys().isdisjoint(context) else context


def resource() -> dict[str, Any]:
    """Return the attributes of OpenTelemetry's resource; none where there is no OpenTelemetry.

    They are those of the program's tracer or logger provider, if the SDK is in use, which has
    merged the environment's into them; otherwise the environment's.
    """
    if _SDK in modules:
        for name, provider in ((TRACE, "get_tracer_provider"), (_LOGS, "get_logger_provider")):
            if known := _of_provider(name, provider):
                return known
    return _of_environment(os.environ.get(_ATTRIBUTES, ""), os.environ.get(_SERVICE, ""))


def _of_provider(name: str, provider: str) -> dict[str, Any]:
    try:
        return dict(getattr(modules[name], provider)().resource.attributes)
    except Exception:  # noqa: BLE001 - none was set, or one that has no resource
        return {}


def _of_environment(attributes: str, service: str) -> dict[str, Any]:
    """Read the two variables as the specification has it.

    (https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable):
    ``key=value`` pairs with commas between them, as in W3C's Baggage, all values texts, keys and
    values percent-encoded. On any error the whole variable is discarded, and the error reported.
    An empty variable is as good as none. ``OTEL_SERVICE_NAME`` takes precedence over the attribute
    ``service.name`` (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
    """
    found = {}
    if attributes.strip():
        try:
            found = _pairs(attributes)
        except ValueError as error:
            _log.warning(
                "%s is left out of the run: %s. It must be key=value pairs with commas between "
                "them, with any other comma and equals sign percent-encoded",
                _ATTRIBUTES,
                error,
            )
    return {**found, "service.name": service} if service else found


def _pairs(text: str) -> dict[str, str]:
    from urllib.parse import unquote  # imported here: few programs have the variable

    found = {}
    for item in filter(str.strip, text.split(",")):
        key, equals, value = item.partition("=")
        name = unquote(key.strip(), errors="strict")
        if not equals or not name:
            raise ValueError(f"{item.strip()!r} is no key=value")
        found[name] = unquote(value.strip(), errors="strict")
    return found
