"""What the demo's tests share: a tiny experiment, and a strict reader of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from recorded import parse, raw_lines

from foundry_fastlog.demo.app import open_logging
from foundry_fastlog.demo.config import load_config
from foundry_fastlog.demo.data import load_corpus
from foundry_fastlog.demo.train import Trainer

TINY = """
experiment_name: tiny
# Its steps are short: on a busy machine logging takes more than 1 % of them.
logging: {recorder: {overhead_budget: 1}}
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


def read(run: Path, name: str) -> list[dict[str, Any]]:
    """Read a JSONL file strictly."""
    return [parse(line) for line in raw_lines(run / name)]


def training_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the lines of training steps; the rest are validations and epoch summaries."""
    return [line for line in lines if "loss" in line.get("metrics", {})]


def validation_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the lines of validations."""
    return [line for line in lines if "val_loss" in line.get("metrics", {})]


def said(run: Path, message: str, name: str = "log.jsonl") -> list[dict[str, Any]]:
    """List the contexts of a message in the log."""
    return [line["context"] for line in read(run, name) if line["message"] == message]


def train_some(experiment: Path, run: Path, *, steps: int | None = None) -> list[float]:
    """Train, from the newest checkpoint if there is one, and stop after ``steps`` steps."""
    config = load_config(experiment)
    corpus = load_corpus(config.data, config.model.context)
    losses = []
    with open_logging(run, config) as logs:
        trainer = Trainer(config, corpus, logs, torch.device("cpu"))
        trainer.resume()
        for progress in trainer.fit():
            losses.append(progress.loss)
            if len(losses) == steps:
                break
        trainer.close()
    return losses
