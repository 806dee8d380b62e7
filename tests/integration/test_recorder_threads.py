"""Many threads: every record exactly once and in its thread's order, also while it is closed."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from recorded import in_threads, lines, run_python, steps

from foundry_fastlog import Recorder, RecorderClosedError

THREADS = 8


def by_thread(run: Path) -> dict[int, list[int]]:
    """Return the steps of each thread, in order of the lines."""
    found: dict[int, list[int]] = defaultdict(list)
    for line in lines(run):
        found[line["metrics"]["thread"]].append(line["step"])
    return found


@pytest.mark.parametrize("ring_bytes", [8 << 20, 64 << 10], ids=["large ring", "small ring"])
def test_exactly_once_and_in_order(tmp_path: Path, ring_bytes: int) -> None:
    count = 20_000
    recorder = Recorder(tmp_path, ring_bytes=ring_bytes, block_timeout_s=600, segment_bytes=1 << 20)
    barrier = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        barrier.wait()
        for step in range(count):
            assert recorder.record(step, thread=thread, value=step / 3)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    assert recorder.close(600)
    assert by_thread(tmp_path) == {thread: list(range(count)) for thread in range(THREADS)}
    stats = recorder.stats()
    assert stats["accepted"] == stats["written"] == THREADS * count
    assert stats["dropped"] == 0


def test_all_calls_at_once(tmp_path: Path) -> None:
    count = 1_000
    recorder = Recorder(tmp_path, ring_bytes=64 << 10, block_timeout_s=600)

    def work(thread: int) -> None:
        choose = random.Random(thread)
        for step in range(count):
            with recorder.timer(f"outer{thread}", step=step), recorder.timer("inner"):
                recorder.record(step, thread=thread, **{f"k{choose.randrange(500)}": 1.0})
            recorder.event(f"{thread}:{step}", context={"thread": thread})
            if step % 100 == 0:
                assert recorder.flush(600)
                recorder.stats()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    assert recorder.close(600)
    assert by_thread(tmp_path) == {thread: list(range(count)) for thread in range(THREADS)}
    timings = lines(tmp_path, "performance")
    assert len(timings) == 2 * THREADS * count
    for inner in (line for line in timings if line["name"] == "inner"):
        assert inner["parent"].startswith("outer")
        assert inner["depth"] == 1
    messages = [line["message"] for line in lines(tmp_path, "log")]
    assert sorted(messages) == sorted(f"{t}:{s}" for t in range(THREADS) for s in range(count))


@pytest.mark.parametrize("closers", [1, 3])
@pytest.mark.parametrize("attempt", range(4))
def test_closing_while_threads_record(tmp_path: Path, closers: int, attempt: int) -> None:
    """Each thread records until the named error; what was accepted before is in the files."""
    recorder = Recorder(tmp_path, ring_bytes=64 << 10, block_timeout_s=600)
    accepted: dict[int, list[int]] = {thread: [] for thread in range(THREADS)}
    answers: list[bool] = []
    recording = threading.Barrier(THREADS + closers)

    def work(thread: int) -> None:
        recording.wait()
        if thread >= THREADS:
            while not all(accepted.values()):
                time.sleep(0)
            answers.append(recorder.close(600))
            return
        step = 0
        while True:
            try:
                if recorder.record(step, thread=thread):
                    accepted[thread].append(step)
            except RecorderClosedError:
                return
            step += 1

    in_threads(work, THREADS + closers)
    assert answers == [True] * closers
    found = by_thread(tmp_path)
    assert {thread: found[thread] for thread in range(THREADS)} == accepted
    stats = recorder.stats()
    assert stats["calls"] == stats["accepted"] == stats["written"]
    assert stats["calls"] == sum(map(len, accepted.values()))


def test_the_gil_is_free_while_a_call_waits(tmp_path: Path) -> None:
    code = """
import os, resource, sys, threading
from foundry_fastlog import Recorder
run = sys.argv[1]
recorder = Recorder(run, ring_bytes=65536, block_timeout_s=3600, close_timeout_s=3600)
recorder.record(0, x=1.0)
assert recorder.flush()
size = os.path.getsize(f"{run}/metrics.jsonl")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # the disk is full from here on

def record():
    for step in range(1, 5_000):
        assert recorder.record(step, x=1.0)

calls = [record, lambda: recorder.flush(3600)]
threads = [threading.Thread(target=call) for call in calls]
for thread in threads: thread.start()
while recorder.stats()["errors"] == 0:  # this loop is the point: it runs while they wait
    pass
for thread in threads:
    assert thread.is_alive()
    sys.stdout.write("waiting ")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for thread in threads: thread.join()
closer = threading.Thread(target=recorder.close)
closer.start()
closer.join()
sys.stdout.write("done")
"""
    assert run_python(code, tmp_path).stdout == "waiting waiting done"
    assert steps(tmp_path) == list(range(5_000))
