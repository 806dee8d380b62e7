"""Takes over what other tools have recorded.

>>> from foundry_fastlog import import_runs      # doctest: +SKIP
>>> import_runs("wandb", "runs")                 # all offline runs below wandb/
>>> import_runs("tb_logs", "runs", format="tensorboard")
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundry_fastlog.base.arguments import check_choice
from foundry_fastlog.importing.event_files import find_event_directories, read_event_directory
from foundry_fastlog.importing.json_lines import read_json_lines
from foundry_fastlog.importing.session import Session, SourceError
from foundry_fastlog.importing.trackio_db import find_database, read_database
from foundry_fastlog.importing.wandb_files import find_run_files, read_run_file
from foundry_fastlog.importing.writing import write_run
from foundry_fastlog.run.files import StrPath

__all__ = ["FORMATS", "ImportedRun", "SourceError", "import_runs"]

#: What can be read.
FORMATS = ("wandb", "tensorboard", "trackio", "jsonl")

_ODD = re.compile(r"[^\w.+=@-]+")


@dataclass(frozen=True)
class ImportedRun:
    """A run that was taken over.

    Attributes:
        path: Its directory.
        lines: How many lines each stream has.
        starts: How many starts.
        left_out: How many values of each kind were not taken over: media, lists, files.
    """

    path: Path
    lines: dict[str, int]
    starts: int
    left_out: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain data."""
        return {
            "path": str(self.path),
            "lines": self.lines,
            "starts": self.starts,
            "left_out": dict(self.left_out),
        }


def import_runs(
    sources: StrPath | Iterable[StrPath],
    directory: StrPath,
    *,
    format: str | None = None,  # noqa: A002 - as the command's
    step: str | None = None,
    time: str | None = None,
) -> list[ImportedRun]:
    """Write runs below a directory, with the steps and the times that they were recorded with.

    Args:
        sources: Offline runs of wandb (a run file, a directory ``offline-run-...``, or what has
            such directories), directories with event files of TensorBoard, databases or names of
            projects of trackio, files of JSON lines.
        directory: Where the runs are written, each in a directory of its own.
        format: ``wandb``, ``tensorboard``, ``trackio`` or ``jsonl``. Default: what a source is.
        step: Of JSON lines, the member that is the step.
        time: Of JSON lines, the member that is the time.

    Returns:
        The runs that were written. What is no scalar (images, histograms, files) is left out, and
        counted.

    Raises:
        ImportError: A source needs a package that is not installed; the message says which.
        OSError: A source cannot be read, or a run cannot be written.
        SourceError: A source is none of these, or a run's directory is there already.
        ValueError: An unknown format.
    """
    if format is not None:
        check_choice("format", format, FORMATS)
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    runs: dict[str, list[Session]] = {}
    for source in given:
        for session in _read(Path(source), format, step, time):
            runs.setdefault(session.key, []).append(session)
    taken: Counter[Path] = Counter()
    found = []
    for sessions in runs.values():
        # A session that goes on need not say the name again.
        named = next((one for one in reversed(sessions) if one.name != one.key), sessions[-1])
        sessions[-1].name = named.name
        target = Path(directory, *map(_part, Path(named.directory).parts))
        taken[target] += 1
        if taken[target] > 1:
            target = target.with_name(f"{target.name}-{taken[target]}")
        lines = write_run(target, sessions)
        left_out = sum((session.left_out for session in sessions), Counter[str]())
        found.append(ImportedRun(target, lines, len(sessions), left_out))
    return found


def _read(source: Path, form: str | None, step: str | None, time: str | None) -> Sequence[Session]:
    """Return the sessions of a source."""
    if form in (None, "wandb") and (files := find_run_files(source)):
        return [read_run_file(file) for file in files]
    if form in (None, "tensorboard") and (folders := find_event_directories(source)):
        root = source.parent if source.is_file() else source
        return [one for folder in folders for one in read_event_directory(folder, root)]
    if form in (None, "trackio") and (database := find_database(source)):
        return read_database(database)
    if form in (None, "jsonl") and source.is_file():
        return read_json_lines(source, step, time)
    if not source.exists():
        raise SourceError(f"{source} is not there, and no project of trackio has this name")
    wanted = f"nothing of {form}" if form else "no run of wandb, TensorBoard or trackio"
    raise SourceError(f"{source} has {wanted}, and is no file of JSON lines")


def _part(text: str) -> str:
    """Return a text as the name of a directory that `runs` looks into."""
    return _ODD.sub("-", text).lstrip(".-")[:120] or "run"
