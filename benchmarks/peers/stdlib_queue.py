"""Standard library: a QueueHandler, and a QueueListener that writes JSON from its thread."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.base import Loop, Peer, check_steps, json_lines
from benchmarks.workload import Row


class JsonFormatter(logging.Formatter):
    """Renders a record and its metrics as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline."""
        entry = {
            "timestamp": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "step": record.step,  # type: ignore[attr-defined]  # set through `extra`
            "metrics": record.metrics,  # type: ignore[attr-defined]  # set through `extra`
        }
        return json.dumps(entry)


class StdlibQueue(Peer):
    """`logger.info(..., extra=...)` into an unbounded queue."""

    name = "stdlib_queue"
    title = "stdlib `QueueHandler` + `QueueListener`, JSON formatter"

    def setup(self, directory: Path) -> Loop:
        """Start the listener thread."""
        self.path = directory / "metrics.jsonl"
        self.queue: queue.Queue[logging.LogRecord] = queue.Queue(-1)
        self.target = logging.FileHandler(self.path)
        self.target.setFormatter(JsonFormatter())
        self.listener = logging.handlers.QueueListener(self.queue, self.target)
        self.listener.start()
        logger = logging.getLogger("bench.queue")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.handlers = [logging.handlers.QueueHandler(self.queue)]

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                metrics = {
                    "loss": loss,
                    "lr": lr,
                    "grad_norm": grad_norm,
                    "tokens_per_sec": tokens_per_sec,
                }
                logger.info("step", extra={"step": step, "metrics": metrics})

        return loop

    def settle(self) -> None:
        """Wait until the listener has written everything."""
        self.queue.join()

    def finish(self) -> None:
        """Stop the listener, which drains the queue, and close the file."""
        self.listener.stop()
        self.target.close()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        check_steps(((line["step"], line["metrics"]) for line in json_lines(self.path)), count)


PEER = StdlibQueue
