"""A page of the ring's file that the system cannot back ends no training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
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
    code: str, *arguments: str, within: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own; skip where pages cannot be refused."""
    command = [*within, sys.executable, "-c", REFUSE + textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        pytest.skip("this process may not use userfaultfd for shared memory")
    return done


@pytest.mark.skipif(sys.platform != "linux", reason="pages are only replaced on Linux")
class TestRefusedPages:
    """Stores to the ring's file fault."""

    def test_training_goes_on_and_nothing_is_lost(self, tmp_path: Path) -> None:
        """Several threads record through the fault; it is told once, and the run ends whole."""
        done = run_child(
            """
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
            """,
            str(tmp_path / "run"),
        )
        assert done.returncode == 0, done.stderr
        errors, ring, last = json.loads(done.stdout)
        assert (errors, ring) == (1, None)
        assert last.startswith("keep the ring in /dev/shm/fastlog-")
        assert done.stderr.count("Training goes on with a ring in memory") == 1
        run = read_run(tmp_path / "run")
        found = sorted((m["thread"], m["n"]) for m in (x["metrics"] for x in run.lines("metrics")))
        assert found == [*((t, n) for t in range(4) for n in range(5000)), (9, 0)]
        assert all(check.complete for check in run.check())
        assert run.problems == []
        assert list((tmp_path / "run" / ".fastlog").iterdir()) == []

    def test_a_kill_behind_it_is_known(self, tmp_path: Path) -> None:
        """No stale ring is recovered, and nobody says complete."""
        done = run_child(
            """
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
            """,
            str(tmp_path / "run"),
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert [report.outcome for report in recover(tmp_path / "run")] == ["absent"]
        run = read_run(tmp_path / "run")
        assert [line["step"] for line in run.lines("metrics")] == list(range(100))
        assert [problem.kind for problem in run.problems] == ["ring"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
    def test_a_ring_that_shared_memory_had_no_room_for_is_guarded_too(self, tmp_path: Path) -> None:
        """It lies in the run then, here on a tmpfs, whose pages can be refused."""
        mount = (
            f"mount -t tmpfs -o size=1m none /dev/shm && mount -t tmpfs none {tmp_path} || exit 77"
        )
        done = run_child(
            """
            import sys
            recorder = Recorder(sys.argv[1], ring="shm")
            assert recorder.stats()["ring_path"].startswith(sys.argv[1])
            recorder.record(0, n=0)
            uffd = refuse_stores()
            assert recorder.record(1, n=1)
            assert recorder.close(10)
            """,
            str(tmp_path / "run"),
            within=("unshare", "-m", "sh", "-c", f'{mount}; exec "$@"', "sh"),
        )
        assert done.returncode == 0, done.stderr


BEFORE = {
    "nothing": ("", -signal.SIGBUS, ""),
    "faulthandler": ("import faulthandler; faulthandler.enable()", -signal.SIGBUS, "Bus error"),
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


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("fault", [SENT, FAULT], ids=["sent", "fault"])
def test_other_bus_errors_are_left_to_others(tmp_path: Path, before: str, fault: str) -> None:
    """What is no page of a ring ends the process as ever, with the handlers of others asked."""
    code, status, said = BEFORE[before]
    lines = ["import signal", code, "from foundry_fastlog import Recorder"]
    lines += [f"recorder = Recorder({str(tmp_path / 'run')!r})", fault]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert said in done.stderr


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "lambda *_: print('handled')"])
def test_a_handler_of_the_program_gets_signals_that_are_sent(tmp_path: Path, handler: str) -> None:
    """A signal that somebody sends is the program's."""
    code = f"""
        import signal
        signal.signal(signal.SIGBUS, {handler})
        from foundry_fastlog import Recorder
        with Recorder({str(tmp_path / "run")!r}):
            {SENT}
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "lives"
    assert ("handled" in done.stdout) == ("handled" in handler)
