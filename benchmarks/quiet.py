"""Waits for an idle machine before each measurement, and counts how often that failed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.machine import facts

STAT = Path("/proc/stat")
SAMPLE_S = 0.5
IDLE = 0.9
"""Share of all cores' time that must be idle."""
LIMIT_S = 60.0
"""Longest wait before one measurement."""


def idle_share(seconds: float = SAMPLE_S) -> float:
    """Return the share of CPU time that was idle over the next `seconds` (1.0 off Linux)."""
    if not STAT.exists():
        return 1.0

    def read() -> tuple[int, int]:
        user, nice, system, idle, iowait, *rest = map(
            int, STAT.read_text().split("\n")[0].split()[1:9]
        )
        return idle + iowait, user + nice + system + idle + iowait + sum(rest)

    idle_before, all_before = read()
    time.sleep(seconds)
    idle_after, all_after = read()
    return (idle_after - idle_before) / max(1, all_after - all_before)


class Patience:
    """Waits until the machine is idle, for a bounded time per measurement and in total.

    Attributes:
        left_s: Remaining waiting time in seconds, in total.
        measurements: Number of measurements announced.
        busy: Number of measurements that started on a busy machine.
    """

    def __init__(self, total_s: float) -> None:
        self.left_s = total_s
        self.measurements = 0
        self.busy = 0

    def conditions(self) -> dict[str, Any]:
        """Return the facts of the machine, and how the measurements so far started."""
        return {**facts(), "measurements": self.measurements, "started_busy": self.busy}

    def wait(self) -> None:
        """Wait until the machine is idle, but at most `LIMIT_S`, or until no time is left."""
        self.measurements += 1
        started = time.monotonic()
        limit = min(LIMIT_S, self.left_s)
        while idle_share() < IDLE:
            if time.monotonic() - started > limit:
                self.busy += 1
                break
        self.left_s -= time.monotonic() - started
