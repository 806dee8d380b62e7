"""The words beside a value that say what it is: labels before it, units and nouns after it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import libcst as cst

from foundry_fastlog.migrate.naming import identifier
from foundry_fastlog.migrate.wording import SMALL_WORDS

__all__ = [
    "CLOSERS",
    "SCALES",
    "SPELT",
    "TIMES",
    "Label",
    "attached_word",
    "figure_end",
    "figure_of",
    "label_of",
    "last_label",
    "last_word",
    "noun_of",
    "unit_of",
    "with_unit",
]

_UNITS = {
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "ms": "ms", "us": "us",
    "µs": "us", "ns": "ns", "min": "min", "mins": "min", "minutes": "min", "h": "h", "hours": "h",
    "KB": "kb", "kB": "kb", "MB": "mb", "GB": "gb", "TB": "tb", "KiB": "kib", "MiB": "mib",
    "GiB": "gib", "bytes": "bytes", "%": "percent", "Hz": "hz", "°C": "celsius",
}  # fmt: skip
TIMES = frozenset({"s", "ms", "us", "ns", "min", "h"})
#: Units that are words: they may as well be the label of the next value.
SPELT = frozenset({"sec", "secs", "second", "seconds", "min", "mins", "minutes", "hours", "bytes"})
_SCALED = {"k": (1e3, "thousands"), "m": (1e6, "millions"), "b": (1e9, "billions")}
#: Units that say only how many of something there are.
SCALES = frozenset(name for _, name in _SCALED.values())
_PER_SECOND = re.compile(r"\s?([A-Za-z]+)/(?:s|sec|second)\b")
_UNIT = re.compile(rf"\s?({'|'.join(sorted(_UNITS, key=len, reverse=True))})(?![\w°/])")
_SCALE = re.compile(r"\s?([KkMB])(?![\w/])")
_NOUN = re.compile(r"\s+([A-Za-z]{2,}s|(?:[A-Za-z]+[ -])?[A-Za-z]{2,}[^\Ws]s)(?![\w/])")
_NO_NOUNS = frozenset({"is", "was", "has", "this", "its", "as", "does", "less", "miss", "loss"})
# What a figure is, where the words stand after it: "0.5 loss, 0.9 acc".
_FIGURES = (
    "loss acc accuracy error reward score return perplexity ppl precision recall f1 auc iou bleu "
    "mean avg average median std min max"
)
_FIGURE = re.compile(
    rf"\s+((?:[A-Za-z]+ )?(?:{'|'.join(_FIGURES.split())}))"
    r"(?=\s*(?:[,;|.)\]]|$)|\s(?:in|at|after|on|over)\s)",
    re.IGNORECASE,
)
_SIGNED = re.compile(r"(?P<sign>[:=]+)\s*(?P<open>['\"\[({<`$]?)\s*$")
_START = re.compile(r"[,;|()\[\]{}•\u2013\u2014=:]|(?<!\w)/|/(?!\w)|(?:^|\s)[-*>+#]+\s")
_LISTED = re.compile(r"(?P<rest>.*[,;|(]\s*)(?P<label>[^\W\d]\w*(?: \w+)?)\s+", re.DOTALL)
CLOSERS = {"'": "'", '"': '"', "[": "]", "(": ")", "{": "}", "<": ">", "`": "`"}
# Words before a value that do not say what it is.
_VAGUE = (
    "about done there here now see saw got only just still up down not no "
    "wide deep long tall high low large big small new old"
)
_NO_LABELS = SMALL_WORDS | frozenset(_VAGUE.split())
_LINK = re.compile(rf"\s(?:{'|'.join(sorted(SMALL_WORDS - {'per', 'the', 'a', 'an'}))})\s")
_LEADING_LINK = re.compile(rf"\s*(?:(?:{'|'.join(sorted(SMALL_WORDS))})\s+)+(?=\w)")
_CLOSED = re.compile(r"[,;|)\]}]|[.!?](?=\s)")
_WORDS = re.compile(r"[^\W\d]\w+(?:(?: per |/)[^\W\d]\w*)?")
_ATTACHED = re.compile(r"([^\W\d]\w*)\W*$")


@dataclass(frozen=True, slots=True)
class Label:
    """The words before a value that say what it is.

    Attributes:
        name: The words as a field's name.
        rest: The text before them.
        opening: The quote or bracket between them and the value.
        sign: The sign after them; "" for a mere word in a list.
        stays: The message keeps them: it starts with them, or the name has only some of them.
    """

    name: str
    rest: str
    opening: str = ""
    sign: str = ""
    stays: bool = False


def label_of(text: str, *, first: bool) -> Label | None:
    """Find the label at the end of a text before a value: ``loss=`` or ``Training size:``."""
    match = _SIGNED.search(text)
    if match is None:
        listed = None if first else _LISTED.fullmatch(text)
        if listed is None or _NO_LABELS & set(listed["label"].lower().split()):
            return None
        name = identifier(listed["label"])
        return None if name is None else Label(name, listed["rest"])
    head = text[: match.start()]
    start = max((found.end() for found in _START.finditer(head)), default=0)
    if not first and (link := _LEADING_LINK.match(head, start)):
        start = link.end()  # "3 images in train:"
    words, rest = head[start:], head[:start]
    name = identifier(words)
    stays = first and match["sign"] == ":" and not any(map(str.isalpha, rest))
    if name is None:  # "accuracy on the 10000 test images:" is an accuracy
        name, stays = identifier(_LINK.split(words, maxsplit=1)[0]), True
    return None if name is None else Label(name, rest, match["open"], match["sign"], stays)


def last_label(text: str) -> str | None:
    """Return the words of the label at the end of a text before a value."""
    label = label_of(text, first=False)
    if label is None:
        return None
    words = text[len(label.rest) :]
    return (words if not label.sign else words[: words.rindex(label.sign)]).strip()


def _names_value(word: str) -> bool:
    return word.lower() not in _NO_LABELS and not word.lower().endswith(("ing", "ed"))


def last_word(text: str) -> str | None:
    """Return the last word of a text that can name a value, as a field's name."""
    tail = _CLOSED.split(text)[-1]
    words = [word for word in _WORDS.findall(tail) if word.lower() not in SMALL_WORDS]
    if not words or tail.endswith("@") or not _names_value(words[-1]):
        return None
    return identifier(words[-1])


def attached_word(text: str) -> bool:
    """Return whether a word that can name the value stands directly before it."""
    match = _ATTACHED.search(_CLOSED.split(text)[-1])
    return match is not None and _names_value(match[1])


def unit_of(text: str, node: cst.BaseExpression) -> tuple[str | None, str]:
    """Split off a unit at the start of the text after a value.

    Args:
        text: The text.
        node: The value: only one that is divided by a million has "M" as its unit.
    """
    if match := _PER_SECOND.match(text):
        return f"{match[1].lower()}_per_s", text[match.end() :]
    if match := _UNIT.match(text):
        return _UNITS[match[1]], text[match.end() :]
    if match := _SCALE.match(text):
        factor, name = _SCALED[match[1].lower()]
        if _divisor(node) == factor:
            return name, text[match.end() :]
    return None, text


def _divisor(node: cst.BaseExpression) -> float | None:
    """Return the number by which an expression divides."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Divide):
        by = node.right
        if isinstance(by, cst.Integer | cst.Float):
            return float(by.evaluated_value)
    return None


def with_unit(name: str, unit: str | None) -> str:
    """Return a name that says the unit."""
    last = name.rpartition("_")[2]
    says_unit = unit is None or unit in (last, _UNITS.get(last)) or name.endswith(f"_{unit}")
    return name if says_unit else f"{name}_{unit}"


def noun_of(text: str) -> tuple[str, str] | None:
    """Find the noun that a value counts: its name, and the text without it."""
    match = _NOUN.match(text)
    if match is None:
        return None
    last = re.split(r"[ -]", match[1])[-1].lower()
    if last.endswith("ss") or last in _NO_NOUNS:
        return None
    name = identifier(match[1])
    return (name, text[match.end() :]) if name else None


def figure_of(text: str) -> str | None:
    """Return what the words after a value say that it is, as a field's name: ``0.5 loss``."""
    match = _FIGURE.match(text)
    if match is None or _NO_LABELS & set(match[1].lower().split()):
        return None
    return identifier(match[1])


def figure_end(text: str) -> int:
    """Return where the words that say what a value is end in the text after it; 0: it has none."""
    match = _FIGURE.match(text)
    return 0 if match is None or figure_of(text) is None else match.end()
