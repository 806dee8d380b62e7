"""The logging system in trainings that really train."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="these tests train with torch")

from recorded import PACKAGE_ROOT, parse, raw_lines, run_python  # noqa: E402  # needs torch
from tiny_training import Trainer, tiny_experiment  # noqa: E402
from wandb_files import only_run  # noqa: E402

from foundry_fastlog import (  # noqa: E402
    LoggingConfig,
    StructuredLogger,
    export_chrome_trace,
    read_run,
    recover,
)

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]

ROOT = "model_foundry"


def lines(output: Path, stream: str) -> list[dict[str, Any]]:
    """Read the lines of all files of a stream, strictly, by name of the file."""
    paths = sorted(output.glob(f"{stream}[._]*jsonl"))
    return [parse(line) for path in paths for line in raw_lines(path)]


def said(output: Path, message: str) -> list[dict[str, Any]]:
    """List the contexts of a message in the log stream."""
    return [line["context"] for line in lines(output, "log") if line["message"] == message]


def text(output: Path, kind: str = "main") -> str:
    """Read the text logs of a kind."""
    return "".join(path.read_text() for path in sorted(output.glob(f"{kind}_*.log")))


class TestLoggingIntegration:
    """The plan's own listings, with the trainer of these tests."""

    def test_trainer_uses_structured_logging(self, tmp_path: Path) -> None:
        """Trainer should use structured logging throughout."""
        trainer = Trainer(tiny_experiment(), str(tmp_path))
        assert isinstance(trainer.logger, StructuredLogger)
        trainer.train()
        names = {line["logger"] for line in lines(trainer.output, "log")}
        assert {f"{ROOT}.trainer", f"{ROOT}.training.loop", f"{ROOT}.metrics"} <= names
        for line in lines(trainer.output, "log"):
            assert {"timestamp", "level", "logger", "message", "context"} <= set(line)

    def test_training_loop_logs_metrics(self, tmp_path: Path) -> None:
        """Training loop should log metrics at regular intervals."""
        trainer = Trainer(tiny_experiment(log_metrics_every_n_steps=4), str(tmp_path))
        trainer.train()
        metrics_file = tmp_path / "test" / "output" / "metrics.jsonl"
        assert metrics_file.exists()
        with metrics_file.open() as f:
            entries = [json.loads(line) for line in f]
        steps = [e for e in entries if "summary" not in e]
        assert [e["step"] for e in steps] == list(range(1, 13))
        assert all(set(e["metrics"]) == {"loss", "lr"} for e in steps)
        echoes = [e["message"] for e in lines(trainer.output, "log") if "loss=" in e["message"]]
        assert [re.match(r"Step (\d+): loss=\d", e).group(1) for e in echoes if e[0] == "S"] == [  # type: ignore[union-attr]
            "4",
            "8",
            "12",
        ]

    def test_errors_logged_to_error_file(self, tmp_path: Path) -> None:
        """Errors during training should be logged to error file."""

        def fail(step: int, loss: float) -> float:
            if step == 7:
                raise RuntimeError("CUDA out of memory")
            return loss

        trainer = Trainer(tiny_experiment(), str(tmp_path))
        with pytest.raises(RuntimeError, match="out of memory"):
            trainer.train(fail)
        error_file = tmp_path / "test" / "output" / "errors.jsonl"
        assert error_file.exists()
        with error_file.open() as f:
            entry = json.loads(f.readline())
        assert entry["error_type"] == "RuntimeError"
        assert "in fail" in entry["traceback"]
        assert (entry["step"], entry["level"]) == (6, "CRITICAL")  # the last step that was logged


# ---- what a whole training leaves ----------------------------------------------------------


def test_the_loss_falls_and_the_summaries_agree(tmp_path: Path) -> None:
    """The files say what happened: a loss that falls, an average for each epoch."""
    trainer = Trainer(tiny_experiment(steps=18), tmp_path)
    trainer.train()
    entries = lines(trainer.output, "metrics")
    losses = {e["step"]: e["metrics"]["loss"] for e in entries if "step" in e}
    summaries = {e["epoch"]: e["summary"]["avg_loss"] for e in entries if "summary" in e}
    assert set(summaries) == {0, 1, 2}
    assert summaries[2] < summaries[0]
    for epoch, average in summaries.items():
        own = [losses[step] for step in range(epoch * 6 + 1, epoch * 6 + 7)]
        assert average == pytest.approx(sum(own) / 6)


def test_each_block_is_timed(tmp_path: Path) -> None:
    """Each step has its three blocks inside it; the debug log says the same for people."""
    trainer = Trainer(tiny_experiment(), tmp_path)
    trainer.train()
    timings = lines(trainer.output, "performance")
    inner = ("forward_pass", "backward_pass", "optimizer_step")
    for step in range(1, 13):
        [whole] = [t for t in timings if t["name"] == "step" and t["step"] == step]
        parts = [t for t in timings if t.get("parent") == "step" and t["step"] == step]
        assert tuple(t["name"] for t in parts) == inner
        assert sum(t["duration_s"] for t in parts) <= whole["duration_s"]
    debug = text(trainer.output, "debug")
    assert len(re.findall(r"\[DEBUG\] \S+: forward_pass completed in \d+\.\d{4}s", debug)) == 12
    assert "completed in" not in text(trainer.output, "main")


def test_checkpoints_are_told_with_their_size(tmp_path: Path) -> None:
    """Before and after, with path, size and time, as the plan shows it."""
    trainer = Trainer(tiny_experiment(), tmp_path)
    trainer.train()
    saving = said(trainer.output, "Saving checkpoint")
    saved = said(trainer.output, "Checkpoint saved successfully")
    assert [c["step"] for c in saving] == [c["step"] for c in saved] == [6, 12]
    for before, after in zip(saving, saved, strict=True):
        assert after["checkpoint_size_gb"] * 1e9 == pytest.approx(
            Path(before["path"]).stat().st_size
        )
        assert after["save_time_seconds"] > 0


def test_memory_is_logged_at_its_interval(tmp_path: Path) -> None:
    """Every fifth step here, at DEBUG."""
    trainer = Trainer(tiny_experiment(log_memory_every_n_steps=5), tmp_path)
    trainer.train()
    found = [e for e in lines(trainer.output, "log") if e["message"].startswith("CPU memory")]
    assert [e["context"]["step"] for e in found] == [5, 10]
    assert all(re.search(r"RSS: \d+\.\d\dGB$", e["message"]) for e in found)


@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_levels_keep_a_training_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    """With a higher console_level the console has less; data is not affected."""
    trainer = Trainer(tiny_experiment(console=True, console_level=level), tmp_path)
    trainer.train()
    out = capsys.readouterr().out
    assert ("Starting training loop" in out) is (level == "INFO")
    assert "completed in" not in out
    assert "Starting training loop" in text(trainer.output)
    assert len(lines(trainer.output, "metrics")) == 12 + 2


def test_a_subsystem_is_quietened(tmp_path: Path) -> None:
    """Checkpoint messages off, the loop's on."""
    trainer = Trainer(
        tiny_experiment(subsystem_levels={"training.checkpointing": "ERROR"}), tmp_path
    )
    trainer.train()
    assert said(trainer.output, "Checkpoint saved successfully") == []
    assert len(said(trainer.output, "Training finished")) == 1


def test_a_loss_that_is_no_number_is_kept(tmp_path: Path) -> None:
    """It is null with its kind in the metrics, an error with its step, and training goes on."""
    trainer = Trainer(tiny_experiment(), tmp_path)
    trainer.train(lambda step, loss: float("nan") if step in (3, 9) else loss)
    odd = [e for e in lines(trainer.output, "metrics") if "nonfinite" in e and "step" in e]
    assert [(e["step"], e["metrics"]["loss"], e["nonfinite"]) for e in odd] == [
        (3, None, {"loss": "nan"}),
        (9, None, {"loss": "nan"}),
    ]
    errors = lines(trainer.output, "errors")
    assert [e["step"] for e in errors] == [3, 9]
    assert len({e["fingerprint"] for e in errors}) == 1
    assert trainer.logs.errors.get_error_groups()[0]["count"] == 2
    assert trainer.global_step == 12


def test_the_machine_is_sampled_beside_the_training(tmp_path: Path) -> None:
    """Its figures are metrics of the step of the moment."""
    trainer = Trainer(tiny_experiment(system_metrics_every_s=0.01), tmp_path)
    sampled = threading.Event()

    def wait_for_a_sample(step: int, loss: float) -> float:
        sampler = trainer.logs.system
        assert sampler is not None
        before = sampler.samples
        for _ in range(1000):
            if step != 6 or sampler.samples > before + 1:
                break
            sampled.wait(0.01)
        return loss

    trainer.train(wait_for_a_sample)
    found = [e for e in lines(trainer.output, "metrics") if "system/rss_gb" in e.get("metrics", {})]
    assert any(e["step"] == 5 for e in found)  # while step 6 was waiting
    assert all(0 < e["metrics"]["system/rss_gb"] < 100 for e in found)


def test_a_training_exports_its_timeline(tmp_path: Path) -> None:
    """As profile_performance writes it, and as asked for later: steps around their blocks."""
    trainer = Trainer(tiny_experiment(profile_performance=True), tmp_path)
    trainer.train()
    export_chrome_trace(trainer.output, tmp_path / "later.json")
    [at_close] = trainer.output.glob("trace_*.json")
    for path in (at_close, tmp_path / "later.json"):
        events = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"]
        assert Counter(e["name"] for e in events)["forward_pass"] == 12
        step = next(e for e in events if e["name"] == "step")
        inner = next(e for e in events if e["name"] == "forward_pass")
        assert step["ts"] <= inner["ts"]
        assert inner["ts"] + inner["dur"] <= step["ts"] + step["dur"] + 1
    [report] = trainer.output.glob("timing_*.json")
    assert json.loads(report.read_text())["step"]["count"] == 12


def test_configuration_from_yaml_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's section is used; a variable overrides it for this start."""
    file = tmp_path / "experiment.yaml"
    file.write_text(
        "experiment_name: test\nlogging:\n  console: false\n  system_metrics_every_s: 0\n"
        "  log_metrics_every_n_steps: 3\n  file_level: INFO\n"
    )
    monkeypatch.setenv("FASTLOG_LOG_METRICS_EVERY_N_STEPS", "6")
    config = tiny_experiment().model_copy(update={"logging": LoggingConfig.from_yaml(file)})
    trainer = Trainer(config, tmp_path)
    trainer.train()
    echoes = [e["message"] for e in lines(trainer.output, "log") if e["message"][:5] == "Step "]
    assert [e.split(":")[0] for e in echoes] == ["Step 6", "Step 12"]
    assert list(trainer.output.glob("debug_*")) == []


# ---- files in mid-run ------------------------------------------------------------------------


def test_text_logs_are_rotated_in_mid_run(tmp_path: Path) -> None:
    """At a megabyte the next file begins; no line is lost, and the newest are kept."""
    trainer = Trainer(tiny_experiment(max_log_size_mb=1, file_level="INFO"), tmp_path)
    log = trainer.logs.logger("training.loop")

    def chatty(step: int, loss: float) -> float:
        for part in range(20):
            log.info("Long message", step=step, part=part, note="x" * 10_000)
        return loss

    trainer.train(chatty)
    logs = list(trainer.output.glob("main_*.log*"))
    assert len(logs) == 3  # 2.4 MB
    assert all(path.stat().st_size <= 1_000_000 for path in logs)
    whole = "".join(path.read_text() for path in logs)
    found = re.findall(r"Long message\n  step: (\d+)\n  part: (\d+)\n", whole)
    assert sorted((int(a), int(b)) for a, b in found) == [
        (step, part) for step in range(1, 13) for part in range(20)
    ]


def test_data_goes_on_in_segments(tmp_path: Path) -> None:
    """4 KiB a file here: many files, one run, no line missing or split."""
    config = tiny_experiment(steps=60, recorder={"segment_bytes": 4096})
    trainer = Trainer(config, tmp_path)
    trainer.train()
    files = list(trainer.output.glob("metrics*.jsonl"))
    assert len(files) > 1
    assert all(path.stat().st_size <= 4096 for path in files)
    run = read_run(trainer.output)
    assert [e["step"] for e in run.lines("metrics") if "step" in e] == list(range(1, 61))
    assert run.problems == []


def test_a_resumed_training_adds_files(tmp_path: Path) -> None:
    """The first start's files keep every byte; the reader takes the last attempt of a step."""

    def stop(step: int, loss: float) -> float:
        if step == 9:
            raise KeyboardInterrupt
        return loss

    first = Trainer(tiny_experiment(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        first.train(stop)
    assert lines(first.output, "errors") == []
    before = {path: path.read_bytes() for path in first.output.glob("*.jsonl")}
    second = Trainer(tiny_experiment(), tmp_path)
    assert second.resume() is True
    second.train()
    assert {path: path.read_bytes() for path in before} == before
    run = read_run(second.output)
    taken = [e["step"] for e in run.lines("metrics") if "step" in e]
    assert sorted(taken) == list(range(1, 13))  # 7 and 8 once
    repeated = [e["step"] for e in lines(second.output, "metrics") if "step" in e]
    assert Counter(repeated)[7] == Counter(repeated)[8] == 2
    assert sorted(c["attempt"] for c in said(second.output, "Run started")) == [0, 1]
    assert text(second.output).count("Run stopped\n  reason: KeyboardInterrupt") == 1


# ---- W&B ---------------------------------------------------------------------------------------


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
    environment = {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(tmp_path),
        "WANDB_CACHE_DIR": str(tmp_path / "cache"),
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
        "WANDB_DATA_DIR": str(tmp_path / "data"),
    }
    run_python(code, tmp_path, environment=environment)
    run = only_run(tmp_path)
    assert run.name == "test"
    assert run.project == "p"
    assert run.config["training"]["train_steps"] == 12
    rows = [row for row in run.rows if "loss" in row]
    assert [row["_step"] for row in rows] == [4, 8, 12]
    assert any("epoch/avg_loss" in row for row in run.rows)
    mine = {
        e["step"]: e["metrics"]["loss"]
        for e in lines(tmp_path / "test/output", "metrics")
        if "step" in e
    }
    assert [row["loss"] for row in rows] == [mine[4], mine[8], mine[12]]


# ---- crashes -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_crash_in_the_loop_is_on_record(tmp_path: Path) -> None:
    """A program that dies of an exception leaves it in the error file, the log and stderr."""
    code = (
        "import sys; from tiny_training import *\n"
        "def fail(step, loss): return loss / (step - 5)\n"
        "Trainer(tiny_experiment(), sys.argv[1]).train(fail)\n"
    )
    done = run_python(code, tmp_path, returncode=1)
    assert "ZeroDivisionError" in done.stderr
    output = tmp_path / "test/output"
    [error] = lines(output, "errors")
    assert (error["error_type"], error["step"]) == ("ZeroDivisionError", 4)
    assert "ZeroDivisionError" in text(output)
    assert [e["step"] for e in lines(output, "metrics")] == [1, 2, 3, 4]
    assert said(output, "Run stopped")[0]["reason"] == "ZeroDivisionError"


@pytest.mark.slow
def test_a_killed_training_loses_nothing_accepted(tmp_path: Path) -> None:
    """SIGKILL right after a step: every step, timing and message before it is in the run."""
    code = (
        "import os, signal, sys; from tiny_training import *\n"
        "trainer = Trainer(tiny_experiment(steps=10**6), sys.argv[1])\n"
        "def kill(step, loss):\n"
        "    trainer.logger.info('at', step=step)\n"
        "    if step == 50: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return loss\n"
        "trainer.train(kill)\n"
    )
    run_python(code, tmp_path, returncode=-9)
    output = tmp_path / "test/output"
    for _ in range(2):  # as the readers show it, and after recovery as the files have it
        run = read_run(output)
        steps = [e["step"] for e in run.lines("metrics") if "step" in e]
        assert steps == list(range(1, 50))
        told = [e["context"]["step"] for e in run.lines("log") if e["message"] == "at"]
        assert told == list(range(1, 51))
        assert [e["step"] for e in run.lines("performance") if e["name"] == "step"][-1] == 50
        recover(output)
    assert [e["step"] for e in lines(output, "metrics") if "step" in e] == list(range(1, 50))


# ---- processes ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_of_a_data_loader_log(tmp_path: Path, start_method: str) -> None:
    """What they load is told once each, in the same text log and in data files of their own."""
    code = (
        "import sys; from tiny_training import *\n"
        "if __name__ == '__main__':\n"
        "    trainer = Trainer(tiny_experiment(steps=6), sys.argv[1])\n"
        "    trainer.train(workers=2, start_method=sys.argv[2])\n"
    )
    run_python(code, tmp_path, start_method)
    output = tmp_path / "test/output"
    loaded = said(output, "Example loaded")
    assert sorted(c["index"] for c in loaded) == list(range(24))
    assert all(c["experiment"] == "test" for c in loaded)
    owners = {path.name for path in output.glob("log.w*.jsonl")}
    assert len(owners) == 2
    shown = re.findall(r"Example loaded\n  index: (\d+)\n", text(output))
    assert sorted(map(int, shown)) == list(range(24))
    assert len(said(output, "Run ended")) == 1
    assert read_run(output).problems == []


@pytest.mark.slow
def test_ranks_share_a_run(tmp_path: Path) -> None:
    """Three processes as a launcher starts them: files by rank, rank 0 alone on the console.

    Their clocks are hours apart, as those of other hosts may be; the names have rank 0's time.
    """
    code = (
        "import os, sys; from foundry_fastlog.components import experiment\n"
        "hour = 10 + int(os.environ['RANK'])\n"
        "experiment.timestamp = lambda: f'2025-09-30_{hour}-00-00'\n"
        "from tiny_training import *\n"
        "Trainer(tiny_experiment(console=True), sys.argv[1], stamped=True).train()\n"
    )
    paths = os.pathsep.join([str(PACKAGE_ROOT), str(Path(__file__).parents[1])])
    launcher = {"WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, **launcher, "PYTHONPATH": paths, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    ends = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ends
    assert ["Starting training loop" in out for out, _ in ends] == [True, False, False]
    output = tmp_path / "test/output"
    run = read_run(output)
    assert run.ranks == (0, 1, 2)
    for rank in range(3):
        steps = [e["step"] for e in run.lines("metrics", rank=rank) if "step" in e]
        assert steps == list(range(1, 13))
    assert len(said(output, "Run started")) == 1
    names = [path.name for kind in ("*.jsonl", "*.log") for path in output.glob(kind)]
    assert len(names) >= 4 * 3  # metrics, performance, messages; the text log
    assert {name.partition("_")[2][:20] for name in names} == {"2025-09-30_10-00-00."}
    for label in ("", ".r1", ".r2"):
        log = output / f"main_2025-09-30_10-00-00{label}.log"
        assert log.read_text().count("Starting training loop") == 1
    assert list((output / ".fastlog").iterdir()) == []


def test_two_trainings_follow_each_other_in_one_process(tmp_path: Path) -> None:
    """Each has its own files, and the root logger is left as it was."""
    before = list(logging.getLogger(ROOT).handlers)
    for name in ("one", "two"):
        trainer = Trainer(tiny_experiment(name), tmp_path, stamped=True)
        trainer.train()
        assert len(said(trainer.output, "Training finished")) == 1
        assert f"experiment: {name}" in text(trainer.output)
    assert logging.getLogger(ROOT).handlers == before
