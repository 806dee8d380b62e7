"""tests/gpu, each test bounded; one that hangs or crashes costs its own outcome only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.gpu.check import judge
from benchmarks.gpu.check.report import Report
from benchmarks.gpu.check.runner import ending
from benchmarks.machine import ROOT

INI = Path(__file__).with_name("tests.ini")
MOST_PROCESSES = 8


def pytest_command(folder: Path, *options: str) -> list[str]:
    """Return a command that needs neither pytest's plugins nor the suite's own configuration."""
    python = [sys.executable, "-X", "faulthandler", "-u", "-m", "pytest", "-c", str(INI)]
    where = ["--rootdir", str(ROOT), "--confcutdir", str(folder)]
    return [*python, *where, "-p", "benchmarks.gpu.check.pytest_log", *options, str(folder)]


def outcomes_of(log: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the outcome of each test, and what was said of it; "begun" has none."""
    found: dict[str, str] = {}
    said: dict[str, str] = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        each = json.loads(line)
        # A failure stands, whatever comes after it.
        if found.get(each["test"]) != "failed":
            found[each["test"]] = each["outcome"]
            said[each["test"]] = each["why"]
    return found, said


def run_tests(folder: Path, log: Path) -> dict[str, str]:
    """Run all tests of a folder, in a new process after each that took its process along.

    Returns:
        Their outcomes by name.
    """
    environment = {**os.environ, "GPU_CHECK_TESTS": str(log), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for _ in range(MOST_PROCESSES):
        before = len(outcomes_of(log)[0])
        done = subprocess.run(
            pytest_command(folder, "-q", "-ra"), check=False, cwd=ROOT, env=environment
        )
        found, _ = outcomes_of(log)
        begun = [test for test, outcome in found.items() if outcome == "begun"]
        for test in begun:
            # An exit of 1 in the middle of a test is faulthandler's, when the time was up.
            how = "hung" if done.returncode == 1 else ending(done.returncode) or "ended the process"
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"test": test, "outcome": how, "why": how}) + "\n")
        whole = done.returncode in (0, 1, 5) and not begun
        if whole or len(found) == before:
            break
    return outcomes_of(log)[0]


def run(report: Report) -> None:
    """Run tests/gpu; in a rehearsal only collect them, which needs all their imports."""
    folder = ROOT / "tests" / "gpu"
    expects = "every test of tests/gpu passes, or is skipped for what this machine lacks"
    with report.attempt("tests/gpu", expects=expects), tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "tests.jsonl"
        if report.rehearsal:
            environment = {**os.environ, "GPU_CHECK_TESTS": str(log)}
            environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            done = subprocess.run(
                pytest_command(folder, "-q", "--collect-only"),
                check=False,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            print(done.stdout)
            if done.returncode:
                raise RuntimeError(f"pytest cannot collect them: exit status {done.returncode}")
            count = sum("::" in line for line in done.stdout.splitlines())
            report.needs_gpu("tests/gpu", f"{count} tests were collected", expects=expects)
            return
        outcomes = run_tests(folder, log)
        counts = Counter(outcomes.values())
        report.judge(
            "tests/gpu",
            judge.tests(outcomes),
            expects=expects,
            shows=", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()),
            outcomes=outcomes,
            why_not={
                test: why for test, why in outcomes_of(log)[1].items() if outcomes[test] != "passed"
            },
        )
