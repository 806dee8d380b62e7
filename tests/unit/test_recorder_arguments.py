"""Opening a recorder: arguments, ranks, directories, and open_run()."""

from __future__ import annotations

import math
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import in_threads, lines, steps

from foundry_fastlog import Recorder, open_run
from foundry_fastlog.base.arguments import check_directory

WRONG: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (ValueError, "rank must be at most 2147483647, got 2147483648", {"rank": 1 << 31}),
    (ValueError, "world_size must be at most.*of 100000 bits", {"world_size": 1 << 99999}),
    (ValueError, "segment_bytes.*an int of 100000 bits", {"segment_bytes": 1 << 99999}),
    (ValueError, "rank must be below world_size", {"rank": 2, "world_size": 2}),
    (ValueError, "back_pressure.*'block', 'drop'", {"back_pressure": "wait"}),
    (ValueError, "ring.*'file', 'shm', 'memory'", {"ring": "disk"}),
    (ValueError, "fsync.*'none', 'interval', 'every_flush'", {"fsync": True}),
    (TypeError, "rank must be an int, got int64", {"rank": np.int64(1)}),
    (TypeError, "ring_byte", {"ring_byte": 1 << 20}),
    *((TypeError, "rank", {"rank": wrong}) for wrong in (1.0, True, "1")),
    *((TypeError, "ring_bytes", {"ring_bytes": wrong}) for wrong in (1e6, True)),
    *((TypeError, "config", {"config": wrong}) for wrong in (5, [1])),
    *((TypeError, name, {name: "2"}) for name in ("world_size", "flush_interval_s")),
    *((TypeError, "segment_bytes", {"segment_bytes": None}), (TypeError, "name", {"name": 5})),
    # For the limits of the others see test_config.py.
    *((ValueError, "block_timeout_s", {"block_timeout_s": n}) for n in (math.nan, math.inf)),
    *((ValueError, name, {name: 0}) for name in ("world_size", "fsync_interval_s")),
    *((ValueError, "rank", {"rank": -1}), (ValueError, "back_pressure", {"back_pressure": None})),
]


@pytest.mark.parametrize(("error", "message", "arguments"), WRONG)
def test_bad_arguments(
    tmp_path: Path, error: type[Exception], message: str, arguments: dict[str, Any]
) -> None:
    """An error at once, which leaves no file."""
    with pytest.raises(error, match=message):
        Recorder(tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()
    with pytest.raises(TypeError):  # all but the path go by name
        Recorder(tmp_path, *arguments.values())


def test_path_may_be_text_or_path_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A str, a Path, a relative one: `path` is absolute, and parents are made."""
    monkeypatch.chdir(tmp_path)
    with Recorder("a/b/../c") as recorder:
        monkeypatch.chdir("/")
        assert recorder.path == tmp_path / "a" / "c"
        recorder.record(0, x=1.0)
    assert steps(tmp_path / "a" / "c") == [0]
    with Recorder(tmp_path / "d") as recorder:
        assert recorder.path == tmp_path / "d"


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("a\0b", ValueError, "NUL"),
        (b"bytes", TypeError, "path must be a str or a Path"),
        (5, TypeError, "not int"),
        (None, TypeError, "NoneType"),
    ],
)
def test_bad_paths(path: Any, error: type[Exception], message: str) -> None:
    for opening in (Recorder, open_run):
        with pytest.raises(error, match=message):
            opening(path)


def test_path_that_is_not_utf8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    with Recorder(path) as recorder:
        recorder.record(0, x=1.0)
        assert recorder.flush()
        (file,) = recorder.files()
        assert os.fsencode(file).endswith(b"/\xff\xfe/metrics.jsonl")
    assert len(lines(Path(path))) == 1
    assert (Path(path) / "run.json").exists()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_file_in_the_way(tmp_path: Path, depth: int) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(NotADirectoryError, match=rf"{tmp_path}/file is a file"):
        Recorder(tmp_path.joinpath("file", *"abc"[:depth]))


@pytest.mark.parametrize(
    ("rank", "label", "file"),
    [(None, "", "metrics.jsonl"), (0, "", "metrics.jsonl"), (3, "r3", "metrics.r3.jsonl")],
)
def test_ranks(tmp_path: Path, rank: int | None, label: str, file: str) -> None:
    """Rank 0 and no rank write the main files, others have their rank in the name."""
    with Recorder(tmp_path, rank=rank, world_size=8) as recorder:
        assert (recorder.rank, recorder.world_size) == (rank, 8)
        assert (recorder.label, recorder.attempt) == (label, 0)
        assert [path.name for path in recorder.files()] == [file]
    assert (tmp_path / "run.json").exists() == (not rank)


def test_rank_from_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with Recorder(tmp_path) as recorder:
        assert (recorder.rank, recorder.world_size, recorder.label) == (2, 4, "r2")
    with Recorder(tmp_path, rank=0, world_size=1) as recorder:
        assert (recorder.rank, recorder.world_size, recorder.label) == (0, 1, "")
    with pytest.raises(ValueError, match="got 4 of 4"):
        Recorder(tmp_path, rank=4)
    monkeypatch.setenv("RANK", " ")
    monkeypatch.delenv("WORLD_SIZE")
    with Recorder(tmp_path / "unset") as recorder:
        assert (recorder.rank, recorder.world_size) == (None, None)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("RANK", "first", "RANK must be a whole number, got 'first'"),
        ("RANK", "-1", "RANK must be at least 0"),
        ("RANK", "9" * 30, "RANK must be at most 2147483647, got 9"),
        ("RANK", "-" + "9" * 400, "RANK must be at least 0, got an int of 1329 bits"),
        ("RANK", "9" * 9999, "RANK must be a whole number, got '9{100}'$"),
        ("RANK", "\u0663", "RANK must be a whole number, got '\u0663'"),
        ("RANK", "1_0", "RANK must be a whole number, got '1_0'"),
        ("WORLD_SIZE", "2147483648", "WORLD_SIZE must be at most 2147483647"),
        ("WORLD_SIZE", "0", "WORLD_SIZE must be at least 1"),
        ("WORLD_SIZE", "1.5", "WORLD_SIZE must be a whole number"),
    ],
)
def test_bad_launcher_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, message: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValueError, match=message):
        Recorder(tmp_path)


def test_second_recorder_of_a_run(tmp_path: Path) -> None:
    """A process has one recorder per run and rank; after close() the next is a new start."""
    with Recorder(tmp_path / "run"):
        with pytest.raises(ValueError, match="open_run"):
            Recorder(tmp_path / "elsewhere" / ".." / "run")
        with pytest.raises(ValueError, match="open_run"):
            Recorder(tmp_path / "run", rank=0)
        with Recorder(tmp_path / "run", rank=1) as other, Recorder(tmp_path / "other") as third:
            assert (other.label, third.label) == ("r1", "")
    for rank, attempt, label in ((0, 1, "a1"), (None, 2, "a2"), (1, 3, "r1-a3")):
        with Recorder(tmp_path / "run", rank=rank) as again:
            assert (again.attempt, again.label) == (attempt, label)


def test_a_directory_has_one_recorder_whatever_leads_to_it(tmp_path: Path) -> None:
    """By a link to it or above it, whether it was there or is made, and after a rename."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with Recorder(tmp_path / "real" / "run") as first:
        for other in ("link/run", "real/moved", "link/moved"):
            path = tmp_path / other
            if path.name == "moved" and not path.exists():
                first.path.rename(path)
            with pytest.raises(ValueError, match=r"\(as .*/real/run\): use open_run"):
                Recorder(path)
            assert open_run(path) is first
        with Recorder(tmp_path / "link" / "moved", rank=1) as another:
            assert another.rank == 1
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(".")
        with Recorder(tmp_path / "link" / "run2") as another:
            assert another.label == ""


def test_a_directory_that_is_removed_or_made_anew_is_its_recorders(tmp_path: Path) -> None:
    """It goes on there, as soon as it notices."""
    run, link = tmp_path / "run", tmp_path / "link"
    link.symlink_to(run)
    run.mkdir()
    with Recorder(link, ring="memory") as first:
        shutil.rmtree(run)
        assert open_run(run) is first
        run.mkdir()
        assert open_run(run) is first
        assert first.record(0, x=1.0)
        assert first.flush()
        run.rename(tmp_path / "moved")
        assert open_run(tmp_path / "moved") is first


def test_a_directory_that_cannot_be_made_yet_has_one_recorder(tmp_path: Path) -> None:
    """It is known by its path then."""
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path)
    first = Recorder(tmp_path / "dangling" / "run")
    assert open_run(tmp_path / "link" / "dangling" / "run") is first
    first.close(0)


def test_open_run_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives the open recorder of the run and rank, whoever opened it, or opens one."""
    with open_run(tmp_path / "run", config={"a": 1}) as first:
        assert open_run(str(tmp_path / "run"), config={"ignored": 2}) is first
        assert open_run(tmp_path / "run" / ".", rank=0) is first
        with open_run(tmp_path / "run", rank=1) as other:
            assert other is not first
    with open_run(tmp_path / "run") as second:
        assert second is not first
        assert second.attempt == 1
    with Recorder(tmp_path / "run") as third:
        assert open_run(tmp_path / "run") is third
    monkeypatch.setenv("RANK", "5")
    with open_run(tmp_path / "run") as of_rank:
        assert of_rank.label == "r5-a3"
        assert open_run(tmp_path / "run") is of_rank


def test_open_run_from_many_threads(tmp_path: Path) -> None:
    barrier = threading.Barrier(6)
    for attempt in range(10):
        found: list[Recorder] = []

        def ask(_: int, run: Path = tmp_path / str(attempt), found: list[Any] = found) -> None:
            barrier.wait()
            found.append(open_run(run))

        in_threads(ask, 6)
        assert len(found) == 6
        assert len(set(map(id, found))) == 1
        found[0].close()


def test_a_directory_that_is_removed_meanwhile_is_no_file(tmp_path: Path) -> None:
    """Others make and remove it while it is looked at."""
    place = tmp_path / "run"
    end = threading.Event()

    def flap() -> None:
        while not end.is_set():
            place.mkdir()
            place.rmdir()

    other = threading.Thread(target=flap)
    other.start()
    try:
        for _ in range(5000):
            check_directory(str(place / "below"))
    finally:
        end.set()
        other.join()
    place.touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        check_directory(str(place / "below"))
