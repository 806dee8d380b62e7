"""File names of a run, and finding runs and their files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import OracleWriter, write_run_json

from foundry_fastlog.run.files import (
    STREAMS,
    RunNotFoundError,
    StreamName,
    Writer,
    find_runs,
    format_name,
    group_series,
    looks_like_stream_file,
    open_run_dir,
    parse_name,
)
from foundry_fastlog.run.listing import list_files, list_segments

STAMP = "2025-09-30_14-30-00"
Patch = pytest.MonkeyPatch
children = st.lists(st.tuples(st.integers(1, 4_194_304), st.integers(0, 20)), max_size=3).map(
    lambda found: tuple(f"w{pid}" + (f"x{again}" if again else "") for pid, again in found)
)
stamps = st.sampled_from(["", STAMP, "1999-12-31_23-59-59"])
peers = st.sampled_from([0, 0, 1, 12])
writers = st.builds(Writer, st.integers(0, 5000), stamps, st.integers(0, 200), peers, children)
names = st.builds(StreamName, st.sampled_from(STREAMS), writers, st.integers(0, 3_000_000))


@given(names)
def test_a_name_reads_back_as_what_was_spelled(name: StreamName) -> None:
    """And a label and a stamp are all there is to a writer."""
    assert parse_name(format_name(name)) == name
    assert Writer.from_label(name.writer.label, name.writer.stamp) == name.writer


@given(st.text(alphabet="metricslog.-_0123456789rapwx", max_size=40))
def test_a_file_has_one_spelling(text: str) -> None:
    """Whatever is parsed is spelled the same way, so no two names mean one file."""
    parsed = parse_name(f"{text}.jsonl")
    assert parsed is None or format_name(parsed) == f"{text}.jsonl"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("metrics.jsonl", StreamName("metrics")),
        ("metrics.000001.jsonl", StreamName("metrics", segment=1)),
        ("metrics.1000000.jsonl", StreamName("metrics", segment=1_000_000)),
        ("errors.r3.jsonl", StreamName("errors", Writer(rank=3))),
        ("metrics.r3-a1.000002.jsonl", StreamName("metrics", Writer(rank=3, attempt=1), 2)),
        ("performance.a1-w1.jsonl", StreamName("performance", Writer(attempt=1, children=("w1",)))),
        ("system.p2.jsonl", StreamName("system", Writer(peer=2))),
        ("errors.r1-a2-p3-w4.jsonl", StreamName("errors", Writer(1, "", 2, 3, ("w4",)))),
        ("log.w1-w2x1.jsonl", StreamName("log", Writer(children=("w1", "w2x1")))),
        (f"metrics_{STAMP}.r1.jsonl", StreamName("metrics", Writer(rank=1, stamp=STAMP))),
    ],
)
def test_the_documented_names_are_parsed(name: str, expected: StreamName) -> None:
    """The examples of docs/format.md mean what it says."""
    assert parse_name(name) == expected
    assert format_name(expected) == name


@pytest.mark.parametrize(
    "name",
    [
        *(f"metrics.{middle}.jsonl" for middle in ("000000", "0000001", "00001", "", "export")),
        *(f"metrics.{label}.jsonl" for label in ("r0", "r03", "a0", "a1-r1", "r1a1", "w1w2")),
        *(f"metrics.{label}.jsonl" for label in ("w1x0", "-a1", "r1-", "p0", "p1-a1")),
        *("metrics_yesterday.jsonl", "metrics.jsonl.gz", "metrics.jsonl\n", "Metrics.jsonl"),
        *("loss.jsonl", "run.json", ""),
    ],
)
def test_other_names_are_no_stream_files(name: str) -> None:
    assert parse_name(name) is None


@pytest.mark.parametrize(
    ("message", "spell"),
    [
        ("'a1-r3' is not a writer label", lambda: Writer.from_label("a1-r3")),
        ("unknown stream 'metric'", lambda: format_name(StreamName("metric"))),
        ("segment must be >= 0", lambda: format_name(StreamName("metrics", segment=-1))),
    ],
)
def test_what_cannot_be_spelled_is_named(message: str, spell: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        spell()


def test_writers_sort_by_rank_then_start_then_parents_first() -> None:
    """And the main process has a name for people, too."""
    ordered = [Writer(), Writer(children=("w7",)), Writer(peer=1), Writer(attempt=1)]
    ordered += [Writer(attempt=10), Writer(rank=2, stamp=STAMP), Writer(rank=10)]
    assert sorted(ordered[3:] + ordered[:3]) == ordered
    shown = ["main", "w7", "p1", "a1", "a10", f"r2 {STAMP}", "r10"]
    assert [writer.display for writer in ordered] == shown


@pytest.mark.parametrize("name", ["metrics.jsonl", "log_x.jsonl", "errors.all.jsonl", "LOG.jsonl"])
def test_names_that_could_pass_for_the_runs_own_are_known(name: str) -> None:
    """An export must not be taken for a part of the run, by anyone."""
    assert looks_like_stream_file(name)
    assert not looks_like_stream_file(f"my-{name}")


def test_segments_are_listed_in_order_without_strangers(tmp_path: Path) -> None:
    """Directories, pipes and other files are no segments; the rest is sorted by number."""
    OracleWriter(tmp_path, segment_lines=1).fill(range(12)).log("hello")
    (tmp_path / "errors.jsonl").mkdir()
    os.mkfifo(tmp_path / "performance.jsonl")
    (tmp_path / "errors.r1.jsonl").symlink_to("nowhere")
    (tmp_path / "errors.r2.jsonl").symlink_to("errors.r2.jsonl")
    (tmp_path / "metrics.bak.jsonl").touch()
    (tmp_path / ".fastlog").mkdir()
    (tmp_path / ".fastlog" / "metrics.jsonl").touch()
    listed = [segment.path.name for segment in list_segments(tmp_path)]
    numbered = [f"metrics.{number:06d}.jsonl" for number in range(1, 12)]
    assert listed == ["metrics.jsonl", *numbered, "log.jsonl"]
    assert list_files(tmp_path)[1] == [
        ("errors.jsonl", "it is not a regular file"),
        ("errors.r1.jsonl", "No such file or directory"),
        ("errors.r2.jsonl", "Too many levels of symbolic links"),
        ("performance.jsonl", "it is not a regular file"),
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("metrics.000001.jsonl.bz2", "decompress it"),
        ("metrics.r1.jsonl.xz", "decompress it"),
        ("log.jsonl.3.gz", "decompress it"),
        ("log.jsonl.1", "it was renamed"),
        ("log.jsonl-20260130", "it was renamed"),
        ("log.jsonl.gz", ""),  # log.jsonl is there: its copy
        ("log.jsonl.bz2", ""),
        ("log.jsonl.bak", ""),
        ("notes.jsonl.gz", ""),
    ],
)
def test_files_that_were_laid_aside_are_named(name: str, reason: str, tmp_path: Path) -> None:
    """What log rotation compressed or renamed has lines of the run, and no reader shows them."""
    (tmp_path / "log.jsonl").touch()
    (tmp_path / name).touch()
    unread = list_files(tmp_path)[1]
    assert [one.name for one in unread] == ([name] if reason else [])
    assert all(reason in one.reason for one in unread)


def test_a_file_that_vanishes_while_listing_is_left_out(tmp_path: Path, monkeypatch: Patch) -> None:
    OracleWriter(tmp_path).metrics(0, loss=1.0)
    gone = Mock(is_symlink=lambda: False, stat=Mock(side_effect=FileNotFoundError))
    gone.name = "metrics.r1.jsonl"
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: contextlib.nullcontext([gone, *real(path)]))
    assert [segment.path.name for segment in list_segments(tmp_path)] == ["metrics.jsonl"]


def test_a_series_knows_its_size_and_the_segments_it_lacks(tmp_path: Path) -> None:
    """Missing segments are named, neighbours as a range, however far the numbers go."""
    OracleWriter(tmp_path, segment_lines=1).fill(range(9))
    for number in (2, 5, 6):
        (tmp_path / f"metrics.{number:06d}.jsonl").unlink()
    (tmp_path / "metrics.999999999999.jsonl").touch()
    (series,) = group_series(list_segments(tmp_path))
    assert series.missing_segments() == [
        "metrics.000002.jsonl",
        "metrics.000005.jsonl ... metrics.000006.jsonl",
        "metrics.000009.jsonl ... metrics.999999999998.jsonl",
    ]
    assert series.size == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("exp", r"exp does not exist\. Runs in .*\n.*exp0$"),  # misspelled: what is beside it
        ("no/where", "Check the spelling; a run is the directory"),
        ("exp0/metrics.jsonl", r"is a file.*Use its directory: .*exp0$"),
        ("exp0/notes.txt", r"is a file.*Use its directory: .*exp0$"),
        ("notes.txt", r"is a file.*passed to Recorder\(path\)"),
        (".", r"contains one run .*\n.*exp0$"),
        ("empty", "'foundry-fastlog demo' creates one to try"),
    ],
)
def test_what_is_no_run_is_answered_with_advice(tmp_path: Path, path: str, message: str) -> None:
    OracleWriter(tmp_path / "exp0")
    (tmp_path / "exp0" / "notes.txt").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunNotFoundError, match=message):
        open_run_dir(tmp_path / path)


def test_a_parent_of_runs_lists_them_newest_first(tmp_path: Path) -> None:
    """The most likely run is on top, the list is short, and the rest is counted."""
    for number in range(12):
        OracleWriter(tmp_path / "runs" / f"exp{number:02d}")
        os.utime(tmp_path / "runs" / f"exp{number:02d}", (number, number))
    with pytest.raises(RunNotFoundError) as raised:
        open_run_dir(tmp_path)
    message = str(raised.value)
    assert "is not a run, but contains 12 runs" in message
    listed = re.findall(r"exp\d\d", message)
    assert listed == [f"exp{number:02d}" for number in range(11, 1, -1)]
    assert "... and 2 more" in message
    write_run_json(tmp_path / "alone")  # which makes a run as well
    for run in (tmp_path / "alone", tmp_path / "runs" / "exp00"):
        assert open_run_dir(run) == open_run_dir(str(run)) == run


def test_an_unreadable_directory_says_so(tmp_path: Path, monkeypatch: Patch) -> None:
    """Without permission the answer is not 'no run'."""
    # Root may read anything, so the refusal has to be staged.
    monkeypatch.setattr(os, "scandir", Mock(side_effect=PermissionError(13, "Permission denied")))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RunNotFoundError, match="permission denied"):
        open_run_dir(tmp_path)
    assert find_runs(tmp_path) == []


def test_finding_runs_is_bounded_and_skips_hidden_directories(tmp_path: Path) -> None:
    """A home directory full of files is not searched to its end."""
    for number in range(5):
        OracleWriter(tmp_path / f"exp{number}")
    OracleWriter(tmp_path / ".hidden" / "exp")
    OracleWriter(tmp_path / "a" / "b" / "c" / "too-deep")
    assert len(find_runs(tmp_path, limit=3)) == 3
    assert {path.name for path in find_runs(tmp_path)} == {f"exp{n}" for n in range(5)}


def test_a_run_that_vanishes_while_searching_sorts_last(tmp_path: Path, monkeypatch: Patch) -> None:
    for name in ("gone", "here"):
        OracleWriter(tmp_path / name)
    real = Path.stat

    def stat(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if self.name == "gone":
            shutil.rmtree(self, ignore_errors=True)
        return real(self, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", stat)
    assert [path.name for path in find_runs(tmp_path)] == ["here", "gone"]
