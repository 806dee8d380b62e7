"""Exporting a run: merged, proven complete, and never in the wrong place."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from oracle import START, OracleWriter, write_run_json

import foundry_fastlog.export.jsonl
from foundry_fastlog.base.formatting import printable_json, write_json
from foundry_fastlog.export.jsonl import ExportError, export_run
from foundry_fastlog.reading.run import read_run

HOUR = timedelta(hours=1)
Patch = pytest.MonkeyPatch


@pytest.fixture
def simple(tmp_path: Path) -> Path:
    """A run of one process with two streams and three segments."""
    writer = OracleWriter(tmp_path / "run", segment_lines=4)
    for step in range(10):
        writer.metrics(step, loss=1 / (step + 1), note='é\u2028 "x"')
        if step % 5 == 0:
            writer.log("hello", step=step)
    return tmp_path / "run"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Two ranks, two starts, segments, and a drop marker."""
    for rank in range(2):
        for attempt in range(2):
            start = START + attempt * HOUR + timedelta(milliseconds=rank)
            options = {"rank": rank, "attempt": attempt, "start": start, "tick_s": 1}
            writer = OracleWriter(tmp_path / "run", segment_lines=3, **options)
            writer.fill(range(attempt * 5, 10 + attempt * 5), loss=float(attempt))
    writer.dropped("metrics", 7)
    return tmp_path / "run"


def parsed(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_one_stream_of_one_process_passes_byte_for_byte(simple: Path, out: Path) -> None:
    result = export_run(read_run(simple), out, streams=["metrics"])
    parts = ["metrics.jsonl", "metrics.000001.jsonl", "metrics.000002.jsonl"]
    assert out.read_bytes() == b"".join((simple / part).read_bytes() for part in parts)
    assert (result.complete, result.lines, result.added) == (True, 10, ())
    assert (result.bytes, result.path) == (out.stat().st_size, out)
    assert result.streams == ("metrics",)
    assert names(out.parent) == ["out.jsonl", "run"]


def test_several_streams_are_merged_in_order_and_named(simple: Path, out: Path) -> None:
    assert export_run(read_run(simple), out).added == ("stream",)
    lines = parsed(out)
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    streams = ["metrics", "log", *["metrics"] * 5, "log", *["metrics"] * 4]
    assert [line["stream"] for line in lines] == streams
    original = (simple / "metrics.jsonl").read_bytes().split(b"\n")[0]
    assert out.read_bytes().split(b"\n")[0] == original[:-1] + b',"stream":"metrics"}'


def test_lines_of_several_processes_say_whose_they_are(many: Path, out: Path) -> None:
    result = export_run(read_run(many), out, streams=["metrics"])
    assert result.added == ("rank", "start", "label")
    assert (result.left_out, result.dropped) == ({"metrics": {"loss": 10}}, 7)
    assert result.complete
    *lines, marker = parsed(out)
    steps = [(line["rank"], line["step"]) for line in lines]
    assert steps == [(rank, step) for step in range(15) for rank in range(2)]
    labels = {(0, 0): "", (0, 1): "a1", (1, 0): "r1", (1, 1): "r1-a1"}
    for line in lines:
        assert line["start"] == (line["step"] >= 5)
        assert line["label"] == labels[line["rank"], line["start"]]
    del marker["timestamp"]
    assert marker == {"seq": 10, "dropped": 7, "rank": 1, "start": 1, "label": "r1-a1"}


@pytest.mark.parametrize(
    ("tag", "added"),
    [("auto", ("stream",)), ("always", ("stream", "rank", "start", "label")), ("never", ())],
)
def test_tags_can_be_forced(simple: Path, out: Path, tag: Any, added: tuple[str, ...]) -> None:
    assert export_run(read_run(simple), out, tag=tag).added == added
    assert tuple(parsed(out)[0])[4:] == added


def test_odd_runs_are_exported(tmp_path: Path) -> None:
    def lines(run: Path, **options: Any) -> list[dict[str, Any]]:
        assert export_run(read_run(run), run.with_suffix(".jsonl"), **options).complete
        return parsed(run.with_suffix(".jsonl"))

    # Writers that differ only in their start time are not mixed up.
    stamps = ["2026-01-30_01-00-00", "2026-01-30_02-00-00"]
    for hour, stamp in enumerate(stamps, 1):
        OracleWriter(tmp_path / "stamps", stamp=stamp, start=START + hour * HOUR).fill([hour])
    assert [line["stamp"] for line in lines(tmp_path / "stamps", streams=["metrics"])] == stamps
    # A file that went through a tool with other line ends can still be exported.
    path = OracleWriter(tmp_path / "blanks").fill([0]).path("metrics")
    path.write_bytes(path.read_bytes().replace(b"\n", b" \r\n"))
    (line,) = lines(tmp_path / "blanks")
    assert (line["step"], line["stream"]) == (0, "metrics")
    write_run_json(tmp_path / "empty")
    result = export_run(read_run(tmp_path / "empty"), tmp_path / "empty.jsonl")
    assert (result.complete, result.lines) == (True, 0)
    assert (tmp_path / "empty.jsonl").read_bytes() == b""


def test_a_damaged_run_is_exported_and_said_to_be_incomplete(simple: Path, out: Path) -> None:
    (simple / "metrics.000001.jsonl").unlink()
    with (simple / "log.jsonl").open("ab") as file:
        file.write(b'{"torn')
    result = export_run(read_run(simple), out)
    assert not result.complete
    checks = {check.series.stream: check for check in result.checks}
    assert (checks["metrics"].missing, checks["log"].torn) == (4, 1)
    assert len(parsed(out)) == result.lines == 8


def test_large_exports_are_written_in_parts(simple: Path, out: Path, monkeypatch: Patch) -> None:
    export_run(read_run(simple), out)
    whole = out.read_bytes()
    monkeypatch.setattr(foundry_fastlog.export.jsonl, "_WRITE_BYTES", 100)
    assert export_run(read_run(simple), out, force=True).bytes == len(whole)
    assert out.read_bytes() == whole


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_an_existing_file_is_replaced_only_when_asked(
    when: str, simple: Path, out: Path, monkeypatch: Patch
) -> None:
    """One that another export made meanwhile, neither; nothing is left behind."""
    if when == "before":
        out.write_text("precious")
    else:
        monkeypatch.setattr(os, "fsync", lambda descriptor: out.write_text("precious"))
    told = "exists; use --force" if when == "before" else "was created by another process"
    with pytest.raises(ExportError, match=told):
        export_run(read_run(simple), out)
    assert out.read_text() == "precious"
    assert names(out.parent) == ["out.jsonl", "run"]
    export_run(read_run(simple), out, force=True)
    assert len(parsed(out)) == 12
    assert names(out.parent) == ["out.jsonl", "run"]


def test_a_file_system_without_links_will_do(simple: Path, out: Path, monkeypatch: Patch) -> None:
    """Network and FAT file systems get their export by a rename; a colleague can read it."""
    refused = OSError(errno.EPERM, "Operation not permitted")
    for links in (True, False):
        before = os.umask(0o027)
        try:
            export_run(read_run(simple), out)
        finally:
            os.umask(before)
        assert len(parsed(out)) == 12
        assert stat.S_IMODE(out.stat().st_mode) == 0o640  # as any new file
        assert names(out.parent) == ["out.jsonl", "run"]
        out.unlink()
        if links:
            monkeypatch.setattr(Path, "hardlink_to", Mock(side_effect=refused))


@pytest.mark.parametrize(
    ("error", "raised", "match"),
    [
        (OSError(errno.ENOSPC, "disk full"), ExportError, "cannot be written: disk full"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
    ids=["full disk", "Ctrl-C"],
)
def test_an_export_that_is_cut_short_leaves_nothing(
    error: BaseException, raised: Any, match: Any, simple: Path, out: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(os, "fsync", Mock(side_effect=error))
    with pytest.raises(raised, match=match):
        export_run(read_run(simple), out)
    assert names(out.parent) == ["run"]


PASSES = r"would look like a file of the run itself.*export.jsonl"


@pytest.mark.parametrize(
    ("target", "match"),
    [
        # Such a file would double every line for the next reader; a link to the run is the run.
        *[(f"run/{name}", PASSES) for name in ("metrics.jsonl", "metrics.all.jsonl", "run.json")],
        *[(name, PASSES) for name in ("run/log_x.jsonl", "link/metrics.x.jsonl")],
        ("", r"is a directory; name a file in it: .*run\.jsonl"),
        ("no/out.jsonl", "does not exist; create it first: mkdir -p"),
        ("run/.fastlog/out.jsonl", "the recorder's own directory"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_wrong_targets(simple: Path, target: str, match: str, force: bool, tmp_path: Path) -> None:
    (simple / ".fastlog").mkdir()
    (tmp_path / "link").symlink_to(simple)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ExportError, match=match):
        export_run(read_run(simple), tmp_path / target, force=force)
    assert sorted(tmp_path.rglob("*")) == before


def test_other_names_inside_the_run_are_fine(simple: Path) -> None:
    export_run(read_run(simple), simple / "export.jsonl")
    (simple / "sub").mkdir()
    export_run(read_run(simple), simple / "sub" / "metrics.jsonl")
    assert len(list(read_run(simple).lines("metrics"))) == 10


def test_wrong_arguments_leave_nothing_behind(simple: Path, out: Path) -> None:
    for wrong in ({"streams": ["metric"]}, {"starts": "first"}, {"tag": "some"}):
        with pytest.raises(ValueError, match=r"unknown stream|must be"):
            export_run(read_run(simple), out, **wrong)  # type: ignore[arg-type]
    assert names(out.parent) == ["run"]


def test_an_export_can_go_into_a_pipe(simple: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    assert export_run(read_run(simple), pipe).path == pipe
    reader.join(30)
    assert len(got[0].split(b"\n")) == 13
    assert pipe.is_fifo()


each_stdout = pytest.mark.parametrize("terminal", [False, True])


def stdout(monkeypatch: Patch, *, terminal: bool) -> BytesIO:
    raw = BytesIO()
    out = SimpleNamespace(buffer=raw, flush=lambda: None, isatty=lambda: terminal)
    monkeypatch.setattr("sys.stdout", out)
    return raw


@each_stdout
def test_json_that_a_terminal_would_obey(terminal: bool, monkeypatch: Patch) -> None:
    """It is escaped there, and only there; what a person can read stays."""
    text = '{"é中😀":"\x7f\x9b\u202e\U000e0041"}\n{"plain":"\x7f"}\n{"plain":1}\n'
    raw = stdout(monkeypatch, terminal=terminal)
    write_json(text.encode())
    escaped = text.replace("\U000e0041", "\\udb40\\udc41")
    for char, escape in [("\x7f", "007f"), ("\x9b", "009b"), ("\u202e", "202e")]:
        escaped = escaped.replace(char, f"\\u{escape}")
    assert raw.getvalue().decode() == (escaped if terminal else text)
    assert printable_json(b'{"a":1}') == b'{"a":1}'
    assert [*map(json.loads, escaped.splitlines())] == [*map(json.loads, text.split("\n")[:-1])]
