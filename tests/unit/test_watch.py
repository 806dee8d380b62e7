"""What a watch tells of: planted spikes, NaN, errors, hangs, ends; and when it keeps quiet."""

from __future__ import annotations

import inspect
import json
import logging
import math
import random
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from oracle import OracleWriter
from recorded import run_python

from foundry_fastlog import Alert, Recorder, RunWatch, WatchRules
from foundry_fastlog.analysis import watching

Patch = pytest.MonkeyPatch
Command = Callable[..., Any]
QUIET = WatchRules(stall_s=None, disk_free=None)
FREE = shutil.disk_usage("/")


def told(run: Path, rules: WatchRules = QUIET) -> list[Alert]:
    """What a watch says of a run that has ended."""
    return RunWatch(run, rules, only_new=False).look()


def noisy(run: Path, planted: dict[int, float], count: int = 200) -> list[float]:
    """Record a loss with noise, and some values that are planted."""
    noise = random.Random(3)
    losses = [planted.get(step, 1 + noise.gauss(0, 0.05)) for step in range(count)]
    with Recorder(run) as recorder:
        for step, loss in enumerate(losses):
            recorder.record(step, loss=loss, lr=0.5)
    return losses


@pytest.mark.parametrize(
    ("planted", "rules", "steps"),
    [
        ({120: 9.0}, QUIET, [120]),
        ({120: 9.0, 121: 9.0, 150: 5.0}, QUIET, [120, 150]),  # it came back in between
        ({10: 9.0}, QUIET, []),  # too few before it
        ({120: -9.0}, QUIET, []),
        ({120: -9.0}, WatchRules(falls=True, stall_s=None, disk_free=None), [120]),
        ({120: 9.0}, WatchRules(spikes=("val_*",), stall_s=None, disk_free=None), []),
        ({}, QUIET, []),
    ],
)
def test_spikes(
    tmp_path: Path, planted: dict[int, float], rules: WatchRules, steps: list[int]
) -> None:
    """Beside the median and the MAD of the window, computed once more."""
    losses = noisy(tmp_path, planted)
    found = told(tmp_path, rules)
    assert [(alert.kind, alert.name, alert.step) for alert in found] == [
        ("spike", "loss", step) for step in steps
    ]
    for alert in found:
        assert alert.step is not None
        before = losses[alert.step - 100 : alert.step]
        middle = statistics.median(before)
        mad = statistics.median([abs(value - middle) for value in before])
        assert f"{middle:.4g}, their MAD {mad:.4g}" in alert.message
        assert abs(alert.value - middle) > 8 * 1.4826 * mad
        shown = range(alert.step - 7, alert.step + 1)
        wanted = [{"step": step, "loss": losses[step], "lr": 0.5} for step in shown]
        assert list(alert.led_there) == wanted


def test_constant_values_and_ranks_are_each_for_themselves(tmp_path: Path) -> None:
    """A step of a constant metric is a spike; a rank on another level is none."""
    for rank, level in enumerate((1.0, 100.0)):
        writer = OracleWriter(tmp_path, rank=rank)
        for step in range(50):
            writer.metrics(step, loss=level, val_loss=2.0 if step < 40 else 2.5)
    assert sorted((a.rank, a.name, a.step) for a in told(tmp_path)) == [
        (0, "val_loss", 40),
        (1, "val_loss", 40),
    ]


def test_after_a_rewind_the_window_fills_anew(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    writer.fill(range(50), loss=1.0)
    writer.rewind(10)
    writer.fill(range(10, 20), loss=5.0)
    assert told(tmp_path) == []


def test_nan_is_told_of_once_until_it_has_gone(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    for step, loss in enumerate([1.0, math.nan, math.nan, 2.0, math.inf]):
        writer.metrics(step, loss=loss)
    writer.metrics(5, lr=-math.inf)
    writer.metrics(6, note="nan", nothing=None)
    found = [(one.step, one.name, one.value) for one in told(tmp_path)]
    assert found == [(1, "loss", "nan"), (4, "loss", "inf"), (5, "lr", "-inf")]
    assert told(tmp_path, WatchRules(nonfinite=(), stall_s=None, disk_free=None)) == []


def test_many_errors_within_a_minute(tmp_path: Path) -> None:
    """Those of the oracle are milliseconds apart; warnings and lost records are none."""
    earlier = OracleWriter(tmp_path, rank=1)
    earlier.now -= timedelta(minutes=2)
    for number in range(9):
        earlier.error("long ago", ValueError("x"), step=number)
    writer = OracleWriter(tmp_path)
    for number in range(14):
        writer.error(f"bad\x1b {number}", ValueError("x"), step=number)
    writer.dropped("errors", 5)
    (alert,) = told(tmp_path)
    assert (alert.kind, alert.step) == ("errors", 10)
    assert alert.message == "11 errors within a minute; the last: bad\\x1b 10"
    assert told(tmp_path, WatchRules(errors_per_minute=None, stall_s=None, disk_free=None)) == []


def test_a_time_that_is_none_does_not_end_a_watch(tmp_path: Path) -> None:
    """Of a line that no recorder writes."""
    writer = OracleWriter(tmp_path)
    line = '"seq":0,"level":"ERROR","logger":"","message":"bad","context":{}'
    writer.torn("errors", f'{{"timestamp":"soon",{line}}}\n'.encode())
    writer.torn("metrics", b'{"timestamp":"soon","seq":0,"step":0,"metrics":{"loss":1.0}}\n')
    assert told(tmp_path) == []
    assert RunWatch(tmp_path, QUIET).look() == []


def test_messages_of_level_error_are_errors(tmp_path: Path) -> None:
    """One with an exception is in two streams, and one error."""
    writer = OracleWriter(tmp_path)
    for number in range(5):
        writer.error("both", ValueError("x"), step=number)
        writer.write("log", {"level": "ERROR", "message": "both", "error_type": "ValueError"})
    for number in range(5, 12):
        writer.log("a message", level="WARNING", step=number)
        writer.log("a message", level="CRITICAL", step=number)
    (alert,) = told(tmp_path)
    assert (alert.kind, alert.step) == ("errors", 10)


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("pass", None, ""),
        ("raise ZeroDivisionError('by none')", "failed", "ZeroDivisionError: by none"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed", "was killed"),
    ],
)
def test_how_the_run_ended(tmp_path: Path, how: str, kind: str | None, message: str) -> None:
    """After all that it wrote."""
    code = inspect.cleandoc(f"""
        from foundry_fastlog import Recorder
        with Recorder({str(tmp_path)!r}) as recorder:
            recorder.record(1, loss=float("nan"))
            {how}
    """)
    run_python(code, returncode=None)
    watch = RunWatch(tmp_path, QUIET, only_new=False)
    found = watch.look()
    assert watch.ended
    assert [alert.kind for alert in found] == ["nonfinite", *([kind] if kind else [])]
    assert watch.alerts == len(found)
    assert message in found[-1].message


@pytest.fixture
def clock(monkeypatch: Patch) -> Callable[[float], None]:
    """The watch's clock, which goes on when it is told to."""
    shift = [0.0]

    def advance(seconds: float) -> None:
        shift[0] += seconds

    real = time.monotonic
    monkeypatch.setattr(watching.time, "monotonic", lambda: real() + shift[0])
    return advance


def test_a_live_run_that_makes_no_progress(
    tmp_path: Path, clock: Callable[[float], None], monkeypatch: Patch
) -> None:
    """Figures of the machine are none; told of once, until it goes on. A closed run is no such."""
    rules = WatchRules(stall_s=60.0, disk_free=None)
    with Recorder(tmp_path) as recorder:
        watch = RunWatch(tmp_path, rules)
        recorder.record(0, loss=1.0)
        recorder.flush()
        assert watch.look() == []
        for _ in range(2):
            clock(59)
            recorder.record(1, loss=1.0)
            recorder.flush()
            assert watch.look() == []
        clock(61)
        recorder.system({"cpu": 1.0})
        recorder.flush()
        (alert,) = watch.look()
        assert (alert.kind, alert.message[:35]) == (
            "stalled",
            "no metric and no timing for 61 s; t",
        )
        assert watch.look() == []
        with recorder.timer("step"):
            pass
        recorder.flush()
        assert watch.look() == []
        clock(61)
        assert [one.kind for one in watch.look()] == ["stalled"]
        # Who looks for the first time sees by the lines that it has been idle.
        now = time.time
        monkeypatch.setattr(watching.time, "time", lambda: now() + 3600)
        assert [one.kind for one in RunWatch(tmp_path, rules).look()] == ["stalled"]
    clock(1000)
    watch = RunWatch(tmp_path, rules)
    assert watch.look() == []
    assert watch.ended


def test_a_disk_that_fills(tmp_path: Path, monkeypatch: Patch) -> None:
    free = [5 << 30]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: FREE._replace(free=free[0]))
    with Recorder(tmp_path):
        watch = RunWatch(tmp_path, WatchRules(disk_free=1 << 30))
        found = []
        for free[0] in (5 << 30, 1 << 29, 1 << 28, 2 << 30, 1 << 20):
            found += watch.look()
    assert [alert.message for alert in found] == [
        "only 536.9 MB are free for the run",
        "only 1.0 MB are free for the run",
    ]


def test_in_the_training_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A thread looks, a last time at the end; what a callback raises is logged, and it goes on."""
    seen: list[str] = []

    def on_alert(alert: Alert) -> None:
        seen.append(alert.message)
        raise OSError("no mail today")

    with Recorder(tmp_path) as recorder:
        recorder.record(0, loss=float("nan"))
        recorder.flush()
        with RunWatch(recorder, on_alert=on_alert, interval_s=60) as watch:  # not of what was
            recorder.record(1, loss=1.0)
            recorder.record(2, loss=float("inf"), lr=float("nan"))
            with pytest.raises(RuntimeError, match="started already"):
                watch.start()
        watch.stop()
        with RunWatch(tmp_path, interval_s=60):
            recorder.record(3, acc=float("nan"))
            recorder.flush()
    assert seen == ["loss is inf at step 2", "lr is nan at step 2"]
    assert [(one.name, one.levelno, one.getMessage()) for one in caplog.records] == [
        *(("foundry_fastlog.watch", logging.ERROR, f"on_alert failed for: {one}") for one in seen),
        ("foundry_fastlog.watch", logging.WARNING, "acc is nan at step 3"),
    ]


def test_a_run_that_is_removed_ends_the_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    OracleWriter(run).metrics(0, loss=1.0)
    watch = RunWatch(run, QUIET)
    shutil.rmtree(run)
    with watch:
        pass
    assert [one.getMessage()[:14] for one in caplog.records] == ["the watch of /"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"spikes": "loss"}, TypeError, "several patterns"),
        ({"least": 1}, ValueError, "least must be from 2 to window"),
        ({"window": 5}, ValueError, "least must be from 2 to window"),
        ({"threshold": 0}, ValueError, "threshold must be a number above 0"),
        ({"stall_s": float("nan")}, ValueError, "stall_s must be a number above 0"),
    ],
)
def test_rules_that_make_no_sense(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        WatchRules(**options)


def test_no_interval_is_refused(tmp_path: Path) -> None:
    OracleWriter(tmp_path).metrics(0, loss=1.0)
    with pytest.raises(ValueError, match="interval_s must be above 0"):
        RunWatch(tmp_path, interval_s=0)


# ---- the command --------------------------------------------------------------------------------


@pytest.fixture
def spiky(tmp_path: Path) -> Path:
    noisy(tmp_path / "run", {120: 9.0, 160: 7.0})
    return tmp_path / "run"


def test_the_command_shows_what_led_there(spiky: Path, command: Command) -> None:
    out, _ = command("watch", spiky, code=1)
    said = [line for line in out.splitlines() if "spike" in line]
    assert [line.split("rose to ")[1].split(":")[0] for line in said] == [
        "9 at step 120",
        "7 at step 160",
    ]
    header = next(line for line in out.splitlines() if line.startswith("step"))
    assert header.split() == ["step", "loss", "lr"]
    assert command("watch", spiky, "--exit", code=1)[0].count("spike") == 1
    assert command("watch", spiky, "--new")[0] == ""
    assert command("watch", spiky, "-m", "val_*", "--once")[0] == ""


def test_alerts_as_json_lines(spiky: Path, command: Command) -> None:
    out, _ = command("watch", spiky, "--json", code=1)
    first, second = map(json.loads, out.splitlines())
    assert (first["kind"], first["step"], second["value"]) == ("spike", 120, 7.0)
    assert (first["run"], first["rank"]) == (str(spiky), 0)


def test_a_command_and_a_webhook_are_told(spiky: Path, tmp_path: Path, command: Command) -> None:
    """Their failures are noted, and the watch goes on."""
    posted: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if len(posted) == 1 else 500)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    said = tmp_path / "said"
    shell = f'cat >> {said}; echo "$FASTLOG_KIND $FASTLOG_RUN" >> {said}; false'
    server = HTTPServer(("127.0.0.1", 0), Hook)
    url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        options = ("--command", shell, "--webhook", url)
        _, notes = command("watch", spiky, *options, code=1)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [one["text"].split(":")[0] for one in posted] == [str(spiky)] * 2
    lines = said.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines[::2]] == [120, 160]
    assert lines[1::2] == [f"spike {spiky}"] * 2
    assert notes.count("--command ended with status 1") == 2
    assert notes.count("HTTP Error 500") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--webhook", "file:///etc/passwd"), "takes http"),
        (("--window", "1"), "least must be"),
        (("--threshold", "-1"), "above 0"),
    ],
)
def test_bad_options(spiky: Path, command: Command, options: tuple[str, ...], message: str) -> None:
    _, err = command("watch", spiky, *options, code=2)
    assert message in " ".join(err.split())


def test_a_command_that_takes_too_long(spiky: Path, command: Command, monkeypatch: Patch) -> None:
    monkeypatch.setattr("foundry_fastlog.cli.watch._TOLD_S", 0.05)
    _, notes = command("watch", spiky, "--exit", "--command", "sleep 60", code=1)
    assert notes.count("timed out") == 1


def test_an_alert_without_a_table_and_a_command_that_succeeds(
    tmp_path: Path, command: Command
) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.record(7, loss=float("nan"))
    out, notes = command("watch", tmp_path, "--command", "true", code=1)
    assert out.splitlines()[0].endswith("nonfinite loss is nan at step 7")
    assert (len(out.splitlines()), notes) == (1, "")


def test_a_run_that_goes_while_it_is_watched(
    tmp_path: Path, command: Command, monkeypatch: Patch
) -> None:
    """The command follows a live run, and says when it can no longer."""
    run = tmp_path / "run"
    monkeypatch.setattr("time.sleep", lambda _: run.rename(tmp_path / "gone"))
    with Recorder(run):
        _, err = command("watch", run, "--new", code=2)
    assert "can no longer be read" in err
