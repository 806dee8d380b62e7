"""MetricsLogger: records the metrics of training steps and epochs, and reads them back."""

from __future__ import annotations

import logging
import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_fastlog.base import caller_time
from foundry_fastlog.base.json_text import safe_str, text_of_value
from foundry_fastlog.base.statistics import describe
from foundry_fastlog.base.unread import device_of, is_a
from foundry_fastlog.components.component import (
    AnyLogger,
    Component,
    known_levels,
    log_text,
    stdlib_logger,
)
from foundry_fastlog.recording.extension import RecorderClosedError, core
from foundry_fastlog.recording.values import metric_value, name_of

if TYPE_CHECKING:
    import os

    from foundry_fastlog.config.models import LoggingConfig
    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["MetricsLogger"]

Metrics = Mapping[str, Any]
_INFO = logging.INFO


class MetricsLogger(Component, core.StepLogger):
    """Records metrics to ``metrics.jsonl``, echoes them to a logger, and reads them back.

    Every step is recorded: a call costs well under a microsecond, and a line takes around a hundred
    bytes. ``log_metrics_every_n_steps`` of the configuration applies to the echo only. All threads,
    forked and spawned processes may use the object; each process writes its own files, and the
    history contains the lines of all of them.

    What it does with a value that is not a metric (a list, an image) is the recorder's option
    ``on_bad_value``: by default it is left out with one warning per name, and counted in
    ``recorder.stats()["left_out"]``; the other values are recorded. Nested dicts become
    ``outer.inner``. After close() nothing is recorded and the calls return False.

    Attributes:
        experiment_name: The run's name.
        output_dir: The run's directory.
        logger: Where steps are echoed.

    Example:
        >>> with MetricsLogger("exp0", "runs/exp0") as metrics_logger:  # doctest: +SKIP
        ...     metrics_logger.log_step(step=100, epoch=2, metrics={"loss": 2.5, "lr": 1e-3})
    """

    def __init__(
        self,
        experiment_name: str,
        output_dir: str | os.PathLike[str],
        *,
        config: LoggingConfig | None = None,
        logger: AnyLogger | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """Open the run's directory, unless a recorder is given.

        Args:
            experiment_name: The run's name.
            output_dir: The run's directory; created if absent. Components of one process with the
                same directory share one recorder.
            config: The recorder's options and the intervals. Without it every step is echoed and
                detailed metrics are always recorded.
            logger: Where steps are echoed. Default: ``logging.getLogger(<root>.metrics)``, where
                the root is the configuration's ``root_logger`` or ``model_foundry``.
            recorder: The recorder to use instead of one for ``output_dir``; whoever opened it
                closes it.

        Raises:
            TypeError: An argument has the wrong type.
            NotADirectoryError: ``output_dir``, or a part of it, is a file.
        """
        if not isinstance(experiment_name, str):
            raise TypeError(f"experiment_name must be a str, got {type(experiment_name).__name__}")
        root = "model_foundry" if config is None else config.root_logger
        self.logger: AnyLogger = logging.getLogger(f"{root}.metrics") if logger is None else logger
        self._stdlib = stdlib_logger(self.logger)
        options = {} if config is None else config.recorder.model_dump()
        super().__init__(output_dir, recorder, {"name": experiment_name, **options})
        self.experiment_name = experiment_name
        self.output_dir = self._directory
        self._detail_every = 1 if config is None else config.log_detailed_metrics_every_n_steps
        every = 1 if config is None else config.log_metrics_every_n_steps
        self._open_steps(self._recorder, known_levels(self._stdlib), every)

    @property
    def metrics_file(self) -> Path:
        """The first metrics file of this process, including everything logged so far."""
        return self._first_file("metrics")

    def _tell_step(self, step: int, epoch: float | None, metrics: Metrics) -> None:
        """Echo a step. Called by log_step(), unless it is known that nobody would see it."""
        if self._stdlib.isEnabledFor(_INFO):
            self._echo(f"Step {step}", step, epoch, metrics)

    def log_detailed(
        self, step: int, epoch: float | None, metrics: Metrics | Callable[[], Metrics]
    ) -> bool:
        """Record expensive or numerous metrics, in every n-th step only.

        n is the configuration's ``log_detailed_metrics_every_n_steps``. They are not echoed.

        Args:
            step: The training step.
            epoch: The epoch; None omits it.
            metrics: As for log_step(), or a function that returns them, which is called only in a
                step that is recorded.

        Returns:
            True when they were recorded.

        Raises:
            TypeError: As for log_step().
            OverflowError: A step beyond 64 bits.
        """
        if step % self._detail_every:
            return False
        return self._record_step(step, epoch, metrics() if callable(metrics) else metrics)

    def log_epoch_summary(self, epoch: float, summary: Metrics) -> bool:
        """Record values of a whole epoch, and echo them.

        Args:
            epoch: The epoch.
            summary: Values by name, as for log_step().

        Returns:
            True when it was recorded, False when the ring was full or the recorder is closed.

        Raises:
            RuntimeError: A GPU value was passed while a stream is being captured into a graph.
            TypeError: ``epoch`` is not a number or ``summary`` is not a mapping.
        """
        try:
            accepted = self._recorder._summary(epoch, summary, tolerant=True)  # noqa: SLF001 - as above
        except RecorderClosedError:
            accepted = self._closed()
        if self._stdlib.isEnabledFor(logging.INFO):
            self._echo(f"Epoch {epoch} summary", None, epoch, summary)
        return accepted

    def _closed(self) -> bool:
        self._warn_once(
            "closed", f"metrics were logged after the recorder of {self.output_dir} was closed"
        )
        return False

    def _echo(self, title: str, step: int | None, epoch: float | None, metrics: Metrics) -> None:
        begin = caller_time.begin()
        try:
            text = ", ".join(f"{name_of(key)}={_shown(value)}" for key, value in metrics.items())
            log_text(
                self.logger, logging.INFO, f"{title}: {text}", stacklevel=3, step=step, epoch=epoch
            )
        finally:
            caller_time.end(begin)

    def get_metrics_history(self) -> list[dict[str, Any]]:
        """Return the lines of all steps, of all processes and attempts.

        For a step that a resumed run recorded again, only the last attempt's lines are returned.
        Lines of several processes are merged by time.

        Returns:
            Dicts with ``timestamp``, ``step``, ``epoch`` where given, and ``metrics``; NaN and
            infinities are restored to floats.
        """
        return [line for line in self._lines() if "metrics" in line]

    def get_metrics_for_steps(self, start: int, end: int) -> list[dict[str, Any]]:
        """Return the lines of the steps from ``start`` to ``end``, both included.

        Args:
            start: The first step.
            end: The last step.

        Returns:
            As get_metrics_history().
        """
        return [line for line in self._lines() if start <= line.get("step", start - 1) <= end]

    def get_epoch_summaries(self) -> list[dict[str, Any]]:
        """Return the lines of all epochs.

        Returns:
            Dicts with ``timestamp``, ``epoch`` and ``summary``.
        """
        return [line for line in self._lines() if "summary" in line]

    def compute_statistics(self, metric: str) -> dict[str, Any]:
        """Compute statistics of a metric over all its steps.

        Args:
            metric: Its name.

        Returns:
            ``count`` of finite numbers, and as floats their ``mean``, ``std`` (of a sample: n - 1;
            0.0 for a single one), ``min``, ``max`` and sum as ``total``, each None if there are
            none;
            ``first`` and ``last`` value of any type; ``nonfinite``: how many were NaN or infinite;
            ``other``: how many were not numbers. ``True`` counts as 1, ``False`` as 0.
        """
        if (values := self._numbers(metric)) is not None and not _is_long(values[0], values[-1]):
            numbers = array("d", filter(math.isfinite, values))
            ends = {"first": values[0], "last": values[-1]}
            return {
                **describe(numbers),
                **ends,
                "nonfinite": len(values) - len(numbers),
                "other": 0,
            }
        numbers, first, last, nonfinite, other = array("d"), None, None, 0, 0
        seen = False
        for line in self._lines():
            recorded = line.get("metrics") or {}
            if metric not in recorded:
                continue
            last = recorded[metric]
            if not seen:
                seen, first = True, last
            if type(last) not in (int, float, bool):
                other += 1
            elif math.isfinite(last):
                numbers.append(last)
            else:
                nonfinite += 1
        extra = {"first": first, "last": last, "nonfinite": nonfinite, "other": other}
        return {**describe(numbers), **extra}

    def _numbers(self, metric: str) -> array[float] | None:
        """The values of a metric that has nothing but numbers; None for another one."""
        from foundry_fastlog.reading.run import read_run  # when something is read, only

        self.flush()
        try:
            return read_run(self._recorder.path).numbers(metric) or None
        except FileNotFoundError:  # a place that could not be written yet
            return None

    def _lines(self) -> Iterator[dict[str, Any]]:
        from foundry_fastlog.reading.run import read_run  # only when something is read

        self.flush()
        try:
            return read_run(self._recorder.path).lines("metrics")
        except FileNotFoundError:  # a directory that was not writable yet
            return iter(())


def _is_long(*numbers: float) -> bool:
    """Whether one may stand for an integer that no float holds."""
    return any(2**53 <= abs(number) < math.inf for number in numbers)


def _shown(value: object) -> str:
    """Format a value for the echo: four decimals, more digits if those would be zeros."""
    if is_a(value, float):
        number = float.__float__(value)  # type: ignore[arg-type] # a class's own may raise
        return f"{number:.4e}" if 0 < abs(number) < 1e-3 else f"{number:.4f}"
    if is_a(value, (int, str)) or value is None:
        return safe_str(value)
    if (device := device_of(value)) is not None:
        return f"<on {device}>"  # showing it would wait for the device
    try:
        return f"{metric_value('', value):.4f}"
    except Exception:  # noqa: BLE001 - a value of any type, with any __format__
        text = text_of_value(value)
        return text if len(text) <= 40 else f"{text[:37]}..."
