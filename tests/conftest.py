"""Configuration shared by all tests: hermetic environment, hypothesis profiles, GPU marker."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Launchers, trackers and this package read these; a test that needs one sets it itself.
AMBIENT_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_PROCID",
    "TORCHELASTIC_RESTART_COUNT",
    "TORCHELASTIC_RUN_ID",
    "WANDB_API_KEY",
    "WANDB_RUN_ID",
)
AMBIENT_PREFIX = "FASTLOG_"

# No deadline: a shared machine pauses a test for longer than any sensible one. In CI the
# examples are the same at every run, so a red run can be repeated.
settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
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


def _has_cuda() -> bool:
    """Tell whether torch is here and sees a CUDA device."""
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return bool(torch.cuda.is_available())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests marked `gpu` on a machine without one, and say how many."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items or _has_cuda():
        return
    config.hook.pytest_deselected(items=gpu_items)
    items[:] = [item for item in items if item not in gpu_items]
