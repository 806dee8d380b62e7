"""loguru with `enqueue=True` (a queue and a thread) and `serialize=True` (JSON lines)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loguru import logger

from benchmarks.peers.base import Loop, Peer, check_steps, json_lines
from benchmarks.workload import Row


class LoguruEnqueue(Peer):
    """`logger.info("step", step=..., loss=...)`: the values are in `record.extra`."""

    name = "loguru_enqueue"
    title = "loguru `enqueue=True`, `serialize=True`"
    packages = ("loguru",)

    def setup(self, directory: Path) -> Loop:
        """Configure the one sink."""
        self.path = directory / "metrics.jsonl"
        logger.remove()
        logger.add(self.path, enqueue=True, serialize=True, format="{message}", level="INFO")

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                logger.info(
                    "step",
                    step=step,
                    loss=loss,
                    lr=lr,
                    grad_norm=grad_norm,
                    tokens_per_sec=tokens_per_sec,
                )

        return loop

    def settle(self) -> None:
        """Wait until the queue has been written."""
        logger.complete()

    def finish(self) -> None:
        """Drain the queue and close the sink."""
        logger.complete()
        logger.remove()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        extras = (line["record"]["extra"] for line in json_lines(self.path))
        check_steps(((extra.pop("step"), extra) for extra in extras), count)


PEER = LoguruEnqueue
