"""What is found out about runs only when somebody asks for it, and kept until they change.

It costs more than a row of the table. Each kind of it has a file of its own beside that of rows.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_fastlog.analysis.runs import is_old
from foundry_fastlog.analysis.runs_cache import Kept, read_kept, write_kept
from foundry_fastlog.base.formatting import jsonable
from foundry_fastlog.fleet.crew import Crew, Lost, Progress
from foundry_fastlog.fleet.rows import Row, reason_of
from foundry_fastlog.reading.run import Run, read_run
from foundry_fastlog.run.tree import FoundRun

__all__ = ["UNREADABLE", "Finding", "Study", "find_out", "read_finding"]

#: The only key of what is said of a run that could not be read: why.
UNREADABLE = "unreadable"

#: Says what there is to say of a run, as JSON values.
Study = Callable[[Run], dict[str, Any]]


@dataclass(frozen=True)
class Finding:
    """What a worker found out about a run.

    Attributes:
        found: The run.
        line: It, as a line of JSON.
        is_sure: Whether it was read, and so is the same until a file of the run changes.
    """

    found: FoundRun
    line: bytes
    is_sure: bool


def find_out(
    crew: Crew,
    root: Path,
    kind: str,
    study: Study,
    rows: Iterable[Row],
    chosen: Collection[str],
    looked: float,
    progress: Progress | None,
) -> dict[str, dict[str, Any]]:
    """Find out about runs what is not known yet.

    Args:
        crew: The workers, which are started where there is something to read.
        root: The directory with the runs.
        kind: What is found out: the kind of the file in which it is kept.
        study: Finds it out, on a worker.
        rows: All runs, as they were looked at.
        chosen: The names of those that are asked for.
        looked: When they were looked at.
        progress: Told how many are done.

    Returns:
        What is said of each that was chosen, by name: in their order, so that sums are always the
        same.
    """
    kept = read_kept(root, kind)
    keeps: Kept = {}
    said: dict[str, dict[str, Any]] = {}
    missing = []
    lasting = set()
    for row in rows:
        name, entry = row.found.name, kept.get(row.found.name)
        if entry is not None and entry[0] == row.found.signature:
            keeps[name] = entry
            if name in chosen:
                said[name] = json.loads(entry[1])
        elif name in chosen and row.summary.state == "unreadable":
            said[name] = {UNREADABLE: row.summary.error}
        elif name in chosen:
            missing.append(row.found)
            if row.line is not None and is_old(row.found, looked):
                lasting.add(name)
    try:
        for result in crew.each(functools.partial(read_finding, study), missing, progress):
            if isinstance(result, Lost):
                said[result.item.name] = {UNREADABLE: result.reason}
                continue
            name = result.found.name
            said[name] = json.loads(result.line)
            if result.is_sure and name in lasting:
                keeps[name] = (result.found.signature, result.line)
    finally:  # whatever ended it: what was found out need not be found out again
        if keeps != kept:
            write_kept(root, keeps, kind)
    return dict(sorted(said.items()))


def read_finding(study: Study, found: FoundRun) -> Finding:
    """Find out about a run, on a worker; whatever is wrong with it is said instead."""
    try:
        said, is_sure = study(read_run(found.path)), True
    except Exception as error:  # noqa: BLE001 - of one run among thousands
        said, is_sure = {UNREADABLE: reason_of(found, error)}, False
    return Finding(found, json.dumps(jsonable(said)).encode(), is_sure)
