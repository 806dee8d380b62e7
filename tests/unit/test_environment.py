"""The facts in every message: commit and device, found without disturbing anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foundry_fastlog import get_device, get_git_commit_hash
from foundry_fastlog.base import environment

Patch = pytest.MonkeyPatch


def fake_torch(
    *,
    initialized: bool = False,
    current: int = 0,
    cuda: str | None = None,
    hip: str | None = None,
    mps: bool = False,
) -> Any:
    """Return what get_device() looks at in torch; asking CUDA whether it is there fails."""

    def never() -> bool:
        raise AssertionError("this starts the GPU's runtime")

    return SimpleNamespace(
        cuda=SimpleNamespace(
            is_initialized=lambda: initialized, current_device=lambda: current, is_available=never
        ),
        version=SimpleNamespace(cuda=cuda, hip=hip),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
    )


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: Patch) -> Path:
    """Pretend that a GPU's driver is there."""
    node = tmp_path / "driver"
    node.touch()
    monkeypatch.setattr(environment, "_CUDA_NODES", (str(tmp_path / "absent"), str(node)))
    monkeypatch.setattr(environment, "_ROCM_NODES", (str(node),))
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return node


def test_hash_is_the_short_one_of_the_checkout(tmp_path: Path) -> None:
    """Seven digits of what git says, and git is asked once."""
    people = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    environ = {**os.environ, **dict.fromkeys(people, "x")}
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, env=environ, check=True)
    wanted = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=tmp_path, text=True)[:7]
    assert get_git_commit_hash(tmp_path) == wanted
    (tmp_path / ".git").rename(tmp_path / "gone")
    assert get_git_commit_hash(tmp_path) == wanted


def test_hash_is_unknown_outside_of_git(tmp_path: Path, monkeypatch: Patch) -> None:
    """Neither a plain directory nor one that was removed is an error."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert get_git_commit_hash(tmp_path) == "unknown"
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert get_git_commit_hash() == "unknown"


def test_device_without_torch_is_the_cpu_and_torch_stays_unimported() -> None:
    code = "import sys, foundry_fastlog as f; print(f.get_device(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cpu", "False"]


@pytest.mark.parametrize(
    ("torch", "wanted"),
    [
        (fake_torch(initialized=True, current=3, cuda="12.4"), "cuda:3"),
        (fake_torch(mps=True), "mps"),
        (fake_torch(), "cpu"),
        (SimpleNamespace(), "cpu"),  # half imported
    ],
)
def test_the_device_is_torchs(torch: Any, wanted: str, monkeypatch: Patch) -> None:
    """A runtime that runs knows; else MPS, else the CPU."""
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert get_device() == wanted


@pytest.mark.parametrize("versions", [{"cuda": "12.4"}, {"hip": "6.1"}])
def test_device_before_the_runtime_runs_is_the_launchers(
    versions: dict[str, Any], driver: Path, monkeypatch: Patch
) -> None:
    """With a driver, LOCAL_RANK decides, and the runtime is not asked."""
    monkeypatch.setitem(sys.modules, "torch", fake_torch(**versions))
    assert get_device() == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert get_device() == "cuda:2"
    driver.unlink()
    assert get_device() == "cpu"


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_not_the_device(hidden: str, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(cuda="12.4"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert get_device() == "cpu"
