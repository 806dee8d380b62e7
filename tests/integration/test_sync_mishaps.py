"""Runs and files that change under a sender, and targets that are away: nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from oracle import OracleWriter
from sending import wait_for
from wandb_files import write_log

from foundry_fastlog import Recorder, Run, SyncError, import_runs, read_run, sync_run
from foundry_fastlog.sinks import sync, sync_process
from foundry_fastlog.sinks.sync_mlflow import _Names
from foundry_fastlog.sinks.sync_rows import Row

Patch = pytest.MonkeyPatch


class Service:
    """A target that is away for as many calls as it is told."""

    rate: float | None = None

    def __init__(self) -> None:
        self.away = 0
        self.opened: list[dict[str, Any]] = []
        self.steps: list[int | None] = []

    def _answer(self) -> None:
        if self.away > 0:
            self.away -= 1
            raise ConnectionError("gone")

    def open(self, run: Run, known: dict[str, Any]) -> None:
        self.opened.append(json.loads((run.path / ".sync" / "wandb.json").read_text())["known"])
        self._answer()

    def send(self, rows: list[Row]) -> None:
        self._answer()
        self.steps += [row.step for row in rows]

    def confirmed(self, number: int) -> int:
        return number

    def close(self, state: str) -> None:
        pass


@pytest.fixture
def service(monkeypatch: Patch) -> Service:
    found = Service()
    monkeypatch.setattr(sync, "_make", lambda *_: found)
    return found


def steps_of(folder: Path) -> list[int]:
    """The steps of all rows in event files, as they were written."""
    found = import_runs(folder, folder.parent / "imported", format="tensorboard")
    return [
        line["step"]
        for one in found
        for line in read_run(one.path).lines("metrics", starts="all")
        if "metrics" in line
    ]


def test_a_service_is_known_before_it_is_asked(service: Service, tmp_path: Path) -> None:
    """So that who is killed while it is asked finds what there is then."""
    OracleWriter(tmp_path).fill(range(3))
    service.away = 1
    with pytest.raises(SyncError, match="cannot be reached: gone"):
        sync_run(tmp_path, "wandb")
    assert sync_run(tmp_path, "wandb").known == service.opened[0]
    assert service.opened[0] == service.opened[1] != {}


def test_who_follows_waits_for_a_service(
    service: Service, tmp_path: Path, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also for its first answer; what it has is noted while there is nothing new."""
    service.away = 3
    monkeypatch.setattr(sync, "time", SimpleNamespace(sleep=lambda _: threading.Event().wait(0.01)))
    with Recorder(tmp_path) as recorder:
        recorder.record(0, loss=1.0)
        assert recorder.flush()
        thread = threading.Thread(target=lambda: sync_run(tmp_path, "wandb", follow=True))
        thread.start()
        state = tmp_path / ".sync" / "wandb.json"
        wait_for(lambda: state.exists() and json.loads(state.read_text())["rows"] == 1)
        assert json.loads(state.read_text())["pending"] == []
    thread.join(60)
    assert service.steps == [0]
    assert caplog.text.count("trying again") == 1


def test_nobody_waits_forever_once_a_run_has_ended(
    service: Service, tmp_path: Path, monkeypatch: Patch
) -> None:
    Recorder(tmp_path).close()
    OracleWriter(tmp_path).fill(range(3))
    service.away = 1_000
    monkeypatch.setattr(sync, "time", SimpleNamespace(sleep=Mock()))
    with pytest.raises(SyncError, match="cannot be reached"):
        sync_run(tmp_path, "wandb", follow=True)


def test_who_may_wait_is_not_refused(service: Service, tmp_path: Path) -> None:
    """As the sender of a start whose predecessor is about to end."""
    OracleWriter(tmp_path).fill(range(3))
    with sync._held(tmp_path / ".sync" / "wandb.json"):
        thread = threading.Thread(target=lambda: sync_run(tmp_path, "wandb", wait=True))
        thread.start()
        with pytest.raises(SyncError, match="another process sends this run"):
            sync_run(tmp_path, "wandb")
        assert not service.steps
    thread.join(60)
    assert service.steps == [0, 1, 2]


def test_a_run_that_was_moved_is_sent_on(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    OracleWriter(tmp_path / "run").fill(range(5))
    sync_run(tmp_path / "run", "tensorboard")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    OracleWriter(moved, rank=1).fill(range(5, 8))
    assert sync_run(moved, "tensorboard").sent == 3
    assert not (tmp_path / "run").exists()
    assert steps_of(moved / "tensorboard") == list(range(8))


@pytest.mark.parametrize("size", [None, 100])
def test_event_files_that_are_gone_are_told(tmp_path: Path, size: int | None) -> None:
    """Nothing is put in the place of what they had."""
    pytest.importorskip("tensorboard")
    OracleWriter(tmp_path).fill(range(5))
    (file,) = Path(sync_run(tmp_path, "tensorboard").known["directory"]).iterdir()
    file.unlink() if size is None else file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(SyncError, match=r"is not there or was cut.*to send all again"):
        sync_run(tmp_path, "tensorboard")
    (tmp_path / ".sync" / "tensorboard.json").unlink()
    assert sync_run(tmp_path, "tensorboard").sent == 5


def test_event_files_elsewhere(tmp_path: Path, monkeypatch: Patch) -> None:
    """They stay there when the run is moved; one that cannot be written is told."""
    pytest.importorskip("tensorboard")
    OracleWriter(tmp_path / "run").fill(range(5))
    monkeypatch.chdir(tmp_path)
    sync_run(tmp_path / "run", "tensorboard", directory="events")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    OracleWriter(moved, rank=1).fill(range(5, 8))
    monkeypatch.chdir(moved)
    sync_run(moved, "tensorboard")
    assert steps_of(tmp_path / "events") == list(range(8))
    monkeypatch.setattr("os.truncate", Mock(side_effect=OSError(30, "Read-only file system")))
    with pytest.raises(SyncError, match=r"event files cannot be written: .*Read-only"):
        sync_run(moved, "tensorboard")


def test_a_file_that_nobody_had_noted_is_written_again(tmp_path: Path, monkeypatch: Patch) -> None:
    """Killed after the first rows, and before it was noted that there is a file."""
    pytest.importorskip("tensorboard")
    from foundry_fastlog.sinks.sync_tensorboard import TensorBoardTarget

    OracleWriter(tmp_path).fill(range(5))
    send = TensorBoardTarget.send

    def die(self: TensorBoardTarget, rows: list[Row]) -> None:
        send(self, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TensorBoardTarget, "send", die)
        with pytest.raises(KeyboardInterrupt):
            sync_run(tmp_path, "tensorboard")
    sync_run(tmp_path, "tensorboard")
    assert steps_of(tmp_path / "tensorboard") == list(range(5))


def test_another_run_is_not_sent_by_the_state_of_one(service: Service, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    for name in ("run", "other"):
        Recorder(tmp_path / name).close()
        OracleWriter(tmp_path / name).fill(range(3), loss=1.0)
    sync_run(tmp_path / "run", "wandb")
    shutil.copy(tmp_path / "run" / ".sync" / "wandb.json", state)
    with pytest.raises(ValueError, match="another run was sent, which was created at"):
        sync_run(tmp_path / "other", "wandb", state_file=state)
    assert service.steps == [0, 1, 2]


def test_a_run_that_takes_the_place_of_another_is_not_sent_on(
    service: Service, tmp_path: Path, monkeypatch: Patch
) -> None:
    run = tmp_path / "run"
    state = tmp_path / "run.json"
    monkeypatch.setattr(Service, "open", lambda *_: None)  # looks into the run
    Recorder(run).close()
    OracleWriter(run).fill(range(3), loss=1.0)
    send = service.send

    def replace(rows: list[Row]) -> None:
        send(rows)
        shutil.rmtree(run)
        Recorder(run).close()
        OracleWriter(run).fill(range(2), loss=7.0)

    monkeypatch.setattr(service, "send", replace)
    with pytest.raises(SyncError, match="is another run now"):
        sync_run(run, "wandb", state_file=state)
    assert service.steps == [0, 1, 2]


def test_a_package_that_is_missing_is_told_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Patch
) -> None:
    """A training that is short has ended before its sender could say so."""
    (tmp_path / "mlflow").mkdir()  # a folder of that name, as wandb makes one, is no package
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("wandb", "mlflow", "tensorboard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        sync_process.start_sync(tmp_path, name)
    assert [one.message.partition(".")[0] for one in caplog.records] == [
        f"{name} gets nothing: {name} is not installed"
        for name in ("wandb", "mlflow", "tensorboard")
    ]
    assert "foundry_fastlog[export]" in caplog.text
    assert not (tmp_path / ".sync").exists()
    monkeypatch.setitem(sys.modules, "wandb", Mock(__spec__=None))  # made by hand, and in use
    monkeypatch.setattr(sync_process.subprocess, "Popen", Mock(side_effect=OSError(11, "no more")))
    sync_process.start_sync(tmp_path, "wandb")
    assert "could not start to send" in caplog.text


def test_a_run_that_is_removed_while_it_is_sent(
    service: Service, tmp_path: Path, monkeypatch: Patch, command: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    Recorder(run).close()
    OracleWriter(run).fill(range(3))
    monkeypatch.setattr(service, "send", lambda _: shutil.rmtree(run))
    assert f"error: {run}" in command("sync", run, "--to", "wandb", code=2).err


def test_a_sender_that_gives_up_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The training that started it goes on."""
    OracleWriter(tmp_path).fill(range(3))
    sync_process.start_sync(tmp_path, "excel")
    wait_for(lambda: "gets nothing more" in caplog.text)
    assert "target must be one of wandb, tensorboard, mlflow, got 'excel'" in caplog.text
    (tmp_path / ".sync" / "excel.log").unlink()
    sync_process._watch(Mock(wait=lambda: 1), "excel", tmp_path / ".sync" / "excel.log")
    assert caplog.text.count("gets nothing more") == 2


def test_rows_that_are_in_a_run_file_of_wandb_alone_are_sent(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    """From the first one on that W&B does not have."""
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2 as module

    from foundry_fastlog.sinks.sync_wandb import WandbTarget

    proto: Any = module
    records = [proto.Record() for _ in range(4)]
    for step, record in enumerate(records):
        record.history.step.num = step
        record.history.item.add(key="_step", value_json=str(step))
        record.history.item.add(key="loss", value_json=str(step / 2))
    file = tmp_path / ".sync" / "wandb" / "run-1-x" / "run-x.wandb"
    file.parent.mkdir(parents=True)
    write_log(file, [proto.Record(), *records])
    OracleWriter(tmp_path).fill(range(3))
    for offline in (False, True):
        run = Mock(id="x", starting_step=2, offline=offline)
        monkeypatch.setattr(wandb, "init", lambda run=run, **_: run)
        assert WandbTarget().open(Run(tmp_path), {"id": "x"}) == 4
        sent = [(call.args[0], call.kwargs["step"]) for call in run.log.call_args_list]
        assert sent == ([] if offline else [({"loss": 1.0}, 2), ({"loss": 1.5}, 3)])


def test_wandb_that_does_not_answer_is_asked_again(
    tmp_path: Path, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    wandb = pytest.importorskip("wandb")
    OracleWriter(tmp_path).fill(range(3))
    silent = wandb.errors.CommError("no answer")
    monkeypatch.setattr(wandb, "init", Mock(side_effect=[silent, wandb.Error("no login")]))
    monkeypatch.setattr(sync, "time", SimpleNamespace(sleep=Mock()))
    monkeypatch.setattr(sync._Sync, "_ended", lambda _: "")
    with pytest.raises(SyncError, match="could not begin a run: no login"):
        sync_run(tmp_path, "wandb", follow=True)
    assert "trying again: no answer" in caplog.text


def test_names_for_mlflow_are_told_apart() -> None:
    names = [
        "",
        "/a",
        "a/",
        "a//b",
        "..",
        "../x",
        ".",
        "a(b)",
        "a[b]",
        "a_b_",
        "x" * 300,
        "x" * 299,
    ]
    known: dict[str, str] = {}
    found = [_Names(known).of(name) for name in names]
    assert len({*found}) == len(names)
    assert [_Names(known).of(name) for name in reversed(names)] == found[::-1]
    assert found[:4] == ["_", "_/a", "a/_", "a/_/b"]
    assert max(map(len, found)) <= 250


def test_the_sender_of_a_training_that_is_killed_ends(tmp_path: Path) -> None:
    """After it has sent what the training had recorded."""
    pytest.importorskip("tensorboard")
    code = (
        "import os, sys\n"
        "from foundry_fastlog import ExperimentLogging\n"
        "logging = {'sync': 'tensorboard', 'console': False}\n"
        "config = {'experiment_name': 'run', 'logging': logging}\n"
        "logs = ExperimentLogging(config, log_dir=sys.argv[1])\n"
        "for step in range(500): logs.log_step(step, None, {'loss': 1.0})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    state = tmp_path / "run" / ".sync" / "tensorboard.json"
    wait_for(lambda: state.exists() and json.loads(state.read_text())["rows"] == 500)
    with sync._held(state, wait=True):  # it has let go
        assert steps_of(tmp_path / "run" / "tensorboard") == list(range(500))
