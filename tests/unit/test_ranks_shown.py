"""What the command, a summary and the pages show of ranks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from many_ranks import durations, never, slower, write_ranks
from oracle import OracleWriter
from rich.console import Console

from foundry_fastlog import Run, compare_ranks, read_run
from foundry_fastlog.cli.main import main
from foundry_fastlog.pages.ranks import rank_map
from foundry_fastlog.run.launch import find_local_size
from foundry_fastlog.show.ranks import draw_heat_map, render_ranks, render_ranks_shortly


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 ranks, of which rank 37 is slow from step 40 on."""
    path = tmp_path_factory.mktemp("ranks") / "exp0"
    write_ranks(path, durations(40, 100, slower("forward", {37}, 40, factor=1.6)))
    return path


def test_the_command_says_it_first_and_fits_a_terminal(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["ranks", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "exp0  40 ranks (0-39), steps 0 to 99"
    assert lines[1].startswith("Rank 37 is slow since step 4")
    assert "in 'forward': 1.6" in lines[1]
    assert len(lines) <= 50
    assert max(len(line.rstrip()) for line in lines[2:]) <= 96  # sentences are not folded
    assert not any("\x1b" in line for line in lines)
    row = next(line for line in lines if line.startswith("36-38"))
    assert row.split()[1][:20] == "·" * 20
    assert set(row.split()[1][-30:]) <= set("▒▓")
    assert any("a cell is the median of 2 steps, the slowest of 3 ranks" in line for line in lines)
    assert any(line.startswith("What if: S = 1.") for line in lines)
    assert any(line.startswith("Clocks agree within") for line in lines)
    slowest = next(line for line in lines if line.startswith("forward"))
    assert "rank 37" in slowest
    heads = next(line for line in lines if line.startswith("block")).split()
    assert heads == ["block", "call", "p95", "own", "share", "slowest", "its", "own", "score"]
    # Of a block around others the own time alone says which rank is slow by itself.
    whole = next(line for line in lines if line.startswith("step "))
    assert whole.split()[5:7] == ["0", "ns"]
    assert any(line.startswith("call, p95: median and 95th percentile of a call") for line in lines)
    assert "... and 32 more" in "\n".join(lines)


def test_options_of_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ranks", str(run), "--exit-code", "--json", "--ranks", "30:"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["rank"] for one in found["ranks"]] == list(range(30, 40))
    assert found["stragglers"][0]["ranks"] == [37]
    options = ["--rank", "1", "--rank", "2", "--ranks", "4:5", "--steps", "10:49", "--exit-code"]
    assert main(["ranks", str(run), "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["rank"] for one in found["ranks"]] == [1, 2, 4, 5]
    assert (found["first_step"], found["last_step"]) == (10, 49)
    assert main(["ranks", str(run), "--block", "backward", "--collective", "x*"]) == 0
    text = capsys.readouterr().out
    assert "Heat map of block 'backward'" in text
    assert "no block is named as a collective" in text
    for wrong, said in (
        (["--block", "nothing"], "no block is called 'nothing'"),
        (["--ranks", "7"], "--ranks takes FIRST:LAST"),
        (["--ranks", "a:b"], "--ranks takes FIRST:LAST"),
        (["--rank", "99"], "has no rank 99; it has 0-39"),
        (["--rank", "1", "--rank", "77"], "has no rank 77; it has 0-39"),
        (["--ranks", "50:"], "has none of these ranks; it has 0-39"),
        (["--threshold", "2"], "threshold"),
        (["--ranks-per-host", "9" * 20], "ranks_per_host must be between 1 and"),
        (["--steps", "1000:"], "timed a step in 1000:; it has steps 0 to 99"),
        (["--steps", "60:40", "--block", "forward"], "in 60:40; it has steps 0 to 99"),
    ):
        assert main(["ranks", str(run), *wrong]) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")


def test_what_cannot_be_compared_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    OracleWriter(tmp_path / "none").fill(range(3))
    assert main(["ranks", str(tmp_path / "none")]) == 0
    assert "the run has no timings" in capsys.readouterr().out
    write_ranks(tmp_path / "one", durations(1, 40))
    assert main(["ranks", str(tmp_path / "one")]) == 0
    text = capsys.readouterr().out
    assert "only rank 0 timed blocks" in text
    assert "Heat map" not in text
    render_ranks_shortly(compare_ranks(tmp_path / "one"), Console())
    assert capsys.readouterr().out == ""
    assert main(["ranks", str(tmp_path / "absent")]) == 2
    with (tmp_path / "one" / "performance.jsonl").open("a") as handle:
        handle.write("damaged\n")
    assert main(["ranks", str(tmp_path / "one")]) == 1
    assert "note: lines are missing or damaged: foundry" in capsys.readouterr().err


def test_without_numpy_it_says_how_to_get_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "foundry_fastlog.analysis.ranks", None)
    with pytest.raises(ModuleNotFoundError):
        main(["summary", str(run)])
    monkeypatch.delitem(sys.modules, "foundry_fastlog.analysis.ranks")
    monkeypatch.setitem(sys.modules, "numpy", None)
    for name in list(sys.modules):
        if name.startswith("foundry_fastlog.analysis.rank") or name.endswith("show.ranks"):
            monkeypatch.delitem(sys.modules, name)
    capsys.readouterr()
    assert main(["ranks", str(run)]) == 2
    assert "foundry_fastlog[plot]" in capsys.readouterr().err
    assert main(["summary", str(run)]) == 0
    assert "times by rank need numpy" in capsys.readouterr().err


def test_a_summary_of_many_ranks_fits_a_screen(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary", str(run)]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 40
    assert "Rank 37 is slow since step 4" in text
    assert "performance.r1.jsonl" not in text
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["performance"][1:3] == ["40", "40"]
    assert rows["performance"][-1] == "all"
    assert rows["0"][:3] == ["0", "0-39", "40"]
    for rank in range(9):
        writer = OracleWriter(tmp_path, rank=rank).fill(range(rank, 5 + rank))
    writer.torn("metrics", b'{"torn')
    assert main(["summary", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "all but 1" in text
    assert "0 to 8" in text


def test_ranks_side_by_side_open_the_run_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened for each of 512, each file would be looked at 512 times. Problems stay apart."""
    for rank in range(3):
        writer = OracleWriter(tmp_path, rank=rank).fill(range(4))
        if rank == 1:
            writer.torn("metrics", b"damaged\n")
    opened = []
    one = Run.__init__

    def counted(self: Run, *arguments: Any, **options: Any) -> None:
        opened.append(self)
        one(self, *arguments, **options)

    monkeypatch.setattr(Run, "__init__", counted)
    assert main(["summary", str(tmp_path), "--ranks", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["ranks"]
    assert len(opened) == 1
    assert [len(found[rank]["problems"]) for rank in "012"] == [0, 1, 0]


def test_a_heat_map_is_honest_without_colour_and_with_ascii(tmp_path: Path) -> None:
    """Ranks that are not there are blank; one row a rank where there is room."""
    write_ranks(tmp_path, durations(3, 30, slower("data", {1}, 15, factor=9)), begins={2: 20})
    found = compare_ranks(tmp_path).heat_map
    assert found is not None
    console = Console(width=60, force_terminal=False, legacy_windows=False)
    lines = draw_heat_map(found, console).plain.splitlines()
    assert lines[1] == "0 " + "·" * 30
    assert lines[2][2:17] == "·" * 15
    assert lines[2][17:] == "█" * 15
    assert lines[3][2:22] == " " * 20
    assert lines[-1].strip() == "a cell is one step"
    console = Console(width=60, file=open("/dev/null", "w", encoding="ascii"))  # noqa: SIM115, PTH123
    ascii_only = draw_heat_map(found, console).plain
    console.file.close()
    assert ascii_only.isascii()
    assert "#" * 15 in ascii_only
    assert "# 1.5 or more" in ascii_only


def test_clocks_that_differ_and_hosts_are_said(tmp_path: Path) -> None:
    times = durations(8, 100, slower("data", {6, 7}, 50, factor=3))
    write_ranks(tmp_path, times, clocks={3: -0.25})
    with (tmp_path / "out").open("w+", encoding="utf-8") as file:
        console = Console(width=90, file=file)
        render_ranks(compare_ranks(tmp_path, ranks_per_host=2), console)
        file.seek(0)
        text = file.read()
    assert "Clock of rank 3: 250 ms behind the median rank's" in text
    assert "Host 3 (ranks 6-7) is slow since step 5" in text
    assert "host 3" in text.partition("own history")[2]


def test_clocks_agree_within_what_a_drift_comes_to(tmp_path: Path, command: Any) -> None:
    """A clock that loses 10 ms a step is 2 s off in the end; its median is 1 s."""
    for rank in range(4):
        writer = OracleWriter(tmp_path, rank=rank, tick_s=0.1 if rank != 2 else 0.11)
        for step in range(200):
            writer.timing("barrier", 0.05, step)
    said = command("ranks", tmp_path).out.rpartition("Clocks agree within ")[2]
    assert 1.99 <= float(said.partition(" s ")[0]) <= 3.0


def test_a_page_gets_what_it_shows(run: Path, tmp_path: Path) -> None:
    found = rank_map(read_run(run), "latest")
    assert found is not None
    assert found["slow"] == [[[37], found["slow"][0][1], None]]
    assert len(found["ranks"]) == 40
    assert found["heat"]["last"] == 99
    OracleWriter(tmp_path).timing("step", 1.0, 0)
    assert rank_map(read_run(tmp_path), "latest") is None
    for rank in range(2):
        OracleWriter(tmp_path / "b", rank=rank).timing("step", 1.0)
    empty = rank_map(read_run(tmp_path / "b"), "latest")
    assert empty is not None
    assert empty["heat"] is None


def test_how_many_ranks_a_host_has(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
    for name in (*names, "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    assert find_local_size() is None
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "8")
    assert find_local_size() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert find_local_size() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "many")
    assert find_local_size() == 8


def test_a_run_without_anything_slow_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ranks(tmp_path, durations(3, 40, never), collective=None)
    assert main(["ranks", str(tmp_path), "--exit-code"]) == 0
    assert "No rank is a straggler (scores below 0.9 would be)." in capsys.readouterr().out
