"""Plugin of pytest: writes each outcome at once, ends a test that hangs, leaves out what was run.

GPU_CHECK_TESTS names the file. A test's line is there when it begins, so that one which takes the
process along is known.
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

LIMIT_S = float(os.environ.get("GPU_CHECK_TEST_LIMIT_S", "60"))
# pytest captures 2 while a test runs: the stacks of one that hangs go where 2 went before.
STACKS = os.fdopen(os.dup(2), "w")


def log_path() -> Path:
    """Return where outcomes go."""
    return Path(os.environ["GPU_CHECK_TESTS"])


def write(test: str, outcome: str, why: str = "") -> None:
    """Append a line."""
    with log_path().open("a", encoding="utf-8") as file:
        file.write(json.dumps({"test": test, "outcome": outcome, "why": why[-2000:]}) + "\n")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of an earlier process."""
    text = log_path().read_text(encoding="utf-8") if log_path().exists() else ""
    known = {json.loads(line)["test"] for line in text.splitlines()}
    gone = [item for item in items if item.nodeid in known]
    items[:] = [item for item in items if item.nodeid not in known]
    config.hook.pytest_deselected(items=gone)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """End the process when the test takes too long."""
    write(item.nodeid, "begun")
    faulthandler.dump_traceback_later(LIMIT_S, exit=True, file=STACKS)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write what a phase came to, where it says more than the one before."""
    if report.failed:
        write(report.nodeid, "failed", report.longreprtext)
    elif report.skipped:
        write(report.nodeid, "skipped", str(report.longrepr))
    elif report.when == "call":
        write(report.nodeid, "passed")


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Leave a process whose device has a fault that stays: the other tests get a fresh one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        write(nodeid, "failed", f"the device has a fault that stays: {error}")
        os._exit(70)
