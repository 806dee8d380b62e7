"""Simulated trainings of many ranks that wait for each other, with stragglers planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from oracle import START, OracleWriter

Array = np.ndarray[Any, Any]
Slow = Callable[[str, int, int], float]

BLOCKS = {"data": 0.01, "forward": 0.03, "backward": 0.05, "optimizer": 0.01}


def never(block: str, rank: int, step: int) -> float:
    """Nothing is slow."""
    return 1.0


def slower(
    block: str, ranks: set[int], since: int, until: int = 10**9, factor: float = 1.3
) -> Slow:
    """A block is slow on some ranks in some steps."""
    return lambda b, r, s: factor if b == block and r in ranks and since <= s <= until else 1.0


def durations(
    ranks: int,
    steps: int,
    slow: Slow = never,
    jitter: float = 0.03,
    seed: int = 0,
    noise: Callable[[np.random.Generator, tuple[int, int]], Array] | None = None,
) -> dict[str, Array]:
    """Seconds of each block by rank and step."""
    chance = np.random.default_rng(seed)
    found = {}
    for block, seconds in BLOCKS.items():
        shape = (ranks, steps)
        factor = np.exp(chance.normal(0, jitter, shape)) if noise is None else noise(chance, shape)
        planted = [[slow(block, rank, step) for step in range(steps)] for rank in range(ranks)]
        found[block] = seconds * factor * np.array(planted)
    return found


def write_ranks(
    path: Path,
    times: dict[str, Array],
    *,
    ranks: Sequence[int] | None = None,
    begins: dict[int, int] | None = None,
    clocks: dict[int, float] | None = None,
    collective: str | None = "all_reduce",
    attempt: int = 0,
    first: int = 0,
    transfer_s: float | Array = 0.004,
) -> None:
    """Write what the ranks record: each step its blocks, then all wait for the slowest.

    ``begins`` are the places of the first steps of ranks that start late, ``clocks`` the seconds by
    which clocks are ahead, ``first`` the number of the first step.
    """
    count, steps = next(iter(times.values())).shape
    numbers = list(ranks if ranks is not None else range(count))
    begins, clocks = begins or {}, clocks or {}
    work = sum(times.values())
    longest = np.max(work, axis=0)
    ends = np.cumsum(longest + transfer_s + 0.001)
    for row, rank in enumerate(numbers):
        writer = OracleWriter(path, rank=rank, attempt=attempt, tick_s=0.0)
        lines = []
        for step in range(begins.get(rank, 0), steps):
            begun = (
                float(ends[step] - longest[step] - np.broadcast_to(transfer_s, steps)[step]) - 0.001
            )
            now = begun
            of_step = []
            for block, seconds in times.items():
                now += float(seconds[row, step])
                of_step.append((block, float(seconds[row, step]), now, 1))
            end = float(begun + longest[step] + np.broadcast_to(transfer_s, steps)[step])
            if collective is not None:
                of_step.append((collective, end - now, end, 1))
            of_step.append(("step", end - begun, end, 0))
            lines += [(step + first, *one) for one in of_step]
        _write(writer, lines, clocks.get(rank, 0.0))


def _write(
    writer: OracleWriter, lines: list[tuple[int, str, float, float, int]], ahead: float
) -> None:
    """Write timings as `OracleWriter.timing` does, all at once."""
    texts = []
    for seq, (step, name, seconds, end, depth) in enumerate(lines):
        moment = START + timedelta(seconds=end + ahead)
        parent = ',"parent":"step"' if depth else ""
        texts.append(
            f'{{"timestamp":"{moment:%Y-%m-%dT%H:%M:%S.%f}Z","seq":{seq},"name":"{name}",'
            f'"duration_s":{seconds!r},"step":{step},"depth":{depth}{parent},"thread":1}}\n'
        )
    writer.path("performance").write_text("".join(texts), encoding="utf-8")
