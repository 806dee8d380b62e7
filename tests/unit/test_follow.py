"""Following a run while it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import OracleWriter

import foundry_fastlog.reading.follow
from foundry_fastlog.reading.follow import Follower, Polled
from foundry_fastlog.run.files import Segment
from foundry_fastlog.run.segment_file import SegmentFile

Patch = pytest.MonkeyPatch


def steps(polled: Polled) -> list[int]:
    return [record["step"] for _, _, record, _ in polled.lines]


def check(polled: Polled, found: list[int], *notes: str) -> None:
    assert (steps(polled), polled.notes) == (found, list(notes))


def following(run: Path, count: int = 10) -> Follower:
    follower = Follower(run)
    follower.last(count)
    return follower


def test_the_last_lines_are_the_last_of_all_writers_together(tmp_path: Path) -> None:
    OracleWriter(tmp_path, tick_s=1).fill(range(10))
    OracleWriter(tmp_path, rank=1, tick_s=0.1).fill(range(100, 110))
    follower = Follower(tmp_path)
    assert steps(follower.last(3)) == [7, 8, 9]
    assert steps(Follower(tmp_path).last(0)) == []
    assert len(Follower(tmp_path).last(1000).lines) == 20
    assert steps(follower.poll()) == []
    # A segment that has just begun does not cut the view short.
    OracleWriter(tmp_path / "segments", segment_lines=3).fill(range(10))
    assert steps(Follower(tmp_path / "segments").last(5)) == [5, 6, 7, 8, 9]


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
    follower = Follower(path)
    assert steps(follower.last(count)) == [*range(len(sizes))][max(0, len(sizes) - count) :]
    check(follower.poll(), [])


def test_whole_new_lines_are_given_once(tmp_path: Path) -> None:
    """A line that is being written waits for its newline."""
    writer = OracleWriter(tmp_path).fill(range(3))
    follower, path = Follower(tmp_path), writer.path("metrics")
    assert steps(follower.last(10)) == [0, 1, 2]
    before = path.stat().st_size
    whole = writer.fill([3]).path("metrics").read_bytes()
    for cut in range(before, len(whole)):
        path.write_bytes(whole[:cut])
        check(follower.poll(), [])
    path.write_bytes(whole)
    assert steps(follower.poll()) == [3]
    assert steps(follower.poll()) == []


def test_new_segments_streams_and_processes_appear(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, segment_lines=2)
    follower = Follower(tmp_path)
    writer.fill(range(7))
    assert steps(follower.poll()) == list(range(7))
    OracleWriter(tmp_path, rank=1).fill([100, 101]).log("hello", step=103)
    writer.fill([7, 8])
    assert sorted(steps(follower.poll())) == [7, 8, 100, 101, 103]
    # Only the streams asked for are read.
    writer.timing("step", 0.1, step=200)
    assert steps(Follower(tmp_path, ["performance"]).last(10)) == [200]
    assert sorted(steps(Follower(tmp_path, ["log", "errors"]).poll())) == [103]


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
    follower = following(tmp_path)
    if kind == "truncated":
        writer.path("metrics").write_bytes(b"")
    else:
        writer.path("metrics").rename(tmp_path / "old")
    writer.fill(range(10, 10 + after))
    check(follower.poll(), [*range(10, 10 + after)], note)


def test_removed_files_are_noted_once_and_may_come_back(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path).fill(range(3))
    follower = following(tmp_path)
    writer.path("metrics").unlink()
    check(follower.poll(), [], "the metrics files of main were removed")
    check(follower.poll(), [])
    writer.fill([3, 4])
    assert steps(follower.poll()) == [3, 4]


def test_a_removed_segment_is_noted_and_stepped_over(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, segment_lines=2).fill(range(4))
    follower = following(tmp_path, 1)
    (tmp_path / "metrics.000001.jsonl").unlink()
    # Nothing newer yet: said once, and waited for.
    check(follower.poll(), [], "segment 1 of metrics.jsonl was removed")
    check(follower.poll(), [])
    writer.fill([4, 5])
    assert steps(follower.poll()) == [4, 5]


def test_files_that_vanish_after_a_listing_wait_for_the_next_poll(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    OracleWriter(tmp_path, segment_lines=2).fill(range(6))
    real = Follower._list

    def listed(self: Follower, result: Polled) -> list[foundry_fastlog.reading.follow.Series]:
        found = real(self, result)
        (tmp_path / "metrics.000001.jsonl").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Follower, "_list", listed)
    assert steps(Follower(tmp_path).last(10)) == [0, 1, 4, 5]
    (tmp_path / "metrics.000001.jsonl").write_bytes((tmp_path / "metrics.jsonl").read_bytes())
    follower = Follower(tmp_path)
    assert steps(follower.poll()) == [0, 1]
    check(follower.poll(), [4, 5], "segment 1 of metrics.jsonl was removed")


def test_what_cannot_be_read_is_noted_once(tmp_path: Path, monkeypatch: Patch) -> None:
    OracleWriter(tmp_path).fill(range(3))
    (tmp_path / "metrics.r2.jsonl.bz2").touch()
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
        follower = Follower(tmp_path)
        first, again = follower.last(9), follower.poll()
    assert steps(first) == [0, 1, 2]
    files = [note.rpartition("/")[2].partition(":")[0] for note in first.notes]
    assert files == ["x.ring", "metrics.r2.jsonl.bz2", "metrics.r1.jsonl"]
    assert (again.lines, again.notes, again.unread) == ([], [], 3)
    assert steps(follower.poll()) == [10, 11]


def test_damage_is_noted_and_skipped(tmp_path: Path) -> None:
    """Bytes without newline before a later segment will never become a line."""
    writer = OracleWriter(tmp_path, segment_lines=2)
    writer.torn("metrics", b"garbage\n")
    writer.fill([0, 1]).torn("metrics", b'{"torn')
    writer.fill([2])
    polled = Follower(tmp_path).poll()
    assert steps(polled) == [0, 1, 2]
    torn, garbage = polled.notes
    assert torn == "metrics.jsonl: 6 trailing bytes without a newline were skipped"
    assert garbage.startswith("metrics of main: skipped a damaged line: not JSON")


def test_a_long_backlog_is_given_in_parts(tmp_path: Path, monkeypatch: Patch) -> None:
    """One process's backlog neither fills the memory nor holds up the others."""
    monkeypatch.setattr(foundry_fastlog.reading.follow, "_BLOCK_BYTES", 256)
    monkeypatch.setattr(foundry_fastlog.reading.follow, "_POLL_BYTES", 1000)
    OracleWriter(tmp_path, segment_lines=30).fill(range(100))
    OracleWriter(tmp_path, rank=1).fill([1000, 1001])
    follower = Follower(tmp_path)
    polled = follower.poll()
    assert polled.more
    assert {1000, 1001} <= set(steps(polled))
    assert len(polled.lines) < 30
    seen = steps(polled)
    while polled.more:
        polled = follower.poll()
        seen += steps(polled)
    assert [step for step in seen if step < 1000] == list(range(100))


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(foundry_fastlog.reading.follow, "MAX_LINE_BYTES", 100_000)
    writer = OracleWriter(tmp_path).fill([0])
    writer.torn("metrics", b"x" * 300_000)
    assert steps(Follower(tmp_path).last(5)) == []
    follower = Follower(tmp_path)
    polled = follower.poll()
    assert steps(polled) == [0]
    assert "metrics.jsonl: skipping a line longer than 0 MiB" in polled.notes
    writer.torn("metrics", b"\n")
    writer.fill([1])
    assert steps(follower.poll()) == [1]
    check(Follower(tmp_path).last(5), [1])
