"""PerformanceLogger: measures how long blocks of code take, and the process's memory."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import orjson

from foundry_fastlog.analysis.accumulate import percentile
from foundry_fastlog.base.decorating import run_inside
from foundry_fastlog.base.environment import get_device, rss_bytes
from foundry_fastlog.base.fork_lock import ForkLock
from foundry_fastlog.base.statistics import Moments
from foundry_fastlog.components.component import AnyLogger, log_text, stdlib_logger

if TYPE_CHECKING:
    from typing_extensions import Self

    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["PerformanceLogger", "TimedBlock", "rss_bytes"]

MAX_NAMES = 1000
OTHER = "(other blocks)"
_FOLD = 4096  # durations that are collected before they are added to the statistics

_P = ParamSpec("_P")
_R = TypeVar("_R")
_log = logging.getLogger("foundry_fastlog")


class _Series:
    """The durations of one name: the latest ones, and statistics of all of them."""

    __slots__ = ("_folding", "moments", "pending", "samples")

    def __init__(self, max_samples: int) -> None:
        self.samples: deque[float] = deque(maxlen=max_samples)
        self.pending: list[float] = []  # appended to by any thread, shortened under the lock
        self.moments = Moments()
        self._folding = False

    def fold(self) -> None:
        """Add the pending durations to the statistics. The caller holds the lock."""
        if self._folding:  # a signal handler inside a fold: the next fold adds the rest
            return
        self._folding = True
        try:
            batch = self.pending[:]
            del self.pending[: len(batch)]  # not clear(): a thread may have appended in between
            self.moments.add(batch)
        finally:
            self._folding = False


class TimedBlock:
    """One execution of a block of code; see `PerformanceLogger.time_block`.

    Attributes:
        elapsed: Seconds that the block took; 0.0 until it has ended.
    """

    __slots__ = ("_device", "_level", "_name", "_owner", "_start", "_step", "_timer", "elapsed")

    def __init__(
        self,
        owner: PerformanceLogger,
        name: str,
        level: int,
        step: int | None,
        device: object = None,
    ) -> None:
        self._owner = owner
        self._name = name
        self._level = level
        self._step = step
        self._device = device
        self._start = 0.0
        self.elapsed = 0.0
        recorder = owner._recorder  # noqa: SLF001 - the class that creates blocks
        self._timer = None if recorder is None else recorder.timer(name, step=step, device=device)

    def __enter__(self) -> Self:
        """Start timing."""
        if self._timer is not None:
            try:
                self._timer.__enter__()
            except RuntimeError:  # closed: no line
                self._timer = None
        self._start = perf_counter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Record the time; exceptions propagate."""
        self.elapsed = elapsed = perf_counter() - self._start
        if self._timer is not None:
            self._timer.__exit__(exc_type, exc, traceback)
        owner = self._owner
        owner._note(self._name, elapsed)  # noqa: SLF001 - the class that creates blocks
        if owner._stdlib.isEnabledFor(self._level):  # noqa: SLF001 - as above
            failed = "" if exc_type is None else f" (raised {exc_type.__name__})"
            log_text(
                owner.logger,
                self._level,
                f"{self._name} completed in {elapsed:.4f}s{failed}",
                stacklevel=2,
                step=self._step,
            )

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a function or a coroutine function: each call is a separate block."""
        return run_inside(
            function,
            lambda: TimedBlock(self._owner, self._name, self._level, self._step, self._device),
        )


class _Untimed(TimedBlock):
    """A block that is not timed; one object for all."""

    __slots__ = ()

    def __init__(self) -> None:
        self.elapsed = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        return function


_UNTIMED = _Untimed()


class PerformanceLogger:
    """Times blocks of code and logs memory use, to find bottlenecks.

    May be used from any thread; blocks nest. Times are wall-clock times on the host: a GPU may
    still be working when a block ends.

    Attributes:
        logger: Where times and memory are logged.
        timers: The latest durations in seconds, by name; at most ``max_samples`` of each. After
            1000 names, further ones share ``"(other blocks)"``.

    Example:
        >>> perf_logger = PerformanceLogger(logging.getLogger("model_foundry.training.loop"))
        >>> with perf_logger.time_block("forward_pass"):
        ...     outputs = sum(range(1000))
        >>> perf_logger.get_timing_statistics("forward_pass")["count"]
        1
    """

    def __init__(
        self,
        logger: AnyLogger,
        recorder: Recorder | None = None,
        *,
        profile: bool = True,
        max_samples: int = 10_000,
    ) -> None:
        """Start without any times.

        Args:
            logger: A `logging.Logger` or a `StructuredLogger`.
            recorder: If given, each block is also written as a line in ``performance.jsonl``.
            profile: False disables time_block(): blocks run, but nothing is timed or logged.
            max_samples: Durations to keep for each name, for percentiles.

        Raises:
            TypeError: ``logger`` is not a logger.
            ValueError: ``max_samples`` is below 1.
        """
        if max_samples < 1:
            raise ValueError(f"max_samples must be at least 1, got {max_samples}")
        self.logger = logger
        self.timers: dict[str, deque[float]] = {}
        self._stdlib = stdlib_logger(logger)
        self._recorder = recorder
        self._profile = profile
        self._max_samples = max_samples
        self._series: dict[str, _Series] = {}
        self._lock = ForkLock()

    def time_block(
        self,
        block_name: str,
        log_level: int = logging.DEBUG,
        *,
        step: int | None = None,
        device: object = None,
    ) -> TimedBlock:
        """Time a block of code, as a context manager or a decorator.

        Args:
            block_name: The block's name.
            log_level: Level of the message ``"<name> completed in 0.0234s"``.
            step: The training step. Default: that of the enclosing block.
            device: True or a device also times the block on the GPU, without waiting for it: the
                line gets ``device_duration_s``. See ``Recorder.timer``.

        Returns:
            The block; its ``elapsed`` holds the seconds afterwards.

        Raises:
            TypeError: ``block_name`` is not a str.
        """
        if not isinstance(block_name, str):
            raise TypeError(f"block_name must be a str, got {type(block_name).__name__}")
        if not self._profile:
            return _UNTIMED
        return TimedBlock(self, block_name, log_level, step, device)

    def _note(self, name: str, seconds: float) -> None:
        series = self._series.get(name)
        if series is None:
            series = self._new_series(name)
        series.samples.append(seconds)
        series.pending.append(seconds)
        if len(series.pending) >= _FOLD:
            with self._lock:
                series.fold()

    def _new_series(self, name: str) -> _Series:
        with self._lock:
            if name not in self._series and len(self._series) >= MAX_NAMES:
                name = OTHER
            series = self._series.get(name)
            if series is None:
                series = self._series[name] = _Series(self._max_samples)
                self.timers[name] = series.samples
            return series

    def get_timing_statistics(self, block_name: str | None = None) -> dict[str, Any]:
        """Compute statistics of the durations of a block, or of all blocks.

        Args:
            block_name: The block's name; None for all.

        Returns:
            ``count``, ``mean``, ``min``, ``max``, ``std`` (of a sample: n - 1) and ``total`` over
            every duration, and ``p50``, ``p95``, ``p99`` over the latest ``max_samples`` of them,
            in seconds. If nothing was timed, all but ``count`` are None. For all blocks, a dict of
            such dicts by name.
        """
        if block_name is not None:
            return self._describe(self._series.get(block_name))
        return {name: self._describe(series) for name, series in list(self._series.items())}

    def _describe(self, series: _Series | None) -> dict[str, Any]:
        if series is None:
            return {**Moments().describe(), "p50": None, "p95": None, "p99": None}
        with self._lock:
            series.fold()
            found = series.moments.describe()
        samples = sorted(series.samples.copy())
        for name, fraction in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            found[name] = percentile(samples, fraction) if samples else None
        return found

    def log_memory_usage(self, step: int | None = None) -> dict[str, float]:
        """Log this process's memory use, at DEBUG.

        Args:
            step: The training step, for the message's context.

        Returns:
            Gigabytes (10^9 bytes): ``cpu_rss_gb``; if torch is loaded and finds a GPU, also
                ``gpu_allocated_gb`` and ``gpu_reserved_gb`` of the current one.
        """
        usage = {"cpu_rss_gb": rss_bytes() / 1e9, **_gpu_memory()}
        if self._stdlib.isEnabledFor(logging.DEBUG):
            text = f"CPU memory - RSS: {usage['cpu_rss_gb']:.2f}GB"
            log_text(self.logger, logging.DEBUG, text, stacklevel=2, step=step)
            if "gpu_allocated_gb" in usage:
                text = (
                    f"GPU memory - Allocated: {usage['gpu_allocated_gb']:.2f}GB, "
                    f"Reserved: {usage['gpu_reserved_gb']:.2f}GB"
                )
                log_text(self.logger, logging.DEBUG, text, stacklevel=2, step=step)
        return usage

    def reset_timers(self) -> None:
        """Forget all durations. Recorded lines stay in the files."""
        with self._lock:
            self._series.clear()
            self.timers.clear()

    def export_timing_report(self, path: str | os.PathLike[str]) -> bool:
        """Write the statistics of all blocks as JSON: one object per name.

        Args:
            path: The file; replaced if it exists.

        Returns:
            True when it was written; False, with a warning, if it could not be.
        """
        target = Path(path)
        scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        report = orjson.dumps(self.get_timing_statistics(), option=orjson.OPT_INDENT_2)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(report + b"\n")
            scratch.replace(target)
        except OSError as error:
            _log.warning("could not write the timing report %s: %s", target, error)
            return False
        return True


def _gpu_memory() -> dict[str, float]:
    """Return the current GPU's memory from torch, if loaded; does not start the runtime."""
    if not get_device().startswith("cuda"):
        return {}
    cuda = sys.modules["torch"].cuda
    try:
        return {
            "gpu_allocated_gb": cuda.memory_allocated() / 1e9,
            "gpu_reserved_gb": cuda.memory_reserved() / 1e9,
        }
    except Exception:  # noqa: BLE001 - a driver error must not end the training
        return {}
