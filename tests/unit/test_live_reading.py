"""Reading a run while it is written: a healthy run never looks damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
import rings
from recorded import start_python
from ring_checks import on_disk, seen
from rings import RingBuilder, locked

from foundry_fastlog import Recorder, read_run, recover
from foundry_fastlog.reading.overlay import Overlay
from foundry_fastlog.run.files import group_series
from foundry_fastlog.run.listing import list_files, list_segments

Patch = pytest.MonkeyPatch

# Records until it is killed, with a new file every few lines; says so when there are some.
WRITER = """
import sys
import time
from foundry_fastlog import Recorder
path, ring = sys.argv[1:]
recorder = Recorder(path, ring=ring, ring_bytes=1 << 16, segment_bytes=4096, flush_interval_s=0.001)
step = 0
while True:
    recorder.record(step, loss=1.0, text="x" * (step % 97))
    recorder.event("tick", step=step)
    step += 1
    if step % 16 == 0:
        time.sleep(0.001)
    if step == 100:
        recorder.flush()
        print("recording", flush=True)
"""


@contextmanager
def recording(run: Path, ring: str = "file", code: str = WRITER) -> Iterator[subprocess.Popen[str]]:
    with start_python(code, run, ring) as writer:
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline() == "recording\n"
            yield writer
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            recover(run)  # nothing of it stays in /dev/shm


each_ring = pytest.mark.parametrize("ring", ["file", "shm"])


@each_ring
def test_a_live_run_never_reads_as_damaged(tmp_path: Path, ring: str) -> None:
    """New files and half-written batches all the time: each look finds whole lines, and no gap."""
    run = tmp_path / "run"
    lines = looks = 0
    with recording(run, ring):
        begin = time.monotonic()
        # The run grows as fast as it can: on a slow machine each look takes longer than the last.
        while looks < 3 or (looks < 12 and time.monotonic() < begin + 10):
            looks += 1
            opened = read_run(run)
            checks = opened.check()
            assert opened.problems == []
            assert all(check.complete for check in checks)
            before, lines = lines, sum(check.lines for check in checks)
            assert lines >= before


COMES_AND_GOES = """
import sys
from foundry_fastlog import Recorder
print("recording", flush=True)
while True:
    with Recorder(*sys.argv[1:2], ring=sys.argv[2], ring_bytes=1 << 16) as recorder:
        recorder.record(0, loss=1.0)
"""


@each_ring
def test_writers_that_come_and_go_are_never_missed(tmp_path: Path, ring: str) -> None:
    """A ring that is not there when the rings are listed is noted as that of one who has ended."""
    run = tmp_path / "run"
    Recorder(run).close()
    with recording(run, ring, COMES_AND_GOES):
        for _ in range(30):
            assert read_run(run).problems == []


def message(seq: int) -> bytes:
    members = b'"level":"INFO","logger":"","message":"","context":{}'
    return b'{"timestamp":"1970-01-01T00:00:00.000000Z","seq":%d,%b}\n' % (seq, members)


def test_a_live_writer_is_seen_as_far_as_it_has_noted(tmp_path: Path) -> None:
    """Half a batch behind that, and a file that was begun for it, are not damage."""
    run = tmp_path / "run"
    with Recorder(run, flush_interval_s=3600) as recorder:
        recorder.record(0, x=1)
        recorder.flush()
        with (run / "metrics.jsonl").open("ab") as file:
            file.write(b'{"timestamp":')
        (run / "metrics.000001.jsonl").write_bytes(b'{"begun":1}\n')
        opened = read_run(run)
        assert [line["step"] for line in opened.lines("metrics")] == [0]
        assert all(check.complete for check in opened.check())
        assert opened.problems == []
        assert [(ring.outcome, ring.label) for ring in opened.rings] == [("live", "")]
        (run / "metrics.000001.jsonl").unlink()
        recorder.record(1, x=1)
    assert [line["step"] for line in read_run(run).lines("metrics")] == [0, 1]


def test_a_stranger_in_the_place_of_a_live_writers_file_is_not_cut(tmp_path: Path) -> None:
    """Its ring notes which file is its own, and says nothing of others."""
    with Recorder(tmp_path, flush_interval_s=3600) as recorder:
        recorder.record(0, x=1)
        recorder.flush()
        (tmp_path / "metrics.jsonl").rename(tmp_path / "aside")
        whole = message(0) + message(1) + message(2)
        (tmp_path / "metrics.jsonl").write_bytes(whole)
        assert seen(tmp_path)["metrics.jsonl"] == whole
        (tmp_path / "aside").rename(tmp_path / "metrics.jsonl")


def test_lines_of_a_live_writer_that_were_moved_are_read_once(tmp_path: Path) -> None:
    """After a failed fsync they stand in two files until the first one is cut."""
    builder = RingBuilder()
    first, second = message(0), message(1)
    builder.streams[3] = [len(second), 2, len(first), 1, 0, 1, 1, 0]
    ring = builder.put(tmp_path)
    shown = {"log.jsonl": first, "log.000001.jsonl": second}
    shown |= {"log.r1.jsonl": first}  # another writer's
    for name, content in {**shown, "log.jsonl": first + second}.items():
        (tmp_path / name).write_bytes(content)
    with locked(ring):
        assert seen(tmp_path) == shown


@pytest.mark.parametrize("damage", ["header", "slot", "label"])
def test_an_unreadable_live_ring_says_nothing_of_the_files(tmp_path: Path, damage: str) -> None:
    """They are read as they are; whether the ring is damaged is asked when its writer is dead.

    Nor does one with a label of no recorder: no file of the run can be its writer's.
    """
    (tmp_path / "log.jsonl").write_bytes(message(0))
    label = "zz" if damage == "label" else ""
    ring = RingBuilder().having(label=label).lines(1).put(tmp_path)
    if damage != "label":
        at = {"header": 0, "slot": rings.SLOTS[0]}[damage]
        with rings.edited(ring) as data:
            data[at : at + 2000] = b"\xff" * 2000
    with locked(ring):
        assert seen(tmp_path) == on_disk(tmp_path)
        assert read_run(tmp_path).unread == 0
    if damage == "label":  # not then, either
        assert seen(tmp_path) == on_disk(tmp_path)
        assert [report.emitted for report in Overlay(tmp_path).refresh()] == [1]


def test_processes_begun_during_a_look_come_with_rings(tmp_path: Path, monkeypatch: Patch) -> None:
    """Files without the ring that says where they end might end anywhere."""
    builder = RingBuilder().lines(1)

    def begin(directory: Path) -> object:
        if not (directory / ".fastlog").exists():
            builder.put(directory)
            (directory / "log.jsonl").write_bytes(b'{"timestamp":"torn')
        return list_files(directory)

    monkeypatch.setattr("foundry_fastlog.reading.overlay.list_files", begin)
    (tmp_path / "metrics.jsonl").touch()
    assert seen(tmp_path)["log.jsonl"].startswith(b'{"timestamp":"1970')


def test_a_file_made_meanwhile_comes_with_those_before(tmp_path: Path, monkeypatch: Patch) -> None:
    """A listing may have a file and lack the one that was made before it; both, or neither."""
    scan = os.scandir
    (tmp_path / "log.jsonl").touch()

    def late(path: Path) -> AbstractContextManager[list[os.DirEntry[str]]]:
        entries = [entry for entry in scan(path) if entry.name != "log.000001.jsonl"]
        for number in (1, 2):
            (path / f"log.{number:06d}.jsonl").touch()
        entries += [entry for entry in scan(path) if entry.name == "log.000002.jsonl"]
        monkeypatch.setattr(os, "scandir", scan)
        return nullcontext(entries)

    monkeypatch.setattr(os, "scandir", late)
    (series,) = group_series(list_segments(tmp_path))
    assert series.missing_segments() == []
