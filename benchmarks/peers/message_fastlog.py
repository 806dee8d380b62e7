"""foundry_fastlog: `StructuredLogger.info` into the run's log stream (JSONL, crash-safe)."""

from __future__ import annotations

import logging
from pathlib import Path

import foundry_fastlog
from benchmarks.peers.base import Loop, Peer, VerificationError
from benchmarks.peers.message import CONTEXT, LOGGER, check_messages, info_loop, private_logger
from foundry_fastlog import Recorder, RecorderHandler, StructuredLogger


class MessageFastlog(Peer):
    """`logger.info("Training step completed", step=..., loss=...)`."""

    name = "message_fastlog"
    title = "**foundry_fastlog** `StructuredLogger`, log stream (JSONL, crash-safe)"
    packages = ("foundry-fastlog",)
    root = "bench.events"

    def setup(self, directory: Path) -> Loop:
        """Open a run; no peer forces its bytes to the disk."""
        self.recorder = Recorder(directory / "run", fsync="none")
        self.top = private_logger(self.root)
        for handler in self.handlers(directory):
            self.top.addHandler(handler)
        log = StructuredLogger(f"{self.root}.{LOGGER}", CONTEXT["experiment"])
        log.update_context(**CONTEXT)
        return info_loop(log)

    def handlers(self, directory: Path) -> list[logging.Handler]:
        """Return the destination of the messages."""
        return [RecorderHandler(self.recorder)]

    def settle(self) -> None:
        """Flush, so that a burst never meets a full ring."""
        if not self.recorder.flush(timeout=60.0):
            raise VerificationError("flush() timed out")

    def finish(self) -> None:
        """Close the run."""
        for handler in list(self.top.handlers):
            self.top.removeHandler(handler)
            handler.close()
        if not self.recorder.close(timeout=60.0):
            raise VerificationError("close() timed out")

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        check_messages(directory / "run" / "log.jsonl", count)

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the version of the imported code; editable metadata may be out of date."""
        return {"foundry-fastlog": foundry_fastlog.__version__}


PEER = MessageFastlog
