"""Sends rows to event files of TensorBoard, one for each rank.

A file is cut back to the size that was noted with the last rows before others are added, so none
is there twice. Where a later start takes over, or a program went back, TensorBoard is told by the
start of a session, and hides what was recorded before for that step and later ones.
"""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundry_fastlog.base.extras import extra
from foundry_fastlog.reading.run import Run
from foundry_fastlog.sinks.sync_rows import Row, SyncError

__all__ = ["TensorBoardTarget"]


class TensorBoardTarget:
    """Event files.

    Args:
        directory: Where they are. Default: ``RUN/tensorboard``.
    """

    rate: float | None = None

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._given = directory
        self._begun: set[str] = set()  # names of files below the directory

    def open(self, run: Run, known: dict[str, Any]) -> int:
        """Cut the files back to what was noted of them."""
        with extra("export", "tensorboard"):
            import tensorboard  # noqa: F401 - whether it is there
        self._known = known
        if self._given is not None:
            known["elsewhere"] = os.path.abspath(self._given)  # noqa: PTH100 - links keep their names
        # Else in the run, wherever that is now.
        self._place = Path(known.get("elsewhere") or run.path / "tensorboard").absolute()
        known["directory"] = str(self._place)
        # Names of files are known before there are any: who is killed then finds them again. A
        # number where others have a time keeps them in order.
        number = len(list(self._place.rglob("events.out.tfevents.*")))
        name = f"events.out.tfevents.{number:010d}.{socket.gethostname()}.fastlog"
        self._name = known.setdefault("name", name)
        sizes: dict[str, int] = known.setdefault("sizes", {})
        known.setdefault("starts", {})
        known.setdefault("steps", {})
        for name, size in sizes.items():
            path = self._place / name
            if not path.is_file() or path.stat().st_size < size:
                raise SyncError(
                    f"{path} is not there or was cut, and rows that were sent with it: remove "
                    ".sync/tensorboard.json in the run, or the file of --state, to send all again"
                )
            try:
                os.truncate(path, size)
            except OSError as error:
                raise SyncError(f"event files cannot be written: {error}") from error
            self._begun.add(name)
        return int(known.setdefault("rows", 0))

    def send(self, rows: list[Row]) -> None:
        """Append events."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        pending: dict[str, io.BytesIO] = {}
        for row in rows:
            rank = f"rank{row.rank}" if row.rank else ""
            name = os.path.join(rank, self._name)  # noqa: PTH118 - a text
            if name not in pending:
                pending[name] = self._new_events(name)
            writer = RecordWriter(pending[name])
            for event in self._events(rank, row):
                writer.write(event.SerializeToString())
        try:
            for name, events in pending.items():
                self._append(name, events.getvalue())
        except OSError as error:  # the next call begins with what was noted
            raise SyncError(f"event files cannot be written: {error}") from error

    def _new_events(self, name: str) -> io.BytesIO:
        """Return what is to be added to a file; a new one begins with its version."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        found = io.BytesIO()
        if name not in self._begun:
            writer = RecordWriter(found)
            writer.write(Event(file_version="brain.Event:2").SerializeToString())
            # The first one is no restart: only those that follow hide what was before.
            session = SessionLog(status=SessionLog.START)
            writer.write(Event(session_log=session).SerializeToString())
        return found

    def _append(self, name: str, data: bytes) -> None:
        path = self._place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # One that is there already, and nobody has noted, is of a sender that was killed.
        with path.open("ab" if name in self._begun else "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._begun.add(name)

    def confirmed(self, number: int) -> int:
        """Note how large the files are."""
        for name in self._begun:
            self._known["sizes"][name] = (self._place / name).stat().st_size
        self._known["rows"] = number
        return number

    def close(self, state: str) -> None:
        """Do nothing: event files do not say how a run ended."""

    def _events(self, rank: str, row: Row) -> Iterator[Any]:
        """Yield the events of a row."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        steps, starts = self._known["steps"], self._known["starts"]
        step = row.step if row.step is not None else steps.get(rank, 0)
        goes_back = row.stream == "rewind" or (
            row.stream == "metrics" and row.start > starts.get(rank, row.start)
        )
        if goes_back:
            session = SessionLog(status=SessionLog.START)
            yield Event(wall_time=row.time, step=step, session_log=session)
        if row.stream != "system":
            starts[rank], steps[rank] = row.start, step
        values = [_value(f"{row.group}{name}", value) for name, value in row.values.items()]
        known = [value for value in values if value is not None]
        if known:
            yield Event(wall_time=row.time, step=step, summary=Summary(value=known))


def _value(tag: str, value: object) -> Any:  # noqa: ANN401 - of TensorBoard's protocol
    """Return a value as a summary has it, with all its digits; None of what is none."""
    import numpy as np
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar import metadata as scalar
    from tensorboard.plugins.text import metadata as text
    from tensorboard.util.tensor_util import make_tensor_proto

    if isinstance(value, str):
        tensor = make_tensor_proto(np.array([value.encode(errors="replace")], dtype=object))
        about = text.create_summary_metadata(display_name="", description="")
        return Summary.Value(tag=f"{tag}/text_summary", tensor=tensor, metadata=about)
    if not isinstance(value, (int, float)):
        return None
    tensor = make_tensor_proto(np.float64(value))
    about = scalar.create_summary_metadata(display_name="", description="")
    return Summary.Value(tag=tag, tensor=tensor, metadata=about)
