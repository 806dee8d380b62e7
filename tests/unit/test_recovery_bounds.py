"""Recovery of files and rings that are not as a recorder leaves them: what it keeps and refuses."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import rings
from ring_checks import check_against_recovery, seen
from rings import METRICS, REAL, STRING, TIMING, RingBuilder, missing, pending, ring_of

from foundry_fastlog import Recorder, read_run

LONGEST_KEY = "k" * 254  # with its quotes 256 bytes
LONG = b"x" * 1900  # two lines with this make a segment
each_version = pytest.mark.parametrize("version", [2, 3, 4])


def line(seq: int) -> bytes:
    stamp = b"1970-01-01T00:00:00.000000Z"
    members = b'"seq":%d,"step":%d,"metrics":{"x":"%b"}' % (seq, seq, LONG)
    return b'{"timestamp":"%b",%b}\n' % (stamp, members)


def leave_run(
    run: Path, begun: Mapping[int, bytes] = MappingProxyType({}), *, version: int = 3
) -> list[bytes]:
    """A killed writer of ten lines: two are noted as written, the rest is in the ring.

    Segments that it had begun may be there; rings of version 3 note them as its own.
    """
    builder = RingBuilder(ring_bytes=1 << 15, version=version).having(segment_bytes=4096)
    keys = builder.key_set("x")
    builder.streams[0] = [len(line(0)) * 2, 2, 0, 0, 0, 1, 0, 0]
    for step in range(2, 10):
        builder.metrics(step, keys, (STRING, LONG))
    lines = [line(seq) for seq in range(10)]
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:2]))
    for number, content in begun.items():
        (run / f"metrics.{number:06d}.jsonl").write_bytes(content)
    builder.note_files(run)
    builder.put(run)
    return lines


def check_whole(run: Path, lines: list[bytes]) -> None:
    assert [check.complete for check in read_run(run).check()] == [True]
    assert written(run) == lines


def written(run: Path) -> list[bytes]:
    shown = seen(run)
    numbered = sorted(shown, key=lambda name: (name.count("."), name))
    return b"".join(shown[name] for name in numbered).splitlines(keepends=True)


@pytest.mark.parametrize("torn", [0, 1, 60])
def test_begun_segments_are_gone_on_with(torn: int, tmp_path: Path) -> None:
    begun = {1: line(2) + line(3), 2: line(4) + line(5)[:torn]}
    lines = leave_run(tmp_path, begun)
    (report,) = check_against_recovery(tmp_path)
    assert (report.emitted, report.skipped, report.cut_bytes) == (5, 3, torn)
    check_whole(tmp_path, lines)


OTHERS: dict[str, bytes | Callable[[Path], object]] = {
    "notes": b"my notes\n",
    "other lines": b'{"mine":1}\n',
    "almost ours": b'{"timestamp":"2026-01-30T14:32:15.123456Z","step":9,"seq":9}\n',
    "no number": b'{"timestamp":"2026-01-30T14:32:15.123456Z","seq":nine,"step":9}\n',
    "too large a number": line(1 << 64),
    "directory": Path.mkdir,
    "link": lambda path: path.symlink_to("outside"),
    "pipe": os.mkfifo,
    "older lines": line(0) + line(1),  # in the next segment's place they pass for its beginning
}
PLACES = [(kind, n) for kind in OTHERS for n in (1, 3) if (kind, n) != ("older lines", 1)]


@each_version
@pytest.mark.parametrize(("kind", "number"), PLACES)
def test_what_is_not_ours_is_neither_removed_nor_written_to(
    kind: str, number: int, version: int, tmp_path: Path
) -> None:
    lines = leave_run(tmp_path, version=version)
    other = tmp_path / f"metrics.{number:06d}.jsonl"
    made = OTHERS[kind]
    _ = made(other) if callable(made) else other.write_bytes(made)
    before = other.lstat()
    (report,) = check_against_recovery(tmp_path)
    assert (report.outcome, report.emitted) == ("recoverable", 8)
    after = other.lstat()
    for fact in ("st_ino", "st_size", "st_mtime_ns"):
        assert getattr(after, fact) == getattr(before, fact)
    names = [f"metrics.{n:06d}.jsonl" for n in range(1, 6) if n != number]
    assert b"".join((tmp_path / name).read_bytes() for name in names) == b"".join(lines[2:])
    assert not (tmp_path / "outside").exists()


CONTENTS = {"a line": line(2), "nothing": b"", "notes": b"my notes\n", "NULs": bytes(50)}


@pytest.mark.parametrize("boot", ["same", "other"])
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("note", ["about to be made", "none", "other device", "other inode", "own"])
def test_which_file_is_the_writers_the_ring_says(
    note: str, content: str, boot: str, tmp_path: Path
) -> None:
    """By inode; what it does not know is the writer's after another boot alone, or in a copy."""
    leave_run(tmp_path, {1: CONTENTS[content]})
    path = tmp_path / "metrics.000001.jsonl"
    device, inode = (0, 0) if note == "about to be made" else rings.id_of(path)
    noted = (device + (note == "other device"), inode + (note == "other inode"))
    raw = bytes(rings.FILE_NOTE_BYTES) if note == "none" else rings.file_note(noted, 1, 1)
    rings.patch_file_note(ring_of(tmp_path), 1, raw)
    if boot == "other":
        rings.move_to_other_boot(ring_of(tmp_path))
    (report,) = check_against_recovery(tmp_path)
    known = note == "own" or (note, content) == ("about to be made", "nothing")
    later = (note, content) == ("none", "a line")  # the ring was put back beside later files
    begins_well = content != "notes" or note == "other device"
    ours = known or later or (boot == "other" and begins_well)
    assert report.outcome == "recoverable"
    assert report.skipped == (ours and content == "a line")
    if not ours:
        assert path.read_bytes() == CONTENTS[content]
        assert (tmp_path / "metrics.000002.jsonl").read_bytes() == line(2) + line(3)


def test_a_stream_has_no_more_segments_than_its_numbers_allow(tmp_path: Path) -> None:
    """Somebody's file is in the place of the last one: nothing is written, and the ring stays."""
    builder = RingBuilder().lines(1)
    builder.streams[3][3] = 999_999
    ring = builder.put(tmp_path)
    (tmp_path / "log.999999.jsonl").write_bytes(b"my notes\n")
    (report,) = check_against_recovery(tmp_path)
    assert (report.outcome, ring.exists()) == ("failed", True)


@each_version
def test_a_ring_that_is_put_back_takes_no_line_away(version: int, tmp_path: Path) -> None:
    """It has its old inode again, perhaps; and its writer had gone on, over more segments."""
    lines = leave_run(tmp_path, version=version)
    for number in range(1, 5):
        path = tmp_path / f"metrics.{number:06d}.jsonl"
        path.write_bytes(b"".join(lines[2 * number : 2 * number + 2]))
    (report,) = check_against_recovery(tmp_path)
    assert (report.emitted, report.skipped, report.cut_bytes) == (0, 8, 0)
    check_whole(tmp_path, lines)


@each_version
def test_a_ring_that_wants_tiny_segments_makes_few_files(version: int, tmp_path: Path) -> None:
    builder = RingBuilder(ring_bytes=1 << 15, version=version).having(segment_bytes=1)
    builder.lines(*range(500)).put(tmp_path)
    (report,) = check_against_recovery(tmp_path)
    assert report.emitted == 500
    assert len(seen(tmp_path)) <= 1 + sum(map(len, seen(tmp_path).values())) // 4000


HUGE = -(1 << 63)


@pytest.mark.parametrize("values", ["recorded", "missing"])
@pytest.mark.parametrize("count", [0, 1, 2, 8, 100])
def test_no_record_makes_a_line_of_more_than_64_times_its_size(
    count: int, values: str, tmp_path: Path
) -> None:
    """The longest keys, values with the most text, keys that come twice with the longest reason.

    So what recovery can be made to write ends.
    """
    builder = RingBuilder(ring_bytes=1 << 14, key_table_bytes=1 << 15, version=2)
    builder.anchor = (0, 1 << 62, 1.0)
    number = builder.key_set(*(f"{n:06d}" + LONGEST_KEY[6:] for n in range(count)))
    builder.streams[0][1] = builder.streams[1][1] = (1 << 60) - 10
    driver_error = missing(3, (1 << 32) - 1)
    texts: list[tuple[int, object]] = [(REAL, -float("inf")), (REAL, -2.2250738585072014e-308)]
    texts += [(STRING, b"\x01" * 20)]
    for value in texts * 2 if values == "recorded" else [driver_error, pending(0)]:
        builder.metrics(HUGE, number, *[value] * count)
    if count:
        device = values == "missing"  # the timing with the most to say
        flags = 15 | 4 << 4 | 255 << 8 if device else 3
        timing = struct.pack("<qQ2I2HI", HUGE, (1 << 63) - 1, number, number, 65535, flags, 0)
        reason = struct.pack("<Q", driver_error[1]) if device else b""
        builder.record(TIMING, 1, timing + reason, thread=0xFFFFFFFF)
    builder.put(tmp_path)
    (report,) = check_against_recovery(tmp_path)
    assert (report.outcome, report.damaged) == ("recoverable", 0)
    assert sum(map(len, seen(tmp_path).values())) <= 64 * (builder.tail - builder.start)


@pytest.mark.parametrize("key", [LONGEST_KEY + "k", "k" * 100 + "\x01" * 26, "x" * 3000])
def test_a_key_that_no_recorder_puts_there_is_refused(key: str, tmp_path: Path) -> None:
    """Many small records that name it would make text without bound; nothing is written."""
    builder = RingBuilder()
    good, _ = builder.key_set("x"), builder.key_set(key)
    for step in range(20):
        builder.metrics(step, good, (REAL, 1.0))
    content = builder.put(tmp_path).read_bytes()
    (tmp_path / "metrics.jsonl").touch()
    (report,) = check_against_recovery(tmp_path)
    assert report.outcome == "damaged"
    assert "longer than a recorder writes" in report.reason
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
    (kept,) = (tmp_path / ".fastlog" / "quarantine").glob("*.ring")
    assert kept.read_bytes() == content


def test_texts_that_share_their_bytes_are_damage(tmp_path: Path) -> None:
    """One record with many values that all name one long text would make a line without bound."""
    builder = RingBuilder(ring_bytes=1 << 14)
    number = builder.key_set(*"abcdefgh")
    head = struct.pack("<qI2H", 1, number, 8, 0) + bytes([STRING]) * 8
    fair = struct.pack("<16I", *(word for n in range(8) for word in (100, 100 * n)))
    shared = struct.pack("<2I", 800, 0) * 8
    once_too_often = fair[:-8] + struct.pack("<2I", 101, 699)
    for words in (fair, shared, once_too_often):
        builder.record(METRICS, 0, head + words + b"t" * 800)
    builder.put(tmp_path)
    (report,) = check_against_recovery(tmp_path)
    assert (report.emitted, report.damaged) == (1, 2)


@pytest.mark.parametrize("key", [LONGEST_KEY, LONGEST_KEY + "k", "ü" * 126 + '"', "x" * 20_000])
def test_a_recorder_takes_keys_of_any_length(key: str, tmp_path: Path) -> None:
    """Those that are too long for the table come with each record; recovery knows no difference."""
    pid = os.fork()
    if pid == 0:
        recorder = Recorder(tmp_path, flush_interval_s=3600)
        recorder.record_dict(1, {key: 1.5, "epoch": 2})
        with recorder.timer(key), recorder.timer("inner"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (report,) = check_against_recovery(tmp_path, same=False)
    assert (report.outcome, report.emitted, report.damaged) == ("recoverable", 3, 0)
    assert [check.complete for check in read_run(tmp_path).check()] == [True, True]
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["metrics"] == {key: 1.5}


@pytest.mark.parametrize("block", [1 << 20, 3 << 20])
def test_a_line_that_no_recorder_writes_is_taken_out_whole(block: int, tmp_path: Path) -> None:
    """Not the part of it that fits into memory, though that begins and ends as a line does."""
    lines = leave_run(tmp_path)
    path = tmp_path / "metrics.jsonl"
    with path.open("ab") as file:
        file.write(b"\0\n{" + b"x" * (block - 500))
        for _ in range((64 << 20) // block):
            file.write(b"x" * block)
        file.write(b"}\n" + lines[2])
    rings.move_to_other_boot(ring_of(tmp_path))
    (report,) = check_against_recovery(tmp_path)
    assert (report.emitted, report.skipped) == (7, 1)
    check_whole(tmp_path, lines)
