"""What an export of runs wrote, and the runs that it is made of."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from foundry_fastlog.reading.counting import Starts, is_marker
from foundry_fastlog.reading.lines import Record, restore_nonfinite
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.checks import SeriesCheck
from foundry_fastlog.run.files import STREAMS, Series

__all__ = ["Checked", "Exported", "NamedRun", "Tally", "name_runs"]


class Checked:
    """What both kinds of results know of completeness."""

    checks: list[SeriesCheck]
    unread: int

    @property
    def complete(self) -> bool:
        """Whether every accepted record is there, once and readable."""
        return not self.unread and all(check.complete for check in self.checks)

    @property
    def dropped(self) -> int:
        """Records that the recorder dropped because its ring was full."""
        return sum(check.dropped for check in self.checks)


@dataclass(frozen=True)
class Exported(Checked):
    """What an export of runs wrote.

    Attributes:
        path: The file or directory, None for standard output.
        format: Its format.
        rows: Rows or lines written, by stream.
        bytes: Bytes written.
        notes: What the format could not hold as it was recorded, and where that is instead.
        checks: Completeness per run, stream and process.
        unread: Rings and files of the runs that cannot be read; see ``Run.unread``.
        left_out: Values that count no longer, by stream and name; see ``Run.left_out``.
    """

    path: Path | None
    format: str
    rows: dict[str, int]
    bytes: int
    notes: tuple[str, ...]
    checks: list[SeriesCheck]
    unread: int = 0
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what was written as JSON values."""
        return {
            "path": None if self.path is None else str(self.path),
            "format": self.format,
            "complete": self.complete,
            "rows": self.rows,
            "bytes": self.bytes,
            "notes": list(self.notes),
            "dropped": self.dropped,
            "left_out": self.left_out,
        }


@dataclass(frozen=True)
class NamedRun:
    """A run, and what it is called in an export.

    Attributes:
        run: The run.
        name: Its directory's name; of several runs as much of their paths as tells them apart.
        starts: Which starts of it are exported.
    """

    run: Run
    name: str
    starts: Starts

    def lines(self, streams: Iterable[str], tally: Tally) -> Iterator[tuple[Series, Record]]:
        """Read lines with values, merged by time, and count them.

        Args:
            streams: Which streams to read.
            tally: Receives the counts.

        Yields:
            Each line's origin, and the line with its NaN restored.
        """
        entries = self.run.raw_lines(streams, starts=self.starts, checks=tally.checks)
        for series, raw in entries:
            record = orjson.loads(raw)
            if not is_marker(record):
                tally.rows[series.stream] += 1
                yield series, restore_nonfinite(record)
        tally.take_left_out(self.run, streams)

    def checks(self, stream: str) -> list[SeriesCheck]:
        """Check a stream, as far as its starts are exported."""
        return [
            check
            for check in self.run.check([stream])
            if isinstance(self.starts, str)
            or self.run.number_of(check.series.writer) == self.starts
        ]


class Tally:
    """Counts what an export writes, what counts no longer, and what its format cannot hold.

    Attributes:
        rows: Rows by stream.
        checks: Completeness per run, stream and process.
    """

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.checks: list[SeriesCheck] = []
        self._left_out: dict[str, Counter[str]] = {}
        self._notes: Counter[str] = Counter()
        self._remarks: dict[str, None] = {}

    def note(self, what: str, count: int = 1) -> None:
        """Count what does not fit.

        Args:
            what: What it is, in the plural, and what became of it: ``texts, left out``.
            count: How many there are.
        """
        if count:
            self._notes[what] += count

    def take_left_out(self, run: Run, streams: Iterable[str]) -> None:
        """Add what the last read of streams left out, as it counts no longer."""
        for stream in streams:
            if names := run.left_out.get(stream):
                self._left_out.setdefault(stream, Counter()).update(names)

    def remark(self, text: str) -> None:
        """Say once what holds for all that is written."""
        self._remarks[text] = None

    def result(self, path: Path | None, form: str, size: int, runs: Sequence[NamedRun]) -> Exported:
        """Return what was written, when all of it is."""
        counted = (f"{what}: {count:,}" for what, count in self._notes.items())
        return Exported(
            path,
            form,
            {stream: self.rows[stream] for stream in STREAMS if self.rows[stream]},
            size,
            (*counted, *self._remarks),
            self.checks,
            sum(one.run.unread for one in runs),
            {stream: dict(names) for stream, names in self._left_out.items()},
        )


def name_runs(runs: Sequence[Run], starts: Starts) -> list[NamedRun]:
    """Name runs by their directories.

    Args:
        runs: The runs, at least one.
        starts: Which starts of them are exported.

    Raises:
        ValueError: A run is named twice.
    """
    paths = [os.path.abspath(run.path) for run in runs]  # noqa: PTH100 - links keep their names
    root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120 - text
    names = [os.path.relpath(path, root) for path in paths]
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{name} is named {count} times; name each run once")
    safe = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    return [NamedRun(run, name, starts) for run, name in zip(runs, safe, strict=True)]
