"""Cost of a value that is a 0-dim CPU tensor, against a float and against `.item()`.

With one value per call and with four. The tensors are hot in cache, like a loss that a step has
just computed. All loops run in alternating bursts; the bare loop is subtracted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.base import VerificationError, json_lines
from benchmarks.summary import describe, median
from foundry_fastlog import Recorder

BURST = 4096
VALUES = (2.5, 0.125, 1.75, 8192.0)
KEYS = ("loss", "lr", "grad_norm", "tokens_per_sec")

Loop = Callable[[Any, range], None]


def _loops() -> dict[str, tuple[int, Loop]]:
    """Return the loops by name, each with the number of its values."""
    import torch

    f1, f2, f3, f4 = VALUES
    t1, t2, t3, t4 = (torch.tensor(value) for value in VALUES)

    def float_1(record: Any, steps: range) -> None:
        for step in steps:
            record(step, loss=f1)

    def tensor_1(record: Any, steps: range) -> None:
        for step in steps:
            record(step, loss=t1)

    def item_1(record: Any, steps: range) -> None:
        for step in steps:
            record(step, loss=t1.item())

    def float_4(record: Any, steps: range) -> None:
        for step in steps:
            record(step, loss=f1, lr=f2, grad_norm=f3, tokens_per_sec=f4)

    def tensor_4(record: Any, steps: range) -> None:
        for step in steps:
            record(step, loss=t1, lr=t2, grad_norm=t3, tokens_per_sec=t4)

    def item_4(record: Any, steps: range) -> None:
        for step in steps:
            record(
                step, loss=t1.item(), lr=t2.item(), grad_norm=t3.item(), tokens_per_sec=t4.item()
            )

    return {
        "float_1": (1, float_1),
        "tensor_1": (1, tensor_1),
        "item_1": (1, item_1),
        "float_4": (4, float_4),
        "tensor_4": (4, tensor_4),
        "item_4": (4, item_4),
    }


def _bare(steps: range) -> None:
    for step in steps:  # noqa: B007 - the loop itself is measured
        pass


def _verify(run: Path, values: int, count: int) -> None:
    """Check that every step is in the file with its values.

    Raises:
        VerificationError: One is not.
    """
    expected = dict(zip(KEYS[:values], VALUES[:values], strict=True))
    step = -1
    for step, line in enumerate(json_lines(run / "metrics.jsonl")):
        if line["step"] != step or line["metrics"] != expected:
            raise VerificationError(f"{run.name}: line {step} is {line}")
    if step + 1 != count:
        raise VerificationError(f"{run.name}: {step + 1} of {count} records are in the output")


def run(rounds: int = 60) -> dict[str, Any]:
    """Measure all loops.

    Args:
        rounds: Bursts of each.

    Returns:
        By loop `median` and percentiles in ns per call, and `calls`, the records verified.
    """
    loops = _loops()
    samples: dict[str, list[float]] = {name: [] for name in ("bare", *loops)}
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        recorders = {name: Recorder(Path(scratch) / name, fsync="none") for name in loops}
        done = 0
        for turn in range(-2, rounds):  # the first two are warm-up
            steps = range(done, done + BURST)
            done += BURST
            for name, taken in samples.items():
                start = time.perf_counter_ns()
                if name == "bare":
                    _bare(steps)
                else:
                    loops[name][1](recorders[name].record, steps)
                elapsed = (time.perf_counter_ns() - start) / BURST
                if turn >= 0:
                    taken.append(elapsed)
                if name != "bare":
                    recorders[name].flush()
        for name, recorder in recorders.items():
            recorder.close()
            _verify(Path(scratch) / name, loops[name][0], done)
    bare = median(samples.pop("bare"))
    return {
        name: {**describe([sample - bare for sample in taken]), "calls": done}
        for name, taken in samples.items()
    }
