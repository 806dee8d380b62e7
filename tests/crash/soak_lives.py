"""The processes of the soak: one that lives long and has children, and ranks that die beside it.

    python tests/crash/soak_lives.py trainer|ranks FOLDER SECONDS SEED

`trainer` records from several threads all the time, and in rounds has children that record through
the recorder they inherit and end in every way a process can. `ranks` starts ranks 1 and 2 of the
same run, kills them and starts them anew. What each life may record is noted in FOLDER before it
begins. The last line of output is JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from crash.acked import Life  # noqa: E402 - the path comes first
from crash.driving import Acks  # noqa: E402 - likewise
from crash.python_lives import record_one  # noqa: E402 - likewise
from crash.steady import take_sample  # noqa: E402 - likewise

from foundry_fastlog import Recorder  # noqa: E402 - likewise

THREADS = 3
#: The names of finished segments are kept: not so many that they are seen in the memory.
SEGMENT = 1 << 18
#: Small: the ring is full within seconds of a full disk, and the key table, an eighth of it but no
#: less than 64 KiB, is full before the warm-up ends.
RING = 1 << 18
#: A timer does not return whether it was accepted: with this timeout nothing is dropped.
PATIENCE = {"block_timeout_s": 3600.0, "segment_bytes": SEGMENT}
BURST = 20  # records between two pauses
EAGER = 3000  # the first records of each of the trainer's threads have no pauses
RANKS = (1, 2)


class Lives:
    """Numbers for lives, noted in a file before they are used."""

    def __init__(self, folder: Path, name: str, first: int) -> None:
        self.folder = folder
        self._path = folder / f"{name}.lives"
        self._next = first

    def make(self, threads: int = 1, keys: int = 16) -> Life:
        """Make the next life."""
        life = Life(self._next, threads, fill=80, keys=keys, segment=SEGMENT, python=True)
        self._next += 1
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(life)) + "\n")
        return life


def work(
    recorder: Recorder,
    folder: Path,
    life: Life,
    until: Callable[[int], bool],
    *,
    pause_s: float = 0.01,
    eager: int = 0,
) -> None:
    """Record in bursts from all threads of a life; `until` is asked with each thread's count."""
    acks = Acks(folder / f"acks-{life.number}")

    def run(thread: int) -> None:
        counter = acks.counter(thread)
        n = 0
        while not until(n):
            if record_one(recorder, life, thread, n):
                n += 1
                counter.value = n
            if n % BURST == 0 and n > eager:
                time.sleep(pause_s)

    threads = [threading.Thread(target=run, args=(t,)) for t in range(1, life.threads)]
    for thread in threads:
        thread.start()
    run(0)
    for thread in threads:
        thread.join()


def endless(n: int) -> bool:
    """Until killed."""
    return n < 0


def fork(body: Callable[[], None]) -> int:
    """Start a child that does this and leaves by os._exit(); return its pid."""
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        body()
    except SystemExit:
        raise  # the child that ends as a program does
    except BaseException:  # noqa: BLE001 - a child must never return into the parent's code
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def expect(pid: int, status: int) -> None:
    """Wait for a child, which must end like this."""
    found = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if found != status:
        raise AssertionError(f"a child ended with status {found} instead of {status}")


def kill(pid: int) -> None:
    """Kill a child and wait for it."""
    os.kill(pid, signal.SIGKILL)
    expect(pid, -signal.SIGKILL)


def close(recorder: Recorder) -> None:
    """Close; the disk is full for seconds only."""
    if not recorder.close(60):
        raise AssertionError("close() was not in time")


def work_as_process(recorder: Recorder, folder: Path, life: Life, records: int) -> None:
    """What a multiprocessing child does."""
    work(recorder, folder, life, lambda n: n >= records)


class Trainer:
    """The process that lives long."""

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        self.folder = folder
        self.begun = time.monotonic()
        self.end = self.begun + seconds
        self.rng = random.Random(seed)
        self.lives = Lives(folder, "trainer", 1)
        self.counts: Counter[str] = Counter()
        self.recorder = Recorder(
            folder / "run", world_size=1 + len(RANKS), ring_bytes=RING, **PATIENCE
        )

    def run(self) -> None:
        """Record and have children until the time is up, then close."""
        stop = threading.Event()
        life = self.lives.make(THREADS, keys=2)
        recording = threading.Thread(
            target=work,
            args=(self.recorder, self.folder, life, lambda n: stop.is_set()),
            kwargs={"pause_s": 0.1, "eager": EAGER},
            daemon=True,  # and so are the threads it starts: nothing keeps a failed trainer alive
        )
        recording.start()
        while time.monotonic() < self.end:
            self.have_children()
            take_sample(time.monotonic() - self.begun).append_to(self.folder / "samples")
            self.counts["rounds"] += 1
            time.sleep(self.rng.uniform(0, 0.1))
        stop.set()
        recording.join()
        close(self.recorder)
        stats = self.recorder.stats()
        if stats["dropped"] or stats["accepted"] != stats["written"]:
            raise AssertionError(f"not all is written: {stats}")
        self.counts["key_sets"] = stats["key_sets"]
        self.counts["errors"] = stats["errors"]

    def have_children(self) -> None:
        """Start one to three children and see them, and theirs, end."""
        reader, writer = os.pipe()  # closed by the last descendant that ends
        waits = []
        if self.counts["rounds"] % 20 == 1:
            waits.append(self.multiprocess("spawn"))
        for _ in range(self.rng.randint(1, 3)):
            start = self.rng.choice(
                (self.killed, self.killed, self.exits, self.nested, self.orphan, self.multiprocess)
            )
            waits.append(start())
        os.close(writer)
        for wait in waits:
            wait()
        os.read(reader, 1)
        os.close(reader)

    def some(self) -> int:
        """How many records a child makes."""
        return self.rng.randint(1, 150)

    def killed(self) -> Callable[[], None]:
        """Kill a child at a random instant."""
        life = self.lives.make(self.rng.choice((1, 2)))
        pid = fork(lambda: work(self.recorder, self.folder, life, endless))
        self.counts["forks"] += 1
        self.counts["kills"] += 1
        delay_s = self.rng.uniform(0, 0.15)

        def wait() -> None:
            time.sleep(delay_s)
            kill(pid)

        return wait

    def exits(self) -> Callable[[], None]:
        """A child that leaves by os._exit(), with or without close(), or as a program ends."""
        life, records = self.lives.make(self.rng.choice((1, 2))), self.some()
        way = self.rng.choice(("_exit", "close", "exit"))

        def body() -> None:
            work_as_process(self.recorder, self.folder, life, records)
            if way == "close":
                close(self.recorder)
            if way == "exit":
                sys.exit(0)

        pid = fork(body)
        self.counts["forks"] += 1
        return lambda: expect(pid, 0)

    def nested(self) -> Callable[[], None]:
        """A child that has a child, and kills it."""
        life, below, records = self.lives.make(), self.lives.make(), self.some()

        def body() -> None:
            pid = fork(lambda: work(self.recorder, self.folder, below, endless))
            work_as_process(self.recorder, self.folder, life, records)
            kill(pid)

        pid = fork(body)
        self.counts["forks"] += 2
        self.counts["kills"] += 1
        return lambda: expect(pid, 0)

    def orphan(self) -> Callable[[], None]:
        """A child's child that outlives it."""
        life, records = self.lives.make(), self.some()

        def outlive() -> None:
            work_as_process(self.recorder, self.folder, life, records)
            close(self.recorder)

        def leave() -> None:
            fork(outlive)

        pid = fork(leave)
        self.counts["forks"] += 2
        return lambda: expect(pid, 0)

    def multiprocess(self, method: str = "fork") -> Callable[[], None]:
        """A child of multiprocessing, which ends by itself or is terminated."""
        life, records = self.lives.make(), self.some()
        terminated = self.rng.random() < 0.3
        process: BaseProcess = multiprocessing.get_context(method).Process(
            target=work_as_process, args=(self.recorder, self.folder, life, records)
        )
        process.start()
        self.counts["spawned" if method == "spawn" else "forks"] += 1
        delay_s = self.rng.uniform(0, 0.5 if method == "spawn" else 0.1)

        def wait() -> None:
            if terminated:
                time.sleep(delay_s)
                process.terminate()
            process.join()
            allowed = (0, -signal.SIGTERM) if terminated else (0,)
            if process.exitcode not in allowed:
                raise AssertionError(f"a {method} child ended with status {process.exitcode}")
            self.counts["kills"] += process.exitcode != 0
            process.close()

        return wait


def record_as_rank(folder: Path, life: Life, rank: int, options: dict[str, Any]) -> None:
    """What a rank does until it is killed."""
    recorder = Recorder(folder / "run", rank=rank, world_size=1 + len(RANKS), **PATIENCE, **options)
    work(recorder, folder, life, endless)


def restart_ranks(folder: Path, seconds: float, seed: int) -> Counter[str]:
    """Kill a rank, start it anew, until the time is up."""
    end = time.monotonic() + seconds
    rng = random.Random(seed)
    lives = Lives(folder, "ranks", 500_000)
    counts: Counter[str] = Counter()
    alive: dict[int, int] = {}
    while time.monotonic() < end:
        rank = rng.choice(RANKS)
        if rank in alive:
            kill(alive.pop(rank))
            counts["kills"] += 1
        life = lives.make(rng.choice((1, 2)))
        options = {
            "ring_bytes": rng.choice((1 << 16, 1 << 18)),
            "flush_interval_s": rng.choice((0.005, 0.1)),
            "fsync": rng.choice(("none", "interval", "every_flush")),
        }
        alive[rank] = fork(partial(record_as_rank, folder, life, rank, options))
        time.sleep(rng.choice((rng.uniform(0, 0.1), rng.uniform(0, 1.0))))
    for pid in alive.values():
        kill(pid)
        counts["kills"] += 1
    return counts


def main() -> int:
    """Be one of the two."""
    part, folder = sys.argv[1], Path(sys.argv[2])
    seconds, seed = float(sys.argv[3]), int(sys.argv[4])
    if part == "ranks":
        counts = restart_ranks(folder, seconds, seed)
    else:
        trainer = Trainer(folder, seconds, seed)
        trainer.run()
        counts = trainer.counts
    sys.stdout.write(json.dumps(counts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
