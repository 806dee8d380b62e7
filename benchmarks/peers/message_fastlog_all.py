"""foundry_fastlog as an experiment sets it up: log stream, main log and debug log together."""

from __future__ import annotations

import logging
from pathlib import Path

from benchmarks.peers.message import check_text
from benchmarks.peers.message_fastlog import MessageFastlog
from foundry_fastlog import RecorderHandler, TextFileHandler


class MessageFastlogAll(MessageFastlog):
    """The same call, three files."""

    name = "message_fastlog_all"
    title = "foundry_fastlog `StructuredLogger`, log stream and two text logs"
    root = "bench.all"

    def handlers(self, directory: Path) -> list[logging.Handler]:
        """Return the handlers of an experiment without a console."""
        self.texts = [TextFileHandler(directory / f"{kind}.log") for kind in ("main", "debug")]
        return [RecorderHandler(self.recorder), *self.texts]

    def settle(self) -> None:
        """Wait for the background thread and the flush thread."""
        self.texts[0].flush()
        super().settle()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line of all three."""
        super().verify(directory, count)
        for text in self.texts:
            check_text(text.path, count, f"{self.root}.")


PEER = MessageFastlogAll
