"""Ranks compared: planted stragglers are found, jitter is none, and figures are those of an oracle.

The oracle reads the lines one by one, with `json` and `statistics`.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from many_ranks import BLOCKS, Array, Slow, durations, never, slower, write_ranks
from oracle import OracleWriter

from foundry_fastlog import RankComparison, compare_ranks, read_run
from foundry_fastlog.analysis import rank_times
from foundry_fastlog.analysis.rank_results import numbers_said
from foundry_fastlog.analysis.ranks import COLLECTIVES
from foundry_fastlog.analysis.stragglers import WINDOW, find_shared, find_slow, lower_median
from foundry_fastlog.analysis.text_numbers import TextNumbers


def compared(path: Path, slow: Slow = never, **options: Any) -> RankComparison:
    """Write a run and compare its ranks."""
    shape = {key: options.pop(key) for key in ("ranks", "steps") if key in options}
    made = {key: options.pop(key) for key in ("jitter", "seed", "noise") if key in options}
    write = {key: options.pop(key) for key in ("begins", "clocks", "collective") if key in options}
    times = durations(shape.get("ranks", 8), shape.get("steps", 400), slow, **made)
    write_ranks(path / "run", times, **write)
    return compare_ranks(path / "run", **options)


def test_a_slow_rank_is_named_with_its_step_and_block(tmp_path: Path) -> None:
    found = compared(tmp_path, slower("forward", {5}, 200))
    (one,) = found.stragglers
    assert (one.ranks, one.block, one.until, one.from_the_start) == ((5,), "forward", None, False)
    assert abs(one.since - 200) <= 2
    assert one.ratio == pytest.approx(1.3, rel=0.03)
    assert one.excess_s == pytest.approx(0.009, rel=0.1)
    assert found.sentences[0].startswith(f"Rank 5 is slow since step {one.since} in 'forward': 1.")
    assert found.phases == ()
    worst = max(found.ranks, key=lambda rank: rank.slowdown or 0)
    assert worst.rank == 5
    assert min(found.ranks, key=lambda rank: rank.score or 1).rank == 5
    assert min(found.ranks, key=lambda rank: rank.wait_share or 1).rank == 5


def test_a_slowdown_that_ends_and_one_that_was_always_there(tmp_path: Path) -> None:
    def slow(block: str, rank: int, step: int) -> float:
        return slower("data", {1}, 0)(block, rank, step) * slower("backward", {6}, 100, 179)(
            block, rank, step
        )

    found = {one.ranks[0]: one for one in compared(tmp_path, slow).stragglers}
    assert set(found) == {1, 6}
    assert found[1].from_the_start
    assert "from the first step on in 'data'" in found[1].sentence
    assert abs(found[6].since - 100) <= 2
    assert abs((found[6].until or 0) - 179) <= 2
    assert f"from step {found[6].since} to {found[6].until}" in found[6].sentence


def test_a_slow_host_is_one_straggler(tmp_path: Path) -> None:
    """Its ranks are slow together; the start says how many a host has, or the caller does."""
    slow = slower("backward", {4, 5, 6, 7}, 120)
    found = compared(tmp_path, slow, ranks=16, ranks_per_host=4)
    (one,) = found.stragglers
    assert (one.ranks, one.host, one.block) == ((4, 5, 6, 7), "host 1", "backward")
    assert abs(one.since - 120) <= WINDOW
    assert found.sentences[0].startswith("Host 1 (ranks 4-7) is slow since step 1")
    alone = compare_ranks(tmp_path / "run")
    assert sorted(one.ranks for one in alone.stragglers) == [(4,), (5,), (6,), (7,)]
    assert any("--ranks-per-host" in note for note in alone.notes)
    starts = tmp_path / "run" / "starts"
    starts.mkdir()
    entry = {"rank": 4, "host": "node\x1b7", "local_world_size": 4}
    (starts / "000000.json").write_text(json.dumps(entry))
    (named,) = compare_ranks(tmp_path / "run", starts=0).stragglers
    assert named.host == r"node\x1b7"
    assert [rank.host for rank in compare_ranks(tmp_path / "run").ranks][::4] == [
        *("host 0", r"node\x1b7", "host 2", "host 3")
    ]
    for rank, host in ((8, "node8"), (13, "node12")):
        note = {"rank": rank, "host": host}
        (starts / f"000000.r{rank}.host.json").write_text(json.dumps(note))
    hosts = [rank.host for rank in compare_ranks(tmp_path / "run").ranks]
    assert hosts[::4] == ["host 0", r"node\x1b7", "node8", "node12"]
    (starts / "000000.r9.host.json").write_text(json.dumps({"rank": 9, "host": "node9"}))
    # Ranks are not numbered host by host.
    assert {rank.host for rank in compare_ranks(tmp_path / "run").ranks} == {""}


def test_half_of_two_hosts_may_be_slow(tmp_path: Path) -> None:
    found = compared(tmp_path, slower("forward", {4, 5, 6, 7}, 150), ranks_per_host=4)
    assert [one.host for one in found.stragglers] == ["host 1"]
    apart = compared(tmp_path / "b", slower("forward", {4, 6}, 150), ranks_per_host=4)
    assert sorted(one.ranks for one in apart.stragglers) == [(4,), (6,)]
    assert not any(one.host for one in apart.stragglers)


def test_a_slow_phase_is_no_straggler(tmp_path: Path) -> None:
    found = compared(tmp_path, slower("data", set(range(8)), 150, 249, 1.4))
    assert found.stragglers == ()
    (phase,) = found.phases
    assert (phase.block, phase.collective) == ("data", False)
    assert abs(phase.since - 150) <= 2
    assert abs((phase.until or 0) - 249) <= 2
    assert found.sentences[0].startswith("No rank is a straggler")
    assert found.sentences[1].startswith(f"All ranks are slow from step {phase.since} to ")
    assert found.sentences[1].endswith("none of them is a straggler.")


@pytest.mark.parametrize(("ranks", "slow"), [(2, {1}), (4, {1, 2}), (8, {4, 5, 6, 7})])
@pytest.mark.parametrize(
    ("block", "wait"),
    [("data", "backward"), ("forward", "optimizer"), ("optimizer", "forward")],
)
def test_who_waits_within_a_block_is_not_slow(
    tmp_path: Path, block: str, wait: str, ranks: int, slow: set[int]
) -> None:
    """As with gradients that are summed in the backward pass: half of the ranks wait there."""
    times = durations(ranks, 240, slower(block, slow, 100, factor=1.5))
    names = list(times)
    at = names.index(wait)
    since = sum(times[name] for name in names[: at + 1])
    since[:, 1:] += sum((times[name] for name in names[at + 1 :]), np.zeros_like(since))[:, :-1]
    times[wait] = times[wait] + (since.max(axis=0) - since)
    for rank in range(ranks):
        writer = OracleWriter(tmp_path, rank=rank)
        lines = [(n, float(times[n][rank, step]), step) for step in range(240) for n in names]
        for name, seconds, step in lines:
            writer.timing(name, seconds, step)
    found = compare_ranks(tmp_path)
    assert {(rank, one.block) for one in found.stragglers for rank in one.ranks} == {
        (rank, block) for rank in slow
    }


def test_two_ranks_may_be_slow_in_two_blocks(tmp_path: Path) -> None:
    found = compared(
        tmp_path,
        lambda b, r, s: 1.5 if (b, r) in {("forward", 1), ("backward", 2)} and s >= 200 else 1.0,
    )
    assert {(one.ranks, one.block) for one in found.stragglers} == {
        ((1,), "forward"),
        ((2,), "backward"),
    }


def test_a_slow_network_is_a_phase_of_the_collective(tmp_path: Path) -> None:
    """Waiting for a straggler is none, and neither is what the others wait in."""
    times = durations(8, 400)
    transfer = np.where(np.arange(400) < 250, 0.004, 0.02)
    write_ranks(tmp_path / "run", times, transfer_s=transfer)  # type: ignore[arg-type]
    (phase,) = compare_ranks(tmp_path / "run").phases
    assert (phase.block, phase.collective, phase.until) == ("all_reduce", True, None)
    assert phase.sentence.startswith("all ranks are slow since step 2")
    slow = slower("forward", {5}, 200)
    waiting = compared(tmp_path / "b", slow, collective="exchange", ranks=64)
    assert [one.ranks for one in waiting.stragglers] == [(5,)]
    assert waiting.phases == ()
    assert any("--collective" in note for note in waiting.notes)
    named = compare_ranks(tmp_path / "b" / "run", collectives="exch*")
    assert not any("--collective" in note for note in named.notes)
    assert {one.block for one in named.blocks if one.collective} == {"exchange"}


NOISES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "log-normal": lambda chance, shape: np.exp(chance.normal(0, 0.05, shape)),
    "gamma": lambda chance, shape: chance.gamma(400, 1 / 400, shape),
    "heavy tails": lambda chance, shape: (
        np.exp(chance.normal(0, 0.03, shape))
        * (1 + (chance.random(shape) < 0.1) * chance.pareto(1.2, shape))
    ),
}


@pytest.mark.parametrize("kind", NOISES)
def test_jitter_is_no_straggler_and_a_planted_one_is_found(kind: str) -> None:
    """Over 50 seeds: none in jitter, and 1.2 x for 50 steps always, within a window of steps."""
    for seed in range(50):
        chance = np.random.default_rng(seed)
        ranks, steps = int(chance.choice([4, 8, 32])), int(chance.integers(100, 800))
        times = 0.03 * NOISES[kind](chance, (ranks, steps))
        assert find_slow(times, 0.9, 1e-3) == [], seed
        assert find_shared(times, 0.9, 1e-3) == [], seed
        rank, since = int(chance.integers(ranks)), int(chance.integers(steps - 50))
        times[rank, since : since + 50] *= 1.2
        found = find_slow(times, 0.9, 1e-3)
        assert [one.rank for one in found] == [rank], seed
        assert abs(found[0].first - since) <= WINDOW, seed
        assert found[0].ratio == pytest.approx(1.2, rel=0.1)


def test_little_jitter_shows_little_stragglers() -> None:
    """1.15 x for 50 steps is found where steps vary by 2 %."""
    for seed in range(50):
        chance = np.random.default_rng(seed)
        times = 0.03 * np.exp(chance.normal(0, 0.02, (8, 300)))
        times[3, 100:150] *= 1.15
        (one,) = find_slow(times, 0.9, 1e-3)
        assert (one.rank, abs(one.first - 100) <= WINDOW) == (3, True), seed


def test_strong_jitter_without_a_straggler_in_whole_runs(tmp_path: Path) -> None:
    for seed in range(3):
        noise = NOISES["heavy tails"]
        found = compared(tmp_path / str(seed), noise=noise, seed=seed, ranks=6, steps=200)
        assert (found.stragglers, found.phases) == ((), ())
        assert found.sentences == ["No rank is a straggler (scores below 0.9 would be)."]


def oracle(path: Path, collective: str = "all_reduce") -> dict[str, Any]:
    """All figures, from the lines one by one."""
    own: dict[tuple[str, int, int], float] = defaultdict(float)
    durations_of: dict[tuple[str, int], list[float]] = defaultdict(list)
    ranks, steps = set(), set()
    for file in path.glob("performance*.jsonl"):
        _, _, label = file.stem.partition(".r")
        rank = int(label or 0)
        for text in file.read_text().splitlines():
            line = json.loads(text)
            ranks.add(rank)
            steps.add(line["step"])
            own[line["name"], rank, line["step"]] += line["duration_s"]
            durations_of[line["name"], rank].append(line["duration_s"])
            if "parent" in line:
                own[line["parent"], rank, line["step"]] -= line["duration_s"]
    names = {name for name, _, _ in own}
    work: dict[tuple[int, int], float] = {}
    joint: dict[tuple[int, int], float] = {}
    for rank in ranks:
        for step in steps:
            if any((name, rank, step) in own for name in names):
                parts = [own.get((name, rank, step), 0.0) for name in names - {collective}]
                work[rank, step] = sum(parts)
                joint[rank, step] = own.get((collective, rank, step), 0.0)
    total = ideal = 0.0
    alone: dict[int, float] = defaultdict(float)
    waits: dict[int, list[float]] = defaultdict(list)
    for step in steps:
        here = [rank for rank in ranks if (rank, step) in work]
        shortest = min(joint[rank, step] for rank in here)
        for rank in here:
            waits[rank].append(joint[rank, step] - shortest)
        if len(here) < 2:
            continue
        mean = statistics.fmean(work[rank, step] for rank in here)
        total += max(work[rank, step] for rank in here) + shortest
        ideal += mean + shortest
        for rank in ranks:
            alone[rank] += max(work.get((rank, step), mean), mean) + shortest
    medians = {
        (name, rank): statistics.median(values)
        for name in names
        for rank in ranks
        if (values := [own[name, rank, step] for step in steps if (name, rank, step) in own])
    }
    return {
        "slowdown": total / ideal,
        "alone": {rank: seconds / ideal for rank, seconds in alone.items()},
        "waits": {rank: statistics.median(seconds) for rank, seconds in waits.items()},
        "work": {r: statistics.median(s for (k, _), s in work.items() if k == r) for r in ranks},
        "medians": {key: statistics.median(values) for key, values in durations_of.items()},
        "p95": {key: float(np.percentile(values, 95)) for key, values in durations_of.items()},
        "own": medians,
        "scores": {
            (name, rank): min(medians[name, other] for other in ranks) / medians[name, rank]
            for name in BLOCKS
            for rank in ranks
        },
    }


def test_figures_are_those_of_the_oracle(tmp_path: Path) -> None:
    """With a rank that starts late and one that is missing; float32 keeps seven digits."""
    times = durations(4, 60, slower("forward", {2}, 30), jitter=0.1)
    write_ranks(tmp_path / "run", times, ranks=[0, 1, 3, 12], begins={3: 20})
    found = compare_ranks(tmp_path / "run")
    wanted = oracle(tmp_path / "run")
    assert [one.rank for one in found.ranks] == [0, 1, 3, 12]
    assert found.slowdown == pytest.approx(wanted["slowdown"], rel=1e-5)
    for one in found.ranks:
        assert one.slowdown == pytest.approx(wanted["alone"][one.rank], rel=1e-5)
        assert one.wait_s == pytest.approx(wanted["waits"][one.rank], abs=1e-7)
        assert one.work_s == pytest.approx(wanted["work"][one.rank], rel=1e-5)
        assert one.steps == (40 if one.rank == 3 else 60)
        own = [b for b in found.blocks if b.rank == one.rank and b.score is not None]
        weights = [b.share or 0.0 for b in own]
        mean = sum(w * (b.score or 0.0) for w, b in zip(weights, own, strict=True)) / sum(weights)
        assert one.score == pytest.approx(mean, rel=1e-5)
    for block in found.blocks:
        key = block.block, block.rank
        assert block.median_s == pytest.approx(wanted["medians"][key], rel=1e-9)
        assert block.p95_s == pytest.approx(wanted["p95"][key], rel=1e-9)
        assert block.own_s == pytest.approx(max(0.0, wanted["own"][key]), rel=1e-5, abs=1e-9)
        if block.block in BLOCKS:
            assert block.score == pytest.approx(wanted["scores"][key], rel=1e-5)
        else:  # a collective, and what takes next to nothing by itself
            assert block.score is None
    shares = [b.share for b in found.blocks if b.rank == 0]
    assert sum(filter(None, shares)) == pytest.approx(1.0, rel=1e-5)


def test_history_is_the_best_window_over_the_last(tmp_path: Path) -> None:
    found = compared(tmp_path, slower("forward", {5}, 200, factor=2.0), jitter=0.001)
    (one,) = [b for b in found.blocks if (b.block, b.rank) == ("forward", 5)]
    assert one.history_score == pytest.approx(0.5, rel=0.01)
    assert one.score == pytest.approx(1.0 if one.own_s < 0.04 else 0.5, rel=0.5)


def test_clocks_are_compared_by_what_ends_together(tmp_path: Path) -> None:
    found = compared(tmp_path, clocks={2: 0.75, 5: -0.002}, steps=40)
    assert found.clocks_from == "collectives"
    offsets = [one.clock.offset_s if one.clock else math.nan for one in found.ranks]
    assert offsets == pytest.approx([0, 0, 0.75, 0, 0, -0.002, 0, 0], abs=5e-6)
    assert all(one.clock and one.clock.spread_s < 5e-6 for one in found.ranks)
    assert found.ranks[0].clock is not None
    assert found.ranks[0].clock.steps == 40
    steps = compared(tmp_path / "b", clocks={2: 0.75}, steps=40, collective=None)
    assert steps.clocks_from == "steps"
    assert steps.ranks[2].clock is not None
    assert steps.ranks[2].clock.offset_s == pytest.approx(0.75, abs=5e-6)
    few = compared(tmp_path / "c", steps=3)
    assert few.clocks_from == ""
    assert few.ranks[0].clock is None


def test_one_rank_no_timings_and_few_steps_are_said(tmp_path: Path) -> None:
    one = compared(tmp_path, ranks=1, steps=40)
    assert one.notes[0] == "only rank 0 timed blocks: there is nothing to compare it with"
    assert (one.slowdown, one.sentences) == (None, [])
    assert [block.score for block in one.blocks] == [None] * len(one.blocks)
    OracleWriter(tmp_path / "none").fill(range(5))
    none = compare_ranks(tmp_path / "none")
    assert "has no timings" in none.notes[0]
    assert (none.ranks, none.heat_map, none.first_step) == ((), None, None)
    few = compared(tmp_path / "few", slower("forward", {5}, 0, factor=3.0), steps=20)
    assert any("20 steps are too few" in note for note in few.notes)
    assert few.stragglers == ()
    nobody = compare_ranks(tmp_path / "few" / "run", ranks=99)
    assert nobody.notes == ("none of these ranks timed a block",)
    assert compare_ranks(tmp_path / "few" / "run", ranks=99, block="forward").heat_map is None


def test_steps_that_the_run_does_not_have_are_an_error(tmp_path: Path) -> None:
    compared(tmp_path, steps=40)
    for steps in ((1000, None), (30, 10), (1 << 70, None)):
        with pytest.raises(LookupError, match=r"; it has steps 0 to 39$"):
            compare_ranks(tmp_path / "run", steps=steps, block="forward")
    OracleWriter(tmp_path / "none").fill(range(5)).timing("forward", 0.1)
    assert compare_ranks(tmp_path / "none", steps=(1000, None)).first_step is None


def test_steps_that_no_two_ranks_share_are_said(tmp_path: Path) -> None:
    for rank in (0, 1):
        writer = OracleWriter(tmp_path, rank=rank)
        for step in range(rank, 200, 2):
            writer.timing("forward", 0.1 * (rank + 1), step)
    found = compare_ranks(tmp_path)
    assert found.notes[0].startswith("only 0 steps were timed by two ranks or more: 32 are needed")
    assert (found.sentences, found.slowdown) == ([], None)


def test_blocks_without_a_step_are_left_out_and_counted(tmp_path: Path) -> None:
    for rank in range(2):
        writer = OracleWriter(tmp_path, rank=rank)
        writer.timing("set-up", 5.0)
        for step in range(3):
            writer.timing("step", 0.1, step)
    found = compare_ranks(tmp_path)
    assert {one.block for one in found.blocks} == {"step"}
    assert found.notes[0].startswith("timed blocks without a step are left out (2 of them)")
    OracleWriter(tmp_path / "b").timing("set-up", 5.0)
    assert (
        compare_ranks(tmp_path / "b")
        .notes[0]
        .startswith("timed blocks without a step are left out (1 of them)")
    )


def test_later_starts_count_and_so_do_single_ones(tmp_path: Path) -> None:
    """The second start takes over from step 100; its rank 1 is slow, the first one's rank 2 was."""
    write_ranks(tmp_path / "run", durations(4, 200, slower("data", {2}, 0, factor=2.0)))
    later = durations(4, 200, slower("forward", {1}, 0, factor=2.0), seed=1)
    write_ranks(tmp_path / "run", later, attempt=1, first=100)
    found = compare_ranks(tmp_path / "run")
    assert (found.first_step, found.last_step) == (0, 299)
    by_rank = {one.ranks[0]: one for one in found.stragglers}
    assert set(by_rank) == {1, 2}
    assert abs(by_rank[1].since - 100) <= 2
    assert abs((by_rank[2].until or 0) - 99) <= 2
    first = compare_ranks(tmp_path / "run", starts=0)
    assert [one.ranks for one in first.stragglers] == [(2,)]
    assert first.stragglers[0].until is None


def test_a_step_of_several_starts_takes_the_mean_of_them(tmp_path: Path) -> None:
    """Their sum would be twice as long where ranks trained it again, and they stragglers."""
    write_ranks(tmp_path, durations(8, 200))
    write_ranks(tmp_path, durations(4, 200, seed=3), attempt=1, first=150)  # resumed with fewer
    found = compare_ranks(tmp_path, starts="all")
    assert found.stragglers == ()
    assert found.phases == ()
    twice = next(one for one in found.blocks if (one.block, one.rank) == ("forward", 0))
    assert twice.count == 400
    again = compare_ranks(tmp_path, starts="all", steps=(150, 199))
    once = [compare_ranks(tmp_path, starts=start, steps=(150, 199)) for start in (0, 1)]
    for which in range(4):
        mean = np.mean([one.ranks[which].work_s for one in once])
        assert again.ranks[which].work_s == pytest.approx(mean, rel=0.01)


def test_ranks_that_start_late_and_steps_of_some_ranks(tmp_path: Path) -> None:
    found = compared(tmp_path, slower("forward", {3}, 250), begins={3: 150, 6: 90})
    (one,) = found.stragglers
    assert (one.ranks, one.block) == ((3,), "forward")
    assert abs(one.since - 250) <= 2
    assert not one.from_the_start
    assert found.heat_map is not None
    assert np.isnan(found.heat_map.ratio[3, :150]).all()
    assert np.isfinite(found.heat_map.ratio[3, 150:]).all()


def test_a_rank_that_times_every_other_step_is_found(tmp_path: Path) -> None:
    """What it does not have says neither that it is slow nor that it is not."""
    chance = np.random.default_rng(0)
    times = 0.03 * np.exp(chance.normal(0, 0.03, (8, 400)))
    times[3, 200:] *= 1.3
    times[1::2, ::2] = np.nan
    (one,) = find_slow(times, 0.9, 1e-4)
    assert (one.rank, one.last) == (3, None)
    assert abs(one.first - 200) <= WINDOW


def test_a_rank_that_is_slow_in_half_of_its_steps_is_not_named() -> None:
    """The medians of windows say that it is, most of the single steps do not."""
    chance = np.random.default_rng(0)
    times = np.exp(chance.normal(0, 0.02, (8, 320)))
    often = np.arange(320) % WINDOW < 0.55 * WINDOW
    times[3, often] *= 2.0
    assert find_slow(times, 0.9, 1e-4) == []
    times[3, ~often] *= 2.0
    assert [one.rank for one in find_slow(times, 0.9, 1e-4)] == [3]


def test_what_one_rank_alone_does_is_no_phase_of_all(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    times = np.exp(chance.normal(0, 0.02, (4, 200)))
    times[:, 100:] *= 1.5
    assert len(find_shared(times, 0.9, 1e-4)) == 1
    times[2:] = np.nan
    assert find_shared(times, 0.9, 1e-4) == []
    times[1] = np.nan
    assert find_shared(times, 0.9, 1e-4) == []


def test_a_rank_that_ended_early_was_slow_to_its_end_and_is_said(tmp_path: Path) -> None:
    """It died, or is that far behind."""
    write_ranks(tmp_path, durations(8, 300, slower("forward", {3}, 0)))
    path = tmp_path / "performance.r3.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["step"] < 100))
    found = compare_ranks(tmp_path)
    (one,) = found.stragglers
    assert (one.ranks, one.since, one.until, one.from_the_start) == ((3,), 0, None, True)
    assert "rank 3 timed no step after 99; others came to 299" in found.notes
    for rank in (4, 5):
        (tmp_path / f"performance.r{rank}.jsonl").write_text(path.read_text())
    assert "ranks 3-5 timed no step after 99; others came to 299" in compare_ranks(tmp_path).notes
    among = compare_ranks(tmp_path, ranks=(3, 4))
    assert not any("timed no step" in note for note in among.notes)


def test_a_block_that_only_one_rank_has_makes_it_slow(tmp_path: Path) -> None:
    """Such as an evaluation on rank 0 alone; and slowness spread over many blocks is seen too."""
    times = durations(8, 200)
    extra = np.zeros((8, 200))
    extra[0, 100:] = 0.05
    write_ranks(tmp_path / "run", {**times, "evaluate": extra})
    path = tmp_path / "run" / "performance.jsonl"
    for rank in range(8):
        path = tmp_path / "run" / f"performance{f'.r{rank}' if rank else ''}.jsonl"
        kept = [line for line in path.read_text().splitlines() if '"duration_s":0.0,' not in line]
        lines = [json.loads(line) for line in kept]
        path.write_text(
            "".join(json.dumps({**line, "seq": seq}) + "\n" for seq, line in enumerate(lines))
        )
    (one,) = compare_ranks(tmp_path / "run").stragglers
    assert (one.ranks, one.block) == ((0,), "evaluate")
    assert abs(one.since - 100) <= 2
    small = {f"layer{n}": seconds for n, seconds in enumerate(durations(8, 200).values())}
    for n, seconds in enumerate(durations(8, 200, seed=5).values()):
        small[f"more{n}"] = seconds
    for seconds in small.values():
        seconds[4] *= 1.09
    spread = {f"{name}.{k}": seconds / 30 for name, seconds in small.items() for k in range(30)}
    write_ranks(tmp_path / "b", spread)
    found = compare_ranks(tmp_path / "b", threshold=0.93)
    assert [(one.ranks, one.block) for one in found.stragglers] == [((4,), "")]
    assert "in all of its own work" in found.sentences[0]


def test_time_on_a_device_is_a_block_of_its_own(tmp_path: Path) -> None:
    """Its own time is without the blocks in it, and it is in no sum of the host's times."""
    for rank in range(4):
        writer = OracleWriter(tmp_path, rank=rank)
        for step in range(64):
            late = 0.09 if rank == 2 else 0.03
            inner = {"device": f"cuda:{rank}", "device_duration_s": late}
            writer.timing("attention", 0.001, step, 1, "forward", **inner)
            outer = {"device": f"cuda:{rank}", "device_duration_s": late + 0.02}
            writer.timing("forward", 0.002, step, **outer)
        writer.timing("forward", 0.002, 64, device="cuda:0", device_duration_s="lost")
    found = compare_ranks(tmp_path)
    of = {one.block: one for one in found.blocks if one.rank == 2}
    assert set(of) == {"forward", "attention", "forward (cuda)", "attention (cuda)"}
    assert of["forward (cuda)"].own_s == pytest.approx(0.02, rel=1e-5)
    assert of["attention (cuda)"].own_s == pytest.approx(0.09, rel=1e-5)
    assert of["forward (cuda)"].share is None
    assert of["forward"].share == pytest.approx(0.5, rel=0.02)
    assert [(one.ranks, one.block) for one in found.stragglers] == [((2,), "attention (cuda)")]


def test_a_block_may_be_chosen_and_an_unknown_one_is_not_there(tmp_path: Path) -> None:
    found = compared(tmp_path, slower("forward", {5}, 200), block="backward")
    assert found.stragglers == ()
    assert found.heat_map is not None
    assert (found.heat_map.block, len(found.heat_map.steps)) == ("backward", 400)
    run = read_run(tmp_path / "run")
    with pytest.raises(LookupError, match="'forwards'; there are: data, forward"):
        run.compare_ranks(block="forwards")
    with pytest.raises(ValueError, match="threshold must be between"):
        run.compare_ranks(threshold=1.5)
    with pytest.raises(ValueError, match="ranks_per_host must be between"):
        run.compare_ranks(ranks_per_host=0)
    few = run.compare_ranks(ranks=[1, 5], steps=(100, 300))
    assert [one.rank for one in few.ranks] == [1, 5]
    assert (few.first_step, few.last_step) == (100, 300)
    assert few.stragglers[0].ranks == (5,)


def test_a_result_is_json(tmp_path: Path) -> None:
    found = compared(tmp_path, slower("forward", {5}, 20), steps=60).to_dict()
    again = json.loads(json.dumps(found))
    assert again["stragglers"][0]["block"] == "forward"
    assert again["sentences"] == found["sentences"]
    assert again["ranks"][5]["clock"]["steps"] == 60
    assert "heat_map" not in again


def test_many_steps_take_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of several steps hold means, and still say who is slow; ranks are read in batches."""
    write_ranks(tmp_path / "run", durations(6, 1000, slower("forward", {4}, 512)))
    whole = compare_ranks(tmp_path / "run")
    monkeypatch.setattr(rank_times, "_MOST_CELLS", 7 * 6 * 300)
    monkeypatch.setattr(rank_times, "_BATCH_BYTES", 1 << 20)
    folded = compare_ranks(tmp_path / "run")
    assert (whole.width, folded.width, folded.steps) == (1, 4, 250)
    assert any("means over 4 steps" in note for note in folded.notes)
    (one,) = folded.stragglers
    assert (one.ranks, one.block) == ((4,), "forward")
    assert abs(one.since - 512) <= 8
    assert folded.slowdown == pytest.approx(whole.slowdown, rel=0.05)
    for coarse, fine in zip(folded.ranks, whole.ranks, strict=True):
        assert coarse.work_s == pytest.approx(fine.work_s, rel=0.02)


def test_a_damaged_time_and_a_block_still_open_are_no_fault(tmp_path: Path) -> None:
    """A parent that has not ended has no line; a timestamp that is none tells no clock."""
    for rank in range(2):
        writer = OracleWriter(tmp_path, rank=rank)
        for step in range(40):
            writer.timing("inner", 0.01, step, 1, "epoch")
        fields = {"name": "inner", "duration_s": 0.01, "step": 40, "depth": 1, "thread": 1}
        fields["parent"] = "epoch"
        writer.write("performance", {**fields, "timestamp": "2026-13-40T00:00:00.000000Z"})
    found = compare_ranks(tmp_path)
    assert {one.block for one in found.blocks} == {"inner"}
    assert found.ranks[0].clock is not None
    assert found.ranks[0].clock.steps >= 39


def test_a_phase_while_there_is_a_straggler_is_said_as_well(tmp_path: Path) -> None:
    """It is no waiting: the straggler is slower in it, too."""

    def slow(block: str, rank: int, step: int) -> float:
        phase = slower("data", set(range(8)), 250, 320, 1.5)(block, rank, step)
        return phase * slower("forward", {5}, 100)(block, rank, step)

    found = compared(tmp_path, slow)
    assert [one.ranks for one in found.stragglers] == [(5,)]
    assert [one.block for one in found.phases] == ["data"]


def test_ranks_of_different_work_and_what_is_not_worth_naming() -> None:
    """A spread over all ranks has no outlier; a majority is neither a straggler nor a phase."""
    chance = np.random.default_rng(0)
    quiet = np.exp(chance.normal(0, 0.01, (9, 200)))
    stages = quiet * np.linspace(1.0, 1.8, 9)[:, None]
    assert find_slow(stages, 0.9, 0.0) == []
    one = quiet.copy()
    one[3, 100:] *= 1.5
    assert len(find_slow(one, 0.9, 0.0)) == 1
    assert find_slow(one, 0.9, 0.6) == []
    all_of_them = quiet.copy()
    all_of_them[:, 100:150] *= 1.5
    assert len(find_shared(all_of_them, 0.9, 0.0)) == 1
    assert find_shared(all_of_them, 0.9, 0.6) == []
    most = quiet.copy()
    most[:6, 100:150] *= 1.5
    assert find_shared(most, 0.9, 0.0) == []
    assert find_slow(most, 0.9, 0.0) == []


def test_blocks_of_every_other_step_and_of_no_time(tmp_path: Path) -> None:
    times = np.ones((4, 200))
    times[:2, ::2] = np.nan
    times[2:, 1::2] = np.nan
    assert find_slow(times, 0.9, 0.0) == []
    for rank in range(2):
        writer = OracleWriter(tmp_path, rank=rank)
        for step in range(40):
            writer.timing("step", 0.0, step)
    found = compare_ranks(tmp_path)
    assert (found.slowdown, found.stragglers) == (None, ())
    assert found.heat_map is not None
    assert (found.heat_map.ratio == 1.0).all()
    assert found.ranks[0].score is None


def test_what_looks_like_a_collective() -> None:
    for name in ("all_reduce", "AllReduce", "grad_sync", "sync", "nccl.all_gather", "barrier"):
        assert COLLECTIVES.search(name), name
    for name in ("async_save", "forward", "synchronous", "reduce_lr", "Asynchronous"):
        assert not COLLECTIVES.search(name), name


def test_lower_medians_are_values_themselves() -> None:
    values = np.array([[4.0, math.nan], [1.0, math.nan], [2.0, 7.0], [3.0, math.nan]])
    assert lower_median(values).tolist() == [2.0, 7.0]
    assert numbers_said((0, 1, 2, 5, 7, 8)) == "0-2, 5, 7-8"
    assert numbers_said(tuple(range(0, 40, 2))).endswith("14 and 12 more")


def test_texts_are_numbered_by_their_first_appearance() -> None:
    def part(*texts: str) -> Any:
        data = [text.encode() for text in texts]
        ends = np.cumsum([0, *map(len, data)]).astype("<i8")
        return len(texts), 0, None, ends.tobytes(), b"".join(data)

    names = TextNumbers()
    assert names.numbers(part("b", "", "a", "b")).tolist() == [0, 1, 2, 0]
    assert names.numbers(part("a", "ä" * 500, "b")).tolist() == [2, 3, 0]
    assert names.texts[:3] == ["b", "", "a"]
    many = names.numbers(part(*(f"n{k}" for k in range(1200))))
    assert names.texts[-1] == "(other blocks)"
    assert len(names.texts) == 1001
    assert set(many[-150:].tolist()) == {1000}
