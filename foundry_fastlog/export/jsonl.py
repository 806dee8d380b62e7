"""Export a run's lines to one JSONL file, merged in order and checked for completeness.

Lines are copied byte for byte; if several streams or processes go to one file, fields for the
line's origin are appended. ``seq`` proves that nothing is missing: otherwise
``ExportResult.complete`` is False, and ``checks`` says what is missing.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import orjson

from foundry_fastlog.base.formatting import json_output
from foundry_fastlog.export.result import Checked
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.checks import SeriesCheck
from foundry_fastlog.run.files import (
    PRIVATE_DIR,
    RUN_INFO,
    STREAMS,
    Series,
    StrPath,
    looks_like_stream_file,
)

__all__ = [
    "ExportError",
    "ExportResult",
    "Tag",
    "Tags",
    "check_target",
    "copy_lines",
    "export_run",
    "open_output",
]

#: Whether to append the fields for a line's origin.
Tag = Literal["auto", "always", "never"]

_WRITE_BYTES = 1 << 20


class ExportError(ValueError):
    """The export cannot be written to its target. The message says what to do."""


@dataclass(frozen=True)
class ExportResult(Checked):
    """What an export wrote.

    Attributes:
        path: The file, None for standard output.
        streams: The requested streams.
        lines: Lines written, including drop markers.
        bytes: Bytes written.
        added: Names of the fields appended to each line.
        checks: Completeness per stream and process, over all starts.
        unread: Rings and files of the run that cannot be read; see ``Run.unread``.
        left_out: Values that count no longer, by stream and name; see ``Run.left_out``.
    """

    path: Path | None
    streams: tuple[str, ...]
    lines: int
    bytes: int
    added: tuple[str, ...]
    checks: list[SeriesCheck]
    unread: int = 0
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)


def export_run(
    run: Run,
    to: StrPath,
    *,
    streams: Collection[str] = STREAMS,
    starts: Starts = "latest",
    tag: Tag = "auto",
    force: bool = False,
) -> ExportResult:
    """Export a run's lines to one file.

    The file is written under a temporary name and renamed when it is complete. Of a damaged run,
    everything that is left is written; check ``complete``.

    Args:
        run: The run, from ``read_run``.
        to: The file to write, or ``"-"`` for standard output. On a terminal, anything that it would
            interpret, such as control characters, is escaped; the values are the same.
        streams: Which streams to write.
        starts: Which starts to write; see ``Run.lines``.
        tag: ``"auto"`` appends ``stream`` if several streams are requested, and ``rank``,
            ``start``, ``label`` (and ``stamp`` if file names have one) if the run has several
            writers. ``"always"`` and ``"never"`` do what they say.
        force: Replace an existing file.

    Returns:
        What was written, and whether it is complete.

    Raises:
        ExportError: The file exists, its directory does not exist, it would look like a part of the
            run, or it cannot be written.
        ValueError: An unknown stream, start or ``tag``.
    """
    if tag not in ("auto", "always", "never"):
        raise ValueError(f"tag must be 'auto', 'always' or 'never', got {tag!r}")
    tags = Tags(run, streams, tag)
    checks: list[SeriesCheck] = []
    # Created before the file, so that a wrong argument leaves nothing behind.
    entries = run.raw_lines(streams, starts=starts, checks=checks)
    path = None if to == "-" else check_target(run, Path(to), force=force)
    with open_output(path, force=force) as handle:
        counts, size = copy_lines(entries, tags, handle)
    lines = counts.total()
    ordered = tuple(stream for stream in STREAMS if stream in streams)
    left_out = {s: dict(names) for s, names in run.left_out.items() if names}
    return ExportResult(path, ordered, lines, size, tags.names, checks, run.unread, left_out)


def copy_lines(
    entries: Iterable[tuple[Series, bytes]], tags: Tags, handle: BinaryIO
) -> tuple[Counter[str], int]:
    """Write lines with their tags.

    Returns:
        How many there are by stream, and of how many bytes.
    """
    counts: Counter[str] = Counter()
    batch: list[bytes] = []
    size = pending = 0
    for series, raw in entries:
        line = tags.apply(series, raw)
        batch.append(line)
        counts[series.stream] += 1
        pending += len(line)
        if pending >= _WRITE_BYTES:
            handle.writelines(batch)
            size += pending
            batch.clear()
            pending = 0
    handle.writelines(batch)
    return counts, size + pending


class Tags:
    """Appends the fields for a line's origin.

    Args:
        run: The run that the lines are of.
        streams: The requested streams.
        tag: Whether there are fields.
        name: The name of the run, where lines of several runs go to one file.

    Attributes:
        names: The fields.
    """

    def __init__(
        self, run: Run, streams: Collection[str], tag: Tag, name: str | None = None
    ) -> None:
        self._run = run
        self._name = name
        writers = run.writers
        names: list[str] = []
        if tag == "always" or (tag == "auto" and len(set(streams)) > 1):
            names.append("stream")
        if tag == "always" or (tag == "auto" and len(writers) > 1):
            names += ["rank", "start", "label"]
            if any(writer.stamp for writer in writers):
                names.append("stamp")
        if name is not None and tag != "never":
            names.append("run")
        self.names = tuple(names)
        self._endings: dict[int, bytes] = {}

    def apply(self, series: Series, raw: bytes) -> bytes:
        """Return the line with its fields and newline appended."""
        if not self.names:
            return raw + b"\n"
        ending = self._endings.get(id(series))
        if ending is None:
            writer = series.writer
            origin = {
                "stream": series.stream,
                "rank": writer.rank,
                "start": self._run.number_of(writer),
                "label": writer.label,
                "stamp": writer.stamp,
                "run": self._name,
            }
            fields = orjson.dumps({name: origin[name] for name in self.names})
            ending = self._endings[id(series)] = b"," + fields[1:] + b"\n"
        # A sound line is an object with fields, so its last byte other than blanks is a brace.
        return raw.rstrip()[:-1] + ending


def check_target(run: Run, target: Path, *, force: bool) -> Path:
    """Check the target of an export.

    Args:
        run: The run to export; its own files must not be replaced.
        target: The file to write.
        force: Whether it may already exist.

    Returns:
        The file, absolute.

    Raises:
        ExportError: The target must not be written.
    """
    if target.exists() and not (target.is_file() or target.is_dir()):
        return target.absolute()  # a pipe or a device: what /dev/stdout leads to may have no name
    target = target.resolve()
    home = run.path.resolve()
    if target.is_dir():
        raise ExportError(f"{target} is a directory; name a file in it: {target / 'run.jsonl'}")
    if home in target.parents:
        inside = target.relative_to(home)
        if inside.parts[0] == PRIVATE_DIR:
            raise ExportError(f"{target} is in the recorder's own directory; choose another place")
        if len(inside.parts) == 1 and (
            looks_like_stream_file(target.name) or target.name == RUN_INFO
        ):
            raise ExportError(
                f"{target} would look like a file of the run itself; choose another name, "
                f"such as {target.with_name('export.jsonl')}"
            )
    if not target.parent.is_dir():
        raise ExportError(
            f"{target.parent} does not exist; create it first: mkdir -p {target.parent}"
        )
    if target.is_file() and not force:
        raise ExportError(f"{target} exists; use --force to replace it, or choose another name")
    return target


@contextmanager
def open_output(path: Path | None, *, force: bool) -> Iterator[BinaryIO]:
    """Open the target; a regular file appears under its name only at the end.

    Args:
        path: The file, None for standard output.
        force: Replace an existing file.

    Raises:
        ExportError: It cannot be written.
    """
    if path is None:
        handle = json_output()
        yield handle
        handle.flush()
        return
    try:
        if path.exists() and not path.is_file():  # a pipe, or a device such as /dev/null
            with path.open("wb") as handle:
                yield handle
        else:
            with _scratch(path) as scratch:
                with scratch.open("xb") as handle:
                    yield handle
                    handle.flush()
                    os.fsync(handle.fileno())
                _publish(scratch, path, force=force)
    except BrokenPipeError:  # the reader has seen enough: the command line handles it
        raise
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file beside a file; remove it at the end."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


def _publish(scratch: Path, path: Path, *, force: bool) -> None:
    """Rename the complete file to its final name.

    Raises:
        ExportError: Another process has created a file of that name in between.
    """
    if not force:
        try:
            # Unlike a rename, creating a hard link never replaces a file.
            path.hardlink_to(scratch)
        except FileExistsError:
            raise ExportError(
                f"{path} was created by another process in the meantime; nothing was written"
            ) from None
        except OSError:  # no hard links on this file system: rename, after the check above
            pass
        else:
            return
    scratch.replace(path)
