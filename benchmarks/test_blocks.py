"""pytest-benchmark: timing an empty block, with this package and with the logging plan's own class.

Run it with `python -m pytest benchmarks/test_blocks.py`. A round is one burst of 256 blocks with
the loop around them; the extra info of `--benchmark-json` has `ns_per_block`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.base import json_lines
from foundry_fastlog import PerformanceLogger, Recorder

BURST = 256
ROUNDS = 60
WARMUP = 2

# The level is the default, WARNING: a block's message is not emitted.
LOGGER = logging.getLogger("benchmarks.blocks")


# The method below is the plan's code, verbatim, because it is what is measured.
# fmt: off
class PlanPerformanceLogger:
    """Logger for performance profiling and bottleneck analysis."""

    def __init__(self, logger: logging.Logger):
        self.logger = logger
        self.timers = {}

    @contextmanager
    def time_block(self, block_name: str, log_level=logging.DEBUG):  # noqa: ANN001 - verbatim
        """Context manager for timing code blocks."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.logger.log(log_level,
                           f"{block_name} completed in {elapsed:.4f}s")  # noqa: G004 - verbatim

            # Track for summary statistics
            if block_name not in self.timers:
                self.timers[block_name] = []
            self.timers[block_name].append(elapsed)
# fmt: on


def blocks(perf: PerformanceLogger | PlanPerformanceLogger) -> Callable[[], None]:
    """Return a function that times a burst of empty blocks."""

    def burst() -> None:
        for _ in range(BURST):
            with perf.time_block("forward_pass"):
                pass

    return burst


def run(benchmark: Any, burst: Callable[[], None], settle: Callable[[], object]) -> int:
    """Measure; return the total number of blocks."""
    done = 0

    def prepare() -> None:
        nonlocal done
        settle()
        done += BURST

    benchmark.group = "one empty block, timed"
    benchmark.pedantic(burst, setup=prepare, rounds=ROUNDS, warmup_rounds=WARMUP)
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["ns_per_block"] = benchmark.stats.stats.median / BURST * 1e9
    return done


@pytest.mark.parametrize("kind", [PerformanceLogger, PlanPerformanceLogger])
def test_block_in_memory(benchmark: Any, kind: Any) -> None:
    """Durations are kept in memory."""
    perf = kind(LOGGER)
    done = run(benchmark, blocks(perf), lambda: None)
    durations = (
        perf.get_timing_statistics("forward_pass")["count"]
        if kind is PerformanceLogger
        else len(perf.timers["forward_pass"])
    )
    assert durations == done


def test_block_in_the_file(benchmark: Any, tmp_path: Path) -> None:
    """Each block is also a line in the file."""
    with Recorder(tmp_path, fsync="none") as recorder:
        perf = PerformanceLogger(LOGGER, recorder)
        done = run(benchmark, blocks(perf), recorder.flush)
    lines = list(json_lines(tmp_path / "performance.jsonl"))
    assert [line["seq"] for line in lines] == list(range(done))
    assert all(line["name"] == "forward_pass" for line in lines)
