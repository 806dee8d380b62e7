"""Render the members of one log or error line as JSON text.

orjson does the work. What it refuses (lone surrogates, huge ints, circular containers, objects of
any kind) is replaced by something readable: a message must never be lost, nor raise, because of
what somebody put into its context.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import orjson

_MAX_DEPTH = 32
_INT64 = 1 << 63
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def safe_str(value: object) -> str:
    """Return `str(value)`, or a description of the type when that fails."""
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<{type(value).__name__} whose str() raised {type(error).__name__}>"
    return _valid(text)


def _valid(text: str) -> str:
    # str's own method: an enum of texts is written as its text, not as its name.
    return str.encode(text, "utf-8", "backslashreplace").decode("utf-8")


def render_members(fields: Mapping[str, Any]) -> bytes:
    """Render a mapping as JSON members without the braces around them.

    Args:
        fields: The line's fields in order. NaN and infinities anywhere in it become null.

    Returns:
        UTF-8 bytes such as ``b'"level":"INFO","message":"hi"'``.
    """
    try:
        rendered = orjson.dumps(fields, default=simpler, option=_OPTIONS)
        # orjson writes unsigned 64-bit ints too, which not every reader of the lines takes.
        clean = _LONG_NUMBER.search(rendered) is None
    except (TypeError, RecursionError):  # orjson.JSONEncodeError is a TypeError
        clean = False
    if not clean:
        rendered = orjson.dumps(readable(fields), option=_OPTIONS)
    return rendered[1:-1]


def nonfinite_fields(context: Mapping[str, Any]) -> dict[str, str]:
    """Name the non-finite floats in a context, which JSON can only show as null.

    Args:
        context: Any mapping; nested mappings and sequences are searched.

    Returns:
        ``{"loss": "nan", "grads.0": "-inf"}``: dotted path to ``"nan"``, ``"inf"`` or ``"-inf"``.
    """
    found: dict[str, str] = {}
    _find_nonfinite(context, "", 0, found)
    return found


def _find_nonfinite(value: object, path: str, depth: int, found: dict[str, str]) -> None:
    if type(value).__module__ == "numpy":
        value = _from_numpy(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            found[path] = "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
        return
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        items = [(_key(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return
    for key, item in items:
        _find_nonfinite(item, f"{path}.{key}" if path else key, depth + 1, found)


def _from_numpy(value: Any) -> object:  # noqa: ANN401 - numpy may not be installed
    """Return a numpy scalar or array as orjson shows it, None where it is shown as text."""
    try:
        orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        return None
    return value.tolist()


def _key(key: object) -> str:
    """Return the text of a mapping's key, as orjson writes it."""
    if isinstance(key, str):
        return _valid(key)
    try:
        known: dict[str, int] = orjson.loads(orjson.dumps({key: 0}, option=_OPTIONS))
    except TypeError:
        return safe_str(key)
    return next(iter(known))


def simpler(value: object) -> object:
    """Replace what orjson does not know: its ``default``."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    return safe_str(value)


def readable(value: object) -> object:
    """Copy `value` into something that orjson certainly takes: huge ints and the like as text."""
    return _readable(value, 0, set())


def _readable(value: object, depth: int, above: set[int]) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else str(int(value))
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return _valid(value)
    if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
        try:  # what orjson knows by itself: dates, enums, dataclasses, numpy
            known = orjson.loads(orjson.dumps(value, option=_OPTIONS))
        except (TypeError, RecursionError):
            return safe_str(value)
        return _readable(known, depth + 1, above)
    if id(value) in above:
        return "<circular reference>"
    if depth > _MAX_DEPTH:
        return "<nested too deep>"
    above.add(id(value))
    try:
        if isinstance(value, Mapping):
            return {_key(k): _readable(v, depth + 1, above) for k, v in value.items()}
        return [_readable(item, depth + 1, above) for item in value]
    finally:
        above.discard(id(value))
