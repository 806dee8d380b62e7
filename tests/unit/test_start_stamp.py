"""The ranks of a start have one time in their file names, and never that of another start."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from recorded import run_python, start_python

from foundry_fastlog.run import start_stamp
from foundry_fastlog.run.start_stamp import StartStamp

Patch = pytest.MonkeyPatch

OWN = "2025-09-30_14-30-05"
THEIRS = "2025-09-30_14-30-00"

# Rank 0: says what it has, and lives until its input ends. With "fork" a child lives on.
RANK_0 = """
import os, sys
from foundry_fastlog.run.start_stamp import StartStamp
start = StartStamp(sys.argv[2], sys.argv[1], 0, 2)
if len(sys.argv) > 3 and os.fork() == 0:
    start.withdraw()  # the parent's, not the child's
os.write(1, f"{start.text} {os.getpid()}\\n".encode())  # at once: two processes speak here
sys.stdin.read()
start.withdraw()
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def launch(monkeypatch: Patch) -> None:
    """What torchrun says, a process that has just begun, and no patience."""
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(start_stamp, "WAIT_S", 0.0)
    monkeypatch.setattr(start_stamp, "_believed", set())


@pytest.fixture
def rank_0(tmp_path: Path) -> Iterator[Start]:
    """Starts processes of rank 0 and ends them."""
    made: list[subprocess.Popen[str]] = []

    def begin(stamp: str = THEIRS, *more: str) -> subprocess.Popen[str]:
        process = start_python(RANK_0, tmp_path, stamp, *more, stdin=subprocess.PIPE)
        made.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().split()[0] == stamp
        return process

    yield begin
    for process in made:
        process.communicate(timeout=60)


def published(run: Path) -> list[Path]:
    return sorted((run / ".fastlog").glob("start-*"))


def rank_1(run: Path) -> str:
    return StartStamp(OWN, run, 1, 2).text


def test_another_rank_takes_the_time_of_rank_0(tmp_path: Path, rank_0: Start) -> None:
    """While rank 0 lives; when it has withdrawn there is nothing left, and each has its own.

    One that closes its run and opens it again, faster than rank 0, is of the next start.
    """
    process = rank_0()
    assert [rank_1(tmp_path) for _ in range(2)] == [THEIRS, OWN]
    process.communicate(timeout=60)
    assert published(tmp_path) == []
    start_stamp._believed.clear()
    assert rank_1(tmp_path) == OWN


def test_a_rank_that_is_first_waits(tmp_path: Path) -> None:
    """Rank 0 publishes after it has asked."""
    code = (
        "import sys; from foundry_fastlog.run import start_stamp\n"
        "start_stamp.WAIT_S = 60\n"
        "print('asking', flush=True)\n"
        "print(start_stamp.StartStamp(sys.argv[2], sys.argv[1], 1, 2).text)\n"
    )
    with start_python(code, tmp_path, OWN) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        zero = StartStamp(THEIRS, tmp_path, 0, 2)
        assert process.communicate(timeout=60)[0] == f"{THEIRS}\n"
        zero.withdraw()


def test_the_wait_has_an_end(tmp_path: Path, monkeypatch: Patch) -> None:
    """Without a rank 0 it is the rank's own time."""
    pauses: list[float] = []
    clock = iter(range(100))
    monkeypatch.setattr(start_stamp, "WAIT_S", 5.0)
    monkeypatch.setattr(start_stamp.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(start_stamp.time, "sleep", pauses.append)
    assert rank_1(tmp_path) == OWN
    assert pauses == pytest.approx([0.01, 0.015, 0.0225, 0.03375])


def test_a_killed_rank_0_is_not_believed(tmp_path: Path, rank_0: Start) -> None:
    """Its file stays, unlocked; the next rank 0 replaces it and removes those of other launches."""
    process = rank_0()
    [path] = published(tmp_path)
    other = path.with_name("start-0123456789abcdef")
    other.write_bytes(path.read_bytes())
    process.kill()
    process.wait(60)
    assert published(tmp_path) == [other, path] or published(tmp_path) == [path, other]
    assert rank_1(tmp_path) == OWN
    rank_0("2025-09-30_15-00-00")
    assert published(tmp_path) == [path]
    assert rank_1(tmp_path) == "2025-09-30_15-00-00"


def test_a_worker_that_outlives_rank_0_is_not_rank_0(tmp_path: Path, rank_0: Start) -> None:
    """A forked child neither holds the lock nor withdraws what its parent published."""
    process = rank_0(THEIRS, "fork")
    assert process.stdout is not None
    first = process.stdout.readline()  # of the two that live now, the second to speak
    assert first.startswith(THEIRS)
    assert rank_1(tmp_path) == THEIRS
    start_stamp._believed.clear()
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert len(published(tmp_path)) == 1
    assert rank_1(tmp_path) == OWN


@pytest.mark.parametrize(("lifetime", "taken"), [(3600.0, THEIRS), (30.0, OWN), (math.inf, THEIRS)])
def test_an_old_publication_is_not_believed(
    tmp_path: Path, rank_0: Start, monkeypatch: Patch, lifetime: float, taken: str
) -> None:
    """A file server may hold a dead machine's lock; infinity is a system that does not tell."""
    rank_0()
    [path] = published(tmp_path)
    then = path.stat().st_mtime - 1800
    os.utime(path, (then, then))
    monkeypatch.setattr(start_stamp, "_lifetime", lambda: lifetime)
    assert rank_1(tmp_path) == taken
    assert published(tmp_path) == [path]


def test_the_lifetime_is_this_process_s(monkeypatch: Patch) -> None:
    """Seconds where /proc tells, else infinity."""
    code = "from foundry_fastlog.run.start_stamp import _lifetime; print(_lifetime())"
    lifetime = float(run_python(code).stdout)
    assert lifetime == math.inf if sys.platform == "darwin" else 0 <= lifetime < 120
    monkeypatch.setattr(start_stamp, "Path", lambda _: Path("/nowhere"))
    assert start_stamp._lifetime() == math.inf


def test_another_launch_is_another_start(tmp_path: Path, rank_0: Start, monkeypatch: Patch) -> None:
    """Two that are open in one directory at a time do not meet."""
    rank_0()
    for variable, value in (
        ("MASTER_PORT", "29501"),
        ("MASTER_ADDR", "10.0.0.2"),
        ("MASTER_ADDR", "localhost"),
        ("TORCHELASTIC_RUN_ID", "another"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            assert rank_1(tmp_path) == OWN, value
    assert rank_1(tmp_path) == THEIRS


@pytest.mark.parametrize(
    ("rank", "world_size", "port"), [(None, None, "29500"), (0, 1, "29500"), (0, 2, ""), (1, 2, "")]
)
def test_where_there_is_nobody_to_agree_with(
    tmp_path: Path, monkeypatch: Patch, rank: int | None, world_size: int | None, port: str
) -> None:
    """No ranks, one, or no launcher: the own time at once, and nothing is written."""
    monkeypatch.setattr(start_stamp, "WAIT_S", math.inf)
    monkeypatch.setenv("MASTER_PORT", port)
    start = StartStamp(OWN, tmp_path, rank, world_size)
    start.withdraw()
    assert start.text == OWN
    assert list(tmp_path.iterdir()) == []


def test_ranks_of_one_process_agree(tmp_path: Path) -> None:
    """By any path, and without opening the file, which would lose the lock."""
    zero = StartStamp(THEIRS, tmp_path, 0, 2)
    (tmp_path / "link").symlink_to(tmp_path)
    assert rank_1(tmp_path / "link") == THEIRS
    code = (
        "import sys; from foundry_fastlog.run.start_stamp import StartStamp\n"
        "print(StartStamp('none', sys.argv[1], 1, 2).text)\n"
    )
    assert run_python(code, tmp_path).stdout == f"{THEIRS}\n"
    zero.withdraw()
    zero.withdraw()
    assert published(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"2025-09-30 x\n", None])
def test_something_else_in_its_place_is_not_believed(tmp_path: Path, content: bytes | None) -> None:
    """Whatever it is, and without waiting for a pipe's writer."""
    zero = StartStamp(THEIRS, tmp_path, 0, 2)
    [path] = published(tmp_path)
    zero.withdraw()
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    assert rank_1(tmp_path) == OWN
    zero = StartStamp(THEIRS, tmp_path, 0, 2)
    [path] = published(tmp_path)
    path.unlink()
    path.write_text("another's")
    zero.withdraw()  # removes its own only
    assert path.read_text() == "another's"


def test_a_disk_that_refuses_stops_nobody(tmp_path: Path, monkeypatch: Patch) -> None:
    """Rank 0 goes on with its time, and leaves nothing."""
    (tmp_path / "file").write_text("mine")
    assert StartStamp(OWN, tmp_path / "file", 0, 2).text == OWN

    no_locks = Mock(side_effect=OSError("no locks available"))
    monkeypatch.setattr(start_stamp.fcntl, "lockf", no_locks)
    zero = StartStamp(THEIRS, tmp_path, 0, 2)
    zero.withdraw()
    assert published(tmp_path) == []
