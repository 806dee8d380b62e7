"""Format numbers, sizes and times for people."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

__all__ = [
    "TerminalJson",
    "format_bytes",
    "format_moment",
    "format_seconds",
    "format_value",
    "json_output",
    "jsonable",
    "printable",
    "printable_json",
    "text_of",
    "write_json",
]

# JSON may contain these as they are, but terminals act on some: DEL, C1, bidirectional marks.
_NOT_ASCII = re.compile(r"[^\x00-\x7e]+")


def format_number(value: float | None) -> str:
    """Format a number for a table: about four digits, an exponent only if needed."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    if 1e4 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:,.4g}"


def printable(text: str, limit: int = 0) -> str:
    """Make text safe for a terminal: escape control characters.

    Args:
        text: Any text, from a file that anyone may have written.
        limit: Truncate to this many characters, 0 for no limit.
    """
    if not text.isprintable():
        text = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
        )
    return text[: limit - 3] + "..." if 0 < limit < len(text) else text


def printable_json(text: bytes) -> bytes:
    r"""Make JSON safe for a terminal: the same value, unprintable characters as ``\\uXXXX``.

    Args:
        text: UTF-8 JSON, one value or lines of values.
    """
    if text.isascii() and b"\x7f" not in text:
        return text
    return _NOT_ASCII.sub(_escaped, text.decode("utf-8", "backslashreplace")).encode()


def _escaped(match: re.Match[str]) -> str:
    return "".join(char if char.isprintable() else _json_escape(char) for char in match.group())


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


class TerminalJson:
    """Standard output on a terminal: makes lines of JSON safe as they are written."""

    def __init__(self, handle: BinaryIO) -> None:
        """Write to a handle."""
        self._handle = handle

    def write(self, data: bytes) -> None:
        """Write whole lines."""
        self._handle.write(printable_json(data))

    def writelines(self, lines: Iterable[bytes]) -> None:
        """Write whole lines."""
        self._handle.writelines(map(printable_json, lines))

    def flush(self) -> None:
        """Flush the handle."""
        self._handle.flush()


def json_output() -> BinaryIO:
    """Return standard output for lines of JSON: byte for byte, unless it is a terminal."""
    sys.stdout.flush()
    handle = sys.stdout.buffer
    return cast("BinaryIO", TerminalJson(handle)) if sys.stdout.isatty() else handle


def write_json(data: bytes) -> None:
    """Write JSON to standard output as UTF-8, whatever its text encoding is."""
    if getattr(sys.stdout, "buffer", None) is None:  # a notebook's or test's stream takes only text
        sys.stdout.write(data.decode())
    else:
        json_output().write(data)
    sys.stdout.flush()


def jsonable(value: Any) -> Any:  # noqa: ANN401  # a result of any kind
    """Return dataclasses, mappings and sequences as JSON values.

    NaN and infinities, which strict JSON does not have, become ``nan``, ``inf`` and ``-inf``.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return str(value) if isinstance(value, Path) else value


def text_of(value: object) -> str:
    """Return a value of JSON that should be a text; "" where it is none."""
    return value if isinstance(value, str) else ""


def format_moment(timestamp: str) -> str:
    """Return a timestamp's date and time, in UTC; "" for none."""
    return printable(timestamp[:19].replace("T", " ")) + "Z" if timestamp else ""


def format_bytes(count: int) -> str:
    """Format a size: ``1.5 MB``."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_seconds(seconds: float) -> str:
    """Format a duration: ``45 ns``, ``12.3 us``, ``7.89 s``, ``2 min 03 s``, ``1 h 02 min``."""
    if not math.isfinite(seconds):
        return f"{seconds} s"
    if seconds < 0:  # never from a recorder
        return f"-{format_seconds(-seconds)}"
    if seconds < 1e-11:  # what sums of floats leave
        return "0 ns"
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
    """Format a metric's value for a table."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return format_number(value)
    return printable(str(value), 24)
