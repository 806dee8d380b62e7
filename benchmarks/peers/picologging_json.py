"""picologging: a FileHandler with a JSON formatter (orjson).

It ignores `extra`, so the step and its metrics are passed as the message object.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import picologging

from benchmarks.peers.base import Loop, Peer, check_steps, json_lines
from benchmarks.workload import Row


class JsonFormatter(picologging.Formatter):
    """Renders a record and its metrics as one JSON object."""

    def format(self, record: Any) -> str:
        """Return the line without its newline."""
        entry = {
            "timestamp": record.created,
            "level": record.levelname,
            "logger": record.name,
            **record.msg,
        }
        return orjson.dumps(entry).decode()


class PicologgingJson(Peer):
    """`logger.info({"step": ..., "metrics": ...})`."""

    name = "picologging_json"
    title = "picologging `FileHandler`, orjson formatter"
    packages = ("picologging", "orjson")

    def setup(self, directory: Path) -> Loop:
        """Configure the logger."""
        self.path = directory / "metrics.jsonl"
        self.handler = picologging.FileHandler(str(self.path))
        self.handler.setFormatter(JsonFormatter())
        logger = picologging.Logger("bench.pico", picologging.INFO)
        logger.addHandler(self.handler)

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                metrics = {
                    "loss": loss,
                    "lr": lr,
                    "grad_norm": grad_norm,
                    "tokens_per_sec": tokens_per_sec,
                }
                logger.info({"step": step, "metrics": metrics})

        return loop

    def finish(self) -> None:
        """Close the file."""
        self.handler.close()

    def verify(self, directory: Path, count: int) -> None:
        """Check every line."""
        check_steps(((line["step"], line["metrics"]) for line in json_lines(self.path)), count)


PEER = PicologgingJson
