"""The logging system in trainings that really train."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="these tests train with torch")

from recorded import parse, raw_lines, run_python  # noqa: E402  # needs torch
from tiny_training import Trainer, tiny_experiment  # noqa: E402
from wandb_files import only_run  # noqa: E402

from foundry_fastlog import read_run  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]

SAVED = "Checkpoint saved successfully"


def lines(output: Path, stream: str) -> list[dict[str, Any]]:
    """Read the lines of all files of a stream, strictly, by name of the file."""
    paths = sorted(output.glob(f"{stream}[._]*jsonl"))
    return [parse(line) for path in paths for line in raw_lines(path)]


def said(output: Path, message: str) -> list[dict[str, Any]]:
    """List the contexts of a message in the log stream."""
    return [line["context"] for line in lines(output, "log") if line["message"] == message]


def text(output: Path, kind: str = "main") -> str:
    return "".join(path.read_text() for path in sorted(output.glob(f"{kind}_*.log")))


def trained(
    base: Path, *hook: Callable[[int, float], float], steps: int = 12, **options: object
) -> Trainer:
    trainer = Trainer(tiny_experiment(steps=steps, **options), base)
    trainer.train(*hook)
    return trainer


def test_what_a_whole_training_leaves(tmp_path: Path) -> None:
    """Losses that fall, their averages, each block's time, checkpoints with their size, memory."""
    options = {"log_memory_every_n_steps": 5, "log_metrics_every_n_steps": 4}
    output = trained(tmp_path, steps=18, **options).output
    entries = lines(output, "metrics")
    losses = {e["step"]: e["metrics"]["loss"] for e in entries if "step" in e}
    summaries = {e["epoch"]: e["summary"]["avg_loss"] for e in entries if "summary" in e}
    assert set(summaries) == {0, 1, 2}
    assert summaries[2] < summaries[0]
    for epoch, average in summaries.items():
        own = [losses[step] for step in range(epoch * 6 + 1, epoch * 6 + 7)]
        assert average == pytest.approx(sum(own) / 6)

    timings = lines(output, "performance")
    for step in range(1, 19):
        [whole] = [t for t in timings if t["name"] == "step" and t["step"] == step]
        parts = [t for t in timings if t.get("parent") == "step" and t["step"] == step]
        inner = ["forward_pass", "backward_pass", "optimizer_step"]
        assert [t["name"] for t in parts] == inner
        assert sum(t["duration_s"] for t in parts) <= whole["duration_s"]
    timed = r"\[DEBUG\] \S+: forward_pass completed in \d+\.\d{4}s"
    assert len(re.findall(timed, text(output, "debug"))) == 18
    assert "completed in" not in text(output, "main")

    saving, saved = (said(output, m) for m in ("Saving checkpoint", SAVED))
    assert [c["step"] for c in saving] == [c["step"] for c in saved] == [6, 12, 18]
    for before, after in zip(saving, saved, strict=True):
        size = Path(before["path"]).stat().st_size
        assert after["checkpoint_size_gb"] * 1e9 == pytest.approx(size)
        assert after["save_time_seconds"] > 0

    told = lines(output, "log")
    loggers = {"trainer", "training.loop", "training.checkpointing", "metrics"}
    assert {f"model_foundry.{name}" for name in loggers} <= {line["logger"] for line in told}
    steps = [re.match(r"Step (\d+): loss=\d", line["message"]) for line in told]
    assert [int(step[1]) for step in steps if step] == [4, 8, 12, 16]
    memory = [e for e in told if e["message"].startswith("CPU memory")]
    assert [e["context"]["step"] for e in memory] == [5, 10, 15]
    assert all(re.search(r"RSS: \d+\.\d\dGB$", e["message"]) for e in memory)


@pytest.mark.slow
def test_wandb_offline_gets_the_run(tmp_path: Path) -> None:
    """With use_wandb its run file has the steps at the interval, summaries and the settings."""
    code = (
        "import sys; from tiny_training import *\n"
        "config = tiny_experiment(use_wandb=True, wandb_project='p', log_metrics_every_n_steps=4)\n"
        "trainer = Trainer(config, sys.argv[1]); assert trainer.logs.wandb.enabled\n"
        "trainer.train(); stats = trainer.logs.wandb.stats()\n"
        "assert stats['errors'] == stats['refused'] == 0, stats\n"
    )
    environment = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}
    for kind in ("cache", "config", "data"):
        environment[f"WANDB_{kind.upper()}_DIR"] = str(tmp_path / kind)
    run_python(code, tmp_path, environment=environment)
    run = only_run(tmp_path)
    assert (run.name, run.project) == ("test", "p")
    assert run.config["training"]["train_steps"] == 12
    rows = [row for row in run.rows if "loss" in row]
    assert [row["_step"] for row in rows] == [4, 8, 12]
    assert any("epoch/avg_loss" in row for row in run.rows)
    entries = lines(tmp_path / "test/output", "metrics")
    mine = {e["step"]: e["metrics"]["loss"] for e in entries if "step" in e}
    assert [row["loss"] for row in rows] == [mine[4], mine[8], mine[12]]


SPAWNING = """
import sys
from tiny_training import *
if __name__ == '__main__':
    Trainer(tiny_experiment(steps=6), sys.argv[1]).train(workers=1, start_method="spawn")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("start_method", "workers", "epochs"), [("fork", 2, 2), ("spawn", 1, 1)])
def test_workers_of_a_data_loader_log(
    tmp_path: Path, start_method: str, workers: int, epochs: int
) -> None:
    """What they load is told once an epoch; each has data files, and all one text log."""
    if start_method == "fork":
        Trainer(tiny_experiment(), tmp_path).train(workers=workers, start_method="fork")
    else:
        run_python(SPAWNING, tmp_path)
    output = tmp_path / "test/output"
    loaded = said(output, "Example loaded")
    assert sorted(c["index"] for c in loaded) == sorted([*range(24)] * epochs)
    assert all(c["experiment"] == "test" for c in loaded)
    assert len({path.name for path in output.glob("log.w*.jsonl")}) == epochs * workers
    shown = re.findall(r"Example loaded\n  index: (\d+)\n", text(output))
    assert sorted(map(int, shown)) == sorted([*range(24)] * epochs)
    assert len(said(output, "Run ended")) == 1
    assert read_run(output).problems == []


@pytest.mark.slow
def test_ranks_share_a_run(tmp_path: Path) -> None:
    """Processes as a launcher starts them: files by rank, rank 0 alone on the console.

    Their clocks are hours apart, as those of other hosts may be; the names have one time.
    """
    code = (
        "import os, sys; from foundry_fastlog.components import experiment\n"
        "hour = 10 + int(os.environ['RANK'])\n"
        "experiment.timestamp = lambda: f'2025-09-30_{hour}-00-00'\n"
        "from tiny_training import *\n"
        "Trainer(tiny_experiment(console=True), sys.argv[1], stamped=True).train()\n"
    )
    launcher = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}

    def start(rank: int) -> str:
        return run_python(code, tmp_path, environment={**launcher, "RANK": str(rank)}).stderr

    with ThreadPoolExecutor(2) as pool:
        shown = list(pool.map(start, range(2)))
    assert ["Starting training loop" in one for one in shown] == [True, False]
    output = tmp_path / "test/output"
    run = read_run(output)
    assert run.ranks == (0, 1)
    for rank in range(2):
        steps = [e["step"] for e in run.lines("metrics", rank=rank) if "step" in e]
        assert steps == list(range(1, 13))
    assert len(said(output, "Run started")) == 1
    names = [path.name for kind in ("*.jsonl", "*.log") for path in output.glob(kind)]
    assert len(names) >= 4 * 2  # metrics, performance, messages; the text log
    (stamp,) = {name.partition("_")[2][:20] for name in names}
    assert stamp in {f"2025-09-30_1{rank}-00-00." for rank in range(2)}
    for label in ("", ".r1"):
        log = output / f"main_{stamp[:-1]}{label}.log"
        assert log.read_text().count("Starting training loop") == 1
    assert list((output / ".fastlog").iterdir()) == []
