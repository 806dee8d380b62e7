"""What charts show of runs: points on each kind of axis, ranks, groups, starts, checkpoints."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import START, OracleWriter, write_run_json

from foundry_fastlog import read_run
from foundry_fastlog.analysis import series
from foundry_fastlog.analysis.points import AXES, Asked, read_points
from foundry_fastlog.analysis.series import Chart, Series, read_charts
from foundry_fastlog.base.extras import extra

NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))


def only(charts: list[Chart]) -> Series:
    (chart,) = charts
    (found,) = chart.series
    return found


def pairs(one: Series) -> list[tuple[float, float]]:
    return list(zip(one.x.tolist(), one.y.tolist(), strict=True))


def chart_of(path: Path, names: Any = None, weight: float = 0.0, **asked: Any) -> Series:
    return only(read_charts([read_run(path)], names, Asked(**asked), weight=weight))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Ten steps of two epochs, a second apart; a spike, NaN and infinities; val at odd steps."""
    writer = OracleWriter(tmp_path / "run", tick_s=1.0)
    values = [5.0, 4.0, NAN, 90.0, 3.0, -INF, 2.0, 1.5, INF, 1.0]
    for step, value in enumerate(values):
        more = {"val": step / 10} if step % 2 else {}
        writer.metrics(step, epoch=step // 5, loss=value, tokens=step * 512, **more)
    return tmp_path / "run"


FINITE = {0: 5.0, 1: 4.0, 3: 90.0, 4: 3.0, 6: 2.0, 7: 1.5, 9: 1.0}


@pytest.mark.parametrize("points", [None, 2, 2000])
def test_steps_with_what_is_not_finite_beside(run: Path, points: int | None) -> None:
    """By rows and by buckets, however coarse: first, last, the spike, and each odd value."""
    found = chart_of(run, "loss", points=points)
    shown = dict(pairs(found))
    assert shown.items() <= FINITE.items()
    assert {0: 5.0, 3: 90.0, 9: 1.0}.items() <= shown.items()
    assert points == 2 or shown == FINITE
    assert found.odd_steps.tolist() == found.odd_x.tolist() == [2, 5, 8]
    assert list(map(str, found.odd_y.tolist())) == ["nan", "-inf", "inf"]


@pytest.mark.parametrize(
    ("x", "place"),
    [
        ("epoch", lambda step: step // 5),
        ("relative", lambda step: step),
        ("time", lambda step: START.timestamp() + step),
        ("tokens", lambda step: step * 512),
        ("metrics.tokens", lambda step: step * 512),
    ],
)
def test_each_kind_of_axis(run: Path, x: str, place: Any) -> None:
    found = chart_of(run, "loss", x=x)
    assert found.x.tolist() == pytest.approx([place(step) for step in FINITE])
    assert found.y.tolist() == list(FINITE.values())
    assert found.odd_x.tolist() == pytest.approx([place(step) for step in (2, 5, 8)])


def test_a_metric_as_axis_joins_by_step_and_says_what_has_no_place(tmp_path: Path) -> None:
    """Recorded in another line, twice, or by another rank: the last of the same rank counts."""
    for rank in (0, 1):
        writer = OracleWriter(tmp_path, rank=rank)
        for step in range(4):
            writer.metrics(step, loss=float(step))
            if step != 1:
                writer.metrics(step, scale=-1.0).clear()
                writer.metrics(step, scale=10.0 * rank - step)
    found = chart_of(tmp_path, "loss", x="scale")
    assert pairs(found) == [(-3, 3), (-2, 2), (0, 0)]
    assert found.unplaced == 1
    assert [
        one.x.tolist()
        for one in read_charts([read_run(tmp_path)], "loss", Asked("scale", ranks=(1,)))[0].series
    ] == [[7, 8, 10]]
    OracleWriter(tmp_path, attempt=1).fill([5], loss=5.0)  # a start without the axis
    assert chart_of(tmp_path, "loss", x="scale").unplaced == 2
    with pytest.raises(
        LookupError, match=r"-x takes step, .* no metric scal; there are: scale, loss"
    ):
        chart_of(tmp_path, "loss", x="scal")


def test_a_metric_with_the_name_of_an_axis(tmp_path: Path) -> None:
    OracleWriter(tmp_path).metrics(3, loss=1.0, time=7.5)
    assert chart_of(tmp_path, "loss", x="metrics.time").x.tolist() == [7.5]
    assert AXES == ("step", "epoch", "time", "relative")


def test_epoch_summaries_are_where_their_process_was(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, tick_s=1.0)
    writer.summary(-1, val=9.0, loss=8.0)  # before any step: it has no place among them
    for step in range(6):
        writer.metrics(step, loss=1.0)
        if step % 3 == 2:
            writer.summary(step // 3, val=float(step), loss=7.0)
    by_step = chart_of(tmp_path, "val")
    assert (pairs(by_step), by_step.summaries, by_step.unplaced) == ([(2, 2), (5, 5)], True, 1)
    assert pairs(chart_of(tmp_path, "val", x="epoch")) == [(-1, 9), (0, 2), (1, 5)]
    assert chart_of(tmp_path, "val", x="relative").x.tolist() == pytest.approx([0, 4, 8])
    assert chart_of(tmp_path, "loss").y.tolist() == [1.0] * 6  # its own steps, no summary
    smoothed = chart_of(tmp_path, "val", 0.5, x="epoch").smooth
    assert smoothed is not None
    assert smoothed[1] == pytest.approx((9 * 0.5 + 2) / 1.5)
    OracleWriter(tmp_path / "none").summary(0, val=1.0)
    assert len(chart_of(tmp_path / "none", "val").x) == 0


def test_steps_are_a_window(run: Path) -> None:
    assert dict(pairs(chart_of(run, "loss", steps=(3, 6), points=2))) == {3: 90.0, 4: 3.0, 6: 2.0}
    assert chart_of(run, "loss", steps=(None, 1)).x.tolist() == [0, 1]


def test_ranks(tmp_path: Path) -> None:
    """The lowest that recorded a metric, a list of ranks, or each."""
    OracleWriter(tmp_path).fill(range(3), loss=0.0)
    for rank in (1, 2):
        OracleWriter(tmp_path, rank=rank).fill(range(3), loss=float(rank), other=rank * 10.0)
    run = read_run(tmp_path)

    def ranks(name: str, **asked: Any) -> list[int | None]:
        return [one.rank for one in read_charts([run], name, Asked(**asked))[0].series]

    for points in (None, 100):
        assert ranks("loss", points=points) == [0]
        assert ranks("other", points=points) == [1]
        assert ranks("loss", points=points, ranks="all") == [0, 1, 2]
        assert ranks("loss", points=points, ranks=(2, 0, 7)) == [0, 2]
        assert ranks("other", points=points, ranks="all") == [1, 2]
    (all_of_both,) = read_charts([run], "*", Asked(ranks="all"), overlay=True)
    assert [one.rank for one in all_of_both.series] == [0, 1, 2, 1, 2]
    (both,) = read_charts([run], "*", Asked(), overlay=True)
    assert [(one.metric, one.rank) for one in both.series] == [("loss", 0), ("other", 1)]


def test_starts_are_marked_where_they_take_over(tmp_path: Path) -> None:
    for number, steps in enumerate((range(6), range(4, 9), range(7, 12))):
        OracleWriter(tmp_path, attempt=number).fill(steps, loss=float(number))
    run = read_run(tmp_path)
    (chart,) = read_charts([run], "loss", Asked(points=100))
    assert [(mark.x, mark.word) for mark in chart.marks] == [(4, "start 1"), (7, "start 2")]
    assert chart.series[0].y.tolist() == [0.0] * 4 + [1.0] * 3 + [2.0] * 5
    (chart,) = read_charts([run], "loss", Asked(starts=1))
    assert (chart.series[0].x.tolist(), chart.marks) == ([4, 5, 6, 7, 8], [])


@pytest.mark.parametrize("by", ["timings", "messages"])
def test_checkpoints(by: str, tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, tick_s=1.0)
    for step in range(6):
        writer.metrics(step, loss=1.0)
        if step % 2 and by == "timings":
            writer.timing("save_checkpoint[0]", 0.1, step=step)
            writer.timing("load_checkpoint", 0.1, step=step + 100)
        elif step % 2:
            writer.log("Checkpoint saved", step=step)
            writer.log("Saving checkpoint", step=step + 50)
            writer.log("checkpoint saved")
    if by == "timings":
        writer.timing("forward", 0.1)
    run = read_run(tmp_path)

    def marks(**asked: Any) -> list[float]:
        charts = read_charts([run], "loss", Asked(**asked), checkpoints=True)
        return [mark.x for mark in charts[0].marks if mark.word == series.CHECKPOINT]

    assert marks() == [1, 3, 5]
    assert marks(steps=(2, 3)) == [3]
    assert marks(steps=(None, 2)) == [1]
    assert marks(x="epoch") == []
    gap = 4 if by == "messages" else 3
    first = {"messages": 2, "timings": 2}[by]
    times = [first, first + gap + 1, first + 2 * gap + 2]
    assert marks(x="relative") == pytest.approx(times)
    assert marks(x="time") == pytest.approx([START.timestamp() + one for one in times])


def test_timings_without_steps_are_no_checkpoints(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(2)).timing("checkpoint", 0.1)
    (chart,) = read_charts([read_run(tmp_path)], "loss", checkpoints=True)
    assert chart.marks == []


def seed(path: Path, seed: int, lr: float, values: list[float], **writer: Any) -> Path:
    one = OracleWriter(path)
    for step, value in enumerate(values):
        one.metrics(step, loss=value)
    write_run_json(path, name=path.name, config={"seed": seed, "opt": {"lr": lr}})
    return path


def test_groups_are_means_over_runs_that_agree(tmp_path: Path) -> None:
    values = [[4.0, 2.0, 1.0], [6.0, 4.0], [1.0, NAN, 3.0]]
    paths = [
        seed(tmp_path / str(n), n, lr, found)
        for n, (lr, found) in enumerate(zip((0.1, 0.1, 0.2), values, strict=True))
    ]
    runs = [read_run(path) for path in paths]
    for keys in (["config.opt.lr"], ["opt.lr"]):
        (chart,) = read_charts(runs, "loss", group_by=keys)
        first, second = chart.series
        assert [first.run, second.run] == ["opt.lr=0.1", "opt.lr=0.2"]
        assert (first.runs, second.runs, first.rank) == (2, 1, None)
        assert first.y.tolist() == [5, 3, 1]
        assert first.count is not None
        assert first.count.tolist() == [2, 2, 1]
        assert first.error is not None
        assert first.error.tolist() == pytest.approx([1, 1, 0])
        assert second.odd_x.tolist() == [1]
    (chart,) = read_charts(runs, "loss", group_by=["seed", "name"], weight=0.5)
    assert [one.run for one in chart.series] == [
        "seed=0, name=0",
        "seed=1, name=1",
        "seed=2, name=2",
    ]
    assert chart.series[0].smooth is not None
    assert chart.series[0].smooth.tolist() == pytest.approx([4, 4 / 1.5, 3 / 1.75])
    with pytest.raises(
        LookupError, match=r"no run has the setting opt\.rl; there are: config\.opt"
    ):
        read_charts(runs, "loss", group_by=["opt.rl"])
    with pytest.raises(ValueError, match="choose one rank"):
        read_charts(runs, "loss", Asked(ranks="all"), group_by=["seed"])
    write_run_json(paths[2], name="2", config={})
    (chart,) = read_charts([read_run(path) for path in paths], "loss", group_by=["seed"])
    assert chart.series[2].run == "seed=-"


def test_all_curves_of_a_plot_are_smoothed_over_the_same_distance(tmp_path: Path) -> None:
    """A metric that is recorded rarely is not smoothed over ten of its own values."""
    writer = OracleWriter(tmp_path)
    for step in range(100):
        writer.metrics(
            step, loss=float(step % 7), **({"val": step * 1.0} if step % 20 == 0 else {})
        )
    run = read_run(tmp_path)
    alone = only(read_charts([run], "val", weight=0.5)).smooth
    beside = read_charts([run], ["loss", "val"], weight=0.5)[1].series[0].smooth
    assert alone is not None
    assert beside is not None
    assert alone[1] == pytest.approx(20 / 1.5)
    assert beside[1] == pytest.approx(20, rel=1e-5)


def test_what_is_drawn_by_default(tmp_path: Path) -> None:
    OracleWriter(tmp_path / "a").metrics(0, note="x", **{"train/loss": 1.0, "val_loss": 2.0})
    (chart,) = read_charts([read_run(tmp_path / "a")])
    assert chart.title == "train/loss, val_loss"
    OracleWriter(tmp_path / "b").metrics(0, note="x", reward=1.0)
    assert only(read_charts([read_run(tmp_path / "b")])).metric == "reward"
    OracleWriter(tmp_path / "c").metrics(0, note="x")
    assert read_charts([read_run(tmp_path / "c")]) == []
    OracleWriter(tmp_path / "d").log("no metrics")
    assert read_charts([read_run(tmp_path / "d")]) == []


def test_patterns_that_fit_nothing_name_the_nearest(run: Path, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no metric fits lss; there are: loss, "):
        chart_of(run, "lss")
    OracleWriter(tmp_path / "many").metrics(0, **{f"m{n}": 1.0 for n in range(20)})
    OracleWriter(tmp_path / "none").log("x")
    with pytest.raises(LookupError, match=r"no metric fits x\*; there are: .* and 8 more"):
        chart_of(tmp_path / "many", "x*")
    with pytest.raises(LookupError, match="there is none"):
        chart_of(tmp_path / "none", "loss")
    charts = read_charts([read_run(run)], ["val", "*"])
    assert [chart.title for chart in charts] == ["val", "loss", "tokens"]


def test_hostile_names_and_values(tmp_path: Path) -> None:
    """Patterns' own characters, the names of columns, and texts among numbers."""
    writer = OracleWriter(tmp_path)
    for step in range(3):
        odd = {"a[0]*?": 1.0 + step, "step": 5.0, "rank": "x" if step == 1 else step, "": 2.0}
        writer.metrics_dict(step, {**odd, "mixed": [1.5, "no", NAN][step], "flag": step == 1})
    run = read_run(tmp_path)
    for name, values in {"a[0]*?": [1, 2, 3], "step": [5] * 3, "rank": [0, 2], "": [2] * 3}.items():
        assert chart_of(tmp_path, [name]).y.tolist() == values, name
    mixed = chart_of(tmp_path, "mixed")
    assert (mixed.y.tolist(), mixed.odd_x.tolist()) == ([1.5], [2])
    assert chart_of(tmp_path, "flag").y.tolist() == [0, 1, 0]
    assert read_points(run, ["absent"], Asked()) == []


def test_a_clock_that_is_none(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(2), loss=1.0)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace("2026-01-30T", "2026-99-30T", 1))
    found = chart_of(tmp_path, "loss", x="relative")
    assert (len(found.x), found.unplaced) == (0, 2)


def test_a_missing_extra_is_named_and_a_broken_one_is_not_hidden() -> None:
    with (
        pytest.raises(ImportError, match=r"nopackage is not .* 'foundry_fastlog\[plot\]'"),
        extra("plot", "nopackage"),
    ):
        import nopackage.part  # type: ignore[import-not-found]
    with pytest.raises(ModuleNotFoundError, match="nopackage"), extra("plot", "matplotlib"):
        import nopackage  # noqa: F401


def test_labels_tell_runs_apart(tmp_path: Path) -> None:
    from foundry_fastlog.analysis.identity import label_runs

    paths = [tmp_path / name for name in ("a/x", "b/x", "b/y")]
    for path in paths:
        OracleWriter(path).fill([0])
    runs = [read_run(path) for path in paths]
    assert label_runs(runs) == ["a/x", "b/x", "y"]
    assert label_runs([runs[2], runs[2]]) == ["y", "y (2)"]
    write_run_json(paths[2], name="nice")
    assert label_runs([read_run(paths[2]), runs[0]]) == ["nice", "x"]


def test_time_is_of_each_line(run: Path) -> None:
    """Relative time begins with the run's first record, not with the metric's."""
    assert chart_of(run, "val", x="relative").x.tolist() == pytest.approx([1, 3, 5, 7, 9])
    later = OracleWriter(run, attempt=1, start=START + timedelta(hours=1), tick_s=1.0)
    later.fill(range(8, 12), loss=0.5)
    found = chart_of(run, "loss", x="relative")
    assert found.x[-1] == pytest.approx(3603)  # the pause between starts is part of it
    assert np.all(np.diff(found.x) > 0)
