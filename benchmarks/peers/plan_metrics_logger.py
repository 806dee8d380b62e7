"""The logging plan's own MetricsLogger: open, `json.dumps`, write and close on every step."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.peers.base import Loop, Peer, check_steps, json_lines
from benchmarks.workload import Row


# The class below is the plan's code, verbatim, because it is what is measured.
# fmt: off
class MetricsLogger:
    """Logger specifically for training metrics and performance data."""

    def __init__(self, experiment_name: str, output_dir: Path):
        self.experiment_name = experiment_name
        self.output_dir = output_dir
        self.metrics_file = output_dir / "metrics.jsonl"  # JSON Lines format
        self.logger = logging.getLogger(f"model_foundry.metrics")  # noqa: F541 - verbatim

    def log_step(self, step: int, epoch: int, metrics: dict):
        """Log metrics for a single training step."""
        entry = {
            "timestamp": datetime.now().isoformat(),  # noqa: DTZ005 - verbatim
            "step": step,
            "epoch": epoch,
            "metrics": metrics
        }

        # Write to JSONL file for easy analysis
        with open(self.metrics_file, 'a') as f:  # noqa: PTH123 - verbatim
            f.write(json.dumps(entry) + '\n')

        # Also log to main logger
        self.logger.info(f"Step {step}: " +  # noqa: G003 - verbatim
                        ", ".join(f"{k}={v:.4f}" for k, v in metrics.items()))
# fmt: on


def log_step_loop(logger: Any) -> Loop:
    """Return the loop of a `MetricsLogger`, the plan's or another."""

    def loop(rows: Iterator[Row]) -> None:
        for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
            logger.log_step(
                step,
                0,
                {
                    "loss": loss,
                    "lr": lr,
                    "grad_norm": grad_norm,
                    "tokens_per_sec": tokens_per_sec,
                },
            )

    return loop


class PlanMetricsLogger(Peer):
    """The plan's class, its logger left at the default level (INFO lines are not emitted)."""

    name = "plan_metrics_logger"
    title = "the plan's own `MetricsLogger` (open, `json`, close)"

    def setup(self, directory: Path) -> Loop:
        """Make the logger."""
        self.logger = MetricsLogger("bench", directory)
        return log_step_loop(self.logger)

    def finish(self) -> None:
        """Do nothing: every step closed the file."""

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        lines = json_lines(self.logger.metrics_file)
        check_steps(((line["step"], line["metrics"]) for line in lines), count)


PEER = PlanMetricsLogger
