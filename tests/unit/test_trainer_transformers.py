"""FastlogCallback records what the Trainer of Transformers logs, whatever becomes of a training."""

from __future__ import annotations

import logging
import math
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
    summaries,
)

from foundry_fastlog import Recorder, read_run

torch = library("torch")
transformers = library("transformers")
FastlogCallback = library("foundry_fastlog.integrations.transformers").FastlogCallback

pytestmark = THEIR_WARNINGS
torch.set_num_threads(1)  # tiny models
STEPS = 12


class Data(torch.utils.data.Dataset):  # type: ignore[misc]
    """Tokens that can be learned; the item at `bad` cannot be read."""

    def __init__(self, bad: int = -1) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.bad:
            raise ValueError("bad item 5")
        tokens = torch.arange(8) % 4
        return {"input_ids": tokens, "labels": tokens}


def model() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def trainer(tmp_path: Path, callback: Any, *, bad: int = -1, **options: Any) -> Any:
    chosen = {
        "logging_steps": 1,
        "save_steps": 5,
        "save_strategy": "no",
        "eval_strategy": "no",
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        **options,
    }
    args = transformers.TrainingArguments(
        str(tmp_path / "out"), report_to="none", use_cpu=True, disable_tqdm=True, **chosen
    )
    return transformers.Trainer(
        model(), args, train_dataset=Data(bad), eval_dataset=Data(), callbacks=[callback]
    )


def history(trained: Any, name: str) -> list[tuple[int, float]]:
    return [(line["step"], line[name]) for line in trained.state.log_history if name in line]


def test_all_that_is_logged_is_recorded(tmp_path: Path) -> None:
    """Equal values at equal steps: training, evaluation, and one after the training."""
    with FastlogCallback(tmp_path / "run") as callback:
        evaluated = {"eval_strategy": "steps", "eval_steps": 4}
        trained = trainer(tmp_path, callback, save_strategy="steps", **evaluated)
        trained.train()
        final = trained.evaluate()
        trained.predict(Data())
    run = tmp_path / "run"
    for name in ("loss", "grad_norm", "learning_rate", "eval_loss", "eval_runtime"):
        assert points(run, name) == history(trained, name), name
    assert points(run, "eval_loss")[-1] == (STEPS, final["eval_loss"])
    assert [step for step, _ in points(run, "test_loss")] == [STEPS]
    lines = [line for line in read_run(run).lines("metrics") if "loss" in line.get("metrics", {})]
    assert [line["epoch"] for line in lines] == [
        line["epoch"] for line in trained.state.log_history if "loss" in line
    ]
    ((epoch, summary),) = summaries(run)
    (last,) = [line for line in trained.state.log_history if "train_runtime" in line]
    assert epoch == last["epoch"]
    assert summary == {name: last[name] for name in last if name not in ("epoch", "step")}
    saved = [step for message, step in messages(run) if message == "Checkpoint saved"]
    assert saved == [5, 10, 12]
    assert messages(run)[0] == ("Training started", 0)
    assert ("Training ended", STEPS) in messages(run)
    assert ends(run) == [("closed", None)]
    assert complete(run)


def test_the_configuration(tmp_path: Path) -> None:
    """Arguments, model and state, without tokens."""
    with FastlogCallback(tmp_path / "run", name="tiny") as callback:
        trainer(tmp_path, callback, hub_token="secret").train()
    (start,) = starts(tmp_path / "run")
    assert start["config"]["args"]["learning_rate"] == 1e-2
    assert start["config"]["model"]["n_embd"] == 8
    assert start["config"]["state"]["max_steps"] == STEPS
    assert "secret" not in (tmp_path / "run" / "run.json").read_text()


def test_a_resume_is_the_next_start(tmp_path: Path) -> None:
    """Steps that are trained again replace the old ones."""
    with FastlogCallback(tmp_path / "run") as callback:
        first = trainer(tmp_path, callback, save_strategy="steps")
        first.train()
    with FastlogCallback(tmp_path / "run") as callback:
        second = trainer(tmp_path, callback, learning_rate=2e-2, max_steps=14)
        second.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-10"))
    run = tmp_path / "run"
    assert points(run, "loss") == history(second, "loss")
    assert [step for step, _ in points(run, "loss")] == list(range(1, 15))
    assert points(run, "loss", 0) == history(first, "loss")
    assert [start["config"]["state"]["global_step"] for start in starts(run)] == [0, 10]


@pytest.mark.parametrize("again", ["same", "another", "scratch"])
def test_a_resume_in_the_same_process(tmp_path: Path, again: str) -> None:
    """One start, which went back: by the same callback or another one of the run."""
    with FastlogCallback(tmp_path / "run") as callback:
        trainer(tmp_path, callback, save_strategy="steps").train()
        other = FastlogCallback(tmp_path / "run") if again == "another" else callback
        second = trainer(tmp_path, other, max_steps=11)
        resumed = None if again == "scratch" else str(tmp_path / "out" / "checkpoint-5")
        second.train(resume_from_checkpoint=resumed)
        other.close()
    run = tmp_path / "run"
    assert points(run, "loss") == history(second, "loss")
    assert [step for step, _ in points(run, "loss")] == list(range(1, 12))
    assert len(starts(run)) == 1
    assert complete(run)


def test_a_failed_training(tmp_path: Path) -> None:
    """The exception is the program's as before, and the run says that it ended by it."""
    with (
        pytest.raises(ValueError, match="bad item 5"),
        FastlogCallback(tmp_path / "run") as callback,
    ):
        trainer(tmp_path, callback, bad=5).train()
    run = tmp_path / "run"
    assert ends(run) == [("exception", "ValueError")]
    (line,) = read_run(run).lines("errors")
    assert (line["message"], line["error_message"]) == ("Training failed", "bad item 5")
    assert line["level"] == "CRITICAL"
    assert line["traceback"].startswith("Traceback")


def test_an_unwritable_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Training goes on, with one warning."""
    blocked = Path("/proc/no/run")
    with caplog.at_level(logging.WARNING, "foundry_fastlog"):
        callback = FastlogCallback(blocked, close_timeout_s=0.2)
        trained = trainer(tmp_path, callback)
        assert trained.train().global_step == STEPS
    told = [record for record in caplog.records if record.name == "foundry_fastlog"]
    assert len(told) == 1, told
    assert str(blocked.parent) in told[0].getMessage()
    assert not callback.close()


def test_each_step_is_timed(tmp_path: Path) -> None:
    """Parts are within the step, one of each part of a batch; an evaluation has none."""
    with FastlogCallback(tmp_path / "run", step_timing=True) as callback:
        trained = trainer(tmp_path, callback, max_steps=4, gradient_accumulation_steps=2)
        trained.train()
        hooked = len(trained.model._forward_hooks)
        trained.evaluate()
    lines = list(read_run(tmp_path / "run").lines("performance"))
    assert hooked == 0
    for step in range(1, 5):
        parts = [line for line in lines if line["step"] == step]
        assert [line["name"] for line in parts] == [
            *("data", "forward", "backward", "forward", "backward", "optimizer", "step")
        ]
        whole = parts[-1]["duration_s"]
        inner = [line for line in parts if line.get("parent") == "step"]
        assert len(inner) == 5
        assert 0 < sum(line["duration_s"] for line in inner) <= whole
    assert {line["step"] for line in lines} == set(range(1, 5))


def test_a_model_that_must_have_no_hooks(tmp_path: Path) -> None:
    """Forward and backward of a compiled one are one block."""
    with FastlogCallback(tmp_path / "run", step_timing=True) as callback:
        trained = trainer(tmp_path, callback, max_steps=2)
        trained.model._compiled_call_impl = trained.model._call_impl
        trained.train()
    names = [line["name"] for line in read_run(tmp_path / "run").lines("performance")]
    assert names == ["data", "forward_backward", "optimizer", "step"] * 2


def test_a_recorder_that_is_open(tmp_path: Path) -> None:
    """It gets the configuration as a message, and stays open."""
    with Recorder(tmp_path / "run") as recorder:
        callback = FastlogCallback(recorder=recorder)
        trained = trainer(tmp_path, callback, max_steps=2)
        trained.train()
        assert callback.close()
        assert not recorder.closed
    assert points(tmp_path / "run", "loss") == history(trained, "loss")
    assert messages(tmp_path / "run")[0] == ("Configuration", None)


def test_other_ranks(tmp_path: Path) -> None:
    """Only the main process records, unless all are to."""
    for all_ranks in (False, True):
        run = tmp_path / str(all_ranks)
        with FastlogCallback(run, all_ranks=all_ranks, rank=1, world_size=2) as callback:
            trained = trainer(tmp_path, callback, max_steps=2)
            trained.state.is_world_process_zero = False
            trained.is_world_process_zero = lambda: False
            trained.train()
        assert run.exists() == all_ranks
    assert (tmp_path / "True" / "metrics.r1.jsonl").exists()


def test_device_scalars_stay_where_they_are(tmp_path: Path) -> None:
    """A tensor that somebody logs is recorded; what is no scalar is left out."""
    with FastlogCallback(tmp_path / "run") as callback:
        trained = trainer(tmp_path, callback, max_steps=1)
        trained.train()
        trained.log({"mean": torch.tensor(0.5), "nan": math.nan})
    assert points(tmp_path / "run", "mean") == [(1, 0.5)]
    assert math.isnan(points(tmp_path / "run", "nan")[0][1])


def test_an_evaluation_alone(tmp_path: Path) -> None:
    """It opens the run, too."""
    with FastlogCallback(tmp_path / "run") as callback:
        trained = trainer(tmp_path, callback)
        trained.evaluate()
    assert points(tmp_path / "run", "eval_loss") == history(trained, "eval_loss")


def test_after_its_close(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What comes too late is told once."""
    callback = FastlogCallback(tmp_path / "run")
    trained = trainer(tmp_path, callback, max_steps=2)
    trained.train()
    assert callback.close()
    assert callback.close()
    with caplog.at_level(logging.WARNING, "foundry_fastlog"):
        trained.evaluate()
        trained.evaluate()
    assert sum("not recorded" in record.getMessage() for record in caplog.records) == 1


def test_a_training_after_its_close(tmp_path: Path) -> None:
    """It is the run's next start."""
    callback = FastlogCallback(tmp_path / "run")
    for rate in (1e-2, 2e-2):
        trained = trainer(tmp_path, callback, max_steps=2, learning_rate=rate)
        trained.train()
        assert callback.close()
    assert points(tmp_path / "run", "loss") == history(trained, "loss")
    found = [start["config"]["args"]["learning_rate"] for start in starts(tmp_path / "run")]
    assert found == [1e-2, 2e-2]
