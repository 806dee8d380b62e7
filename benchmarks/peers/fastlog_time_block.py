"""A block timed by `PerformanceLogger.time_block`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.base import Loop
from benchmarks.peers.fastlog_timer import FastlogTimer
from benchmarks.workload import Row
from foundry_fastlog import PerformanceLogger


class FastlogTimeBlock(FastlogTimer):
    """As `fastlog_timer`, with statistics in memory; the message is not emitted (DEBUG)."""

    name = "fastlog_time_block"
    title = "**foundry_fastlog** `with perf.time_block(...)`, an empty block"

    def setup(self, directory: Path) -> Loop:
        """Open a run."""
        super().setup(directory)
        perf = PerformanceLogger(logging.getLogger("benchmarks.blocks"), self.recorder)

        def loop(rows: Iterator[Row]) -> None:
            for step, _ in rows:
                with perf.time_block("forward", step=step):
                    pass

        return loop


PEER = FastlogTimeBlock
