"""foundry_fastlog with 0-dim tensors read by the caller: `rec.record(step, loss=t.item())`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from benchmarks.peers.base import Loop
from benchmarks.peers.fastlog import Fastlog
from benchmarks.peers.fastlog_tensors import tensor_rows
from benchmarks.workload import Row


class FastlogItem(Fastlog):
    """The same recorder and tensors, with `.item()` in the call."""

    name = "fastlog_item"
    title = "foundry_fastlog `rec.record(...)`, the same tensors with `.item()`"
    packages = ("foundry-fastlog", "torch")

    def setup(self, directory: Path) -> Loop:
        """Open a run and create the tensors."""
        super().setup(directory)
        recorder, tensors = self.recorder, tensor_rows()

        def loop(rows: Iterator[Row]) -> None:
            for (step, _), (loss, lr, grad_norm, tokens_per_sec) in zip(rows, cycle(tensors)):
                recorder.record(
                    step,
                    loss=loss.item(),
                    lr=lr.item(),
                    grad_norm=grad_norm.item(),
                    tokens_per_sec=tokens_per_sec.item(),
                )

        return loop


PEER = FastlogItem
