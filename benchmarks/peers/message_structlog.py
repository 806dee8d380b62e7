"""structlog set up as its own performance guide says: bytes logger, orjson, cached, no stdlib."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import orjson
import structlog

from benchmarks.peers.base import Loop, Peer
from benchmarks.peers.message import CONTEXT, LOGGER, TEXT, check_messages
from benchmarks.workload import Row


class MessageStructlog(Peer):
    """`log.info("Training step completed", step=..., loss=...)`, context bound once."""

    name = "message_structlog"
    title = "structlog + orjson (`BytesLogger`)"
    packages = ("structlog", "orjson")

    def setup(self, directory: Path) -> Loop:
        """Configure structlog."""
        self.path = directory / "messages.jsonl"
        self.file = self.path.open("wb")
        structlog.configure(
            cache_logger_on_first_use=True,
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=orjson.dumps),
            ],
            logger_factory=structlog.BytesLoggerFactory(self.file),
        )
        log = structlog.get_logger().bind(**CONTEXT, logger=LOGGER)

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                log.info(
                    TEXT,
                    step=step,
                    loss=loss,
                    lr=lr,
                    grad_norm=grad_norm,
                    tokens_per_sec=tokens_per_sec,
                )

        return loop

    def finish(self) -> None:
        """Close the file (structlog flushed it with every line)."""
        self.file.close()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        check_messages(self.path, count, fields=())


PEER = MessageStructlog
