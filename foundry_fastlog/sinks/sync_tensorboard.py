"""Sends rows to event files of TensorBoard, one for each rank.

A file is cut back to the size that was noted with the last rows before others are added, so none
is there twice. Where a later start takes over, or a program went back, TensorBoard is told by the
start of a session, and hides what was recorded before for that step and later ones.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

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
        self._files: dict[str, BinaryIO] = {}

    def open(self, run: Run, known: dict[str, Any]) -> int:
        """Cut the files back to what was noted of them."""
        with extra("export", "tensorboard"):
            import tensorboard  # noqa: F401 - whether it is there
        self._known = known
        self._place = Path(
            self._given or known.get("directory") or run.path / "tensorboard"
        ).absolute()
        known["directory"] = str(self._place)
        sizes: dict[str, int] = known.setdefault("sizes", {})
        known.setdefault("starts", {})
        known.setdefault("steps", {})
        for name, size in sizes.items():
            path = self._place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("r+b" if path.exists() else "w+b")
            file.truncate(size)
            file.seek(0, os.SEEK_END)
            self._files[str(path.parent.name if path.parent != self._place else "")] = file
        return int(known.setdefault("rows", 0))

    def send(self, rows: list[Row]) -> None:
        """Append events."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        try:
            for row in rows:
                rank = f"rank{row.rank}" if row.rank else ""
                writer = RecordWriter(self._file(rank))
                for event in self._events(rank, row):
                    writer.write(event.SerializeToString())
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:  # the next call begins with what was noted
            raise SyncError(f"event files cannot be written: {error}") from error

    def confirmed(self, number: int) -> int:
        """Note how large the files are."""
        self._measure()
        self._known["rows"] = number
        return number

    def _measure(self) -> None:
        for file in self._files.values():
            self._known["sizes"][os.path.relpath(file.name, self._place)] = file.tell()

    def close(self, state: str) -> None:  # noqa: ARG002 - event files do not say it
        """Close the files, once their sizes are known."""
        self._measure()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, rank: str) -> BinaryIO:
        """Return the file of a rank; a new one begins with its version and a session's start."""
        if rank not in self._files:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.summary.writer.record_writer import RecordWriter

            place = self._place / rank
            place.mkdir(parents=True, exist_ok=True)
            # A number where others have a time: it keeps the files in order.
            number = len(list(place.glob("events.out.tfevents.*")))
            name = f"events.out.tfevents.{number:010d}.{socket.gethostname()}.fastlog"
            self._files[rank] = (place / name).open("w+b")
            writer = RecordWriter(self._files[rank])
            writer.write(Event(file_version="brain.Event:2").SerializeToString())
            # The first one is no restart: only those that follow hide what was before.
            session = SessionLog(status=SessionLog.START)
            writer.write(Event(session_log=session).SerializeToString())
        return self._files[rank]

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
