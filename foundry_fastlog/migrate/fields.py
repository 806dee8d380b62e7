"""Names the values of a message, each by its expression and by its own words around it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import libcst as cst

from foundry_fastlog.migrate.labels import (
    CLOSERS,
    SCALES,
    SPELT,
    TIMES,
    Label,
    attached_word,
    figure_end,
    figure_of,
    label_of,
    last_word,
    noun_of,
    unit_of,
    with_unit,
)
from foundry_fastlog.migrate.naming import is_generic, name_of, usable
from foundry_fastlog.migrate.wording import SMALL_WORDS, has_words

__all__ = ["name_values", "with_subscripts"]

_SUBSCRIPT = re.compile(r"(?P<rest>.*?)(?P<word>[^\W\d]\w*)@", re.DOTALL)
_SIGN = re.compile(r"\s*[:=]?\s*")
_CLOSING = re.compile(r"['\"\])}>`]*")
_LINKS = "|".join(sorted(SMALL_WORDS - {"per"}))
# Where the words of one value end and those of the next begin.
_BOUNDARY = re.compile(
    r"[,;|()\[\]{}•\u2013\u2014]|[.!?](?=\s)|[:=]+(?=.*\w)|\s(?:[-*+#]+|[-=]?>+|\u2192)\s|\s{2,}\b"
    rf"|(?P<link>\s(?:{_LINKS})\b|\sper\s*$)",
    re.DOTALL,
)
_CAPITAL = re.compile(r"\s+[A-Z]")
_LASTING = re.compile(r"\b(?:in|within|for)\s*$", re.IGNORECASE)
_TOOK = re.compile(r"\b(?:took|takes|taken|spent|waited|lasted)\s*$", re.IGNORECASE)
_STATISTIC = re.compile(r"\b(?:max|mean|avg|average|median|std)\b", re.IGNORECASE)


def name_values(
    nodes: Sequence[cst.BaseExpression], texts: Sequence[str], exception: str | None
) -> tuple[list[str], list[str]]:
    """Name the values of a message.

    Args:
        nodes: Their expressions.
        texts: The texts around them: one more.
        exception: The name of the exception that the enclosing handler has caught.

    Returns:
        The names, and the texts without what the names say.
    """
    is_statistic = _STATISTIC.search(" ".join(texts)) is not None
    values = [_Value(node, exception, is_statistic=is_statistic) for node in nodes]
    # Each text: the words of the value before it, those of neither, those of the value after it.
    parts = [["", "", texts[0]], *([text, "", ""] for text in texts[1:])]
    for index, value in enumerate(values):
        if index + 1 < len(values):
            text, before = texts[index + 1], parts[index][2]
            end, start = _shares(values, texts, index, before)
            parts[index + 1] = [text[:end], text[end:start], text[start:]]
        named = value.named(parts[index][2], parts[index + 1][0], first=index == 0)
        parts[index][2], parts[index + 1][0] = named[1:]
        value.name = named[0]
    return [value.name for value in values], ["".join(part) for part in parts]


def with_subscripts(texts: Sequence[str]) -> list[str]:
    """Give ``acc@`` of "acc@{k}: {acc}" to the value that it names, which is the second."""
    texts = list(texts)
    for index in range(len(texts) - 2):
        match = _SUBSCRIPT.fullmatch(texts[index])
        if match is not None and _SIGN.fullmatch(texts[index + 1]):
            texts[index] = match["rest"]
            texts[index + 1] = f" {match['word']}{texts[index + 1]}"
    return texts


class _Value:
    """A value of a message, as far as its expression names it.

    Attributes:
        node: The expression.
        name: The name that it suggests, then the field's.
        is_weak: It suggests none that says anything.
        counts: What stands after it may be what it counts.
    """

    def __init__(
        self, node: cst.BaseExpression, exception: str | None, *, is_statistic: bool
    ) -> None:
        self.node = node
        self._is_caught = isinstance(node, cst.Name) and node.value == exception
        self._base = "error" if self._is_caught else name_of(node)
        self._is_statistic = is_statistic
        self.is_weak = self._base is None or is_generic(self._base)
        is_call = isinstance(node, cst.Call)
        self.counts = self.is_weak or (is_call and (self._base or "").startswith("num_"))
        self.name = self._base or "value"

    def unit(self, text: str) -> tuple[str | None, str]:
        """Split off its unit, from the text after it."""
        unit, rest = unit_of(text, self.node)
        if unit == "min" and self._is_statistic and text[0].isspace():
            return None, text  # "0.1 min, 0.9 max"
        return unit, rest

    def counts_in(self, text: str) -> bool:
        """Return whether it counts what the text after it starts with."""
        return self.counts and self.unit(text)[0] is None and noun_of(text) is not None

    def own_end(self, text: str) -> int:
        """Return where its unit and what it counts end in the text after it; 0: it has none."""
        unit, rest = self.unit(text)
        noun = noun_of(rest) if self.counts and unit in (None, *SCALES) else None
        return len(text) - len(rest if noun is None else noun[1])

    def named(self, before: str, after: str, *, first: bool) -> tuple[str, str, str]:
        """Name it.

        Args:
            before: Its words before it.
            after: Its words after it.
            first: It is the first value of its message.

        Returns:
            The name, and the texts without what the name says.
        """
        base, node = self._base, self.node
        label = label_of(before, first=first)
        takes = label is not None and self._takes(label)
        if label is not None and takes:
            before = label.rest + " "
            after = after.removeprefix(CLOSERS.get(label.opening, ""))
        unit, after = self.unit(after)
        noun = noun_of(after) if self.counts and unit in (None, *SCALES) else None
        if label is not None and takes:
            name = label.name if self.is_weak or label.sign else base
        elif noun is not None:
            name = f"num_{noun[0]}"
            is_said = label is not None or before.rstrip().endswith(":")
            after = noun[1] if is_said else after
        elif isinstance(node, cst.Name | cst.Attribute | cst.Subscript) and not self.is_weak:
            name = base
        else:
            kept = label.name if label is not None and label.stays else None
            lasts = unit in TIMES and _LASTING.search(before)  # "accuracy in 3 s"
            name = kept or (None if self.is_weak else base)
            name = name or (None if lasts else last_word(before))
            name = name or (figure_of(after) if label is None else None)
            name = name or ("elapsed" if unit in TIMES else base)
        return with_unit(usable(name or "value"), unit), before, after

    def _takes(self, label: Label) -> bool:
        """Return whether the name says what a label says, so that the message can do without."""
        if label.stays:
            return False
        if self._is_caught or not (label.sign or self.is_weak):
            base = self._base or ""
            return label.name == base or base.endswith(f"_{label.name}")
        return True


# ---- the words between two values ----------------------------------------------------------


def _shares(
    values: Sequence[_Value], texts: Sequence[str], index: int, before: str
) -> tuple[int, int]:
    """Divide the text between a value and the next one: a label is never another value's.

    Args:
        values: The values of the message.
        texts: The texts around them.
        index: The first of the two.
        before: The words before it that are its own.

    Returns:
        Where the words of the first end in the text, and where those of the second begin; what is
        between may be of either, and names none.
    """
    value, following, text = values[index], values[index + 1], texts[index + 1]
    if not has_words(text):
        return len(text), len(text)
    label, said = label_of(text, first=False), label_of(before, first=index == 0)
    has_sign = label is not None and label.sign != ""
    is_said = said is not None and said.sign != ""
    is_labelled = is_said or attached_word(before)
    boundary = _BOUNDARY.search(text)
    counted = _has_own_words(values, texts, index + 1)
    own = value.own_end(text)
    if not is_labelled and not has_sign:
        own = max(own, _figure_end(value, text))  # "0.9 accuracy in 3 s"
    if has_sign and value.unit(text)[0] in TIMES and _TOOK.search(before):
        return own, own  # "took 3 seconds: 12"
    if end := _closed_end(value, text):
        is_open = boundary is None and not has_sign and counted and not is_labelled
        return end, len(text) if is_open else end  # "3 ms forward 2 ms back"
    if own and text[:own].islower() and _CAPITAL.match(text, own):
        return own, own  # "3 images Loss: 0.5"
    if boundary is not None:
        at = boundary.start()
        if boundary["link"] and (own != at or (has_sign and is_said)):
            at = 0
        return at, at
    if has_sign and not is_labelled and counted and following.counts_in(texts[index + 2]):
        end = len(text.rstrip(" :="))
        return end, end  # "8 layers, 512 wide: 3M parameters"
    if not has_sign and counted and (own or (figure_of(text) and not is_labelled)):
        return own or len(text), own or len(text)
    if is_labelled or not own:
        return 0, 0
    if has_words(text[own:]) or not following.is_weak:
        return own, own
    return 0, len(text)


def _figure_end(value: _Value, text: str) -> int:
    rest = value.unit(text)[1]
    end = figure_end(rest)
    return end and len(text) - len(rest) + end


def _closed_end(value: _Value, text: str) -> int:
    """Return where a closing bracket or a unit that can be no label ends; 0: there is none."""
    unit, rest = value.unit(text)
    end = len(text) - len(rest)
    is_word = text[0] == " " and (text[:end].strip() in SPELT or "/" in text[:end])
    if unit is None or unit in SCALES or (is_word and not has_words(rest)):
        end = 0
    return _CLOSING.match(text, end).end()  # type: ignore[union-attr] # matches always


def _has_own_words(values: Sequence[_Value], texts: Sequence[str], index: int) -> bool:
    """Return whether a value's unit, or what it is or counts, stands after it."""
    value, text = values[index], texts[index + 1]
    boundary = _BOUNDARY.search(text)
    if boundary is not None:
        text = text[: boundary.start()]
    is_own = value.own_end(text) > 0 or figure_of(text) is not None
    if boundary is not None or index + 1 == len(values) or not has_words(text):
        return is_own
    if _closed_end(value, text):
        return True
    has_sign = label_of(text, first=False) is not None
    return is_own and not has_sign and _has_own_words(values, texts, index + 1)
