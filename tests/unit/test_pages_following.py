"""A page that follows runs has all that they recorded, whatever happens to them and to it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from browser import Browser, missing
from live_server import TOKEN, Served, news, until
from oracle import START, OracleWriter, attempt
from page_arrays import decode

from foundry_fastlog import Recorder, read_run
from foundry_fastlog.analysis.shaping import smooth
from foundry_fastlog.pages import clients
from foundry_fastlog.pages.following import Follower
from foundry_fastlog.pages.live import LiveRun
from foundry_fastlog.pages.server import LivePage

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
browsing = pytest.mark.skipif(bool(missing()), reason=missing())
Patch = pytest.MonkeyPatch
PAGE = """
const page = document.getElementById("app").page;
const view = (name, id = "run") =>
  page?.grid.charts.get(name)?.shown.find(({run}) => run.id === id)?.view;
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def opened(served: Served, chromium: Browser) -> Iterator[Browser]:
    """The browser, which lets go of the server before that ends."""
    yield chromium
    chromium.driver.get("about:blank")


def visit(browser: Browser, served: Served, fragment: str = "", *, curves: int = 1) -> None:
    """Open the live page, and wait until it follows the curves of `run` that are in view."""
    browser.driver.get("about:blank")
    browser.driver.get(f"http://127.0.0.1:{served.port}/?token={TOKEN}#{fragment}")
    browser.wait(PAGE + f"return page?.followed?.run?.length === {curves}")
    browser.settle()
    browser.wait(PAGE + "return page.runs[0].checks.length > 0")  # its facts are there


def held(browser: Browser, name: str = "loss") -> dict[str, Any]:
    """What a page holds of a curve: by bucket, and how many values there are in all."""
    found: dict[str, Any] = browser.ask(
        PAGE
        + """
        const found = view(arguments[0]);
        if (!found) return {};
        const {x, y, steps, count, mean, curve} = found;
        const [low, high] = [Array.from(y.low), Array.from(y.high)];
        const values = count ? count.reduce((sum, one) => sum + one, 0) : mean.length;
        return {x: Array.from(x.first), steps: Array.from(steps.first), low, high, values,
                last: curve.entry.last, marks: curve.entry.marks, bad: curve.entry.bad};""",
        name,
    )
    return found


def grown(browser: Browser, values: int, name: str = "loss") -> dict[str, Any]:
    """What a page holds, once it has so many values."""
    browser.until(lambda: held(browser, name).get("values", 0) >= values)
    found = held(browser, name)
    assert found["values"] == values
    return found


def test_names_of_directories_need_not_be_text(served: Served, tmp_path: Path) -> None:
    """Of one such run all others would not be listed, either."""
    for name in (b"run", b"odd\xff", "ünï &%41".encode(), b"new\nline"):
        OracleWriter(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).fill(range(3))
    rows = {row["id"]: row for row in served.get("/api/runs")}
    assert set(rows) == {"run", "odd%FF", "%C3%BCn%C3%AF%20%26%2541", "new%0Aline"}
    assert rows["odd%FF"]["name"] == "odd\\udcff"
    for name in rows:
        assert served.get("/api/run", run=name)["steps"] == [0, 2]
    assert "odd%FF" in served.get("/api/runs", where="step == 2")["runs"]
    found = LivePage(Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff")), TOKEN)
    assert b"<title>odd\\udcff</title>" in bytes(asyncio.run(found._page(Mock())).body)


def test_a_run_that_cannot_be_followed_stops_no_other(
    served: Served, tmp_path: Path, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    good = OracleWriter(tmp_path / "good").fill(range(3))
    OracleWriter(tmp_path / "bad").fill(range(3))
    served.get("/api/runs")
    poll = Follower.poll

    def fails(self: Follower, wanted: Any) -> dict[str, Any]:
        if self._cursor.path.name == "bad":
            raise ZeroDivisionError("what nobody foresaw")
        return poll(self, wanted)

    monkeypatch.setattr(Follower, "poll", fails)
    caplog.set_level(logging.WARNING)
    with served.events("one") as told:
        served.follow("one", bad=["loss"], good=["loss"])
        for step in range(3, 6):
            good.metrics(step, loss=2.0)
            assert news(told)["values"] == {"loss": [0, [2.0]]}
    said = [one.getMessage() for one in caplog.records if "foresaw" in one.getMessage()]
    assert said == ["bad cannot be followed: ZeroDivisionError: what nobody foresaw"]
    monkeypatch.setattr(LivePage, "_list_again", Mock(side_effect=ZeroDivisionError("again")))
    until(lambda: any("the runs cannot be listed" in one.getMessage() for one in caplog.records))


def test_silence_is_told_from_a_lost_connection(served: Served, monkeypatch: Patch) -> None:
    monkeypatch.setattr(clients, "_BEAT_S", 0.01)
    with served.events("one") as told:
        assert told.get(timeout=20) == ("beat", {})


def test_who_does_not_read_takes_little_memory(monkeypatch: Patch) -> None:
    monkeypatch.setattr(clients, "_MOST_BYTES", 1000)
    client = clients.Client()
    for _ in range(10):
        client.tell("news", "x" * 300)
    waiting = [client.waiting.get_nowait() for _ in range(client.waiting.qsize())]
    assert waiting[0] == b"event: anew\ndata: {}\n\n"
    assert sum(map(len, waiting)) <= 1000


def test_a_run_that_was_gone_is_read_anew(served: Served, tmp_path: Path) -> None:
    """What it recorded meanwhile nobody has told."""
    OracleWriter(tmp_path / "run").fill(range(3))
    served.get("/api/runs")
    with served.events("one") as told:
        served.follow("one", run=["loss"])
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        while not news(told).get("gone"):
            pass
        (tmp_path / "elsewhere").rename(tmp_path / "run")
        while not news(told).get("anew"):
            pass


def test_marks_reach_from_the_first_to_the_last(tmp_path: Path) -> None:
    """Of a run that has diverged for long, more than are drawn."""
    writer = OracleWriter(tmp_path)
    for step in range(5000):
        writer.metrics(step, loss=1.0 if step < 1000 else math.nan)
    run = LiveRun(tmp_path)
    for points in (100, 5000):
        for steps in (None, (0, 4999)):
            found = run.curve("loss", points, steps)
            marked = [step for step, _ in found["marks"]]
            assert len(marked) <= 500
            assert marked[0] in range(950, 1001)
            assert marked[-1] in range(4900, 5000)
            assert max(b - a for a, b in itertools.pairwise(marked)) < 200
            assert found["bad"] == 4000


def test_a_value_without_an_epoch_takes_none_from_the_others(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    for step in range(4):
        writer.metrics(step, None if step == 1 else step / 2, loss=1.0)
    steps, _, epochs = decode(LiveRun(tmp_path).clock("loss"))
    assert steps == [0, 1, 2, 3]
    assert math.isnan(epochs[1])
    assert [epochs[0], *epochs[2:]] == [0.0, 1.0, 1.5]


def test_what_is_read_once_for_several_charts_is_never_old(tmp_path: Path) -> None:
    """What comes after it is told to those who follow, and to nobody again."""
    writer = OracleWriter(tmp_path).fill(range(3))
    run = LiveRun(tmp_path)
    for number in range(1, 4):
        writer.system(cpu=float(number))
        writer.fill([2 + number])
        found = run.curve("cpu", 100, None, "system")
        assert (found["last"], found["reached"]) == (number, {"@0": number})
        assert decode(run.curve("loss", 400, (0, 99))["arrays"])[0][-1] == 2 + number


def test_a_connection_takes_the_place_of_the_one_before(served: Served) -> None:
    """That may be dead without a word, and would stay for ever."""
    with served.events("one") as first, served.events("one") as second:
        assert first.get(timeout=20) == ("end", None)
        served.page._clients["one"].tell("news", 1)
        assert second.get(timeout=20) == ("news", 1)


@browsing
def test_a_rank_that_is_behind_loses_nothing(
    served: Served, tmp_path: Path, opened: Browser
) -> None:
    """What it records of steps that the page has already is put where it belongs."""
    ranks = [OracleWriter(tmp_path / "run", rank=rank) for rank in range(2)]
    for rank, end in ((0, 50), (1, 10)):
        for step in range(0, end, 2):
            ranks[rank].metrics(step, loss=float(rank))
    visit(opened, served)
    grown(opened, 30)
    for step in range(10, 60):
        ranks[1].metrics(step, loss=99.0 if step == 31 else math.nan if step == 33 else 1.0)
    ranks[0].metrics(50, loss=0.0)
    found = grown(opened, 30 + 49 + 1)
    assert found["steps"] == [step for step in [*range(0, 10, 2), *range(10, 60)] if step != 33]
    assert found["high"] == [1.0 if step != 31 else 99.0 for step in found["steps"]]
    lows = [0.0 if step < 51 and step % 2 == 0 else 1.0 for step in found["steps"]]
    assert found["low"] == [
        99.0 if step == 31 else low for step, low in zip(found["steps"], lows, strict=True)
    ]
    assert (found["marks"], found["bad"], found["last"]) == ([[33, "NaN"]], 1, 1.0)
    assert opened.complaints() == []


@browsing
def test_late_values_go_into_their_buckets(
    served: Served, tmp_path: Path, opened: Browser, monkeypatch: Patch
) -> None:
    ranks = [OracleWriter(tmp_path / "run", rank=rank) for rank in range(2)]
    for step in range(0, 40_000, 4):
        ranks[0].metrics(step, loss=1.0)
    ranks[1].metrics(0, loss=1.0)
    visit(opened, served)
    before = grown(opened, 10_001)
    level = opened.ask(PAGE + "return view('loss').curve.entry.level")
    assert level > 2
    late = {1: 9.0, 2: -9.0, 3: 5.0, 20_001: 7.0, (1 << level) * 9 - 1: 4.0}
    for step, value in late.items():
        ranks[1].metrics(step, loss=value)
    found = grown(opened, 10_006)
    assert (found["high"][0], found["low"][0]) == (9.0, -9.0)
    assert len(found["steps"]) in (len(before["steps"]), len(before["steps"]) + 1)
    assert sorted(found["high"])[-3:] == [4.0, 7.0, 9.0]
    assert found["steps"] == sorted(found["steps"])


@browsing
def test_charts_that_come_back_into_view_have_no_gap(
    served: Served, tmp_path: Path, opened: Browser
) -> None:
    """Whatever the state of the run: it may be on another host, and its files be copied here."""
    writer = OracleWriter(tmp_path / "run").fill(range(10), loss=1.0, lr=2.0)
    visit(opened, served, curves=2)
    grown(opened, 10)
    opened.ask(PAGE + "page.settings.set({q: 'lr'})")
    opened.wait(PAGE + "return page.followed.run.length === 1")
    writer.fill(range(10, 20), loss=3.0, lr=2.0)
    grown(opened, 20, "lr")
    opened.ask(PAGE + "page.settings.set({q: ''})")
    opened.wait(PAGE + "return page.followed.run.length === 2")
    writer.fill(range(20, 25), loss=3.0, lr=2.0)
    assert grown(opened, 25)["steps"] == list(range(25))
    asked = (
        "return performance.getEntriesByType('resource')"
        ".filter(({name}) => name.includes('name=loss')).length"
    )
    # The clock, the curve, the curve again; a busy machine may see lines come while it is fetched.
    assert opened.ask(asked) <= 5


@browsing
def test_a_metric_as_x_is_followed_too(served: Served, tmp_path: Path, opened: Browser) -> None:
    """Also where its own chart is not in view."""
    writer = OracleWriter(tmp_path / "run")
    for step in range(10):
        writer.metrics(step, loss=1.0, tokens=10.0 * step)
    visit(opened, served, "q=loss&x=tokens", curves=2)
    assert grown(opened, 10)["x"][-1] == 90.0
    for step in range(10, 20):
        writer.metrics(step, loss=2.0, tokens=10.0 * step)
    opened.until(lambda: held(opened)["x"][-1:] == [190.0])
    assert held(opened)["x"] == [10.0 * step for step in range(20)]
    assert opened.ask(PAGE + "return page.grid.charts.get('loss').rangeX[1]") == 190.0


@browsing
def test_epochs_stay_an_axis(served: Served, tmp_path: Path, opened: Browser) -> None:
    """Where another metric has none, and where a value comes without one."""
    writer = OracleWriter(tmp_path / "run")
    for step in range(10):
        writer.metrics(step, alone=1.0)
        writer.metrics(step, step / 10, loss=1.0)
    visit(opened, served, "x=epoch&q=loss")
    assert held(opened)["x"] == pytest.approx([step / 10 for step in range(10)])
    opened.ask(PAGE + "page.settings.set({q: ''})")
    opened.wait(PAGE + "return page.followed.run.length === 2")
    writer.metrics(10, loss=1.0)
    writer.metrics(11, 1.1, loss=1.0)
    opened.until(lambda: len(held(opened)["x"]) == 12)
    assert held(opened)["x"] == pytest.approx([step / 10 for step in range(12)])


@browsing
def test_another_machine_needs_no_encryption(
    served: Served, tmp_path: Path, opened: Browser
) -> None:
    """Browsers give some functions to encrypted pages and those of the same machine alone."""
    OracleWriter(tmp_path / "run").fill(range(3))
    script = "delete Crypto.prototype.randomUUID; delete Crypto.prototype.subtle"
    added = opened.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": script}
    )
    try:
        visit(opened, served)
    finally:
        opened.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    grown(opened, 3)


@browsing
def test_who_comes_back_after_a_while_has_all(
    served: Served, tmp_path: Path, opened: Browser
) -> None:
    """After a connection that is dead without a word, and after nobody has looked."""
    writer = OracleWriter(tmp_path / "run").fill(range(10))
    visit(opened, served)
    for number, way in enumerate(
        (
            "page.heard = 0",
            """
            const later = window.setTimeout;
            const look = (hidden) => {
              Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
              page.seen();
            };
            window.setTimeout = (act) => act();
            look(true);
            window.setTimeout = later;
            window.gone = page.events === null;
            look(false);
            """,
        )
    ):
        with served.events("other") as other:  # who is told of the new run, so that nobody else is
            served.page._clients.pop(opened.ask(PAGE + "return page.client"))
            writer.fill(range(10 + 5 * number, 15 + 5 * number))
            OracleWriter(tmp_path / f"new{number}").fill(range(3))
            while other.get(timeout=20)[0] != "runs":
                pass
        opened.ask(PAGE + way)
        assert grown(opened, 15 + 5 * number)["steps"] == list(range(15 + 5 * number))
        opened.wait(PAGE + f"return page.runs.length === {2 + number}")
    assert opened.ask("return window.gone")
    writer.fill(range(20, 25))
    grown(opened, 25)
    assert opened.complaints() == []


@browsing
def test_the_page_holds_what_the_run_has(served: Served, tmp_path: Path, opened: Browser) -> None:
    """Through later starts, rewinds, a kill, and a run in its place: to the bit."""
    path = tmp_path / "run"

    def agree(name: str = "loss") -> None:
        metric = read_run(path).metric(name)
        steps, values = metric.steps.tolist(), metric.values.tolist()
        opened.until(
            lambda: (
                [held(opened, name).get(key) for key in ("steps", "low", "high")]
                == [steps, values, values]
            )
        )

    with Recorder(path) as recorder:
        for step in range(50):
            recorder.record(step, loss=math.sin(step))
        assert recorder.flush()
        visit(opened, served)
        for step in range(50, 80):
            recorder.record(step, loss=math.sin(step))
            assert recorder.flush()
        recorder.rewind(60)
        for step in range(60, 70):
            recorder.record(step, loss=math.cos(step))
        assert recorder.flush()
        agree()
    with Recorder(path) as recorder:
        for step in range(40, 45):
            recorder.record(step, loss=-1.0, late=2.0)
        assert recorder.flush()
        agree()
        opened.wait(PAGE + "return view('late')")
        agree("late")
    shutil.rmtree(path)
    OracleWriter(path).fill(range(7), loss=8.0)
    agree()
    attempt(path, 1).fill(range(5, 9), loss=9.0)
    agree()
    assert all("404" in one for one in opened.complaints())  # it was away for a moment


@browsing
def test_smoothing_does_not_change_with_the_zoom(
    served: Served, tmp_path: Path, opened: Browser
) -> None:
    """A window goes on where the curve before it was."""
    writer = OracleWriter(tmp_path / "run")
    for step in range(20_000):
        writer.metrics(step, loss=math.sin(step / 500) + step % 5 / 10)
    visit(opened, served, "smooth=0.99&zoom=15000:15100")
    opened.wait(PAGE + "return page.grid.charts.get('loss').shown[0].fine?.curve.single")
    steps, found = opened.ask(
        PAGE
        + """
        const chart = page.grid.charts.get("loss");
        const {weight, unit} = chart.smooth;
        const {curve} = chart.shown[0].fine;
        const {above, below, scale} = curve.smooth(weight, unit);
        const found = Array.from(above, (sum, i) => (sum / below[i]) * scale);
        return [Array.from(curve.steps.last), found];
        """
    )
    metric = read_run(tmp_path / "run").metric("loss")
    expected = smooth(metric.steps, metric.values, 0.99)
    assert len(steps) > 100
    assert found == pytest.approx(expected[steps].tolist(), abs=0.01)


@browsing
def test_the_time_of_a_run_is_that_of_its_starts(
    served: Served, tmp_path: Path, opened: Browser
) -> None:
    """Before its facts have come, and after."""
    OracleWriter(tmp_path / "run", tick_s=1.0).fill(range(10))
    late = START + timedelta(days=3)
    later = attempt(tmp_path / "run", 1, start=late, tick_s=1.0).fill(range(10, 20))
    visit(opened, served)
    shown = "return [...document.querySelectorAll('.runs td.number')].at(-1).innerText"
    opened.wait(f"{shown} === '18 s'")
    later.fill(range(20, 30))
    opened.wait(f"{shown} === '28 s'")
