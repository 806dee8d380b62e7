"""Checks of what a `Recorder` is given: a clear error at once, in place of a fault much later."""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path
from typing import SupportsIndex, cast

__all__ = [
    "LEVELS",
    "absolute",
    "check_choice",
    "check_directory",
    "check_number",
    "check_type",
    "known_level",
    "level_name",
    "process_number",
    "seconds",
    "step_number",
    "whole_number",
]

_MOST_PROCESSES = (1 << 31) - 1  # a rank has 32 bits in a ring file
_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")
_SHOWN = 100  # characters, or bits, of an odd value

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LEVEL_NAMES = {
    **{name: name for name in LEVELS},
    "WARN": "WARNING",
    "FATAL": "CRITICAL",
}


def absolute(path: str | os.PathLike[str]) -> str:
    """Return a path as absolute text; TypeError and ValueError for what is none."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"path must be a str or a Path, got {type(text).__name__}")
    if "\0" in text:
        raise ValueError(f"path must not contain a NUL character, got {text!r}")
    # Not Path.resolve(): links stay as the user wrote them, as in the messages and file names.
    return os.path.abspath(text)  # noqa: PTH100 - see above


def check_directory(directory: str) -> None:
    """Raise NotADirectoryError where a file stands in the directory's place."""
    part = Path(directory)
    for place in (part, *part.parents):
        try:
            mode = place.stat().st_mode  # one look: it may be removed meanwhile
        except (OSError, ValueError):  # nothing there, or it may not be looked at
            continue
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(
                f"{place} is a file, so {directory} cannot be a run's directory: choose another "
                "path"
            )


def check_type(name: str, value: object, kind: type, wanted: str) -> None:
    """Raise TypeError where `value` is not of a type, or of one of several."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {wanted}, got {type(value).__name__}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError where `value` is none of the choices."""
    if value not in choices:
        wanted = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {wanted}, got {value!r}")


def whole_number(name: str, value: object) -> int:
    """Return an int of any size; TypeError for what is none."""
    if type(value) is int:  # the check of a protocol takes microseconds
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    return value.__index__()


def step_number(step: object) -> int:
    """Return a step as record() takes it."""
    number = whole_number("step", step)
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError("step does not fit in a signed 64-bit integer")
    return number


def check_number(
    name: str, value: object, least: float, most: float, *, whole: bool = False
) -> None:
    """Raise TypeError for what is no number, and ValueError for one out of range."""
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        wanted = "an int" if whole else "a number"
        raise TypeError(f"{name} must be {wanted}, got {type(value).__name__}")
    if not least <= value <= most:  # type: ignore[operator]  # narrowed by `kinds` above
        raise ValueError(f"{name} must be between {least} and {most}, got {_shown(value)}")


def _shown(value: object) -> object:
    """What a message shows of a number: Python writes no int of very many digits."""
    if isinstance(value, int) and value.bit_length() > _SHOWN:
        return f"an int of {value.bit_length()} bits"
    return value


def process_number(name: str, value: object, variable: str, *, least: int) -> int | None:
    """Return rank or world size from the argument or the launcher's environment variable."""
    source = name
    if value is None:
        text = os.environ.get(variable)
        if text is None or not text.strip():
            return None
        source = f"the environment variable {variable}"
        try:
            # int() would take "1_0", and the digits of other scripts.
            value = int(text) if _WHOLE.fullmatch(text) else None
        except ValueError:  # more digits than Python reads
            value = None
        if value is None:
            raise ValueError(f"{source} must be a whole number, got {text[:_SHOWN]!r}")
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{source} must be at least {least}, got {_shown(value)}")
    if value > _MOST_PROCESSES:
        raise ValueError(f"{source} must be at most {_MOST_PROCESSES}, got {_shown(value)}")
    return value


def seconds(name: str, value: object) -> float:
    """Return a time to wait; TypeError for what is no number, ValueError for NaN or below 0."""
    if isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"{name} must be a number of seconds, got {type(value).__name__}")
    value = cast("float", value)
    try:
        number = float(value)
    except OverflowError:  # an int beyond all floats: as good as for ever
        number = float("inf" if value > 0 else "-inf")
    if not number >= 0:
        raise ValueError(f"{name} must be at least 0 seconds, got {number}")
    return number


def known_level(level: object) -> str | None:
    """Return the name of a level that `logging` knows, from its name in any case or its number."""
    name = logging.getLevelName(level) if isinstance(level, int) else level
    return _LEVEL_NAMES.get(str(name).upper())


def level_name(level: str | int | None, default: str) -> str:
    """Return the name of a level of `logging`; ValueError for an unknown one."""
    if level is None:
        return default
    known = known_level(level)
    if known is None:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    return known
