"""Compile an expression of ``--where`` to functions; see ``where``.

The text is parsed by Python's own parser, and each kind of node that is not named here is refused.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from string import ascii_letters
from typing import Any, NoReturn

from foundry_fastlog.analysis.where_values import (
    ABSENT,
    ARITHMETIC,
    CALLABLE,
    COMPARISONS,
    FUNCTIONS,
    Lookup,
    NamePath,
    computed,
    look,
)
from foundry_fastlog.base.patterns import compile_pattern

__all__ = ["Compiler", "Eval", "WhereError", "describe_name", "dotted"]

Eval = Callable[[Lookup], Any]

_MOST_CHARACTERS, _MOST_DEPTH, _MOST_KNOWN = 2000, 60, 12
_CONSTANTS = {"true": True, "false": False, "null": None}
_ARGUMENTS = {"match": 2}  # all others take one
_ODD = "\ua66e"  # begins the identifiers that stand for names in backquotes
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?P<name>[^`]*)`""", re.DOTALL)
_FOREIGN = re.compile(r"&&|\|\||<>|===|!(?!=)|(?<![<>=!:])=(?!=)")
_MEANT = {"&&": "and", "||": "or", "<>": "!=", "===": "==", "=": "=="}
_LINE = 100  # characters of a long line that are shown


class WhereError(ValueError):
    """An expression that cannot be understood. The message shows the place and what is known."""


def dotted(path: NamePath) -> str:
    """Write a name as an expression has it."""
    return ".".join(
        str(part) if str(part).isidentifier() or isinstance(part, int) else f"`{part}`"
        for part in path
    )


def describe_name(
    text: str, place: tuple[int, int], what: str, path: NamePath, known: list[str]
) -> str:
    """Say what is wrong, with the place below the expression, and which names are near."""
    first, last = place
    line_at = text.rfind("\n", 0, first) + 1
    line = text[line_at:].partition("\n")[0]
    line_at += (cut := max(0, min(first - line_at - _LINE // 2, len(line) - _LINE)))
    line = line[cut : cut + _LINE]
    marks = max(1, min(last - first, line_at + len(line) - first))
    said = f"{what}, at character {first + 1}:\n  {line}\n  {' ' * (first - line_at)}{'^' * marks}"
    name = ".".join(map(str, path))
    by_name = {one.lower(): one for one in known}
    near = [by_name[one] for one in get_close_matches(name.lower(), list(by_name), 3, 0.6)]
    if near:
        said += f"\nDid you mean {' or '.join(near)}?"
    rest = [one for one in known if one not in near]
    if rest:
        more = f" and {len(rest) - _MOST_KNOWN:,} more" if len(rest) > _MOST_KNOWN else ""
        said += f"\nKnown are: {', '.join([*near, *rest][:_MOST_KNOWN])}{more}"
    return said


class Compiler:
    """Turns the tree of an expression into functions; what is not named here is refused.

    Args:
        text: The expression.
        roots: With what names may begin; None for anything.
        known: Returns the names to propose where one is unknown.

    Attributes:
        names: Where each name stands: first character, and the one after the last.
    """

    def __init__(
        self, text: str, roots: Collection[str] | None, known: Callable[[], Iterable[str]]
    ) -> None:
        self._text = text
        self._roots = roots
        self._known = known
        self._odd: dict[str, str] = {}
        self._source = ""
        self.names: dict[NamePath, tuple[int, int]] = {}

    def compile(self) -> Eval:
        """Compile the expression.

        Raises:
            WhereError: It cannot be understood.
        """
        if len(self._text) > _MOST_CHARACTERS:
            raise WhereError(f"an expression has at most {_MOST_CHARACTERS:,} characters")
        if not self._text.strip():
            raise WhereError("the expression is empty; an example: config.lr >= 1e-3")
        self._source = _QUOTED.sub(self._stand_in, self._text)
        try:
            # Parentheses let it span lines; the one before it moves all places by one.
            tree = ast.parse(f"({self._source}\n)", mode="eval")
        except SyntaxError as error:
            self._refuse_syntax(error)
        except (ValueError, RecursionError, MemoryError) as error:  # NUL; too many brackets
            raise WhereError(
                f"the expression cannot be read: {str(error) or 'it is nested too deeply'}"
            ) from None
        if isinstance(tree.body, (ast.List, ast.Tuple, ast.Set)):
            self._refuse("this is a list, not something true or false", tree.body)
        return self._node(tree.body, 0)

    def _stand_in(self, match: re.Match[str]) -> str:
        """Put an identifier of the same length in the place of a name in backquotes."""
        name = match["name"]
        if name is None:
            return match[0]
        if not name:
            at = match.start()
            self._refuse("a name in backquotes is empty", (at, at + 2))
        tens, ones = divmod(len(self._odd), len(ascii_letters))
        key = f"{_ODD}{ascii_letters[tens]}{ascii_letters[ones]}".ljust(len(match[0]), "_")
        self._odd[key] = name
        return key

    def _refuse_syntax(self, error: SyntaxError) -> NoReturn:
        unquoted = _QUOTED.sub(lambda match: " " * len(match[0]), self._text)
        if (wrong := _FOREIGN.search(unquoted)) is not None:
            right = _MEANT.get(wrong[0], "not")
            self._refuse(f"{wrong[0]} is not understood: write {right}", wrong.span())
        at = self._offset(error.lineno or 1, (error.offset or 1) - 1)
        self._refuse(f"this cannot be understood ({error.msg})", (at, at + 1))

    def _offset(self, line: int, column: int) -> int:
        """Return the place in the text of a place in what was parsed."""
        lines = self._source.split("\n")
        before = sum(len(one) + 1 for one in lines[: line - 1])
        return max(0, min(before + column - (line == 1), len(self._text) - 1))

    def _place(self, node: ast.expr) -> tuple[int, int]:
        """Return the first character of a node, and the one after its last."""
        lines = f"({self._source}\n)".split("\n")

        def place(line: int, column: int) -> int:  # columns of trees are in bytes
            return self._offset(line, len(lines[line - 1].encode()[:column].decode()))

        return place(node.lineno, node.col_offset), 1 + place(
            node.end_lineno or 1, (node.end_col_offset or 1) - 1
        )

    def _refuse(self, what: str, place: ast.expr | tuple[int, int]) -> NoReturn:
        place = self._place(place) if isinstance(place, ast.expr) else place
        raise WhereError(describe_name(self._text, place, what, (), []))

    def _node(self, node: ast.expr, depth: int) -> Eval:
        if depth > _MOST_DEPTH:
            self._refuse(f"this is nested more than {_MOST_DEPTH} deep", node)
        compiled = getattr(self, f"_on_{type(node).__name__.lower()}", None)
        if compiled is None:
            self._refuse(f"{type(node).__name__} is not part of this language", node)
        result: Eval = compiled(node, depth + 1)
        return result

    def _on_constant(self, node: ast.Constant, depth: int) -> Eval:
        del depth
        value = node.value
        if not isinstance(value, (str, int, float, type(None))):
            self._refuse(f"a value of type {type(value).__name__} is not understood", node)
        return lambda _: value

    def _on_list(self, node: ast.List | ast.Tuple | ast.Set, depth: int) -> Eval:
        items = [self._node(item, depth) for item in node.elts]
        return lambda lookup: [item(lookup) for item in items]

    _on_tuple = _on_set = _on_list  # JSON has lists only

    def _on_boolop(self, node: ast.BoolOp, depth: int) -> Eval:
        parts = [self._node(part, depth) for part in node.values]
        until = isinstance(node.op, ast.Or)

        def evaluate(lookup: Lookup) -> Any:  # noqa: ANN401 - as Python: the value that decides
            value: Any = None
            for part in parts:
                value = part(lookup)
                if bool(value) is until:
                    break
            return value

        return evaluate

    def _on_unaryop(self, node: ast.UnaryOp, depth: int) -> Eval:
        operand = self._node(node.operand, depth)
        if isinstance(node.op, ast.Not):
            return lambda lookup: not operand(lookup)
        if isinstance(node.op, ast.Invert):
            self._refuse("~ is not part of this language: write match(name, 'pattern')", node)
        sign = operator.neg if isinstance(node.op, ast.USub) else operator.pos
        return lambda lookup: computed(sign, operand(lookup))

    def _on_binop(self, node: ast.BinOp, depth: int) -> Eval:
        compute = ARITHMETIC.get(type(node.op))
        if compute is None:
            wrong = {ast.BitAnd: "write and", ast.BitOr: "write or"}.get(
                type(node.op), "use + - * / // % **"
            )
            self._refuse(f"this operator is not part of the language: {wrong}", node)
        left, right = self._node(node.left, depth), self._node(node.right, depth)
        return lambda lookup: computed(compute, left(lookup), right(lookup))

    def _on_compare(self, node: ast.Compare, depth: int) -> Eval:
        first = self._node(node.left, depth)
        rest = []
        for op, right in zip(node.ops, node.comparators, strict=True):
            compare = COMPARISONS.get(type(op))
            if compare is None:
                self._refuse("write == or != instead of is", node)
            rest.append((compare, self._node(right, depth)))

        def evaluate(lookup: Lookup) -> bool:
            left = first(lookup)
            for compare, node in rest:
                right = node(lookup)
                if left is ABSENT or right is ABSENT:
                    return False
                try:
                    if not compare(left, right):
                        return False
                except (TypeError, RecursionError):  # of other types; deep lists
                    return False
                left = right
            return True

        return evaluate

    def _on_name(self, node: ast.expr, depth: int) -> Eval:
        del depth
        path = self._path(node)
        if len(path) == 1 and isinstance(node, ast.Name) and node.id in _CONSTANTS:
            constant = _CONSTANTS[node.id]
            return lambda _: constant
        if self._roots is not None and path[0] not in self._roots:
            names = [*self._known(), *self._roots]
            what = f"the name {dotted(path)} is unknown"
            raise WhereError(describe_name(self._text, self._place(node), what, path, names))
        self.names.setdefault(path, self._place(node))
        if len(path) == 1:
            root = str(path[0])
            return lambda lookup: lookup(root)
        return lambda lookup: look(path, lookup)

    _on_attribute = _on_subscript = _on_name

    def _path(self, node: ast.expr) -> NamePath:
        parts: list[str | int] = []
        while not isinstance(node, ast.Name):
            if isinstance(node, ast.Attribute):
                parts.append(self._odd.get(node.attr, node.attr))
            elif isinstance(node, ast.Subscript):
                parts.append(self._key(node))
            else:
                self._refuse("only names have parts", node)
            node = node.value
        return (self._odd.get(node.id, node.id), *reversed(parts))

    def _key(self, node: ast.Subscript) -> str | int:
        try:
            key = ast.literal_eval(node.slice)
        except ValueError:
            key = None
        if type(key) is not int and not isinstance(key, str):
            self._refuse("brackets take a name in quotes or a number", node)
        return key

    def _on_call(self, node: ast.Call, depth: int) -> Eval:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS:
            self._refuse(f"only these can be called: {', '.join(FUNCTIONS)}", node)
        if len(node.args) != _ARGUMENTS.get(name, 1) or node.keywords:
            self._refuse(f"it is {FUNCTIONS[name]}", node)
        value = self._node(node.args[0], depth)
        if name == "has":
            return lambda lookup: value(lookup) is not ABSENT
        if name != "match":
            function = CALLABLE[name]
            return lambda lookup: function(value(lookup))
        pattern = node.args[1]
        if not isinstance(pattern, ast.Constant) or not isinstance(pattern.value, str):
            self._refuse("the pattern is a text in quotes", pattern)
        try:
            found = compile_pattern(pattern.value)
        except ValueError as error:
            self._refuse(str(error), pattern)
        return lambda lookup: found(value(lookup))
