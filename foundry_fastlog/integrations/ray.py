"""Ray Tune: `FastlogLoggerCallback` records a run for each trial."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_fastlog.base.arguments import absolute, check_directory
from foundry_fastlog.base.extras import extra
from foundry_fastlog.integrations.adapter import Adapter

with extra("ray", "ray", "pandas", "pyarrow"):
    from ray import cloudpickle
    from ray.tune.logger import LoggerCallback

__all__ = ["FastlogLoggerCallback"]

_STEP = "training_iteration"
# What Ray adds to each result, and is no figure of the training.
_FACTS = frozenset(
    (
        *("config", "date", "done", "experiment_id", "experiment_tag", "hostname", "node_ip"),
        *("checkpoint_dir_name", "pid", "should_checkpoint", "timestamp", "trial_id", _STEP),
    )
)
_RING_BYTES = 1 << 20  # of each trial that runs: they report seldom


class FastlogLoggerCallback(LoggerCallback):
    """Records each trial's results in a run of its own, ``DIRECTORY/TRIAL_ID``.

    Its configuration is the run's, ``training_iteration`` the step. It runs in the process of the
    `Tuner`: trials may record more with a `Recorder` of their own, in another directory.

    Example:
        >>> callback = FastlogLoggerCallback("runs/sweep")  # doctest: +SKIP
        >>> Tuner(train, run_config=RunConfig(callbacks=[callback])).fit()  # doctest: +SKIP
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        **options: Any,  # noqa: ANN401 - Recorder's, which types them
    ) -> None:
        """Note where to record; a run is opened when its trial starts.

        Args:
            directory: The directory of all runs.
            **options: Options for opening a run, see `Recorder`.

        Raises:
            NotADirectoryError: The directory, or a part of it, is a file.
        """
        self._directory = Path(absolute(directory))
        check_directory(str(self._directory))
        self._options = {"ring_bytes": _RING_BYTES, **options}
        self._adapters: dict[str, Adapter] = {}

    def log_trial_start(self, trial: Any) -> None:  # noqa: ANN401 - a Trial
        """Open the trial's run, unless it is open since an earlier attempt."""
        if trial.trial_id not in self._adapters:
            options = {"name": str(trial), **self._options}
            path = self._directory / str(trial.trial_id)
            adapter = self._adapters[trial.trial_id] = Adapter(
                path, None, logger="ray", options=options
            )
            adapter.open(trial.config)

    def log_trial_result(self, iteration: int, trial: Any, result: Mapping[str, Any]) -> None:  # noqa: ANN401 - a Trial
        """Record a result; an iteration that a restored trial runs again replaces the old one."""
        self.log_trial_start(trial)
        adapter, step = self._adapters[trial.trial_id], int(result[_STEP])
        adapter.train_from(step - 1)
        adapter.log({name: result[name] for name in result if name not in _FACTS}, step)

    def log_trial_save(self, trial: Any) -> None:  # noqa: ANN401 - a Trial
        """Leave a message that a checkpoint was saved."""
        adapter = self._adapters.get(trial.trial_id)
        if adapter is not None and trial.checkpoint is not None:
            adapter.say("Checkpoint saved", {"path": trial.checkpoint.path}, step=adapter.step)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:  # noqa: ANN401 - a Trial
        """Close the trial's run; of one that failed, it says by which error."""
        adapter = self._adapters.pop(trial.trial_id, None)
        if adapter is None:
            return
        if failed:
            adapter.failed(_error_of(trial))
        adapter.close()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the runs that are open, as Ray does before it runs trials."""
        return {**vars(self), "_adapters": {}}


def _error_of(trial: Any) -> Exception:  # noqa: ANN401 - a Trial
    """What ended a trial, as Ray has left it in the trial's local directory."""
    try:
        pickled = Path(trial.pickled_error_file).read_bytes()
        error = cloudpickle.loads(pickled)
    except Exception:  # noqa: BLE001 - no such file, or a class that this process does not know
        error = None
    return error if isinstance(error, Exception) else RuntimeError(f"trial {trial} failed")
