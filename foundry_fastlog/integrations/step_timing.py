"""Times the parts of a training step at the hooks that a trainer offers between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["StepTiming"]


class _Handle(Protocol):
    """A hook of a module that can be taken off."""

    def remove(self) -> None: ...


Emit = Callable[[str, float, int, "str | None"], None]
"""Takes a block's name, its seconds, its step and the block around it."""


class StepTiming:
    """Times of the host: where a device works on its own, a block ends once its work is launched.

    Each block lasts from one hook to the next. A step that an exception ends is left out.
    """

    def __init__(self, emit: Emit) -> None:
        """Pass each block to `emit` as it ends."""
        self._emit = emit
        self._handles: list[_Handle] = []
        self._step: int | None = None
        self._begun = 0.0
        self._paused = 0.0
        self._mark = 0.0  # the end of the last part of the step
        self._forward: float | None = None
        self._part = "forward_backward"

    def begin(self, model: Any, *, hooked: bool) -> None:  # noqa: ANN401 - a torch module
        """Begin a training.

        Args:
            model: The model, whose forward pass is timed by hooks.
            hooked: False if it must have none, as a compiled one.
        """
        self.end()
        compiled = getattr(model, "_compiled_call_impl", None) or hasattr(model, "_orig_mod")
        if hooked and not compiled and hasattr(model, "register_forward_pre_hook"):
            self._handles = [
                model.register_forward_pre_hook(self._forward_begin),
                model.register_forward_hook(self._forward_end),
            ]
        self.pause()

    def end(self) -> None:
        """End a training: the model has no hooks any more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._step = None

    def pause(self) -> None:
        """What is waited for from now on is the data of the next step."""
        self._paused = time.perf_counter()

    def step_begin(self, step: int) -> None:
        """Its data is there."""
        now = time.perf_counter()
        self._emit("data", now - self._paused, step, None)
        self._step, self._begun, self._mark, self._forward = step, now, now, None
        self._part = "forward_backward"

    def _forward_begin(self, *_: object) -> None:
        if self._step is not None:
            self._forward = time.perf_counter()

    def _forward_end(self, *_: object) -> None:
        if self._step is not None and self._forward is not None:
            now = time.perf_counter()
            self._emit("forward", now - self._forward, self._step, "step")
            self._mark, self._forward, self._part = now, None, "backward"

    def backward_end(self) -> None:
        """The gradients of a part of the batch are there."""
        self._end_part(self._part)
        self._part = "forward_backward"

    def optimizer_end(self) -> None:
        """The parameters are changed."""
        self._end_part("optimizer")

    def _end_part(self, name: str) -> None:
        if self._step is not None:
            now = time.perf_counter()
            self._emit(name, now - self._mark, self._step, "step")
            self._mark = now

    def step_end(self) -> None:
        """The step is done."""
        if self._step is not None:
            now = time.perf_counter()
            self._emit("step", now - self._begun, self._step, None)
            self._step = None
        self.pause()
