"""From a template to the arguments of a log call: level, message and fields."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import libcst as cst

from foundry_fastlog.migrate.fields import name_values, with_subscripts
from foundry_fastlog.migrate.labels import last_label
from foundry_fastlog.migrate.model import LEVELS, LeftAloneError
from foundry_fastlog.migrate.render import string_literal
from foundry_fastlog.migrate.template import Part, Template, Value
from foundry_fastlog.migrate.wording import (
    GAP,
    clean_message,
    has_words,
    level_of,
    said_level,
    without_level_word,
    without_terminal_codes,
)

__all__ = ["EMPTY", "NO_WORDS", "Caught", "Composer", "Entry"]

#: Reasons to keep a print that shows nothing, and one that shows only values.
EMPTY = "shows only an empty line or decoration"
NO_WORDS = "shows a value without words: nothing says what it is"

_RULER = re.compile(r" *[-=*#~_/+|.]{3,} *(?=\n)|(?<=\n) *[-=*#~_/+|.]{3,} *")


@dataclass(frozen=True, slots=True)
class Caught:
    """The exception that the enclosing handler has caught; its name, if it has one."""

    name: str | None


@dataclass(slots=True)
class Entry:
    """The arguments of a log call.

    Attributes:
        level: One of `LEVELS`.
        message: The message.
        fields: Name and source of each field, in evaluation order.
        traceback: Whether it is an error of the handler that encloses it.
    """

    level: str
    message: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    traceback: bool = False


@dataclass(slots=True)
class _Field:
    name: str
    value: Value
    code: str


class Composer:
    """Turns the templates of one module into entries.

    Args:
        code_of: Returns the source of a node.
        position_of: Returns where a node starts in the source.
        level: One of `LEVELS`, or "auto".
    """

    def __init__(
        self,
        code_of: Callable[[cst.CSTNode], str],
        position_of: Callable[[cst.CSTNode], int],
        level: str,
    ) -> None:
        self._code_of = code_of
        self._position_of = position_of
        self._level = level

    def compose(
        self, template: Template, caught: Caught | None, has_builtin: Callable[[str], bool]
    ) -> Entry:
        """Determine the level, the message and the fields of a print.

        Args:
            template: What it shows.
            caught: What the enclosing handler has caught; None if there is none.
            has_builtin: Returns whether a name means the builtin at the print.

        Raises:
            LeftAloneError: It has no message.
        """
        texts, values = _split(template.parts)
        whole = GAP.join(texts)
        if not has_words(whole):
            raise LeftAloneError(NO_WORDS if values else EMPTY)
        if re.match(r"\W*usage\s*:", whole, re.IGNORECASE):
            raise LeftAloneError("shows the program's usage")
        exception = caught.name if caught is not None else None
        mentioned = caught is not None and any(_mentions(it.node, exception) for it in values)
        level = self._level_of(whole, exception=mentioned, to_stderr=template.to_stderr)
        if level == said_level(whole):
            texts[0] = without_level_word(texts[0], whole)
        words = with_subscripts(texts)
        names, texts = name_values([value.node for value in values], words, exception)
        found = [
            _Field(name, value, self._code(value, has_builtin, exception))
            for name, value in zip(names, values, strict=True)
        ]
        message = clean_message(GAP.join(texts))
        if not has_words(message):  # all its words are labels or units
            labels = [label for text in words[:-1] if (label := last_label(text))]
            if not labels:
                raise LeftAloneError(NO_WORDS)
            numbers = [message] if re.search(r"\w", message) else []
            message = ", ".join([*labels, *numbers])
        traceback = caught is not None and level in ("error", "critical")
        return Entry(level, message, self._distinct(found), traceback)

    def _level_of(self, text: str, *, exception: bool, to_stderr: bool) -> str:
        if self._level != "auto":
            return self._level
        said = said_level(text)
        if said is not None:
            return said
        level = level_of(text)
        if exception and level == "info":
            return "error"
        return max(level, "warning", key=LEVELS.index) if to_stderr else level

    def _code(self, value: Value, has_builtin: Callable[[str], bool], exception: str | None) -> str:
        """Return the source of a field's value."""
        node = value.node
        is_caught = isinstance(node, cst.Name) and node.value == exception
        code = self._code_of(node).strip()
        bare = (cst.Tuple, cst.Yield, cst.NamedExpr, cst.GeneratorExp)
        if isinstance(node, bare) and not node.lpar:
            code = f"({code})"
        function, more = "", ""
        if value.spec:
            function, more = "format", f", {string_literal(value.spec)}"
        elif is_caught:
            function = "repr" if value.by_repr else "str"
        if function and not has_builtin(function):
            raise LeftAloneError(f"needs {function}(), which is not the builtin here")
        return f"{function}({code}{more})" if function else code

    def _distinct(self, found: list[_Field]) -> list[tuple[str, str]]:
        """Sort the fields in evaluation order, and give each a unique name."""
        result: dict[str, str] = {}
        # A variable's own name is no other value's.
        own = {item.name for item in found if item.code == item.name}
        own -= {item.name for item in found if isinstance(item.value.node, cst.NamedExpr)}
        done: set[int] = set()
        for item in sorted(found, key=lambda item: self._position_of(item.value.node)):
            same = result.get(item.name) == item.code
            if id(item.value.node) in done or (same and isinstance(item.value.node, cst.Name)):
                continue
            done.add(id(item.value.node))
            name, number = item.name, 2
            while name in result or (name in own and name != item.code):
                name, number = f"{item.name}_{number}", number + 1
            result[name] = item.code
        return list(result.items())


def _split(parts: list[Part]) -> tuple[list[str], list[Value]]:
    """Split a template into values and the texts around them (one more than values)."""
    texts, values = [""], []
    for part in parts:
        if isinstance(part, str):
            if GAP in part:
                raise LeftAloneError("has a null character in its text")
            texts[-1] += without_terminal_codes(part)
        else:
            values.append(part)
            texts.append("")
    texts = [_RULER.sub("", text) for text in texts]
    texts[0] = texts[0].lstrip("\n")
    texts[-1] = texts[-1].rstrip("\n ")
    lines = [line for line in GAP.join(texts).split("\n") if has_words(line)]
    if any(GAP not in line for line in lines[1:]):
        raise LeftAloneError("shows several lines of text")
    return [text.replace("\n", ", ") for text in texts], values


def _mentions(node: cst.BaseExpression, name: str | None) -> bool:
    """Return whether an expression is a caught exception, or a call or attribute of it."""
    if isinstance(node, cst.Attribute):
        return node.attr.value == "format_exc" or _mentions(node.value, name)
    if isinstance(node, cst.Call):
        return any(_mentions(arg.value, name) for arg in node.args) or _mentions(node.func, name)
    return isinstance(node, cst.Name) and node.value == name
