"""FastlogLogger records what Lightning and Fabric log; a validation is no other start."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from adapters import (
    THEIR_WARNINGS,
    complete,
    ends,
    library,
    messages,
    points,
    starts,
)
from recorded import run_python

from foundry_fastlog import Recorder, read_run

torch = library("torch")
lightning = library("lightning")
FastlogLogger = library("foundry_fastlog.integrations.lightning").FastlogLogger

pytestmark = THEIR_WARNINGS
torch.set_num_threads(1)  # tiny models


class Model(lightning.LightningModule):  # type: ignore[misc]
    """A line; notes what it logged."""

    def __init__(self, lr: float = 0.1, fails_at: int = -1) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(2, 1)
        self.logged: list[tuple[int, float]] = []

    def training_step(self, batch: Any, index: int) -> Any:
        if self.global_step == self.hparams.fails_at:
            raise ValueError("bad batch")
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        self.logged.append((self.global_step, loss.item()))
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", self.layer(batch).square().mean())

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


def data() -> Any:
    torch.manual_seed(1)
    return torch.utils.data.DataLoader(torch.randn(20, 2), batch_size=2)


def trainer(tmp_path: Path, logger: Any, **options: Any) -> Any:
    chosen = {"max_epochs": 2, "log_every_n_steps": 1, "enable_progress_bar": False, **options}
    return lightning.Trainer(
        logger=logger,
        accelerator="cpu",
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **chosen,
    )


def test_all_that_is_logged_is_recorded(tmp_path: Path) -> None:
    """Equal values at equal steps; validation and test after fit() are the same start."""
    run, model = tmp_path / "run", Model()
    with FastlogLogger(run) as logger:
        fitter = trainer(tmp_path, logger)
        fitter.fit(model, data(), data())
        validated = fitter.validate(model, data(), verbose=False)
        tested = lightning.Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False)
        tested.test(model, data(), verbose=False)
    assert points(run, "loss") == model.logged
    values = points(run, "val_loss")
    assert (20, validated[0]["val_loss"]) in values
    assert [step for step, _ in values] == [0, 9, 19, 20]
    lines = [line for line in read_run(run).lines("metrics") if "loss" in line.get("metrics", {})]
    assert [line["epoch"] for line in lines] == [0] * 10 + [1] * 10
    assert [step for said, step in messages(run) if said == "Checkpoint saved"] == [10, 20]
    assert list((run / "checkpoints").glob("*.ckpt"))
    (start,) = starts(run)
    assert start["config"] == {"lr": 0.1, "fails_at": -1}
    assert ends(run) == [("closed", None)]
    assert complete(run)


def test_a_resume_is_the_next_start(tmp_path: Path) -> None:
    """Steps that are trained again replace the old ones."""
    run, first, second = tmp_path / "run", Model(), Model(lr=0.2)
    with FastlogLogger(run) as logger:
        trainer(tmp_path, logger, max_epochs=3).fit(first, data())
        (checkpoint,) = (run / "checkpoints").glob("*.ckpt")
        kept = tmp_path / "kept.ckpt"
        saver = trainer(tmp_path, logger, max_epochs=1)
        saver.fit(early := Model(), data())
        saver.save_checkpoint(kept)
        assert checkpoint.exists()
        assert early.logged == first.logged[:10]
    with FastlogLogger(run) as logger:
        trainer(tmp_path, logger, max_epochs=2).fit(second, data(), ckpt_path=kept)
    assert [step for step, _ in second.logged] == list(range(10, 20))
    found = points(run, "loss")
    assert found[-10:] == second.logged
    assert max(step for step, _ in found) == 19
    assert len(starts(run)) == 2


def test_a_failed_training(tmp_path: Path) -> None:
    """Its exception is the program's as before, and the run says that it ended by it."""
    run = tmp_path / "run"
    logger = FastlogLogger(run)
    with pytest.raises(ValueError, match="bad batch"):
        trainer(tmp_path, logger).fit(Model(fails_at=5), data())
    assert logger.close()
    assert ends(run) == [("exception", "ValueError")]
    (line,) = read_run(run).lines("errors")
    assert (line["message"], line["step"]) == ("Training failed", 4)


def test_a_training_that_goes_on_after_an_exception(tmp_path: Path) -> None:
    """The error is there, and the run ended well."""
    run = tmp_path / "run"
    with FastlogLogger(run) as logger:
        with pytest.raises(ValueError, match="bad batch"):
            trainer(tmp_path, logger).fit(Model(fails_at=5), data())
        trainer(tmp_path, logger).fit(Model(), data())
    assert ends(run) == [("closed", None)]
    assert len(list(read_run(run).lines("errors"))) == 1
    logger = FastlogLogger(tmp_path / "other")
    logger.log_metrics({"loss": 1.0})
    logger.finalize("failed")  # by somebody who has no exception
    logger.close()
    assert messages(tmp_path / "other") == [("Training failed", None)]


def test_an_unwritable_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Training goes on, with one warning."""
    with caplog.at_level(logging.WARNING, "foundry_fastlog"):
        logger = FastlogLogger("/proc/no/run", close_timeout_s=0.1)
        trainer(tmp_path, logger, enable_checkpointing=False).fit(model := Model(), data())
    assert len(model.logged) == 20
    assert len([one for one in caplog.records if one.name == "foundry_fastlog"]) == 1
    assert not logger.close()


def test_fabric(tmp_path: Path) -> None:
    """Its log() and log_dict(), with and without a step, and its hyperparameters."""
    run = tmp_path / "run"
    with FastlogLogger(run) as logger:
        fabric = lightning.Fabric(accelerator="cpu", devices=1, loggers=logger)
        fabric.logger.log_hyperparams({"lr": 0.5})
        for step in range(10):
            fabric.log_dict({"loss": torch.tensor(1.0 / (step + 1)), "lr": 0.5}, step=step)
        fabric.log("last", 3)
        logger.log_hyperparams({"lr": 0.25})
    assert points(run, "loss") == [
        (step, torch.tensor(1.0 / (step + 1)).item()) for step in range(10)
    ]
    assert points(run, "last") == [(10, 3)]
    (start,) = starts(run)
    assert start["config"] == {"lr": 0.5}
    assert messages(run) == [("Configuration", None)]


def test_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the main process records, unless all are to."""
    from lightning_utilities.core.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for all_ranks in (False, True):
        with FastlogLogger(tmp_path / str(all_ranks), all_ranks=all_ranks) as logger:
            logger.log_metrics({"loss": 1.0}, 0)
            assert (logger.recorder is not None) == all_ranks
    assert not (tmp_path / "False").exists()
    assert (tmp_path / "True" / "metrics.r1.jsonl").exists()


def test_places(tmp_path: Path) -> None:
    """What Lightning makes of them is the run's directory; a pickle records there."""
    logger = FastlogLogger(tmp_path / "sweep" / "run")
    assert (logger.name, logger.version) == ("run", "")
    assert logger.save_dir == logger.root_dir == str(tmp_path / "sweep")
    assert logger.log_dir == str(tmp_path / "sweep" / "run")
    other = pickle.loads(pickle.dumps(logger))
    other.log_metrics({"loss": 1.0}, 0)
    other.close()
    assert points(tmp_path / "sweep" / "run", "loss") == [(0, 1.0)]
    with Recorder(tmp_path / "open") as recorder:
        assert FastlogLogger(recorder=recorder).recorder is recorder


def test_pytorch_lightning(tmp_path: Path) -> None:
    """The library by its other name."""
    library("pytorch_lightning")
    run_python(
        """
import sys, warnings
warnings.simplefilter("ignore")
import torch, pytorch_lightning as pl
from foundry_fastlog.integrations.lightning import FastlogLogger
assert "lightning" not in sys.modules
assert isinstance(logger := FastlogLogger(sys.argv[1]), pl.loggers.Logger)

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, index):
        loss = self.layer(batch).mean()
        self.log("loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

data = torch.utils.data.DataLoader(torch.randn(10, 2))
pl.Trainer(logger=logger, max_epochs=1, log_every_n_steps=1, accelerator="cpu",
           enable_progress_bar=False, enable_model_summary=False).fit(Model(), data)
""",
        tmp_path / "run",
    )
    assert [step for step, _ in points(tmp_path / "run", "loss")] == list(range(10))
    assert ends(tmp_path / "run") == [("closed", None)]


def test_a_program_that_ends_by_an_exception(tmp_path: Path) -> None:
    """Without a block and without Lightning's finalize(): the error is recorded at exit."""
    run_python(
        """
import sys, warnings
warnings.simplefilter("ignore")
from foundry_fastlog.integrations.lightning import FastlogLogger
logger = FastlogLogger(sys.argv[1])
logger.log_metrics({"loss": 1.0}, 3)
raise ValueError("bad batch")
""",
        tmp_path / "run",
        returncode=1,
    )
    assert ends(tmp_path / "run") == [("exception", "ValueError")]
    (line,) = read_run(tmp_path / "run").lines("errors")
    assert (line["message"], line["error_message"]) == ("Program failed", "bad batch")
    assert line["step"] == 3


@pytest.mark.parametrize("given", [None, "text", 3, [1, 2]])
def test_hyperparameters_of_any_kind(tmp_path: Path, given: Any) -> None:
    """Lightning's own loggers take them, so they do not end a training."""
    with FastlogLogger(tmp_path / "run") as logger:
        logger.log_hyperparams(given)
        logger.log_metrics({"x": 1.0}, 2.0)
    expected = {} if given is None else {"hparams": given}
    assert starts(tmp_path / "run")[0]["config"] == expected
    assert points(tmp_path / "run", "x") == [(2, 1.0)]
