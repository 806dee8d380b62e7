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


def steps(polled: Polled) -> list[int]:
    """The steps of the lines that a poll found."""
    return [record["step"] for _, _, record, _ in polled.lines]


def fill(writer: OracleWriter, first: int, last: int) -> None:
    """Write metrics lines for a range of steps."""
    for step in range(first, last):
        writer.metrics(step, loss=1.0)


def test_the_last_lines_are_the_last_of_all_writers_together(tmp_path: Path) -> None:
    """The newest lines of the run are shown, whoever wrote them."""
    fill(OracleWriter(tmp_path, tick_s=1), 0, 10)
    fill(OracleWriter(tmp_path, rank=1, tick_s=0.1), 100, 110)
    follower = Follower(tmp_path)
    assert steps(follower.last(3)) == [7, 8, 9]
    assert steps(Follower(tmp_path).last(0)) == []
    assert len(Follower(tmp_path).last(1000).lines) == 20
    assert steps(follower.poll()) == []


def test_the_last_lines_reach_back_over_segments(tmp_path: Path) -> None:
    """A segment that has just begun does not cut the view short."""
    fill(OracleWriter(tmp_path, segment_lines=3), 0, 10)
    assert steps(Follower(tmp_path).last(5)) == [5, 6, 7, 8, 9]


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
    expected = list(range(len(sizes)))[max(0, len(sizes) - count) :]
    assert steps(follower.last(count)) == expected
    polled = follower.poll()
    assert polled.lines == []
    assert polled.notes == []


def test_new_lines_are_given_once(tmp_path: Path) -> None:
    """Each poll goes on where the last one ended."""
    writer = OracleWriter(tmp_path)
    fill(writer, 0, 3)
    follower = Follower(tmp_path)
    assert steps(follower.last(10)) == [0, 1, 2]
    fill(writer, 3, 5)
    assert steps(follower.poll()) == [3, 4]
    assert steps(follower.poll()) == []


def test_only_whole_lines_are_given(tmp_path: Path) -> None:
    """A line that is being written waits for its newline."""
    writer = OracleWriter(tmp_path)
    follower = Follower(tmp_path)
    follower.last(10)
    writer.metrics(0, loss=1.0)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert follower.poll().lines == []
    path.write_bytes(whole)
    assert steps(follower.poll()) == [0]


def test_new_segments_streams_and_processes_appear(tmp_path: Path) -> None:
    """Whatever the run starts to write is seen from its first line on."""
    writer = OracleWriter(tmp_path, segment_lines=2)
    follower = Follower(tmp_path)
    fill(writer, 0, 7)
    assert steps(follower.poll()) == list(range(7))
    other = OracleWriter(tmp_path, rank=1)
    fill(other, 100, 102)
    other.log("hello", step=103)
    fill(writer, 7, 9)
    assert sorted(steps(follower.poll())) == [7, 8, 100, 101, 103]


def test_only_the_streams_asked_for_are_read(tmp_path: Path) -> None:
    """Timings do not drown the rest."""
    writer = OracleWriter(tmp_path)
    writer.metrics(0, loss=1.0)
    writer.timing("step", 0.1, step=1)
    assert steps(Follower(tmp_path, ["performance"]).last(10)) == [1]
    assert steps(Follower(tmp_path, ["metrics", "log"]).poll()) == [0]


def test_a_truncated_file_is_read_from_its_start(tmp_path: Path) -> None:
    """What a log rotator did is said, and the new lines are shown."""
    writer = OracleWriter(tmp_path)
    fill(writer, 0, 5)
    follower = Follower(tmp_path)
    follower.last(10)
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    fill(writer, 5, 6)
    polled = follower.poll()
    assert steps(polled) == [5]
    assert polled.notes == ["metrics.jsonl was truncated; reading it from its start"]


def test_a_replaced_file_is_read_from_its_start(tmp_path: Path) -> None:
    """A new file under the old name is a new file."""
    writer = OracleWriter(tmp_path)
    fill(writer, 0, 2)
    follower = Follower(tmp_path)
    follower.last(10)
    path = tmp_path / "metrics.jsonl"
    path.rename(tmp_path / "old")
    fill(writer, 2, 9)
    polled = follower.poll()
    assert steps(polled) == list(range(2, 9))
    assert polled.notes == ["metrics.jsonl was replaced; reading the new file from its start"]


def test_removed_files_are_noted_once_and_may_come_back(tmp_path: Path) -> None:
    """Cleaning up under a follower does not end it."""
    writer = OracleWriter(tmp_path)
    fill(writer, 0, 3)
    follower = Follower(tmp_path)
    follower.last(10)
    (tmp_path / "metrics.jsonl").unlink()
    assert follower.poll().notes == ["the metrics files of main were removed"]
    assert follower.poll().notes == []
    fill(writer, 3, 5)
    assert steps(follower.poll()) == [3, 4]


def test_a_removed_segment_is_noted_and_stepped_over(tmp_path: Path) -> None:
    """Old segments may be moved away while the run goes on."""
    writer = OracleWriter(tmp_path, segment_lines=2)
    fill(writer, 0, 4)
    follower = Follower(tmp_path)
    follower.last(1)
    (tmp_path / "metrics.000001.jsonl").unlink()
    # Nothing newer yet: said once, and waited for.
    assert follower.poll().notes == ["segment 1 of metrics.jsonl was removed"]
    assert follower.poll().notes == []
    fill(writer, 4, 6)
    assert steps(follower.poll()) == [4, 5]


def test_files_that_vanish_between_listing_and_reading_wait_for_the_next_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A race with a clean-up is no error."""
    writer = OracleWriter(tmp_path, segment_lines=2)
    fill(writer, 0, 6)
    real = Follower._list

    def listed(self: Follower, result: Polled) -> list[foundry_fastlog.reading.follow.Series]:
        found = real(self, result)
        (tmp_path / "metrics.000001.jsonl").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Follower, "_list", listed)
    assert steps(Follower(tmp_path).last(10)) == [0, 1, 4, 5]
    writer.segment["metrics"] = 0
    (tmp_path / "metrics.000001.jsonl").write_bytes((tmp_path / "metrics.jsonl").read_bytes())
    follower = Follower(tmp_path)
    assert steps(follower.poll()) == [0, 1]
    polled = follower.poll()
    assert polled.notes == ["segment 1 of metrics.jsonl was removed"]
    assert steps(polled) == [4, 5]


def test_what_cannot_be_read_is_noted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other files go on, and what is refused is asked for again."""
    fill(OracleWriter(tmp_path), 0, 3)
    (tmp_path / "metrics.r2.jsonl.gz").touch()
    (tmp_path / ".fastlog").mkdir()
    (tmp_path / ".fastlog" / "x.ring").write_bytes(b"x")
    open_segment = foundry_fastlog.run.files.Segment.open

    def refuse(segment: Segment) -> SegmentFile:
        if segment.name.writer.rank == 1:
            raise PermissionError(13, "Permission denied")
        return open_segment(segment)

    fill(OracleWriter(tmp_path, rank=1), 10, 12)
    with monkeypatch.context() as patch:
        patch.setattr(foundry_fastlog.run.files.Segment, "open", refuse)
        follower = Follower(tmp_path)
        first, again = follower.last(9), follower.poll()
    assert steps(first) == [0, 1, 2]
    assert [note.rpartition("/")[2].partition(":")[0] for note in first.notes] == [
        "x.ring",
        "metrics.r2.jsonl.gz",
        "metrics.r1.jsonl",
    ]
    assert (again.lines, again.notes, again.unread) == ([], [], 3)
    assert steps(follower.poll()) == [10, 11]


def test_the_torn_end_of_a_finished_segment_is_noted(tmp_path: Path) -> None:
    """Bytes without newline before a later segment will never become a line."""
    writer = OracleWriter(tmp_path, segment_lines=2)
    fill(writer, 0, 2)
    writer.torn("metrics", b'{"torn')
    fill(writer, 2, 3)
    polled = Follower(tmp_path).poll()
    assert steps(polled) == [0, 1, 2]
    assert polled.notes == ["metrics.jsonl: 6 bytes without newline at its end were skipped"]


def test_damaged_lines_are_noted_and_skipped(tmp_path: Path) -> None:
    """Garbage in a file is said to be garbage."""
    writer = OracleWriter(tmp_path)
    writer.torn("metrics", b"garbage\n")
    fill(writer, 0, 1)
    polled = Follower(tmp_path).poll()
    assert steps(polled) == [0]
    (note,) = polled.notes
    assert note.startswith("metrics of main: skipped a damaged line: no JSON")


def test_a_long_backlog_is_given_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process's backlog neither fills the memory nor holds up the others."""
    monkeypatch.setattr(foundry_fastlog.reading.follow, "_BLOCK_BYTES", 256)
    monkeypatch.setattr(foundry_fastlog.reading.follow, "_POLL_BYTES", 1000)
    fill(OracleWriter(tmp_path, segment_lines=30), 0, 100)
    fill(OracleWriter(tmp_path, rank=1), 1000, 1002)
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


def test_a_line_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the limit the line is skipped, and what follows is read."""
    monkeypatch.setattr(foundry_fastlog.reading.follow, "MAX_LINE_BYTES", 100_000)
    writer = OracleWriter(tmp_path)
    fill(writer, 0, 1)
    writer.torn("metrics", b"x" * 300_000)
    follower = Follower(tmp_path)
    assert steps(follower.last(5)) == []
    follower = Follower(tmp_path)
    polled = follower.poll()
    assert steps(polled) == [0]
    assert "metrics.jsonl: skipping a line longer than 0 MiB" in polled.notes
    writer.torn("metrics", b"\n")
    fill(writer, 1, 2)
    assert steps(follower.poll()) == [1]
    last = Follower(tmp_path).last(5)
    assert steps(last) == [1]
    assert last.notes == []
