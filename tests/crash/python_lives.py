"""Lives that record through the package: fork, record from Python threads, get killed, recover.

    python tests/crash/python_lives.py FOLDER KILLS SEED

A process of its own, since it forks children without exec. Its last line of output is JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from crash.acked import Life, Verdict, check_run  # noqa: E402 - the path comes first
from crash.driving import Acks  # noqa: E402 - likewise

from foundry_fastlog import Recorder, _core  # noqa: E402 - likewise


def record_one(recorder: Recorder, life: Life, thread: int, n: int) -> bool:
    """Record the n-th record of a thread; True when it was accepted."""
    stream, fill, x = life.parts(thread, n)
    origin = {"life": life.number, "thread": thread, "n": n}
    if stream == "metrics":
        return recorder.record_dict(n, {**origin, "x": x, f"k{n // life.keys}": fill})
    if stream == "performance":
        with recorder.timer(f"{life.number}:{thread}", step=n):
            return True
    return recorder.event(
        fill,
        logger="crash",
        error=ValueError("e") if stream == "errors" else None,
        step=n,
        context={**origin, "x": x},
    )


def record_all(recorder: Recorder, life: Life, thread: int, counter: ctypes.c_uint64) -> None:
    """Record one after the other, counting each that was accepted."""
    n = 0
    while True:
        if record_one(recorder, life, thread, n):
            n += 1
            counter.value = n


def live(run: Path, life: Life, acks: Acks, options: dict[str, Any]) -> None:
    """What a child does until it is killed."""
    # A timer does not return whether it was accepted: with this timeout nothing is dropped.
    recorder = Recorder(run, block_timeout_s=3600, **options)
    threads = [
        threading.Thread(target=record_all, args=(recorder, life, thread, acks.counter(thread)))
        for thread in range(1, life.threads)
    ]
    for thread in threads:
        thread.start()
    record_all(recorder, life, 0, acks.counter(0))


def kill_one(folder: Path, life: Life, rng: random.Random) -> None:
    """Start a life, kill it at a random instant, take its counters."""
    acks = Acks(folder / f"acks-{life.number}")
    options = {
        "ring_bytes": 1 << 16,
        "segment_bytes": life.segment,
        "flush_interval_s": rng.choice((0.001, 0.02)),
        "fsync": rng.choice(("none", "interval", "every_flush")),
    }
    wait_s = rng.choice((rng.uniform(0, 0.01), rng.uniform(0, 0.06)))
    pid = os.fork()
    if pid == 0:
        try:
            live(folder / "run", life, acks, options)
        except BaseException:  # noqa: BLE001 - a child must never return into the parent's code
            traceback.print_exc()
        os._exit(1)
    time.sleep(wait_s)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise AssertionError(f"a life ended by itself with status {status}")
    life.acked = acks.counts(life.threads)


def recover(run: Path) -> None:
    """Recover until no ring is left.

    A life that is killed while it starts `git` for run.json leaves a child that has its
    descriptors, and with them the ring's lock, until its exec.
    """
    deadline = time.monotonic() + 10
    while True:
        outcomes = {report["outcome"] for report in _core.recover_run(str(run))}
        if outcomes <= {"recovered"}:
            return
        if outcomes - {"recovered", "live"} or time.monotonic() > deadline:
            raise AssertionError(f"not recovered: {outcomes}")
        time.sleep(0.01)


def kill_and_check(folder: Path, rng: random.Random) -> tuple[int, Verdict]:
    """A few lives in one run, each recovering what the last one left; then the oracle."""
    folder.mkdir(parents=True)
    (folder / "run").mkdir()
    segment = rng.choice((4096, 65536))
    lives = []
    for number in range(1, rng.randint(1, 3) + 1):
        life = Life(number, rng.choice((1, 1, 2, 4)), fill=80, segment=segment, python=True)
        lives.append(life)
        kill_one(folder, life, rng)
    recover(folder / "run")
    verdict = check_run(folder / "run", lives)
    if not verdict.violations:
        shutil.rmtree(folder)
    return len(lives), verdict


def main() -> int:
    """Kill as often as asked, print what was found."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    total: dict[str, Any] = {"kills": 0, "acked": 0, "extra": 0, "violations": []}
    while total["kills"] < kills:
        killed, verdict = kill_and_check(folder / str(total["kills"]), rng)
        total["kills"] += killed
        total["acked"] += verdict.acked
        total["extra"] += verdict.extra
        total["violations"] += verdict.violations
    sys.stdout.write(json.dumps(total) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
