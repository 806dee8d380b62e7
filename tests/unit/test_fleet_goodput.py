"""Where the time of many runs went: what each is split into, weighted by its ranks, and kept."""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleets import hold_batch, kill_one_of, make_timed
from oracle import OracleWriter
from recorded import run_python

from foundry_fastlog import Fleet, Recorder, read_run
from foundry_fastlog.analysis.goodput import KINDS
from foundry_fastlog.analysis.runs_cache import cache_file
from foundry_fastlog.fleet import crew, findings, goodput_study
from foundry_fastlog.fleet.findings import read_finding
from foundry_fastlog.run.tree import find_all_runs

pytest.importorskip("distributed")

Command = Callable[..., Any]
Patch = pytest.MonkeyPatch
pytestmark = pytest.mark.usefixtures("cache_home")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Runs of 1, 8 and 64 ranks, one of which was started again with fewer."""
    root = tmp_path / "tree"
    make_timed(root / "small", config={"lr": 1})
    make_timed(root / "wide", world=64, config={"lr": 1})
    make_timed(root / "again", world=8, how="exception", config={"lr": 2})
    make_timed(root / "again", start=1, world=2, after_s=90.0, config={"lr": 2})
    return root


def test_goodput_is_that_of_each_run_by_its_ranks(tree: Path, client: Any) -> None:
    """The parts of `goodput RUN`, each second times the ranks of its start."""
    (found,) = Fleet(tree, client).goodput()
    alone = {name: read_run(tree / name).goodput() for name in ("small", "wide", "again")}
    assert (found.key, found.runs, found.running, found.steps) == (None, 3, 0, 80)
    assert list(found.parts) == list(found.device_parts) == list(KINDS)
    for kind in KINDS:
        assert found.parts[kind] == pytest.approx(sum(one.parts[kind] for one in alone.values()))
    assert found.wall_s == pytest.approx(sum(one.wall_s for one in alone.values()))
    first, second = alone["again"].starts
    dead = 2 * second.dead_s  # until the second start began, its ranks waited
    assert alone["again"].parts["dead"] == second.dead_s > 50
    assert found.device_parts["dead"] == dead
    device_s = alone["small"].wall_s + 64 * alone["wide"].wall_s
    device_s += 8 * first.wall_s + 2 * second.wall_s + dead
    assert found.device_s == pytest.approx(device_s)
    assert math.fsum(found.device_parts.values()) == pytest.approx(found.device_s)
    ideal_s = 20 * 1 + 20 * 64 + 20 * 8 + 20 * 2
    assert found.goodput == pytest.approx(ideal_s / device_s, rel=1e-3)
    lost = [found.device_parts[kind] for kind in ("start_up", "again", "stalls", "dead")]
    assert found.ettr == pytest.approx(1 - math.fsum(lost) / device_s)
    assert found.runtime_goodput == pytest.approx(found.ettr * device_s / (device_s - dead))


def test_one_run_of_one_rank_is_as_it_is_alone(tmp_path: Path, client: Any) -> None:
    make_timed(tmp_path / "runs" / "one")
    (found,) = Fleet(tmp_path / "runs", client).goodput()
    alone = read_run(tmp_path / "runs" / "one").goodput()
    assert found.parts == found.device_parts == alone.parts
    assert (found.goodput, found.ettr) == pytest.approx((alone.goodput, alone.ettr))


def test_the_worst_runs_lost_the_most_device_time_and_to_what(tree: Path, client: Any) -> None:
    fleet = Fleet(tree, client)
    (found,) = fleet.goodput()
    assert [one.run for one in found.worst] == ["wide", "again", "small"]
    assert found.worst[0].ranks == 64
    assert found.worst[0].lost_device_s == pytest.approx(64 * 4, rel=0.01)
    assert "of waiting for data" in found.worst[0].largest_loss
    assert "between starts" in found.worst[1].largest_loss
    assert [one.run for one in fleet.goodput(worst=1)[0].worst] == ["wide"]
    told = json.loads(json.dumps(found.to_dict()))
    assert told["worst"][0]["lost_device_s"] == found.worst[0].lost_device_s
    assert told["device_s"] == found.device_s


def test_runs_are_together_by_a_value_the_most_device_time_first(tree: Path, client: Any) -> None:
    fleet = Fleet(tree, client)
    groups = fleet.goodput("config.lr")
    assert [(one.key, one.runs) for one in groups] == [(1, 2), (2, 1)]
    (found,) = fleet.goodput()
    assert math.fsum(one.device_s for one in groups) == pytest.approx(found.device_s)
    chosen = Fleet(tree, client, where="config.lr == 2").goodput()
    assert [one.device_s for one in chosen] == [groups[1].device_s]


def test_what_was_measured_is_kept_until_a_run_changes(
    tree: Path, client: Any, monkeypatch: Patch
) -> None:
    """Nobody is started where nothing changed, and what is chosen now does not lose the rest."""
    studied = []
    study = goodput_study.measure_goodput

    def count(run: Any) -> Any:
        studied.append(run.path.name)
        return study(run)

    monkeypatch.setattr(goodput_study, "measure_goodput", count)
    fleet = Fleet(tree, client)
    first = fleet.goodput()
    assert fleet.goodput() == first
    assert sorted(studied) == ["again", "small", "wide"]
    with Fleet(tree, "tcp://127.0.0.1:1") as nobody:
        assert nobody.goodput() == first
        assert len(nobody.goodput("config.lr")) == 2
    make_timed(tree / "small", start=1, after_s=200.0)
    shutil.rmtree(tree / "wide")
    del studied[:]
    (found,) = Fleet(tree, client, where="config.lr == 2").goodput()
    assert (found.runs, studied) == (1, [])
    (found,) = Fleet(tree, client).goodput()
    assert (found.runs, studied) == (2, ["small"])
    assert Fleet(tree, "tcp://127.0.0.1:1").goodput()[0] == found
    cache_file(tree, "goodput").write_bytes(b"damaged")
    assert Fleet(tree, client).goodput() == [found]
    assert sorted(studied) == ["again", "small", "small"]


def test_a_run_that_runs_is_measured_anew_until_it_ends(tmp_path: Path, client: Any) -> None:
    root = tmp_path / "runs"
    fleet = Fleet(tmp_path, client)
    with Recorder(root / "live") as recorder:
        for step in range(3):
            with recorder.timer("step", step=step):
                pass
        recorder.flush()
        (found,) = fleet.goodput()
        assert (found.runs, found.running, found.worst[0].running) == (1, 1, True)
        assert found.incomplete == ()
        fleet.look()
        assert fleet.goodput()[0].wall_s > found.wall_s
    fleet.look()
    assert fleet.goodput()[0].running == 0
    assert Fleet(tmp_path, "tcp://127.0.0.1:1").goodput()[0].runs == 1


def test_what_cannot_be_measured_is_told_and_counted(
    tree: Path, client: Any, monkeypatch: Patch
) -> None:
    """Removed meanwhile, refused, damaged, empty: none of them stops the others."""
    with (tree / "wide" / "performance.jsonl").open("ab") as file:
        file.write(b"\xff{broken\n")
    OracleWriter(tree / "empty")
    make_timed(tree / "gone")
    make_timed(tree / "refused")
    make_timed(tree / "odd")
    read = findings.read_run

    def shy(path: Path) -> Any:
        if path.name == "gone":
            shutil.rmtree(path)
        if path.name == "refused":
            raise PermissionError(13, "Permission denied")
        if path.name == "odd":
            raise KeyError("odd")
        return read(path)

    fleet = Fleet(tree, client)
    fleet.look()
    monkeypatch.setattr(findings, "read_run", shy)
    (found,) = fleet.goodput()
    assert found.runs == 3
    assert found.incomplete == ("wide",)
    assert list(found.empty) == ["empty"]
    assert "no records yet" in found.empty["empty"]
    assert found.unreadable == {
        "gone": "is gone: it was removed meanwhile",
        "refused": "cannot be read: Permission denied",
        "odd": "cannot be read: KeyError: 'odd'",
    }
    monkeypatch.setattr(findings, "read_run", read)
    fleet.look()
    assert fleet.goodput()[0].unreadable == {}
    assert fleet.goodput()[0].runs == 5


def test_a_key_that_is_missing_is_a_fault_and_not_an_empty_run(
    tree: Path, monkeypatch: Patch
) -> None:
    def broken(run: Any) -> Any:
        raise KeyError("x")

    monkeypatch.setattr(goodput_study, "measure_goodput", broken)
    found = read_finding(goodput_study.study_goodput, next(find_all_runs(tree)))
    assert json.loads(found.line) == {"unreadable": "cannot be read: KeyError: 'x'"}
    assert not found.is_sure


def test_a_run_that_no_worker_survives_costs_itself_alone(
    tree: Path, client: Any, monkeypatch: Patch
) -> None:
    """And runs that were unreadable from the first are not tried again."""
    fleet = Fleet(tree, client)
    fleet.look()
    monkeypatch.setattr(crew, "_do", _fails_on_wide)
    (found,) = fleet.goodput()
    assert (found.runs, found.unreadable) == (2, {"wide": "MemoryError: too large"})
    cache_file(tree).unlink()
    again = Fleet(tree, client)
    assert again.goodput()[0].unreadable == {"wide": "MemoryError: too large"}


def _fails_on_wide(work: Callable[[Any], Any], batch: list[Any]) -> Any:
    if any(found.name == "wide" for found in batch):
        raise MemoryError("too large")
    return [work(found) for found in batch], 0.1


def test_what_is_said_is_in_the_order_of_names(tree: Path) -> None:
    """Whoever was read first: sums of it are always the same."""

    class Backwards:
        def each(self, work: Any, items: Any, progress: Any) -> Any:
            return reversed([work(one) for one in sorted(items, key=lambda one: one.name)])

    fleet = Fleet(tree)
    fleet._crew = Backwards()  # type: ignore[assignment]
    fleet.goodput()
    assert list(fleet._said["goodput"]) == ["again", "small", "wide"]


@pytest.mark.slow
def test_a_worker_that_is_killed_in_mid_task_has_its_runs_measured_by_another(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    root, place = tmp_path / "runs", tmp_path / "held"
    for number in range(8):
        make_timed(root / f"r{number}", world=2)
    place.mkdir()
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    with Fleet(root, workers=2) as fleet:
        fleet.look()
        monkeypatch.setattr(crew, "_do", functools.partial(hold_batch, str(place)))
        killer = kill_one_of(place)
        (found,) = fleet.goodput()
        killer.join()
    assert (found.runs, found.steps, found.unreadable) == (8, 160, {})
    (alone,) = Fleet(root, "tcp://127.0.0.1:1").goodput()
    assert alone == found


def test_the_command_shows_goodput_and_the_worst_runs(
    tree: Path, command: Command, client: Any
) -> None:
    Fleet(tree, client).goodput()
    OracleWriter(tree / "empty")
    Fleet(tree, client).goodput()
    said = command("fleet", tree, "--goodput", "--by", "config.lr", "-n", 2).out
    assert "goodput 7" in said
    assert "in 3 runs" in said
    assert "What ran longer than its steps at their ideal" in said
    assert "wide: the largest loss: " in said
    assert "small: " not in said
    assert "Goodput by config.lr" in said
    assert "1 run not counted" in said
    assert "Failures" not in said
    found = json.loads(command("fleet", tree, "--goodput", "--json").out)
    assert set(found) == {"totals", "goodput", "unreadable"}
    assert found["goodput"]["runs"] == 3
    found = json.loads(command("fleet", tree, "--goodput", "--by", "config.lr", "--json").out)
    assert [one["key"] for one in found["goodput_by"]] == [1, 2, None]
    assert "--compact" in command("fleet", tree, "--goodput", "--compact", "x", code=2).err


def test_the_command_shows_where_nothing_was_measured_and_what_is_damaged(
    tmp_path: Path, command: Command, client: Any
) -> None:
    root = tmp_path / "runs"
    OracleWriter(root / "empty")
    Fleet(root, client).goodput()
    said = command("fleet", root, "--goodput", "--by", "state").out
    assert "goodput - of 0 ns x ranks in 0 runs" in said
    make_timed(root / "bad")
    with (root / "bad" / "performance.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    Fleet(root, client).goodput()
    said = command("fleet", root, "--goodput", code=1).out
    assert "bad: lines are missing or damaged" in said
    with Recorder(root / "live") as recorder:
        recorder.record(0, loss=1.0)
        recorder.flush()
        said = command(
            "fleet", root, "--goodput", "--scheduler", client.scheduler.address, code=1
        ).out
    assert "1 of which run: until now" in said


def test_without_numpy_an_error_says_how_to_get_it_and_the_rest_works(tmp_path: Path) -> None:
    script = """
import sys; sys.modules["numpy"] = None
from foundry_fastlog import Fleet
fleet = Fleet(sys.argv[1])
for ask in (fleet.goodput, fleet.hosts):
    try:
        ask()
    except ImportError as error:
        assert "foundry_fastlog[fleet]" in str(error), error
    else:
        raise AssertionError
assert len(fleet.runs()) == 0
"""
    (tmp_path / "runs").mkdir()
    run_python(script, tmp_path / "runs")
