"""Measures the clock of `torch.cuda._sleep`, for kernels that run for a given time."""

from __future__ import annotations

import functools
from collections.abc import Callable

AGREE = 0.02
LEAST_S = 0.5
MOST_S = 6.0
PIECE_S = 0.1
MOST_RUNS = 200


def settled_rate(run: Callable[[int], float], cycles: int = 20_000_000) -> float:
    """Return the cycles per second of a clock that may still be ramping up.

    Kernels of about `PIECE_S` run until `LEAST_S` has passed and two consecutive ones agree within
    `AGREE`. If none do, the fastest counts: `keep_busy` then lasts at least as long as requested.

    Args:
        run: Runs a kernel of the given number of cycles; returns its seconds.
        cycles: Cycles of the first kernel.
    """
    rates: list[float] = []
    spent = 0.0
    while spent < MOST_S and len(rates) < MOST_RUNS:
        seconds = max(run(cycles), 1e-9)
        spent += seconds
        rates.append(cycles / seconds)
        if spent >= LEAST_S and len(rates) > 1 and abs(rates[-1] / rates[-2] - 1.0) <= AGREE:
            return rates[-1]
        cycles = max(1, int(rates[-1] * PIECE_S))
    return max(rates)


def kernel_seconds(cycles: int) -> float:
    """Run a kernel of the given number of cycles on the current device; return its seconds."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    torch.cuda._sleep(cycles)  # noqa: SLF001 - torch's own tests use it; there is no public one
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


@functools.cache
def cycles_per_second() -> float:
    """Measure the current device's clock, once per process; this waits for the device."""
    return settled_rate(kernel_seconds)


def keep_busy(seconds: float) -> None:
    """Launch a kernel on the current stream that runs for about `seconds`."""
    import torch

    torch.cuda._sleep(int(seconds * cycles_per_second()))  # noqa: SLF001 - as above
