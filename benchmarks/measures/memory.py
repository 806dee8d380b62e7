"""Memory of the recorder: resident set before the import, with an open run, and while recording."""

from __future__ import annotations

import gc
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.workload import PERIOD, rows

MIB = 2**20
STATUS = Path("/proc/self/status")
CHUNK = 50_000 // PERIOD * PERIOD


def _status_mib(field: str) -> float:
    """Return a memory field of this process's status, in MiB."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the status file has no {field}")


def rss_mib() -> float:
    """Return the resident set in MiB (except on Linux: the peak, which can only be larger)."""
    return _status_mib("VmRSS:") if STATUS.exists() else peak_mib()


def peak_mib() -> float:
    """Return the peak of the resident set in MiB."""
    if STATUS.exists():
        return _status_mib("VmHWM:")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)


def run(count: int) -> dict[str, Any]:
    """Record `count` steps and watch the resident set.

    Args:
        count: Steps, more than 200,000.

    Returns:
        MiB: `import` (added by importing the package), `recorder` (peak over the whole run minus
        that before the import: the whole cost of the package and an open run), `growth` (the end
        minus that after the first tenth: what accumulates with records), and `samples`.
    """
    list(rows(0, 1))  # one-time allocations of the workload
    gc.collect()
    before = rss_mib()
    from benchmarks.peers.fastlog import Fastlog

    imported = rss_mib()
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        directory = Path(scratch)
        peer = Fastlog()
        loop = peer.setup(directory)
        opened = rss_mib()
        samples = []
        done = 0
        while done < count:
            loop(rows(done, CHUNK))
            done += CHUNK
            samples.append(rss_mib())
        peak = peak_mib()
        peer.finish()
        closed = rss_mib()
        peer.verify(directory, done)
        return {
            "count": done,
            "import": imported - before,
            "open": opened - imported,
            "recorder": peak - before,
            "growth": samples[-1] - samples[len(samples) // 10],
            "after_close": closed - before,
            "ring_mib": peer.stats["ring_bytes"] / MIB,
            "samples": samples,
        }
