"""What a source says of one process that recorded: facts, and its lines in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Line", "Session", "SourceError", "flattened"]


class SourceError(ValueError):
    """A source cannot be read; the message says why, and what to do."""


@dataclass(frozen=True)
class Line:
    """A line of a stream.

    Attributes:
        stream: ``metrics``, ``log``, ``system``, or another stream.
        time: Seconds since 1970.
        fields: Its fields, without time and number; values may be NaN.
        label: Of the process in its start, as in names of files; ``""`` for the main one.
    """

    stream: str
    time: float
    fields: dict[str, Any]
    label: str = ""


@dataclass
class Session:
    """One start of a run.

    Attributes:
        name: The run's name.
        key: What sessions of the same run share.
        lines: The lines. The other attributes are known once these were read.
        directory: Where the run is, below the directory of all.
        config: The configuration.
        started: Seconds since 1970; None for the time of the first line.
        host: The machine's name.
        argv: The program's arguments.
        git_hash: The program's commit.
        end: How it ended: ``closed``, ``exception``, or ``killed`` where nothing says so.
        error: Of an exception: its class and its message.
        left_out: How many values of each kind were no scalars, or could not be taken over.
    """

    name: str
    key: str
    lines: Iterator[Line]
    directory: str
    config: dict[str, Any] = field(default_factory=dict)
    started: float | None = None
    host: str = ""
    argv: list[str] = field(default_factory=list)
    git_hash: str | None = None
    end: str = "closed"
    error: tuple[str, str] = ("", "")
    left_out: Counter[str] = field(default_factory=Counter)


def flattened(
    values: Mapping[str, Any], left_out: Counter[str], prefix: str = ""
) -> dict[str, Any]:
    """Return nested values by their dotted names, without those that are no scalars.

    Args:
        values: Any JSON.
        left_out: Counts those that are left out, by their class, and names that come twice.
        prefix: Of the names.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        full = f"{prefix}{name}"
        if isinstance(value, Mapping) and "_type" not in value:
            inner = flattened(value, left_out, f"{full}.")
            left_out["value of the same name"] += len(inner.keys() & found.keys())
            found |= inner
        elif isinstance(value, Mapping):
            left_out[str(value["_type"])] += 1
        elif isinstance(value, (list, tuple)):
            left_out["list"] += 1
        else:
            left_out["value of the same name"] += full in found
            found[full] = value
    return found
