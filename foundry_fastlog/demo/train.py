"""The trainer. Read this file to see how a training loop records itself.

Four calls are all there is to it::

    rec.record(step, loss=2.3, lr=1e-3)      # the numbers of one step
    with rec.timer("forward"): ...           # how long a block took; blocks nest
    rec.event("checkpoint saved", step=500)  # something happened
    rec.event("cannot read", error=error)    # something went wrong

None of them waits for the disk: they copy a few bytes into memory, and a thread
of the recorder, which never takes Python's lock, writes the JSONL files.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from foundry_fastlog.config_file import ConfigError
from foundry_fastlog.demo.checkpoint import (
    FOLDER,
    checkpoint_path,
    list_checkpoints,
    load_newest,
    save_checkpoint,
)
from foundry_fastlog.demo.config import ExperimentConfig, TrainingConfig
from foundry_fastlog.demo.data import Batches, Corpus, validation_batches
from foundry_fastlog.demo.device import MemoryGauge
from foundry_fastlog.demo.model import GPT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from foundry_fastlog import Recorder


@dataclass(frozen=True)
class Progress:
    """What a person wants to see after a step.

    Attributes:
        step: Steps done so far.
        loss: Training loss of this step, in nats per character.
        tokens_per_sec: Characters trained on, per second of this step.
        val_loss: Validation loss, if this step was followed by a validation.
    """

    step: int
    loss: float
    tokens_per_sec: float
    val_loss: float | None = None


class Trainer:
    """Trains the demo's GPT and records everything that happens.

    Attributes:
        model: The GPT, on its device.
        step: Steps done so far: 0 before the first, ``training.steps`` at the end.
        recorder: Where the run is recorded.
        device: Where the model is.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        corpus: Corpus,
        recorder: Recorder,
        device: torch.device,
    ) -> None:
        """Make the model, the optimizer and the batches, all from ``config.seed``."""
        self.config = config
        self.corpus = corpus
        self.recorder = recorder
        self.device = device
        self.step = 0
        training, context = config.training, config.model.context

        torch.manual_seed(config.seed)
        self.model = GPT(len(corpus.characters), config.model).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.batches = Batches(
            corpus.train,
            batch_size=training.batch_size,
            context=context,
            seed=config.seed,
            device=device,
        )
        self.validation = validation_batches(
            corpus.validation,
            batches=training.validation_batches,
            batch_size=training.batch_size,
            context=context,
            device=device,
        )
        self.memory = MemoryGauge(device)
        self.tokens_per_step = training.batch_size * context

    def close(self) -> None:
        """Give back what the trainer holds open; the recorder is its owner's."""
        self.memory.close()

    def fit(self) -> Iterator[Progress]:
        """Train from the current step to the last one.

        Yields:
            The progress after each step.

        Raises:
            FloatingPointError: The loss is no longer a number.
        """
        training = self.config.training
        if self.step == 0:
            self.validate()  # step 0: the model before it has learned anything
        while self.step < training.steps:
            progress = self.train_step(self.step + 1)
            self.step = progress.step
            last = self.step == training.steps
            if not math.isfinite(progress.loss):
                raise FloatingPointError(
                    f"the loss is {progress.loss} at step {self.step}; "
                    "a smaller training.learning_rate may help",
                )
            val_loss = None
            if last or self.step % training.validate_every == 0:
                val_loss = self.validate()
            if last or self.step % training.checkpoint_every == 0:
                self.save(self.recorder.path / FOLDER)
            yield Progress(self.step, progress.loss, progress.tokens_per_sec, val_loss)

    def train_step(self, step: int) -> Progress:
        """Do one step of training, and record it."""
        rec = self.recorder
        lr = learning_rate(step, self.config.training)
        started = time.perf_counter()

        with rec.timer("step", step=step):  # the blocks inside inherit the step
            with rec.timer("data"):
                inputs, targets = self.batches.next()
            with rec.timer("forward"):
                loss = self.model.loss(inputs, targets)
            with rec.timer("backward"):
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            with rec.timer("optimizer"):
                grad_norm = torch.nn.utils.clip_grad_norm_(
                    self.model.parameters(),
                    self.config.training.grad_clip,
                )
                for group in self.optimizer.param_groups:
                    group["lr"] = lr
                self.optimizer.step()
            # Both numbers leave the device together: a step waits for a GPU once.
            loss_value, grad_norm_value = torch.stack((loss.detach(), grad_norm)).tolist()

        tokens_per_sec = self.tokens_per_step / (time.perf_counter() - started)
        rec.record(
            step,
            epoch=self.epoch(step),
            loss=loss_value,
            lr=lr,
            grad_norm=grad_norm_value,
            tokens_per_sec=tokens_per_sec,
            memory_mb=self.memory.read_mb(),
        )
        return Progress(step, loss_value, tokens_per_sec)

    def validate(self) -> float:
        """Measure the loss on text that is never trained on, and record it."""
        with self.recorder.timer("validation", step=self.step), torch.no_grad():
            self.model.eval()
            losses = [self.model.loss(inputs, targets) for inputs, targets in self.validation]
            self.model.train()
            val_loss = torch.stack(losses).mean().item()
        self.recorder.record(self.step, epoch=self.epoch(self.step), val_loss=val_loss)
        return val_loss

    def epoch(self, step: int) -> int:
        """Return how many times the training text's length has been sampled."""
        return step * self.tokens_per_step // len(self.corpus.train)

    # ---- checkpoints ---------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write a checkpoint of the current step, timed, and say so in the log."""
        path = checkpoint_path(folder, self.step)
        with self.recorder.timer("checkpoint", step=self.step):
            size = save_checkpoint(path, self.state(), keep=self.config.training.keep_checkpoints)
        self.recorder.event(
            "checkpoint saved",
            step=self.step,
            context={"path": str(path), "bytes": size},
        )

    def state(self) -> dict[str, Any]:
        """Collect all that is needed to go on exactly where training is now."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.generator.get_state(),
            "torch_random": torch.get_rng_state(),
            "model_config": self.config.model.model_dump(),
            "text_sha256": self.corpus.sha256,
        }

    def resume(self) -> Path | None:
        """Go on from the newest checkpoint of the run directory that can be read.

        Returns:
            The checkpoint, or None if there is none; then training starts anew.

        Raises:
            ConfigError: The checkpoint is of another model or another text.
        """
        found = load_newest(self.recorder.path / FOLDER, self.recorder)
        if found is None:
            return None
        path, state = found
        for section, now in (
            ("model_config", self.config.model.model_dump()),
            ("text_sha256", self.corpus.sha256),
        ):
            if state[section] != now:
                what = "shape of the model" if section == "model_config" else "text"
                raise ConfigError(
                    f"{path} was made with another {what}: {state[section]}, now {now}. "
                    "Go back to the experiment file of that run, or choose another --out.",
                )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.generator.set_state(state["batches"])
        torch.set_rng_state(state["torch_random"])
        self.step = state["step"]
        self.recorder.event("resumed", step=self.step, context={"checkpoint": str(path)})
        return path

    def restart_drill(self) -> bool:
        """Rehearse the restart after a crash in the middle of a checkpoint.

        In a scratch folder, the newest checkpoint gets a successor that is cut
        off in the middle, as a copy from a dying machine would be. Loading
        must meet the torn file, record the error, fall back to the whole one,
        and find the weights that are in memory now.

        Returns:
            True if training could go on without loss.
        """
        newest = list_checkpoints(self.recorder.path / FOLDER)[0]
        scratch = self.recorder.path / "restart_drill"
        with self.recorder.timer("restart_drill", step=self.step):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            shutil.copyfile(newest, scratch / newest.name)
            whole = newest.read_bytes()
            checkpoint_path(scratch, self.step + 1).write_bytes(whole[: len(whole) // 2])
            # Records the error that reading the torn file ends in.
            found = load_newest(scratch, self.recorder, step=self.step)
            shutil.rmtree(scratch)
        mine = self.model.state_dict()
        survived = found is not None and all(
            torch.equal(mine[name].cpu(), tensor) for name, tensor in found[1]["model"].items()
        )
        self.recorder.event(
            "restart drill passed" if survived else "restart drill failed",
            level="INFO" if survived else "ERROR",
            step=self.step,
            context={"checkpoint": newest.name, "recovered": survived},
        )
        return survived


def learning_rate(step: int, training: TrainingConfig) -> float:
    """Schedule the learning rate: a linear warm-up, then half a cosine down.

    Args:
        step: 1 for the first step.
        training: The ``training`` section.

    Returns:
        The learning rate of that step.
    """
    if step <= training.warmup_steps:
        return training.learning_rate * step / training.warmup_steps
    rest = max(1, training.steps - training.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - training.warmup_steps) / rest)))
    span = training.learning_rate - training.min_learning_rate
    return training.min_learning_rate + span * cosine
