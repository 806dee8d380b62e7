"""foundry_fastlog with the method bound once: `record = rec.record`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.base import Loop
from benchmarks.peers.fastlog import Fastlog
from benchmarks.workload import Row


class FastlogBound(Fastlog):
    """The same recorder without the attribute look-up in each step."""

    name = "fastlog_bound"
    title = "**foundry_fastlog**, `record = rec.record` bound once"

    def setup(self, directory: Path) -> Loop:
        """Open a run and bind its method."""
        super().setup(directory)
        record = self.recorder.record

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                record(step, loss=loss, lr=lr, grad_norm=grad_norm, tokens_per_sec=tokens_per_sec)

        return loop


PEER = FastlogBound
