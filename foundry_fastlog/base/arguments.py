"""Checks of a `Recorder`'s arguments, so that errors appear at once instead of much later."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, SupportsIndex, cast

__all__ = [
    "INT64_MAX",
    "INT64_MIN",
    "LEVELS",
    "absolute",
    "bounds_of",
    "check_choice",
    "check_directory",
    "check_number",
    "check_type",
    "duration",
    "exactly",
    "expanded",
    "known_level",
    "level_name",
    "level_number",
    "moment",
    "names_of",
    "process_number",
    "ranks_of",
    "seconds",
    "step_number",
    "step_of",
    "whole_number",
]

_MOST_PROCESSES = (1 << 31) - 1  # a rank has 32 bits in a ring file
_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(s|m|min|h|d|)")
_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_SHOWN = 100  # characters, or bits, shown of a rejected value

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LEVEL_NAMES = {
    **{name: name for name in LEVELS},
    "WARN": "WARNING",
    "FATAL": "CRITICAL",
}


def absolute(path: str | os.PathLike[str]) -> str:
    """Return a path as absolute text; TypeError or ValueError if it is not a path."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"path must be a str or a Path, got {type(text).__name__}")
    if "\0" in text:
        raise ValueError(f"path must not contain a NUL character, got {text!r}")
    # Not Path.resolve(): keep links as the user wrote them, as in messages and file names.
    return os.path.abspath(text)  # noqa: PTH100 - see above


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path of a configuration, where no shell has replaced ``~`` and ``$VARIABLES``.

    Raises:
        ValueError: A variable is not set.
    """
    text = os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111 - with variables
    if (unknown := _VARIABLE.search(text)) is not None:
        name = unknown[1].strip("{}")
        raise ValueError(f"the environment variable {name} is not set, in the path {text!r}")
    return Path(text)


def check_directory(directory: str) -> None:
    """Raise NotADirectoryError if the directory, or a parent, is a file."""
    part = Path(directory)
    for place in (part, *part.parents):
        try:
            mode = place.stat().st_mode  # one call: it may be removed in between
        except (OSError, ValueError):  # does not exist, or is not accessible
            continue
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(
                f"{place} is a file, so {directory} cannot be a run's directory: choose another "
                "path"
            )


def check_type(name: str, value: object, kind: type, wanted: str) -> None:
    """Raise TypeError unless `value` has a type, or one of several."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {wanted}, got {type(value).__name__}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of the choices."""
    if value not in choices:
        wanted = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {wanted}, got {value!r}")


def whole_number(name: str, value: object) -> int:
    """Return an int of any size; TypeError for anything else."""
    if type(value) is int:  # checking the protocol takes microseconds
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    return value.__index__()


def step_number(step: object) -> int:
    """Return a step, checked as record() does."""
    number = whole_number("step", step)
    if not INT64_MIN <= number <= INT64_MAX:
        raise OverflowError("step does not fit in a signed 64-bit integer")
    return number


def ranks_of(ranks: int | Iterable[int]) -> tuple[int, ...]:
    """Check ranks.

    Raises:
        TypeError: They are no integers.
    """
    return tuple(whole_number("ranks", rank) for rank in _several(ranks))


def names_of(names: str | Iterable[str]) -> list[str]:
    """Check names.

    Raises:
        TypeError: They are no texts.
    """
    given = list(_several(names))
    for name in given:
        check_type("names", name, str, "a str or several")
    return given


_WILD = re.compile(r"[*?[]")


def exactly(names: Iterable[str]) -> list[str]:
    """Return patterns that fit these names alone."""
    return [_WILD.sub(r"[\g<0>]", name) for name in names]


def _several(given: object) -> Iterable[Any]:
    return (
        given if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else (given,)
    )


def bounds_of(steps: tuple[int | None, int | None] | None) -> tuple[int, int]:
    """Return the first and the last step to read: those of 64 bits where there is no bound.

    Raises:
        TypeError: They are none.
    """
    pair: object = (None, None) if steps is None else steps
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"steps must be the first and the last step, or None, got {steps!r}")
    first, last = (
        bound if step is None else max(INT64_MIN, min(whole_number("steps", step), INT64_MAX))
        for step, bound in zip(pair, (INT64_MIN, INT64_MAX), strict=True)
    )
    return first, last


def step_of(context: Mapping[Any, Any], name: str = "step") -> int | None:
    """Return the ``step`` of a context, or what has another name, if it can be a line's."""
    step = context.get(name)
    return step if type(step) is int and INT64_MIN <= step <= INT64_MAX else None


def check_number(
    name: str, value: object, least: float, most: float, *, whole: bool = False
) -> None:
    """Raise TypeError if it is not a number, and ValueError if it is out of range."""
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        wanted = "an int" if whole else "a number"
        raise TypeError(f"{name} must be {wanted}, got {type(value).__name__}")
    if not least <= value <= most:  # type: ignore[operator]  # narrowed by `kinds` above
        raise ValueError(f"{name} must be between {least} and {most}, got {_shown(value)}")


def _shown(value: object) -> object:
    """Return how a message shows a number: Python cannot print ints of very many digits."""
    if isinstance(value, int) and value.bit_length() > _SHOWN:
        return f"an int of {value.bit_length()} bits"
    return value


def process_number(name: str, value: object, variable: str, *, least: int) -> int | None:
    """Return the rank or world size from the argument or the launcher's environment variable."""
    source = name
    if value is None:
        text = os.environ.get(variable)
        if text is None or not text.strip():
            return None
        source = f"the environment variable {variable}"
        try:
            # int() would accept "1_0" and digits of other scripts.
            value = int(text) if _WHOLE.fullmatch(text) else None
        except ValueError:  # more digits than Python parses
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
    """Return a timeout; TypeError if it is not a number, ValueError if NaN or below 0."""
    if isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"{name} must be a number of seconds, got {type(value).__name__}")
    value = cast("float", value)
    try:
        number = float(value)
    except OverflowError:  # an int larger than any float: wait forever
        number = float("inf" if value > 0 else "-inf")
    if not number >= 0:
        raise ValueError(f"{name} must be at least 0 seconds, got {number}")
    return number


def duration(text: str) -> float:
    """Return the seconds that a text says: ``90``, ``90s``, ``10m``, ``2h``, ``3d``.

    Raises:
        ValueError: It says none.
    """
    if (found := _DURATION.fullmatch(text.strip())) is None:
        raise ValueError(f"a duration is written as 90s, 10m, 2h or 3d, not {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def moment(text: str, now: datetime) -> str:
    """Return a point in time as timestamps of lines have it.

    Args:
        text: ``2026-01-30``, ``2026-01-30T14:32``, with an offset such as ``+01:00`` where it is
            not UTC; or a duration such as ``10m``, which means so long ago.
        now: The present time.

    Raises:
        ValueError: It is neither.
    """
    try:
        if _DURATION.fullmatch(text.strip()):
            found = now - timedelta(seconds=duration(text))
        else:
            found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        if found.tzinfo is None:
            found = found.replace(tzinfo=timezone.utc)
        return found.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (ValueError, OverflowError):
        raise ValueError(
            f"a time is written as 2026-01-30, 2026-01-30T14:32 (UTC) or 10m (so long ago), not "
            f"{text[:_SHOWN]!r}"
        ) from None


def known_level(level: object) -> str | None:
    """Return the name of a standard level, given its name in any case or its number."""
    name = logging.getLevelName(level) if isinstance(level, int) else level
    return _LEVEL_NAMES.get(str(name).upper())


def level_name(level: str | int | None, default: str) -> str:
    """Return the name of a `logging` level; ValueError if it is unknown."""
    if level is None:
        return default
    known = known_level(level)
    if known is None:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    return known


def level_number(level: Any) -> int:  # noqa: ANN401 - what a caller passed
    """Return the number of a `logging` level, given as such or by its name in any case."""
    if isinstance(level, str):
        number = logging.getLevelName(level.upper())  # a number, if the name is known
        if isinstance(number, int):
            return number
    if level is None or isinstance(level, str):
        raise ValueError(f"level must be a number or one of {', '.join(LEVELS)}, got {level!r}")
    return level  # type: ignore[no-any-return]
