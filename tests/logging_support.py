"""What the tests of the logging components share: configuration, doubles, threads, children."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

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


def raised(error: BaseException) -> BaseException:
    """Give an exception a traceback."""
    try:
        raise error  # noqa: TRY301 - what is raised is what is tested
    except BaseException as caught:  # noqa: BLE001 - any
        return caught


def structured_double(logger: logging.Logger) -> tuple[Any, list[Any]]:
    """Return what stands for a StructuredLogger over a logger, and the list of calls it gets."""
    calls: list[Any] = []
    log = SimpleNamespace(logger=logger, log_structured=lambda *a, **k: calls.append((a, k)))
    return log, calls


def run_processes(
    work: Callable[..., object], *arguments: Any, method: str = "fork"
) -> list[int | None]:
    """Run a function in child processes at once, one for each tuple of arguments; their pids."""
    context = multiprocessing.get_context(method)
    children = [context.Process(target=work, args=given) for given in arguments]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    return [child.pid for child in children]
