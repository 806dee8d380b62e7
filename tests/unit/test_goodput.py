"""Where wall time went: each loss is found where it was planted, and the parts are the whole."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import START, OracleWriter, stamp_text
from recorded import run_python

from foundry_fastlog import Recorder, read_run
from foundry_fastlog.analysis.goodput import KINDS, Goodput, measure_goodput
from foundry_fastlog.analysis.spans import Cover
from foundry_fastlog.cli.main import main

Patch = pytest.MonkeyPatch

PLANTED = ("step", "data", "checkpoint", "evaluation", "other")
STEP_S = 0.5


class History(OracleWriter):
    """A process whose clock only this test moves."""

    def __init__(self, run: Path, number: int = 0, **options: Any) -> None:
        super().__init__(run, attempt=number, tick_s=0.0, **options)

    def idle(self, seconds: float) -> History:
        self.now += timedelta(seconds=seconds)
        return self

    def block(self, name: str, seconds: float, step: int | None = None, **more: Any) -> History:
        self.idle(seconds).timing(name, seconds, step, **more)
        return self

    def step(self, step: int, seconds: float = STEP_S) -> History:
        """A step whose parts are timed, too."""
        self.block("forward", seconds / 4, step, depth=1, parent="step")
        self.block("backward", seconds / 2, step, depth=1, parent="step")
        self.idle(seconds / 4).timing("step", seconds, step)
        return self

    def steps(self, *numbers: int) -> History:
        for step in range(*numbers):
            self.step(step)
        return self


def begun(run: Path, number: int = 0, **options: Any) -> History:
    """A start whose first message says when it began."""
    writer = History(run, number, **options)
    writer.log("begun")
    return writer


def next_start(before: History, seconds: float, number: int = 1, **options: Any) -> History:
    """A start that begins some time after the last record of another."""
    moment = before.now + timedelta(seconds=seconds)
    return begun(before.run, number, start=moment, **options)


def write_entry(
    run: Path, number: int, started: Any, *, ended: Any = None, host: str = "node1", rank: int = 0
) -> None:
    """Write the entry of a start, and how it ended."""
    entry: dict[str, Any] = {"format": 2, "start": number, "started": stamp_text(started)}
    entry |= {"host": host, "rank": rank, "alive": []}
    (run / "starts").mkdir(exist_ok=True)
    (run / "starts" / f"{number:06d}.json").write_text(json.dumps(entry))
    if ended is not None:
        end = {"format": 2, "start": number, "label": "", "ended": stamp_text(ended)}
        path = run / "starts" / f"{number:06d}.end.json"
        path.write_text(json.dumps({**end, "how": "closed"}))


def measured(run: Path, **options: Any) -> Goodput:
    """Measure a run; whatever it is, its parts sum to its wall time."""
    found = measure_goodput(read_run(run), **options)
    check_sums(found)
    return found


def check_sums(found: Goodput) -> None:
    """To the microsecond: of each start, and of all of them."""
    assert list(found.parts) == list(KINDS)
    assert sum(found.parts.values()) == pytest.approx(found.wall_s, abs=5e-7)
    for one in found.starts:
        assert sum(one.parts.values()) == pytest.approx(one.wall_s, abs=5e-7)
        assert min(one.parts.values()) >= 0
    walls = sum(one.wall_s + one.dead_s for one in found.starts)
    assert walls == pytest.approx(found.wall_s, abs=5e-7)


def losses(found: Goodput) -> dict[str, float]:
    """What is not zero, but for steps."""
    return {kind: s for kind, s in found.parts.items() if s and kind != "step"}


# ---- each loss, planted alone ----------------------------------------------------------------


def test_a_run_that_lost_nothing_has_a_goodput_of_one(tmp_path: Path) -> None:
    History(tmp_path).steps(100)
    found = measured(tmp_path)
    assert losses(found) == {}
    assert (found.steps, found.steps_again) == (100, 0)
    assert found.goodput == pytest.approx(1.0)
    assert found.ettr == 1.0
    assert found.ideal_step_s == found.limit_s == pytest.approx(STEP_S)
    assert found.largest_loss() == "Nothing was lost."
    assert found.notes == ()


@pytest.mark.parametrize("name", ["data", "checkpoint", "validation", "warm_up"])
def test_a_block_counts_as_what_its_name_says(tmp_path: Path, name: str) -> None:
    writer = History(tmp_path)
    for step in range(100):
        writer.step(step)
        if step % 10 == 5:
            writer.block(name, 3.0, step)
    kind = {"validation": "evaluation", "warm_up": "other"}.get(name, name)
    found = measured(tmp_path)
    assert losses(found) == {kind: pytest.approx(30.0, rel=0.01)}
    assert found.goodput == pytest.approx(50 / 80)
    assert found.ettr == 1.0  # none of these is lost to a failure
    assert found.blocks[kind] == [name]


def test_what_is_within_a_step_counts_once_as_what_it_is(tmp_path: Path) -> None:
    """A checkpoint and data inside a step; steps, data and more inside an evaluation."""
    writer = History(tmp_path)
    for step in range(50):
        writer.block("data", 0.2, step, depth=1, parent="step")
        writer.block("forward", 0.5, step, depth=1, parent="step")
        writer.block("checkpoint", 0.3, step, depth=1, parent="step")
        writer.timing("step", 1.0, step)
        begin = writer.now
        writer.block("data", 0.1, step, depth=1, parent="evaluate").idle(0.1)
        writer.block("forward", 0.2, step, depth=1, parent="evaluate")
        writer.timing("evaluate", (writer.now - begin).total_seconds(), step)
    found = measured(tmp_path)
    expected = {"data": 10.0, "checkpoint": 15.0, "evaluation": 20.0}
    assert losses(found) == {kind: pytest.approx(s) for kind, s in expected.items()}
    assert found.steps == 50
    assert found.ideal_step_s == pytest.approx(0.5)


def test_a_step_that_does_nothing_but_save_is_a_step(tmp_path: Path) -> None:
    """An evaluation that is nothing but a forward pass is none."""
    writer = History(tmp_path).steps(20)
    writer.block("checkpoint", 2.0, 20, depth=1, parent="step").timing("step", 2.0, 20)
    writer.block("forward", 3.0, 99, depth=1, parent="evaluate").timing("evaluate", 3.0, 99)
    found = measured(tmp_path)
    assert found.steps == 21
    assert found.parts["checkpoint"] == 2.0
    assert found.parts["evaluation"] == 3.0
    assert found.parts["stalls"] == 0.0  # though one step takes no time of its own


def test_start_up_is_what_was_before_the_first_step_and_its_slow_first_step(
    tmp_path: Path,
) -> None:
    writer = begun(tmp_path).idle(20.0).block("build_model", 10.0)
    writer.step(0, seconds=5.5)  # it compiles
    writer.steps(1, 101)
    found = measured(tmp_path)
    assert losses(found) == {"start_up": pytest.approx(35.0, rel=0.01)}
    assert found.ettr == pytest.approx(1 - 35 / found.wall_s)
    assert found.largest_loss() == "The largest loss: 35 s (40.9%) of start-up."


def test_checkpoints_that_are_loaded_are_no_start_up(tmp_path: Path) -> None:
    begun(tmp_path).block("load_checkpoint", 8.0).block("data", 1.0, 0).steps(50)
    assert losses(measured(tmp_path)) == {"checkpoint": 8.0, "data": 1.0}


@pytest.mark.parametrize("within", [False, True])
def test_a_stall_is_found_between_steps_and_within_one(tmp_path: Path, *, within: bool) -> None:
    """Not what a checkpoint took meanwhile."""
    writer = History(tmp_path).steps(60)
    writer.block("checkpoint", 7.0, 59)
    if within:
        writer.block("forward", 0.1, 60, depth=1, parent="step").idle(60.0)
        writer.idle(0.4).timing("step", 60.5, 60)
        writer.steps(61, 100)
    else:
        writer.idle(60.0).steps(60, 100)
    found = measured(tmp_path)
    assert losses(found) == {"checkpoint": 7.0, "stalls": pytest.approx(60.0, rel=0.01)}
    (only,) = found.starts
    assert only.longest_stall_step == 60
    assert only.longest_stall_s == pytest.approx(60.0)
    assert "the longest 60 s before step 60 ended" in found.largest_loss()
    assert found.goodput == pytest.approx(50 / 117)


def test_a_stall_behind_the_last_step_is_one(tmp_path: Path) -> None:
    writer = History(tmp_path).steps(50)
    writer.idle(1800.0).log("the watchdog ends it")
    found = measured(tmp_path)
    assert losses(found) == {"stalls": pytest.approx(1800 - STEP_S), "other": STEP_S}
    assert "behind the last step" in found.largest_loss()


def test_a_short_pause_after_each_step_is_no_stall(tmp_path: Path) -> None:
    """It is part of what a step takes, and of no block."""
    writer = History(tmp_path)
    for step in range(50):
        writer.step(step).idle(0.1)
    writer.log("end")
    found = measured(tmp_path)
    assert losses(found) == {"other": pytest.approx(5.0)}
    assert found.ideal_step_s == pytest.approx(0.6)


def test_steps_may_vary_by_three_deviations(tmp_path: Path) -> None:
    """The ideal is the mean of those that do, and what goes beyond is a stall."""
    writer = History(tmp_path)
    for step in range(91):
        writer.step(step, seconds=(0.5, 0.6, 0.7)[step % 3] if step != 45 else 3.0)
    found = measured(tmp_path)
    assert found.ideal_step_s == pytest.approx(0.6, rel=0.01)
    assert found.limit_s == pytest.approx(0.3 + (found.ideal_step_s or 0))
    assert losses(found) == {"stalls": pytest.approx(2.1, rel=0.01)}


def test_steps_trained_again_and_the_time_between_starts(tmp_path: Path) -> None:
    """A start goes on from step 70 where the one before had reached 99."""
    first = begun(tmp_path).steps(100)
    later = next_start(first, 300.0).idle(15.0)
    for step in range(70, 200):
        later.step(step)
        if step % 10 == 0:
            later.block("data", 1.0, step)
    found = measured(tmp_path)
    again = 30 * STEP_S + 3.0
    expected = {"start_up": 15.0, "again": again, "dead": 300.0, "data": 10.0}
    assert losses(found) == {kind: pytest.approx(s, rel=0.01) for kind, s in expected.items()}
    assert (found.steps, found.steps_again) == (200, 30)
    assert [one.dead_s for one in found.starts] == [0.0, 300.0]
    assert [(one.first_step, one.last_step) for one in found.starts] == [(0, 99), (70, 199)]
    assert found.goodput == pytest.approx(200 * STEP_S / found.wall_s)
    lost = 15 + again + 300
    assert found.ettr == pytest.approx(1 - lost / found.wall_s)
    said = "The largest loss: 5 min 00 s (67.7%) between starts, before start 1."
    assert found.largest_loss() == said


def test_one_start_alone_has_no_time_before_it(tmp_path: Path) -> None:
    first = begun(tmp_path).steps(100)
    next_start(first, 300.0).steps(90, 130)
    found = measured(tmp_path, starts=1)
    assert losses(found) == {"again": 10 * STEP_S}
    assert (found.steps, found.wall_s) == (30, 20.0)
    assert found.largest_loss().endswith("for 10 steps that were trained again.")
    assert measured(tmp_path, starts=0).goodput == pytest.approx(1.0)


@pytest.mark.parametrize("said", [True, False])
def test_steps_behind_a_rewind_are_trained_again(tmp_path: Path, *, said: bool) -> None:
    """With a line that says so, and without one."""
    writer = History(tmp_path).steps(60)
    if said:
        writer.rewind(50)
    writer.block("restore_checkpoint", 4.0).steps(50, 100)
    found = measured(tmp_path)
    assert losses(found) == {"again": 10 * STEP_S, "checkpoint": 4.0}
    assert (found.steps, found.steps_again) == (100, 10)


def test_a_rewind_to_the_step_before_is_one(tmp_path: Path) -> None:
    """Only the line says so: parts of a step come several times, too."""
    writer = History(tmp_path).steps(60)
    writer.rewind(59)
    writer.steps(59, 100)
    assert measured(tmp_path).steps_again == 1
    parts = History(tmp_path / "micro")
    for step in range(40):
        parts.block("forward_backward", 0.2, step).block("forward_backward", 0.2, step)
        parts.block("optimizer", 0.1, step)
    found = measured(tmp_path / "micro")
    assert (found.steps, found.steps_again) == (40, 0)
    assert found.ideal_step_s == pytest.approx(0.5)


# ---- steps that only metrics tell of ---------------------------------------------------------


def of_metrics(writer: History, steps: range, **values: float) -> History:
    for step in steps:
        writer.idle(STEP_S * steps.step).metrics(step, loss=1.0, **values)
    return writer


def test_without_timings_the_metrics_tell_when_steps_ended(tmp_path: Path) -> None:
    writer = of_metrics(begun(tmp_path).idle(40.0), range(50))
    writer.idle(90.0)
    of_metrics(writer, range(50, 100)).block("checkpoint", 6.0, 99)
    of_metrics(writer, range(100, 120))
    found = measured(tmp_path)
    expected = {"start_up": 40.0, "stalls": 90.0, "checkpoint": 6.0}
    assert losses(found) == {kind: pytest.approx(s, rel=0.01) for kind, s in expected.items()}
    assert found.parts["step"] == pytest.approx(60.0)
    assert found.steps == 120
    (note,) = found.notes
    assert note.startswith("steps end with the records of the metric loss")


def test_metrics_of_every_tenth_step_are_of_ten(tmp_path: Path) -> None:
    """Resumed at another remainder, too; and a late value of an earlier step is no step back."""
    first = of_metrics(begun(tmp_path), range(10, 510, 10))
    first.metrics(480, val_loss=2.0)
    later = next_start(first, 100.0)
    of_metrics(later, range(455, 805, 10))
    found = measured(tmp_path)
    assert found.ideal_step_s == pytest.approx(STEP_S)
    assert found.steps_again == 50
    assert found.steps == 800
    assert losses(found) == {"dead": 100.0, "again": pytest.approx(25.0)}


def test_a_late_line_about_an_earlier_step_is_no_step_back(tmp_path: Path) -> None:
    writer = of_metrics(History(tmp_path), range(50))
    writer.metrics(40, loss=3.0)
    of_metrics(writer, range(50, 100))
    found = measured(tmp_path)
    assert (found.steps, found.steps_again) == (100, 0)


def test_numbers_that_were_skipped_were_not_trained(tmp_path: Path) -> None:
    """A counter that jumps: there was no time for a million steps."""
    History(tmp_path).steps(50).steps(1_000_000, 1_000_050)
    found = measured(tmp_path)
    assert found.steps == 100
    assert found.goodput == pytest.approx(1.0)
    assert losses(found) == {}


def test_where_start_up_took_longest_is_said(tmp_path: Path) -> None:
    first = begun(tmp_path).idle(60.0).steps(10)
    next_start(first, 5.0).idle(90.0).steps(10, 20)
    said = measured(tmp_path).largest_loss()
    assert said.endswith("of start-up, 90 s of it in start 1.")


def test_metrics_without_a_step_are_of_none(tmp_path: Path) -> None:
    History(tmp_path).idle(3.0).write("metrics", {"epoch": 1, "metrics": {"loss": 1.0}})
    assert measured(tmp_path).starts[0].source == ""


def test_the_largest_loss_may_be_data(tmp_path: Path) -> None:
    History(tmp_path).steps(20).block("data", 15.0).steps(20, 40)
    assert (
        measured(tmp_path).largest_loss() == "The largest loss: 15 s (42.9%) of waiting for data."
    )


def test_one_metrics_line_is_all_start_up(tmp_path: Path) -> None:
    begun(tmp_path).idle(10.0).metrics(0, loss=1.0)
    found = measured(tmp_path)
    assert losses(found) == {"start_up": 10.0}
    assert (found.steps, found.goodput, found.ideal_step_s) == (1, None, None)


def test_one_step_is_its_own_ideal_and_that_is_said(tmp_path: Path) -> None:
    begun(tmp_path).idle(1.5).step(0)
    found = measured(tmp_path)
    assert losses(found) == {"start_up": 1.5}
    assert found.goodput == pytest.approx(0.25)
    assert found.notes == ("the ideal step is the mean of few: 1",)


def test_blocks_without_a_step_are_one_each(tmp_path: Path) -> None:
    writer = History(tmp_path)
    for _ in range(30):
        writer.block("forward", 0.2, depth=1, parent="train_step")
        writer.idle(0.2).timing("train_step", 0.4)
        writer.block("forward", 0.1, depth=1, parent="evaluate").timing("evaluate", 0.1)
    found = measured(tmp_path)
    assert found.steps == 30
    assert losses(found) == {"evaluation": pytest.approx(3.0)}
    assert "each train_step counts as one" in found.notes[0]
    others = History(tmp_path / "forward")
    for _ in range(20):
        others.block("forward", 0.2)
    assert measured(tmp_path / "forward").steps == 20


# ---- starts, hosts, threads, processes -------------------------------------------------------


def test_the_entry_says_when_a_start_began_and_ended(tmp_path: Path) -> None:
    writer = History(tmp_path, start=START + timedelta(seconds=30)).steps(20)
    end = writer.now + timedelta(seconds=8)
    writer.now = end
    write_entry(tmp_path, 0, START, ended=end)
    found = measured(tmp_path)
    assert losses(found) == {
        "start_up": 30.0,
        "stalls": pytest.approx(8 - STEP_S),
        "other": STEP_S,
    }
    assert (found.starts[0].state, found.starts[0].host) == ("closed", "node1")


def test_a_start_that_recorded_nothing_was_starting_up(tmp_path: Path) -> None:
    OracleWriter(tmp_path)
    write_entry(tmp_path, 0, START, ended=START + timedelta(seconds=12))
    found = measured(tmp_path)
    assert losses(found) == {"start_up": 12.0}
    assert found.starts[0].source == ""
    write_entry(tmp_path, 1, START + timedelta(seconds=20))
    assert losses(measured(tmp_path)) == {"start_up": 12.0, "dead": 8.0}


def test_starts_that_overlap_are_told_and_counted_once(tmp_path: Path) -> None:
    first = begun(tmp_path).steps(100)  # 50 s
    moment = first.now - timedelta(seconds=5)
    begun(tmp_path, 1, start=moment).steps(100, 150)
    found = measured(tmp_path)
    assert found.wall_s == pytest.approx(70.0)
    assert found.steps == 140
    assert found.notes == (
        "starts 0 and 1 overlap by 5 s: they ran at once; that time is counted once",
    )
    begun(tmp_path, 2, start=START).steps(10)
    found = measured(tmp_path)
    assert found.notes[1].endswith("they ran at once; the later one is not counted")
    assert found.wall_s == pytest.approx(70.0)
    assert found.steps == 140


def test_clocks_of_two_hosts_may_differ(tmp_path: Path) -> None:
    first = begun(tmp_path).steps(20)
    moment = first.now - timedelta(seconds=2)
    begun(tmp_path, 1, start=moment).steps(20, 40)
    for number, began in enumerate((START, moment)):
        write_entry(tmp_path, number, began, host=f"node{number}")
    (note, *_) = measured(tmp_path).notes
    assert "or the clocks of node0 and node1 differ; that time is counted once" in note


def test_a_clock_that_is_set_back_changes_nothing(tmp_path: Path) -> None:
    """The lines are in their order: what was recorded before is as much earlier."""
    writer = begun(tmp_path).steps(50)
    writer.now -= timedelta(hours=1)
    writer.steps(50, 100).log("between")
    writer.now -= timedelta(minutes=1)
    writer.steps(100, 150).metrics(149, loss=1.0)
    next_start(writer, 10.0).steps(140, 200)
    found = measured(tmp_path)
    (note,) = [note for note in found.notes if "clock" in note]
    assert note.startswith("start 0: the clock was set back by 3,600 s")
    assert found.wall_s == pytest.approx(75 + 10 + 30)
    assert losses(found) == {"again": pytest.approx(5.0), "dead": pytest.approx(10.0)}
    assert (found.steps, found.steps_again) == (200, 10)
    assert found.ideal_step_s == pytest.approx(STEP_S)


@pytest.mark.parametrize("blocks", [None, "step", "data"])
def test_a_clock_that_is_set_back_where_no_block_has_a_step(
    tmp_path: Path, blocks: str | None
) -> None:
    writer = begun(tmp_path)
    for step in range(100):
        if step == 50:
            writer.now -= timedelta(hours=1)
        if blocks is not None:
            writer.block(blocks, STEP_S / 5 if blocks == "data" else STEP_S)
        if blocks != "step":
            writer.idle(STEP_S if blocks is None else STEP_S * 4 / 5).metrics(step, loss=1.0)
    writer.log("end")
    found = measured(tmp_path)
    assert found.wall_s == pytest.approx(50.0, abs=2 * STEP_S)
    assert found.goodput == pytest.approx(0.8 if blocks == "data" else 1.0, abs=0.02)
    assert sum("set back by 3,600 s" in note for note in found.notes) == 1


def test_peers_and_children_are_not_counted_twice(tmp_path: Path) -> None:
    History(tmp_path).steps(40)
    History(tmp_path, peer=1).steps(40)
    History(tmp_path, children=("w123",)).block("data", 5.0)
    found = measured(tmp_path)
    assert found.wall_s == pytest.approx(20.0)
    assert found.notes == (
        "start 0: other processes of rank 0 recorded, too, and are not counted twice: p1",
    )


def test_threads_without_steps_run_beside(tmp_path: Path) -> None:
    """A checkpoint that another thread writes costs no time; an unknown block there is nothing."""
    writer = History(tmp_path)
    for step in range(40):
        writer.step(step)
        writer.timing("checkpoint", 0.4, step, thread=4712)
        writer.timing("prefetch", 0.4, step, thread=4713)
    found = measured(tmp_path)
    assert losses(found) == {}
    assert found.notes == ("start 0: checkpoint blocks of other threads ran beside: 16 s",)


def test_blocks_around_many_steps_explain_nothing(tmp_path: Path) -> None:
    writer = History(tmp_path).steps(50).idle(30.0).steps(50, 100)
    writer.timing("epoch", 80.0)
    assert losses(measured(tmp_path)) == {"stalls": pytest.approx(30.0)}


def test_the_rank_can_be_chosen(tmp_path: Path) -> None:
    for rank in (1, 2):
        History(tmp_path, rank=rank).steps(20 * rank)
    assert (measured(tmp_path).rank, measured(tmp_path).steps) == (1, 20)
    assert measured(tmp_path, rank=2).steps == 40
    with pytest.raises(ValueError, match=r"has no rank 0; it has 1, 2"):
        measured(tmp_path, rank=0)


def test_a_start_without_the_rank_is_said(tmp_path: Path) -> None:
    first = begun(tmp_path, rank=1).steps(20)
    begun(tmp_path).steps(20)
    next_start(first, 10.0).steps(20, 40)
    found = measured(tmp_path, rank=1)
    assert found.notes == ("start 1 has no records of rank 1; it is not counted",)
    assert len(found.starts) == 1


def test_a_running_run_is_told_until_now(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        for step in range(3):
            with recorder.timer("step", step=step):
                time.sleep(0.001)
        recorder.flush()
        before = measured(tmp_path / "run")
        after = measured(tmp_path / "run")
    assert before.running
    assert after.wall_s > before.wall_s
    assert after.starts[0].state == "running"
    assert after.steps == 3
    ended = measured(tmp_path / "run")
    assert not ended.running
    assert ended.complete


def test_what_a_killed_run_left_in_its_ring_counts(tmp_path: Path) -> None:
    run_python(
        f"""
import os, signal, time
from foundry_fastlog import Recorder
recorder = Recorder({str(tmp_path / "run")!r})
for step in range(50):
    with recorder.timer("step", step=step):
        time.sleep(0.001)
os.kill(os.getpid(), signal.SIGKILL)
""",
        returncode=-9,
    )
    found = measured(tmp_path / "run")
    assert (found.steps, found.starts[0].state, found.running) == (50, "killed", False)


def test_a_run_without_records_says_so(tmp_path: Path) -> None:
    OracleWriter(tmp_path)
    with pytest.raises(LookupError, match="there are no records yet"):
        measured(tmp_path)


def test_a_message_alone_takes_no_time(tmp_path: Path) -> None:
    begun(tmp_path)
    found = measured(tmp_path)
    assert (found.wall_s, found.goodput, found.ettr) == (0.0, None, 0.0)
    assert found.largest_loss() == "Nothing was lost."


def test_damaged_lines_make_it_incomplete(tmp_path: Path) -> None:
    writer = History(tmp_path).steps(20)
    writer.torn("performance", b"torn")
    assert not measured(tmp_path).complete


def test_hostile_times_and_steps_are_taken_as_they_are(tmp_path: Path) -> None:
    """The largest numbers that lines can have."""
    writer = History(tmp_path)
    for step in (-(1 << 63), 5, (1 << 63) - 1, -1, 0, 0):
        writer.block("step", 1.0, step)
        writer.metrics(step, loss=1.0)
    writer.timing("data", 1e300, 3)
    writer.timing("step", -5.0, 4)
    writer.write("performance", {"name": "step", "duration_s": 1.0, "depth": 0, "thread": "x"})
    found = measured(tmp_path)
    assert math.isfinite(found.goodput or 0.0)


# ---- options ---------------------------------------------------------------------------------


def test_names_of_blocks_can_be_said(tmp_path: Path) -> None:
    writer = History(tmp_path)
    for step in range(20):
        writer.block("io", 0.25, step).block("Trainer.Forward", 0.5, step)
        writer.block("data_parallel", 0.25, step)
    found = measured(tmp_path, blocks={"data": "io", "evaluation": ["data_par*"]})
    assert losses(found) == {"data": pytest.approx(5.0), "evaluation": pytest.approx(5.0)}
    assert found.blocks == {
        "data": ["io"],
        "evaluation": ["data_parallel"],
        "step": ["Trainer.Forward"],
    }
    with pytest.raises(LookupError, match="no timed block fits forwrd; there are: "):
        measured(tmp_path, blocks={"step": "forwrd"})
    with pytest.raises(ValueError, match="a kind of blocks must be one of"):
        measured(tmp_path, blocks={"stall": "io"})
    for wrong in (7, True, "latest"):
        with pytest.raises(ValueError, match="starts must be 'all' or one of 0, got"):
            measured(tmp_path, starts=wrong)


def test_goodput_is_no_more_than_all(tmp_path: Path) -> None:
    """The first step, which is not in the mean of the others, was faster than they are."""
    writer = History(tmp_path).steps(50)
    for step in range(50, 100):
        writer.step(step, 3 * STEP_S)
    found = measured(tmp_path, tokens=10)
    assert found.ideal_step_s is not None
    assert found.ideal_step_s * found.steps > found.wall_s
    assert found.goodput == 1.0
    assert found.throughput is not None
    assert found.throughput.tokens_per_s == pytest.approx(1000 / found.wall_s)


def test_more_than_the_peak_is_remarked_on(tmp_path: Path) -> None:
    History(tmp_path).steps(100)
    figures = {"tokens": 1000, "flops_per_token": 6e9}
    assert measured(tmp_path, **figures, peak_flops=1.3e13).notes == ()
    (note,) = measured(tmp_path, **figures, peak_flops=1.1e13).notes
    assert note.startswith("no device can do more than its peak, as an MFU of 109.1% says")


@pytest.mark.parametrize(
    ("each", "unit", "shown"),
    [(0.5, "seconds", "5.000"), (5e-4, "ms", "5.000"), (5e-6, "us", "50")],
)
def test_short_times_are_shown_in_units_that_say_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], each: float, unit: str, shown: str
) -> None:
    writer = History(tmp_path)
    for step in range(10):
        writer.idle(each).timing("step", each, step)
    assert main(["goodput", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["kind", unit, "share"] in lines
    (row,) = [line for line in lines if line[:1] == ["step"]]
    assert row[2].startswith(shown)


def test_tokens_per_second_and_mfu(tmp_path: Path) -> None:
    """As torchtitan has them: tokens of all devices, and the peak of each."""
    History(tmp_path).steps(50).idle(25.0).steps(50, 100)
    assert measured(tmp_path).throughput is None
    rate = measured(
        tmp_path, tokens=1000, flops_per_token=6e9, peak_flops=1e14, devices=2
    ).throughput
    assert rate is not None
    assert rate.ideal_tokens_per_s == pytest.approx(1000 / STEP_S)
    assert rate.tokens_per_s == pytest.approx(100_000 / 75)
    assert rate.ideal_mfu == pytest.approx(6e9 * 2000 / 2e14)
    assert rate.mfu == pytest.approx(6e9 * 100_000 / (75 * 2e14))
    assert (rate.devices, rate.source) == (2, "as given")
    for number in range(1, 3):
        History(tmp_path, rank=number).metrics(0, loss=1.0)
    without = measured(tmp_path, tokens=1000).throughput
    assert without is not None
    assert (without.devices, without.mfu) == (3, None)


@pytest.mark.parametrize(
    ("name", "value", "source"),
    [
        ("tokens_per_sec", lambda _: 4000.0, "as tokens per second"),
        ("throughput", lambda _: 4000, "as tokens per second"),
        ("tokens", lambda _: 2000, "as tokens per step"),
        ("tokens", lambda step: 2000 * (step + 1), "as tokens so far"),
    ],
)
def test_tokens_may_be_a_metric(
    tmp_path: Path, name: str, value: Callable[[int], float], source: str
) -> None:
    writer = History(tmp_path)
    for step in range(30):
        writer.step(step).metrics(step, **{name: value(step), "bad": math.nan, "zero": 0})
    found = measured(tmp_path, tokens=name).throughput
    assert found is not None
    assert found.tokens_per_step == pytest.approx(2000.0)
    assert found.source == f"{name}, {source}"
    if name != "throughput":  # found without being named
        assert measured(tmp_path).throughput == found
    with pytest.raises(LookupError, match="there is no metric tokns; there are: "):
        measured(tmp_path, tokens="tokns")
    with pytest.raises(LookupError, match="the metric bad has no numbers of rank 0"):
        measured(tmp_path, tokens="bad")
    with pytest.raises(LookupError, match="zero counts no tokens: its mean is 0"):
        measured(tmp_path, tokens="zero")


@pytest.mark.parametrize(("name", "value"), [("tokens", 0), ("tokens_per_sec", math.nan)])
def test_a_metric_of_tokens_that_nobody_named_is_no_error(
    tmp_path: Path, name: str, value: float
) -> None:
    """It has no tokens, as of a rank that does not count them: the rest can be told."""
    writer = History(tmp_path)
    for step in range(50):
        writer.step(step)
        writer.metrics_dict(step, {name: value})
    found = measured(tmp_path)
    assert found.goodput == pytest.approx(1.0)
    assert found.throughput is None
    with pytest.raises(LookupError, match=name):
        measured(tmp_path, tokens=name)


def test_tokens_of_steps_whose_numbers_are_apart_are_remarked_on(tmp_path: Path) -> None:
    """As where the number is of samples: each would have the tokens of a step."""
    writer = History(tmp_path)
    for step in range(0, 50 * 1024, 1024):
        writer.step(step)
        writer.metrics(step, tps=2000.0, count=1000)
    for tokens in (1000, "count"):
        (note,) = measured(tmp_path, tokens=tokens).notes
        assert note.startswith("step numbers are 1,024 apart, and each number is taken for a step")
    assert measured(tmp_path).notes == measured(tmp_path, tokens="tps").notes == ()


def test_a_rate_has_to_be_above_zero(tmp_path: Path) -> None:
    History(tmp_path).steps(20).metrics(0, tps=-5.0)
    with pytest.raises(LookupError, match="the metric tps is no rate: its median is -5"):
        measured(tmp_path, tokens="tps")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"flops_per_token": 1e9}, "only of use together"),
        ({"flops_per_token": 1e9, "peak_flops": 1e12}, "say how many tokens a step has"),
        ({"tokens": 0}, "tokens must be above 0"),
        ({"tokens": math.nan}, "tokens must be between"),
        ({"tokens": 1, "devices": 0}, "devices must be 1 or more, got 0"),
    ],
)
def test_figures_that_are_none_are_refused(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    History(tmp_path).steps(5)
    with pytest.raises(ValueError, match=said):
        measured(tmp_path, **options)


# ---- the command -----------------------------------------------------------------------------


@pytest.fixture
def lossy(tmp_path: Path) -> Path:
    """A run of 120 s with a loss of each kind."""
    run = tmp_path / "lossy"
    first = begun(run).idle(10.0)
    for step in range(40):
        first.block("data", 0.25, step).step(step)
        first.metrics(step, loss=1.0, tokens=100)
    first.block("checkpoint", 5.0, 39).block("evaluate", 5.0, 39).idle(12.0).step(40)
    later = next_start(first, 20.0).idle(8.0)
    later.steps(31, 61).block("tidy", 14.5)
    return run


def test_the_command_shows_where_the_time_went(
    lossy: Path, command: Callable[..., Any], monkeypatch: Patch
) -> None:
    """A bar of 60 columns, one for two seconds here, a table, the starts, and a sentence."""
    monkeypatch.setenv("COLUMNS", "80")
    options = ("--flops-per-token", "1e9", "--peak-flops", "1e12", "--devices", "2")
    lines = command("goodput", lossy, *options).out.splitlines()
    assert lines[0] == f"{lossy}: rank 0, 2 min 00 s in 2 starts"
    assert (
        lines[1]
        == "s" * 15 + "d" * 5 + "ccc" + "ee" + "u" * 9 + "X" * 6 + "aaa" + "." * 10 + "o" * 7
    )
    shown = {line.split("  ")[0]: line.split()[-2:] for line in lines[3:] if "%" in line[-6:]}
    assert shown["step"] == ["30.500", "25.4%"]
    assert shown["between starts"] == ["20.000", "16.7%"]
    assert sum(float(seconds) for seconds, _ in shown.values()) == pytest.approx(120.0)
    assert any(line.split()[:3] == ["1", "unknown", "20"] for line in lines)
    text = "\n".join(lines)
    assert "goodput 25.4%: 61 steps and 10 again, each 500 ms at its ideal" in text
    assert "tokens  50.83/s, 200/s in ideal steps (tokens, as tokens per step)" in text
    assert "MFU     2.5%, 10.0% in ideal steps (2 devices)" in text
    assert "The largest loss: 20 s (16.7%) between starts, before start 1." in text
    assert max(map(len, lines[1:])) <= 80


def test_the_bar_is_coloured_only_where_colours_are_wanted(lossy: Path, monkeypatch: Patch) -> None:
    from rich.console import Console

    from foundry_fastlog.show.goodput import render_goodput

    monkeypatch.delenv("NO_COLOR", raising=False)
    found = measured(lossy, tokens=1)
    for no_color in (False, True):
        console = Console(
            force_terminal=True, color_system="truecolor", no_color=no_color, record=True, width=80
        )
        with console.capture() as capture:
            render_goodput(found, console)
        bar = capture.get().splitlines()[1]
        assert ("48;2;0;158;115m" + " " * 15 in bar) is not no_color
        assert ("s" * 15 in bar) is no_color


def test_the_command_as_json(lossy: Path, command: Callable[..., Any]) -> None:
    found = json.loads(command("goodput", lossy, "--json", "--tokens-per-step", "1_000").out)
    assert sum(found["parts"].values()) == pytest.approx(found["wall_s"]) == pytest.approx(120.0)
    assert found["throughput"]["tokens_per_step"] == 1000
    assert [one["number"] for one in found["starts"]] == [0, 1]
    assert found["largest_loss"].startswith("The largest loss: 20 s")
    one = json.loads(command("goodput", lossy, "--json", "--starts", "1", "--rank", "0").out)
    assert one["wall_s"] == pytest.approx(37.5)
    names = ("--step", "step", "--data", "data", "--checkpoint", "tidy", "--evaluation", "evaluate")
    other = json.loads(command("goodput", lossy, "--json", *names).out)
    assert other["blocks"]["checkpoint"] == ["tidy"]
    assert other["parts"]["checkpoint"] == pytest.approx(14.5)


def test_the_command_says_what_is_wrong(
    lossy: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    assert "has no start 7; it has 0, 1" in command("goodput", lossy, "--starts", 7, code=2).err
    assert "takes all or a number here" in command("goodput", lossy, "--starts", "x", code=2).err
    assert "has no rank 3; it has 0" in command("goodput", lossy, "--rank", 3, code=2).err
    assert "no timed block fits io" in command("goodput", lossy, "--data", "io", code=2).err
    wrong = ("--tokens-per-step", "tokns")
    assert "there is no metric tokns" in command("goodput", lossy, *wrong, code=2).err
    OracleWriter(tmp_path / "empty")
    assert "there are no records yet" in command("goodput", tmp_path / "empty", code=2).err
    assert command("goodput", tmp_path / "none", code=2).err
    History(tmp_path / "torn").steps(20).torn("performance", b"torn")
    said = command("goodput", tmp_path / "torn", code=1)
    assert "goodput 100.0%" in said.out
    assert f"foundry-fastlog summary {tmp_path / 'torn'}" in said.err


def test_the_command_says_what_a_run_is_not(tmp_path: Path, command: Callable[..., Any]) -> None:
    """One without steps, and one that runs; and what is to be said of the figures."""
    begun(tmp_path / "idle").idle(5.0).log("end")
    said = command("goodput", tmp_path / "idle").out
    assert "No step was recorded: there is no goodput." in said
    begun(tmp_path / "instant")
    assert "rank 0, 0 ns" in command("goodput", tmp_path / "instant").out
    with Recorder(tmp_path / "runs") as recorder:
        recorder.record(0, loss=1.0)
        recorder.flush()
        said = command("goodput", tmp_path / "runs").out
    assert ", until now: it is running" in said
    assert "note: steps end with the records of the metric loss" in said


def test_a_run_measures_its_goodput(lossy: Path) -> None:
    assert read_run(lossy).goodput(tokens="tokens") == measured(lossy, tokens="tokens")


# ---- any history -----------------------------------------------------------------------------

SPAN = st.tuples(st.integers(0, 300), st.integers(-5, 120))


@settings(deadline=None)
@given(st.lists(SPAN, max_size=30), st.lists(st.integers(-50, 500), min_size=1))
def test_a_cover_is_what_its_spans_cover(spans: list[tuple[int, int]], asked: list[int]) -> None:
    begins, ends = (
        np.array(one, np.int64) for one in ([b for b, _ in spans], [b + n for b, n in spans])
    )
    covered = {moment for begin, count in spans for moment in range(begin, begin + count)}
    cover = Cover(begins[: len(spans) // 2], ends[: len(spans) // 2])
    cover = cover.plus(begins[len(spans) // 2 :], ends[len(spans) // 2 :])
    assert cover.until(np.array(asked)).tolist() == [
        sum(moment < one for moment in covered) for one in asked
    ]
    assert (cover.begins[1:] > cover.ends[:-1]).all()
    for begin in asked:
        inside = cover.encloses(np.array([begin]), np.array([begin + 3]))[0]
        assert inside == ({begin, begin + 1, begin + 2} <= covered)


BLOCK = st.tuples(
    st.sampled_from(["step", "forward", "data", "checkpoint", "evaluate", "odd", "train"]),
    st.integers(0, 2000),  # its duration in microseconds
    st.integers(-300, 2000),  # from the end of the block before to its own
    st.one_of(st.none(), st.integers(-3, 30)),
    st.sampled_from([1, 1, 1, 2]),
)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.integers(-2000, 5000), st.lists(BLOCK, max_size=25)), min_size=1, max_size=4
    )
)
def test_the_parts_of_any_history_sum_to_its_wall_time(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, list[Any]]]
) -> None:
    """Blocks that nest, overlap, run in threads, have no step; starts that overlap."""
    run = tmp_path_factory.mktemp("run")
    now = START
    for number, (pause, blocks) in enumerate(history):
        writer = begun(run, number, start=now + timedelta(microseconds=pause))
        for name, took, later, step, thread in blocks:
            writer.now += timedelta(microseconds=later)
            writer.timing(name, took / 1e6, step, thread=thread)
        now = max(now, writer.now)
    found = measured(run)
    begins = [one.begin_s for one in found.starts]
    end = max(one.begin_s + one.wall_s for one in found.starts)
    assert found.wall_s == pytest.approx(end - min(begins), abs=1e-6)
    for one in found.starts:
        alone = measured(run, starts=one.number)
        assert alone.parts | {"dead": 0.0} == {**one.parts, "dead": 0.0}


DEED = st.one_of(
    st.tuples(st.just("idle"), st.integers(1, 400)),
    st.tuples(st.sampled_from(PLANTED[1:]), st.integers(1, 300)),
    st.tuples(
        st.just("step"),
        st.lists(
            st.tuples(st.sampled_from(["idle", "data", "checkpoint"]), st.integers(1, 200)),
            min_size=1,
            max_size=4,
        ),
    ),
    st.tuples(st.just("step"), st.just([("idle", 100)])),
)
NAMES = {"evaluation": "evaluate", "other": "odd"}


class Told:
    """What happened, a microsecond at a time, and when steps ended."""

    def __init__(self, before: int) -> None:
        self.before = before  # steps that earlier starts reached
        self.kinds: list[str] = []
        self.ends: list[tuple[int, int]] = []  # where, and which step
        self.first: int | None = None


def play(
    run: Path, number: int, moment: Any, first: int, deeds: list[Any], before: int
) -> tuple[Told, Any, int]:
    """Write a start, and what it did."""
    writer, told, step = begun(run, number, start=moment), Told(before), first
    for kind, what in deeds:
        if kind != "step":
            told.kinds += ["untimed" if kind == "idle" else kind] * what
            if kind == "idle":
                writer.idle(what / 1e6)
            else:
                writer.block(NAMES.get(kind, kind), what / 1e6, step)
            continue
        begin = writer.now
        if told.first is None:
            told.first = len(told.kinds)
        for inner, count in what:
            told.kinds += ["step" if inner == "idle" else inner] * count
            writer.idle(count / 1e6)
            if inner != "idle":
                writer.timing(inner, count / 1e6, step, 1, "step")
        writer.timing("step", (writer.now - begin).total_seconds(), step)
        told.ends.append((len(told.kinds), step))
        step += 1
    writer.log("end")
    return told, writer.now, step


def expect(tolds: list[Told]) -> dict[str, float]:
    """Split the time as docs/goodput.md says, in the plainest way; in microseconds."""

    def own(told: Told, begin: int, end: int) -> list[str]:
        return [kind for kind in told.kinds[begin:end] if kind in ("step", "untimed")]

    taken, firsts = [], []
    for told in tolds:
        for (begin, _), (end, _) in pairwise(told.ends):
            taken.append(len(own(told, begin, end)))
        if told.ends and told.first is not None:
            firsts.append(len(own(told, told.first, told.ends[0][0])))
    sample = taken or firsts
    ideal = limit = math.inf
    if sample:
        middle = float(np.median(sample))
        spread = float(np.median([abs(one - middle) for one in sample]))
        normal = [one for one in sample if one <= middle + 3 * spread]
        ideal = sum(normal) / len(normal)
        limit = max(ideal, middle) + 3 * spread
    parts = dict.fromkeys(KINDS, 0.0)
    for told in tolds:
        edges = [told.first if told.first is not None else len(told.kinds)]
        for kind in told.kinds[: edges[0]]:
            parts["start_up" if kind in ("step", "untimed", "other") else kind] += 1
        edges += [end for end, _ in told.ends] + [len(told.kinds)]
        for place, (begin, end) in enumerate(pairwise(edges)):
            here = {kind: told.kinds[begin:end].count(kind) for kind in (*PLANTED, "untimed")}
            mine = here["step"] + here["untimed"]
            most = ideal if not place else limit
            beyond = max(0, math.ceil(mine - most)) if told.ends else 0
            gone = min(beyond, here["untimed"])
            here["untimed"] -= gone
            here["step"] -= beyond - gone
            parts["start_up" if not place else "stalls"] += beyond
            last = place == len(told.ends)
            if not last and told.ends[place][1] < told.before:
                parts["again"] += here["step"] + here["untimed"] + here["data"]
                here |= {"step": 0, "untimed": 0, "data": 0}
            parts["other"] += here.pop("untimed") + (here.pop("step") if last else 0)
            for kind, count in here.items():
                parts[kind] += count
    return parts


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 5000), st.integers(0, 4), st.lists(DEED, min_size=1, max_size=25)),
        min_size=1,
        max_size=3,
    )
)
def test_any_history_is_split_as_the_oracle_says(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, int, list[Any]]]
) -> None:
    """Each start begins some steps before the last one that was reached."""
    run = tmp_path_factory.mktemp("run")
    moment, reached, tolds, dead = START, 0, [], 0
    for number, (pause, back, deeds) in enumerate(history):
        if number:
            moment += timedelta(microseconds=pause)
            dead += pause
        told, moment, end = play(run, number, moment, max(0, reached - back), deeds, reached)
        reached = max(reached, end)
        tolds.append(told)
    found = measured(run)
    expected = {**expect(tolds), "dead": float(dead)}
    # A step is so short here that one microsecond more or less may be rounding of the limit.
    assert {kind: s * 1e6 for kind, s in found.parts.items()} == pytest.approx(expected, abs=1e-3)
    assert found.steps + found.steps_again == sum(len(told.ends) for told in tolds)
