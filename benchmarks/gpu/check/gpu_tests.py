"""Runs tests/gpu with a time limit per test; a hang or a crash costs only that test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.gpu.check import judge
from benchmarks.gpu.check.leftovers import end_leftovers
from benchmarks.gpu.check.report import Report
from benchmarks.gpu.check.runner import LIMIT, STACKS_S, ending
from benchmarks.machine import ROOT

INI = Path(__file__).with_name("tests.ini")
MOST_PROCESSES = 8
TEST_S = 45.0
"""Seconds for one test; less if the part has less left."""
LEFT_S = 8.0
"""Seconds of the part's time reserved for the work after the tests."""
LOOK_S = 0.1
WHY = 300
"""Last characters of a failure shown in the table; the figures have more."""


class Outcomes:
    """The outcome of each test, from the plugin's log."""

    def __init__(self, log: Path, reported: Callable[[str, str, str], None]) -> None:
        """Prepare to read.

        Args:
            log: The file; it need not exist yet.
            reported: Receives each finished test once: its name, its outcome, its message.
        """
        self.log, self.reported = log, reported
        self.place = 0
        self.found: dict[str, str] = {}
        self.said: dict[str, str] = {}
        self.under_way: set[str] = set()

    def follow(self) -> None:
        """Read what was written since."""
        if not self.log.exists():
            return
        with self.log.open("rb") as file:
            file.seek(self.place)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.place += len(whole)
        for line in whole.splitlines():
            each = json.loads(line)
            self.take(each["test"], each["outcome"], each["why"])

    def take(self, test: str, outcome: str, why: str) -> None:
        """Process a line: collected, begun, ended, or an outcome."""
        if outcome == "ended":
            self.end(test)
            return
        if outcome == "begun":
            self.under_way.add(test)
        # A failure is final, whatever comes after it.
        if self.found.get(test) != "failed":
            self.found[test], self.said[test] = outcome, why

    def end(self, test: str) -> None:
        """Report a test that has an outcome."""
        self.under_way.discard(test)
        self.reported(test, self.found[test], self.said[test])

    def cut(self, how: str) -> bool:
        """End the test that was running when its process ended; return whether there was one."""
        cut = sorted(self.under_way)
        for test in cut:
            self.take(test, how, how)
            self.end(test)
        return bool(cut)

    def begun(self) -> int:
        """Return how many tests have begun."""
        return sum(outcome != judge.COLLECTED for outcome in self.found.values())


def pytest_command(folder: Path, *options: str) -> list[str]:
    """Return a command that needs neither pytest plugins nor the suite's configuration."""
    python = [sys.executable, "-X", "faulthandler", "-u", "-m", "pytest", "-c", str(INI)]
    where = ["--rootdir", str(ROOT), "--confcutdir", str(folder)]
    return [*python, *where, "-p", "benchmarks.gpu.check.pytest_log", *options, str(folder)]


def environment(log: Path, limit_s: float) -> dict[str, str]:
    """Return the environment of a pytest that writes to the log."""
    ours = {"GPU_CHECK_TESTS": str(log), "GPU_CHECK_TEST_LIMIT_S": f"{limit_s:g}"}
    return {**os.environ, **ours, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def followed(process: subprocess.Popen[bytes], outcomes: Outcomes, end: float) -> int | None:
    """Report outcomes until the process ends; return None if it timed out and was killed."""
    status = None
    while status is None and time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(LOOK_S)
        outcomes.follow()
    if status is None:
        process.send_signal(signal.SIGABRT)  # faulthandler prints the stacks
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STACKS_S)
        process.kill()
        process.wait()
        outcomes.follow()
    return status


def run_tests(
    folder: Path, log: Path, reported: Callable[[str, str, str], None], seconds: float
) -> dict[str, str]:
    """Run all tests of a folder; after a test that ended its process, continue in a new one.

    Args:
        folder: The tests' folder.
        log: The plugin's log.
        reported: Receives each test as it ends: its name, its outcome, its message.
        seconds: Time limit for all of them.

    Returns:
        The outcomes by name; tests that were not run are "collected".
    """
    outcomes = Outcomes(log, reported)
    end = time.monotonic() + seconds
    for _ in range(MOST_PROCESSES):
        begun = outcomes.begun()
        limit_s = min(TEST_S, end - time.monotonic())
        if limit_s <= 0:
            break
        process = subprocess.Popen(
            pytest_command(folder, "-q", "-ra", "--continue-on-collection-errors"),
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(log, limit_s),
        )
        status = followed(process, outcomes, end)
        end_leftovers()
        if status is None:
            outcomes.cut("cut off: the part's time was up")
            break
        # Exit status 1 in the middle of a test comes from faulthandler, when the test timed out.
        how = "hung" if status == 1 else ending(status) or "ended the process"
        cut = outcomes.cut(how)
        if (status in (0, 1, 5) and not cut) or outcomes.begun() == begun:
            break
    return outcomes.found


def run(report: Report) -> None:
    """Run tests/gpu; in a rehearsal, only collect them, which needs all their imports."""
    begun = time.monotonic()
    folder = ROOT / "tests" / "gpu"
    expects = "every test of tests/gpu is run"
    with report.attempt("tests/gpu", expects=expects), tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "tests.jsonl"
        if report.rehearsal:
            done = subprocess.run(
                pytest_command(folder, "-q", "--collect-only"),
                check=False,
                cwd=ROOT,
                env=environment(log, TEST_S),
                stdout=subprocess.PIPE,
                text=True,
            )
            print(done.stdout)
            if done.returncode:
                raise RuntimeError(f"pytest cannot collect them: exit status {done.returncode}")
            count = sum("::" in line for line in done.stdout.splitlines())
            report.needs_gpu("tests/gpu", f"{count} tests were collected", expects=expects)
            return

        def reported(test: str, outcome: str, said: str) -> None:
            verdict, why = judge.test(outcome, said)
            name, passes = test.rpartition("/")[2], "it passes"
            report.add(name, verdict, expects=passes, why=why[-WHY:], outcome=outcome, said=said)

        seconds = float(os.environ[LIMIT]) - (time.monotonic() - begun) - LEFT_S
        outcomes = run_tests(folder, log, reported, seconds)
        counts = Counter(outcomes.values())
        report.judge(
            "tests/gpu",
            judge.tests(outcomes),
            expects=expects,
            shows=", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()),
            outcomes=outcomes,
        )
