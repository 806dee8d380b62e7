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

import pytest
from oracle import START, OracleWriter, write_run_json

import foundry_fastlog.export.jsonl
from foundry_fastlog.base.formatting import printable_json, write_json
from foundry_fastlog.export.jsonl import ExportError, export_run
from foundry_fastlog.reading.run import read_run

HOUR = timedelta(hours=1)


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
def many(tmp_path: Path) -> Path:
    """Two ranks, two attempts, segments, and a drop marker."""
    for rank in range(2):
        for attempt in range(2):
            writer = OracleWriter(
                tmp_path / "run",
                rank=rank,
                attempt=attempt,
                segment_lines=3,
                start=START + attempt * HOUR + timedelta(milliseconds=rank),
                tick_s=1,
            )
            for step in range(attempt * 5, 10 + attempt * 5):
                writer.metrics(step, loss=float(attempt))
    writer.dropped("metrics", 7)
    return tmp_path / "run"


def parsed(path: Path) -> list[dict[str, Any]]:
    """The lines of an export."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_one_stream_of_one_process_passes_byte_for_byte(simple: Path, tmp_path: Path) -> None:
    """Joining segments changes nothing in them."""
    target = tmp_path / "out.jsonl"
    result = export_run(read_run(simple), target, streams=["metrics"])
    parts = ["metrics.jsonl", "metrics.000001.jsonl", "metrics.000002.jsonl"]
    assert target.read_bytes() == b"".join((simple / part).read_bytes() for part in parts)
    assert (result.complete, result.lines, result.added) == (True, 10, ())
    assert result.bytes == target.stat().st_size
    assert result.path == target
    assert result.streams == ("metrics",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "run"]


def test_several_streams_are_merged_in_order_and_named(simple: Path, tmp_path: Path) -> None:
    """Each line is itself and its stream behind it."""
    target = tmp_path / "out.jsonl"
    result = export_run(read_run(simple), target)
    lines = parsed(target)
    assert result.added == ("stream",)
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    assert [line["stream"] for line in lines] == [
        *["metrics", "log", *["metrics"] * 5, "log", *["metrics"] * 4],
    ]
    raw = target.read_bytes().split(b"\n")[0]
    original = (simple / "metrics.jsonl").read_bytes().split(b"\n")[0]
    assert raw == original[:-1] + b',"stream":"metrics"}'


def test_lines_of_several_processes_say_whose_they_are(many: Path, tmp_path: Path) -> None:
    """Rank, attempt and label are appended, steps come from their last attempt."""
    target = tmp_path / "out.jsonl"
    result = export_run(read_run(many), target, streams=["metrics"])
    lines = parsed(target)
    assert result.added == ("rank", "attempt", "label")
    assert result.superseded == 10
    assert result.dropped == 7
    assert result.complete
    steps = [(line["rank"], line["step"]) for line in lines if "step" in line]
    assert steps == [(rank, step) for step in range(15) for rank in range(2)]
    for line in lines:
        assert line["attempt"] == (0 if line.get("step", 9) < 5 else 1)
        assert (
            line["label"]
            == {(0, 0): "", (0, 1): "a1", (1, 0): "r1", (1, 1): "r1-a1"}[
                line["rank"], line["attempt"]
            ]
        )
    assert lines[-1] == {
        "timestamp": lines[-1]["timestamp"],
        "seq": 10,
        "dropped": 7,
        "rank": 1,
        "attempt": 1,
        "label": "r1-a1",
    }


def test_all_attempts_can_be_kept(many: Path, tmp_path: Path) -> None:
    """Nothing is left out, and seq proves it in the export too."""
    target = tmp_path / "out.jsonl"
    result = export_run(read_run(many), target, streams=["metrics"], attempts="all")
    assert (result.superseded, result.lines) == (0, 41)
    seqs: dict[str, list[int]] = {}
    for line in parsed(target):
        seqs.setdefault(line["label"], []).append(line["seq"])
    assert seqs == {label: list(range(10)) for label in ("", "a1", "r1")} | {
        "r1-a1": list(range(11))
    }


@pytest.mark.parametrize(
    ("tag", "added"),
    [
        ("auto", ("stream",)),
        ("always", ("stream", "rank", "attempt", "label")),
        ("never", ()),
    ],
)
def test_tags_can_be_forced_or_left_out(
    simple: Path, tmp_path: Path, tag: Any, added: tuple[str, ...]
) -> None:
    """Scripts get one shape where they want it."""
    target = tmp_path / "out.jsonl"
    assert export_run(read_run(simple), target, tag=tag).added == added
    assert tuple(parsed(target)[0])[4:] == added


def test_stamps_are_told_apart(tmp_path: Path) -> None:
    """Writers that differ only in their start time are not mixed up."""
    for hour in (1, 2):
        stamp = f"2026-01-30_0{hour}-00-00"
        OracleWriter(tmp_path / "run", stamp=stamp, start=START + hour * HOUR).metrics(hour, x=1)
    target = tmp_path / "out.jsonl"
    export_run(read_run(tmp_path / "run"), target, streams=["metrics"])
    assert [line["stamp"] for line in parsed(target)] == [
        "2026-01-30_01-00-00",
        "2026-01-30_02-00-00",
    ]


def test_blanks_behind_a_line_do_not_break_its_tags(tmp_path: Path) -> None:
    """A file that went through a tool with other line ends can still be exported."""
    writer = OracleWriter(tmp_path / "run")
    writer.metrics(0, loss=1.0)
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"\n", b" \r\n"))
    export_run(read_run(tmp_path / "run"), tmp_path / "out.jsonl")
    (line,) = parsed(tmp_path / "out.jsonl")
    assert (line["step"], line["stream"]) == (0, "metrics")


def test_a_damaged_run_is_exported_and_said_to_be_incomplete(simple: Path, tmp_path: Path) -> None:
    """What is there is saved; the checks say what is not."""
    (simple / "metrics.000001.jsonl").unlink()
    with (simple / "log.jsonl").open("ab") as file:
        file.write(b'{"torn')
    result = export_run(read_run(simple), tmp_path / "out.jsonl")
    assert not result.complete
    by_stream = {check.series.stream: check for check in result.checks}
    assert by_stream["metrics"].missing == 4
    assert by_stream["log"].torn == 1
    assert len(parsed(tmp_path / "out.jsonl")) == result.lines == 8


def test_an_empty_run_is_a_complete_empty_export(tmp_path: Path) -> None:
    """No lines are no gap."""
    write_run_json(tmp_path / "run")
    result = export_run(read_run(tmp_path / "run"), tmp_path / "out.jsonl")
    assert (result.complete, result.lines) == (True, 0)
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_large_exports_are_written_in_parts(
    simple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of the write buffer does not show in the file."""
    export_run(read_run(simple), tmp_path / "one.jsonl")
    monkeypatch.setattr(foundry_fastlog.export.jsonl, "_WRITE_BYTES", 100)
    result = export_run(read_run(simple), tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert result.bytes == (tmp_path / "two.jsonl").stat().st_size


def test_an_existing_file_is_replaced_only_when_asked(simple: Path, tmp_path: Path) -> None:
    """Nobody's file is lost by a repeated command."""
    target = tmp_path / "out.jsonl"
    target.write_text("precious")
    with pytest.raises(ExportError, match="exists; use --force to replace it"):
        export_run(read_run(simple), target)
    assert target.read_text() == "precious"
    export_run(read_run(simple), target, force=True)
    assert len(parsed(target)) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "run"]


def test_a_file_that_appears_meanwhile_is_not_replaced(
    simple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two exports at once to one name: one of them is refused, and leaves nothing behind."""
    target = tmp_path / "out.jsonl"
    real = os.fsync

    def fsync(descriptor: int) -> None:
        target.write_text("precious")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ExportError, match="was made by someone else meanwhile"):
        export_run(read_run(simple), target)
    assert target.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "run"]


def test_a_file_system_without_links_will_do(
    simple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network and FAT file systems get their export by a rename."""

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    export_run(read_run(simple), tmp_path / "out.jsonl")
    assert len(parsed(tmp_path / "out.jsonl")) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "run"]


def test_the_export_has_the_permissions_of_any_new_file(simple: Path, tmp_path: Path) -> None:
    """A colleague can read it when the umask says so."""
    before = os.umask(0o027)
    try:
        export_run(read_run(simple), tmp_path / "out.jsonl")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.all.jsonl", "log_x.jsonl", "run.json"])
@pytest.mark.parametrize("force", [False, True])
def test_an_export_never_passes_for_a_file_of_the_run(simple: Path, name: str, force: bool) -> None:
    """Such a file would double every line for the next reader."""
    before = {path.name for path in simple.iterdir()}
    with pytest.raises(ExportError, match=r"would pass for a file of the run itself.*export.jsonl"):
        export_run(read_run(simple), simple / name, force=force)
    assert {path.name for path in simple.iterdir()} == before


def test_other_names_inside_the_run_are_fine(simple: Path) -> None:
    """An export may lie beside its run's files, and does not become a part of it."""
    export_run(read_run(simple), simple / "export.jsonl")
    (simple / "sub").mkdir()
    export_run(read_run(simple), simple / "sub" / "metrics.jsonl")
    assert len(list(read_run(simple).lines("metrics"))) == 10


def test_the_way_to_the_run_does_not_matter(simple: Path, tmp_path: Path) -> None:
    """A link to the run is the run."""
    (tmp_path / "link").symlink_to(simple)
    with pytest.raises(ExportError, match="would pass for a file of the run"):
        export_run(read_run(simple), tmp_path / "link" / "metrics.x.jsonl")


def test_impossible_targets_are_explained(simple: Path, tmp_path: Path) -> None:
    """Each refusal says what to do."""
    (simple / ".fastlog").mkdir()
    run = read_run(simple)
    with pytest.raises(ExportError, match=r"is a directory; name a file in it: .*run\.jsonl"):
        export_run(run, tmp_path)
    with pytest.raises(ExportError, match="does not exist; make it first: mkdir -p"):
        export_run(run, tmp_path / "no" / "out.jsonl")
    with pytest.raises(ExportError, match="the recorder's own directory"):
        export_run(run, simple / ".fastlog" / "out.jsonl")


def test_wrong_arguments_leave_nothing_behind(simple: Path, tmp_path: Path) -> None:
    """A misspelled stream is no empty export."""
    for wrong in ({"streams": ["metric"]}, {"attempts": "first"}, {"tag": "some"}):
        with pytest.raises(ValueError, match=r"unknown stream|must be"):
            export_run(read_run(simple), tmp_path / "out.jsonl", **wrong)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_full_disk_is_an_export_error_and_leaves_nothing(
    simple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half-written file does not stay."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="cannot be written: No space left on device"):
        export_run(read_run(simple), tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_interrupted_export_leaves_nothing(
    simple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle removes the half-written file."""

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_run(read_run(simple), tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_export_can_go_into_a_pipe(simple: Path, tmp_path: Path) -> None:
    """Pipes and devices are written to, not replaced."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    result = export_run(read_run(simple), pipe)
    reader.join(30)
    assert len(got[0].split(b"\n")) == 13
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert result.path == pipe


@pytest.mark.parametrize("terminal", [False, True])
def test_an_export_can_go_to_standard_output(
    simple: Path, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes go out as they are, in UTF-8 whatever the terminal's encoding."""
    raw = BytesIO()
    stdout = SimpleNamespace(buffer=raw, flush=lambda: None, isatty=lambda: terminal)
    monkeypatch.setattr("sys.stdout", stdout)
    result = export_run(read_run(simple), "-", streams=["metrics"])
    assert result.path is None
    metrics = (simple / "metrics.jsonl").read_bytes()
    assert raw.getvalue().startswith(printable_json(metrics) if terminal else metrics)


@pytest.mark.parametrize("terminal", [False, True])
def test_json_that_a_terminal_would_obey(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is escaped there, and only there; what a person can read stays."""
    raw = BytesIO()
    stdout = SimpleNamespace(buffer=raw, flush=lambda: None, isatty=lambda: terminal)
    monkeypatch.setattr("sys.stdout", stdout)
    data = '{"é中😀":"\x7f\x9b\u202e\U000e0041"}\n{"plain":"\x7f"}\n{"plain":1}\n'.encode()
    write_json(data)
    escaped = data.decode()
    for char, escape in [("\x7f", "007f"), ("\x9b", "009b"), ("\u202e", "202e")]:
        escaped = escaped.replace(char, f"\\u{escape}")
    escaped = escaped.replace("\U000e0041", "\\udb40\\udc41")
    assert raw.getvalue().decode() == (escaped if terminal else data.decode())
    assert printable_json(b'{"a":1}') == b'{"a":1}'
    assert list(map(json.loads, escaped.splitlines())) == list(
        map(json.loads, data.decode().split("\n")[:-1])
    )
