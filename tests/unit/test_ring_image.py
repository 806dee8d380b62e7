"""Ring files as readers take them: what they read, and what they refuse."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
import rings
from ring_checks import first_line, lines, seen, view
from rings import DROPS, FRAGMENT, INTEGER, METRICS, NULL, REAL, STRING, TIMING, RingBuilder

from foundry_fastlog.reading.found_rings import RingReport
from foundry_fastlog.reading.overlay import Overlay


def payloads(builder: RingBuilder) -> list[bytes]:
    return [line.partition(b'"seq":')[2].partition(b",")[2][:-2] for line in lines(builder)]


def of_other_boot(builder: RingBuilder) -> RingBuilder:
    """The same ring after a restart of the machine: its tail is not trusted."""
    return builder.having(boot_id=rings.OTHER_BOOT)


def look(run: Path, data: bytes | bytearray) -> RingReport:
    """What readers say of a ring file with these bytes; not of one in the making."""
    (run / ".fastlog").mkdir(exist_ok=True)
    (run / ".fastlog" / "x.ring").write_bytes(data)
    os.utime(run / ".fastlog" / "x.ring", (0, 0))
    (report,) = Overlay(run).refresh()
    return report


SIZES = "its sizes are inconsistent"
LABEL = "its label is not one that a recorder writes"


def change(**fields: object) -> RingBuilder:
    return RingBuilder().having(**fields)


@pytest.mark.parametrize(
    ("builder", "reason"),
    [
        (change(magic=b"FLOGRINK"), "does not start like a ring file"),
        *((change(**{name: 1 << 13}), SIZES) for name in ("ring_bytes", "file_bytes")),
        *((RingBuilder(ring_bytes=size), SIZES) for size in (512, 3 * 4096)),
        *((RingBuilder(key_table_bytes=size), SIZES) for size in (4096 + 64, 2 << 20)),
        *((change(label=label), LABEL) for label in ("../evil", "Main", "r" * 192)),
        *((change(stamp="_2025/"), LABEL), (change(boot_id="x" * 40), LABEL)),
        (change(segment_bytes=0), LABEL),
    ],
)
def test_a_header_that_no_recorder_writes_is_refused(builder: RingBuilder, reason: str) -> None:
    report, _ = view(builder)
    assert report.outcome == "damaged"
    assert reason in report.reason


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    for offset in range(8, rings.HEADER_BYTES):
        data = bytearray(RingBuilder().build())
        data[offset] ^= 4
        report = look(tmp_path, data)
        # The version's bits: it may be a good ring of a newer one.
        expected = "written by a newer version" if offset < 12 else "its header is damaged"
        assert expected in report.reason
        assert report.outcome == ("failed" if offset < 12 else "damaged")


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    """A sparse terabyte costs one read of the header, whatever that claims."""
    for size in (0, 8, 496, 8191):
        report = look(tmp_path, RingBuilder().build()[:size])
        assert f"it has {size} bytes, too few" in report.reason
    look(tmp_path, change(file_bytes=1 << 40, ring_bytes=1 << 39).build()[:16384])
    os.truncate(tmp_path / ".fastlog" / "x.ring", 1 << 40)
    (report,) = Overlay(tmp_path).refresh()
    assert "its sizes are inconsistent" in report.reason


def slot(epoch: int, position: int = 0, **stream: int) -> bytes:
    builder = RingBuilder(start=position)
    for name, value in stream.items():
        builder.streams[3][["offset", "seq", "trim_bytes", "segment"].index(name)] = value
    return builder.slot(epoch)


def shown_with(run: Path, *slots: bytes) -> list[bytes] | str:
    """What is shown of a ring with these bytes in its slots; or why nothing is."""
    path = RingBuilder().lines(0, 1, 2, 3).put(run)  # each at 64 times its number
    with rings.edited(path) as data:
        for at, raw in zip(rings.SLOTS, slots, strict=True):
            data[at : at + rings.SLOT_BYTES] = raw
    (report,) = Overlay(run).refresh()
    return report.reason or [
        line[line.index(b'"seq"') : -1] for line in seen(run)["log.jsonl"].splitlines()
    ]


def test_the_newest_whole_slot_counts(tmp_path: Path) -> None:
    broken = bytes([slot(9)[0] ^ 1]) + slot(9)[1:]
    after_1 = [b'"seq":0,"a":1', b'"seq":1,"a":2', b'"seq":2,"a":3']
    after_2 = [b'"seq":0,"a":2', b'"seq":1,"a":3']
    assert shown_with(tmp_path, slot(4, 64), slot(5, 128)) == after_2
    assert shown_with(tmp_path, slot(6, 64), slot(5, 128)) == after_1
    assert shown_with(tmp_path, slot(4, 64), broken) == after_1
    assert shown_with(tmp_path, bytes(208), slot(5, 128)) == after_2
    assert shown_with(tmp_path, slot(4, 192, seq=3), broken) == [b'"seq":3,"a":3']
    # Its writer died while it opened.
    assert len(shown_with(tmp_path, bytes(208), bytes(208))) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        *(slot(8, 33), slot(8, 1 << 63), slot(8, offset=1 << 60), slot(8, seq=1 << 60)),
        *(slot(8, trim_bytes=1 << 61), slot(8, segment=1_000_000)),
    ],
)
def test_a_slot_with_numbers_out_of_bounds_does_not_count(wrong: bytes, tmp_path: Path) -> None:
    assert shown_with(tmp_path, slot(7, 192), wrong) == [b'"seq":0,"a":3']
    assert "both of its commit slots are damaged" in shown_with(tmp_path, wrong, wrong)


def test_drops_count_until_a_slot_says_that_they_are_written() -> None:
    """Recovery notes in the slot that the markers are in the files."""
    builder = change(drops=[3, 0, 0, 1 << 63])
    assert payloads(builder) == [b'"dropped":3', b'"dropped":9223372036854775808']
    builder.slot_flags = 1
    assert payloads(builder) == []
    for version, count in ((2, 1), (4, 2)):  # older ones know no fifth stream
        assert len(payloads(RingBuilder(version=version).having(drops=[0, 0, 0, 1, 7]))) == count


def test_records_come_in_order_and_pads_are_skipped() -> None:
    builder = RingBuilder(start=4096 * 5 + 3968).lines("a" * 30)
    builder.pad()
    builder.lines("b" * 33).record(DROPS, 3, bytes(8))
    expected = [b"a" * 30, b"b" * 33, b'"dropped":0']
    assert payloads(builder) == payloads(of_other_boot(builder)) == expected


def test_a_hole_hides_nothing_behind_it() -> None:
    """A thread that was killed in mid-claim leaves a hole; the others' records are found."""
    builder = RingBuilder().lines("one")
    builder.record(FRAGMENT, 3, b"x" * 100, committed=False)
    builder.lines("two").record(FRAGMENT, 3, b"y" * 10, committed=False)
    report, shown = view(builder)
    assert (len(shown), report.holes, report.hole_bytes) == (2, 2, 160 + 64)
    # Where the tail is not trusted, nothing tells that the last one was claimed.
    report, shown = view(of_other_boot(builder))
    assert (len(shown), report.holes, report.hole_bytes) == (2, 1, 160)


def test_bytes_of_an_earlier_lap_are_no_records() -> None:
    builder = RingBuilder().lines(*["old"] * 64)
    builder.having(start=builder.tail).lines("new")
    assert payloads(builder) == [b"new"]
    assert payloads(of_other_boot(builder)) == [b"new"]


def test_a_record_beyond_the_ring_or_the_tail_is_none() -> None:
    builder = RingBuilder(start=4064)
    stamp = (4064 ^ builder.salt) * 0x9E3779B97F4A7C15 & rings.MASK
    builder.data[4064:4096] = struct.pack("<Q2IQI2BH", stamp, 32, 0, 0, 0, 3, 3, 0)
    builder.tail = 4096
    assert payloads(builder) == []
    behind = RingBuilder().lines("x" * 64)
    behind.tail -= 32
    assert payloads(behind) == []
    assert payloads(of_other_boot(behind)) == [b"x" * 64]


@pytest.mark.parametrize("tail", [0, 1 << 40, rings.MASK, 8192 + 64 | 1 << 63])
def test_an_impossible_tail_is_not_trusted(tail: int) -> None:
    """Before the commit, or more than a ring behind it: then the records alone count."""
    builder = RingBuilder(start=8192).lines("x")
    assert payloads(builder.having(tail=tail)) == [b"x"]  # the last is right: it was closed


def test_a_payload_that_imitates_a_record_is_passed_over() -> None:
    """A whole record copied into a text: whoever knows the salt can do that."""
    inner = change(tail=64).lines("fake")  # where it comes to lie
    builder = RingBuilder()
    builder.record(FRAGMENT, 3, b"x" * 32 + bytes(inner.data[64:128]))
    report, shown = view(builder.lines("real"))
    assert (report.damaged, [line[-6:-2] for line in shown]) == (1, [b"real"])


def test_a_ring_of_overlapping_records_is_given_up() -> None:
    """What a hostile file can make a reader do is bounded by its size."""
    builder = RingBuilder(ring_bytes=1 << 16)
    for position in range(0, (1 << 16) - (1 << 13), 32):
        stamp = (position ^ builder.salt) * 0x9E3779B97F4A7C15 & rings.MASK
        fields = (stamp, (1 << 13) - 32, 0xBAD, 0, 0, FRAGMENT, 3, 0)
        struct.pack_into("<Q2IQI2BH", builder.data, position, *fields)
    builder.tail = (1 << 16) - 96
    assert payloads(builder.lines("good, but behind too much that is not")) == []


def test_a_metrics_line_has_all_its_fields() -> None:
    builder = RingBuilder()
    keys = builder.key_set("loss", "epoch", 'q"\n', "n", "ok", "z", "s", "inf")
    values = [(REAL, float("nan")), (REAL, float("-inf")), (REAL, 1e-4), (INTEGER, -(1 << 63))]
    values += [(rings.BOOLEAN, True), (NULL, None), (STRING, 'a"\x1f€'), (REAL, float("inf"))]
    builder.metrics(-3, keys, *values, ticks=1_769_783_535_123_456_789)
    assert first_line(builder) == (
        b'{"timestamp":"2026-01-30T14:32:15.123456Z","seq":0,"step":-3,"epoch":null,"metrics":{'
        b'"loss":null,"q\\"\\n":1e-04,"n":-9223372036854775808,"ok":true,"z":null,'
        b'"s":"a\\"\\u001f\xe2\x82\xac","inf":null},'
        b'"nonfinite":{"epoch":"-inf","loss":"nan","inf":"inf"}}\n'
    )


def timing(builder: RingBuilder, *fields: object, error: bytes = b"", length: int = -1) -> None:
    size = len(error) if length < 0 else length
    builder.record(TIMING, 1, struct.pack("<qQ2I2HI", *fields, size) + error, thread=8)


def test_records_that_cannot_be_rendered_are_told() -> None:
    builder = RingBuilder()
    keys, empty = builder.key_set("a"), builder.key_set()
    head = struct.Struct("<qI2H")
    builder.record(METRICS, 0, b"short")
    builder.record(METRICS, 0, head.pack(1, keys, 1, 0))  # its value is missing
    builder.record(METRICS, 0, head.pack(1, keys, 0, 0))  # fewer values than keys
    builder.record(METRICS, 0, head.pack(1, 77, 0, 0))  # unknown keys
    builder.record(METRICS, 0, head.pack(1, keys, 1, 0) + bytes([9] + [0] * 15))  # unknown tag
    for begin, size in ((0, 4), (4, 0), (2**32 - 1, 2**32 - 1)):  # texts out of bounds
        word = struct.pack("<2I", size, begin)
        builder.record(METRICS, 0, head.pack(1, keys, 1, 0) + bytes([4] + [0] * 7) + word + b"abc")
    builder.record(TIMING, 1, b"short")
    timing(builder, 0, 0, 77, 0, 0, 0)  # unknown name
    timing(builder, 0, 0, empty, 0, 0, 0)  # a name without a key
    timing(builder, 0, 0, keys, 77, 0, 2)  # unknown parent
    timing(builder, 0, 0, keys, 0, 0, 0, error=b"abc", length=4)
    builder.record(FRAGMENT, 3, b"")
    builder.record(FRAGMENT, 3, b'"a":1}\n{"b":2')  # two lines
    builder.record(DROPS, 0, bytes(9))
    builder.record(77, 0, b"")
    builder.record(FRAGMENT, 4, b'"a":1')
    report, shown = view(builder.lines('"good":1'))
    assert (report.damaged, len(shown)) == (18, 1)
    # From version 4 on there is the stream of the last one.
    report, shown = view(builder.having(version=4))
    assert (report.damaged, len(shown)) == (17, 2)


@pytest.mark.parametrize(
    ("offset", "value", "good"),
    [
        (0, 8, 0),  # an entry shorter than its head
        (0, 28, 0),  # not a multiple of 8
        (24, 1 << 20, 1),  # an entry that ends behind the table
        (28, 1 << 20, 1),  # more keys than could be in it
        (28, 3, 1),  # more keys than are in it
        (36, 1 << 20, 1),  # a key that ends behind its entry
        (52, 0, 2),  # a name without a key
    ],
)
@pytest.mark.parametrize("forged", [True, False])
def test_a_damaged_key_table_is_read_up_to_the_damage(
    offset: int, value: int, good: int, forged: bool
) -> None:
    """Key sets before it are good; those behind it have no number any more."""
    builder = RingBuilder()
    for number in [builder.key_set("first"), builder.key_set("second"), builder.key_set("third")]:
        timing(builder, 0, 0, number, 0, 0, 0)
    keys = bytearray(builder.keys)
    assert len(keys) == 24 * 3
    struct.pack_into("<I", keys, offset, value)
    if forged:  # with a checksum that fits
        begin = offset // 24 * 24
        (size,) = struct.unpack_from("<I", keys, begin)
        crc = rings.crc32c(bytes(keys[begin : begin + 8]))
        crc = rings.crc32c(bytes(keys[begin + 12 : begin + size]), crc)
        struct.pack_into("<I", keys, begin + 8, crc)
    report, shown = view(builder.having(keys=bytes(keys)))
    assert (report.damaged, len(shown)) == (3 - good, good)


def test_a_key_table_claims_no_more_than_it_has(tmp_path: Path) -> None:
    builder = RingBuilder()
    timing(builder, 0, 0, builder.key_set("name"), 0, 0, 0)
    for published in (0, 7, 15, 24, rings.MASK):
        with rings.edited(builder.put(tmp_path)) as data:
            struct.pack_into("<Q", data, rings.KEY_TABLE, published)
        (report,) = Overlay(tmp_path).refresh()
        assert (report.damaged, report.emitted) == ((1, 0) if published < 24 else (0, 1))


@pytest.mark.parametrize(
    ("anchor", "tsc", "ticks", "text"),
    [
        ((1000, 1_000_000_000, 0.5), True, 1003, "1970-01-01T00:00:01.000000"),
        ((1000, 999_999_999, 0.5), True, 1001, "1970-01-01T00:00:01.000000"),  # half: away from 0
        ((1000, 999_999_999, 0.4), True, 1001, "1970-01-01T00:00:00.999999"),
        ((1000, 0, 1.0), True, 999, "1969-12-31T23:59:59.999999"),
        ((1000, 5, -0.5), True, 1001, "1970-01-01T00:00:00.000000"),
        ((0, 7_000, float("nan")), True, 1 << 60, "1970-01-01T00:00:00.000007"),
        ((0, 7_000, float("inf")), True, 1, "1970-01-01T00:00:00.000007"),
        ((0, (1 << 63) - 1, 1.0), True, 1, "1677-09-21T00:12:43.145224"),  # wraps
        ((0, 0, 99.0), False, 1_769_783_535_000_001_000, "2026-01-30T14:32:15.000001"),
        ((0, 0, 1.0), False, 1 << 63, "1677-09-21T00:12:43.145224"),
    ],
)
def test_ticks_become_times(anchor: object, tsc: bool, ticks: int, text: str) -> None:
    """By the slot's anchor and rate, or as they are; damaged ones stay within the centuries."""
    builder = change(anchor=anchor, flags=int(tsc))
    builder.record(FRAGMENT, 3, b'"a":1', ticks=ticks)
    assert first_line(builder) == f'{{"timestamp":"{text}Z","seq":0,"a":1}}\n'.encode()


@pytest.mark.parametrize(
    ("rate", "text"),
    [(float("nan"), b"null"), (float("inf"), b"null"), (-1e-9, b"-0.0"), (2.0, b"6e-09")],
)
def test_a_damaged_clock_gives_durations_anyhow(rate: float, text: bytes) -> None:
    builder = change(anchor=(0, 0, rate), flags=1)
    timing(builder, 0, 3, builder.key_set("t"), 0, 0, 0)
    assert b'"duration_s":%b,' % text in first_line(builder)
