"""SIGTERM: the run says that it was stopped, and the process ends by the signal as without."""

from __future__ import annotations

import signal
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded import in_threads, run_python

from foundry_fastlog import read_run
from foundry_fastlog.components import ending
from foundry_fastlog.components.ending import on_sigterm

OPENS = """
    import multiprocessing, os, signal, sys, threading, time
    from foundry_fastlog import ExperimentLogging, LoggingConfig
    from types import SimpleNamespace

    def opened(**section):
        logging = LoggingConfig(console=False, system_metrics_every_s=0.01, **section)
        experiment = SimpleNamespace(experiment_name="e", logging=logging)
        return ExperimentLogging(experiment, directory=sys.argv[1])

    def end():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
"""


def run(tmp_path: Path, code: str, returncode: int) -> list[str]:
    """Run code after OPENS; return the messages of its log."""
    script = textwrap.dedent(OPENS) + textwrap.dedent(code)
    run_python(script, tmp_path, options=["-W", "ignore"], returncode=returncode)
    return [line["message"] for line in read_run(tmp_path).lines("log")]


def test_sigterm_stops_a_run(tmp_path: Path) -> None:
    """As from Slurm: closed, with the reason in log and start."""
    code = """
        logs = opened(profile_performance=True)
        logs.log_step(7, 0, {"loss": 2.5})
        end()
    """
    assert run(tmp_path, code, -signal.SIGTERM) == ["Run started", "Run stopped"]
    found = read_run(tmp_path)
    last = list(found.lines("log"))[-1]
    assert (last["level"], last["context"]["reason"]) == ("WARNING", "SIGTERM")
    assert last["context"]["step"] == 7
    (start,) = found.report_starts()
    assert start.state == "signal"
    assert [line["step"] for line in found.lines("metrics")] == [7]
    assert "Run stopped\n  reason: SIGTERM\n" in next(tmp_path.glob("main_*.log")).read_text()
    assert found.rings == ()


def test_sigterm_to_a_process_and_to_its_group(tmp_path: Path) -> None:
    """It comes two or three times within milliseconds then, which is once."""
    code = """
        logs = opened()
        for turn in range(10):
            threading.Timer(0.1 + turn / 500, os.kill, (os.getpid(), signal.SIGTERM)).start()
        time.sleep(60)
    """
    assert run(tmp_path, code, -signal.SIGTERM) == ["Run started", "Run stopped"]
    found = read_run(tmp_path)
    assert [start.state for start in found.report_starts()] == ["signal"]
    assert found.rings == ()


@pytest.mark.parametrize(
    ("code", "returncode", "messages"),
    [
        ("logs = opened(catch_sigterm=False); end()", -signal.SIGTERM, ["Run started"]),
        (
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); logs = opened(); end()",
            3,
            ["Run started", "Run ended"],
        ),
        ("logs = opened(); logs.close(); end()", -signal.SIGTERM, ["Run started", "Run ended"]),
        (
            "opening = threading.Thread(target=opened); opening.start(); opening.join(); end()",
            -signal.SIGTERM,
            ["Run started"],
        ),
    ],
)
def test_who_ends_otherwise(
    tmp_path: Path, code: str, returncode: int, messages: list[str]
) -> None:
    """Not asked for; a handler of its own; a closed run; opened where no handler can be set."""
    assert run(tmp_path, code, returncode) == messages


def test_a_forked_worker_is_ended_as_ever(tmp_path: Path) -> None:
    """By terminate(), also where it is in no Python code; the run goes on."""
    code = """
        logs = opened()
        fork = multiprocessing.get_context("fork")
        worker = fork.Process(target=time.sleep, args=(60,))
        worker.start()
        worker.terminate()
        worker.join()
        assert worker.exitcode == -signal.SIGTERM
        logs.logger().info("goes on")
        logs.close()
    """
    assert run(tmp_path, code, 0) == ["Run started", "goes on", "Run ended"]


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """List the signals that the process is ended with, instead of ending it."""
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append(number))
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield killed
    signal.signal(signal.SIGTERM, before)


def test_all_ends_are_called_whatever_one_raises(killed: list[int]) -> None:
    """The last opened first; then the signal has its default again."""
    called: list[str] = []

    def fails() -> None:
        called.append("fails")
        raise RuntimeError

    forget = on_sigterm(lambda: called.append("first"))
    on_sigterm(fails)
    assert signal.getsignal(signal.SIGTERM) is ending._on_sigterm
    ending._on_sigterm(signal.SIGTERM, None)
    assert (called, killed) == (["fails", "first"], [signal.SIGTERM])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    forget()


def test_sigterm_again_is_for_good(killed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that hangs is not waited for."""
    seen: list[object] = []

    def hangs() -> None:
        ending._again(signal.SIGTERM, None)
        seen.append(killed.copy())
        monkeypatch.setattr(ending._ending, "since", time.monotonic() - 2)
        ending._again(signal.SIGTERM, None)
        seen.append(signal.getsignal(signal.SIGTERM))

    on_sigterm(hangs)
    ending._on_sigterm(signal.SIGTERM, None)
    assert seen == [[], signal.SIG_DFL]
    assert killed == [signal.SIGTERM] * 2


def test_taking_it_back_in_another_thread(killed: list[int]) -> None:
    """The handler can only be taken off in the main thread; it does nothing then."""
    forget = on_sigterm(lambda: killed.append(0))
    in_threads(lambda _: forget())
    ending._on_sigterm(signal.SIGTERM, None)
    assert killed == [signal.SIGTERM]
    on_sigterm(lambda: killed.append(0))
    ending._after_fork_in_child()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert ending._ends == []
