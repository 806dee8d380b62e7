"""Scripts that were written for other libraries and changed in their import line alone.

Each is run with the library that it was written for, too, and both have recorded the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundry_fastlog import Run, read_run, read_runs

pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]


def run_script(name: str, folder: Path, *arguments: object, original: str = "") -> None:
    """Run an example in a folder; with `original` it imports the library it was written for."""
    text = (ROOT / "examples" / name).read_text("utf-8")
    if original:
        ours = [line for line in text.splitlines() if "import foundry_fastlog" in line]
        ours += [line for line in text.splitlines() if line.startswith("from foundry_fastlog")]
        (line,) = ours
        text = text.replace(line, original)
    script = folder / "script.py"
    script.write_text(text, "utf-8")
    # What wandb is set to by who runs the tests must not count.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment = {**kept, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    command = [sys.executable, script.name, *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def series(run: Run) -> dict[str, dict[int, Any]]:
    """The values of each metric, by step."""
    found: dict[str, dict[int, Any]] = defaultdict(dict)
    for line in run.lines("metrics"):
        for name, value in line["metrics"].items():
            found[name][line["step"]] = value
    return dict(found)


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested values by their dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    found: dict[str, Any] = {}
    for key, one in value.items():
        found |= flat(one, f"{name}.{key}" if name else key)
    return found


def test_a_wandb_script_records_what_wandb_does(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb_files import WandbRun, run_files

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, original in ((ours, ""), (theirs, "import wandb")):
        folder.mkdir()
        run_script("dropin_wandb.py", folder, "--steps", 25, original=original)
    (file,) = run_files(theirs)
    recorded = WandbRun(file)
    (summary,) = read_runs(ours)
    run = read_run(summary.path)
    assert summary.path.parent.name == recorded.project == "tiny"
    assert run.info["name"] == recorded.name == "mlp"
    expected: dict[str, dict[int, Any]] = defaultdict(dict)
    for row in recorded.rows:
        for name, value in flat(row).items():
            if name.startswith("weights."):
                expected["weights"][row["_step"]] = "Histogram of 4"
            elif not name.startswith("_"):
                expected[name][row["_step"]] = value
    found = series(run)
    assert set(found.pop("summary.best")) == {24}
    assert found == expected
    assert len(found["train/loss"]) == 25
    config = dict(run.report_starts()[-1].config)
    assert config.pop("_wandb")["tags"] == ["example"]
    assert config == {key: one for key, one in recorded.config.items() if key != "_wandb"}
    assert config["parameters"] == 161
    assert summary.state == "ended"


def test_a_tensorboard_script_records_what_tensorboard_does(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    original = "from torch.utils.tensorboard import SummaryWriter"
    for folder, line in ((ours, ""), (theirs, original)):
        folder.mkdir()
        run_script("dropin_tensorboard.py", folder, "--steps", 25, original=line)
    expected: dict[str, dict[int, float]] = {}
    for folder in {path.parent for path in (theirs / "runs").rglob("events.*")}:
        accumulator = EventAccumulator(str(folder))
        accumulator.Reload()
        # A writer of its own for each of add_scalars().
        inside = folder.name.removeprefix("grad_norm_") if "grad_norm" in folder.name else ""
        for tag in accumulator.Tags()["scalars"]:
            name = f"{tag}/{inside}" if inside else tag
            expected[name] = {event.step: event.value for event in accumulator.Scalars(tag)}
    run = read_run(ours / "runs" / "mlp")
    found = series(run)
    assert found.pop("weights") == dict.fromkeys(range(0, 25, 10), "histogram of 16x8")
    assert found.pop("final") == {25 - 1: pytest.approx(expected.pop("final")[0])}
    singles = {
        name: {step: float(np.float32(value)) for step, value in values.items()}
        for name, values in found.items()
    }
    assert singles == expected
    assert len(found["train/loss"]) == 25
    assert run.report_starts()[-1].config == {"lr": 0.05, "width": 16}
    message, added = (line for line in run.lines("log") if line["logger"] == "tensorboard")
    assert added["context"]["hparams"] == {"lr": 0.05, "width": 16}
    assert (message["message"], message["context"], message["step"]) == (
        "trained",
        {"tag": "note"},
        25,
    )
