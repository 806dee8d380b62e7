"""Keras 3, with any backend: `FastlogCallback`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from foundry_fastlog.base.extras import extra
from foundry_fastlog.integrations.adapter import Adapter, Adapting
from foundry_fastlog.recording.recorder import Recorder

with extra("keras", "keras"):
    from keras.callbacks import Callback

__all__ = ["FastlogCallback"]


class FastlogCallback(Adapting, Callback):
    """Records what `fit()` and `evaluate()` report: pass it in ``callbacks=[...]``.

    The end of an epoch becomes a summary of that epoch; with ``batches=True`` each batch is
    recorded, too, at the optimizer's step. An `evaluate()` outside of `fit()` becomes metrics named
    ``test_...`` of the last step.

    The run stays open after `fit()`; it is closed by `close()`, at the end of a ``with`` block, or
    when the program ends.

    Example:
        >>> with FastlogCallback("runs/exp0") as callback:  # doctest: +SKIP
        ...     model.fit(x, y, epochs=3, callbacks=[callback])
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None = None,
        *,
        recorder: Recorder | None = None,
        batches: bool = False,
        rank: int | None = None,
        **options: Any,  # noqa: ANN401 - Recorder's, which types them
    ) -> None:
        """Note what to record; the run is opened when the training begins.

        Args:
            run_dir: The run's directory, unless a recorder is given.
            recorder: The recorder to use; whoever opened it closes it.
            batches: Record each batch, too. Keras gives means since the epoch began.
            rank: This process's rank. Keras has no main process: each that has the callback
                records.
            **options: Options for opening the run, see `Recorder`.

        Raises:
            TypeError: Neither, or both, of directory and recorder.
            NotADirectoryError: The directory, or a part of it, is a file.
        """
        super().__init__()
        options = options if rank is None else {"rank": rank, **options}
        self._adapter = Adapter(run_dir, recorder, logger="keras", options=options)
        self._batches = batches
        self._fitting = False
        self._epoch = 0
        self._before = 0  # steps before this epoch
        self._step = 0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open the run with its configuration."""
        self._adapter.renew()
        self._adapter.open(self._config())
        self._adapter.recovered()
        self._fitting = True
        if self.model.optimizer is not None:
            self._step = int(self.model.optimizer.iterations)
        self._before = self._step
        self._adapter.train_from(self._step)

    def _config(self) -> dict[str, Any]:
        """What is known of the training: a model of one's own may lack any of it."""
        config: dict[str, Any] = {"model": self.model.name, "fit": self.params}
        if self.model.built:
            config["parameters"] = self.model.count_params()
        if (optimizer := self.model.optimizer) is not None:
            try:
                config["optimizer"] = optimizer.get_config()
            except NotImplementedError:  # its schedule has none
                config["optimizer"] = {"name": optimizer.name}
        return config

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note the epoch and its first step."""
        self._epoch = epoch
        self._before = self._step

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record the figures so far of an epoch, at the step that its batch was."""
        self._step = self._before + batch + 1
        if self._batches:
            self._adapter.log(logs or {}, self._step, self._epoch)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record the epoch's figures, those of its validation among them."""
        self._adapter.summarize(epoch, logs or {})

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Say that the training ended; the run stays open for what comes after it."""
        self._fitting = False
        self._adapter.say("Training ended", step=self._step)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open the run for an evaluation without a training."""
        self._adapter.open()

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Record an evaluation; that within a training comes with its epoch."""
        if not self._fitting:
            values = {f"test_{name}": value for name, value in (logs or {}).items()}
            self._adapter.log(values, self._step)
