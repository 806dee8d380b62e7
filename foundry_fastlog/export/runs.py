"""Export runs in the formats of other tools.

>>> from foundry_fastlog import export_runs       # doctest: +SKIP
>>> export_runs("runs/exp0", "exp0.csv").rows
{'metrics': 1000}
>>> export_runs(["runs/a", "runs/b"], "dataset/", format="parquet")
"""

from __future__ import annotations

import functools
import importlib
import io
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from foundry_fastlog.base.extras import extra
from foundry_fastlog.export.directory import bytes_in, check_directory, open_directory
from foundry_fastlog.export.jsonl import Tag, Tags, check_target, copy_lines, open_output
from foundry_fastlog.export.result import Exported, NamedRun, Tally, name_runs
from foundry_fastlog.export.tables import StreamTable
from foundry_fastlog.reading.counting import Starts, known_streams
from foundry_fastlog.reading.run import Run, read_run
from foundry_fastlog.run.files import STREAMS, StrPath

__all__ = ["FORMATS", "export_runs", "format_of"]

#: The formats, and the endings by which they are known.
FORMATS: dict[str, tuple[str, ...]] = {
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv",),
    "parquet": (".parquet",),
    "arrow": (".arrow", ".feather", ".ipc"),
    "tensorboard": (),
    "perfetto": (".pftrace", ".perfetto-trace"),
    "otlp": (),
    "prometheus": (".prom",),
}

# A table has the columns of one stream; there are datasets of several.
_TABLES = ("csv", "arrow", "parquet")
_DIRECTORIES = ("tensorboard", "otlp")
_TEXTS = ("jsonl", "csv", "prometheus")
_OTHERS = (".tsv", ".xlsx")
# What is imported of optional packages; those of Google's protocol buffers need another one.
_NEEDED = {
    "parquet": "pyarrow.parquet",
    "arrow": "pyarrow.compute",
    "tensorboard": "tensorboard.summary.writer.record_writer",
    "perfetto": "perfetto.trace_builder.proto_builder",
}

_ToFile = Callable[[Sequence[NamedRun], Sequence[str], BinaryIO, Tally], object]
_ToDirectory = Callable[[Sequence[NamedRun], Sequence[str], Path, Tally], object]


def format_of(path: StrPath, form: str | None = None) -> str:
    """Say in which format an export is written.

    Args:
        path: Where to, ``"-"`` for standard output.
        form: The format that was asked for. By default the path's ending decides: a ``/`` means a
            Parquet dataset, and an ending that no format has means JSON Lines.

    Raises:
        ValueError: No such format.
    """
    if form is not None:
        if form not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {form!r}")
        return form
    name = os.fspath(path)
    if name.endswith("/"):
        return "parquet"
    ending = Path(name).suffix.lower()
    if ending in _OTHERS:
        raise ValueError(
            f"{name}: no export writes {ending}; choose .csv or .parquet, or let a frame write it: "
            "foundry_fastlog.read_run(...).to_pandas('metrics')"
        )
    return next((known for known, endings in FORMATS.items() if ending in endings), "jsonl")


def export_runs(
    runs: Run | StrPath | Iterable[Run | StrPath],
    path: StrPath,
    *,
    format: str | None = None,  # noqa: A002 - what it is called everywhere
    streams: str | Collection[str] | None = None,
    starts: Starts = "latest",
    tag: Tag = "auto",
    force: bool = False,
) -> Exported:
    """Export runs to a file or a directory.

    It is written beside its place and renamed when it is complete. Of a damaged run, everything
    that is left is written; check ``complete``. See ``docs/export.md`` for the formats.

    Args:
        runs: The run or the runs, or their directories.
        path: Where to, ``"-"`` for standard output: in JSON Lines, CSV and for Prometheus.
        format: ``jsonl``, ``csv``, ``parquet``, ``arrow``, ``tensorboard``, ``perfetto``, ``otlp``
            or ``prometheus``. By default the path's ending decides; see ``format_of``.
        streams: Which streams to write. By default all that the format takes; of a table, which has
            one, ``metrics``.
        starts: Which starts to write; see ``Run.lines``.
        tag: As for ``export_run``: in JSON Lines, what is appended to lines.
        force: Replace what is there: a file, or a directory of the same format.

    Returns:
        What was written, whether it is complete, and what the format could not hold.

    Raises:
        ExportError: The target is there, must not be written, or cannot be.
        ImportError: A package is missing; the message says how to get it.
        RunNotFoundError: There is no run.
        ValueError: An unknown format, stream, start or ``tag``, or streams that do not fit into
            the format.
    """
    form = format_of(path, format)
    if tag not in ("auto", "always", "never"):
        raise ValueError(f"tag must be 'auto', 'always' or 'never', got {tag!r}")
    if tag != "auto" and form != "jsonl":
        raise ValueError("tag is for JSON Lines; the other formats always say whose a value is")
    several = not isinstance(runs, (Run, str, os.PathLike))
    listed: list[Run | StrPath] = list(runs) if several else [runs]  # type: ignore[arg-type,list-item]
    found = [run if isinstance(run, Run) else read_run(run) for run in listed]
    if not found:
        raise ValueError("name a run to export")
    named = name_runs(found, starts)
    into_directory = form in _DIRECTORIES or (
        form == "parquet" and Path(path).suffix.lower() != ".parquet"
    )
    chosen = _streams(form, streams, one=form in _TABLES and not into_directory)
    if os.fspath(path) == "-" and form not in _TEXTS:
        raise ValueError(f"{form} is not written to standard output: name a file")
    if form in _NEEDED:
        with extra("export", _NEEDED[form].partition(".")[0], "google"):
            importlib.import_module(_NEEDED[form])
    tally = Tally()
    if into_directory:
        return _to_directory(form, named, chosen, Path(path), tally, force=force)
    return _to_file(form, named, chosen, path, tally, tag=tag, force=force)


def _streams(form: str, streams: str | Collection[str] | None, *, one: bool) -> tuple[str, ...]:
    """Return the streams to write, in their order.

    Raises:
        ValueError: A stream is unknown, or does not fit into the format.
    """
    fit = ("metrics", "system") if form == "prometheus" else STREAMS
    if streams is None:
        return ("metrics",) if one else fit
    wanted = known_streams([streams] if isinstance(streams, str) else streams)
    if one and len(wanted) != 1:
        raise ValueError(
            f"a table in {form} holds one stream: choose one, or write a dataset of all as Parquet "
            "to a directory, DIR/"
        )
    if unfit := [stream for stream in STREAMS if stream in wanted and stream not in fit]:
        raise ValueError(f"{form} has no place for {', '.join(unfit)}, but for {', '.join(fit)}")
    return tuple(stream for stream in STREAMS if stream in wanted)


def _to_file(
    form: str,
    runs: Sequence[NamedRun],
    streams: tuple[str, ...],
    path: StrPath,
    tally: Tally,
    *,
    tag: Tag,
    force: bool,
) -> Exported:
    write = _file_writer(form, tag)
    target = None
    if os.fspath(path) != "-":
        targets = [check_target(one.run, Path(path), force=force) for one in runs]
        target = targets[0]
    with open_output(target, force=force) as handle:
        counted = _Counted(handle)
        write(runs, streams, cast("BinaryIO", counted), tally)
    return tally.result(target, form, counted.size, runs)


def _to_directory(
    form: str,
    runs: Sequence[NamedRun],
    streams: tuple[str, ...],
    path: Path,
    tally: Tally,
    *,
    force: bool,
) -> Exported:
    write, ours = _directory_writer(form)
    target = check_directory([one.run for one in runs], path, force=force, ours=ours)
    with open_directory(target, force=force) as place:
        write(runs, streams, place, tally)
        size = bytes_in(place)
    return tally.result(target, form, size, runs)


def _file_writer(form: str, tag: Tag) -> _ToFile:
    """Return what writes a file."""
    if form == "jsonl":
        return functools.partial(_write_jsonl, tag)
    if form == "csv":
        from foundry_fastlog.export.csv_table import write_csv

        return functools.partial(_write_table, write_csv)
    if form == "prometheus":
        from foundry_fastlog.export.prometheus import write_prometheus

        return write_prometheus
    if form == "perfetto":
        from foundry_fastlog.export.track_events import write_track_events

        return write_track_events
    from foundry_fastlog.export.arrow_tables import write_ipc, write_parquet

    return functools.partial(_write_table, write_ipc if form == "arrow" else write_parquet)


def _directory_writer(form: str) -> tuple[_ToDirectory, Callable[[str], bool]]:
    """Return what writes a directory, and says whether a file in it is its own."""
    if form == "tensorboard":
        from foundry_fastlog.export.tensorboard import is_event_file, write_events

        return write_events, is_event_file
    if form == "otlp":
        from foundry_fastlog.export.otlp import is_signal_file, write_otlp

        return write_otlp, is_signal_file
    return _write_datasets, lambda name: name.endswith(".parquet")


def _write_jsonl(
    tag: Tag, runs: Sequence[NamedRun], streams: Sequence[str], handle: BinaryIO, tally: Tally
) -> None:
    for one in runs:
        tags = Tags(one.run, streams, tag, one.name if len(runs) > 1 else None)
        entries = one.run.raw_lines(streams, starts=one.starts, checks=tally.checks)
        counts, _ = copy_lines(entries, tags, handle)
        tally.rows.update(counts)
        tally.take_left_out(one.run, streams)
        if tags.names:
            tally.remark(f"added to each line: {', '.join(tags.names)}")


def _write_table(
    write: Callable[[StreamTable, BinaryIO, Tally], object],
    runs: Sequence[NamedRun],
    streams: Sequence[str],
    handle: BinaryIO,
    tally: Tally,
) -> None:
    write(StreamTable(runs, streams[0], tally), handle, tally)


def _write_datasets(
    runs: Sequence[NamedRun], streams: Sequence[str], directory: Path, tally: Tally
) -> None:
    from foundry_fastlog.export.arrow_tables import write_dataset

    for stream in streams:
        write_dataset(StreamTable(runs, stream, tally), directory / stream, tally)


class _Counted(io.RawIOBase):
    """A file to write, which counts its bytes: a pipe cannot say where it is.

    Attributes:
        size: How many there are.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - bytes in any form
        self._handle.write(data)
        self.size += len(data)
        return len(data)
