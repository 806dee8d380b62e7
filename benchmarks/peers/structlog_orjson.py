"""structlog as its performance guide recommends: bytes logger, orjson, cached, no stdlib."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import structlog

from benchmarks.peers.base import Loop, Peer, check_steps, json_lines
from benchmarks.workload import Row


def bytes_logger(file: BinaryIO, **context: Any) -> Any:
    """Configure structlog for a file; return a logger with a bound context."""
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(file),
    )
    return structlog.get_logger().bind(**context)


class StructlogOrjson(Peer):
    """`log.info("step", step=..., metrics=...)` into a file."""

    name = "structlog_orjson"
    title = "structlog + orjson (`BytesLogger`)"
    packages = ("structlog", "orjson")

    def setup(self, directory: Path) -> Loop:
        """Configure structlog."""
        self.path = directory / "metrics.jsonl"
        self.file = self.path.open("wb")
        log = bytes_logger(self.file)

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                metrics = {
                    "loss": loss,
                    "lr": lr,
                    "grad_norm": grad_norm,
                    "tokens_per_sec": tokens_per_sec,
                }
                log.info("step", step=step, metrics=metrics)

        return loop

    def finish(self) -> None:
        """Close the file (structlog flushed it with every line)."""
        self.file.close()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        check_steps(((line["step"], line["metrics"]) for line in json_lines(self.path)), count)


PEER = StructlogOrjson
