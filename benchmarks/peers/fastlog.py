"""foundry_fastlog as users write it: `rec.record(step, loss=...)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import foundry_fastlog
from benchmarks.peers.base import Loop, Peer, VerificationError, check_steps, json_lines
from benchmarks.workload import Row
from foundry_fastlog import Recorder


def metric_files(run: Path) -> list[Path]:
    """Return the segments of the run's only writer, oldest first."""
    files = sorted(run.glob("metrics.[0-9]*.jsonl"))
    return [run / "metrics.jsonl", *files]


def check_accounting(stats: Mapping[str, object], count: int) -> None:
    """Check that all records were accepted and written.

    Args:
        stats: `Recorder.stats()` after `close`.
        count: Number of records passed in.

    Raises:
        VerificationError: A record was dropped or not written, or an error occurred.
    """
    for key, value in (("accepted", count), ("written", count), ("dropped", 0), ("errors", 0)):
        if stats[key] != value:
            raise VerificationError(f"stats()[{key!r}] is {stats[key]}, not {value}: {stats}")


class Fastlog(Peer):
    """A recorder with default settings, except fsync: no peer forces its bytes to the disk."""

    name = "fastlog"
    title = "**foundry_fastlog** `rec.record(...)`"
    packages = ("foundry-fastlog",)

    def setup(self, directory: Path) -> Loop:
        """Open a run."""
        self.recorder = rec = Recorder(directory / "run", fsync="none")

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                rec.record(
                    step, loss=loss, lr=lr, grad_norm=grad_norm, tokens_per_sec=tokens_per_sec
                )

        return loop

    def settle(self) -> None:
        """Flush, so that a burst never meets a full ring."""
        if not self.recorder.flush(timeout=60.0):
            raise VerificationError("flush() timed out")

    def finish(self) -> None:
        """Close the run."""
        if not self.recorder.close(timeout=60.0):
            raise VerificationError("close() timed out")
        self.stats: dict[str, Any] = {**self.recorder.stats()}

    def verify(self, directory: Path, count: int) -> None:
        """Check the counters, and every line: step, values, `seq` without a gap, timestamp."""
        check_accounting(self.stats, count)
        self.bytes = sum(path.stat().st_size for path in metric_files(directory / "run"))
        check_steps(self._records(directory / "run"), count)

    @staticmethod
    def _records(run: Path) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield step and metrics of each line; check `seq`, and that time is monotonic."""
        seq, last = 0, ""
        for path in metric_files(run):
            for line in json_lines(path):
                if line["seq"] != seq:
                    raise VerificationError(f"line {seq} has seq {line['seq']}")
                if not line["timestamp"] >= last:
                    raise VerificationError(f"the timestamp of seq {seq} goes backwards")
                seq, last = seq + 1, line["timestamp"]
                yield line["step"], line["metrics"]

    def facts(self) -> dict[str, Any]:
        """Return the bytes in the files and the recorder's own statistics."""
        keys = ("blocked_s", "record_ns", "flush_cpu_s", "ring_bytes", "ring_high_water_bytes")
        return {"bytes": self.bytes, **{key: self.stats[key] for key in keys}}

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the version of the imported package."""
        return {"foundry-fastlog": foundry_fastlog.__version__}


PEER = Fastlog
