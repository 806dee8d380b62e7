"""pytest plugin: writes each outcome at once, ends a test that hangs, skips finished tests.

GPU_CHECK_TESTS names the file, GPU_CHECK_TEST_LIMIT_S a test's time limit. A line is written when a
test is collected, when it begins (so that a test that ends the process is known), for each outcome,
and when it has ended.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

COLLECTED, BEGUN = "collected", "begun"
LIMIT_S = float(os.environ["GPU_CHECK_TEST_LIMIT_S"])
# pytest captures descriptor 2 during a test: write the stacks of a hung test to the original one.
STACKS = os.fdopen(os.dup(2), "w")


def log_path() -> Path:
    """Return the file for outcomes."""
    return Path(os.environ["GPU_CHECK_TESTS"])


def seen() -> set[tuple[str, str]]:
    """Return the tests and outcomes of earlier processes."""
    text = log_path().read_text(encoding="utf-8") if log_path().exists() else ""
    return {(each["test"], each["outcome"]) for each in map(json.loads, text.splitlines())}


SEEN = seen()


def write(test: str, outcome: str, why: str = "") -> None:
    """Append a line."""
    with log_path().open("a", encoding="utf-8") as file:
        file.write(json.dumps({"test": test, "outcome": outcome, "why": why[-2000:]}) + "\n")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests of an earlier process."""
    for item in items:
        if (item.nodeid, COLLECTED) not in SEEN:
            write(item.nodeid, COLLECTED)
    gone = [item for item in items if (item.nodeid, BEGUN) in SEEN]
    items[:] = [item for item in items if (item.nodeid, BEGUN) not in SEEN]
    config.hook.pytest_deselected(items=gone)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Report a module that cannot be imported, or that skips everything, like a test."""
    if not report.passed and (report.nodeid, BEGUN) not in SEEN:
        write(report.nodeid, BEGUN)
        write(report.nodeid, report.outcome, str(report.longrepr))
        write(report.nodeid, "ended")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """End the process when the test takes too long."""
    write(item.nodeid, BEGUN)
    faulthandler.dump_traceback_later(LIMIT_S, exit=True, file=STACKS)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write a phase's outcome, if it adds to the previous one."""
    if report.failed:
        write(report.nodeid, "failed", report.longreprtext)
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        write(report.nodeid, "skipped", str(reason))
    elif report.when == "call":
        write(report.nodeid, "passed")


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Exit if the device has a permanent fault, so that the other tests get a fresh process."""
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except RuntimeError as error:
        write(nodeid, "failed", f"the device has a permanent fault: {error}")
        os._exit(70)
    write(nodeid, "ended")
