"""Derives the level and the message, without values and decoration, from a print's words.

The character U+0000 marks a value's place in a text.
"""

from __future__ import annotations

import re

__all__ = [
    "GAP",
    "SMALL_WORDS",
    "clean_message",
    "has_words",
    "level_of",
    "said_level",
    "without_level_word",
    "without_terminal_codes",
]

#: Marks the place of a value in a text.
GAP = "\0"

_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# Decoration at the start or end of a line. A dash before a word ("--flag") is not decoration.
_SYMBOLS = "•·▪●○◦✓✔✗✘✕✖→⇒➜➤►▶…\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_FRONT = re.compile(rf"^(?:\s+|[-=*#<>~+|._:;,!]+(?=\s|$)|[-=*#~_+.]{{3,}}|[{_SYMBOLS}]+)+")
_BACK = re.compile(rf"(?:[\s:;,=~|>*#{_SYMBOLS}]+|(?<=\s)[-\u2013\u2014+]+|\.+|[-_]{{2,}})+$")

_PREFIXES = {
    "debug": "debug", "dbg": "debug", "trace": "debug", "verbose": "debug",
    "info": "info",
    "warning": "warning", "warn": "warning", "caution": "warning",
    "error": "error", "err": "error", "exception": "error",
    "critical": "critical", "fatal": "critical", "fatal error": "critical",
}  # fmt: skip
_PREFIX = re.compile(
    rf"^[\[(<]?(?P<word>{'|'.join(sorted(_PREFIXES, key=len, reverse=True))})\b"
    r"(?:[\])>]\s*[:\-\u2013]?|\s*:|\s+[-\u2013])\s*",
    re.IGNORECASE,
)
_NOT_AN_ERROR = r"(?!\s*(?:rates?|bars?|counts?|terms?|functions?|norms?|ratios?|codes?|types?)\b)"
# Not after "0", "no" or "not": then nothing went wrong.
_SOME = r"(?<![\d\0] )(?<!\bno )(?<!\bnot )(?<!\bwithout )(?<!\bnothing )\b"
_BY_WORDS = [
    ("error", re.compile(r"[❌✗✘✖🛑🔥]")),
    ("warning", re.compile(r"⚠")),
    ("critical", re.compile(r"\bout of memory\b|\bcorrupt(?:ed)?\b.*\bcannot\b", re.IGNORECASE)),
    ("warning", re.compile(r"^(?:warn(?:ing)?|caution)\b", re.IGNORECASE)),
    (
        "error",
        re.compile(
            rf"^(?:error|exception|fail(?:ed|ure)?)\b{_NOT_AN_ERROR}"
            r"|\b(?:failed to|failure|could not|couldn't|cannot|can't|unable to|an error)\b"
            r"|\berrors? (?:while|when|during|in|at|on|occurred|loading|reading|opening|saving|"
            r"writing|parsing)\b"
            rf"|{_SOME}fail(?:s|ed)\b(?!\s+\w+s\b)"
            rf"|{_SOME}(?:abort(?:s|ed|ing)?|giv(?:es?|ing) up|gave up|crash(?:es|ed|ing)?|"
            r"timed out|diverg(?:es?|ed|ing)|corrupt(?:ed)?|no such|denied|refused|unhandled|"
            r"uncaught)\b"
            r"|\b(?:does not|doesn't|do not|don't) exist\b",
            re.IGNORECASE,
        ),
    ),
    (
        "warning",
        re.compile(
            r"\bwarning:|\bdeprecated\b|\bfall(?:ing|s)? ?back\b|\bskipp(?:ing|ed)\b"
            r"|\bretry(?:ing)?\b|\bnot found\b|\bunavailable\b|\bunexpected(?:ly)?\b"
            r"|\bnot (?:supported|available|installed|recommended)\b|\bunsupported\b"
            rf"|{_SOME}(?:ignor(?:ing|ed)|interrupted|invalid|missing|exceed(?:s|ed|ing)|"
            r"overflow(?:s|ed)?)\b"
            r"|\btoo (?:large|small|long|short|many|few|high|low|big|slow)\b",
            re.IGNORECASE,
        ),
    ),
    (  # a number that is none; "nan_policy" and "no NaN" are none of these
        "warning",
        re.compile(
            rf"{_SOME}(?:nans?|infs?|non-?finite)\b(?!\s+(?:check|polic)|[_-])",
            re.IGNORECASE,
        ),
    ),
    ("debug", re.compile(r"^(?:debug|dbg)\b", re.IGNORECASE)),
]

_SMALL = "to from at in of with for on by into is was are as and or than via using per the a an"
#: Words that say nothing without the value beside them.
SMALL_WORDS = frozenset(_SMALL.split())
_PREPOSITION = rf"(?:{'|'.join(_SMALL.split())})"
_OPEN, _CLOSE = r"[(\[{<'\"`\u201c\u2018]", r"[)\]}>'\"`\u201d\u2019]"
_STEPS = [  # what removed values leave behind, in the order in which it is cleaned up
    (re.compile(rf"{GAP}\s*(?:[/,;:|x\u00d7=+~@&-]|\b{_PREPOSITION}\b)?\s*{GAP}"), GAP),
    (re.compile(rf"{_OPEN}\s*[,;/]?\s*{GAP}\s*[,;/]?\s*{_CLOSE}"), GAP),
    (re.compile(rf"\s*[=:#@~$]+\s*{GAP}"), GAP),
    (re.compile(rf"\s*(?:->|=>|→|\.\.\.|…)\s*{GAP}"), GAP),
    (
        re.compile(
            rf"(?<![\w-]){_PREPOSITION}\s*{GAP}(?=\s*(?:$|[,;:.!?)\]{GAP}]|{_PREPOSITION}\b))",
            re.IGNORECASE,
        ),
        GAP,
    ),
    (re.compile(rf"[,;|/]\s*{GAP}(?=\s*(?:$|[,;:.)\]|]))"), GAP),
    (re.compile(rf"^\s*{GAP}\s*[,;:.|/)=-]+"), GAP),
]

# A value within a path or a name, which says nothing without it: "layer_*.weight".
_WITHIN = re.compile(rf"(?<=[\w.:/][/_.-]){GAP}(?=[/_.-]\w)")


def without_terminal_codes(text: str) -> str:
    """Remove colours and cursor movements."""
    return _TERMINAL.sub("", text).replace("\r", "").replace("\t", " ")


def has_words(text: str) -> bool:
    """Return whether a text contains a letter."""
    return any(character.isalpha() for character in text)


def _undecorated(text: str) -> str:
    return _BACK.sub("", _FRONT.sub("", text))


def said_level(text: str) -> str | None:
    """Return the level that a text names at its start: ``WARNING: ...``."""
    match = _PREFIX.match(_FRONT.sub("", text))
    return None if match is None else _PREFIXES[match["word"].lower()]


def level_of(text: str) -> str:
    """Return the level that a text without a level's name implies; "info" by default.

    Args:
        text: The text, with `GAP` for each value.
    """
    start = _FRONT.sub("", text)
    for level, pattern in _BY_WORDS:
        if pattern.search(text) or pattern.search(start):
            return level
    return "info"


def without_level_word(text: str, whole: str) -> str:
    """Remove "WARNING: " and the like from the start of a text.

    Args:
        text: The text before the first value.
        whole: The whole text; if it has no other words, the level word stays.
    """
    start = _FRONT.sub("", text)
    match = _PREFIX.match(start)
    if match is None or not has_words(_PREFIX.sub("", _FRONT.sub("", whole), count=1)):
        return text
    return start[match.end() :]


def clean_message(text: str) -> str:
    """Return the message of a text: without values and decoration.

    Args:
        text: The text, with `GAP` for each value.
    """
    if GAP in text:
        text = _tidied(text)
    return _undecorated(text)


def _tidied(text: str) -> str:
    """Close the gaps left by removed values."""
    before = None
    while before != text:
        before = text
        for pattern, new in _STEPS:
            text = pattern.sub(new, text)
    text = _WITHIN.sub("*", text)
    text = re.sub(r"\s+", " ", text.replace(GAP, " "))
    return re.sub(r" (?=[,;:.!?)\]])", "", text).replace("( ", "(").strip()
