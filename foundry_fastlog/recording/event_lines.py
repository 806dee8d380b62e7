"""Lines that may be too large for the ring: events are cut, epoch summaries are split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from foundry_fastlog.base.json_text import Bounds, cut, nonfinite_fields, readable, render_members

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
        if key in short:
            short[key] = cut(str(short[key]), share // 6)
    if len(text := str(short.get("traceback", ""))) > share // 2:
        short["traceback"] = f"({len(text)} characters) ..." + text[-share // 2 :]
    size = len(render_members(short["context"]))
    if size > share:
        short["context"] = _smaller(short["context"], size, share)
        short["nonfinite"] = nonfinite_fields(short["context"])
    if "nonfinite" in short and not 0 < len(render_members(short["nonfinite"])) <= share // 2:
        short.pop("nonfinite")
    return short


def _smaller(context: Mapping[str, Any], size: int, limit: int) -> object:
    """Cut long values of a context until it fits: the others stay as they are."""
    chars, items = limit // 8, 256
    while chars > 8:
        fields = {key: readable(v, Bounds(items, items, chars)) for key, v in context.items()}
        if len(render_members(fields)) <= limit:
            return fields
        chars, items = chars // 4, items // 2
    head = render_members(context)[: limit // 4].decode("utf-8", "replace")
    return {"truncated": head, "bytes": size}
