"""Lines that may be too large for the ring: events are cut, epoch summaries are split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from foundry_fastlog.members import nonfinite_fields, render_members

__all__ = ["shortened", "summary_members"]


def summary_members(epoch: float, values: Mapping[str, Any], limit: int) -> Iterator[bytes]:
    """Render an epoch summary as the members of one line, or of several.

    Args:
        epoch: The epoch.
        values: Values by name, as metric_value() returns them.
        limit: The largest size of one line's members in bytes.

    Yields:
        Members of at most that size: of halves, where the whole is too large.
    """
    fields: dict[str, Any] = {"epoch": epoch, "summary": values}
    if nonfinite := _nonfinite_values({"epoch": epoch}) | _nonfinite_values(values):
        fields["nonfinite"] = nonfinite
    members = render_members(fields)
    if len(members) <= limit:
        yield members
        return
    if len(values) > 1:
        items, half = list(values.items()), len(values) // 2
        yield from summary_members(epoch, dict(items[:half]), limit)
        yield from summary_members(epoch, dict(items[half:]), limit)
        return
    ((name, value),) = values.items()  # one text, or one name, that is larger than all
    room = limit // 16
    name = name if len(name) <= room else f"{name[:room]}... ({len(name)} characters)"
    if isinstance(value, str) and len(value) > room:
        value = f"{value[:room]}... ({len(value)} characters)"
    yield from summary_members(epoch, {name: value}, limit)


def _nonfinite_values(values: Mapping[str, Any]) -> dict[str, str]:
    """Name the non-finite ones among values without nesting, by their keys as they are written."""
    odd = {
        name: value
        for name, value in values.items()
        if isinstance(value, float) and not math.isfinite(value)
    }
    return nonfinite_fields(odd)


def shortened(fields: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Cut an event that is too large for the ring down to what fits, saying so.

    Args:
        fields: The line's fields.
        limit: The largest size of its members in bytes.
    """
    share = limit // 9  # at most six bytes a character: four texts, a traceback of three, context
    short = dict(fields)
    for key in ("message", "error_message", "logger", "error_type"):
        if len(text := str(short.get(key, ""))) > share // 6:
            short[key] = text[: share // 6] + f"... ({len(text)} characters)"
    if len(text := str(short.get("traceback", ""))) > share // 2:
        short["traceback"] = f"({len(text)} characters) ..." + text[-share // 2 :]
    context = render_members(short["context"])
    if len(context) > share:
        head = context[: share // 4].decode("utf-8", "replace")
        short["context"] = {"truncated": head, "bytes": len(context)}
        short.pop("nonfinite", None)
    elif len(render_members(short.get("nonfinite", {}))) > share // 2:
        short.pop("nonfinite")
    return short
