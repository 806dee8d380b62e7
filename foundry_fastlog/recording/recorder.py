"""The Recorder: the only entry point to the native core."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from foundry_fastlog.base.arguments import (
    absolute,
    check_choice,
    check_directory,
    check_type,
    seconds,
)
from foundry_fastlog.base.error_facts import prepare
from foundry_fastlog.base.json_text import cut, safe_str
from foundry_fastlog.recording import host_copies
from foundry_fastlog.recording.events import EventRecorder
from foundry_fastlog.recording.extension import RecorderClosedError, core
from foundry_fastlog.recording.open_recorders import OpenRecorders
from foundry_fastlog.recording.options import core_options
from foundry_fastlog.recording.recovery import finish_dead, mark_lost
from foundry_fastlog.run import starts
from foundry_fastlog.run.info import RunFile, plain_config
from foundry_fastlog.run.launch import Place, find_launch, find_place
from foundry_fastlog.run.names import SUFFIXES, Writer, find_file
from foundry_fastlog.run.start_entries import LiveWriter, Start, add_config, note_end
from foundry_fastlog.run.streams import STREAMS

if TYPE_CHECKING:
    from typing_extensions import Self

    from foundry_fastlog.recording.background_packing import BackgroundPacking

__all__ = ["Recorder", "RecorderClosedError", "open_run", "recorder_of"]

MIB = 1 << 20

_P = ParamSpec("_P")
_R = TypeVar("_R")

_log = logging.getLogger("foundry_fastlog")

_SHORT_CLOSE_S = 1.0  # the longest wait if the directory was never writable, or again at exit
_STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{2}-[0-9]{2}-[0-9]{2}")

_open: OpenRecorders[Recorder] = OpenRecorders()
_MOST_WARNED = 1000
_MOST_WORKER_RING = MIB
_MOST_SAID = 1000  # characters of an error's message

#: What to do where a directory has a run.
RESUME = ("auto", "must", "never", "new")


class _SetByInit:
    """An attribute that ``__init__`` sets; reading it earlier raises an error that says so.

    ``__getattr__`` would do so for any attribute, and would make every method call slower.
    """

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(
            f"this {owner.__name__} was never opened: its __init__ was not called, or it failed"
        )


class Recorder(EventRecorder):
    """Records metrics, timings, errors and messages of one process of a training run.

    ``record()`` puts a few bytes into a lock-free ring and returns; a background thread turns them
    into JSON lines in ``path``. The calls ``record``, ``record_dict``, ``log`` and ``timer`` are
    native methods. All methods may be called from any thread.

    A forked child may keep using the object: its first record opens its own files.

    Example:
        >>> with Recorder("runs/exp0") as recorder:  # doctest: +SKIP
        ...     with recorder.timer("step", step=0):
        ...         recorder.record(0, loss=2.5, lr=1e-4)
    """

    _missing_told = False
    _packing: BackgroundPacking | None = None
    _ended = False
    _run_file: RunFile | None
    _error: BaseException | None = None
    _signal: str | None = None
    _start: Start | None = None  # of a spawned worker: its parent's
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
        on_bad_value: str = "warn",
        compress: str | None = None,
        config: object = None,
        name: str | None = None,
        stamp: str | None = None,
        resume: str = "auto",
        launch: str | None = None,
    ) -> None:
        """Open the run's directory and start the flush thread.

        A directory that cannot be written does not raise: training goes on, the fault is reported
        once and in ``stats()``, records wait in the ring and writing is retried.

        Args:
            path: The run's directory; created if absent. Existing files stay: this process writes
                its own.
            rank: This process's rank; default: what the launcher says (torchrun, Slurm, MPI), or
                ``torch.distributed`` or jax if they are initialised.
            world_size: Number of ranks; default: likewise.
            ring_bytes: Size of the ring in memory, 64 KiB to 64 MiB, rounded up to a power of two.
            back_pressure: What to do when the ring is full: ``"block"`` waits up to
                ``block_timeout_s`` and then drops; ``"drop"`` drops at once. Drops are counted and
                marked in the file.
            block_timeout_s: The longest wait in seconds. After a wait that timed out, no call waits
                again until the flush thread has written something.
            flush_interval_s: How often the flush thread wakes, in seconds. A half-full ring wakes
                it at once.
            segment_bytes: A file that would grow beyond this size is continued in a new segment.
            overhead_budget: Fraction of wall time that logging may take before one warning is
                logged.
            close_timeout_s: Default timeout of ``flush()`` and ``close()`` in seconds.
            ring: Where the ring is kept. ``"file"``: in a mapped file, so that a killed process
                loses nothing; on a file system unsuitable for mapping, in a local temporary
                directory. ``"shm"``: in /dev/shm, which disk write-back never touches, but which is
                lost with the container or machine. ``"memory"``: in memory only; a killed process
                loses what it recorded in the last ``flush_interval_s``.
            fsync: When lines are synced to the disk, to survive a power loss: ``"none"`` (when the
                kernel decides), ``"interval"`` or ``"every_flush"``. Surviving a killed process
                needs none.
            fsync_interval_s: Seconds between syncs for ``"interval"``.
            device_timeout_s: How long a line waits for its device values, in seconds. After that
                they are null and named in its ``missing``; its CPU values are kept.
            watch_nonfinite: Which metrics produce a ``nonfinite`` event in the errors stream when
                they turn NaN or infinite: ``"device"`` (device values), ``"all"`` or ``"none"``.
            on_bad_value: What ``log()`` and the components do with a value that ``record()``
                rejects, such as a list: ``"warn"`` and ``"drop"`` leave it out, with one warning
                per name or none; ``"raise"`` raises as ``record()`` does. What is left out is
                counted in ``stats()`` and named in its line.
            compress: ``"zstd"`` or ``"gzip"``: compress each segment once it is continued in the
                next one, in a thread of its own. What is left at the end, and files of child
                processes, ``foundry-fastlog compress`` does. ``"zstd"`` needs Python 3.14, or
                the extra ``zstd``.
            config: The run's configuration for run.json: a mapping or a pydantic model.
            name: The run's name for run.json. Default: the directory's name.
            stamp: When this start began, ``"2025-09-30_14-30-00"``, for the file names:
                ``metrics_2025-09-30_14-30-00.jsonl``. All processes of one start share that of the
                one that began it.
            resume: What to do where the directory has a run. ``"auto"``: go on with it, as its next
                start. ``"must"``: likewise, and fail where there is none. ``"never"``: fail.
                ``"new"``: record in the next free directory beside it: ``exp0-2``. Other ranks of
                the same launch find the directory that the first one took.
            launch: A name that all processes of this launch share and no other launch has, where
                the launcher says none in the environment; see ``docs/format.md``.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument, RANK or WORLD_SIZE is out of range, or this process already
                records there.
            FileNotFoundError: There is no run, with ``resume="must"``.
            FileExistsError: There is one, with ``resume="never"``.
            NotADirectoryError: ``path``, or a part of it, is a file.
            MemoryError: There is not enough memory for the recorder. None of its files are left.
            RuntimeError: There is not enough memory for the ring, or the flush thread cannot be
                started; no files are left. Or this object was already opened; it stays as it is.
        """
        if self._opened:  # also if closed: its files and figures do not change
            raise RuntimeError(
                f"this {type(self).__name__} was already opened, in {self.path}: create a new one"
            )
        directory = absolute(path)
        check_directory(directory)
        place = find_place(rank, world_size)
        check_choice("resume", resume, RESUME)
        if launch is not None:
            check_type("launch", launch, str, "a str")
        options = {
            "ring_bytes": ring_bytes,
            "back_pressure": back_pressure,
            "block_timeout_s": block_timeout_s,
            "flush_interval_s": flush_interval_s,
            "segment_bytes": segment_bytes,
            "overhead_budget": overhead_budget,
            "close_timeout_s": close_timeout_s,
            "ring": ring,
            "fsync": fsync,
            "fsync_interval_s": fsync_interval_s,
            "device_timeout_s": device_timeout_s,
            "watch_nonfinite": watch_nonfinite,
            "on_bad_value": on_bad_value,
        }
        taken = core_options(options)
        if compress is not None:
            check_choice("compress", compress, tuple(SUFFIXES))
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, got {type(name).__name__}")
        if stamp is not None:
            check_type("stamp", stamp, str, "a str")
            if _STAMP.fullmatch(stamp) is None:
                raise ValueError(f"stamp must look like 2025-09-30_14-30-00, got {stamp!r}")
        config = plain_config(config)
        self._close_timeout_s = float(close_timeout_s)
        facts = {"config": config, "stamp": stamp}
        try:
            with _open.lock:
                while not self._begin(Path(directory), place, launch, resume, facts, taken):
                    pass  # another process took the directory meanwhile
            self._complete(place, name, config, compress)
        except BaseException as error:  # Ctrl-C, for one: nobody has the object to close it
            self._give_up(error)
            raise

    def _give_up(self, error: BaseException) -> None:
        """Close what a constructor that failed has opened."""
        if self._opened:
            self.ended_by(error)
            self.close()

    def _complete(
        self, place: Place, name: str | None, config: object, compress: str | None
    ) -> None:
        """Set up what is beside the core."""
        _prepare_device()
        _close_at_worker_exit()
        if compress is not None:
            from foundry_fastlog.recording.background_packing import BackgroundPacking

            self._packing = BackgroundPacking(self, compress)
        peers = self._start.peers if self._start else ()
        if peers:
            _warn_of_peers(self, peers)
        elif not place.rank:
            self._run_file = RunFile(
                self._path,
                name=name,
                config=config,
                world_size=place.world_size,
                rank=place.rank,
                stamp=self._stamp,
            )
            self._write_run_file(ended=False)

    def _begin(
        self,
        given: Path,
        place: Place,
        launch: str | None,
        resume: str,
        facts: dict[str, Any],
        options: dict[str, Any],
    ) -> bool:
        """Find this process's directory and start, and open the core there. False to try again."""
        launched = find_launch(launch, place)
        path = starts.choose_directory(given, resume, place, launched)
        other = _open.find(str(path), place.rank)
        if other is not None:
            alias = f" (as {other.path})" if other.path != path else ""
            raise ValueError(
                f"this process already records in {path}{alias}: use open_run(path) to share that "
                "recorder, or close it first, which open_run(path).close() does if you no longer "
                "have it"
            )
        if not place.rank:
            mark_lost(path)
        finish_dead(str(path))
        with starts.opening(path):
            live = functools.partial(core.live_writers, os.fsencode(path))
            start = starts.begin(path, place, launched, live, facts)
            if resume in ("never", "new") and (start.number or start.peers):
                starts.withdraw(path, start)
                return False
            stamp = start.stamp if facts["stamp"] else ""
            self._take_facts(path, *place, stamp, self._close_timeout_s)
            try:
                last = starts.last_step(path, place.rank, start.number)
                self._open_core(start.label(place.rank), options)
            except BaseException:
                starts.withdraw(path, start)
                raise
        self._start = start
        if last is not None:
            self._continue_from(last)
        return True

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
        pid: int,
    ) -> Recorder:
        """Open the recorder in a process spawned by a recording process (see __reduce__)."""
        with _open.lock:
            present = _open.find(str(path), rank)
            if present is not None:
                return present
            if pid == os.getpid():
                raise RecorderClosedError(
                    f"the Recorder of {path} was pickled in this process and is closed by now: "
                    "open a new one"
                )
            self = cls.__new__(cls)
            self._take_facts(path, rank, world_size, stamp, close_timeout_s)
            own = f"{label}-w{self._pid}" if label else f"w{self._pid}"
            self._open_core(own, options, worker=True)
        _prepare_device()
        if not _close_at_worker_exit():
            _log.warning(
                "a Recorder that process %d had pickled was unpickled where it is no spawned "
                "worker: it records in %s, as %s. If that run is over, leave loggers out of what "
                "you save, such as checkpoints.",
                pid,
                path,
                self.label,
            )
        return self

    def _take_facts(
        self,
        path: Path,
        rank: int | None,
        world_size: int | None,
        stamp: str,
        close_timeout_s: float,
    ) -> None:
        self._path = path
        self._rank = rank
        self._world_size = world_size
        self._stamp = stamp
        self._close_timeout_s = close_timeout_s
        self._pid = os.getpid()
        self._run_file = None

    def _open_core(self, label: str, options: dict[str, Any], *, worker: bool = False) -> None:
        """Start the native recorder. The caller holds the registry's lock."""
        prepare()
        self._options = options
        core.RecorderCore.__init__(
            self,
            directory=os.fsencode(self._path),
            stamp=f"_{self._stamp}" if self._stamp else "",
            label=label,
            worker=worker,
            rank=-1 if self._rank is None else self._rank,
            hook=functools.partial(_on_core_event, set()),
            **{**options, "ring_bytes": min(options["ring_bytes"], _MOST_WORKER_RING)}
            if worker
            else options,
        )
        _open.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a spawned worker, which records to its own files as a forked worker does.

        Elsewhere it does so, too, with a warning. In the same process it is the same object.

        Raises:
            RecorderClosedError: The recorder has been closed.
        """
        if self.closed:
            raise RecorderClosedError(
                "a closed Recorder cannot be sent to another process; leave loggers out of what "
                "you pickle, such as checkpoints"
            )
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
                self._pid,
            ),
        )

    def __copy__(self) -> Self:
        """Return the recorder itself: a file has one writer."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the recorder itself, also if closed."""
        return self

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
        """The writer's label in the file names; empty for the first attempt of the main process."""
        return self._label or ""

    @property
    def stamp(self) -> str:
        """The start's time in the file names; empty if there is none."""
        return self._stamp

    @property
    def attempt(self) -> int:
        """Number of this start of the run: 0 for the first, then 1, 2, ... for each resume."""
        return Writer.from_label(self.label).attempt

    @property
    def started(self) -> str:
        """When this start of the run began, as file names have it; the same for all its ranks."""
        return self.stamp if self._start is None else self._start.stamp

    def files(self) -> list[Path]:
        """List the files that this process has created so far, by stream and segment."""
        return [find_file(Path(path)) for path in self._files()]

    def flush(self, timeout: float | None = None, *, stream: str | None = None) -> bool:
        """Wait until everything accepted so far is in the files, device values included.

        Args:
            timeout: The longest wait in seconds. Default: as for close().
            stream: Wait for this stream only, one of ``STREAMS``.
                Lines of other streams that wait for a device do not delay it.

        Returns:
            True when everything is written, False when the timeout expired first; training may go
            on.

        Raises:
            TypeError: ``timeout`` is not a number.
            ValueError: ``timeout`` is NaN or below 0, or the stream is unknown.
        """
        limit = self._default_limit() if timeout is None else seconds("timeout", timeout)
        if stream is None:
            return self._flush(limit)
        check_choice("stream", stream, STREAMS)
        return self._flush_stream(STREAMS.index(stream), limit)

    def close(self, timeout: float | None = None) -> bool:
        """Write everything that was accepted and stop the flush thread. Safe to call again.

        Args:
            timeout: The longest wait in seconds. Default: ``close_timeout_s``, or one second if the
                directory was never writable.

        Returns:
            True when everything is written. False when the timeout expired first (the disk hangs or
            is full): the flush thread keeps trying, and close() may be called again. One warning
            says how many records are missing, and why.

        Raises:
            TypeError: ``timeout`` is not a number.
            ValueError: ``timeout`` is NaN or below 0; nothing is closed.
        """
        first = not self.closed
        limit = self._default_limit() if timeout is None else seconds("timeout", timeout)
        packing = self._packing if os.getpid() == self._pid else None
        if packing is not None:
            packing.stop()
        written = self._close(limit)
        if packing is not None:
            packing.join(min(limit, _SHORT_CLOSE_S))
        if not written and timeout is None:
            self._warn_missing()
        ends = written and not self._ended and os.getpid() == self._pid
        if ends:
            self._ended = True
            self._note_end()  # at once: without its ring it would be read as killed
        if first and os.getpid() == self._pid and self._run_file is not None:
            # Left by workers that were killed or exited without closing.
            finish_dead(str(self._path), max(1.0, self._close_timeout_s / 2))
        if ends:
            self._write_run_file(ended=True)
        return written

    def __del__(self) -> None:
        # Nobody refers to it any more: it ends as it would with the program.
        if self._opened and not self._ended and os.getpid() == self._pid:
            self.close(_SHORT_CLOSE_S if self.closed else None)

    def _default_limit(self) -> float:
        """Return how long to wait if the caller does not say."""
        if os.getpid() != self._pid:  # asking would open files for a forked child
            return self._close_timeout_s
        refused = self._label is None and self._stats()["errors"] > 0
        return min(_SHORT_CLOSE_S, self._close_timeout_s) if refused else self._close_timeout_s

    def _warn_missing(self) -> None:
        """Log once what could not be written, why, and what happens to it."""
        stats = self._stats()
        missing = stats["accepted"] - stats["written"]
        if self._missing_told or missing <= 0:
            return
        self._missing_told = True
        ring = stats["ring_path"]
        remedy = self._remedy and f"{self._remedy}; then "
        _log.warning(
            "%d records are missing from the files of %s: %s. %s",
            missing,
            self._path,
            stats["last_error"] or "they were not written in time",
            "They are lost when this process ends."
            if ring is None
            else f"They stay in {ring}: {remedy}the next start in the directory writes them, or "
            f"`foundry-fastlog recover {self._path}`.",
        )

    def _write_run_file(self, *, ended: bool) -> None:
        # Without a label the directory is not writable; the core has already reported that.
        if self._run_file is not None and self._label is not None:
            self._run_file.write(self.label, self.attempt, directory=self._directory, ended=ended)

    def ended_by(self, error: BaseException | None, signal: str | None = None) -> None:
        """Say, before close(), what ends this process's part of the run, if anything does.

        ``with recorder:`` says so itself, and so does an exception that ends the program.

        Args:
            error: The exception.
            signal: The signal's name, such as ``"SIGTERM"``.
        """
        self._error = error
        self._signal = signal

    def _note_end(self) -> None:
        """Write how this process's part of the start ended."""
        if self._start is None or self._label is None:
            return
        how, facts = _end_of(self._error, self._signal)
        stats = self._stats()
        cost = {"logging_s": round(stats["logging_s"], 6), "wall_s": round(stats["wall_s"], 6)}
        try:
            note_end(self._path, self._start, self.label, how, **facts, **cost)
        except OSError as error:
            _log.warning("could not write how %s ended: %s", self._path, error)

    def update_config(self, config: object) -> None:
        """Add to the run's configuration, or change it, after the start.

        The entry of the start and ``run.json`` have it when this returns (it writes two files, so
        it is not for each step). If they cannot be written, a warning says so.

        Args:
            config: As for the constructor. What it does not name stays as it is.

        Raises:
            TypeError: It is neither a mapping nor a configuration.
        """
        added = plain_config(config)
        if self._start is None:
            _log.warning(
                "a spawned worker cannot change the configuration of %s: "
                "call update_config() in the process that opened the run",
                self._path,
            )
            return
        try:
            with starts.opening(self._path):
                add_config(self._path, self._start.number, added)
        except OSError as error:
            _log.warning("could not add to the configuration of %s: %s", self._path, error)
        if self._run_file is not None and os.getpid() == self._pid:
            self._run_file.add_config(added)
            self._write_run_file(ended=self.closed)

    def stats(self) -> core.RecorderStats:
        """Return the recorder's statistics about itself.

        Returns:
            A dict. Counts of records: ``calls`` = ``accepted`` + ``dropped``; ``written`` equals
            ``accepted`` after close(); ``record_calls``, ``timer_calls``, ``event_calls``. Times:
            ``record_ns`` and ``timer_ns`` (mean nanoseconds of a call, and of a timer in all; one
            call in 16 is measured), ``blocked_s``, ``logging_s`` (seconds that this package took on
            the threads that call it: in this recorder's calls, estimated, and in the Python code of
            all loggers of this process), ``wall_s`` (since the first record), ``overhead_fraction``
            (``logging_s`` / ``wall_s``), ``flush_cpu_s`` (of the flush thread). Sizes in bytes:
            ``bytes_written``, ``ring_bytes``, ``ring_high_water_bytes``. ``ring_path``: the ring's
            file, None for a ring in memory. Faults: ``errors`` (count), ``first_error``,
            ``last_error``. ``key_sets``: distinct sets of metric names. ``left_out``: values that
            ``log()`` and the components could not record (see ``on_bad_value``). ``streams``: per
            stream ``written``, ``bytes``, ``dropped``, ``segments``. ``device``: ``scalars``,
            ``waiting``, ``missing``, ``error``; see docs/device_scalars.md.
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
        """Close the recorder; exceptions propagate."""
        self.ended_by(exc)
        self.close()

    def __repr__(self) -> str:
        """Show where it records, and whether it is open."""
        if not self._opened:
            return f"<{type(self).__name__}, never opened>"
        state = "closed" if self.closed else "open"
        return f"<Recorder {str(self._path)!r} label={self.label!r} {state}>"


def open_run(
    path: str | os.PathLike[str],
    **options: Any,  # noqa: ANN401 - passed to Recorder, which types them
) -> Recorder:
    """Return this process's recorder for a run, opening one if there is none.

    Args:
        path: The run's directory.
        **options: As for `Recorder`; used if the recorder is opened here, ignored if it is already
            open.

    Returns:
        The open recorder.
    """
    with _open.lock:  # two threads that call at once get the same recorder
        return recorder_of(path, options.get("rank")) or Recorder(path, **options)


def recorder_of(path: str | os.PathLike[str], rank: int | None = None) -> Recorder | None:
    """Return this process's open recorder for a run, or None.

    Args:
        path: The run's directory.
        rank: As for `Recorder`.
    """
    directory = absolute(path)
    rank = find_place(rank).rank
    with _open.lock:
        return _open.find(directory, rank)


def _end_of(error: BaseException | None, signal: str | None) -> tuple[str, dict[str, Any]]:
    """Return how a process ends with this exception or signal, and what is to be said of it."""
    if signal is not None:
        return "signal", {"signal": signal}
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "closed", {}
    if isinstance(error, KeyboardInterrupt):
        return "signal", {"signal": "SIGINT"}
    facts = {"error_type": type(error).__name__, "error_message": cut(safe_str(error), _MOST_SAID)}
    return "exception", facts


def _warn_of_peers(recorder: Recorder, peers: tuple[LiveWriter, ...]) -> None:
    named = ", ".join(f"process {pid} on {host}" for _, host, pid in peers[:3])
    _log.warning(
        "%s already records in %s as rank %d. Both are kept and read as peers. If they are ranks "
        "of one job, pass rank= and world_size= to Recorder. This process writes as %s.",
        named,
        recorder.path,
        recorder.rank or 0,
        recorder.label,
    )


def _prepare_device() -> None:
    if "torch" in sys.modules:
        from foundry_fastlog.recording import device_tensors

        device_tensors.prepare(core.prepare_device)


def _on_core_event(told: set[object], kind: str, text: str | None, name: str | None) -> None:
    """Receive the native core's callbacks; must not raise.

    Args:
        told: The names of which one recorder has warned.
        kind: What it is.
        text: A sentence.
        name: The metric that it is about.
    """
    if kind == "message":
        _log.warning("%s", text)
    elif kind == "forked":
        _close_at_worker_exit()
    elif (kind, name) not in told and len(told) < _MOST_WARNED:
        told.add((kind, name))
        if kind == "cut":
            _log.warning("metric %r is too long: only its beginning is recorded", name)
        else:
            _log.warning(
                "%s. Such values are left out, and counted in stats(); on_bad_value= changes that",
                text,
            )


def _close_at_worker_exit() -> bool:
    """Close when a multiprocessing child ends: it exits with os._exit(), without atexit.

    Returns:
        Whether this process is one.
    """
    # Already loaded in every such child; an import could fail if no descriptor is free.
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return False
    if process.parent_process() is not None:
        _finalize(os.getpid())
        return True
    # What is passed to a Process is unpickled before it is set up, which forgets finalizers.
    if not getattr(process.current_process(), "_inheriting", False):
        return False
    sys.modules["multiprocessing.util"].register_after_fork(_open, lambda _: _finalize(os.getpid()))
    return True


@functools.lru_cache(maxsize=1)
def _finalize(pid: int) -> None:  # noqa: ARG001 - runs once in each process
    sys.modules["multiprocessing.util"].Finalize(None, _close_all, exitpriority=100)


def _close_all() -> None:
    """Close recorders that are still open when the process exits."""
    interactive = sys.flags.interactive or hasattr(sys, "ps1")  # there it is that of a cell
    error = None if interactive else getattr(sys, "last_value", None)
    for recorder in _open.list_all():
        if not recorder.closed:
            recorder.ended_by(error)
            recorder.close()
        elif not recorder.close(_SHORT_CLOSE_S):  # it has already waited its full timeout
            recorder._warn_missing()  # noqa: SLF001 - its own module


def _decorate(timer: core.Timer, function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Wrap a function, or a coroutine function, so that each call is timed."""
    from foundry_fastlog.base.decorating import run_inside  # only when something is decorated

    return run_inside(function, lambda: timer)


core.set_decorate(_decorate)
host_copies.ask_relaxed = core.ask_relaxed
host_copies.refuse_captured = core.refuse_captured
core.add_hot_methods(Recorder)  # as its own attributes: no walk along the base classes at each call
atexit.register(_close_all)
