"""The demo as a user runs it: what it records, shows, resumes and refuses."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the demo trains with torch")

from foundry_fastlog import Recorder, RecorderConfig, demo  # noqa: E402  # after the check for torch
from foundry_fastlog.demo.ab import interleaved_ab  # noqa: E402
from foundry_fastlog.demo.config import (  # noqa: E402
    ExperimentConfig,
    dump_config,
    load_config,
)
from foundry_fastlog.demo.data import load_corpus  # noqa: E402
from foundry_fastlog.demo.train import Trainer  # noqa: E402

pytestmark = pytest.mark.integration

TINY = """
name: tiny
model: {layers: 1, heads: 2, width: 16, context: 16}
training:
  steps: 12
  batch_size: 4
  warmup_steps: 2
  validate_every: 4
  validation_batches: 2
  checkpoint_every: 5
  device: cpu
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Let torch use one thread: quick for a tiny model, and the same bits at every run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Return an experiment file of a training that takes well under a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


def read(run: Path, name: str) -> list[dict[str, Any]]:
    """Read a JSONL file strictly: every line whole, every line standard JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    data = (run / name).read_bytes()
    assert data.endswith(b"\n")
    return [json.loads(line, parse_constant=refuse) for line in data.splitlines()]


def training_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the lines of training steps; the rest are validations."""
    return [line for line in lines if "loss" in line["metrics"]]


def demo_process(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start ``foundry_fastlog.demo.run`` in a process of its own, as the command does."""
    code = (
        "import sys; from pathlib import Path; from foundry_fastlog import demo; "
        "sys.exit(demo.run(Path(sys.argv[1]), out=Path(sys.argv[2])))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(demo.__file__).parents[2])},
    )


# ---- what is recorded --------------------------------------------------------------------


def test_every_step_is_recorded(experiment: Path, tmp_path: Path) -> None:
    """Steps 1 to 12 each have one line with all numbers, finite and of one type."""
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 0
    lines = read(run, "metrics.jsonl")
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    steps = training_lines(lines)
    assert [line["step"] for line in steps] == list(range(1, 13))
    for line in steps:
        assert set(line["metrics"]) == {"loss", "lr", "grad_norm", "tokens_per_sec", "memory_mb"}
        assert all(type(value) is float and value > 0 for value in line["metrics"].values())
        assert line["epoch"] == 0
        assert "nonfinite" not in line
    validations = [line for line in lines if "val_loss" in line["metrics"]]
    assert [line["step"] for line in validations] == [0, 4, 8, 12]
    assert len(lines) == 12 + 4


def test_blocks_are_timed_inside_their_step(experiment: Path, tmp_path: Path) -> None:
    """Each step has four blocks inside it, and they take no longer than the step."""
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 0
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


def test_a_real_error_is_caught_and_recorded(experiment: Path, tmp_path: Path) -> None:
    """The restart drill meets torch's own error for a torn file; the run goes on."""
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 0
    [error] = read(run, "errors.jsonl")
    assert error["level"] == "ERROR"
    assert error["error_type"] == "CheckpointError"
    assert error["error_message"].startswith("step-000013.pt is no whole checkpoint: ")
    assert "torch.load(" in error["traceback"]  # the cause is torch's own error
    assert error["step"] == 12
    assert error["context"]["path"].endswith("step-000013.pt")
    log = [(line["message"], line["step"]) for line in read(run, "log.jsonl")]
    assert log == [
        ("training started", 0),
        ("checkpoint saved", 5),
        ("checkpoint saved", 10),
        ("checkpoint saved", 12),
        ("restart drill passed", 12),
        ("training finished", 12),
    ]
    assert not (run / "restart_drill").exists()


def test_the_newest_checkpoints_are_on_disk(experiment: Path, tmp_path: Path) -> None:
    """Two are kept, and the log has the size that the file has."""
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 0
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["step-000010.pt", "step-000012.pt"]
    saved = [line for line in read(run, "log.jsonl") if line["message"] == "checkpoint saved"]
    last = Path(saved[-1]["context"]["path"])
    assert last.stat().st_size == saved[-1]["context"]["bytes"]


def test_the_run_knows_its_experiment(experiment: Path, tmp_path: Path) -> None:
    """run.json holds the whole configuration, and the experiment can be rebuilt from it."""
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 0
    info = json.loads((run / "run.json").read_text())
    assert info["name"] == "tiny"
    assert ExperimentConfig.model_validate(info["config"]) == load_config(experiment)


def test_the_loss_falls(tmp_path: Path) -> None:
    """In 120 steps a small model learns: training and validation loss fall by a third."""
    path = tmp_path / "short.yaml"
    path.write_text(
        "model: {layers: 1, heads: 2, width: 32, context: 32}\n"
        "training: {steps: 120, batch_size: 16, warmup_steps: 10, validate_every: 60,\n"
        "           learning_rate: 1.0e-2, device: cpu}\n"
    )
    run = tmp_path / "run"
    assert demo.run(path, out=run) == 0
    lines = read(run, "metrics.jsonl")
    losses = [line["metrics"]["loss"] for line in training_lines(lines)]
    assert sum(losses[-10:]) / 10 < losses[0] * 2 / 3
    val_losses = [line["metrics"]["val_loss"] for line in lines if "val_loss" in line["metrics"]]
    assert val_losses[0] > val_losses[1] > val_losses[2]
    assert val_losses[2] < val_losses[0] * 2 / 3


def test_the_recorder_section_has_the_recorders_options() -> None:
    """Each key is a parameter of Recorder with the same default."""
    import inspect

    parameters = inspect.signature(Recorder).parameters
    for key, value in RecorderConfig().model_dump().items():
        assert parameters[key].default == value, key


# ---- resume ------------------------------------------------------------------------------


def train_some(experiment: Path, run: Path, *, steps: int | None = None) -> list[float]:
    """Train, from the newest checkpoint if there is one, and stop after ``steps`` steps."""
    config = load_config(experiment)
    corpus = load_corpus(config.data, config.model.context)
    losses = []
    with Recorder(run) as recorder:
        trainer = Trainer(config, corpus, recorder, torch.device("cpu"))
        trainer.resume()
        for progress in trainer.fit():
            losses.append(progress.loss)
            if len(losses) == steps:
                break
        trainer.close()
    return losses


def test_a_resumed_run_goes_on_to_the_same_bits(experiment: Path, tmp_path: Path) -> None:
    """Stopped at step 7 and resumed from 5, the losses are those of a run in one go."""
    whole = train_some(experiment, tmp_path / "whole")
    before = train_some(experiment, tmp_path / "resumed", steps=7)
    after = train_some(experiment, tmp_path / "resumed")
    assert len(whole) == 12
    assert before == whole[:7]
    assert after == whole[5:]


def test_a_resumed_run_is_a_new_attempt(experiment: Path, tmp_path: Path) -> None:
    """The first attempt's files stay as they are; the second attempt has its own."""
    run = tmp_path / "run"
    train_some(experiment, run, steps=7)
    first = {path.name: path.read_bytes() for path in run.glob("*.jsonl")}
    assert demo.run(experiment, out=run) == 0
    for name, data in first.items():
        assert (run / name).read_bytes() == data
    lines = training_lines(read(run, "metrics.a1.jsonl"))
    assert [line["step"] for line in lines] == list(range(6, 13))
    [resumed] = [line for line in read(run, "log.a1.jsonl") if line["message"] == "resumed"]
    assert resumed["step"] == 5
    attempts = json.loads((run / "run.json").read_text())["attempts"]
    assert [attempt["attempt"] for attempt in attempts] == [0, 1]


def test_a_torn_checkpoint_costs_steps_not_the_run(experiment: Path, tmp_path: Path) -> None:
    """With the newest checkpoint torn, training resumes from the one before, and says so."""
    run = tmp_path / "run"
    train_some(experiment, run, steps=11)
    newest = run / "checkpoints" / "step-000010.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    assert demo.run(experiment, out=run) == 0
    lines = training_lines(read(run, "metrics.a1.jsonl"))
    assert [line["step"] for line in lines] == list(range(6, 13))
    errors = read(run, "errors.a1.jsonl")
    assert errors[0]["context"] == {"path": str(newest), "bytes": 5000}


def test_ctrl_c_keeps_what_was_recorded(experiment: Path, tmp_path: Path) -> None:
    """An interrupted run ends with code 130, whole files, and can be resumed."""
    long = tmp_path / "long.yaml"
    long.write_text(dump_config(load_config(experiment, steps=10**6)))
    run = tmp_path / "run"
    process = demo_process(str(long), str(run), cwd=tmp_path)
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size > 10_000):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no metrics in two minutes"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert "Stopped after step " in out
    assert "demo --out run\n" in out
    steps = [line["step"] for line in training_lines(read(run, "metrics.jsonl"))]
    assert steps == list(range(1, len(steps) + 1))
    last = read(run, "log.jsonl")[-1]
    assert (last["message"], last["level"]) == ("training interrupted", "WARNING")


def test_a_finished_run_is_left_alone(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Running it again trains nothing, makes no attempt, and says how to go on."""
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert demo.run(experiment, out=run) == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert "is finished" in capsys.readouterr().out


def test_more_steps_go_on_with_a_finished_run(experiment: Path, tmp_path: Path) -> None:
    """--steps beyond the last checkpoint trains the difference."""
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 0
    assert demo.run(experiment, out=run, steps=15) == 0
    steps = [line["step"] for line in training_lines(read(run, "metrics.a1.jsonl"))]
    assert steps == [13, 14, 15]


# ---- what a user sees --------------------------------------------------------------------


def test_the_output_of_a_pipe_is_plain(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal there are lines, not a bar, and no control characters."""
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert "\r" not in out
    progress = [line for line in out.splitlines() if line.endswith(" s") and "tok/s" in line]
    assert [line.split()[1] for line in progress] == ["4/12", "8/12", "12/12"]
    assert all("  loss " in line and "  val_loss " in line for line in progress)
    assert "what the model writes after 0 steps" in out
    assert "what the model writes after 12 steps" in out


def test_the_output_ends_with_cost_files_and_next_commands(
    experiment: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report names every file that exists, and commands that can be copied."""
    monkeypatch.chdir(tmp_path)
    assert demo.run(experiment) == 0
    out = capsys.readouterr().out
    [run] = (tmp_path / "runs").iterdir()
    assert run.name.startswith("tiny-")
    where = f"runs/{run.name}"
    for path in run.rglob("*"):
        if path.is_file() and ".fastlog" not in path.parts:
            assert f"{where}/{path.relative_to(run)}" in out
    assert " % of the time" in out
    assert "0 dropped" in out
    for command in (f"summary {where}", f"tail {where}", f"export {where} --to"):
        assert f"foundry-fastlog {command}" in out


def test_an_unknown_key_stops_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong experiment file leaves no run directory, and exits with code 2."""
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("training:\n  step: 3\n")
    assert demo.run(Path("bad.yaml")) == 2
    out, err = capsys.readouterr()
    assert err == "error: bad.yaml:2: training.step: unknown key. Did you mean 'steps'?\n"
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_directory_in_use_is_refused(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo writes neither over a file nor into a folder of other things."""
    (tmp_path / "file").write_text("mine")
    assert demo.run(experiment, out=tmp_path / "file") == 2
    assert "is a file" in capsys.readouterr().err
    assert demo.run(experiment, out=tmp_path) == 2
    assert "is not empty and holds no run" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_is_not_resumed_against_the_users_will(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With training.resume: false an existing run is an error, and stays as it is."""
    run = tmp_path / "run"
    train_some(experiment, run, steps=6)
    experiment.write_text(TINY + "  resume: false\n")
    assert demo.run(experiment, out=run) == 2
    assert "training.resume: true" in capsys.readouterr().err
    assert not list(run.glob("*.a1.jsonl"))


def test_another_model_is_not_loaded_from_the_checkpoint(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed shape is explained, recorded as an error, and exits with code 2."""
    run = tmp_path / "run"
    train_some(experiment, run, steps=6)
    experiment.write_text(TINY.replace("width: 16", "width: 32"))
    assert demo.run(experiment, out=run) == 2
    assert "was made with another shape of the model" in capsys.readouterr().err
    assert read(run, "errors.a1.jsonl")[-1]["error_type"] == "ConfigError"


def test_a_loss_that_explodes_stops_the_run(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate of 1e38 gives NaN: recorded, then stopped with a hint, code 1."""
    experiment.write_text(TINY + "  learning_rate: 1.0e+38\n")
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 1
    assert "a smaller training.learning_rate may help" in capsys.readouterr().err
    last = training_lines(read(run, "metrics.jsonl"))[-1]
    assert last["metrics"]["loss"] is None
    assert last["nonfinite"]["loss"] == "nan"
    [error] = read(run, "errors.jsonl")
    assert error["error_type"] == "FloatingPointError"
    assert error["step"] == last["step"]


def test_without_torch_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    """No traceback: the missing package and the pip command for this interpreter."""
    code = (
        "import sys; sys.modules['torch'] = None; from foundry_fastlog import demo; "
        "sys.exit(demo.run())"
    )
    root = Path(demo.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    said = re.fullmatch(
        r"error: the demo needs torch, which is not installed\. Run: (.*) -m pip install torch\n",
        done.stderr,
    )
    assert said is not None, done.stderr
    assert Path(shlex.split(said[1])[0]).samefile(sys.executable)
    assert list(tmp_path.iterdir()) == []


# ---- recording on and off ------------------------------------------------------------------


def test_the_comparison_times_the_same_steps_on_both_sides(experiment: Path) -> None:
    """Each side has all its steps, and only the recorded side records."""
    result = interleaved_ab(3, 4, load_config(experiment))
    assert [len(block) for block in result["on_steps_s"]] == [3] * 4
    assert [len(block) for block in result["off_steps_s"]] == [3] * 4
    assert result["steps"] == 12
    assert result["stats"]["record_calls"] == 12
    assert result["stats"]["timer_calls"] == 12 * 5
    assert result["low"] <= result["ratio"] <= result["high"]
    assert result["block_low"] <= result["block_ratio"] <= result["block_high"]
    assert result["ratio"] == result["on_s"] / result["off_s"]
    assert 0.0 < result["logging_fraction"] < 1.0


@pytest.mark.parametrize(("steps", "blocks"), [(0, 4), (3, 1)])
def test_a_comparison_of_nothing_is_refused(steps: int, blocks: int) -> None:
    """Too few steps or blocks give no interval, so they are an error."""
    with pytest.raises(ValueError, match="at least"):
        interleaved_ab(steps, blocks)
