"""Runs among strangers: who may write what a recorder makes, and what recovery touches."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import rings

from foundry_fastlog import _core

PREAMBLE = """
import os, signal, sys
from foundry_fastlog import Recorder
RUN = sys.argv[1]
"""


def play(run: Path, body: str, *, code: int = 0) -> None:
    """Run a scenario in a fresh process."""
    result = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(body), run],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (code, "")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Where the run will be."""
    return tmp_path / "run"


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_run_files_have_the_permissions_of_the_umask(run: Path, mask: int) -> None:
    """All that is made, by recovery too, gets what the umask leaves; nobody else may write it."""
    play(
        run,
        f"""
        os.umask({mask})
        ready, done = os.pipe()
        child = os.fork()
        recorder = Recorder(
            RUN + "/made/on the way",
            flush_interval_s=60,
            ring="shm" if child else "file",
            rank=1 if child else 0,
        )
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
        """,
        code=-signal.SIGKILL,
    )
    home = run / "made" / "on the way"
    assert_modes(run, mask)
    private = {path.suffix for path in (home / ".fastlog").iterdir()}
    assert private == {".ring", ".ring-at"}
    (pointer,) = (home / ".fastlog").glob("*.ring-at")
    ring = Path(pointer.read_text().splitlines()[0])
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600
    (home / ".fastlog" / "bad.ring").write_bytes(b"no ring")
    for path in home.glob("metrics*"):  # a page that never reached the disk: lines are copied
        with path.open("r+b") as file:
            file.write(bytes(300))
        path.chmod(0o4777)
    for path in [*(home / ".fastlog").glob("*.ring"), ring]:
        if path.name != "bad.ring":
            rings.move_to_other_boot(path)
    (home / ".fastlog" / "bad.ring").chmod(0o600 & ~mask)
    umask = os.umask(mask)
    try:
        outcomes = [report["outcome"] for report in _core.recover_run(str(home))]
    finally:
        os.umask(umask)
    assert sorted(outcomes) == ["quarantined", "recovered", "recovered"]
    for path in home.glob("metrics*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o775
        path.chmod(0o664 & ~mask)
    quarantine = home / ".fastlog" / "quarantine"
    (quarantine / "bad.ring").unlink()
    assert {path.name for path in quarantine.iterdir()} == {"bad.ring.reason"}
    assert_modes(run, mask)


def assert_modes(folder: Path, mask: int) -> None:
    """All below a folder has what the umask leaves."""
    for path in folder.rglob("*"):
        most = 0o775 if path.is_dir() else 0o664
        assert stat.S_IMODE(path.stat().st_mode) == most & ~mask, path
