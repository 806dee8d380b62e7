"""The two older format styles: ``"..." % values`` and ``"...".format(values)``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from string import Formatter

from foundry_fastlog.migrate.model import LeftAloneError

__all__ = ["Piece", "is_layout", "is_padded", "split_braces", "split_percent"]

# Alignment, sign, width, grouping, precision: they change how a value looks, not its meaning.
_LAYOUT = re.compile(
    r"(?:.?[<>=^])?[ +-]?z?#?0?(?P<width>\d*)[,_]?(?:\.\d+)?[sdnfFeEgG%]?", re.DOTALL
)
_PERCENT = re.compile(
    r"%(?:\((?P<key>[^()]*)\))?(?P<flags>[#0 +-]*)(?P<width>\d+|\*)?(?:\.(?P<precision>\d*|\*))?"
    r"[hlL]?(?P<code>[diouxXeEfFgGcrsa%])"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a format: a text, and the value after it.

    Attributes:
        before: The text.
        key: Which value: its index or name; None for the next one, or if there is none.
        spec: The format spec that its field keeps, "" for the value itself; None: no value.
        padded: Whether the format gives the value a column of fixed width.
    """

    before: str
    key: str | int | None = None
    spec: str | None = None
    padded: bool = False


def is_padded(spec: str) -> bool:
    """Return whether a format spec is only layout, with a width."""
    match = _LAYOUT.fullmatch(spec)
    return match is not None and bool(match["width"])


def is_layout(spec: str) -> bool:
    """Return whether a format spec only rounds, pads, aligns or groups.

    The field then keeps the value itself. Other specs add meaning: base 16, a date's format,
    the result of a type's own ``__format__``.
    """
    return _LAYOUT.fullmatch(spec) is not None


def split_percent(text: str) -> Iterator[Piece]:
    """Split a %-format.

    Args:
        text: The format.

    Yields:
        A piece for each value, and one for the text after the last one.

    Raises:
        LeftAloneError: The format is not understood.
    """
    before, position = "", 0
    while (found := text.find("%", position)) >= 0:
        before += text[position:found]
        match = _PERCENT.match(text, found)
        if match is None:
            raise LeftAloneError("its %-format is not understood")
        position = match.end()
        code, flags = match["code"], match["flags"]
        if code == "%":
            before += "%"
            continue
        if "*" in (match["width"], match["precision"]):
            raise LeftAloneError("its %-format takes a width from its values")
        spec = ""
        if code in "oxXc":
            if code == "c" or match["precision"] or set(flags) - set("#0"):
                raise LeftAloneError(f"its format {match.group()} has no equivalent in format()")
            spec = f"{'#' * ('#' in flags)}{'0' * ('0' in flags)}{match['width'] or ''}{code}"
        yield Piece(before, match["key"], spec, bool(match["width"]))
        before = ""
    yield Piece(before + text[position:])


def split_braces(text: str) -> Iterator[Piece]:
    """Split a format for ``str.format``.

    Args:
        text: The format.

    Yields:
        A piece for each value, and one for the text after the last one.

    Raises:
        LeftAloneError: The format is not understood, or accesses parts of its arguments.
    """
    try:
        pieces = list(Formatter().parse(text))
    except ValueError:
        raise LeftAloneError("its format is not valid") from None
    counter, before = 0, ""
    for literal, name, spec, conversion in pieces:
        before += literal
        if name is None:
            continue
        if re.search(r"[.\[]", name):
            raise LeftAloneError("its format accesses parts of its arguments")
        if spec and "{" in spec:
            raise LeftAloneError("its format takes a width from its values")
        argument: str | int = int(name) if name.isdecimal() else name
        if not name:
            argument, counter = counter, counter + 1
        kept = "" if conversion or is_layout(spec or "") else spec
        yield Piece(before, argument, kept, is_padded(spec or ""))
        before = ""
    yield Piece(before)
