"""foundry_fastlog with 0-dim tensors on the CPU: `rec.record(step, loss=loss_tensor)`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.peers.base import Loop
from benchmarks.peers.fastlog import Fastlog
from benchmarks.workload import VALUES, Row


def tensor_rows() -> list[tuple[Any, ...]]:
    """Create the workload's values as 0-dim tensors; float64, so that the numbers are equal.

    Raises:
        ImportError: torch is not installed.
    """
    import torch

    return [tuple(torch.tensor(v, dtype=torch.float64) for v in values) for values in VALUES]


class FastlogTensors(Fastlog):
    """The same recorder; each value is a tensor, read through DLPack's exchange table."""

    name = "fastlog_tensors"
    title = "**foundry_fastlog** `rec.record(...)`, four 0-dim CPU tensors"
    packages = ("foundry-fastlog", "torch")

    def setup(self, directory: Path) -> Loop:
        """Open a run and create the tensors."""
        super().setup(directory)
        recorder, tensors = self.recorder, tensor_rows()

        def loop(rows: Iterator[Row]) -> None:
            for (step, _), (loss, lr, grad_norm, tokens_per_sec) in zip(rows, cycle(tensors)):
                recorder.record(
                    step, loss=loss, lr=lr, grad_norm=grad_norm, tokens_per_sec=tokens_per_sec
                )

        return loop


PEER = FastlogTensors
