"""Write a run's lines into one JSONL file, merged in order and proven complete.

Lines pass through byte for byte; where several streams or processes meet in one file,
fields that say where a line is from are appended to it. ``seq`` proves that nothing is
missing: ``ExportResult.complete`` is False otherwise, and ``checks`` says what.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import orjson

from foundry_fastlog.base.formatting import json_output
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

__all__ = ["ExportError", "ExportResult", "Tag", "check_target", "export_run", "open_output"]

#: Whether to append the fields that say where a line is from.
Tag = Literal["auto", "always", "never"]

_WRITE_BYTES = 1 << 20


class ExportError(ValueError):
    """The export cannot be written where it was asked for. The message says what to do."""


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        path: The file, None for standard output.
        streams: The streams asked for.
        lines: Lines written, drop markers among them.
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

    @property
    def complete(self) -> bool:
        """Whether every record that the recorder accepted is there, once and readable."""
        return not self.unread and all(check.complete for check in self.checks)

    @property
    def dropped(self) -> int:
        """Records that the recorder dropped because its ring was full."""
        return sum(check.dropped for check in self.checks)


def export_run(
    run: Run,
    to: StrPath,
    *,
    streams: Collection[str] = STREAMS,
    starts: Starts = "latest",
    tag: Tag = "auto",
    force: bool = False,
) -> ExportResult:
    """Write a run's lines into one file.

    The file appears under its name when it is whole: it is written beside it and then
    renamed. What a damaged run still has is written too; look at ``complete``.

    Args:
        run: The run, from ``read_run``.
        to: The file to write, or ``"-"`` for standard output. On a terminal what it would obey,
            such as control characters, is escaped; the values are the same.
        streams: Which streams to write.
        starts: Which starts to write; see ``Run.lines``.
        tag: ``"auto"`` appends ``stream`` when several streams were asked for, and
            ``rank``, ``attempt``, ``label`` (``stamp`` where file names have one) when
            the run has several writers. ``"always"`` and ``"never"`` as they say.
        force: Replace an existing file.

    Returns:
        What was written, and whether it is complete.

    Raises:
        ExportError: The file exists, its directory does not, it would pass for a part
            of the run, or it cannot be written.
        ValueError: An unknown stream, start or ``tag``.
    """
    if tag not in ("auto", "always", "never"):
        raise ValueError(f"tag must be 'auto', 'always' or 'never', got {tag!r}")
    tags = _Tags(run, streams, tag)
    checks: list[SeriesCheck] = []
    lines = size = 0
    # Built before the file is made, so that a wrong argument leaves nothing behind.
    entries = run.entries(streams, starts=starts, checks=checks)
    path = None if to == "-" else check_target(run, Path(to), force=force)
    with open_output(path, force=force) as handle:
        batch: list[bytes] = []
        pending = 0
        for _, series, _, raw in entries:
            line = tags.apply(series, raw)
            batch.append(line)
            lines += 1
            pending += len(line)
            if pending >= _WRITE_BYTES:
                handle.writelines(batch)
                size += pending
                batch.clear()
                pending = 0
        handle.writelines(batch)
        size += pending
    ordered = tuple(stream for stream in STREAMS if stream in streams)
    left_out = {s: dict(names) for s, names in run.left_out.items() if names}
    return ExportResult(path, ordered, lines, size, tags.names, checks, run.unread, left_out)


class _Tags:
    """Appends the fields that say where a line is from."""

    def __init__(self, run: Run, streams: Collection[str], tag: Tag) -> None:
        writers = run.writers
        names: list[str] = []
        if tag == "always" or (tag == "auto" and len(set(streams)) > 1):
            names.append("stream")
        if tag == "always" or (tag == "auto" and len(writers) > 1):
            names += ["rank", "attempt", "label"]
            if any(writer.stamp for writer in writers):
                names.append("stamp")
        self.names = tuple(names)
        self._endings: dict[int, bytes] = {}

    def apply(self, series: Series, raw: bytes) -> bytes:
        """Give a line its ending: the fields, and the newline."""
        if not self.names:
            return raw + b"\n"
        ending = self._endings.get(id(series))
        if ending is None:
            writer = series.writer
            origin = {
                "stream": series.stream,
                "rank": writer.rank,
                "attempt": writer.attempt,
                "label": writer.label,
                "stamp": writer.stamp,
            }
            fields = orjson.dumps({name: origin[name] for name in self.names})
            ending = self._endings[id(series)] = b"," + fields[1:] + b"\n"
        # A sound line is an object with fields, so its last byte but blanks is a brace.
        return raw.rstrip()[:-1] + ending


def check_target(run: Run, target: Path, *, force: bool) -> Path:
    """Check where to write.

    Args:
        run: The run that is exported; its own files are not to be replaced.
        target: The file to write.
        force: Whether it may exist.

    Returns:
        The file, absolute.

    Raises:
        ExportError: Nothing may be written there.
    """
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
                f"{target} would pass for a file of the run itself; choose another name, "
                f"such as {target.with_name('export.jsonl')}"
            )
    if not target.parent.is_dir():
        raise ExportError(
            f"{target.parent} does not exist; make it first: mkdir -p {target.parent}"
        )
    if target.is_file() and not force:
        raise ExportError(f"{target} exists; use --force to replace it, or choose another name")
    return target


@contextmanager
def open_output(path: Path | None, *, force: bool) -> Iterator[BinaryIO]:
    """Open where to write; a regular file appears under its name only at the end.

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
    except BrokenPipeError:  # whoever reads has seen enough: the command line knows what to do
        raise
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """Name a file beside another one, which is gone at the end."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


def _publish(scratch: Path, path: Path, *, force: bool) -> None:
    """Give the whole file its name.

    Raises:
        ExportError: Someone else made a file of that name meanwhile.
    """
    if not force:
        try:
            # Unlike a rename, a link never replaces a file.
            path.hardlink_to(scratch)
        except FileExistsError:
            raise ExportError(
                f"{path} was made by someone else meanwhile; nothing was written"
            ) from None
        except OSError:  # a file system without links: a rename then, after the check above
            pass
        else:
            return
    scratch.replace(path)
