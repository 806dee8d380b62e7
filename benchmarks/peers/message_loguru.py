"""loguru with `serialize=True` (JSON lines), written by the caller: faster than its queue."""

from __future__ import annotations

from pathlib import Path

from loguru import logger

from benchmarks.peers.base import Loop, Peer
from benchmarks.peers.message import CONTEXT, check_messages, info_loop


class MessageLoguru(Peer):
    """`logger.info("Training step completed", step=..., loss=...)`, context bound once."""

    name = "message_loguru"
    title = "loguru `serialize=True`"
    packages = ("loguru",)

    def setup(self, directory: Path) -> Loop:
        """Configure the one sink."""
        self.path = directory / "messages.jsonl"
        logger.remove()
        logger.add(self.path, serialize=True, format="{message}", level="INFO")
        log = logger.bind(**CONTEXT)
        return info_loop(log)

    def finish(self) -> None:
        """Close the sink."""
        logger.remove()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        check_messages(self.path, count, fields=("record", "extra"))


PEER = MessageLoguru
