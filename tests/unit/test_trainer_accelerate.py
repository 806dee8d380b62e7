"""FastlogTracker records what an Accelerator logs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from adapters import THEIR_WARNINGS, complete, ends, library, messages, points, starts

from foundry_fastlog import Recorder, read_run

torch = library("torch")
accelerate = library("accelerate")
FastlogTracker = library("foundry_fastlog.integrations.accelerate").FastlogTracker

pytestmark = THEIR_WARNINGS
torch.set_num_threads(1)  # a tiny model


def train(tracker: Any, begin: int = 0, steps: int = 10, fails_at: int = -1) -> list[Any]:
    """Train a line; return what was logged."""
    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers("tiny", config={"lr": 0.1, "begin": begin})
    torch.manual_seed(begin)
    layer = torch.nn.Linear(2, 1)
    model, optimizer = accelerator.prepare(layer, torch.optim.SGD(layer.parameters(), 0.1))
    logged = []
    for step in range(begin, steps):
        if step == fails_at:
            raise ValueError("bad batch")
        loss = model(torch.ones(2)).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        accelerator.log({"loss": loss.detach(), "lr": 0.1}, step=step)
        logged.append((step, loss.item()))
    accelerator.end_training()
    return logged


def test_all_that_is_logged_is_recorded(tmp_path: Path) -> None:
    """Equal values at equal steps, tensors among them, and the configuration."""
    run, tracker = tmp_path / "run", FastlogTracker(tmp_path / "run")
    logged = train(tracker)
    assert points(run, "loss") == logged
    assert tracker.tracker is tracker.recorder
    assert tracker.recorder.closed
    (start,) = starts(run)
    assert start["config"] == {"lr": 0.1, "begin": 0}
    assert ends(run) == [("closed", None)]
    assert complete(run)


def test_a_resume_is_the_next_start(tmp_path: Path) -> None:
    """Steps that are trained again replace the old ones."""
    run = tmp_path / "run"
    first = train(FastlogTracker(run))
    second = train(FastlogTracker(run), begin=5, steps=8)
    assert points(run, "loss") == first[:5] + second
    assert points(run, "loss", 0) == first


def test_a_failed_training(tmp_path: Path) -> None:
    """Its exception is the program's as before, and the run says that it ended by it."""
    with pytest.raises(ValueError, match="bad batch"), FastlogTracker(tmp_path / "run") as tracker:
        train(tracker, fails_at=5)
    assert ends(tmp_path / "run") == [("exception", "ValueError")]
    (line,) = read_run(tmp_path / "run").lines("errors")
    assert (line["error_message"], line["step"]) == ("bad batch", 4)


def test_an_unwritable_directory(caplog: pytest.LogCaptureFixture) -> None:
    """Training goes on, with one warning, and one of what was lost when it ends."""
    with caplog.at_level(logging.WARNING, "foundry_fastlog"):
        assert len(train(FastlogTracker("/proc/no/run", close_timeout_s=0.1))) == 10
    told = [one.getMessage() for one in caplog.records if one.name == "foundry_fastlog"]
    assert ["Training goes on" in text for text in told] == [True, False]
    assert "10 records are missing" in told[1]


def test_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the main process records, unless all are to."""
    accelerate.Accelerator(cpu=True)
    monkeypatch.setitem(accelerate.state.PartialState._shared_state, "process_index", 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for all_ranks in (False, True):
        with FastlogTracker(tmp_path / str(all_ranks), all_ranks=all_ranks) as tracker:
            assert tracker.main_process_only != all_ranks
            tracker.log({"loss": 1.0}, step=0)
    assert not (tmp_path / "False").exists()
    assert (tmp_path / "True" / "metrics.r1.jsonl").exists()


def test_a_recorder_that_is_open(tmp_path: Path) -> None:
    """It gets the configuration as a message, and stays open."""
    with Recorder(tmp_path / "run") as recorder:
        tracker = FastlogTracker(recorder=recorder)
        logged = train(tracker)
        tracker.log({"more": 1})
        assert not recorder.closed
    assert points(tmp_path / "run", "loss") == logged
    assert points(tmp_path / "run", "more") == [(10, 1)]
    assert messages(tmp_path / "run") == [("Configuration", None)]


def test_a_tracker_that_is_used_again(tmp_path: Path) -> None:
    """Its second training is the run's next start."""
    run, tracker = tmp_path / "run", FastlogTracker(tmp_path / "run")
    first = train(tracker, steps=3)
    second = train(tracker, begin=3, steps=5)
    assert points(run, "loss") == first + second
    assert [start["config"]["begin"] for start in starts(run)] == [0, 3]
