"""What the demo's training loop spends in the recorder's calls, timed from outside.

Every call of the recorder is wrapped in two readings of the clock. The wrapper's own cost counts as
the recorder's, so the figure is an upper bound; it does not rest on what the recorder says of
itself, which is reported beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.base import VerificationError, json_lines
from benchmarks.peers.fastlog import check_accounting

STEP_BLOCKS = ("step", "data", "forward", "backward", "optimizer")


class TimedBlock:
    """A timer block whose entry and exit are timed."""

    def __init__(self, owner: TimedRecorder, block: Any) -> None:
        self.owner = owner
        self.block = block

    def __enter__(self) -> None:
        """Enter the block."""
        start = time.perf_counter_ns()
        self.block.__enter__()
        self.owner.spent_ns += time.perf_counter_ns() - start

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the block."""
        start = time.perf_counter_ns()
        self.block.__exit__(kind, error, trace)
        self.owner.spent_ns += time.perf_counter_ns() - start


class TimedRecorder:
    """A recorder that adds up the time spent in its calls, in nanoseconds."""

    def __init__(self, recorder: Any) -> None:
        self.recorder = recorder
        self.path = recorder.path
        self.spent_ns = 0
        self.calls: Counter[str] = Counter()

    def record(self, step: int, **values: Any) -> bool:
        """Record and time the call."""
        start = time.perf_counter_ns()
        accepted: bool = self.recorder.record(step, **values)
        self.spent_ns += time.perf_counter_ns() - start
        self.calls["record"] += 1
        return accepted

    def timer(self, name: str, *, step: int | None = None) -> TimedBlock:
        """Make a block and time that, too."""
        start = time.perf_counter_ns()
        block = TimedBlock(self, self.recorder.timer(name, step=step))
        self.spent_ns += time.perf_counter_ns() - start
        self.calls[name] += 1
        return block

    def event(self, message: str, **values: Any) -> bool:
        """Write an event and time the call."""
        start = time.perf_counter_ns()
        accepted: bool = self.recorder.event(message, **values)
        self.spent_ns += time.perf_counter_ns() - start
        self.calls["event"] += 1
        return accepted


def step_seconds(run: Path, steps: int, calls: Counter[str]) -> float:
    """Check the run's files against the calls that were made, and add up the steps' durations.

    Args:
        run: The run directory.
        steps: Training steps.
        calls: What the wrapper counted.

    Returns:
        Seconds in the blocks named "step".

    Raises:
        VerificationError: Lines are missing, too many or out of order.
    """

    def lines(stream: str) -> Iterator[dict[str, Any]]:
        for seq, line in enumerate(json_lines(run / f"{stream}.jsonl")):
            if line["seq"] != seq:
                raise VerificationError(f"{stream}: line {seq} has seq {line['seq']}")
            yield line

    metrics = list(lines("metrics"))
    trained = [line["step"] for line in metrics if "loss" in line["metrics"]]
    if trained != list(range(1, steps + 1)) or len(metrics) != calls["record"]:
        raise VerificationError(f"{len(metrics)} metrics lines, {len(trained)} of {steps} steps")
    blocks: Counter[str] = Counter()
    total = 0.0
    for line in lines("performance"):
        blocks[line["name"]] += 1
        if line["name"] == "step":
            total += line["duration_s"]
    expected = Counter({name: n for name, n in calls.items() if name not in ("record", "event")})
    if blocks != expected or any(blocks[name] != steps for name in STEP_BLOCKS):
        raise VerificationError(f"timed blocks in the file {blocks}, called {expected}")
    return total


def run(steps: int) -> dict[str, Any]:
    """Train the demo for some steps with its own configuration.

    Args:
        steps: Training steps.

    Returns:
        `fraction` (time in calls over time in steps), `us_per_step`, `step_ms`, the recorder's own
        `own_fraction` of the same, and `flush_fraction`, the flush thread's CPU time over the same
        steps (it runs beside training, on whatever core is free).
    """
    from foundry_fastlog.demo.config import load_config
    from foundry_fastlog.demo.data import load_corpus
    from foundry_fastlog.demo.device import pick_device
    from foundry_fastlog.demo.train import Trainer

    config = load_config(steps=steps)
    corpus = load_corpus(config.data, config.model.context)
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        recorder = config.recorder.open(Path(scratch) / "run")
        timed: Any = TimedRecorder(recorder)
        trainer = Trainer(config, corpus, timed, pick_device(config.training.device))
        for _ in trainer.fit():
            pass
        trainer.close()
        if not recorder.close(timeout=60.0):
            raise VerificationError("close() timed out")
        stats = recorder.stats()
        check_accounting(stats, sum(timed.calls.values()))
        seconds = step_seconds(recorder.path, steps, timed.calls)
    return {
        "steps": steps,
        "calls": sum(timed.calls.values()),
        "fraction": timed.spent_ns / 1e9 / seconds,
        "us_per_step": timed.spent_ns / 1e3 / steps,
        "step_ms": seconds / steps * 1e3,
        "own_fraction": stats["logging_s"] / seconds,
        "flush_fraction": stats["flush_cpu_s"] / seconds,
    }
