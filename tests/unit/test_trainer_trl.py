"""FastlogCallback records what TRL's trainers log: they are Trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from adapters import THEIR_WARNINGS, complete, ends, library, points

from foundry_fastlog import read_run

torch = library("torch")
transformers = library("transformers")
datasets = library("datasets")
trl = library("trl")
tokenizers = library("tokenizers")
FastlogCallback = library("foundry_fastlog.integrations.transformers").FastlogCallback

pytestmark = [THEIR_WARNINGS, pytest.mark.slow]
torch.set_num_threads(1)  # tiny models
STEPS = 2


def rows(**row: str) -> Any:
    """Sixteen equal rows, with a fingerprint: making one would pickle modules."""
    table = datasets.table.InMemoryTable.from_pylist([row] * 16)
    return datasets.Dataset(table, fingerprint="".join(row))


def parts() -> dict[str, Any]:
    """A tiny model and its tokenizer."""
    words = {word: number for number, word in enumerate(("<pad>", "<eos>", "<unk>", "a", "b"))}
    known = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    known.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=known, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=5, n_positions=32, n_embd=8, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=1
    )
    return {"model": transformers.GPT2LMHeadModel(config), "processing_class": tokenizer}


def options(tmp_path: Path) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path / "out"),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "logging_steps": 1,
        "max_steps": STEPS,
        "save_strategy": "no",
        "per_device_train_batch_size": 2,
    }


def same(run: Path, trainer: Any) -> None:
    """All that the trainer logs at its steps is recorded, and nothing is missing."""
    logged = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["step"] for line in logged] == [1, 2]
    for name in set(logged[0]) - {"epoch", "step"}:
        assert points(run, name) == [(line["step"], line[name]) for line in logged], name
    timed = [line["name"] for line in read_run(run).lines("performance")]
    assert timed.count("step") == STEPS
    assert ends(run) == [("closed", None)]
    assert complete(run)


def test_fine_tuning(tmp_path: Path) -> None:
    with FastlogCallback(tmp_path / "run", step_timing=True) as callback:
        trainer = trl.SFTTrainer(
            args=trl.SFTConfig(max_length=16, **options(tmp_path)),
            train_dataset=rows(text="a b a b"),
            callbacks=[callback],
            **parts(),
        )
        trainer.train()
    same(tmp_path / "run", trainer)
    assert len(points(tmp_path / "run", "mean_token_accuracy")) == STEPS


def test_reinforcement_learning(tmp_path: Path) -> None:
    with FastlogCallback(tmp_path / "run", step_timing=True) as callback:
        trainer = trl.GRPOTrainer(
            reward_funcs=lambda completions, **_: [float(len(text)) for text in completions],
            args=trl.GRPOConfig(max_completion_length=4, num_generations=2, **options(tmp_path)),
            train_dataset=rows(prompt="a b"),
            callbacks=[callback],
            **parts(),
        )
        trainer.train()
    same(tmp_path / "run", trainer)
    assert len(points(tmp_path / "run", "reward")) == STEPS
