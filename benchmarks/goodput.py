"""Goodput of a long run, `python -m benchmarks.goodput`: a million steps of six timed blocks each.

The run has a start-up, a pause and steps that are trained again, and what is found of them is
checked against what was written. The files are in the page cache.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from foundry_fastlog import read_run

BEGIN = datetime(2026, 1, 30, tzinfo=timezone.utc)
PARTS = {"data": 3_000, "forward": 20_000, "backward": 40_000, "optimizer": 7_000, "log": 30}
STEP_US = sum(PARTS.values())
START_UP_US, PAUSE_US, AGAIN = 60_000_000, 600_000_000, 1000


def write_run(path: Path, steps: int) -> None:
    """Write a run as the recorder does, in two starts; the pause is behind half of the first."""
    path.mkdir()
    end = write_start(path, "", 0, range(steps // 2), steps // 4)
    write_start(path, ".a1", end, range(steps // 2 - AGAIN, steps), None)


def write_start(path: Path, label: str, begin: int, steps: range, pause: int | None) -> int:
    """Write a start that begins at a microsecond; return when it ends."""
    now, seq = begin, 0
    lines = [f'{{"timestamp":"{stamp(now)}","seq":0,"step":-1,"metrics":{{"loss":1.0}}}}\n']
    (path / f"metrics{label}.jsonl").write_text("".join(lines))
    now += START_UP_US
    with (path / f"performance{label}.jsonl").open("w", buffering=1 << 22) as handle:
        for step in steps:
            for name, taken in PARTS.items():
                now += taken
                handle.write(
                    f'{{"timestamp":"{stamp(now)}","seq":{seq},"name":"{name}","duration_s":'
                    f'{taken / 1e6:.6f},"step":{step},"depth":1,"parent":"step","thread":1}}\n'
                )
                seq += 1
            handle.write(
                f'{{"timestamp":"{stamp(now)}","seq":{seq},"name":"step","duration_s":'
                f'{STEP_US / 1e6:.6f},"step":{step},"depth":0,"thread":1}}\n'
            )
            seq += 1
            now += PAUSE_US if step == pause else 0
    return now


def stamp(microsecond: int) -> str:
    """Return a moment as lines have it."""
    return (BEGIN + timedelta(microseconds=microsecond)).isoformat("T", "microseconds")[:26] + "Z"


def main() -> None:
    """Write the run, measure it, and say how long that took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastlog-goodput-") as directory:
        path = Path(directory) / "run"
        write_run(path, options.steps)
        size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
        for _ in range(options.rounds):
            run, begin, cpu = read_run(path), time.perf_counter(), time.process_time()
            found = run.goodput()
            taken, busy = time.perf_counter() - begin, time.process_time() - cpu
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            wanted = {"start_up": 2 * START_UP_US, "stalls": PAUSE_US, "again": AGAIN * STEP_US}
            for kind, microseconds in wanted.items():
                assert abs(found.parts[kind] * 1e6 - microseconds) < STEP_US, (kind, found.parts)
            assert (found.steps, found.steps_again) == (options.steps, AGAIN)
            print(f"{size:.0f} MB: {taken:.2f} s, CPU {busy:.2f} s, peak {peak:.0f} MiB, verified")


if __name__ == "__main__":
    main()
