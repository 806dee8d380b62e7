"""A ring that is not here any more is missed: no run is called complete without it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from recorded import run_python

from foundry_fastlog import Recorder, _core, read_run, recover
from foundry_fastlog.cli.main import main
from foundry_fastlog.reading.absent_rings import report_absent

# Records and is killed; with a third argument it closes before.
WRITER = """
import os, sys
from foundry_fastlog import Recorder
recorder = Recorder(sys.argv[1], ring=sys.argv[2], flush_interval_s=60)
for step in range(50):
    recorder.record(step, loss=1.0)
if len(sys.argv) > 3:
    recorder.close()
os._exit(0)
"""


rings = pytest.mark.parametrize("ring", ["file", "shm"])


def write(run: Path, ring: str = "file", *more: object) -> None:
    run_python(WRITER, run, ring, *more)


def remove_rings(run: Path) -> None:
    """As somebody does who wonders what they are."""
    for path in (run / ".fastlog").glob("*.ring*"):
        if path.suffix == ".ring-at":
            Path(path.read_text().splitlines()[0]).unlink()
        path.unlink()


def told_by_readers(run: Path) -> list[str]:
    return [str(problem) for problem in read_run(run).problems]


def problems(run: Path) -> list[str]:
    """What a reader says is wrong; it never says so of a run that it calls complete."""
    told = told_by_readers(run)
    for command in ("summary", "export"):
        status = main([command, str(run), *(["--to", "-"] if command == "export" else [])])
        assert (status != 0) == bool(told)
    reports = recover(run)
    assert (main(["recover", str(run)]) != 0) == bool(told)
    assert all(report.sound for report in reports) == (not told)
    return told


@rings
def test_a_ring_that_somebody_removed_is_missed(tmp_path: Path, ring: str) -> None:
    """Until its writer's mark is removed as well."""
    write(tmp_path, ring)
    assert read_run(tmp_path).problems == []
    remove_rings(tmp_path)
    (told,) = problems(tmp_path)
    assert "main: it did not end, and its ring is missing" in told
    write(tmp_path, ring, "close")
    assert problems(tmp_path) == [told]
    next((tmp_path / ".fastlog").glob("*.writer")).unlink()
    assert problems(tmp_path) == []


def test_a_ring_in_memory_is_missed_until_its_writer_has_closed(tmp_path: Path) -> None:
    """Nobody can look into it, and if its process was killed it is gone."""
    write(tmp_path / "closed", "memory", "close")
    assert problems(tmp_path / "closed") == []
    write(tmp_path / "killed", "memory")
    for attempt in range(1, 7):  # as if it had been started again so often
        mark = tmp_path / "killed" / ".fastlog" / f"{attempt}.writer"
        mark.write_text(f"memory a{attempt}\n")
    (told,) = problems(tmp_path / "killed")
    assert "a1, a2, a3, a4, a5 and 2 more: it did not end, and its ring was in memory" in told


@rings
def test_who_has_ended_or_lives_is_not_missed(tmp_path: Path, ring: str) -> None:
    """Also where it ended while the rings were listed, and where another one recovered it."""
    run = tmp_path / "run"
    write(run, ring)
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    for _ in range(10):
        with Recorder(run, ring=ring):
            assert problems(run) == []
        assert problems(run) == []
    if ring == "file":  # a ring elsewhere belongs to one run
        assert problems(copy) == []


def test_a_live_writer_whose_ring_was_removed_is_missed_until_it_closes(tmp_path: Path) -> None:
    """As long as it can be killed."""
    recorder = Recorder(tmp_path)
    remove_rings(tmp_path)
    assert len(problems(tmp_path)) == 1
    recorder.close()
    assert problems(tmp_path) == []


def test_a_ring_in_quarantine_is_told_of_by_its_own_name(tmp_path: Path) -> None:
    """And no more once that is removed, which is how one says that one knows."""
    write(tmp_path)
    (ring,) = (tmp_path / ".fastlog").glob("*.ring")
    ring.write_bytes(b"damaged")
    (told,) = problems(tmp_path)
    assert "quarantine" in told
    assert not list((tmp_path / ".fastlog").glob("*.writer"))
    shutil.rmtree(tmp_path / ".fastlog" / "quarantine")
    assert problems(tmp_path) == []


def test_a_run_copied_without_its_private_directory_is_no_complete_one(tmp_path: Path) -> None:
    """As `cp RUN/* TO` does. Where the last start has ended, nothing is missing."""
    write(tmp_path / "ended")
    write(tmp_path / "ended", "file", "close")
    write(tmp_path / "killed")
    for name in ("ended", "killed"):
        shutil.rmtree(tmp_path / name / ".fastlog")
    assert told_by_readers(tmp_path / "ended") == report_absent(tmp_path) == []
    (told,) = problems(tmp_path / "killed")
    assert "by its run.json its last start did not end" in told
    Recorder(tmp_path / "killed").close()  # who goes on with it does not make it whole
    (told,) = problems(tmp_path / "killed")
    assert "main: it did not end, and its ring is missing" in told


def test_an_emptied_ring_is_not_in_the_making(tmp_path: Path) -> None:
    """It has a mark, so it was made: a young one is damaged, too."""
    write(tmp_path)
    (ring,) = (tmp_path / ".fastlog").glob("*.ring")
    os.truncate(ring, 0)
    (told,) = told_by_readers(tmp_path)
    assert str(ring) in told
    assert [one["outcome"] for one in _core.recover_run(str(tmp_path))] == ["quarantined"]


@pytest.mark.parametrize("text", [b"", b"ring r1", b"\xff\xfe \xff", b"memory a1\n", None])
def test_a_mark_says_what_it_can(tmp_path: Path, text: bytes | None) -> None:
    """One that is torn, strange or not to be read is a mark all the same."""
    (tmp_path / "metrics.jsonl").touch()
    mark = tmp_path / ".fastlog" / "0123.writer"
    mark.parent.mkdir()
    mark.mkdir() if text is None else mark.write_bytes(text)
    (told,) = told_by_readers(tmp_path)
    assert str(mark) in told
    assert "it did not end" in told
    assert ("in memory" in told) == (text == b"memory a1\n")


@pytest.mark.parametrize("made", ["pipe", "directory", "link"])
def test_what_is_in_the_place_of_a_mark_harms_nobody(tmp_path: Path, made: str) -> None:
    """Nothing waits for it, or writes to where it leads; a close that cannot remove it says so."""
    outside = tmp_path / "notes"
    outside.write_text("mine")
    recorder = Recorder(tmp_path / "run")
    recorder.record(0, loss=1.0)
    (mark,) = (tmp_path / "run" / ".fastlog").glob("*.writer")
    mark.unlink()
    puts = {"pipe": lambda: os.mkfifo(mark), "directory": mark.mkdir}
    puts.get(made, lambda: mark.symlink_to(outside))()
    assert recorder.close()
    del recorder  # and with it the lock of a ring that stays
    assert outside.read_text() == "mine"
    reports = _core.recover_run(str(tmp_path / "run"))
    if made == "directory":  # without the ring the writer would be missed: it stays
        assert [(one["outcome"], one["emitted"]) for one in reports] == [("recovered", 0)]
        assert "but it is still there" in reports[0]["reason"]
        mark.rmdir()
    assert problems(tmp_path / "run") == []
    assert not list((tmp_path / "run" / ".fastlog").iterdir())


@pytest.mark.parametrize("ring", ["file", "shm", "memory"])
def test_a_writer_whose_descriptors_were_closed_has_ended_too(tmp_path: Path, ring: str) -> None:
    """Its directory is opened again, by name, to say so."""
    code = WRITER.replace("if len", "recorder.flush(); os.closerange(3, 1 << 16)\nif len")
    run_python(code, tmp_path, ring, "close")
    assert problems(tmp_path) == []
    assert not list((tmp_path / ".fastlog").glob("*.ring*"))


NOTHING = "import sys, foundry_fastlog\nassert foundry_fastlog.Recorder(sys.argv[1]).close()"


@pytest.mark.skipif(shutil.which("chattr") is None, reason="needs chattr")
@pytest.mark.parametrize(
    ("script", "more", "missed"),
    [(WRITER, (), True), (WRITER, ("close",), True), (NOTHING, (), False)],
    ids=["killed", "closed in vain", "without a record"],
)
def test_a_start_whose_files_cannot_be_made_is_missed(
    script: str, more: tuple[str, ...], missed: bool, tmp_path: Path
) -> None:
    """It has no label, but its run's private directory takes its mark."""
    write(tmp_path, "file", "close")
    if subprocess.run(["chattr", "+i", tmp_path], check=False, capture_output=True).returncode:
        pytest.skip("needs root, and a file system with attributes")
    try:
        run_python(script, tmp_path, "file", *more)
    finally:
        subprocess.run(["chattr", "-i", tmp_path], check=True)
    assert [report.outcome for report in report_absent(tmp_path)] == ["absent"] * missed
    assert main(["summary", str(tmp_path)]) == missed
