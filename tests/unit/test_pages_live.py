"""The live page: what its server says, to whom, and what a browser makes of it."""

from __future__ import annotations

import http.client
import math
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import ANY, Mock

import numpy as np
import pytest
from browser import Browser, missing
from live_server import TOKEN, Served, news, until
from many_ranks import durations, slower, write_ranks
from oracle import OracleWriter, attempt, write_run_json
from page_arrays import decode
from recorded import TAKES_CTRL_C

from foundry_fastlog import Recorder, Run, read_run, read_runs
from foundry_fastlog.analysis.runs import Runs
from foundry_fastlog.pages import following, live, server
from foundry_fastlog.pages.following import Follower, Wanted
from foundry_fastlog.pages.live import LiveRun, LiveRuns, rows_of
from foundry_fastlog.pages.server import listen
from foundry_fastlog.run.files import RunNotFoundError
from foundry_fastlog.show.palette import styles_of

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
Patch = pytest.MonkeyPatch


def test_only_who_has_the_token_is_answered(served: Served) -> None:
    for path in ("/", "/api/runs", "/api/curve", "/?token=wrong"):
        assert served.request(path, Cookie="").status == 403
    assert served.request("/", Cookie=f"foundry-fastlog-{served.port}=wrong").status == 403
    welcome = served.request(f"/?token={TOKEN}", Cookie="")
    assert (welcome.status, welcome.headers["location"]) == (307, "/")
    cookie = welcome.headers["set-cookie"].lower()
    assert f"={TOKEN};" in cookie
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    for host in ("evil.example", f"evil.example:{served.port}", "", "127.0.0.1.evil.example"):
        assert served.request("/", Host=host).status == 403
    assert served.request("/", Host=f"localhost:{served.port}").status == 200


def test_a_page_may_ask_this_server_alone(served: Served) -> None:
    found = served.request("/")
    assert found.status == 200
    policy = found.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.body.startswith(b"<!doctype html>")


def test_runs_are_listed_and_filtered(served: Served, tmp_path: Path) -> None:
    for name, loss in (("a", 1.0), ("deep/er/b", 3.0), (".hidden/c", 1.0)):
        OracleWriter(tmp_path / name).fill(range(3), loss=loss)
        write_run_json(tmp_path / name, name=name, config={"lr": loss}, attempts=1)
    OracleWriter(tmp_path / "quiet").log("hello")
    rows = {row["id"]: row for row in served.get("/api/runs")}
    assert set(rows) == {"a", "deep/er/b", "quiet"}
    assert rows["deep/er/b"]["name"] == "deep/er/b"
    kept = ("state", "step", "metric", "value")
    assert [rows["a"][key] for key in kept] == ["ended", 2, "loss", 1.0]
    assert [rows["quiet"][key] for key in kept[1:]] == [None, "loss", None]
    assert rows["a"]["style"] == list(styles_of(["a"])["a"])
    found = served.get("/api/runs", where="config.lr > 2 and last.loss < 4")
    assert found == {"runs": ["deep/er/b"], "notes": []}
    assert "stat" in served.get("/api/runs", 400, where="stat ==")["error"]
    shutil.rmtree(tmp_path)
    assert len(served.get("/api/runs")) == 3  # it may come back
    assert list(rows_of(Runs([]))) == []


def test_a_directory_may_be_a_run(tmp_path: Path) -> None:
    OracleWriter(tmp_path / "exp0").fill(range(3), loss=math.nan)
    (row,) = rows_of(read_runs(tmp_path / "exp0")).values()
    assert (row["name"], row["value"]) == ("exp0", None)


def test_the_server_says_what_the_reader_does(
    served: Served, tmp_path: Path, monkeypatch: Patch
) -> None:
    """Facts, curves and windows of them, to the bit."""
    writer = OracleWriter(tmp_path / "run", tick_s=0.25)
    for step in range(4000):
        writer.metrics(step, loss=math.nan if step == 77 else math.sin(step) * 3, lr=0.1)
    (row,) = served.get("/api/runs")
    assert (row["id"], row["name"], row["step"]) == ("run", "run", 3999)
    names = served.get("/api/names", run="run")
    assert names == {"curves": [{"name": "loss"}, {"name": "lr"}]}
    facts = served.get("/api/run", run="run")
    assert facts["steps"] == [0, 3999]
    run = read_run(tmp_path / "run")
    monkeypatch.setattr(live, "_NARROW", 500)
    for window in ({}, {"first": 1000, "last": 2000}):
        found = served.get("/api/curve", run="run", name="loss", points=64, **window)
        steps = (window["first"], window["last"]) if window else None
        curve = run.curve("loss", points=64, steps=steps)
        some = curve.count > 0
        first_steps, first, last_off, last, low_off, low, _, high, count, mean = decode(
            found["arrays"]
        )
        assert first_steps == curve.first_step[some].tolist()
        assert first == curve.first[some].tolist()
        assert np.add(first_steps, last_off).tolist() == curve.last_step[some].tolist()
        assert np.add(first_steps, low_off).tolist() == curve.min_step[some].tolist()
        assert [last, low, high, count] == [
            getattr(curve, name)[some].tolist() for name in ("last", "min", "max", "count")
        ]
        ends = (curve.first + curve.last + curve.min + curve.max) / 4
        assert mean == pytest.approx(ends[some].tolist())
        assert (found["level"], found["single"]) == (curve.level, False)
    assert found["last"] == curve.last[some][-1]
    window = {"first": 60, "last": 90, "points": 400}
    found = served.get("/api/curve", run="run", name="loss", **window)
    values = run.metric("loss", steps=(60, 90))
    finite = np.isfinite(values.values)
    assert decode(found["arrays"]) == [
        values.steps[finite].tolist(),
        values.values[finite].tolist(),
    ]
    assert (found["marks"], found["bad"], found["single"]) == ([[77, "NaN"]], 1, True)
    scans = Mock(side_effect=AssertionError("the window is read once"))
    monkeypatch.setattr(Run, "arrow", scans)
    assert (
        decode(served.get("/api/curve", run="run", name="lr", **window)["arrays"])[1] == [0.1] * 31
    )
    monkeypatch.undo()
    steps, times = decode(served.get("/api/clock", run="run", name="lr")["arrays"])
    metric = run.metric("lr")
    assert (steps, times) == (metric.steps.tolist(), (metric.time.view("i8") // 1000).tolist())


def test_what_is_not_there_and_wrong_requests_are_refused(
    served: Served, tmp_path: Path, monkeypatch: Patch
) -> None:
    OracleWriter(tmp_path / "run").fill(range(3))
    secret = tmp_path.parent / "secret"
    OracleWriter(secret).fill(range(3))
    served.get("/api/runs")
    for name in ("other", "../secret", str(secret), "run/../../secret", "run/", ""):
        assert "there is no run" in served.get("/api/run", 404, run=name)["error"]
    assert "error" in served.get("/api/curve", 400, run="run")
    assert "error" in served.get("/api/curve", 400, run="run", name="loss", points="many")
    assert served.get("/api/curve", run="run", name="none")["last"] is None
    for body in (b"{}", b"no json", b'{"client":"x","runs":{}}', b"[1]", b"x" * (2 << 20)):
        assert served.request("/api/follow", body).status == 400
    assert served.request("/nowhere").status == 404
    with monkeypatch.context() as patched:
        patched.setattr(
            LiveRun, "facts", Mock(side_effect=PermissionError(13, "Permission denied"))
        )
        error = served.get("/api/run", 404, run="run")["error"]
        assert error == "cannot be read: Permission denied"
    shutil.rmtree(tmp_path / "run")
    assert served.get("/api/run", 404, run="run")["error"]


def test_clients_hear_what_is_new_and_nothing_else(served: Served, tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        recorder.record(0, loss=1.0, lr=0.1)
        assert recorder.flush()
        served.get("/api/runs")
        with served.events("one") as one, served.events("two") as two:
            served.follow("one", run=["loss", "absent"])
            served.follow("two", run=["lr", "note"], unknown=["x"])
            recorder.record(1, loss=math.nan, lr=0.2, note="text")
            assert recorder.flush()
            heard = news(one)
            assert heard["values"] == {"loss": [0, ["nan"]]}
            steps, times = heard["at"][0]["clock"]
            assert steps == [1]
            assert abs(times[0] / 1000 - time.time()) < 60
            assert news(two)["values"] == {"lr": [0, [0.2]]}
            recorder.event("hello")
            assert recorder.flush()
            said = news(one)
            assert (said["said"], said["anew"], said["values"]) == (True, False, {})
            served.follow("two")
            recorder.record(2, loss=3.0)
            assert recorder.flush()
            heard = news(one)
            assert (heard["at"][0]["clock"][0], heard["values"]["loss"]) == ([2], [0, [3.0]])
            recorder.rewind(1)
            assert recorder.flush()
            assert news(one)["anew"]
        until(lambda: not served.page._clients)
        until(lambda: not served.page._followers)


def test_a_run_that_goes_and_one_that_comes_are_told(served: Served, tmp_path: Path) -> None:
    OracleWriter(tmp_path / "run").fill(range(3))
    served.get("/api/runs")
    with served.events("one") as told:
        served.follow("one", run=["loss"])
        shutil.rmtree(tmp_path / "run")
        while not news(told).get("gone"):  # files go before their directory
            pass
        served.follow("one", run=["loss"])
        assert served.page._poll("run", set()) == {"gone": True}
        OracleWriter(tmp_path / "later").fill(range(3))
        while True:
            kind, data = told.get(timeout=20)
            if kind == "runs" and [row["id"] for row in data] == ["later"]:
                break


def test_what_is_wanted_does_not_change_during_a_look(
    served: Served, tmp_path: Path, monkeypatch: Patch
) -> None:
    """Or what the look finds would not be told to who has just asked for it."""
    OracleWriter(tmp_path / "run").fill(range(3))
    served.get("/api/runs")
    begun, go_on = threading.Event(), threading.Event()

    def poll(*_: object) -> dict[str, Any]:
        begun.set()
        assert go_on.wait(20)
        return {}

    with served.events("one"), served.events("two"):
        served.follow("one", run=["loss"])
        monkeypatch.setattr(Follower, "poll", poll)
        assert begun.wait(20)
        thread = threading.Thread(target=served.follow, args=("two",), kwargs={"run": ["loss"]})
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        go_on.set()
        thread.join(20)
        assert not thread.is_alive()


def test_who_falls_behind_begins_anew() -> None:
    client = server.Client()
    for number in range(1001):
        client.tell("news", number)
    assert client.waiting.get_nowait() == b"event: anew\ndata: {}\n\n"
    assert client.waiting.empty()


def test_of_many_new_values_the_extremes_are_told(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(following, "_MOST_NEW", 40)
    writer = OracleWriter(tmp_path).fill(range(3))
    follower = Follower(tmp_path)
    loss, twin = Wanted("loss"), Wanted("twin")
    assert follower.poll([loss]) == {}
    for step in range(3, 1000):
        value = 99.0 if step == 500 else -99.0 if step == 501 else step % 7
        value = math.inf if step == 600 else value
        writer.metrics(step, loss=value, twin=value)
    found = follower.poll([loss, twin])
    place, values = found["values"]["loss"]
    steps, _ = found["at"][place]["clock"]
    assert found["values"]["twin"] == [place, values]
    assert len(steps) <= 41
    assert (steps[0], steps[-1]) == (3, 999)
    assert values[steps.index(500)] == 99.0
    assert values[steps.index(501)] == -99.0
    assert values[steps.index(600)] == "inf"
    for step in range(1000, 1100):
        writer.metrics(step, loss=math.nan)
    assert follower.poll([loss])["values"]["loss"][1] == ["nan"] * 40


def test_system_figures_and_epochs_are_followed(served: Served, tmp_path: Path) -> None:
    """They stand at the steps where the run was; a name that both have is told apart."""
    writer = OracleWriter(tmp_path / "run", tick_s=1.0)
    for step in range(0, 100, 10):
        writer.metrics(step, step // 50, loss=float(step), cpu=1.0, note="text")
        writer.system(cpu=step + 0.5, gpu=2.0, host="node")
    writer.summary(0, loss=-1.0, only=5.0)
    served.get("/api/runs")
    names = [curve["name"] for curve in served.get("/api/names", run="run")["curves"]]
    assert names[-3:] == ["cpu (system)", "gpu", "host"]
    curves = {curve["name"]: curve for curve in served.get("/api/run", run="run")["curves"]}
    stepped = ["loss", "cpu"]
    assert list(curves) == [*stepped, "loss (epoch)", "only (epoch)", "cpu (system)", "gpu"]
    assert curves["cpu (system)"] == {"name": "cpu (system)", "kind": "system", "of": "cpu"}
    asked = {"run": "run", "points": 100}
    found = served.get("/api/curve", name="cpu", kind="system", **asked)
    tens = list(range(0, 100, 10))
    assert decode(found["arrays"]) == [tens, [step + 0.5 for step in tens]]
    steps, times = decode(found["clock"])
    assert steps == tens
    assert (found["reached"], len(times)) == ({"@0": 10}, 10)
    found = served.get("/api/curve", name="cpu", kind="system", first=20, last=45, **asked)
    assert decode(found["arrays"])[0] == [20, 30, 40]
    found = served.get("/api/curve", name="loss", kind="epoch", **asked)
    assert decode(found["arrays"]) == [[90], [-1.0]]
    assert decode(found["clock"])[2] == [0.0]
    found = served.get("/api/curve", name="none", kind="epoch", **asked)
    assert (decode(found["arrays"]), found["last"]) == ([[], []], None)
    assert (
        decode(served.get("/api/clock", run="run", name="loss")["arrays"])[2] == [0] * 5 + [1] * 5
    )
    with served.events("one") as told:
        wanted = [["loss (epoch)", "epoch", "loss"], ["cpu (system)", "system", "cpu"], "loss"]
        served.follow("one", run=wanted)
        writer.system(cpu=7.0)
        heard = news(told)
        assert heard["values"] == {"cpu (system)": [0, [7.0]]}
        assert heard["at"] == [{"clock": [[90], ANY], "numbers": [10], "of": [["@0", 1]]}]
        assert heard["said"]  # a name that it had not heard of
        writer.metrics(100, 2, loss=3.0)
        assert news(told)["at"][0]["clock"] == [[100], ANY, [2.0]]
        writer.system(cpu=8.0)
        heard = news(told)
        assert (heard["at"][0]["clock"][0], heard["said"]) == ([100], False)
        writer.summary(1, loss=-2.0)
        heard = news(told)
        assert heard["values"] == {"loss (epoch)": [0, [-2.0]]}
        assert heard["said"]
        body = b'{"client":"one","runs":{"run":[["a","b","c","d"]]}}'
        assert served.request("/api/follow", body).status == 400
    assert Follower(tmp_path / "run").poll([Wanted("loss")]) == {}


def test_system_figures_alone_are_read_again(tmp_path: Path) -> None:
    """Where no metric says at which step a run is, its figures stand at milliseconds."""
    writer = OracleWriter(tmp_path, tick_s=1.0)
    writer.system(cpu=1.0)
    follower = Follower(tmp_path)
    writer.system(cpu=2.0)
    found = follower.poll([Wanted("cpu", "system", "cpu")])
    assert (found["values"], found["anew"]) == ({}, True)
    run = LiveRun(tmp_path)
    assert decode(run.curve("cpu", 10, None, "system")["arrays"]) == [[0, 1000], [1.0, 2.0]]


def test_clocks_keep_the_longest_pauses(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(live, "_MOST_KNOTS", 16)
    first = OracleWriter(tmp_path, tick_s=1.0).fill(range(333))
    attempt(tmp_path, 1, tick_s=1.0).fill(range(333, 1000))
    first.metrics(-5, loss=1.0)
    steps, _ = decode(LiveRun(tmp_path).clock("loss"))
    assert {-5, 332, 333, 999} <= set(steps)
    assert steps == sorted(steps)
    assert len(steps) < 30
    assert decode(LiveRun(tmp_path).clock("none")) == [[], []]


def test_the_latest_runs_stay_open(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(live, "_MOST_OPEN", 2)
    for name in "abc":
        OracleWriter(tmp_path / name).fill(range(3))
    runs = LiveRuns()
    a, b = runs.get(tmp_path / "a"), runs.get(tmp_path / "b")
    assert runs.get(tmp_path / "a") is a
    runs.get(tmp_path / "c")
    assert runs.get(tmp_path / "a") is a
    assert runs.get(tmp_path / "b") is not b
    runs.forget(tmp_path / "b")
    with pytest.raises(RunNotFoundError):
        runs.get(tmp_path / "none")


def test_facts_see_later_starts(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(5))
    run = LiveRun(tmp_path)
    attempt(tmp_path, 1).fill(range(5, 8), other=1.0)
    assert [curve["name"] for curve in run.names()["curves"]] == ["loss", "other"]
    assert run.facts()["steps"] == [0, 7]
    assert run.curve("other", 10, None)["last"] == 1.0
    OracleWriter(tmp_path / "quiet").log("hello")
    assert LiveRun(tmp_path / "quiet").names()["curves"] == []


def test_the_command_serves_until_ctrl_c(tmp_path: Path, command: Any) -> None:
    """Also while clients listen. A port in use, and what is no directory, is said."""
    OracleWriter(tmp_path / "run").fill(range(3))
    code = TAKES_CTRL_C + "import sys; from foundry_fastlog.cli.main import main; sys.exit(main())"
    arguments = [sys.executable, "-c", code, "ui", str(tmp_path), "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split(": ", 1)[1].strip()
        port, token = int(address.split(":")[2].split("/")[0]), address.split("=")[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        cookie = {"Cookie": f"foundry-fastlog-{port}={token}"}
        connection.request("GET", "/api/events?client=x", headers=cookie)
        response = connection.getresponse()
        assert response.status == 200
        assert f"port {port} is in use" in command("ui", tmp_path, "--port", port, code=2).err
        half = socket.create_connection(("127.0.0.1", port))
        head = f"POST /api/follow HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie['Cookie']}\r\n"
        half.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        again = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        again.request("GET", "/api/runs", headers=cookie)  # it has seen what was sent before
        assert again.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0, said
        assert "Traceback" not in said
        for one in (response, connection, half, again):
            one.close()
    assert "is no directory" in command("ui", tmp_path / "none", code=2).err
    assert "cannot listen on" in command("ui", tmp_path, "--host", "192.0.2.1", code=2).err


def test_the_command_opens_a_browser(tmp_path: Path, command: Any, monkeypatch: Patch) -> None:
    import foundry_fastlog.cli.ui as ui_command

    opened: list[str] = []
    called: list[Any] = []
    monkeypatch.setattr(ui_command.webbrowser, "open", opened.append)
    monkeypatch.setattr(server, "serve", lambda *arguments: called.append(arguments))
    host = "::1" if Path("/proc/net/if_inet6").exists() else "127.0.0.1"
    command(
        "ui",
        tmp_path,
        "--port",
        "0",
        "--open",
        "--host",
        host,
    )
    assert opened[0].startswith("http://")
    assert "/?token=" in opened[0]
    root, _, token, hosts = called[0]
    assert root == tmp_path
    assert token in opened[0]
    assert f"://{hosts[0]}:" in opened[0]


def test_without_uvicorn_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with listen("127.0.0.1", 0) as opened, pytest.raises(ImportError, match=r"fastlog\[ui\]"):
        server.serve(tmp_path, opened, TOKEN)


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_ranks_are_compared_for_a_part_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That reads all timings, and facts are asked for every few seconds."""
    write_ranks(tmp_path / "run", durations(2, 4))
    asked: list[Run] = []

    def slow(run: Run, starts: object) -> dict[str, object]:
        assert starts == "latest"
        asked.append(run)
        time.sleep(0.3)
        return {"sentences": [str(len(asked))]}

    monkeypatch.setattr(live, "rank_map", slow)
    page = LiveRun(tmp_path / "run")
    assert [page.facts()["rank_map"] for _ in range(3)] == [{"sentences": ["1"]}] * 3
    page._ranks = page._ranks[0], 0.0  # seconds later
    assert page.facts()["rank_map"] == {"sentences": ["2"]}


def test_ranks_are_a_heat_map_while_they_record(served: Served, tmp_path: Path) -> None:
    write_ranks(tmp_path / "run", durations(4, 80, slower("data", {2}, 40, factor=3.0)))
    with Browser() as browser:
        browser.driver.get(f"http://127.0.0.1:{served.port}/?token={TOKEN}#tab=ranks")
        browser.wait("return document.querySelector('canvas.ranks')?.height > 60")
        said = browser.ask("return document.querySelector('.said').innerText")
        assert said.startswith("Rank 2 is slow since step 4")
        assert browser.complaints() == []


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_browser_follows_a_run(served: Served, tmp_path: Path) -> None:
    """Its chart grows by what is new alone; a zoom gets finer buckets; a run that goes is told."""
    OracleWriter(tmp_path / "old").fill(range(10), loss=5.0)
    with Recorder(tmp_path / "run") as recorder, Browser() as browser:
        for step in range(20_000):
            recorder.record(step, loss=50.0 if step == 7777 else 1.0)
        assert recorder.flush()
        browser.driver.get(f"http://127.0.0.1:{served.port}/?token={TOKEN}")
        page = "const page = document.getElementById('app').page; "
        chart = page + "const chart = page?.grid.charts.get('loss'); "
        browser.wait(chart + "return chart?.shown.length === 2")
        browser.wait(page + "return page.followed?.run?.length === 1")
        browser.settle()
        shown = browser.ask(
            page + "return page.runs.map(({colour, dash}) => [colour, dash.length])"
        )
        assert len(set(map(tuple, shown))) == 2  # also where both have one colour
        assert "50" in browser.ask("return document.querySelector('.chart .unseen').textContent")
        for step in range(20_000, 20_050):
            recorder.record(step, loss=9.0)
        assert recorder.flush()
        own = chart + "const own = chart.shown.find(({run}) => run.id === 'run'); "
        browser.wait(own + "return own.view.steps.last[own.view.mean.length - 1] === 20049")
        assert browser.ask(own + "return own.view.curve.entry.last") == 9.0
        assert browser.ask(own + "return chart.rangeX[1]") == 20_049
        browser.ask(page + "page.settings.set({zoom: '7700:7800'})")
        browser.wait(own + "return own.fine?.curve.single")
        found = browser.ask(
            own + "const at = own.fine.steps.first.indexOf(7777); return own.fine.y.first[at]"
        )
        assert found == 50.0
        recorder.event("boom", error=ValueError("bad"), step=19_999)
        assert recorder.flush()
        browser.wait("return document.querySelector('.badge').textContent === '1'")
        assert browser.ask(chart + "return chart.lines()") == [[19_999, "ValueError"]]
        browser.ask(page + "page.settings.set({tab: 'about', run: 'run'})")
        browser.wait("return document.querySelector('main').innerText.includes('running')")
        assert browser.complaints() == []
        browser.ask("document.querySelector('.filter').focus()")
        browser.type("last.loss < 6")
        browser.wait("return document.querySelectorAll('.runs tbody tr').length === 1")
        browser.type(" and")
        browser.wait("return !document.querySelector('.wrong').hidden")
        browser.type("\ue003" * 20)  # backspace
        browser.wait("return document.querySelectorAll('.runs tbody tr').length === 2")
        assert all("400" in one for one in browser.complaints())
        served.page._runs.get = Mock(side_effect=PermissionError(13, "Permission denied"))
        browser.ask(
            page + "page.settings.set({tab: 'charts', zoom: ''}); page.source.forget('run')"
        )
        browser.ask(chart + "chart.mount()")
        browser.wait(chart + "return chart.note.textContent.includes('run: cannot be read')")
        shutil.rmtree(tmp_path / "old")
        browser.wait("return document.querySelectorAll('.runs tbody tr').length === 1")
        browser.wait("return document.querySelector('.notice').innerText.includes('old is gone')")
        OracleWriter(tmp_path / "old").fill(range(10), loss=5.0)
        browser.wait("return document.querySelector('.notice').hidden")
        browser.wait(page + "return !page.runs.find((run) => run.id === 'old').hidden")


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_browser_follows_ranks_epochs_and_figures(served: Served, tmp_path: Path) -> None:
    """What a rank that is behind says of a step widens its band; nothing is read again."""
    ranks = [OracleWriter(tmp_path / "run", rank=rank, tick_s=0.5) for rank in range(2)]
    write_run_json(tmp_path / "run", name="run", attempts=1)
    for step in range(10):
        for rank, writer in enumerate(ranks):
            writer.metrics(step, step / 10, loss=1.0 + rank)
    ranks[0].system(cpu=50.0)
    with Browser() as browser:
        browser.driver.get(f"http://127.0.0.1:{served.port}/?token={TOKEN}")
        page = "const page = document.getElementById('app').page; "
        chart = page + "const of = (name) => page?.grid.charts.get(name)?.shown[0]?.view; "
        browser.wait(page + "return page?.followed?.run?.length === 2")
        browser.settle()
        browser.wait(page + "return page.runs[0].metrics.length === 2")
        asked = (
            "return performance.getEntriesByType('resource')"
            ".filter(({name}) => name.includes('/api/curve')).length"
        )
        before = browser.ask(asked)
        for step in range(10, 15):
            ranks[0].metrics(step, step / 10, loss=1.0)
        ranks[0].system(cpu=70.0)
        last = (
            chart
            + "const view = of(arguments[0]); "
            + "return view && [view.steps.last, view.y.low, view.y.high].map((one) => one.at(-1))"
        )
        browser.until(lambda: browser.ask(last, "loss") == [14, 1, 1])
        for step in range(10, 14):
            ranks[1].metrics(step, step / 10, loss=2.0)
        ranks[1].metrics(14, 1.4, loss=5.0)
        browser.until(lambda: browser.ask(last, "loss") == [14, 1, 5])
        assert browser.ask(chart + "return Array.from(of('loss').y.high)") == [2.0] * 14 + [5.0]
        assert browser.ask(chart + "return Array.from(of('loss').steps.first)") == list(range(15))
        assert browser.ask(last, "cpu") == [14, 70, 70]
        assert browser.ask(asked) == before
        browser.ask(page + "page.settings.set({x: 'epoch'})")
        browser.settle()
        found = browser.ask(chart + "return Array.from(of('loss').x.first)")
        assert found == pytest.approx([step / 10 for step in range(15)])
        ranks[0].summary(1, loss=-3.0)
        browser.ask(page + "page.settings.set({x: 'step'})")
        browser.until(lambda: browser.ask(last, "loss (epoch)") == [14, -3, -3])
        groups = browser.ask(
            "return [...document.querySelectorAll('.group')].map((one) => one.innerText)"
        )
        assert [group.split()[1] for group in groups] == ["metrics", "epochs", "system"]
        assert browser.complaints() == []
