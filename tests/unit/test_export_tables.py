"""Tables: CSV, Parquet and Arrow give back what was recorded, to other people's readers."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from oracle import START, OracleWriter, attempt, write_run_json

from foundry_fastlog import export_runs, read_run

pa = pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")
duckdb = pytest.importorskip("duckdb")
pd = pytest.importorskip("pandas")
import pyarrow.dataset as ds  # noqa: E402 - after it is known to be there
import pyarrow.parquet as pq  # noqa: E402 - likewise

NAN, INF = math.nan, math.inf
BIG = (1 << 62) + 1


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two ranks with values of each kind, and lines of each stream."""
    path = tmp_path / "runs" / "one"
    write_run_json(path, name="one", config={"lr": 0.1})
    for rank in range(2):
        writer = OracleWriter(path, rank=rank)
        for step, loss in enumerate([0.1, NAN, INF, -INF, 1e-300]):
            more = {"ok": step > 1} if step else {"note": 'ü, "x"\nNaN'}
            writer.metrics(step, epoch=0, loss=loss, big=BIG + step, **more)
        writer.summary(0, loss=7.5)
        writer.timing("step", 0.5, step=3)
        writer.log("hello", context={"a": [1]})
        writer.error("boom", ValueError("bad"))
        writer.system(cpu=2.5)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A run that has floats and texts where the first has integers and floats, and a metric run."""
    writer = OracleWriter(tmp_path / "runs" / "two")
    writer.metrics(0, loss=2, big=0.5, note=True, ok=3, Run=5, new=True, never=None)
    writer.metrics(1, big=1)
    OracleWriter(writer.run, rank=3).system(cpu=1.0)
    return writer.run


def same(found: Any, wanted: Any) -> bool:
    return found == wanted or (found != found and wanted != wanted)


def equal(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Whether rows are equal, with NaN equal to itself."""
    return len(found) == len(wanted) and all(
        a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        for a, b in zip(found, wanted, strict=True)
    )


def rows_of(run: Path, stream: str = "metrics", **chosen: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_run(run).to_arrow(stream, **chosen).to_pylist()
    return [{"run": run.name, **row} for row in rows]


def test_csv_is_read_by_pandas_polars_and_duckdb(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    result = export_runs(run, out)
    assert (result.format, result.rows, result.complete) == ("csv", {"metrics": 12}, True)
    assert (result.bytes, result.path, result.notes) == (out.stat().st_size, out, ())
    wanted = rows_of(run)
    frame = pl.read_csv(out, try_parse_dates=True)
    assert frame.columns == list(wanted[0])
    found = frame.with_columns(pl.col("label").fill_null("")).to_dicts()
    assert equal(found, wanted)
    table = pd.read_csv(out, dtype={"big": "Int64"}, parse_dates=["timestamp"])
    assert all(map(same, table["loss"], [row["loss"] for row in wanted]))
    assert table["big"].dropna().tolist() == [row["big"] for row in wanted if row["big"]]
    assert table["timestamp"].tolist() == [row["timestamp"] for row in wanted]
    assert table["note"].dropna().unique().tolist() == ['ü, "x"\nNaN']
    sql = f"SELECT count(*), max(big) FROM '{out}' WHERE isnan(loss)"
    assert duckdb.sql(sql).fetchall() == [(2, BIG + 1)]


def test_csv_of_several_runs_has_the_columns_of_all(run: Path, other: Path) -> None:
    out = run.parent / "x.csv"
    export_runs([run, other], out)
    frame = pl.read_csv(out, infer_schema_length=None)
    assert frame["run"].to_list() == ["one"] * 12 + ["two"] * 2
    names = ["run", "timestamp", "seq", "step", "epoch", "loss", "big", "note", "ok"]
    assert frame.columns == [*names, "metrics.Run", "new", "never", "rank", "start", "label"]
    assert frame.row(12, named=True) == {
        **dict.fromkeys(frame.columns),
        "run": "two",
        "timestamp": "2026-01-30T14:32:15.123456Z",
        "seq": 0,
        "step": 0,
        "loss": 2.0,
        "big": 0.5,
        "note": "true",
        "ok": 3,
        "metrics.Run": 5,
        "new": True,
        "rank": 0,
        "start": 0,
    }
    assert frame["ok"].to_list()[:9] == [None, None, 0, 0, 1, 1, 1, 1, 1]


def test_csv_of_other_streams_and_to_a_pipe(run: Path, capfdbinary: Any) -> None:
    export_runs(run, "-", format="csv", streams="log")
    frame = pl.read_csv(io.BytesIO(capfdbinary.readouterr().out))
    assert (
        frame.select("level", "message", "context").rows() == [("INFO", "hello", '{"a": [1]}')] * 2
    )


def test_csv_counts_what_it_cannot_tell_apart(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path / "run")
    writer.metrics(0, a="", b="x")
    writer.metrics(1, a="y", b="")
    result = export_runs(writer.run, tmp_path / "x.csv")
    assert result.notes == ("empty texts, like absent values in CSV: 2",)


def test_an_arrow_file_has_the_columns_of_the_run(run: Path, tmp_path: Path) -> None:
    for name in ("x.arrow", "x.feather"):
        out = tmp_path / name
        assert export_runs(run, out).bytes == out.stat().st_size
        with pa.memory_map(str(out)) as file:
            table = pa.ipc.open_file(file).read_all()
        assert equal(table.to_pylist(), rows_of(run))
        assert equal(pl.read_ipc(out).to_dicts(), rows_of(run))
    assert b'"config":{"lr":0.1}' in table.schema.metadata[b"foundry_fastlog.runs"]


@pytest.mark.parametrize("stream", ["metrics", "performance", "errors", "log", "system"])
def test_a_parquet_file_of_each_stream(run: Path, tmp_path: Path, stream: str) -> None:
    out = tmp_path / "x.parquet"
    export_runs(run, out, streams=[stream])
    wanted = sorted(rows_of(run, stream), key=lambda row: (row["rank"], row["seq"]))

    def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(rows, key=lambda row: (row["rank"], row["seq"]))

    assert equal(in_order(pq.read_table(out).to_pylist()), wanted)
    assert equal(in_order(pl.read_parquet(out).to_dicts()), wanted)
    found = duckdb.sql(f"FROM '{out}' ORDER BY rank, seq").to_arrow_table().to_pylist()
    assert [row["seq"] for row in found] == [row["seq"] for row in wanted]
    described = pq.read_metadata(out).row_group(0)
    seq = next(
        described.column(n)
        for n in range(described.num_columns)
        if described.column(n).path_in_schema == "seq"
    )
    assert seq.statistics.max == max(row["seq"] for row in wanted)


def test_several_runs_in_a_parquet_file(run: Path, other: Path, tmp_path: Path) -> None:
    """A column has one type: that of the values of all."""
    out = tmp_path / "x.parquet"
    result = export_runs([read_run(run), other], out)
    assert result.rows == {"metrics": 14}
    assert result.notes == ("integers of big, rounded: another run has floats there: 10",)
    schema = pq.read_schema(out)
    kinds = {"loss": pa.float64(), "big": pa.float64(), "note": pa.large_string()}
    assert {name: schema.field(name).type for name in kinds} == kinds
    assert (schema.field("ok").type, schema.field("new").type) == (pa.int64(), pa.bool_())
    two = pq.read_table(out, filters=[("run", "=", "two")]).to_pylist()
    assert [row["note"] for row in two] == ["true", None]
    assert [row["metrics.Run"] for row in two] == [5, None]


def test_a_dataset_is_read_by_predicates(run: Path, other: Path, tmp_path: Path) -> None:
    out = f"{tmp_path}/dataset/"
    result = export_runs([run, other], out)
    assert result.rows == {"metrics": 14, "performance": 2, "errors": 2, "log": 2, "system": 3}
    files = sorted(path.relative_to(out).as_posix() for path in Path(out).rglob("*.parquet"))
    assert len(files) == 12
    assert files[4:7] == [
        "metrics/run=one/rank=0/part-0.parquet",
        "metrics/run=one/rank=1/part-0.parquet",
        "metrics/run=two/rank=0/part-0.parquet",
    ]
    assert result.bytes == sum(path.stat().st_size for path in Path(out).rglob("*.parquet"))
    wanted = [row for row in rows_of(run, ranks=1) if row["step"] is not None and row["step"] >= 2]
    columns = ["step", "loss", "seq"]
    expected = [{name: row[name] for name in columns} for row in wanted]

    field = ds.field
    dataset = ds.dataset(f"{out}metrics", partitioning="hive")
    chosen = (field("run") == "one") & (field("rank") == 1) & (field("step") >= 2)
    assert dataset.to_table(columns, filter=chosen).to_pylist() == expected

    lazy = pl.scan_parquet(f"{out}metrics/**/*.parquet", hive_partitioning=True)
    chosen = (pl.col("run") == "one") & (pl.col("rank") == 1) & (pl.col("step") >= 2)
    assert lazy.filter(chosen).select(columns).collect().to_dicts() == expected
    sql = f"""
        SELECT step, loss, seq FROM read_parquet('{out}metrics/**/*.parquet',
               hive_partitioning = true)
        WHERE run = 'one' AND rank = 1 AND step >= 2 ORDER BY step
    """
    assert duckdb.sql(sql).to_arrow_table().to_pylist() == expected
    assert duckdb.sql(f"SELECT count(*) FROM '{out}metrics/*/*/*.parquet'").fetchall() == [(14,)]


def test_rows_are_in_the_order_of_steps(tmp_path: Path) -> None:
    """So that a row group has a range of them; those without one come last."""
    writer = OracleWriter(tmp_path / "run").fill(range(5))
    writer.summary(0, loss=1.0)
    attempt(writer.run, 1).fill(range(3, 6))
    for starts, steps in (("latest", [*range(6), None]), ("all", [0, 1, 2, 3, 3, 4, 4, 5, None])):
        result = export_runs(writer.run, tmp_path / "x.parquet", starts=starts, force=True)  # type: ignore[arg-type]
        assert pq.read_table(tmp_path / "x.parquet")["step"].to_pylist() == steps
        assert result.left_out == ({"metrics": {"loss": 2}} if starts == "latest" else {})
    export_runs(writer.run, tmp_path / "ds", format="parquet", starts=1)
    found = pl.read_parquet(tmp_path / "ds" / "metrics" / "run=run" / "rank=0" / "part-0.parquet")
    assert found["step"].to_list() == [3, 4, 5]


def test_names_of_runs_are_safe_in_paths(tmp_path: Path) -> None:
    names = ["a/x=1", "b/ü %"]
    for name in names:
        OracleWriter(tmp_path / name).fill([1])
    export_runs([tmp_path / name for name in names], tmp_path / "ds", format="parquet")
    assert sorted(path.name for path in (tmp_path / "ds" / "metrics").iterdir()) == [
        "run=a%2Fx%3D1",
        "run=b%2F%C3%BC%20%25",
    ]
    dataset = ds.dataset(tmp_path / "ds" / "metrics", partitioning="hive")
    assert sorted(dataset.to_table()["run"].to_pylist()) == names


def test_an_empty_run_is_a_table_without_rows(tmp_path: Path) -> None:
    run = OracleWriter(tmp_path / "run", start=START).run
    for name in ("x.csv", "x.parquet", "x.arrow"):
        assert export_runs(run, tmp_path / name).rows == {}
    assert (tmp_path / "x.csv").read_text().startswith("run")
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 0
    assert export_runs(run, f"{tmp_path}/ds/").rows == {}
    assert list((tmp_path / "ds").iterdir()) == []
