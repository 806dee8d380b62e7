"""The report in a browser: what is painted is read as pixels, what is said as text.

One Chromium for all tests of a process; without one they are skipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, missing
from many_ranks import durations, slower, write_ranks
from oracle import OracleWriter, attempt, write_run_json

from foundry_fastlog import Recorder, read_run, write_report
from foundry_fastlog.analysis.series import read_charts

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

SPIKE = 123_457
STEPS = 150_000
TOKENS = ["background", "panel", "text", "quiet", "accent", "good", "warning", "bad"]
# Finds a chart, and where a point is in it.
CHART = """
const page = document.getElementById("app").page;
const chart = page.grid.charts.get(arguments[0]);
const u = chart.u;
const at = (x, y) => [Math.round(u.valToPos(x, "x", true)), Math.round(u.valToPos(y, "y", true))];
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of one long run, of two that were compared, and of a hostile one."""
    home = tmp_path_factory.mktemp("pages")
    with Recorder(home / "long") as recorder:
        for step in range(STEPS):
            loss = 50.0 if step == SPIKE else 2.0 + (step % 7) / 100
            recorder.record(step, loss=loss, power=10.0 ** (3 * step / STEPS))
    write_report(home / "long", home / "long.html", size=600_000)
    for run, level in (("fine", 1.0), ("bad", 3.0)):
        write_run_json(home / run, name=run, config={"lr": level, "same": 7}, attempts=1)
        writer = OracleWriter(home / run, tick_s=1.0)
        for step in range(100):
            values = {"loss": math.nan if step == 40 else level, "group/zero": step - 50.0}
            values["double"] = 2.0 * step
            writer.metrics(step, step // 10, **values)
            writer.timing("forward", 0.25, step, 1, "step")
            writer.timing("step", 1.0, step)
        for number in range(30):
            writer.log(f"message {number}", level="WARNING" if number % 3 else "INFO", step=number)
        if run == "bad":
            writer.error("boom", ValueError("too bad"), step=70)
            attempt(home / run, 1, tick_s=1.0).fill(range(90, 95), loss=4.0)
            writer.torn("metrics", b"torn")
    write_report([home / "fine", home / "bad"], home / "two.html")
    return home


def point(browser: Browser, name: str, x: float, y: float, reach: int = 1) -> int:
    """How dark a curve is around a point, 0 to 765; what is as light as the grid is nothing."""
    script = f"""{CHART}
    const [left, top] = at(arguments[1], arguments[2]);
    const reach = arguments[3];
    const side = 2 * reach + 1;
    const {{data}} = u.ctx.getImageData(left - reach, top - reach, side, side);
    let most = 0;
    for (let i = 0; i < data.length; i += 4)
      most = Math.max(most, (data[i + 3] / 255) * (765 - data[i] - data[i + 1] - data[i + 2]));
    return most > 80 ? Math.round(most) : 0;"""
    found: int = browser.ask(script, name, x, y, reach)
    return found


def hover(browser: Browser, name: str, x: float, y: float) -> str:
    """What the box beside the pointer says."""
    place = browser.ask(
        f"""{CHART}
        chart.element.scrollIntoView({{block: "center"}});
        const box = u.over.getBoundingClientRect();
        const [x, y] = [u.valToPos(arguments[1], "x"), u.valToPos(arguments[2], "y")];
        return [box.left + x, box.top + y];""",
        *(name, x, y),
    )
    mouse(browser, "mouseMoved", *place)
    said = browser.wait(
        "const box = document.querySelector('.hover'); return !box.hidden && box.innerText"
    )
    box = browser.ask("return document.querySelector('.hover').getBoundingClientRect().toJSON()")
    inside = box["left"] <= place[0] <= box["right"] and box["top"] <= place[1] <= box["bottom"]
    assert not inside, "the box covers the point"
    return str(said)


def mouse(browser: Browser, kind: str, x: float, y: float, **more: Any) -> None:
    browser.driver.execute_cdp_cmd(
        "Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more}
    )


def drag(browser: Browser, name: str, first: float, last: float, modifiers: int = 0) -> None:
    """Drag in a chart from one share of its width to another."""
    box = browser.ask(f"{CHART} return u.over.getBoundingClientRect().toJSON()", name)
    y = box["top"] + box["height"] / 2
    places = [box["left"] + box["width"] * (first + (last - first) * k / 4) for k in range(5)]
    held: dict[str, Any] = {"button": "left", "buttons": 1, "clickCount": 1, "modifiers": modifiers}
    mouse(browser, "mouseMoved", places[0], y, modifiers=modifiers)
    mouse(browser, "mousePressed", places[0], y, **held)
    for x in places[1:]:
        mouse(browser, "mouseMoved", x, y, **held)
    mouse(browser, "mouseReleased", places[-1], y, **held)
    browser.settle()


def window(browser: Browser, name: str) -> list[float]:
    found: list[float] = browser.ask(f"{CHART} return [u.scales.x.min, u.scales.x.max]", name)
    return found


def each(browser: Browser, selector: str, of: str) -> list[Any]:
    """Something of all elements that fit a selector."""
    script = f"return [...document.querySelectorAll(arguments[0])].map((one) => {of})"
    return list(browser.ask(script, selector))


def setting(browser: Browser, key: str) -> str:
    return str(
        browser.ask("return document.getElementById('app').page.settings.get(arguments[0])", key)
    )


def test_a_spike_of_one_step_is_seen_and_read_at_every_zoom(browser: Browser, pages: Path) -> None:
    browser.open(pages / "long.html")
    level = browser.ask(f"{CHART} return chart.shown[0].view.curve.entry.level", "loss")
    assert level >= 4  # its values are not in the page one by one
    for y in (10, 30, 45):
        assert point(browser, "loss", SPIKE, y) > 0
        assert (
            point(browser, "loss", SPIKE - 4000, y) == point(browser, "loss", SPIKE + 4000, y) == 0
        )
    said = hover(browser, "loss", SPIKE, 50)
    assert "50" in said.split()
    assert f"step {SPIKE:,}" in said
    browser.open(pages / "long.html", f"zoom={SPIKE - 60}:{SPIKE + 60}")
    assert window(browser, "loss") == [SPIKE - 60, SPIKE + 60]
    assert point(browser, "loss", SPIKE, 40) > 0
    assert f"step {SPIKE:,}" in hover(browser, "loss", SPIKE, 50)
    note = browser.ask(f"{CHART} return chart.note.textContent", "loss")
    assert note == f"band: {2**level} steps a point"


def test_a_nan_is_marked_on_the_edge_and_leaves_a_gap(browser: Browser, pages: Path) -> None:
    browser.open(pages / "two.html", "hide=bad")
    top, bottom = browser.ask(f"{CHART} return [u.scales.y.max, u.scales.y.min]", "loss")
    assert point(browser, "loss", 40, top, 3) > 0
    assert point(browser, "loss", 60, top, 3) == 0
    assert point(browser, "loss", 30.5, 1.0) > 0
    assert point(browser, "loss", 40, 1.0) == 0
    assert "NaN" in hover(browser, "loss", 40, top - (top - bottom) * 0.01)
    note = browser.ask(f"{CHART} return chart.note.textContent", "loss")
    assert note == "1 not finite"


def test_a_log_axis_is_one(browser: Browser, pages: Path) -> None:
    """Equal ratios are equal distances, and the curve 10^(3x) is a straight line."""
    browser.open(pages / "long.html", "logy=1")
    heights = browser.ask(
        f"{CHART} return [1, 10, 100, 1000].map((y) => u.valToPos(y, 'y'))", "power"
    )
    steps = np.diff(heights)
    assert steps[0] == pytest.approx(steps[1], rel=1e-6) == pytest.approx(steps[2], rel=1e-6)
    for part in (0.2, 0.5, 0.8):
        assert point(browser, "power", STEPS * part, 10 ** (3 * part)) > 0
        assert point(browser, "power", STEPS * part, 10 ** (3 * part + 0.4)) == 0
    browser.open(pages / "two.html", "logy=1&logx=1")
    note = browser.ask(f"{CHART} return chart.note.textContent", "group/zero")
    assert "values ≤ 0 are not shown" in note
    assert window(browser, "group/zero")[0] == 1  # the first step above 0


def smoothed(browser: Browser, name: str, run: str, weight: float) -> tuple[list[float], float]:
    """What a chart draws of a run's metric when it is smoothed, and over how many steps."""
    found: tuple[list[float], float] = browser.ask(
        f"""{CHART}
        page.settings.set({{smooth: String(arguments[2])}});
        const {{weight, unit}} = chart.smooth;
        const one = chart.shown.find(({{run}}) => run.name === arguments[1]);
        const {{above, below, scale}} = (one.fine ?? one.view).curve.smooth(weight, unit);
        return [Array.from(above, (sum, i) => (sum / below[i]) * scale), unit];""",
        *(name, run, weight),
    )
    return found


def test_smoothing_is_adams_mean_over_all_values(browser: Browser, pages: Path) -> None:
    browser.open(pages / "two.html", "smooth=0.9&hide=bad")
    found, unit = smoothed(browser, "double", "fine", 0.9)
    mean, expected = 0.0, []
    for step in range(100):
        mean = 0.9 * mean + 0.1 * 2.0 * step
        expected.append(mean / (1 - 0.9 ** (step + 1)))
    assert found == pytest.approx(expected, rel=1e-9)
    assert unit == 1
    browser.settle()
    raw, smooth = (point(browser, "double", 47, y) for y in (94.0, expected[47]))
    assert 0 < raw < smooth / 2  # the raw curve stays, at a quarter


def test_smoothing_is_that_of_plots(browser: Browser, tmp_path: Path) -> None:
    """Uneven steps count by their distance, over those of the closest curve; huge values, too."""
    chance = np.random.default_rng(1)
    for run, apart in (("close", 3), ("wide", 20)):
        steps = np.cumsum(chance.integers(1, 2 * apart, 400))
        writer = OracleWriter(tmp_path / run)
        for step, value in zip(steps.tolist(), chance.normal(size=400).tolist(), strict=True):
            bad = math.nan if step % 7 == 0 else value
            writer.metrics(step, step / 100, loss=bad, huge=value * 4e307, back=-step)
    runs = [tmp_path / "close", tmp_path / "wide"]
    write_report(runs, tmp_path / "two.html")
    browser.open(tmp_path / "two.html")
    for weight in (0.5, 0.99, 0.99999):
        for name in ("loss", "huge"):
            (chart,) = read_charts([read_run(run) for run in runs], name, weight=weight)
            for one, run in zip(chart.series, ("close", "wide"), strict=True):
                found, _ = smoothed(browser, name, run, weight)
                assert found == pytest.approx(one.smooth.tolist(), rel=1e-9, abs=1e-12)
    before = smoothed(browser, "loss", "wide", 0.9)
    browser.open(tmp_path / "two.html", "x=back")  # values are the other way round
    order = browser.ask(f"{CHART} return chart.shown[0].view.order", "loss")
    assert order == sorted(order, reverse=True)
    assert smoothed(browser, "loss", "wide", 0.9) == before


@pytest.mark.parametrize(
    ("axis", "expected"),
    [("step", [0, 99]), ("relative", [0, 99]), ("epoch", [0, 9]), ("double", [0, 198])],
)
def test_any_metric_may_be_x(
    browser: Browser, pages: Path, axis: str, expected: list[float]
) -> None:
    """Lines of the run `fine` are three seconds apart, as each step has two timings."""
    browser.open(pages / "two.html", f"x={axis}&hide=bad")
    factor = 3 if axis == "relative" else 1
    assert window(browser, "group/zero") == [end * factor for end in expected]
    assert browser.ask("return document.querySelector('.tools select').value") == axis


def test_runs_are_compared(browser: Browser, pages: Path) -> None:
    browser.open(pages / "two.html", "theme=light")
    said = hover(browser, "loss", 20, 2.9).split()
    assert said.index("bad") < said.index("fine")  # by value
    assert said[said.index("bad") + 1] == "3"
    assert (
        browser.ask("return document.querySelector('.hover .best .hover-run').innerText") == "bad"
    )
    words = browser.ask(f"{CHART} return chart.lines()", "loss")
    assert words == [[70, "ValueError"], [90, "start 1"]]
    assert (
        browser.ask("return document.querySelector('.bar .warning').textContent") == "1 incomplete"
    )
    text = browser.ask("return document.querySelector('[data-name=loss] .unseen').textContent")
    assert "bad begins with 3, ends with 4" in text
    browser.type("5")
    rows = each(browser, "main tbody tr", "[one.className, one.innerText]")
    assert [(kind, text.split()) for kind, text in rows] == [
        ("differs", ["lr", "1.0", "3.0"]),
        ("", ["same", "7", "7"]),
    ]
    browser.ask("document.querySelector('main input').click()")
    assert browser.ask("return document.querySelectorAll('main tbody tr').length") == 1
    browser.type("3")
    shares = browser.ask("return document.querySelector('.shares').getAttribute('aria-label')")
    assert shares == "forward 25 %, not timed 75 %"
    widths = each(browser, ".block", "[one.firstChild.textContent, one.offsetWidth]")
    assert [name for name, _ in widths] == ["step", "forward"]
    assert widths[1][1] == pytest.approx(widths[0][1] / 4, abs=2)


def test_a_slow_rank_is_seen(browser: Browser, tmp_path: Path) -> None:
    for rank in range(4):
        writer = OracleWriter(tmp_path / "run", rank=rank)
        for step in range(5):
            writer.timing("step", 0.2 if rank == 2 else 0.1 + rank / 1e4, step)
    write_report(tmp_path / "run", tmp_path / "report.html")
    browser.open(tmp_path / "report.html", "tab=timings")
    assert each(browser, ".heat .out", "one.title") == [
        "step, rank 2: 200 ms, 2.00 x the median: slow"
    ]
    colours = each(browser, ".heat td.number", "getComputedStyle(one).backgroundColor")
    assert len(colours) == 4
    assert colours[2] != colours[1]


def test_ranks_are_a_heat_map(browser: Browser, tmp_path: Path) -> None:
    """Darker where a rank is slow, framed from the step on, and each cell says what it is."""
    write_ranks(tmp_path / "run", durations(8, 120, slower("forward", {5}, 60, factor=2.0)))
    write_report(tmp_path / "run", tmp_path / "report.html")
    pixel = """
    const tab = document.getElementById("app").page.tabs.ranks;
    const { row, column } = tab.layout();
    const [x, y] = [44 + (arguments[0] + 0.5) * column, 6 + (arguments[1] + 0.5) * row];"""
    colour = "return [...tab.canvas.getContext('2d').getImageData(x, y, 1, 1).data]"
    for theme in ("light", "dark"):
        browser.open(tmp_path / "report.html", f"tab=ranks&theme={theme}")
        browser.wait("return document.getElementById('app').page.tabs.ranks.map !== null")
        browser.settle()
        slow, before, other = (
            browser.ask(pixel + colour, *cell)[3] for cell in ((100, 5), (20, 5), (100, 2))
        )
        assert slow > 2 * before
        assert slow > 2 * other
        frame = "return [...tab.canvas.getContext('2d').getImageData(x, 6 + 5 * row, 1, 1).data]"
        red, green, *_ = browser.ask(pixel + frame, 100, 5)
        assert red > 1.4 * green
    said = each(browser, ".said li", "one.innerText")
    assert said[0].startswith("Rank 5 is slow since step 6")
    assert "in 'forward'" in said[0]
    label = browser.ask("return document.querySelector('canvas.ranks').getAttribute('aria-label')")
    assert label.startswith("Heat map of 8 ranks by step. Rank 5 is slow")
    place = browser.ask(
        pixel
        + "const box = tab.canvas.getBoundingClientRect(); return [box.left + x, box.top + y]",
        *(100, 5),
    )
    mouse(browser, "mouseMoved", *place)
    tip = browser.wait("const box = document.querySelector('#panel .hover'); return box.innerText")
    assert tip.startswith("rank 5\n")
    assert "x the median" in tip
    assert tip.endswith("step 100")
    rows = each(browser, "#panel table tbody tr", "one.firstChild.innerText")
    assert rows[0] == "5"
    assert sorted(map(int, rows)) == list(range(8))
    mouse(browser, "mouseMoved", 5, 5)
    browser.wait("return document.querySelector('#panel .hover').hidden")
    OracleWriter(tmp_path / "one").timing("step", 1.0, 0)
    write_report(tmp_path / "one", tmp_path / "one.html")
    browser.open(tmp_path / "one.html", "tab=ranks")
    assert "one rank" in browser.ask("return document.querySelector('.empty').innerText")


def test_where_the_wall_time_went_is_shown(browser: Browser, tmp_path: Path) -> None:
    """A bar and a table, beside the timings, and where there are none."""
    for name in ("timed", "untimed"):
        writer = OracleWriter(tmp_path / name, tick_s=0.5)
        for step in range(10):
            writer.metrics(step, loss=1.0)
            if name == "timed":
                writer.timing("step", 0.5, step)
        writer.now += timedelta(seconds=60)
        writer.log("<img src=x>")
    write_report([tmp_path / "timed", tmp_path / "untimed"], tmp_path / "report.html")
    browser.complaints()  # those of other tests
    browser.open(tmp_path / "report.html", "tab=timings&run=timed")
    labels = each(browser, ".shares", "one.getAttribute('aria-label')")
    assert labels[-1] == "step 7.14 %, stalls 85 %, other 7.86 %"
    bar = "[...one.children].map((part) => part.offsetWidth)"
    *_, widths = each(browser, ".shares", bar)
    assert widths[1] / sum(widths) == pytest.approx(0.85, abs=0.01)
    said = browser.ask("return document.querySelector('main').innerText")
    assert "The largest loss: 59.5 s (85.0%) of stalls" in said
    assert "note" not in said
    browser.open(tmp_path / "report.html", "tab=timings&run=untimed")
    said = browser.ask("return document.querySelector('main').innerText")
    assert "There are no timings." in said
    assert "steps end with the records of the metric loss" in said
    assert browser.complaints() == []


def test_messages_are_searched(browser: Browser, pages: Path) -> None:
    browser.open(pages / "two.html", "tab=messages&run=bad")
    shown = "return [...document.querySelectorAll('.lines')].map((l) => l.innerText)"
    errors, messages = browser.ask(shown)
    assert "ValueError" in errors
    assert len(messages.splitlines()) >= 30
    browser.type("/message 2")
    browser.wait("return document.querySelectorAll('.lines .line').length === 11")
    browser.ask("[...document.querySelectorAll('.choices button')].at(-1).click()")
    assert "WARNING" not in browser.ask(shown)[0]
    assert browser.ask("return document.querySelectorAll('.lines .line').length") == 3
    browser.open(pages / "two.html", "tab=messages&run=bad")
    browser.ask("document.querySelector('details summary').click()")
    assert "ValueError: too bad" in browser.ask(
        "return document.querySelector('details pre').innerText"
    )
    browser.open(pages / "two.html", "tab=about&run=bad")
    about = browser.ask("return document.querySelector('main').innerText")
    assert "Incomplete: 1 torn (metrics)." in about


def test_the_keyboard_does_it_all(browser: Browser, pages: Path) -> None:
    browser.open(pages / "two.html", "zoom=10:20")
    browser.type("z")
    assert setting(browser, "zoom") == ""
    browser.type("j")
    assert setting(browser, "run") == "fine"
    browser.type("j ")
    assert (setting(browser, "run"), setting(browser, "hide")) == ("bad", "bad")
    browser.settle()
    assert browser.ask(f"{CHART} return chart.shown.length", "loss") == 1
    browser.type(" k")
    assert (setting(browser, "run"), setting(browser, "hide")) == ("fine", "")
    theme = "return document.documentElement.dataset.theme"
    before = browser.ask(theme)
    browser.type("t")
    assert {before, browser.ask(theme)} == {"light", "dark"}
    browser.type("t6")
    assert setting(browser, "tab") == "about"
    browser.type("?")
    assert browser.ask("return document.querySelector('dialog').open")
    browser.type("\ue00c")  # escape
    browser.wait("return !document.querySelector('dialog').open")
    browser.type("1/zero")
    assert setting(browser, "q") == "zero"
    browser.wait("return document.querySelectorAll('.chart').length === 1")
    browser.type("\ue00cz")
    assert setting(browser, "q") == "zero"  # z was no longer typed


def test_dragging_zooms_pans_and_resets(browser: Browser, pages: Path) -> None:
    browser.open(pages / "two.html")
    drag(browser, "double", 0.25, 0.75)
    first, last = window(browser, "loss")  # all charts follow
    assert (first, last) == (pytest.approx(99 / 4, abs=1), pytest.approx(99 * 3 / 4, abs=1))
    drag(browser, "double", 0.5, 0.25, modifiers=8)
    moved = window(browser, "loss")
    assert moved[0] - first == pytest.approx((last - first) / 4, abs=1)
    assert moved[1] - moved[0] == pytest.approx(last - first, rel=1e-6)
    box = browser.ask(f"{CHART} return u.over.getBoundingClientRect().toJSON()", "double")
    centre = (box["left"] + box["width"] / 2, box["top"] + 50)
    mouse(browser, "mouseWheel", *centre, deltaX=0, deltaY=-100)
    assert window(browser, "loss") == moved  # the page scrolls
    mouse(browser, "mouseWheel", *centre, deltaX=0, deltaY=-100, modifiers=2)
    browser.until(lambda: np.ptp(window(browser, "loss")) < 0.7 * np.ptp(moved))
    place = browser.ask(f"{CHART} return u.over.getBoundingClientRect().toJSON()", "double")
    at = (place["left"] + 20, place["top"] + 20)
    for count in (1, 2):
        mouse(browser, "mousePressed", *at, button="left", clickCount=count)
        mouse(browser, "mouseReleased", *at, button="left", clickCount=count)
    browser.until(lambda: window(browser, "loss") == [0, 99])


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_can_be_read(browser: Browser, pages: Path, scheme: str) -> None:
    """The contrast of WCAG 2 is at least 4.5, and the system's preference is followed."""
    browser.prefer(color_scheme=scheme, reduced_motion="reduce")
    browser.open(pages / "two.html")
    browser.ask("localStorage.clear()")
    browser.open(pages / "two.html")
    colours = browser.ask(
        """
        const probe = document.createElement("div");
        document.body.append(probe);
        const found = {};
        for (const name of arguments[0]) {
          probe.style.color = `var(--${name})`;
          found[name] = getComputedStyle(probe).color;
        }
        probe.className = "dot running";
        found.motion = getComputedStyle(probe).animationName;
        return found;""",
        TOKENS,
    )
    assert colours.pop("motion") == "none"
    grounds = [luminance(colours.pop(name)) for name in ("background", "panel")]
    assert (min(grounds) > 0.5) == (scheme == "light")
    for name, colour in colours.items():
        for ground in grounds:
            high, low = sorted((luminance(colour), ground), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, name)


def test_a_phone_has_one_column(browser: Browser, pages: Path) -> None:
    browser.resize(390, 844)
    try:
        browser.open(pages / "two.html")
        assert browser.ask("return document.documentElement.scrollWidth") <= 390
        lefts = each(browser, ".chart", "one.getBoundingClientRect().left")
        assert len(set(lefts)) == 1
        visible = "return document.querySelector('.side').checkVisibility()"
        assert not browser.ask(visible)
        browser.ask("document.querySelector('.bar .icon').click()")
        assert browser.ask(visible)
        for tab in ("values", "timings", "messages", "config", "about", "ranks"):
            browser.open(pages / "two.html", f"tab={tab}")
            assert browser.ask("return document.documentElement.scrollWidth") <= 390, tab
    finally:
        browser.resize(1440, 900)


def test_numbers_between_which_there_is_no_room_for_ticks(browser: Browser, tmp_path: Path) -> None:
    """The largest step, values that are neighbours, and the largest ones."""
    for name, steps, values in (
        ("far", [2**62], [1.0]),
        ("near", [0, 1, 2], [1.0, 1.0 + 2**-52, 1.0]),
        ("huge", [0, 1], [-1e308, 1e308]),
    ):
        writer = OracleWriter(tmp_path / name)
        for step, value in zip(steps, values, strict=True):
            writer.metrics(step, **{name: value})
        write_report(tmp_path / name, tmp_path / f"{name}.html")
        browser.complaints()
        for fragment in ("", "logx=1&logy=1"):
            browser.open(tmp_path / f"{name}.html", fragment)
            browser.wait("return document.querySelectorAll('canvas').length == 1")
            browser.settle()
        assert browser.complaints() == []


def test_what_is_never_finite_is_at_its_steps(browser: Browser, tmp_path: Path) -> None:
    """The axis reaches the marks, also behind the last finite value."""
    writer = OracleWriter(tmp_path / "run")
    for step in range(50):
        writer.metrics(step, never=math.nan, last=math.nan if step == 49 else 1.0)
    write_report(tmp_path / "run", tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    browser.wait("return document.querySelectorAll('canvas').length == 2")
    assert [window(browser, name) for name in ("never", "last")] == [[0, 49], [0, 49]]


def test_a_block_without_a_name_is_a_block(browser: Browser, tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path / "run")
    writer.timing("", 0.5, step=0)
    writer.timing("inside", 0.25, step=0, parent="", depth=1)
    write_report(tmp_path / "run", tmp_path / "report.html")
    browser.open(tmp_path / "report.html", "tab=timings")
    widths = each(browser, ".block", "one.offsetWidth")
    assert widths[1] == pytest.approx(widths[0] / 2, abs=2)
    assert browser.complaints() == []


def test_hostile_names_and_many_charts(browser: Browser, tmp_path: Path) -> None:
    """Thousands of charts, of which those in view are drawn; and no name becomes markup."""
    evil = "</script><img src=x onerror=document.title='pwned'>\0"
    writer = OracleWriter(tmp_path / "run")
    many = {name: 1.0 for n in range(400) for name in (f"layer.{n}/norm", f"norm/{n}")}
    for step in range(3):
        writer.metrics_dict(step, {evil: step, " ": 1.0, **many})
    writer.log(evil, context={evil: evil})
    writer.error(evil, ValueError(evil))
    page = tmp_path / "report.html"
    write_report(tmp_path / "run", page, title=evil)
    browser.complaints()
    for tab in ("charts", "values", "messages", "config", "about"):
        browser.open(page, f"tab={tab}")
        assert browser.ask("return document.querySelectorAll('img').length") == 0
        assert browser.ask("return document.title").startswith("</script>")
    browser.open(page)
    titles = "return [...document.querySelectorAll('.chart h3')].map((one) => one.innerText)"
    assert browser.ask(titles)[:2] == [evil, '" "']
    drawn = "return document.querySelectorAll('canvas').length"
    assert 0 < browser.ask(drawn) < 30
    for _ in range(3):
        before = browser.ask("return document.querySelectorAll('.chart').length")
        browser.ask("scrollTo(0, document.body.scrollHeight)")
        browser.wait(f"return document.querySelectorAll('.chart').length > {before}")
    browser.settle()
    assert 0 < browser.ask(drawn) < 40  # what left the view was given back
    assert browser.complaints() == []
    asked = [url for url in requests(browser) if not url.startswith(("file:", "about:", "data:"))]
    assert asked == []
    assert browser.ask("return performance.getEntriesByType('resource').length") == 0


def requests(browser: Browser) -> list[str]:
    """The URLs that the browser has asked for."""
    import json

    entries = [
        json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance")
    ]
    return [
        e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"
    ]


def test_the_largest_numbers_are_drawn_and_told(browser: Browser, tmp_path: Path) -> None:
    """An axis has ticks beyond 1e32, and room for the largest numbers of both signs."""
    writer = OracleWriter(tmp_path / "run")
    for step in range(50):
        writer.metrics(step, both=1e308 * (-1) ** step, lost=3e38 * step)
    write_report(tmp_path / "run", tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    ends = browser.ask(f"{CHART} return [u.scales.y.min, u.scales.y.max]", "both")
    assert math.isfinite(ends[1] - ends[0])
    for step, end in ((20, ends[1]), (21, ends[0])):
        assert point(browser, "both", step, end, 3) > 0
        assert point(browser, "both", step + 1, end, 3) == 0
    assert "0" in browser.ask(f"{CHART} return u.axes[1]._values", "both")
    ticks = browser.ask(f"{CHART} return u.axes[1]._values", "lost")
    assert len(ticks) > 2
    assert ticks[:2] == ["0", "5e+39"]


def test_the_band_of_ranks_goes_from_step_to_step(browser: Browser, tmp_path: Path) -> None:
    for rank in range(2):
        OracleWriter(tmp_path / "run", rank=rank).fill(range(10), loss=float(rank))
    write_report(tmp_path / "run", tmp_path / "report.html")
    browser.open(tmp_path / "report.html", "theme=light")
    for step in (3.5, 4.0, 4.5):
        assert point(browser, "loss", step, 0.25) > 0
        assert point(browser, "loss", step, -0.03) == 0


def test_of_many_starts_few_lines_are_drawn(browser: Browser, tmp_path: Path) -> None:
    """Or the curve would not be seen; the phone shows which tab is chosen, and whole words."""
    OracleWriter(tmp_path / "run").fill(range(4))
    for number in range(1, 200):
        attempt(tmp_path / "run", number).fill(range(number * 5, number * 5 + 4))
    write_report(tmp_path / "run", tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert len(browser.ask(f"{CHART} return chart.lines()", "loss")) == 199
    script = f"""{CHART}
        const {{left, top, width, height}} = u.bbox;
        let lines = 0;
        for (let x = left; x < left + width; x++) {{
          const {{data}} = u.ctx.getImageData(x, top + 10, 1, 20);
          let dark = 0;
          for (let i = 0; i < data.length; i += 4) dark += data[i + 3] > 120;
          lines += dark > 4;
        }}
        return [lines, width];"""
    lines, width = browser.ask(script, "loss")
    assert 10 < lines <= width / 8
    browser.resize(360, 740)
    try:
        browser.open(tmp_path / "report.html", "tab=about")
        box = "return document.querySelector('[aria-selected=true]').getBoundingClientRect().right"
        browser.wait(f"{box} <= 360")
        heights = each(browser, "main table:last-of-type tbody tr", "one.offsetHeight")
        assert max(heights[-5:]) < 30
        assert each(browser, ".facts dd", "one.innerText")[0].startswith("2026")
    finally:
        browser.resize(1440, 900)
