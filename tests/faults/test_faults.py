"""Faults of the disk at every system call of the sink and of the ring.

Each test runs a whole training-like loop in a process in which one call fails (tests/faults/shim.c,
by LD_PRELOAD), and then counts lines: training never sees an exception, and everything that
`record()` accepted is in the files exactly once, at once or after recovery.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foundry_fastlog import Recorder, _core, read_run
from foundry_fastlog.run.listing import list_segments

HERE = Path(__file__).parent
# `make crash` has the time for a real stall; the hermetic environment of a test hides the variable.
STALL_S = 60 if os.environ.get("FASTLOG_CRASH") == "release" else 3
SIXTEEN_MIB = 16 << 20  # no back-pressure: what is tested is that nothing that fits is lost

WRITE_ERRORS = {
    "ENOSPC": errno.ENOSPC,
    "EDQUOT": errno.EDQUOT,
    "EIO": errno.EIO,
    "EROFS": errno.EROFS,
    "short write": 0,
}


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the preloaded library."""
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None, "a C compiler builds the package, so there is one"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", library, HERE / "shim.c", "-ldl"], check=True
    )
    return library


class Fault:
    """One scenario with one fault."""

    def __init__(self, shim: Path, tmp_path: Path) -> None:
        """Keep the places."""
        self.shim = shim
        self.run = tmp_path / "run"
        self.switch = tmp_path / "fault-on"
        self.log = tmp_path / "faults"

    def play(
        self,
        mode: str,
        call: str,
        code: int,
        *,
        suffix: str = ".jsonl",
        count: int = 0,
        below: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Run the scenario; return its answer. Asserts that the fault really happened."""
        environment = {
            **os.environ,
            "LD_PRELOAD": str(self.shim),
            "FAULT_DIR": below or str(self.run),
            "FAULT_SWITCH": str(self.switch),
            "FAULT_CALL": call,
            "FAULT_ERRNO": str(code),
            "FAULT_SUFFIX": suffix,
            "FAULT_COUNT": str(count),
            "FAULT_LOG": str(self.log),
        }
        options.setdefault("ring_bytes", SIXTEEN_MIB)
        result = subprocess.run(
            [
                sys.executable,
                HERE / "scenario.py",
                mode,
                self.run,
                self.switch,
                json.dumps(options),
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert self.log.exists(), "the fault did not happen: the test would prove nothing"
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    def start(
        self, code: str, call: str, number: int, *, suffix: str = ".jsonl"
    ) -> subprocess.Popen[str]:
        """Start a program that gets the run as its argument, with a fault, in its own group."""
        environment = {
            **os.environ,
            "LD_PRELOAD": str(self.shim),
            "FAULT_DIR": str(self.run),
            "FAULT_SWITCH": str(self.switch),
            "FAULT_CALL": call,
            "FAULT_ERRNO": str(number),
            "FAULT_SUFFIX": suffix,
            "FAULT_LOG": str(self.log),
        }
        return subprocess.Popen(
            [sys.executable, "-c", code, self.run],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run_with(self, code: str, call: str, number: int, *, check: bool = True) -> None:
        """Run a program to its end."""
        process = self.start(code, call, number)
        process.communicate(timeout=120)
        assert process.returncode == 0 or not check
        assert self.log.exists(), "the fault did not happen: the test would prove nothing"

    def lines(self, stream: str) -> list[dict[str, Any]]:
        """Read all lines of a stream, segments in order; every one must parse."""
        found = sorted(self.run.glob(f"{stream}*.jsonl"), key=lambda p: (p.name.count("."), p.name))
        return [json.loads(line) for p in found for line in p.read_text().splitlines()]

    def expect_everything(self, answer: dict[str, Any]) -> None:
        """Check that each accepted record is in the files exactly once."""
        assert answer["stats"]["dropped"] == 0
        for stream, count in answer["accepted"].items():
            assert len(self.lines(stream)) == count, stream
        checks = read_run(self.run).check()
        assert not any(check.missing or check.duplicates for check in checks)
        assert [line["step"] for line in self.lines("metrics")] == list(range(3000))


@pytest.fixture
def fault(shim: Path, tmp_path: Path) -> Fault:
    """A scenario in a directory of its own."""
    return Fault(shim, tmp_path)


@pytest.mark.parametrize("name", WRITE_ERRORS)
def test_one_refused_write_is_tried_again(fault: Fault, name: str) -> None:
    """One failing pwrite: told once, tried again, all written when the recorder closes."""
    answer = fault.play("heals", "pwrite", WRITE_ERRORS[name], count=1)
    assert answer["closed"]
    fault.expect_everything(answer)
    assert answer["stats"]["errors"] == (0 if name == "short write" else 1)


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EIO", "EROFS"])
def test_a_disk_that_heals_gets_everything(fault: Fault, name: str) -> None:
    """Every write fails for a while: nothing is lost when space returns."""
    answer = fault.play("heals", "pwrite", WRITE_ERRORS[name])
    assert answer["closed"]
    fault.expect_everything(answer)
    assert len([text for text in answer["told"] if "could not" in text]) == 1
    assert name in errno.errorcode.values()
    assert os.strerror(WRITE_ERRORS[name]) in answer["stats"]["first_error"]


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EIO", "EROFS"])
def test_a_disk_that_stays_dead_leaves_all_in_the_ring(fault: Fault, name: str) -> None:
    """Writes fail to the end: close() says so in time, and recovery finds every record."""
    answer = fault.play("midway", "pwrite", WRITE_ERRORS[name])
    assert not answer["closed"]
    assert answer["stats"]["written"] < answer["stats"]["accepted"]
    fault.switch.unlink()
    reports = _core.recover_run(str(fault.run))
    assert [report["outcome"] for report in reports] == ["recovered"]
    fault.expect_everything(answer)


def test_endless_short_writes_only_slow_the_flush_thread(fault: Fault) -> None:
    """Pwrite takes half of what it is given, always: all lines are whole in the end."""
    answer = fault.play("midway", "pwrite", 0)
    fault.switch.unlink()
    _core.recover_run(str(fault.run))
    fault.expect_everything(answer)


@pytest.mark.parametrize("call", ["open", "mkdir"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EMFILE])
def test_a_run_that_cannot_be_created_waits_in_memory(fault: Fault, call: str, code: int) -> None:
    """Directory or files cannot be made: training goes on, and it heals when they can."""
    answer = fault.play("from_start", call, code, suffix="", count=6)
    assert answer["closed"]
    fault.expect_everything(answer)


@pytest.mark.parametrize(
    ("call", "code", "suffix"),
    [
        ("posix_fallocate", errno.ENOSPC, ".ring.tmp"),
        ("pwrite", errno.ENOSPC, ".ring.tmp"),
        ("mmap", errno.ENOMEM, ".ring.tmp"),
        ("flock", errno.ENOLCK, ".ring.tmp"),
        ("rename", errno.EROFS, ".ring.tmp"),
        ("open", errno.ENOSPC, ".ring.tmp"),
    ],
)
def test_a_ring_that_cannot_lie_in_the_run_lies_elsewhere(
    fault: Fault, call: str, code: int, suffix: str
) -> None:
    """No ring file in the run: a local directory is used, or memory; nothing else changes."""
    answer = fault.play("from_start", call, code, suffix=suffix)
    assert answer["closed"]
    fault.expect_everything(answer)
    place = answer["stats"]["ring_path"]
    assert place is None or not place.startswith(str(fault.run))
    assert list((fault.run / ".fastlog").iterdir()) == []


@pytest.mark.parametrize("odd", ["new\nline", "return\r"])
def test_a_temporary_place_that_no_pointer_can_name_is_skipped(
    fault: Fault, odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pointer has the ring's path in a line: of one that it cannot name nobody could read it."""
    place = tmp_path / odd
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    answer = fault.play("from_start", "posix_fallocate", errno.ENOSPC, suffix=".ring.tmp")
    ring = answer["stats"]["ring_path"]
    assert ring is None or not ring.startswith(str(place))
    fault.expect_everything(answer)


@pytest.mark.parametrize("call", ["posix_fallocate", "rename"])
@pytest.mark.parametrize("below", ["/dev/shm/", "/"])
def test_shared_memory_that_is_full_is_replaced_by_the_run(
    fault: Fault, below: str, call: str
) -> None:
    """By where the ring lies without it, then by memory; one warning says what that means."""
    answer = fault.play(
        "from_start", call, errno.ENOSPC, suffix=".ring.tmp", below=below, ring="shm"
    )
    fault.expect_everything(answer)
    (told,) = answer["told"]
    assert "/dev/shm/fastlog-" in told or below == "/"
    assert "(errno 28)" in told
    if below == "/":
        assert answer["stats"]["ring_path"] is None
        assert "in memory only" in told
        assert "A killed process then loses" in told
    else:
        assert answer["stats"]["ring_path"].startswith(str(fault.run / ".fastlog"))
        assert "A killed process loses nothing, but the disk's write-back may delay" in told
    assert list((fault.run / ".fastlog").iterdir()) == []


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free space there"),
        (errno.EACCES, "make the place writable"),
        (errno.EROFS, "make the place writable"),
        (errno.EMFILE, "close files or raise the limit of open ones"),
        (errno.EIO, "fix the cause"),
    ],
)
@pytest.mark.parametrize("ring", ["file", "memory"])
def test_a_fault_is_told_with_where_records_wait_and_what_helps(
    fault: Fault, ring: str, code: int, remedy: str
) -> None:
    """The ring's file by its path; and by the error what can be done."""
    answer = fault.play("heals", "pwrite", code, ring=ring)
    place = answer["stats"]["ring_path"]
    where = "memory" if place is None else f"the ring file {place}"
    (told,) = answer["told"]
    assert f"records wait in {where} and the write is retried; {remedy} before" in told


@pytest.mark.parametrize("fsync", ["interval", "every_flush"])
@pytest.mark.parametrize("count", [1, 0])
def test_a_failed_fsync_is_not_trusted_when_it_works_again(
    fault: Fault, fsync: str, count: int
) -> None:
    """EIO of fdatasync: the bytes go into a new segment; no line is lost or twice there."""
    answer = fault.play(
        "midway", "fdatasync", errno.EIO, count=count, fsync=fsync, fsync_interval_s=0.01
    )
    if not answer["closed"]:
        fault.switch.unlink()
        _core.recover_run(str(fault.run))
    fault.expect_everything(answer)
    assert answer["stats"]["errors"] >= 1
    if count == 1:
        assert (fault.run / "metrics.000001.jsonl").exists() or (
            fault.run / "performance.000001.jsonl"
        ).exists()


def test_every_segment_is_forced_to_the_disk_before_it_is_left(fault: Fault) -> None:
    """An fsync interval longer than the run: each segment has its own fsync at its end."""
    answer = fault.play(
        "from_start", "fdatasync", -1, fsync="interval", fsync_interval_s=3600, segment_bytes=8192
    )
    segments = len(list(fault.run.glob("*.jsonl")))
    assert segments > 20
    assert fault.log.stat().st_size >= segments
    fault.expect_everything(answer)


def test_recovery_forces_every_segment_to_the_disk(fault: Fault) -> None:
    """The ring is removed at the end: by then all that was in it is safe from a power loss."""
    answer = fault.play(
        "midway", "pwrite", errno.ENOSPC, segment_bytes=8192, fsync="none", ring_bytes=1 << 20
    )
    fault.log.unlink()
    before = len(list(fault.run.glob("*.jsonl")))
    code = "import sys; from foundry_fastlog import _core; _core.recover_run(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, fault.run],
        env={
            **os.environ,
            "LD_PRELOAD": str(fault.shim),
            "FAULT_DIR": str(fault.run),
            "FAULT_SWITCH": str(fault.switch),
            "FAULT_CALL": "fdatasync",
            "FAULT_ERRNO": "-1",  # counts them, and waits for a millisecond
            "FAULT_SUFFIX": ".jsonl",
            "FAULT_LOG": str(fault.log),
        },
        check=True,
    )
    segments = len(list(fault.run.glob("*.jsonl"))) - before
    assert segments > 20
    assert fault.log.stat().st_size >= segments
    fault.expect_everything(answer)


def test_a_disk_that_hangs_does_not_hang_training(fault: Fault) -> None:
    """A write that takes long: no call of the loop waits for it, and close() keeps its timeout."""
    answer = fault.play("midway", "pwrite", -1000 * STALL_S, count=1)
    assert not answer["closed"]
    # Half of the stall is far more than any call takes on a busy machine.
    assert answer["longest_call_s"] < STALL_S / 2
    fault.switch.unlink(missing_ok=True)
    _core.recover_run(str(fault.run))
    fault.expect_everything(answer)


@pytest.mark.parametrize("call", ["unlink", "fstat"])
def test_faults_beside_the_write_path_lose_nothing(fault: Fault, call: str) -> None:
    """Unlink of the ring at the end, fstat of the files: survived, and recovery is idempotent."""
    answer = fault.play("midway", call, errno.EIO, suffix="" if call == "unlink" else ".jsonl")
    fault.switch.unlink()
    _core.recover_run(str(fault.run))
    _core.recover_run(str(fault.run))
    fault.expect_everything(answer)


@pytest.mark.parametrize("call", ["renumber", "renumber_all"])
def test_a_file_system_that_renumbers_its_files_gets_everything_once(
    fault: Fault, call: str
) -> None:
    """As some FUSE and SMB mounts do: its files are no strangers, and keep their names."""
    answer = fault.play("from_start", call, 0, segment_bytes=8192)
    assert answer["closed"]
    assert answer["stats"]["errors"] == 0
    fault.expect_everything(answer)
    labels = {segment.name.writer.label for segment in list_segments(fault.run)}
    assert labels == {""}


DIES = """
import os, signal, sys
from foundry_fastlog import Recorder
recorder = Recorder(sys.argv[1], flush_interval_s=3600, ring_bytes=1 << 16, segment_bytes=8192)
for step in range(400):
    recorder.record(step, loss=step / 7)
    if step == 250:
        assert recorder.flush(30)
os.kill(os.getpid(), signal.SIGKILL)
"""
RECOVERS = "import sys; from foundry_fastlog import _core; _core.recover_run(sys.argv[1])"


@pytest.mark.parametrize("call", ["renumber", "renumber_all"])
def test_recovery_where_files_are_renumbered_goes_by_their_names(fault: Fault, call: str) -> None:
    """The writer has noted that inodes do not tell; each line is there once, for readers too."""
    fault.switch.touch()
    fault.run_with(DIES, call, 0, check=False)
    # Half of a batch: a line that is in the ring still, and a torn one.
    shown = [line["step"] for line in read_run(fault.run).lines("metrics")]
    assert shown == list(range(400))
    newest = max(fault.run.glob("metrics*.jsonl"), key=lambda path: (len(path.name), path.name))
    with newest.open("ab") as file:
        file.write(b'{"timestamp":"2026-')
    fault.run_with(RECOVERS, call, 0)
    assert [line["step"] for line in fault.lines("metrics")] == list(range(400))
    assert [line["seq"] for line in fault.lines("metrics")] == list(range(400))
    assert list((fault.run / ".fastlog").iterdir()) == []


CHILD_OUTLIVES = """
import os, signal, sys, time
from foundry_fastlog import Recorder
recorder = Recorder(sys.argv[1], flush_interval_s=3600)
assert not recorder.stats()["ring_path"].startswith(sys.argv[1])
for step in range(10):
    recorder.record(step, loss=1.0)
read, write = os.pipe()
if os.fork() == 0:
    recorder.record(0, child=1)
    assert recorder.flush(30)
    os.write(write, b"x")
    time.sleep(600)
os.read(read, 1)
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_that_is_forked_behind_a_refused_ring_place_keeps_no_lock(fault: Fault) -> None:
    """Its parent is killed: that ring is recovered while the child goes on with its own."""
    fault.switch.touch()
    process = fault.start(CHILD_OUTLIVES, "rename", errno.EROFS, suffix=".ring.tmp")
    assert process.stdout is not None
    process.stdout.readline()
    process.wait()
    try:
        outcomes = sorted(report["outcome"] for report in _core.recover_run(str(fault.run)))
        assert outcomes == ["live", "recovered"]
        assert [line["step"] for line in fault.lines("metrics")][:10] == list(range(10))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
    _core.recover_run(str(fault.run))


@pytest.mark.parametrize("call", ["open", "pwrite", "ftruncate", "fdatasync"])
def test_a_recovery_that_fails_keeps_the_ring_for_the_next(fault: Fault, call: str) -> None:
    """Recovery meets a dead disk: it says so and loses nothing; the next one finishes."""
    answer = fault.play("midway", "pwrite", errno.ENOSPC)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(fault.shim),
        "FAULT_DIR": str(fault.run),
        "FAULT_SWITCH": str(fault.switch),
        "FAULT_CALL": call,
        "FAULT_ERRNO": str(errno.ENOSPC),
        "FAULT_SUFFIX": ".jsonl",
        "FAULT_LOG": str(fault.log),
    }
    # Something behind the committed offset, so that ftruncate has work.
    with (fault.run / "metrics.jsonl").open("a") as file:
        file.write('{"torn":')
    fault.log.unlink()
    code = (
        "import json, sys; from foundry_fastlog import _core;"
        "print(json.dumps(_core.recover_run(sys.argv[1])))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, fault.run],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert fault.log.exists(), "the fault did not happen"
    (report,) = json.loads(result.stdout)
    assert report["outcome"] == "failed"
    assert os.strerror(errno.ENOSPC) in report["reason"]
    # What was refused is not reported as written: it is by the one that writes it.
    written = report["emitted"]
    assert (written > 0) == (call == "fdatasync")
    fault.switch.unlink()
    (report,) = _core.recover_run(str(fault.run))
    assert report["outcome"] == "recovered"
    assert (report["emitted"] > 0) == (call != "fdatasync")
    fault.expect_everything(answer)


def test_a_full_file_system_gets_everything_when_space_returns(tmp_path: Path) -> None:
    """A real small file system fills up: records wait, and are written once there is room."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = (
        shutil.which("mount") is not None
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("this machine lets nobody mount; the shim's ENOSPC covers the same code")
    try:
        filler = place / "filler"
        recorder = Recorder(place / "run", ring="shm", flush_interval_s=0.005)
        recorder.record(0, loss=0.0)
        assert recorder.flush(10)
        free = os.statvfs(place)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize))
        for step in range(1, 5000):
            assert recorder.record(step, loss=step / 3)
        assert not recorder.flush(0.3)
        assert recorder.stats()["errors"] >= 1
        filler.unlink()
        assert recorder.close(30)
        lines = [json.loads(x) for x in (place / "run/metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(5000))
    finally:
        subprocess.run(["umount", "-l", place], check=True)
