"""Reads offline runs of wandb: the run file in ``wandb/offline-run-DATE-ID``.

A run file is a LevelDB log (https://github.com/google/leveldb/blob/main/doc/log_format.md): a
header of 7 bytes, then blocks of 32 KiB with fragments of records, each with a checksum, a length
and a type (1 whole, 2 first, 3 middle, 4 last). A record is a message of wandb's protocol.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundry_fastlog.base.extras import extra
from foundry_fastlog.base.formatting import printable
from foundry_fastlog.importing.session import Line, Session, SourceError, flattened

__all__ = ["LastRow", "find_run_files", "read_run_file"]

_BLOCK = 32768
_FRAGMENT = struct.Struct("<IHB")
_HEADER = 7
_MAGIC = b":W&B"
_LEVELS = {"WARN": "WARNING", "ERROR": "ERROR"}


def find_run_files(source: Path) -> list[Path]:
    """List the run files of a directory such as ``wandb`` or ``wandb/offline-run-...``, or one."""
    if source.is_file():
        return [source] if source.suffix == ".wandb" else []
    found = {*source.glob("*.wandb"), *source.glob("*run-*/*.wandb")}
    found |= {*source.glob("wandb/*run-*/*.wandb")}
    # A link such as latest-run leads to one of the others.
    return sorted({path.resolve(): path for path in sorted(found)}.values(), key=_begun)


def _begun(path: Path) -> tuple[str, str]:
    """Order sessions by the time in their directory's name."""
    return path.parent.name.removeprefix("offline-").removeprefix("run-"), str(path)


def read_run_file(path: Path) -> Session:
    """Read what a run file says.

    Raises:
        ImportError: wandb is not installed.
        SourceError: It is none.
    """
    with extra("wandb", "wandb"):
        from wandb.proto import wandb_internal_pb2 as proto
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise SourceError(f"{path} is no run file of wandb")
    found = Session(name="", key="", lines=iter(()), directory="", end="killed")
    protocol: Any = proto  # its members are made when it is imported
    records = _sound(path, protocol, found)
    first: list[Any] = []
    for record in records:  # what the run is comes before its values
        first.append(record)
        if record.WhichOneof("record_type") == "run":
            _take_run(record.run, found)
            break
    found.key = found.key or path.stem.removeprefix("run-")
    found.name = found.name or found.key
    found.directory = found.directory or found.key
    found.lines = _lines(found, (one for source in (first, records) for one in source))
    return found


def _sound(path: Path, protocol: Any, found: Session) -> Iterator[Any]:  # noqa: ANN401 - wandb's
    """Yield the records that can be read."""
    from google.protobuf.message import DecodeError

    end = _HEADER
    for raw, end in _records(path, _HEADER):  # noqa: B007 - where the last one ends
        try:
            yield protocol.Record.FromString(raw)
        except DecodeError:  # noqa: PERF203 - each may be
            found.left_out["record that is damaged"] += 1
    with path.open("rb") as file:
        file.seek(end)
        found.left_out["byte behind the last whole record"] += len(file.read().strip(b"\0"))


class LastRow:
    """Which row a run file has come to, as it grows.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = _HEADER
        self._found = -1

    def look(self) -> int:
        """Return W&B's step of the last row; -1 without any."""
        from wandb.proto import wandb_internal_pb2

        protocol: Any = wandb_internal_pb2
        for raw, at in _records(self._path, self._at):
            self._at = at
            record = protocol.Record.FromString(raw)
            if record.WhichOneof("record_type") == "history":
                self._found = max(self._found, record.history.step.num)
        return self._found

    def rows_from(self, step: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows from a step of W&B's on: the step, and values by name."""
        from wandb.proto import wandb_internal_pb2

        protocol: Any = wandb_internal_pb2
        for raw, _ in _records(self._path, _HEADER):
            record = protocol.Record.FromString(raw)
            if record.WhichOneof("record_type") == "history" and record.history.step.num >= step:
                yield record.history.step.num, _items(record.history.item)


def _take_run(run: Any, found: Session) -> None:  # noqa: ANN401 - of wandb's protocol
    found.key, found.name = run.run_id, run.display_name
    found.host, found.started = run.host, run.start_time.seconds + run.start_time.nanos / 1e9
    found.git_hash = run.git.commit or None
    about = {
        "project": run.project,
        "entity": run.entity,
        "group": run.run_group,
        "job_type": run.job_type,
        "notes": run.notes,
        "id": run.run_id,
        "tags": list(run.tags),
    }
    found.config["_wandb"] = {key: value for key, value in about.items() if value}
    found.directory = os.path.join(run.project or "uncategorized", _directory_of(run))  # noqa: PTH118 - a text
    _configure(run.config, found)


def _directory_of(run: Any) -> str:  # noqa: ANN401 - of wandb's protocol
    return f"{run.display_name}-{run.run_id}" if run.display_name else str(run.run_id)


def _configure(config: Any, found: Session) -> None:  # noqa: ANN401 - of wandb's protocol
    for item in config.update:
        path = list(item.nested_key) or [item.key]
        if path != ["_wandb"]:  # what its own version and platform are
            _put(found.config, path, item.value_json)
    for item in config.remove:
        found.config.pop(item.key, None)


def _lines(found: Session, records: Iterator[Any]) -> Iterator[Line]:
    last = found.started or 0.0
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            values = _items(record.history.item)
            step = _number(values.pop("_step", None), record.history.step.num)
            last = _number(values.pop("_timestamp", None), last)
            values.pop("_runtime", None)
            values.pop("_wandb", None)
            metrics = flattened(values, found.left_out)
            if metrics:
                yield Line("metrics", last, {"step": int(step), "metrics": metrics})
        elif kind == "stats":
            moment = record.stats.timestamp.seconds + record.stats.timestamp.nanos / 1e9
            figures = flattened(_items(record.stats.item), found.left_out)
            if figures:
                yield Line("system", moment, {"system": figures})
        elif kind in ("output", "output_raw"):
            yield from _output(getattr(record, kind), last)
        elif kind == "alert":
            level = _LEVELS.get(record.alert.level, "INFO")
            fields = {"level": level, "logger": "wandb", "message": record.alert.title}
            yield Line("log", last, {**fields, "context": {"text": record.alert.text}})
        elif kind == "config":
            _configure(record.config, found)
        elif kind == "exit":
            code = record.exit.exit_code
            found.end = "exception" if code else "closed"
            found.error = ("SystemExit", str(code)) if code else ("", "")
        elif kind in ("artifact", "files"):
            found.left_out[kind] += 1


def _number(value: object, otherwise: float) -> float:
    return value if type(value) in (int, float) and math.isfinite(value) else otherwise  # type: ignore[arg-type,return-value]


def _output(output: Any, last: float) -> Iterator[Line]:  # noqa: ANN401 - of wandb's protocol
    moment = (
        output.timestamp.seconds + output.timestamp.nanos / 1e9
        if output.timestamp.seconds
        else last
    )
    is_error = output.output_type == output.OutputType.Value("STDERR")
    for text in output.line.splitlines():
        if message := printable(text.rpartition("\r")[2]).strip():
            fields = {"level": "INFO", "logger": "stderr" if is_error else "stdout"}
            yield Line("log", moment, {**fields, "message": message, "context": {}})


def _items(items: Any) -> dict[str, Any]:  # noqa: ANN401 - of wandb's protocol
    """Return values by name, nested as they were logged."""
    found: dict[str, Any] = {}
    for item in items:
        _put(found, list(getattr(item, "nested_key", ())) or [item.key], item.value_json)
    return found


def _put(values: dict[str, Any], path: list[str], text: str) -> None:
    for name in path[:-1]:
        inner = values.get(name)
        if not isinstance(inner, dict):
            inner = values[name] = {}
        values = inner
    try:
        values[path[-1]] = json.loads(text)  # takes NaN and Infinity, as wandb writes them
    except ValueError:  # damaged; left out, and counted as other lists are
        values[path[-1]] = [text]


def _records(path: Path, begin: int) -> Iterator[tuple[bytes, int]]:
    """Yield the records from a place on, each with the place behind it; the last may be cut off."""
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read()
    at, parts = 0, b""
    while at + _FRAGMENT.size <= len(data):
        room = _BLOCK - (begin + at) % _BLOCK
        if room < _FRAGMENT.size:  # the end of a block is padded
            at += room
            continue
        _, length, kind = _FRAGMENT.unpack_from(data, at)
        at += _FRAGMENT.size
        if kind == 0 or at + length > len(data):
            return
        parts += data[at : at + length]
        at += length
        if kind in (1, 4):
            yield parts, begin + at
            parts = b""
