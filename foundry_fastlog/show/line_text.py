"""A line of a run as human-readable text, as ``foundry-fastlog tail`` shows it."""

from __future__ import annotations

from rich.text import Text

from foundry_fastlog.base.formatting import format_seconds, format_value, printable
from foundry_fastlog.reading.lines import Record, restore_nonfinite
from foundry_fastlog.run.files import Series

__all__ = ["format_line"]

_LEVEL_STYLES = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}


def format_line(series: Series, record: Record, *, unlabelled: str = "") -> Text:
    """Format a line of a run as readable text: time (UTC), writer, stream, step, content.

    Args:
        series: Where it is from.
        record: The line.
        unlabelled: What the writer without a label is called.
    """
    restore_nonfinite(record)
    moment = str(record["timestamp"])[:23].replace("T", " ") + "Z"
    text = Text(printable(moment), "dim").append(" ")
    if writer := series.writer.label or unlabelled:
        text.append(f"{writer} ", "magenta")
    text.append(f"{series.stream} ", "cyan")
    for name in ("epoch", "step"):
        if record.get(name) is not None:
            text.append(f"{name}={record[name]} ", "bold")
    if "dropped" in record:
        return text.append(f"{record['dropped']} records were dropped here", "yellow")
    if "rewind" in record:
        return text.append(f"went back to step {record['rewind']}", "yellow")
    if series.stream == "system":
        values = record["system"]
        return text.append(" ".join(f"{printable(k)}={format_value(v)}" for k, v in values.items()))
    if series.stream == "metrics":
        body = record.get("metrics")
        values = record["summary"] if body is None else body
        reasons = record.get("missing") or {}
        shown = (f"{printable(k)}={format_value(v)}{_why(k, reasons)}" for k, v in values.items())
        return text.append(" ".join(shown))
    if series.stream == "performance":
        depth = record.get("depth")
        indent = min(depth, 8) if type(depth) is int else 0
        text.append("  " * indent + printable(record["name"]))
        text.append(f" {format_seconds(record['duration_s'])}")
        if record.get("device") is not None:
            text.append(f", {printable(record['device'])} {_device_time(record)}")
        return (
            text.append(f" {printable(str(record['error']))}", "red") if "error" in record else text
        )
    level = record["level"]
    text.append(f"{printable(level)} ", _LEVEL_STYLES.get(level, ""))
    text.append(printable(record["message"]))
    if record.get("error_type"):
        what = f"{record['error_type']}: {record.get('error_message', '')}"
        if what != record["message"]:  # an ErrorTracker's message already contains it
            text.append(printable(f" [{what}]", 160), "red")
    for key, value in record.get("context", {}).items():
        text.append(f" {printable(key)}={format_value(value)}", "dim")
    return text


def _why(name: str, reasons: dict[str, str]) -> str:
    """Return, in parentheses, why a value is missing; empty if it is not."""
    return f" ({printable(reasons[name], 24)})" if name in reasons else ""


def _device_time(record: Record) -> str:
    taken = record.get("device_duration_s")
    if taken is not None:
        return format_seconds(taken)
    return "null" + _why("device_duration_s", record.get("missing") or {})
