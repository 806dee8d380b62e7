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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from foundry_fastlog import _core, read_run
from foundry_fastlog.run.listing import list_segments

HERE = Path(__file__).parent
RECOVERS = (
    "import json, sys; from foundry_fastlog import _core;"
    "print(json.dumps(_core.recover_run(sys.argv[1])))"
)
# `make crash` has the time for a real stall; the hermetic environment of a test hides the variable.
STALL_S = 60 if os.environ.get("FASTLOG_CRASH") == "release" else 3
RING = {"suffix": ".ring.tmp"}
SIXTEEN_MIB = 16 << 20  # no back-pressure: what is tested is that nothing that fits is lost


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None, "a C compiler builds the package, so there is one"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", library, HERE / "shim.c", "-ldl"], check=True
    )
    return library


class Fault:
    def __init__(self, shim: Path, tmp_path: Path) -> None:
        self.shim = shim
        self.run = tmp_path / "run"
        self.switch = tmp_path / "fault-on"
        self.log = tmp_path / "faults"

    def environment(
        self, call: str, code: int, *, suffix: str = ".jsonl", count: int = 0, below: str = ""
    ) -> dict[str, str]:
        """What makes calls fail while the switch is there."""
        return {
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

    def python(self, *arguments: object, env: dict[str, str], killed: bool = False) -> str:
        """Run Python with a fault to its end; return its output. The fault must happen."""
        self.log.unlink(missing_ok=True)
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
        assert self.log.exists(), "the fault did not happen: the test would prove nothing"
        return done.stdout

    def play(
        self, mode: str, call: str, code: int, *, fault: Mapping[str, Any] = {}, **options: Any
    ) -> dict[str, Any]:
        """Run the scenario with a recorder's options; return its answer."""
        options.setdefault("ring_bytes", SIXTEEN_MIB)
        arguments = (HERE / "scenario.py", mode, self.run, self.switch, json.dumps(options))
        env = self.environment(call, code, **fault)
        answer: dict[str, Any] = json.loads(self.python(*arguments, env=env))
        return answer

    def recover(self, call: str, code: int) -> list[dict[str, Any]]:
        """Recover with a fault; return the reports."""
        output = self.python("-c", RECOVERS, self.run, env=self.environment(call, code))
        reports: list[dict[str, Any]] = json.loads(output)
        return reports

    def expect_recovered(self, answer: dict[str, Any]) -> None:
        """Without the fault a recovery, too often at that, finds all."""
        self.switch.unlink(missing_ok=True)
        for _ in range(2):
            _core.recover_run(str(self.run))
        self.expect_everything(answer)

    def lines(self, stream: str) -> list[dict[str, Any]]:
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
    return Fault(shim, tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, 0], ids=["ENOSPC", "short write"])
def test_one_refused_write_is_tried_again(fault: Fault, code: int) -> None:
    """One failing pwrite: told once, tried again, all written when the recorder closes."""
    answer = fault.play("heals", "pwrite", code, fault={"count": 1})
    assert answer["closed"]
    fault.expect_everything(answer)
    assert answer["stats"]["errors"] == (code != 0)


@pytest.mark.parametrize(
    ("ring", "code", "remedy"),
    [
        ("file", errno.ENOSPC, "free space there"),
        ("file", errno.EDQUOT, "free space there"),
        ("file", errno.EROFS, "make the place writable"),
        ("file", errno.EMFILE, "close files or raise the limit of open ones"),
        ("memory", errno.EIO, "fix the cause"),
    ],
)
def test_a_disk_that_heals_gets_everything(fault: Fault, ring: str, code: int, remedy: str) -> None:
    """Every write fails for a while: told once, with where records wait and what helps."""
    answer = fault.play("heals", "pwrite", code, ring=ring)
    assert answer["closed"]
    fault.expect_everything(answer)
    place = answer["stats"]["ring_path"]
    assert (place is None) == (ring == "memory")
    where = "memory" if place is None else f"the ring file {place}"
    (told,) = answer["told"]
    assert f"records wait in {where} and the write is retried; {remedy} before" in told
    assert os.strerror(code) in answer["stats"]["first_error"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_stays_dead_leaves_all_in_the_ring(fault: Fault, code: int) -> None:
    """Writes fail to the end: close() says so in time, and recovery finds every record."""
    answer = fault.play("midway", "pwrite", code)
    assert not answer["closed"]
    assert answer["stats"]["written"] < answer["stats"]["accepted"]
    fault.expect_recovered(answer)


@pytest.mark.parametrize(
    ("call", "code", "fault_options"),
    [
        pytest.param("pwrite", 0, {}, id="endless short writes"),
        pytest.param("unlink", errno.EIO, {"suffix": ""}, id="the ring stays"),
        pytest.param("fstat", errno.EIO, {}, id="no look at files"),
    ],
)
def test_what_slows_the_flush_thread_loses_nothing(
    fault: Fault, call: str, code: int, fault_options: dict[str, str]
) -> None:
    """Half of each write, a ring that cannot be removed, files that cannot be looked at."""
    fault.expect_recovered(fault.play("midway", call, code, fault=fault_options))


@pytest.mark.parametrize("call", ["open", "mkdir"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE])
def test_a_run_that_cannot_be_created_waits_in_memory(fault: Fault, call: str, code: int) -> None:
    """Directory or files cannot be made: training goes on, and it heals when they can."""
    answer = fault.play("from_start", call, code, fault={"suffix": "", "count": 6})
    assert answer["closed"]
    fault.expect_everything(answer)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("posix_fallocate", errno.ENOSPC),
        ("pwrite", errno.ENOSPC),
        ("mmap", errno.ENOMEM),
        ("flock", errno.ENOLCK),
        ("rename", errno.EROFS),
        ("open", errno.ENOSPC),
    ],
)
def test_a_ring_that_cannot_lie_in_a_run_lies_elsewhere(fault: Fault, call: str, code: int) -> None:
    """No ring file in the run: a local directory is used, or memory; nothing else changes."""
    answer = fault.play("from_start", call, code, fault=RING)
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
    answer = fault.play("from_start", "posix_fallocate", errno.ENOSPC, fault=RING)
    ring = answer["stats"]["ring_path"]
    assert ring is None or not ring.startswith(str(place))
    fault.expect_everything(answer)


@pytest.mark.parametrize("call", ["posix_fallocate", "rename"])
@pytest.mark.parametrize("below", ["/dev/shm/", "/"])
def test_full_shared_memory_is_replaced_by_the_run(fault: Fault, below: str, call: str) -> None:
    """By where the ring lies without it, then by memory; one warning says what that means."""
    place = {**RING, "below": below}
    answer = fault.play("from_start", call, errno.ENOSPC, fault=place, ring="shm")
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


@pytest.mark.parametrize("fsync", ["interval", "every_flush"])
@pytest.mark.parametrize("count", [1, 0])
def test_a_failed_fsync_is_not_trusted_again(fault: Fault, fsync: str, count: int) -> None:
    """EIO of fdatasync: the bytes go into a new segment; no line is lost or twice there."""
    options = {"fsync": fsync, "fsync_interval_s": 0.01}
    answer = fault.play("midway", "fdatasync", errno.EIO, fault={"count": count}, **options)
    fault.expect_recovered(answer)
    assert answer["stats"]["errors"] >= 1
    if count == 1:  # of whichever stream's file it was
        assert list(fault.run.glob("*.000001.jsonl"))


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
    before = len(list(fault.run.glob("*.jsonl")))
    fault.recover("fdatasync", -1)  # counts them, and waits for a millisecond
    segments = len(list(fault.run.glob("*.jsonl"))) - before
    assert segments > 20
    assert fault.log.stat().st_size >= segments
    fault.expect_everything(answer)


def test_a_disk_that_hangs_does_not_hang_training(fault: Fault) -> None:
    """A write that takes long: no call of the loop waits for it, and close() keeps its timeout."""
    answer = fault.play("midway", "pwrite", -1000 * STALL_S, fault={"count": 1})
    assert not answer["closed"]
    # Half of the stall is far more than any call takes on a busy machine.
    assert answer["longest_call_s"] < STALL_S / 2
    fault.expect_recovered(answer)


@pytest.mark.parametrize("call", ["renumber", "renumber_all"])
def test_a_file_system_that_renumbers_files_gets_everything_once(fault: Fault, call: str) -> None:
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


@pytest.mark.parametrize("call", ["renumber", "renumber_all"])
def test_recovery_where_files_are_renumbered_goes_by_their_names(fault: Fault, call: str) -> None:
    """The writer has noted that inodes do not tell; each line is there once, for readers too."""
    fault.switch.touch()
    fault.python("-c", DIES, fault.run, env=fault.environment(call, 0), killed=True)
    # Half of a batch: a line that is in the ring still, and a torn one.
    shown = [line["step"] for line in read_run(fault.run).lines("metrics")]
    assert shown == list(range(400))
    newest = max(fault.run.glob("metrics*.jsonl"), key=lambda path: (len(path.name), path.name))
    with newest.open("ab") as file:
        file.write(b'{"timestamp":"2026-')
    fault.recover(call, 0)
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
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD_OUTLIVES, fault.run],
        env=fault.environment("rename", errno.EROFS, **RING),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
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
    # Something behind the committed offset, so that ftruncate has work.
    with (fault.run / "metrics.jsonl").open("a") as file:
        file.write('{"torn":')
    (report,) = fault.recover(call, errno.ENOSPC)
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
