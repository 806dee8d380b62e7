"""A Parquet dataset of runs: what is in it, what is written again, what killed workers leave."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleets import hold, kill_one_of, make_run, parquet_files, rows_of, workers_here
from oracle import OracleWriter

from foundry_fastlog import Fleet, FleetError, Recorder, export_runs, read_run
from foundry_fastlog.analysis import runs as runs_module
from foundry_fastlog.fleet import compaction, crew

pytest.importorskip("distributed")
duckdb = pytest.importorskip("duckdb")
pl = pytest.importorskip("polars")
pq = pytest.importorskip("pyarrow.parquet")

Command = Callable[..., Any]
Patch = pytest.MonkeyPatch
pytestmark = pytest.mark.usefixtures("cache_home")
ROOT = Path(__file__).parents[2]
PATHS = "metrics/run={}/rank={}/part-0.parquet"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Runs of several streams and ranks, which have not all the same metrics."""
    root = tmp_path / "tree"
    make_run(root / "sweep" / "a", loss=[3.0, float("nan"), 1.0], config={"lr": 0.1})
    two = make_run(root / "b", how="exception", loss=[2.0, 1.5], acc=[0.5, 0.25])
    two.error("saving", OSError("disk full"), step=1)
    two.timing("forward", 0.25, step=0)
    OracleWriter(root / "b", rank=1).fill(range(2), loss=7.0)
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the dataset is to be."""
    return tmp_path / "out" / "dataset"


def lazily(out: Path, stream: str = "metrics") -> Any:
    """The dataset as docs/fleet.md reads it by polars."""
    return pl.scan_parquet(
        out / stream / "**" / "*.parquet",
        schema=pl.read_parquet_schema(out / stream / "_common_metadata"),
        hive_schema={"run": pl.String, "rank": pl.Int64},
        missing_columns="insert",
    )


def rows_in(out: Path, run: str, stream: str = "metrics") -> list[dict[str, Any]]:
    """The rows of one run in the dataset, found by predicate, as the run has them itself."""
    rows = lazily(out, stream).filter(pl.col("run") == run).collect().drop("run").to_dicts()
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def own_rows(run: Path, stream: str = "metrics") -> list[dict[str, Any]]:
    rows = sorted(rows_of(run, stream), key=lambda row: (row["rank"], row.get("step", 0)))
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether rows are equal, NaN included."""
    return sorted(map(_text, one)) == sorted(map(_text, other))


def _text(row: dict[str, Any]) -> str:
    return repr(sorted(row.items()))


def test_rows_of_the_dataset_are_those_of_the_runs(tree: Path, out: Path, client: Any) -> None:
    """By predicate over runs, ranks and steps, in polars and DuckDB; what a run lacks is null."""
    done = Fleet(tree, client).compact(out)
    assert (done.written, done.unchanged, done.runs, done.files) == (2, 0, 2, 5)
    assert done.rows == {"metrics": 7, "performance": 1, "errors": 1}
    assert done.complete
    assert done.to_dict()["complete"] is True
    assert done.bytes == sum((out / path).stat().st_size for path in parquet_files(out))
    for name in ("sweep/a", "b"):
        assert same(rows_in(out, name), own_rows(tree / name)), name
    for stream in ("performance", "errors"):
        assert same(rows_in(out, "b", stream), own_rows(tree / "b", stream))
    (losses,) = (
        lazily(out).filter(pl.col("rank") == 1, pl.col("step") >= 1).select("loss").collect()
    )
    assert losses.to_list() == [7.0]
    found = duckdb.sql(f"""
        SELECT run, rank, step, loss, acc FROM read_parquet(
            '{out}/metrics/**/*.parquet', hive_partitioning = true, union_by_name = true
        )
        WHERE run = 'b' AND rank = 0 AND step >= 1
    """).fetchall()
    assert found == [("b", 0, 1, 1.5, 0.25)]
    footer = pq.read_metadata(out / PATHS.format("b", 0))
    step = footer.schema.names.index("step")
    assert footer.row_group(0).column(step).statistics.max == 1
    schema = pq.read_schema(out / PATHS.format("sweep%2Fa", 0))
    assert json.loads(schema.metadata[b"foundry_fastlog.compacted"])["run"] == "sweep/a"


def test_only_what_changed_is_written_again(tree: Path, out: Path, client: Any) -> None:
    """And what was removed stays."""
    fleet = Fleet(tree, client)
    fleet.compact(out)
    stamps = {path: (out / path).stat().st_mtime_ns for path in parquet_files(out)}
    again = fleet.compact(out)
    assert (again.written, again.unchanged, again.rows) == (
        0,
        2,
        {"metrics": 7, "performance": 1, "errors": 1},
    )
    OracleWriter(tree / "b", rank=2).fill(range(3), loss=1.0)
    shutil.rmtree(tree / "sweep")
    changed = fleet.compact(out)
    assert (changed.written, changed.unchanged, changed.runs) == (1, 0, 2)
    assert same(rows_in(out, "b"), own_rows(tree / "b"))
    kept = PATHS.format("sweep%2Fa", 0)
    assert (out / kept).stat().st_mtime_ns == stamps[kept]


def test_runs_may_have_names_that_look_like_numbers_or_dates(
    tmp_path: Path, out: Path, client: Any
) -> None:
    """Read as docs/fleet.md says, they stay apart, and are found by their names."""
    names = ["001", "1", "2026-01-30", "2026-1-30"]
    for name in names[:2]:
        make_run(tmp_path / "numbers" / name, loss=[1.0])
    for name in names[2:]:
        make_run(tmp_path / "dates" / name, loss=[1.0])
    for folder, some in (("numbers", names[:2]), ("dates", names[2:])):
        Fleet(tmp_path / folder, client).compact(out / folder)
        assert all(len(rows_in(out / folder, name)) == 1 for name in some)
        found = duckdb.sql(f"""
            SELECT run, count(*) FROM read_parquet(
                '{out}/{folder}/metrics/**/*.parquet', union_by_name = true,
                hive_partitioning = true, hive_types = {{'run': VARCHAR, 'rank': BIGINT}}
            ) GROUP BY run ORDER BY run
        """).fetchall()
        assert found == [(name, 1) for name in some]


def test_a_rank_that_a_run_no_longer_has_goes(tree: Path, out: Path, client: Any) -> None:
    fleet = Fleet(tree, client)
    fleet.compact(out)
    (tree / "b" / "metrics.r1.jsonl").unlink()
    assert fleet.compact(out).files == 4
    assert not (out / PATHS.format("b", 1)).exists()
    assert same(rows_in(out, "b"), own_rows(tree / "b"))


def test_a_run_is_written_when_it_ended_and_again_when_it_was_resumed(
    tree: Path, out: Path, client: Any
) -> None:
    """While it goes on, what it was before is what the dataset has."""
    fleet = Fleet(tree, client)
    with Recorder(tree / "live") as recorder:
        recorder.record(0, loss=4.0)
        assert fleet.compact(out).left_out == {"running": 1}
    assert fleet.compact(out).written == 1
    first = own_rows(tree / "live")
    with Recorder(tree / "live") as recorder:
        recorder.record(0, loss=2.0)
        recorder.record(1, loss=1.0)
        recorder.flush()
        going = fleet.compact(out)
        assert (going.written, going.left_out) == (0, {"running": 1})
        assert same(rows_in(out, "live"), first)
    assert fleet.compact(out).written == 1
    assert same(rows_in(out, "live"), own_rows(tree / "live"))
    assert [row["loss"] for row in rows_in(out, "live")] == [2.0, 1.0]


def test_runs_of_which_nobody_knows_are_written_when_asked_for(
    tree: Path, out: Path, client: Any
) -> None:
    OracleWriter(tree / "c").fill(range(2), loss=1.0)
    fleet = Fleet(tree, client)
    assert fleet.compact(out).left_out == {"unknown": 1}
    assert fleet.compact(out, states=("ended", "unknown")).written == 1
    with pytest.raises(ValueError, match="unknown state 'done'"):
        fleet.compact(out, states=["done"])


def test_streams_and_runs_are_chosen(tree: Path, out: Path, client: Any) -> None:
    """Other streams are another dataset: all of it is written again."""
    done = Fleet(tree, client, where="config.lr == 0.1").compact(out, streams=["metrics"])
    assert (done.written, done.rows) == (1, {"metrics": 3})
    done = Fleet(tree, client).compact(out, streams=["metrics", "errors"])
    assert (done.written, done.rows) == (2, {"metrics": 7, "errors": 1})
    with pytest.raises(ValueError, match="unknown stream"):
        Fleet(tree, client).compact(out, streams=["metric"])


def test_a_column_has_one_type_in_all_files(tmp_path: Path, out: Path, client: Any) -> None:
    """Files of before are written again, also those of runs that are gone; rounding is told."""
    root = tmp_path / "runs"
    make_run(root / "whole", loss=[1, 2**53 + 1], flag=[True, False], same=[1, 2])
    fleet = Fleet(root, client)
    assert fleet.compact(out).aligned == 0
    whole = pq.read_schema(out / PATHS.format("whole", 0))
    assert str(whole.field("loss").type) == "int64"
    shutil.rmtree(root / "whole")
    make_run(root / "broken", loss=[0.5], flag=["no"], same=[3])
    done = fleet.compact(out)
    assert (done.written, done.aligned) == (1, 1)
    assert done.notes == ("whole: integers of loss, rounded: another run has floats there: 1",)
    found = lazily(out).sort("run", "step").select("loss", "flag", "same").collect()
    assert found.rows() == [(0.5, "no", 3), (1.0, "true", 1), (float(2**53), "false", 2)]
    again = pq.read_schema(out / PATHS.format("whole", 0))
    assert (
        again.metadata[b"foundry_fastlog.compacted"] == whole.metadata[b"foundry_fastlog.compacted"]
    )
    assert (fleet.compact(out).written, fleet.compact(out).aligned) == (0, 0)


def test_a_file_that_cannot_be_aligned_is_told(
    tmp_path: Path, out: Path, client: Any, monkeypatch: Patch
) -> None:
    root = tmp_path / "runs"
    make_run(root / "whole", loss=[1])
    make_run(root / "broken", loss=[0.5])

    def refuse(*args: Any) -> Any:
        raise OSError("no room")

    monkeypatch.setattr(compaction, "retype", refuse)
    done = Fleet(root, client).compact(out)
    assert done.failed == {"whole": "OSError: no room"}
    assert not done.complete


def test_runs_that_change_or_vanish_meanwhile_are_left_out(
    tree: Path, out: Path, client: Any, monkeypatch: Patch
) -> None:
    """Nothing of them is written, and nothing is left beside the files."""
    for number in range(3):
        make_run(tree / f"c{number}", loss=[1.0])
    write = compaction._write_parts

    def busy(run: Any, name: str, *rest: Any) -> Any:
        found = write(run, name, *rest)
        if name == "c0":
            OracleWriter(tree / "c0", rank=1).fill(range(1))
        if name == "c1":
            shutil.rmtree(tree / "c1")
        return found

    def late(path: Path, *rest: Any) -> Any:
        if path.name == "c2":
            shutil.rmtree(path)
        return read_run(path, *rest)

    monkeypatch.setattr(compaction, "_write_parts", busy)
    monkeypatch.setattr(compaction, "read_run", late)
    fleet = Fleet(tree, client)
    done = fleet.compact(out)
    assert (done.written, done.left_out) == (2, {"changed": 2, "gone": 1})
    assert not any("run=c" in path for path in parquet_files(out))
    assert not [path for path in parquet_files(out) if path.endswith(".tmp")]
    monkeypatch.undo()


def test_a_run_that_went_between_finding_and_reading_is_left_out(
    tree: Path, out: Path, client: Any, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(compaction, "find_run_at", lambda path, name: None)
    assert Fleet(tree, client).compact(out).left_out == {"gone": 2}


def test_damaged_runs_are_written_as_far_as_they_go(tree: Path, out: Path, client: Any) -> None:
    path = tree / "sweep" / "a" / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b"{broken", lines[2], b""]))
    done = Fleet(tree, client).compact(out)
    assert (done.incomplete, done.complete, done.written) == (("sweep/a",), False, 2)
    assert [row["step"] for row in rows_in(out, "sweep/a")] == [0, 2]
    again = Fleet(tree, client).compact(out)
    assert (again.written, again.incomplete) == (0, ("sweep/a",))


def test_what_cannot_be_written_is_told_by_run(tree: Path, out: Path, client: Any) -> None:
    make_run(tree / ("x" * 200) / ("y" * 200), loss=[1.0])
    done = Fleet(tree, client).compact(out)
    assert list(done.failed) == [f"{'x' * 200}/{'y' * 200}"]
    assert "name too long" in next(iter(done.failed.values()))
    assert done.written == 2


def test_a_worker_that_writes_elsewhere_is_noticed(
    tree: Path, out: Path, tmp_path: Path, client: Any, monkeypatch: Patch
) -> None:
    """As one on another host, where that path is a disk of its own."""
    write = compaction._write_run
    monkeypatch.setattr(
        compaction, "_write_run", lambda place, *rest: write(tmp_path / "elsewhere", *rest)
    )
    done = Fleet(tree, client).compact(out)
    said = f"its worker does not see {out} as this process does"
    assert done.failed == dict.fromkeys(["b", "sweep/a"], said)


def test_a_run_that_costs_its_workers_is_told(
    tree: Path, out: Path, client: Any, monkeypatch: Patch
) -> None:
    def refuse(work: Any, batch: Any) -> Any:
        raise MemoryError("too large")

    monkeypatch.setattr(crew, "_do", refuse)
    done = Fleet(tree, client).compact(out)
    assert done.failed == dict.fromkeys(["b", "sweep/a"], "MemoryError: too large")


def test_the_manifest_is_rebuilt_from_the_files(tree: Path, out: Path, client: Any) -> None:
    """Without it, or with a damaged one, nothing is written again but what has no rows."""
    make_run(tree / "empty")
    fleet = Fleet(tree, client)
    assert fleet.compact(out).runs == 3
    assert fleet.compact(out).written == 0
    manifest = out / "_manifest.json"
    first = json.loads(manifest.read_text())
    for damaged in (None, b"{", b"[]", b'{"parts":[1],"empty":{}}'):
        manifest.unlink() if damaged is None else manifest.write_bytes(damaged)
        done = fleet.compact(out)
        assert (done.written, done.unchanged, done.runs) == (1, 2, 3)
        assert json.loads(manifest.read_text()) == first


def test_a_damaged_file_of_the_dataset_is_written_again(tree: Path, out: Path, client: Any) -> None:
    fleet = Fleet(tree, client)
    fleet.compact(out)
    (out / PATHS.format("sweep%2Fa", 0)).write_bytes(b"")
    assert fleet.compact(out).written == 1
    assert same(rows_in(out, "sweep/a"), own_rows(tree / "sweep" / "a"))


def test_files_of_two_looks_at_a_run_are_written_again(tree: Path, out: Path, client: Any) -> None:
    """As a compaction leaves them that was killed while it renamed them."""
    fleet = Fleet(tree, client)
    fleet.compact(out)
    before = (out / PATHS.format("b", 1)).read_bytes()
    OracleWriter(tree / "b", rank=2).fill(range(3), loss=1.0)
    fleet.compact(out)
    (out / PATHS.format("b", 1)).write_bytes(before)
    (out / "_manifest.json").unlink()
    assert fleet.compact(out).written == 1


def test_a_run_that_changed_just_now_is_written_again(
    tree: Path, out: Path, client: Any, monkeypatch: Patch
) -> None:
    """It may change once more without looking different."""
    monkeypatch.setattr(runs_module, "TICK_S", 3600.0)
    fleet = Fleet(tree, client)
    assert (fleet.compact(out).written, fleet.compact(out).written) == (2, 2)


def test_what_is_no_dataset_is_left_alone(
    tree: Path, out: Path, tmp_path: Path, client: Any
) -> None:
    fleet = Fleet(tree, client)
    with pytest.raises(FleetError, match="nothing that a compaction writes"):
        fleet.compact(tree)
    (tmp_path / "file").touch()
    with pytest.raises(FleetError, match="is a file"):
        fleet.compact(tmp_path / "file")
    export_runs(tree / "b", tmp_path / "exported", format="parquet")
    with pytest.raises(FleetError, match="not of a compaction"):
        fleet.compact(tmp_path / "exported")
    assert not out.exists()


def test_the_command_compacts(tree: Path, out: Path, command: Command, monkeypatch: Patch) -> None:
    """Its exit code says if something is missing in the dataset."""
    OracleWriter(tree / "c").fill(range(2), loss=1)
    with workers_here(1) as client:
        options = ("--scheduler", client.scheduler.address, "--compact", out)
        said = command("fleet", tree, *options).out
        assert "2 runs in 5 files" in said
        assert "2 written, 0 unchanged, 1 left out: unknown" in said
        found = json.loads(command("fleet", tree, *options, "--unknown", "--json").out)
        assert (found["written"], found["aligned"], found["complete"]) == (1, 1, True)
        with (tree / "b" / "metrics.jsonl").open("ab") as file:
            file.write(b"{broken\n")
        said = command("fleet", tree, *options, "-s", "metrics", code=1).out
        assert "b: damaged, written as far as it can be read" in said
        assert "performance" not in said
        make_run(tree / "d", loss=[2**53 + 1])
        said = command("fleet", tree, *options, "-s", "metrics", code=1).out
        assert "note: d: integers of loss, rounded" in said
        assert "nothing that" in command("fleet", tree, *options[:3], tree, code=2).err


@pytest.mark.slow
def test_a_worker_that_is_killed_in_mid_task_loses_nothing_and_nothing_is_there_twice(
    tmp_path: Path, out: Path, monkeypatch: Patch
) -> None:
    """Its files were written, but had not yet got their names."""
    root, place = tmp_path / "runs", tmp_path / "held"
    for number in range(12):
        make_run(root / f"r{number:02d}", loss=[float(number), 0.5])
    place.mkdir()
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
    )
    monkeypatch.setattr(crew, "_do", functools.partial(hold, str(place)))
    killer = kill_one_of(place)
    with Fleet(root, workers=2) as fleet:
        done = fleet.compact(out)
        killer.join()
        assert (done.written, done.runs, done.files, done.failed) == (12, 12, 12, {})
        left = parquet_files(out)
        stray = [path for path in left if path.endswith(".tmp")]
        assert len(stray) == 1
        assert len(left) == 13
        for number in range(12):
            assert same(rows_in(out, f"r{number:02d}"), own_rows(root / f"r{number:02d}"))
        os.utime(out / stray[0], (1, 1))
        assert fleet.compact(out).failed == {}
    assert len(parquet_files(out)) == 12
