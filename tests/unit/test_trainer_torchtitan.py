"""torchtitan's metrics and its structured logger, recorded in one run."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from adapters import THEIR_WARNINGS, complete, ends, library, messages, points, starts
from recorded import run_python

from foundry_fastlog import Recorder, read_run

torch = library("torch")
metrics = library("torchtitan.components.metrics")
module = library("foundry_fastlog.integrations.torchtitan")

pytestmark = THEIR_WARNINGS

TRAINING = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import torch
from torchtitan.components.metrics import LoggerContainer
from torchtitan.observability.structured_logger import structured_logging as titan
from torchtitan.observability.structured_logger.step_state import set_step
from foundry_fastlog.integrations.torchtitan import FastlogLogger

output = Path(sys.argv[1])
titan.init_structured_logger(source="trainer", output_dir=str(output), rank=0)
container = LoggerContainer()
container.add_logger(FastlogLogger(output / "fastlog", config={"lr": 0.1}, tag="train"))
torch.manual_seed(0)
layer = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(layer.parameters(), 0.1)
titan.log_trace_instant("training_start")
for step in range(1, 11):
    set_step(step)
    with titan.log_trace_span("fwd_bwd"):
        loss = layer(torch.ones(2)).square().mean()
        loss.backward()
    with titan.log_trace_span("optim"):
        optimizer.step()
    titan.log_trace_scalar({"tokens": 100 * step})
    container.log({"loss": loss.detach()}, step)
    print(loss.item())
try:
    with titan.log_trace_span("checkpoint"):
        raise OSError("disk full")
except OSError:
    pass
container.close()
"""


def test_a_training(tmp_path: Path) -> None:
    """Metrics, spans, scalars and events, by the interfaces that torchtitan's trainer uses."""
    factory = "foundry_fastlog.integrations.torchtitan.add_trace_handler"
    done = run_python(
        TRAINING, tmp_path, environment={"TITAN_STRUCT_LOGGER_HANDLERS": factory, "RANK": "0"}
    )
    run = tmp_path / "fastlog"
    losses = [float(text) for text in done.stdout.split()]
    assert points(run, "train/loss") == list(enumerate(losses, 1))
    assert points(run, "tokens") == [(step, 100 * step) for step in range(1, 11)]
    timings = [(line["name"], line.get("step")) for line in read_run(run).lines("performance")]
    assert timings == [
        *((name, step) for step in range(1, 11) for name in ("fwd_bwd", "optim")),
        ("checkpoint", 10),
    ]
    said = [(text, step) for text, step in messages(run) if text != "Configuration"]
    assert said[0] == ("training_start", None)
    assert "checkpoint_error: OSError: disk full" in said[1][0]
    assert len(said) == 2
    assert not list(tmp_path.glob("structured_logs/*"))
    assert ends(run) == [("closed", None)]
    assert complete(run)


def test_the_logger(tmp_path: Path) -> None:
    """A resume is the next start; a failed training says so."""
    run = tmp_path / "run"
    container = metrics.LoggerContainer()
    container.add_logger(module.FastlogLogger(run, config={"lr": 0.1}))
    for step in range(1, 11):
        container.log({"loss": torch.tensor(1.0 / step), "note": [1]}, step)
    container.close()

    def fail() -> None:
        with module.FastlogLogger(run) as logger:
            logger.log({"loss": 5.0}, 6)
            raise ValueError("bad batch")

    with pytest.raises(ValueError, match="bad batch"):
        fail()
    assert [step for step, _ in points(run, "loss")] == [1, 2, 3, 4, 5, 6]
    assert starts(run)[0]["config"] == {"lr": 0.1}
    assert ends(run) == [("closed", None), ("exception", "ValueError")]


def test_an_unwritable_directory(caplog: pytest.LogCaptureFixture) -> None:
    """Training goes on, with one warning."""
    with caplog.at_level(logging.WARNING, "foundry_fastlog"):
        logger = module.FastlogLogger("/proc/no/run", close_timeout_s=0.1)
        logger.log({"loss": 1.0}, 1)
    assert len([one for one in caplog.records if one.name == "foundry_fastlog"]) == 1
    assert not logger.close()


def test_the_handler_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no event is a message, and nothing that fails reaches the program."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger = logging.getLogger("test_trainer_torchtitan")
    logger.propagate = False
    module.add_trace_handler(
        structured_logger=logger, rank=1, source="generator", output_dir=str(tmp_path), world=2
    )
    (handler,) = logger.handlers
    event: dict[str, Any] = {"log_type": "event", "step": None}
    early = {"log_type_name": "metric_value", "event_name": "n", "value": 1, "step": None}
    logger.warning("plain")
    logger.warning("begins", extra={**event, "log_type_name": "x_start", "value": None})
    logger.warning("early", extra=early)
    logger.warning("task", extra={**event, "log_type_name": "x_error", "task_name": "Task-1"})
    logger.warning("odd", extra={**event, "log_type_name": "x_end", "value": "text"})
    logger.removeHandler(handler)
    handler.close()
    lines = list(read_run(tmp_path / "fastlog").lines("log"))
    assert [(line["message"], line["context"]) for line in lines] == [
        ("plain", {}),
        ("early", {}),
        ("task", {"task": "Task-1"}),
    ]
    assert {line["logger"] for line in lines} == {"generator"}
    assert (tmp_path / "fastlog" / "log.r1.jsonl").exists()


def test_a_recorder_that_is_open(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        logger = module.FastlogLogger(recorder=recorder)
        logger.log({"loss": 1.0}, 1)
        assert logger.close()
    assert points(tmp_path / "run", "loss") == [(1, 1.0)]
    assert "RANK" not in os.environ
