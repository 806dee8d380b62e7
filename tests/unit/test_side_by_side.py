"""Summaries of several runs, of one rank, and of all ranks side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracle import OracleWriter

from foundry_fastlog import Recorder, read_run
from foundry_fastlog.cli.summary import _headings

Command = Callable[..., Any]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two runs of the same name, and one with three ranks and many metrics."""
    for parent, loss in (("a", 1.5), ("b", 2.5)):
        writer = OracleWriter(tmp_path / parent / "exp", tick_s=1.0)
        writer.fill(range(5), loss=loss, **({"acc": 0.5} if parent == "b" else {}))
        writer.error("boom", ValueError("bad"), step=1)
    for rank in range(3):
        writer = OracleWriter(tmp_path / "ranks", rank=rank)
        writer.fill(range(3 + rank), loss=float(rank), **{f"m{n}": 1.0 for n in range(25)})
        writer.timing("step", 0.5 + rank, step=1)
        writer.log(f"rank {rank}")
    return tmp_path


def table_of(text: str) -> dict[str, list[str]]:
    """The rows of a table by their first word."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    return {row[0]: row[1:] for row in rows}


def test_runs_are_columns_and_metrics_rows(tree: Path, command: Command) -> None:
    shown = table_of(command("summary", tree / "a" / "exp", tree / "b" / "exp").out)
    assert shown["a/exp"] == ["b/exp"]
    assert shown["loss"] == ["1.5", "2.5"]
    assert shown["acc"] == ["-", "0.5"]
    assert shown["steps"] == ["0", "to", "4", "0", "to", "4"]
    assert shown["time"] == ["5", "s", "5", "s"]
    assert shown["errors"] == ["1", "1"]
    assert shown["complete"] == ["yes", "yes"]
    assert shown["state"] == ["unknown", "unknown"]
    with Recorder(tree / "closed") as recorder:
        recorder.record(1, loss=1.0)
    both = command("summary", tree / "closed", tree / "a" / "exp").out
    assert table_of(both)["state"] == ["ended", "unknown"]  # the words of runs


def test_ranks_are_columns(tree: Path, command: Command) -> None:
    text = command("summary", tree / "ranks", "--ranks").out
    shown = table_of(text)
    assert shown["0"] == ["1", "2"]
    assert shown["loss"] == ["0", "1", "2"]
    assert shown["steps"] == ["0", "to", "2", "0", "to", "3", "0", "to", "4"]
    assert "... and 6 more metrics" in text
    assert "state" not in shown
    few = table_of(command("summary", tree / "ranks", "--ranks", "-m", "m1*").out)
    assert len([name for name in few if name.startswith("m1")]) == 11


def test_one_rank(tree: Path, command: Command) -> None:
    """As the files of that rank say."""
    found = read_run(tree / "ranks").summary(rank=2)
    assert (found.metric("loss").last, found.last_step, found.ranks) == (2.0, 4, (2,))
    assert [timing.total_s for timing in found.timings] == [2.5]
    assert {check.series.writer.rank for check in found.checks} == {2}
    assert found.log_by_level == {"INFO": 1}
    whole = read_run(tree / "ranks").summary()
    assert whole.metric("loss").count == 3 + 4 + 5
    assert (
        json.loads(command("summary", tree / "ranks", "--rank", 2, "--json").out)["last_step"] == 4
    )
    with pytest.raises(ValueError, match="has no rank 7; it has 0, 1, 2"):
        read_run(tree / "ranks").summary(rank=7)
    assert "has no rank 7" in command("summary", tree / "ranks", "--rank", 7, code=2).err


def test_json_has_all_of_each(tree: Path, command: Command) -> None:
    paths = [tree / "a" / "exp", tree / "b" / "exp"]
    several = json.loads(command("summary", *paths, "--json").out)["runs"]
    assert several == {
        str(path): json.loads(command("summary", path, "--json").out) for path in paths
    }
    ranks = json.loads(command("summary", tree / "ranks", "--ranks", "--json").out)["ranks"]
    assert [ranks[rank]["last_step"] for rank in "012"] == [2, 3, 4]


def test_what_does_not_fit_is_named(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    runs = [
        OracleWriter(tmp_path / f"a_rather_long_name_{n}").fill(range(2), loss=1e-9 * n).run
        for n in range(30)
    ]
    text = command("summary", *runs).out
    table, _, note = text.partition("runs that do not fit: ")
    assert max(map(len, table.splitlines())) <= 80
    assert note.startswith("a_rather_long_name_")
    assert note.strip().endswith("more; --json has them all")
    monkeypatch.setenv("COLUMNS", "20")
    assert "runs that do not fit: a_rather_long_name_1, " in command("summary", *runs[:3]).out


def test_wrong_usage_and_incomplete_runs(
    tree: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tree / "a" / "exp", tree / "b" / "exp"
    for options in (("--ranks", one, other), ("--ranks", "--rank", 0, one)):
        assert "--ranks takes one run" in command("summary", *options, code=2).err
    assert "no metric fits foo" in command("summary", one, other, "-m", "foo").out
    monkeypatch.chdir(one)
    assert table_of(command("summary", ".", other).out)["."] == ["exp"]
    path = other / "metrics.jsonl"
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    assert table_of(command("summary", one, other, code=1).out)["complete"] == ["yes", "NO"]


def test_headings_are_the_shortest_ends_that_differ(tmp_path: Path, command: Command) -> None:
    runs = [tmp_path / str(n) / "x" / "y" / "exp" for n in range(2)]
    for run in runs:
        OracleWriter(run).log("no steps")
    assert _headings(runs) == [str(run) for run in runs]
    assert _headings([runs[0], *runs]) == [str(run) for run in runs]
    assert _headings(runs[:1]) == ["exp"]
    shown = table_of(command("summary", *runs).out)
    assert (shown["steps"], shown["complete"]) == (["-", "-"], ["yes", "yes"])
