"""What readers show of killed processes: to the byte what recovery writes, and no file changed."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import random
import re
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rings
from ring_checks import check_against_recovery, on_disk, seen, snapshot
from rings import RingBuilder, copy_run, edited, locked, move_to_other_boot, ring_of

from foundry_fastlog import _core, read_run
from foundry_fastlog.analysis.summarize import summarize
from foundry_fastlog.export.jsonl import export_run
from foundry_fastlog.reading.cursor import Cursor, Polled
from foundry_fastlog.reading.overlay import Overlay

Patch, Kill = pytest.MonkeyPatch, Callable[[], None]


@pytest.fixture(scope="session")
def killed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return rings.unpack_killed_runs(tmp_path_factory.mktemp("killed"))


@pytest.fixture
def run(killed: list[Path], tmp_path: Path) -> Path:
    """One of them, with lines in its files and in its ring."""
    return copy_run(killed[7], tmp_path / "run")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["own", "version 2", "copy", "other boot"])
def test_readers_show_what_recovery_writes(
    killed: list[Path], seed: int, kind: str, tmp_path: Path
) -> None:
    """Each random run: all kinds of values, drops, rotation, ranks, flushes in between."""
    run = copy_run(killed[seed], tmp_path / "run", own=kind != "copy")
    if kind == "other boot":
        move_to_other_boot(ring_of(run))
    elif kind == "version 2":
        rings.patch_header(ring_of(run), 8, b"\2")
    (report,) = check_against_recovery(run)
    assert (report.outcome, report.same_boot) == ("recoverable", kind != "other boot")
    assert all(check.complete for check in read_run(run).check())
    assert seen(run) == on_disk(run)


def zero(data: bytearray, begin: int, size: int) -> None:
    """As a page that never reached the disk."""
    data[begin : begin + size] = bytes(len(data[begin : begin + size]))


def seal_slots(data: bytearray) -> None:
    for slot in rings.SLOTS:
        struct.pack_into("<I", data, slot + 204, rings.crc32c(bytes(data[slot : slot + 204])))


def forge_records(data: bytearray, begin: int, rng: random.Random) -> None:
    """Change records, and give them fitting checksums."""
    ring_bytes, salt = struct.unpack_from("<2Q", data, 32)
    places = [
        at
        for at in range(0, min(ring_bytes, 60_000), 32)
        if struct.unpack_from("<Q", data, begin + at)[0]
        == (at ^ (salt | 1)) * 0x9E3779B97F4A7C15 & rings.MASK
    ]
    for at in rng.sample(places, min(4, len(places))):
        offset = begin + at
        (length,) = struct.unpack_from("<I", data, offset + 8)
        for _ in range(rng.randrange(1, 4)):
            data[offset + 16 + rng.randrange(16 + length)] ^= 1 << rng.randrange(8)
        crc = rings.crc32c(struct.pack("<2Q", at, length) + data[offset + 16 : offset + 32])
        if data[offset + 28]:
            crc = rings.crc32c(bytes(data[offset + 32 : offset + 32 + length]), crc)
        struct.pack_into("<I", data, offset + 12, crc)


def put_ahead(data: bytearray, rng: random.Random) -> None:
    """Make a ring one in which any streams are ahead of the others."""
    for at in rings.SLOTS:
        behind = rng.randrange(4)
        for stream in range(4):
            ahead = rng.choice([0, 1, rng.randrange(200), rng.randrange(1 << 12)])
            struct.pack_into("<I", data, at + 76 + 40 * stream, ahead * (stream != behind))
    seal_slots(data)


RING_DAMAGE = ("records", "forge", "slots", "control", "keys", "notes", "ahead")


def damage_ring(kind: str, data: bytearray, rng: random.Random) -> None:
    records = rings.KEY_TABLE + struct.unpack_from("<Q", data, 24)[0]
    if kind == "forge":
        return forge_records(data, records, rng)
    if kind == "ahead":
        return put_ahead(data, rng)
    places = {
        "records": range(records, records + 20_000),
        "slots": [slot + n for slot in rings.SLOTS for n in range(204)],
        "control": [rings.PAGE, *range(rings.PAGE + 256, rings.PAGE + 288, 8)],
        "keys": range(rings.KEY_TABLE, rings.KEY_TABLE + 400),
        "notes": [home + n for home in rings.HOMES for n in range(rings.HOME_BYTES)]
        + [rings.FILE_NOTES + n for n in range(rings.FILE_NOTE_BYTES)] * 8,
    }[kind]
    for at in rng.sample(places, rng.randrange(1, 5)):
        if kind == "control":  # the tail or a count of drops is anything
            number = rng.choice((0, 32, 3, 1 << 20, 1 << 63 | 4096, rings.MASK))
            struct.pack_into("<Q", data, at, number)
        elif kind == "records" and rng.random() < 0.5:
            zero(data, at & -32, rng.randrange(1, 128) * 32)
        else:
            data[at] ^= 1 << rng.randrange(8)
    if kind == "slots" and rng.random() < 0.7:
        seal_slots(data)
    return None


def damage_run(kind: str, run: Path, rng: random.Random) -> None:
    ring = ring_of(run)
    files = sorted(run.glob("*.jsonl"))
    match kind:
        case "forged notes":  # of files that there are, are not, or are about to be made
            ids = [*map(rings.id_of, files), (0, 0), (7, 4711)]
            for _ in range(rng.randrange(1, 6)):
                slot = rng.randrange(len(rings.OLD_STREAMS) * rings.NOTES)
                segment = slot % rings.NOTES + rings.NOTES * rng.choice([0, 0, 0, 1])
                note = rings.file_note(rng.choice(ids), segment, rng.choice([1, 1, 1, 2]))
                rings.patch_file_note(ring, slot, note)
            if rng.random() < 0.3:  # of another home than the one that counts
                damage_run("another home", run, rng)
        case "another home":
            home = rng.choice([rings.id_of(run), (7, 4711)])
            label = rng.choice([b"", b"r1", b"a1", b"../x"])
            note = rings.home_note(rng.choice([1, 2]), rings.id_of(ring), home, label)
            with edited(ring) as data:
                data[rings.HOMES[0] : rings.HOMES[0] + rings.HOME_BYTES] = note
        case "header":  # another segment size or clock, a newer version, another boot
            sizes = [(72, struct.pack("<Q", size)) for size in (1, 500, 4096, 1 << 63)]
            others = [(12, b"\0"), (8, b"\5"), (128, rings.text(rings.OTHER_BOOT, 40))]
            rings.patch_header(ring, *rng.choice(sizes + others))
        case "begun":  # segments that were begun and not noted
            name = rng.choice(sorted(run.glob("metrics*.jsonl"))).name
            known = re.fullmatch(r"(.*?)(?:\.(\d{6}))?\.jsonl", name)
            assert known
            for step in range(rng.randrange(1, 4)):
                new = run / f"{known[1]}.{int(known[2] or 0) + 1 + step:06d}.jsonl"
                if not new.exists():
                    new.write_bytes(b'{"begun":1}\n')


def damage_file(kind: str, path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    match kind:
        case "append":  # what a batch leaves that was not noted: lines, a torn one, NULs, rubbish
            line = b'{"timestamp":"2026-01-30T14:32:15.123456Z","seq":%d,"x":1}\n'
            line %= rng.randrange(10**21)
            tails = [b'{"torn', bytes(100), line, line[:-1], b"rubbish\n", b"\0" + line]
            path.write_bytes(content + rng.choice(tails))
        case "cut":
            os.truncate(path, rng.randrange(len(content) + 1))
        case "double":  # lines that come twice, and lines of somebody else
            lines = content.splitlines(keepends=True)
            for _ in range(5):
                line = rng.choice([*lines, b"{}\n", b"\n", b'{"mine":1}\n', b"{\0}\n"])
                lines.insert(rng.randrange(len(lines) + 1), line)
            path.write_bytes(b"".join(lines))
        case "zero":
            with edited(path) as data:
                zero(data, rng.randrange(len(data) + 1), 300)
        case "remove":
            path.rename(path.parent.with_name("removed"))  # its inode is not used again
        case "replace":  # the same lines, or other ones, in another file of that name
            path.rename(path.with_name(f"{path.name}.old"))
            path.write_bytes(rng.choice([content, b"", b"my notes\n", bytes(50)]))


RUN_DAMAGE = ("forged notes", "another home", "header", "begun")
FILE_DAMAGE = ("append", "cut", "double", "zero", "remove", "replace")
DAMAGE = (*RING_DAMAGE, *RUN_DAMAGE, *FILE_DAMAGE)


@pytest.mark.parametrize("number", range(200))
def test_readers_show_what_recovery_makes_of_damage(
    killed: list[Path], number: int, tmp_path: Path
) -> None:
    rng = random.Random(number)
    run = copy_run(rng.choice(killed), tmp_path / "run", own=rng.random() < 0.8)
    if rng.random() < 0.3:
        rings.patch_header(ring_of(run), 8, b"\2")
    first = DAMAGE[number % len(DAMAGE)]
    for kind in [first, *rng.sample(DAMAGE, rng.choice([0, 1, 1, 2, 3]))]:
        if not any(run.glob("metrics*.jsonl")):
            continue
        if kind in RUN_DAMAGE:
            damage_run(kind, run, rng)
        elif kind in FILE_DAMAGE:
            damage_file(kind, rng.choice(sorted(run.glob("*.jsonl"))), rng)
        else:
            with edited(ring_of(run)) as data:
                damage_ring(kind, data, rng)
    check_against_recovery(run)


def log_line(seq: int, value: int) -> bytes:
    return b'{"timestamp":"1970-01-01T00:00:00.000000Z","seq":%d,"a":%d}\n' % (seq, value)


def log_lines(*pairs: tuple[int, int]) -> bytes:
    return b"".join(log_line(*pair) for pair in pairs)


def test_in_a_copy_a_ring_that_is_recovered_first_speaks_for_its_label_still(
    tmp_path: Path,
) -> None:
    """The half line may be of the other one's writer, and is not cut."""
    on_file = log_lines((0, 0), (1, 9)) + b"half a line"
    second = RingBuilder().lines('"b":1')
    second.streams[3][:2] = [len(log_line(0, 0)), 1]
    (tmp_path / "log.jsonl").write_bytes(on_file)
    (tmp_path / "metrics.jsonl").touch()
    for number, builder in enumerate((RingBuilder(), second), 1):
        ring = builder.put(tmp_path, f"{number}.ring")
        ring.write_bytes(builder.having(run_inode=builder.run_inode + 1).build())
    reports = check_against_recovery(tmp_path)
    assert [report.outcome for report in reports] == ["recoverable"] * 2
    assert (tmp_path / "log.jsonl").read_bytes() == on_file


def test_lines_in_memory_are_looked_through_like_those_in_files(tmp_path: Path) -> None:
    """A ring of another boot behind one of the same label: numbers that came before go."""
    on_file = log_line(0, 9) + b"torn\n" + log_line(1, 9) + b"\0\0\n" + log_line(3, 9)
    first = RingBuilder().lines(1, 2, 3, 4)
    first.streams[3][:2] = [len(on_file), 1]
    first.put(tmp_path, "1.ring")
    second = RingBuilder().having(boot_id=rings.OTHER_BOOT).lines(*range(6))
    second.put(tmp_path, "2.ring")
    (tmp_path / "log.jsonl").write_bytes(on_file + b"torn")
    (tmp_path / "metrics.jsonl").touch()
    reports = check_against_recovery(tmp_path)
    twice = 2 * len(log_line(1, 9))
    assert [(one.emitted, one.skipped, one.cut_bytes) for one in reports] == [
        (4, 0, len("torn")),
        (1, 5, len("torn\n\0\0\n") + twice),
    ]
    expected = log_lines((0, 9), (1, 9), (3, 9), (2, 2), (4, 4), (5, 5))
    assert (tmp_path / "log.jsonl").read_bytes() == expected


def test_what_readers_remember_is_bounded(run: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    def reason(run: Path, **most: int) -> str:
        view = functools.partial(really_view, **most)
        monkeypatch.setattr(_core, "view_ring", view)
        (report,) = Overlay(run).refresh()
        assert report.outcome == "failed"
        return report.reason

    really_view = _core.view_ring
    assert "more text than fits into memory" in reason(run, most_bytes=1000)
    assert seen(run) == on_disk(run)
    RingBuilder().having(boot_id=rings.OTHER_BOOT).put(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(log_line(0, 0) + b"{}\n\n" * 20)
    assert "damaged in too many places" in reason(tmp_path, most_ranges=10)


@pytest.mark.parametrize(("records", "outcome"), [(0, "recoverable"), (1, "damaged")])
def test_records_of_another_boot_without_a_clock_are_damaged(
    records: int, outcome: str, tmp_path: Path
) -> None:
    """No commit slot reached the disk, so nothing tells their time."""
    builder = RingBuilder().having(boot_id=rings.OTHER_BOOT).lines(*[1] * records)
    with edited(builder.put(tmp_path)) as data:
        zero(data, rings.PAGE, rings.PAGE)
    assert [report.outcome for report in check_against_recovery(tmp_path)] == [outcome]


@pytest.mark.parametrize("version", [2, 3])
def test_lines_in_the_midst_of_a_move_are_read_once(version: int, tmp_path: Path) -> None:
    """The new segment was not noted yet: what is in it is in the one before, or in the ring."""
    lines = [log_line(seq, seq) for seq in range(4)]
    builder = RingBuilder(version=version).lines(2, 3)
    builder.streams[3][:2] = [len(b"".join(lines[:2])), 2]
    builder.streams[3][5] = 1  # it exists
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "log.jsonl").write_bytes(b"".join(lines[:2]))
    (tmp_path / "log.000001.jsonl").write_bytes(b"".join(lines[1:3]))
    builder.note_files(tmp_path)
    builder.put(tmp_path)
    (report,) = check_against_recovery(tmp_path)
    assert (report.emitted, report.cut_bytes) == (2, len(b"".join(lines[1:3])))
    assert on_disk(tmp_path) == {"metrics.jsonl": b"", "log.jsonl": b"".join(lines)}


def make_odd(made: str, path: Path, target: Path) -> None:
    if made == "link":
        path.symlink_to(target)
    else:
        (os.mkdir if made == "directory" else os.mkfifo)(path)


@pytest.mark.parametrize("made", ["link", "directory", "pipe"])
@pytest.mark.parametrize("name", ["log.jsonl", "log.000001.jsonl"])
def test_what_is_no_file_is_left_alone(made: str, name: str, tmp_path: Path) -> None:
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.write_bytes(b"x" * 100)
    lines = (f'"a":"{letter * 60}"' for letter in "xy")
    RingBuilder().having(segment_bytes=100).lines(*lines).put(run)
    (run / "metrics.jsonl").touch()
    make_odd(made, run / name, outside)
    (report,) = check_against_recovery(run, same=False)
    if report.outcome == "failed":
        assert Overlay(run).refresh() == [report]
    assert outside.read_bytes() == b"x" * 100


def test_every_reader_shows_the_pending_lines(run: Path, tmp_path: Path) -> None:
    """Lines, checks, summary and export are those of the run after recovery.

    The view of a run that was opened before stays true while the files change under it.
    """
    before, opened_before = snapshot(run), read_run(run)

    def read(place: Path, to: Path) -> list[Any]:
        opened = read_run(place, strict=True)
        summary = summarize(opened).to_dict()
        export_run(opened, to)
        return [
            [list(opened.lines(stream)) for stream in opened.streams],
            [check.lines for check in opened.check()],
            {name: fact for name, fact in summary.items() if name not in ("path", "rings")},
            to.read_bytes(),
        ]

    pending = repr(read(run, tmp_path / "before.jsonl"))
    assert snapshot(run) == before
    assert sum(ring.emitted for ring in read_run(run).rings) > 0
    _core.recover_run(str(run))
    assert repr(read(run, tmp_path / "after.jsonl")) == pending
    assert read_run(run).rings == ()
    assert list(opened_before.lines("metrics")) == list(read_run(run).lines("metrics"))
    assert opened_before.problems == []


def test_a_file_that_loses_bytes_meanwhile_is_unreadable(run: Path) -> None:
    """No line is made up of what is left of one file and what follows in memory."""
    opened = read_run(run)
    segment = next(seg for series in opened.series for seg in series.segments if seg.kept)
    os.truncate(segment.path, 1)
    assert not all(check.complete for check in opened.check())
    assert "shorter than its writer left it" in "\n".join(map(str, opened.problems))


def test_a_reader_is_not_taken_for_a_live_writer(run: Path) -> None:
    """A recovery that meets a reader's lock waits for it; another recovery is left alone."""
    with locked(ring_of(run)):
        assert [report.outcome for report in Overlay(run).refresh()] == ["live"]
        assert [report["outcome"] for report in _core.recover_run(str(run))] == ["live"]
    with ring_of(run).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert Overlay(run).refresh()[0].outcome == "recoverable"
        release = threading.Timer(0.02, fcntl.flock, (file, fcntl.LOCK_UN))
        release.start()
        (report,) = _core.recover_run(str(run))
        release.join()
    assert report["outcome"] == "recovered"


def test_what_is_in_quarantine_is_told(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "log.jsonl").touch()
    place = tmp_path / ".fastlog" / "quarantine"
    place.parent.mkdir()
    place.touch()  # nothing can have been put there
    assert read_run(tmp_path).problems == []
    place.unlink()
    place.mkdir()
    (place / "x.ring.reason").write_text("left over")
    assert read_run(tmp_path).problems == []
    (place / "y.ring").touch()
    opened = read_run(tmp_path)
    assert ["no reason was noted" in problem.message for problem in opened.problems] == [True]
    assert [check.complete for check in opened.check()] == [False]
    assert not export_run(opened, tmp_path / "out").complete
    really_open = os.open

    def refuse(path: Any, *rest: Any, **options: Any) -> int:
        if Path(path).name == "quarantine":
            raise PermissionError(13, "Permission denied")
        return really_open(path, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert "Permission denied" in read_run(tmp_path).problems[0].message


def pointed(tmp_path: Path, **header: Any) -> tuple[Path, Path, Path]:
    """A run whose ring lies elsewhere, that ring, and the pointer to it."""
    run, ring = tmp_path / "run", tmp_path / "away" / "fastlog-x.ring"
    pointer = run / ".fastlog" / "x.ring-at"
    for directory in (pointer.parent, ring.parent):
        directory.mkdir(parents=True)
    (run / "metrics.jsonl").touch()
    ring.write_bytes(one_line_ring(run, 1).having(**header).build())
    pointer.write_text(f"{ring}\nnode1\n{rings.this_boot()}\n")
    return run, ring, pointer


def one_line_ring(run: Path, value: int) -> RingBuilder:
    device, inode = rings.id_of(run)
    return RingBuilder().having(run_device=device, run_inode=inode).lines(value)


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        # As on a network file system, where the ring lies in a local directory.
        ("own", {}),
        # The inode is the same, on another device: lines go by number, as after a restart.
        ("mounted again", {"run_device": 4711}),
        ("mounted again", {"run_device": 4711, "boot_id": rings.OTHER_BOOT}),
        ("mounted again, without a pointer", {"run_device": 4711}),
        # An inode on a device of one's own can be chosen; the writer's name and owner cannot.
        ("stranger's name", {"run_device": 4711}),
        ("stranger's owner", {"run_device": 4711}),
        ("stranger's inode", {"run_device": 4711, "run_inode": 1}),
    ],
)
def test_whose_ring_a_pointer_names(kind: str, header: dict[str, Any], tmp_path: Path) -> None:
    run, ring, pointer = pointed(tmp_path, **header)
    if kind not in ("own", "stranger's name"):
        pointer = pointer.rename(pointer.with_name(f"{rings.UUID}.ring-at"))
    if kind == "mounted again":  # another directory has the name now
        pointer.write_text(f"{pointer.read_text()}{tmp_path}\n")
    if kind == "mounted again, without a pointer":
        pointer.unlink()
        ring = ring.rename(pointer.with_suffix(".ring"))
    if kind == "stranger's owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(pointer, 4711, -1)
    assert [line["a"] for line in read_run(run).lines("log")] == []  # no message: damaged
    (report,) = check_against_recovery(run)
    if kind.startswith("stranger"):
        assert (report.outcome, ring.exists(), pointer.exists()) == ("elsewhere", True, True)
    else:
        assert (report.outcome, report.emitted) == ("recoverable", 1)
        assert (report.ring, report.same_boot) == (str(ring), kind == "own")


def test_a_pointer_without_its_ring_says_where_to_look(tmp_path: Path) -> None:
    """On another host, or lost, perhaps meanwhile: what it held stays a problem of the run."""
    run, ring, pointer = pointed(tmp_path)
    overlay = Overlay(run)
    assert overlay.refresh()[0].outcome == "recoverable"
    ring.unlink()
    assert overlay.refresh()[0].outcome == "elsewhere"
    (report,) = check_against_recovery(run)
    assert report.outcome == "elsewhere"
    assert "recover there, or remove the pointer" in report.reason
    assert [problem.kind for problem in read_run(run).problems] == ["ring"]
    pointer.unlink()
    assert read_run(run).problems == []


def test_what_goes_meanwhile_is_gone(tmp_path: Path, monkeypatch: Patch) -> None:
    """A writer that closes removes its ring, and then the pointer; or a recovery does."""
    run, ring, pointer = pointed(tmp_path)
    ring.unlink()
    monkeypatch.setattr("time.sleep", lambda seconds: pointer.unlink())
    assert [report.outcome for report in Overlay(run).refresh()] == ["gone"]
    assert not pointer.exists()
    # Between the listing and the reading.
    monkeypatch.setattr(os, "listdir", lambda path: ["x.ring", "x.ring-at"])
    assert [report.outcome for report in Overlay(run).refresh()] == ["gone", "gone"]


def test_a_pointer_in_a_copy_says_whose_its_ring_is(tmp_path: Path) -> None:
    """A run's files are written from its own rings alone; all stays, of a living one too."""
    run, ring, _ = pointed(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(run, other)
    (report,) = check_against_recovery(other)
    with locked(ring):
        assert check_against_recovery(other) == [report]
    assert (report.outcome, report.sound, ring.exists()) == ("elsewhere", False, True)
    pointer = other / ".fastlog" / "x.ring-at"
    assert f"a copy of. Recover there; in a copy, remove the pointer {pointer}" in report.reason
    assert check_against_recovery(run)[0].outcome == "recoverable"


# Names, contents and ages in seconds of what is there, and what becomes of it.
UNFINISHED = [
    # On a network file system a name may be seen before what is in the file; clocks differ.
    *((name, b"", age, "live") for name in ("x.ring", "x.ring-at") for age in (0, -500)),
    *(("x.ring", b"", 700, "damaged"), ("x.ring-at", b"", 700, "damaged")),
    # A pointer to anything but a ring.
    *(("x.ring-at", text, 700, "damaged") for text in (b"\n", b"relative.ring\n")),
    *(("x.ring-at", text, 700, "damaged") for text in (b"/etc/passwd\n", b"/a\0.ring\n")),
    # A new one may have its maker; that of a ring locks it while it is empty, or has died.
    *(("x.ring.tmp", b"", 0, "stays"), ("x.ring.tmp", b"half", 0, "swept")),
    *(("x.ring-at.tmp", text, 0, "stays") for text in (b"", b"half")),
    *((f"x.ring{at}.tmp", text, 700, "swept") for at in ("", "-at") for text in (b"", b"half")),
]


@pytest.mark.parametrize(("name", "content", "age", "outcome"), UNFINISHED)
def test_what_is_not_whole_is_in_the_making_or_damaged_or_swept(
    name: str, content: bytes, age: int, outcome: str, tmp_path: Path
) -> None:
    entry = tmp_path / ".fastlog" / name
    entry.parent.mkdir()
    entry.write_bytes(content)
    os.utime(entry, (time.time() - age,) * 2)
    reports = check_against_recovery(tmp_path)
    assert [report.outcome for report in reports] == [outcome] * (not name.endswith(".tmp"))
    assert entry.exists() == (outcome in ("live", "stays"))


@pytest.mark.parametrize("made", ["link", "directory", "pipe"])
@pytest.mark.parametrize("name", ["x.ring", "x.ring-at"])
def test_a_ring_that_is_no_file_is_not_read(made: str, name: str, tmp_path: Path) -> None:
    run, ring, _ = pointed(tmp_path)
    target = run / ".fastlog" / name
    target.unlink(missing_ok=True)
    make_odd(made, target, ring)
    reports = [one for one in Overlay(run).refresh() if one.ring == str(target)]
    assert [one.outcome for one in reports] in (["failed"], ["damaged"])
    assert seen(run).keys() <= {"metrics.jsonl", "log.jsonl"}


def steps(lines: list[Any]) -> list[int]:
    return [record["step"] for _, _, record, _ in lines]


def line(step: int, value: str) -> bytes:
    return (
        f'{{"timestamp":"1970-01-01T00:00:00.{step:06d}Z","seq":{step},"step":{step},'
        f'"metrics":{{"x":{value}}}}}\n'
    ).encode()


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[Kill]:
    """A run at ``tmp_path / "run"`` whose writer is killed when this is called.

    It noted two lines as written and two more it did not, with other digits; of the last one
    only a part reached the file.
    """
    run = tmp_path / "run"
    builder = RingBuilder(start=4096).having(anchor=(0, 0, 1.0))
    keys = builder.key_set("x")
    noted = [line(0, "1.5"), line(1, "1.5")]
    builder.streams[0][:2] = [sum(map(len, noted)), 2]
    for step in range(2, 6):
        builder.metrics(step, keys, (rings.REAL, 2.25), ticks=step * 1000)
    ring = builder.put(run)
    unnoted = [line(2, "2.250001"), line(3, "2.250001"), line(4, "2.25")[:30]]
    (run / "metrics.jsonl").write_bytes(b"".join([*noted, *unnoted]))
    with ring.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.close


def check_quiet(cursor: Cursor) -> None:
    polled = cursor.poll()
    assert (polled.lines, polled.notes) == ([], [])


@pytest.mark.parametrize("process", ["the same", "another"])
@pytest.mark.parametrize("ring", ["known", "unknown"])
def test_a_cursor_goes_on_over_kill_and_recovery(
    ring: str, process: str, dying: Kill, tmp_path: Path
) -> None:
    """Each line is given out once, whatever was in the files when; those of a new file too."""
    run = tmp_path / "run"
    cursor = Cursor(run)

    def poll() -> Polled:
        nonlocal cursor
        if process == "another":  # each poll is of one that was killed after the poll before
            cursor = Cursor(run, position=json.loads(json.dumps(cursor.position)))
        return cursor.poll()

    if ring == "unknown":
        (run / ".fastlog").rename(tmp_path / "away")
    before = steps(cursor.last(10).lines)
    assert before == ([0, 1, 2, 3] if ring == "unknown" else [0, 1])
    if ring == "unknown":
        (tmp_path / "away").rename(run / ".fastlog")
    assert poll().lines == []
    dying()
    after_kill = poll()
    assert (before + steps(after_kill.lines), after_kill.notes) == ([0, 1, 2, 3, 4, 5], [])
    assert poll().lines == []
    _core.recover_run(str(run))
    assert poll().lines == []
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(line(6, "1.0"))
    more = poll()
    assert (steps(more.lines), more.notes) == ([6], [])
    (run / "other").write_bytes(line(0, "9.0"))
    (run / "other").replace(run / "metrics.jsonl")
    replaced = poll()
    assert steps(replaced.lines) == [0]
    assert "replaced" in replaced.notes[0]


def test_a_cursor_keeps_its_view_in_a_recovery(dying: Kill, tmp_path: Path) -> None:
    """The torn end is cut, lines come behind it, and the ring is locked, under it."""
    run = tmp_path / "run"
    cursor = Cursor(run)
    dying()
    assert steps(cursor.last(10).lines) == [0, 1, 2, 3, 4, 5]
    with locked(ring_of(run)):
        path = run / "metrics.jsonl"
        os.truncate(path, path.read_bytes().rindex(b"\n") + 1)
        with path.open("ab") as files:
            files.write(line(4, "2.25") + line(5, "2.25")[:30])
        check_quiet(cursor)
    _core.recover_run(str(run))
    check_quiet(cursor)


def test_a_cursor_gives_out_segments_in_memory(killed: list[Path], tmp_path: Path) -> None:
    """All lines of a rotated run, by polls alone, before and after recovery."""
    run = copy_run(killed[5], tmp_path / "run")
    cursor, lines = Cursor(run), []
    while (polled := cursor.poll()).lines or polled.more:
        lines += [raw for *_, raw in polled.lines]
        assert polled.notes == []
    assert any(not (run / name).exists() for name in seen(run))
    _core.recover_run(str(run))
    assert cursor.poll().lines == []
    assert sorted(lines) == sorted(b"".join(on_disk(run).values()).split(b"\n")[:-1])


@pytest.mark.parametrize("number", range(12))
def test_a_ring_that_appears_gives_only_what_is_new(
    number: int, killed: list[Path], tmp_path: Path
) -> None:
    """Its writer's files end before what was read, perhaps some segments before."""
    run = copy_run(killed[number], tmp_path / "run")
    (run / ".fastlog").rename(tmp_path / "away")
    cursor = Cursor(run)
    found = [(series, record["seq"]) for _, series, record, _ in cursor.poll().lines]
    (tmp_path / "away").rename(run / ".fastlog")
    cursor = Cursor(run, position=cursor.position)
    found += [(series, record["seq"]) for _, series, record, _ in cursor.poll().lines]
    keys = [(series.stream, series.writer, seq) for series, seq in found]
    assert len(set(keys)) == len(keys)
    assert set(keys) >= {
        (stream, series.writer, record["seq"])
        for stream in read_run(run).streams
        for _, series, record, _ in read_run(run).entries([stream], starts="all")
    }


def test_a_ring_is_read_once_by_a_cursor(run: Path, monkeypatch: Patch) -> None:
    """A dead ring stays what it is; damaged ones are not read again either."""
    (run / ".fastlog" / "damaged.ring").write_bytes(b"x")
    cursor = Cursor(run)
    cursor.poll()
    monkeypatch.setattr(_core, "view_ring", None)
    cursor.poll()
    shutil.rmtree(run / ".fastlog")
    cursor.poll()


@pytest.mark.parametrize("replaced", ["ring", "ring of a pointer", "pointer"])
def test_a_ring_in_the_place_of_another_is_read(replaced: str, tmp_path: Path) -> None:
    """What is remembered of a ring is not taken for what a file of its name has now."""
    run = tmp_path / "run"
    (run / ".fastlog").mkdir(parents=True)
    (run / "metrics.jsonl").touch()
    names = [tmp_path / "1.ring", tmp_path / "2.ring"]
    for value, path in enumerate(names):
        path.write_bytes(one_line_ring(run, value).build())
    entry = run / ".fastlog" / ("x.ring" if replaced == "ring" else "x.ring-at")
    if replaced == "ring":
        names[0] = names[0].rename(entry)
    else:
        entry.write_text(f"{names[0]}\n")
    overlay = Overlay(run)

    def value_shown() -> list[int]:
        segments = [segment for series in overlay.list_series() for segment in series.segments]
        return [json.loads(one.pending)["a"] for one in segments if one.pending]

    assert value_shown() == value_shown() == [0]
    # All files stay there to the end, so that no inode is used again.
    with names[0].open("rb"), entry.open("rb"):
        if replaced == "pointer":
            (tmp_path / "other").write_text(f"{names[1]}\n")
            (tmp_path / "other").replace(entry)
        else:
            names[1].replace(names[0])
        assert value_shown() == value_shown() == [1]
