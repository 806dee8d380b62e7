"""Does recording slow training down? Runs the same steps alternately with and without it.

Blocks of training steps alternate between logging and no logging, in one
process and on the same batches, so that changes in the machine's speed affect
both. The result is a ratio of medians with a confidence interval, whose width
shows how reliable the result is on a busy machine.
"""

from __future__ import annotations

import contextlib
import math
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from foundry_fastlog import ExperimentLogging
from foundry_fastlog.demo.config import ExperimentConfig, load_config
from foundry_fastlog.demo.data import load_corpus
from foundry_fastlog.demo.device import pick_device
from foundry_fastlog.demo.train import Trainer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

CONFIDENCE = 0.95
RESAMPLES = 2000
WARM_UP_STEPS = 5


class NoLogging:
    """The part of the logging API that a training step calls; does nothing."""

    _nothing = contextlib.nullcontext()

    @property
    def performance(self) -> NoLogging:
        """The timer, which measures nothing."""
        return self

    def time_block(self, name: str, *, step: int | None = None) -> AbstractContextManager[None]:
        """Return a block that is not timed."""
        del name, step
        return self._nothing

    def log_step(self, step: int, epoch: int, metrics: dict[str, float]) -> bool:
        """Record nothing."""
        del step, epoch, metrics
        return True


def interleaved_ab(
    steps_per_block: int,
    blocks: int,
    config: ExperimentConfig | None = None,
) -> dict[str, Any]:
    """Time training steps with recording on and off, in alternating blocks.

    Each pair of blocks trains on the same batches, once with logging and once
    without; which comes first alternates. A block's time includes its flush:
    with recording on, it ends when everything it recorded is in the files.

    Args:
        steps_per_block: Training steps in one block, at least 1.
        blocks: Pairs of blocks, at least 2.
        config: The experiment; None uses the demo's own.

    Returns:
        A dictionary with these keys (times in seconds):

        - ``ratio``: median step time with recording over the median without.
        - ``low``, ``high``: its 95 % confidence interval, by bootstrap over
          the pairs.
        - ``confidence``: 0.95.
        - ``on_s``, ``off_s``: the medians themselves.
        - ``block_ratio``, ``block_low``, ``block_high``: the same for whole
          blocks, which include the flush at the end.
        - ``steps``: steps timed with recording (the same number as without).
        - ``steps_per_block``, ``blocks``: as given.
        - ``on_steps_s``, ``off_steps_s``: the time of each step, one list per
          block.
        - ``record_ns``: mean time of a ``record()`` call, measured by the
          recorder.
        - ``logging_fraction``: time in the recorder's calls, measured by the
          recorder, over the time of the recorded steps.
        - ``stats``: the recorder's ``stats()`` at the end.

    Raises:
        ValueError: A number is too small.
    """
    if steps_per_block < 1 or blocks < 2:
        raise ValueError(
            f"steps_per_block must be at least 1 and blocks at least 2, not "
            f"{steps_per_block} and {blocks}",
        )
    config = load_config() if config is None else config
    corpus = load_corpus(config.data, config.model.context)
    device = pick_device(config.training.device)
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    with (
        tempfile.TemporaryDirectory(prefix="fastlog-ab-") as folder,
        open_quietly(config, Path(folder) / "run") as logs,
    ):
        trainer = Trainer(config, corpus, logs, device)
        try:
            timed = _alternate(trainer, logs, steps_per_block, blocks)
        finally:
            trainer.close()
        logs.close()
        stats = logs.recorder.stats()

    on_steps, off_steps, on_blocks, off_blocks = timed
    ratio, low, high = _ratio_of_medians(on_steps, off_steps, config.seed)
    block_ratio, block_low, block_high = _ratio_of_medians(
        [[block] for block in on_blocks],
        [[block] for block in off_blocks],
        config.seed,
    )
    return {
        "ratio": ratio,
        "low": low,
        "high": high,
        "confidence": CONFIDENCE,
        "on_s": _median(on_steps),
        "off_s": _median(off_steps),
        "block_ratio": block_ratio,
        "block_low": block_low,
        "block_high": block_high,
        "steps": steps_per_block * blocks,
        "steps_per_block": steps_per_block,
        "blocks": blocks,
        "on_steps_s": on_steps,
        "off_steps_s": off_steps,
        "record_ns": stats["record_ns"],
        "logging_fraction": stats["logging_s"] / math.fsum(map(math.fsum, on_steps)),
        "stats": stats,
    }


def open_quietly(config: ExperimentConfig, run: Path) -> ExperimentLogging:
    """Open the logging without anything that would disturb the blocks without logging."""
    section = config.logging.model_copy(
        update={"console": False, "system_metrics_every_s": 0, "use_wandb": False}
    )
    config = config.model_copy(update={"logging": section})
    return ExperimentLogging(config, directory=run, stamped=False)


def _alternate(
    trainer: Trainer,
    logs: ExperimentLogging,
    steps_per_block: int,
    blocks: int,
) -> tuple[list[list[float]], list[list[float]], list[float], list[float]]:
    """Run the pairs of blocks; return the times of steps and blocks, on and off."""
    # train_step() calls nothing else on it.
    nothing = cast("ExperimentLogging", NoLogging())
    steps: dict[bool, list[list[float]]] = {True: [], False: []}
    totals: dict[bool, list[float]] = {True: [], False: []}
    trainer.logs = nothing
    for step in range(1, WARM_UP_STEPS + 1):
        trainer.train_step(step)
    for pair in range(blocks):
        batches = trainer.batches.generator.get_state()
        for recording in (True, False) if pair % 2 else (False, True):
            trainer.batches.generator.set_state(batches)
            trainer.logs = logs if recording else nothing
            times = []
            begin = time.perf_counter()
            for offset in range(steps_per_block):
                started = time.perf_counter()
                trainer.train_step(pair * steps_per_block + offset + 1)
                times.append(time.perf_counter() - started)
            if recording:
                logs.recorder.flush()
            totals[recording].append(time.perf_counter() - begin)
            steps[recording].append(times)
    return steps[True], steps[False], totals[True], totals[False]


def _median(blocks: list[list[float]]) -> float:
    return statistics.median([value for block in blocks for value in block])


def _ratio_of_medians(
    on: list[list[float]],
    off: list[list[float]],
    seed: int,
) -> tuple[float, float, float]:
    """Compare two lists of blocks, paired by position.

    Returns:
        The ratio of the medians of all values, and its bootstrap interval.
        Whole pairs are drawn with replacement, so that a slow period of the
        machine stays together.
    """
    draw = random.Random(seed)  # noqa: S311  # statistics, not secrets
    pairs = range(len(on))
    ratios = []
    for _ in range(RESAMPLES):
        chosen = draw.choices(pairs, k=len(on))
        ratios.append(_median([on[i] for i in chosen]) / _median([off[i] for i in chosen]))
    ratios.sort()
    tail = (1.0 - CONFIDENCE) / 2.0
    low = ratios[round(tail * (RESAMPLES - 1))]
    high = ratios[round((1.0 - tail) * (RESAMPLES - 1))]
    return _median(on) / _median(off), low, high
