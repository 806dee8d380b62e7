"""Deterministic checks of each step that exactly-once rests on.

tests/crash/mutations.py breaks these steps one by one and expects the test named for each to fail.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from crash.acked import STREAMS
from crash.driving import SANITIZED, STALLED, Scene, Settings, build, fix_addresses
from crash.ring_file import PAD, SLOT_BYTES, SLOTS, Record, RingFile
from crash.test_kill_points import WRITING, leave_full_ring, start_and_hold

# 4 KiB of ring: the threads overwrite whatever they may within microseconds.
# Waits are short: whoever waits is not told that the head has moved while the flush thread is held.
SMALL = Settings(threads=3, ring=4096, segment=4096, flush_us=100, block_ms=5)
# No drops: a ring of which a test changes single records.
KEPT = Settings(threads=2, ring=1 << 16, segment=4096, flush_us=200, block_ms=60_000)


@pytest.mark.parametrize("nth", [2, 5, 30])
@pytest.mark.parametrize("point", WRITING)
def test_bytes_are_not_reused_before_it_is_committed_that_they_are_written(
    scene: Scene, point: str, nth: int
) -> None:
    """With the flush thread held anywhere, the others fill the ring and overwrite no such byte."""
    process = start_and_hold(scene, SMALL, f"{point}:{nth}")
    process.kill()
    scene.recover()
    scene.must_hold()


@pytest.mark.parametrize("written", [0, 20, 90])
def test_an_unfinished_record_is_never_read(scene: Scene, written: int) -> None:
    """A thread stands still in mid-record: nobody writes that record to a file, now or later."""
    process = scene.start(Settings(threads=3, flush_us=100, stall=f"0:40:{written}"))
    process.wait_phase(STALLED)
    process.wait_quiet()
    process.signal(signal.SIGSTOP)
    verdict = scene.check(leftovers=False)
    assert [v for v in verdict.violations if "torn" not in v] == []
    process.kill()
    assert [report["holes"] for report in scene.recover()] == [1]
    assert scene.must_hold().extra <= 2  # of the two threads that went on


def test_records_behind_an_unfinished_one_are_recovered(scene: Scene) -> None:
    """Thread 0 dies in mid-record; what the others recorded behind it had been accepted."""
    process = scene.start(Settings(threads=3, ring=1 << 14, flush_us=100, stall="0:40:10"))
    process.wait_phase(STALLED)
    process.wait_quiet()
    process.kill()
    # All of the ring but one record.
    [report] = scene.recover()
    assert report["holes"] == 1
    assert report["emitted"] > 20
    scene.must_hold()


def pending(ring: RingFile) -> list[Record]:
    """The records that recovery has to write, pads included."""
    records = list(ring.pending())
    assert len(records) > 100
    return records


# Where in a record, and what to do to the byte there. A damaged length or stamp makes a hole.
FIELDS = {"stamp": 0, "length": 8, "checksum": 12, "ticks": 16, "thread": 24, "kind": 28}
FIELDS |= {"stream": 29, "payload's first byte": 32, "payload's last byte": -1}


@pytest.mark.parametrize("field", FIELDS)
def test_a_damaged_record_is_not_written(scene: Scene, field: str) -> None:
    """One flipped bit costs that record and nothing else."""
    leave_full_ring(scene, KEPT)
    ring = RingFile(scene.rings()[0])
    victim = [record for record in pending(ring) if record.kind != PAD][50]
    offset = FIELDS[field] if FIELDS[field] >= 0 else 32 + victim.length - 1
    ring.bytes[victim.at + offset] ^= 1
    ring.save()
    [report] = scene.recover()
    found = (report["outcome"], report["holes"], report["hole_bytes"])
    assert found == ("recovered", 1, victim.size)
    [lost] = scene.check().violations[:-1]
    assert "1 of" in lost
    assert "acked records are lost" in lost


def leave_ring_with_pad(make: Callable[[], Scene]) -> Scene:
    """Leave a full ring that wraps with a pad; one in five has a record that ends at its end."""
    for _ in range(50):
        scene = make()
        leave_full_ring(scene, KEPT, point="batch_filled:40")
        if PAD in [record.kind for record in pending(RingFile(scene.rings()[0]))]:
            return scene
    raise AssertionError("no pad in fifty rings")


def test_a_pad_is_no_record(scenes: Callable[[], Scene]) -> None:
    """Where the ring wraps, the room that nobody used is passed over, alive and dead."""
    scene = leave_ring_with_pad(scenes)
    [report] = scene.recover()
    assert report["holes"] == 0
    scene.must_hold()


def test_death_between_claim_and_pad(scenes: Callable[[], Scene]) -> None:
    """A thread dies with the end of the ring and its begin claimed, and neither written."""
    scene = leave_ring_with_pad(scenes)
    ring = RingFile(scene.rings()[0])
    records = pending(ring)
    index = [record.kind for record in records].index(PAD)
    pad, behind = records[index], records[index + 1]
    for record in (pad, behind):
        ring.bytes[record.at : record.at + 8] = bytes(8)
    ring.save()
    [report] = scene.recover()
    assert (report["holes"], report["hole_bytes"]) == (1, pad.size + behind.size)
    assert len(scene.check().violations[:-1]) == 1  # the one record that was taken away


@pytest.mark.parametrize("whole_bytes", [8, 16, 40, 100, 200])
@pytest.mark.parametrize("nth", [2, 3, 20])
def test_a_torn_commit_slot_is_not_used(scene: Scene, nth: int, whole_bytes: int) -> None:
    """Death in the middle of filling a slot: the other one is true still."""
    process = start_and_hold(scene, replace(SMALL, ring=1 << 14), f"slot_filled:{nth}")
    process.kill()
    ring = RingFile(scene.rings()[0])
    epoch = ring.slot().epoch
    at, other = SLOTS[epoch & 1], SLOTS[(epoch + 1) & 1]
    # What it held before is not known any more; the other slot is as old as that, nearly.
    ring.bytes[at + whole_bytes : at + SLOT_BYTES] = ring.bytes[
        other + whole_bytes : other + SLOT_BYTES
    ]
    ring.save()
    scene.recover()
    scene.must_hold()


@pytest.mark.parametrize("whole", [b"", b"{}\n" * 5000, b"\n"])
@pytest.mark.parametrize("torn", [b'{"timestamp":"20', bytes(9000), b""])
def test_what_is_torn_behind_the_commit_is_cut(scene: Scene, torn: bytes, whole: bytes) -> None:
    """A line that was not written to its end goes, in each stream; whole lines stay, whoever's."""
    process = start_and_hold(scene, KEPT, "committed:30")
    process.kill()
    slot = RingFile(scene.rings()[0]).slot()
    paths = []
    for stream, (segment, offset, _) in zip(STREAMS, slot.streams, strict=True):
        number = f".{segment:06d}" if segment else ""
        paths.append(path := scene.run / f"{stream}{number}.jsonl")
        assert path.stat().st_size == offset
        path.write_bytes(path.read_bytes() + whole + torn)
    # Nothing to replay: only the cut is left to be done.
    ring = RingFile(scene.rings()[0])
    lost = sum(record.kind != PAD for record in ring.pending())
    struct.pack_into("<Q", ring.bytes, 4096, slot.position)
    ring.save()
    [report] = scene.recover()
    assert report["cut_bytes"] == len(STREAMS) * len(torn)
    found = scene.check().violations[:-1]
    assert lost > 0
    if whole:
        assert all(path.read_bytes().endswith(whole) for path in paths)
    else:
        assert all("acked records are lost" in sentence for sentence in found), found


@pytest.mark.parametrize("torn", [b'{"timestamp":"2026-01-30T14:32:15.123456Z","seq":9,"to', b""])
def test_segments_begun_and_not_committed_are_gone_on_with(scene: Scene, torn: bytes) -> None:
    """A crash between a rotation and its commit: the new segment is known by its note."""
    process = start_and_hold(scene, KEPT, "file_noted:21")
    process.kill()
    slot = RingFile(scene.rings()[0]).slot()
    begun = [path for path in scene.run.glob("*.0*.jsonl") if not path.stat().st_size]
    assert len(begun) == 1
    stream, number, _ = begun[0].name.split(".")
    assert int(number) > slot.streams[STREAMS.index(stream)][0]
    begun[0].write_bytes(torn)
    [report] = scene.recover()
    assert report["outcome"] == "recovered"
    assert report["cut_bytes"] >= len(torn)
    assert begun[0].stat().st_size
    scene.must_hold()


@pytest.mark.parametrize("point", ["batch_written:20", "stream_written:20", "batch_filled:20"])
def test_lines_there_are_not_written_again_after_a_power_loss(scene: Scene, point: str) -> None:
    """Another boot: no offset is trusted, the lines' numbers decide."""
    process = start_and_hold(scene, KEPT, point)
    process.kill()
    ring = RingFile(scene.rings()[0])
    ring.set_other_boot()
    ring.save()
    [report] = scene.recover()
    assert report["same_boot"] == 0
    assert report["emitted"] > 0
    assert (report["skipped"] > 0) == (point != "batch_filled:20")
    scene.must_hold()


@pytest.mark.skipif(not SANITIZED, reason="a build of its own: CI=true")
@pytest.mark.parametrize("nth", range(3))
def test_orders_that_threads_rely_on(tmp_path: Path, nth: int) -> None:
    """ThreadSanitizer sees every byte of the ring handed over by a release and an acquire."""
    program = build("tsan") / "ring_race"
    env = {**os.environ, "TSAN_OPTIONS": f"halt_on_error=1 exitcode=66 random_seed={nth}"}
    done = subprocess.run(
        [*fix_addresses(), program, "5000"], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "15000 records\n"
