"""Numbers, sizes, times and lines of a run, as people read them on a terminal."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from foundry_fastlog.curve import format_number
from foundry_fastlog.files import Series
from foundry_fastlog.lines import Record, restore_nonfinite

__all__ = ["format_bytes", "format_line", "format_seconds", "format_value", "printable"]

_LEVEL_STYLES = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}


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


def format_line(series: Series, record: Record) -> Text:
    """Write a line of a run for people: time, writer, stream, step, what it says."""
    restore_nonfinite(record)
    moment = str(record["timestamp"])[:23].replace("T", " ")
    text = Text(printable(moment), "dim").append(" ")
    if series.writer.label:
        text.append(f"{series.writer.label} ", "magenta")
    text.append(f"{series.stream} ", "cyan")
    for name in ("epoch", "step"):
        if record.get(name) is not None:
            text.append(f"{name}={record[name]} ", "bold")
    if "dropped" in record:
        return text.append(f"{record['dropped']} records were dropped here", "yellow")
    if series.stream == "metrics":
        body = record.get("metrics")
        values = record["summary"] if body is None else body
        return text.append(" ".join(f"{printable(k)}={format_value(v)}" for k, v in values.items()))
    if series.stream == "performance":
        text.append("  " * min(int(record.get("depth") or 0), 8) + printable(record["name"]))
        text.append(f" {format_seconds(record['duration_s'])}")
        return (
            text.append(f" {printable(str(record['error']))}", "red") if "error" in record else text
        )
    level = record["level"]
    text.append(f"{printable(level)} ", _LEVEL_STYLES.get(level, ""))
    text.append(printable(record["message"]))
    if record.get("error_type"):
        what = f"{record['error_type']}: {record.get('error_message', '')}"
        if what != record["message"]:  # an ErrorTracker's message says it all
            text.append(printable(f" [{what}]", 160), "red")
    for key, value in record.get("context", {}).items():
        text.append(f" {printable(key)}={format_value(value)}", "dim")
    return text
