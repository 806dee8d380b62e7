"""Summing up a run, and showing it."""

from __future__ import annotations

import io
import json
import math
import re
import statistics
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oracle import START, OracleWriter, write_run_json
from rich.console import Console

import foundry_fastlog.analysis.accumulate
import foundry_fastlog.analysis.summarize
from foundry_fastlog.analysis.accumulate import BATCH, Curve, Durations, Values, percentile
from foundry_fastlog.analysis.summarize import summarize
from foundry_fastlog.analysis.summary import Summary
from foundry_fastlog.base.formatting import (
    format_bytes,
    format_number,
    format_seconds,
    format_value,
    printable,
)
from foundry_fastlog.reading.run import read_run
from foundry_fastlog.show.curve import draw_curves
from foundry_fastlog.show.line_text import format_line
from foundry_fastlog.show.terminal import render_checks, render_summary

HOUR = timedelta(hours=1)
finite = st.floats(allow_nan=False, allow_infinity=False)


def shown(summary: Summary, *, width: int = 100, encoding: str = "utf-8") -> str:
    """What a terminal shows of a summary."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    render_summary(summary, Console(file=file, width=width, highlight=False))
    return raw.getvalue().decode(encoding)


def close(left: float, right: float) -> bool:
    """Whether two floats agree but for rounding."""
    return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-300)


# ---- statistics ----------------------------------------------------------------------


@given(st.lists(st.one_of(st.floats(), st.integers(-(2**63), 2**63 - 1)), min_size=1))
@example([1.7e308, 1.7e308, 1.7e308])
def test_statistics_of_a_metric_agree_with_the_obvious_ones(recorded: list[float]) -> None:
    """Any numbers, NaN, infinities and the largest floats included, folded at any point."""
    values = Values("x")
    for step, value in enumerate(recorded):
        values.values.append(value)
        values.steps.append(step)
        if step % 3 == 0:
            values.fold()
    stats = values.stats()
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


def test_the_mean_stays_exact_over_many_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding the folds does not lose a value."""
    monkeypatch.setattr(foundry_fastlog.analysis.accumulate, "BATCH", 4)
    values = Values("x")
    for step in range(1000):
        values.values.append(float(step))
        values.steps.append(step)
        values.fold()
    values.fold()
    assert values.stats().mean == pytest.approx(499.5, rel=1e-12)
    assert len(values._means) < 4 + 1


@given(st.lists(st.tuples(st.integers(0, 10**6), finite), max_size=200), st.integers(2, 9))
def test_a_curve_keeps_its_limit_and_its_mean(points: list[tuple[int, float]], limit: int) -> None:
    """However long the series, the curve is short, in order, and within the values' range."""
    curve = Curve(limit)
    for start in range(0, len(points), 7):
        part = points[start : start + 7]
        curve.extend([step for step, _ in part], [value for _, value in part])
    kept = curve.points()
    assert len(kept) <= limit + 1
    assert kept == sorted(kept)
    if points:
        values = [value for _, value in points]
        slack = 1e-9 * max(map(abs, values))
        assert min(values) - slack <= min(value for _, value in kept)
        assert max(value for _, value in kept) <= max(values) + slack
    else:
        assert kept == []


def test_a_short_curve_is_kept_as_it_is() -> None:
    """Nothing is averaged before it has to be."""
    curve = Curve(10)
    curve.extend([0, 1, 2], [3.0, 2.0, 1.0])
    assert curve.points() == [(0, 3.0), (1, 2.0), (2, 1.0)]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_percentiles_agree_with_numpys_default(durations: list[float], fraction: float) -> None:
    """Interpolation between neighbours, as everyone expects."""
    numpy = pytest.importorskip("numpy")
    ascending = sorted(durations)
    expected = float(numpy.quantile(ascending, fraction))
    assert math.isclose(percentile(ascending, fraction), expected, rel_tol=1e-9, abs_tol=1e-9)


def test_percentiles_of_very_many_durations_are_of_a_fair_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The memory is bounded, the sums stay exact, and the sample covers early and late."""
    monkeypatch.setattr(foundry_fastlog.analysis.accumulate, "MAX_SAMPLES", 1000)
    durations = Durations()
    for value in range(50_000):
        durations.values.append(float(value))
        if len(durations.values) >= BATCH:
            durations.fold()
    durations.fold()
    durations.fold()
    assert (durations.count, durations.total, durations.max) == (50_000, 1_249_975_000.0, 49_999)
    assert durations.sampled
    ascending = durations.sorted_samples()
    assert len(ascending) == 1000
    assert 20_000 < percentile(ascending, 0.5) < 30_000
    assert percentile(ascending, 0.05) < 5_000
    assert percentile(ascending, 0.95) > 45_000


# ---- the summary ---------------------------------------------------------------------


def test_a_summary_has_every_metric_in_order_of_appearance(tmp_path: Path) -> None:
    """First, last, extremes with their steps, mean, counts, and texts as they are."""
    writer = OracleWriter(tmp_path)
    for step, loss in enumerate((4.0, 1.0, math.nan, math.inf, 3.0)):
        writer.metrics(step, loss=loss, note=f"n{step}", ok=step > 2)
    writer.metrics(4, val_loss=2.0)
    writer.summary(0, loss=0.5, epoch_time=9.0)
    summary = summarize(read_run(tmp_path))
    assert [stats.name for stats in summary.metrics] == [
        *("loss", "note", "ok", "val_loss", "loss (epoch)", "epoch_time (epoch)"),
    ]
    loss = summary.metric("loss")
    assert loss is not None
    assert (loss.count, loss.numbers, loss.nonfinite) == (5, 3, 2)
    assert (loss.first, loss.last) == (4.0, 3.0)
    assert (loss.min, loss.min_step, loss.max, loss.max_step) == (1.0, 1, 4.0, 0)
    assert loss.mean == 8.0 / 3
    epoch = summary.metric("loss (epoch)")
    assert epoch is not None
    assert (epoch.count, epoch.last, epoch.min_step) == (1, 0.5, None)
    note = summary.metric("note")
    assert note is not None
    assert (note.first, note.last, note.count, note.mean) == ("n0", "n4", 5, None)
    assert summary.metric("nope") is None
    assert summary.curves["loss"] == [(0, 4.0), (1, 1.0), (4, 3.0)]
    assert list(summary.curves) == ["loss", "val_loss"]
    assert (summary.first_step, summary.last_step) == (0, 4)


def test_a_last_value_that_is_nan_is_seen(tmp_path: Path) -> None:
    """A diverged loss must not look like the last good one."""
    writer = OracleWriter(tmp_path)
    writer.metrics(0, loss=1.0)
    writer.metrics(1, loss=math.nan)
    loss = summarize(read_run(tmp_path)).metric("loss")
    assert loss is not None
    assert math.isnan(loss.last)
    assert loss.nonfinite == 1


def test_shares_are_of_the_step_timer(tmp_path: Path) -> None:
    """A share says what part of the step a block takes."""
    writer = OracleWriter(tmp_path)
    for step in range(4):
        writer.timing("forward", 0.2, step=step, depth=1, parent="step")
        writer.timing("backward", 0.3, step=step, depth=1, parent="step")
        writer.timing("step", 1.0, step=step, error="ValueError" if step == 3 else None)
    summary = summarize(read_run(tmp_path))
    assert (summary.timing_base, summary.timing_base_s) == ("step", 4.0)
    by_name = {timing.name: timing for timing in summary.timings}
    assert list(by_name) == ["step", "backward", "forward"]
    forward = by_name["forward"]
    assert forward.share == pytest.approx(0.2)
    assert (forward.count, forward.mean_s, forward.p50_s, forward.max_s) == (4, 0.2, 0.2, 0.2)
    assert by_name["step"].share == 1.0
    assert (by_name["step"].errors, forward.errors, forward.sampled) == (1, 0, False)


def test_shares_without_a_step_timer_are_of_wall_time(tmp_path: Path) -> None:
    """Wall time begins where the first block began, and pauses between attempts do not count."""
    for attempt in range(2):
        writer = OracleWriter(tmp_path, attempt=attempt, start=START + attempt * HOUR, tick_s=1.0)
        for step in range(4):
            writer.timing("load", 0.5, step=attempt * 4 + step)
    summary = summarize(read_run(tmp_path))
    assert summary.timing_base == "wall"
    assert summary.timing_base_s == pytest.approx(2 * 3.5)
    (load,) = summary.timings
    assert load.share == pytest.approx(8 * 0.5 / 7)


def test_a_metrics_line_without_a_step_counts(tmp_path: Path) -> None:
    """A reader takes what the format's next version may leave out."""
    OracleWriter(tmp_path).write("metrics", {"metrics": {"loss": 1.0}})
    summary = summarize(read_run(tmp_path))
    assert (summary.metrics[0].count, summary.first_step) == (1, None)


def test_a_single_instant_has_no_share(tmp_path: Path) -> None:
    """Nothing is divided by zero."""
    OracleWriter(tmp_path).timing("load", 0.0)
    (load,) = summarize(read_run(tmp_path)).timings
    assert load.share is None
    assert "-" in shown(summarize(read_run(tmp_path)))


def test_errors_and_messages_are_counted_by_type_and_level(tmp_path: Path) -> None:
    """The most frequent comes first, and the latest errors are kept."""
    writer = OracleWriter(tmp_path, rank=1)
    for step in range(7):
        writer.error("no luck", ValueError(f"v{step}"), step=step)
    writer.error("", OSError("disk full"), level="CRITICAL")
    for level in ("INFO", "INFO", "WARNING"):
        writer.log("hello", level=level)
    summary = summarize(read_run(tmp_path))
    assert summary.errors_by_type == {"ValueError": 7, "OSError": 1}
    assert summary.errors_by_level == {"ERROR": 7, "CRITICAL": 1}
    assert summary.log_by_level == {"INFO": 2, "WARNING": 1}
    assert [error.step for error in summary.last_errors] == [3, 4, 5, 6, None]
    last = summary.last_errors[-1]
    assert (last.error_type, last.message, last.label) == ("OSError", "disk full", "r1")


def test_attempts_files_drops_and_what_was_left_out_add_up(tmp_path: Path) -> None:
    """The summary accounts for every line of every file."""
    for attempt in range(2):
        writer = OracleWriter(
            tmp_path, attempt=attempt, start=START + attempt * HOUR, segment_lines=4
        )
        for step in range(10):
            writer.metrics(step + attempt * 5, loss=1.0)
        writer.dropped("metrics", 5)
    run = read_run(tmp_path)
    summary = summarize(run)
    assert summary.superseded == 5
    assert summary.dropped == {"metrics": 10}
    assert summary.complete
    first, second = summary.attempts
    assert (first.label, first.attempt, first.lines) == ("", 0, {"metrics": 11})
    assert (second.label, second.attempt, second.rank) == ("a1", 1, 0)
    assert (first.first_step, first.last_step) == (0, 4)
    assert (second.first_step, second.last_step) == (5, 14)
    assert [file.segment for file in summary.files] == [0, 1, 2, 0, 1, 2]
    assert summary.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    everything = summarize(run, attempts="all")
    assert everything.superseded == 0
    assert everything.metrics[0].count == 20


def test_a_run_without_lines_is_summed_up(tmp_path: Path) -> None:
    """A run that has just started is no special case for the caller."""
    OracleWriter(tmp_path)
    summary = summarize(read_run(tmp_path))
    assert (summary.first, summary.wall_s, summary.first_step) == ("", 0.0, None)
    assert summary.complete
    text = shown(summary)
    assert "1 process: 1 rank, 1 attempt" in text
    assert "Metrics" not in text
    assert "Timings" not in text


def test_timestamps_that_are_no_times_do_no_harm(tmp_path: Path) -> None:
    """A line whose timestamp is some text still counts."""
    writer = OracleWriter(tmp_path)
    writer.metrics(0, loss=1.0)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace("2026-01-30T", "yesterday "))
    summary = summarize(read_run(tmp_path))
    assert (summary.wall_s, summary.metrics[0].count) == (0.0, 1)


def test_folding_often_or_never_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of the buffers does not show in the result."""
    writer = OracleWriter(tmp_path)
    for step in range(50):
        writer.metrics(step, loss=1 / (step + 1), lr=step)
        writer.timing("step", 0.1 * step, step=step)
    once = summarize(read_run(tmp_path))
    monkeypatch.setattr(foundry_fastlog.analysis.summarize, "_FOLD_AT", 7)
    monkeypatch.setattr(foundry_fastlog.analysis.summarize, "BATCH", 3)
    often = summarize(read_run(tmp_path))
    for one, other in zip(once.metrics, often.metrics, strict=True):
        assert one.mean is not None
        assert other.mean is not None
        assert close(one.mean, other.mean)
        assert (one.first, one.last, one.min, one.max) == (
            *(other.first, other.last, other.min, other.max),
        )
    assert once.timings[0].total_s == pytest.approx(often.timings[0].total_s)
    assert once.timings[0].p95_s == often.timings[0].p95_s


def test_a_summary_becomes_strict_json(tmp_path: Path) -> None:
    """Programs get every number, and NaN as a text."""
    writer = OracleWriter(tmp_path)
    writer.metrics(0, loss=math.nan, up=math.inf, down=-math.inf)
    writer.torn("metrics", b"{")
    write_run_json(tmp_path, name="exp0")
    data = summarize(read_run(tmp_path)).to_dict()
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text) == data
    assert data["path"] == str(tmp_path)
    assert data["info"]["name"] == "exp0"
    assert [metric["last"] for metric in data["metrics"]] == ["nan", "inf", "-inf"]
    assert data["complete"] is False
    assert data["problems"][0]["kind"] == "torn"
    assert data["checks"][0]["torn"] == 1
    assert (data["checks"][0]["stream"], data["checks"][0]["label"]) == ("metrics", "")
    assert "curves" not in data


# ---- what is shown -------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run of two ranks, resumed once, with everything that a summary shows."""
    for rank in range(2):
        for attempt in range(2):
            writer = OracleWriter(
                tmp_path, rank=rank, attempt=attempt, start=START + attempt * HOUR
            )
            for step in range(attempt * 50, 60 + attempt * 40):
                writer.metrics(step, loss=4 / (1 + step), lr=1e-4)
                writer.timing("forward", 2e-5, step=step, error="ValueError")
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
    """One look tells how the run went."""
    text = shown(summarize(read_run(trained)))
    for expected in (
        *("exp0", "e7607e6", "0 to 99", "4 processes: 2 ranks, 2 attempts"),
        *("yes: 694 lines, none missing", "metrics 16 (the recorder's ring was full)"),
        *("62 lines of steps that a later attempt", "loss", "val_loss", "0.04 @99"),
        *("forward (200 failed)", "66.7%", "of step", "30 us", "error ValueError", "log INFO"),
        *("r1-a1 step 3 ValueError: boom", "metrics.r1-a1.jsonl", "⠒⠒ loss", "● val_loss"),
    ):
        assert expected in text, expected
    assert "Problems" not in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_without_unicode_gets_ascii(trained: Path, width: int) -> None:
    """Tables and the curve fit any encoding and any width."""
    text = shown(summarize(read_run(trained)), width=width, encoding="ascii")
    assert "o val_loss" in text
    assert max(map(len, text.splitlines())) <= width


def test_eighty_columns_hold_the_tables_unfolded(trained: Path) -> None:
    """The usual terminal shows each metric and timer in one row."""
    lines = shown(summarize(read_run(trained)), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    (loss,) = [line for line in lines if line.startswith("loss")]
    assert loss.split() == ["loss", "4", "0.04", "0.04", "@99", "0.2075", "4", "@0", "200"]
    (step,) = [line for line in lines if line.startswith("step  ") and "us" in line]
    assert step.split()[0:4] == ["step", "200", "6", "ms"]


def test_a_table_closes_its_gaps_before_it_folds(tmp_path: Path) -> None:
    """A timer's name of usual length stays in one piece on the usual terminal."""
    writer = OracleWriter(tmp_path)
    for name in ("restart_drill_2", "step"):
        for step in range(1000):
            writer.timing(name, 0.0561 + step / 1e6, step=step)
    lines = shown(summarize(read_run(tmp_path)), width=80).splitlines()
    assert any(line.startswith("restart_drill_2 1,000 ") for line in lines)
    lines = shown(summarize(read_run(tmp_path)), width=100).splitlines()
    assert any(line.startswith("restart_drill_2  1,000 ") for line in lines)


def test_problems_are_shown_and_the_verdict_is_clear(tmp_path: Path) -> None:
    """A damaged run cannot be mistaken for a whole one."""
    writer = OracleWriter(tmp_path)
    for step in range(60):
        writer.metrics(step, loss=math.nan if step == 59 else 1.0)
    raws = (tmp_path / "metrics.jsonl").read_bytes().split(b"\n")
    raws[1:50:2] = [b"x"] * 25
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(raws))
    text = shown(summarize(read_run(tmp_path)))
    assert "NO: see the problems below" in text
    assert "metrics.jsonl:2: damaged line: no JSON" in text
    assert "... and 30 more" in text
    assert "NaN/Inf" in text


def test_long_lists_are_cut(tmp_path: Path) -> None:
    """Hundreds of loader workers do not scroll the metrics away."""
    for child in range(30):
        OracleWriter(tmp_path, children=(f"w{child}",)).log("x")
    text = shown(summarize(read_run(tmp_path)))
    assert "... and 10 more" in text
    assert "... and 40 more" in text


def test_names_from_files_cannot_control_the_terminal(tmp_path: Path) -> None:
    """Neither escape sequences nor rich markup in names and texts take effect."""
    writer = OracleWriter(tmp_path)
    writer.metrics_dict(0, {"[bold]a[/]": 1.0, "\x1b[2J": 2.0, "text": "\x1b]0;x\x07\u202e"})
    writer.timing("[red]t", 0.1)
    writer.error("\x1b[31m[x]", ValueError("\r"))
    text = shown(summarize(read_run(tmp_path)))
    assert "[bold]a[/]" in text
    assert "[red]t" in text
    assert "\\x1b[2J" in text
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)


def test_values_that_never_arrived_are_counted_and_told(tmp_path: Path) -> None:
    """Per metric, and per timer and device, with the reasons; other nulls are none of them."""
    writer = OracleWriter(tmp_path)
    for step in range(3):
        reason = "lost" if step == 2 else "timeout"
        writer.metrics_dict(step, {"loss": None, "z": None}, missing={"loss": reason})
    writer.metrics_dict(3, {"loss": 1.0}, missing={"loss": "lost", "other": "lost"})  # of nobody
    writer.metrics_dict(4, {"\x1bn": None}, missing={"\x1bn": "\x1b[31m"})
    writer.timing("forward", 0.1, device="cuda:0", device_duration_s=0.5)
    writer.timing("forward", 0.1, device="cuda:0", device_duration_s="driver_error_700")
    writer.write(
        "performance",
        {"name": "odd", "duration_s": 0.1, "depth": 0, "thread": 1, "device": "mps:0"},
    )
    summary = summarize(read_run(tmp_path))
    assert summary.missing == {
        "loss": {"timeout": 2, "lost": 1},
        "\x1bn": {"\x1b[31m": 1},
        "forward (cuda:0)": {"driver_error_700": 1},
    }
    assert summary.to_dict()["missing"] == summary.missing
    timings = {timing.name: (timing.count, timing.total_s) for timing in summary.timings}
    assert timings == {"forward": (2, 0.2), "forward (cuda:0)": (1, 0.5), "odd": (1, 0.1)}
    text = shown(summary)
    assert "5 values never arrived: timeout 2, lost 1, " in text
    assert "  loss: 3 values never arrived: timeout 2, lost 1\n" in text
    assert "  forward (cuda:0): 1 value never arrived: driver_error_700 1\n" in text
    assert "  \\x1bn: 1 value never arrived: \\x1b[31m 1\n" in text
    assert "\x1b" not in text
    assert "never arrived" not in shown(summarize(read_run(OracleWriter(tmp_path / "no").run)))


def test_long_lists_of_what_never_arrived_are_cut(tmp_path: Path) -> None:
    """A driver that fails in ever new ways, and a model of many metrics."""
    writer = OracleWriter(tmp_path)
    for number in range(25):
        writer.metrics_dict(0, {f"x{number}": None}, missing={f"x{number}": "lost"})
        writer.metrics_dict(0, {"loss": None}, missing={"loss": f"driver_error_{number}"})
    text = shown(summarize(read_run(tmp_path)), width=200)
    assert "50 values never arrived: lost 25, driver_error_0 1, " in text
    assert ", driver_error_4 1, others 20\n" in text
    assert "... and 6 more" in text


def test_events_among_the_errors_are_told_beside_them(tmp_path: Path) -> None:
    """They are no exceptions, and many of them do not hide the last of those."""
    writer = OracleWriter(tmp_path)
    writer.error("boom", ValueError("bad"), step=7)
    for step in range(8):
        writer.nonfinite("loss", "-inf", step)
    writer.write("errors", {"level": "ERROR", "logger": "x", "message": "old", "context": {}})
    summary = summarize(read_run(tmp_path))
    assert summary.errors_by_type == {"ValueError": 1, "": 1}
    assert summary.events == {"nonfinite": 8}
    assert summary.errors_by_level == {"WARNING": 8, "ERROR": 2}
    assert [error.message for error in summary.last_errors] == ["boom", "old"]
    assert [(event.step, event.level) for event in summary.last_events] == [
        (step, "WARNING") for step in range(3, 8)
    ]
    text = shown(summary)
    assert re.search(r"^error ValueError +1 *$", text, re.MULTILINE)
    assert re.search(r"^event nonfinite +8 *$", text, re.MULTILINE)
    latest = [line for line in text.splitlines() if re.match(r"2026-\S+Z ", line)]
    assert len(latest) == 7
    assert latest[0].endswith("step 7 ValueError: boom")
    assert latest[5].endswith("step 7 WARNING: loss became -inf at step 7")
    assert latest[6].endswith("ERROR: old")


def test_a_run_without_losses_draws_its_first_metric(tmp_path: Path) -> None:
    """Any numeric metric makes a curve; a single point makes none."""
    writer = OracleWriter(tmp_path)
    writer.metrics(0, reward=1.0, note="x")
    assert "⠒⠒" not in shown(summarize(read_run(tmp_path)))
    writer.metrics(1, reward=2.0)
    assert "⠒⠒ reward" in shown(summarize(read_run(tmp_path)))


def test_a_sampled_percentile_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is estimated says so."""
    monkeypatch.setattr(foundry_fastlog.analysis.accumulate, "MAX_SAMPLES", 3)
    writer = OracleWriter(tmp_path)
    for step in range(5):
        writer.timing("step", 0.1, step=step)
    assert "are of a random sample" in shown(summarize(read_run(tmp_path)))


def test_a_curve_goes_from_corner_to_corner() -> None:
    """A falling line starts top left and ends bottom right, with its axes labelled."""
    text = draw_curves({"loss": [(0, 4.0), (100, 0.0)]}, width=40, height=5, ascii_only=True)
    lines = text.plain.splitlines()
    plot = [line.partition("|")[2] for line in lines[1:6]]
    assert plot[0].startswith("*")
    assert plot[4].endswith("*")
    assert lines[1].strip().startswith("4 |")
    assert lines[3].strip().startswith("2 |")
    assert lines[5].strip().startswith("0 |")
    assert lines[6].split() == ["step", "0", "100"]
    assert all(any(row[column : column + 1] == "*" for row in plot) for column in range(30))


@given(
    st.lists(st.tuples(st.integers(0, 10**9), finite), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 10**9), finite), min_size=1, max_size=5),
    st.integers(1, 120),
    st.booleans(),
)
def test_any_curve_can_be_drawn(
    loss: list[tuple[int, float]], marks: list[tuple[int, float]], width: int, ascii_only: bool
) -> None:
    """Constant, single, huge and tiny values fit into the given rows."""
    text = draw_curves({"a": sorted(loss), "b": marks}, width=width, ascii_only=ascii_only)
    lines = text.plain.splitlines()
    assert len(lines) == 12
    assert any(mark in text.plain for mark in ("o", "●"))
    assert text.plain.isascii() or not ascii_only


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (1234567, "1,234,567"),
        (12345.678, "12,346"),
        (2.45678, "2.457"),
        (8449.12, "8,449"),
        (0.0001, "0.0001"),
        (1.23456e-9, "1.235e-09"),
        (1e300, "1e+300"),
        (-3.5, "-3.5"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    """Four digits, and no exponent where none is needed."""
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (None, "null"),
        (3, "3"),
        ("a\nb", "a\\nb"),
        ("x" * 30, "x" * 21 + "..."),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_values_of_any_type_can_be_shown(value: Any, text: str) -> None:
    """A table cell is short and printable whatever the value."""
    assert format_value(value) == text


def test_sizes_and_durations_have_units() -> None:
    """Each magnitude has its unit."""
    assert [format_bytes(n) for n in (0, 999, 1500, 2_500_000, 3 * 10**9, 4 * 10**12)] == [
        *("0 B", "999 B", "1.5 kB", "2.5 MB", "3.0 GB", "4.0 TB"),
    ]
    assert [format_seconds(s) for s in (4.5e-8, 1.23e-5, 0.00456, 7.891, 123, 7384.4)] == [
        *("45 ns", "12.3 us", "4.56 ms", "7.89 s", "2 min 03 s", "2 h 03 min"),
    ]


def test_printable_keeps_what_can_be_printed() -> None:
    """Letters of any script stay, controls become escapes, and long texts are cut."""
    assert printable("é中😀") == "é中😀"
    assert printable("a\tb\x00") == "a\\tb\\x00"
    assert printable("abcdef", 5) == "ab..."
    assert printable("abcde", 5) == "abcde"


def test_each_line_has_a_readable_form(tmp_path: Path) -> None:
    """What tail shows of every kind of line."""
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
    run = read_run(tmp_path)
    lines = [format_line(series, record).plain for _, series, record, _ in run.entries()]
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
    ]
    assert lines[0].startswith("2026-01-30 14:32:15.123 ")


def test_the_main_process_needs_no_label_in_a_line(tmp_path: Path) -> None:
    """Runs of one process are shown without any; an epoch that is NaN is seen."""
    OracleWriter(tmp_path).write(
        "metrics", {"step": 1, "epoch": None, "metrics": {}, "nonfinite": {"epoch": "nan"}}
    )
    ((_, series, record, _),) = read_run(tmp_path).entries()
    assert format_line(series, record).plain == "2026-01-30 14:32:15.123 metrics epoch=nan step=1 "


def test_the_table_of_what_is_missing_names_ranges(tmp_path: Path) -> None:
    """Only series that are not whole have a row, and a long list of gaps is cut."""
    OracleWriter(tmp_path, rank=1).metrics(0, loss=1.0)
    writer = OracleWriter(tmp_path)
    for step in range(20):
        writer.metrics(step, loss=1.0)
    raws = (tmp_path / "metrics.jsonl").read_bytes().split(b"\n")
    kept = [raw for n, raw in enumerate(raws) if n not in (1, 2, 5, 8, 11)]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(kept))
    run = read_run(tmp_path)
    file = io.StringIO()
    render_checks(run.check(), Console(file=file, width=120))
    text = file.getvalue()
    assert "1-2, 5, 8, ..." in text
    assert "main" in text
    assert "r1" not in text
