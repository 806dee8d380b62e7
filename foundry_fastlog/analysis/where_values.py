"""What names, operators and functions of ``--where`` give; see ``where``."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = [
    "ABSENT",
    "ARITHMETIC",
    "CALLABLE",
    "COMPARISONS",
    "FUNCTIONS",
    "Lookup",
    "NamePath",
    "computed",
    "find_in",
    "look",
]

_MOST_BITS = 4096  # of a power of integers

#: What functions there are.
FUNCTIONS = {
    "match": "match(name, 'pattern'): whether a regular expression is found in a text",
    "has": "has(name): whether there is such a value",
    "isnan": "isnan(x): whether x is NaN",
    "abs": "abs(x): x without its sign",
    "len": "len(x): how long a text or a list is",
}


class _Absent:
    """What a name is that nothing has."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Any = _Absent()

#: Returns the value of a name's first part; ``ABSENT`` where there is none.
Lookup = Callable[[str], Any]
NamePath = tuple[str | int, ...]


def find_in(value: Any, parts: Iterable[str | int]) -> Any:  # noqa: ANN401 - any JSON
    """Return what a path leads to in JSON values; ``ABSENT`` where it leads nowhere.

    A key may itself have dots: ``("val", "loss")`` also finds ``{"val.loss": 1}``, and
    ``("val.loss",)`` also finds ``{"val": {"loss": 1}}``.
    """
    rest = tuple(parts)
    if not rest:
        return value
    if isinstance(value, list):
        part = rest[0]
        inside = isinstance(part, int) and -len(value) <= part < len(value)
        return find_in(value[part], rest[1:]) if inside else ABSENT  # type: ignore[index]
    if not isinstance(value, Mapping):
        return ABSENT
    for count in range(1, len(rest) + 1):
        key = ".".join(map(str, rest[:count]))
        if key in value and (found := find_in(value[key], rest[count:])) is not ABSENT:
            return found
    if isinstance(rest[0], str) and "." in rest[0]:
        return find_in(value, (*rest[0].split("."), *rest[1:]))
    return ABSENT


def look(path: NamePath, lookup: Lookup) -> Any:  # noqa: ANN401 - any JSON
    """Return the value of a name; ``ABSENT`` where there is none."""
    value = lookup(str(path[0]))
    return find_in(value, path[1:]) if len(path) > 1 else value


def computed(compute: Callable[..., Any], *operands: Any) -> Any:  # noqa: ANN401 - numbers
    """Compute with numbers; absent where that cannot be done."""
    if not all(isinstance(operand, (int, float)) for operand in operands):
        return ABSENT
    try:
        value = compute(*operands)
    except (ArithmeticError, ValueError):  # divided by 0; beyond a float
        return ABSENT
    return value if isinstance(value, (int, float)) else ABSENT  # a root of a negative number


def _power(base: float, exponent: float) -> Any:  # noqa: ANN401 - any number
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and int(base).bit_length() * abs(exponent) > _MOST_BITS:
        return ABSENT
    return base**exponent


def _isnan(value: Any) -> bool:  # noqa: ANN401 - any JSON
    return isinstance(value, float) and value != value  # as only NaN


def _abs(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return computed(abs, value)


def _len(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return len(value) if isinstance(value, (str, list, dict, tuple)) else ABSENT


def _contains(item: Any, holder: Any) -> bool:  # noqa: ANN401 - any JSON
    return item in holder


ARITHMETIC: dict[type[ast.operator], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: _contains,
    ast.NotIn: lambda item, holder: item not in holder,
}

#: What functions of one value there are besides ``has``.
CALLABLE: dict[str, Callable[[Any], Any]] = {"isnan": _isnan, "abs": _abs, "len": _len}
