"""Names a value by its expression and by the words around it, and takes those words away."""

from __future__ import annotations

import re
from dataclasses import dataclass

import libcst as cst

from foundry_fastlog.migrate.naming import identifier, is_generic, name_of, usable
from foundry_fastlog.migrate.wording import SMALL_WORDS

__all__ = ["Named", "last_label", "name_value"]

_UNITS = {
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "ms": "ms", "us": "us",
    "µs": "us", "ns": "ns", "min": "min", "mins": "min", "minutes": "min", "h": "h", "hours": "h",
    "KB": "kb", "kB": "kb", "MB": "mb", "GB": "gb", "TB": "tb", "KiB": "kib", "MiB": "mib",
    "GiB": "gib", "bytes": "bytes", "%": "percent", "Hz": "hz", "°C": "celsius",
}  # fmt: skip
_TIMES = frozenset({"s", "ms", "us", "ns", "min", "h"})
_PER_SECOND = re.compile(r"\s?([A-Za-z]+)/(?:s|sec|second)\b")
_UNIT = re.compile(rf"\s?({'|'.join(sorted(_UNITS, key=len, reverse=True))})(?![\w°])")
_NOUN = re.compile(r"\s+([A-Za-z]{2,}s|(?:[A-Za-z]+[ -])?[A-Za-z]{2,}[^\Ws]s)(?!\w)")
_NO_NOUNS = frozenset({"is", "was", "has", "this", "its", "as", "does", "less", "miss", "loss"})
_SIGNED = re.compile(r"(?P<sign>[:=]+)\s*(?P<open>['\"\[({<`$]?)\s*$")
_START = re.compile(r"[,;|()\[\]{}/•\u2013\u2014=:]|(?:^|\s)[-*>+#]+\s")
_LISTED = re.compile(r"(?P<rest>.*[,;|(]\s*)(?P<label>[^\W\d]\w*(?: \w+)?)\s+", re.DOTALL)
_CLOSERS = {"'": "'", '"': '"', "[": "]", "(": ")", "{": "}", "<": ">", "`": "`"}
# Words before a value that do not say what it is.
_VAGUE = (
    "about done there here now see saw got only just still up down not no "
    "wide deep long tall high low large big small new old"
)
_NO_LABELS = SMALL_WORDS | frozenset(_VAGUE.split())


@dataclass(frozen=True, slots=True)
class Named:
    """A value's name, and the texts around it without what the name says."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class _Label:
    """The words before a value that say what it is.

    Attributes:
        name: The words as a field's name.
        rest: The text before them.
        opening: The quote or bracket between them and the value.
        sign: The sign after them; "" for a mere word in a list.
        stays: The message starts with them, and keeps them.
    """

    name: str
    rest: str
    opening: str = ""
    sign: str = ""
    stays: bool = False


def name_value(
    node: cst.BaseExpression, before: str, after: str, *, first: bool, is_caught: bool
) -> Named:
    """Name a value.

    Args:
        node: Its expression.
        before: The text before it.
        after: The text after it.
        first: It is the first value of its message.
        is_caught: It is the exception that a handler has caught.
    """
    label = _label(before, first=first)
    base = "error" if is_caught else name_of(node)
    weak = base is None or is_generic(base)
    counts = weak or (isinstance(node, cst.Call) and (base or "").startswith("num_"))
    takes = label is not None and _takes(label, base, weak=weak, is_caught=is_caught)
    if takes and label is not None and label.sign == ":" and not label.rest and not first:
        # "8 layers, 512 wide: 3M parameters": the label belongs to the value before it.
        takes = not (counts and _unit(after)[0] is None and _noun(after))
    if label is not None and takes:
        before = label.rest + " "
        after = after.removeprefix(_CLOSERS.get(label.opening, ""))
    suffix, after = _unit(after)
    noun = _noun(after) if counts and suffix is None else None
    if label is not None and takes:
        name = label.name if weak or label.sign else base
    elif noun is not None:
        name = f"num_{noun[0]}"
        after = noun[1] if label is not None else after
    elif isinstance(node, cst.Name | cst.Attribute | cst.Subscript) and not weak:
        name = base
    else:
        kept = label.name if label is not None and label.stays else None
        name = kept or (None if weak else base) or _last_word(before)
        name = name or ("elapsed" if suffix in _TIMES else base)
    return Named(_with_unit(usable(name or "value"), suffix), before, after)


def _takes(label: _Label, base: str | None, *, weak: bool, is_caught: bool) -> bool:
    """Return whether the name says what a label says, so that the message can do without it."""
    if label.stays:
        return False
    if is_caught or not (label.sign or weak):
        return label.name == base or (base or "").endswith(f"_{label.name}")
    return True


def _with_unit(name: str, suffix: str | None) -> str:
    last = name.rpartition("_")[2]
    says_unit = suffix is None or suffix in (last, _UNITS.get(last)) or name.endswith(f"_{suffix}")
    return name if says_unit else f"{name}_{suffix}"


def last_label(text: str) -> str | None:
    """Return the words of the label at the end of a text before a value."""
    label = _label(text, first=False)
    if label is None:
        return None
    words = text[len(label.rest) :]
    return (words if not label.sign else words[: words.rindex(label.sign)]).strip()


def _label(text: str, *, first: bool) -> _Label | None:
    """Find the label at the end of a text before a value: ``loss=`` or ``Training size:``."""
    match = _SIGNED.search(text)
    if match is None:
        listed = None if first else _LISTED.fullmatch(text)
        if listed is None or _NO_LABELS & set(listed["label"].lower().split()):
            return None
        name = identifier(listed["label"])
        return None if name is None else _Label(name, listed["rest"])
    head = text[: match.start()]
    start = max((found.end() for found in _START.finditer(head)), default=0)
    name, rest = identifier(head[start:]), head[:start]
    if name is None:
        return None
    stays = first and match["sign"] == ":" and not any(map(str.isalpha, rest))
    return _Label(name, rest, match["open"], match["sign"], stays)


def _unit(text: str) -> tuple[str | None, str]:
    """Split off a unit at the start of the text after a value."""
    if match := _PER_SECOND.match(text):
        return f"{match[1].lower()}_per_s", text[match.end() :]
    if match := _UNIT.match(text):
        return _UNITS[match[1]], text[match.end() :]
    return None, text


def _noun(text: str) -> tuple[str, str] | None:
    """Find the noun that a value counts: its name, and the text without it."""
    match = _NOUN.match(text)
    if match is None:
        return None
    last = re.split(r"[ -]", match[1])[-1].lower()
    if last.endswith("ss") or last in _NO_NOUNS:
        return None
    name = identifier(match[1])
    return (name, text[match.end() :]) if name else None


def _last_word(text: str) -> str | None:
    """Return the last word of a text that can name a value, as a field's name."""
    words = [word for word in re.findall(r"[^\W\d]\w+", text) if word.lower() not in SMALL_WORDS]
    if not words or words[-1].lower() in _NO_LABELS:
        return None
    return None if words[-1].lower().endswith(("ing", "ed")) else identifier(words[-1])
