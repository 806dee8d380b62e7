"""Runs among strangers: who may write what a recorder makes, and what recovery touches."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest
import rings
from recorded import run_python
from rings import RingBuilder

from foundry_fastlog import _core

HEAD = """
import os, signal, sys
from foundry_fastlog import Recorder
RUN = sys.argv[1]
"""


def play(run: Path, body: str, code: int = 0) -> None:
    assert run_python(HEAD + body, run, returncode=code).stderr == ""


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_run_files_have_the_permissions_of_the_umask(run: Path, mask: int) -> None:
    """All that is made, by recovery too, gets what the umask leaves; nobody else may write it."""
    body = f"""
os.umask({mask})
ready, done = os.pipe()
child = os.fork()
options = dict(ring="shm", rank=1) if child else dict(ring="file", rank=0)
recorder = Recorder(RUN + "/made/on the way", flush_interval_s=60, **options)
for step in range(100):
    recorder.record(step, loss=1.0)
    recorder.event("hello")
recorder.flush()
recorder.record(100, loss=1.0)
if child == 0:
    os.write(done, b"x")
    signal.pause()
os.read(ready, 1)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    play(run, body, -signal.SIGKILL)
    home = run / "made" / "on the way"
    assert_modes(run, mask)
    private = home / ".fastlog"
    assert {path.suffix for path in private.iterdir()} == {".ring", ".ring-at", ".writer"}
    (pointer,) = private.glob("*.ring-at")
    ring = Path(pointer.read_text().splitlines()[0])
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600
    for path in home.glob("metrics*"):  # a page that never reached the disk: lines are copied
        with path.open("r+b") as file:
            file.write(bytes(300))
        path.chmod(0o4777)
    for path in (*private.glob("*.ring"), ring):
        rings.move_to_other_boot(path)
    (private / "bad.ring").write_bytes(b"no ring")
    (private / "bad.ring").chmod(0o600 & ~mask)
    umask = os.umask(mask)
    try:
        outcomes = [report["outcome"] for report in _core.recover_run(str(home))]
    finally:
        os.umask(umask)
    assert sorted(outcomes) == ["quarantined", "recovered", "recovered"]
    for path in home.glob("metrics*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o775
        path.chmod(0o664 & ~mask)
    (private / "quarantine" / "bad.ring").unlink()
    assert [path.name for path in (private / "quarantine").iterdir()] == ["bad.ring.reason"]
    assert_modes(run, mask)


def assert_modes(folder: Path, mask: int) -> None:
    """All below a folder has what the umask leaves."""
    for path in folder.rglob("*"):
        most = 0o775 if path.is_dir() else 0o664
        assert stat.S_IMODE(path.stat().st_mode) == most & ~mask, path


def leave_ring(run: Path) -> Path:
    """A ring with one line, of a process that was killed."""
    builder = RingBuilder()
    builder.fragment('"a":1')
    ring = builder.put(run, f"{rings.UUID}.ring")
    (run / "metrics.jsonl").touch()
    return ring


def recover_to(outcome: str, run: Path) -> None:
    """Recover in a process that ends, whatever it waits for."""
    body = f"""
from foundry_fastlog import _core
outcomes = [report["outcome"] for report in _core.recover_run(RUN)]
assert outcomes == [{outcome!r}], outcomes
"""
    play(run, body)


def put(kind: str, place: Path, outside: Path) -> None:
    """Put something in the place of a file: a link to one outside, a pipe, somebody's own."""
    {
        "link": lambda: place.symlink_to(outside),
        "hard link": lambda: place.hardlink_to(outside),
        "pipe": lambda: os.mkfifo(place),
        "file": lambda: place.write_text("mine"),
    }[kind]()


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_file_in_the_place_of_recoverys_own_is_not_written_to(kind: str, run: Path) -> None:
    """Where damaged lines are taken out of a file, the others are copied to a file of that name."""
    ring = leave_ring(run)
    rings.move_to_other_boot(ring)
    kept = b'{"timestamp":"1970-01-01T00:00:00.000000Z","seq":0,"a":0}\n'
    (run / "log.jsonl").write_bytes(bytes(10) + b"\n" + kept)
    outside = run.parent / "outside"
    outside.write_text("precious\n")
    put(kind, ring.with_name(ring.name + ".lines"), outside)
    recover_to("recovered", run)
    assert outside.read_text() == "precious\n"
    assert (run / "log.jsonl").read_bytes() == kept
    assert not list((run / ".fastlog").iterdir())


@pytest.mark.parametrize("kind", ["link", "pipe", "file"])
def test_quarantine_is_a_directory_of_the_run(kind: str, run: Path) -> None:
    """What is in its place is not followed and not written to; the damaged ring stays."""
    ring = run / ".fastlog" / "x.ring"
    ring.parent.mkdir(parents=True)
    ring.write_bytes(b"no ring")
    outside = run.parent / "outside"
    outside.mkdir()
    put(kind, run / ".fastlog" / "quarantine", outside)
    recover_to("failed", run)
    assert ring.read_bytes() == b"no ring"
    assert not list(outside.iterdir())


@pytest.mark.parametrize("kind", ["link", "pipe", "file"])
def test_nothing_in_quarantine_is_replaced(kind: str, run: Path) -> None:
    """A second ring of one name, or anything in the place of the reason, is kept beside it."""
    quarantine = run / ".fastlog" / "quarantine"
    quarantine.mkdir(parents=True)
    outside = run.parent / "outside"
    outside.write_text("precious\n")
    put(kind, quarantine / "x.ring.reason", outside)
    for content in (b"first", b"second"):
        (run / ".fastlog" / "x.ring").write_bytes(content)
        recover_to("quarantined", run)
    assert outside.read_text() == "precious\n"
    kept = {path.name: path for path in quarantine.iterdir()}
    names = ("x.ring.1", "x.ring.1.reason", "x.ring.2", "x.ring.2.reason", "x.ring.reason")
    assert sorted(kept) == list(names)
    assert kept["x.ring.1"].read_bytes() == b"first"
    assert kept["x.ring.2"].read_bytes() == b"second"
    assert "too few for a ring file" in kept["x.ring.2.reason"].read_text()
    assert kind != "file" or kept["x.ring.reason"].read_text() == "mine"


READ_ONLY = f"""
from foundry_fastlog import _core
RING = ".fastlog/{rings.UUID}.ring"
os.mkdir(RUN + "/.fastlog/quarantine")
os.chdir(RUN)
if os.geteuid() == 0:  # whom no permission stops
    for path in (".", "metrics.jsonl", ".fastlog", ".fastlog/quarantine", RING):
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
os.chmod(".fastlog", 0o555)
for attempt in range(2):
    (report,) = _core.recover_run(".")
    assert report["outcome"] == REFUSED, report
    assert REASON in report["reason"], report
    assert os.path.exists(RING)
    assert not os.listdir(".fastlog/quarantine")
os.chmod(".fastlog", 0o755)
(report,) = _core.recover_run(".")
assert report["outcome"] == OUTCOME, report
assert not os.path.exists(RING)
"""


def test_a_damaged_ring_that_cannot_be_moved_is_told_and_stays(run: Path) -> None:
    """No recovery leaves a reason in quarantine for a ring that is not there."""
    leave_ring(run).write_bytes(b"no ring")
    said = '"failed", "could not be moved", "quarantined"'
    play(run, f"REFUSED, REASON, OUTCOME = {said}\n{READ_ONLY}")


def test_a_ring_that_cannot_be_removed_is_written_once(run: Path) -> None:
    """It says so, and goes when it can."""
    leave_ring(run)
    said = '"recovered", "all its records are in the files, but it is still there", "recovered"'
    play(run, f"REFUSED, REASON, OUTCOME = {said}\n{READ_ONLY}")
    (line,) = (run / "log.jsonl").read_text().splitlines()
    assert '"a":1' in line


@pytest.mark.parametrize("kind", ["pipe", "link", "huge", "nested"])
def test_a_run_json_of_somebody_stops_nobody(kind: str, run: Path) -> None:
    """Neither a start nor a reader waits for it, nor takes memory for it."""
    run.mkdir()
    path = run / "run.json"
    if kind in ("pipe", "link"):
        put(kind, path, Path("/dev/zero"))
    else:
        path.write_bytes(b'{"attempts":' + b"[" * 100_000)
        os.truncate(path, 1 << 40 if kind == "huge" else path.stat().st_size)
    body = """
from foundry_fastlog import read_run
os.link(RUN + "/run.json", RUN + "/kept", follow_symlinks=False)
open(RUN + "/metrics.jsonl", "w").close()
(problem,) = read_run(RUN).problems
assert problem.kind == "run-info", problem
recorder = Recorder(RUN)
assert recorder.record(0, loss=1.0)
assert recorder.close()
run = read_run(RUN)
assert not run.problems and run.info["format"] == 2
"""
    play(run, body)
