"""Configuration shared by all tests: hermetic environment, hypothesis profiles, GPU marker."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Launchers, trackers and this package read these; a test that needs one sets it itself.
AMBIENT_VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("SLURM_PROCID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID"),
    *("WANDB_API_KEY", "WANDB_RUN_ID"),
)
AMBIENT_PREFIX = "FASTLOG_"

# No deadline: a shared machine pauses a test for longer than any sensible one. In CI the
# examples are the same at every run, so a red run can be repeated; elsewhere they are fewer.
settings.register_profile("dev", deadline=None, max_examples=25)
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=50,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def hermetic_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the launcher's and the user's settings from every test."""
    for name in list(os.environ):
        if name in AMBIENT_VARIABLES or name.startswith(AMBIENT_PREFIX):
            monkeypatch.delenv(name)
    # A rich table is as wide as the terminal that runs the tests, unless told otherwise.
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.fixture
def served(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Serves the live page of a test's directory; its class is `live_server.Served`."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from live_server import Served

    from foundry_fastlog.pages import server

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(server, "_POLL_S", 0.02)
    monkeypatch.setattr(server, "_LIST_S", 0.0)
    monkeypatch.setattr(server, "_STALE_S", 0.0)
    found = Served(tmp_path)
    yield found
    found.close()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Calls the command line in this process; checks its exit code, returns what it has written."""
    from foundry_fastlog.cli.main import main

    def call(*arguments: object, code: int = 0) -> Any:
        capsys.readouterr()
        found = main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        assert found == code, written
        return written

    return call


@pytest.fixture
def recorder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An open recorder, with the RECORDER_OPTIONS of the test's module."""
    from foundry_fastlog import Recorder

    with Recorder(tmp_path / "run", **getattr(request.module, "RECORDER_OPTIONS", {})) as opened:
        yield opened


@functools.cache
def _no_cuda() -> str | None:
    """Return why tests marked `gpu` cannot run here, or None when they can."""
    try:
        import torch
    except ModuleNotFoundError:
        return "needs torch"
    if torch.cuda.is_available():
        return None
    return f"needs an NVIDIA GPU: torch {torch.__version__} sees none"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` on a machine without one, before any of their fixtures."""
    if item.get_closest_marker("gpu") and (reason := _no_cuda()):
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests took."""
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", "") == "teardown":
            for line in (line for name, line in report.user_properties if name == "figures"):
                terminalreporter.write_line(line)


@pytest.fixture
def cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory of the test's own, for tables of runs; files count as old at once."""
    from foundry_fastlog.analysis import runs

    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr(runs, "TICK_S", -3600.0)
    return home


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two workers of a fleet."""
    from fleets import workers_here

    with workers_here() as found:
        yield found
