"""Messages and errors of a run: found by all that they have, and equal errors together."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from oracle import START, OracleWriter, stamp_text

from foundry_fastlog import read_run
from foundry_fastlog.analysis.error_groups import group_errors
from foundry_fastlog.analysis.messages import MessageFilter, find_messages
from foundry_fastlog.base.arguments import duration, moment

Command = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Messages of two ranks, a second apart; errors of three kinds."""
    monkeypatch.setitem(logging._nameToLevel, "TRACE", 5)  # as uvicorn does where it is imported
    path = tmp_path / "run"
    writer = OracleWriter(path, tick_s=1.0)
    writer.log("Starting", logger="app", context={"num_examples": 5000, "device": "cuda:0"})
    writer.log("loaded", level="DEBUG", logger="app.data", context={"num_examples": 10})
    writer.log("odd (yes)", level="TRACE", logger="other", step=3, context={"x": math.nan})
    for step in (5, 7, 9):
        writer.error(f"save {step}", OSError(f"disk {step} full"), step=step)
    writer.nonfinite("loss", "nan", 8)
    other = OracleWriter(path, rank=3, start=START + timedelta(seconds=100))
    other.error("save 11", OSError("disk 11 full"), step=11)
    other.log("rank three", level="WARNING", step=12)
    other.dropped("log", 4)
    other.dropped("errors", 1)
    return path


def messages(command: Command, run: Path, *options: object, code: int = 0) -> list[str]:
    lines = command("logs", run, "--json", *options, code=code).out.splitlines()
    return [json.loads(line)["message"] for line in lines]


ALL = ["Starting", "loaded", "odd (yes)", "save 5", "save 7", "save 9", "loss became nan at step 8"]
ALL += ["save 11", "rank three"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), ALL),
        (("--level", "warning"), [*ALL[2:7], "save 11", "rank three"]),
        (("--level", "ERROR"), ["odd (yes)", "save 5", "save 7", "save 9", "save 11"]),
        (("-l", "app"), ["Starting", "loaded"]),
        (("-l", "*.data", "-l", "other"), ["loaded", "odd (yes)"]),
        (("--grep", "^save [0-9]$"), ["save 5", "save 7", "save 9"]),
        (("--grep", "OSError: disk (7|11)"), ["save 7", "save 11"]),
        (("-F", "-g", "(yes)"), ["odd (yes)"]),
        (("-g", "(?i)STARTING|LOADED"), ["Starting", "loaded"]),
        (("--where", "num_examples > 1000"), ["Starting"]),
        (("-w", "isnan(x) or context.device == 'cuda:0'"), ["Starting", "odd (yes)"]),
        (("-w", "rank == 3 and stream == 'errors' and start == 0"), ["save 11"]),
        (("-w", "label == 'r3' and level == 'WARNING' and step == 12"), ["rank three"]),
        (("-w", f"time < '{stamp_text(START + timedelta(seconds=1))}'"), ["Starting"]),
        (("-w", "match(traceback, 'OSError') and step > 7"), ["save 9", "save 11"]),
        (("-w", "event == 'nonfinite'"), ["loss became nan at step 8"]),
        (("--steps", "5:8"), ["save 5", "save 7", "loss became nan at step 8"]),
        (("--steps", ":5"), ["odd (yes)", "save 5"]),
        (("--since", "2026-01-30T14:33"), ["save 11", "rank three"]),
        (("--until", "2026-01-30T15:32:16.2+01:00"), ["Starting", "loaded"]),
        (("--since", "1m"), []),
        (("--rank", "3"), ["save 11", "rank three"]),
        (("--tail", "2"), ["save 11", "rank three"]),
        (("--tail", "0"), ALL),
    ],
)
def test_messages_are_found_by_all_that_they_have(
    run: Path, command: Command, options: tuple[str, ...], found: list[str]
) -> None:
    assert sorted(messages(command, run, *options)) == sorted(found)


def test_raw_lines_are_as_in_the_files(run: Path, command: Command) -> None:
    written = sorted(command("logs", run, "--json").out.encode().splitlines())
    files = [path.read_bytes().splitlines() for path in run.glob("[el]*.jsonl")]
    assert written == sorted(line for lines in files for line in lines if b"dropped" not in line)


def test_messages_are_shown_as_text(run: Path, command: Command) -> None:
    shown = command("logs", run, "-w", "num_examples > 1")
    assert shown.out.splitlines()[0] == (
        "2026-01-30 14:32:15.123Z main log INFO Starting num_examples=5,000 device=cuda:0"
    )
    assert shown.err == ""


def test_a_terminal_gets_a_screenful(
    run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("LINES", "8")
    shown = command("logs", run)
    assert len(shown.out.splitlines()) == 5
    assert "... 4 before these; --tail 0 shows all" in shown.err


def test_fields_that_no_message_has_are_told(
    run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the nearest, and the place; of endless names, some are remembered."""
    monkeypatch.setattr("foundry_fastlog.analysis.messages._MOST_KNOWN", 2)
    told = command("logs", run, "-w", "num_example > 3").err
    assert "note: nothing here has num_example, at character 1" in told
    assert "Did you mean num_examples" in told


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--level", "loud"), "--level takes DEBUG"),
        (("--grep", "("), "--grep: '(' is no regular expression"),
        (("--steps", "5"), "--steps takes FIRST:LAST"),
        (("--since", "soon"), "--since: a time is written as"),
        (("--until", "10 o'clock"), "--until: a time is written as"),
        (("-w", "a ="), "= is not understood"),
        (("--starts", "7"), "has no start 7"),
    ],
)
def test_wrong_options(run: Path, command: Command, options: tuple[str, ...], says: str) -> None:
    assert says in command("logs", run, *options, code=2).err


def test_damage_is_told_after_what_was_read(run: Path, command: Command) -> None:
    for stream in ("log", "errors"):
        path = run / f"{stream}.jsonl"
        path.write_bytes(b"nonsense\n" + path.read_bytes())
    assert "damaged" in command("errors", run, code=1).err
    shown = command("logs", run, "--json", code=1)
    assert "damaged" in shown.err
    assert "Starting" in shown.out


def test_a_filter_of_python(run: Path) -> None:
    opened = read_run(run)
    found = find_messages(opened, MessageFilter(level="ERROR", since="2026-01-30T14:33"))
    assert [record["step"] for _, _, record, _ in found] == [11]


# ---- errors --------------------------------------------------------------------------


def test_equal_errors_are_together(run: Path) -> None:
    """By what a plain reader of the files finds."""
    lines = [
        json.loads(line)
        for path in run.glob("errors*.jsonl")
        for line in path.read_bytes().splitlines()
    ]
    first, second = read_run(run).errors()
    wanted = [line for line in lines if line.get("error_type") == "OSError"]
    assert (first.count, first.error_type, first.message) == (4, "OSError", "disk 5 full")
    assert first.first == min(line["timestamp"] for line in wanted)
    assert first.last == max(line["timestamp"] for line in wanted)
    assert (first.first_step, first.last_step, first.ranks) == (5, 11, (0, 3))
    assert first.traceback.endswith("OSError: disk 5 full\n")
    assert (second.event, second.count, second.error_type) == ("nonfinite", 1, "")
    assert [group.count for group in group_errors(read_run(run), rank=3)] == [1]
    assert json.loads(json.dumps(first.to_dict()))["ranks"] == [0, 3]


def test_fingerprints_decide_where_there_are_some(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path / "run")
    fields = {"level": "ERROR", "logger": "x", "message": "m", "error_type": "E"}
    for mark, said in (("a" * 16, "one"), ("a" * 16, "other"), ("b" * 16, "one"), (None, "one")):
        more = {"error_message": said, "traceback": "t"} | ({"fingerprint": mark} if mark else {})
        writer.write("errors", {**fields, **more})
    assert [(one.fingerprint[:1], one.count) for one in read_run(writer.run).errors()] == [
        ("a", 2),
        ("b", 1),
        ("", 1),
    ]


def test_the_command_shows_groups_with_a_traceback(run: Path, command: Command) -> None:
    shown = command("errors", run).out
    for part in (
        "4 x OSError: disk 5 full",
        "2026-01-30 14:32:18Z to 2026-01-30 14:33:55Z, steps 5 to 11, ranks 0, 3",
        "1 x nonfinite: loss became nan at step 8",
        ", step 8, rank 0",
        "    OSError: disk 5 full",
        "5 errors of 2 kinds",
    ):
        assert part in shown, shown
    found = json.loads(command("errors", run, "--json", "--limit", 1).out)["errors"]
    assert [one["count"] for one in found] == [4]
    assert len(json.loads(command("errors", run, "--json").out)["errors"]) == 2


def test_many_kinds_and_long_tracebacks_are_abridged(tmp_path: Path, command: Command) -> None:
    fields = {"level": "ERROR", "message": "\x1b[31m", "error_type": "E", "error_message": ""}
    for rank in range(12):
        writer = OracleWriter(tmp_path / "run", rank=rank)
        for kind in "abcdefghijklmnopqrstuvw":
            trace = "\n".join(f"line {n}" for n in range(30))
            writer.write("errors", {**fields, "error_type": kind, "traceback": trace})
    shown = command("errors", tmp_path / "run").out
    assert "... and 3 more; --limit 0 shows all" in shown
    assert shown.count("... 18 lines above") == 3
    assert "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 4 more" in shown
    assert "\x1b" not in shown
    assert "276 errors of 23 kinds" in shown
    whole = command("errors", tmp_path / "run", "-n", 0).out
    assert whole.count("    line 0\n") == 23
    assert "more" not in whole.replace("and 4 more", "")


def test_a_run_without_errors(tmp_path: Path, command: Command) -> None:
    run = OracleWriter(tmp_path / "run").fill(range(3), loss=1.0).run
    assert command("errors", run).out == "0 errors of 0 kinds\n"
    assert command("logs", run).out == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5 s", 1.5), ("10m", 600), ("2min", 120), ("2h", 7200), ("3d", 259200)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds
    with pytest.raises(ValueError, match="a duration is written as"):
        duration(f"{text}x")


def test_moments() -> None:
    now = datetime(2026, 1, 30, 12, tzinfo=timezone.utc)
    assert moment("1h", now) == "2026-01-30T11:00:00.000000Z"
    assert moment("2026-01-30", now) == "2026-01-30T00:00:00.000000Z"
    assert moment("2026-01-30T13:00:00Z", now) == "2026-01-30T13:00:00.000000Z"
    assert moment("2026-01-30T13:00+02:00", now) == "2026-01-30T11:00:00.000000Z"
    for wrong in ("999999999d", "0001-01-01T00:00+23:00", "yesterday"):
        with pytest.raises(ValueError, match="a time is written as"):
            moment(wrong, now)
