"""The trainer. Read this file to see how a training loop records itself.

Five calls are all there is to it::

    logs.log_step(step, epoch, {"loss": 2.3, "lr": 1e-3})  # the numbers of one step
    logs.log_epoch_summary(epoch, {"loss": 2.1})           # and of an epoch
    with logs.performance.time_block("forward"): ...       # how long a block took; blocks nest
    log.info("Checkpoint saved", step=500)                 # something happened
    logs.errors.log_error(error, {"path": path})           # something went wrong

The first four never wait for the disk: they copy a few bytes into memory, and a thread
of the recorder, which never takes Python's lock, writes the JSONL files. The last one returns
when the error is on record.
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
        """Make the model, the optimizer and the batches, all from ``config.seed``."""
        self.config = config
        self.corpus = corpus
        self.logs = logs
        self.log = logs.logger("training.checkpointing")
        self.device = device
        self.step = 0
        self.epoch_losses: list[float] = []  # since the epoch began, or the run was resumed
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
        """Give back what the trainer holds open; the logging is its owner's."""
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
        """Do one step of training, and record it."""
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
            # Both numbers leave the device together: a step waits for a GPU once.
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
        """Measure the loss on text that is never trained on, and record it."""
        perf = self.logs.performance
        with perf.time_block("validation", step=self.step), torch.no_grad():
            self.model.eval()
            losses = [self.model.loss(inputs, targets) for inputs, targets in self.validation]
            self.model.train()
            val_loss = torch.stack(losses).mean().item()
        self.logs.log_step(self.step, self.epoch(self.step), {"val_loss": val_loss})
        return val_loss

    def end_epoch(self) -> None:
        """Record what the epoch's steps came to."""
        losses, self.epoch_losses = self.epoch_losses, []
        self.logs.log_epoch_summary(
            self.epoch(self.step), {"loss": math.fsum(losses) / len(losses), "steps": len(losses)}
        )

    def epoch(self, step: int) -> int:
        """Return how many times the training text's length has been sampled."""
        return step * self.tokens_per_step // len(self.corpus.train)

    # ---- checkpoints ---------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write a checkpoint of the current step, timed, and say so in the log."""
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
        found = load_newest(self.logs.directory / FOLDER, self.logs.errors)
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
        self.log.info("Resumed", step=self.step, checkpoint=str(path))
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
        newest = list_checkpoints(self.logs.directory / FOLDER)[0]
        scratch = self.logs.directory / "restart_drill"
        with self.logs.performance.time_block("restart_drill", step=self.step):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            shutil.copyfile(newest, scratch / newest.name)
            whole = newest.read_bytes()
            checkpoint_path(scratch, self.step + 1).write_bytes(whole[: len(whole) // 2])
            # Records the error that reading the torn file ends in.
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
