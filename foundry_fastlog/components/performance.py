"""PerformanceLogger: measures how long blocks of code take, and the process's memory."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import orjson

from foundry_fastlog.analysis.accumulate import percentile
from foundry_fastlog.base import caller_time
from foundry_fastlog.base.arguments import check_number, level_number
from foundry_fastlog.base.environment import get_device, rss_bytes
from foundry_fastlog.base.fork_lock import ForkLock
from foundry_fastlog.base.formatting import printable
from foundry_fastlog.base.statistics import describe
from foundry_fastlog.components.component import AnyLogger, known_levels, log_text, stdlib_logger
from foundry_fastlog.recording.extension import core

if TYPE_CHECKING:
    from typing_extensions import Self

    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["PerformanceLogger", "TimedBlock", "rss_bytes"]

MAX_NAMES = 1000
OTHER = "(other blocks)"
_MANY_NAMES = (
    f"more than {MAX_NAMES:,} names of timed blocks: the statistics of this process have {{!r}} "
    f"and further ones together, as {OTHER!r}. Lines of timings have their names. Is a number in "
    "them? Give it as step="
)

_P = ParamSpec("_P")
_R = TypeVar("_R")
_log = logging.getLogger("foundry_fastlog")

TimedBlock = core.TimedBlock


class _Untimed:
    """A block that is not timed; one object for all."""

    elapsed = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        return function


_UNTIMED = _Untimed()


def _describe(series: core.Durations | None) -> dict[str, Any]:
    samples = [] if series is None else sorted(series.latest())
    found = describe(()) if series is None or not samples else series.describe()
    for name, fraction in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        found[name] = percentile(samples, fraction) if samples else None
    return found


class PerformanceLogger(core.BlockTimer):
    """Times blocks of code and logs memory use, to find bottlenecks.

    May be used from any thread; blocks nest. Times are wall-clock times on the host: a GPU may
    still be working when a block ends.

    Attributes:
        logger: Where times and memory are logged.

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
            TypeError: ``logger`` is not a logger, ``recorder`` no recorder or ``max_samples``
                no int.
            ValueError: ``max_samples`` is below 1.
        """
        super().__init__()
        check_number("max_samples", max_samples, 1, sys.maxsize, whole=True)
        if recorder is not None and not isinstance(recorder, core.RecorderCore):
            raise TypeError(f"recorder must be a Recorder, got {type(recorder).__name__}")
        self.logger = logger
        self._stdlib = stdlib_logger(logger)
        self._max_samples = max_samples
        self._series: dict[str, core.Durations] = {}
        self._lock = ForkLock()
        self._told: set[str] = set()
        untimed = None if profile else _UNTIMED
        self._open(recorder, self._series, known_levels(self._stdlib), untimed)

    @property
    def timers(self) -> dict[str, list[float]]:
        """The latest durations in seconds, by name; at most ``max_samples`` of each.

        After 1000 names, further ones share ``"(other blocks)"``.
        """
        return {name: series.latest() for name, series in list(self._all_series().items())}

    def _ended(
        self,
        name: str,
        level: int | str,
        step: int | None,
        elapsed: float,
        error: type[BaseException] | None,
    ) -> None:
        """Log that a block has ended. Called by it, unless the level is known to be disabled."""
        begin = caller_time.begin()
        try:
            level = level if type(level) is int else self._level_of(level)
            if self._stdlib.isEnabledFor(level):
                failed = "" if error is None else f" (raised {error.__name__})"
                text = f"{name} completed in {elapsed:.4f}s{failed}"
                log_text(self.logger, level, text, stacklevel=2, step=step)
        finally:
            caller_time.end(begin)

    def _level_of(self, level: object) -> int:
        """Return the number of a level. The block has run: a wrong one is no reason to fail."""
        try:
            return level_number(level)
        except ValueError as error:
            self._tell_once("level", f"time_block(log_level=...): {error}; DEBUG is taken")
            return logging.DEBUG

    def _tell_once(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s", text)

    def _new_series(self, name: str) -> core.Durations:
        """Return the durations of a name. Called by the first block of the name that ends."""
        if name not in self._series and len(self._series) >= MAX_NAMES:
            self._tell_once("names", _MANY_NAMES.format(printable(name, 60)))
        with self._lock:
            if name not in self._series and len(self._series) >= MAX_NAMES:
                name = OTHER
            series = self._series.get(name)
            if series is None:
                series = self._series[name] = core.Durations(self._max_samples)
            return series

    def _all_series(self) -> dict[str, core.Durations]:
        """Return the durations by name, with those of the blocks that have just ended."""
        self._settle()
        return self._series

    def get_timing_statistics(self, block_name: str | None = None) -> dict[str, Any]:
        """Compute statistics of the durations of a block, or of all blocks.

        Args:
            block_name: The block's name; None for all.

        Returns:
            ``count``, ``mean``, ``min``, ``max``, ``std`` (of a sample: n - 1) and ``total`` over
            every duration, and ``p50``, ``p95``, ``p99`` over the latest ``max_samples`` of them,
            in seconds. If nothing was timed, all but ``count`` are None. For all blocks, a dict of
            such dicts by name. After 1000 names, further ones share ``"(other blocks)"``, and
            have nothing by their own.
        """
        if block_name is not None:
            return _describe(self._all_series().get(block_name))
        return {name: _describe(series) for name, series in list(self._all_series().items())}

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
        try:
            self._settle()
        finally:
            with self._lock:
                self._series.clear()

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
