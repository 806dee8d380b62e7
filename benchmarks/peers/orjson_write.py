"""What a careful user writes by hand: `orjson.dumps` and a buffered file.

The line has what a record needs (time, step, metrics) in the cheapest form: `time.time()` instead
of an ISO timestamp, no sequence number, the default 8 KiB buffer. That favours this peer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from benchmarks.peers.base import Loop, Peer, check_steps, json_lines
from benchmarks.workload import Row


class OrjsonWrite(Peer):
    """One dict, one `orjson.dumps`, one buffered `write` per step."""

    name = "orjson_write"
    title = "`orjson.dumps` + buffered `file.write`"
    packages = ("orjson",)

    def setup(self, directory: Path) -> Loop:
        """Open the file."""
        self.path = directory / "metrics.jsonl"
        self.file = self.path.open("wb")
        write, dumps, now, newline = (
            self.file.write,
            orjson.dumps,
            time.time,
            orjson.OPT_APPEND_NEWLINE,
        )

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                entry = {
                    "timestamp": now(),
                    "step": step,
                    "metrics": {
                        "loss": loss,
                        "lr": lr,
                        "grad_norm": grad_norm,
                        "tokens_per_sec": tokens_per_sec,
                    },
                }
                write(dumps(entry, option=newline))

        return loop

    def finish(self) -> None:
        """Close the file."""
        self.file.close()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        check_steps(((line["step"], line["metrics"]) for line in json_lines(self.path)), count)

    def facts(self) -> dict[str, Any]:
        """Return the bytes written."""
        return {"bytes": self.path.stat().st_size}


PEER = OrjsonWrite
