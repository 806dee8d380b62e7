"""Export the timings of a run as a trace for Perfetto (ui.perfetto.dev) and chrome://tracing.

The format is the JSON Trace Event Format, with a complete event (``"ph":"X"``) per block. A process
in the trace is a writer of the run, a thread is one of its threads.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Any, cast

import orjson

from foundry_fastlog.export.blocks import (
    ThreadBlocks,
    duration_of,
    nanoseconds_of,
    natural,
    process_ids,
)
from foundry_fastlog.export.jsonl import check_target, open_output
from foundry_fastlog.reading.counting import Starts, is_marker
from foundry_fastlog.reading.lines import Record
from foundry_fastlog.reading.run import Run, read_run
from foundry_fastlog.run.checks import SeriesCheck
from foundry_fastlog.run.files import StrPath, Writer

__all__ = ["TraceResult", "export_chrome_trace"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Device time is only an argument: no line says when the block began there, so it has no track.
_ARGUMENTS = ("step", "parent", "error", "device", "device_duration_s", "missing")


@dataclass(frozen=True)
class TraceResult:
    """The result of a trace export.

    Attributes:
        path: The file, None for standard output.
        events: Blocks written.
        processes: Writers of those blocks.
        checks: Completeness of the performance stream per process.
        unread: Rings and files of the run that cannot be read; see ``Run.unread``.
    """

    path: Path | None
    events: int
    processes: int
    checks: list[SeriesCheck]
    unread: int = 0

    @property
    def complete(self) -> bool:
        """Whether every accepted timing is there, once and readable."""
        return not self.unread and all(check.complete for check in self.checks)


def export_chrome_trace(
    run: Run | StrPath, out: StrPath, *, starts: Starts = "latest", force: bool = False
) -> TraceResult:
    """Export the timings of a run as a trace.

    Args:
        run: The run, or its directory.
        out: The file to write, or ``"-"`` for standard output; compressed if its name ends in
            ``.gz``. Perfetto opens both.
        starts: As for ``Run.lines``.
        force: Replace an existing file.

    Returns:
        The result of the export.

    Raises:
        RunNotFoundError: There is no run.
        ExportError: The file cannot be written.
        ValueError: An unknown start.
    """
    run = run if isinstance(run, Run) else read_run(run)
    checks: list[SeriesCheck] = []
    lines = run.raw_lines(["performance"], starts=starts, checks=checks)
    path = None if out == "-" else check_target(run, Path(out), force=force)
    base = _first_start(run, starts)
    tracks = _Tracks(run, base)
    events = 0
    with open_output(path, force=force) as raw, _maybe_gzip(raw, path) as handle:
        handle.write(b'{"displayTimeUnit":"ms","otherData":')
        handle.write(orjson.dumps(_facts(run, base)))
        handle.write(b',"traceEvents":[\n')
        separator = b""
        for series, line in lines:
            record = orjson.loads(line)
            if is_marker(record):
                continue
            handle.write(separator + orjson.dumps(tracks.event(series.writer, record)))
            separator = b",\n"
            events += 1
        for fact in tracks.metadata():
            handle.write(separator + orjson.dumps(fact))
            separator = b",\n"
        handle.write(b"\n]}\n")
    return TraceResult(path, events, len(tracks.pids), checks, run.unread)


@contextmanager
def _maybe_gzip(handle: IO[bytes], path: Path | None) -> Iterator[IO[bytes]]:
    if path is None or path.suffix != ".gz":
        yield handle
        return
    with gzip.GzipFile(filename="", fileobj=handle, mode="wb", compresslevel=5, mtime=0) as packed:
        yield cast("IO[bytes]", packed)


def _first_start(run: Run, starts: Starts) -> int:
    """Return when the first block began, in nanoseconds since 1970: the trace's zero."""
    records = (orjson.loads(raw) for _, raw in run.raw_lines(["performance"], starts=starts))
    began = (
        nanoseconds_of(record["timestamp"]) - duration_of(record)
        for record in records
        if not is_marker(record)
    )
    return max(0, min(began, default=0)) // 1000 * 1000


def _facts(run: Run, base: int) -> dict[str, Any]:
    start = (_EPOCH + timedelta(microseconds=base // 1000)).isoformat(timespec="microseconds")
    name = run.info.get("name")
    return {"run": name if isinstance(name, str) else run.path.name, "start": start}


class _Tracks:
    """Numbers processes and threads, and positions blocks so that they nest."""

    def __init__(self, run: Run, base: int) -> None:
        self._base = base
        self.pids: dict[Writer, int] = {writer: i for i, writer in enumerate(run.writers, 1)}
        self._threads: dict[tuple[int, int], ThreadBlocks] = {}
        self._main_threads = process_ids(run)

    def event(self, writer: Writer, record: Record) -> dict[str, Any]:
        """Convert a line to a trace event."""
        pid = self.pids[writer]
        tid = natural(record.get("thread"), 1 << 63)
        thread = self._threads.get((pid, tid))
        if thread is None:
            thread = self._threads[(pid, tid)] = ThreadBlocks()
        end = nanoseconds_of(record["timestamp"]) - self._base
        depth = natural(record.get("depth"), 1 << 16)
        begin, end = thread.place(depth, end - duration_of(record), end)
        return {
            "name": record["name"],
            "ph": "X",
            "ts": begin / 1000,  # in microseconds
            "dur": (end - begin) / 1000,
            "pid": pid,
            "tid": tid,
            "cat": "performance",
            "args": {key: record[key] for key in _ARGUMENTS if record.get(key) is not None},
        }

    def metadata(self) -> Iterator[dict[str, Any]]:
        """Name the processes and threads that have blocks."""
        used = {pid for pid, _ in self._threads}
        self.pids = {writer: pid for writer, pid in self.pids.items() if pid in used}
        for writer, pid in self.pids.items():
            yield _named("process_name", pid, 0, name=f"rank {writer.rank}: {writer.display}")
            yield _named("process_sort_index", pid, 0, sort_index=pid)
        mains = {(self.pids[w], os_pid) for w, os_pid in self._main_threads if w in self.pids}
        for pid, tid in sorted(self._threads):
            name = "main thread" if (pid, tid) in mains else f"thread {tid}"
            yield _named("thread_name", pid, tid, name=name)


def _named(kind: str, pid: int, tid: int, **args: object) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": args}
