"""Many runs at once where something is wrong: workers, directories, disks, names, expressions."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleets import make_run, make_timed, parquet_files, workers_here

from foundry_fastlog import Fleet, FleetError, read_run, read_runs
from foundry_fastlog.analysis.goodput import measure_goodput
from foundry_fastlog.fleet import compaction, crew, dataset
from foundry_fastlog.fleet.crew import Pace

pytest.importorskip("distributed")
pq = pytest.importorskip("pyarrow.parquet")

Command = Callable[..., Any]
Patch = pytest.MonkeyPatch
pytestmark = pytest.mark.usefixtures("cache_home")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four runs that ended."""
    root = tmp_path / "tree"
    for number in range(4):
        make_run(root / f"a{number}", config={"lr": number % 2}, loss=[3.0, 1.0 + number])
    return root


def _one(pace: Pace, waiting: deque[Any], threads: int) -> list[Any]:
    return [waiting.popleft()]


_BLAMED: list[str] = []


class KilledWorker(Exception):  # noqa: N818 - as the scheduler's
    """What the scheduler says instead of a result; its own has a worker in it."""


def _kill(work: Any, batch: list[Any]) -> Any:
    (found,) = batch
    if found.name == "a1" or (found.name == "a2" and "a2" not in _BLAMED):
        _BLAMED.append(found.name)
        raise KilledWorker
    return [work(found)], 0.1


def test_a_run_that_kills_workers_costs_no_run_beside_it(
    tree: Path, client: Any, monkeypatch: Patch
) -> None:
    """Dask blames all that a worker had to do: who is blamed is tried once more, alone."""
    monkeypatch.setattr(Pace, "cut", _one)
    monkeypatch.setattr(crew, "_do", _kill)
    seen: list[tuple[int, int]] = []
    fleet = Fleet(tree, client, progress=lambda done, total: seen.append((done, total)))
    states = {run.run: run.state for run in fleet.runs()}
    assert states == {"a0": "ended", "a1": "unreadable", "a2": "ended", "a3": "ended"}
    assert sorted(_BLAMED) == ["a1", "a1", "a2"]
    assert seen[-1] == (4, 4)


def test_a_cluster_whose_workers_are_gone_is_told(monkeypatch: Patch) -> None:
    """Instead of waiting for ever; while there are workers, it waits as long as they take."""
    ready: Any = queue.SimpleQueue()
    monkeypatch.setattr(crew, "_PATIENCE_S", 0.1)
    with workers_here(1) as client:
        timer = threading.Timer(0.3, ready.put, ["done"])
        timer.start()
        assert crew._first(ready, client) == "done"
        timer.join()
        client.retire_workers()
        with pytest.raises(FleetError, match="no workers after"):
            crew._first(ready, client)


def test_workers_that_join_later_get_work(client: Any, monkeypatch: Patch) -> None:
    """They are counted again as time goes by."""
    counts = iter(({"a": 1}, {"a": 1, "b": 4}, {}))
    monkeypatch.setattr(client, "nthreads", lambda: next(counts))
    threads = crew._Threads(client)
    assert (threads.count(), threads.count()) == (1, 1)
    monkeypatch.setattr(crew, "_TARGET_S", -1.0)
    threads = crew._Threads(client)
    assert (threads.count(), threads.count()) == (5, 1)


def test_what_was_read_until_an_interruption_is_not_read_again(
    tree: Path, client: Any, monkeypatch: Patch
) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pace, "cut", _one)
    with pytest.raises(KeyboardInterrupt):
        Fleet(tree, client, progress=stop).look()
    assert Fleet(tree, client).look().read == 3
    with pytest.raises(KeyboardInterrupt):
        Fleet(tree, client, progress=stop).goodput()
    read: list[int] = []
    Fleet(tree, client, progress=lambda done, total: read.append(total)).goodput()
    assert read[-1] == 3


def test_equal_settings_are_one_group(tmp_path: Path, client: Any, command: Command) -> None:
    """1 and 1.0, as in `where`; true is none of them, and texts show which group is which."""
    root = tmp_path / "runs"
    long = "common_crawl_filtered_2024_"
    for number, lr in enumerate([1, 1.0, True, "1", [1], 1e-7, 1.00001e-7, long]):
        make_run(root / f"r{number}", config={"lr": lr, "o": {"a": [1], "b": 2}})
    make_run(root / "last", config={"lr": long + "v2", "o": {"b": 2.0, "a": [1.0]}})
    fleet = Fleet(root, client)
    groups = fleet.totals("config.lr")
    assert [(group.key, group.runs) for group in groups if group.runs > 1] == [(1, 2)]
    assert len(groups) == 8
    assert [group.runs for group in fleet.totals("config.o")] == [9]
    said = command("fleet", root, "--by", "config.lr").out
    assert "1e-07 " in said
    assert "1.00001e-07 " in said
    assert "true " in said
    assert f"{long}v2 " in said


def test_directories_that_cannot_be_searched_are_told(
    tree: Path, tmp_path: Path, client: Any, command: Command, monkeypatch: Patch
) -> None:
    """Runs may be in them; one that was removed meanwhile has none."""
    scan = os.scandir

    def locked(path: Any) -> Any:
        if str(path).endswith("a1"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        if str(path).endswith("a2"):
            raise FileNotFoundError(2, "No such file", os.fspath(path))
        return scan(path)

    monkeypatch.setattr("foundry_fastlog.run.tree.os.scandir", locked)
    told = {"a1": "cannot be searched: Permission denied"}
    fleet = Fleet(tree, client)
    assert fleet.unsearched == told
    assert [run.run for run in fleet.runs()] == ["a0", "a3"]
    assert read_runs(tree).notes == ("a1 cannot be searched: Permission denied",)
    done = fleet.compact(tmp_path / "out")
    assert (done.written, done.failed, done.complete) == (2, told, False)
    done = Fleet(tree, client, where="config.lr == 1").compact(tmp_path / "out")
    assert (done.unchanged, done.failed) == (1, told)
    assert json.loads(command("fleet", tree, "--json", code=1).out)["unreadable"] == told
    assert "a1: cannot be searched" in command("fleet", tree, code=1).out
    shutil.rmtree(tree / "a0")
    shutil.rmtree(tree / "a3")
    assert "no run" in command("fleet", tree, code=1).out


def test_names_that_no_run_has_are_noted(
    tree: Path, tmp_path: Path, client: Any, command: Command
) -> None:
    """In --by, and where they choose what is compacted; a directory without runs is an error."""
    Fleet(tree, client).look()
    assert "nothing here has config.r" in command("fleet", tree, "--by", "config.r").err
    options = ("--compact", tmp_path / "out", "--where", "config.r == 1")
    assert "nothing here has config.r" in command("fleet", tree, *options).err
    (tmp_path / "none").mkdir()
    said = command("fleet", tmp_path / "none", *options[:2], code=2)
    assert "there is no run below" in said.err


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_runs_whose_names_are_not_utf8_are_apart(tmp_path: Path, client: Any) -> None:
    """Also from one that has the text of such a name."""
    root = tmp_path / "runs"
    for name in ("\udcff", "\\udcff", "\udcfe"):
        make_run(root / name, loss=[1.0])
    done = Fleet(root, client).compact(tmp_path / "out")
    assert (done.written, done.runs, done.files) == (3, 3, 3)
    assert Fleet(root, client).compact(tmp_path / "out").unchanged == 3


def test_a_full_disk_is_told_with_what_is_missing(
    tree: Path, tmp_path: Path, client: Any, monkeypatch: Patch
) -> None:
    out = tmp_path / "out"

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset.Dataset, "write_manifest", full)
    with pytest.raises(FleetError, match=r"No space left .* 4 runs were written, 0 could not be"):
        Fleet(tree, client).compact(out)
    monkeypatch.undo()
    assert Fleet(tree, client).compact(out).runs == 4


def test_files_that_another_compaction_removes_or_replaces(
    tree: Path, tmp_path: Path, client: Any, monkeypatch: Patch
) -> None:
    """What went since it was listed is not there; what is newer is not overwritten."""
    out = tmp_path / "out"
    Fleet(tree, client).compact(out)
    listed = list(dataset._files(out))
    path, _ = listed[0]
    parts = dataset.Dataset(out).parts
    part = dataclasses.replace(parts[path.relative_to(out).as_posix()], stamp=(0, 0, 0))
    before = path.read_bytes()
    kinds = {**part.kinds, "loss": "text"}
    assert compaction._align_part(out, compaction._Unlike(part, kinds))[1] == []
    assert path.read_bytes() == before
    path.unlink()
    monkeypatch.setattr(dataset, "_files", lambda _: iter(listed))
    assert len(dataset.Dataset(out).parts) == len(parts) - 1
    with pytest.raises(FileNotFoundError):
        dataset.part_at(path, part.path, (0, 0, 0))
    assert len(parquet_files(out)) == 3


def test_a_run_without_a_file_that_can_be_read_has_goodput(tmp_path: Path, client: Any) -> None:
    """As one that never came to a step."""
    make_timed(tmp_path / "runs" / "a")
    make_run(tmp_path / "runs" / "b")
    (tmp_path / "runs" / "b" / "metrics.jsonl").unlink()
    (found,) = Fleet(tmp_path / "runs", client).goodput()
    assert (found.runs, found.unreadable) == (2, {})
    assert measure_goodput(read_run(tmp_path / "runs" / "b")).steps == 0
