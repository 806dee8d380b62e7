"""FastlogCallback of Keras records epochs, batches and evaluations."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import (
    THEIR_WARNINGS,
    complete,
    ends,
    library,
    messages,
    points,
    starts,
    summaries,
)

from foundry_fastlog import read_run

torch = library("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = library("keras")
FastlogCallback = library("foundry_fastlog.integrations.keras").FastlogCallback

pytestmark = THEIR_WARNINGS
torch.set_num_threads(1)  # a tiny model
X = np.linspace(0, 1, 40, dtype=np.float32).reshape(20, 2)
Y = X.sum(axis=1)


class Fails(keras.callbacks.Callback):  # type: ignore[misc]
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 3:
            raise ValueError("bad batch")


class Batches(keras.callbacks.Callback):  # type: ignore[misc]
    """Notes the loss of each batch as Keras gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.losses.append(float(logs["loss"]))


def model(lr: float = 0.1, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="line")
    made.compile(keras.optimizers.SGD(lr), "mse", metrics=["mae"], **options)
    return made


def fit(made: Any, *callbacks: Any, epochs: int = 3, **options: Any) -> dict[str, list[float]]:
    chosen = {"batch_size": 4, "verbose": 0, **options}
    done = made.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **chosen)
    return dict(done.history)


def test_epochs_are_summaries(tmp_path: Path) -> None:
    """Equal values, those of validations among them; an evaluation afterwards is the same start."""
    run, made = tmp_path / "run", model()
    with FastlogCallback(run) as callback:
        history = fit(made, callback, validation_split=0.2)
        evaluated = made.evaluate(X, Y, callbacks=[callback], verbose=0, return_dict=True)
    assert [epoch for epoch, _ in summaries(run)] == [0, 1, 2]
    for epoch, summary in summaries(run):
        assert summary == {name: values[epoch] for name, values in history.items()}
    assert points(run, "test_loss") == [(12, evaluated["loss"])]
    assert points(run, "loss") == []
    assert messages(run) == [("Training ended", 12)]
    (start,) = starts(run)
    assert start["config"]["model"] == "line"
    assert start["config"]["parameters"] == 3
    assert start["config"]["fit"]["epochs"] == 3
    assert start["config"]["optimizer"]["learning_rate"] == pytest.approx(0.1)
    assert ends(run) == [("closed", None)]
    assert complete(run)


def test_each_batch(tmp_path: Path) -> None:
    """At the optimizer's step."""
    run, batches = tmp_path / "run", Batches()
    with FastlogCallback(run, batches=True) as callback:
        fit(model(), callback, batches, epochs=2)
    assert points(run, "loss") == list(enumerate(batches.losses, 1))
    lines = [line for line in read_run(run).lines("metrics") if "metrics" in line]
    assert [line["epoch"] for line in lines] == [0] * 5 + [1] * 5


def test_a_resume_is_the_next_start(tmp_path: Path) -> None:
    """Epochs and steps that are trained again replace the old ones."""
    run, saved = tmp_path / "run", tmp_path / "model.keras"
    with FastlogCallback(run, batches=True) as callback:
        made = model()
        first = fit(made, callback, epochs=2)
        made.save(saved)
        fit(made, callback, epochs=4, initial_epoch=2)
    with FastlogCallback(run, batches=True) as callback:
        second = fit(keras.models.load_model(saved), callback, epochs=3, initial_epoch=2)
    assert [step for step, _ in points(run, "loss")] == list(range(1, 16))
    found = [(epoch, summary["loss"]) for epoch, summary in summaries(run)]
    assert found == list(enumerate(first["loss"] + second["loss"]))
    assert len(starts(run)) == 2


def test_a_resume_in_the_same_process(tmp_path: Path) -> None:
    """It goes back to the optimizer's step."""
    run, saved = tmp_path / "run", tmp_path / "model.keras"
    with FastlogCallback(run, batches=True) as callback:
        made = model()
        fit(made, callback, epochs=2)
        made.save(saved)
        fit(made, callback, epochs=4, initial_epoch=2)
        fit(keras.models.load_model(saved), callback, epochs=3, initial_epoch=2)
    assert [step for step, _ in points(run, "loss")] == list(range(1, 16))
    assert [epoch for epoch, _ in summaries(run)] == [0, 1, 2]


def test_a_failed_training(tmp_path: Path) -> None:
    """Its exception is the program's as before, and the run says that it ended by it."""
    run = tmp_path / "run"
    with pytest.raises(ValueError, match="bad batch"), FastlogCallback(run, batches=True) as one:
        fit(model(), one, Fails())
    assert ends(run) == [("exception", "ValueError")]
    (line,) = read_run(run).lines("errors")
    assert (line["error_message"], line["step"]) == ("bad batch", 4)


def test_an_unwritable_directory(caplog: pytest.LogCaptureFixture) -> None:
    """Training goes on, with one warning."""
    with caplog.at_level(logging.WARNING, "foundry_fastlog"):
        callback = FastlogCallback("/proc/no/run", close_timeout_s=0.1)
        assert len(fit(model(), callback)["loss"]) == 3
    assert len([one for one in caplog.records if one.name == "foundry_fastlog"]) == 1
    assert not callback.close()


def test_a_rank_and_an_evaluation_alone(tmp_path: Path) -> None:
    """Who has the callback records, as the rank that it is given."""
    run = tmp_path / "run"
    with FastlogCallback(run, rank=1, world_size=2) as callback:
        model().evaluate(X, Y, callbacks=[callback], verbose=0)
    assert [step for step, _ in points(run, "test_mae")] == [0]
    assert (run / "metrics.r1.jsonl").exists()


def test_a_model_that_says_little(tmp_path: Path) -> None:
    """A schedule without a configuration, and a training without an optimizer."""

    class Schedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __call__(self, step: Any) -> float:
            return 0.1

    class Own(keras.Model):  # type: ignore[misc]
        def train_step(self, *data: Any) -> dict[str, float]:
            return {"loss": 0.5}

    with FastlogCallback(tmp_path / "run", batches=True) as callback:
        made = model()
        made.compile(keras.optimizers.SGD(Schedule(), name="odd"), "mse")
        fit(made, callback, epochs=1)
        inputs = keras.Input((2,))
        own = Own(inputs, keras.layers.Dense(1)(inputs))
        own.compile(optimizer=None, loss="mse")
        fit(own, callback, epochs=1)
    (start,) = starts(tmp_path / "run")
    assert start["config"]["optimizer"] == {"name": "odd"}
    assert [
        line["context"]["fit"]["epochs"]
        for line in read_run(tmp_path / "run").lines("log")
        if line["message"] == "Configuration"
    ] == [1]


def test_a_training_after_its_close(tmp_path: Path) -> None:
    """It is the run's next start."""
    callback = FastlogCallback(tmp_path / "run")
    for _ in range(2):
        fit(model(), callback, epochs=1)
        assert callback.close()
    assert len(starts(tmp_path / "run")) == 2
    assert complete(tmp_path / "run")
