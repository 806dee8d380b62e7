"""Runs to read, written as the recorder writes them, and what must come out of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

START = datetime(2026, 1, 30, 14, 32, 15, tzinfo=timezone.utc)
FOUR = ("loss", "lr", "grad_norm", "tokens_per_sec")
_BATCH = 1000


@cache
def _pool(names: tuple[str, ...]) -> list[str]:
    """Values of all names, as JSON, that records take in turn."""
    rng = random.Random(1)
    return [
        ",".join(f'"{name}":{rng.random() * 10 ** rng.randint(-3, 4)!r}' for name in names)
        for _ in range(200_000 // len(names))
    ]


def write(
    path: Path, count: int, names: tuple[str, ...], *, step_us: int = 1000, seed: int = 1
) -> int:
    """Write a stream of metrics: `count` records with full doubles for all names.

    Args:
        path: The file.
        count: Records.
        names: Metrics of each record.
        step_us: Microseconds from one record to the next.
        seed: From which place in the pool of values on.

    Returns:
        Its size in bytes.
    """
    pool = _pool(names)
    size = len(pool)
    with path.open("w", buffering=1 << 22) as file:
        for base in range(0, count, _BATCH):
            lines = []
            for step in range(base, min(count, base + _BATCH)):
                moment = START + timedelta(microseconds=step * step_us)
                lines.append(
                    f'{{"timestamp":"{moment:%Y-%m-%dT%H:%M:%S.%f}Z","seq":{step},"step":{step},'
                    f'"metrics":{{{pool[(step * 7919 + seed) % size]}}}}}\n'
                )
            file.write("".join(lines))
        return file.tell()


def one(root: Path, records: int) -> int:
    """One file of four metrics."""
    return write(root / "metrics.jsonl", records, FOUR)


def wide(root: Path, records: int) -> int:
    """One file with 200 metrics in each record, and fewer of them."""
    return write(
        root / "metrics.jsonl", records // 40, tuple(f"layer_{i}/norm" for i in range(200))
    )


def ranks(root: Path, records: int) -> int:
    """64 files of four metrics, whose records were made in turn."""
    return sum(
        write(root / f"metrics{f'.r{rank}' if rank else ''}.jsonl", records // 64, FOUR, seed=rank)
        for rank in range(64)
    )


def small(root: Path, records: int) -> int:
    """1,000 runs of four metrics."""
    total = 0
    for number in range(1000):
        (root / str(number)).mkdir()
        total += write(root / str(number) / "metrics.jsonl", records // 20_000, FOUR, seed=number)
    return total


def none(root: Path, records: int) -> int:
    """What is read is recorded by who reads it."""
    del root, records
    return 0


RUNS: dict[str, Callable[[Path, int], int]] = {
    "one": one,
    "wide": wide,
    "ranks": ranks,
    "small": small,
    "none": none,
}
