"""The recorder's own figure for what logging costs, beside a clock around each call.

Steps alternate: one logs, the next calls an empty C function in the same places, in the same state
of the caches. What the clock has counted in these is taken off: it is the cost of the clock, and of
calling anything at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import floor
from benchmarks.measures.demo_run import STEP_BLOCKS, TimedLogging
from benchmarks.peers.base import VerificationError, json_lines

if TYPE_CHECKING:
    from foundry_fastlog import ExperimentLogging

WARM_UP = 50
BLOCK_MS = 0.2


def nothing() -> Any:
    """Return what a training step calls on its logging: empty C functions."""
    empty = floor.load().empty
    block = SimpleNamespace(__enter__=empty, __exit__=empty)
    perf = SimpleNamespace(time_block=lambda name, *, step=None: empty(name, step=step) or block)
    return SimpleNamespace(directory=None, performance=perf, log_step=empty)


def quick_steps(logs: ExperimentLogging) -> Callable[[Any, int], object]:
    """Return a training step of a millisecond that logs what the demo's does."""
    del logs
    matrix = np.ones((160, 160), np.float32)
    times = 1
    while _milliseconds(matrix, times) < BLOCK_MS:
        times += 1

    def compute() -> None:
        for _ in range(times):
            matrix @ matrix

    def train_step(lane: Any, step: int) -> None:
        outer, *inner = STEP_BLOCKS
        with lane.time_block(outer, step=step):
            for name in inner:
                with lane.time_block(name):
                    compute()
        compute()
        metrics = {"loss": 2.5, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_sec": 1e5}
        lane.log_step(step, 0, metrics)

    return train_step


def _milliseconds(matrix: Any, times: int) -> float:
    import timeit

    return min(timeit.repeat(lambda: matrix @ matrix, number=times, repeat=20)) * 1e3


def demo_steps(logs: ExperimentLogging) -> Callable[[Any, int], object]:
    """Return the demo's training step."""
    import torch

    from foundry_fastlog.demo.config import load_config
    from foundry_fastlog.demo.data import load_corpus
    from foundry_fastlog.demo.train import Trainer

    torch.set_num_threads(1)
    config = load_config()
    corpus = load_corpus(config.data, config.model.context)
    trainer = Trainer(config, corpus, logs, torch.device("cpu"))

    def train_step(lane: Any, step: int) -> None:
        trainer.logs = lane
        trainer.train_step(step)

    return train_step


KINDS = {"demo": demo_steps, "1 ms": quick_steps}


def run(kind: str, steps: int) -> dict[str, Any]:
    """Measure one kind of training loop.

    Args:
        kind: One of KINDS.
        steps: Steps that log, and as many that do not.

    Returns:
        `own_us` and `outside_us` per step, and their `ratio`.

    Raises:
        VerificationError: The recorder did not write all steps.
    """
    from foundry_fastlog.demo.ab import open_quietly
    from foundry_fastlog.demo.config import load_config

    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        logs = open_quietly(load_config(), Path(scratch) / "run")
        train_step = KINDS[kind](logs)
        lanes = [TimedLogging(logs), TimedLogging(nothing())]
        before = 0.0
        for step in range(1, WARM_UP + steps + 1):
            if step == WARM_UP + 1:
                before = logs.recorder.stats()["logging_s"]
                for lane in lanes:
                    lane.spent_ns = 0
            for lane in lanes:
                train_step(lane, step)
            lanes.reverse()
        own_us = (logs.recorder.stats()["logging_s"] - before) * 1e6 / steps
        logs.close()
        count = sum(
            "loss" in line["metrics"] for line in json_lines(logs.directory / "metrics.jsonl")
        )
        if count != WARM_UP + steps:
            raise VerificationError(f"{count} of {WARM_UP + steps} steps are in the file")
    spent = {type(lane.logs) is SimpleNamespace: lane.spent_ns for lane in lanes}
    outside_us = (spent[False] - spent[True]) / 1e3 / steps
    return {"own_us": own_us, "outside_us": outside_us, "ratio": own_us / outside_us}
