"""The workload for every peer: one step with four float metrics.

The values repeat every `PERIOD` steps, so that a loop's own work is one tuple unpacking and the
values are hot in cache, as in a training step that has just computed them. They differ from each
other, so that a verifier detects a value in the wrong place.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from itertools import cycle

KEYS = ("loss", "lr", "grad_norm", "tokens_per_sec")
PERIOD = 256

Values = tuple[float, float, float, float]
Row = tuple[int, Values]


def float32(value: float) -> float:
    """Round to float32, like `tensor.item()`: as text, such doubles need all 17 digits."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


VALUES: tuple[Values, ...] = tuple(
    (
        float32(2.0 + 8.0 / (i + 3)),
        3e-4 * (1.0 + math.cos(math.pi * (i + 1) / PERIOD)),
        float32(0.5 + (i % 17) / 7.0),
        8192.0 / (0.05 + i * 1e-5),
    )
    for i in range(PERIOD)
)


def rows(start: int, count: int) -> Iterator[Row]:
    """Return an iterator of `(step, (loss, lr, grad_norm, tokens_per_sec))`.

    Args:
        start: The first step; a multiple of `PERIOD`.
        count: Number of steps.

    Raises:
        ValueError: `start` is not a multiple of `PERIOD`.
    """
    if start % PERIOD:
        raise ValueError(f"start must be a multiple of {PERIOD}, not {start}")
    return zip(range(start, start + count), cycle(VALUES))


def expected(step: int) -> dict[str, float]:
    """Return the metrics that `rows` gives for `step`."""
    return dict(zip(KEYS, VALUES[step % PERIOD], strict=True))


def bare_loop(rows: Iterator[Row]) -> None:
    """Run the loop of every peer without a call: the cost that a measurement subtracts."""
    for step, (loss, lr, grad_norm, tokens_per_sec) in rows:  # noqa: B007 - the unpacking is measured
        pass
