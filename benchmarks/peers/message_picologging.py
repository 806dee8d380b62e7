"""picologging: a FileHandler with a JSON formatter (orjson).

It ignores `extra`, so the fields are passed as the message object.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import picologging

from benchmarks.peers.base import Loop, Peer
from benchmarks.peers.message import CONTEXT, TEXT, check_messages
from benchmarks.workload import Row


class JsonFormatter(picologging.Formatter):
    """Renders a record and its context as one JSON object."""

    def format(self, record: Any) -> str:
        """Return the line without its newline."""
        message, fields = record.msg
        entry = {
            "timestamp": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            "context": {**CONTEXT, **fields},
        }
        return orjson.dumps(entry).decode()


class MessagePicologging(Peer):
    """`logger.info((message, fields))`."""

    name = "message_picologging"
    title = "picologging `FileHandler`, orjson"
    packages = ("picologging", "orjson")

    def setup(self, directory: Path) -> Loop:
        """Configure the logger."""
        self.path = directory / "messages.jsonl"
        self.handler = picologging.FileHandler(str(self.path))
        self.handler.setFormatter(JsonFormatter())
        logger = picologging.Logger("bench.pico", picologging.INFO)
        logger.addHandler(self.handler)

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                fields = {
                    "step": step,
                    "loss": loss,
                    "lr": lr,
                    "grad_norm": grad_norm,
                    "tokens_per_sec": tokens_per_sec,
                }
                logger.info((TEXT, fields))

        return loop

    def finish(self) -> None:
        """Close the file."""
        self.handler.close()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        check_messages(self.path, count)


PEER = MessagePicologging
