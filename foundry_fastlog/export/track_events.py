"""Write runs as traces of Perfetto's own format, TrackEvent: blocks, curves and messages.

A process in the trace is a writer of a run, and a thread is one of its threads. Metrics and figures
of the machine are counters, messages and texts are instants.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from foundry_fastlog.export.blocks import (
    Lanes,
    ThreadBlocks,
    duration_of,
    nanoseconds_of,
    natural,
    process_ids,
)
from foundry_fastlog.export.result import NamedRun, Tally
from foundry_fastlog.reading.lines import Record
from foundry_fastlog.run.files import Series, Writer

if TYPE_CHECKING:  # an optional package
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
        TracePacket,
    )

__all__ = ["write_track_events"]

_SEQUENCE = 1  # all packets are of one
_MOST_TID = (1 << 31) - 1  # a thread's id has 32 bits in the format, on macOS it has 64
_ARGUMENTS = ("step", "error", "device_duration_s", "missing")
_DEVICE_NOTE = (
    "a block's device time begins with the block, or when the device was done with the one before: "
    "no line says when it began"
)


def write_track_events(
    runs: Sequence[NamedRun], streams: Sequence[str], handle: BinaryIO, tally: Tally
) -> None:
    """Write a trace.

    Args:
        runs: The runs.
        streams: Their streams.
        handle: Receives the trace.
        tally: Counts rows, and what a trace cannot hold.
    """
    trace = _Trace(handle)
    pids = itertools.count(1)
    for one in runs:
        mains = set(process_ids(one.run))
        processes: dict[Writer, _Process] = {}
        for series, record in one.lines(streams, tally):
            writer = series.writer
            process = processes.get(writer)
            if process is None:
                name = f"{one.name} rank {writer.rank}: {writer.display}"
                main = {pid for found, pid in mains if found == writer}
                process = processes[writer] = _Process(trace, next(pids), name, main, tally)
            process.add(series, record)


class _Trace:
    """The packets of a trace, each written at once."""

    def __init__(self, handle: BinaryIO) -> None:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos
        from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

        self._builder = StreamingTraceProtoBuilder(handle)
        self._uuids = itertools.count(1)
        self._began = False
        self.protos = protos

    def track(self, parent: int | None, describe: Callable[[Any], object]) -> int:
        """Describe a track; return its number."""
        packet = self._packet()
        descriptor = packet.track_descriptor
        descriptor.uuid = next(self._uuids)
        if parent is not None:
            descriptor.parent_uuid = parent
        describe(descriptor)
        self._builder.write_packet(packet)
        number: int = descriptor.uuid
        return number

    def event(self, track: int, kind: str, time: int, **fields: Any) -> None:  # noqa: ANN401
        """Write an event: its kind, its time in nanoseconds, fields of ``TrackEvent``."""
        if not self._began:
            self._tell_time(time)
        packet = self._packet()
        packet.timestamp = time
        arguments = fields.pop("arguments", {})
        event = packet.track_event
        event.type = getattr(self.protos.TrackEvent, f"TYPE_{kind}")
        event.track_uuid = track
        for name, value in fields.items():
            setattr(event, name, value)
        for name, value in arguments.items():
            _annotate(event.debug_annotations.add(name=name), value)
        self._builder.write_packet(packet)

    def _tell_time(self, time: int) -> None:
        """Say that times are those of the wall clock, so that dates can be shown."""
        clocks = self.protos.BuiltinClock
        packet = self._packet()
        for clock in (clocks.BUILTIN_CLOCK_BOOTTIME, clocks.BUILTIN_CLOCK_REALTIME):
            packet.clock_snapshot.clocks.add(clock_id=clock, timestamp=time)
        self._builder.write_packet(packet)
        self._began = True

    def _packet(self) -> TracePacket:
        packet = self._builder.create_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        return packet


class _Process:
    """A writer of a run, with a track for each of its threads, devices and metrics."""

    def __init__(self, trace: _Trace, pid: int, name: str, main: set[int], tally: Tally) -> None:
        self._trace = trace
        self._pid = pid
        self._main = main
        self._tally = tally
        self._threads: dict[int, _Thread] = {}
        self._devices: dict[str, _Thread] = {}
        self._tracks: dict[tuple[str, str], int] = {}

        def describe(descriptor: Any) -> None:  # noqa: ANN401 - a message of protobuf
            descriptor.process.pid = pid
            descriptor.process.process_name = name

        self._track = trace.track(None, describe)

    def add(self, series: Series, record: Record) -> None:
        """Write a line."""
        time = nanoseconds_of(record["timestamp"])
        if series.stream == "performance":
            self._block(record, time)
        elif series.stream in ("errors", "log"):
            self._message(series.stream, record, time)
        else:
            for field, ending in (
                ("metrics", ""),
                ("summary", " (epoch)"),
                ("system", " (system)"),
            ):
                for name, value in record.get(field, {}).items():
                    self._value(name + ending, value, time)

    def _block(self, record: Record, end: int) -> None:
        tid = natural(record.get("thread"), (1 << 64) - 1)
        if tid not in self._threads:
            name = "main thread" if tid in self._main else f"thread {tid}"
            self._threads[tid] = _Thread(self._trace, self._track, name, self._pid, tid)
        depth = natural(record.get("depth"))
        begin = end - duration_of(record)
        arguments = {key: record[key] for key in _ARGUMENTS if record.get(key) is not None}
        self._threads[tid].add(record["name"], depth, begin, end, arguments)
        if type(record.get("device_duration_s")) is float:
            self._device_block(record, depth, begin)

    def _device_block(self, record: Record, depth: int, begin: int) -> None:
        self._tally.remark(_DEVICE_NOTE)
        device = str(record["device"])
        if device not in self._devices:
            self._devices[device] = _Thread(self._trace, self._track, device)
        track = self._devices[device]
        begin = max(begin, track.free_from(depth))
        end = begin + duration_of(record, "device_duration_s")
        arguments = {} if record.get("step") is None else {"step": record["step"]}
        track.add(record["name"], depth, begin, end, arguments)

    def _value(self, name: str, value: object, time: int) -> None:
        if isinstance(value, (bool, int)):
            self._trace.event(self._named(name), "COUNTER", time, counter_value=int(value))
        elif isinstance(value, float) and math.isfinite(value):
            self._trace.event(self._named(name), "COUNTER", time, double_counter_value=value)
        elif isinstance(value, float):
            self._tally.note("values that are NaN or infinite, instants there as texts are")
            self._trace.event(self._named(name, instants=True), "INSTANT", time, name=str(value))
        elif isinstance(value, str):
            self._trace.event(self._named(name, instants=True), "INSTANT", time, name=value)
        else:
            self._tally.note("values that are null or never arrived, left out")

    def _message(self, stream: str, record: Record, time: int) -> None:
        arguments = {
            key: value
            for key, value in record.items()
            if key not in ("timestamp", "seq", "message", "nonfinite") and value not in (None, {})
        }
        name = record["message"] or record.get("error_type") or stream
        track = self._named(stream, instants=True)
        self._trace.event(track, "INSTANT", time, name=name, arguments=arguments)

    def _named(self, name: str, *, instants: bool = False) -> int:
        """Return the track of a metric, or of its texts."""
        key = ("instants" if instants else "counter", name)
        if key not in self._tracks:

            def describe(descriptor: Any) -> None:  # noqa: ANN401 - a message of protobuf
                descriptor.name = name
                if not instants:
                    descriptor.counter.SetInParent()

            self._tracks[key] = self._trace.track(self._track, describe)
        return self._tracks[key]


class _Thread:
    """A thread or a device: its blocks, on as many tracks as it takes for them to nest."""

    def __init__(
        self, trace: _Trace, process: int, name: str, pid: int = 0, tid: int | None = None
    ) -> None:
        self._trace = trace
        self._process = process
        self._name = name
        self._pid = pid
        self._tid = tid
        self._blocks = ThreadBlocks(apart=1)
        self._lanes = Lanes()
        self._tracks: list[int] = []
        self._ends: list[int] = []  # per depth, the end of its latest block

    def free_from(self, depth: int) -> int:
        """Return when the latest block at a depth, or further out, ended."""
        return max(self._ends[: depth + 1], default=0)

    def add(self, name: str, depth: int, begin: int, end: int, arguments: dict[str, Any]) -> None:
        """Write a block, after those inside it."""
        begin, end = self._blocks.place(depth, begin, end)
        lane = self._lanes.choose(depth, begin, end)
        if lane == len(self._tracks):
            self._tracks.append(self._new_track(lane))
        self._ends += [0] * (depth + 1 - len(self._ends))
        self._ends[depth] = end
        track = self._tracks[lane]
        self._trace.event(track, "SLICE_BEGIN", max(0, begin), name=name, arguments=arguments)
        self._trace.event(track, "SLICE_END", max(0, end))

    def _new_track(self, lane: int) -> int:
        def describe(descriptor: Any) -> None:  # noqa: ANN401 - a message of protobuf
            if lane or self._tid is None or self._tid > _MOST_TID:
                descriptor.name = f"{self._name} ({lane + 1})" if lane else self._name
            else:
                descriptor.thread.pid = self._pid
                descriptor.thread.tid = self._tid
                descriptor.thread.thread_name = self._name

        return self._trace.track(self._process, describe)


def _annotate(annotation: Any, value: object) -> None:  # noqa: ANN401 - a message of protobuf
    """Set an argument that people see beside an event."""
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        annotation.int_value = value
    elif isinstance(value, float):
        annotation.double_value = value
    elif isinstance(value, str):
        annotation.string_value = value
    else:
        annotation.string_value = orjson.dumps(value).decode()
