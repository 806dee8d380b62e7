"""What tells runs apart: their names, their configurations, the code that they ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from foundry_fastlog.analysis.where_values import ABSENT
from foundry_fastlog.base.formatting import printable

if TYPE_CHECKING:
    from foundry_fastlog.reading.run import Run

__all__ = [
    "code_of",
    "config_of",
    "differing",
    "flatten",
    "is_complete",
    "is_private",
    "label_runs",
    "nearest",
    "pick_names",
]

_MOST_NAMED = 12


def label_runs(runs: Sequence[Run]) -> list[str]:
    """Name runs so that no two have the same name.

    A run is called by its name. Those that share one are called by as much of their paths as
    tells them apart; a run that is given again gets a number.
    """
    names = [name if isinstance(name := run.info.get("name"), str) else "" for run in runs]
    names = [name or run.path.resolve().name for name, run in zip(names, runs, strict=True)]
    paths = [run.path.resolve() for run in runs]
    for name in [name for name, count in Counter(names).items() if count > 1]:
        several = [number for number, other in enumerate(names) if other == name]
        different = {paths[number] for number in several}
        depth = 1
        while len({paths[n].parts[-depth:] for n in several}) < len(different):
            depth += 1
        for number in several if len(different) > 1 else ():
            names[number] = "/".join(paths[number].parts[-depth:])
    seen: Counter[str] = Counter()
    for number, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[number] = f"{name} ({seen[name]})"
    return names


def config_of(run: Run) -> dict[str, Any]:
    """Return the configuration of a run's latest start that has one."""
    for start in reversed(run.report_starts()):
        if start.config:
            return start.config
    config = run.info.get("config")
    return config if isinstance(config, dict) else {}


def code_of(run: Run) -> str:
    """Return the commit that a run's latest start had checked out; ``""`` where nobody knows."""
    for facts in (*(start.entry for start in reversed(run.report_starts())), run.info):
        if isinstance(found := facts.get("git_hash"), str) and found:
            return found
    return ""


def is_complete(run: Run) -> bool:
    """Read the metrics to their end and say whether none is missing."""
    return not run.unread and all(check.complete for check in run.check(["metrics"]))


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings by dotted names: ``model.layers.0``; empty ones stay as they are."""
    found: dict[str, Any] = {}
    rest: list[tuple[str, Any]] = [
        (str(key), value) for key, value in reversed(list(config.items()))
    ]
    while rest:
        name, value = rest.pop()
        items: list[tuple[Any, Any]] = []
        if isinstance(value, Mapping):
            items = list(value.items())
        elif isinstance(value, list):
            items = list(enumerate(value))
        if not items:
            found[name] = value
        rest += [(f"{name}.{key}", item) for key, item in reversed(items)]
    return found


def is_private(setting: str) -> bool:
    """Return whether a setting is what a tool noted of a run, as wandb's id in ``_wandb.id``.

    Names as Hydra's ``_target_`` are settings.
    """
    first = setting.partition(".")[0]
    return first.startswith("_") and not first.endswith("_")


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return the settings in which configurations differ, by dotted name, in order.

    ``1``, ``1.0`` and ``true`` are different settings. What is private is none.
    """
    flat = [flatten(config) for config in configs]
    names = dict.fromkeys(name for config in flat for name in config)
    rows = {
        name: tuple(config.get(name, ABSENT) for config in flat)
        for name in names
        if not is_private(name)
    }
    return {name: row for name, row in rows.items() if len(set(map(_kind, row))) > 1}


def _kind(value: object) -> tuple[str, str]:
    return type(value).__name__, repr(value)


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return names by how near they are to one that nobody has."""
    wanted = name.strip("*").lower()

    def distance(other: str) -> float:
        return -SequenceMatcher(None, wanted, other.lower()).ratio()

    return sorted(dict.fromkeys(known), key=distance)


def pick_names(known: Iterable[str], patterns: str | Iterable[str], what: str) -> list[str]:
    """Choose names by patterns such as ``val_*``, in the order of the patterns.

    Args:
        known: The names that there are.
        patterns: One or several; a name that fits itself is taken as it is.
        what: What they are names of, for the error.

    Raises:
        LookupError: Nothing fits a pattern; the message names the nearest.
    """
    known = list(dict.fromkeys(known))
    found: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        fit = [name for name in known if name == pattern]
        fit = fit or [name for name in known if fnmatchcase(name, pattern)]
        if not fit:
            near = [printable(name, 60) for name in nearest(pattern, known)]
            more = f" and {len(near) - _MOST_NAMED:,} more" if len(near) > _MOST_NAMED else ""
            there = f"there are: {', '.join(near[:_MOST_NAMED])}{more}" if near else "there is none"
            raise LookupError(f"no {what} fits {printable(pattern)}; {there}")
        found.update(dict.fromkeys(fit))
    return list(found)
