"""The command line, as a user meets it: output, exit codes, and errors that help."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import runpy
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from unittest.mock import Mock, call

import pytest
from oracle import START, OracleWriter, write_run_json
from recorded import TAKES_CTRL_C

import foundry_fastlog
import foundry_fastlog.demo
from foundry_fastlog.cli.main import main
from foundry_fastlog.reading.cursor import Cursor
from foundry_fastlog.reading.run import read_run

Capsys = pytest.CaptureFixture[str]
COMMAND = [sys.executable, "-m", "foundry_fastlog"]
Command = Callable[..., Any]
Patch = pytest.MonkeyPatch


@pytest.fixture
def run(tmp_path: Path) -> Path:
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
    process = piped([sys.executable, "-c", TAKES_CTRL_C + module, "tail", *options, str(run)])
    yield process
    process.kill()
    process.communicate()


def piped(command: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")


def read_line(stream: IO[str] | None) -> dict[str, object]:
    """The next JSON line of a process; pytest's timeout ends a wait in vain."""
    assert stream is not None
    line: dict[str, object] = json.loads(stream.readline())
    return line


@pytest.mark.parametrize(
    "words",
    ["", *("demo", "summary", "export", "tail", "recover", "runs", "logs", "errors", "query")],
)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_an_example_and_the_exit_codes(words: str, flag: str, command: Command) -> None:
    text = command(*words.split(), flag).out
    run = "RUN is the directory passed to Recorder(path)"
    for expected in ("foundry-fastlog " + words, *(["Example", "Exit codes"] if words else [run])):
        assert expected in text
    without = command(code=2)
    assert "summary" in without.out + without.err


@pytest.mark.parametrize(
    "arguments", ["nonsense", "summary", "tail -n -1 x", "export x --no", "recover --nonsense ."]
)
def test_wrong_usage_exits_with_2(arguments: str, command: Command) -> None:
    """Scripts can tell a wrong command from a damaged run."""
    assert "Usage" in command(*arguments.split(), code=2).err


def test_arguments_by_default(command: Command, monkeypatch: Patch, capsys: Capsys) -> None:
    """The console script calls main() without any."""
    version = f"foundry-fastlog {foundry_fastlog.__version__}\n"
    assert command("--version").out == version
    monkeypatch.setattr(sys, "argv", ["foundry-fastlog", "--version"])
    assert main() == 0
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("foundry_fastlog", run_name="__main__")
    assert stop.value.code == 0
    assert "main" in runpy.run_module("foundry_fastlog.__main__", run_name="imported")
    assert capsys.readouterr().out == 2 * version


@pytest.mark.parametrize("missing", ["typer", "foundry_fastlog.export.jsonl"])
def test_a_missing_extra_is_named(missing: str, monkeypatch: Patch, command: Command) -> None:
    """An import error of our own is shown as it is: that installation is broken."""
    monkeypatch.delitem(sys.modules, "foundry_fastlog.cli.commands", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    if missing != "typer":
        with pytest.raises(ModuleNotFoundError, match=r"foundry_fastlog\.export"):
            command("--version")
        return
    error = command("--version", code=2).err
    assert "needs typer, which is not installed. Run:" in error
    assert "pip install 'foundry_fastlog[cli]'" in error


def test_ctrl_c_while_the_commands_load(monkeypatch: Patch, command: Command) -> None:
    """As at any other time: no traceback."""
    finder = Mock(find_spec=Mock(side_effect=KeyboardInterrupt))
    monkeypatch.delitem(sys.modules, "foundry_fastlog.cli.commands", raising=False)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    assert command("--version", code=130) == ("", "")


@pytest.mark.parametrize("words", ["summary", "export --to out.jsonl", "tail"])
def test_a_path_that_is_no_run(words: str, run: Path, tmp_path: Path, command: Command) -> None:
    """A misspelled path, a file, and a parent of runs are all answered with the run."""
    for path in (tmp_path / "rum", run / "metrics.jsonl", tmp_path):
        captured = command(*words.split(), path, code=2)
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert str(run) in captured.err.replace("\n", "")
        assert "Traceback" not in captured.err


def test_tail_shows_one_start(run: Path, command: Command) -> None:
    OracleWriter(run, attempt=1).metrics(99, loss=1.0)
    shown = [command("tail", run, "--raw", "--starts", text).out for text in ("0", "1")]
    assert [json.loads(line)["step"] for line in shown[1].splitlines()] == [99]
    assert '"step":99' not in shown[0].replace(" ", "")
    assert "--starts takes all or a number here" in command(
        "tail", run, "--starts", "latest", code=2
    ).err.replace("\n", " ")


@pytest.mark.parametrize("words", ["summary", "export --to -", "trace --out -", "tail"])
def test_a_start_that_is_not_there(words: str, run: Path, command: Command) -> None:
    captured = command(*words.split(), run, "--starts", "7", code=2)
    assert captured.out == ""
    assert "has no start 7; it has 0" in captured.err.replace("\n", " ")


@pytest.mark.parametrize("word", ["summary", "tail"])
def test_a_run_that_cannot_be_listed_exits_with_2(
    word: str, run: Path, monkeypatch: Patch, command: Command
) -> None:
    fail = Mock(side_effect=OSError(5, "Input/output error"))
    monkeypatch.setattr("foundry_fastlog.reading.overlay.list_files", fail)
    assert "Input/output error" in command(word, run, code=2).err


COMMANDS = ["summary", "summary --json", "tail", "export --to -", "trace --out -", "compress"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("place", ["full", "closed", "both closed"])
def test_output_that_goes_nowhere_is_told_in_a_line(run: Path, words: str, place: str) -> None:
    """``export --to - > all.jsonl`` on a full disk; a daemon that has closed its streams."""
    line = f"{shlex.quote(sys.executable)} -m foundry_fastlog {words} {shlex.quote(str(run))}"
    line += {"full": " > /dev/full", "closed": " >&-", "both closed": " >&- 2>&-"}[place]
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    said = {"full": "No space left", "closed": "standard output is closed", "both closed": ""}
    assert (done.returncode, done.stdout) == (2, "")
    assert said[place] in done.stderr
    assert len(done.stderr.splitlines()) == (place != "both closed")


def test_a_pipe_that_has_a_name_in_proc_is_written(run: Path) -> None:
    command = [sys.executable, "-m", "foundry_fastlog", "export", "--to", "/dev/stdout", str(run)]
    done = subprocess.run(command, capture_output=True, check=False)
    lines = list(read_run(run).raw_lines())
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == len(lines)


def test_a_pattern_that_fits_no_metric_is_told(run: Path, command: Command) -> None:
    assert "no metric fits los, val_*" in command("summary", run, "-m", "los", "-m", "val_*").out


def test_demo_hands_its_options_on(monkeypatch: Patch, command: Command) -> None:
    """What the user said reaches the trainer, and its exit code the shell."""
    fake = Mock(side_effect=[0, 1])
    monkeypatch.setattr(foundry_fastlog.demo, "run", fake)
    command("demo")
    arguments = ["--config", "a.yaml", "--out", "dir", "--steps", "5", "--device", "cpu"]
    command("demo", *arguments, code=1)
    assert fake.call_args_list == [
        call(None, out=None, steps=None, device=None),
        call(Path("a.yaml"), out=Path("dir"), steps=5, device="cpu"),
    ]


def test_summary_has_tables_a_curve_and_the_verdict(run: Path, command: Command) -> None:
    """Dropped records are a problem, though the files are whole."""
    text = command("summary", run).out
    for expected in ("exp0", "none missing", "loss", "⠒⠒ loss", "error ValueError"):
        assert expected in text
    OracleWriter(run, rank=1).dropped("metrics", 3)
    text = command("summary", run, code=1).out
    assert "metrics 3 (the recorder's ring was full)" in text


def test_summary_of_a_damaged_run_exits_with_1(damaged: Path, command: Command) -> None:
    """A script notices what a person would read; --json is for programs."""
    text = command("summary", damaged, code=1).out
    assert "NO: see the problems below" in text
    assert "seq 5 missing" in text
    OracleWriter(damaged, attempt=1).metrics(0, loss=5.0)
    data = json.loads(command("summary", "--json", damaged, code=1).out)
    assert (data["complete"], data["metrics"][0]["count"]) == (False, 1)
    text = command("summary", "--json", "--starts", "all", damaged, code=1).out
    assert json.loads(text)["metrics"][0]["count"] == 20


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_export_of_a_whole_run_exits_with_0(run: Path, tmp_path: Path, command: Command) -> None:
    """The file is there, and what was done is said on stderr; it is not overwritten unasked."""
    target = tmp_path / "out.jsonl"
    captured = command("export", run, "--to", target)
    assert captured.out == ""
    for expected in ("42 lines", "added to each line: stream", "complete: seq has no gap"):
        assert expected in captured.err
    assert line_count(target) == 42
    target.write_text("precious")
    assert "use --force to replace it" in command("export", run, "--to", target, code=2).err
    assert target.read_text() == "precious"


@pytest.mark.parametrize("name", ["x.tsv", "x.XLSX"])
def test_export_writes_no_other_format(
    run: Path, tmp_path: Path, command: Command, name: str
) -> None:
    """Not under its name either; it says what does."""
    error = command("export", run, "--to", tmp_path / name, code=2).err
    assert "choose .csv or .parquet" in error
    assert "to_pandas" in error
    assert not (tmp_path / name).exists()


def test_export_to_standard_output(run: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The bytes of the file arrive in the pipe, and nothing else."""
    assert main(["export", str(run), "-s", "metrics", "--to", "-"]) == 0
    assert capfdbinary.readouterr().out == (run / "metrics.jsonl").read_bytes()
    assert main(["export", str(run), "-s", "log", "--stream", "errors", "--to", "-"]) == 0
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [line["stream"] for line in lines] == ["errors", "log"]


def test_export_of_a_damaged_run(damaged: Path, tmp_path: Path, command: Command) -> None:
    target = tmp_path / "out.jsonl"
    error = command("export", damaged, "--to", target, code=1).err
    row = next(line for line in error.splitlines() if line.startswith("metrics"))
    assert row.split() == ["metrics", "main", "19", "1", "5", "0", "1", "0", "0"]
    for expected in ("NOT complete", "metrics.jsonl:6: seq 5 missing", "the last line is torn"):
        assert expected in error
    assert line_count(target) == 41


def test_export_with_drops(run: Path, tmp_path: Path, command: Command) -> None:
    """Whoever chose to drop records can say so."""
    OracleWriter(run, rank=1).dropped("metrics", 7)
    arguments = ["export", run, "--force", "--to", tmp_path / "out.jsonl"]
    error = command(*arguments, code=1).err
    assert "complete except for 7 records that the recorder dropped" in error
    command(*arguments, "--allow-dropped")


def test_export_says_what_a_resume_left_out(run: Path, tmp_path: Path, command: Command) -> None:
    """And how to keep it."""
    OracleWriter(run, attempt=1).metrics(19, loss=9.0)
    arguments = ["export", run, "-s", "metrics", "--to", target := tmp_path / "out.jsonl"]
    left_out = "omitted: 1 value recorded again or rewound: loss 1 (--starts all"
    assert left_out in command(*arguments).err
    assert line_count(target) == 20
    error = command(*arguments, "--starts", "all", "--tag", "never", "--force").err
    assert "omitted" not in error
    assert "added" not in error
    assert line_count(target) == 21


def test_tail_shows_the_last_lines(run: Path, monkeypatch: Patch, command: Command) -> None:
    """Readable, timings only when asked for; raw ones for jq; coloured on a terminal only."""
    text = command("tail", "-n", "3", run).out
    assert "\x1b" not in text
    assert [line.split()[2] for line in text.splitlines()] == ["metrics", "errors", "log"]
    assert text.splitlines()[0].endswith("metrics step=19 loss=0.05")
    text = command("tail", "-n", "1", "--stream", "performance", run).out
    assert text.endswith("performance step=19 step 100 ms\n")
    text = command("tail", "-n", "20", "--raw", "-s", "metrics", run).out
    assert text == (run / "metrics.jsonl").read_text()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" in command("tail", "-n", "1", run).out


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
    assert following.communicate(timeout=30) == ("", "")
    assert following.returncode == 130


def test_tail_waits_for_a_run_that_is_about_to_start(
    tmp_path: Path, monkeypatch: Patch, command: Command
) -> None:
    """With -f; it says so once. A file is no such place."""
    run = tmp_path / "later"
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            OracleWriter(run).metrics(1, loss=1.0)
        if len(slept) > 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    said = command("tail", "-f", run, code=130)
    assert said.err.replace("\n", "").count("waiting for a run: ") == 1
    assert str(run) in said.err.replace("\n", "")
    assert said.out.endswith("metrics step=1 loss=1\n")
    command("tail", tmp_path / "never", code=2)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path):
        command("tail", "-f", path, code=2)


def test_tail_names_the_writer_without_a_label(run: Path, command: Command) -> None:
    """Beside others, which have one."""
    OracleWriter(run, rank=1).metrics(0, loss=1.0)
    writers = {line.split()[2] for line in command("tail", "-n", "99", run).out.splitlines()}
    assert writers == {"main", "r1"}


def test_tail_ends_when_the_run_is_removed(run: Path, monkeypatch: Patch, command: Command) -> None:
    """There is nothing left to follow, and it says so; damage before that is noted."""
    OracleWriter(run, rank=1).torn("metrics", b"garbage\n")
    monkeypatch.setattr(time, "sleep", lambda seconds: run.rename(run.with_name("gone")))
    error = command("tail", "-f", run, code=2).err
    assert "note: metrics of r1: skipped a damaged line" in error
    assert "can no longer be read: No such file" in error


def test_tail_reads_a_backlog(run: Path, monkeypatch: Patch, command: Command) -> None:
    """It sleeps only when it has caught up."""
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 1:
            raise KeyboardInterrupt
        monkeypatch.setattr(Cursor.poll, "__defaults__", (100,))  # so that it takes many polls
        writer = OracleWriter(run, rank=1)
        for step in range(50):
            writer.metrics(step, loss=1.0)

    monkeypatch.setattr(time, "sleep", sleep)
    text = command("tail", "-f", "-n", "0", "--interval", "7", run, code=130).out
    assert text.count("r1 metrics") == 50
    assert slept == [7, 7]


@pytest.mark.parametrize("words", ["summary", "tail -n 100000", "tail --raw -n 100000"])
def test_a_closed_pipe_ends_quietly(words: str, run: Path) -> None:
    """`| head` shows no traceback, and the code is the one that shells expect."""
    writer = OracleWriter(run, rank=1)
    path = writer.path("metrics")
    line = json.dumps(writer.metrics(0, note="x" * 200))
    path.write_text("".join(line.replace('"seq": 0', f'"seq": {n}') + "\n" for n in range(5000)))
    with piped([*COMMAND, *words.split(), str(run)]) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


UNSEEN = "a\x7f\x85\x9bmb\u061c\u202ec\u2066d\u2028\ufeff\U000e0041e é中😀"


def shown_on_a_terminal(arguments: list[str]) -> bytes:
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
    "words",
    ["summary RUN --json", "export RUN --to -", "tail --raw -n 100 RUN", "trace RUN --out -"],
)
def test_json_on_a_terminal(words: str, tmp_path: Path) -> None:
    """Anyone may have written the run. A pipe and a file get it byte for byte."""
    writer = OracleWriter(tmp_path, start=START)
    writer.metrics_dict(0, {UNSEEN: 1.0, "plain": 2.0})
    writer.timing(UNSEEN, 0.1, step=0)
    writer.log(UNSEEN)
    write_run_json(tmp_path, name=UNSEEN)
    arguments = [part.replace("RUN", str(tmp_path)) for part in words.split()]
    to_pipe = subprocess.run([*COMMAND, *arguments], stdout=subprocess.PIPE, check=False).stdout
    shown = shown_on_a_terminal(arguments)
    assert "\u202e".encode() in to_pipe
    text = shown.decode()
    assert text.replace("\n", "").isprintable()
    assert "é中😀" in text
    parts = (lambda data: [data]) if arguments[0] in ("summary", "trace") else bytes.splitlines
    for got, wanted in zip(parts(shown), parts(to_pipe), strict=True):
        assert json.loads(got) == json.loads(wanted)


@pytest.mark.parametrize("path", ["", "none"])
def test_errors_on_a_terminal(path: str, tmp_path: Path, command: Command) -> None:
    """A directory beside the run may be anybody's."""
    (tmp_path / "evil\x1b[31m\nRED\u202e").mkdir()
    (tmp_path / "evil\x1b[31m\nRED\u202e" / "metrics.jsonl").touch()
    text = command("summary", tmp_path / path, code=2).err
    assert "evil\\x1b[31m\\nRED\\u202e" in text
    assert text.replace("\n", "").isprintable()


def test_output_can_be_replaced(run: Path, monkeypatch: Patch) -> None:
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
    arguments = [*COMMAND, "summary", str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"l\\xf6ss\\u4e2d" in done.stdout
