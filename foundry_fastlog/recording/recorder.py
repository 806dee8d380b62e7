"""The Recorder: the one door to the native core."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

try:
    from foundry_fastlog import _core
except ImportError as error:
    if "subinterpreter" in str(error):
        raise
    raise ImportError(
        "the native part of foundry_fastlog is missing or was built for another Python "
        f"({error}). Install a wheel with `pip install foundry_fastlog`, or build from a checkout "
        "with `pip install -e .` (needs g++ or clang with C++20 and the Python headers). Reading "
        "runs (foundry_fastlog.read_run) works without it, but for the rings of killed processes."
    ) from error

import orjson

from foundry_fastlog.base.arguments import (
    absolute,
    check_choice,
    check_directory,
    check_number,
    check_type,
    level_name,
    process_number,
    seconds,
    step_number,
)
from foundry_fastlog.base.error_facts import error_facts, prepare
from foundry_fastlog.base.json_text import (
    cut,
    let_interrupts_through,
    nonfinite_fields,
    plain_context,
    render_members,
    simpler,
    text_of_value,
)
from foundry_fastlog.recording import host_copies
from foundry_fastlog.recording.event_lines import shortened, summary_members
from foundry_fastlog.recording.open_recorders import OpenRecorders
from foundry_fastlog.recording.values import metric_value
from foundry_fastlog.run.info import RunFile, last_unended, plain_config
from foundry_fastlog.run.streams import STREAMS

if TYPE_CHECKING:
    from typing_extensions import Self

    from foundry_fastlog._core import RecorderStats, Timer
    from foundry_fastlog.reading.found_rings import RingReport

__all__ = ["Recorder", "RecorderClosedError", "open_run", "recorder_of", "recover", "takes"]

RecorderClosedError = _core.RecorderClosedError

KIB = 1 << 10
MIB = 1 << 20
MIN_RING_BYTES = 64 * KIB
MAX_RING_BYTES = 64 * MIB

_P = ParamSpec("_P")
_R = TypeVar("_R")

_log = logging.getLogger("foundry_fastlog")

_METRICS = 0  # stream numbers of csrc/core/record.hpp
_ERRORS = 2
_LOG = 3
_SHORT = 8 * KIB  # fits into the smallest ring
_VAIN_S = 1.0  # the longest wait for a place that has refused all along, or again at exit
# Numbers beyond 53 bits are refused, and go the long way, where their size is looked at.
_SIMPLE = orjson.OPT_STRICT_INTEGER
_NULL = re.compile(rb"null").search  # half the time of `in`, which these letters make slow
_STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{2}-[0-9]{2}-[0-9]{2}")
_ATTEMPT = re.compile(r"(?:^|-)a(\d+)(?:-|$)")

_open: OpenRecorders[Recorder] = OpenRecorders()
_told_odd: set[str] = set()  # names of values that log() has written as text
_MOST_TOLD = 1000
_MOST_NAME = 300  # characters of a name that alone is too large for the ring


class _SetByInit:
    """An attribute that ``__init__`` sets; before that, asking for it says that it has not.

    A ``__getattr__`` would say so of any attribute, and make each call of a method slower.
    """

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(
            f"this {owner.__name__} was never opened: its __init__ was not called, or it failed"
        )


class Recorder(_core.RecorderCore):
    """Records metrics, timings, errors and messages of one process of a training run.

    ``record()`` puts a few bytes into a lock-free ring and returns; a background thread turns them
    into JSON lines in ``path``. The calls ``record``, ``record_dict``, ``log`` and ``timer`` are
    native methods. All methods may be called from any thread.

    A forked child may go on using the object: its first record opens files of its own.

    Example:
        >>> with Recorder("runs/exp0") as recorder:  # doctest: +SKIP
        ...     with recorder.timer("step", step=0):
        ...         recorder.record(0, loss=2.5, lr=1e-4)
    """

    _missing_told = False
    _ended = False
    if not TYPE_CHECKING:
        _path = _rank = _world_size = _stamp = _close_timeout_s = _pid = _SetByInit()

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rank: int | None = None,
        world_size: int | None = None,
        ring_bytes: int = 8 * MIB,
        back_pressure: str = "block",
        block_timeout_s: float = 1.0,
        flush_interval_s: float = 0.1,
        segment_bytes: int = 256 * MIB,
        overhead_budget: float = 0.01,
        close_timeout_s: float = 10.0,
        ring: str = "file",
        fsync: str = "interval",
        fsync_interval_s: float = 1.0,
        device_timeout_s: float = 120.0,
        watch_nonfinite: str = "device",
        config: object = None,
        name: str | None = None,
        stamp: str | None = None,
    ) -> None:
        """Open the run's directory and start the flush thread.

        A directory that cannot be written is no error: training goes on, the fault is shown once
        and in ``stats()``, records wait in the ring and writing is tried again.

        Args:
            path: The run's directory; made when absent. A directory that already holds a run is
                resumed: what is there stays, and this process writes files of a new attempt.
            rank: This process's rank; by default the environment's RANK, as torchrun sets it.
            world_size: Number of ranks; by default the environment's WORLD_SIZE.
            ring_bytes: Size of the ring in memory, 64 KiB to 64 MiB, rounded up to a power of two.
            back_pressure: What to do when the ring is full: ``"block"`` waits up to
                ``block_timeout_s`` and then drops; ``"drop"`` drops at once. Drops are counted and
                marked in the file.
            block_timeout_s: The longest wait in seconds. After a wait in vain nothing waits again
                before the flush thread has written something.
            flush_interval_s: How often the flush thread wakes, in seconds; a half full ring wakes
                it at once.
            segment_bytes: A file that would grow beyond this size is continued in a next segment.
            overhead_budget: Fraction of wall time that logging may take before one warning says so.
            close_timeout_s: Default timeout of ``flush()`` and ``close()`` in seconds.
            ring: Where the ring lies. ``"file"``: in a mapped file, so that a killed process loses
                nothing; on a file system that does not suit mapping, in a local temporary
                directory. ``"shm"``: in /dev/shm, which the disk's write-back never touches, but
                which goes with the container or machine. ``"memory"``: nowhere else; a killed
                process loses what it recorded in the last ``flush_interval_s``.
            fsync: When lines are forced to the disk, against a power loss: ``"none"`` (when the
                kernel likes), ``"interval"`` or ``"every_flush"``. A killed process needs none.
            fsync_interval_s: Seconds between two of them for ``"interval"``.
            device_timeout_s: How long a line waits for its values from a device, in seconds. Then
                they are null, and named in its ``missing``; what was on the CPU is there.
            watch_nonfinite: Which metrics make a ``nonfinite`` event in the errors stream when they
                turn NaN or infinite: ``"device"`` (those from a device), ``"all"`` or ``"none"``.
            config: The run's configuration for run.json: a mapping or a pydantic model.
            name: The run's name for run.json; by default the directory's name.
            stamp: When this start began, ``"2025-09-30_14-30-00"``, for the file names:
                ``metrics_2025-09-30_14-30-00.jsonl``. All processes of one start share it.

        Raises:
            TypeError: An argument of a wrong type.
            ValueError: An argument, RANK or WORLD_SIZE out of range, or this process already
                records there.
            NotADirectoryError: ``path``, or a part of it, is a file.
            MemoryError: There is no memory for the recorder. No file of it is left.
            RuntimeError: There is none for the ring, or the flush thread cannot be started. No file
                is left. Or this object was opened before, which changes nothing of it.
        """
        if self._opened:  # closed ones too: their files and figures stay what they are
            raise RuntimeError(
                f"this {type(self).__name__} was opened before, in {self.path}: make a new one"
            )
        directory = absolute(path)
        check_directory(directory)
        rank = process_number("rank", rank, "RANK", least=0)
        world_size = process_number("world_size", world_size, "WORLD_SIZE", least=1)
        if rank is not None and world_size is not None and rank >= world_size:
            raise ValueError(f"rank must be below world_size, got {rank} of {world_size}")
        check_number("ring_bytes", ring_bytes, MIN_RING_BYTES, MAX_RING_BYTES, whole=True)
        check_number("segment_bytes", segment_bytes, 4 * KIB, 1 << 50, whole=True)
        check_number("block_timeout_s", block_timeout_s, 0, 3600)
        check_number("flush_interval_s", flush_interval_s, 0.001, 3600)
        check_number("overhead_budget", overhead_budget, 0, 1)
        check_number("close_timeout_s", close_timeout_s, 0, 86400)
        check_number("fsync_interval_s", fsync_interval_s, 0.001, 3600)
        check_number("device_timeout_s", device_timeout_s, 0.001, 86400)
        check_choice("back_pressure", back_pressure, ("block", "drop"))
        check_choice("ring", ring, ("file", "shm", "memory"))
        check_choice("fsync", fsync, ("none", "interval", "every_flush"))
        check_choice("watch_nonfinite", watch_nonfinite, ("none", "device", "all"))
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, got {type(name).__name__}")
        if stamp is not None:
            check_type("stamp", stamp, str, "a str")
            if _STAMP.fullmatch(stamp) is None:
                raise ValueError(f"stamp must look like 2025-09-30_14-30-00, got {stamp!r}")
        config = plain_config(config)
        prepare()

        self._path = Path(directory)
        self._rank = rank
        self._world_size = world_size
        self._stamp = stamp or ""
        self._close_timeout_s = float(close_timeout_s)
        self._pid = os.getpid()
        self._run_file: RunFile | None = None
        with _open.lock:
            other = _open.find(directory, rank)
            if other is not None:
                alias = f" (as {other.path})" if str(other.path) != directory else ""
                raise ValueError(
                    f"this process already records in {directory}{alias}: use open_run(path) to "
                    "share that recorder, or close it first"
                )
            if not rank:
                _mark_lost(Path(directory))
            _recover(directory)
            self._options: dict[str, Any] = {
                "ring_bytes": 1 << (ring_bytes - 1).bit_length(),
                "block": back_pressure == "block",
                "block_timeout_s": float(block_timeout_s),
                "flush_interval_s": float(flush_interval_s),
                "segment_bytes": segment_bytes,
                "overhead_budget": float(overhead_budget),
                "ring": ring,
                "fsync": fsync,
                "fsync_interval_s": float(fsync_interval_s),
                "device_timeout_s": float(device_timeout_s),
                "watch_nonfinite": watch_nonfinite,
            }
            super().__init__(
                directory=os.fsencode(directory),
                stamp=f"_{stamp}" if stamp else "",
                label=f"r{rank}" if rank else "",
                worker=False,
                rank=-1 if rank is None else rank,
                hook=_on_core_event,
                **self._options,
            )
            _open.add(self)
        _prepare_device()
        _close_at_worker_exit()
        if not rank:
            self._run_file = RunFile(
                self._path,
                name=name,
                config=config,
                world_size=world_size,
                rank=rank,
                stamp=self._stamp,
            )
            self._write_run_file(ended=False)

    @classmethod
    def _open_worker(
        cls,
        path: Path,
        rank: int | None,
        world_size: int | None,
        stamp: str,
        close_timeout_s: float,
        label: str,
        options: dict[str, Any],
    ) -> Recorder:
        """Open the recorder of a process that was spawned by one which records (see __reduce__)."""
        with _open.lock:
            present = _open.find(str(path), rank)
            if present is not None:
                return present
            self = cls.__new__(cls)
            self._path = path
            self._rank = rank
            self._world_size = world_size
            self._stamp = stamp
            self._close_timeout_s = close_timeout_s
            self._pid = os.getpid()
            self._run_file = None
            self._options = options
            prepare()
            own = f"{label}-w{self._pid}" if label else f"w{self._pid}"
            _core.RecorderCore.__init__(
                self,
                directory=os.fsencode(path),
                stamp=f"_{stamp}" if stamp else "",
                label=own,
                worker=True,
                rank=-1 if rank is None else rank,
                hook=_on_core_event,
                **{**options, "ring_bytes": min(options["ring_bytes"], MIB)},
            )
            _open.add(self)
        _prepare_device()
        _close_at_worker_exit()
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a spawned worker: there it records to files of its own, as a forked one does.

        Raises:
            RecorderClosedError: The recorder has been closed.
        """
        if self.closed:
            raise RecorderClosedError("a closed Recorder cannot be sent to another process")
        return (
            type(self)._open_worker,  # noqa: SLF001 - its own class's
            (
                self._path,
                self._rank,
                self._world_size,
                self._stamp,
                self._close_timeout_s,
                self.label,
                self._options,
            ),
        )

    @property
    def path(self) -> Path:
        """The run's directory, absolute."""
        return self._path

    @property
    def rank(self) -> int | None:
        """This process's rank, or None when the run has no ranks."""
        return self._rank

    @property
    def world_size(self) -> int | None:
        """Number of ranks, or None when unknown."""
        return self._world_size

    @property
    def label(self) -> str:
        """The writer's label in the file names; empty for the main process's first attempt."""
        return self._label or ""

    @property
    def stamp(self) -> str:
        """The start's time in the file names; empty when there is none."""
        return self._stamp

    @property
    def attempt(self) -> int:
        """How often this run has been resumed, 0 for the first attempt."""
        found = _ATTEMPT.search(self.label)
        return int(found.group(1)) if found else 0

    def files(self) -> list[Path]:
        """List the JSONL files that this process has made so far, by stream and segment."""
        return [Path(path) for path in self._files()]

    def event(
        self,
        message: str,
        *,
        level: str | int | None = None,
        logger: str | None = None,
        error: BaseException | None = None,
        step: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> bool:
        """Record a message, or an error with its traceback.

        Args:
            message: What happened.
            level: DEBUG, INFO, WARNING, ERROR or CRITICAL, or a number of `logging`; by default
                ERROR with ``error`` and INFO without.
            logger: Name of the subsystem; by default ``foundry_fastlog``.
            error: An exception: the line goes to the errors stream, with its type, message and
                traceback, chained exceptions included, and a fingerprint that equal errors share.
                Without it the line goes to the log stream.
            step: The training step.
            context: Further fields. Values that JSON does not know are written as their ``str()``.

        Returns:
            True when the line was accepted, False when it was dropped.

        Raises:
            TypeError: ``message`` or ``logger`` is no str, ``error`` no exception, ``step`` no int,
                or ``context`` no mapping.
            ValueError: An unknown level.
            OverflowError: A step beyond 64 bits.
            RecorderClosedError: The recorder has been closed.
        """
        check_type("message", message, str, "a str")
        if error is not None:
            check_type("error", error, BaseException, "an exception")
        if context is not None:
            check_type("context", context, Mapping, "a mapping")
        if logger is not None:
            check_type("logger", logger, str, "a str")
        fields: dict[str, Any] = {
            "level": level_name(level, "INFO" if error is None else "ERROR"),
            "logger": logger or "foundry_fastlog",
        }
        if step is not None:
            fields["step"] = step_number(step)
        fields["message"] = message
        if error is not None:
            facts = error_facts(error)
            fields["error_type"] = facts.kind
            fields["error_message"] = facts.text
            fields["traceback"] = facts.traceback
            fields["fingerprint"] = facts.fingerprint
        fields["context"] = {} if context is None else context
        return self._event(_LOG if error is None else _ERRORS, fields)

    def message(self, level: str, logger: str, message: str, context: Mapping[str, Any]) -> bool:
        """Record a message: event() for those that log many, such as handlers.

        Args:
            level: The level's name; any text.
            logger: Name of the subsystem.
            message: What happened.
            context: Fields; values that JSON does not know are written as their ``str()``.

        Returns:
            True when the line was accepted, False when it was dropped or the recorder is closed.
        """
        fields = {"level": level, "logger": logger, "message": message, "context": context}
        try:
            try:
                rendered = orjson.dumps(fields, simpler, _SIMPLE)
            except (TypeError, RecursionError) as error:
                let_interrupts_through(error)
                return self._event(_LOG, fields)
            # A null may stand for a number that is not finite; a long text may not fit the ring.
            if len(rendered) > _SHORT or _NULL(rendered) is not None:
                return self._event(_LOG, fields)
            return self._fragment(_LOG, rendered[1:-1])
        except RecorderClosedError:
            return False

    def _event(self, stream: int, fields: dict[str, Any]) -> bool:
        fields["context"] = plain_context(fields["context"])
        members = render_members(fields)
        if b"null" in members and (nonfinite := nonfinite_fields(fields["context"])):
            fields["nonfinite"] = nonfinite
            members = render_members(fields)
        if len(members) > self._largest_fragment:
            members = render_members(shortened(fields, self._largest_fragment))
        return self._fragment(stream, members)

    def epoch_summary(self, epoch: float, summary: Mapping[str, Any]) -> bool:
        """Record values of a whole epoch, which belong to no step.

        Args:
            epoch: The epoch; may be a fraction.
            summary: Values by name, of the types that ``record()`` takes, on a GPU too: the line
                is written once they have arrived. More than the ring has room for at once become
                several lines.

        Returns:
            True when the summary was accepted, False when it, or a part of it, was dropped.

        Raises:
            TypeError: ``epoch`` is no number, ``summary`` no mapping, or a name or value cannot be
                recorded.
            OverflowError: An int beyond 64 bits.
            RuntimeError: A value on a GPU while a stream is being captured into a graph.
            RecorderClosedError: The recorder has been closed.
        """
        number = metric_value("epoch", epoch)
        if isinstance(number, (bool, str)) or number is None:
            raise TypeError(f"epoch must be an int or a float, got {type(epoch).__name__}")
        check_type("summary", summary, Mapping, "a mapping")
        for name in summary:
            if not isinstance(name, str):
                raise TypeError(f"names in a summary must be str, got {text_of_value(name)}")
        values = {
            name: value if host_copies.is_device_scalar(value) else metric_value(name, value)
            for name, value in summary.items()
        }
        return self._summary(number, values)

    def _summary(self, epoch: float, values: dict[str, Any]) -> bool:
        accepted = True
        on_devices = {n: v for n, v in values.items() if host_copies.is_device_scalar(v)}
        if not on_devices:
            for members in summary_members(epoch, values, self._largest_fragment):
                accepted = self._fragment(_METRICS, members) and accepted
            return accepted
        try:
            return self._summary_fitting(epoch, values)
        except ValueError:  # too large for the ring: by halves
            if len(on_devices) < len(values):
                parts = [{n: v for n, v in values.items() if n not in on_devices}, on_devices]
            elif len(values) > 1:
                items, half = list(values.items()), len(values) // 2
                parts = [dict(items[:half]), dict(items[half:])]
            else:
                short = {cut(name, _MOST_NAME): value for name, value in values.items()}
                return self._summary_fitting(epoch, short)
        for part in parts:
            accepted = self._summary(epoch, part) and accepted
        return accepted

    def flush(self, timeout: float | None = None, *, stream: str | None = None) -> bool:
        """Wait until everything accepted so far is in the files, values from devices included.

        Args:
            timeout: Seconds to wait at most; by default as close().
            stream: Wait for this one only: ``metrics``, ``performance``, ``errors`` or ``log``.
                Lines of others that wait for a device do not hold it up.

        Returns:
            True when it is, False when the time was up first; training may simply go on.

        Raises:
            TypeError: ``timeout`` is no number.
            ValueError: ``timeout`` is NaN or below 0, or an unknown stream.
        """
        limit = self._default_limit() if timeout is None else seconds("timeout", timeout)
        if stream is None:
            return self._flush(limit)
        check_choice("stream", stream, STREAMS)
        return self._flush_stream(STREAMS.index(stream), limit)

    def close(self, timeout: float | None = None) -> bool:
        """Write everything that was accepted and end the flush thread. Safe to call again.

        Args:
            timeout: Seconds to wait at most; by default ``close_timeout_s``, but one second for a
                directory that could never be written.

        Returns:
            True when all is written. False when the time was up first (a disk that hangs or is
            full): the flush thread goes on trying, and close() may be called again. One warning
            says how many records are missing, and why.

        Raises:
            TypeError: ``timeout`` is no number.
            ValueError: ``timeout`` is NaN or below 0; nothing is closed.
        """
        first = not self.closed
        limit = self._default_limit() if timeout is None else seconds("timeout", timeout)
        written = self._close(limit)
        if not written and timeout is None:
            self._tell_missing()
        if first and os.getpid() == self._pid and self._run_file is not None:
            # Workers that were killed, or left without closing.
            _recover(str(self._path), max(1.0, self._close_timeout_s / 2))
        if written and not self._ended and os.getpid() == self._pid:
            self._ended = True
            self._write_run_file(ended=True)
        return written

    def _default_limit(self) -> float:
        """Return how long to wait where the caller does not say."""
        if os.getpid() != self._pid:  # to ask would open files for a forked child
            return self._close_timeout_s
        refused = self._label is None and self._stats()["errors"] > 0
        return min(_VAIN_S, self._close_timeout_s) if refused else self._close_timeout_s

    def _tell_missing(self) -> None:
        """Say once what could not be written, why, and what becomes of it."""
        stats = self._stats()
        missing = stats["accepted"] - stats["written"]
        if self._missing_told or missing <= 0:
            return
        self._missing_told = True
        ring = stats["ring_path"]
        remedy = self._remedy and f"{self._remedy}; then "
        _log.warning(
            "%d records are missing in the files of %s: %s. %s",
            missing,
            self._path,
            stats["last_error"] or "they were not written in time",
            "They are lost when this process ends."
            if ring is None
            else f"They stay in {ring}: {remedy}the next start in the directory writes them, or "
            f"`foundry-fastlog recover {self._path}`.",
        )

    def _write_run_file(self, *, ended: bool) -> None:
        # Without a label the directory cannot be written, which the core has told already.
        if self._run_file is not None and self._label is not None:
            self._run_file.write(self.label, self.attempt, directory=self._directory, ended=ended)

    def stats(self) -> RecorderStats:
        """Return the recorder's figures about itself.

        Returns:
            A dict. Counts of records: ``calls`` = ``accepted`` + ``dropped``; ``written`` equals
            ``accepted`` after close(); ``record_calls``, ``timer_calls``, ``event_calls``.
            Times: ``record_ns`` and ``timer_ns`` (mean nanoseconds of a call and of a timer's enter
            and exit, one in 64 is measured), ``blocked_s``, ``logging_s`` (estimated seconds in all
            calls), ``wall_s`` (since the first record), ``overhead_fraction`` (``logging_s`` /
            ``wall_s``), ``flush_cpu_s`` (of the flush thread). Sizes in bytes: ``bytes_written``,
            ``ring_bytes``, ``ring_high_water_bytes``. ``ring_path``: the ring's file, None in
            memory. Faults: ``errors`` (count), ``first_error``, ``last_error``. ``key_sets``:
            distinct sets of metric names. ``streams``: per stream ``written``, ``bytes``,
            ``dropped``, ``segments``. ``device``: ``scalars``, ``waiting``, ``missing``, ``error``,
            see docs/device_scalars.md.
        """
        return self._stats()

    def __enter__(self) -> Self:
        """Return the recorder itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the recorder; an exception goes on."""
        self.close()

    def __repr__(self) -> str:
        """Show where it records, and whether it still does."""
        if not self._opened:
            return f"<{type(self).__name__}, never opened>"
        state = "closed" if self.closed else "open"
        return f"<Recorder {str(self._path)!r} label={self.label!r} {state}>"


def open_run(
    path: str | os.PathLike[str],
    **options: Any,  # noqa: ANN401 - handed on to Recorder, which types them
) -> Recorder:
    """Return the recorder of this process for a run, opening it when there is none.

    Args:
        path: The run's directory.
        **options: As for `Recorder`; used when it is opened, ignored when it is open already.

    Returns:
        The open recorder.
    """
    with _open.lock:  # two threads that ask at once get one recorder
        return recorder_of(path, options.get("rank")) or Recorder(path, **options)


def recorder_of(path: str | os.PathLike[str], rank: int | None = None) -> Recorder | None:
    """Return the recorder that this process has open for a run, or None.

    Args:
        path: The run's directory.
        rank: As for `Recorder`.
    """
    directory = absolute(path)
    rank = process_number("rank", rank, "RANK", least=0)
    with _open.lock:
        return _open.find(directory, rank)


def recover(path: str | os.PathLike[str]) -> list[RingReport]:
    """Put what killed processes left in their rings into the files of their runs.

    Opening and closing a `Recorder` does so for its run, and readers show these records
    anyway; this is for runs that nobody goes on with, and for those that read the files
    with other programs. Safe at any time, also while the run trains, and safe to repeat.

    Args:
        path: A run's directory, or a directory with runs somewhere below it.

    Returns:
        A report per ring that was found; see `foundry_fastlog.RingReport`. Its ``sound`` is
        False where something could not be recovered.

    Raises:
        RunNotFoundError: There is no run. The message says what to do.
    """
    from foundry_fastlog.reading.absent_rings import report_absent
    from foundry_fastlog.reading.found_rings import RingReport, list_quarantined
    from foundry_fastlog.reading.overlay import Overlay
    from foundry_fastlog.reading.preview import runs_with_rings

    reports: list[RingReport] = []
    for run in runs_with_rings(path):
        before = list_quarantined(run)
        found = [RingReport(run, **report) for report in _core.recover_run(os.fsencode(run))]
        # No ring at all: perhaps because they may not be listed, which the overlay tells.
        reports += [*found, *before, *report_absent(run)] if found else Overlay(run).refresh()
    return reports


def takes(value: object) -> bool:
    """Tell whether ``record()`` takes a value, without waiting for a device that it may lie on."""
    return _core.takes(value)


def _prepare_device() -> None:
    if "torch" in sys.modules:
        from foundry_fastlog.recording import device_tensors

        device_tensors.prepare(_core.prepare_device)


def _on_core_event(kind: str, text: str) -> None:
    """Receive the native core's calls; must not raise."""
    if kind == "message":
        _log.warning("%s", text)
    elif kind == "forked":
        _close_at_worker_exit()
    elif text not in _told_odd and len(_told_odd) < _MOST_TOLD:
        _told_odd.add(text)
        _log.warning("metric %r is no single value: recorded as text", text)


def _close_at_worker_exit() -> None:
    """Close when a multiprocessing child ends: it leaves by os._exit(), without atexit."""
    # Loaded in every such child; an import may fail where no descriptor is free.
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        _finalize(os.getpid())


@functools.lru_cache(maxsize=1)
def _finalize(pid: int) -> None:  # noqa: ARG001 - once in each process
    sys.modules["multiprocessing.util"].Finalize(None, _close_all, exitpriority=100)


def _mark_lost(directory: Path) -> None:
    """Keep in mind what a run without a private directory lacks, if it does."""
    label = last_unended(directory)
    if label is not None:
        from foundry_fastlog.reading.absent_rings import mark_lost

        mark_lost(directory, label)


def _recover(directory: str, timeout_s: float = 1e9) -> None:
    """Put what dead processes left in their rings into the run's files, and say so."""
    for report in _core.recover_run(os.fsencode(directory), timeout_s):
        if report["outcome"] == "recovered" and report["emitted"]:
            _log.info(
                "recovered %d records that a killed process had left in %s",
                report["emitted"],
                report["ring"],
            )
        elif report["outcome"] in ("quarantined", "failed", "elsewhere"):
            _log.warning(
                "a ring file could not be recovered (%s): %s: %s",
                report["outcome"],
                report["ring"],
                report["reason"],
            )


def _close_all() -> None:
    """Close what is still open when the process ends."""
    for recorder in _open.list_all():
        if not recorder.closed:
            recorder.close()
        elif not recorder.close(_VAIN_S):  # it has waited its time already
            recorder._tell_missing()  # noqa: SLF001 - its own module


def _decorate(timer: Timer, function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Wrap a function, or a coroutine function, so that each call is timed."""
    from foundry_fastlog.base.decorating import run_inside  # where something is decorated, only

    if not callable(function):
        raise TypeError(f"a timer decorates a function, got {type(function).__name__}")
    return run_inside(function, lambda: timer)


_core.set_decorate(_decorate)
host_copies.ask_relaxed = _core.ask_relaxed
host_copies.refuse_captured = _core.refuse_captured
_core.add_hot_methods(Recorder)  # its own descriptors: no walk along the bases at each call
atexit.register(_close_all)
