"""Hugging Face Transformers, and what is built on its Trainer, such as TRL: `FastlogCallback`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_fastlog.base.extras import extra
from foundry_fastlog.integrations.adapter import Adapter, Adapting
from foundry_fastlog.integrations.step_timing import StepTiming
from foundry_fastlog.recording.recorder import Recorder

with extra("transformers", "transformers"):
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

__all__ = ["FastlogCallback"]

_STATE = ("global_step", "max_steps", "num_train_epochs", "trial_name", "trial_params")


class FastlogCallback(Adapting, TrainerCallback):
    """Records what a `Trainer` logs: pass it in ``callbacks=[...]``.

    Logs become metrics of their step and epoch, the figures of the whole training (its runtime,
    its mean loss) a summary of its last epoch, saved checkpoints a message. The configuration has
    ``args``, ``model`` and ``state``. A training that resumes in this process replaces what it
    trains again; in another process, the run's next start does.

    The run stays open after `train()`, for an `evaluate()`; it is closed by `close()`, at the end
    of a ``with`` block, or when the program ends.

    Example:
        >>> with FastlogCallback("runs/exp0") as callback:  # doctest: +SKIP
        ...     Trainer(model, args, train_dataset=data, callbacks=[callback]).train()
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None = None,
        *,
        recorder: Recorder | None = None,
        all_ranks: bool = False,
        step_timing: bool = False,
        **options: Any,  # noqa: ANN401 - Recorder's, which types them
    ) -> None:
        """Note what to record; the run is opened when the training begins.

        Args:
            run_dir: The run's directory, unless a recorder is given.
            recorder: The recorder to use; whoever opened it closes it.
            all_ranks: Record in each process, not in the main one alone.
            step_timing: Time the parts of each step: ``data``, ``forward``, ``backward`` and
                ``optimizer`` within ``step``; see docs/integrations/transformers.md.
            **options: Options for opening the run, see `Recorder`.

        Raises:
            TypeError: Neither, or both, of directory and recorder.
            NotADirectoryError: The directory, or a part of it, is a file.
        """
        self._adapter = Adapter(
            run_dir, recorder, logger="transformers", all_ranks=all_ranks, options=options
        )
        self._timing = StepTiming(self._adapter.timing) if step_timing else None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,  # noqa: ANN401 - any model
        **kwargs: object,
    ) -> None:
        """Open the run with its configuration, and note from where the training goes on."""
        self._adapter.renew()
        if not self._begin(args, state, model):
            return
        step = state.global_step
        self._adapter.recovered()
        self._adapter.train_from(step)
        facts = {"max_steps": state.max_steps, "epochs": state.num_train_epochs}
        self._adapter.say("Training started", facts, step=step)
        if self._timing is not None:
            self._timing.begin(model, hooked=not args.torch_compile)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        model: Any = None,  # noqa: ANN401 - any model
        **kwargs: object,
    ) -> None:
        """Record what the Trainer logs, at its step and epoch."""
        if not self._begin(args, state, model):  # of an evaluation without a training, too
            return
        values = dict(logs or {})
        epoch = values.pop("epoch", state.epoch)
        if "train_loss" in values and "train_runtime" in values:
            self._adapter.summarize(epoch or 0.0, values)
        else:
            self._adapter.log(values, state.global_step, epoch)
        self._pause()

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any],
        model: Any = None,  # noqa: ANN401 - any model
        **kwargs: object,
    ) -> None:
        """Record the figures of a prediction, which the Trainer does not log."""
        if self._begin(args, state, model):
            self._adapter.log(metrics, state.global_step, state.epoch)

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Leave a message that a checkpoint was saved."""
        path = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self._adapter.say("Checkpoint saved", {"path": str(path)}, step=state.global_step)
        self._pause()

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Say that the training ended; the run stays open for what comes after it."""
        best = {"best_metric": state.best_metric, "best_model": state.best_model_checkpoint}
        known = {name: value for name, value in best.items() if value is not None}
        self._adapter.say("Training ended", known, step=state.global_step)
        if self._timing is not None:
            self._timing.end()

    def on_epoch_begin(self, *args: object, **kwargs: object) -> None:
        """Begin to wait for data."""
        self._pause()

    def on_evaluate(self, *args: object, **kwargs: object) -> None:
        """Begin to wait for data."""
        self._pause()

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Begin a step's timings."""
        if self._timing is not None:
            self._timing.step_begin(state.global_step + 1)

    def on_substep_end(self, *args: object, **kwargs: object) -> None:
        """End the backward pass of a part of a step."""
        if self._timing is not None:
            self._timing.backward_end()

    def on_pre_optimizer_step(self, *args: object, **kwargs: object) -> None:
        """End the step's last backward pass."""
        if self._timing is not None:
            self._timing.backward_end()

    def on_optimizer_step(self, *args: object, **kwargs: object) -> None:
        """End the optimizer's part."""
        if self._timing is not None:
            self._timing.optimizer_end()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """End the step."""
        if self._timing is not None:
            self._timing.step_end()

    def close(self) -> bool:
        """Write everything, and close the run unless others use it. Safe to call again.

        Returns:
            True when everything is written.
        """
        if self._timing is not None:
            self._timing.end()
        return super().close()

    def _begin(self, args: TrainingArguments, state: TrainerState, model: object) -> bool:
        """Open the run at the first use; whether this process records."""
        if self._adapter.recorder is not None:
            return True
        return self._adapter.open(_config(args, state, model), main=state.is_world_process_zero)

    def _pause(self) -> None:
        """What was done between two steps is no waiting for data."""
        if self._timing is not None:
            self._timing.pause()


def _config(args: TrainingArguments, state: TrainerState, model: object) -> dict[str, Any]:
    """The Trainer's arguments, without its tokens, the model's configuration and the state."""
    config: dict[str, Any] = {"args": args.to_dict()}
    model_config = getattr(model, "config", None)
    if callable(to_dict := getattr(model_config, "to_dict", None)):
        config["model"] = to_dict()
    config["state"] = {name: getattr(state, name) for name in _STATE}
    return config
