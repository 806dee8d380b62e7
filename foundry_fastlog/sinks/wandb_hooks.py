"""wandb's hooks in a model run inside forward() and backward(): here they get a safety net."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from foundry_fastlog.sinks.tally import Tally

__all__ = ["guard_hooks"]


def guard_hooks(run: Any, current: Callable[[], Any], tally: Tally) -> None:  # noqa: ANN401 - wandb's Run
    """Let no exception out of the hooks that ``run.watch()`` is going to register.

    Args:
        run: wandb's run object.
        current: Returns the run that is open in this process, or None; for another one than `run`
            the hooks do nothing.
        tally: Where failures are counted.
    """
    # wandb has no public way to catch what its hooks raise. Without this attribute (disabled, or
    # another version of wandb) they stay as they are.
    history = getattr(run, "_torch", None)
    original = getattr(history, "log_tensor_stats", None)
    if history is None or original is None:
        return
    wandb = importlib.import_module("wandb")

    def guarded(tensor: object, name: str) -> None:
        if current() is not run:
            return
        try:
            if wandb.run is not run:  # the hooks log to the process's global run
                raise RuntimeError("wandb watches models for a process's first open run only")  # noqa: TRY301 - the same end
            original(tensor, name)
        except Exception as error:  # noqa: BLE001 - wandb's, must not stop a training
            tally.failed("watch_model", error)

    history.log_tensor_stats = guarded
