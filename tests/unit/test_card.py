"""What notebooks show of a run: safe, small, without matplotlib, whatever the run is like."""

from __future__ import annotations

import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import browser
import pytest
from oracle import OracleWriter, write_run_json
from recorded import run_python

from foundry_fastlog import Recorder, read_run

HOSTILE = "<img src=x onerror=alert(1)>\"'&\x00\u202e"


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))


class Tags(HTMLParser):
    """Collects the tags of a page, and checks that each is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)


def card(path: Path) -> str:
    page = read_run(path)._repr_html_()
    known = {
        "div",
        "style",
        "b",
        "span",
        "table",
        "tr",
        "td",
        "svg",
        "line",
        "text",
        "polygon",
        "polyline",
    }
    assert Tags(page).seen <= known
    assert not re.search(r"https?:|<script|javascript:|\x00|\u202e", page)
    return page


def test_a_card_has_facts_values_and_a_curve_with_its_spike(tmp_path: Path) -> None:
    with Recorder(tmp_path / "exp0", config={"lr": 1}) as recorder:
        for step in range(5000):
            recorder.record(step, loss=9.5 if step == 1234 else 1.0, lr=0.25)
    page = card(tmp_path / "exp0")
    for words in ("<b>exp0</b>", "ended", "code ", " UTC", "<td>lr</td><td>0.25</td>"):
        assert words in page, words
    assert "loss: 1 at step 4,999" in page
    svg = ET.fromstring(re.search(r"<svg.*</svg>", page).group())  # type: ignore[union-attr]
    band = [
        tuple(map(float, pair.split(","))) for pair in svg.find("polygon").get("points").split()
    ]  # type: ignore[union-attr]
    x, y = min(band, key=lambda point: point[1])
    assert y == 10  # the upper edge
    assert x == pytest.approx(48 + 400 * 1234 / 4999, abs=2)
    assert len(page) < 40_000


def test_hostile_names_are_text(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, rank=1)
    for step in range(4):
        writer.metrics_dict(
            step, {HOSTILE: float(step), "text": HOSTILE, **{f"m{n}": 1 for n in range(20)}}
        )
    OracleWriter(tmp_path).metrics(5, **{HOSTILE: math.nan})
    write_run_json(tmp_path, name=HOSTILE)
    page = card(tmp_path)
    assert "&lt;img src=x" in page
    assert "and 10 more" in page
    assert "1 NaN or infinite" in page
    assert "2 ranks" in page


def test_runs_that_have_little(tmp_path: Path) -> None:
    OracleWriter(tmp_path / "none").log("x")
    assert "no metrics yet" in card(tmp_path / "none")
    OracleWriter(tmp_path / "one").metrics(0, loss=1.0)
    assert "<svg" not in card(tmp_path / "one")
    OracleWriter(tmp_path / "late").summary(0, val=2.0)
    assert "<td>val</td><td>2</td>" in card(tmp_path / "late")
    flat = OracleWriter(tmp_path / "flat").fill(range(3), loss=1.0)
    flat.metrics(4, loss=math.inf)
    assert "1 NaN or infinite" in card(tmp_path / "flat")
    shutil.rmtree(tmp_path / "one" / ".fastlog", ignore_errors=True)
    (tmp_path / "new").mkdir()
    write_run_json(tmp_path / "new", name="new")
    assert "<b>new</b> <" in card(tmp_path / "new")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "metrics.jsonl").touch()
    assert "<b>bare</b>" in card(tmp_path / "bare")


def fail_in(run: Path) -> None:
    with Recorder(run) as recorder:
        recorder.record(0, loss=1.0)
        raise ValueError("boom <b>")


def test_how_a_run_failed_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="boom"):
            fail_in(tmp_path)
    page = card(tmp_path)
    assert "failed: ValueError: boom &lt;b&gt;" in page
    assert "start 2 of 2" in page
    (tmp_path / "run.json").write_text("{")
    assert "1 problems: see run.problems" in card(tmp_path)


def test_a_run_that_is_gone_and_a_missing_package_are_said(tmp_path: Path) -> None:
    OracleWriter(tmp_path / "run").fill(range(3), loss=1.0)
    run = read_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    assert "svg" not in re.sub(r"<style>.*</style>", "", run._repr_html_(), flags=re.DOTALL)
    OracleWriter(tmp_path / "run").fill(range(3), loss=1.0)
    page = run_python(f"""
import sys; sys.modules["numpy"] = sys.modules["matplotlib"] = None
from foundry_fastlog import read_run
print(read_run({str(tmp_path / "run")!r})._repr_html_())
""").stdout
    assert "numpy" in page


# What JupyterLab 4 says of tables in outputs, as far as it matters here.
JUPYTER = """
.jp-RenderedHTMLCommon table { border: none; margin: 0 auto 1em; }
.jp-RenderedHTMLCommon td { text-align: right; padding: 0.5em; }
.jp-RenderedHTMLCommon tbody tr:nth-child(odd) { background: rgb(1, 2, 3); }
.jp-RenderedHTMLCommon tbody tr:hover { background: rgb(4, 5, 6); }
"""
COLOURS = {False: "rgb(27, 31, 36)", True: "rgb(230, 233, 237)"}
NOTEBOOKS = [
    ("data-jp-theme-light='true'", "", False),
    ("data-jp-theme-light='false'", "", True),
    ("class='vscode-light'", "", False),
    ("class='vscode-dark'", "", True),
    ("", "theme='dark'", True),  # Colab
]


@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
def test_a_card_looks_the_same_in_all_notebooks(tmp_path: Path) -> None:
    """Their rules for tables do not reach it, it follows their theme, and fits narrow cells."""
    with Recorder(tmp_path / ("run-" * 40)) as recorder:
        for step in range(100):
            recorder.record_dict(step, {"loss": 1.0 / (step + 1), "a" * 60: 0.5})
    page = read_run(tmp_path / ("run-" * 40))._repr_html_()
    with browser.Browser(800, 600) as opened:
        for body, html, dark in NOTEBOOKS:
            opened.prefer(color_scheme="light" if dark else "dark")  # the notebook's theme counts
            (tmp_path / "page.html").write_text(
                f"<!doctype html><html {html}><style>{JUPYTER}</style><body {body}>"
                f"<div class='jp-RenderedHTMLCommon'>{page}</div></body></html>"
            )
            opened.driver.get((tmp_path / "page.html").as_uri())
            shown = opened.ask(
                """
                const of = (query) => getComputedStyle(document.querySelector(query));
                const [cell, value] = [of("td"), of("td + td")];
                return [cell.textAlign, value.textAlign, cell.color, cell.paddingTop,
                        of("tr").backgroundColor];
                """
            )
            assert shown == ["left", "right", COLOURS[dark], "2px", "rgba(0, 0, 0, 0)"]
        opened.resize(500, 600)
        assert opened.ask("return document.documentElement.scrollWidth <= innerWidth")
