"""Runs whose files and directories others copy, remove, rename and replace meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ring_checks import check_against_recovery, seen
from trainers import Begin, Trainer

from foundry_fastlog import _core, read_run
from foundry_fastlog.run.checks import SeriesCheck

segments = pytest.mark.parametrize("segment_bytes", [4096, 1 << 20])
endings = pytest.mark.parametrize("ending", ["close", "kill"])
rings = pytest.mark.parametrize("ring", ["file", "shm"])


def copy(source: Path, target: Path) -> None:
    """Copy a run's files over what is there, as people do."""
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def steps(files: dict[str, bytes], who: str) -> list[int]:
    """The steps of a process in files, each of which has lines of one process alone."""
    found: list[int] = []
    for content in files.values():
        records: list[Any] = [json.loads(line) for line in content.splitlines()]
        names = {record["metrics"]["who"] for record in records}
        assert len(names) <= 1
        if names == {who}:
            found += [record["step"] for record in records]
    return sorted(found)


def complete(run: Path) -> list[SeriesCheck]:
    found = read_run(run)
    checks = found.check()
    assert found.problems == []
    assert all(check.complete for check in checks)
    return checks


def lives(begin: Begin, run: Path, **options: object) -> Trainer:
    """A process that has 100 records in files and 50 in its ring."""
    trainer = begin(run, "a", **options)
    trainer.do("record 100", "keep 50")
    return trainer


def attempts(run: Path) -> list[tuple[int, int, bool]]:
    """Who is in a run.json: process, attempt, and whether it has ended."""
    entries = json.loads((run / "run.json").read_bytes())["attempts"]
    return [(entry["pid"], entry["attempt"], entry["ended"] is not None) for entry in entries]


@segments
@endings
def test_a_copy_that_is_made_again_has_the_later_state(
    segment_bytes: int, ending: str, begin: Begin, tmp_path: Path
) -> None:
    """The ring in it, of a process that lived, takes no line away; nor does it put back."""
    run, backup = tmp_path / "run", tmp_path / "bak"
    trainer = lives(begin, run, segment_bytes=segment_bytes, ring_bytes=1 << 16)
    copy(run, backup)
    assert steps(seen(backup), "a") == list(range(150))  # what the live one has in its ring, too
    trainer.do("record 400")
    if ending == "close":
        trainer.do("close 0")
    trainer.kill()
    _core.recover_run(str(run))
    final = seen(run)
    assert steps(final, "a") == list(range(550))
    copy(run, backup)
    copy(backup, run)  # and back
    for place in (backup, run):
        (report,) = check_against_recovery(place)
        assert (report.outcome, report.emitted, report.cut_bytes) == ("recoverable", 0, 0)
        assert seen(place) == final
        assert all(check.complete for check in read_run(place).check())


@pytest.mark.parametrize("lived", [True, False])
@segments
def test_a_backup_that_is_put_back_over_a_resumed_run_is_whole(
    segment_bytes: int, lived: bool, begin: Begin, tmp_path: Path
) -> None:
    """What its ring adds comes where its numbers are, and no line counts as late."""
    run, backup = tmp_path / "run", tmp_path / "bak"
    trainer = lives(begin, run, segment_bytes=segment_bytes, ring_bytes=1 << 16)
    if not lived:
        trainer.kill()
    shutil.copytree(run, backup)
    if lived:
        trainer.do("record 400")
        trainer.kill()
    resumed = begin(run, "b", segment_bytes=segment_bytes)
    resumed.do("record 60", "close 0")
    copy(backup, run)
    for _ in range(2):
        complete(run)
        found = list(read_run(run).lines("metrics", starts="all"))
        mine = [line["step"] for line in found if line["metrics"]["who"] == "a"]
        assert mine == list(range(len(mine)))
        assert len(mine) == (550 if lived and segment_bytes == 4096 else 150)
        assert len(found) == len(mine) + 60
        check_against_recovery(run)


def test_a_copy_of_a_killed_run_recovers_by_itself(begin: Begin, tmp_path: Path) -> None:
    """With a line that was being written; the run that was copied knows nothing of it."""
    run, backup = tmp_path / "run", tmp_path / "bak"
    trainer = begin(run, "a", segment_bytes=4096)
    trainer.do("record 100", "keep 100")
    trainer.kill()
    with max(run.glob("metrics*.jsonl"), key=lambda path: (len(path.name), path)).open(
        "ab"
    ) as file:
        file.write(b'{"timestamp":"2026-')
    copy(run, backup)
    (report,) = check_against_recovery(backup)
    assert (report.outcome, report.emitted) == ("recoverable", 100)
    assert steps(seen(backup), "a") == list(range(200))
    assert not list((backup / ".fastlog").glob("*.ring"))
    assert check_against_recovery(run)[0].emitted == report.emitted
    # In the copy they are in a segment of their own: its files may be anybody's.
    assert steps(seen(run), "a") == list(range(200))
    assert set(seen(backup)) > set(seen(run))


def test_a_view_by_another_mount_leaves_the_ring_to_the_run(begin: Begin, tmp_path: Path) -> None:
    """What is written to an overlay is not in the run; where that cannot be seen, it is the run."""
    for name in ("runs", "upper", "work", "view"):
        (tmp_path / name).mkdir()
    run, view = tmp_path / "runs" / "run", tmp_path / "view" / "run"
    trainer = begin(run, "a", ring="shm")
    trainer.do("keep 50")
    trainer.kill()
    layers = f"lowerdir={tmp_path}/runs,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mount = ["mount", "-t", "overlay", "-o", layers, "overlay", str(view.parent)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        if view.stat().st_ino != run.stat().st_ino:
            pytest.skip("this overlay has inodes of its own")
        (report,) = check_against_recovery(view)
        assert report.outcome == "elsewhere"
        assert f"a copy of: {run}. Recover there" in report.reason
        (pointer,) = (view / ".fastlog").glob("*.ring-at")
        lines = pointer.read_text().splitlines()
        pointer.write_text("\n".join([*lines[:3], "/nowhere", ""]))
        (report,) = check_against_recovery(view)
        assert (report.outcome, report.same_boot) == ("recoverable", False)
        assert steps(seen(view), "a") == list(range(50))
    finally:
        subprocess.run(["umount", "-l", view.parent], check=True)


@pytest.mark.parametrize("ring", ["file", "shm", "memory"])
@pytest.mark.parametrize("removed", ["directory", "files"])
def test_a_new_start_after_a_removal_shares_no_file_with_the_old_one(
    removed: str, ring: str, begin: Begin, tmp_path: Path
) -> None:
    """Both write on; what each recorded since is there, once, in files of its own."""
    run = tmp_path / "run"
    old = begin(run, "old", ring=ring)
    old.do("record 50")
    if removed == "directory":
        shutil.rmtree(run)
    else:
        for path in run.glob("*.jsonl"):
            path.unlink()
    new = begin(run, "new", ring=ring)
    for _ in range(3):
        new.do("record 20")
        old.do("record 20")
    old_label, new_label = old.do("close 0"), new.do("close 0")
    files = seen(run)
    assert steps(files, "old") == list(range(50, 110))
    assert steps(files, "new") == list(range(60))
    # That the old one lives, only its ring says; a peer leaves run.json to the first.
    unseen = (removed, ring) == ("files", "memory")
    assert {old_label, new_label} == {"", "a1" if unseen else "p1"}
    said = [(old.process.pid, 0, True), (new.process.pid, int(unseen), True)]
    assert sorted(attempts(run)) == sorted(said if unseen or removed == "directory" else said[:1])


@endings
@segments
def test_lines_under_a_new_label_are_no_gap_where_those_before_are_there(
    segment_bytes: int, ending: str, begin: Begin, tmp_path: Path
) -> None:
    """They count from 0 there, after a kill too; every line of the run is in its place."""
    trainer = begin(tmp_path, "a", segment_bytes=segment_bytes, ring_bytes=1 << 16)
    trainer.do("record 150")
    (tmp_path / "log.jsonl").touch()  # somebody's
    trainer.do("keep 5")
    assert trainer.do("event 3") == "p1"
    trainer.do("record 100", "keep 20")
    if ending == "close":
        trainer.do("close 0")
    trainer.kill()
    if ending == "kill":
        assert [report.outcome for report in check_against_recovery(tmp_path)] == ["recoverable"]
    metrics = {name: text for name, text in seen(tmp_path).items() if "metrics" in name}
    assert steps(metrics, "a") == list(range(275))
    assert [check.series.writer.label for check in complete(tmp_path)] == ["", "p1", "", "p1"]
