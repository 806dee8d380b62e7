"""Standard library: `logging.FileHandler` with a JSON formatter."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.base import Loop, Peer
from benchmarks.peers.message import CONTEXT, TEXT, check_messages, private_logger
from benchmarks.workload import Row


class JsonFormatter(logging.Formatter):
    """Renders a record and its context as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline."""
        entry = {
            "timestamp": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "context": {**CONTEXT, **record.context},  # type: ignore[attr-defined]  # by `extra`
        }
        return json.dumps(entry)


class MessageStdlib(Peer):
    """`logger.info("Training step completed", extra={"context": {...}})`."""

    name = "message_stdlib"
    title = "stdlib `FileHandler`, `json`"

    def setup(self, directory: Path) -> Loop:
        """Configure the logger."""
        self.path = directory / "messages.jsonl"
        self.handler = logging.FileHandler(self.path)
        self.handler.setFormatter(JsonFormatter())
        logger = private_logger("bench.stdlib")
        logger.handlers = [self.handler]

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                fields = {
                    "step": step,
                    "loss": loss,
                    "lr": lr,
                    "grad_norm": grad_norm,
                    "tokens_per_sec": tokens_per_sec,
                }
                logger.info(TEXT, extra={"context": fields})

        return loop

    def finish(self) -> None:
        """Close the file."""
        self.handler.close()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        check_messages(self.path, count)


PEER = MessageStdlib
