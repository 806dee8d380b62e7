"""The trainer. Read this file to see how to log from a training loop.

Five calls are all you need::

    logs.log_step(step, epoch, {"loss": 2.3, "lr": 1e-3})  # metrics of a step
    logs.log_epoch_summary(epoch, {"loss": 2.1})           # metrics of an epoch
    with logs.performance.time_block("forward"): ...       # duration of a block; blocks nest
    log.info("Checkpoint saved", step=500)                 # a message
    logs.errors.log_error(error, {"path": path})           # an error

The first four never wait for the disk: they copy a few bytes into memory, and the recorder's
thread, which never takes the GIL, writes the JSONL files. The last one returns when the error
is in the file.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from foundry_fastlog.config.yaml_file import ConfigError
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

    from foundry_fastlog import ExperimentLogging


@dataclass(frozen=True)
class Progress:
    """The progress to show after a step.

    Attributes:
        step: Steps done so far.
        loss: Training loss of this step, in nats per character.
        tokens_per_sec: Characters trained on per second, in this step.
        val_loss: Validation loss, if a validation followed this step.
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
        logs: Where the run is recorded.
        device: Where the model is.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        corpus: Corpus,
        logs: ExperimentLogging,
        device: torch.device,
    ) -> None:
        """Create the model, the optimizer and the batches, all from ``config.seed``."""
        self.config = config
        self.corpus = corpus
        self.logs = logs
        self.log = logs.logger("training.checkpointing")
        self.device = device
        self.step = 0
        self.epoch_losses: list[float] = []  # since the start of the epoch, or since a resume
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
        """Close what the trainer opened; the owner of the logging closes the logging."""
        self.memory.close()

    def fit(self) -> Iterator[Progress]:
        """Train from the current step to the last one.

        Yields:
            The progress after each step.

        Raises:
            FloatingPointError: The loss is no longer finite.
        """
        training = self.config.training
        if self.step == 0:
            self.validate()  # step 0: the untrained model
        while self.step < training.steps:
            progress = self.train_step(self.step + 1)
            self.step = progress.step
            last = self.step == training.steps
            if not math.isfinite(progress.loss):
                raise FloatingPointError(
                    f"the loss is {progress.loss} at step {self.step}; "
                    "a smaller training.learning_rate may help",
                )
            self.epoch_losses.append(progress.loss)
            if last or self.epoch(self.step + 1) != self.epoch(self.step):
                self.end_epoch()
            val_loss = None
            if last or self.step % training.validate_every == 0:
                val_loss = self.validate()
            if last or self.step % training.checkpoint_every == 0:
                self.save(self.logs.directory / FOLDER)
            yield Progress(self.step, progress.loss, progress.tokens_per_sec, val_loss)

    def train_step(self, step: int) -> Progress:
        """Train for one step, and record it."""
        perf = self.logs.performance
        lr = learning_rate(step, self.config.training)
        started = time.perf_counter()

        with perf.time_block("step", step=step):  # the blocks inside inherit the step
            with perf.time_block("data"):
                inputs, targets = self.batches.next()
            with perf.time_block("forward"):
                loss = self.model.loss(inputs, targets)
            with perf.time_block("backward"):
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            with perf.time_block("optimizer"):
                grad_norm = torch.nn.utils.clip_grad_norm_(
                    self.model.parameters(),
                    self.config.training.grad_clip,
                )
                for group in self.optimizer.param_groups:
                    group["lr"] = lr
                self.optimizer.step()
            # Copy both numbers from the device together, so that a step waits for a GPU only once.
            loss_value, grad_norm_value = torch.stack((loss.detach(), grad_norm)).tolist()

        tokens_per_sec = self.tokens_per_step / (time.perf_counter() - started)
        self.logs.log_step(
            step,
            epoch=self.epoch(step),
            metrics={
                "loss": loss_value,
                "lr": lr,
                "grad_norm": grad_norm_value,
                "tokens_per_sec": tokens_per_sec,
                "memory_mb": self.memory.read_mb(),
            },
        )
        return Progress(step, loss_value, tokens_per_sec)

    def validate(self) -> float:
        """Measure the loss on the validation text, and record it."""
        perf = self.logs.performance
        with perf.time_block("validation", step=self.step), torch.no_grad():
            self.model.eval()
            losses = [self.model.loss(inputs, targets) for inputs, targets in self.validation]
            self.model.train()
            val_loss = torch.stack(losses).mean().item()
        self.logs.log_step(self.step, self.epoch(self.step), {"val_loss": val_loss})
        return val_loss

    def end_epoch(self) -> None:
        """Record the summary of the epoch's steps."""
        losses, self.epoch_losses = self.epoch_losses, []
        self.logs.log_epoch_summary(
            self.epoch(self.step), {"loss": math.fsum(losses) / len(losses), "steps": len(losses)}
        )

    def epoch(self, step: int) -> int:
        """Return how many times the training text's length has been sampled."""
        return step * self.tokens_per_step // len(self.corpus.train)

    # ---- checkpoints ---------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write a checkpoint of the current step, and log and time it."""
        path = checkpoint_path(folder, self.step)
        self.log.info("Saving checkpoint", step=self.step, path=str(path))
        with self.logs.performance.time_block("checkpoint", step=self.step) as block:
            size = save_checkpoint(path, self.state(), keep=self.config.training.keep_checkpoints)
        self.log.info(
            "Checkpoint saved",
            step=self.step,
            path=str(path),
            bytes=size,
            save_time_seconds=block.elapsed,
        )

    def state(self) -> dict[str, Any]:
        """Collect everything needed to resume training exactly here."""
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
        """Resume from the run directory's newest readable checkpoint.

        Returns:
            The checkpoint, or None if there is none and training starts from the beginning.

        Raises:
            ConfigError: The checkpoint is for another model or another text.
        """
        found = load_newest(self.logs.directory / FOLDER, self.logs.errors)
        if found is None:
            return None
        path, state = found
        for section, now in (
            ("model_config", self.config.model.model_dump()),
            ("text_sha256", self.corpus.sha256),
        ):
            if state[section] != now:
                what = "model shape" if section == "model_config" else "text"
                raise ConfigError(
                    f"{path} was made with another {what}: {state[section]}, now {now}. "
                    "Use that run's experiment file, or choose another --out.",
                )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.generator.set_state(state["batches"])
        torch.set_rng_state(state["torch_random"])
        self.step = state["step"]
        self.log.info("Resumed", step=self.step, checkpoint=str(path))
        return path

    def restart_drill(self) -> bool:
        """Rehearse a restart after a crash in the middle of writing a checkpoint.

        In a scratch folder, the newest checkpoint gets a successor that is
        truncated in the middle, like a copy from a dying machine. Loading must
        find the torn file, record the error, fall back to the intact one, and
        return the weights that are in memory now.

        Returns:
            True if training could continue without loss.
        """
        newest = list_checkpoints(self.logs.directory / FOLDER)[0]
        scratch = self.logs.directory / "restart_drill"
        with self.logs.performance.time_block("restart_drill", step=self.step):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            shutil.copyfile(newest, scratch / newest.name)
            whole = newest.read_bytes()
            checkpoint_path(scratch, self.step + 1).write_bytes(whole[: len(whole) // 2])
            # Records the error raised by reading the torn file.
            found = load_newest(scratch, self.logs.errors, step=self.step)
            shutil.rmtree(scratch)
        mine = self.model.state_dict()
        survived = found is not None and all(
            torch.equal(mine[name].cpu(), tensor) for name, tensor in found[1]["model"].items()
        )
        if survived:
            self.log.info("Restart drill passed", step=self.step, checkpoint=newest.name)
        else:
            self.log.error("Restart drill failed", step=self.step, checkpoint=newest.name)
        return survived


def learning_rate(step: int, training: TrainingConfig) -> float:
    """Schedule the learning rate: linear warm-up, then cosine decay.

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
