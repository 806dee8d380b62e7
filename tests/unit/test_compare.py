"""Runs compared: bit for bit, side by side, and as a command."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import OracleWriter, write_run_json

from foundry_fastlog import Recorder, compare_runs, read_run
from foundry_fastlog.analysis.direction import is_more_better
from foundry_fastlog.analysis.exact import Difference, find_difference
from foundry_fastlog.analysis.identity import differing, flatten
from foundry_fastlog.analysis.where_values import ABSENT

Command = Callable[..., Any]
NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("COLUMNS", "80")


def write(
    path: Path, values: dict[int, Any] | list[Any], name: str = "loss", **writer: Any
) -> Path:
    steps = values.items() if isinstance(values, dict) else enumerate(values)
    one = OracleWriter(path, **writer)
    for step, value in steps:
        one.metrics(step, **{name: value})
    return path


def difference(a: Path, b: Path, metric: str = "loss", rank: int = 0) -> Difference:
    found = compare_runs(a, b).differences
    return next(one for one in found if (one.metric, one.rank) == (metric, rank))


@pytest.mark.parametrize(
    ("a", "b", "first"),
    [
        ([1.0, 0.0], [1.0, -0.0], 1),
        ([0.1 + 0.2], [0.3], 0),
        ([1.0, math.nextafter(1, 2)], [1.0, 1.0], 1),
        ([NAN, 1.5], [NAN, 1.5], None),
        ([INF, NAN], [INF, INF], 1),
        ([2**53 + 1], [2**53], 0),  # the same as floats
        (
            [2**53 + 1, 0.5],
            [float(2**53), 0.5],
            None,
        ),  # beside a float both were recorded as floats
        ([2**53 + 1], [2.0**53], 0),
        ([3, 4], [3.0, 4.0], None),
        ([3, 4], [3.0, 4.5], 1),
        ([0, 4], [-0.0, 4.0], 0),
        ([7], [1e300], 0),
        ([7], [NAN], 0),
        ([True, False], [True, True], 1),
        ([True, False], [1, 0], None),
        (["a", "b"], ["a", "c"], 1),
        (["1.5"], [1.5], None),
        ([5e-324], [0.0], 0),
    ],
)
def test_values_are_the_same_or_not(
    a: list[Any], b: list[Any], first: int | None, tmp_path: Path
) -> None:
    for x, y in ((a, b), (b, a)):
        paths = [tmp_path / f"{n}-{x is a}" for n in range(2)]
        found = difference(write(paths[0], x), write(paths[1], y))
        assert found.first_step == first
        assert found.same == (first is None)
        assert found.common == len(a)
        if first is not None:
            assert str(found.values) == str((x[first], y[first]))


def bits(value: float) -> bytes:
    return b"nan" if math.isnan(value) else struct.pack("<d", value)


STEPS = st.dictionaries(st.integers(0, 12), st.sampled_from([0.0, -0.0, 1.5, NAN, INF]), max_size=9)


@given(STEPS, STEPS)
def test_steps_and_bits_against_dicts(a: dict[int, float], b: dict[int, float]) -> None:
    def arrays(values: dict[int, float]) -> tuple[str, Any, Any]:
        steps = sorted(values)
        return "step", np.array(steps, np.int64), np.array([values[s] for s in steps], float)

    found = find_difference("m", 0, "b", arrays(a), arrays(b))
    common = sorted(a.keys() & b.keys())
    differ = [step for step in common if bits(a[step]) != bits(b[step])]
    assert (found.common, found.differing) == (len(common), len(differ))
    assert found.first_step == (differ[0] if differ else None)
    assert found.only_first == len(a.keys() - b.keys())
    assert found.only_first_step == min(a.keys() - b.keys(), default=None)
    assert found.only_other_step == min(b.keys() - a.keys(), default=None)


def test_steps_that_were_recorded_twice_are_compared_in_turn(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, values in zip(paths, ([1.0, 2.0, 3.0], [1.0, 5.0]), strict=True):
        writer = OracleWriter(path)
        for value in values:
            writer.metrics(7, loss=value)
    found = difference(*paths)
    assert (found.common, found.first_step, found.values) == (2, 7, (2.0, 5.0))
    assert (found.only_first, found.only_other) == (1, 0)


def test_ranks_starts_and_epochs_are_compared_each_with_its_own(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for path, last in ((a, 1.0), (b, 2.0)):
        write(path, [1.0, 1.0])
        write(path, [1.0, last], rank=1)
        OracleWriter(path, rank=2).summary(3, val=last)
    write(b, [9.0], rank=3)
    assert difference(a, b).same
    assert difference(a, b, rank=1).first_step == 1
    epochs = difference(a, b, "val", 2)
    assert (epochs.unit, epochs.first_step) == ("epoch", 3)
    assert difference(a, b, rank=3).only_other == 1
    found = compare_runs(a, b)
    first = found.first_difference()
    assert first is not None
    assert (first.metric, first.rank, first.first_step) == ("loss", 1, 1)
    assert found.first_difference("nobody") is None
    assert not found.same
    OracleWriter(b, rank=2).metrics(0, val=1.0)  # now it has a step, which the other has not
    mixed = difference(a, b, "val", 2)
    assert (mixed.common, mixed.only_first) == (0, 1)
    write(a, [5.0], attempt=1)
    assert compare_runs(a, b, starts=0).differences[0].same
    with pytest.raises(ValueError, match="starts must be"):
        compare_runs(a, b, starts=4)


def test_metrics_side_by_side(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {0: 4.0, 1: NAN, 2: 1.0, 4: 2.0, 6: 3.0})
    b = write(tmp_path / "b", {0: 2.0, 1: 1.0, 4: 6.0, 6: 5.0, 9: 0.5})
    c = write(tmp_path / "c", [0.5, 0.75, 0.25], "val_accuracy")
    OracleWriter(c).metrics(0, note="text")
    loss, accuracy = compare_runs(a, b, c).metrics
    assert (loss.final, loss.best, loss.best_step) == (
        (3.0, 0.5, None),
        (1.0, 0.5, None),
        (2, 9, None),
    )
    assert (loss.count, loss.nonfinite) == ((4, 5, 0), (1, 0, 0))
    # Over steps 0, 4 and 6, which both have.
    assert loss.area == (4 * (4 + 2) / 2 + 2 * 2.5, 4 * (2 + 6) / 2 + 2 * 5.5, None)
    assert (loss.area_steps, loss.more_is_better) == (3, False)
    assert (accuracy.best, accuracy.best_step, accuracy.more_is_better) == (
        (None, None, 0.75),
        (None, None, 1),
        True,
    )
    (loss,) = compare_runs(a, b, metrics="lo*", maximise=["l*"]).metrics
    assert loss.best == (4.0, 6.0)
    one = write(tmp_path / "one", {0: 1.0})
    OracleWriter(tmp_path / "epochs").summary(0, loss=1.0)
    assert compare_runs(a, one).metrics[0].area == (None, None)
    assert compare_runs(a, tmp_path / "epochs").metrics[0].area_steps == 0
    with pytest.raises(LookupError, match="no metric fits nope; there are: "):
        compare_runs(a, b, metrics="nope")
    with pytest.raises(TypeError, match="two or more runs, got 1"):
        compare_runs(a)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *(
            ("loss", False),
            ("val/acc", True),
            ("eval.F1", True),
            ("tokens_per_s", True),
            ("mfu", True),
        ),
        *(
            ("accuracy_loss", True),
            ("heatmap", False),
            ("bits/sec", True),
            ("top1", True),
            ("r2", True),
        ),
        *(
            ("lr", False),
            ("perplexity", False),
            ("episode_reward", True),
            ("samples_per_second", True),
        ),
    ],
)
def test_the_direction_of_a_metric(name: str, more: bool) -> None:
    assert is_more_better(name) == more


def test_settings_that_differ() -> None:
    configs = [
        {"lr": 1, "model": {"layers": [1, 2], "x": {}}, "same": [1], "n": None},
        {"lr": 1.0, "model": {"layers": [1, 3, 4]}, "same": [1]},
    ]
    assert flatten(configs[0]) == {
        "lr": 1,
        "model.layers.0": 1,
        "model.layers.1": 2,
        "model.x": {},
        "same.0": 1,
        "n": None,
    }
    assert differing(configs) == {
        "lr": (1, 1.0),
        "model.layers.1": (2, 3),
        "model.x": ({}, ABSENT),
        "n": (None, ABSENT),
        "model.layers.2": (ABSENT, 4),
    }
    hydra = [{"_target_": name, "_wandb": {"id": name}} for name in "ab"]
    assert differing(hydra) == {"_target_": ("a", "b")}


def test_code_and_configuration_are_of_the_latest_start_that_has_them(tmp_path: Path) -> None:
    for lr in (1, 2):
        with Recorder(tmp_path / "a", config={"lr": lr}) as recorder:
            recorder.record(lr, loss=1.0)
    write(tmp_path / "b", [1.0])
    found = compare_runs(tmp_path / "a", read_run(tmp_path / "b"))
    assert found.config == {"lr": (2, ABSENT)}
    assert [(run.name, run.state, run.starts) for run in found.runs] == [
        ("a", "ended", 2),
        ("b", "unknown", 1),
    ]
    assert found.runs[1].code == ""
    assert all(run.complete for run in found.runs)


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two runs with timings that differ from step 60 on."""
    paths = []
    for number in range(2):
        path = write(
            tmp_path / f"run{number}", [1 / (s + 1 + number * (s >= 60)) for s in range(100)]
        )
        timer = OracleWriter(path)
        for step in range(9):
            timer.timing("step", 0.1 * (1 + number), step=step)
        timer.timing(f"only{number}", 0.5)
        write_run_json(path, name=path.name, config={"lr": 0.1 * number, "text": "x\n"})
        paths.append(path)
    return paths


def test_timings_side_by_side(pair: list[Path]) -> None:
    step, first, second = compare_runs(*pair).timings
    assert (step.name, step.count) == ("step", (9, 9))
    assert step.p50_s == pytest.approx((0.1, 0.2))
    assert step.mean_s == pytest.approx((0.1, 0.2))
    assert step.p50_ratio == step.mean_ratio == pytest.approx((1, 2))
    assert {(first.name, first.p50_s), (second.name, second.p50_s)} == {
        ("only0", (0.5, None)),
        ("only1", (None, 0.5)),
    }
    assert second.p50_ratio == (None, None)


def test_the_command(pair: list[Path], command: Command) -> None:
    text = command("compare", *pair).out
    for words in (
        *("Where A = run0 and B = run1 differ: first at step 60", "40 of 100", "200 ms (2.00x)"),
        *("lr        0.0   0.1", "0.009901 @99", "⠒⠒ run0 0.01", "over common steps"),
    ):
        assert words in text, words
    assert max(map(len, text.splitlines())) <= 80
    command("compare", *pair, "--exit-code", code=1)
    same = command("compare", pair[0], pair[0], "--exit-code", "-m", "loss").out
    assert "run0 and run0 (2): bit for bit the same (100 values)" in same
    assert "Configuration: the same" in same
    found = json.loads(command("compare", *pair, "--json").out)
    assert (found["same"], found["differences"][0]["first_step"]) == (False, 60)
    assert found["config"] == {"lr": [{"value": 0.0}, {"value": 0.1}]}
    assert found["runs"][0]["path"] == str(pair[0])
    assert "takes two or more runs" in command("compare", pair[0], code=2).err
    assert "no metric fits q" in command("compare", *pair, "-m", "q", code=2).err


def test_the_command_with_ranks_absent_steps_and_many_runs(
    tmp_path: Path, command: Command
) -> None:
    runs = [write(tmp_path / f"r{n}", dict.fromkeys(range(n, 20), 1.0)) for n in range(7)]
    for rank in (0, 1):
        write(runs[1], [NAN, INF], "odd", rank=rank)
    (runs[2] / "metrics.jsonl").write_bytes((runs[2] / "metrics.jsonl").read_bytes()[:-5])
    write_run_json(runs[0], name="r0", config={"only": 1})
    text = command("compare", *runs[:2]).out
    assert re.search(r"^only +1 +-$", text, re.MULTILINE)
    text = command("compare", *runs).out
    for words in (
        "1 from 0",
        "common values agree",
        "rank",
        "columns of r5, r6 are not shown",
        "NO",
    ):
        assert words in text, words
    found = json.loads(command("compare", runs[1], runs[2], "--json").out)
    assert found["metrics"][0]["name"] == "loss"
    OracleWriter(tmp_path / "a").log("x")
    OracleWriter(tmp_path / "b").log("x")
    text = command("compare", tmp_path / "a", tmp_path / "b").out
    assert "bit for bit the same (0 values)" in text


def test_json_has_texts_for_what_json_has_not(tmp_path: Path, command: Command) -> None:
    a, b = write(tmp_path / "a", [NAN, 2.0]), write(tmp_path / "b", [INF, 2.0])
    (one,) = json.loads(command("compare", a, b, "--json").out)["differences"]
    assert one["values"] == ["nan", "inf"]
