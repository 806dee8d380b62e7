"""From a template to the arguments of a log call: level, message and fields."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import libcst as cst

from foundry_fastlog.migrate.model import LEVELS, LeftAloneError
from foundry_fastlog.migrate.naming import identifier, is_generic, name_of, usable
from foundry_fastlog.migrate.render import string_literal
from foundry_fastlog.migrate.template import Part, Template, Value
from foundry_fastlog.migrate.wording import (
    GAP,
    clean_message,
    has_words,
    level_of,
    without_level_word,
    without_terminal_codes,
)

__all__ = ["EMPTY", "Composer", "Entry"]

#: Reasons to keep a print that shows nothing, and one that shows only values.
EMPTY = "shows only an empty line or decoration"
NO_WORDS = "shows a value without words: nothing says what it is"

_UNITS = {
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "ms": "ms", "us": "us",
    "µs": "us", "ns": "ns", "min": "min", "mins": "min", "minutes": "min", "h": "h", "hours": "h",
    "KB": "kb", "kB": "kb", "MB": "mb", "GB": "gb", "TB": "tb", "KiB": "kib", "MiB": "mib",
    "GiB": "gib", "bytes": "bytes", "%": "percent", "Hz": "hz", "°C": "celsius",
}  # fmt: skip
_TIMES = frozenset({"s", "ms", "us", "ns", "min", "h"})
_PER_SECOND = re.compile(r"\s?([A-Za-z]+)/(?:s|sec|second)\b")
_UNIT = re.compile(rf"\s?({'|'.join(sorted(_UNITS, key=len, reverse=True))})(?![\w°])")
_NOUN = re.compile(r"\s+((?:[A-Za-z]+[ -])?[A-Za-z]{2,}[^\Ws])s(?!\w)")
_LABEL_END = re.compile(r"(?P<sign>[:=]+)\s*(?P<open>['\"\[({<`$]?)\s*$")
_LABEL_START = re.compile(r"[,;|()\[\]{}/•\u2013\u2014=:]|(?:^|\s)[-*>+#]+\s")
_RULER = re.compile(r" *[-=*#~_/+|.]{3,} *(?=\n)|(?<=\n) *[-=*#~_/+|.]{3,} *")
_LISTED = re.compile(r"(?P<rest>.*[,;|(]\s*)(?P<label>[^\W\d]\w*(?: \w+)?)\s+")
_CLOSERS = {"'": "'", '"': '"', "[": "]", "(": ")", "{": "}", "<": ">", "`": "`"}
_NO_LABELS = frozenset(
    [
        "a",
        "an",
        "the",
        "to",
        "from",
        "at",
        "in",
        "of",
        "with",
        "for",
        "on",
        "by",
        "into",
        "is",
        "was",
        "are",
        "as",
        "and",
        "or",
        "than",
        "via",
        "using",
        "per",
    ]
)
_NO_NOUNS = frozenset({"i", "wa", "ha", "thi", "it", "a", "doe", "les", "mis", "los", "proces"})


@dataclass(slots=True)
class Entry:
    """The arguments of a log call.

    Attributes:
        level: One of `LEVELS`.
        message: The message.
        fields: Name and source of each field, in evaluation order.
        exception: Whether the exception caught by the enclosing handler is among the values.
    """

    level: str
    message: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    exception: bool = False


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
        self, template: Template, caught: str | None, has_builtin: Callable[[str], bool]
    ) -> Entry:
        """Determine the level, the message and the fields of a print.

        Args:
            template: What it shows.
            caught: The name of the exception caught by the enclosing handler.
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
        texts[0] = without_level_word(texts[0], whole)
        found = []
        labels = any(_label(text, first=False)[0] for text in texts[:-1])
        for index, value in enumerate(values):
            is_caught = isinstance(value.node, cst.Name) and value.node.value == caught
            name = self._take_name(texts, index, value, is_caught=is_caught)
            found.append(_Field(name, value, self._code(value, has_builtin, is_caught=is_caught)))
        fields = self._distinct(found)
        message = clean_message(GAP.join(texts))
        if not has_words(message):
            if not labels and not has_words(GAP.join(texts)):  # only units: a row of a table
                raise LeftAloneError(NO_WORDS)
            message = ", ".join(name for name, _ in fields)
        exception = any(_mentions(item.value.node, caught) for item in found)
        level = self._level_of(whole, exception=exception, to_stderr=template.to_stderr)
        return Entry(level, message, fields, exception)

    def _level_of(self, text: str, *, exception: bool, to_stderr: bool) -> str:
        if self._level != "auto":
            return self._level
        level = level_of(text)
        if exception and level in ("debug", "info"):
            return "error"
        return max(level, "warning", key=LEVELS.index) if to_stderr else level

    # ---- fields --------------------------------------------------------------------------

    def _take_name(self, texts: list[str], index: int, value: Value, *, is_caught: bool) -> str:
        """Name a value, and remove from the texts what the name already says."""
        label, rest, opening, keeps_label = _label(texts[index], first=index == 0)
        after = texts[index + 1]
        if label and not keeps_label:
            texts[index] = rest + " "
            closing = _CLOSERS.get(opening)
            if closing and after.startswith(closing):
                after = after[1:]
        suffix, after = _unit(after)
        noun = None if suffix else _noun(after)
        base = name_of(value.node)
        simple = isinstance(value.node, cst.Name | cst.Attribute | cst.Subscript)
        of_length = isinstance(value.node, cst.Call) and (base or "").startswith("num_")
        if is_caught:
            name: str | None = "error"
        elif label and not keeps_label:
            name = label
        elif noun and (of_length or base is None or (simple and is_generic(base))):
            name = f"num_{noun[0]}"
            after = noun[1] if label else after
        elif base and simple and not is_generic(base):
            name = base
        else:
            better = None if base is None or is_generic(base) else base
            name = label or better or _last_word(texts[index], only_nouns=base is not None)
            name = name or ("elapsed" if suffix in _TIMES else base)
        texts[index + 1] = after
        name = usable(name or "value")
        last = name.rpartition("_")[2]
        says_unit = (
            suffix is None or suffix in (last, _UNITS.get(last)) or name.endswith(f"_{suffix}")
        )
        return name if says_unit else f"{name}_{suffix}"

    def _code(self, value: Value, has_builtin: Callable[[str], bool], *, is_caught: bool) -> str:
        """Return the source of a field's value."""
        node = value.node
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
        done: set[int] = set()
        for item in sorted(found, key=lambda item: self._position_of(item.value.node)):
            same = result.get(item.name) == item.code
            if id(item.value.node) in done or (same and isinstance(item.value.node, cst.Name)):
                continue
            done.add(id(item.value.node))
            name, number = item.name, 2
            while name in result:
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


def _label(text: str, *, first: bool) -> tuple[str | None, str, str, bool]:
    """Find the label at the end of the text before a value: ``loss=`` or ``Training size:``.

    Returns:
        The label as a field's name or None, the text before it, the bracket or quote after it,
        and whether the message keeps it because it starts with it.
    """
    match = _LABEL_END.search(text)
    if match is None:
        listed = None if first else _LISTED.fullmatch(text)
        if listed is None or _NO_LABELS & set(listed["label"].lower().split()):
            return None, text, "", True
        return identifier(listed["label"]), listed["rest"], "", False
    head = text[: match.start()]
    start = max((found.end() for found in _LABEL_START.finditer(head)), default=0)
    name = identifier(head[start:])
    rest = head[:start]
    keeps = first and match["sign"] == ":" and not has_words(rest)
    return name, rest, match["open"], keeps


def _unit(text: str) -> tuple[str | None, str]:
    """Split off a unit at the start of the text after a value."""
    if match := _PER_SECOND.match(text):
        return f"{match[1].lower()}_per_s", text[match.end() :]
    if match := _UNIT.match(text):
        return _UNITS[match[1]], text[match.end() :]
    return None, text


def _noun(text: str) -> tuple[str, str] | None:
    """Find the noun that a value counts: its name, and the text without it."""
    match = re.match(r"\s+([A-Za-z]{2,}s)(?!\w)", text) or _NOUN.match(text)
    if match is None:
        return None
    words = match.group().strip()
    last = re.split(r"[ -]", words)[-1].lower()
    if last.endswith("ss") or last[:-1] in _NO_NOUNS:
        return None
    name = identifier(words)
    return (name, text[match.end() :]) if name else None


def _last_word(text: str, *, only_nouns: bool) -> str | None:
    """Return the last word of a text that can name a value, as a field's name."""
    words = [word for word in re.findall(r"[^\W\d]\w+", text) if word.lower() not in _NO_LABELS]
    if not words or (only_nouns and words[-1].lower().endswith(("ing", "ed"))):
        return None
    return identifier(words[-1])


def _mentions(node: cst.BaseExpression, name: str | None) -> bool:
    """Return whether an expression is a name, or a call or attribute of it."""
    if name is None:
        return False
    if isinstance(node, cst.Attribute):
        return _mentions(node.value, name)
    if isinstance(node, cst.Call):
        return any(_mentions(arg.value, name) for arg in node.args) or _mentions(node.func, name)
    return isinstance(node, cst.Name) and node.value == name
