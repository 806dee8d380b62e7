"""All loggers of one training run, made from its configuration: the plan's system in one object."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from foundry_fastlog.config import LoggingConfig
from foundry_fastlog.errors import ErrorTracker
from foundry_fastlog.metrics import MetricsLogger
from foundry_fastlog.performance import PerformanceLogger
from foundry_fastlog.structured import StructuredLogger

if TYPE_CHECKING:
    import os

    from typing_extensions import Self

    from foundry_fastlog.recorder import Recorder
    from foundry_fastlog.sinks.wandb import WandBLogger
    from foundry_fastlog.system_metrics import SystemMetrics

__all__ = ["ExperimentLogging"]

_STAMP = "%Y-%m-%d_%H-%M-%S"


class ExperimentLogging:
    """Everything that a trainer logs with, over one `Recorder`.

    Makes the layout of an experiment's directory: ``main_<time>.log`` and ``debug_<time>.log`` for
    people, ``metrics_<time>.jsonl``, ``performance_<time>.jsonl``, ``errors_<time>.jsonl`` and
    ``log_<time>.jsonl`` for programs. A run that is started again in the same directory adds files
    with its own time; readers of this package show all of them as one run.

    Attributes:
        config: The `LoggingConfig` in use, the environment's overrides included.
        directory: The experiment's directory, ``log_dir/<experiment_name>``.
        recorder: The run's `Recorder`.
        metrics: The `MetricsLogger`.
        performance: The `PerformanceLogger`.
        errors: The `ErrorTracker`.
        wandb: The `WandBLogger`; switched off unless the configuration asks for W&B.
        system: The `SystemMetrics` sampler, or None when its interval is 0 or this is another rank.

    Example:
        >>> with ExperimentLogging("exp0_baseline") as logs:  # doctest: +SKIP
        ...     logs.logger("trainer").info("Experiment initialized", model_params=124_823_296)
        ...     with logs.performance.time_block("forward_pass"):
        ...         loss = 2.5
        ...     logs.log_step(step=1, epoch=0, metrics={"loss": loss, "lr": 1e-4})
    """

    def __init__(
        self,
        experiment_config: object,
        *,
        log_dir: str | os.PathLike[str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        stamped: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """Open the run, and set up the loggers below ``config.root_logger``.

        Args:
            experiment_config: The experiment's name, or a configuration with ``experiment_name``
                and, if logging is to differ from the defaults, ``logging``: an object or a mapping.
                Its settings go to run.json and to W&B.
            log_dir: Directory of all experiments; by default the configuration's.
            directory: The experiment's own directory, in place of ``log_dir/<experiment_name>``.
            stamped: Whether the names of the ``.jsonl`` files have the start time. Without it they
                are ``metrics.jsonl`` and so on, and a later start adds ``metrics.a1.jsonl``.
            rank: As for `Recorder`. Only rank 0 writes to the console and to W&B.
            world_size: As for `Recorder`.

        Raises:
            TypeError: The configuration has no usable ``experiment_name``.
            ConfigError: The ``logging`` section, or an environment variable, cannot be used.
        """
        from foundry_fastlog.log_setup import attach_experiment
        from foundry_fastlog.sinks.wandb import WandBLogger

        name, section = _name_and_section(experiment_config)
        self.experiment_name = name
        self.config = section.with_environment()
        self.directory = (
            Path(directory)
            if directory is not None
            else Path(log_dir if log_dir is not None else self.config.log_dir) / name
        )
        self._stamp = stamp = datetime.now().strftime(_STAMP)  # noqa: DTZ005 - people read it on their clock
        self.recorder: Recorder = self.config.recorder.open(
            self.directory,
            stamp=stamp if stamped else None,
            name=name,
            rank=rank,
            world_size=world_size,
            config=None if isinstance(experiment_config, str) else experiment_config,
        )
        main = not self.recorder.rank
        self._experiment_config = experiment_config
        self._loggers: dict[str, StructuredLogger] = {}
        self._lock = threading.Lock()
        self._step: int | None = None
        self._detach = attach_experiment(
            self.directory,
            stamp=stamp,
            config=self.config if main else self.config.model_copy(update={"console": False}),
            recorder=self.recorder,
        )
        self.metrics = MetricsLogger(
            name, self.directory, config=self.config, recorder=self.recorder
        )
        self.performance = PerformanceLogger(self.logger("training"), recorder=self.recorder)
        self.errors = ErrorTracker(
            self.logger("system.errors"),
            self.directory,
            max_errors=self.config.max_errors_to_track,
            recorder=self.recorder,
        )
        self.wandb: WandBLogger = WandBLogger(
            experiment_config if not isinstance(experiment_config, str) else None,
            enabled=main and self.config.wandb_enabled,
            project=self.config.wandb_project,
            name=name,
        )
        self.system: SystemMetrics | None = None
        if main and self.config.system_metrics_every_s:
            from foundry_fastlog.system_metrics import SystemMetrics

            self.system = SystemMetrics(
                self.recorder,
                self.config.system_metrics_every_s,
                step=lambda: self._step,
            )
            self.system.start()

    def logger(self, subsystem: str = "") -> StructuredLogger:
        """Return the logger of a subsystem.

        Args:
            subsystem: Its name below ``config.root_logger``, such as ``"training.loop"``; empty for
                the root itself. Any name will do; the plan's are in `foundry_fastlog.HIERARCHY`.

        Returns:
            The same object for the same name.
        """
        with self._lock:
            logger = self._loggers.get(subsystem)
            if logger is None:
                root = self.config.root_logger
                name = f"{root}.{subsystem}" if subsystem else root
                logger = StructuredLogger(name, self._experiment_config)
                self._loggers[subsystem] = logger
            return logger

    def log_step(self, step: int, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """Log a training step's metrics wherever the configuration says.

        Every step goes to the metrics file. The echo to the log and W&B get one in
        ``log_metrics_every_n_steps``; memory is logged every ``log_memory_every_n_steps``.

        Args:
            step: The training step.
            epoch: The epoch.
            metrics: Names and values, as for `Recorder.record_dict`.

        Returns:
            True when the record was accepted, False when it was dropped.
        """
        self._step = step
        accepted = self.metrics.log_step(step, epoch, metrics)
        if step % self.config.log_metrics_every_n_steps == 0 and self.wandb.enabled:
            self.wandb.log_metrics(step, dict(metrics))
        if step % self.config.log_memory_every_n_steps == 0:
            self.performance.log_memory_usage(step=step)
        return accepted

    def close(self) -> bool:
        """Flush and close everything, W&B too. Safe to call again.

        With ``profile_performance`` the timings are also written as a report
        (``timing_<time>.json``) and a trace for Perfetto (``trace_<time>.json``).

        Returns:
            True when all is written; see `Recorder.close`.
        """
        if self.system is not None:
            self.system.stop()
        self.wandb.finish()
        self.metrics.close()
        self.errors.close()
        first = not self.recorder.closed
        self._detach()
        written = self.recorder.close()
        if first and self.config.profile_performance and not self.recorder.rank:
            self._write_profile()
        return written

    def _write_profile(self) -> None:
        """Write what profile_performance asks for; a disk that refuses stops nobody."""
        from foundry_fastlog.trace import export_chrome_trace

        self.performance.export_timing_report(self.directory / f"timing_{self._stamp}.json")
        try:
            export_chrome_trace(self.directory, self.directory / f"trace_{self._stamp}.json")
        except OSError as error:
            self.logger("metrics.performance").warning("Trace not written", error=str(error))

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Record an exception that ends the run, and close; the exception goes on."""
        if isinstance(exc, Exception):
            self.errors.log_error(exc, context={"step": self._step} if self._step else None)
        self.close()


def _name_and_section(experiment_config: object) -> tuple[str, LoggingConfig]:
    """Find the experiment's name and its logging section."""
    if isinstance(experiment_config, str):
        name: object = experiment_config
        section: object = None
    elif isinstance(experiment_config, Mapping):
        name = experiment_config.get("experiment_name")
        section = experiment_config.get("logging")
    else:
        name = getattr(experiment_config, "experiment_name", None)
        section = getattr(experiment_config, "logging", None)
    if not isinstance(name, str) or not name.strip() or Path(name).name != name:
        raise TypeError(
            "experiment_config must be the experiment's name, or have an experiment_name that can "
            f"name a directory; got {name!r} in a {type(experiment_config).__name__}"
        )
    if section is None:
        return name, LoggingConfig()
    if isinstance(section, LoggingConfig):
        return name, section
    return name, LoggingConfig.model_validate(section)
