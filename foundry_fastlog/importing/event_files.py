"""Reads directories of TensorBoard: each one that has event files is a run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundry_fastlog.base.extras import extra
from foundry_fastlog.importing.session import Line, Session

__all__ = ["find_event_directories", "read_event_directory"]

_EVENTS = "events.out.tfevents."
_HPARAMS = "_hparams_/session_start_info"


def find_event_directories(source: Path) -> list[Path]:
    """List the directories with event files, the given one and those below it."""
    if source.is_file():
        return [source] if _EVENTS in source.name else []
    return sorted({path.parent for path in source.rglob(f"*{_EVENTS}*")})


def read_event_directory(path: Path, root: Path) -> list[Session]:
    """Read what the event files of a directory say: each file is a start.

    Args:
        path: The directory, or one event file.
        root: The directory of all, from which on its name counts.

    Raises:
        ImportError: tensorboard is not installed.
    """
    with extra("export", "tensorboard"):
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    files = (
        [path] if path.is_file() else sorted(path.glob(f"*{_EVENTS}*"), key=lambda one: one.name)
    )
    name = os.path.relpath(path.parent if path.is_file() else path, root)
    known = root.absolute().name if name == "." else name
    found = []
    for file in files:
        session = Session(name=known, key=known, lines=iter(()), directory=known)
        session.host = file.name.partition(_EVENTS)[2].partition(".")[2].split(".")[0]
        session.lines = _lines(file, EventFileLoader(str(file)).Load(), session)
        found.append(session)
    return found


def _lines(path: Path, events: Iterator[Any], session: Session) -> Iterator[Line]:
    from tensorboard.compat.proto.event_pb2 import SessionLog
    from tensorboard.util import tensor_util

    left_out: Counter[str] = session.left_out
    count, any_metrics = 0, False
    for event in events:
        count += 1
        metrics: dict[str, Any] = {}
        if any_metrics and event.session_log.status == SessionLog.START:
            # A program that went back: TensorBoard hides what was before, as a rewind does.
            yield Line("metrics", event.wall_time, {"rewind": event.step})
        for value in event.summary.value:
            plugin = value.metadata.plugin_data.plugin_name
            if plugin == "scalars" and value.HasField("tensor"):
                found = tensor_util.make_ndarray(value.tensor)
                if found.size == 1 and isinstance(found.item(), (bool, int, float)):
                    metrics[value.tag] = found.item()
                else:
                    left_out["array"] += 1
            elif plugin == "text":
                texts = tensor_util.make_ndarray(value.tensor).ravel().tolist()
                for text in texts:
                    said = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
                    tag = value.tag.removesuffix("/text_summary")
                    yield _message(event, said, tag)
            elif value.tag == _HPARAMS:
                session.config |= _hyperparameters(value)
            elif plugin != "hparams":
                left_out[plugin or "value"] += 1
        if metrics:
            any_metrics = True
            yield Line("metrics", event.wall_time, {"step": event.step, "metrics": metrics})
    # TensorBoard's reader ends in silence at a record that is damaged or cut off.
    left_out["byte behind the last whole record"] += path.stat().st_size - _size_of(path, count)


def _size_of(path: Path, count: int) -> int:
    """Return of how many bytes some records are: length, checksum, the event and its checksum."""
    at = 0
    with path.open("rb") as file:
        for _ in range(count):
            file.seek(at)
            at += int.from_bytes(file.read(8), "little") + 16
    return at


def _message(event: Any, said: str, tag: str) -> Line:  # noqa: ANN401 - of TensorBoard's protocol
    fields = {"level": "INFO", "logger": "tensorboard", "step": event.step, "message": said}
    return Line("log", event.wall_time, {**fields, "context": {"tag": tag}})


def _hyperparameters(value: Any) -> dict[str, Any]:  # noqa: ANN401 - of TensorBoard's protocol
    from tensorboard.plugins.hparams import plugin_data_pb2

    data = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
    found: dict[str, Any] = {}
    for name, setting in data.session_start_info.hparams.items():
        kind = setting.WhichOneof("kind")
        found[name] = (
            getattr(setting, kind)
            if kind in ("number_value", "string_value", "bool_value")
            else None
        )
    return found
