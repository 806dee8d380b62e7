"""Charts as people see them: in the terminal, in files, and as figures."""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.dates import num2date
from oracle import START, OracleWriter, write_run_json
from recorded import run_python
from rich.console import Console

from foundry_fastlog import Recorder, plot_runs, read_run
from foundry_fastlog.analysis.points import Asked
from foundry_fastlog.analysis.series import read_charts
from foundry_fastlog.show import figure as figure_module
from foundry_fastlog.show.axes import Scale, axis_words, nice_ticks, short_number
from foundry_fastlog.show.curve import Axes, Line, draw_chart
from foundry_fastlog.show.palette import COLORS, DASHES, ink, styles_of
from foundry_fastlog.show.plotting import render_charts

Command = Callable[..., Any]
FINITE = st.floats(-1e308, 1e308)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("COLUMNS", "80")


def write(path: Path, values: list[float], **more: Any) -> Path:
    writer = OracleWriter(path)
    for step, value in enumerate(values):
        writer.metrics(step, loss=value, **more)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A hundred steps with a spike of one, and NaN at another."""
    values = [1 + 4 / (step + 1) for step in range(100)]
    values[40], values[70] = 50.0, math.nan
    return write(tmp_path / "run", values, lr=0.1)


def pixels(text: str) -> list[list[set[tuple[int, int]]]]:
    """The dots of each cell of a plot's rows."""
    rows = [line.split("│", 1)[1] for line in text.splitlines() if "│" in line]
    bits = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]
    return [
        [
            {bits[b] for b in range(8) if 0 <= ord(c) - 0x2800 < 256 and (ord(c) - 0x2800) >> b & 1}
            for c in row
        ]
        for row in rows
    ]


# ---- the terminal ---------------------------------------------------------------------------


def test_a_spike_of_one_step_among_many_reaches_the_top(tmp_path: Path, command: Command) -> None:
    values = [1.0] * 20_000
    values[12_345] = 9.0
    with Recorder(tmp_path / "run") as recorder:
        for step, value in enumerate(values):
            recorder.record(step, loss=value)
    rows = pixels(command("plot", tmp_path / "run").out)
    columns = [number for number, cell in enumerate(rows[0]) if cell]
    assert len(columns) == 1
    assert columns[0] == pytest.approx(12_345 / 20_000 * len(rows[0]), abs=1)


def test_a_logarithmic_axis_makes_a_power_a_straight_line() -> None:
    points = [(10.0**e, 10.0 ** (-2 * e)) for e in np.linspace(0, 4, 200).tolist()]
    text = draw_chart([Line("a", points)], Axes(log_x=True, log_y=True), width=70, height=8).plain
    dots = [
        (2 * x + dx, 4 * y + dy)
        for y, row in enumerate(pixels(text))
        for x, cell in enumerate(row)
        for dx, dy in cell
    ]
    width = max(x for x, _ in dots)
    assert all(y == pytest.approx(31 * x / width, abs=1.01) for x, y in dots)
    labels = [line.split("│")[0].strip() for line in text.splitlines() if "│" in line]
    assert [labels[n] for n in (0, 4, 7)] == ["1", "0.0001", "1e-08"]
    assert text.splitlines()[-1].split() == ["step", "1", "10", "100", "1,000", "10,000"]


def test_what_is_not_finite_is_marked_where_it_is() -> None:
    odd = ((0, math.nan), (50, math.inf), (100, -math.inf))
    for ascii_only, marks in ((False, "\u00d7↑↓"), (True, "!^v")):
        lines = [Line("a", [(0, 1.0), (100, 2.0)], odd=odd)]
        text = draw_chart(lines, Axes(), width=60, height=5, ascii_only=ascii_only).plain
        rows = [re.split("[│|]", line, maxsplit=1)[1] for line in text.splitlines()[1:6]]
        assert (rows[0][0], rows[0].index(marks[1]), rows[4][-1]) == (marks[0], 27, marks[2])
        assert text.isascii() or not ascii_only


def test_curves_differ_without_colour_and_legends_are_folded() -> None:
    lines = [Line(f"curve number {n}", [(0, n * 9 + 9.0), (9, n * 9 + 9.5)]) for n in range(9)]
    lines += [Line("nothing", []), Line("low", [(0, 0.0), (1, 0.0)])]
    axes = Axes(verticals=(4.5,), feet=(7,))
    text = draw_chart(lines, axes, width=80, height=12).plain
    for mark in "●◆▲■○◇△□┊▵":
        assert mark in text
    assert max(map(len, text.splitlines())) <= 80
    assert "nothing" not in text
    plain = draw_chart(lines, axes, width=80, height=12, ascii_only=True).plain
    assert all(letter in plain for letter in "*o+x#@%&:'")
    marks = draw_chart(
        [Line("a", [(0, 1.0), (5, 3.0), (5, 1.0)], dots=True)], axes, width=40, height=3
    )
    assert marks.plain.count("●") == 3 + 1


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=20), st.booleans(), st.booleans())
def test_any_chart_can_be_drawn(points: Any, ascii_only: bool, log: bool) -> None:
    points = sorted((abs(x) + 1e-300, abs(y) + 1e-300) if log else (x, y) for x, y in points)
    axes = Axes(log_x=log, log_y=log, seconds=not log)
    text = draw_chart([Line("a", points)], axes, width=79, height=4, ascii_only=ascii_only).plain
    assert len(text.splitlines()) == 6
    assert any(pixel for row in pixels(text) for pixel in row) or ascii_only


@given(FINITE, FINITE, st.integers(2, 8), st.booleans(), st.booleans())
def test_ticks_are_few_and_between_the_ends(
    a: float, b: float, most: int, log: bool, seconds: bool
) -> None:
    low, high = sorted((abs(a) + 1e-300, abs(b) + 1e-300) if log else (a, b))
    ticks = nice_ticks(low, high, most, log=log, seconds=seconds)
    slack = 1e-6 * max(abs(low), abs(high))
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    assert len(ticks) <= most + 1
    assert ticks == sorted(ticks)


def test_round_ticks_and_short_numbers() -> None:
    assert nice_ticks(0, 1000, 5) == [0, 200, 400, 600, 800, 1000]
    assert nice_ticks(3, 3, 5) == [3]
    assert nice_ticks(0, 5e-324, 5) == [0, 5e-324]
    assert nice_ticks(0.5, 2000, 8, log=True) == [1, 10, 100, 1000]
    assert nice_ticks(2, 8, 6, log=True) == [2, 3, 4, 5, 6, 7, 8]
    assert nice_ticks(0, 7200, 5, seconds=True) == [0, 1800, 3600, 5400, 7200]
    assert nice_ticks(0, 90 * 86400, 5, seconds=True)[1] % 86400 == 0
    assert nice_ticks(0, 1, 5, seconds=True)[1] == pytest.approx(0.2)
    texts = {
        13_800: "13.8k",
        1.2e6: "1.2M",
        0.25: "0.25",
        1e-5: "1e-05",
        math.inf: "inf",
        2e15: "2e+15",
    }
    assert {value: short_number(value) for value in texts} == texts
    assert Scale(1, 10_000, 100, log=True).middle() == pytest.approx(100)
    name, moment = axis_words("time")
    assert (name, moment(START.timestamp())) == ("time (UTC)", "2026-01-30 14:32:15")
    assert moment(1e300) == "1e+300"
    relative = axis_words("relative")[1]
    assert (relative(0.0), relative(90.0)) == ("0", "90 s")


def test_the_command_says_what_a_chart_does_not_show(run: Path, command: Command) -> None:
    text = command("plot", run, "-m", "loss", "--smooth", "0.5", "--log-x").out
    for words in ("smoothed 0.5", "values: nan at step 70", "not on a logarithmic axis: 1"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80
    OracleWriter(run, attempt=1).fill(range(90, 110), loss=1.0)
    OracleWriter(run, rank=1, attempt=1).fill(range(95, 97), loss=1.0).timing(
        "checkpoint", 0.1, step=100
    )
    text = command("plot", run, "--checkpoints").out
    for words in ("start 1 of run began at step 90", "rank 0 of 2; --ranks", "run at step 100"):
        assert words in text
    text = command("plot", run, "--ranks", "-m", "loss").out
    assert "rank 0 1   ⠒● rank 1 1" in text
    assert "--ranks draws" not in text
    assert "rank 1" not in command("plot", run, "--rank", "1").out
    assert "step 10 " in command("plot", run, "--starts", "0", "--steps", "10:20").out


def test_long_notes_fit_on_the_screen(tmp_path: Path, command: Command) -> None:
    writer = OracleWriter(tmp_path / "a_run_with_a_name_that_is_rather_long")
    many = {f"metric_with_a_long_name_{number:02}": 1.0 for number in range(30)}
    for step in range(0, 9000, 1000):
        writer.metrics(step, **many)
        writer.timing("checkpoint", 0.1, step=step)
    text = command("plot", writer.run, "-m", "metric*", "--checkpoints").out
    for words in ("name_that_is_rather_long at step 0, 1,000, 2,000", "... and 2", "-o FILE draws"):
        assert words in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_several_runs_groups_and_metrics(tmp_path: Path, command: Command) -> None:
    runs = [write(tmp_path / f"r{n}", [n + 3.0, math.nan, n + 1.0], val=1.0) for n in range(10)]
    for number, path in enumerate(runs):
        write_run_json(path, name=path.name, config={"lr": number % 2})
    text = command("plot", *runs, "-m", "loss").out
    assert "r0 1   ⠒● r1 2" in text
    assert "2 more curves are not shown: r8, r9" in text
    assert "r3 loss: nan at step 1" in text
    text = command("plot", *runs[:2], "-m", "*", "--overlay").out
    assert "r0 loss 1" in text
    assert "r1 val 1" in text
    text = command("plot", *runs, "-m", "loss", "--group-by", "config.lr").out
    assert "mean and standard error over runs: lr=0 5, lr=1 5" in text
    text = command("plot", runs[0], "-m", "*", "-x", "relative").out
    assert text.index("loss\n") < text.index("val\n")
    assert "since the first record 0" in text


def test_one_screen_by_default_and_the_rest_is_named(tmp_path: Path, command: Command) -> None:
    OracleWriter(tmp_path).metrics(0, **{f"m{n}": float(n) for n in range(12)})
    text = command("plot", tmp_path, "-m", "*").out
    assert "... and 9 more: m3, m4, " in text
    assert len(text.splitlines()) <= 45
    wrong = {"-m nope": "there are: ", "--smooth 2": "between 0 and 1", "-o x.gif": "must end in"}
    wrong |= {
        "-x nope": "-x takes step",
        "--steps 3": "such as 100:200",
        "--starts 9": "no start 9",
    }
    wrong |= {"--starts x": "takes latest", "--group-by q -m m1": "no run has the setting q"}
    for arguments, words in wrong.items():
        error = command("plot", tmp_path, *arguments.split(), code=2).err
        assert words in " ".join(error.replace("│", "").split()), arguments
    OracleWriter(tmp_path / "none").log("x")
    assert "nothing to draw" in command("plot", tmp_path / "none", code=2).err


def test_a_chart_without_a_finite_value_says_so(tmp_path: Path, command: Command) -> None:
    run = write(tmp_path, [math.nan, math.nan])
    text = command("plot", run).out
    assert "no finite value" in text
    assert "values: nan at step 0, 2 NaN or infinite in all" in text
    command("plot", run, "-o", tmp_path / "a.svg")


def test_what_has_no_place_is_counted(tmp_path: Path, command: Command) -> None:
    writer = OracleWriter(tmp_path)
    writer.metrics(0, loss=1.0)
    writer.metrics(1, loss=2.0, epoch=1)
    writer.summary(1, val=3.0)
    assert (
        "values: 1 without epoch are not shown"
        in command("plot", tmp_path, "-m", "loss", "-x", "epoch").out
    )
    assert "values: of epoch summaries" in command("plot", tmp_path, "-m", "val").out


def test_colour_only_adds(run: Path) -> None:
    """With it the values before smoothing, or the standard error, stand behind."""
    charts = read_charts([read_run(run)], "loss", weight=0.9)
    grouped = read_charts([read_run(run)], "loss", group_by=["name"])

    def shown(charts: Any, **options: Any) -> str:
        file = io.StringIO()
        color = options.pop("color", None)
        console = Console(
            file=file, width=80, force_terminal=bool(color), color_system=color, height=30
        )
        render_charts(charts, console, **options)
        return file.getvalue()

    for some in (charts, grouped):
        plain, coloured = shown(some, log_y=True), shown(some, log_y=True, color="truecolor")
        assert "\x1b" not in plain
        assert "38;2;" in coloured
    below = read_charts([read_run(write(run / "b", [9.0, -1.0, 5.0]))], "loss", weight=0.9)
    assert "3.9" not in shown(below, log_y=True, color="truecolor")
    behind = shown(charts, color="truecolor")
    dots = sum(len(cell) for row in pixels(re.sub(r"\x1b\[[0-9;]*m", "", behind)) for cell in row)
    assert dots > sum(len(cell) for row in pixels(shown(charts)) for cell in row)


def test_json_has_the_points(run: Path, command: Command) -> None:
    found = json.loads(command("plot", run, "-m", "loss", "--smooth", "0.5", "--json").out)
    (chart,) = found["charts"]
    (one,) = chart["series"]
    assert (chart["title"], chart["x"], one["run"], one["rank"]) == ("loss", "step", "run", 0)
    assert dict(zip(one["x"], one["y"], strict=True))[40] == 50
    assert len(one["smooth"]) == 99
    assert one["nonfinite"] == [{"x": 70, "step": 70, "value": "nan"}]


# ---- colours --------------------------------------------------------------------------------


def test_colours_follow_from_names() -> None:
    """The same in any company, unless two meet; then the first in the alphabet keeps its own."""
    alone = {name: styles_of([name])[name] for name in map(str, range(8))}
    assert len({color for color, _ in alone.values()}) > 3
    assert styles_of(["b", "a", "b"]) == styles_of(["a", "b"])
    many = styles_of(map(str, range(100)))
    assert len(set(many.values())) == len(COLORS) * len(DASHES)
    first = min(many)
    assert many[first] == styles_of([first])[first]
    assert all(dash == 0 for _, dash in styles_of("abcdefgh").values())
    assert len({color for color, _ in styles_of("abcdefgh").values()}) == 8


@pytest.mark.parametrize("background", ["#ffffff", "#0f1216"])
def test_text_in_a_colour_can_be_read(background: str) -> None:
    def light(color: str) -> float:
        parts = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for color in COLORS:
        pair = sorted((light(ink(color, background)), light(background)))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.49


# ---- matplotlib -----------------------------------------------------------------------------


def axes_of(figure: Any) -> Any:
    (axes,) = figure.axes
    return axes


def words_of(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def test_a_figure_has_the_values_and_touches_nothing_of_the_user(run: Path) -> None:
    before, backend = dict(mpl.rcParams), os.environ.get("MPLBACKEND")
    figure = read_run(run).plot("loss", smooth=0.9)
    assert dict(mpl.rcParams) == before
    assert os.environ.get("MPLBACKEND") == backend
    raw, smooth, cross = axes_of(figure).lines
    assert raw.get_alpha() == 0.25
    assert raw.get_ydata().max() == 50
    assert len(smooth.get_ydata()) == 99
    assert (cross.get_marker(), cross.get_xdata().tolist()) == ("x", [70])
    words = words_of(figure)
    assert "nan at step 70" in words
    assert any(re.fullmatch(r"run · code \w+ · complete · smoothed 0.9", word) for word in words)
    assert figure.get_size_inches().tolist() == [8, 4.5]
    png, size = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert size == {"width": 768, "height": 432}
    assert (
        "matplotlib.pyplot"
        not in run_python(
            "import sys, foundry_fastlog\n"
            f"foundry_fastlog.read_run({str(run)!r}).plot(); print(*sys.modules)"
        ).stdout.split()
    )


def test_axes_of_figures(run: Path) -> None:
    figure = plot_runs(run, "loss", x="time")
    line = axes_of(figure).lines[0]
    assert num2date(line.get_xdata()[0]).timestamp() == pytest.approx(START.timestamp(), abs=1e-3)
    figure = plot_runs(
        str(run), "loss", x="relative", log_y=True, steps=(10, None), ranks=0, title="T"
    )
    assert axes_of(figure).get_xlabel() == "seconds since the first record"
    assert axes_of(figure).get_yscale() == "log"
    assert "T" in words_of(figure)
    axes = axes_of(plot_runs([run], "loss", log_x=True, log_y=True, ranks="all"))
    assert axes.get_xscale() == "log"
    assert axes.lines[0].get_xdata()[0] == 1


def test_many_curves_have_a_legend_and_few_are_labelled(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"r{n}", [3.0, 1.0 + n / 1000]) for n in range(25)]
    few = plot_runs(paths[:4], "loss")
    texts = [text for text in axes_of(few).texts if re.match(r"r\d  ", text.get_text())]
    assert len(texts) == 4
    boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 2 for low, high in pairwise(boxes))
    assert len(axes_of(plot_runs(paths[:7], "loss")).get_legend().get_texts()) == 7
    legend = axes_of(plot_runs(paths, "loss")).get_legend()
    assert [text.get_text() for text in legend.get_texts()][-1] == "and 5 more"
    assert "r0, r1, r10, r11 and 21 more" in words_of(plot_runs(sorted(paths), "loss"))


def test_titles_say_what_runs_differ_in_and_footers_what_is_missing(tmp_path: Path) -> None:
    runs = [write(tmp_path / f"r{n}", [3.0, 1.0], odd=math.inf) for n in range(2)]
    for number, path in enumerate(runs):
        write_run_json(path, name=path.name, config={"lr": number, "same": 1})
    text = (runs[0] / "metrics.jsonl").read_text()
    (runs[0] / "metrics.jsonl").write_text(text.replace("metrics", "metric", 1))
    figure = plot_runs(runs, ["loss", "odd"])
    words = words_of(figure)
    assert "2 runs: lr 0, 1" in words
    assert any("1 incomplete" in word for word in words)
    assert "no finite value" in words
    assert any("· incomplete" in word for word in words_of(plot_runs(runs[0], "loss")))
    with Recorder(tmp_path / "live") as recorder:
        recorder.record(0, loss=1.0)
        recorder.flush()
        assert any("1 still running" in word for word in words_of(plot_runs(recorder.path)))


def test_groups_starts_checkpoints_and_infinities_in_figures(run: Path) -> None:
    OracleWriter(run, attempt=1).fill(range(90, 95), loss=-math.inf)
    later = OracleWriter(run, attempt=2).fill(range(95, 99), loss=1.0)
    later.timing("checkpoint", 0.1, step=97)
    axes = axes_of(plot_runs(run, "loss", checkpoints=True))
    assert {line.get_marker() for line in axes.lines} >= {"^", "v", "x"}
    words = [text.get_text() for text in axes.texts]
    assert {"start 1", "start 2", "checkpoint", "nan at step 70 and 5 more"} <= set(words)
    (band,) = axes_of(plot_runs(run, "loss", group_by="name")).collections
    assert band.get_alpha() == 0.25


def test_very_many_metrics_and_nothing_to_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure_module, "_MOST_PANELS", 3)
    OracleWriter(tmp_path / "a").metrics(0, **{f"m{n}": 1.0 for n in range(5)})
    figure = plot_runs(tmp_path / "a", "*")
    assert len(figure.axes) == 3
    assert any("2 more metrics are not drawn" in word for word in words_of(figure))
    OracleWriter(tmp_path / "b").log("x")
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_runs(tmp_path / "b")


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_files_are_written(kind: str, run: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / f"out.{kind}"
    assert "written to" in command("plot", run, "-o", out).err
    begin = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind]
    assert out.read_bytes().startswith(begin)
    assert "No such file" in command("plot", run, "-o", tmp_path / "no" / out.name, code=2).err


def test_without_matplotlib_the_extra_is_named(run: Path) -> None:
    """A terminal needs none, a file says so in one line, Python by an error."""
    done = run_python(f"""
import sys; sys.modules["matplotlib"] = None; sys.stderr = sys.stdout
from foundry_fastlog.cli.main import main
print(main(["plot", {str(run)!r}]), main(["plot", {str(run)!r}, "-o", "x.png"]))
from foundry_fastlog import read_run
try:
    read_run({str(run)!r}).plot()
except ImportError as error:
    print(error)
""").stdout
    assert done.count("pip install 'foundry_fastlog[plot]'") == 2
    assert "0 2\n" in done


def test_points_of_a_chart_are_enough_for_each_view(run: Path) -> None:
    """By steps a run is read from its curves, which is the same as from its lines."""
    for points in (None, 2000):
        (chart,) = read_charts([read_run(run)], "loss", Asked(points=points))
        assert chart.series[0].y.max() == 50


def test_a_page_opens_as_the_plot_was_asked_for(
    run: Path, tmp_path: Path, command: Command
) -> None:
    """With its axes, smoothing and window; what only pictures have is refused."""
    page = tmp_path / "page.html"
    (tmp_path / "d.html").mkdir()
    said = command("plot", run, "-m", "loss", "--steps", "10:90", "-o", page)
    assert '"zoom":"10:90"' in page.read_text()
    options = ("-x", "lr", "--log-y", "--smooth", 0.5)
    assert (
        "window of steps" in command("plot", run, *options, "--steps", "1:", "-o", page, code=2).err
    )
    said = command("plot", run, "-m", "loss", *options, "-o", page)
    assert said.err == f"written to {page}\n"
    found = re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    wanted = {"x": "lr", "logx": "", "logy": "1", "smooth": "0.5", "zoom": ""}
    assert data["settings"] == wanted
    assert [curve["name"] for curve in data["runs"][0]["curves"]][:2] == ["loss", "lr"]
    assert "no such metric" in command("plot", run, "-x", "nope", "-o", page, code=2).err
    assert "are for pictures" in command("plot", run, "--ranks", "-o", page, code=2).err
    assert "directory" in command("plot", run, "-m", "loss", "-o", tmp_path / "d.html", code=2).err
