"""A page of the ring's file that the system cannot back ends no training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foundry_fastlog import read_run, recover

# userfaultfd(2) lets stores to pages end in SIGBUS while they can be read: what a full file system
# that copies on write does, and one that has shut itself down.
REFUSE = """
import ctypes, os, platform, re, struct
from foundry_fastlog import Recorder

NUMBERS = {"x86_64": 323, "aarch64": 282}
FLAG_WP, SIGBUS, WP_SHMEM = 1 << 0, 1 << 7, 1 << 12

def ioctl(fd, request, *words):
    libc = ctypes.CDLL(None, use_errno=True)
    text = ctypes.create_string_buffer(struct.pack(f"{len(words)}Q", *words))
    if libc.ioctl(fd, ctypes.c_ulong(request), text) != 0:
        raise OSError(ctypes.get_errno(), "userfaultfd")

def refuse_stores():
    '''Let stores to all pages of the ring fault; a process without the right leaves with 77.'''
    libc = ctypes.CDLL(None, use_errno=True)
    uffd = libc.syscall(NUMBERS.get(platform.machine(), -1), os.O_CLOEXEC | os.O_NONBLOCK)
    if uffd < 0:
        os._exit(77)
    try:
        ioctl(uffd, 0xC018AA3F, 0xAA, FLAG_WP | SIGBUS | WP_SHMEM, 0)
    except OSError:
        os._exit(77)
    for line in open("/proc/self/maps"):
        if ".ring" in line:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            ioctl(uffd, 0xC020AA00, begin, end - begin, 2, 0)
            ioctl(uffd, 0xC018AA06, begin, end - begin, 1)
    return uffd
"""


def run_child(
    code: str, run: Path, *within: str, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own; skip where pages cannot be refused."""
    if sys.platform != "linux":
        pytest.skip("pages are only replaced on Linux")
    command = [*within, sys.executable, "-c", REFUSE + code, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        pytest.skip("this process may not use userfaultfd for shared memory")
    assert done.returncode == status, done.stderr
    return done


def test_training_goes_on_and_nothing_is_lost(run: Path) -> None:
    """Several threads record through the fault; it is told once, and the run ends whole."""
    code = """
import json, sys, threading
recorder = Recorder(sys.argv[1], ring="shm", ring_bytes=1 << 20)
def record(thread):
    for n in range(5000):
        assert recorder.record(n, thread=thread, n=n)
assert recorder.record(0, thread=9, n=0)
uffd = refuse_stores()
threads = [threading.Thread(target=record, args=(t,)) for t in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert recorder.flush(10)
stats = recorder.stats()
print(json.dumps([stats["errors"], stats["ring_path"], stats["last_error"]]))
assert recorder.close(10)
"""
    done = run_child(code, run)
    errors, ring, last = json.loads(done.stdout)
    assert (errors, ring) == (1, None)
    assert last.startswith("keep the ring in /dev/shm/fastlog-")
    assert done.stderr.count("Training goes on with a ring in memory") == 1
    opened = read_run(run)
    found = sorted((m["thread"], m["n"]) for m in (x["metrics"] for x in opened.lines("metrics")))
    assert found == [*((t, n) for t in range(4) for n in range(5000)), (9, 0)]
    assert all(check.complete for check in opened.check())
    assert opened.problems == []
    assert list((run / ".fastlog").iterdir()) == []


def test_a_kill_behind_it_is_known(run: Path) -> None:
    """No stale ring is recovered, and nobody says complete."""
    code = """
import os, sys
recorder = Recorder(sys.argv[1], ring="shm", flush_interval_s=0.01)
recorder.record(0, n=0)
uffd = refuse_stores()
for n in range(1, 100):
    recorder.record(n, n=n)
while recorder.stats()["ring_path"] is not None:
    recorder.flush(10)
recorder.flush(10)
os.kill(os.getpid(), 9)
"""
    run_child(code, run, status=-signal.SIGKILL)
    assert [report.outcome for report in recover(run)] == ["absent"]
    opened = read_run(run)
    assert [line["step"] for line in opened.lines("metrics")] == list(range(100))
    assert [problem.kind for problem in opened.problems] == ["ring"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_ring_that_shared_memory_had_no_room_for_is_guarded_too(run: Path) -> None:
    """It lies in the run then, here on a tmpfs, whose pages can be refused."""
    mount = (
        f"mount -t tmpfs -o size=1m none /dev/shm && mount -t tmpfs none {run.parent} || exit 77"
    )
    code = """
import sys
recorder = Recorder(sys.argv[1], ring="shm")
assert recorder.stats()["ring_path"].startswith(sys.argv[1])
recorder.record(0, n=0)
uffd = refuse_stores()
assert recorder.record(1, n=1)
assert recorder.close(10)
"""
    run_child(code, run, "unshare", "-m", "sh", "-c", f'{mount}; exec "$@"', "sh")


BEFORE = {
    "nothing": ("", ""),
    "faulthandler": ("import faulthandler; faulthandler.enable()", "Bus error"),
}
SENT = "import os; os.kill(os.getpid(), signal.SIGBUS); print('lives')"
FAULT = """
import mmap, tempfile
with tempfile.TemporaryFile() as file:
    file.truncate(4096)
    page = mmap.mmap(file.fileno(), 4096)
    file.truncate(0)
    page[0] = 1
"""


def run_lines(*lines: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "\n".join(["import signal", *lines])]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("fault", [SENT, FAULT], ids=["sent", "fault"])
def test_other_bus_errors_are_left_to_others(run: Path, before: str, fault: str) -> None:
    """What is no page of a ring ends the process as ever, with the handlers of others asked."""
    code, said = BEFORE[before]
    recorder = f"recorder = foundry_fastlog.Recorder({str(run)!r})"
    done = run_lines(code, "import foundry_fastlog", recorder, fault)
    assert done.returncode == -signal.SIGBUS
    assert said in done.stderr


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "lambda *_: print('handled')"])
def test_a_handler_of_the_program_gets_signals_that_are_sent(run: Path, handler: str) -> None:
    """A signal that somebody sends is the program's."""
    with_recorder = f"with foundry_fastlog.Recorder({str(run)!r}): {SENT}"
    done = run_lines(
        f"signal.signal(signal.SIGBUS, {handler})", "import foundry_fastlog", with_recorder
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "lives"
    assert ("handled" in done.stdout) == ("handled" in handler)
