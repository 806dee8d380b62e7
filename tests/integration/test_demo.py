"""What the demo records, and how it goes on after a stop."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from recorded import TAKES_CTRL_C, eventually, start_python

torch = pytest.importorskip("torch", reason="the demo trains with torch")

from demo_support import (  # noqa: E402  # needs torch
    read,
    said,
    train_some,
    training_lines,
    validation_lines,
)

from foundry_fastlog import demo  # noqa: E402
from foundry_fastlog.demo.config import ExperimentConfig, dump_config, load_config  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]


# As the command does.
DEMO = TAKES_CTRL_C + (
    "import sys; from pathlib import Path; from foundry_fastlog import demo; "
    "sys.exit(demo.run(Path(sys.argv[1]), out=Path(sys.argv[2])))"
)


@pytest.fixture
def run(experiment: Path, tmp_path: Path) -> Path:
    """A run of the experiment, from its start to its end."""
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 0
    return run


def test_every_step_is_recorded(run: Path) -> None:
    """Steps 1 to 12 each have one line with all numbers, finite and of one type."""
    lines = read(run, "metrics.jsonl")
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    steps = training_lines(lines)
    assert [line["step"] for line in steps] == list(range(1, 13))
    for line in steps:
        assert set(line["metrics"]) == {"loss", "lr", "grad_norm", "tokens_per_sec", "memory_mb"}
        assert all(type(value) is float and value > 0 for value in line["metrics"].values())
        assert line["epoch"] == 0
        assert "nonfinite" not in line
    assert [line["step"] for line in validation_lines(lines)] == [0, 4, 8, 12]
    [summary] = [line for line in lines if "summary" in line]
    average = sum(line["metrics"]["loss"] for line in steps) / 12
    assert (summary["epoch"], summary["summary"]["steps"]) == (0, 12)
    assert summary["summary"]["loss"] == pytest.approx(average)
    assert len(lines) == 12 + 4 + 1


def test_blocks_are_timed_inside_their_step(run: Path) -> None:
    lines = read(run, "performance.jsonl")
    outer = {line["step"]: line for line in lines if line["name"] == "step"}
    assert list(outer) == list(range(1, 13))
    for step, whole in outer.items():
        inner = [line for line in lines if line["step"] == step and line.get("parent") == "step"]
        assert [line["name"] for line in inner] == ["data", "forward", "backward", "optimizer"]
        assert all(line["depth"] == whole["depth"] + 1 for line in inner)
        assert sum(line["duration_s"] for line in inner) <= whole["duration_s"]
    others = Counter(line["name"] for line in lines if "parent" not in line)
    assert others == {"step": 12, "validation": 4, "checkpoint": 3, "restart_drill": 1}


def test_a_real_error_is_caught_and_recorded(run: Path) -> None:
    """The restart drill meets torch's own error for a torn file; the run goes on."""
    [error] = read(run, "errors.jsonl")
    assert (error["level"], error["error_type"], error["step"]) == ("ERROR", "CheckpointError", 12)
    assert error["error_message"].startswith("step-000013.pt is not a complete checkpoint: ")
    assert "torch.load(" in error["traceback"]  # the cause is torch's own error
    assert error["context"]["path"].endswith("step-000013.pt")
    assert not (run / "restart_drill").exists()


def test_the_log_tells_the_story(run: Path) -> None:
    """Start, checkpoints, summary, drill and end, in log.jsonl and for people in the text log."""

    def checkpoint(step: int) -> list[tuple[str, int]]:
        return [("Saving checkpoint", step), ("Checkpoint saved", step)]

    told = read(run, "log.jsonl")
    assert [(line["message"].partition(":")[0], line["context"].get("step")) for line in told] == [
        *(("Run started", None), ("Training started", 0), ("Step 0", None)),
        *checkpoint(5),
        *checkpoint(10),
        ("Epoch 0 summary", None),
        *checkpoint(12),
        *(("CheckpointError", None), ("Restart drill passed", 12)),
        *(("Training finished", 12), ("Run ended", 12)),
    ]
    [main] = run.glob("main_*.log")
    text = main.read_text()
    assert "[INFO] model_foundry.training.checkpointing: Checkpoint saved\n  step: 5\n" in text
    assert list(run.glob("debug_*.log")) == []


def test_the_run_has_its_newest_checkpoints_and_its_experiment(run: Path, experiment: Path) -> None:
    """Two of them, of the size that the log has; run.json holds the whole configuration."""
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["step-000010.pt", "step-000012.pt"]
    last = said(run, "Checkpoint saved")[-1]
    assert Path(last["path"]).stat().st_size == last["bytes"]
    assert last["save_time_seconds"] > 0
    info = json.loads((run / "run.json").read_text())
    assert info["name"] == "tiny"
    assert ExperimentConfig.model_validate(info["config"]) == load_config(experiment)


def test_the_loss_falls(tmp_path: Path) -> None:
    """In 120 steps a small model learns: training and validation loss fall by a third."""
    path, run = tmp_path / "short.yaml", tmp_path / "run"
    path.write_text(
        "model: {layers: 1, heads: 2, width: 32, context: 32}\n"
        "training: {steps: 120, batch_size: 16, warmup_steps: 10, validate_every: 60,\n"
        "           learning_rate: 1.0e-2, device: cpu}\n"
    )
    assert demo.run(path, out=run) == 0
    lines = read(run, "metrics.jsonl")
    losses = [line["metrics"]["loss"] for line in training_lines(lines)]
    assert sum(losses[-10:]) / 10 < losses[0] * 2 / 3
    first, second, third = (line["metrics"]["val_loss"] for line in validation_lines(lines))
    assert first > second > third
    assert third < first * 2 / 3


def test_a_resumed_run_goes_on_to_the_same_bits(experiment: Path, tmp_path: Path) -> None:
    """Stopped at step 7 and resumed from 5, the losses are those of a run in one go."""
    whole = train_some(experiment, tmp_path / "whole")
    before = train_some(experiment, tmp_path / "resumed", steps=7)
    after = train_some(experiment, tmp_path / "resumed")
    assert len(whole) == 12
    assert (before, after) == (whole[:7], whole[5:])


def test_a_resumed_run_is_a_new_attempt(experiment: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_some(experiment, run, steps=7)
    first = {path: path.read_bytes() for path in run.glob("*.jsonl")}
    assert demo.run(experiment, out=run) == 0
    assert {path: path.read_bytes() for path in first} == first
    lines = training_lines(read(run, "metrics.a1.jsonl"))
    assert [line["step"] for line in lines] == list(range(6, 13))
    assert [context["step"] for context in said(run, "Resumed", "log.a1.jsonl")] == [5]
    attempts = json.loads((run / "run.json").read_text())["attempts"]
    assert [attempt["attempt"] for attempt in attempts] == [0, 1]


def test_ctrl_c_keeps_what_was_recorded(experiment: Path, tmp_path: Path) -> None:
    """An interrupted run ends with code 130, whole files, and can be resumed."""
    long = tmp_path / "long.yaml"
    long.write_text(dump_config(load_config(experiment, steps=10**6)))
    run = tmp_path / "run"
    process = start_python(DEMO, long, run, cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        metrics = run / "metrics.jsonl"
        grown = lambda: metrics.exists() and metrics.stat().st_size > 10_000  # noqa: E731 - short
        eventually(lambda: process.poll() is not None or grown(), 120)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, err) == (130, "")
    assert "Stopped after step " in out
    assert "demo --out run\n" in out
    steps = [line["step"] for line in training_lines(read(run, "metrics.jsonl"))]
    assert steps == list(range(1, len(steps) + 1))
    told, end = read(run, "log.jsonl")[-2:]
    assert (told["message"], told["level"]) == ("Training interrupted", "WARNING")
    assert (end["message"], end["context"]["step"]) == ("Run ended", steps[-1])


def test_a_finished_run_is_left_alone_until_there_are_more_steps(
    experiment: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It trains nothing, makes no attempt, and says how to go on; then it trains the difference."""

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    before = content()
    capsys.readouterr()
    assert demo.run(experiment, out=run) == 0
    assert content() == before
    assert "is finished" in capsys.readouterr().out
    assert demo.run(experiment, out=run, steps=15) == 0
    steps = [line["step"] for line in training_lines(read(run, "metrics.a1.jsonl"))]
    assert steps == [13, 14, 15]
