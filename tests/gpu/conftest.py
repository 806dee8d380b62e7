"""Fixtures of the tests on a GPU; the marker `gpu` skips all of them where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_support import cycles_per_second

from foundry_fastlog import Recorder


@pytest.fixture(autouse=True)
def idle_device() -> Iterator[None]:
    """Wait for the device after each test, so that its faults are the test's own.

    Before it, `keep_busy` learns the device's clock, which waits: not inside what a test measures.
    """
    import torch

    cycles_per_second()
    yield
    torch.cuda.synchronize()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """An open recorder that has recorded a device scalar before, in a run of its own.

    The first device scalar of a process pays for finding the driver, for pinned memory and for
    events; tests of single calls are about those after it.
    """
    import torch

    with Recorder(tmp_path / "warm-up") as first:
        for _ in range(3):
            first.record(0, v=torch.ones((), device="cuda"))
        assert first.flush(timeout=60.0)
    with Recorder(tmp_path / "run", flush_interval_s=0.01) as opened:
        yield opened


@pytest.fixture
def second_device() -> str:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    return "cuda:1"
