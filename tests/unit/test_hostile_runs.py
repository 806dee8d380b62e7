"""Runs that no recorder writes: every reading command answers, and none with a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from foundry_fastlog import read_run
from foundry_fastlog.cli.main import main
from foundry_fastlog.run.files import STREAMS

DEEP = "[" * 200 + "]" * 200
VALUES = (
    *("null", "true", "0", "-1", "5e-324", "1e308"),
    *("1.7976931348623157e308", "-1.7976931348623157e308"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551615", "1e400", "1" * 30),
    *('""', '"text"', '"nan"', '"\\u0000\\u001b[31m\\u202e"', '"\\ud800"', "NaN", "Infinity"),
    *("[]", "[1]", "{}", '{"loss":1}', '{"loss":"nan"}', '{"loss":{"a":[null]}}', DEEP),
    *('"0001-01-01T00:00:00.000000Z"', '"9999-12-31T23:59:59.999999+14:00"', f'"{"y" * 9000}"'),
)
SOUND = {"timestamp": '"2026-01-30T14:32:15.123456Z"', "seq": "0", "step": "1", "depth": "0"}
SOUND |= {"metrics": '{"loss":1.5,"lr":null}', "name": '"step"', "duration_s": "0.5"}
SOUND |= {"system": '{"cpu":1.5}', "device": '"cuda:0"', "level": '"INFO"'}
SOUND |= {"message": '"hello"', "context": '{"loss":null}'}
FIELDS = (
    *SOUND,
    *("epoch", "summary", "nonfinite", "missing", "dropped", "rewind", "parent", "thread", "error"),
    *("device_duration_s", "logger", "event", "error_type", "error_message", "traceback"),
)


def write_lines(run: Path) -> None:
    """Each value in the place of each field, once, in every stream."""
    for stream in STREAMS:
        lines = []
        for field in FIELDS:
            for value in VALUES:
                line = {**SOUND, "seq": str(len(lines)), field: value}
                lines.append("{" + ",".join(f'"{k}":{v}' for k, v in line.items()) + "}\n")
        lines += ["\ufeff{}\n", "\0\0\n", '{"seq":1}\n' * 2, '{"torn']
        (run / f"{stream}.jsonl").write_text("".join(lines), encoding="utf-8")
    (run / "metrics.r1.jsonl").write_text("".join(lines), encoding="utf-16")
    values = ",".join(f'"{number}":{v}' for number, v in enumerate(VALUES) if "ud8" not in v)
    attempts = ",".join(f'{{"label":{v},"stamp":{v},"pid":{v}}}' for v in ("1", "[]", "null", '""'))
    (run / "run.json").write_text(
        f'{{"name":[],"git_hash":{{}},"config":{{{values}}},"attempts":[7,{attempts}]}}'.replace(
            "NaN", "0"
        ).replace("Infinity", "0")
    )


def write_odd_files(run: Path) -> None:
    """Everything but files in the places of files, and rubbish in the private directory."""
    (run / "metrics.jsonl").mkdir()
    os.mkfifo(run / "log.jsonl")
    (run / "errors.jsonl").symlink_to("errors.jsonl")
    (run / "performance.jsonl").symlink_to("/dev/zero")
    (run / "performance.000001.jsonl.zst").touch()
    (run / "metrics.a1.jsonl").write_bytes(os.urandom(5000))
    (run / "performance.r1.jsonl").write_text(f'{{"name":{DEEP * 500}}}\n')
    os.mkfifo(run / "run.json")
    (run / "starts" / "000007.json").mkdir(parents=True)
    os.mkfifo(run / "starts" / "000008.json")
    (run / "starts" / "000008.end.json").write_text('{"how":[],"ended":5,"error_type":{}}')
    (run / "starts" / "000009.json").write_text('{"config":[],"started":{},"launch":7}')
    private = run / ".fastlog"
    (private / "quarantine" / "c.ring.reason").mkdir(parents=True)
    for name in ("a.ring", "b.ring-at", "quarantine/c.ring", "quarantine/d.ring-at.1"):
        (private / name).write_bytes(b"/\xff.ring\n")
    (private / "quarantine" / "d.ring-at.1.reason").write_bytes(b"\xff\x1b[31m\n")


def write_private_file(run: Path) -> None:
    (run / ".fastlog").touch()
    (run / "run.json").write_text("[" * 100_000)


@pytest.mark.parametrize("write", [write_lines, write_odd_files, write_private_file])
def test_every_command_answers(
    write: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message and an exit code that says that something cannot be read."""
    run = tmp_path / "run"
    run.mkdir()
    write(run)
    out = str(tmp_path / "out")
    for command in (
        *(["summary"], ["summary", "--json"], ["summary", "--starts", "all"]),
        *(["export", "--to", out], ["tail", "-n", "100000"], ["tail", "--raw"]),
        *(["tail", "-s", "performance", "-n", "100000"], ["trace", "-o", out, "--force"]),
        *(["recover", "--dry-run"], ["recover", "--json"]),
    ):
        code = main([command[0], str(run), *command[1:]])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        # Of a file with damaged lines the others are shown, and it has no ring.
        others = write is write_lines and command[0] in ("tail", "recover")
        assert code in ((0, 1) if others else (1, 2))
    for stream in STREAMS:
        for starts in ("latest", "all"):
            opened = read_run(run)
            list(opened.lines(stream, starts=starts))
            opened.report_starts()
            assert not all(check.complete for check in opened.check()) or not opened.series
            assert opened.problems


@pytest.mark.parametrize("stream", STREAMS)
def test_frames_take_whatever_is_in_a_line(stream: str, tmp_path: Path) -> None:
    """A number that no column holds becomes a float, a timestamp that is no time null."""
    pytest.importorskip("polars")
    pytest.importorskip("pandas")
    write_lines(tmp_path)
    run = read_run(tmp_path)
    count = len(list(run.lines(stream, starts="all")))
    assert len(run.to_polars(stream, starts="all")) == count > 100
    assert len(run.to_pandas(stream, starts="all")) == count
