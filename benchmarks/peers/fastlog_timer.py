"""A block timed by `Recorder.timer`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.base import Loop, VerificationError, json_lines
from benchmarks.peers.fastlog import Fastlog, check_accounting
from benchmarks.workload import Row


class FastlogTimer(Fastlog):
    """An empty block a step, with the step."""

    name = "fastlog_timer"
    title = "**foundry_fastlog** `with rec.timer(...)`, an empty block"
    blocks: tuple[str, ...] = ("forward",)
    """The blocks of a step, in the order of their ends."""

    def setup(self, directory: Path) -> Loop:
        """Open a run."""
        super().setup(directory)
        timer = self.recorder.timer

        def loop(rows: Iterator[Row]) -> None:
            for step, _ in rows:
                with timer("forward", step=step):
                    pass

        return loop

    def verify(self, directory: Path, count: int) -> None:
        """Check the counters, and the step and name of each line."""
        check_accounting(self.stats, count * len(self.blocks))
        self._verify_blocks(directory / "run", count)

    def _verify_blocks(self, run: Path, count: int) -> None:
        files = [run / "performance.jsonl", *sorted(run.glob("performance.[0-9]*.jsonl"))]
        found = [(line["step"], line["name"]) for path in files for line in json_lines(path)]
        if found != [(step, name) for step in range(count) for name in self.blocks]:
            raise VerificationError(f"not {count} steps of {self.blocks} in performance.jsonl")
        self.bytes = sum(path.stat().st_size for path in files)


PEER = FastlogTimer
