"""Runs as tables of SQL: what is asked for is read, nothing is changed, and errors help."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import sys
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from oracle import OracleWriter

from foundry_fastlog import read_run
from foundry_fastlog.analysis.query import QueryError, query_runs
from foundry_fastlog.reading.run import Run
from foundry_fastlog.show.query_rows import plain_value

pytest.importorskip("duckdb")
Command = Callable[..., Any]
Patch = pytest.MonkeyPatch


@pytest.fixture
def run(tmp_path: Path) -> Path:
    writer = OracleWriter(tmp_path / "a" / "one")
    for step in range(30):
        writer.metrics(step, loss=1 / (step + 1), **{"val/loss": float(step)})
        writer.timing("step", 0.5, step=step)
    writer.error("boom", ValueError("bad"), step=3)
    writer.log("hello", context={"x": 1})
    writer.system(1, cpu=2.0)
    return writer.run


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A run with another metric, a text where the first has numbers, and a metric called Run."""
    writer = OracleWriter(tmp_path / "b" / "one")
    writer.metrics(0, loss="high", acc=0.5, Run=7)
    return writer.run


def rows(sql: str, *paths: Path, **options: Any) -> list[tuple[Any, ...]]:
    return list(query_runs([read_run(path) for path in paths], sql, **options).rows())


def test_streams_and_starts_are_tables(run: Path) -> None:
    """With what a plain reader of the files finds in them."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    wanted = [(line["step"], line["metrics"]["loss"]) for line in lines]
    assert rows("SELECT step, loss FROM metrics ORDER BY step", run) == wanted
    assert rows('SELECT max(m."val/loss") FROM metrics m', run) == [(29.0,)]
    assert rows("SELECT count(*), sum(duration_s) FROM Performance", run) == [(30, 15.0)]
    assert rows("SELECT error_type, step FROM errors", run) == [("ValueError", 3)]
    assert rows("SELECT message FROM log", run) == [("hello",)]
    assert rows("SELECT cpu FROM system", run) == [(2.0,)]
    assert rows("SELECT start, state, ranks, config FROM starts", run) == [
        (0, "unknown", [0], "{}")
    ]
    assert rows("SELECT count(*) FROM log WHERE timestamp < '2020-01-01'", run) == [(0,)]


def test_only_what_is_named_is_read(run: Path, monkeypatch: Patch) -> None:
    read = []
    arrow = Run.arrow

    def noted(self: Run, stream: str, **options: Any) -> Any:
        read.append(stream)
        return arrow(self, stream, **options)

    monkeypatch.setattr(Run, "arrow", noted)
    assert rows("SELECT 1", run) == [(1,)]
    assert read == []
    rows("SELECT * FROM log, errors", run)
    assert sorted(read) == ["errors", "log"]


def test_several_runs_are_one_table(run: Path, other: Path) -> None:
    sql = 'SELECT run, min(loss), max(acc), max("metrics.Run") FROM metrics GROUP BY run ORDER BY 1'
    found = rows(sql, run, other)
    assert found == [("a/one", str(1 / 30), None, None), ("b/one", "high", 0.5, 7)]
    assert rows("SELECT run, count(*) FROM starts GROUP BY run ORDER BY 1", run, other) == [
        ("a/one", 1),
        ("b/one", 1),
    ]


def test_one_start_or_all(run: Path) -> None:
    OracleWriter(run, attempt=1).metrics(5, loss=100.0)
    sql = "SELECT count(*), max(start) FROM metrics WHERE loss IS NOT NULL"
    assert rows(sql, run) == [(6, 1)]
    assert rows(sql, run, starts="all") == [(31, 1)]
    assert rows(sql, run, starts=0) == [(30, 0)]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT lss FROM metrics", 'Candidate bindings: "loss"'),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM metric", "metric"),
        ("COPY metrics TO '{run}/metrics.jsonl'", "disabled by configuration"),
        ("ATTACH '{run}/x.db'", "disabled by configuration"),
        ("SELECT * FROM read_text('{run}/metrics.jsonl')", "disabled by configuration"),
        ("SELECT * FROM '{run}/run.json'", "disabled by configuration"),
        ("SET enable_external_access = true", "annot"),
        ("INSTALL httpfs", "disabled by configuration"),
        ("SELECT * FROM sys", "sys"),
        ("SELECT 1; SELECT 2", "give one SQL statement"),
        ("", "give one SQL statement"),
        ("SELECT cast(message AS INTEGER) FROM log", "Could not convert"),
    ],
)
def test_what_is_wrong_or_would_reach_out_is_refused(run: Path, sql: str, says: str) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(QueryError, match=says):
        rows(sql.replace("{run}", str(run)), run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_row_that_cannot_be_computed(run: Path) -> None:
    """Rows are fetched as they are asked for."""
    sql = "SELECT CASE WHEN i > 500000 THEN error('too many') ELSE 'x' END FROM range(1000000) t(i)"
    with pytest.raises(QueryError, match="too many"):
        rows(sql, run)


def test_the_command_shows_a_table(run: Path, other: Path, command: Command) -> None:
    shown = command("query", run, "SELECT step, loss, [step] AS l FROM metrics ORDER BY step").out
    assert shown.splitlines()[0].split() == ["step", "loss", "l"]
    assert shown.splitlines()[3].split() == ["1", "0.5", "[1]"]
    assert "30 rows\n... 10 more; --limit 0 shows all" in shown
    assert len(command("query", run, "FROM metrics", "--limit", 0).out.splitlines()) == 33
    many = ", ".join(f"{n} AS c{n}" for n in range(30))
    assert "columns not shown: c12, " in command("query", run, f"SELECT {many}").out
    assert " and 6 more" in command("query", run, f"SELECT {many}").out
    assert command("query", run, "CREATE TABLE x (a INT)").out.splitlines()[-1].startswith("0 rows")
    assert "1 row\n" in command("query", run, other, "SELECT count(*) FROM metrics").out


def test_the_command_writes_json_and_csv(run: Path, command: Command, tmp_path: Path) -> None:
    sql = "SELECT step, loss, 'ü,\"' AS t, NULL AS n, true AS b, [1] AS l FROM metrics ORDER BY 1"
    found = json.loads(command("query", run, sql, "--json").out)
    assert found[1] == {"step": 1, "loss": 0.5, "t": 'ü,"', "n": None, "b": True, "l": [1]}
    assert len(found) == 30
    assert json.loads(command("query", run, "SELECT 1 WHERE false", "--format", "json").out) == []
    lines = list(csv.reader(command("query", run, sql, "--format", "csv").out.splitlines()))
    assert lines[:3:2] == [
        ["step", "loss", "t", "n", "b", "l"],
        ["1", "0.5", 'ü,"', "", "true", "[1]"],
    ]
    for name in ("out.csv", "out.json", "out.txt"):
        out = tmp_path / name
        assert command("query", run, sql, "-o", out).out == ""
        assert "exists" in command("query", run, sql, "-o", out, code=2).err
        command("query", run, "SELECT 1 AS one", "-o", out, "--force")
    assert json.loads((tmp_path / "out.json").read_bytes()) == [{"one": 1}]
    assert (tmp_path / "out.csv").read_text() == "one\n1\n"
    assert (tmp_path / "out.txt").read_text().splitlines()[::2] == ["one", "  1"]
    many = "SELECT * FROM range(1200) t(i), range(1) s(i)"
    assert json.loads(command("query", run, many, "--json").out)[-1] == {"i": 1199, "i:1": 0}


def test_the_command_says_what_is_wrong(run: Path, command: Command, tmp_path: Path) -> None:
    assert "name a run and an SQL" in command("query", run, code=2).err
    refused = command("query", run, "SELECT 1", "-o", "x.parquet", code=2).err
    assert "to_polars" in refused
    later = OracleWriter(tmp_path / "later", attempt=1)
    later.metrics(1, loss=1.0)
    both = command("query", run, later.run, "FROM metrics", "--starts", 0, code=2)
    assert "later has no start 0; it has 1" in both.err
    assert "Parser Error" in command("query", run, "SELEC", code=2).err
    inside = command("query", run, "SELECT 1", "-o", run / "x.csv", code=2).err
    assert "is in the run" in inside
    failing = "SELECT error(i::VARCHAR) FROM range(3) t(i)"
    command("query", run, failing, "-o", tmp_path / "x.csv", code=2)
    assert list(tmp_path.glob("*x.csv*")) == []
    path = run / "metrics.jsonl"
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    shown = command("query", run, "SELECT count(*) FROM metrics", code=1)
    assert "30" in shown.out
    assert "damaged" in shown.err


def test_without_duckdb_the_extra_is_named(run: Path, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ImportError, match=r"pip install 'foundry_fastlog\[query\]'"):
        rows("SELECT 1", run)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (2**70, str(2**70)),
        (dt.datetime.fromisoformat("2026-01-30T01:02:03.000004"), "2026-01-30T01:02:03.000004"),
        (
            dt.datetime(2026, 1, 30, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            "2026-01-30T00:00:00.000000Z",
        ),
        (dt.date(2026, 1, 30), "2026-01-30"),
        (dt.time(1, 2), "01:02:00"),
        (dt.timedelta(minutes=2), 120.0),
        (Decimal("1.5"), 1.5),
        ((1, [Decimal(2)]), [1, [2.0]]),
        ({"a": math.inf, 1: True}, {"a": "inf", "1": True}),
        (b"\x00\xff", "00ff"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_values_are_json(value: object, plain: object) -> None:
    assert plain_value(value) == plain
