"""Shows every gate's measured ratio at the end of the run, even if all passed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import machine
from benchmarks.gates.trying import Outcome

LEDGER = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Open the ledger of this run."""
    config.stash[LEDGER] = []


@pytest.fixture
def check(request: pytest.FixtureRequest) -> Callable[[str, Outcome], None]:
    """Return a function that adds an outcome to the summary and fails if it is out of bounds."""

    def judge(what: str, outcome: Outcome) -> None:
        verdict = "ok" if outcome.passed else "FAILED"
        request.config.stash[LEDGER].append(f"{verdict}: {what}: {outcome}")
        if not outcome.passed:
            pytest.fail(f"{what}: {outcome}", pytrace=False)

    return judge


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the ledger."""
    lines = terminalreporter.config.stash[LEDGER]
    if lines:
        terminalreporter.section("overhead gates, as measured")
        for line in lines:
            terminalreporter.write_line(line)
        facts = f"{machine.cpu_model()}, {machine.cores()} cores"
        terminalreporter.write_line(f"{facts}, load average {machine.load_average()}")
