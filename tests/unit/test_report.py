"""Summing up a run, and showing it."""

from __future__ import annotations

import io
import json
import math
import re
import statistics
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from oracle import START, OracleWriter, attempt, write_run_json
from rich.console import Console

from foundry_fastlog import Recorder
from foundry_fastlog.analysis.accumulate import percentile
from foundry_fastlog.analysis.summarize import summarize
from foundry_fastlog.analysis.summary import Summary
from foundry_fastlog.base import formatting as to
from foundry_fastlog.reading import absent_rings
from foundry_fastlog.reading.run import read_run
from foundry_fastlog.show.curve import draw_curves
from foundry_fastlog.show.line_text import format_line
from foundry_fastlog.show.names import Name
from foundry_fastlog.show.terminal import render_checks, render_summary

HOUR = timedelta(hours=1)
Patch = pytest.MonkeyPatch
finite = st.floats(allow_nan=False, allow_infinity=False)


def shown(summary: Summary, *, width: int = 100, encoding: str = "utf-8") -> str:
    """What a terminal shows of a summary."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    render_summary(summary, Console(file=file, width=width, highlight=False))
    return raw.getvalue().decode(encoding)


def summed(run: Path, **options: Any) -> Summary:
    return summarize(read_run(run), **options)


def check_has(text: str, *expected: str) -> None:
    assert [part for part in expected if part not in text] == []


def drop_lines(run: Path, *numbers: int, instead: bytes | None = None) -> None:
    """Remove lines of the metrics, or put something in their place."""
    path = run / "metrics.jsonl"
    raws = enumerate(path.read_bytes().split(b"\n"))
    kept = [instead if n in numbers else raw for n, raw in raws]
    path.write_bytes(b"\n".join(raw for raw in kept if raw is not None))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.one_of(st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans()), min_size=1),
    st.integers(1, 3),
)
@example([1.7e308, 1.7e308, 1.7e308], 1)
@example([0.0, 9e307, 9e307], 1)
@example([0.0, 4.0924359722766166e-307], 1)
@example([2**63 - 1, 2**63 - 2, -(2**63)], 1)
def test_statistics_of_a_metric_agree_with_the_obvious_ones(
    tmp_path_factory: pytest.TempPathFactory, recorded: list[float], ranks: int
) -> None:
    """Any numbers, NaN, infinities and the largest floats included, by one writer or by several."""
    path = tmp_path_factory.mktemp("run")
    for rank in range(ranks):
        start = START + timedelta(milliseconds=rank)
        writer = OracleWriter(path, rank=rank, start=start, tick_s=0.001 * ranks)
        for step in range(rank, len(recorded), ranks):
            writer.metrics(step, x=recorded[step])
    (stats,) = summed(path).metrics
    numbers = [value for value in recorded if math.isfinite(value)]
    assert (stats.count, stats.numbers) == (len(recorded), len(numbers))
    assert stats.nonfinite == len(recorded) - len(numbers)
    for got, value in ((stats.first, recorded[0]), (stats.last, recorded[-1])):
        assert got == value or (math.isnan(got) and math.isnan(value))
    if numbers:
        assert (stats.min, stats.max) == (min(numbers), max(numbers))
        assert stats.min_step == recorded.index(min(numbers))
        assert stats.max_step == recorded.index(max(numbers))
        exact = float(statistics.mean([statistics.Fraction(value) for value in numbers]))
        assert stats.mean is not None
        scale = max(abs(value) for value in numbers)
        assert math.isclose(stats.mean, exact, rel_tol=1e-9, abs_tol=1e-12 * scale)
    else:
        assert (stats.min, stats.max, stats.mean, stats.min_step) == (None, None, None, None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), finite), max_size=50))
def test_a_curve_has_each_step_where_they_are_few(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[int, float]]
) -> None:
    """By step, whatever their order; values of one step are averaged."""
    path = tmp_path_factory.mktemp("run")
    writer = OracleWriter(path)
    for step, value in points:
        writer.metrics(step, x=value)
    kept = summed(path).curves.get("x", [])
    assert [step for step, _ in kept] == sorted({step for step, _ in points})
    for step, value in kept:
        values = [v for s, v in points if s == step]
        ends = min(values), max(values)
        close = (math.isclose(value, end, abs_tol=1e-290) for end in ends)
        assert ends[0] <= value <= ends[1] or any(close)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_percentiles_agree_with_numpys_default(durations: list[float], fraction: float) -> None:
    numpy = pytest.importorskip("numpy")
    ascending = sorted(durations)
    expected = float(numpy.quantile(ascending, fraction))
    assert math.isclose(percentile(ascending, fraction), expected, rel_tol=1e-9, abs_tol=1e-9)


def test_percentiles_of_very_many_durations_are_of_a_fair_sample(tmp_path: Path) -> None:
    """The memory is bounded, the sums stay exact, and the sample covers early and late."""
    count = 300_000
    line = '{"timestamp":"2026-01-30T14:32:15.123456Z","seq":%d,"name":"step","duration_s":%d,'
    line += '"depth":0,"thread":1}\n'
    (tmp_path / "performance.jsonl").write_text("".join(line % (n, n) for n in range(count)))
    summary = summed(tmp_path)
    assert "are of a random sample" in shown(summary)
    (timing,) = summary.timings
    most = (count, count * (count - 1) / 2, count - 1)
    assert (timing.count, timing.total_s, timing.max_s) == most
    assert timing.sampled
    for percent, value in ((50, timing.p50_s), (95, timing.p95_s), (99, timing.p99_s)):
        assert abs(value / count - percent / 100) < 0.01


def test_a_summary_has_every_metric_in_order_of_appearance(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    for step, loss in enumerate((4.0, 1.0, math.nan, math.inf, 3.0)):
        writer.metrics(step, loss=loss, note=f"n{step}", ok=step > 2)
    writer.metrics(4, val_loss=2.0)
    writer.summary(0, loss=0.5, epoch_time=9.0)
    summary = summed(tmp_path)
    names = ["loss", "note", "ok", "val_loss", "loss (epoch)", "epoch_time (epoch)"]
    assert [stats.name for stats in summary.metrics] == names
    loss: Any = summary.metric("loss")
    epoch: Any = summary.metric("loss (epoch)")
    note: Any = summary.metric("note")
    assert (loss.count, loss.numbers, loss.nonfinite) == (5, 3, 2)
    assert (loss.first, loss.last) == (4.0, 3.0)
    assert (loss.min, loss.min_step, loss.max, loss.max_step) == (1.0, 1, 4.0, 0)
    assert loss.mean == 8.0 / 3
    assert (epoch.count, epoch.last, epoch.min_step) == (1, 0.5, None)
    assert (note.first, note.last, note.count, note.mean) == ("n0", "n4", 5, None)
    assert summary.metric("nope") is None
    assert summary.curves["loss"] == [(0, 4.0), (1, 1.0), (4, 3.0)]
    ok: Any = summary.metric("ok")
    assert (ok.numbers, ok.first, ok.min, ok.min_step, ok.max, ok.max_step) == (
        5,
        False,
        0,
        0,
        1,
        3,
    )
    assert (ok.mean, summary.curves["ok"][2:4]) == (0.4, [(2, 0.0), (3, 1.0)])
    assert list(summary.curves) == ["loss", "ok", "val_loss"]
    assert (summary.first_step, summary.last_step) == (0, 4)


def test_shares_are_of_the_step_timer_or_of_wall_time(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    for step in range(4):
        for name, duration in (("forward", 0.2), ("backward", 0.3)):
            writer.timing(name, duration, step=step, depth=1, parent="step")
        writer.timing("step", 1.0, step=step, error="ValueError" if step == 3 else None)
    summary = summed(tmp_path)
    assert (summary.timing_base, summary.timing_base_s) == ("step", 4.0)
    step, backward, forward = summary.timings
    assert (step.name, backward.name, forward.name) == ("step", "backward", "forward")
    assert (step.share, forward.share) == (1.0, pytest.approx(0.2))
    assert (forward.count, forward.mean_s, forward.p50_s, forward.max_s) == (4, 0.2, 0.2, 0.2)
    assert (step.errors, forward.errors, forward.sampled) == (1, 0, False)
    # Without one they are of wall time, which begins where the first block began; pauses between
    # attempts do not count.
    for number in range(2):
        writer = attempt(tmp_path / "wall", number, tick_s=1.0)
        for step_number in range(4):
            writer.timing("load", 0.5, step=number * 4 + step_number)
    summary = summed(tmp_path / "wall")
    assert (summary.timing_base, summary.timing_base_s) == ("wall", pytest.approx(2 * 3.5))
    assert [load.share for load in summary.timings] == [pytest.approx(8 * 0.5 / 7)]


def test_of_many_metrics_some_are_shown(tmp_path: Path, command: Callable[..., Any]) -> None:
    """Those that were NaN are among them, and those that were asked for are all there."""
    writer = OracleWriter(tmp_path)
    names = [f"grad/{number}" for number in range(150)]
    for step in range(2):
        writer.metrics(step, **dict.fromkeys(names, 1.0), last=float("nan"))
    for number in range(60):
        writer.timing(f"block {number}", 1.0 + number)
    summary = summed(tmp_path)
    text = shown(summary)
    assert [name for name in names if re.search(rf"{name}\b", text)] == names[:39]
    assert re.search(r"\blast\b.* 2\b", text)
    assert "111 more; -m 'PATTERN' shows those that fit" in text
    assert "block 59" in text
    assert "block 19 " not in text
    assert "20 more that took less" in text
    text = command("summary", tmp_path, "-m", "grad/14*", "-m", "las?").out
    shown_names = {"grad/14", *(f"grad/{number}" for number in range(140, 150))}
    assert set(re.findall(r"grad/\d+", text)) == shown_names
    assert "more; -m" not in text
    found = json.loads(command("summary", tmp_path, "-m", "grad/1", "--json").out)
    assert [metric["name"] for metric in found["metrics"]] == ["grad/1"]


def test_what_is_not_in_a_step_has_no_share_of_it(tmp_path: Path) -> None:
    """Names tell nothing: a validation has the same blocks, and another thread its own."""
    writer = OracleWriter(tmp_path)

    def pass_through(inside: str, load: float, depth: int = 1, **thread: int) -> None:
        for _ in range(2):
            writer.timing("load", load, depth=depth + 1, parent="forward", **thread)
        writer.timing("forward", 2.5 * load, depth=depth, parent=inside, **thread)

    for step in range(4):
        pass_through("step", 0.1)
        pass_through("validation", 5.0, thread=7)
        writer.timing("forward (task)", 0.5, depth=1, parent="other")  # of a task in between
        writer.timing("step", 1.0, step=step)
        writer.timing("validation", 12.0, thread=7)
    pass_through("epoch", 3.0)
    writer.timing("epoch", 9.0)
    writer.timing("alone", 1.0)
    shares = {timing.name: timing.share for timing in summed(tmp_path).timings}
    shares = {name: share and round(share, 9) for name, share in shares.items()}
    assert shares == {
        "step": 1.0,
        "forward": 0.25,
        "load": 0.2,
        **dict.fromkeys(("validation", "forward (task)", "epoch", "alone")),
    }


def test_what_was_in_a_step_that_counts_no_longer_has_no_share(tmp_path: Path) -> None:
    """A later start recorded the step again, but not all that was in it."""
    first = OracleWriter(tmp_path)
    for step, duration_s in ((0, 0.4), (1, 0.1)):
        first.timing("save", duration_s, step, depth=2, parent="end")
        first.timing("end", duration_s, step, depth=1, parent="step")
        first.timing("step", 1.0, step)
    first.timing("load", 0.3, 0, depth=1, parent="step")
    first.timing("step", 1.0, 0)
    OracleWriter(tmp_path, attempt=1, start=START + timedelta(hours=1)).timing("step", 1.0, 1)
    shares = {timing.name: timing.share for timing in summed(tmp_path).timings}
    assert shares == {
        "step": 1.0,
        "end": pytest.approx(0.4 / 3),
        "save": pytest.approx(0.4 / 3),
        "load": pytest.approx(0.1),
    }


def test_a_run_begins_with_its_first_block(tmp_path: Path) -> None:
    """A block's line has the time of its end, and blocks within it end before it does."""
    writer = OracleWriter(tmp_path / "one")
    writer.timing("inner", 0.005, depth=1, parent="outer")
    writer.timing("outer", 0.050)
    summary = summed(tmp_path / "one")
    tick = writer.tick.total_seconds()
    assert summary.wall_s == summary.attempts[0].wall_s == pytest.approx(max(0.05, tick + 0.005))
    assert summary.timing_base_s == summary.wall_s
    writer.timing("odd", 1e300)
    assert summed(tmp_path / "one").wall_s == pytest.approx(summary.wall_s + tick)
    OracleWriter(tmp_path / "ranks", rank=0).fill([0])
    OracleWriter(tmp_path / "ranks", rank=1).timing("load", 0.25)
    summary = summed(tmp_path / "ranks")
    assert summary.wall_s == pytest.approx(0.25)
    assert [attempt.wall_s for attempt in summary.attempts] == [0.0, pytest.approx(0.25)]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("train/layer_12.attention.weight", ["train/layer_", "12.", "attention.", "weight"]),
        ("validation loss", ["validation", "loss"]),
        ("x" * 30, ["x" * 12, "x" * 12, "x" * 6]),
        ("a/" + "x" * 13 + "/b", ["a/", "x" * 12, "x/b"]),
        ("损失" * 4, ["损失" * 3, "损失"]),
        ("short", ["short"]),
        ("", [""]),
    ],
)
def test_names_are_folded_between_their_words(name: str, lines: list[str]) -> None:
    file = io.StringIO()
    Console(file=file, width=12).print(Name(name))
    assert file.getvalue().splitlines() == lines


def test_runs_that_say_little_are_summed_up(tmp_path: Path) -> None:
    def write(name: str) -> OracleWriter:
        return OracleWriter(tmp_path / name)

    # A reader takes what the format's next version may leave out.
    write("no step").write("metrics", {"metrics": {"loss": 1.0}})
    summary = summed(tmp_path / "no step")
    assert (summary.metrics[0].count, summary.first_step) == (1, None)
    write("instant").timing("load", 0.0)
    summary = summed(tmp_path / "instant")
    assert [timing.share for timing in summary.timings] == [None]  # nothing is divided by zero
    assert "-" in shown(summary)
    path = write("no times").fill([0]).path("metrics")
    path.write_text(path.read_text().replace("2026-01-30T", "yesterday "))
    summary = summed(tmp_path / "no times")
    assert (summary.wall_s, summary.metrics[0].count) == (0.0, 1)
    write("begun")
    summary = summed(tmp_path / "begun")
    assert (summary.first, summary.wall_s, summary.first_step) == ("", 0.0, None)
    assert summary.complete
    text = shown(summary)
    assert "1 process: 1 rank, 1 start" in text
    assert not [part for part in ("Metrics", "Timings", "missing:") if part in text]


def test_errors_and_messages_are_counted_by_type_and_level(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, rank=1)
    for step in range(7):
        writer.error("no luck", ValueError(f"v{step}"), step=step)
    writer.error("", OSError("disk full"), level="CRITICAL")
    for level in ("INFO", "INFO", "WARNING"):
        writer.log("hello", level=level)
    summary = summed(tmp_path)
    assert summary.errors_by_type == {"ValueError": 7, "OSError": 1}
    assert summary.errors_by_level == {"ERROR": 7, "CRITICAL": 1}
    assert summary.log_by_level == {"INFO": 2, "WARNING": 1}
    assert [error.step for error in summary.last_errors] == [3, 4, 5, 6, None]
    last = summary.last_errors[-1]
    assert (last.error_type, last.message, last.label) == ("OSError", "disk full", "r1")


def test_starts_files_drops_and_what_was_left_out_add_up(tmp_path: Path) -> None:
    for number in range(2):
        writer = attempt(tmp_path, number, segment_lines=4)
        writer.fill(range(number * 5, number * 5 + 10)).dropped("metrics", 5)
    summary = summed(tmp_path)
    assert (summary.left_out, summary.dropped) == ({"metrics": {"loss": 5}}, {"metrics": 10})
    assert (summary.complete, [start.state for start in summary.starts]) == (True, ["unknown"] * 2)
    first, second = summary.attempts
    assert (first.label, first.attempt, first.lines) == ("", 0, {"metrics": 11})
    assert (second.label, second.attempt, second.rank) == ("a1", 1, 0)
    assert (first.first_step, first.last_step) == (0, 4)
    assert (second.first_step, second.last_step) == (5, 14)
    assert [file.segment for file in summary.files] == [0, 1, 2, 0, 1, 2]
    assert summary.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    everything = summed(tmp_path, starts="all")
    assert (everything.left_out, everything.metrics[0].count) == ({}, 20)
    one = summed(tmp_path, starts=0)
    assert [[start.number for start in one.starts], [a.label for a in one.attempts]] == [[0], [""]]
    assert ({file.label for file in one.files}, one.ranks, one.last_step) == ({""}, (0,), 9)


def test_a_summary_becomes_strict_json(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    writer.metrics(0, loss=math.nan, up=math.inf, down=-math.inf)
    writer.torn("metrics", b"{")
    write_run_json(tmp_path, name="exp0")
    data = summed(tmp_path).to_dict()
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text) == data
    assert (data["path"], data["info"]["name"]) == (str(tmp_path), "exp0")
    assert [metric["last"] for metric in data["metrics"]] == ["nan", "inf", "-inf"]
    assert data["complete"] is False
    assert data["problems"][0]["kind"] == "torn"
    check = data["checks"][0]
    assert (check["torn"], check["stream"], check["label"]) == (1, "metrics", "")
    assert "curves" not in data


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run of two ranks, resumed once, with everything that a summary shows."""
    for rank in range(2):
        for number in range(2):
            writer = attempt(tmp_path, number, rank=rank)
            for step in range(number * 50, 60 + number * 40):
                writer.metrics(step, loss=4 / (1 + step), lr=1e-4)
                writer.timing(
                    "forward", 2e-5, step=step, error="ValueError", depth=1, parent="step"
                )
                writer.timing("step", 3e-5, step=step)
                if step % 10 == 0:
                    writer.metrics(step, val_loss=5 / (1 + step))
            writer.dropped("metrics", 4)
            writer.error("boom", ValueError("x"), step=3)
            writer.log("hello")
    info = write_run_json(tmp_path, name="exp0", attempts=2)
    (tmp_path / "run.json").write_text(json.dumps({**info, "git_hash": "e7607e6"}))
    return tmp_path


def test_a_summary_shows_everything_that_matters(trained: Path) -> None:
    text = shown(summed(trained))
    check_has(text, "exp0", "e7607e6", "0 to 99", "4 processes: 2 ranks, 2 starts")
    check_has(text, "yes: 694 lines, none missing", "metrics 16 (the recorder's ring was full)")
    check_has(text, "values recorded again or rewound: loss 20, lr 20", "0.04 @99")
    check_has(text, "forward (200 failed)", "66.7%", "of step", "30 us", "error ValueError")
    check_has(text, "r1-a1 step 3 ValueError: boom", "metrics.r1-a1.jsonl", "log INFO")
    check_has(text, "⠒⠒ loss", "● val_loss")
    assert "Problems" not in text
    # The usual terminal shows each metric and timer in one row.
    lines = shown(summed(trained), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    (loss,) = [line for line in lines if line.startswith("loss")]
    assert loss.split() == ["loss", "4", "0.04", "0.04", "@99", "0.2075", "4", "@0", "200"]
    (step,) = [line for line in lines if line.startswith("step  ") and "us" in line]
    assert step.split()[0:4] == ["step", "200", "6", "ms"]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_without_unicode_gets_ascii(trained: Path, width: int) -> None:
    text = shown(summed(trained), width=width, encoding="ascii")
    assert "o val_loss" in text
    assert max(map(len, text.splitlines())) <= width


def test_a_table_closes_its_gaps_before_it_folds(tmp_path: Path) -> None:
    """A timer's name of usual length stays in one piece on the usual terminal."""
    writer = OracleWriter(tmp_path)
    for name in ("restart_drill_2", "step"):
        for step in range(1000):
            writer.timing(name, 0.0561 + step / 1e6, step=step)
    for width, row in ((80, "restart_drill_2 1,000 "), (100, "restart_drill_2  1,000 ")):
        lines = shown(summed(tmp_path), width=width).splitlines()
        assert any(line.startswith(row) for line in lines)


def test_problems_are_shown_and_the_verdict_is_clear(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(59)).fill([59], loss=math.nan)
    drop_lines(tmp_path, *range(1, 50, 2), instead=b"x")
    told = ("NO: see the problems below", "metrics.jsonl:2: damaged line: not JSON")
    check_has(shown(summed(tmp_path)), *told, "... and 30 more", "NaN/Inf")


def test_long_lists_are_cut(tmp_path: Path) -> None:
    """Hundreds of loader workers, a driver that fails in ever new ways, many metrics."""
    more = [absent_rings._name("abcdefg"[:n])[13:] for n in (5, 6, 7)]
    assert more == ["", " and 1 more", " and 2 more"]
    for child in range(30):
        OracleWriter(tmp_path / "run", children=(f"w{child}",)).log("x")
    text = shown(summed(tmp_path / "run"))
    check_has(text, "30 processes: 1 rank, 1 start", "60 files")
    assert len(text.splitlines()) < 30
    writer = OracleWriter(tmp_path)
    for number in range(25):
        writer.metrics_dict(0, {f"x{number}": None}, missing={f"x{number}": "lost"})
        writer.metrics_dict(0, {"loss": None}, missing={"loss": f"driver_error_{number}"})
    text = shown(summed(tmp_path), width=200)
    check_has(text, "50 values missing: lost 25, driver_error_0 1, ", "... and 6 more")
    assert ", driver_error_4 1, others 20\n" in text


def test_names_from_files_cannot_control_the_terminal(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    writer.metrics_dict(0, {"[bold]a[/]": 1.0, "\x1b[2J": 2.0, "text": "\x1b]0;x\x07\u202e"})
    writer.timing("[red]t", 0.1)
    writer.error("\x1b[31m[x]", ValueError("\r"))
    text = shown(summed(tmp_path))
    check_has(text, "[bold]a[/]", "[red]t", "\\x1b[2J")
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)


def test_values_that_never_arrived_are_counted_and_told(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    for step in range(3):
        reason = "lost" if step == 2 else "timeout"
        writer.metrics_dict(step, {"loss": None, "z": None}, missing={"loss": reason})
    writer.metrics_dict(3, {"loss": 1.0}, missing={"loss": "lost", "other": "lost"})  # of nobody
    writer.metrics_dict(4, {"\x1bn": None}, missing={"\x1bn": "\x1b[31m"})
    writer.timing("forward", 0.1, device="cuda:0", device_duration_s=0.5)
    writer.timing("forward", 0.1, device="cuda:0", device_duration_s="driver_error_700")
    odd = {"name": "odd", "duration_s": 0.1, "depth": 0, "thread": 1, "device": "mps:0"}
    writer.write("performance", odd)
    summary = summed(tmp_path)
    lost = {"loss": {"timeout": 2, "lost": 1}, "\x1bn": {"\x1b[31m": 1}}
    lost |= {"forward (cuda:0)": {"driver_error_700": 1}}
    assert summary.to_dict()["missing"] == summary.missing == lost
    timings = {timing.name: (timing.count, timing.total_s) for timing in summary.timings}
    assert timings == {"forward": (2, 0.2), "forward (cuda:0)": (1, 0.5), "odd": (1, 0.1)}
    text = shown(summary)
    check_has(text, "5 values missing: timeout 2, lost 1, ")
    check_has(text, "  loss: 3 values missing: timeout 2, lost 1\n")
    check_has(text, "  forward (cuda:0): 1 value missing: driver_error_700 1\n")
    check_has(text, "  \\x1bn: 1 value missing: \\x1b[31m 1\n")
    assert "\x1b" not in text


def test_events_among_the_errors_are_told_beside_them(tmp_path: Path) -> None:
    """They are no exceptions, and many of them do not hide the last of those."""
    writer = OracleWriter(tmp_path)
    writer.error("ValueError: boom", ValueError("boom"), step=7)  # the class is told once
    for step in range(8):
        writer.nonfinite("loss", "-inf", step)
    writer.write("errors", {"level": "ERROR", "logger": "x", "message": "old", "context": {}})
    summary = summed(tmp_path)
    assert summary.errors_by_type == {"ValueError": 1, "": 1}
    assert summary.events == {"nonfinite": 8}
    assert summary.errors_by_level == {"WARNING": 8, "ERROR": 2}
    assert [error.message for error in summary.last_errors] == ["ValueError: boom", "old"]
    events = [(event.step, event.level) for event in summary.last_events]
    assert events == [(step, "WARNING") for step in range(3, 8)]
    text = shown(summary)
    assert re.search(r"^error ValueError +1 *$", text, re.MULTILINE)
    assert re.search(r"^event nonfinite +8 *$", text, re.MULTILINE)
    latest = [line for line in text.splitlines() if re.match(r"2026-\S+Z ", line)]
    assert len(latest) == 7
    assert latest[0].endswith("step 7 ValueError: boom")
    assert latest[5].endswith("step 7 WARNING: loss became -inf at step 7")
    assert latest[6].endswith("ERROR: old")


def test_a_run_without_losses_draws_its_first_metric(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path).fill([0], reward=1.0, note="x")
    assert "⠒⠒" not in shown(summed(tmp_path))
    writer.fill([1], reward=2.0)
    assert "⠒⠒ reward" in shown(summed(tmp_path))


def test_a_curve_goes_from_corner_to_corner() -> None:
    text = draw_curves({"loss": [(0, 4.0), (100, 0.0)]}, width=40, height=5, ascii_only=True)
    lines = text.plain.splitlines()
    plot = [line.partition("|")[2] for line in lines[1:6]]
    assert plot[0].startswith("*")
    assert plot[4].endswith("*")
    assert [lines[n].strip()[:3] for n in (1, 3, 5)] == ["4 |", "2 |", "0 |"]
    assert lines[6].split() == ["step", "0", "100"]
    assert all(any(row[column : column + 1] == "*" for row in plot) for column in range(30))


def test_a_curve_has_the_steps_of_the_run(tmp_path: Path) -> None:
    """A tail of NaN is not cut off: the line ends before the axis does."""
    with Recorder(tmp_path) as recorder:
        for step in range(20):
            recorder.record(step, loss=1.0 / (step + 1) if step < 10 else math.nan)
    axis = next(line for line in shown(summed(tmp_path)).splitlines() if "step 0 " in line)
    assert axis.split()[-1] == "19"


@given(
    st.lists(st.tuples(st.integers(0, 10**9), finite), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 10**9), finite), min_size=1, max_size=5),
    st.integers(1, 120),
    st.booleans(),
)
def test_any_curve_can_be_drawn(
    loss: list[tuple[int, float]], marks: list[tuple[int, float]], width: int, ascii_only: bool
) -> None:
    text = draw_curves({"a": sorted(loss), "b": marks}, width=width, ascii_only=ascii_only)
    lines = text.plain.splitlines()
    assert len(lines) == 12
    assert any(mark in text.plain for mark in ("o", "●"))
    assert text.plain.isascii() or not ascii_only


@pytest.mark.parametrize(
    ("shape", "texts"),
    [
        # Four digits, and no exponent where none is needed.
        (to.format_number, {None: "-", 0.0: "0", 1234567: "1,234,567", 12345.678: "12,346"}),
        (to.format_number, {2.45678: "2.457", 8449.12: "8,449", 0.0001: "0.0001", 1e300: "1e+300"}),
        (to.format_number, {1.23456e-9: "1.235e-09", -3.5: "-3.5", math.nan: "nan"}),
        (to.format_number, {-math.inf: "-inf"}),
        # Short and printable whatever the value.
        (to.format_value, {True: "true", False: "false", None: "null", 3: "3", "a\nb": "a\\nb"}),
        (to.format_value, {"x" * 30: "x" * 21 + "..."}),
        (to.format_bytes, {0: "0 B", 999: "999 B", 1500: "1.5 kB", 2_500_000: "2.5 MB"}),
        (to.format_bytes, {3 * 10**9: "3.0 GB", 4 * 10**12: "4.0 TB"}),
        (to.format_seconds, {4.5e-8: "45 ns", 1.23e-5: "12.3 us", 0.00456: "4.56 ms"}),
        (to.format_seconds, {7.891: "7.89 s", 123: "2 min 03 s", 7384.4: "2 h 03 min"}),
        # Letters of any script stay, controls become escapes.
        (to.printable, {"é中😀": "é中😀", "a\tb\x00": "a\\tb\\x00"}),
    ],
)
def test_texts_of_values(shape: Callable[[Any], str], texts: dict[Any, str]) -> None:
    assert {value: shape(value) for value in texts} == texts


def test_texts_of_values_are_cut() -> None:
    assert [to.printable(text, 5) for text in ("abcdef", "abcde")] == ["ab...", "abcde"]
    assert to.format_value({"a": 1}) == "{'a': 1}"


def test_each_line_has_a_readable_form(tmp_path: Path) -> None:
    def texts(run: Path) -> list[str]:
        entries = read_run(run).entries()
        return [format_line(series, record).plain for _, series, record, _ in entries]

    writer = OracleWriter(tmp_path, rank=1)
    writer.metrics(3, epoch=1, loss=math.nan, note="a\nb")
    writer.summary(2, loss=0.5)
    writer.dropped("metrics", 17)
    writer.timing("forward", 0.0234, step=3, depth=1, parent="step", error="ValueError")
    writer.timing("step", 0.1)
    writer.error("boom", ValueError("bad"), step=3, context={"x": math.inf})
    writer.log("hello", level="WARNING")
    writer.metrics_dict(4, {"loss": None, "n": 1, "z": None}, missing={"loss": "driver_error_7"})
    writer.timing("step", 0.1, error="OSError", device="cuda:0", device_duration_s=0.05)
    writer.timing("step", 0.1, device="cuda:0", device_duration_s="lost\n")
    writer.nonfinite("loss", "nan", 5)
    writer.error("ValueError: bad", ValueError("bad"))  # class and text are the message already
    writer.system(step=5, cpu=math.inf, disk=1)
    writer.rewind(9)
    lines = texts(tmp_path)
    assert [line.partition(" r1 ")[2] for line in lines] == [
        "metrics epoch=1 step=3 loss=nan note=a\\nb",
        "metrics epoch=2 loss=0.5",
        "metrics 17 records were dropped here",
        "performance step=3   forward 23.4 ms ValueError",
        "performance step 100 ms",
        "errors step=3 ERROR boom [ValueError: bad] x=inf",
        "log WARNING hello",
        "metrics step=4 loss=null (driver_error_7) n=1 z=null",
        "performance step 100 ms, cuda:0 50 ms OSError",
        "performance step 100 ms, cuda:0 null (lost\\n)",
        "errors step=5 WARNING loss became nan at step 5 key=loss value=nan",
        "errors ERROR ValueError: bad",
        "system step=5 cpu=inf disk=1",
        "metrics went back to step 9",
        "performance went back to step 9",
    ]
    assert lines[0].startswith("2026-01-30 14:32:15.123Z ")
    # The main process needs no label.
    fields = {"step": 1, "epoch": None, "metrics": {}, "nonfinite": {"epoch": "nan"}}
    OracleWriter(tmp_path / "main").write("metrics", fields)
    assert texts(tmp_path / "main") == ["2026-01-30 14:32:15.123Z metrics epoch=nan step=1 "]


def test_the_table_of_what_is_missing_names_ranges(tmp_path: Path) -> None:
    OracleWriter(tmp_path, rank=1).fill([0])
    OracleWriter(tmp_path).fill(range(20))
    drop_lines(tmp_path, 1, 2, 5, 8, 11)
    file = io.StringIO()
    render_checks(read_run(tmp_path).check(), Console(file=file, width=120))
    check_has(file.getvalue(), "1-2, 5, 8, ...", "main")
    assert "r1" not in file.getvalue()
