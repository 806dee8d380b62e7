"""ExperimentLogging: all loggers of one training run, created from its configuration."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any

from foundry_fastlog.base import caller_time
from foundry_fastlog.base.fork_lock import ForkLock
from foundry_fastlog.components.ending import Forget, on_sigterm, write_profile
from foundry_fastlog.components.errors import ErrorTracker
from foundry_fastlog.components.metrics import MetricsLogger
from foundry_fastlog.components.performance import PerformanceLogger
from foundry_fastlog.config.experiment import name_and_section
from foundry_fastlog.config.models import LoggingConfig
from foundry_fastlog.machine.sampler import SystemMetrics
from foundry_fastlog.messages.setup import attach_experiment, experiment_directory
from foundry_fastlog.messages.structured import StructuredLogger
from foundry_fastlog.run.files import timestamp
from foundry_fastlog.sinks.sync_process import start_syncs
from foundry_fastlog.sinks.wandb import WandBLogger

if TYPE_CHECKING:
    from typing_extensions import Self

    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["ExperimentLogging"]

# This process's instances by recorder, so that unpickling finds an existing one.
_present: weakref.WeakValueDictionary[Recorder, ExperimentLogging] = weakref.WeakValueDictionary()


class ExperimentLogging:
    """Everything a training script logs with, on top of one `Recorder`.

    Creates the layout of an experiment's directory: ``main_<time>.log`` and ``debug_<time>.log``
    for people, ``metrics_<time>.jsonl``, ``performance_<time>.jsonl``, ``errors_<time>.jsonl`` and
    ``log_<time>.jsonl`` for programs. A run restarted in the same directory adds files with its own
    time; readers of this package show all of them as one run.

    Several experiments may be open in one process. Messages of the loggers below one
    ``root_logger`` go to the experiment opened last; when it is closed, they go to the previous one
    again. Metrics, timings and errors go to the object they were passed to.

    Forked workers log through the object that they inherit, spawned ones through a pickled copy of
    it or of one of its loggers. An object that is never closed is closed when the program exits; if
    an exception ends the program, the log and W&B say so; if SIGTERM does, the log says so.

    Attributes:
        experiment_name: The experiment's name.
        config: The `LoggingConfig` in use, including overrides from the environment.
        directory: The experiment's directory, absolute.
        recorder: The run's `Recorder`.
        metrics: The `MetricsLogger`.
        performance: The `PerformanceLogger`.
        errors: The `ErrorTracker`.
        wandb: The `WandBLogger`; disabled unless the configuration enables W&B.
        system: The `SystemMetrics` sampler of rank 0, None if its interval is 0, and in workers.

    Example:
        >>> with ExperimentLogging("exp0_baseline") as logs:  # doctest: +SKIP
        ...     logs.logger("trainer").info("Model created", model_params=124_823_296)
        ...     with logs.performance.time_block("forward_pass"):
        ...         loss = 2.5
        ...     logs.log_step(step=1, epoch=0, metrics={"loss": loss, "lr": 1e-4})
    """

    wandb: WandBLogger
    system: SystemMetrics | None
    _forget_sigterm: Forget | None = None

    def __init__(
        self,
        experiment_config: object,
        *,
        log_dir: str | os.PathLike[str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        stamped: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        resume: str = "auto",
        launch: str | None = None,
    ) -> None:
        """Open the run, and set up the loggers below ``config.root_logger``.

        Args:
            experiment_config: The experiment's name, or a configuration (an object or a mapping)
                with ``experiment_name`` and optionally ``logging``. Its settings are written to
                run.json and sent to W&B.
            log_dir: Directory of all experiments. Default: the configuration's.
            directory: The experiment's own directory, instead of ``log_dir/<experiment_name>``.
            stamped: Whether the names of the ``.jsonl`` files contain the start time. Without it
                they are ``metrics.jsonl`` and so on, and a later start adds ``metrics.a1.jsonl``.
            rank: As for `Recorder`. Only rank 0 writes to the console and W&B, and is sampled.
            world_size: As for `Recorder`.
            resume: As for `Recorder`.
            launch: As for `Recorder`.

        Raises:
            TypeError: The configuration has no ``experiment_name``.
            ValueError: The name cannot be a directory's name, or this process already has it open.
            ConfigError: The ``logging`` section, or an environment variable, cannot be used.
            NotADirectoryError: The directory, or a part of it, is a file.
            RuntimeError: This object was already opened; it stays as it is.
        """
        if "_ended" in vars(self):  # also if closed
            raise RuntimeError(
                f"this object was already opened, in {self.directory}: create a new one"
            )
        name, section = name_and_section(experiment_config)
        config = section.with_environment()
        if directory is None:
            directory = experiment_directory(config.log_dir if log_dir is None else log_dir, name)
        recorder = config.recorder.open(
            Path(directory),
            stamp=timestamp() if stamped else None,
            name=name,
            rank=rank,
            world_size=world_size,
            config=None if isinstance(experiment_config, str) else experiment_config,
            resume=resume,
            launch=launch,
        )
        try:
            self._set_up(name, config, recorder.started, recorder)
            if not recorder.rank:
                self._start(experiment_config)
        except BaseException as error:  # Ctrl-C, for one: nobody has the object to close it
            self._give_up(error)
            raise

    def _start(self, experiment_config: object) -> None:
        """Do what the main process of a run does at its start."""
        config, recorder = self.config, self.recorder
        if config.catch_sigterm:
            self._forget_sigterm = on_sigterm(lambda: self._end(None, "SIGTERM"))
        log = self.logger("system")
        facts: dict[str, Any] = {"directory": str(self.directory), "attempt": recorder.attempt}
        log.info("Run started", **log.context, **facts, utc_offset=time.strftime("%z"))  # of .log
        if config.wandb_enabled:
            self.wandb = WandBLogger(
                None if isinstance(experiment_config, str) else experiment_config,
                project=config.wandb_project,
                name=self.experiment_name,
            )
        start_syncs(recorder.path, config.sync, project=config.wandb_project)
        if config.system_metrics_every_s:
            # Not self: the sampler's thread would keep it alive forever.
            latest = self._latest
            self.system = SystemMetrics(
                recorder, config.system_metrics_every_s, step=lambda: latest.step
            ).start()

    def _set_up(self, name: str, config: LoggingConfig, stamp: str, recorder: Recorder) -> None:
        """Create what every process of the run needs."""
        self.recorder = recorder
        self.experiment_name = name
        self.config = config
        self.directory = recorder.path
        self._stamp = stamp
        self._pid = os.getpid()
        self._worker = False
        self._ended = False
        self._lock = ForkLock()
        self._loggers: dict[str, StructuredLogger] = {}
        self._latest = SimpleNamespace(step=None)
        self._detach = attach_experiment(
            recorder.path,
            stamp=stamp,
            config=config.model_copy(update={"console": False}) if recorder.rank else config,
            recorder=recorder,
            record_error=lambda *logged: self.errors.record_logged(*logged),  # noqa: PLW0108 - set below
        )
        self.metrics = MetricsLogger(name, recorder.path, config=config, recorder=recorder)
        self.performance = PerformanceLogger(self.logger("training"), recorder=recorder)
        self.errors = ErrorTracker(
            self.logger("system.errors"),
            recorder.path,
            max_errors=config.max_errors_to_track,
            recorder=recorder,
        )
        self.wandb = WandBLogger(enabled=False)
        self.system = None
        _present[recorder] = self
        atexit.register(self._at_exit)

    def _give_up(self, error: BaseException) -> None:
        """Close what a set-up that failed has opened."""
        if "system" in vars(self):  # the last of what _set_up() sets
            self._end(error)
            return
        self.recorder.ended_by(error)
        self.recorder.close()
        if "_detach" in vars(self):
            self._detach()

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._ended

    def logger(self, subsystem: str = "") -> StructuredLogger:
        """Return the logger of a subsystem.

        Args:
            subsystem: Its name below ``config.root_logger``, such as ``"training.loop"``; empty for
                the root itself. Any name is allowed; `foundry_fastlog.HIERARCHY` lists the usual
                ones.

        Returns:
            The same object for the same name.

        Raises:
            TypeError: ``subsystem`` is not a str.
        """
        if not isinstance(subsystem, str):
            raise TypeError(f"subsystem must be a str, got {type(subsystem).__name__}")
        with self._lock:
            logger = self._loggers.get(subsystem)
            if logger is None:
                root = self.config.root_logger
                name = f"{root}.{subsystem}" if subsystem else root
                # Not the caller's configuration: this one includes the environment's overrides.
                mine = {"experiment_name": self.experiment_name, "logging": self.config}
                logger = self._loggers[subsystem] = StructuredLogger(name, mine)
                vars(logger)["_experiment"] = _Experiment(self)
            return logger

    def log_step(self, step: int, epoch: float | None, metrics: Mapping[str, Any]) -> bool:
        """Log a training step's metrics to every destination that the configuration enables.

        Every step goes to the metrics file. The log echo and W&B get one step in
        ``log_metrics_every_n_steps``. Every ``log_memory_every_n_steps`` steps the memory in use is
        logged at DEBUG, and W&B gets system metrics.

        Args:
            step: The training step.
            epoch: The epoch; None omits it.
            metrics: Names and values, as for `MetricsLogger.log_step`.

        Returns:
            True when the record was accepted, False when it was dropped or the run is closed.

        Raises:
            TypeError: ``step`` is not an int, ``epoch`` not a number or ``metrics`` not a mapping.
            OverflowError: A step beyond 64 bits.
        """
        begin = caller_time.begin()
        try:
            accepted = self.metrics.log_step(step, epoch, metrics)
            self._latest.step = step
            if step % self.config.log_metrics_every_n_steps == 0 and self.wandb.enabled:
                self.wandb.log_metrics(step, metrics)
            if step % self.config.log_memory_every_n_steps == 0:
                self.performance.log_memory_usage(step=step)
                if self.wandb.enabled:
                    self.wandb.log_system_metrics(step)
            return accepted
        finally:
            caller_time.end(begin)

    def log_epoch_summary(self, epoch: float, summary: Mapping[str, Any]) -> bool:
        """Log values of a whole epoch: to the metrics file, the log, and W&B.

        Args:
            epoch: The epoch.
            summary: Names and values; in W&B they are named ``epoch/<name>``.

        Returns:
            True when the summary was accepted, False when it was dropped or the run is closed.

        Raises:
            TypeError: ``epoch`` is not a number or ``summary`` is not a mapping.
        """
        accepted = self.metrics.log_epoch_summary(epoch, summary)
        if self.wandb.enabled:
            values = {f"epoch/{name}": value for name, value in summary.items()}
            self.wandb.log_metrics(self._latest.step or 0, {"epoch": epoch, **values})
        return accepted

    def close(self) -> bool:
        """Flush and close everything, including W&B. Safe to call again.

        With ``profile_performance``, also write the timings as a report (``timing_<time>.json``)
        and a Perfetto trace (``trace_<time>.json``). In a worker, this closes only the worker's
        part of the run. The JSONL files are closed first. Text logs and a console that accept
        nothing (a pipe that nobody reads) are waited for at most five seconds.

        Returns:
            True when everything is written; see `Recorder.close`.
        """
        return self._end(None)

    def _at_exit(self) -> None:
        """Close at exit, if not closed yet; the interpreter knows whether an exception ended it."""
        interactive = sys.flags.interactive or hasattr(sys, "ps1")  # there it is a cell's exception
        self._end(None if interactive else getattr(sys, "last_value", None))

    def _end(self, error: BaseException | None, signal: str | None = None) -> bool:
        with self._lock:
            first, self._ended = not self._ended, True
        if not first:
            return self.recorder.close()
        atexit.unregister(self._at_exit)
        if self._forget_sigterm is not None:
            self._forget_sigterm()
        try:
            if self.system is not None:
                self.system.stop()
            self.errors.uninstall_hooks()
            if not self._worker and os.getpid() == self._pid and not self.recorder.rank:
                self._say_how_it_ended(error, signal)
                if self.config.profile_performance and signal is None:
                    log = self.logger("metrics.performance")
                    write_profile(self.performance, self.recorder, self._stamp, log)
        finally:  # whatever Ctrl-C interrupts
            self.recorder.ended_by(error, signal)
            try:
                written = self.recorder.close()  # first: text logs and console may hang
            finally:
                self._detach()
        if signal is None:  # last: it may wait for the network
            self.wandb.finish(exit_code=0 if error is None else 1)
        return written

    def _say_how_it_ended(self, error: BaseException | None, signal: str | None) -> None:
        step = self._latest.step
        figures = {} if step is None else {"step": step}
        figures["errors"] = sum(self.errors.get_error_summary().values())
        log = self.logger("system")
        reason = signal if error is None else type(error).__name__
        if reason is None:
            log.info("Run ended", **figures)
        else:
            log.warning("Run stopped", reason=reason, **figures)

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Record an exception that ends the run, and close; the exception propagates.

        An exception that the `ErrorTracker` has already recorded is not recorded again.
        KeyboardInterrupt and SystemExit are not errors: the log says that the run was stopped.
        """
        step = self._latest.step
        context = None if step is None else {"step": step}
        self.errors.capture(context, level="CRITICAL").__exit__(exc_type, exc, traceback)
        self._end(exc)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a spawned worker, which logs to the same run in its own files.

        Raises:
            RecorderClosedError: It has been closed.
        """
        return _in_worker, (self.experiment_name, self.config, self._stamp, self.recorder)

    def __repr__(self) -> str:
        """Show the experiment, its directory, and whether it is open."""
        state = "closed" if self._ended else "open"
        return f"<ExperimentLogging {self.experiment_name!r} in {str(self.directory)!r} {state}>"


class _Experiment:
    """What a logger keeps of its experiment; pickled with it to set up a worker's loggers."""

    def __init__(self, logs: ExperimentLogging | None) -> None:
        self.logs = logs

    def __reduce__(self) -> tuple[Any, ...]:
        logs = self.logs
        return (_Experiment, (None if logs is None or logs.recorder.closed else logs,))


def _in_worker(
    name: str, config: LoggingConfig, stamp: str, recorder: Recorder
) -> ExperimentLogging:
    """Return this process's object for a run opened by another process."""
    present = _present.get(recorder)
    if present is not None:
        return present
    logs = ExperimentLogging.__new__(ExperimentLogging)
    logs._set_up(name, config, stamp, recorder)  # noqa: SLF001 - its own class's
    logs._worker = True  # noqa: SLF001 - as above
    return logs
