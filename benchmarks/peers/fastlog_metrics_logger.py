"""The plan's `MetricsLogger.log_step`, as implemented by this package."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.base import Loop
from benchmarks.peers.fastlog import Fastlog
from benchmarks.peers.plan_metrics_logger import log_step_loop
from foundry_fastlog import LoggingConfig, MetricsLogger, RecorderConfig


class FastlogMetricsLogger(Fastlog):
    """This package's version of the plan's class, with its logger at the default level, too."""

    name = "fastlog_metrics_logger"
    title = "**foundry_fastlog** `MetricsLogger.log_step(...)`"

    def setup(self, directory: Path) -> Loop:
        """Make the logger."""
        config = LoggingConfig(log_metrics_every_n_steps=1, recorder=RecorderConfig(fsync="none"))
        logger = MetricsLogger("bench", directory / "run", config=config)
        self.recorder = logger.recorder
        self.logger = logger  # it owns the recorder
        return log_step_loop(logger)


PEER = FastlogMetricsLogger
