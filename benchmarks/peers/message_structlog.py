"""structlog as its performance guide recommends: bytes logger, orjson, cached, no stdlib."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.base import Loop, Peer
from benchmarks.peers.message import CONTEXT, LOGGER, check_messages, info_loop
from benchmarks.peers.structlog_orjson import bytes_logger


class MessageStructlog(Peer):
    """`log.info("Training step completed", step=..., loss=...)`, context bound once."""

    name = "message_structlog"
    title = "structlog + orjson (`BytesLogger`)"
    packages = ("structlog", "orjson")

    def setup(self, directory: Path) -> Loop:
        """Configure structlog."""
        self.path = directory / "messages.jsonl"
        self.file = self.path.open("wb")
        return info_loop(bytes_logger(self.file, **CONTEXT, logger=LOGGER))

    def finish(self) -> None:
        """Close the file (structlog flushed it with every line)."""
        self.file.close()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        check_messages(self.path, count, fields=())


PEER = MessageStructlog
