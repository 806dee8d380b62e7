"""foundry_fastlog: `StructuredLogger.info` into a text log, written by the background thread."""

from __future__ import annotations

import logging
from pathlib import Path

from benchmarks.peers.base import VerificationError
from benchmarks.peers.message import check_text
from benchmarks.peers.message_fastlog import MessageFastlog
from foundry_fastlog import TextFileHandler


class MessageFastlogText(MessageFastlog):
    """The same call, another handler."""

    name = "message_fastlog_text"
    title = "foundry_fastlog `StructuredLogger`, text log"
    root = "bench.text"

    def handlers(self, directory: Path) -> list[logging.Handler]:
        """Return a handler of a text file."""
        self.text = TextFileHandler(directory / "main.log")
        return [self.text]

    def settle(self) -> None:
        """Wait until the queue has been written."""
        self.text.flush()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        if self.text.file.errors:
            raise VerificationError(f"{self.text.file.errors} messages were not written")
        check_text(self.text.path, count, f"{self.root}.")


PEER = MessageFastlogText
