"""Records per second from several threads, until durable."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers import load
from benchmarks.peers.base import Loop, VerificationError, json_lines
from benchmarks.peers.fastlog import Fastlog, check_accounting, metric_files
from benchmarks.workload import PERIOD, expected, rows


def worker(loop: Loop, barrier: threading.Barrier, first: int, count: int) -> Callable[[], None]:
    """Return a thread's function: wait for the others, then log its own range of steps."""

    def body() -> None:
        batch = rows(first, count)
        barrier.wait()
        loop(batch)

    return body


def check_ranges(lines: Iterator[dict[str, Any]], threads: int, per_thread: int) -> None:
    """Check that all steps of each thread are there, in order, with the right values.

    Raises:
        VerificationError: They are not.
    """
    following = [index * per_thread for index in range(threads)]
    for line in lines:
        step = line["step"]
        index = step // per_thread
        if index >= threads or step != following[index] or line["metrics"] != expected(step):
            raise VerificationError(f"step {step} is out of its thread's order or has other values")
        following[index] += 1
    if following != [(index + 1) * per_thread for index in range(threads)]:
        raise VerificationError(f"the threads reached {following} of {per_thread} steps each")


def run(peer: str, threads: int, count: int) -> dict[str, Any]:
    """Log a total of `count` steps from `threads` threads.

    Args:
        peer: "fastlog" or "orjson_write" (one shared file, whose `write` has its own lock).
        threads: Producers.
        count: Total number of steps; rounded down to a multiple of threads x 256.

    Returns:
        `records_per_s` until durable (from the first call until the file is closed), and
        `calls_per_s` until the last producer was done.
    """
    per_thread = count // threads // PERIOD * PERIOD
    subject = load(peer)
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        directory = Path(scratch)
        loop = subject.setup(directory)
        barrier = threading.Barrier(threads + 1)
        pool = [
            threading.Thread(target=worker(loop, barrier, index * per_thread, per_thread))
            for index in range(threads)
        ]
        for thread in pool:
            thread.start()
        barrier.wait()
        start = time.perf_counter()
        for thread in pool:
            thread.join()
        calls = time.perf_counter() - start
        subject.finish()
        complete = time.perf_counter() - start
        total = per_thread * threads
        paths = [directory / "metrics.jsonl"]
        if isinstance(subject, Fastlog):
            check_accounting(subject.stats, total)
            paths = metric_files(directory / "run")
        check_ranges((line for path in paths for line in json_lines(path)), threads, per_thread)
        return {
            "threads": threads,
            "count": total,
            "records_per_s": total / complete,
            "calls_per_s": total / calls,
        }
