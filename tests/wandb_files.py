"""Reads wandb's offline run files back, with wandb's own record definitions.

A run file is a LevelDB log: a header of 7 bytes, then blocks of 32 KiB with fragments of records,
each with a checksum, a length and a type (1 whole, 2 first, 3 middle, 4 last).
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768
_HEADER = struct.Struct("<IHB")
_FILE_HEADER = 7
_LAST_OF_A_RECORD = (1, 4)


def run_files(folder: Path) -> list[Path]:
    """List the run files below a folder's wandb/, oldest first."""
    found = folder.glob("wandb/offline-run-*/run-*.wandb")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def records(path: Path) -> Iterator[Any]:
    """Yield the records of a run file; none while wandb has not written any."""
    from wandb.proto import wandb_internal_pb2 as proto

    data = path.read_bytes()
    assert not data or data.startswith(b":W&B"), "no run file of wandb"
    at, parts = _FILE_HEADER, b""
    while at + _HEADER.size <= len(data):
        room = _BLOCK - at % _BLOCK
        if room < _HEADER.size:  # the end of a block is padded
            at += room
            continue
        _, length, kind = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        if kind == 0 or at + length > len(data):
            return  # the service is writing this very record
        parts += data[at : at + length]
        at += length
        if kind in _LAST_OF_A_RECORD:
            yield proto.Record.FromString(parts)
            parts = b""


def write_log(path: Path, records: list[Any]) -> None:
    """A LevelDB log as wandb writes one; nobody looks at the checksums."""
    data = bytearray(b":W&B\0\0\0")
    for record in records:
        rest, begun = record.SerializeToString(), False
        while rest or not begun:
            room = _BLOCK - len(data) % _BLOCK
            if room < 7:
                data += bytes(room)
                continue
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = (3 if rest else 4) if begun else (2 if rest else 1)
            data += _HEADER.pack(0, len(part), kind) + part
            begun = True
    path.write_bytes(data)


def finished_records(path: Path, timeout_s: float = 30.0) -> list[Any]:
    """Return a finished run's records; wandb's service may write the last after finish()."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = list(records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.01)


class WandbRun:
    """What a finished offline run has recorded."""

    def __init__(self, path: Path) -> None:
        """Read a run file."""
        self.rows: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.tags: list[str] = []
        self.artifacts: list[tuple[str, str, list[str]]] = []
        self.metrics: list[Any] = []
        self.project = self.name = ""
        self.exit_code: int | None = None
        for record in finished_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                self.rows.append(_row(record.history))
            elif kind == "run":
                self.project, self.name = record.run.project, record.run.display_name
                self.tags = list(record.run.tags)
                self._configure(record.run.config)
            elif kind == "config":
                self._configure(record.config)
            elif kind == "metric":
                self.metrics.append(record.metric)
            elif kind == "exit":
                self.exit_code = record.exit.exit_code
            elif kind == "artifact":
                files = [entry.path for entry in record.artifact.manifest.contents]
                self.artifacts.append((record.artifact.name, record.artifact.type, sorted(files)))

    def _configure(self, config: Any) -> None:
        for item in config.update:
            key = ".".join(item.nested_key) or item.key
            self.config[key] = json.loads(item.value_json)

    def values(self, key: str) -> dict[int, Any]:
        """Return a metric's values by W&B's step."""
        return {row["_step"]: row[key] for row in self.rows if key in row}


def _row(history: Any) -> dict[str, Any]:
    return {
        ".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item
    }


def only_run(folder: Path) -> WandbRun:
    """Read the one run below a folder."""
    (path,) = run_files(folder)
    return WandbRun(path)
