"""Parses a print call into the texts and values that it shows, in order."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from foundry_fastlog.migrate.formats import (
    Piece,
    is_layout,
    is_padded,
    split_braces,
    split_percent,
)
from foundry_fastlog.migrate.model import LeftAloneError

__all__ = [
    "COLUMN",
    "ELSEWHERE",
    "MISMATCH",
    "STARRED",
    "Part",
    "Template",
    "TemplateReader",
    "Value",
    "is_print",
    "leaves_line_open",
    "literal_text",
]


#: Reasons to keep a print: its values are known only when it runs, or it is for another file.
STARRED = "takes its arguments from a sequence or mapping (* or **)"
MISMATCH = "its %-format does not match its values"
ELSEWHERE = "writes to another file"
#: What separates the columns of a table.
COLUMN = "  "


@dataclass(frozen=True, slots=True)
class Value:
    """A value that a print shows.

    Attributes:
        node: The expression.
        spec: The format spec that its field keeps; "" for the value itself.
        by_repr: Whether it was shown by its repr().
        padded: Whether it was shown in a column of fixed width.
    """

    node: cst.BaseExpression
    spec: str = ""
    by_repr: bool = False
    padded: bool = False


Part = str | Value


@dataclass(frozen=True, slots=True)
class Template:
    """What a print shows, and where.

    Attributes:
        parts: Texts and values, never two texts in a row.
        to_stderr: It goes to stderr.
    """

    parts: list[Part]
    to_stderr: bool = False

    def followed_by(self, other: Template) -> Template:
        """Return what this and another print show on one line."""
        return Template(_merged([*self.parts, *other.parts]), self.to_stderr or other.to_stderr)

    def has_values(self) -> bool:
        """Return whether it shows any value."""
        return any(isinstance(part, Value) for part in self.parts)


def literal_text(node: cst.CSTNode) -> str | None:
    """Return the value of a string literal without values in it, else None."""
    if isinstance(node, cst.SimpleString):
        value = node.evaluated_value
        return value if isinstance(value, str) else None
    if isinstance(node, cst.ConcatenatedString):
        left, right = literal_text(node.left), literal_text(node.right)
        return None if left is None or right is None else left + right
    return None


def is_print(call: cst.Call) -> bool:
    """Return whether a call is one of print, not of another function that writes a line."""
    return isinstance(call.func, cst.Name) and call.func.value == "print"


def leaves_line_open(call: cst.Call) -> bool:
    """Return whether the next print continues the line of this one, as far as can be seen."""
    for argument in call.args:
        if argument.keyword is not None and argument.keyword.value == "end":
            text = "\n" if _is_none(argument.value) else literal_text(argument.value)
            return text is None or not text.endswith("\n")
    return False


def _is_none(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Name) and node.value == "None"


def _is_plain(node: cst.CSTNode) -> bool:
    """Return whether evaluating a node only looks up names."""
    if isinstance(node, cst.Attribute):
        return _is_plain(node.value)
    return isinstance(node, cst.Name | cst.Integer | cst.Float | cst.SimpleString)


class TemplateReader:
    """Parses the print calls of one module.

    Args:
        code_of: Returns the source of a node.
        is_builtin: Returns whether a name means the builtin function at its place.
        qualified: Returns the dotted names that a node may refer to, according to the imports.
        constant: Returns the expression that the module assigns to a name, if it does so once.
    """

    def __init__(
        self,
        code_of: Callable[[cst.CSTNode], str],
        is_builtin: Callable[[cst.Name], bool],
        qualified: Callable[[cst.CSTNode], set[str]],
        constant: Callable[[cst.Name], cst.BaseExpression | None],
    ) -> None:
        self._code_of = code_of
        self._is_builtin = is_builtin
        self._qualified = qualified
        self._constant = constant

    def read(self, call: cst.Call) -> Template:
        """Parse a print call.

        Raises:
            LeftAloneError: It does something that a log call cannot do, or is not understood.
        """
        options = {it.keyword.value: it.value for it in call.args if it.keyword is not None}
        to_stderr = self._goes_to_stderr(options.get("file"))
        if any(argument.star for argument in call.args):
            raise LeftAloneError(STARRED)
        shown = [argument.value for argument in call.args if argument.keyword is None]
        allowed = {"sep", "end", "file", "flush"} if is_print(call) else {"s", "end", "file"}
        if unknown := options.keys() - allowed:
            raise LeftAloneError(f"{self._code_of(call.func)}() has no argument {min(unknown)}")
        if "s" in options:
            shown.append(options["s"])
        if not is_print(call) and len(shown) != 1:
            raise LeftAloneError("does not show a single text")
        separator = self._text_option(options, "sep", " ")
        end = self._text_option(options, "end", "\n")
        if "\n" in end.rstrip("\n"):
            raise LeftAloneError("shows several lines of text")
        if "flush" in options and not _is_plain(options["flush"]):
            raise LeftAloneError("computes flush=")
        parts: list[Part] = []
        for index, node in enumerate(shown):
            if index:
                parts.append(separator)
            parts.extend(self._parts(node))
        parts = _merged([*parts, end.rstrip("\n")])
        is_open = not end.endswith("\n")
        if is_open and any(isinstance(part, str) and "\r" in part for part in parts):
            raise LeftAloneError("goes back to the start of its line (\\r): use a progress bar")
        return Template(parts, to_stderr)

    def _text_option(self, options: dict[str, cst.BaseExpression], name: str, default: str) -> str:
        node = options.get(name)
        if node is None or _is_none(node):
            return default
        text = literal_text(node)
        if text is None:
            raise LeftAloneError(f"{name}= is not a literal")
        return text

    def _goes_to_stderr(self, node: cst.BaseExpression | None) -> bool:
        if node is None or _is_none(node):
            return False
        names = self._qualified(node)
        if names <= {"sys.stdout", "sys.__stdout__"} and names:
            return False
        if names <= {"sys.stderr", "sys.__stderr__"} and names:
            return True
        raise LeftAloneError(f"{ELSEWHERE} ({self._code_of(node).strip()})")

    # ---- expressions ---------------------------------------------------------------------

    def _parts(self, node: cst.BaseExpression) -> Iterator[Part]:
        """Split an expression, shown by str(), into parts."""
        text = literal_text(node)
        if text is not None:
            yield text
        elif isinstance(node, cst.ConcatenatedString):
            yield from self._parts(node.left)
            yield from self._parts(node.right)
        elif isinstance(node, cst.Name) and (ruler := self._ruler_named(node)):
            yield ruler
        elif isinstance(node, cst.FormattedString):
            yield from self._f_string(node)
        elif isinstance(node, cst.BinaryOperation):
            yield from self._operation(node)
        elif isinstance(node, cst.Call):
            yield from self._call(node)
        elif not self._is_colour(node):
            yield Value(node)

    def _ruler_named(self, node: cst.Name) -> str | None:
        """Return the decoration that a constant of the module is: ``LINE = "=" * 60``."""
        value = self._constant(node)
        if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Multiply):
            ruler = _ruler(value.left, value.right)
            return ruler and ruler * 3
        text = None if value is None else literal_text(value)
        return text if text and not re.search(r"\w", text.replace("_", "")) else None

    def _is_colour(self, node: cst.BaseExpression) -> bool:
        """Return whether a node is a colorama constant, which is not part of the message."""
        return any(
            re.fullmatch(r"colorama\.(Fore|Back|Style)\.[A-Z_]+", name)
            for name in self._qualified(node)
        )

    def _operation(self, node: cst.BinaryOperation) -> Iterator[Part]:
        operator, left, right = node.operator, node.left, node.right
        if isinstance(operator, cst.Modulo) and (text := literal_text(left)) is not None:
            yield from self._percent(text, right)
        elif isinstance(operator, cst.Add) and any(map(_is_text, leaves := list(_leaves(node)))):
            for leaf in leaves:
                yield from self._parts(leaf)
        elif isinstance(operator, cst.Multiply) and (ruler := _ruler(left, right)):
            yield ruler * 3  # long enough to be recognised as decoration
        else:
            yield Value(node)

    def _call(self, node: cst.Call) -> Iterator[Part]:
        function, arguments = node.func, node.args
        if isinstance(function, cst.Attribute) and function.attr.value == "format":
            if (text := literal_text(function.value)) is not None:
                yield from self._format(text, arguments)
                return
        elif (
            isinstance(function, cst.Name)
            and function.value == "str"
            and self._is_builtin(function)
            and len(arguments) == 1
            and not arguments[0].star
            and arguments[0].keyword is None
        ):
            yield from self._parts(arguments[0].value)
            return
        yield Value(node)

    def _f_string(self, node: cst.FormattedString) -> Iterator[Part]:
        prefix, quote = node.prefix.lower().replace("f", ""), node.end
        for piece in node.parts:
            if isinstance(piece, cst.FormattedStringText):
                text = piece.value.replace("{{", "{").replace("}}", "}")
                # The space separates a quote at the end of the text from the literal's own quote.
                yield str(ast.literal_eval(f"{prefix}{quote}{text} {quote}"))[:-1]
                continue
            assert isinstance(piece, cst.FormattedStringExpression)
            if piece.equal is not None:  # "{x = }" shows the source, including spaces
                code = self._code_of(piece)[1:]
                yield code[: code.index("=", len(self._code_of(piece.expression))) + 1]
            spec, padded = self._spec(piece)
            inner = list(self._parts(piece.expression))
            shown_as_text = piece.conversion is None and piece.equal is None and not spec
            if shown_as_text and not _is_just(inner, piece.expression):
                yield from inner  # a nested f-string: its parts are parts of this one
                yield COLUMN * padded
                continue
            by_repr = piece.conversion in ("r", "a") or (
                piece.equal is not None and piece.conversion is None and piece.format_spec is None
            )
            yield Value(piece.expression, spec=spec, by_repr=by_repr, padded=padded)

    def _spec(self, piece: cst.FormattedStringExpression) -> tuple[str, bool]:
        """Return the spec that a field keeps, "" if it is only layout, and whether it pads."""
        text, computed = "", False
        for part in piece.format_spec or ():
            if isinstance(part, cst.FormattedStringText):
                text += part.value
                continue
            assert isinstance(part, cst.FormattedStringExpression)
            if not _is_plain(part.expression):
                raise LeftAloneError("computes its format spec")
            text, computed = text + "1", True
        if piece.conversion is not None or is_layout(text):
            return "", is_padded(text)
        if computed or "{" in text or "\\" in text:
            raise LeftAloneError("computes its format spec")
        return text, False

    def _percent(self, text: str, right: cst.BaseExpression) -> Iterator[Part]:
        pieces = list(split_percent(text))
        keys = [piece.key for piece in pieces if piece.spec is not None]
        nodes: dict[str | int, cst.BaseExpression] = {}
        if any(key is not None for key in keys):
            nodes.update(_dict_items(right))
            wanted: list[str | int] = [key for key in keys if key is not None]
        else:
            wanted = list(range(len(keys)))
            if not isinstance(right, cst.Tuple):
                nodes[0] = right
            elif not any(isinstance(item, cst.StarredElement) for item in right.elements):
                nodes.update(enumerate(item.value for item in right.elements))
        if len(wanted) != len(keys) or set(wanted) != nodes.keys():
            raise LeftAloneError(MISMATCH)
        for piece, key in zip(pieces, [*wanted, ""], strict=True):
            yield from self._formatted(piece, nodes.get(key))

    def _format(self, text: str, arguments: Sequence[cst.Arg]) -> Iterator[Part]:
        nodes: dict[str | int, cst.BaseExpression] = {}
        for argument in arguments:
            if argument.star:
                raise LeftAloneError(STARRED)
            nodes[argument.keyword.value if argument.keyword else len(nodes)] = argument.value
        pieces = list(split_braces(text))
        if {piece.key for piece in pieces if piece.key is not None} != nodes.keys():
            raise LeftAloneError("its format does not match its arguments")
        for piece in pieces:
            yield from self._formatted(piece, nodes[piece.key] if piece.key is not None else None)

    def _formatted(self, piece: Piece, node: cst.BaseExpression | None) -> Iterator[Part]:
        """List the text and the value of a piece of a format."""
        yield piece.before
        if node is None or piece.spec is None:
            return
        text = None if piece.spec else literal_text(node)
        if text is None:
            yield Value(node, spec=piece.spec or "", padded=piece.padded)
        else:
            yield text + COLUMN * piece.padded


def _is_text(node: cst.BaseExpression) -> bool:
    """Return whether an expression is syntactically a string."""
    return isinstance(node, cst.SimpleString | cst.ConcatenatedString | cst.FormattedString)


def _leaves(node: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """List the operands of a chain of additions."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Add):
        yield from _leaves(node.left)
        yield from _leaves(node.right)
    else:
        yield node


def _ruler(left: cst.BaseExpression, right: cst.BaseExpression) -> str | None:
    """Return the text that ``"=" * 60`` repeats, if it is decoration."""
    for text, times in ((literal_text(left), right), (literal_text(right), left)):
        if text is not None and not re.search(r"\w", text.replace("_", "")) and _is_plain(times):
            return text
    return None


def _dict_items(node: cst.BaseExpression) -> Iterator[tuple[str, cst.BaseExpression]]:
    """List the items of a dict display whose keys are string literals."""
    if not isinstance(node, cst.Dict):
        raise LeftAloneError("its %-format takes its values from a mapping")
    for element in node.elements:
        key = literal_text(element.key) if isinstance(element, cst.DictElement) else None
        if key is None:
            raise LeftAloneError("its %-format takes its values from a mapping")
        yield key, element.value


def _is_just(parts: list[Part], node: cst.BaseExpression) -> bool:
    """Return whether splitting an expression left it unchanged."""
    return len(parts) == 1 and isinstance(parts[0], Value) and parts[0].node is node


def _merged(parts: list[Part]) -> list[Part]:
    """Join adjacent texts, and drop empty ones."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return merged
