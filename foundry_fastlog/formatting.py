"""Numbers, sizes and times, as people read them on a terminal."""

from __future__ import annotations

import math
from typing import Any

from foundry_fastlog.curve import format_number

__all__ = ["format_bytes", "format_seconds", "format_value", "printable"]


def printable(text: str, limit: int = 0) -> str:
    """Make text safe for a terminal: control characters become their escapes.

    Args:
        text: Any text, from a file that anyone may have written.
        limit: Cut to this many characters, 0 for no limit.
    """
    if not text.isprintable():
        text = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
        )
    return text[: limit - 3] + "..." if 0 < limit < len(text) else text


def format_bytes(count: int) -> str:
    """Write a size: ``1.5 MB``."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_seconds(seconds: float) -> str:
    """Write a duration: ``45 ns``, ``12.3 us``, ``7.89 s``, ``2 min 03 s``, ``1 h 02 min``."""
    if not math.isfinite(seconds):
        return f"{seconds} s"
    if seconds < 0:  # no recorder's
        return f"-{format_seconds(-seconds)}"
    if seconds < 1e-6:
        return f"{seconds * 1e9:.3g} ns"
    if seconds < 0.001:
        return f"{seconds * 1e6:.3g} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def format_value(value: Any) -> str:  # noqa: ANN401  # a metric may be any JSON value
    """Write a metric's value for a table."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return format_number(value)
    return printable(str(value), 24)
