"""Fixtures of the tests with the fake driver."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from device.alone import Nursery
from device.fakes import FakeDriver, load_driver, load_tensors


def loaded(*, hip: bool = False) -> FakeDriver:
    """Load a driver, where there can be one."""
    if sys.platform != "linux":
        pytest.skip("the fake driver's memory needs memfd_create")
    return load_driver(hip=hip)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """What gives tests a process of their own."""
    if sys.platform != "linux":
        pytest.skip("the fake driver's memory needs memfd_create")
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session")
def fake_tensor() -> ModuleType:
    return load_tensors()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """The fake CUDA driver as it is at its start, where the recorder looks for it."""
    driver = loaded()
    monkeypatch.setenv("FASTLOG_CUDA_LIBRARY", str(driver.path))
    driver.reset()
    yield driver
    driver.reset()


@pytest.fixture
def hip() -> Iterator[FakeDriver]:
    driver = loaded(hip=True)
    driver.reset()
    yield driver
    driver.reset()
