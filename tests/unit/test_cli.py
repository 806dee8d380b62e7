"""The command line, as a user meets it: output, exit codes, and errors that help."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from oracle import START, OracleWriter, write_run_json
from recorded import TAKES_CTRL_C

import foundry_fastlog
import foundry_fastlog.demo
from foundry_fastlog.cli.main import main

COMMAND = [sys.executable, "-m", "foundry_fastlog"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole run of one process."""
    writer = OracleWriter(tmp_path / "run")
    for step in range(20):
        writer.metrics(step, loss=1 / (step + 1))
        writer.timing("step", 0.1, step=step)
    writer.error("boom", ValueError("bad"), step=3)
    writer.log("done")
    write_run_json(tmp_path / "run", name="exp0")
    return tmp_path / "run"


@pytest.fixture
def damaged(run: Path) -> Path:
    """The same run with a line missing in the middle and a torn one at the end."""
    path = run / "metrics.jsonl"
    raws = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(raws[:5] + raws[6:]) + b'{"torn')
    return run


@pytest.fixture
def following(run: Path) -> Iterator[subprocess.Popen[str]]:
    """A `tail -f` on the run, in a process of its own."""
    module = "import runpy; runpy.run_module('foundry_fastlog', None, '__main__', True)"
    options = ["-f", "-n", "1", "--raw", "--interval", "0.01"]
    process = subprocess.Popen(
        [sys.executable, "-c", TAKES_CTRL_C + module, "tail", *options, str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    yield process
    process.kill()
    process.communicate()


def read_line(stream: IO[str] | None) -> dict[str, object]:
    """The next JSON line of a process; pytest's timeout ends a wait in vain."""
    assert stream is not None
    line: dict[str, object] = json.loads(stream.readline())
    return line


# ---- help and versions ---------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["demo"], ["summary"], ["export"], ["tail"], ["recover"]])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_an_example_and_the_exit_codes(
    command: list[str], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new user can go on from any help page."""
    assert main([*command, flag]) == 0
    text = capsys.readouterr().out
    assert "foundry-fastlog " + " ".join(command) in text
    if command:
        assert "Example" in text
        assert "Exit codes" in text
    else:
        assert "A RUN is the directory that Recorder(path) was given" in text


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to do is a usage error, and the help says what there is."""
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "summary" in captured.out + captured.err


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the package's version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"foundry-fastlog {foundry_fastlog.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["summary"], ["tail", "-n", "-1", "x"], ["export", "x", "--no"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts can tell a wrong command from a damaged run."""
    assert main(arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_arguments_come_from_the_process_by_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The console script calls main() without any."""
    monkeypatch.setattr(sys, "argv", ["foundry-fastlog", "--version"])
    assert main() == 0
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("foundry_fastlog", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.count("foundry-fastlog") == 2


def test_importing_the_main_module_runs_nothing() -> None:
    """Only `python -m` starts the command line."""
    assert "main" in runpy.run_module("foundry_fastlog.__main__", run_name="imported")


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without typer the message says how to get it."""
    monkeypatch.delitem(sys.modules, "foundry_fastlog.cli.commands", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    assert main(["--version"]) == 2
    assert "needs typer, which is not installed. Run:" in (error := capsys.readouterr().err)
    assert "pip install 'foundry_fastlog[cli]'" in error


def test_a_broken_installation_is_not_called_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An import error of our own is shown as it is."""
    monkeypatch.delitem(sys.modules, "foundry_fastlog.cli.commands", raising=False)
    monkeypatch.setitem(sys.modules, "foundry_fastlog.export.jsonl", None)
    with pytest.raises(ModuleNotFoundError, match=r"foundry_fastlog\.export"):
        main(["--version"])


# ---- runs that are not there ---------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["summary"], ["export", "--to", "out.jsonl"], ["tail"], ["tail", "-f"]]
)
def test_a_path_that_is_no_run_exits_with_2_and_says_what_to_do(
    command: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelled path, a file, and a parent of runs are all answered with the run."""
    for path in (tmp_path / "rum", run / "metrics.jsonl", tmp_path):
        assert main([*command, str(path)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert str(run) in captured.err.replace("\n", "")
        assert "Traceback" not in captured.err


@pytest.mark.parametrize("command", ["summary", "tail"])
def test_a_run_that_cannot_be_listed_exits_with_2(
    command: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An I/O error is an answer, not a traceback."""

    def fail(path: object) -> list[object]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("foundry_fastlog.reading.overlay.list_files", fail)
    assert main([command, str(run)]) == 2
    assert "Input/output error" in capsys.readouterr().err


# ---- demo ----------------------------------------------------------------------------


def test_demo_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user said reaches the trainer, and its exit code the shell."""
    calls = []

    def fake(config: Path | None, **options: object) -> int:
        calls.append((config, options))
        return len(calls) - 1

    monkeypatch.setattr(foundry_fastlog.demo, "run", fake)
    assert main(["demo"]) == 0
    options = ["--config", "a.yaml", "--out", "dir", "--steps", "5", "--device", "cpu"]
    assert main(["demo", *options]) == 1
    assert calls == [
        (None, {"out": None, "steps": None, "device": None}),
        (Path("a.yaml"), {"out": Path("dir"), "steps": 5, "device": "cpu"}),
    ]


# ---- summary -------------------------------------------------------------------------


def test_summary_of_a_whole_run_exits_with_0(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables, a curve and the verdict."""
    assert main(["summary", str(run)]) == 0
    text = capsys.readouterr().out
    for expected in ("exp0", "none missing", "loss", "⠒⠒ loss", "error ValueError"):
        assert expected in text


def test_summary_of_a_damaged_run_exits_with_1(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script notices what a person would read."""
    assert main(["summary", str(damaged)]) == 1
    text = capsys.readouterr().out
    assert "NO: see the problems below" in text
    assert "seq 5 missing" in text


def test_summary_of_a_run_with_drops_exits_with_1(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dropped records are a problem, though the files are whole."""
    writer = OracleWriter(run, rank=1)
    writer.dropped("metrics", 3)
    assert main(["summary", str(run)]) == 1
    assert "metrics 3 (the recorder's ring was full)" in capsys.readouterr().out


def test_summary_can_be_json(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs, with the same exit codes."""
    OracleWriter(damaged, attempt=1).metrics(0, loss=5.0)
    assert main(["summary", "--json", str(damaged)]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["complete"] is False
    assert data["metrics"][0]["count"] == 19
    assert main(["summary", "--json", "--attempts", "all", str(damaged)]) == 1
    assert json.loads(capsys.readouterr().out)["metrics"][0]["count"] == 20


# ---- export --------------------------------------------------------------------------


def test_export_of_a_whole_run_exits_with_0(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is there, and what was done is said on stderr."""
    target = tmp_path / "out.jsonl"
    assert main(["export", str(run), "--to", str(target)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "42 lines" in captured.err
    assert "added to each line: stream" in captured.err
    assert "complete: seq has no gap" in captured.err
    assert len(target.read_text().splitlines()) == 42


def test_export_of_chosen_streams_goes_to_standard_output(
    run: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The bytes of the file arrive in the pipe, and nothing else."""
    assert main(["export", str(run), "-s", "metrics", "--to", "-"]) == 0
    assert capfdbinary.readouterr().out == (run / "metrics.jsonl").read_bytes()
    assert main(["export", str(run), "-s", "log", "--stream", "errors", "--to", "-"]) == 0
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [line["stream"] for line in lines] == ["errors", "log"]


def test_export_of_a_damaged_run_exits_with_1_and_a_table(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing is listed; what is there is written."""
    target = tmp_path / "out.jsonl"
    assert main(["export", str(damaged), "--to", str(target)]) == 1
    error = capsys.readouterr().err
    assert "NOT complete" in error
    row = next(line for line in error.splitlines() if line.startswith("metrics"))
    assert row.split() == ["metrics", "main", "19", "1", "5", "0", "1", "0", "0"]
    assert "metrics.jsonl:6: seq 5 missing" in error
    assert "the last line is torn" in error
    assert len(target.read_text().splitlines()) == 41


def test_export_with_drops_exits_with_1_unless_allowed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever chose to drop records can say so."""
    OracleWriter(run, rank=1).dropped("metrics", 7)
    command = ["export", str(run), "--force", "--to", str(tmp_path / "out.jsonl")]
    assert main(command) == 1
    assert "complete but for 7 records that the recorder dropped" in capsys.readouterr().err
    assert main([*command, "--allow-dropped"]) == 0


def test_export_says_what_a_resume_left_out(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And how to keep it."""
    OracleWriter(run, attempt=1).metrics(19, loss=9.0)
    target = tmp_path / "out.jsonl"
    assert main(["export", str(run), "-s", "metrics", "--to", str(target)]) == 0
    assert "left out: 1 lines of steps that a later attempt" in capsys.readouterr().err
    assert len(target.read_text().splitlines()) == 20
    command = ["export", str(run), "-s", "metrics", "--attempts", "all", "--tag", "never"]
    assert main([*command, "--force", "--to", str(target)]) == 0
    error = capsys.readouterr().err
    assert "left out" not in error
    assert "added" not in error
    assert len(target.read_text().splitlines()) == 21


def test_export_refuses_to_overwrite(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to do instead."""
    target = tmp_path / "out.jsonl"
    target.write_text("precious")
    assert main(["export", str(run), "--to", str(target)]) == 2
    assert "use --force to replace it" in capsys.readouterr().err
    assert target.read_text() == "precious"


# ---- tail ----------------------------------------------------------------------------


def test_tail_shows_the_last_lines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Metrics, errors and messages in readable form; timings only when asked for."""
    assert main(["tail", "-n", "3", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["metrics", "errors", "log"]
    assert lines[0].endswith("metrics step=19 loss=0.05")
    assert main(["tail", "-n", "1", "--stream", "performance", str(run)]) == 0
    assert capsys.readouterr().out.endswith("performance step=19 step 100 ms\n")


def test_tail_can_print_the_lines_as_they_are(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For jq and its like."""
    assert main(["tail", "-n", "20", "--raw", "-s", "metrics", str(run)]) == 0
    assert capsys.readouterr().out == (run / "metrics.jsonl").read_text()


def test_tail_uses_colour_on_a_terminal_only(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pipes get plain text."""
    assert main(["tail", "-n", "1", str(run)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert main(["tail", "-n", "1", str(run)]) == 0
    assert "\x1b[" in capsys.readouterr().out


def test_tail_follows_the_run_until_ctrl_c(run: Path, following: subprocess.Popen[str]) -> None:
    """New lines, new segments and new processes appear, whole; Ctrl-C ends it cleanly."""
    assert read_line(following.stdout)["message"] == "done"
    writer = OracleWriter(run, rank=1, segment_lines=1)
    writer.torn("metrics", b"")
    for step in range(3):
        writer.metrics(step, loss=1.0)
        line = read_line(following.stdout)
        assert (line["step"], line["seq"]) == (step, step)
    following.send_signal(signal.SIGINT)
    out, err = following.communicate(timeout=30)
    assert (out, err) == ("", "")
    assert following.returncode == 130


def test_tail_reports_a_truncated_file_and_goes_on(
    run: Path, following: subprocess.Popen[str]
) -> None:
    """Notes go to stderr, lines to stdout."""
    read_line(following.stdout)
    (run / "log.jsonl").write_bytes(b"")
    assert following.stderr is not None
    note = following.stderr.readline()
    assert note == "note: log.jsonl was truncated; reading it from its start\n"
    OracleWriter(run).log("again")
    assert read_line(following.stdout)["message"] == "again"


def test_tail_ends_when_the_run_is_removed(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing left to follow, and it says so; damage before that is noted."""
    OracleWriter(run, rank=1).torn("metrics", b"garbage\n")

    def sleep(seconds: float) -> None:
        run.rename(run.with_name("gone"))

    monkeypatch.setattr(time, "sleep", sleep)
    assert main(["tail", "-f", str(run)]) == 2
    error = capsys.readouterr().err
    assert "note: metrics of r1: skipped a damaged line" in error
    assert "cannot be read any more: No such file" in error


def test_tail_reads_a_backlog_without_pauses(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It sleeps only when it has caught up."""
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 1:
            raise KeyboardInterrupt
        monkeypatch.setattr("foundry_fastlog.reading.follow._POLL_BYTES", 100)
        writer = OracleWriter(run, rank=1)
        for step in range(50):
            writer.metrics(step, loss=1.0)

    monkeypatch.setattr(time, "sleep", sleep)
    assert main(["tail", "-f", "-n", "0", "--interval", "7", str(run)]) == 130
    assert capsys.readouterr().out.count("r1 metrics") == 50
    assert slept == [7, 7]


# ---- pipes and terminals -------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["summary"], ["tail", "-n", "100000"], ["tail", "--raw", "-n", "100000"]]
)
def test_a_closed_pipe_ends_quietly(command: list[str], run: Path) -> None:
    """`| head` shows no traceback, and the code is the one that shells expect."""
    writer = OracleWriter(run, rank=1)
    path = writer.path("metrics")
    line = json.dumps(writer.metrics(0, note="x" * 200))
    path.write_text("".join(line.replace('"seq": 0', f'"seq": {n}') + "\n" for n in range(5000)))
    with subprocess.Popen(
        [*COMMAND, *command, str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


UNSEEN = "a\x7f\x85\x9bmb\u061c\u202ec\u2066d\u2028\ufeff\U000e0041e é中😀"


def output(arguments: list[str], *, terminal: bool) -> bytes:
    """What a command writes to standard output, a terminal or a pipe."""
    if not terminal:
        return subprocess.run([*COMMAND, *arguments], stdout=subprocess.PIPE, check=False).stdout
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, *arguments], stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        data = b""
        # Reading a terminal that the other side has closed is an error on Linux, an end elsewhere.
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 4096):
                data += chunk
        assert process.stderr is not None
        process.stderr.read()
    os.close(ours)
    return data.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    "command",
    [
        ["summary", "RUN", "--json"],
        ["export", "RUN", "--to", "-"],
        ["tail", "--raw", "-n", "100", "RUN"],
        ["trace", "RUN", "--out", "-"],
    ],
    ids=lambda command: command[0],
)
def test_json_on_a_terminal_is_the_same_value_and_nothing_it_obeys(
    command: list[str], tmp_path: Path
) -> None:
    """Anyone may have written the run. A pipe and a file get it byte for byte."""
    writer = OracleWriter(tmp_path, start=START)
    writer.metrics_dict(0, {UNSEEN: 1.0, "plain": 2.0})
    writer.timing(UNSEEN, 0.1, step=0)
    writer.log(UNSEEN)
    write_run_json(tmp_path, name=UNSEEN)
    arguments = [part.replace("RUN", str(tmp_path)) for part in command]
    piped, shown = output(arguments, terminal=False), output(arguments, terminal=True)
    assert "\u202e".encode() in piped
    text = shown.decode()
    assert text.replace("\n", "").isprintable()
    assert "é中😀" in text
    whole = command[0] in ("summary", "trace")
    for got, wanted in [(shown, piped)] if whole else zip(shown.splitlines(), piped.split(b"\n")):  # noqa: B905 - the latter ends in an empty one
        assert json.loads(got) == json.loads(wanted)


@pytest.mark.parametrize("path", ["", "none"])
def test_what_an_error_names_is_nothing_a_terminal_obeys(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory beside the run may be anybody's."""
    (tmp_path / "evil\x1b[31m\nRED\u202e").mkdir()
    (tmp_path / "evil\x1b[31m\nRED\u202e" / "metrics.jsonl").touch()
    assert main(["summary", str(tmp_path / path)]) == 2
    text = capsys.readouterr().err
    assert "evil\\x1b[31m\\nRED\\u202e" in text
    assert text.replace("\n", "").isprintable()


def test_output_can_be_replaced(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's or a test's own stream needs no encoding to set."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["tail", "-n", "1", str(run)]) == 0
    assert stream.getvalue().endswith("log INFO done\n")
    assert main(["tail", "-n", "1", "--raw", str(run)]) == 0
    assert json.loads(stream.getvalue().splitlines()[-1])["message"] == "done"


def test_a_terminal_without_unicode_shows_escapes(tmp_path: Path) -> None:
    """Names in any script are no traceback on an old terminal."""
    writer = OracleWriter(tmp_path / "run", start=START)
    for step in range(3):
        writer.metrics_dict(step, {"löss中": 1.0 + step})
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [*COMMAND, "summary", str(tmp_path / "run")],
        capture_output=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0
    assert b"l\\xf6ss\\u4e2d" in done.stdout
    assert done.stderr == b""
