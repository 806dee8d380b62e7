"""Render the members of one log or error line as JSON text.

orjson does the work. What it rejects (lone surrogates, huge ints, circular containers, arbitrary
objects) is replaced with something readable: a message must never be lost, or raise, because of a
value in its context. Large values are described or truncated before rendering: a batch of images
must not cost seconds.
"""

from __future__ import annotations

import contextlib
import math
import re
from array import array
from collections import deque
from collections.abc import Mapping
from itertools import islice
from reprlib import recursive_repr
from typing import Any, NamedTuple

import orjson

from foundry_fastlog.base.unread import (
    args_of,
    class_name,
    described_unread,
    parts_of,
    shows_unread,
)

_MAX_DEPTH = 32
_MAX_ITEMS = 1000  # items of an array written as a list, or of bytes shown
_MANY = 10_000  # total items of a context; beyond this it is truncated
_FEW = 6
_INT64 = 1 << 63
_LONG_DIGITS = 19
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % _LONG_DIGITS)
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
# Not OPT_SERIALIZE_NUMPY: with it, orjson imports numpy at the first unknown object.
_OPTIONS = orjson.OPT_NON_STR_KEYS
_SCALARS = frozenset((int, float, str, bool, type(None)))
_CONTAINERS = (Mapping, list, tuple, set, frozenset)
# Unlike arrays and tensors, the text of these shows every item.
_SEQUENCES = (bytes, bytearray, array, deque)


class Bounds(NamedTuple):
    """How much of a context to keep: items per container, items in all, characters per text."""

    items: int
    total: int
    chars: int


IN_A_LINE = Bounds(_MAX_ITEMS, _MANY, 1 << 20)
IN_MEMORY = Bounds(100, _MAX_ITEMS, 4000)


def safe_str(value: object) -> str:
    """Return `str(value)`, or a description of the type if that fails.

    A tensor that must not be read is described, also inside other values: see base/unread.py.
    """
    try:
        text = (None if type(value) is str else _unread_text(value)) or str(value)
    except (KeyboardInterrupt, SystemExit):  # raised by a signal, not by the value
        raise
    except BaseException as error:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<{class_name(type(value))} whose str() raised {class_name(type(error))}>"
    return _valid(text)


def _unread_text(value: object) -> str | None:
    """Return a text for an unread tensor, or for a value that would show one; otherwise None."""
    if (known := described_unread(value)) is not None:
        return known
    return _text_around(value) if shows_unread(value) else None


@recursive_repr()
def _text_around(value: Any) -> str:  # noqa: ANN401 - what shows a tensor that is not read
    if isinstance(value, BaseException):  # without its own __str__: format it as the default does
        args = args_of(value)
        return safe_str(args[0]) if len(args) == 1 else f"({', '.join(map(_part, args))})"
    if isinstance(value, _CONTAINERS):
        return str(readable(value, IN_MEMORY))
    if names := getattr(type(value), "__dataclass_fields__", None):
        shown = [f"{name}={_part(getattr(value, name))}" for name in names]
    else:
        shown = [_part(part) for part in islice(parts_of(value), IN_MEMORY.items)]
    return f"{class_name(type(value))}({', '.join(shown)})"


def _part(value: object) -> str:
    return repr(value) if isinstance(value, str) else safe_str(value)


def text_of_value(value: object) -> str:
    """Return the text of a value, shortened if it is large."""
    large = described(value)
    if large is None and _is_container(value) and outgrows(value, _MAX_ITEMS):
        value = readable(value, IN_MEMORY)
    return safe_str(value) if large is None else large


def cut(text: str, limit: int) -> str:
    """Return a text, or its beginning and its length."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def described(value: object) -> str | None:
    """Describe an unread tensor, or a large array or sequence; None for anything else.

    Elements are not read, except for a few on the host.
    """
    if (known := described_unread(value)) is not None:
        return known
    try:
        if isinstance(value, _SEQUENCES):
            if len(value) <= _MAX_ITEMS:
                return None
            few = ", ".join(map(_short, islice(value, _FEW)))
            return f"<{class_name(type(value))} of {len(value)} items: {few}, ...>"
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        if not isinstance(shape, tuple) or dtype is None or math.prod(shape) <= _MAX_ITEMS:
            return None
        text = f"{class_name(type(value))} of {dtype}, shape {tuple(shape)}"
    except Exception:  # noqa: BLE001 - a value of any type, with any property
        return None
    try:  # the beginning of the first row, without copying it all
        first = value[(0,) * (len(shape) - 1)] if len(shape) > 1 else value  # type: ignore[index]
        few = ", ".join(map(_short, first[:_FEW].tolist()))  # type: ignore[index]
    except Exception:  # noqa: BLE001 - such as from a sparse tensor
        return f"<{text}>"
    return f"<{text}: {few}, ...>"


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else cut(safe_str(value), 40)


def _is_container(value: object) -> bool:
    try:
        return isinstance(value, _CONTAINERS)
    except Exception:  # noqa: BLE001 - from the class's own __class__
        return False


def outgrows(value: Any, limit: int) -> bool:  # noqa: ANN401 - a container of anything
    """Return whether a container has more than `limit` items, at all depths."""
    left = limit
    waiting = [value]
    try:
        while waiting:
            one = waiting.pop()
            left -= len(one)
            if left < 0:
                return True
            values = one.values() if isinstance(one, Mapping) else one
            waiting += [item for item in values if _is_container(item)]
    except Exception:  # noqa: BLE001 - a container of any type, including in its str()
        return True
    return False


def read_context(context: Mapping[Any, Any]) -> dict[Any, Any]:
    """Copy a mapping of any type; name what cannot be read."""
    try:
        return dict(context)
    except Exception as error:  # noqa: BLE001 - from its own code
        return _read_items(context, error)


def plain_context(context: Mapping[Any, Any]) -> dict[Any, Any]:
    """Copy a context: large values described or truncated, others as JSON has them."""
    fields = read_context(context)
    if _SCALARS.issuperset(map(type, fields.values())):
        return fields
    return {
        key: value if _is_plain(value) else _Copy(IN_A_LINE).of(value)
        for key, value in fields.items()
    }


def _is_plain(value: Any) -> bool:  # noqa: ANN401 - anything
    """Return whether there is nothing to describe or truncate: a scalar or a short list."""
    if type(value) is list or type(value) is tuple:
        return len(value) <= _MAX_ITEMS and _SCALARS.issuperset(map(type, value))
    return type(value) in _SCALARS


def _read_items(context: Mapping[Any, Any], error: Exception) -> dict[Any, Any]:
    """Read a mapping that raises, one item at a time."""
    fields: dict[Any, Any] = {}
    try:
        for key in context:
            try:
                fields[key] = context[key]
            except Exception as fault:  # noqa: BLE001, PERF203 - as above
                fields[key] = f"<not read: {class_name(type(fault))}>"
    except Exception:  # noqa: BLE001 - as above
        fields["unreadable"] = f"{class_name(type(context))} raised {class_name(type(error))}"
    return fields


def _valid(text: str) -> str:
    # str's own method: a str enum is written as its text, not as its name.
    return str.encode(text, "utf-8", "backslashreplace").decode("utf-8")


def render_members(fields: Mapping[str, Any]) -> bytes:
    """Render a mapping as JSON members, without the enclosing braces.

    Args:
        fields: The line's fields in order. NaN and infinities anywhere become null.

    Returns:
        UTF-8 bytes such as ``b'"level":"INFO","message":"hi"'``.
    """
    try:
        rendered = orjson.dumps(fields, default=simpler, option=_OPTIONS)
        # orjson also writes unsigned 64-bit ints, which some readers of the lines do not accept.
        clean = _LONG_NUMBER.search(rendered) is None
    except (TypeError, RecursionError) as error:  # orjson.JSONEncodeError is a TypeError
        let_interrupts_through(error)
        clean = False
    if not clean:
        rendered = orjson.dumps(readable(fields), option=_OPTIONS)
    return rendered[1:-1]


def let_interrupts_through(error: BaseException) -> None:
    """Raise Ctrl-C, if that is what orjson reports as its own error."""
    if isinstance(error.__cause__, (KeyboardInterrupt, SystemExit)):
        raise error.__cause__


def nonfinite_fields(context: Mapping[str, Any]) -> dict[str, str]:
    """Name the non-finite floats in a context, which JSON can only write as null.

    Args:
        context: Any mapping; nested mappings and sequences are searched.

    Returns:
        ``{"loss": "nan", "grads.0": "-inf"}``: dotted path to ``"nan"``, ``"inf"`` or ``"-inf"``.
    """
    found: dict[str, str] = {}
    _find_nonfinite(context, "", 0, found)
    return found


def _find_nonfinite(value: object, path: str, depth: int, found: dict[str, str]) -> None:
    with contextlib.suppress(Exception):  # a value of an unreadable type has no numbers to name
        _search_nonfinite(value, path, depth, found)


def _search_nonfinite(value: object, path: str, depth: int, found: dict[str, str]) -> None:
    if _is_numpy(value):
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
    """Return what to write for a numpy scalar or array, None if it is written as text."""
    return value.tolist() if isinstance(_numpy_json(value), (orjson.Fragment, list)) else None


def _is_numpy(value: object) -> bool:
    return bool(type(value).__module__ == "numpy")


def _numpy_json(value: object) -> object:
    """Return what orjson accepts for a numpy scalar or array."""
    if getattr(value, "size", 0) > _MAX_ITEMS and (large := described(value)) is not None:
        return large
    try:
        rendered = orjson.dumps(value, None, _NUMPY)
    except TypeError:  # a type that JSON does not have, or an array in another memory order
        return safe_str(value)
    if len(rendered) >= _LONG_DIGITS and _LONG_NUMBER.search(rendered):
        return _Copy(IN_A_LINE).of(orjson.loads(rendered))
    return orjson.Fragment(rendered)


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
    """Replace a value that orjson does not know: its ``default`` function."""
    if isinstance(value, float):  # above all numpy's float64
        return float(value)
    if _is_numpy(value):
        return _numpy_json(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    return text_of_value(value)


def readable(value: object, bounds: Bounds | None = None) -> object:
    """Copy `value` into something orjson always accepts: huge ints and the like become text.

    Args:
        value: Anything.
        bounds: How much of it to keep. Default: all.
    """
    return _Copy(bounds).of(value)


class _Copy:
    """Copies one value, see readable()."""

    def __init__(self, bounds: Bounds | None) -> None:
        self._bounds = bounds
        self._left = math.inf if bounds is None else bounds.total
        self._above: set[int] = set()

    def of(self, value: object, depth: int = 0) -> object:
        try:
            return self._of(value, depth)
        except Exception:  # noqa: BLE001 - a value of any type, whose methods raise anything
            return safe_str(value)

    def _of(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if -_INT64 <= value < _INT64 else self._text(str(int(value)))
        if isinstance(value, float):
            return float(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, _CONTAINERS):
            return self._container(value, depth)
        if self._bounds is not None and (large := described(value)) is not None:
            return large
        try:  # what orjson knows natively (dates, enums, dataclasses), and with help numpy
            rendered = orjson.dumps(value, default=simpler, option=_OPTIONS)
        except (TypeError, RecursionError) as error:
            let_interrupts_through(error)
            return self._text(text_of_value(value))
        known = orjson.loads(rendered)
        if b"null" in rendered and _is_numpy(value):
            known = _with_nonfinite(known, value.tolist())  # type: ignore[attr-defined]
        return self.of(known, depth + 1)

    def _text(self, text: str) -> str:
        return _valid(text if self._bounds is None else cut(text, self._bounds.chars))

    def _container(self, value: Any, depth: int) -> object:  # noqa: ANN401 - a container
        if id(value) in self._above:
            return "<circular reference>"
        if depth > _MAX_DEPTH:
            return "<nested too deep>"
        self._above.add(id(value))
        try:
            size = len(value)
            count = size
            if self._bounds is not None:
                count = min(size, self._bounds.items, max(0, int(self._left)))
                self._left -= count
            if isinstance(value, Mapping):
                pairs = islice(value.items(), count)
                fields = {_key(k): self.of(v, depth + 1) for k, v in pairs}
                return fields if count == size else {**fields, "...": f"({size} items)"}
            items = [self.of(item, depth + 1) for item in islice(value, count)]
            return items if count == size else [*items, f"... ({size} items)"]
        finally:
            self._above.discard(id(value))


def _with_nonfinite(known: Any, listed: Any) -> object:  # noqa: ANN401 - lists, or what is in them
    """Put back the numbers that JSON can only write as null."""
    if isinstance(known, list):
        return [_with_nonfinite(*pair) for pair in zip(known, listed, strict=True)]
    return listed if known is None else known
