"""One process of the world: it records, forks, closes and breaks things as it is told.

    python tests/world/worker.py FOLDER PROCESS [direct]

Commands come as JSON lines over a socket, and each is answered. What it sees go wrong itself (a
``record()`` that raises, counters that do not add up) is in the answer's ``faults``.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
# Behind all others: an extension built elsewhere, as for the sanitizers, comes first.
sys.path.append(str(Path(__file__).parents[2]))

from foundry_fastlog import Recorder, RecorderClosedError
from world.mishaps import LIMITS, Mishaps
from world.reading import read, recover
from world.records import PER_PROCESS, THREADS, Acks, content

HUM = 8  # threads from this number on record in the background
MOST_HUMMED = 2000  # a world is to be read in a second
LONGEST_VAIN = 40  # tries before a record that is refused is given up
_PR_SET_PDEATHSIG = 1
#: MiB that a recorder may take beside its ring, and recoveries that are repeated.
_MOST_TAKEN, _MOST_GROWN = 64, 16
_WARM = 20
SANITIZED = os.environ.get("LD_PRELOAD", "")  # keeps what was freed


def resident_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


class Asked:
    """A value on the CPU that is asked what it is when it is recorded."""

    ndim = 0

    def __init__(self, item: Callable[[], float]) -> None:
        self.item = item

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


class Worker(Mishaps):
    """The process. Its main thread obeys; others record."""

    def __init__(self, folder: Path, process: int, recorder: Recorder | None = None) -> None:
        self.folder = folder
        # Not what is set now: a process that took another's place inherited its limits.
        hard = {number: resource.getrlimit(number)[1] for number in LIMITS.values()}
        self.limits = {number: (most, most) for number, most in hard.items()}
        self.user_files = []
        self.in_memory = False
        self.begin(process, recorder)

    def begin(self, process: int, recorder: Recorder | None, *, busy: bool = False) -> None:
        """Start anew, as another process: what a fork left behind is forgotten."""
        self.process = process
        self.recorder = None if recorder is None or recorder.closed else recorder
        self.index = -1
        self.do_relax()  # the test's own descriptors are no matter of chance
        self.acks = Acks(self.folder / "acks" / str(process), process)
        self.hums: list[threading.Thread] = []
        self.stop = threading.Event()
        # Before the recorder was opened; 0 where that is not known.
        self.descriptors = self.resident = 0
        self.faults: list[tuple[str, str]] = []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(self.folder / "door"))
        self.input = self.socket.makefile("r")
        self.say({"process": process, "busy": busy})
        if self.recorder is not None:
            self.begin_writer()
            if self.in_memory:  # as the parent's: it may be killed before it can say so
                self.acks.place(self.index, None)

    def begin_writer(self) -> None:
        self.index += 1
        self.placed = False
        self.calls = [0] * THREADS
        self.sure = True  # every call is counted
        self.acks.begin(self.index)

    @property
    def writer(self) -> int:
        return self.process * PER_PROCESS + self.index

    def place(self) -> None:
        if self.recorder is not None and not self.recorder.closed:
            path = self.recorder.stats()["ring_path"]
            self.placed, self.in_memory = True, path is None
            self.acks.place(self.index, path)

    def fault(self, kind: str, text: str) -> None:
        self.faults.append((kind, f"process {self.process}: {text}"))

    def say(self, answer: dict[str, Any]) -> None:
        self.socket.sendall(json.dumps(answer).encode() + b"\n")

    def serve(self) -> None:
        for line in self.input:
            command = json.loads(line)
            answer: dict[str, Any] = {}
            try:
                answer = getattr(self, "do_" + command.pop("do"))(**command) or {}
            except Exception:  # noqa: BLE001 - whatever it is, the driver has to know
                self.fault("raised", traceback.format_exc())
            answer["faults"], self.faults = self.faults, []
            self.say(answer)
        os._exit(0)

    # ---- recording -------------------------------------------------------------------------------

    def record_one(self, thread: int, n: int) -> bool:
        """Record the n-th record of a thread; literal names, as in a program."""
        recorder, w, t = self.recorder, self.writer, thread
        assert recorder is not None
        stream, name, value = content(w, t, n)
        if stream == "system":
            return recorder.system({"w": w, "t": t, "n": n, name: value}, step=n)
        if stream != "metrics":
            error = ValueError("e") if stream == "errors" else None
            context = {"w": w, "t": t, "n": n, name: value}
            return recorder.event("hello", step=n, error=error, context=context)
        if name == "loss":
            return recorder.record(n, w=w, t=t, n=n, loss=value)
        if name == "acc":
            return recorder.record(n, w=w, t=t, n=n, acc=value)
        if name == "lr":
            return recorder.record(n, w=w, t=t, n=n, lr=value)
        return recorder.record_dict(n, {"w": w, "t": t, "n": n, name: value})

    def record_some(self, thread: int, count: int, pause_us: int = 0) -> None:
        """Record from one thread, until told to stop at the latest."""
        index = self.index
        n = begin = self.acks.acked(index, thread)
        vain = 0
        while n - begin != count and vain < LONGEST_VAIN and not self.stop.is_set():
            try:
                accepted = self.record_one(thread, n)
            except RecorderClosedError:
                return
            except MemoryError:
                self.sure = False
                vain += 1
                continue
            except Exception:  # noqa: BLE001 - logging never ends training
                self.sure = False
                self.fault("raised", traceback.format_exc())
                return
            self.calls[thread] += 1
            if accepted:
                n += 1
                self.acks.ack(index, thread, n)
                if not self.placed:
                    self.place()
            else:
                vain += 1
                time.sleep(0.005)
            if pause_us and n % 8 == 0:
                time.sleep(pause_us * 8e-6)

    def record_together(self, threads: int, count: int, pause_us: int = 0) -> None:
        """Record from several threads that begin at the same moment."""
        barrier = threading.Barrier(threads)

        def run(thread: int) -> None:
            barrier.wait()
            self.record_some(thread, count, pause_us)

        others = [threading.Thread(target=run, args=(t,)) for t in range(1, threads)]
        for thread in others:
            thread.start()
        run(0)
        for thread in others:
            thread.join()

    def do_open(self, path: str, options: dict[str, Any]) -> dict[str, Any]:
        if self.recorder is None:
            with self.unlimited():
                self.descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
                self.resident = resident_mib()
            self.recorder = Recorder(path, **options)
            self.begin_writer()
            self.place()
        return {}

    def do_record(self, threads: int, count: int, pause_us: int) -> None:
        if self.recorder is not None:
            self.record_together(threads, count, pause_us)
            self.place()

    def do_hum(self, threads: int, pause_us: int) -> None:
        """Record in the background from now on."""
        if self.recorder is None or self.hums:
            return
        self.stop = threading.Event()
        for i in range(threads):
            thread = threading.Thread(
                target=self.record_some, args=(HUM + i, MOST_HUMMED, pause_us), daemon=True
            )
            thread.start()
            self.hums.append(thread)

    def do_quiet(self) -> None:
        self.stop.set()
        for thread in self.hums:
            thread.join()
        self.hums = []
        self.stop = threading.Event()

    def do_flush(self) -> dict[str, Any]:
        """Flush; what was accepted before is in the files then."""
        if self.recorder is None:
            return {}
        counts = self.acks.all_acked(self.index)
        flushed = self.recorder.flush(1)
        if flushed:
            self.acks.flushed(self.index, counts)
        return {"flushed": flushed}

    def do_close(self, timeout_s: float) -> dict[str, Any]:
        """Close, while threads record, and look at the counters. May be asked again."""
        recorder = self.recorder
        if recorder is None:
            return {}
        closed = recorder.close(timeout_s)
        self.do_quiet()
        counts, stats = self.acks.all_acked(self.index), recorder.stats()
        if closed:
            self.acks.flushed(self.index, counts)
            self.acks.end(self.index)
            if stats["written"] != stats["accepted"]:
                self.fault("counters", f"closed, but not all is written: {stats}")
        if stats["calls"] != stats["accepted"] + stats["dropped"]:
            self.fault("counters", f"calls are not accepted and dropped ones: {stats}")
        if SANITIZED == "" and self.resident and stats["ring_path"] is not None:
            with self.unlimited():
                grown = resident_mib() - self.resident - (stats["ring_bytes"] >> 20)
            if grown > _MOST_TAKEN:
                self.fault("memory", f"{grown} MiB more than before, beside the ring")
        if self.sure and sum(counts) != stats["accepted"]:
            self.fault("counters", f"{sum(counts)} records were accepted: {stats}")
        self.check_user_files()
        if closed:
            self.recorder = recorder = None  # they go with the object
            self.check_descriptors()
        return {"closed": closed}

    # ---- other processes -------------------------------------------------------------------------

    def be_born(self, process: int, threads: int, count: int) -> None:
        """Be the child of a fork, and record at once from several threads."""
        self.input.close()
        self.socket.close()
        self.begin(process, self.recorder, busy=True)
        if self.recorder is not None and threads:
            self.record_together(threads, count)
            self.place()

    def obey(self) -> None:
        """Say that the first records are made, and serve. Never returns."""
        self.say({"faults": self.faults})
        self.faults = []
        self.serve()

    def go_on_as(self, process: int, threads: int, count: int) -> None:
        """Be the child of a fork. Never returns."""
        self.be_born(process, threads, count)
        self.obey()

    def do_fork(self, child: int, way: str, threads: int, count: int) -> None:
        if way == "item" and self.recorder is not None:
            self.fork_in_item(child, threads, count)
        elif way == "multiprocessing":
            self.start_child("fork", self.go_on_as, (child, threads, count))
        elif os.fork() == 0:
            self.go_on_as(child, threads, count)

    def fork_in_item(self, child: int, threads: int, count: int) -> None:
        """Fork while a value is asked what it is; both processes go on in the midst of the call."""
        recorder = self.recorder
        assert recorder is not None
        both = (self.writer, child * PER_PROCESS)
        for t in range(HUM + 4, THREADS):  # one whose first record has the same name in both
            names = {content(writer, t, 0)[:2] for writer in both}
            if len(names) == 1 and self.acks.acked(self.index, t) == 0:
                break
        else:
            t, names = 0, set()
        stream, name = names.pop() if names else ("", "")
        if stream != "metrics":
            if os.fork() == 0:
                self.go_on_as(child, threads, count)
            return

        def fork() -> float:
            if os.fork() == 0:
                self.be_born(child, threads, count)
            return content(self.writer, t, 0)[2]

        values = {name: Asked(fork), "w": Asked(lambda: self.writer), "t": t, "n": 0}
        accepted = recorder.record_dict(0, values)
        self.calls[t] += 1
        self.acks.ack(self.index, t, accepted)
        if self.process == child:
            self.obey()

    def do_ends(self) -> dict[str, Any]:
        ends = []
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                ends.append([found[0], os.waitstatus_to_exitcode(found[1])])
        return {"ends": ends}

    def do_spawn(self, child: int) -> None:
        recorder = None if self.recorder is None or self.recorder.closed else self.recorder
        self.start_child("spawn", spawned, (self.folder, child, recorder))

    def start_child(self, method: str, target: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Start a child of multiprocessing, which needs descriptors of its own for that."""
        self.descriptors = 0
        limits = {number: resource.getrlimit(number) for number in self.limits}
        self.do_relax()
        multiprocessing.get_context(method).Process(target=target, args=args).start()
        # Nobody waits for it, and its parent may end first.
        multiprocessing.process._children.clear()  # type: ignore[attr-defined]
        for number, limit in limits.items():
            resource.setrlimit(number, limit)

    def do_exec(self, child: int) -> None:
        """Become another program, which is a worker too. Without files Python does not start."""
        self.do_relax()
        os.execv(sys.executable, [sys.executable, __file__, str(self.folder), str(child)])

    def do_exit(self, how: str) -> None:
        self.say({"faults": self.faults})
        if how == "exit":
            sys.exit(0)
        if how == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)

    # ---- readers ---------------------------------------------------------------------------------

    def do_read(self, path: str, how: str) -> dict[str, Any]:
        return read(path, how, self.fault)

    def do_recover(self, path: str, how: str, times: int = 1) -> dict[str, Any]:
        """Recover a run, for three seconds at most."""
        end = time.monotonic() + 3
        answer = recover(path, how, self.fault)
        warm = (0, 0)
        for n in range(1, times):
            if time.monotonic() > end:
                break
            recover(path, how, self.fault)
            held = (resident_mib(), len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - a count
            if n == _WARM:
                warm = held
            elif (
                warm[1]
                and SANITIZED == ""
                and (held[1] != warm[1] or held[0] - warm[0] > _MOST_GROWN)
            ):
                self.fault("leak", f"MiB and descriptors {warm}, after {n - _WARM} more {held}")
                break
        return answer


def spawned(folder: Path, process: int, recorder: Recorder | None) -> None:
    worker = Worker(folder, process, recorder)
    worker.place()
    worker.serve()


def main() -> None:
    if sys.argv[3:] == ["direct"]:  # else its parent is a worker, which may die before it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Worker(Path(sys.argv[1]), int(sys.argv[2])).serve()


if __name__ == "__main__":
    main()
