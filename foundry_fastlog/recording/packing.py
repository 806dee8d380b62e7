"""Compress the closed segments of a run: by command, or while it is recorded.

A segment is compressed beside itself under another name, which no reader takes for a stream file;
then it is synced, renamed, its directory synced, and only then is the plain one removed. If that
is killed, the plain file is left, or both: readers take the plain one then, and the next
compression does it again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from foundry_fastlog.recording.recovery import recover
from foundry_fastlog.run import starts
from foundry_fastlog.run.copies import begin_alike, has_more_lines
from foundry_fastlog.run.files import (
    STREAMS,
    StreamName,
    Writer,
    above_standard,
    open_run_dir,
    parse_name,
)
from foundry_fastlog.run.packed import (
    SUFFIXES,
    check_library,
    identity_of,
    is_packed,
    open_packer,
    plain_name,
)

if TYPE_CHECKING:
    from foundry_fastlog.recording.extension import core

__all__ = ["Packed", "Stopped", "closed_segments", "compress_run", "pack", "sync_ring"]

_BLOCK_BYTES = 1 << 20
_TEMPORARY = ".tmp"
_ABANDONED_S = 600.0
#: How often a run is looked at in which processes start and end.
_LOOKS = 20
_PAUSE_S = 0.05
_MODE = 0o775  # at most, whatever the plain file has


class Stopped(Exception):  # noqa: N818 - not a fault
    """Somebody asked the compression to stop."""


@dataclass
class Packed:
    """What a compression did.

    Attributes:
        files: Names of the files that are compressed now.
        before: Their sizes in bytes, plain.
        after: Their sizes in bytes, compressed.
        left: What was left as it is though it is closed, and why.
    """

    files: list[str] = field(default_factory=list)
    before: int = 0
    after: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)


def compress_run(path: str | os.PathLike[str], how: str = "zstd", *, keep: bool = False) -> Packed:
    """Compress the closed segments of a run.

    Those are all of writers that have ended, and of a writer that records now all but the newest of
    each stream. What killed processes left in rings is written to the files first. Safe to kill and
    to repeat, and while the run is recorded and read.

    Args:
        path: The run's directory.
        how: ``zstd`` or ``gzip``.
        keep: Keep the plain files, too; readers go on reading these.

    Returns:
        What was done.

    Raises:
        RunNotFoundError: The path is not a run. The message says what to do.
        OSError: The run cannot be listed, or there is no library for ``zstd``.
    """
    from foundry_fastlog.reading.overlay import Overlay, describe_ring

    run = open_run_dir(path)
    check_library(how)
    _sweep(run)
    result = Packed()
    for look in range(_LOOKS):
        recover(run)
        overlay = Overlay(run)
        with starts.opening(run):  # nobody starts between a look at the rings and one at the files
            listed = [segment for series in overlay.list_series() for segment in series.segments]
        unsettled = overlay.unsettled()
        if not any(ring.sound for ring in unsettled):
            break
        time.sleep(_PAUSE_S * (look + 1 < _LOOKS))  # a process has ended, or begins, meanwhile
    for report in unsettled:
        reason = "a process begins or has just ended: try again" if report.sound else ""
        result.left.append((report.ring, reason or describe_ring(report)))
    if result.left:  # nobody knows which files such a ring means
        return result
    live = {_writer(writing): writing for _, writing in overlay.writing()}
    rings = {_writer(writing): ring for ring, writing in overlay.writing()}
    plain = {
        segment.path: segment.name
        for segment in listed
        if segment.size and not is_packed(segment.path)
    }
    shown = {segment.path for segment in listed}
    for segment in listed:
        cut = run / plain_name(segment.path.name)
        if cut not in shown and os.path.lexists(cut):
            result.left.append((cut.name, _longer(segment.path)))
    for file in closed_segments(plain, live):
        packed = file.with_name(file.name + SUFFIXES[how])
        if keep and os.path.lexists(packed):
            continue
        ring = rings.get(plain[file].writer)
        try:
            sizes = pack(file, how, keep=keep, before_removal=functools.partial(sync_ring, ring))
        except FileNotFoundError:  # somebody else has compressed it, or removed it
            continue
        except OSError as error:
            result.left.append((file.name, error.strerror or str(error)))
        else:
            result.files.append(file.name)
            result.before += sizes[0]
            result.after += sizes[1]
    return result


def _writer(writing: core.Writing) -> Writer:
    return Writer.from_label(writing["label"], writing["stamp"].removeprefix("_"))


def closed_segments(
    files: Mapping[Path, StreamName], live: Mapping[Writer, core.Writing]
) -> Iterator[Path]:
    """Yield the files to which nothing is written any more, by their writers or by recovery.

    Args:
        files: Stream files.
        live: How far those have committed who record now. Their rings name the newest segments, and
            one that lines were moved from after a failed fsync.
    """
    newest: dict[tuple[str, Writer], int] = {}
    for name in files.values():
        key = (name.stream, name.writer)
        newest[key] = max(newest.get(key, 0), name.segment)
    for path, name in files.items():
        if name.writer in live:
            last, _, trimmed = live[name.writer]["streams"][STREAMS.index(name.stream)]
            if name.segment >= min(last, newest[name.stream, name.writer]):
                continue
            if trimmed is not None and name.segment == trimmed[0]:
                continue
        yield path


def sync_ring(ring: str | None) -> None:
    """Sync a live ring: after a power loss too, it says that its closed segments are complete.

    Else recovery would go back to an older commit, look for the lines since then in plain files,
    and write those again that are compressed.

    Raises:
        OSError: It cannot be synced.
    """
    with contextlib.suppress(FileNotFoundError):  # its writer has ended
        if ring is not None:
            _sync(Path(ring))


def pack(
    path: Path,
    how: str,
    *,
    keep: bool = False,
    before_removal: Callable[[], None] = lambda: None,
    go_on: Callable[[], bool] = lambda: True,
) -> tuple[int, int]:
    """Compress a closed segment.

    Args:
        path: The plain file.
        how: ``zstd`` or ``gzip``.
        keep: Keep the plain file, too.
        before_removal: Called when the compressed file is safe, before the plain one is removed.
        go_on: Asked after each block.

    Returns:
        Bytes before and after.

    Raises:
        OSError: It cannot be done; the plain file stays.
        Stopped: ``go_on`` said so; likewise.
    """
    target = path.with_name(path.name + SUFFIXES[how])
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.ExitStack() as stack:
        plain = os.open(path, flags)
        stack.callback(os.close, plain)
        status = os.fstat(plain)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file")
        os.fsync(plain)  # what the disk has lost is told here
        if os.path.lexists(target) and not begin_alike(path, target):
            raise OSError(0, f"{target.name} is there, with other lines")
        if os.path.lexists(target) and has_more_lines(target, path):
            raise OSError(0, _longer(target))
        temporary = path.with_name(f".{target.name}.{os.urandom(8).hex()}{_TEMPORARY}")
        stack.callback(temporary.unlink, missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        opened = above_standard(os.open(temporary, flags, 0o600))
        with open(opened, "wb") as out:  # noqa: PTH123 - its mode
            with contextlib.suppress(OSError):  # root compresses somebody's files
                os.fchown(out.fileno(), status.st_uid, status.st_gid)
            os.fchmod(out.fileno(), stat.S_IMODE(status.st_mode) & _MODE)
            with open_packer(out, how) as packer:
                while block := os.read(plain, _BLOCK_BYTES):
                    packer.write(block)
                    if not go_on():
                        raise Stopped
            out.flush()
            after = out.tell()
            os.utime(out.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(out.fileno())
        _check_same(path, status)
        temporary.rename(target)
        _sync(path.parent)
        if not keep:
            before_removal()
            _check_same(path, status)
            path.unlink()
    return status.st_size, after


def _longer(packed: Path) -> str:
    return f"{packed.name} has more lines, and counts: a decompression was killed? Remove this one"


def _check_same(path: Path, status: os.stat_result) -> None:
    """Raise OSError if a file is not the one that was read, or has changed since."""
    if identity_of(path.lstat()) != identity_of(status):
        raise OSError(0, "it was changed while it was compressed")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(run: Path) -> None:
    """Remove what compressions left that were killed. One that is at work changes its file."""
    for temporary in _temporaries(run):
        with contextlib.suppress(OSError):  # removed meanwhile, or not removable
            if time.time() - temporary.lstat().st_ctime > _ABANDONED_S:
                temporary.unlink()


def _temporaries(run: Path) -> Iterator[Path]:
    for name in os.listdir(run):  # noqa: PTH208 - names are enough
        inner, _, end = name.removeprefix(".").rpartition(".jsonl.")
        parts = end.split(".")
        if (
            name.startswith(".")
            and len(parts) == 3
            and f".{parts[0]}" in SUFFIXES.values()
            and name.endswith(_TEMPORARY)
            and parse_name(f"{inner}.jsonl")
        ):
            yield run / name
