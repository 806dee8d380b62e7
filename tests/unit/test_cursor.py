"""A cursor: what is new in a run while it is written, once."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import OracleWriter
from recorded import in_child, start_python
from rings import RECOVERY_MARK, RingBuilder

from foundry_fastlog import Cursor, Recorder, read_run, recover
from foundry_fastlog.reading import overlay as overlay_module
from foundry_fastlog.reading import places
from foundry_fastlog.reading.cursor import Polled
from foundry_fastlog.reading.overlay import Overlay
from foundry_fastlog.run.files import Segment, Series
from foundry_fastlog.run.segment_file import SegmentFile

Patch = pytest.MonkeyPatch


def steps(polled: Polled) -> list[int]:
    return [record["step"] for _, _, record, _ in polled.lines]


def check(polled: Polled, found: list[int], *notes: str) -> None:
    assert (steps(polled), polled.notes) == (found, list(notes))


def following(run: Path, count: int = 10) -> Cursor:
    cursor = Cursor(run)
    cursor.last(count)
    return cursor


def test_the_last_lines_are_the_last_of_all_writers_together(tmp_path: Path) -> None:
    OracleWriter(tmp_path, tick_s=1).fill(range(10))
    OracleWriter(tmp_path, rank=1, tick_s=0.1).fill(range(100, 110))
    cursor = Cursor(tmp_path)
    assert steps(cursor.last(3)) == [7, 8, 9]
    assert steps(Cursor(tmp_path).last(0)) == []
    assert len(Cursor(tmp_path).last(1000).lines) == 20
    assert steps(cursor.poll()) == []
    # A segment that has just begun does not cut the view short.
    OracleWriter(tmp_path / "segments", segment_lines=3).fill(range(10))
    assert steps(Cursor(tmp_path / "segments").last(5)) == [5, 6, 7, 8, 9]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 200_000), max_size=8),
    st.integers(0, 10),
    st.sampled_from([b"", b'{"torn', b"x" * 70_000]),
)
def test_the_last_lines_are_found_whatever_their_length(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], count: int, torn: bytes
) -> None:
    """Reading backwards in blocks finds line ends anywhere; a torn end is left out."""
    path = tmp_path_factory.mktemp("run")
    writer = OracleWriter(path)
    for step, size in enumerate(sizes):
        writer.metrics(step, note="x" * size)
    writer.torn("metrics", torn)
    cursor = Cursor(path)
    assert steps(cursor.last(count)) == [*range(len(sizes))][max(0, len(sizes) - count) :]
    check(cursor.poll(), [])


def test_whole_new_lines_are_given_once(tmp_path: Path) -> None:
    """A line that is being written waits for its newline."""
    writer = OracleWriter(tmp_path).fill(range(3))
    cursor, path = Cursor(tmp_path), writer.path("metrics")
    assert steps(cursor.last(10)) == [0, 1, 2]
    before = path.stat().st_size
    whole = writer.fill([3]).path("metrics").read_bytes()
    for cut in range(before, len(whole)):
        path.write_bytes(whole[:cut])
        check(cursor.poll(), [])
    path.write_bytes(whole)
    assert steps(cursor.poll()) == [3]
    assert steps(cursor.poll()) == []


def test_new_segments_streams_and_processes_appear(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, segment_lines=2)
    cursor = Cursor(tmp_path)
    writer.fill(range(7))
    assert steps(cursor.poll()) == list(range(7))
    OracleWriter(tmp_path, rank=1).fill([100, 101]).log("hello", step=103)
    writer.fill([7, 8])
    assert sorted(steps(cursor.poll())) == [7, 8, 100, 101, 103]
    # Only the streams asked for are read.
    writer.timing("step", 0.1, step=200)
    assert steps(Cursor(tmp_path, ["performance"]).last(10)) == [200]
    assert sorted(steps(Cursor(tmp_path, ["log", "errors"]).poll())) == [103]


@pytest.mark.parametrize(
    ("kind", "before", "after", "note"),
    [
        ("truncated", 5, 1, "metrics.jsonl was truncated; reading it from its start"),
        ("replaced", 2, 7, "metrics.jsonl was replaced; reading the new file from its start"),
    ],
)
def test_a_file_that_begins_anew_is_read_from_its_start(
    kind: str, before: int, after: int, note: str, tmp_path: Path
) -> None:
    writer = OracleWriter(tmp_path).fill(range(before))
    cursor = following(tmp_path)
    if kind == "truncated":
        writer.path("metrics").write_bytes(b"")
    else:
        writer.path("metrics").rename(tmp_path / "old")
    writer.fill(range(10, 10 + after))
    check(cursor.poll(), [*range(10, 10 + after)], note)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("begun", [0, 5, 300, 2000])
@pytest.mark.parametrize("end", ["live", "closed"])
def test_a_run_that_was_begun_again_is_read_from_its_start(
    tmp_path: Path, end: str, begun: int, saved: bool
) -> None:
    """``rm -rf runs/x; python train.py``, while somebody follows it."""
    run = tmp_path / "run"
    found: list[int] = []

    def record(recorder: Recorder, first: int, count: int) -> None:
        for step in range(first, first + count):
            recorder.record(step, loss=1.0)
        assert recorder.flush()

    with Recorder(run, segment_bytes=8192, ring="file") as recorder:
        record(recorder, 0, 1000)
    cursor = Cursor(run, "metrics")
    assert len(cursor.poll().lines) == 1000
    cursor = again(cursor) if saved else cursor
    shutil.rmtree(run)
    recorder = Recorder(run, segment_bytes=8192, ring="file")
    record(recorder, 5000, begun)
    if end == "closed":
        recorder.close()
    polled = cursor.poll()
    assert polled.anew
    found += steps(polled)
    if end == "live":
        record(recorder, 5000 + begun, 1000)
        recorder.close()
        polled = cursor.poll()
        found += steps(polled)
    assert found == [*range(5000, 5000 + begun + 1000 * (end == "live"))]


def test_a_file_that_was_emptied_is_told_once(tmp_path: Path) -> None:
    """With nothing to read yet; what is written then follows."""
    writer = OracleWriter(tmp_path).fill(range(5))
    cursor = following(tmp_path)
    writer.path("metrics").write_bytes(b"")
    said = [cursor.poll() for _ in range(3)]
    assert [polled.anew for polled in said] == [True, False, False]
    assert [len(polled.notes) for polled in said] == [1, 0, 0]
    writer.fill([7])
    check(cursor.poll(), [7])


def test_removed_files_are_noted_once_and_may_come_back(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path).fill(range(3))
    cursor = following(tmp_path)
    writer.path("metrics").unlink()
    check(cursor.poll(), [], "the metrics files of main were removed")
    check(cursor.poll(), [])
    writer.fill([3, 4])
    assert steps(cursor.poll()) == [3, 4]


def test_a_removed_segment_is_noted_and_stepped_over(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, segment_lines=2).fill(range(4))
    cursor = following(tmp_path, 1)
    (tmp_path / "metrics.000001.jsonl").unlink()
    # Nothing newer yet: said once, and waited for.
    check(cursor.poll(), [], "segment 1 of metrics.jsonl was removed")
    check(cursor.poll(), [])
    writer.fill([4, 5])
    assert steps(cursor.poll()) == [4, 5]


def test_numbers_are_whole_and_may_be_large(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(2))
    for call in (Cursor(tmp_path).poll, Cursor(tmp_path).last):
        with pytest.raises(TypeError, match="must be an int, got float"):
            call(1.5)  # type: ignore[arg-type]
        assert len(call(2**70).lines) == 2


@pytest.mark.parametrize("limit", [0, -1])
def test_a_poll_reads_something(tmp_path: Path, limit: int) -> None:
    OracleWriter(tmp_path).fill(range(2))
    with pytest.raises(ValueError, match="limit must be 1 byte or more"):
        Cursor(tmp_path).poll(limit)


def test_files_that_vanish_once_listed_wait_for_a_poll(tmp_path: Path, monkeypatch: Patch) -> None:
    OracleWriter(tmp_path, segment_lines=2).fill(range(6))
    real = Cursor._list

    def listed(self: Cursor, result: Polled) -> list[Series]:
        found = real(self, result)
        (tmp_path / "metrics.000001.jsonl").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Cursor, "_list", listed)
    assert steps(Cursor(tmp_path).last(10)) == [0, 1, 4, 5]
    (tmp_path / "metrics.000001.jsonl").write_bytes((tmp_path / "metrics.jsonl").read_bytes())
    cursor = Cursor(tmp_path)
    assert steps(cursor.poll()) == [0, 1]
    check(cursor.poll(), [4, 5], "segment 1 of metrics.jsonl was removed")


@pytest.mark.usefixtures("looks")
def test_what_cannot_be_read_is_noted_once(tmp_path: Path, monkeypatch: Patch) -> None:
    OracleWriter(tmp_path).fill(range(3))
    (tmp_path / "metrics.r2.jsonl.xz").touch()
    (tmp_path / ".fastlog").mkdir()
    (tmp_path / ".fastlog" / "x.ring").write_bytes(b"x")
    OracleWriter(tmp_path, rank=1).fill([10, 11])
    open_segment = Segment.open

    def refuse(segment: Segment) -> SegmentFile:
        if segment.name.writer.rank == 1:
            raise PermissionError(13, "Permission denied")
        return open_segment(segment)

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "open", refuse)
        cursor = Cursor(tmp_path)
        first, again = cursor.last(9), [cursor.poll() for _ in range(3)]
    assert steps(first) == [0, 1, 2]
    files = [note.rpartition("/")[2].partition(":")[0] for note in first.notes]
    assert files == ["x.ring", "metrics.r2.jsonl.xz", "metrics.r1.jsonl"]
    assert [(one.lines, one.notes, one.unread) for one in again] == [([], [], 3)] * 3
    assert steps(cursor.poll()) == [10, 11]


def test_damage_is_noted_and_skipped(tmp_path: Path) -> None:
    """Bytes without newline before a later segment will never become a line."""
    writer = OracleWriter(tmp_path, segment_lines=2)
    writer.torn("metrics", b"garbage\n")
    writer.fill([0, 1]).torn("metrics", b'{"torn')
    writer.fill([2])
    polled = Cursor(tmp_path).poll()
    assert steps(polled) == [0, 1, 2]
    torn, garbage = polled.notes
    assert torn == "metrics.jsonl: 6 trailing bytes without a newline were skipped"
    assert garbage.startswith("metrics of main: skipped a damaged line: not JSON")


@pytest.mark.usefixtures("looks")
def test_a_long_backlog_is_given_in_parts(tmp_path: Path) -> None:
    """One process's backlog neither fills the memory nor holds up the others."""
    OracleWriter(tmp_path, segment_lines=30).fill(range(100))
    OracleWriter(tmp_path, rank=1).fill([1000, 1001])
    cursor = Cursor(tmp_path)
    polled = cursor.poll(1000)
    assert polled.more
    assert {1000, 1001} <= set(steps(polled))
    assert len(polled.lines) < 30
    seen = steps(polled)
    while polled.more:
        polled = cursor.poll(1000)
        seen += steps(polled)
    assert [step for step in seen if step < 1000] == list(range(100))


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("foundry_fastlog.reading.places.MAX_LINE_BYTES", 100_000)
    writer = OracleWriter(tmp_path).fill([0])
    writer.torn("metrics", b"x" * 300_000)
    assert steps(Cursor(tmp_path).last(5)) == []
    cursor = Cursor(tmp_path)
    polled = cursor.poll()
    assert steps(polled) == [0]
    assert "metrics.jsonl: skipping a line longer than 0 MiB" in polled.notes
    writer.torn("metrics", b"\n")
    writer.fill([1])
    assert steps(cursor.poll()) == [1]
    check(Cursor(tmp_path).last(5), [1])


def again(cursor: Cursor) -> Cursor:
    """The cursor of another process, by its position."""
    return Cursor(cursor.path, position=json.loads(json.dumps(cursor.position)))


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["fill", "log", "rewind", "poll", "part", "again"]), st.integers(0, 3)
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(CALLS)
def test_parts_are_together_what_the_run_has(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, int]]
) -> None:
    """Whatever comes between polls, and wherever another process goes on, each row comes once."""
    path = tmp_path_factory.mktemp("run")
    writers = [OracleWriter(path, segment_lines=5)]
    writers += [OracleWriter(path, rank=n % 2, attempt=n // 2, segment_lines=3) for n in (1, 2, 3)]
    cursor = Cursor(path)
    parts: list[Polled] = []
    for what, number in [*calls, ("poll", 0)]:
        match what:
            case "fill":
                writers[number].fill(range(number, number + 4), loss=float(number))
            case "log":
                writers[number].log("hello", step=number)
            case "rewind":
                writers[number].rewind(number)
            case "again":
                cursor = again(cursor)
            case _:
                parts.append(cursor.poll(*([200] if what == "part" else [])))
    while parts[-1].more:
        parts.append(cursor.poll())
    run = read_run(path)
    raws = sorted(raw for part in parts for *_, raw in part.lines)
    assert raws == sorted(
        line for file in path.glob("*.jsonl") for line in file.read_bytes().split(b"\n")[:-1]
    )
    assert [note for part in parts for note in part.notes] == []
    assert sum(len(part.rewinds) for part in parts) == 2 * sum(
        what == "rewind" for what, _ in calls
    )
    for stream in ("metrics", "log"):
        frames = [part.columns[stream] for part in parts if stream in part.columns]
        whole = [run.arrow(stream, starts="all")] if stream in run.streams else []
        assert keys(frames) == keys(whole)


def keys(frames: list[Any]) -> list[Any]:
    """What each row is, sorted."""
    rows = [row for frame in frames for row in frame.to_polars().to_dicts()]
    wanted = ("rank", "start", "seq", "step", "loss")
    return sorted(([row.get(name) for name in wanted] for row in rows), key=str)


def test_starts_rewinds_and_what_begins_anew_are_told(tmp_path: Path) -> None:
    """A page that has counted what it got must know when to count again."""
    writer = OracleWriter(tmp_path).fill(range(5))
    cursor = Cursor(tmp_path)
    first = cursor.poll()
    assert (first.starts, first.rewinds, first.anew) == ([0], [], False)
    OracleWriter(tmp_path, attempt=1).fill([3])
    writer.rewind(2)
    cursor = again(cursor)
    second = cursor.poll()
    assert (second.starts, second.anew) == ([1], False)
    assert [(s.stream, seq, step) for s, seq, step in second.rewinds] == [
        ("metrics", 5, 2),
        ("performance", 0, 2),
    ]
    assert second.columns["metrics"].to_polars()["start"].to_list() == [1]
    # An older start that comes later gives others their numbers.
    writer = OracleWriter(tmp_path / "stamps", stamp="2021-01-01_00-00-00").fill([0])
    cursor = Cursor(tmp_path / "stamps")
    cursor.poll()
    OracleWriter(tmp_path / "stamps", stamp="2020-01-01_00-00-00")
    assert cursor.poll().anew


def test_one_start_is_followed_from_any_position(tmp_path: Path) -> None:
    """It may be yet to come; what others have is neither read nor missed."""
    first = OracleWriter(tmp_path).fill(range(5))
    everything = Cursor(tmp_path)
    everything.poll()
    one = Cursor(tmp_path, position=everything.position, starts=1)
    assert one.poll().lines == []
    OracleWriter(tmp_path, attempt=1).fill([7])
    first.fill([5])
    found = one.poll()
    assert [line["step"] for _, _, line, _ in found.lines] == [7]
    assert (found.starts, found.anew, found.notes) == ([1], False, [])
    assert [line["step"] for _, _, line, _ in Cursor(tmp_path, starts=0).last(2).lines] == [4, 5]
    with pytest.raises(ValueError, match="'all' or the number of a start, got 'latest'"):
        Cursor(tmp_path, starts="latest")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="starts must be an int, got float"):
        Cursor(tmp_path, starts=1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cut", "changed"])
def test_a_file_that_was_cut_gives_known_lines_once(kind: str, tmp_path: Path) -> None:
    """It begins as before, so lines of numbers that were given are known."""
    writer = OracleWriter(tmp_path).fill(range(6))
    cursor, path = following(tmp_path), writer.path("metrics")
    lines = path.read_bytes().splitlines(keepends=True)
    new = OracleWriter(tmp_path / "other")
    new.seq["metrics"] = 6
    added = new.fill(range(6, 16)).path("metrics").read_bytes()
    with path.open("r+b") as file:
        file.truncate(len(lines[0]) + len(lines[1]))
        file.seek(0, 2)
        file.write(b"rubbish\n" + (added if kind == "changed" else lines[5]))
    cursor = again(cursor)
    polled = cursor.poll()
    said = "truncated; reading it" if kind == "cut" else "changed; reading it"
    found = [*range(6, 16)] if kind == "changed" else []
    check(polled, found, f"metrics.jsonl was {said} from its start")
    assert polled.anew
    assert not cursor.poll().anew


@pytest.mark.parametrize(
    "wrong", [{}, {"format": 2}, {"format": 1, "places": [{}]}, {"format": 1, "places": [3]}, []]
)
def test_a_position_that_is_none_is_refused(wrong: Any, tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill([0])
    with pytest.raises(ValueError, match="position must be what"):
        Cursor(tmp_path, position=wrong)
    good = following(tmp_path).position
    good["places"][0]["offset"] = "1"
    with pytest.raises(ValueError, match="not a number"):
        Cursor(tmp_path, position=good)
    with pytest.raises(ValueError, match="unknown stream"):
        Cursor(tmp_path, ["metric"])


@pytest.mark.parametrize(
    ("line", "seq"),
    [
        (b'{"timestamp":"t","seq":7,"x":1}', 7),
        (b'{ "timestamp": "t", "seq": 8, "x": 1}', 8),
        (b'{"seq":9,"timestamp":"t"}', 9),
        (b'{"seq":"9"}', None),
        (b"[9]", None),
        (b"torn", None),
    ],
)
def test_the_number_of_a_line_is_found_however_it_is_written(line: bytes, seq: int | None) -> None:
    assert places.seq_of(line) == seq


class Looks:
    """How often a run was listed."""

    def __init__(self, patch: Patch) -> None:
        self.count = 0
        self.seen: list[int] = []
        listed = Overlay.list_series

        def counted(overlay: Overlay) -> list[Series]:
            self.count += 1
            return listed(overlay)

        patch.setattr(Overlay, "list_series", counted)

    def of(self, cursor: Cursor, *found: list[int]) -> int:
        """How often it is listed until a poll needs no listing; what was new is one of these."""
        before, self.seen = self.count, []
        while True:
            known = self.count
            self.seen += steps(cursor.poll())
            if self.count == known:
                break
        assert self.seen in found
        return self.count - before


@pytest.fixture
def looks(monkeypatch: Patch) -> Looks:
    monkeypatch.setattr("foundry_fastlog.reading.watch.TICK_S", 0.0)
    return Looks(monkeypatch)


def test_an_unchanged_run_is_not_listed_and_a_change_is_seen(tmp_path: Path, looks: Looks) -> None:
    """Also one that leaves the time of a file as it was."""
    writer = OracleWriter(tmp_path).fill(range(3))
    path = writer.path("metrics")
    cursor = Cursor(tmp_path, ["metrics"])
    assert looks.of(cursor, [0, 1, 2]) > 0
    assert looks.of(cursor, []) == 0
    writer.log("another stream")
    assert looks.of(cursor, []) > 0  # the directory
    writer.log("another stream")
    assert looks.of(cursor, []) == 0
    before = path.stat()
    writer.fill([3])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert looks.of(cursor, [3]) > 0
    path.replace(tmp_path / "aside")
    assert looks.of(cursor, []) > 0
    (tmp_path / "aside").replace(path)
    assert looks.of(cursor, [0, 1, 2, 3]) > 0


def test_a_file_made_in_the_tick_of_the_last_look_is_seen(tmp_path: Path) -> None:
    """File systems with coarse times do not show it in the directory's."""
    OracleWriter(tmp_path).fill([0])
    cursor = Cursor(tmp_path)
    for _ in range(3):
        cursor.poll()
    before = tmp_path.stat()
    OracleWriter(tmp_path, rank=1).fill([1])
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert steps(cursor.poll()) == [1]


@pytest.mark.parametrize("ring", ["file", "shm"])
def test_a_writers_commits_and_death_are_seen(ring: Any, tmp_path: Path, looks: Looks) -> None:
    """Both change its ring alone: what it notes, and the lock."""
    code = """
import sys
from foundry_fastlog import Recorder
recorder = Recorder(sys.argv[1], ring=sys.argv[2], flush_interval_s=3600)
for step in range(3):
    recorder.record(step, loss=1.0)
    if step < 2:
        recorder.flush()
    print(step, flush=True)
    sys.stdin.readline()
"""
    with start_python(code, tmp_path / "run", ring, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        cursor = Cursor(tmp_path / "run")
        looks.of(cursor, [0])
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        looks.of(cursor, [1])
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        looks.of(cursor, [], [2])  # a pass of the flush thread that was under way may take it
        rest = [2][len(looks.seen) :]
        process.kill()
        process.wait()
        looks.of(cursor, rest)
        looks.of(again(cursor), [])
    recover(tmp_path / "run")
    looks.of(cursor, [])
    looks.of(again(cursor), [])


@pytest.mark.parametrize("said", [True, False])
def test_lines_out_of_a_ring_come_once_though_a_recovery_stands_still(
    tmp_path: Path, monkeypatch: Patch, said: bool
) -> None:
    """Whoever holds a dead writer's lock recovers it, and may not have said so yet."""
    run = tmp_path / "run"

    def record() -> None:
        recorder = Recorder(run, flush_interval_s=5)
        for step in range(100):
            recorder.record(step, loss=1.0)
            recorder.system({"a": step})
        os._exit(0)  # as a kill: it is not closed

    in_child(record)
    OracleWriter(run, rank=1).fill(range(3))
    cursor = Cursor(run)
    assert len(cursor.poll().lines) == 203
    (ring,) = (run / ".fastlog").glob("*.ring")
    monkeypatch.setattr(overlay_module, "_LOOKS", 2)
    with ring.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if said:
            file.seek(RECOVERY_MARK)
            file.write(b"\1")
            file.flush()
        OracleWriter(run, rank=1, attempt=1).fill(range(2))
        polled = cursor.poll()
        assert (len(polled.lines), polled.anew, polled.unread) == (2, False, 1)
        check(cursor.poll(), [])
        opened = read_run(run)
        assert not any(one.complete for one in opened.check() if one.series.writer.rank == 0)
        assert "it is being recovered" in opened.problems[0].message
    recover(run)
    check(cursor.poll(), [])
    assert len(Cursor(run).poll().lines) == 205
    assert all(one.complete for one in read_run(run).check())


def test_a_ring_that_is_being_recovered_is_looked_at_again(tmp_path: Path, looks: Looks) -> None:
    """Only a listing tells when that is done."""
    OracleWriter(tmp_path)
    ring = RingBuilder().lines(1).put(tmp_path)
    cursor = Cursor(tmp_path)
    assert looks.of(cursor, []) > 0
    (known,) = cursor._overlay._known.values()
    cursor._overlay._known[ring.name] = known._replace(
        report=dataclasses.replace(known.report, reason=overlay_module._AT_WORK)
    )
    before = looks.count
    cursor.poll()
    assert looks.count > before
