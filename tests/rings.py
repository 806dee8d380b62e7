"""Ring files for tests: built byte by byte, and real ones of processes that were killed.

``RingBuilder`` is the obvious writer of the layout in ``docs/format.md``. ``golden/killed.tar.xz``
has the runs of twelve processes that recorded at random and were killed: values of all kinds,
drops, segments, ranks, flushes in between.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

PAGE = 4096
HEADER_BYTES = 496
SLOT_BYTES = 208  # before version 4, as the builder's usual rings
SLOTS = (PAGE + 512, PAGE + 1024)
HOMES = (PAGE + 1536, PAGE + 1792)
HOME_BYTES = 240
FILE_NOTES, FILE_NOTE_BYTES, NOTES = PAGE + 2048, 32, 8
SYSTEM_NOTES = PAGE + 3072 + 64
KEY_TABLE = 2 * PAGE
STREAMS = ("metrics", "performance", "errors", "log", "system")
OLD_STREAMS = STREAMS[:4]  # of versions 1 to 3
PAD, METRICS, TIMING, FRAGMENT, DROPS = range(5)
NULL, BOOLEAN, INTEGER, REAL, STRING, PENDING, MISSING = range(7)
HAS_STEP, HAS_PARENT, HAS_DEVICE, DEVICE_MISSING = 1, 2, 4, 8
OTHER_BOOT = "00000000-0000-0000-0000-000000000000"
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
MASK = (1 << 64) - 1
KILLED = Path(__file__).parent / "golden" / "killed.tar.xz"
RECOVERY_MARK = 7168  # its place, as docs/format.md has it


def word(value: object) -> bytes:
    """The eight bytes of a value."""
    return struct.pack("<Q", (value if isinstance(value, int) else 0) & MASK)


def missing(code: int, driver_error: int = 0) -> tuple[int, int]:
    """A value that was given up, with its tag."""
    return MISSING, code | driver_error << 16


def pending(slot: int, dtype: int = 0) -> tuple[int, int]:
    """A value that has not arrived, with its tag."""
    return PENDING, slot | dtype << 32


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC-32C, bit by bit."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def id_of(path: Path) -> tuple[int, int]:
    """Device and inode of a file."""
    status = path.lstat()
    return status.st_dev, status.st_ino


def home_note(epoch: int, ring: tuple[int, int], run: tuple[int, int], label: bytes) -> bytes:
    """Where a writer's files lie, and which file its ring is."""
    note = struct.pack("<5Q192sI", epoch, *ring, *run, label, 0)
    return note + struct.pack("<I", crc32c(note))


def file_note(file: tuple[int, int], segment: int, home: int) -> bytes:
    """Which file a segment is."""
    note = struct.pack("<2Q3I", *file, segment, home, 1)
    return note + struct.pack("<I", crc32c(note))


def file_note_at(number: int) -> int:
    """Where the note of one of the writer's files is; by stream, and by segment in it."""
    stream, slot = divmod(number, NOTES)
    first = FILE_NOTES + FILE_NOTE_BYTES * NOTES * stream if stream < 4 else SYSTEM_NOTES
    return first + FILE_NOTE_BYTES * slot


def this_boot() -> str:
    """The id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def text(field: str, size: int) -> bytes:
    """A text in its field."""
    return field.encode().ljust(size, b"\0")


class RingBuilder:
    """A ring file in the making; change what you like and ``build()``."""

    def __init__(
        self,
        ring_bytes: int = PAGE,
        key_table_bytes: int = PAGE,
        start: int = 0,
        *,
        version: int = 2,
    ) -> None:
        self.ring_bytes, self.key_table_bytes = ring_bytes, key_table_bytes
        self.magic, self.version, self.flags, self.salt = b"FLOGRING", version, 0, 0x1234567
        self.run_device = self.run_inode = 0
        self.segment_bytes, self.pid, self.rank = 1 << 20, 4711, -1
        self.boot_id, self.host, self.label, self.stamp = this_boot(), "node1", "", ""
        self.file_bytes = KEY_TABLE + key_table_bytes + ring_bytes
        self.start = self.tail = start
        self.drops = [0 for _ in STREAMS]
        # offset, seq, trim bytes, segment, trim segment, exists, has trim, ahead (see `done`)
        self.streams = [[0, 0, 0, 0, 0, 0, 0, 0] for _ in STREAMS]
        self.epoch, self.anchor, self.slot_flags = 2, (0, 0, 1.0), 0
        self.keys = b""
        self.key_sets = 0
        self.data = bytearray(ring_bytes)
        # From version 3 on: the ring file itself, and the writer's files by stream and segment.
        self.ring, self.home_epoch = (0, 0), 1
        self.notes: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def its_streams(self) -> tuple[str, ...]:
        """The streams that a ring of this version knows."""
        return STREAMS if self.version >= 4 else OLD_STREAMS

    def having(self, **fields: object) -> RingBuilder:
        """Set fields by name."""
        assert vars(self).keys() >= fields.keys()
        vars(self).update(fields)
        return self

    def key_set(self, *keys: str | bytes) -> int:
        """Add a key set; returns its number."""
        body = b""
        for key in keys:
            raw = key.encode() if isinstance(key, str) else key
            body += struct.pack("<I", len(raw)) + raw
        body += b"\0" * ((4 - len(body)) % 8)
        head = struct.pack("<2I", 12 + len(body), len(keys))
        self.keys += head + struct.pack("<I", crc32c(body, crc32c(head))) + body
        self.key_sets += 1
        return self.key_sets - 1

    def record(
        self,
        kind: int,
        stream: int,
        payload: bytes,
        *,
        ticks: int = 0,
        thread: int = 7,
        tickets: int = 0,
        committed: bool = True,
    ) -> int:
        """Add a record where the tail is; returns its position."""
        position = self.tail
        at = position % self.ring_bytes
        length = len(payload)
        fields = struct.pack("<QI2BH", ticks, thread, kind, stream, tickets)
        crc = crc32c(struct.pack("<2Q", position, length) + fields)
        if kind != PAD:
            crc = crc32c(payload, crc)
        stamp = (position ^ (self.salt | 1)) * 0x9E3779B97F4A7C15 & MASK
        head = struct.pack("<Q2I", stamp if committed else 0, length, crc) + fields
        size = 32 + (len(payload) + 31 & -32)
        assert at + size <= self.ring_bytes, "pad first"
        self.data[at : at + 32 + len(payload)] = head + payload
        self.tail += size
        return position

    def pad(self) -> None:
        """Fill the ring up to its end."""
        self.record(PAD, 0, b"\xaa" * (self.ring_bytes - self.tail % self.ring_bytes - 32))

    def metrics(self, step: int, number: int, *values: tuple[int, object], **options: int) -> int:
        """Add a metrics record; each value comes with its tag."""
        tags = bytes(tag for tag, _ in values)
        words, strings = b"", b""
        for tag, value in values:
            if tag == STRING:
                raw = value if isinstance(value, bytes) else str(value).encode()
                words += struct.pack("<2I", len(raw), len(strings))
                strings += raw
            else:
                words += struct.pack("<d", value) if tag == REAL else word(value)
        tags += b"\0" * (-len(tags) % 8)
        head = struct.pack("<qI2H", step, number, len(values), 0)
        return self.record(METRICS, 0, head + tags + words + strings, **options)

    def fragment(self, members: str, stream: int = 3) -> int:
        """Add a record of JSON members."""
        return self.record(FRAGMENT, stream, members.encode())

    def lines(self, *members: str | int) -> RingBuilder:
        """Add lines of a log, by their JSON members; a number is the value of `a`."""
        for one in members:
            self.fragment(one if isinstance(one, str) else f'"a":{one}')
        return self

    def timing(
        self,
        name: int,
        *,
        ticks: int = 0,
        step: int | None = None,
        device: tuple[int, int] | None = None,
        missing: int | None = None,
        error: bytes = b"",
        tickets: int = 0,
    ) -> int:
        """Add a timing; a device is its kind and index, `missing` a word with a reason."""
        flags = HAS_STEP if step is not None else 0
        if device is not None:
            flags |= HAS_DEVICE | device[0] << 4 | device[1] << 8
        if missing is not None:
            flags |= DEVICE_MISSING
        payload = struct.pack("<qQ2I2HI", step or 0, ticks, name, 0, 0, flags, len(error)) + error
        payload += b"" if missing is None else struct.pack("<Q", missing)
        return self.record(TIMING, 1, payload, tickets=tickets)

    def done(self, *streams: str) -> None:
        """Note all records so far as in the files, for these streams alone."""
        for stream in streams:
            self.streams[STREAMS.index(stream)][7] = (self.tail - self.start) // 32

    def slot(self, epoch: int) -> bytes:
        """A commit slot with its checksum."""
        slot = struct.pack("<2QQqd", epoch, self.start, *self.anchor)
        for stream in self.streams[: len(self.its_streams)]:
            slot += struct.pack("<3Q2I2HI", *stream)
        slot += struct.pack("<I", self.slot_flags)
        return slot + struct.pack("<I", crc32c(slot))

    def header(self) -> bytes:
        """The header with its checksum."""
        fields = (self.magic, self.version, self.flags, self.file_bytes, self.key_table_bytes)
        fields += (self.ring_bytes, self.salt, self.run_device, self.run_inode, self.segment_bytes)
        header = struct.pack("<8s2I8QIi", *fields, 99, self.pid, self.rank)
        header += text(UUID, 40) + text(self.boot_id, 40) + text(self.host, 64)
        header += text(self.label, 192) + text(self.stamp, 64) + bytes(4)
        return header + struct.pack("<I", crc32c(header))

    def build(self) -> bytes:
        """All bytes of the file."""
        control = bytearray(PAGE)
        struct.pack_into("<Q", control, 0, self.tail)
        struct.pack_into(f"<{len(self.drops)}Q", control, 256, *self.drops)
        at = SLOTS[self.epoch & 1] - PAGE
        slot = self.slot(self.epoch)
        control[at : at + len(slot)] = slot
        if self.version >= 3:
            at = HOMES[self.home_epoch & 1] - PAGE
            home = (self.run_device, self.run_inode)
            label = self.label.encode()
            control[at : at + HOME_BYTES] = home_note(self.home_epoch, self.ring, home, label)
            for (stream, segment), file in self.notes.items():
                at = file_note_at(stream * NOTES + segment % NOTES) - PAGE
                note = file_note(file, segment, self.home_epoch)
                control[at : at + FILE_NOTE_BYTES] = note
        keys = struct.pack("<Q", len(self.keys)) + self.keys
        table = keys.ljust(self.key_table_bytes, b"\0")
        return self.header().ljust(PAGE, b"\0") + control + table + self.data

    def file_name(self, stream: int, segment: int) -> str:
        """The name of one of the writer's files."""
        label = f".{self.label}" if self.label else ""
        number = f".{segment:06d}" if segment else ""
        return f"{STREAMS[stream]}{self.stamp}{label}{number}.jsonl"

    def note_files(self, run: Path, most: int = 40) -> None:
        """Note the files of the writer's names that are there as its own."""
        for stream in range(len(self.its_streams)):
            for segment in range(most):
                path = run / self.file_name(stream, segment)
                if path.is_file() and not path.is_symlink():
                    self.notes[stream, segment] = id_of(path)

    def put(self, run: Path, name: str = f"{UUID}.ring") -> Path:
        """Write the file into a run's private directory, as a ring of this run."""
        path = run / ".fastlog" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.run_device, self.run_inode = id_of(run)
        path.touch()
        self.ring = id_of(path)
        path.write_bytes(self.build())
        return path


@contextlib.contextmanager
def edited(path: Path) -> Iterator[bytearray]:
    """The bytes of a file, to be changed in place."""
    data = bytearray(path.read_bytes())
    yield data
    path.write_bytes(data)


@contextlib.contextmanager
def locked(ring: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the lock on a ring, as its living writer does."""
    with ring.open("rb") as file:
        fcntl.flock(file, how)
        yield


def patch_header(ring: Path, offset: int, value: bytes) -> None:
    """Change some bytes of a ring's header, and its checksum."""
    with edited(ring) as data:
        data[offset : offset + len(value)] = value
        struct.pack_into("<I", data, HEADER_BYTES - 4, crc32c(bytes(data[: HEADER_BYTES - 4])))


def patch_file_note(ring: Path, number: int, note: bytes) -> None:
    """Change the note of one of the writer's files; by stream, and by segment in it."""
    at = file_note_at(number)
    with edited(ring) as data:
        data[at : at + FILE_NOTE_BYTES] = note


def move_to_other_boot(ring: Path) -> None:
    """Make a ring look as if the machine had been started anew since."""
    patch_header(ring, 128, text(OTHER_BOOT, 40))


def move_home(run: Path) -> None:
    """Make the rings in a run's own directory look as if they had been made there."""
    for ring in (run / ".fastlog").glob("*.ring"):
        patch_header(ring, 48, struct.pack("<2Q", *id_of(run)))
        data = bytearray(ring.read_bytes())
        for at in HOMES:
            epoch, *_, label = struct.unpack_from("<5Q192s", data, at)
            if epoch:
                note = home_note(epoch, id_of(ring), id_of(run), label)
                data[at : at + HOME_BYTES] = note
        names = RingBuilder()
        names.label, names.stamp = (
            bytes(data[at : at + size]).partition(b"\0")[0].decode()
            for at, size in ((232, 192), (424, 64))
        )
        for number in range(len(STREAMS) * NOTES):
            at = file_note_at(number)
            _, inode, segment, home, used = struct.unpack_from("<2Q3I", data, at)
            if used and inode:
                file = id_of(run / names.file_name(number // NOTES, segment))
                data[at : at + FILE_NOTE_BYTES] = file_note(file, segment, home)
        ring.write_bytes(data)


def unpack_killed_runs(directory: Path) -> list[Path]:
    """Lay out the runs of ``golden/killed.tar.xz`` as if they had been recorded there, now."""
    with tarfile.open(KILLED) as archive:
        archive.extractall(directory, filter="data")
    runs = sorted(directory.iterdir(), key=lambda run: int(run.name))
    for run in runs:
        patch_header(ring_of(run), 128, text(this_boot(), 40))
        move_home(run)
    return runs


def copy_run(run: Path, target: Path, *, own: bool = True) -> Path:
    """Put a killed run elsewhere. Its ring is in its own directory, so it goes along.

    As if it had been recorded there; or, if not `own`, as a copy is.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(run, target)
    if own:
        move_home(target)
    return target


def ring_of(run: Path) -> Path:
    """The one ring of a run."""
    (ring,) = (run / ".fastlog").glob("*.ring")
    return ring
