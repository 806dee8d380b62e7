"""Runs that are sent to other tools: each row is there once, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from oracle import OracleWriter, attempt, write_run_json
from sending import kill, start_sync

from foundry_fastlog import ExperimentLogging, Recorder, Run, SyncError, read_run, sync_run
from foundry_fastlog.sinks import sync, sync_process
from foundry_fastlog.sinks.sync_rows import Row

ROOT = Path(__file__).parents[2]
Patch = pytest.MonkeyPatch


class Memory:
    """A target that keeps what it is sent, as a service does: also when its sender is killed."""

    rate: float | None = None

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.again = 0
        self.fail_after = math.inf
        self.state = ""
        self.idempotent = False

    def open(self, run: Run, known: dict[str, Any]) -> int | None:
        known["name"] = run.path.name
        return None if self.idempotent else len(self.rows)

    def send(self, rows: list[Row]) -> None:
        for row in rows:
            if self.fail_after <= 0:
                raise ConnectionError("gone")
            self.fail_after -= 1
            self.again += row.number in self.rows
            self.rows[row.number] = row

    def confirmed(self, number: int) -> int:
        return number

    def close(self, state: str) -> None:
        self.state = state


@pytest.fixture
def memory(monkeypatch: Patch) -> Memory:
    found = Memory()
    monkeypatch.setattr(sync, "_make", lambda *_: found)
    monkeypatch.setattr(sync, "time", SimpleNamespace(sleep=Mock()))
    return found


def values(memory: Memory) -> list[tuple[int | None, dict[str, Any]]]:
    assert sorted(memory.rows) == list(range(len(memory.rows)))
    return [(memory.rows[n].step, memory.rows[n].values) for n in sorted(memory.rows)]


def test_what_is_new_is_sent(memory: Memory, tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path).fill(range(5), loss=1.0)
    writer.summary(1, loss=0.5)
    writer.system(cpu=3.0)
    found = sync_run(tmp_path, "wandb")
    assert (found.rows, found.sent, found.state) == (7, 7, "unknown")
    assert found.known["name"] == tmp_path.name
    assert values(memory)[5:] == [(None, {"loss (epoch)": 0.5, "epoch": 1}), (None, {"cpu": 3.0})]
    assert sync_run(tmp_path, "wandb").sent == 0
    writer.metrics(5, loss=math.nan, far=-math.inf)
    writer.rewind(3)
    attempt(tmp_path, 1).fill(range(3, 5), loss=2.0)
    found = sync_run(tmp_path, "wandb")
    assert (found.rows, found.sent, memory.again) == (11, 4, 0)
    rows = [memory.rows[n] for n in range(7, 11)]
    assert [row.stream for row in rows] == ["metrics", "rewind", "metrics", "metrics"]
    assert math.isnan(rows[0].values["loss"])
    assert rows[0].values["far"] == -math.inf
    assert [(row.step, row.start) for row in rows[1:]] == [(3, 0), (3, 1), (4, 1)]


@pytest.mark.parametrize("idempotent", [False, True])
def test_who_is_stopped_at_any_row_goes_on_there(
    memory: Memory, tmp_path: Path, idempotent: bool
) -> None:
    """Whether the target knows how many rows it has, or takes those twice that it has."""
    memory.idempotent = idempotent
    writer = OracleWriter(tmp_path)
    total = 0
    for stop in (0, 1, 7, 30, 2):
        for _ in range(10):
            writer.metrics(total, loss=math.nan if total % 7 == 0 else float(total))
            total += 1
        memory.fail_after = stop
        if stop < 10:
            with pytest.raises(SyncError, match="cannot be reached: gone"):
                sync_run(tmp_path, "wandb")
            memory.fail_after = math.inf
    sync_run(tmp_path, "wandb")
    assert [step for step, _ in values(memory)] == list(range(total))
    assert idempotent or not memory.again
    assert json.loads((tmp_path / ".sync" / "wandb.json").read_text())["pending"] == []


def test_a_run_is_followed_to_its_end(
    memory: Memory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also past a time when the target is away."""
    with Recorder(tmp_path) as recorder:
        recorder.record(0, loss=1.0)
        assert recorder.flush()
        memory.fail_after = 1
        done: list[Any] = []
        thread = threading.Thread(
            target=lambda: done.append(sync_run(tmp_path, "mlflow", follow=True, rate=1e6))
        )
        thread.start()
        recorder.record(1, loss=2.0)
        end = time.monotonic() + 20
        while "trying again" not in caplog.text and time.monotonic() < end:
            pass
        memory.fail_after = math.inf
    thread.join(30)
    assert values(memory) == [(0, {"loss": 1.0}), (1, {"loss": 2.0})]
    assert (done[0].state, memory.state) == ("ended", "ended")
    assert caplog.text.count("trying again") == 1


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: Patch) -> None:
    OracleWriter(tmp_path / "run").fill(range(3))
    run = tmp_path / "run"
    with pytest.raises(ValueError, match="target must be one of"):
        sync_run(run, "excel")
    with pytest.raises(ValueError, match="rate must be above 0"):
        sync_run(run, "tensorboard", rate=0)
    state = tmp_path / "state.json"
    sound: dict[str, Any] = {"format": 1, "target": "tensorboard", "known": {}, "rows": 0}
    sound |= {"pending": [], "position": None}
    damaged = [
        {"target": "wandb"},
        {"pending": 3},
        {"pending": [{"a": 1}]},
        {"position": {"x": 1}},
        {"rows": None},
        {"known": [1]},
    ]
    for text in ("", "no json", "[]", *(json.dumps({**sound, **one}) for one in damaged)):
        state.write_text(text)
        with pytest.raises(ValueError, match="remove it to begin anew"):
            sync_run(run, "tensorboard", state_file=state)
    state.unlink()
    with sync._held(state), pytest.raises(SyncError, match="another process sends this run"):
        sync_run(run, "tensorboard", state_file=state)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"fastlog\[export\]"):
        sync_run(run, "tensorboard", state_file=state)


# ---- TensorBoard ------------------------------------------------------------------------------


def events(folder: Path) -> Any:
    # The one that TensorBoard itself shows; each that it has, not a sample of ten.
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    everything = dict.fromkeys(("scalars", "text"), 1 << 30)
    return EventAccumulator(str(folder), tensor_size_guidance=everything).Reload()


def scalars(folder: Path, tag: str) -> list[tuple[int, float, float]]:
    """Step, value and wall time of a scalar, with the digits of its tensor."""
    from tensorboard.util.tensor_util import make_ndarray

    return [
        (one.step, make_ndarray(one.tensor_proto).item(), one.wall_time)
        for one in events(folder).Tensors(tag)
    ]


def test_event_files_have_each_row_once(tmp_path: Path, command: Callable[..., Any]) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    writer = OracleWriter(run, tick_s=1.0)
    other = OracleWriter(run, rank=1, tick_s=1.0)
    for step in range(5):
        writer.metrics(step, loss=0.1 + step, note="hello", on=True, none=None)
        other.metrics(step, loss=-1.0)
    writer.system(cpu=7.0)
    said = command("sync", run, "--to", "tensorboard").out
    assert "11 rows, 11 of them now" in said
    folder = run / "tensorboard"
    found = scalars(folder, "loss")
    assert [(step, value) for step, value, _ in found] == [(step, 0.1 + step) for step in range(5)]
    times = [line["timestamp"] for line in read_run(run).lines("metrics", rank=0)]
    assert [moment for _, _, moment in found] == [sync.moment_of(one) for one in times]
    assert [value for _, value, _ in scalars(folder / "rank1", "loss")] == [-1.0] * 5
    assert [(step, value) for step, value, _ in scalars(folder, "system/cpu")] == [(4, 7.0)]
    assert [value for _, value, _ in scalars(folder, "note/text_summary")] == [b"hello"] * 5
    attempt(run, 1, tick_s=1.0).fill(range(3, 8), loss=9.0)
    assert json.loads(command("sync", run, "--to", "tensorboard", "--json").out)["sent"] == 5
    found = scalars(folder, "loss")
    assert [(step, value) for step, value, _ in found] == [
        *((step, 0.1 + step) for step in range(3)),
        *((step, 9.0) for step in range(3, 8)),
    ]
    (file,) = folder.glob("events*")
    size = file.stat().st_size
    with file.open("ab") as handle:
        handle.write(b"half an event")  # of a process that was killed
    assert json.loads(command("sync", run, "--to", "tensorboard", "--json").out)["sent"] == 0
    assert file.stat().st_size == size
    assert (
        "does not take --uri"
        in command("sync", run, "--to", "tensorboard", "--uri", "x", code=2).err
    )
    assert "rate must be" in command("sync", run, "--to", "tensorboard", "--rate", -1, code=2).err


def test_a_full_disk_is_said(
    tmp_path: Path, command: Callable[..., Any], monkeypatch: Patch
) -> None:
    pytest.importorskip("tensorboard")
    from foundry_fastlog.sinks.sync_tensorboard import TensorBoardTarget

    OracleWriter(tmp_path).fill(range(3))
    with monkeypatch.context() as patched:
        patched.setattr(
            TensorBoardTarget, "_append", Mock(side_effect=OSError(28, "No space left"))
        )
        said = command("sync", tmp_path, "--to", "tensorboard", code=1).err
    assert "event files cannot be written" in said
    command("sync", tmp_path, "--to", "tensorboard")
    assert len(scalars(tmp_path / "tensorboard", "loss")) == 3


def test_senders_are_killed_at_any_time(tmp_path: Path) -> None:
    """Real kills of real processes; then each row is in the event files once."""
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    writer = OracleWriter(run)
    total = 0
    for delay in (0.0, 0.05, 0.2, 0.4):
        for _ in range(2000):
            writer.metrics(total, loss=float(total))
            total += 1
        process = start_sync(run, "--to", "tensorboard", "--follow")
        state = run / ".sync" / "tensorboard.json"
        end = time.monotonic() + 60
        before = state.stat().st_mtime_ns if state.exists() else 0
        while not state.exists() or state.stat().st_mtime_ns == before:
            assert time.monotonic() < end
            time.sleep(0.001)
        time.sleep(delay)
        kill(process)
    sync_run(run, "tensorboard")
    assert [step for step, _, _ in scalars(run / "tensorboard", "loss")] == list(range(total))


# ---- wandb ------------------------------------------------------------------------------------


@pytest.fixture
def wandb_home(tmp_path: Path, monkeypatch: Patch) -> Path:
    pytest.importorskip("wandb")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    return tmp_path


def sent_to_wandb(run: Path) -> list[dict[str, Any]]:
    """The rows of all offline runs, by W&B's step, which must have no gap."""
    from wandb_files import WandbRun, run_files

    rows = [row for file in run_files(run / ".sync") for row in WandbRun(file).rows]
    steps = [row["_step"] for row in rows]
    assert len(set(steps)) == len(steps)
    return sorted(rows, key=lambda row: row["_step"])


def test_a_run_of_wandb_gets_steps_and_times(wandb_home: Path) -> None:
    run = wandb_home / "run"
    write_run_json(run, name="exp0", config={"lr": 0.1}, attempts=1)
    writer = OracleWriter(run, tick_s=1.0)
    for step in range(3):
        writer.metrics(step, loss=0.5 * step)
    writer.rewind(1)
    writer.metrics(1, loss=9.0)
    OracleWriter(run, rank=1).metrics(0, loss=-1.0)
    writer.system(cpu=3.0)
    found = sync_run(run, "wandb", project="p", rate=1e6)
    assert (found.rows, found.known["project"]) == (7, "p")
    writer.metrics(2, loss=8.0)
    assert sync_run(run, "wandb").sent == 1
    rows = sent_to_wandb(run)
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    assert losses == [(0, 0.0), (1, 0.5), (2, 1.0), (1, 9.0), (2, 8.0)]
    assert [row["rank1/loss"] for row in rows if "rank1/loss" in row] == [-1.0]
    assert [row["system/cpu"] for row in rows if "system/cpu" in row] == [3.0]
    times = [line["timestamp"] for line in read_run(run).lines("metrics", rank=0)]
    assert rows[0]["_timestamp"] == pytest.approx(sync.moment_of(times[0]), abs=1e-3)


def test_senders_to_wandb_are_killed(wandb_home: Path) -> None:
    run = wandb_home / "run"
    writer = OracleWriter(run)
    total = 0
    for delay in (0.2, 1.0):
        for _ in range(300):
            writer.metrics(total, loss=float(total))
            total += 1
        process = start_sync(run, "--to", "wandb", "--follow", "--rate", 400)
        end = time.monotonic() + 60
        while not any((run / ".sync").glob("wandb/*/*.wandb")):
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(delay)
        kill(process)
    sync_run(run, "wandb", rate=1e6)
    from foundry_fastlog.importing.wandb_files import read_run_file

    found = [
        line.fields["metrics"]["loss"]
        for file in sorted((run / ".sync").glob("wandb/offline-run-*/*.wandb"))
        for line in read_run_file(file).lines
        if line.stream == "metrics"
    ]
    assert sorted(found) == [float(step) for step in range(total)]


def test_wandb_that_cannot_begin(wandb_home: Path, monkeypatch: Patch) -> None:
    import wandb

    OracleWriter(wandb_home / "run").fill(range(3))
    held = [wandb.Error("run ID x is in use"), wandb.Error("no login")]
    monkeypatch.setattr(wandb, "init", Mock(side_effect=held))
    with pytest.raises(SyncError, match="could not begin a run: no login"):
        sync_run(wandb_home / "run", "wandb")


# ---- MLflow -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of its own packages
def test_a_database_of_mlflow(tmp_path: Path, monkeypatch: Patch) -> None:
    """The same rows twice are seen once."""
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("flask")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = tmp_path / "run"
    write_run_json(run, name="exp0", config={"lr": 0.1, "data": {"name": "x"}}, attempts=1)
    writer = OracleWriter(run, tick_s=1.0)
    for step in range(3):
        writer.metrics(step, **{"loss": 0.1 + step, "odd(name)": 1, "text": "x"})
    writer.system(cpu=3.0)
    OracleWriter(run, rank=1).metrics(0, loss=-1.0)
    found = sync_run(run, "mlflow", uri=uri, experiment="e", rate=1e6)
    client = mlflow.MlflowClient(uri)
    run_id = found.known["run_id"]
    (run / ".sync" / "mlflow.json").write_text(
        json.dumps(
            {
                "format": 1,
                "target": "mlflow",
                "known": found.known,
                "rows": 0,  # as if nothing had been noted
                "pending": [],
                "position": None,
            }
        )
    )
    sync_run(run, "mlflow", uri=uri, rate=1e6)
    history = client.get_metric_history(run_id, "loss")
    assert [(one.step, one.value) for one in history] == [(step, 0.1 + step) for step in range(3)]
    line = next(iter(read_run(run).lines("metrics", rank=0)))
    assert history[0].timestamp == round(sync.moment_of(line["timestamp"]) * 1e3)
    stored = client.get_run(run_id)
    assert stored.data.params == {"lr": "0.1", "data.name": "x"}
    assert stored.data.metrics["odd_name_"] == 1
    assert stored.data.metrics["rank1/loss"] == -1.0
    assert stored.data.metrics["system/cpu"] == 3.0
    assert stored.info.run_name == "exp0"
    assert stored.info.status == "FINISHED"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # or it tries for minutes
    with pytest.raises(SyncError, match="mlflow cannot be reached"):
        sync_run(run, "mlflow", uri="http://127.0.0.1:1", state_file=tmp_path / "other.json")


# ---- started by a training --------------------------------------------------------------------


def test_a_training_starts_and_outlives_its_sender(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Patch
) -> None:
    """Its process goes on after the training until all is sent, and then ends."""
    pytest.importorskip("tensorboard")
    config = {"experiment_name": "exp0", "logging": {"sync": "tensorboard", "console": False}}
    with ExperimentLogging(config, log_dir=tmp_path) as logs:
        for step in range(50):
            logs.log_step(step, None, {"loss": float(step)})
        run = logs.directory
    state = run / ".sync" / "tensorboard.json"
    end = time.monotonic() + 60
    while not (state.exists() and json.loads(state.read_text())["rows"] >= 50):
        assert time.monotonic() < end, (run / ".sync" / "tensorboard.log").read_text()
        time.sleep(0.05)
    assert _is_free(state, end)
    found = scalars(run / "tensorboard", "loss")
    assert [step for step, _, _ in found] == list(range(50))
    assert (run / ".sync" / "tensorboard.log").read_text() == ""
    monkeypatch.setattr(sync_process.subprocess, "Popen", Mock(side_effect=OSError(11, "no more")))
    sync_process.start_sync(run, "wandb")
    assert "could not start to send" in caplog.text


def _is_free(state: Path, end: float) -> bool:
    """Whether a sender ends in time."""
    while time.monotonic() < end:
        with contextlib.suppress(SyncError), sync._held(state):
            return True
        time.sleep(0.05)
    return False
