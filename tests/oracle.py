"""The oracle: one slow, obvious, stdlib-only writer of a run directory.

It follows ``docs/format.md`` line by line with ``json`` and ``open``, so that the
readers can be tested without the recorder, and the recorder against it.
"""

from __future__ import annotations

import json
import math
import os
import traceback
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

START = datetime(2026, 1, 30, 14, 32, 15, 123456, tzinfo=timezone.utc)


def stamp_text(moment: datetime) -> str:
    """Write a moment as the format does: UTC, six decimals, ``Z``."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def text(value: str) -> str:
    """Turn lone surrogates into the text of their escape, as the recorder does."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Split values into what strict JSON can say, and the names of the others."""
    kept: dict[str, Any] = {}
    nonfinite: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            kept[text(key)] = None
            nonfinite[text(key)] = "nan" if value != value else "inf" if value > 0 else "-inf"
        else:
            kept[text(key)] = text(value) if isinstance(value, str) else value
    return kept, nonfinite


class OracleWriter:
    """Writes one writer's files of a run, which is made when missing.

    ``attempt`` is the number of its start, ``children`` are the ``w<pid>`` parts of a forked child,
    outermost first; a segment has ``segment_lines``, and a line is ``tick_s`` later than the last.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        *,
        rank: int = 0,
        attempt: int = 0,
        peer: int = 0,
        children: tuple[str, ...] = (),
        stamp: str = "",
        segment_lines: int = 1_000_000_000,
        start: datetime = START,
        tick_s: float = 0.001,
    ) -> None:
        self.run = Path(run)
        self.run.mkdir(parents=True, exist_ok=True)
        parts = [f"r{rank}"] if rank else []
        parts += [f"a{attempt}"] if attempt else []
        parts += [f"p{peer}"] if peer else []
        self.label = "-".join(parts + list(children))
        self.rank = rank
        self.attempt = attempt
        self.stamp = stamp
        self.segment_lines = segment_lines
        self.now = start
        self.tick = timedelta(seconds=tick_s)
        self.seq: dict[str, int] = {}
        self.in_segment: dict[str, int] = {}
        self.segment: dict[str, int] = {}
        self.path("metrics").touch()

    def path(self, stream: str) -> Path:
        """The segment of a stream that the next line goes to."""
        name = stream + (f"_{self.stamp}" if self.stamp else "")
        name += f".{self.label}" if self.label else ""
        number = self.segment.get(stream, 0)
        name += f".{number:06d}" if number else ""
        return self.run / f"{name}.jsonl"

    def write(self, stream: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Append one line, timestamp and seq before the fields; return it."""
        if self.in_segment.get(stream, 0) >= self.segment_lines:
            self.segment[stream] = self.segment.get(stream, 0) + 1
            self.in_segment[stream] = 0
        seq = self.seq.get(stream, 0)
        line = {"timestamp": stamp_text(self.now), "seq": seq, **fields}
        with self.path(stream).open("a", encoding="utf-8", newline="\n") as handle:
            handle.write(json.dumps(line, ensure_ascii=False, allow_nan=False))
            handle.write("\n")
        self.seq[stream] = seq + 1
        self.in_segment[stream] = self.in_segment.get(stream, 0) + 1
        self.now += self.tick
        return line

    def fill(self, steps: Iterable[int], **values: Any) -> OracleWriter:
        """Write a metrics line for each step."""
        for step in steps:
            self.metrics_dict(step, values or {"loss": 1.0})
        return self

    def metrics(self, step: int, epoch: float | None = None, **values: Any) -> dict[str, Any]:
        """Write a metrics line."""
        return self.metrics_dict(step, values, epoch)

    def metrics_dict(
        self,
        step: int,
        values: Mapping[str, Any],
        epoch: float | None = None,
        missing: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Write a metrics line with any key names; `missing` names values that never arrived."""
        kept, nonfinite = plain(values)
        fields: dict[str, Any] = {"step": step, "epoch": epoch, "metrics": kept}
        fields |= {"nonfinite": nonfinite or None, "missing": dict(missing or {}) or None}
        return self.write("metrics", {k: v for k, v in fields.items() if v is not None})

    def summary(self, epoch: float, **values: Any) -> dict[str, Any]:
        """Write an epoch summary."""
        kept, nonfinite = plain(values)
        found = {"nonfinite": nonfinite} if nonfinite else {}
        return self.write("metrics", {"epoch": epoch, "summary": kept, **found})

    def timing(
        self,
        name: str,
        duration_s: float,
        step: int | None = None,
        depth: int = 0,
        parent: str | None = None,
        thread: int = 4711,
        error: str | None = None,
        device: str | None = None,
        device_duration_s: float | str = 0.0,
    ) -> dict[str, Any]:
        """Write a timing; a text for the duration on the device says why it never arrived."""
        fields: dict[str, Any] = {"name": text(name), "duration_s": duration_s, "step": step}
        fields |= {"depth": depth, "parent": None if parent is None else text(parent)}
        fields |= {"thread": thread, "error": error, "device": device}
        fields = {key: value for key, value in fields.items() if value is not None}
        if isinstance(device_duration_s, str):
            fields["device_duration_s"] = None
            fields["missing"] = {"device_duration_s": device_duration_s}
        elif device is not None:
            fields["device_duration_s"] = device_duration_s
        return self.write("performance", fields)

    def log(
        self,
        message: str,
        *,
        level: str = "INFO",
        logger: str = "train",
        step: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write a message."""
        return self._message("log", level, logger, step, {"message": text(message)}, context)

    def _message(
        self,
        stream: str,
        level: str,
        logger: str,
        step: int | None,
        said: Mapping[str, Any],
        context: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        kept, nonfinite = plain(context or {})
        fields: dict[str, Any] = {"level": level, "logger": logger}
        fields |= {} if step is None else {"step": step}
        fields |= {**said, "context": kept, **({"nonfinite": nonfinite} if nonfinite else {})}
        return self.write(stream, fields)

    def error(
        self,
        message: str,
        error: BaseException,
        *,
        level: str = "ERROR",
        logger: str = "train",
        step: int | None = None,
        context: Mapping[str, Any] | None = None,
        fingerprint: str = "0123456789abcdef",
    ) -> dict[str, Any]:
        """Write an exception."""
        said = {
            "message": text(message),
            "error_type": type(error).__name__,
            "error_message": text(str(error)),
            "traceback": text("".join(traceback.format_exception(error))),
            "fingerprint": fingerprint,
        }
        return self._message("errors", level, logger, step, said, context)

    def nonfinite(self, key: str, value: str, step: int) -> dict[str, Any]:
        """Write the event of a metric that became NaN or infinite."""
        fields: dict[str, Any] = {"level": "WARNING", "logger": "foundry_fastlog"}
        fields["message"] = f"{text(key)} became {value} at step {step}"
        fields |= {"event": "nonfinite", "step": step}
        return self.write("errors", {**fields, "context": {"key": text(key), "value": value}})

    def dropped(self, stream: str, count: int) -> dict[str, Any]:
        """Write a drop marker: ``count`` records of the stream were dropped here."""
        return self.write(stream, {"dropped": count})

    def rewind(self, step: int, epoch: float | None = None) -> OracleWriter:
        """Write that the process went back to a step, as it does in two streams."""
        self.write("metrics", {"rewind": step, **({} if epoch is None else {"epoch": epoch})})
        self.write("performance", {"rewind": step})
        return self

    def system(self, step: int | None = None, **figures: Any) -> dict[str, Any]:
        """Write figures of the machine."""
        kept, nonfinite = plain(figures)
        fields: dict[str, Any] = {"step": step, "system": kept, "nonfinite": nonfinite or None}
        return self.write("system", {k: v for k, v in fields.items() if v is not None})

    def torn(self, stream: str, data: bytes) -> None:
        """Leave bytes without newline, as a killed writer does."""
        with self.path(stream).open("ab") as handle:
            handle.write(data)


def attempt(run: Path, number: int, **options: Any) -> OracleWriter:
    """The writer of a start, an hour after the one before."""
    hours = timedelta(hours=number)
    return OracleWriter(run, attempt=number, **{"start": START + hours, **options})


def write_run_json(
    run: Path, *, name: str = "oracle", config: Any = None, attempts: int = 1, ended: bool = True
) -> dict[str, Any]:
    """Write ``run.json``; return what is in it."""
    info: dict[str, Any] = {
        "format": 1,
        "name": name,
        "created": stamp_text(START),
        "config": dict(config or {}),
        "git_hash": None,
        "host": "node1",
        "world_size": 1,
        "attempts": [
            {
                "attempt": number,
                "label": f"a{number}" if number else "",
                "rank": 0,
                "pid": 4711 + number,
                "host": "node1",
                "started": stamp_text(START + timedelta(hours=number)),
                "ended": stamp_text(START + timedelta(hours=number, minutes=30)) if ended else None,
                "python": "3.11.7",
                "platform": "Linux-6.1-x86_64",
                "foundry_fastlog": "0.1.0",
            }
            for number in range(attempts)
        ],
    }
    run.mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_text(json.dumps(info, indent=1), encoding="utf-8")
    return info
