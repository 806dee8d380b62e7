"""The two older format styles: ``"..." % values`` and ``"...".format(values)``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import Formatter

from foundry_fastlog.migrate.model import LeftAloneError

__all__ = ["is_layout", "split_braces", "split_percent"]

# Alignment, sign, width, grouping, precision: they change how a value looks, not its meaning.
_LAYOUT = re.compile(r"(?:.?[<>=^])?[ +-]?z?#?0?\d*[,_]?(?:\.\d+)?[sdnfFeEgG%]?", re.DOTALL)
_PERCENT = re.compile(
    r"%(?:\((?P<key>[^()]*)\))?(?P<flags>[#0 +-]*)(?P<width>\d+|\*)?(?:\.(?P<precision>\d*|\*))?"
    r"[hlL]?(?P<code>[diouxXeEfFgGcrsa%])"
)


def is_layout(spec: str) -> bool:
    """Return whether a format spec only rounds, pads, aligns or groups.

    The field then keeps the value itself. Other specs add meaning: base 16, a date's format,
    the result of a type's own ``__format__``.
    """
    return _LAYOUT.fullmatch(spec) is not None


def split_percent(text: str) -> Iterator[tuple[str, str | None, str] | tuple[str, None, None]]:
    """Split a %-format into (text before, key, spec to keep) of each value.

    Args:
        text: The format.

    Yields:
        The text before each value, its key or None, and the spec that its field keeps ("" for
        the value itself). The last item, with spec None, has the text after the last value.

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
        yield before, match["key"], spec
        before = ""
    yield before + text[position:], None, None


def split_braces(text: str) -> Iterator[tuple[str, str | int | None, str | None]]:
    """Split a format for ``str.format`` into (text before, which argument, spec to keep).

    Args:
        text: The format.

    Yields:
        The text before each value, the index or name of its argument, and the spec that its
        field keeps. The last item, with argument None, has the text after the last value.

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
        yield before, argument, kept
        before = ""
    yield before, None, None
