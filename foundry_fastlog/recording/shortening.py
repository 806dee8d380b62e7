"""Events that are too large for the ring: which they are, and what is left of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundry_fastlog.base.json_text import Bounds, cut, nonfinite_fields, readable, render_members

__all__ = ["HUGE", "SHORT", "has_long_text", "shortened"]

#: Characters or bytes that fit into the smallest ring.
SHORT = 8 << 10
#: Characters; longer texts are cut before rendering, which takes several times their size.
HUGE = 8 << 20


def has_long_text(fields: Mapping[Any, Any], limit: int = SHORT) -> bool:
    """Return whether a text is longer than so many characters, nested ones aside."""
    for value in fields.values():  # noqa: SIM110 - any() takes twice as long
        if type(value) is str and len(value) > limit:
            return True
    return False


def shortened(fields: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Truncate an event that is too large for the ring, and mark what was cut.

    Args:
        fields: The line's fields.
        limit: The largest size of its members in bytes.
    """
    share = limit // 9  # up to 6 bytes per character; 4 texts, a traceback of 3 shares, context
    short = dict(fields)
    for key in ("message", "error_message", "logger", "error_type"):
        if key in short:
            short[key] = cut(str(short[key]), share // 6)
    if len(text := str(short.get("traceback", ""))) > share // 2:
        short["traceback"] = f"({len(text)} characters) ..." + text[-share // 2 :]
    short["context"] = {
        key: cut(value, share // 8) if type(value) is str and len(value) > HUGE else value
        for key, value in short["context"].items()
    }
    size = len(render_members(short["context"]))
    if size > share:
        short["context"] = _smaller(short["context"], size, share)
        short["nonfinite"] = nonfinite_fields(short["context"])
    if "nonfinite" in short and not 0 < len(render_members(short["nonfinite"])) <= share // 2:
        short.pop("nonfinite")
    return short


def _smaller(context: Mapping[str, Any], size: int, limit: int) -> object:
    """Cut long values of a context until it fits; leave the others alone."""
    chars, items = limit // 8, 256
    while chars > 8:
        fields = {key: readable(v, Bounds(items, items, chars)) for key, v in context.items()}
        if len(render_members(fields)) <= limit:
            return fields
        chars, items = chars // 4, items // 2
    head = render_members(context)[: limit // 4].decode("utf-8", "replace")
    return {"truncated": head, "bytes": size}
