"""A ring that is not here any more is missed: no run is called complete without it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from recorded import run_python

from foundry_fastlog import Recorder, _core, read_run, recover
from foundry_fastlog.cli import main

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


def write(run: Path, ring: str = "file", *more: object) -> Path:
    """Leave a run behind; its list of writers."""
    run_python(WRITER, run, ring, *more)
    return run / ".fastlog" / "writers"


def remove_rings(run: Path) -> None:
    """As somebody does who wonders what they are."""
    for path in (run / ".fastlog").glob("*.ring*"):
        if path.suffix == ".ring-at":
            Path(path.read_text().splitlines()[0]).unlink()
        path.unlink()


def problems(run: Path) -> list[str]:
    """What a reader says is wrong; it never says so of a run that it calls complete."""
    opened = read_run(run)
    told = [str(problem) for problem in opened.problems]
    for command in ("summary", "export"):
        status = main([command, str(run), *(["--to", "-"] if command == "export" else [])])
        assert (status != 0) == bool(told)
    reports = recover(run)
    assert (main(["recover", str(run)]) != 0) == bool(told)
    assert all(report.sound for report in reports) == (not told)
    return told


@pytest.mark.parametrize("ring", ["file", "shm"])
def test_a_ring_that_somebody_removed_is_missed(tmp_path: Path, ring: str) -> None:
    """Until its list of writers is removed as well."""
    writers = write(tmp_path, ring)
    assert read_run(tmp_path).problems == []
    remove_rings(tmp_path)
    (told,) = problems(tmp_path)
    assert "main: it has not ended, and its ring is not here any more" in told
    write(tmp_path, ring, "close")
    assert problems(tmp_path) == [told]
    writers.unlink()
    assert problems(tmp_path) == []


def test_a_ring_in_memory_is_missed_until_its_writer_has_closed(tmp_path: Path) -> None:
    """Nobody can look into it, and if its process was killed it is gone."""
    write(tmp_path / "closed", "memory", "close")
    assert problems(tmp_path / "closed") == []
    for _ in range(7):
        write(tmp_path / "killed", "memory")
    (told,) = problems(tmp_path / "killed")
    assert "a1, a2, a3, a4, a5 and 2 more: it has not ended, and its ring is in memory" in told


@pytest.mark.parametrize("ring", ["file", "shm"])
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
    writers = write(tmp_path)
    (ring,) = (tmp_path / ".fastlog").glob("*.ring")
    ring.write_bytes(b"damaged")
    (told,) = problems(tmp_path)
    assert "quarantine" in told
    assert writers.read_text().count("end ") == 1
    shutil.rmtree(tmp_path / ".fastlog" / "quarantine")
    assert problems(tmp_path) == []


def test_a_run_that_was_copied_without_its_private_directory_is_no_complete_one(
    tmp_path: Path,
) -> None:
    """As `cp RUN/* TO` does. Where all starts have ended, nothing is missing."""
    write(tmp_path / "ended", "file", "close")
    write(tmp_path / "killed")
    for name in ("ended", "killed"):
        shutil.rmtree(tmp_path / name / ".fastlog")
    assert read_run(tmp_path / "ended").problems == []
    (told,) = (str(problem) for problem in read_run(tmp_path / "killed").problems)
    assert "by its run.json attempt 0 has not ended" in told


def test_a_list_with_torn_and_strange_lines_is_read(tmp_path: Path) -> None:
    """A disk may have been full in the midst of a line."""
    writers = write(tmp_path)
    whole = writers.read_bytes()
    uuid = whole.split()[1]
    writers.write_bytes(b"begin 0123\xff\nbegin " + uuid[:9] + whole + b"end " + uuid[:20])
    assert problems(tmp_path) == []  # the ring is recovered
    writers.write_bytes(whole + b"end 12end " + uuid + b"\n")
    assert problems(tmp_path) == []
    writers.write_bytes(b"begin " + uuid[:9] + whole)
    assert "main: it has not ended" in problems(tmp_path)[0]


@pytest.mark.parametrize("made", ["pipe", "directory", "link"])
def test_what_is_in_the_place_of_the_list_harms_nobody(tmp_path: Path, made: str) -> None:
    """Nothing waits for it, or writes to where it leads; readers say that they cannot read it."""
    place = tmp_path / "run" / ".fastlog" / "writers"
    place.parent.mkdir(parents=True)
    outside = tmp_path / "notes"
    outside.write_text("mine")
    {
        "pipe": lambda: os.mkfifo(place),
        "directory": place.mkdir,
        "link": lambda: place.symlink_to(outside),
    }[made]()
    with Recorder(tmp_path / "run") as recorder:
        recorder.record(0, loss=1.0)
    assert outside.read_text() == "mine"
    told = problems(tmp_path / "run")
    assert len(told) == (made != "pipe")  # an empty pipe is an empty list


def test_a_ring_stays_where_its_end_cannot_be_noted(tmp_path: Path) -> None:
    """All of it is in the files, so it does no harm; without it the writer would be missed."""
    recorder = Recorder(tmp_path)
    recorder.record(0, loss=1.0)
    writers = tmp_path / ".fastlog" / "writers"
    kept = writers.rename(tmp_path / "kept")
    writers.mkdir()
    assert recorder.close()
    del recorder  # and with it the lock
    (report,) = _core.recover_run(str(tmp_path))
    assert (report["outcome"], report["emitted"]) == ("recovered", 0)
    assert "but it stays" in report["reason"]
    writers.rmdir()
    kept.rename(writers)
    assert problems(tmp_path) == []
    assert not list((tmp_path / ".fastlog").glob("*.ring"))


@pytest.mark.parametrize("ring", ["file", "shm", "memory"])
def test_a_writer_whose_descriptors_were_closed_has_ended_too(tmp_path: Path, ring: str) -> None:
    """Its directory is opened again, by name, to say so."""
    code = WRITER.replace("if len", "recorder.flush(); os.closerange(3, 1 << 16)\nif len")
    run_python(code, tmp_path, ring, "close")
    assert problems(tmp_path) == []
    assert not list((tmp_path / ".fastlog").glob("*.ring*"))
