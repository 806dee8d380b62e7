"""Exports of several runs: the format by ending, where they may go, and the command."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from oracle import OracleWriter, attempt

from foundry_fastlog import export_runs, read_run
from foundry_fastlog.export.jsonl import ExportError, export_run
from foundry_fastlog.export.runs import format_of

Command = Callable[..., Any]
Patch = pytest.MonkeyPatch


@pytest.fixture
def run(tmp_path: Path) -> Path:
    writer = OracleWriter(tmp_path / "runs" / "one").fill(range(10))
    writer.log("hello")
    return writer.run


@pytest.fixture
def two(run: Path) -> list[Path]:
    return [run, OracleWriter(run.parent / "two").fill(range(3), loss=2.0).run]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    ("path", "form"),
    [
        *[("x.jsonl", "jsonl"), ("-", "jsonl"), ("/dev/stdout", "jsonl"), ("x", "jsonl")],
        *[("x.CSV", "csv"), ("a/x.parquet", "parquet"), ("runs/", "parquet"), ("x.ipc", "arrow")],
        *[("x.pftrace", "perfetto"), ("x.perfetto-trace", "perfetto"), ("x.prom", "prometheus")],
    ],
)
def test_the_ending_says_the_format(path: str, form: str) -> None:
    assert format_of(path) == form
    assert format_of(path, "otlp") == "otlp"


def test_lines_of_one_run_are_those_of_export_run(run: Path, tmp_path: Path) -> None:
    result = export_runs(run, tmp_path / "x.jsonl")
    plain = export_run(read_run(run), tmp_path / "y.jsonl")
    assert (tmp_path / "x.jsonl").read_bytes() == (tmp_path / "y.jsonl").read_bytes()
    assert (result.bytes, result.complete, result.dropped) == (plain.bytes, True, 0)
    assert result.rows == {"metrics": 10, "log": 1}
    assert result.notes == ("added to each line: stream",)


def test_lines_of_several_runs_say_whose_they_are(two: list[Path], tmp_path: Path) -> None:
    result = export_runs([read_run(two[0]), str(two[1])], tmp_path / "x.jsonl", streams="metrics")
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["run"] for line in lines] == ["one"] * 10 + ["two"] * 3
    assert result.rows == {"metrics": 13}
    export_runs(two, tmp_path / "x.jsonl", tag="never", force=True)
    assert '"run"' not in (tmp_path / "x.jsonl").read_text()


def test_what_is_missing_or_counts_no_longer_is_told(run: Path, tmp_path: Path) -> None:
    """In each kind of format, as far as the starts that are written go."""
    attempt(run, 1).fill(range(8, 12)).dropped("metrics", 3)
    for form in ("jsonl", "csv", "otlp", "prometheus"):
        result = export_runs(run, tmp_path / form, format=form)
        assert result.left_out == {"metrics": {"loss": 2}}
        assert (result.complete, result.dropped) == (True, 3)
        first = export_runs(run, tmp_path / form, format=form, starts=0, force=True)
        assert (first.dropped, first.left_out) == (0, {})
    path = run / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[100:])
    for form in ("jsonl", "csv", "otlp", "prometheus"):
        assert not export_runs(run, tmp_path / form, format=form, force=True).complete


def test_wrong_arguments_leave_nothing_behind(two: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    for runs, path, more, match in [
        (two, out, {"format": "xml"}, "format must be one of jsonl, csv"),
        (two, tmp_path / "x.xlsx", {}, "no export writes .xlsx; choose .csv or .parquet"),
        ([], out, {}, "name a run to export"),
        ([two[0], two[0]], out, {}, "one is named 2 times"),
        (two, out, {"streams": ["metrics", "log"]}, "a table in csv holds one stream"),
        (two, out, {"streams": "nothing"}, "unknown stream"),
        (two, out, {"starts": 7}, "starts must be"),
        (two, out, {"tag": "always"}, "tag is for JSON Lines"),
        (two, tmp_path / "x.jsonl", {"tag": "some"}, "tag must be"),
        (two, "-", {"format": "otlp"}, "otlp is not written to standard output"),
    ]:
        with pytest.raises(ValueError, match=match):
            export_runs(runs, path, **more)  # type: ignore[arg-type]
    assert names(tmp_path) == ["runs"]


def test_a_directory_is_replaced_only_by_its_like(two: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty one will do
    export_runs(two[0], out, format="otlp")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ExportError, match="exists; use --force"):
        export_runs(two, out, format="otlp")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    export_runs(two[1], out, format="otlp", force=True)
    assert names(out) == ["otlp_metrics.jsonl"]
    (out / "precious").touch()
    with pytest.raises(ExportError, match=r"has files that no such export writes \(precious\)"):
        export_runs(two, out, format="otlp", force=True)
    assert names(out) == ["otlp_metrics.jsonl", "precious"]
    assert names(tmp_path) == ["out", "runs"]


@pytest.mark.parametrize(
    ("target", "match"),
    [
        *[("runs/one", "holds the run"), ("runs", "holds the run"), (".", "holds the run")],
        *[("runs/two/.fastlog/x", "the recorder's own"), ("no/x", "does not exist; create it")],
        ("file", "is a file; name a directory"),
    ],
)
def test_wrong_directories(two: list[Path], tmp_path: Path, target: str, match: str) -> None:
    (tmp_path / "file").touch()
    (two[1] / ".fastlog").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ExportError, match=match):
        export_runs(two, tmp_path / target, format="otlp", force=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("force", [False, True])
def test_a_directory_that_cannot_be_written_leaves_nothing(
    two: list[Path], tmp_path: Path, force: bool, monkeypatch: Patch
) -> None:
    out = tmp_path / "out"
    if force:
        export_runs(two, out, format="otlp")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "disk full")))
    with pytest.raises(ExportError, match="out cannot be written: disk full"):
        export_runs(two, out, format="otlp", force=force)
    assert names(tmp_path) == ["out"] * force + ["runs"]


def test_a_directory_that_comes_meanwhile_is_left(
    run: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    out = tmp_path / "out"

    def come(descriptor: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "precious").touch()

    monkeypatch.setattr(os, "fsync", come)
    with pytest.raises(ExportError, match="was created by another process"):
        export_runs(run, out, format="otlp")
    assert names(out) == ["precious"]


def test_a_directory_that_cannot_be_renamed(run: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Path, "rename", Mock(side_effect=PermissionError(errno.EACCES, "no")))
    with pytest.raises(ExportError, match="out cannot be written: no"):
        export_runs(run, tmp_path / "out", format="otlp")
    assert names(tmp_path) == ["runs"]


def test_an_export_in_the_run_does_no_harm(run: Path) -> None:
    for form, path in (("otlp", "otlp"), ("prometheus", "x.prom"), ("csv", "x.csv")):
        export_runs(run, run / path, format=form)
    assert len(list(read_run(run).lines("metrics"))) == 10
    with pytest.raises(ExportError, match="would look like a file of the run"):
        export_runs(run, run / "metrics.csv.jsonl", format="csv")


def test_the_command_by_ending_and_by_format(
    two: list[Path], tmp_path: Path, command: Command
) -> None:
    said = command("export", *two, "--to", tmp_path / "x.csv").err
    assert "13 rows, " in said
    assert "complete: seq has no gap" in said
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 14
    said = command("export", two[0], "--to", tmp_path / "otlp", "--format", "otlp").err
    assert "11 rows (10 of metrics, 1 of log)" in said
    assert names(tmp_path / "otlp") == ["otlp_logs.jsonl", "otlp_metrics.jsonl"]
    assert "use --force" in command("export", *two, "--to", tmp_path / "x.csv", code=2).err
    command("export", *two, "--to", tmp_path / "x.csv", "--force", "-s", "log")
    refused = command("export", two[0], "--to", tmp_path / "y.csv", "--tag", "always", code=2)
    assert "tag is for JSON Lines" in refused.err


def test_the_command_in_json(two: list[Path], tmp_path: Path, command: Command) -> None:
    target = tmp_path / "x.prom"
    OracleWriter(two[0].parent / "three").metrics(0, note="x")
    written = command("export", *two, two[0].parent / "three", "--to", target, "--json")
    assert written.err == ""
    assert json.loads(written.out) == {
        "path": str(target),
        "format": "prometheus",
        "complete": True,
        "dropped": 0,
        "rows": {"metrics": 2},
        "bytes": target.stat().st_size,
        "left_out": {},
        "notes": ["last values that are no numbers, left out: 1"],
    }
    assert "both write to standard" in command("export", *two, "--to", "-", "--json", code=2).err
    path = two[0] / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[100:])
    shown = command("export", *two, "--to", target, "--force", "--json", code=1)
    assert json.loads(shown.out)["complete"] is False
    said = command("export", *two, "--to", target, "--force", code=1).err
    assert "NOT complete" in said
    assert "metrics.jsonl:1" in said


def test_the_command_names_the_extra(
    run: Path, tmp_path: Path, command: Command, monkeypatch: Patch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "perfetto"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "perfetto", None)
    error = command("export", run, "--to", tmp_path / "x.pftrace", code=2).err
    assert "pip install 'foundry_fastlog[export]'" in error
