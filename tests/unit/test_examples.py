"""Every example runs, and records what docs/integrations.md says."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapters import EXAMPLES, complete, points, starts
from recorded import run_python

from foundry_fastlog import read_run

# Example: the library that it needs, the run, a metric and how many values it has.
WANTED = {
    "train_transformers": ("transformers", "runs/transformers", "loss", 30),
    "train_lightning": ("lightning", "runs/lightning", "train/loss", 30),
    "train_fabric": ("lightning", "runs/fabric", "train/loss", 30),
    "train_accelerate": ("accelerate", "runs/accelerate", "train/loss", 30),
    "train_keras": ("keras", "runs/keras", "loss", 24),
    "train_torchtitan": ("torchtitan", "outputs/fastlog", "loss", 30),
    "train_ray": ("ray", "runs/sweep/*", "loss", 10),
}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1", "KERAS_BACKEND": "torch"}


def run_example(name: str, folder: Path, *arguments: str) -> None:
    """Run it there; libraries may warn of what is theirs."""
    code = "import os, runpy, sys; os.chdir(sys.argv.pop(1)); sys.argv.pop(0); "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    run_python(code, folder, EXAMPLES / f"{name}.py", *arguments, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("name", WANTED)
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, run, metric, count = WANTED[name]
    pytest.importorskip("torch")
    if not library_is_there(library):
        pytest.skip(f"{library} is not installed")
    for variable, value in QUIET.items():
        monkeypatch.setenv(variable, value)
    run_example(name, tmp_path)
    runs = list(tmp_path.glob(run))
    assert len(runs) == (3 if library == "ray" else 1)
    for found in runs:
        assert len(points(found, metric)) == count
        # The handler of torchtitan opens the run before its configuration is known.
        assert starts(found)[0]["config"] or library == "torchtitan"
        assert complete(found)
    if library == "transformers":
        run_example(name, tmp_path, "--resume")
        assert len(read_run(runs[0]).report_starts()) == 2
        steps = [step for step, _ in points(runs[0], metric)]
        assert steps == list(range(1, len(steps) + 1))


def library_is_there(name: str) -> bool:
    """Whether it can be found; importing all of them here would take long."""
    from importlib.util import find_spec

    return find_spec(name) is not None


def test_each_example_is_tried() -> None:
    """Those that are scripts of other libraries by tests/integration/test_dropins.py."""
    others = {"dropin_wandb", "dropin_tensorboard"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*WANTED, *others}
