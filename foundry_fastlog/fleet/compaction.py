"""Write runs that have ended into a dataset, and keep its columns alike.

A worker reads a run, writes its files beside their places, looks if the run is still as it was, and
only then renames them. Whoever does so again comes to the same files, so a worker may be killed at
any point.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from foundry_fastlog.analysis.run_summary import STATES, state_of
from foundry_fastlog.analysis.runs import is_old
from foundry_fastlog.base.extras import extra
from foundry_fastlog.base.formatting import jsonable
from foundry_fastlog.export.arrow_tables import (
    partition_of,
    retype,
    schema_of,
    write_part,
    write_rows,
)
from foundry_fastlog.export.result import NamedRun, Tally
from foundry_fastlog.export.tables import kinds_of
from foundry_fastlog.fleet.crew import Crew, FleetError, Lost, Progress
from foundry_fastlog.fleet.dataset import (
    PART,
    Dataset,
    Part,
    beside,
    part_at,
    stamp_of,
    told_by,
)
from foundry_fastlog.reading.run import Run, read_run
from foundry_fastlog.run.files import STREAMS
from foundry_fastlog.run.tree import FoundRun, find_run_at

__all__ = ["CLOSED", "Compacted", "compact_runs"]

#: The states of runs in which nobody records.
CLOSED = ("ended", "failed", "killed")


@dataclass(frozen=True)
class Compacted:
    """What a compaction came to.

    Attributes:
        path: The dataset.
        written: How many runs were written, because they were new or had changed.
        unchanged: How many runs were in it as they are.
        runs: How many runs it has, those among them that are no longer in the directory.
        files: How many files it has.
        rows: How many rows it has, by stream.
        bytes: The size of its files.
        aligned: How many files were written again so that a column has one type in all files.
        left_out: How many runs were left out, by state: they have not ended, or ``changed`` while
            they were read, or are ``gone``.
        failed: Runs that could not be written, and directories that could not be searched for
            runs, and why.
        incomplete: Runs of which the dataset has what can be read: they are damaged.
        notes: What Parquet could not hold as it was recorded.
    """

    path: Path
    written: int
    unchanged: int
    runs: int
    files: int
    rows: dict[str, int]
    bytes: int
    aligned: int
    left_out: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    incomplete: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything is in the dataset that runs which have ended recorded."""
        return not self.failed and not self.incomplete

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**jsonable(self), "complete": self.complete}


@dataclass(frozen=True)
class _Outcome:
    """What became of a run: files of the dataset, or why there are none."""

    run: str
    key: str = ""
    parts: tuple[Part, ...] = ()
    left_out: str = ""
    error: str = ""
    complete: bool = True


@dataclass(frozen=True)
class _Unlike:
    """A file of the dataset, and what its columns have to hold."""

    part: Part
    kinds: dict[str, str]

    @property
    def size(self) -> int:
        """How much there is to read."""
        return self.part.size


class _ChangedError(Exception):
    """A run was written to while it was read, or a file of the dataset was replaced."""


def compact_runs(
    crew: Crew,
    found: Collection[FoundRun],
    out: Path,
    streams: Collection[str],
    states: Collection[str],
    progress: Progress | None,
) -> Compacted:
    """Write those runs into a dataset that are not in it as they are; see ``Fleet.compact``."""
    with extra("export", "pyarrow"):
        import pyarrow.parquet  # noqa: F401 - before anything is made
    if unknown := [state for state in states if state not in STATES]:
        raise ValueError(f"unknown state {unknown[0]!r}; states are {', '.join(STATES)}")
    chosen = tuple(stream for stream in STREAMS if stream in streams)
    dataset = Dataset(out)
    known = dataset.keys()
    changed = [one for one in found if known.get(one.name) != _key_of(one, chosen)]
    counted = _Counted()
    for result in crew.each(partial(_write_run, out, chosen, tuple(states)), changed, progress):
        counted.take(result, dataset)
    aligned = _align(crew, dataset, counted)
    try:
        dataset.write_manifest()
    except OSError as error:
        raise FleetError(
            f"{out} is not complete: {error.strerror or error}. {counted.written:,} runs were "
            f"written, {len(counted.failed):,} could not be. Repeat it, which writes the rest"
        ) from error
    rows: Counter[str] = Counter()
    for part in dataset.parts.values():
        rows[part.stream] += part.rows
    return Compacted(
        path=out,
        written=counted.written,
        unchanged=len(found) - len(changed),
        runs=len(dataset.keys()),
        files=len(dataset.parts),
        rows={stream: rows[stream] for stream in STREAMS if rows[stream]},
        bytes=sum(part.size for part in dataset.parts.values()),
        aligned=aligned,
        left_out=dict(counted.left_out.most_common()),
        failed=counted.failed,
        incomplete=tuple(sorted({*counted.incomplete, *dataset.incomplete()})),
        notes=tuple(counted.notes),
    )


class _Counted:
    """What the runs of a compaction came to."""

    def __init__(self) -> None:
        self.written = 0
        self.left_out: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        self.incomplete: list[str] = []
        self.notes: list[str] = []

    def take(self, result: _Outcome | Lost[FoundRun], dataset: Dataset) -> None:
        """Count a run, and take its files into the dataset."""
        if isinstance(result, Lost):
            self.failed[result.item.name] = result.reason
        elif result.error:
            self.failed[result.run] = result.error
        elif result.left_out:
            self.left_out[result.left_out] += 1
        elif not all((dataset.path / part.path).exists() for part in result.parts):
            self.failed[result.run] = f"its worker does not see {dataset.path} as this process does"
        else:
            self.written += 1
            dataset.replace(result.run, result.key, result.parts)
            if not result.complete:
                self.incomplete.append(result.run)


def _align(crew: Crew, dataset: Dataset, counted: _Counted) -> int:
    """Give a column one type in all files: those that differ are written again."""
    unlike = [_Unlike(part, kinds) for part, kinds in dataset.unlike()]
    for result in crew.each(partial(_align_part, dataset.path), unlike):
        if isinstance(result, Lost):
            counted.failed[result.item.part.run] = result.reason
        else:
            part, notes = result
            dataset.parts[part.path] = part
            counted.notes += notes
    return len(unlike)


def _key_of(found: FoundRun, streams: Collection[str]) -> str:
    """Return what the files of a run are made of: its own files, and the streams in them."""
    return f"{found.signature} {','.join(streams)}"


def _write_run(
    out: Path, streams: tuple[str, ...], states: tuple[str, ...], found: FoundRun
) -> _Outcome:
    """Write the files of a run, on a worker, if it has ended and stays as it is."""
    now = time.time()
    name = found.name
    before = find_run_at(found.path, name)
    if before is None:
        return _Outcome(name, left_out="gone")
    try:
        run = read_run(before.path)
        state = state_of(run.report_starts())
        if state not in states:
            return _Outcome(name, left_out=state)
        key = _key_of(before, streams)
        # What may change without looking different is written again the next time.
        told = key if is_old(before, now) else f"{key} {now}"
        complete = not run.unread and all(check.complete for check in run.check(streams))
        with ExitStack() as waiting:
            told_of = told_by(name, told, complete=complete)
            paths = _write_parts(run, name, told_of, streams, out, waiting)
            _check_same(before)
        parts = tuple(part_at(out / path, path) for path in paths)
    except _ChangedError:
        return _Outcome(name, left_out="changed")
    except Exception as error:  # noqa: BLE001 - of one run among thousands
        if not found.path.exists():
            return _Outcome(name, left_out="gone")
        return _Outcome(name, error=f"{type(error).__name__}: {error}")
    return _Outcome(name, told, parts, complete=complete)


def _check_same(before: FoundRun) -> None:
    """See that a run is as it was.

    Raises:
        _ChangedError: It is not.
    """
    after = find_run_at(before.path, before.name)
    if after is None or after.signature != before.signature:
        raise _ChangedError


def _write_parts(
    run: Run,
    name: str,
    told: dict[bytes, bytes],
    streams: tuple[str, ...],
    out: Path,
    waiting: ExitStack,
) -> list[str]:
    """Write the files of a run beside their places, where they come as `waiting` ends."""
    named = NamedRun(run, _printed(name), "latest")
    paths = []
    for stream in streams:
        for rank in sorted({one.writer.rank for one in run.series if one.stream == stream}):
            columns = run.arrow(stream, ranks=rank)
            if not columns.rows:
                continue
            path = f"{stream}/{partition_of(named.name, rank)}/{PART}"
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            temporary = waiting.enter_context(beside(out / path))
            schema = schema_of(kinds_of(columns), [named])
            schema = schema.with_metadata({**schema.metadata, **told})
            write_part(named, stream, columns, schema, temporary, Tally())
            paths.append(path)
    return paths


def _check_there(path: Path, part: Part) -> None:
    """See that a file of the dataset is as it was.

    Raises:
        _ChangedError: It is not.
    """
    if stamp_of(path.stat()) != part.stamp:
        raise _ChangedError


def _printed(name: str) -> str:
    """Return the name of a run as UTF-8; of one that is none, what no other run has."""
    printed = name.encode("utf-8", "backslashreplace").decode()
    if printed == name:
        return name
    return f"{printed} {hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def _align_part(out: Path, unlike: _Unlike) -> tuple[Part, list[str]]:
    """Write a file of the dataset again, on a worker, with columns that hold what others do."""
    import pyarrow.parquet as pq

    path, tally = out / unlike.part.path, Tally()
    rows = retype(pq.read_table(path, partitioning=None), unlike.kinds, tally)
    try:
        with beside(path) as temporary:
            write_rows(rows, temporary)
            _check_there(path, unlike.part)
    except _ChangedError:  # another compaction wrote what is newer
        return part_at(path, unlike.part.path), []
    notes = tally.result(None, "parquet", 0, []).notes
    return part_at(path, unlike.part.path), [f"{unlike.part.run}: {note}" for note in notes]
