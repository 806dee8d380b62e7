"""Lightning and Fabric, as ``lightning`` or as ``pytorch_lightning``: `FastlogLogger`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foundry_fastlog.base.extras import extra
from foundry_fastlog.integrations.adapter import Adapter, Adapting
from foundry_fastlog.recording.recorder import Recorder
from foundry_fastlog.run.info import plain_config

# Two names of one library; their Trainers take loggers of either, so one is enough.
_OTHER_IN_USE = "pytorch_lightning" in sys.modules and "lightning" not in sys.modules
with extra("lightning", "lightning", "pytorch_lightning", "lightning_utilities"):
    from lightning_utilities.core.rank_zero import rank_zero_only

    if _OTHER_IN_USE or find_spec("lightning") is None:
        from pytorch_lightning.loggers import Logger
    else:
        from lightning.pytorch.loggers import Logger

__all__ = ["FastlogLogger"]


class FastlogLogger(Adapting, Logger):
    """Records what a Lightning `Trainer` or Fabric logs: pass it as ``logger=`` or ``loggers=``.

    Hyperparameters become the configuration, metrics those of their step, saved checkpoints a
    message. `ModelCheckpoint` saves into ``checkpoints/`` of the run's directory, unless it has
    one of its own.

    The run stays open after `fit()`, for a `validate()` or `test()`; it is closed by `close()`, at
    the end of a ``with`` block, or when the program ends.

    Example:
        >>> with FastlogLogger("runs/exp0") as logger:  # doctest: +SKIP
        ...     Trainer(logger=logger, max_epochs=1).fit(model, data)
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None = None,
        *,
        recorder: Recorder | None = None,
        all_ranks: bool = False,
        **options: Any,  # noqa: ANN401 - Recorder's, which types them
    ) -> None:
        """Note what to record; the run is opened at the first use.

        Args:
            run_dir: The run's directory, unless a recorder is given.
            recorder: The recorder to use; whoever opened it closes it.
            all_ranks: Record in each process, not in the main one alone.
            **options: Options for opening the run, see `Recorder`.

        Raises:
            TypeError: Neither, or both, of directory and recorder.
            NotADirectoryError: The directory, or a part of it, is a file.
        """
        super().__init__()
        self._adapter = Adapter(
            run_dir, recorder, logger="lightning", all_ranks=all_ranks, options=options
        )

    # Lightning asks for an attribute `experiment` before it has the hyperparameters; there is none.
    @property
    def recorder(self) -> Recorder | None:
        """The run's recorder, opened by the first use; None in processes that do not record."""
        self._open()
        return self._adapter.recorder

    @property
    def name(self) -> str:
        """The last part of the run's directory."""
        return Path(self._adapter.run_dir).name

    @property
    def version(self) -> str:
        """Empty: what a run records anew is its next start."""
        return ""

    @property
    def root_dir(self) -> str:
        """The directory above the run's."""
        return str(Path(self._adapter.run_dir).parent)

    @property
    def save_dir(self) -> str:
        """The directory above the run's."""
        return self.root_dir

    @property
    def log_dir(self) -> str:
        """The run's directory."""
        return self._adapter.run_dir

    def log_hyperparams(self, params: Any, *args: object, **kwargs: object) -> None:  # noqa: ANN401 - a dict or a namespace
        """Record hyperparameters: as the run's configuration, or as a message if it is open."""
        try:
            config = plain_config(params)
        except TypeError:  # Lightning's loggers take anything that str() does
            config = {"hparams": params}
        self._open(config)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record metrics of a step; without one, of the step behind the last."""
        if self._open():
            self._adapter.log(metrics, step)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:  # noqa: ANN401 - a ModelCheckpoint
        """Leave a message that a checkpoint was saved."""
        path = getattr(checkpoint_callback, "_last_checkpoint_saved", "")
        step = getattr(checkpoint_callback, "_last_global_step_saved", None)
        if path and self._open():
            self._adapter.say("Checkpoint saved", {"path": str(path)}, step=step)

    def finalize(self, status: str) -> None:
        """Note how `fit()`, `validate()` or `test()` ended; the run stays open for the next."""
        if status == "success":
            self._adapter.recovered()
        elif (error := sys.exc_info()[1]) is not None:  # Lightning calls this while handling it
            self._adapter.failed(error)
        else:
            self._adapter.say("Training failed", {"status": status}, level="ERROR")

    def _open(self, config: Mapping[str, Any] | None = None) -> bool:
        return self._adapter.open(config, main=not getattr(rank_zero_only, "rank", 0))
