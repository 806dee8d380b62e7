"""Rings since version 2: values of devices that never arrived, streams that are ahead of others."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import rings
from contract import VALIDATORS, in_order
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ring_checks import check_against_recovery, first_line, lines, seen, view
from rings import (
    INTEGER,
    NULL,
    OLD_STREAMS,
    REAL,
    STREAMS,
    STRING,
    TIMING,
    RingBuilder,
    missing,
    pending,
)

from foundry_fastlog import read_run
from foundry_fastlog.reading.lines import parse_line

REASONS = {
    **dict(enumerate(("lost", "timeout", "no_slot"))),
    **dict(enumerate(("forked", "no_room", "no_key_space", "backend_error"), 4)),
    **dict(enumerate(("masked", "other_context", "unordered", "capture", "unsupported"), 8)),
}
ANY_WORD = 0xFFFF_FFFF_FFFF_FFFF


def metrics(
    keys: tuple[str, ...], *values: tuple[int, object], step: int = 1, tickets: int = 0
) -> RingBuilder:
    builder = RingBuilder()
    builder.metrics(step, builder.key_set(*keys), *values, tickets=tickets)
    return builder


def members(builder: RingBuilder) -> bytes:
    """The first line of a ring behind its number; as readers and schema want it."""
    line = first_line(builder)
    stream = "metrics" if b'"metrics"' in line else "performance"
    record: Any = parse_line(stream, line[:-1])
    assert isinstance(record, dict), record
    VALIDATORS[stream].validate(record)
    assert list(record) == in_order(stream, record)
    return line[line.index(b'"seq":0,') + 8 : -2]


def test_a_value_that_had_not_arrived_is_lost() -> None:
    keys = ("loss", "lr", "epoch", 'q"', "nan", "note", "last")
    values = [pending(0), (REAL, 0.5), (INTEGER, 3), pending((1 << 32) - 1, dtype=255)]
    values += [(REAL, float("nan")), (STRING, "x"), (rings.PENDING, ANY_WORD)]
    assert members(metrics(keys, *values, step=7, tickets=65535)) == (
        b'"step":7,"epoch":3,"metrics":{"loss":null,"lr":0.5,"q\\"":null,"nan":null,"note":"x",'
        b'"last":null},"nonfinite":{"nan":"nan"},'
        b'"missing":{"loss":"lost","q\\"":"lost","last":"lost"}'
    )


@pytest.mark.parametrize("code", REASONS)
@pytest.mark.parametrize("rest", [0, ANY_WORD & ~0xFF])
def test_a_value_that_was_given_up_says_why(code: int, rest: int) -> None:
    """Only the low byte counts, but for errors of the driver."""
    expected = f'"step":1,"metrics":{{"loss":null}},"missing":{{"loss":"{REASONS[code]}"}}'
    assert members(metrics(("loss",), (rings.MISSING, code | rest))) == expected.encode()


@pytest.mark.parametrize("number", [0, 700, (1 << 32) - 1])
def test_an_error_of_the_driver_has_its_number(number: int) -> None:
    tag, word = missing(3, number)
    found = members(metrics(("loss",), (tag, word | 0xFFFF_0000_0000_FF00)))
    assert found.endswith(b'"missing":{"loss":"driver_error_%d"}' % number)


def test_an_epoch_beside_missing_values() -> None:
    """An epoch that is null is left out as ever, and what misses is named in the metrics' order."""
    assert members(metrics(("b", "epoch", "a"), missing(1), (NULL, None), pending(2))) == (
        b'"step":1,"metrics":{"b":null,"a":null},"missing":{"b":"timeout","a":"lost"}'
    )


@pytest.mark.parametrize("value", [missing(13), missing(255), (7, 0), (255, 0)])
def test_an_unknown_tag_or_reason_is_damage(value: tuple[int, int]) -> None:
    builder = metrics(("loss",), value)
    builder.metrics(1, builder.key_set("loss"), (REAL, 0.5))
    report, shown = view(builder)
    assert (report.damaged, len(shown)) == (1, 1)


def test_an_epoch_that_was_left_out_is_only_named() -> None:
    assert members(metrics(("b", "epoch", "a"), missing(1), missing(12), missing(12))) == (
        b'"step":1,"metrics":{"b":null,"a":null},'
        b'"missing":{"epoch":"unsupported","b":"timeout","a":"unsupported"}'
    )


@pytest.mark.parametrize("value", [pending(0), missing(0), missing(1), missing(8)])
def test_an_epoch_is_never_a_value_of_a_device(value: tuple[int, int]) -> None:
    assert first_line(metrics(("loss", "epoch"), (REAL, 0.5), value)) == b""


@pytest.mark.parametrize(
    ("device", "name"),
    [((0, 0), "cuda:0"), ((1, 7), "cuda:7"), ((2, 1), "xpu:1"), ((3, 0), "mps:0")],
)
def test_a_block_on_a_device_lost_its_duration_there(device: tuple[int, int], name: str) -> None:
    builder = RingBuilder()
    number = builder.key_set("forward")
    builder.timing(number, ticks=1500, step=3, device=device, error=b"OSError", tickets=9)
    expected = (
        '"name":"forward","duration_s":1.5e-06,"step":3,"depth":0,"thread":7,"error":"OSError",'
        f'"device":"{name}","device_duration_s":null,"missing":{{"device_duration_s":"lost"}}'
    )
    assert members(builder) == expected.encode()


@pytest.mark.parametrize("error", [b"", b"ValueError"])
@pytest.mark.parametrize("tickets", [0, 1])
def test_a_duration_that_was_given_up_says_why(error: bytes, tickets: int) -> None:
    builder = RingBuilder()
    options = {"missing": missing(3, 719)[1], "error": error, "tickets": tickets}
    builder.timing(builder.key_set("forward"), device=(4, 255), **options)
    assert members(builder) == (
        b'"name":"forward","duration_s":0.0,"depth":0,"thread":7,%b'
        b'"device":"device:255","device_duration_s":null,'
        b'"missing":{"device_duration_s":"driver_error_719"}'
        % (b'"error":"%b",' % error if error else b"")
    )


def timing(flags: int, rest: bytes, error_length: int = 0) -> bytes:
    builder = RingBuilder()
    fields = (0, 0, builder.key_set("forward"), 0, 0, flags, error_length)
    builder.record(TIMING, 1, struct.pack("<qQ2I2HI", *fields) + rest)
    return first_line(builder)


@pytest.mark.parametrize(
    ("flags", "rest", "error_length"),
    [
        *((4 | kind << 4, b"", 0) for kind in (5, 15)),  # kinds that there are not
        (8, bytes(8), 0),  # a reason without a device
        (4, bytes(8), 0),  # bytes that nothing tells of
        *((4 | 8, bytes(size), 0) for size in (0, 7, 9)),  # no reason, or a part of one
        # The error's name takes of its bytes.
        *((4 | 8, bytes(8), length) for length in (1, 8, 9, (1 << 32) - 1)),
        (4 | 8, b"\x0d" + bytes(7), 0),  # a reason that there is not
    ],
)
def test_a_timing_whose_device_makes_no_sense_is_damage(
    flags: int, rest: bytes, error_length: int
) -> None:
    """Every byte of a payload has its place."""
    assert timing(flags, rest, error_length) == b""
    assert timing(rings.HAS_DEVICE, b"") != b""


def test_a_block_without_a_device_says_nothing_of_one() -> None:
    assert timing(0xFFF0, b"").endswith(b'"thread":7}\n')


def test_a_newer_version_is_not_guessed() -> None:
    for version in (1, 2, 3, 4):
        assert view(RingBuilder(version=version))[0].outcome == "recoverable"
    assert "written by a newer version" in view(RingBuilder(version=5))[0].reason


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_stream_is_ahead_by_a_whole_ring_at_most(version: int) -> None:
    """Its records cannot have been read beyond the place where the next lap begins."""
    builder = RingBuilder(start=64, version=version)
    builder.streams[1][7] = 4096 // 32
    builder.fragment('"a":1', stream=0)
    builder.fragment('"a":2', stream=1)
    assert len(lines(builder)) == 1
    for ahead in (4096 // 32 + 1, (1 << 32) - 1):
        builder.streams[1][7] = ahead
        assert "both of its commit slots are damaged" in view(builder)[0].reason


def opening(seq: int) -> bytes:
    return b'{"timestamp":"1970-01-01T00:00:00.000000Z","seq":%d,' % seq


def waiting(run: Path, *, boot: str = "", drops: int = 0, version: int = 2) -> RingBuilder:
    """A run in which metrics wait from step 2 on, while timings and messages went on."""
    builder = RingBuilder(start=4096 - 64, version=version).having(drops=[drops, drops, 0, 0])
    keys, name = builder.key_set("loss"), builder.key_set("forward")
    builder.boot_id = boot or builder.boot_id
    message = '"level":"INFO","logger":"x","message":"%s","context":{}'
    builder.metrics(2, keys, pending(1))
    builder.timing(name, ticks=1000)
    builder.lines(message % "a").done("log")
    builder.metrics(3, keys, (REAL, 0.5))
    builder.timing(name, ticks=2000, device=(0, 0))
    builder.done("performance", "errors")
    builder.lines(message % "b").timing(name, ticks=3000, device=(0, 1))
    timing = b'"name":"forward","duration_s":1e-06,"depth":0,"thread":7}\n'
    noted = {
        "metrics": b"".join(opening(n) + b'"step":%d,"metrics":{}}\n' % n for n in range(2)),
        "performance": b"".join(opening(n) + timing for n in range(2)),
        "log": opening(0) + (message % "a").encode() + b"}\n",
    }
    builder.put(run)
    for stream, content in noted.items():
        (run / f"{stream}.jsonl").write_bytes(content)
        builder.streams[STREAMS.index(stream)][:2] = len(content), content.count(b"\n")
    builder.note_files(run)
    builder.put(run)
    return builder


def test_each_stream_goes_on_where_its_own_lines_end(tmp_path: Path) -> None:
    waiting(tmp_path)
    (report,) = check_against_recovery(tmp_path)
    assert (report.emitted, report.skipped, report.damaged, report.holes) == (4, 0, 0, 0)
    run = read_run(tmp_path)
    assert all(check.complete for check in run.check())
    assert [check.lines for check in run.check()] == [4, 3, 2]
    lost = [line.get("missing") for line in run.lines("metrics")]
    assert lost == [None, None, {"loss": "lost"}, None]
    assert [line["message"] for line in run.lines("log")] == ["a", "b"]
    *_, last = run.lines("performance")
    assert (last["device"], last["device_duration_s"]) == ("cuda:1", None)
    assert last["missing"] == {"device_duration_s": "lost"}


def test_the_beginning_of_a_batch_is_cut_in_each_stream(tmp_path: Path) -> None:
    """A process that was killed between its files left lines behind the offsets."""
    waiting(tmp_path)
    before = seen(tmp_path)
    for stream in OLD_STREAMS:
        with (tmp_path / f"{stream}.jsonl").open("ab") as file:
            file.write(opening(2) + b'"torn')
    (report,) = check_against_recovery(tmp_path)
    assert report.cut_bytes == len(opening(2) + b'"torn') * 4
    assert {name: content for name, content in seen(tmp_path).items() if content} == before


def test_drops_are_marked_behind_each_streams_last_line(tmp_path: Path) -> None:
    waiting(tmp_path, drops=3)
    (report,) = check_against_recovery(tmp_path)
    assert report.emitted == 6
    shown = seen(tmp_path)
    assert shown["metrics.jsonl"].splitlines()[-1] == opening(4) + b'"dropped":3}'
    assert shown["performance.jsonl"].splitlines()[-1] == opening(3) + b'"dropped":3}'


@pytest.mark.parametrize("more", [0, 1])
def test_after_a_power_loss_no_line_is_written_again(more: int, tmp_path: Path) -> None:
    """Their numbers count from each stream's own position."""
    waiting(tmp_path, boot=rings.OTHER_BOOT)
    if more:
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(opening(2) + b'"step":2,"metrics":{"loss":0.25}}\n')
    (report,) = check_against_recovery(tmp_path)
    assert (report.emitted, report.skipped) == (4 - more, more)
    assert [line["step"] for line in read_run(tmp_path).lines("metrics")] == [0, 1, 2, 3]
    assert all(check.complete for check in read_run(tmp_path).check())


def test_holes_count_everywhere_and_damage_behind_the_streams_position(tmp_path: Path) -> None:
    """What is in the files already is not looked at; a stream that there is not has no position."""
    builder = RingBuilder()
    builder.record(rings.FRAGMENT, 3, b"lost", committed=False)
    builder.record(
        rings.FRAGMENT, 0, b""
    )  # damaged, and in the files, as the metrics' position says
    builder.record(rings.FRAGMENT, 77, b'"a":1')
    builder.done("metrics")
    builder.record(rings.FRAGMENT, 0, b"")
    builder.record(rings.FRAGMENT, 0, b'"a":2')
    builder.record(rings.FRAGMENT, 1, b'"a":3')
    builder.streams[0][1] = 5
    builder.put(tmp_path)
    (report,) = check_against_recovery(tmp_path)
    assert (report.emitted, report.damaged, report.holes, report.hole_bytes) == (2, 2, 1, 64)
    assert seen(tmp_path) == {
        "metrics.jsonl": opening(5) + b'"a":2}\n',
        "performance.jsonl": opening(0) + b'"a":3}\n',
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    order=st.lists(st.sampled_from(range(5)), max_size=40),
    noted=st.tuples(*[st.integers(0, 40)] * 5),
    torn=st.tuples(*[st.integers(0, 300)] * 5),
    lap=st.integers(0, 200),
    version=st.sampled_from([2, 3, 4]),
)
def test_whatever_was_noted_all_lines_are_there_once(
    tmp_path_factory: pytest.TempPathFactory,
    order: list[int],
    noted: Any,
    torn: Any,
    lap: int,
    version: int,
) -> None:
    """Any streams in turn, each written up to anywhere, and a part of a batch behind that."""
    builder = RingBuilder(start=32 * lap, version=version)
    names = builder.its_streams
    order = [stream for stream in order if stream < len(names)]
    written: list[list[bytes]] = [[] for _ in names]
    positions: list[list[int]] = [[] for _ in names]
    for number, stream in enumerate(order):
        body = b'"a":"%b"' % (b"x" * number)
        if builder.tail % 4096 + 128 > 4096:
            builder.pad()
        positions[stream].append(builder.record(rings.FRAGMENT, stream, body))
        written[stream].append(opening(len(written[stream])) + body + b"}\n")
    counts = [min(count, len(found)) for count, found in zip(noted, written, strict=False)]
    firsts = [[*positions[n], builder.tail][count] for n, count in enumerate(counts)]
    builder.start = min(firsts)
    run = tmp_path_factory.mktemp("run")
    whole = cut = 0
    for stream, name in enumerate(names):
        done = b"".join(written[stream][: counts[stream]])
        begun = b"".join(written[stream][counts[stream] :])[: torn[stream]]
        (run / f"{name}.jsonl").write_bytes(done + begun)
        whole += begun.count(b"\n")
        cut += len(begun) - begun.rfind(b"\n") - 1
        builder.streams[stream] = [len(done), counts[stream], 0, 0, 0, 1, 0, 0]
        builder.streams[stream][7] = (firsts[stream] - builder.start) // 32
    builder.note_files(run)
    builder.put(run)
    (report,) = check_against_recovery(run, same=False)
    assert (report.holes, report.damaged, report.skipped) == (0, 0, whole)
    assert (report.emitted, report.cut_bytes) == (len(order) - sum(counts) - whole, cut)
    assert seen(run) == {f"{name}.jsonl": b"".join(written[n]) for n, name in enumerate(names)}


@pytest.mark.parametrize("number", range(30))
@pytest.mark.parametrize("boot", ["same", "other"])
def test_positions_of_any_streams_are_read_like_recovery_reads_them(
    number: int, boot: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    builder = waiting(run, version=2 + number % 2 if number < 20 else 4)
    count = len(builder.its_streams)
    for stream in range(count):
        builder.streams[stream][7] = number * (stream + 3) % 15 * (stream != number % count)
    builder.put(run)
    copy = rings.copy_run(run, tmp_path / "copy")
    if boot == "other":
        rings.move_to_other_boot(rings.ring_of(copy))
    check_against_recovery(copy)
