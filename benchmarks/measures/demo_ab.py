"""The demo's training steps, alternately with and without recording.

The machine's noise from one step to the next (2 to 5 % of a step on a shared two-core machine) is
far above the cost of recording, so the figure is a median over several hundred pairs: a step with
recording over the step without that trained on the same batch a fraction of a second apart. Its
interval is a bootstrap over blocks, so that a slow period of the machine counts once and not once
per step.

torch gets one thread and half the demo's batch. With a thread per core, any other process on the
machine stretches torch's barriers from microseconds to time slices, and 40 ms steps take 40 to
220 ms; with one thread they stay within a few percent. Half the batch makes a step on one thread as
long as the demo's own on two cores, so that recording's share of it does not shrink.
"""

from __future__ import annotations

import random
from typing import Any

from benchmarks.peers.base import VerificationError
from benchmarks.peers.fastlog import check_accounting
from benchmarks.summary import median, quantile

RESAMPLES = 2000
CALLS_PER_STEP = 6
"""One record and five timers, plus messages."""


def paired_ratio(
    on: list[list[float]], off: list[list[float]], confidence: float = 0.95, seed: int = 1
) -> tuple[float, float, float]:
    """Return the median ratio of paired steps and its two-sided interval.

    Args:
        on: Step times with recording, one list per block.
        off: The same without.
        confidence: Probability that the interval covers the true median.
        seed: Seed of the bootstrap.
    """
    blocks = [[a / b for a, b in zip(*pair, strict=True)] for pair in zip(on, off, strict=True)]
    draw = random.Random(seed)
    medians = [
        median([ratio for block in draw.choices(blocks, k=len(blocks)) for ratio in block])
        for _ in range(RESAMPLES)
    ]
    tail = (1.0 - confidence) / 2.0
    centre = median([ratio for block in blocks for ratio in block])
    return centre, quantile(medians, tail), quantile(medians, 1.0 - tail)


def run(steps_per_block: int, blocks: int) -> dict[str, Any]:
    """Run the demo's own interleaved A/B and evaluate its pairs.

    Args:
        steps_per_block: Steps in a block.
        blocks: Pairs of blocks.

    Returns:
        The step times in seconds, `on` and `off`, one list per block, for `paired_ratio`; their
        medians in ms and the recorder's own `logging_fraction`.

    Raises:
        VerificationError: The recorder did not write all recorded steps.
    """
    import torch

    from foundry_fastlog.demo.ab import interleaved_ab
    from foundry_fastlog.demo.config import load_config

    torch.set_num_threads(1)
    config = load_config()
    halved = {"batch_size": config.training.batch_size // 2}
    config = config.model_copy(update={"training": config.training.model_copy(update=halved)})
    found = interleaved_ab(steps_per_block, blocks, config)
    stats, steps = found["stats"], steps_per_block * blocks
    check_accounting(stats, steps * CALLS_PER_STEP + stats["event_calls"])
    if stats["record_calls"] != steps or stats["streams"]["metrics"]["written"] != steps:
        raise VerificationError(f"{stats['record_calls']} records for {steps} recorded steps")
    return {
        "on": found["on_steps_s"],
        "off": found["off_steps_s"],
        "on_ms": found["on_s"] * 1e3,
        "off_ms": found["off_s"] * 1e3,
        "logging_fraction": found["logging_fraction"],
    }
