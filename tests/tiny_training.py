"""A trainer as a framework has it, small: what the integration tests of the logging train with."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from logging_support import ExperimentConfig
from torch.utils.data import DataLoader, Dataset

from foundry_fastlog import ExperimentLogging, LoggingConfig, StructuredLogger

Hook = Callable[[int, float], float]


def tiny_experiment(name: str = "test", *, steps: int = 12, **options: object) -> ExperimentConfig:
    """Return a configuration; options are those of LoggingConfig, without console and sampler."""
    section = {"console": False, "system_metrics_every_s": 0, **options}
    config = ExperimentConfig(experiment_name=name, logging=LoggingConfig.model_validate(section))
    config.training.train_steps = steps
    return config


class Lines(Dataset):
    """Points on a line; each that is loaded is told to the log, if there is one."""

    def __init__(self, logger: StructuredLogger | None = None) -> None:
        """Make 24 points."""
        self.logger = logger

    def __len__(self) -> int:
        """Return the number of points."""
        return 24

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a point."""
        if self.logger is not None:
            self.logger.info("Example loaded", index=index)
        x = torch.full((4,), index / 24.0)
        return x, x.sum(0, keepdim=True)


class Trainer:
    """Fits a line with everything that the logging has.

    Attributes:
        logs: The run's logging.
        logger: The trainer's own logger.
        global_step: Steps done.
    """

    def __init__(
        self, config: ExperimentConfig, base_dir: str | Path, *, stamped: bool = False
    ) -> None:
        """Set up logging and model; the run's directory is <base_dir>/<experiment>/output."""
        self.config = config
        self.output = Path(base_dir) / config.experiment_name / "output"
        self.logs = ExperimentLogging(config, directory=self.output, stamped=stamped)
        self.logger = self.logs.logger("trainer")
        self.global_step = 0
        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 1)
        self.lr = config.training.learning_rate * 50
        self.logger.info(
            "Experiment initialized", model_params=sum(p.numel() for p in self.model.parameters())
        )

    def train(
        self, hook: Hook | None = None, *, workers: int = 0, start_method: str | None = None
    ) -> None:
        """Train to the last step, and close the logging.

        Args:
            hook: Gets each step and its loss before they are logged, and returns the loss.
            workers: Processes that load data, and log what they load.
            start_method: How they are started.
        """
        logs, training = self.logs, self.config.training
        with logs:
            log = logs.logger("training.loop")
            log.info("Starting training loop", total_steps=training.train_steps)
            data = Lines(logs.logger("data.loading") if workers else None)
            batches = DataLoader(
                data, batch_size=4, num_workers=workers, multiprocessing_context=start_method
            )
            epoch = 0
            while self.global_step < training.train_steps:
                losses = self._epoch(epoch, batches, hook)
                logs.log_epoch_summary(epoch, {"avg_loss": sum(losses) / len(losses)})
                self.save_checkpoint()
                epoch += 1
            log.info("Training finished", step=self.global_step)

    def _epoch(self, epoch: int, batches: DataLoader, hook: Hook | None) -> list[float]:
        perf, losses = self.logs.performance, []
        for x, y in batches:
            step = self.global_step + 1
            with perf.time_block("step", step=step):
                with perf.time_block("forward_pass"):
                    loss = torch.nn.functional.mse_loss(self.model(x), y)
                with perf.time_block("backward_pass"):
                    self.model.zero_grad()
                    loss.backward()
                with perf.time_block("optimizer_step"):
                    self.descend()
            value = loss.item()
            if hook is not None:
                value = hook(step, value)
            self.logs.log_step(step, epoch, {"loss": value, "lr": 0.05})
            self.global_step = step
            losses.append(value)
            if step == self.config.training.train_steps:
                break
        return losses

    def descend(self) -> None:
        """Do what torch.optim.SGD does, of which the first import takes seconds."""
        with torch.no_grad():
            for parameter in self.model.parameters():
                assert parameter.grad is not None
                parameter -= self.lr * parameter.grad

    def save_checkpoint(self) -> Path:
        """Write a checkpoint, with the messages of the plan."""
        log, step = self.logs.logger("training.checkpointing"), self.global_step
        path = self.output / "checkpoints" / f"checkpoint-{step}.pt"
        log.info("Saving checkpoint", step=step, path=str(path))
        started = time.perf_counter()
        path.parent.mkdir(exist_ok=True)
        with self.logs.performance.time_block("save_model", step=step):
            torch.save({"model": self.model.state_dict(), "step": step}, path)
        log.info(
            "Checkpoint saved successfully",
            step=step,
            checkpoint_size_gb=path.stat().st_size / 1e9,
            save_time_seconds=time.perf_counter() - started,
        )
        return path
