"""Write runs as event files for TensorBoard.

By TensorBoard's own record writer and messages, which need no TensorFlow. Its ``EventFileWriter``
passes each event through a thread, which makes it four times slower; tensorboardX imports
torch where that is installed, and writes the same bytes.
"""

from __future__ import annotations

import ctypes
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from foundry_fastlog.export.blocks import nanoseconds_of
from foundry_fastlog.export.result import NamedRun, Tally
from foundry_fastlog.reading.lines import Record
from foundry_fastlog.run.files import Series, Writer

if TYPE_CHECKING:  # an optional package
    from tensorboard.compat.proto.event_pb2 import (
        Event,
    )

__all__ = ["is_event_file", "write_events"]

_PENDING_BYTES = 1 << 20
_EXACT = 1 << 53  # up to here every integer is a double


def is_event_file(name: str) -> bool:
    """Return whether an export to TensorBoard writes a file of this name."""
    return name.startswith("events.out.tfevents.")


def write_events(
    runs: Sequence[NamedRun], streams: Sequence[str], directory: Path, tally: Tally
) -> None:
    """Write event files: a directory for each rank of each run, which TensorBoard shows as a run.

    Args:
        runs: The runs.
        streams: Their streams.
        directory: Receives ``NAME/rankN``.
        tally: Counts rows, and what TensorBoard cannot hold.
    """
    tally.remark("TensorBoard's scalars are 32-bit floats")
    for one in runs:
        files: dict[int, _EventFile] = {}
        steps: dict[Writer, int] = {}
        for series, record in one.lines(streams, tally):
            rank = series.writer.rank
            event = _event(series, record, steps, tally)
            if rank not in files:
                wall_time = event.wall_time
                files[rank] = _EventFile(directory / one.name / f"rank{rank}", wall_time)
                if len(files) == 1 and (config := _config(one)):
                    files[rank].write(_hparams(one, config, wall_time))
            if event.summary.value:
                files[rank].write(event)
        for file in files.values():
            file.flush()


class _EventFile:
    """An event file, which is open only while it is written: ranks may be many."""

    def __init__(self, directory: Path, wall_time: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        directory.mkdir(parents=True)
        self._path = directory / f"events.out.tfevents.{int(wall_time):010d}.fastlog"
        self._pending = io.BytesIO()
        self._records = RecordWriter(self._pending)
        self.write(Event(wall_time=wall_time, file_version="brain.Event:2"))

    def write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        if self._pending.tell() >= _PENDING_BYTES:
            self.flush()

    def flush(self) -> None:
        with self._path.open("ab") as file:
            file.write(self._pending.getvalue())
        self._pending.seek(0)
        self._pending.truncate()


def _event(series: Series, record: Record, steps: dict[Writer, int], tally: Tally) -> Event:
    """Return a line as an event. One without a step has the last one of its process."""
    from tensorboard.compat.proto.event_pb2 import Event

    if type(record.get("step")) is int:
        steps[series.writer] = record["step"]
    step = steps.get(series.writer, 0)
    if "summary" in record:
        step = _epoch(record, step, tally)
    event = Event(wall_time=nanoseconds_of(record["timestamp"]) / 1e9, step=step)
    for tag, value in _values(series.stream, record):
        _add(event, tag, value, tally)
    return event


def _epoch(record: Record, step: int, tally: Tally) -> int:
    """Return the epoch of a summary, which is its step here."""
    epoch = record.get("epoch")
    if type(epoch) is int:
        return epoch
    tally.note("epochs that are no integers, rounded down to steps")
    return int(epoch) if isinstance(epoch, float) and abs(epoch) < _EXACT else step


def _values(stream: str, record: Record) -> Iterator[tuple[str, Any]]:
    """Yield what a line holds, by tags."""
    if stream == "performance":
        yield f"timing/{record['name']}", record["duration_s"]
        if "device" in record:
            yield f"timing/{record['name']} ({record['device']})", record.get("device_duration_s")
    elif stream == "system":
        for name, value in record["system"].items():
            yield f"system/{name}", value
    elif stream == "metrics":
        yield from record.get("metrics", {}).items()
        for name, value in record.get("summary", {}).items():
            yield f"{name} (epoch)", value
    else:
        yield stream, _markdown(record)


def _add(event: Event, tag: str, value: object, tally: Tally) -> None:
    from tensorboard.plugins.text.summary_v2 import (
        text_pb,
    )

    if isinstance(value, str):
        event.summary.MergeFrom(text_pb(tag, value))
    elif isinstance(value, (bool, int, float)):
        if isinstance(value, int):
            if ctypes.c_float(value).value != value:
                tally.note("integers rounded to 32-bit floats")
        elif abs(value) != float("inf") and abs(ctypes.c_float(value).value) == float("inf"):
            tally.note("floats beyond 32-bit floats, infinite there")
        event.summary.value.add(tag=tag, simple_value=value)
    else:
        tally.note("values that are null or never arrived, left out")


def _markdown(record: Record) -> str:
    """Return a message as TensorBoard's text panel shows it."""
    said = f"**{record['level']}** {record['logger']}: {record['message']}"
    details = []
    if record.get("traceback"):
        details.append(record["traceback"])
    if record.get("context"):
        details.append(orjson.dumps(record["context"]).decode())
    return "\n\n".join([said, *(_block(text) for text in details)])


def _block(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _config(one: NamedRun) -> dict[str, Any]:
    """Return the newest configuration of a run, flat."""
    config = one.run.info.get("config")
    found: dict[str, Any] = {}

    def flatten(value: object, name: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                flatten(item, f"{name}.{key}" if name else str(key))
        elif isinstance(value, (bool, float, str)) or (
            isinstance(value, int) and abs(value) <= _EXACT
        ):
            found[name] = value
        else:
            found[name] = orjson.dumps(value).decode()

    flatten(config if isinstance(config, dict) else {}, "")
    return found


def _hparams(one: NamedRun, config: dict[str, Any], wall_time: float) -> Event:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams.summary_v2 import (
        hparams_pb,
    )

    summary = hparams_pb(config, trial_id=one.name, start_time_secs=wall_time)
    return Event(wall_time=wall_time, summary=summary)
