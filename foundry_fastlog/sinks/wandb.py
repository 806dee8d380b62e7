"""Weights & Biases: `WandBLogger` passes metrics, models and artifacts to wandb in this process.

wandb may be absent, reject a value, or lose its service or network; none of that reaches the
training loop. The run's own files have everything; W&B gets a copy.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import logging
import os
import re
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from foundry_fastlog.base.arguments import whole_number
from foundry_fastlog.base.json_text import safe_str
from foundry_fastlog.sinks.tally import Tally
from foundry_fastlog.sinks.wandb_hooks import guard_hooks
from foundry_fastlog.sinks.wandb_rows import DelayedRows
from foundry_fastlog.sinks.wandb_values import (
    config_project,
    experiment_name,
    flat,
    settings,
    textual,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from foundry_fastlog.machine.reader import SystemReader

__all__ = ["WandBLogger"]

_MAX_ARTIFACT_NAME = 128
_DEVICE_TIMEOUT_S = 10.0  # of finish(), for values still on a device

_log = logging.getLogger("foundry_fastlog")

# Ids of the runs that this process's WandBLoggers have open.
_own_runs: set[str] = set()


def _send_rest(logger: weakref.ref[WandBLogger]) -> None:
    """Send the waiting rows of a logger that was not finished."""
    if (found := logger()) is not None and os.getpid() == found._pid:  # noqa: SLF001 - this module's
        with found._lock:  # noqa: SLF001 - as above
            if found.run is not None:
                found._rows.finish(_DEVICE_TIMEOUT_S)  # noqa: SLF001 - as above


class WandBLogger:
    """Sends a run's metrics to Weights & Biases. Every method may be called from any thread.

    Errors in wandb are not raised: they are logged once through `logging` and counted in `stats()`,
    and the call returns False. Only an invalid call (a step that is not an int, metrics that are
    not a mapping) raises TypeError, whether W&B is on or off.

    Environment: ``WANDB_MODE=disabled`` turns W&B off whatever the arguments are, without importing
    it; ``offline`` writes to ``wandb/`` for a later ``wandb sync``. ``WANDB_PROJECT`` sets the
    project if no argument does. ``WANDB_SILENT`` and all others work as wandb documents them.

    Only the process that created it logs: in a forked child, or after unpickling in a spawned one,
    it does nothing.

    Attributes:
        enabled: Whether W&B is on; also False if wandb is absent or could not start.
        run: wandb's own run object, None when W&B is off.

    Example:
        >>> with WandBLogger(project="demo", name="exp0", enabled=False) as wandb_logger:
        ...     wandb_logger.log_metrics(step=100, metrics={"train/loss": 2.5})
        False
    """

    def __init__(
        self,
        config: object = None,
        enabled: bool = True,
        *,
        project: str | None = None,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        step_metric: str | None = None,
        all_ranks: bool = False,
        **init_options: Any,  # noqa: ANN401 - wandb.init's
    ) -> None:
        """Start a W&B run, unless W&B is off.

        A run that the program has already started with ``wandb.init()`` is joined, and `finish()`
        leaves it open. If another WandBLogger has a run open, an additional run is started.

        Without a login or a reachable server, the run is recorded offline.

        Args:
            config: The experiment's settings, shown in W&B: a mapping, a pydantic model, a
                dataclass, a namespace or anything with ``dict()``. Its ``experiment_name`` is the
                default of ``name``, its ``logging.wandb_project`` of ``project``.
            enabled: If False, nothing happens: wandb is not even imported.
            project: The project. Default: WANDB_PROJECT, then the configuration's, then
                ``model_foundry``.
            name: The run's name. Default: ``config.experiment_name``; otherwise wandb generates
                one.
            tags: Tags of the run.
            step_metric: None: the training step is W&B's step, and a step older than the newest one
                is rejected. A name, such as ``"step"``: the step is a metric of that name and the x
                axis of all charts, each call is a row, and steps may come in any order.
            all_ranks: Start a run in each process of a distributed training. By default only the
                process with RANK 0, or without RANK, does.
            **init_options: Additional arguments of ``wandb.init``: ``entity``, ``group``, ``dir``,
                ``id``, ``resume``, ``mode``, ``settings``...

        Raises:
            TypeError: ``config`` is of another type, or a name or tag is not a str. Not raised when
                W&B is off.
        """
        self.enabled = False
        self.run: Any = None
        self._wandb: Any = None
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._joined = False
        self._step_metric = step_metric
        self._newest = 0
        self._watched = 0  # models
        self._finished = False
        self._tally = Tally("W&B")
        self._rows = DelayedRows(self._write, self._tally.failed)
        self._system: SystemReader | None = None
        mode = os.environ.get("WANDB_MODE", "").strip().lower()
        if not enabled or mode == "disabled" or init_options.get("mode") == "disabled":
            return
        if not all_ranks and os.environ.get("RANK", "0").strip() not in ("", "0"):
            return
        for label, value in (("project", project), ("name", name), ("step_metric", step_metric)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{label} must be a str, got {type(value).__name__}")
        tags = [tags] if isinstance(tags, str) else list(tags or ())
        if not all(isinstance(tag, str) for tag in tags):
            raise TypeError(f"tags must be strings, got {tags!r}")
        options: dict[str, Any] = {
            "project": project or os.environ.get("WANDB_PROJECT") or config_project(config),
            "name": name or experiment_name(config),
            "tags": tags or None,
            "config": settings(config),
        }
        if mode:  # wandb reads the environment only once per process; it may have changed
            init_options.setdefault("mode", mode)
        self._start({**options, **init_options})

    # ---- starting ------------------------------------------------------------------------

    def _start(self, options: dict[str, Any]) -> None:
        try:
            wandb = importlib.import_module("wandb")
            if not hasattr(wandb, "init"):
                raise ImportError("a folder named wandb shadows it")  # noqa: TRY301 - the same end
        except Exception as error:  # noqa: BLE001 - a broken installation raises anything
            _log.warning(
                "W&B is enabled, but the package wandb cannot be imported (%s). Training goes on "
                "and the run's files have all records. To send them to W&B: "
                "pip install 'foundry_fastlog[wandb]'; to turn this off: WANDB_MODE=disabled.",
                safe_str(error),
            )
            return
        try:
            self._wandb = wandb
            self.run = self._join(wandb.run, options) or self._init(options)
            self._newest = int(self.run.step)
            if self._step_metric is not None:
                self.run.define_metric(self._step_metric)
                self.run.define_metric("*", step_metric=self._step_metric)
            self.enabled = True
            # Before wandb ends the run: send the rows that waited for device values.
            self._at_exit = functools.partial(_send_rest, weakref.ref(self))
            atexit.register(self._at_exit)
        except Exception as error:  # noqa: BLE001 - wandb errors must not stop a training
            self.run = None
            self._tally.failed("start", error, "W&B is off for this run")

    def _join(self, active: Any, options: dict[str, Any]) -> Any:  # noqa: ANN401 - wandb's Run
        """Join the run that the program started itself, and add our settings."""
        if active is None or active.id in _own_runs:
            return None
        self._joined = True
        active.config.update(options["config"], allow_val_change=True)
        if options["tags"]:
            active.tags = (*(active.tags or ()), *options["tags"])
        _log.info("W&B: joined the run %s, which is already active", active.id)
        return active

    def _init(self, options: dict[str, Any]) -> Any:  # noqa: ANN401 - wandb's Run
        if _own_runs:  # wandb.init() would return that run
            options.setdefault("reinit", "create_new")
        try:
            run = self._wandb.init(**options)
        except Exception as error:  # no login, no network
            if options.get("mode") not in (None, "online", "run"):
                raise
            run = self._wandb.init(**{**options, "mode": "offline"})
            self._tally.failed("going online", error, f"the run is recorded offline in {run.dir}")
        _own_runs.add(run.id)
        return run

    # ---- logging -------------------------------------------------------------------------

    def log_metrics(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Log metrics of a step. Several calls with the same step make one row.

        Args:
            step: The training step. W&B rejects a step below the newest one (see ``step_metric``):
                logged once and counted.
            metrics: Names and values. Numbers (including NaN and infinities), numpy scalars,
                tensors without dimensions, texts, and wandb types such as ``wandb.Image``. Nested
                mappings become dotted names; what wandb rejects is sent as text. A GPU scalar is
                not waited for: its row, and those after it, are sent by a later call or by
                `finish()` once it arrives, or without it after 120 s. A value that contains any
                other GPU tensor is sent as text.

        Returns:
            True when it was passed to wandb.

        Raises:
            TypeError: ``step`` is not an int or ``metrics`` is not a mapping.
        """
        step = whole_number("step", step)
        if not isinstance(metrics, Mapping):
            raise TypeError(f"metrics must be a mapping, got {type(metrics).__name__}")
        return self._usable() and self._send("log_metrics", step, metrics)

    def log_system_metrics(self, step: int | None = None) -> bool:
        """Log the machine's and the process's current use of CPU, memory, disk and GPUs.

        wandb also samples the machine in the background; this gives figures at a step.
        ``system/gpu_memory_allocated`` and ``system/gpu_memory_reserved`` (10^9 bytes) come from
        torch if it uses CUDA; the others are those of `foundry_fastlog.SystemMetrics`.

        Args:
            step: The training step. Default: the newest one, so that no new row is started.

        Returns:
            True when it was passed to wandb.

        Raises:
            TypeError: ``step`` is not an int.
        """
        if step is not None:
            step = whole_number("step", step)
        if not self._usable():
            return False
        try:
            from foundry_fastlog.machine.reader import SystemReader, torch_memory

            self._system = self._system or SystemReader()
            values = {**self._system.read(), **torch_memory()}
        except Exception as error:  # noqa: BLE001 - e.g. a CUDA error surfaces in any call to it
            return self._tally.failed("log_system_metrics", error)
        return self._send("log_system_metrics", step, values)

    def _send(self, what: str, step: int | None, metrics: Mapping[Any, Any]) -> bool:
        with self._lock:
            if self.run is None:
                return False
            newest = self._rows.newest_step(self._newest)
            if step is None:
                step = newest
            if self._step_metric is None and step < newest:
                return self._tally.refused(
                    f"step {step} comes after step {newest}, and W&B accepts no older steps",
                    "WandBLogger(step_metric='step') accepts steps in any order",
                )
            try:
                row = flat(metrics)
            except Exception as error:  # noqa: BLE001 - from a value's own code
                return self._tally.failed(what, error)
            return self._rows.add(what, step, row)

    def _write(self, what: str, step: int, row: Mapping[str, Any]) -> bool:
        """Pass a row to wandb. The caller holds the lock."""
        run = self.run
        if not row:
            return True
        try:
            try:
                self._log(run, step, dict(row))
            except (TypeError, ValueError):  # a value that wandb cannot accept
                self._log(run, step, {key: textual(value) for key, value in row.items()})
        except Exception as error:  # noqa: BLE001 - wandb errors must not stop a training
            return self._tally.failed(what, error)
        self._newest = max(self._newest, step)
        self._tally.sent()
        return True

    def _log(self, run: Any, step: int, row: dict[str, Any]) -> None:  # noqa: ANN401 - wandb's Run
        if self._step_metric is None:
            run.log(row, step=step)
        else:
            run.log({**row, self._step_metric: step})

    def watch_model(self, model: Any, log_freq: int = 100, log: str | None = "all") -> bool:  # noqa: ANN401 - torch may be absent
        """Log histograms of a model's parameters and gradients during training.

        wandb computes them inside forward and backward, at every ``log_freq``-th batch. A failure
        there is logged once and counted, and does not stop the training.

        Args:
            model: A ``torch.nn.Module``.
            log_freq: Batches between histograms.
            log: ``"gradients"``, ``"parameters"`` or ``"all"``.

        Returns:
            True when the hooks are installed.

        Raises:
            TypeError: ``model`` is not a module, or ``log_freq`` is not an int.
            ValueError: ``log_freq`` is below 1.
        """
        if not callable(getattr(model, "named_parameters", None)):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if isinstance(log_freq, bool) or not isinstance(log_freq, int):
            raise TypeError(f"log_freq must be an int, got {type(log_freq).__name__}")
        if log_freq < 1:
            raise ValueError(f"log_freq must be at least 1, got {log_freq}")
        if not self._usable():
            return False
        run = self.run
        try:
            if not self._watched:
                guard_hooks(run, self._of_this_process, self._tally)
            run.watch(model, log=log, log_freq=log_freq, idx=self._watched)
        except Exception as error:  # noqa: BLE001 - wandb errors must not stop a training
            return self._tally.failed("watch_model", error)
        self._watched += 1
        return True

    def log_artifact(
        self,
        path: str | os.PathLike[str],
        artifact_type: str = "model",
        name: str | None = None,
    ) -> bool:
        """Log a file or a directory, such as a checkpoint, as an artifact.

        wandb copies it now, which takes as long as the disk does, and uploads it in the background
        (with ``wandb sync`` when offline), so the original may be changed or removed.

        Args:
            path: The file or directory.
            artifact_type: ``"model"``, ``"dataset"`` or any other word.
            name: The artifact's name. Default: the file's name. Characters that W&B does not accept
                become ``-``.

        Returns:
            True when it was passed to wandb. A path that does not exist counts as an error.

        Raises:
            TypeError: ``path`` is not a path.
        """
        source = Path(path)
        if not self._usable():
            return False
        label = re.sub(r"[^A-Za-z0-9_.-]", "-", name or source.resolve().name or "artifact")
        try:
            source.stat()  # a clearer error than wandb's if it does not exist
            self.run.log_artifact(str(source), name=label[:_MAX_ARTIFACT_NAME], type=artifact_type)
        except Exception as error:  # noqa: BLE001 - wandb errors must not stop a training
            return self._tally.failed("log_artifact", error)
        return True

    # ---- ending --------------------------------------------------------------------------

    def finish(self, exit_code: int = 0) -> None:
        """End the run; when online, wait until wandb has sent everything. Safe to call again.

        If a program never calls it, wandb finishes the run at exit.

        Args:
            exit_code: 0 for a successful training; any other value marks the run as failed.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self.run is None:
                return
            self._rows.finish(_DEVICE_TIMEOUT_S)
            atexit.unregister(self._at_exit)
            run, self.run = self.run, None
            self._finished = True
        self.enabled = False
        try:
            if self._watched:
                run.unwatch()
            if not self._joined:
                run.finish(exit_code=exit_code)
        except Exception as error:  # noqa: BLE001 - wandb errors must not stop a training
            self._tally.failed("finish", error)
        finally:
            _own_runs.discard(run.id)

    def stats(self) -> dict[str, Any]:
        """Return what happened to the calls.

        Returns:
            ``enabled``; ``sent``: rows passed to wandb; ``refused``: rows with an older step, after
            finish() or in another process; ``errors``: calls that failed; ``first_error``,
            ``last_error``: None or their text.
        """
        return {"enabled": self.enabled, **self._tally.counts()}

    def _usable(self) -> bool:
        """Return whether this process may log; count and report calls that should not happen."""
        if os.getpid() != self._pid:
            if self.enabled:
                self._tally.refused(
                    "another process started this W&B run, so this process does not send to it",
                    "let that process log, or create a WandBLogger here",
                )
            return False
        if self.run is None:
            if self._finished:
                self._tally.refused("the run is finished", "log before finish()")
            return False
        return True

    def _of_this_process(self) -> Any:  # noqa: ANN401 - wandb's Run
        return self.run if os.getpid() == self._pid else None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a spawned worker, where it is switched off, as in a forked one."""
        return (WandBLogger, (None, False))

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish the run, as failed if an exception passes through; it propagates."""
        self.finish(exit_code=0 if exc_type is None else 1)
