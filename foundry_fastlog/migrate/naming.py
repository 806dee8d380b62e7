"""Names for the fields of a log call, from the expressions and the words around them."""

from __future__ import annotations

import keyword
import re

import libcst as cst

from foundry_fastlog.migrate.template import literal_text

__all__ = ["RESERVED", "identifier", "is_generic", "name_of", "usable"]

#: Names of the logger's own parameters and of the fixed members of a line.
RESERVED = frozenset(
    {"self", "level", "message", "exc_info", "stacklevel", "stack_info", "extra", "context"}
)

# Names without meaning; the words around the value say more.
_GENERIC = frozenset(
    {"n", "i", "j", "k", "x", "v", "val", "value", "num", "cnt", "count", "total", "tmp", "res"}
)
# Methods and functions whose result is the same thing as another type.
_SAME_METHODS = frozenset(
    [
        "item",
        "cpu",
        "detach",
        "numpy",
        "tolist",
        "copy",
        "clone",
        "strip",
        "rstrip",
        "lstrip",
        "lower",
        "upper",
        "title",
        "decode",
        "encode",
        "as_posix",
        "resolve",
        "absolute",
        "total_seconds",
        "isoformat",
        "strftime",
        "keys",
        "values",
        "items",
        "ljust",
        "rjust",
        "center",
        "replace",
        "format",
        "double",
        "float",
    ]
)
_SAME_FUNCTIONS = frozenset(
    [
        "str",
        "int",
        "float",
        "bool",
        "round",
        "abs",
        "list",
        "tuple",
        "set",
        "sorted",
        "repr",
        "format",
        "dict",
        "Path",
    ]
)
_OF_SOMETHING = frozenset(["mean", "sum", "min", "max", "std", "var", "norm", "median"])
# Functions that only make a value readable: the name is that of the value.
_READABLE = re.compile(
    r"_*(?:human\w*|pretty\w*|readable\w*|fmt\w*|format_\w+|shorten\w*|natural\w*|intcomma|\w+_str)"
)
_GETTERS = re.compile(r"^(?:get|compute|calculate|calc|format|fmt|fetch|to)_+(?=\w)")


_ONE_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")  # "non-decayed" is one

_PER_SECOND = re.compile(r"(?<=\w)/(?=(?:s|sec|second)\b)")


def identifier(words: str) -> str | None:
    """Make a field name from a few words; None if that is impossible."""
    name = re.sub(r"\W+", "_", _PER_SECOND.sub(" per ", words.lower())).strip("_")
    is_short = len(name) <= 40 and len(_ONE_WORD.findall(words)) < 5
    return name if name.isidentifier() and is_short else None


def is_generic(name: str) -> bool:
    """Return whether a name says nothing about its value."""
    return len(name) < 2 or name in _GENERIC


def usable(name: str) -> str:
    """Return a variant of a name that is valid as a keyword argument of a log call."""
    name = name.strip("_") or "value"
    if name.isupper():
        name = name.lower()
    if name in RESERVED or keyword.iskeyword(name) or not name.isidentifier():
        name = f"{name}_value" if f"{name}_value".isidentifier() else f"value_{name}"
    return name


def name_of(node: cst.BaseExpression) -> str | None:
    """Name a value by its expression: ``self.step`` is step, ``metrics["loss"]`` is loss.

    Returns:
        The name, or None if the expression suggests none.
    """
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        return _name_of_attribute(node)
    if isinstance(node, cst.Subscript):
        index = node.slice[0].slice
        key = literal_text(index.value) if isinstance(index, cst.Index) else None
        return name_of(node.value) if key is None else identifier(key)
    if isinstance(node, cst.Call):
        return _name_of_call(node)
    if isinstance(node, cst.NamedExpr):
        return name_of(node.target)
    if isinstance(node, cst.Await | cst.UnaryOperation):
        negated = isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Not)
        name = name_of(node.expression)
        return _joined("not", name) if negated else name
    if isinstance(node, cst.BooleanOperation):
        return name_of(node.left)
    if isinstance(node, cst.IfExp):
        return _common(name_of(node.body), name_of(node.orelse))
    if isinstance(node, cst.BinaryOperation):
        number = cst.Integer | cst.Float
        if isinstance(node.right, number):
            return name_of(node.left)
        return name_of(node.right) if isinstance(node.left, number) else None
    return None


def _joined(first: str | None, second: str | None) -> str | None:
    return f"{first.strip('_')}_{second.strip('_')}" if first and second else None


def _common(first: str | None, second: str | None) -> str | None:
    """Return the name of one of two values; None if they have different ones."""
    return (first or second) if first == second or None in (first, second) else None


def _name_of_attribute(node: cst.Attribute) -> str | None:
    attribute = node.attr.value
    if attribute in ("__name__", "__qualname__"):
        owner = node.value
        if isinstance(owner, cst.Attribute) and owner.attr.value == "__class__":
            return _joined(name_of(owner.value), "type")
        base = name_of(owner)
        return base if base and base.endswith("_type") else _joined(base, "name")
    if attribute in ("name", "shape", "dtype", "device", "size", "type", "id", "value"):
        base = name_of(node.value)
        return attribute if base in (None, "self", "cls") else _joined(base, attribute)
    return attribute.strip("_")


def _name_of_call(node: cst.Call) -> str | None:
    arguments = [item.value for item in node.args if not item.star and item.keyword is None]
    first = name_of(arguments[0]) if arguments else None
    function = node.func
    if isinstance(function, cst.Name):
        name = function.value
        if name in _SAME_FUNCTIONS or (first and _READABLE.fullmatch(name)):
            return first
        if name == "len":
            return _joined("num", first)
        if name == "type":
            return _joined(first, "type")
        if name in _OF_SOMETHING:
            return _joined(name, first)
        return _GETTERS.sub("", name).strip("_").lower()
    if isinstance(function, cst.Attribute):
        method = function.attr.value
        if method == "join":
            return first
        if method == "get":
            key = literal_text(arguments[0]) if arguments else None
            return None if key is None else identifier(key)
        base = name_of(function.value)
        if first and _READABLE.fullmatch(method):
            return first
        if method in _SAME_METHODS:
            return base
        if method in _OF_SOMETHING:
            return method if base in ("np", "torch", "numpy") else _joined(base, method)
        return _GETTERS.sub("", method).strip("_")
    return None
