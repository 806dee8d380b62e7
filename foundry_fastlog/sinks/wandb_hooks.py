"""Contain errors of wandb's hooks, which run inside a model's forward() and backward()."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from foundry_fastlog.sinks.tally import Tally

__all__ = ["guard_hooks"]


def guard_hooks(run: Any, current: Callable[[], Any], tally: Tally) -> None:  # noqa: ANN401 - wandb's Run
    """Contain exceptions of the hooks that ``run.watch()`` is going to register.

    Args:
        run: wandb's run object.
        current: Returns the run that is open in this process, or None; if it is not `run`, the
            hooks do nothing.
        tally: Where failures are counted.

    Raises:
        RuntimeError: `run` is not wandb's global run, which is where its hooks log to.
    """
    wandb = importlib.import_module("wandb")
    if wandb.run is not run:
        raise RuntimeError("wandb watches models only for the first run that a process has open")
    # wandb has no public way to catch what its hooks raise. Without this attribute (wandb disabled
    # or of another version) the hooks stay as they are.
    history = getattr(run, "_torch", None)
    original = getattr(history, "log_tensor_stats", None)
    if history is None or original is None:
        return

    def guarded(tensor: object, name: str) -> None:
        if current() is not run or wandb.run is not run:
            return
        try:
            original(tensor, name)
        except Exception as error:  # noqa: BLE001 - wandb errors must not stop a training
            tally.failed("watch_model", error)

    history.log_tensor_stats = guarded
