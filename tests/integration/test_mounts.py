"""A live writer is told from a dead one on every file system that a ring may lie on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recorded import eventually
from trainers import Begin

from foundry_fastlog import read_run, recover

IMAGE_BYTES = 512 << 20
OPTIONS = {
    "overlay": "lowerdir={0}/low,upperdir={0}/up,workdir={0}/work",
    "tmpfs": "size=128M",
    **dict.fromkeys(("ext4", "xfs", "f2fs"), "loop"),
}
Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a new file system of a kind, where the machine can."""
    place = tmp_path / "mounted"

    def make(kind: str) -> Path:
        for name in ("low", "up", "work", "mounted"):
            (tmp_path / name).mkdir()
        source = kind
        if OPTIONS[kind] == "loop":
            source = str(tmp_path / "disk")
            if shutil.which(f"mkfs.{kind}") is None:
                pytest.skip(f"no mkfs.{kind}")
            Path(source).touch()
            os.truncate(source, IMAGE_BYTES)
            subprocess.run([f"mkfs.{kind}", "-q", source], check=True, capture_output=True)
        command = ["mount", "-t", kind, "-o", OPTIONS[kind].format(tmp_path), source, str(place)]
        able = shutil.which("mount") is not None
        if not able or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip(f"this machine lets nobody mount {kind}")
        return place

    yield make
    if place.is_mount():
        subprocess.run(["umount", "-l", place], check=True)


def outcome(run: Path) -> str:
    """What a recovery of the run's one ring comes to."""
    (report,) = recover(run)
    return report.outcome


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_recovery_leaves_a_live_writer_alone(kind: str, begin: Begin, mount: Mount) -> None:
    """And has all that it accepted once it was killed."""
    run = mount(kind) / "run"
    trainer = begin(run, "a")
    trainer.do("keep 10")
    assert outcome(run) == "live"
    assert read_run(run).rings[0].outcome == "live"
    trainer.do("keep 90")
    trainer.kill()
    assert outcome(run) == "recovered"
    assert [line["step"] for line in read_run(run).lines("metrics")] == list(range(100))


def test_a_ring_outside_of_its_run_is_locked_as_well(
    begin: Begin, mount: Mount, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the run has no place for it, and the temporary one is an overlay."""
    monkeypatch.setenv("TMPDIR", str(mount("overlay")))
    run = tmp_path / "ramfs" / "run"
    run.parent.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", run.parent], check=True)
    try:
        trainer = begin(run, "a")
        trainer.do("keep 10")
        assert list((run / ".fastlog").glob("*.ring-at"))
        assert outcome(run) == "live"
        trainer.kill()
        assert outcome(run) == "recovered"
    finally:
        subprocess.run(["umount", "-l", run.parent], check=True)


def test_the_lock_is_taken_again_where_descriptors_are_closed(begin: Begin, mount: Mount) -> None:
    """At the next round of the flush thread."""
    run = mount("overlay") / "run"
    trainer = begin(run, "a", flush_interval_s=0.01)
    trainer.do("record 10", "shut 3")
    (ring,) = (run / ".fastlog").glob("*.ring")
    free = ["flock", "--nonblock", "--shared", ring, "true"]
    eventually(lambda: subprocess.run(free, check=False).returncode)
    assert outcome(run) == "live"
    trainer.do("record 10")
    trainer.kill()
    assert outcome(run) == "recovered"
