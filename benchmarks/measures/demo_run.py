"""Time that the demo's training loop spends in logging calls, measured from outside.

Every call is wrapped in two clock readings: steps with their echo, timed blocks, messages, epoch
summaries. The wrapper's own cost counts as logging, so the figure is an upper bound. It does not
rely on the recorder's own statistics, which are reported as well.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import VerificationError, json_lines
from benchmarks.peers.fastlog import check_accounting

if TYPE_CHECKING:
    from typing_extensions import Self

STEP_BLOCKS = ("step", "data", "forward", "backward", "optimizer")


class TimedBlock:
    """A timer block whose entry and exit are timed."""

    def __init__(self, owner: TimedLogging, block: Any) -> None:
        self.owner = owner
        self.block = block

    @property
    def elapsed(self) -> float:
        """Seconds in the block."""
        elapsed: float = self.block.elapsed
        return elapsed

    def __enter__(self) -> Self:
        """Enter the block."""
        start = time.perf_counter_ns()
        self.block.__enter__()
        self.owner.spent_ns += time.perf_counter_ns() - start
        return self

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


class TimedLogger:
    """A logger whose messages are timed."""

    def __init__(self, owner: TimedLogging, logger: Any) -> None:
        self.owner = owner
        self.logger = logger

    def info(self, message: str, **fields: Any) -> None:
        """Log and time the call."""
        start = time.perf_counter_ns()
        self.logger.info(message, **fields)
        self.owner.spent_ns += time.perf_counter_ns() - start


class TimedLogging:
    """An ExperimentLogging that adds up the time spent in its calls, in nanoseconds.

    It also replaces its PerformanceLogger.
    """

    def __init__(self, logs: Any) -> None:
        self.logs = logs
        self.directory = logs.directory
        self.performance = self
        self.spent_ns = 0
        self.calls: Counter[str] = Counter()

    def logger(self, subsystem: str) -> TimedLogger:
        """Return a logger whose calls are timed."""
        return TimedLogger(self, self.logs.logger(subsystem))

    def log_step(self, step: int, epoch: int, metrics: Any) -> bool:
        """Record and time the call, including its echo."""
        start = time.perf_counter_ns()
        accepted: bool = self.logs.log_step(step, epoch, metrics)
        self.spent_ns += time.perf_counter_ns() - start
        self.calls["record"] += 1
        return accepted

    def log_epoch_summary(self, epoch: int, summary: Any) -> bool:
        """Record and time the call."""
        start = time.perf_counter_ns()
        accepted: bool = self.logs.log_epoch_summary(epoch, summary)
        self.spent_ns += time.perf_counter_ns() - start
        self.calls["summary"] += 1
        return accepted

    def time_block(self, name: str, *, step: int | None = None) -> TimedBlock:
        """Create a timed block, and time its creation."""
        start = time.perf_counter_ns()
        block = TimedBlock(self, self.logs.performance.time_block(name, step=step))
        self.spent_ns += time.perf_counter_ns() - start
        self.calls[name] += 1
        return block


def step_seconds(run: Path, steps: int, calls: Counter[str]) -> float:
    """Check the run's files against the calls, and add up the steps' durations.

    Args:
        run: The run directory.
        steps: Training steps.
        calls: The wrapper's counts.

    Returns:
        Seconds in the blocks named "step".

    Raises:
        VerificationError: Lines are missing, superfluous or out of order.
    """

    def lines(stream: str) -> Iterator[dict[str, Any]]:
        for seq, line in enumerate(json_lines(run / f"{stream}.jsonl")):
            if line["seq"] != seq:
                raise VerificationError(f"{stream}: line {seq} has seq {line['seq']}")
            yield line

    metrics = list(lines("metrics"))
    trained = [line["step"] for line in metrics if "loss" in line.get("metrics", ())]
    given = calls["record"] + calls["summary"]
    if trained != list(range(1, steps + 1)) or len(metrics) != given:
        raise VerificationError(f"{len(metrics)} metrics lines, {len(trained)} of {steps} steps")
    blocks: Counter[str] = Counter()
    total = 0.0
    for line in lines("performance"):
        blocks[line["name"]] += 1
        if line["name"] == "step":
            total += line["duration_s"]
    expected = Counter({name: n for name, n in calls.items() if name not in ("record", "summary")})
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
        steps (it runs alongside training, on any free core).
    """
    from foundry_fastlog.demo.app import open_logging
    from foundry_fastlog.demo.config import load_config
    from foundry_fastlog.demo.data import load_corpus
    from foundry_fastlog.demo.device import pick_device
    from foundry_fastlog.demo.train import Trainer

    config = load_config(steps=steps)
    corpus = load_corpus(config.data, config.model.context)
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        logs = open_logging(Path(scratch) / "run", config)
        timed: Any = TimedLogging(logs)
        trainer = Trainer(config, corpus, timed, pick_device(config.training.device))
        for _ in trainer.fit():
            pass
        trainer.close()
        if not logs.close():
            raise VerificationError("close() timed out")
        stats = logs.recorder.stats()
        # Plus messages: echoes of steps, start and end.
        check_accounting(stats, sum(timed.calls.values()) + stats["event_calls"])
        seconds = step_seconds(logs.directory, steps, timed.calls)
    return {
        "steps": steps,
        "calls": sum(timed.calls.values()),
        "fraction": timed.spent_ns / 1e9 / seconds,
        "us_per_step": timed.spent_ns / 1e3 / steps,
        "step_ms": seconds / steps * 1e3,
        "own_fraction": stats["logging_s"] / seconds,
        "flush_fraction": stats["flush_cpu_s"] / seconds,
    }
