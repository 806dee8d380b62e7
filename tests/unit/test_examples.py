"""Every example runs, and records what it says, and what docs/integrations.md says of it."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from adapters import EXAMPLES, THEIR_WARNINGS, complete, points, starts
from recorded import PACKAGE_ROOT, run_python

from foundry_fastlog import read_run

# Example: the library that it needs, the run, a metric and how many values it has.
WANTED = {
    "train_torch": ("torch", "runs/torch", "loss", 48),
    "train_jax": ("jax", "runs/jax", "loss", 60),
    "train_transformers": ("transformers", "runs/transformers", "loss", 30),
    "train_lightning": ("lightning", "runs/lightning", "train/loss", 30),
    "train_fabric": ("lightning", "runs/fabric", "train/loss", 30),
    "train_accelerate": ("accelerate", "runs/accelerate", "train/loss", 30),
    "train_keras": ("keras", "runs/keras", "loss", 24),
    "train_torchtitan": ("torchtitan", "outputs/fastlog", "loss", 30),
    "train_ray": ("ray", "runs/sweep/*", "loss", 10),
    "train_clu": ("tensorflow", "runs/clu", "loss", 30),
}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1", "KERAS_BACKEND": "torch"}
# Two threads of torch that wait for each other are slow where others use the processors, too.
QUIET["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in QUIET.items():
        monkeypatch.setenv(variable, value)


def run_example(name: str, folder: Path, *arguments: str) -> None:
    """Run it there; libraries may warn of what is theirs."""
    code = "import os, runpy, sys; os.chdir(sys.argv.pop(1)); sys.argv.pop(0); "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    run_python(code, folder, EXAMPLES / f"{name}.py", *arguments, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("name", WANTED)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    library, run, metric, count = WANTED[name]
    for needed in (library, *["torch"] * (library != "jax")):
        if find_spec(needed) is None:  # importing all of them here would take long
            pytest.skip(f"{needed} is not installed")
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


@pytest.mark.slow
def test_the_loop_in_torch_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    for _ in range(2):
        run_example("train_torch", tmp_path)
    run = tmp_path / "runs" / "torch"
    assert [step for step, _ in points(run, "loss")] == list(range(96))
    assert [step for step, _ in points(run, "val_loss")] == [15, 31, 47, 63, 79, 95]
    assert points(run, "loss")[-1][1] < points(run, "loss")[0][1]
    assert len(read_run(run).report_starts()) == 2
    assert complete(run)


@pytest.mark.slow
def test_two_ranks_of_torchrun_record_in_one_run(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    command = "-m torch.distributed.run --standalone --nproc-per-node 2"
    done = subprocess.run(
        [sys.executable, *command.split(), str(EXAMPLES / "train_ddp.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "runs" / "ddp")
    (start,) = run.report_starts()
    assert (start.state, start.ranks) == ("closed", (0, 1))
    assert start.entry["world_size"] == 2
    loss = run.metric("loss")
    by_rank = [loss.values[loss.rank == rank] for rank in (0, 1)]
    assert [len(values) for values in by_rank] == [30, 30]
    assert (by_rank[0] != by_rank[1]).any()
    mean = run.metric("mean_loss")
    assert set(mean.rank) == {0}
    at = [int(step) for step in mean.steps]
    assert at == [9, 19, 29]
    both = (by_rank[0][at] + by_rank[1][at]) / 2
    assert mean.values == pytest.approx(both, rel=1e-6)
    assert complete(run.path)


# ---- the notebook --------------------------------------------------------------------

NOTEBOOK = EXAMPLES / "notebook.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@THEIR_WARNINGS
@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first cell to the last, and shows cards, plots and tables."""
    for needed in ("torch", "ipykernel", "matplotlib", "polars"):
        pytest.importorskip(needed)
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    path = os.pathsep.join([str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    book = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=240, resources=resources).execute()
    shown = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert not [output for output in shown if output.output_type == "error"]
    pages = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert sum("fastlog-card" in page for page in pages) == 1
    assert sum("last.loss" in page for page in pages) >= 1
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    assert "'lr': (0.001, 0.01)" in text_of(shown)
    runs = sorted((tmp_path / "runs" / "notebook").iterdir())
    assert [run.name for run in runs] == ["lr-0.001", "lr-0.003", "lr-0.01"]
    assert len(points(runs[1], "loss")) == 400
    assert all(complete(run) for run in runs)


def text_of(outputs: list[Any]) -> str:
    """All that was printed, or is the plain text of a value."""
    return "".join(output.get("text", "") or output["data"]["text/plain"] for output in outputs)


# ---- all of them ---------------------------------------------------------------------


def test_each_example_is_tried() -> None:
    """Those that are scripts of other libraries by tests/integration/test_dropins.py."""
    others = {"dropin_wandb", "dropin_tensorboard", "train_ddp"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*WANTED, *others}


def test_each_example_is_short_says_how_to_run_it_and_is_listed() -> None:
    listed = re.findall(r"^\| \[(\S+)\]\(\1\) ", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert sorted(listed) == sorted([*(path.name for path in scripts), NOTEBOOK.name])
    for path in scripts:
        source = path.read_text()
        assert len(source.splitlines()) < 60, path.name
        said = ast.get_docstring(ast.parse(source)) or ""
        assert f"examples/{path.name}``" in said, path.name
        assert "foundry-fastlog " in said, path.name
