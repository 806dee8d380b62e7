"""Compressed segments: read as plain ones are, written by command and while a run is recorded."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import logging
import os
import random
import shutil
import signal
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, Mock, patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import START, OracleWriter
from recorded import eventually, in_child, in_threads, start_python
from rings import move_to_other_boot, ring_of

from foundry_fastlog import Recorder, read_run, recover
from foundry_fastlog.analysis.summarize import summarize
from foundry_fastlog.export.jsonl import export_run
from foundry_fastlog.reading.cursor import Cursor
from foundry_fastlog.reading.scan import _Part
from foundry_fastlog.recording import background_packing, packing
from foundry_fastlog.recording.background_packing import BackgroundPacking
from foundry_fastlog.recording.packing import Stopped, closed_segments, compress_run, pack
from foundry_fastlog.run import copies, packed, starts
from foundry_fastlog.run.checks import SeriesCheck
from foundry_fastlog.run.files import StreamName, Writer, open_run_dir
from foundry_fastlog.run.listing import list_files, list_segments
from foundry_fastlog.run.packed import Unpacked, is_packed, open_packer

Patch = pytest.MonkeyPatch
FORMATS = ("zstd", "gzip")
each_format = pytest.mark.parametrize("how", FORMATS)


class Killed(BaseException):
    """Nothing of a process that is killed goes on."""


def packed_bytes(data: bytes, how: str) -> bytes:
    file = io.BytesIO()
    with open_packer(file, how) as packer:
        packer.write(data)
    return file.getvalue()


def put_packed(path: Path, how: str, *, keep: bool = False) -> Path:
    """Compress a file as a user does."""
    target = path.with_name(path.name + packed.SUFFIXES[how])
    target.write_bytes(packed_bytes(path.read_bytes(), how))
    if not keep:
        path.unlink()
    return target


def shown(run: Path) -> dict[str, Any]:
    """Return all that readers show of a run, but names and sizes of files."""
    opened = read_run(run)
    summary = summarize(opened).to_dict()
    del summary["files"], summary["bytes"], summary["path"]
    target = run.with_name(f"{run.name}.export")
    export_run(opened, target, force=True)
    checks = [(c.series.stream, c.lines, c.missing, c.torn, c.complete) for c in opened.check()]
    return {
        "lines": [list(opened.lines(stream)) for stream in opened.streams],
        "columns": [opened.to_polars(stream).to_dict(as_series=False) for stream in opened.streams],
        "summary": summary,
        "export": target.read_bytes(),
        "tail": [raw for _, _, _, raw in Cursor(run).last(7).lines],
        "checks": checks,
        "problems": [(problem.kind, problem.message) for problem in opened.problems],
    }


def write_run(run: Path) -> list[Path]:
    """Write a run of several writers, starts and streams; return its files."""
    for rank, attempt in ((0, 0), (1, 0), (0, 1)):
        writer = OracleWriter(run, rank=rank, attempt=attempt, segment_lines=4)
        writer.fill(range(attempt * 6, 10)).metrics(10, loss=float("nan"))
        writer.log("hello")
        for step in range(6):
            writer.timing("step", 0.5, step=step)
    writer.rewind(8).fill([8, 9])
    return sorted(run.glob("*.jsonl"))


choices = st.lists(st.sampled_from([None, "zstd", "gzip", "both"]), min_size=40, max_size=40)


@settings(deadline=None, max_examples=25)
@given(choices)
def test_any_segments_may_be_compressed(
    tmp_path_factory: pytest.TempPathFactory, chosen: list[str | None]
) -> None:
    """Lines, columns, summary, export and tail are the same, also where both files are there."""
    run = tmp_path_factory.mktemp("runs") / "run"
    files = write_run(run)
    before = shown(run)
    for path, how in zip(files, chosen, strict=False):
        if how == "both":
            put_packed(path, "gzip", keep=True)
            put_packed(path, "zstd", keep=len(chosen) % 2 == 0)
        elif how is not None:
            put_packed(path, how)
    assert shown(run) == before


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(["write", "poll", "zstd", "gzip"]), max_size=30))
def test_a_follower_neither_loses_nor_repeats_lines(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[str]
) -> None:
    """Whenever segments that it has read, or not yet, are compressed."""
    run = tmp_path_factory.mktemp("run")
    writer = OracleWriter(run, segment_lines=3)
    follower = Cursor(run)
    found, step = [], 0
    for deed in [*deeds, "poll", "poll"]:
        if deed == "write":
            writer.fill([step, step + 1])
            step += 2
        elif deed == "poll":
            polled = follower.poll()
            assert polled.notes == []
            found += [record["step"] for _, _, record, _ in polled.lines]
        elif closed := [s.path for s in list_segments(run)[:-1] if not is_packed(s.path)]:
            put_packed(closed[-1], deed)
    assert found == list(range(step))


def test_an_unchanged_run_is_not_decompressed_each_time(tmp_path: Path, monkeypatch: Patch) -> None:
    OracleWriter(tmp_path, segment_lines=5).fill(range(7))
    compress_run(tmp_path)
    follower = Cursor(tmp_path)
    assert len(follower.last(9).lines) == 7
    follower.poll()
    monkeypatch.setattr(Unpacked, "_decompress", None)
    assert follower.poll().lines == []


@pytest.mark.parametrize("begun", [0, 40, 90])
def test_a_follower_waits_for_the_first_line_of_a_second_file(tmp_path: Path, begun: int) -> None:
    """A writer began the file anew that somebody had compressed: nothing comes twice meanwhile."""
    OracleWriter(tmp_path).fill(range(5))
    path = tmp_path / "metrics.jsonl"
    put_packed(path, "gzip")
    later = OracleWriter(tmp_path / "other", start=START + timedelta(hours=1)).fill(range(5, 7))
    data = later.path("metrics").read_bytes()
    follower, found = Cursor(tmp_path), []
    for size in (begun, begun, len(data), len(data)):
        path.write_bytes(data[:size])
        for _ in range(3):
            found += [record["step"] for _, _, record, _ in follower.poll(limit=300).lines]
            follower = Cursor(tmp_path, position=json.loads(json.dumps(follower.position)))
    assert found == list(range(7))


def test_a_read_takes_as_much_memory_as_there_is_to_read(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x" * 300_000))
    tracemalloc.start()
    try:
        assert Unpacked(tmp_path / "a.gz").read(64 << 20) == b"x" * 300_000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@each_format
def test_compress_takes_all_of_an_ended_run_and_again_nothing(tmp_path: Path, how: str) -> None:
    run = tmp_path / "run"
    with Recorder(run, segment_bytes=4096) as recorder:
        for step in range(300):
            recorder.record(step, loss=1.0 / (step + 1))
        recorder.event("hello")
    before, stamps = shown(run), {p.name: p.stat().st_mtime_ns for p in run.glob("*.jsonl")}
    size = sum(path.stat().st_size for path in run.glob("*.jsonl"))
    result = compress_run(run, how)
    suffix = packed.SUFFIXES[how]
    assert sorted(result.files) == sorted(stamps)
    assert (result.before, result.left) == (size, [])
    assert result.after == sum((run / f"{name}{suffix}").stat().st_size for name in result.files)
    assert {name: (run / f"{name}{suffix}").stat().st_mtime_ns for name in stamps} == stamps
    assert not list(run.glob("*.jsonl"))
    assert shown(run) == before
    assert compress_run(run, how).files == []
    assert open_run_dir(run) == run


@each_format
def test_kept_plain_files_are_the_ones_that_count(tmp_path: Path, how: str) -> None:
    run = tmp_path / "run"
    files = write_run(run)
    before = shown(run)
    assert len(compress_run(run, how, keep=True).files) == len(files)
    assert compress_run(run, how, keep=True).files == []
    assert all(path.exists() for path in files)
    assert shown(run) == before


@each_format
def test_an_empty_plain_file_is_none_however_old(tmp_path: Path, how: str) -> None:
    """A decompression that was killed as it began, in the tick of the clock of what it reads."""
    run = tmp_path / "run"
    files = write_run(run)
    before = shown(run)
    compress_run(run, how, keep=True)
    for path in files:
        stamp = path.stat().st_mtime_ns
        path.write_bytes(b"")
        os.utime(path, ns=(stamp, stamp))
    assert shown(run) == before


def test_a_compression_may_be_killed_at_any_step(tmp_path: Path) -> None:
    """What it leaves reads the same, and the next one finishes it."""
    origin = tmp_path / "origin"
    OracleWriter(origin, segment_lines=3).fill(range(8))
    before = shown(origin)
    for step in range(1000):
        run = tmp_path / f"run{step}"
        shutil.copytree(origin, run)
        killed = kill_at(step, lambda run=run: compress_run(run))  # type: ignore[misc]
        assert shown(run) == before
        with Patch.context() as patch:
            patch.setattr(packing, "_ABANDONED_S", -1)
            assert compress_run(run).left == []
        assert shown(run) == before
        assert {path.suffix for path in run.iterdir()} == {".zst"}
        if not killed:
            break
    assert step > 30


def kill_at(step: int, work: Callable[[], object]) -> bool:
    """Call a function; from a step on, nothing that it asks of the system is done."""
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > step:
                raise Killed
            return real(*args, **options)

        return call

    with Patch.context() as patch, contextlib.suppress(Killed):
        for name in ("open", "fsync", "fchmod", "utime", "read"):
            patch.setattr(os, name, counted(getattr(os, name)))
        for name in ("rename", "unlink", "lstat"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        work()
    return count > step


def test_young_remains_may_be_of_a_compression_at_work(tmp_path: Path, monkeypatch: Patch) -> None:
    """Old ones are removed; what has another name is not, and what cannot be, stays."""
    OracleWriter(tmp_path).fill(range(3))
    names = [".metrics.jsonl.zst.00.tmp", ".log.r1.000001.jsonl.gz.00.tmp"]
    others = [".metrics.jsonl.zst.00", ".x.jsonl.zst.00.tmp", ".metrics.jsonl.bz2.00.tmp"]
    for name in names + others:
        (tmp_path / name).touch()
    compress_run(tmp_path)
    assert all((tmp_path / name).exists() for name in names)
    monkeypatch.setattr(packing, "_ABANDONED_S", -1)
    compress_run(tmp_path)
    assert [(tmp_path / name).exists() for name in names + others] == [False] * 2 + [True] * 3


def damage(data: bytes, how: str) -> Iterator[tuple[bytes, str]]:
    whole = packed_bytes(data, how)
    for share in (0.3, 0.9, 0.9999):
        yield whole[: int(len(whole) * share)], "truncated"
    yield b"", "it is empty"
    yield data, "it is damaged"  # it is not compressed at all
    yield packed_bytes(data, FORMATS[how == "zstd"]), "it is damaged"
    at = int(len(whole) * 0.9)
    yield whole[:at] + b"\xff" * 500 + whole[at + 500 :], "it is damaged"
    yield whole + b"garbage after it", "it is damaged"


@each_format
def test_damage_costs_what_follows_it_and_is_told(tmp_path: Path, how: str) -> None:
    """What could be decompressed counts; rows and lines are the same; nothing is raised."""
    writer = OracleWriter(tmp_path, segment_lines=4000)
    for step in range(4001):
        writer.metrics(step, note=str(random.Random(step).random()))
    first = tmp_path / "metrics.jsonl"
    data = first.read_bytes()
    first.unlink()
    target = tmp_path / f"metrics.jsonl{packed.SUFFIXES[how]}"
    counts = []
    for content, reason in damage(data, how):
        target.write_bytes(content)
        opened = read_run(tmp_path)
        found = [line["step"] for line in opened.lines("metrics")]
        (problem,) = [p for p in opened.problems if p.kind == "unreadable"]
        assert problem.file == target.name
        assert reason in problem.message
        again = read_run(tmp_path)
        frame = again.to_polars("metrics")
        assert frame["step"].to_list() == found
        assert again.problems == opened.problems
        assert not any(check.complete for check in again.check())
        assert found[-1] == 4000
        counts.append(len(found))
        polled = Cursor(tmp_path).poll()
        assert any(reason in note for note in polled.notes)
        assert len(polled.lines) == len(found)
    assert counts[1] > 2000  # of the 90 percent
    assert counts[-1] == 4001


def test_damaged_lines_of_a_compressed_file_are_explained_in_one_pass(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(500))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    for number in range(0, 500, 9):
        lines[number] = b"x" * number
    path.write_bytes(b"\n".join(lines))
    opened = read_run(tmp_path)
    opened.arrow("metrics")
    put_packed(path, "gzip")
    again = read_run(tmp_path)
    with patch.object(Unpacked, "_open", autospec=True, side_effect=Unpacked._open) as begin:
        again.arrow("metrics")
    told = [(problem.line, problem.message) for problem in opened.problems]
    assert [(problem.line, problem.message) for problem in again.problems] == told
    assert len(told) > 50
    assert begin.call_count == 2  # the rows, and the reasons


@each_format
def test_a_bomb_takes_no_memory(tmp_path: Path, how: str) -> None:
    """A line of 130 MiB in 130 kB is damage, as in a plain file; the next one is read."""
    path = OracleWriter(tmp_path).fill([0]).path("metrics")
    path.write_bytes(b" " * (130 << 20) + b"\n" + path.read_bytes())
    target = put_packed(path, how)
    assert target.stat().st_size < 1 << 20
    opened = read_run(tmp_path)
    tracemalloc.start()
    try:
        assert [line["step"] for line in opened.lines("metrics")] == [0]
        assert tracemalloc.get_traced_memory()[1] < 140 << 20  # the longest line, twice
    finally:
        tracemalloc.stop()
    assert [problem.line for problem in opened.problems] == [1]
    assert opened.to_polars("metrics").height == 1


def test_without_a_library_nothing_else_is_hidden(
    tmp_path: Path, monkeypatch: Patch, command: Callable[..., Any]
) -> None:
    """The problem says what to install, and the run is not complete."""
    OracleWriter(tmp_path, segment_lines=5).fill(range(15))
    put_packed(tmp_path / "metrics.000001.jsonl", "zstd")
    monkeypatch.setattr(packed, "import_module", Mock(side_effect=ImportError("no zstd")))
    packed._zstd.cache_clear()
    opened = read_run(tmp_path)
    assert [line["step"] for line in opened.lines("metrics")] == [*range(5), *range(10, 15)]
    assert any("pip install 'foundry_fastlog[zstd]'" in p.message for p in opened.problems)
    again = read_run(tmp_path)
    assert again.to_polars("metrics").height == 10
    assert again.problems == opened.problems
    assert not any(check.complete for check in again.check())
    assert "pip install" in command("compress", tmp_path, code=2).err
    assert compress_run(tmp_path, "gzip").left == []


def test_the_library_is_pythons_own_where_there_is_one(monkeypatch: Patch) -> None:
    monkeypatch.setattr(packed, "import_module", str)
    packed._zstd.cache_clear()
    assert packed._zstd() == "compression.zstd"


@pytest.fixture(autouse=True)
def _library_anew() -> Iterator[None]:
    yield
    packed._zstd.cache_clear()


def test_a_file_may_be_compressed_after_it_was_listed(tmp_path: Path) -> None:
    """Lines and columns are read from where they are now, in the middle of a read, too."""
    run = tmp_path / "run"
    OracleWriter(run, segment_lines=200).fill(range(1000))
    before = read_run(run).to_polars("metrics")
    by_line, by_column, summed = read_run(run), read_run(run), read_run(run)
    (series,) = by_line.series
    reading = by_line.entries(["metrics"])
    next(reading)
    compress_run(run)
    assert len(list(reading)) == 999
    assert by_column.to_polars("metrics").equals(before)
    assert by_column.problems == by_line.problems == []
    found, checks = summed.sums("metrics", {})
    assert found is not None
    assert checks[0].complete
    with series.segments[1].open() as file:  # offsets are those of its lines
        assert (file.packed, file.inode) == (True, 0)
        file.seek(file.size - 2)
        assert file.read(9) == b"}\n"
        file.seek(1)
        assert file.read(11) == b'"timestamp"'
    for segment in series.segments:
        segment.path.with_name(f"{segment.path.name}.zst").unlink()
    with pytest.raises(FileNotFoundError):
        series.segments[0].open()
    gone = read_run(tmp_path / "run") if list(run.glob("*.jsonl*")) else by_column
    gone.arrow("metrics")
    assert {problem.kind for problem in gone.problems} >= {"unreadable"}


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("lines", [50, 5_000])
def test_lines_are_merged_from_what_was_compressed_meanwhile(
    tmp_path: Path, lines: int, begun: bool
) -> None:
    """Also in the middle of a large file, of which a part was read before."""
    OracleWriter(tmp_path, segment_lines=lines).fill(range(10_000))
    plain = [raw for _, raw in read_run(tmp_path).raw_lines(["metrics"])]
    opened, checks = read_run(tmp_path), list[SeriesCheck]()
    reading = opened.raw_lines(["metrics"], checks=checks)
    found = [next(reading)[1]] if begun else []
    compress_run(tmp_path, "gzip")
    assert found + [raw for _, raw in reading] == plain
    assert (checks[0].lines, checks[0].complete, opened.problems) == (10_000, True, [])


def test_the_native_reader_is_told_what_the_system_said(tmp_path: Path) -> None:
    """It asks for ascending offsets, or begins anew; the reason is kept for the problem."""
    OracleWriter(tmp_path).fill(range(9))
    data = (tmp_path / "metrics.jsonl").read_bytes()
    target = put_packed(tmp_path / "metrics.jsonl", "zstd")
    part = _Part(list_segments(tmp_path)[0])
    buffer = bytearray(len(data))
    for _ in range(2):
        assert part.read_at(0, memoryview(buffer)[:100]) == 100
        assert part.read_at(100, memoryview(buffer)[100:]) == len(data) - 100
        assert bytes(buffer) == data
        assert part.read_at(len(data), memoryview(buffer)) == 0
    target.unlink()
    assert part.read_at(0, memoryview(buffer)) == -errno.ENOENT
    assert part.error is not None


def test_ranges_and_what_follows_them_are_of_the_lines(tmp_path: Path) -> None:
    """What a ring says of a file holds for what it was compressed to."""
    OracleWriter(tmp_path).fill(range(9))
    data = (tmp_path / "metrics.jsonl").read_bytes()
    at = [0, *(n + 1 for n, byte in enumerate(data) if byte == 10)]
    put_packed(tmp_path / "metrics.jsonl", "gzip")
    opened = read_run(tmp_path)
    (series,) = opened.series
    kept = ((at[1], at[3]), (at[5], at[6]))
    segment = replace(series.segments[0], kept=kept, pending=data[at[8] :])
    opened.series = (replace(series, segments=(segment,)),)
    assert [line["step"] for line in opened.lines("metrics")] == [1, 2, 5, 8]
    assert opened.to_polars("metrics")["step"].to_list() == [1, 2, 5, 8]
    short = replace(segment, kept=((0, len(data) + 1),))
    opened.series = (replace(series, segments=(short,)),)
    opened.arrow("metrics")
    assert any("cannot be read" in problem.message for problem in opened.problems)


def test_a_listing_misses_no_file_compressed_meanwhile(tmp_path: Path, monkeypatch: Patch) -> None:
    OracleWriter(tmp_path, segment_lines=2).fill(range(6))
    (tmp_path / "metrics.r1.jsonl").touch()
    real, calls = os.scandir, 0

    def scan(path: Path) -> Any:
        nonlocal calls
        calls += 1
        entries = list(real(path))
        if calls == 2:
            put_packed(tmp_path / "metrics.jsonl", "zstd")
            (tmp_path / "metrics.r1.jsonl").unlink()
            entries = [e for e in entries if e.name not in ("metrics.jsonl", "metrics.r1.jsonl")]
        return contextlib.nullcontext(entries)

    monkeypatch.setattr(os, "scandir", scan)
    names = [segment.path.name for segment in list_segments(tmp_path)]
    assert names == ["metrics.jsonl.zst", "metrics.000001.jsonl", "metrics.000002.jsonl"]


def test_segments_of_no_listing_are_found_by_number(tmp_path: Path, monkeypatch: Patch) -> None:
    """Each listing may miss a file that is renamed while it is made; what is missing stays so."""
    OracleWriter(tmp_path, segment_lines=2).fill(range(12))
    put_packed(tmp_path / "metrics.000001.jsonl", "zstd")
    put_packed(tmp_path / "metrics.000002.jsonl", "gzip")
    (tmp_path / "metrics.000004.jsonl").unlink()
    real_scan, real_stat = os.scandir, Path.stat

    def scan(path: Path) -> Any:
        hidden = ("metrics.000001.jsonl.zst", "metrics.000002.jsonl.gz")
        return contextlib.nullcontext([e for e in real_scan(path) if e.name not in hidden])

    def look(path: Path, **options: Any) -> os.stat_result:
        if path.name == "metrics.000003.jsonl" and os.path.lexists(path):
            put_packed(path, "gzip")
        return real_stat(path, **options)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(Path, "stat", look)
    names = [segment.path.name for segment in list_segments(tmp_path)]
    ends = [name.removeprefix("metrics.") for name in names]
    found = ["jsonl", "000001.jsonl.zst", "000002.jsonl.gz", "000003.jsonl.gz", "000005.jsonl"]
    assert ends == found


def test_two_compressions_at_once_do_no_harm(tmp_path: Path, monkeypatch: Patch) -> None:
    """What another one has done, or somebody has removed, is not told as a fault."""
    run = tmp_path / "run"
    OracleWriter(run, segment_lines=3).fill(range(9))
    before = shown(run)
    real = packing.pack

    def late(path: Path, how: str, **options: Any) -> tuple[int, int]:
        real(path, "zstd")
        return real(path, how, **options)

    monkeypatch.setattr(packing, "pack", late)
    result = compress_run(run, "gzip")
    assert (result.files, result.left) == ([], [])
    assert shown(run) == before
    with Recorder(tmp_path / "b", compress="gzip") as recorder:
        recorder._packing._pack(tmp_path / "gone.jsonl", None)  # type: ignore[union-attr]
        assert not recorder._packing._told  # type: ignore[union-attr]


def test_a_file_that_began_anew_is_read_beside_the_compressed_one(tmp_path: Path) -> None:
    """A user compressed the file that was being written; its writer made a new one."""
    with Recorder(tmp_path) as recorder:
        for steps in (range(5), range(5, 8)):
            for step in steps:
                recorder.record(step, loss=1.0)
            recorder.flush()
            if not steps[0]:
                put_packed(tmp_path / "metrics.jsonl", "gzip")
        assert len(list(read_run(tmp_path).lines("metrics"))) == 8
    opened = read_run(tmp_path)
    assert [line["step"] for line in opened.lines("metrics")] == list(range(8))
    assert opened.to_polars("metrics").height == 8
    assert all(check.complete for check in opened.check())
    # And compressing the new one would cost the other.
    result = compress_run(tmp_path, "gzip")
    assert [name for name, _ in result.left] == ["metrics.jsonl"]
    assert "with other lines" in result.left[0][1]
    (tmp_path / "log.jsonl.gz").mkdir()
    assert ("log.jsonl.gz", "it is not a regular file") in list_files(tmp_path)[1]


def test_a_resumed_run_goes_on_behind_compressed_files(tmp_path: Path) -> None:
    """The labels of compressed files are taken, and the last step is found in them."""
    with Recorder(tmp_path, segment_bytes=4096) as recorder:
        for step in range(100):
            recorder.record(step, loss=1.0)
    compress_run(tmp_path)
    assert starts.last_step(tmp_path, None, 1) == 99
    shutil.rmtree(tmp_path / "starts")
    assert starts.newest_start(tmp_path) == 0
    with Recorder(tmp_path) as recorder:
        assert recorder.label == "a1"
        recorder.log({"loss": 2.0})
    opened = read_run(tmp_path)
    assert list(opened.steps()) == list(range(101))
    assert all(check.complete for check in opened.check())


@each_format
@pytest.mark.parametrize("polls", [0, 1, 2])
def test_a_cursor_reads_both_files_of_a_number_once(tmp_path: Path, how: str, polls: int) -> None:
    """Wherever it was when the writer began its file anew, and while that one grows."""
    OracleWriter(tmp_path, segment_lines=5).fill(range(13))
    cursor, found = Cursor(tmp_path), list[int]()

    def poll() -> None:
        polled = Cursor(tmp_path, position=json.loads(json.dumps(cursor.position))).poll()
        assert (polled.anew, polled.notes) == (False, [])
        polled = cursor.poll()
        found.extend(record["step"] for _, _, record, _ in polled.lines)

    if polls:
        poll()
    newest = tmp_path / "metrics.000002.jsonl"
    whole = newest.read_bytes()
    put_packed(newest, how)
    if polls > 1:
        poll()
    for seq in (13, 14):
        line = json.loads(whole.splitlines()[-1]) | {"seq": seq, "step": seq}
        with newest.open("a") as file:
            file.write(json.dumps(line) + "\n")
        for _ in range(2):
            poll()
    assert found == list(range(15))
    assert read_run(tmp_path).curve("loss").count.sum() == 15


@each_format
@pytest.mark.parametrize("lines", [0.5, 0.0, 0.001, 0.005, 40])
def test_a_decompression_that_was_killed_hides_nothing(
    tmp_path: Path, command: Callable[..., Any], how: str, lines: float
) -> None:
    """The longer file counts, and compressing does not put the other in its place."""
    OracleWriter(tmp_path).fill(range(100))
    plain = tmp_path / "metrics.jsonl"
    data = plain.read_bytes()
    packed_file = put_packed(plain, how)
    os.utime(packed_file, (1, 1))  # long before: times have ticks
    whole = packed_file.read_bytes()
    ends = [n + 1 for n, byte in enumerate(data) if byte == 10]
    plain.write_bytes(data[: ends[int(lines) - 1] if lines > 1 else int(len(data) * lines)])
    for _ in range(2):
        opened = read_run(tmp_path)
        assert len(list(opened.lines("metrics"))) == len(opened.metric("loss")) == 100
        assert all(check.complete for check in opened.check())
        said = command("compress", "--format", how, tmp_path, code=1).out
        assert "has more lines, and counts" in said
        assert packed_file.read_bytes() == whole
    with pytest.raises(OSError, match="has more lines"):
        pack(plain, how)
    follower = Cursor(tmp_path)
    polled = [follower.poll(limit=300) for _ in range(100)]
    assert [record["step"] for one in polled for _, _, record, _ in one.lines] == [*range(100)]
    assert all(one.notes == [] and not one.anew for one in polled)
    plain.write_bytes(data)
    assert "left:" not in command("compress", "--format", how, tmp_path).out
    assert sorted(path.name for path in tmp_path.glob("metrics*")) == [packed_file.name]


def cut(data: bytes, how: str) -> bytes:
    half = len(data) // 2
    if how == "zeros behind":
        return data[:half] + bytes(len(data) - half)
    if how == "zeros within":  # blocks reach the disk in any order
        return data[:half] + bytes(len(data) // 4) + data[half + len(data) // 4 :]
    if how == "zeros in one line":
        return data[:-20] + bytes(10) + data[-10:]
    return bytes(len(data)) if how == "zeros" else data[:half]


@each_format
@pytest.mark.parametrize(
    "kind", ["zeros behind", "zeros within", "zeros in one line", "zeros", "half"]
)
def test_a_decompression_may_end_with_the_power(tmp_path: Path, how: str, kind: str) -> None:
    """Lines count, not bytes; and a tick of the clock, or a network's, is a second or more."""
    OracleWriter(tmp_path).fill(range(200))
    plain = tmp_path / "metrics.jsonl"
    data = plain.read_bytes()
    packed_file = put_packed(plain, how)
    before = shown(tmp_path)
    plain.write_bytes(cut(data, kind))
    is_of_one_time = kind != "zeros within"
    stamp = packed_file.stat().st_mtime_ns
    os.utime(plain, ns=(stamp, stamp + (not is_of_one_time)))
    assert kind == "zeros in one line" or shown(tmp_path) == before
    os.utime(plain, ns=(stamp, stamp + 1))
    assert shown(tmp_path) == before
    assert all(check.complete for check in read_run(tmp_path).check())
    assert "has more lines" in compress_run(tmp_path, how).left[0][1]


@pytest.mark.parametrize("whole", FORMATS)
def test_the_whole_one_of_two_compressed_files_counts(tmp_path: Path, whole: str) -> None:
    """What damage decompresses to may look like more lines than there were."""
    OracleWriter(tmp_path).fill(range(200))
    plain = tmp_path / "metrics.jsonl"
    data = plain.read_bytes()
    other = "gzip" if whole == "zstd" else "zstd"
    damaged = tmp_path / f"metrics.jsonl{packed.SUFFIXES[other]}"
    put_packed(plain, whole)
    before = shown(tmp_path)
    for size in range(40):
        packed_data = packed_bytes(data, other)
        damaged.write_bytes(packed_data[: -size - 1] + bytes(size + 1))
        assert shown(tmp_path) == before
        assert all(check.complete for check in read_run(tmp_path).check())
    damaged.write_bytes(packed_bytes(data + data, other)[:-4])  # as if by chance
    assert shown(tmp_path) == before


def test_a_growing_file_is_not_read_again_for_its_copy(tmp_path: Path, monkeypatch: Patch) -> None:
    """Somebody keeps a compressed copy of a file that is written to."""
    writer = OracleWriter(tmp_path)
    writer.fill(range(100))
    plain = tmp_path / "metrics.jsonl"
    copy = tmp_path / "metrics.jsonl.gz"
    copy.write_bytes(gzip.compress(plain.read_bytes()))
    writer.fill(range(100, 200))
    looked = Mock(side_effect=copies._look_at)
    monkeypatch.setattr(copies, "_look_at", looked)
    monkeypatch.setattr(copies, "_MOST_CONTENTS", 1)
    for last in range(200, 210):
        writer.fill(range(last, last + 1))
        assert len(list(read_run(tmp_path).lines("metrics"))) == last + 1
    assert [call.args for call in looked.call_args_list] == [(copy,)]
    assert not copies.has_more_lines(tmp_path / "none.gz", tmp_path / "none")
    assert not copies._is_copied(tmp_path / "none.gz", plain)
    assert copies.has_more_lines(copy, tmp_path / "none")
    other = tmp_path / "other.gz"
    other.write_bytes(gzip.compress(b"{}\n" * 500))
    assert copies.has_more_lines(other, copy)
    assert len(copies._contents) == 1


def test_compressing_waits_for_who_starts_or_ends(tmp_path: Path, monkeypatch: Patch) -> None:
    """A process that was killed after the recovery is recovered, too; else the reason is told."""

    def record() -> None:
        recorder = Recorder(tmp_path)
        recorder.record(1, loss=1.0)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(AssertionError, match="child failed"):
        in_child(record)
    late = Mock(side_effect=[None, DEFAULT], wraps=recover)
    monkeypatch.setattr(packing, "recover", Mock(return_value=None))
    monkeypatch.setattr(packing, "_PAUSE_S", 0.0)
    (ring, reason), *_ = compress_run(tmp_path, "gzip").left
    assert (Path(ring).suffix, reason) == (".ring", "a process begins or has just ended: try again")
    monkeypatch.setattr(packing, "recover", late)
    result = compress_run(tmp_path, "gzip")
    assert (result.files, result.left, late.call_count) == (["metrics.jsonl"], [], 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_compressed_file_stays_its_owners(tmp_path: Path) -> None:
    """Root compresses somebody's run, who goes on reading it."""
    OracleWriter(tmp_path).fill(range(3))
    path = tmp_path / "metrics.jsonl"
    path.chmod(0o640)
    os.chown(path, 4711, 4712)
    compress_run(tmp_path, "gzip")
    status = (tmp_path / "metrics.jsonl.gz").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (4711, 4712, 0o640)


def test_refusals_leave_the_plain_file(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(3))
    path = tmp_path / "metrics.jsonl"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        pack(tmp_path / "pipe", "gzip")
    with pytest.raises(Stopped):
        pack(path, "gzip", go_on=lambda: False)
    with pytest.raises(OSError, match="changed while it was compressed"):
        pack(path, "gzip", go_on=lambda: os.utime(path, ns=(1, 1)) is None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "pipe"]
    packing.sync_ring(None)
    packing.sync_ring(str(tmp_path / "gone"))


def test_a_compressed_file_that_changes_or_is_none_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl.gz"
    path.write_bytes(packed_bytes(os.urandom(1 << 20), "gzip"))
    file = Unpacked(path)
    assert len(file.read(1000)) == 1000
    path.write_bytes(packed_bytes(b"other", "gzip"))
    file.seek(1 << 20)
    with pytest.raises(OSError, match="changed while it was read"):
        file.read(1)
    file = Unpacked(path)
    file._file.read1 = None
    with pytest.raises(OSError, match="damaged"):
        file.read(1)
    file = Unpacked(path)
    file._file = Mock(read1=Mock(side_effect=MemoryError))
    with pytest.raises(OSError, match="Cannot allocate memory"):
        file.read(1)
    os.mkfifo(tmp_path / "pipe.gz")
    with pytest.raises(OSError, match="not a regular file"):
        Unpacked(tmp_path / "pipe.gz")


def test_sizes_of_many_files_are_not_kept_for_ever(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(packed, "_MOST_SIZES", 1)
    for name in ("a.gz", "b.gz"):
        (tmp_path / name).write_bytes(gzip.compress(name.encode()))
        assert Unpacked(tmp_path / name).size == 4
    assert len(packed._sizes) == 1


def test_files_that_a_ring_means_are_left(tmp_path: Path, command: Callable[..., Any]) -> None:
    """Of a live writer all but what it commits to; of one whose ring is not here, all."""
    with Recorder(tmp_path, segment_bytes=4096) as recorder:
        for step in range(1000):
            recorder.record(step, loss=1.0)
        recorder.flush()
        count = len(recorder.files())
        said = command("compress", tmp_path, "--format", "gzip").out
        assert f"{count - 1} files compressed: " in said
        names = [path.name for path in recorder.files()]
        assert [name.endswith(".gz") for name in names] == [True] * (count - 1) + [False]
        assert all(check.complete for check in read_run(tmp_path).check())
        recorder.record(1000, loss=1.0)
    assert all(check.complete for check in read_run(tmp_path).check())
    mark = tmp_path / ".fastlog" / "00000000-0000-0000-0000-000000000000.writer"
    mark.parent.mkdir(exist_ok=True)
    mark.write_text("memory r1\n")
    said = command("compress", tmp_path, code=1).out
    assert said.startswith("0 files compressed\nleft: ")
    assert "its ring was in memory" in said
    mark.unlink()
    assert command("compress", tmp_path).out.startswith("1 file compressed: ")
    assert "does not exist" in command("compress", tmp_path / "none", code=2).err


def test_segments_that_may_still_be_cut_are_not_closed() -> None:
    """After a failed fsync lines are moved, and then cut from where they were."""
    files = {Path(f"metrics.{n}"): StreamName("metrics", Writer(), n) for n in range(4)}
    files[Path("log")] = StreamName("log", Writer(), 0)
    files[Path("ended")] = StreamName("log", Writer(rank=1), 0)
    noted: list[Any] = [(3, 0, (1, 50)), (0, 0, None), (0, 0, None), (0, 0, None), (0, 0, None)]
    live: Any = {Writer(): {"label": "", "stamp": "", "streams": noted, "files": []}}
    found = [str(path) for path in closed_segments(files, live)]
    assert found == ["metrics.0", "metrics.2", "ended"]
    assert background_packing._writing("", None, "", {"errors": 1}) is None  # type: ignore[typeddict-item]


@pytest.fixture
def quick(monkeypatch: Patch) -> None:
    monkeypatch.setattr(background_packing, "POLL_S", 0.005)


def packed_names(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir() if is_packed(path))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("ring", ["file", "memory"])
@each_format
def test_a_recorder_compresses_what_it_has_closed(tmp_path: Path, how: str, ring: str) -> None:
    """Under load from several threads, nothing is lost, and a forked child is left alone."""
    with Recorder(
        tmp_path, compress=how, ring=ring, segment_bytes=16 << 10, flush_interval_s=0.005
    ) as recorder:
        in_threads(lambda n: [recorder.record(s, loss=1.0, of=n) for s in range(1000)], count=3)

        def child() -> None:
            for step in range(500):
                recorder.record(step, child=1.0)
            assert recorder.close()

        in_child(child)
        in_threads(lambda n: [recorder.log({"more": n}) for _ in range(200)], count=2)
        recorder.flush()
        closed = [p.name for p in recorder.files() if p.name.startswith("metrics.")]
        assert len(closed) > 10
        eventually(lambda: sum(map(is_packed, recorder.files())) == len(closed) - 1, 300)
    opened = read_run(tmp_path)
    assert all(check.complete for check in opened.check()), opened.problems
    assert sum(1 for _ in opened.lines("metrics", starts="all")) == 3900
    assert all(".w" not in name for name in packed_names(tmp_path))
    assert compress_run(tmp_path, how).left == []
    assert sum(check.lines for check in read_run(tmp_path).check(["metrics"])) == 3900


KILLED = """
import sys, time
from foundry_fastlog import Recorder
from foundry_fastlog.recording import background_packing
background_packing.POLL_S = 0.001
recorder = Recorder(
    sys.argv[1], ring_bytes=1 << 16, segment_bytes=4096, flush_interval_s=0.001, compress="zstd"
)
step = 0
while True:
    recorder.record(step, loss=1.0)
    step += 1
    if step % 50 == 0:
        time.sleep(0.002)
    if step == 2000:
        print("recording", flush=True)
"""


@pytest.mark.parametrize("how", ["here", "after a restart"])
def test_a_killed_writer_with_packed_segments_is_recovered_whole(tmp_path: Path, how: str) -> None:
    """Readers and recovery agree, and no line that was compressed is written again."""
    run = tmp_path / "run"
    with start_python(KILLED, run) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "recording\n"
        eventually(lambda: len(packed_names(run)) > 3)
        writer.send_signal(signal.SIGKILL)
    if how != "here":
        move_to_other_boot(ring_of(run))
    before = shown(run)
    assert all(complete for *_, complete in before["checks"]), before["problems"]
    assert all(report.sound for report in recover(run))
    after = shown(run)
    assert after["lines"] == before["lines"]
    assert after["problems"] == []
    assert compress_run(run).left == []
    assert not list(run.glob("*.jsonl"))
    assert shown(run)["lines"] == before["lines"]


@pytest.mark.usefixtures("quick")
def test_what_keeps_a_recorder_from_compressing_is_told_once(
    tmp_path: Path, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, a missing library, no thread: the plain files stay, and nothing is raised."""
    refuse = Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    fail = Mock(side_effect=RuntimeError("can't start new thread"))
    cases: list[tuple[object, str, object, str]] = [
        (background_packing, "pack", refuse, "No space left on device"),
        (background_packing, "check_library", refuse, "No space left on device"),
        (background_packing, "closed_segments", fail, "can't start new thread"),
        (threading.Thread, "start", fail, "can't start new thread"),
        (background_packing, "pack", Mock(side_effect=Stopped), ""),
        (background_packing, "_writing", lambda *_: None, ""),
    ]
    for number, (where, name, instead, reason) in enumerate(cases):
        caplog.clear()
        run = tmp_path / str(number)
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "foundry_fastlog"):
            patch.setattr(where, name, instead)
            with Recorder(run, compress="zstd", segment_bytes=4096) as recorder:
                for step in range(500):
                    recorder.record(step, loss=1.0)
                recorder.flush()
                thread = recorder._packing._thread  # type: ignore[union-attr]
                if reason:
                    eventually(lambda: caplog.messages)
                elif name == "pack":
                    eventually(lambda thread=thread: not thread.is_alive())
                else:
                    assert recorder._packing._look()  # type: ignore[union-attr]
        assert [m.rpartition(": ")[2] for m in caplog.messages] == [reason] * bool(reason)
        assert packed_names(run) == []
        assert all(check.complete for check in read_run(run).check())


@pytest.mark.usefixtures("quick")
def test_the_thread_ends_with_its_recorder(tmp_path: Path) -> None:
    """Also where that was closed by somebody else, or is gone; options are checked at once."""
    with Recorder(tmp_path / "a", compress="gzip") as recorder:
        thread = recorder._packing._thread  # type: ignore[union-attr]
        assert thread.is_alive()
    assert not thread.is_alive()
    late = BackgroundPacking(recorder, "gzip")
    eventually(lambda: not late._thread.is_alive())
    late.stop()
    late.join(0)
    with pytest.raises(ValueError, match="compress must be one of 'zstd', 'gzip', got 'lz4'"):
        Recorder(tmp_path / "b", compress="lz4")


def test_others_read_compressed_files_too(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    OracleWriter(tmp_path, segment_lines=4).fill(range(9))
    put_packed(tmp_path / "metrics.jsonl", "gzip")
    put_packed(tmp_path / "metrics.000001.jsonl", "zstd")
    query = "SELECT count(*), max(step) FROM read_json(?, format = 'newline_delimited')"
    assert duckdb.execute(query, [str(tmp_path / "metrics*.jsonl*")]).fetchall() == [(9, 8)]
