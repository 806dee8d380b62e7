"""Fixtures of the tests that train."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded import Play, run_python
from trainers import Begin, Trainer


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread: quick for a tiny model, and the same bits at every run."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    """Runs a scenario behind its module's HEAD in a process of its own, given tmp_path.

    Where the module is STRICT, warnings are errors, and no traceback may be shown.
    """
    strict = getattr(request.module, "STRICT", False)
    options = ["-W", "error"] if strict else []

    def start(body: str, **more: Any) -> subprocess.CompletedProcess[str]:
        done = run_python(request.module.HEAD + body, tmp_path, options=options, **more)
        assert not strict or "Traceback" not in done.stderr, done.stderr
        return done

    return start


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Return an experiment file of a training that takes well under a second."""
    from demo_support import TINY

    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts trainers, which end with the test."""
    trainers: list[Trainer] = []

    def start(run: Path, who: str, **options: object) -> Trainer:
        trainers.append(Trainer(run, who, **options))
        return trainers[-1]

    yield start
    for trainer in trainers:
        trainer.kill()
        assert trainer.process.stdin is not None
        assert trainer.process.stdout is not None
        trainer.process.stdin.close()
        trainer.process.stdout.close()
