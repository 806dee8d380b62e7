"""The floor as users write it: an empty C method of an object, `obj.empty(...)`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import floor
from benchmarks.peers.base import Loop
from benchmarks.peers.empty_fastcall import EmptyFastcall
from benchmarks.workload import Row


class EmptyMethod(EmptyFastcall):
    """Calls the floor as a method of a Python subclass of a C type, like `Recorder`."""

    name = "empty_method"
    title = "the same as a method, `obj.empty(...)`"

    def setup(self, directory: Path) -> Loop:
        """Build and load the type."""

        class Subclass(floor.load().Floor):  # type: ignore[misc]  # built at run time
            """Has a `__dict__`, like every Python class."""

        obj = Subclass()
        self.empty = obj.empty

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                obj.empty(
                    step, loss=loss, lr=lr, grad_norm=grad_norm, tokens_per_sec=tokens_per_sec
                )

        return loop


PEER = EmptyMethod
