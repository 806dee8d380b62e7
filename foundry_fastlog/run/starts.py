"""The starts of a run: which launches of the program recorded in it, and which of them is this one.

A start has a number, which counts up and is never taken from a clock, and an entry that is written
once (`start_entries.py`). All ranks of a launch are one start.

A process joins the newest start where

- the first process of its rank there lives, whose *peer* it then is;
- or another rank lives, and none of its own has recorded there;
- or the start is of its own launch and began at about the time when this process did, and none of
  its rank has recorded there. Processes on other hosts are seen by this alone: a lock of theirs may
  not be.

But not where its launcher says that it started the job again: what still lives is only slow to end.
Otherwise it begins the next one. Entries are made by an exclusive link, which network file systems
keep too; the lock around it only makes sure that the living can be seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from foundry_fastlog.base.arguments import INT64_MIN, step_of
from foundry_fastlog.base.environment import lifetime
from foundry_fastlog.run.info import open_untrusted
from foundry_fastlog.run.launch import Launch, Place, is_restart
from foundry_fastlog.run.names import (
    StreamName,
    Writer,
    find_file,
    format_name,
    is_packed,
    make_directories,
    parse_name,
    plain_name,
    timestamp,
)
from foundry_fastlog.run.start_entries import (
    STARTS_DIR,
    LiveWriter,
    Start,
    entry_path,
    list_entries,
    list_names,
    note_host,
    put_entry,
    read_entry,
)

__all__ = ["begin", "choose_directory", "last_step", "newest_start", "opening", "withdraw"]

LAUNCH_S = 10.0
"""How much earlier than this process another rank of its launch may have begun, in seconds."""

_log = logging.getLogger("foundry_fastlog")

_LOCK_WAIT_S = 5.0  # for a process that was stopped while it held it
_TAIL_BYTES = 64 << 10


@contextlib.contextmanager
def opening(directory: Path) -> Iterator[None]:
    """Hold back other processes that open this run, until this one can be seen.

    Where there are no locks, or somebody holds one for too long, it goes on without. The lock is
    that of the directory itself, so that it leaves nothing behind.

    Args:
        directory: The run's directory; made when absent.
    """
    descriptor = -1
    try:
        with contextlib.suppress(OSError):  # the recorder says what is wrong with the disk
            make_directories(directory)
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _held.add(descriptor)
            _lock(descriptor)
        yield
    finally:
        if descriptor in _held:
            _held.discard(descriptor)
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    end = time.monotonic() + _LOCK_WAIT_S
    while time.monotonic() < end:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # noqa: PERF203 - the wait is the point
            time.sleep(0.002)
        else:
            return


_held: set[int] = set()


def _drop_in_child() -> None:
    """A child that is forked meanwhile would hold the lock, too, and for as long as it lives."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_drop_in_child)


def begin(
    directory: Path,
    place: Place,
    launch: Launch | None,
    live: Callable[[], list[LiveWriter]],
    facts: Mapping[str, Any],
) -> Start:
    """Join the newest start, or begin the next one. The caller is within `opening()`.

    Args:
        directory: The run's directory.
        place: This process's rank and its world's size.
        launch: The launch that it belongs to.
        live: Lists the processes that record in the run now.
        facts: What its entry is to say beside: ``config``, ``stamp`` (when it began, or None for
            now).
    """
    stamp = facts.get("stamp") or timestamp()
    rank = place.rank or 0
    least = -1
    while True:
        found = newest_start(directory)
        newest = least if found is None else max(found, least)
        if newest >= 0:
            entry = read_entry(directory, newest)
            shared = str(entry.get("stamp") or stamp)
            again = launch is not None and is_restart(launch._asdict(), entry.get("launch"))
            again = again and not _is_young(directory, newest)  # agents of one job count apart
            alive = [w for w in live() if not again and _is_main_of(w[0], newest)]
            peers = tuple(w for w in alive if Writer.from_label(w[0]).rank == rank)
            if all(Writer.from_label(w[0]).peer and w[2] != entry.get("pid") for w in peers):
                peers = ()  # what they went beside has ended: it is this that goes on
            mine = peers or _has_recorded(directory, newest, rank)
            ours = launch is not None and _is_of(directory, newest, entry, launch)
            if peers or (not mine and (alive or ours)):
                if not peers:
                    _note_host(directory, newest, rank, entry)
                return Start(newest, shared, peers=peers)
        number = newest + 1
        start = Start(number, stamp, began=True)
        try:
            put_entry(directory, start, place, launch, live(), facts)
        except FileExistsError:
            least = number  # another process was faster; a listing may not show it yet
            continue
        except OSError as error:
            if os.access(directory, os.W_OK):  # else the recorder says what is wrong
                _log.warning(
                    "%s cannot be written (%s): readers will not know this start's configuration, "
                    "nor how it ended",
                    entry_path(directory, number),
                    error.strerror or error,
                )
            return Start(number, stamp)
        return start


def _note_host(directory: Path, number: int, rank: int, entry: Mapping[str, Any]) -> None:
    """Write on which host a process that joins runs, if that is another one."""
    try:
        note_host(directory, number, rank, entry)
    except OSError as error:
        if os.access(directory, os.W_OK):  # else the recorder says what is wrong
            _log.warning(
                "%s cannot be written to (%s): readers will not know on which host rank %d is",
                directory / STARTS_DIR,
                error.strerror or error,
                rank,
            )


def withdraw(directory: Path, start: Start) -> None:
    """Take back the entry of a start that could not be opened."""
    if start.began:
        with contextlib.suppress(OSError):
            entry_path(directory, start.number).unlink()
            (directory / STARTS_DIR).rmdir()


def newest_start(directory: Path) -> int | None:
    """Return the number of a run's newest start, by entries and file names; None for a new run."""
    numbers = [number for number, _ in list_entries(directory)]
    starts = {(w.stamp, w.attempt) for w in _writers(directory)}
    # In format 1 attempts counted anew for each stamp.
    numbers += [max(attempt for _, attempt in starts), len(starts) - 1] if starts else []
    return max(numbers, default=None)


def choose_directory(directory: Path, resume: str, place: Place, launch: Launch | None) -> Path:
    """Return the directory that a recorder is to open.

    Args:
        directory: The one that it was given.
        resume: ``auto``: this one. ``must``: this one, which has a run. ``never``: this one, which
            has none, but for other processes of this launch. ``new``: this one, or the first of
            ``exp0-2``, ``exp0-3``, ... that has none, but for other processes of this launch.
        place: This process's rank and its world's size.
        launch: The launch that it belongs to.

    Raises:
        FileNotFoundError: Nothing is there, and something must be.
        FileExistsError: A run is there, and must not be.
    """
    newest = newest_start(directory)
    if resume == "must" and newest is None:
        raise FileNotFoundError(
            f"{directory} has no run to resume: check the path, or pass resume='auto' to begin one"
        )
    if resume == "never" and newest is not None and not _is_ours(directory, 0, place, launch):
        raise FileExistsError(
            f"{directory} has a run already: choose another path, or pass resume='auto' to resume "
            "it or resume='new' to record beside it"
        )
    if resume != "new":
        return directory
    chosen, n = directory, 1
    while newest_start(chosen) is not None and not _is_ours(chosen, 0, place, launch):
        n += 1
        chosen = directory.with_name(f"{directory.name}-{n}")
    return chosen


def _is_ours(directory: Path, number: int, place: Place, launch: Launch | None) -> bool:
    """Whether the newest start is of this number, and other ranks of this launch have begun it."""
    return (
        newest_start(directory) == number
        and launch is not None
        and _is_of(directory, number, read_entry(directory, number), launch)
        and not _has_recorded(directory, number, place.rank or 0)
    )


def last_step(directory: Path, rank: int | None, start: int) -> int | None:
    """Return the last step that a rank has recorded in the newest start where it recorded one.

    For a rank that the run does not know, of all ranks before this start. Reads the ends of the
    newest files alone; a compressed one is decompressed for its end. What cannot be read is logged.

    Args:
        directory: The run's directory.
        rank: The rank.
        start: The number of the start that begins.
    """
    names = [name for name in _stream_names(directory) if name.stream == "metrics"]
    own = [name for name in names if name.writer.rank == (rank or 0)]
    segments: dict[Writer, list[int]] = {}
    for name in own or [name for name in names if name.writer.attempt < start]:
        segments.setdefault(name.writer, []).append(name.segment)
    found: dict[tuple[int, str], int] = {}
    refused: dict[Path, OSError] = {}
    for writer, numbers in segments.items():
        for segment in sorted(numbers, reverse=True):
            path = find_file(directory / format_name(StreamName("metrics", writer, segment)))
            try:
                step = _last_step_in(path)
            except OSError as error:
                refused[path] = error
                continue
            if step is not None:
                begun = (writer.attempt, writer.stamp)
                found[begun] = max(found.get(begun, step), step)
                break
    last = found[max(found)] if found else None
    for path, refusal in list(refused.items())[:1]:
        _log.warning(
            "%s cannot be read (%s), so its steps are not known: log() without step= goes on from "
            "%s. Pass step= if that is wrong.",
            path,
            refusal.strerror or refusal,
            0 if last is None else last + 1,
        )
    return last


def _tail_of(path: Path) -> bytes:
    if not is_packed(path):
        with open_untrusted(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES)
    from foundry_fastlog.run.packed import Unpacked

    unpacked = Unpacked(path)
    tail = b""
    while block := unpacked.read(_TAIL_BYTES):
        tail = (tail + block)[-_TAIL_BYTES:]
    return tail


def _last_step_in(path: Path) -> int | None:
    for line in reversed(_tail_of(path).split(b"\n")[:-1]):
        with contextlib.suppress(ValueError):
            record = orjson.loads(line)
            if not isinstance(record, dict):
                continue
            if (step := step_of(record)) is not None:
                return step
            if (step := step_of(record, "rewind")) is not None:
                return max(step - 1, INT64_MIN)
    return None


def _writers(directory: Path) -> set[Writer]:
    """The processes that have files in the run, forked and spawned ones aside."""
    return {name.writer for name in _stream_names(directory) if not name.writer.children}


def _stream_names(directory: Path) -> list[StreamName]:
    parsed = (parse_name(plain_name(name)) for name in list_names(directory))
    return [name for name in parsed if name is not None]


def _is_main_of(label: str, start: int) -> bool:
    try:
        writer = Writer.from_label(label)
    except ValueError:
        return False
    return writer.attempt == start and not writer.children


def _has_recorded(directory: Path, start: int, rank: int) -> bool:
    return any(w.attempt == start and w.rank == rank for w in _writers(directory))


def _is_of(directory: Path, number: int, entry: dict[str, Any], launch: Launch) -> bool:
    """Whether a start is of this launch, and not of an earlier one that had the same name."""
    if entry.get("launch") != launch._asdict():
        return False
    if launch.by == "argument":  # the caller says that no other has this name
        return True
    return _is_young(directory, number)


def _is_young(directory: Path, number: int) -> bool:
    """Whether a start began at about the time when this process did, or later."""
    lived = lifetime()
    try:
        age = _now_there(directory) - entry_path(directory, number).stat().st_mtime
    except OSError:
        return False
    return age <= lived + LAUNCH_S


def _now_there(directory: Path) -> float:
    """The file system's own time, which is that of no rank."""
    probe = directory / STARTS_DIR / f".{os.urandom(8).hex()}.tmp"
    try:
        with probe.open("xb") as file:
            return os.fstat(file.fileno()).st_mtime
    finally:
        probe.unlink(missing_ok=True)
