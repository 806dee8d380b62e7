"""What the tests of the logging components share: a training framework's configuration, small."""

from __future__ import annotations

from pydantic import BaseModel

from foundry_fastlog import LoggingConfig


class TrainingConfig(BaseModel):
    """The section that a training loop reads."""

    epochs: int = 1
    train_steps: int = 12
    learning_rate: float = 1e-3


class ExperimentConfig(BaseModel):
    """An experiment as a framework describes it, with this package's section in it."""

    experiment_name: str = "test"
    training: TrainingConfig = TrainingConfig()
    logging: LoggingConfig = LoggingConfig()

    def dict(self) -> dict[str, object]:  # type: ignore[override]
        """Return plain data, as the plan's listings ask for it under pydantic's older name."""
        return self.model_dump()
