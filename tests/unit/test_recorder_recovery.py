"""What the Recorder and recover() say and do about rings that killed processes left."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

import pytest
from recorded import run_python, segments, steps
from rings import PAGE, UUID, RingBuilder

from foundry_fastlog import Recorder


def leave(run: Path) -> None:
    """Record 100 steps in a process that is killed before anything is written."""
    code = """
import os, signal, sys
from foundry_fastlog import Recorder
recorder = Recorder(sys.argv[1], flush_interval_s=3600)
for step in range(100):
    recorder.record(step, x=step / 3)
    recorder.event("m", step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run_python(code, run, returncode=-9)


def test_a_start_says_what_it_recovered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Opening the run again completes the attempt before, and says so as information."""
    leave(tmp_path)
    with caplog.at_level(logging.INFO, "foundry_fastlog"), Recorder(tmp_path) as recorder:
        assert recorder.attempt == 1
        recorder.record(0, x=1.0)
    (told,) = caplog.records
    assert "recovered 200 records" in told.getMessage()
    assert told.levelno == logging.INFO
    assert (steps(tmp_path), steps(tmp_path, "a1")) == (list(range(100)), [0])


def test_a_damaged_ring_stops_no_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".fastlog").mkdir()
    (tmp_path / ".fastlog" / "damaged.ring").write_bytes(b"x" * 10_000)
    with caplog.at_level(logging.WARNING, "foundry_fastlog"), Recorder(tmp_path) as recorder:
        assert recorder.record(0, x=1.0)
    (message,) = caplog.messages
    assert "could not be recovered (quarantined)" in message
    assert "damaged.ring" in message
    assert steps(tmp_path) == [0]


@pytest.mark.parametrize("ring", ["file", "shm", "memory"])
def test_places_of_the_ring(tmp_path: Path, ring: str) -> None:
    with Recorder(tmp_path, ring=ring) as recorder:
        path = recorder.stats()["ring_path"]
        assert recorder.record(0, x=1.0)
        assert (path is None) == (ring == "memory")
        if path is not None:
            assert Path(path).exists()
            assert Path(path).is_relative_to(tmp_path) == (ring == "file")
    assert path is None or not Path(path).exists()
    assert steps(tmp_path) == [0]


@pytest.mark.parametrize("fsync", ["none", "interval", "every_flush"])
def test_every_fsync_policy_writes_the_same(tmp_path: Path, fsync: str) -> None:
    """Forcing lines to the disk changes when they are safe, not what they are."""
    with Recorder(tmp_path, fsync=fsync, fsync_interval_s=0.001, segment_bytes=4096) as recorder:
        for step in range(300):
            recorder.record(step, x=1.0)
            assert step % 100 or recorder.flush()
    assert steps(tmp_path) == list(range(300))
    assert recorder.files() == (found := segments(tmp_path))
    assert len(found) > 3
    assert recorder.stats()["errors"] == 0


RING, OLDER = (RingBuilder(version=version).build() for version in (4, 3))
UNUSED = RING[:PAGE] + bytes(len(RING) - PAGE)
NAME = f"fastlog-{UUID}.ring"


@pytest.mark.parametrize(
    ("name", "content", "swept"),
    [
        *((f"{NAME}.tmp", content, True) for content in (b"", bytes(8 << 10), UNUSED)),
        (f"{NAME}.tmp", b"somebody's notes", False),
        (f"{NAME}.tmp", UNUSED.replace(UUID.encode(), UUID[::-1].encode()), False),
        (NAME, UNUSED, True),
        (NAME, OLDER[:PAGE] + bytes(len(OLDER) - PAGE), True),
        (NAME, OLDER, False),
        (NAME, RING, False),  # its pointer is in a run, wherever that is
        *((NAME, content, False) for content in (UNUSED[: 8 << 10], b"")),
        (NAME.replace("0f8f", "1f8f"), UNUSED, False),
        (f"{UUID}.ring", UNUSED, False),
        *((f"fastlog-{uuid}.ring.tmp", b"", False) for uuid in (UUID[1:], UUID.upper())),
        (f"{NAME}.tmp.tmp", b"", False),
    ],
)
def test_what_starts_that_died_left_outside_of_runs_is_swept(
    name: str, content: bytes, swept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is old, has our name and header, and no record can be in it; by any later start."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    left = place / name
    left.write_bytes(content)
    Recorder(tmp_path / "young").close()
    assert left.exists()
    os.utime(left, (0, 0))
    with left.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Recorder(tmp_path / "locked").close()
    assert left.exists()
    if os.geteuid() == 0:
        os.chown(left, 4711, -1)
        Recorder(tmp_path / "of another user").close()
        os.chown(left, 0, -1)
    assert left.read_bytes() == content
    Recorder(tmp_path / "run").close()
    assert left.exists() is not swept
