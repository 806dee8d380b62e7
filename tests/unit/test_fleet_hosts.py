"""Hosts that are slow in many runs: they are found, and nobody is accused by chance."""

from __future__ import annotations

import functools
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Sequence
from math import comb
from pathlib import Path
from typing import Any

import pytest
from fleets import hold_batch, kill_one_of, make_timed, make_wide

from foundry_fastlog import Fleet, Recorder, compare_ranks, read_run
from foundry_fastlog.fleet import crew, findings, host_study, hosts
from foundry_fastlog.fleet.hosts import FleetHosts, judge_hosts

pytest.importorskip("distributed")

Command = Callable[..., Any]
Patch = pytest.MonkeyPatch
pytestmark = pytest.mark.usefixtures("cache_home")
ROOT = Path(__file__).parents[2]
NAMES = [f"node{number}" for number in range(12)]
SEEDS = range(20)


# ---- what many runs say, by quick arithmetic -----------------------------------------------------


def said_of(
    times: Sequence[float], names: Sequence[str], per_host: int, run: int = 0
) -> dict[str, Any]:
    """What a worker would say of a run whose ranks take such times."""
    typical = sorted(times)[(len(times) - 1) // 2]
    ratios = [one / typical for one in times]
    start: dict[str, Any] = {"seen": f"2026-01-30T14:{run // 60:02d}:{run % 60:02d}.000000Z"}
    start |= {"ranks": len(times), "steps": 100, "slowest": times.index(max(times)), "hosts": {}}
    start["has_straggler"] = max(ratios) > 1.1
    for at, name in enumerate(names):
        ranks = list(range(at * per_host, (at + 1) * per_host))
        ratio = max(ratios[rank] for rank in ranks)
        facts = {"ratio": ratio, "lost_s": 10 * (ratio - 1), "straggler": ratio > 1.1}
        start["hosts"][name] = {"ranks": ranks, **facts}
    return {"starts": [start], "complete": True}


def simulated(
    seed: int,
    *,
    runs: int = 200,
    count: int = 40,
    jitter: float = 0.01,
    slow: dict[str, float] | None = None,
    share: float = 1.0,
    first: float = 1.0,
    in_order: bool = False,
) -> FleetHosts:
    """Judge hosts by runs of 2 to 8 of them, 4 ranks each, that change from run to run.

    Args:
        seed: Of all chance.
        runs: How many.
        count: How many hosts there are.
        jitter: Standard deviation of a rank's time.
        slow: Hosts one rank of which takes that many times as long.
        share: In which share of their runs.
        first: How many times as long the first rank takes, wherever it is.
        in_order: Whether a scheduler sorts the hosts of a run.
    """
    chance = random.Random(seed)
    said = {}
    for run in range(runs):
        numbers = chance.sample(range(count), chance.choice([2, 4, 8]))
        names = [f"node{number}" for number in (sorted(numbers) if in_order else numbers)]
        times = [1 + chance.gauss(0, jitter) for _ in range(4 * len(names))]
        times[0] *= first
        for at, name in enumerate(names):
            if name in (slow or {}) and chance.random() < share:
                times[4 * at + 2] *= (slow or {})[name]
        said[f"run{run}"] = said_of(times, names, 4, run)
    return judge_hosts(said)


@pytest.mark.parametrize(
    "odd",
    [
        *({}, {"jitter": 0.2}, {"runs": 20}, {"first": 1.3}),
        {"first": 1.3, "in_order": True},
    ],
    ids=["jitter", "much jitter", "few runs", "slow first ranks", "always on the same hosts"],
)
def test_no_host_is_accused_by_chance(odd: dict[str, Any]) -> None:
    """Of 20 x 200 runs, nor where a rank has more work than the others."""
    for seed in SEEDS:
        found = simulated(seed, **odd)
        assert found.suspects == ()
        assert found.sentences[0].startswith("No host is the slowest in more of ")


@pytest.mark.parametrize(
    ("slow", "share", "least"),
    [
        ({"node7": 1.2}, 1.0, 20),
        ({"node7": 1.05}, 1.0, 20),
        ({"node7": 1.3}, 0.5, 17),
        ({"node3": 1.2, "node7": 1.3}, 1.0, 18),
    ],
    ids=["slow", "a little slow", "now and then", "two of them"],
)
def test_a_slow_host_is_found_beside_whomever_it_runs(
    slow: dict[str, float], share: float, least: int
) -> None:
    found = [simulated(seed, slow=slow, share=share) for seed in SEEDS]
    named = [{one.host for one in one_of.suspects} for one_of in found]
    assert all(names <= set(slow) for names in named)
    assert sum(names == set(slow) for names in named) >= least
    host = found[0].suspects[0]
    assert found[0].hosts[0] is host
    assert host.slowest > host.expected
    assert host.sentence.startswith(f"{host.host} is slow: the slowest in {host.slowest} of ")
    assert host.sentence == found[0].sentences[0]


def test_one_host_that_is_slow_with_the_first_rank_is_still_found() -> None:
    """Where a scheduler sorts hosts, and first ranks have a little more work."""
    found = [simulated(seed, slow={"node7": 1.3}, first=1.1, in_order=True) for seed in SEEDS]
    named = [tuple(one.host for one in one_of.suspects) for one_of in found]
    assert set(named) <= {("node7",), ()}
    assert named.count(("node7",)) >= 18


def test_the_chance_of_so_many_is_that_of_the_binomial() -> None:
    for count, hits, chance in ((20, 7, 0.25), (5, 5, 0.5), (3, 1, 0.01)):
        tail = math.fsum(
            comb(count, n) * chance**n * (1 - chance) ** (count - n) for n in range(hits, count + 1)
        )
        assert hosts._tail([chance] * count, hits) == pytest.approx(tail, rel=1e-12)
    assert hosts._tail([0.5], 0) == hosts._tail([0.5, 0.6], 1) == 1.0  # not more than expected
    assert hosts._tail([0.1, 0.9], 2) == pytest.approx(0.09)
    assert hosts._tail([], 1) == 0.0


def test_a_chance_that_is_too_small_has_no_digits() -> None:
    (host,) = simulated(0, slow={"node7": 1.3}, runs=1000).suspects
    assert host.p_value < 1e-12
    assert "by chance (p < 1e-12), 1.30 x" in host.sentence
    assert hosts.format_chance(0.0123) == "0.01"


def test_tests_of_many_hosts_are_corrected_after_holm() -> None:
    found = hosts._holm({"a": 0.01, "b": 0.5, "c": 0.02, "d": 0.03})
    assert found == pytest.approx({"a": 0.04, "c": 0.06, "d": 0.06, "b": 0.5})


def test_a_host_that_is_hardly_slower_is_no_suspect() -> None:
    """However sure it is that it is: 1 % is not worth a repair."""
    found = simulated(0, slow={"node7": 1.01}, jitter=1e-4)
    host = next(one for one in found.hosts if one.host == "node7")
    assert host.p_value < 1e-6
    assert not host.suspect
    assert host.sentence.startswith("node7 is no suspect: the slowest in ")


def test_a_host_with_the_same_ranks_in_all_runs_is_said_to_be_so() -> None:
    said = {}
    for run in range(12):
        names = ["node0", *(f"node{run * 3 + other}" for other in range(1, 4))]
        said[f"run{run}"] = said_of([1.3, *[1 + 0.001 * rank for rank in range(7)]], names, 2, run)
    (host,) = judge_hosts(said).suspects
    assert (host.host, host.always) == ("node0", (0, 1))
    assert host.sentence.endswith("same ranks in all of them, whose work may be what is slow.")


def test_starts_of_one_run_are_one_witness() -> None:
    """The one with the most steps: a run that fails again and again accuses nobody."""
    facts = said_of([1.0, 1.01, 1.3, 1.02], ["a", "b"], 2)
    (start,) = facts["starts"]
    starts = [{**start, "steps": steps} for steps in range(100, 150)]
    short = {**start, "slowest": None}
    found = judge_hosts({"run": {"starts": [short, *starts], "complete": True}})
    b = next(one for one in found.hosts if one.host == "b")
    assert (b.runs, b.compared, b.slowest, b.straggler) == (1, 1, 1, 1)
    assert b.lost_s == pytest.approx(51 * start["hosts"]["b"]["lost_s"])
    assert b.worst == ("run",)
    assert found.suspects == ()


# ---- what workers say of runs ----------------------------------------------------------------


def plant(root: Path, runs: int = 10, **options: Any) -> None:
    """Runs on three of twelve hosts each; the last rank of node5 is slow, which all runs have."""
    for run in range(runs):
        others = [name for name in NAMES if name != "node5"]
        names = [*random.Random(run).sample(others, 2)]
        names.insert(run % 3, "node5")
        make_wide(root / f"run{run}", names, slow={"node5": 1.3}, seed=run, **options)


def test_a_slow_host_is_found_in_files_of_runs(tmp_path: Path, client: Any) -> None:
    """With its neighbours from run to run others."""
    plant(tmp_path)
    make_timed(tmp_path / "alone")
    found = Fleet(tmp_path, client).hosts()
    (host,) = found.suspects
    assert (host.host, host.runs, host.compared, host.slowest) == ("node5", 10, 10, 10)
    assert host.straggler == 10
    assert host.expected == pytest.approx(10 / 3, abs=1.5)
    assert host.always == ()
    assert host.ratio == pytest.approx(1.1, abs=0.04)  # of all own work, a third of which is slow
    alone = [compare_ranks(tmp_path / f"run{run}") for run in range(10)]
    lost = [(one.slowdown - 1) * one.ideal_s for one in alone]  # type: ignore[operator]
    assert host.lost_s == pytest.approx(sum(lost), rel=0.4)
    assert host.lost_device_s == pytest.approx(6 * host.lost_s)
    assert host.last == "2026-01-30T14:33:15.123456Z"
    assert len(host.worst) == 5
    assert (found.runs, found.compared, found.single) == (10, 10, 1)
    told = json.loads(json.dumps(found.to_dict()))
    assert told["sentences"] == found.sentences == [host.sentence]
    assert told["hosts"][0]["sentence"] == host.sentence


def test_nobody_is_accused_by_files_of_runs_that_are_well(tmp_path: Path, client: Any) -> None:
    for run in range(8):
        names = random.Random(run).sample(NAMES, 3)
        make_wide(tmp_path / f"run{run}", names, seed=run)
    found = Fleet(tmp_path, client).hosts()
    assert (found.suspects, found.compared) == ((), 8)
    assert sum(one.slowest for one in found.hosts) == 8
    assert {one.straggler for one in found.hosts} == {0}


def test_runs_that_compare_no_hosts_are_counted(tmp_path: Path, client: Any) -> None:
    make_timed(tmp_path / "one rank")
    make_wide(tmp_path / "one host", ["node1"], per_host=4)
    make_wide(tmp_path / "short", ["node1", "node2"], steps=20)
    with Recorder(tmp_path / "no timings", rank=0, launch="x") as first:
        first.record(0, loss=1.0)
    with Recorder(tmp_path / "no timings", rank=1, launch="x") as second:
        second.record(0, loss=1.0)
    make_wide(tmp_path / "no names", ["", "node2"], told=False)
    make_wide(tmp_path / "half", ["node1", "node2", "node3"], told=False)
    found = Fleet(tmp_path, client).hosts()
    assert (found.single, found.alone, found.short, found.unnamed) == (2, 1, 1, 1)
    assert (found.runs, found.compared) == (4, 1)
    assert {one.host for one in found.hosts} == {"node1", "node2"}
    alone = Fleet(tmp_path, client, where='run == "one host"').hosts()
    assert alone.sentences[0].startswith("No run compares hosts")
    assert alone.hosts[0].sentence == "node1 is in no run that compares it with other hosts."
    assert alone.hosts[0].p_value == 1.0


def test_hosts_are_those_of_each_start(tmp_path: Path, client: Any) -> None:
    """A run that went on elsewhere was on both; only ranks that told are on a host by name."""
    make_wide(tmp_path / "run", ["a", "b"], slow={"b": 1.3})
    make_wide(tmp_path / "run", ["c", "d"], start=1, steps=48)
    make_wide(tmp_path / "run", ["e"], start=2, per_host=1)
    make_wide(tmp_path / "few", ["a", "b", "c"], per_host=None)
    found = {one.host: one for one in Fleet(tmp_path, client).hosts().hosts}
    assert {name: (one.runs, one.straggler) for name, one in found.items()} == {
        "a": (2, 0),
        "b": (2, 1),
        "c": (2, 0),
        "d": (1, 0),
    }
    assert (found["b"].compared, found["c"].compared, found["d"].compared) == (2, 1, 0)


def test_ranks_that_all_take_as_long_have_no_slowest(tmp_path: Path, client: Any) -> None:
    from many_ranks import BLOCKS, write_ranks
    from numpy import full, zeros

    make_wide(tmp_path / "run", ["a", "b"])
    write_ranks(tmp_path / "run", {block: full((4, 64), s) for block, s in BLOCKS.items()})
    make_wide(tmp_path / "nil", ["a", "b"])
    write_ranks(tmp_path / "nil", {block: zeros((4, 64)) for block in BLOCKS})
    found = Fleet(tmp_path, client).hosts()
    assert (found.compared, found.short) == (0, 2)
    assert found.hosts[0].ratio == 1.0
    nil = host_study.study_hosts(read_run(tmp_path / "nil"))
    assert {host["ratio"] for host in nil["starts"][0]["hosts"].values()} == {None}


# ---- what changes meanwhile --------------------------------------------------------------------


def test_what_was_compared_is_kept_until_a_run_changes(
    tmp_path: Path, client: Any, monkeypatch: Patch
) -> None:
    plant(tmp_path, 3)
    make_timed(tmp_path / "alone")
    studied = []
    compare = host_study.compare_ranks

    def count(run: Any, **options: Any) -> Any:
        studied.append(run.path.name)
        return compare(run, **options)

    monkeypatch.setattr(host_study, "compare_ranks", count)
    first = Fleet(tmp_path, client).hosts()
    assert sorted(studied) == ["run0", "run1", "run2"]
    assert Fleet(tmp_path, "tcp://127.0.0.1:1").hosts() == first
    make_wide(tmp_path / "run1", ["node5", "node6"], start=1)
    shutil.rmtree(tmp_path / "run2")
    del studied[:]
    again = Fleet(tmp_path, client).hosts()
    assert (again.runs, studied) == (2, ["run1", "run1"])


def test_a_run_that_is_written_damaged_or_removed_costs_itself_alone(
    tmp_path: Path, client: Any, monkeypatch: Patch
) -> None:
    plant(tmp_path, 4)
    with (tmp_path / "run0" / "performance.r1.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    read = findings.read_run

    def shy(path: Path) -> Any:
        if path.name == "run1":
            shutil.rmtree(path)
        return read(path)

    fleet = Fleet(tmp_path, client)
    with (
        Recorder(tmp_path / "live", rank=0, world_size=2, launch="x") as one,
        Recorder(tmp_path / "live", rank=1, world_size=2, launch="x") as two,
    ):
        for step in range(40):
            for recorder in (one, two):
                with recorder.timer("step", step=step):
                    pass
        one.flush()
        two.flush()
        fleet.look()
        monkeypatch.setattr(findings, "read_run", shy)
        found = fleet.hosts()
        assert (found.runs, found.incomplete) == (4, ("run0",))
        assert found.unreadable == {"run1": "is gone: it was removed meanwhile"}


@pytest.mark.slow
def test_a_worker_that_is_killed_in_mid_task_has_its_runs_compared_by_another(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    root, place = tmp_path / "runs", tmp_path / "held"
    plant(root, 6)
    place.mkdir()
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    with Fleet(root, workers=2) as fleet:
        fleet.look()
        monkeypatch.setattr(crew, "_do", functools.partial(hold_batch, str(place)))
        killer = kill_one_of(place)
        found = fleet.hosts()
        killer.join()
    assert (found.runs, found.unreadable) == (6, {})
    assert Fleet(root, "tcp://127.0.0.1:1").hosts() == found


def test_the_command_shows_hosts(tmp_path: Path, command: Command, client: Any) -> None:
    plant(tmp_path / "runs")
    make_timed(tmp_path / "runs" / "alone")
    Fleet(tmp_path / "runs", client).hosts()
    said = command("fleet", tmp_path / "runs", "--hosts").out
    assert "node5 is slow: the slowest in 10 of 10 runs" in said
    assert "Hosts over runs of several ranks" in said
    assert "10 runs compared, 1 with one rank" in said
    assert "Failures" not in said
    found = json.loads(command("fleet", tmp_path / "runs", "--hosts", "--json").out)
    assert set(found) == {"totals", "hosts", "unreadable"}
    assert found["hosts"]["hosts"][0]["suspect"]
    with (tmp_path / "runs" / "run0" / "performance.r1.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    Fleet(tmp_path / "runs", client).hosts()
    said = command("fleet", tmp_path / "runs", "--hosts", code=1).out
    assert "run0: lines are damaged" in said


def test_the_command_says_where_there_are_no_hosts(
    tmp_path: Path, command: Command, client: Any
) -> None:
    make_timed(tmp_path / "runs" / "alone")
    Fleet(tmp_path / "runs", client).hosts()
    said = command("fleet", tmp_path / "runs", "--hosts").out
    assert "No run compares hosts" in said
    assert "0 runs compared, 1 with one rank" in said
