"""All that the demo's step logs: five nested blocks and a step of metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.base import Loop, check_steps
from benchmarks.peers.fastlog import check_accounting
from benchmarks.peers.fastlog_timer import FastlogTimer
from benchmarks.workload import KEYS, Row
from foundry_fastlog import MetricsLogger, PerformanceLogger


class FastlogDemoStep(FastlogTimer):
    """Empty blocks, so that all of the time is what logging costs."""

    name = "fastlog_demo_step"
    title = "**foundry_fastlog**, the demo's step: five blocks and `log_step`"
    blocks = ("data", "forward", "backward", "optimizer", "step")

    def setup(self, directory: Path) -> Loop:
        """Open a run."""
        super().setup(directory)
        logger = logging.getLogger("benchmarks.blocks")
        perf = PerformanceLogger(logger, self.recorder)
        metrics = MetricsLogger("bench", directory / "run", recorder=self.recorder, logger=logger)

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                with perf.time_block("step", step=step):
                    with perf.time_block("data"):
                        pass
                    with perf.time_block("forward"):
                        pass
                    with perf.time_block("backward"):
                        pass
                    with perf.time_block("optimizer"):
                        pass
                metrics.log_step(
                    step,
                    1.0,
                    {
                        "loss": loss,
                        "lr": lr,
                        "grad_norm": grad_norm,
                        "tokens_per_sec": tokens_per_sec,
                    },
                )

        return loop

    def verify(self, directory: Path, count: int) -> None:
        """Check the counters and each line of both streams."""
        run = directory / "run"
        check_accounting(self.stats, count * (len(self.blocks) + 1))
        self._verify_blocks(run, count)
        check_steps(
            ((step, {key: row[key] for key in KEYS}) for step, row in self._records(run)), count
        )


PEER = FastlogDemoStep
