"""Write runs in the OTLP JSON encoding: JSON lines, a file for each signal.

Metrics and figures of the machine are gauges, messages and errors are log records, timed blocks are
spans: a trace for each outermost block, with what is inside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from foundry_fastlog._version import __version__
from foundry_fastlog.base.formatting import text_of
from foundry_fastlog.export.blocks import duration_of, nanoseconds_of, natural
from foundry_fastlog.export.otlp_values import any_value, attributes_of, data_point, log_record
from foundry_fastlog.export.result import NamedRun, Tally
from foundry_fastlog.reading.lines import Record
from foundry_fastlog.run.files import Series, Writer
from foundry_fastlog.run.start_entries import has_begun

__all__ = ["is_signal_file", "write_otlp"]

_FILES = {
    "resourceMetrics": "otlp_metrics.jsonl",
    "resourceLogs": "otlp_logs.jsonl",
    "resourceSpans": "otlp_traces.jsonl",
}
_PENDING = 10_000  # points, records and spans of all processes
_INTERNAL = 1  # the kind of a span
_ERROR = 2  # the code of a span's status
_BITS = (1 << 64) - 1
# Attributes of a resource that name one machine or process
# (https://opentelemetry.io/docs/specs/semconv/resource/).
_OF_A_PROCESS = (
    *("host.", "process.", "container.", "service.instance."),
    *("k8s.container.", "k8s.node.", "k8s.pod."),
)
_UNNAMED = "unknown_service"  # what an SDK calls a service without a name


def is_signal_file(name: str) -> bool:
    """Return whether an export in OTLP writes a file of this name."""
    return name in _FILES.values()


def write_otlp(
    runs: Sequence[NamedRun], streams: Sequence[str], directory: Path, tally: Tally
) -> None:
    """Write ``otlp_metrics.jsonl``, ``otlp_logs.jsonl`` and ``otlp_traces.jsonl``.

    Args:
        runs: The runs.
        streams: Their streams. A signal of which there is nothing gets no file.
        directory: Receives the files.
        tally: Counts rows, and what is in another place than it was.
    """
    with ExitStack() as stack:
        signals = _Signals(directory, stack)
        for one in runs:
            resources = _resources(one)
            processes: dict[Writer, _Process] = {}
            for series, record in one.lines(streams, tally):
                writer = series.writer
                if writer not in processes:
                    resource = {"attributes": attributes_of(resources[writer])}
                    processes[writer] = _Process(one.name, writer, {"resource": resource}, tally)
                signals.pending += processes[writer].add(series, record)
                if signals.pending >= _PENDING:
                    signals.write(processes.values())
            signals.write(processes.values())


class _Signals:
    """The files, each made when there is something for it.

    Attributes:
        pending: How many points, records and spans are to be written.
    """

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._files: dict[str, BinaryIO] = {}
        self.pending = 0

    def write(self, processes: Any) -> None:  # noqa: ANN401 - a view of a dict
        """Write what is pending: a line for each process and signal."""
        for process in processes:
            for signal, content in process.take():
                if signal not in self._files:
                    file = (self._directory / _FILES[signal]).open("xb")
                    self._files[signal] = self._stack.enter_context(file)
                self._files[signal].write(orjson.dumps({signal: [content]}) + b"\n")
        self.pending = 0


class _Process:
    """What a writer of a run has recorded, in the messages of OTLP."""

    def __init__(self, name: str, writer: Writer, resource: Any, tally: Tally) -> None:  # noqa: ANN401
        self._resource = resource
        self._tally = tally
        self._identity = f"{name}\n{writer.label}\n{writer.stamp}"
        self._points: dict[str, list[Any]] = {}
        self._records: dict[str, list[Any]] = {}
        self._spans: list[Any] = []
        self._threads: dict[int, _Thread] = {}

    def add(self, series: Series, record: Record) -> int:
        """Take in a line; return how many points, records or spans it is."""
        time = nanoseconds_of(record["timestamp"])
        if series.stream == "performance":
            self._spans.append(self._span(record, time))
        elif series.stream in ("errors", "log"):
            made = log_record(record, time)
            self._records.setdefault(text_of(record.get("logger")), []).append(made)
        else:
            return self._measures(record, time)
        return 1

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what was taken in since the last call, by signal."""
        ours = {"name": "foundry_fastlog", "version": __version__}
        found = []
        if self._points:
            gauges = [
                {"name": name, "gauge": {"dataPoints": points}}
                for name, points in self._points.items()
            ]
            scope = {"scope": ours, "metrics": gauges}
            found.append(("resourceMetrics", {**self._resource, "scopeMetrics": [scope]}))
        if self._records:
            scopes = [
                {"scope": {"name": logger} if logger else ours, "logRecords": records}
                for logger, records in self._records.items()
            ]
            found.append(("resourceLogs", {**self._resource, "scopeLogs": scopes}))
        if self._spans:
            scope = {"scope": ours, "spans": self._spans}
            found.append(("resourceSpans", {**self._resource, "scopeSpans": [scope]}))
        self._points, self._records, self._spans = {}, {}, []
        return found

    def _measures(self, record: Record, time: int) -> int:
        places = {key: record[key] for key in ("step", "epoch") if record.get(key) is not None}
        count = 0
        for field, start, end in (
            ("metrics", "", ""),
            ("summary", "", " (epoch)"),
            ("system", "system.", ""),
        ):
            for name, value in record.get(field, {}).items():
                name = f"{start}{name}{end}"
                count += 1
                if isinstance(value, str):
                    self._tally.note("texts of metrics, written as log records")
                    made = {
                        "timeUnixNano": str(time),
                        "body": any_value(value),
                        "attributes": attributes_of({"metric": name, **places}),
                    }
                    self._records.setdefault("", []).append(made)
                    continue
                if value is None:
                    self._tally.note(
                        "values that are null or never arrived, points without a value"
                    )
                point = data_point(value, time, attributes_of(places))
                self._points.setdefault(name, []).append(point)
        return count

    def _span(self, record: Record, end: int) -> dict[str, Any]:
        tid = natural(record.get("thread"), _BITS)
        thread = self._threads.get(tid)
        if thread is None:
            thread = self._threads[tid] = _Thread(f"{self._identity}\n{tid}")
        parent = text_of(record.get("parent"))
        trace, span, above = thread.place(natural(record.get("depth")), record["name"], parent)
        facts = {
            key: record[key]
            for key in ("step", "device", "device_duration_s", "missing")
            if record.get(key) is not None
        }
        return {
            "traceId": trace,
            "spanId": span,
            **({"parentSpanId": above} if above else {}),
            "name": record["name"],
            "kind": _INTERNAL,
            "startTimeUnixNano": str(max(0, end - duration_of(record))),
            "endTimeUnixNano": str(end),
            "attributes": attributes_of({**facts, "thread.id": tid}),
            **(
                {"status": {"code": _ERROR, "message": record["error"]}}
                if "error" in record
                else {}
            ),
        }


class _Thread:
    """Gives the blocks of a thread their ids. Those inside a block come before it."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._count = 0
        self._trace = ""
        self._awaited: dict[tuple[int, str], str] = {}  # by depth and name, the id of a parent

    def place(self, depth: int, name: str, parent: str) -> tuple[str, str, str]:
        """Return the ids of a block's trace, of itself and of its parent, ``""`` for none."""
        trace = self._trace = self._trace or self._new(16)
        span = self._awaited.pop((depth, name), "") or self._new(8)
        above = ""
        if depth:
            key = (depth - 1, parent)
            above = self._awaited[key] = self._awaited.get(key) or self._new(8)
        else:
            self._trace = ""
            self._awaited.clear()
        return trace, span, above

    def _new(self, size: int) -> str:
        """Return a new id in hexadecimal digits, the same at each export."""
        self._count += 1
        text = f"{self._identity}\n{self._count}".encode("utf-8", "backslashreplace")
        return hashlib.blake2b(text, digest_size=size).hexdigest()


def _resources(one: NamedRun) -> dict[Writer, dict[str, Any]]:
    """Return what each process of a run is said to be, by the entry of its start.

    An entry is written by the process that began the start. Others of the start have what it says
    of the service, and not what it says of a machine or a process.
    """
    run = one.run
    entries = {report.number: report.entry for report in run.report_starts()}
    found = {}
    for writer in run.writers:
        start = run.number_of(writer)
        entry = entries.get(start, {})
        began = has_begun(writer, entry) and not writer.children
        known = entry.get("resource")
        facts = {
            key: value
            for key, value in (known if isinstance(known, dict) else {}).items()
            if began or not key.startswith(_OF_A_PROCESS)
        }
        if text_of(facts.get("service.name")).startswith(_UNNAMED):
            del facts["service.name"]
        host = {"host.name": entry["host"]} if began and text_of(entry.get("host")) else {}
        name = text_of(run.info.get("name")) or one.name
        ours = {"run": one.name, "rank": writer.rank, "start": start, "label": writer.label}
        found[writer] = {"service.name": name, **host, **facts, **ours}
    return found
