"""Measure the report and the live page in headless Chromium: `python -m benchmarks.pages`.

Writes results/pages.json and its table. What a browser shows is compared with what was recorded.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import math
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from benchmarks.machine import ROOT
from benchmarks.quiet import Patience
from benchmarks.tables import machine, publish, table
from foundry_fastlog import Recorder, write_report

sys.path.insert(0, str(ROOT / "tests"))
from browser import Browser

METRICS = 8
SPIKE = 333_333
CHART = (
    "const page = document.getElementById('app').page; const chart = page?.grid.charts.get('m0'); "
)
HZ = 100
"""Records a second of the run that is followed."""
MANY_CLIENTS = 20
MANY_CHARTS = 50


def record(path: Path, steps: int) -> None:
    """Record a run whose values are as hard to compress as losses are, with one spike."""
    chance = random.Random(1)
    spike = SPIKE * steps // 1_000_000
    with Recorder(path, overhead_budget=1.0) as recorder:  # it does nothing else
        for step in range(steps):
            base = 2 / (1 + step / 1e4)
            values = {f"m{n}": base + chance.gauss(0, 0.1) for n in range(METRICS)}
            if step == spike:
                values["m0"] = 50.0
            recorder.record_dict(step, values)


def check_spike(browser: Browser, steps: int) -> None:
    """The spike is in what the chart has, with its step."""
    found = browser.ask(
        CHART + "const {view} = chart.shown[0]; const at = view.y.high.indexOf(50);"
        "return [view.steps.high[at], view.y.high[at]]"
    )
    assert found == [SPIKE * steps // 1_000_000, 50.0], found


def moment(browser: Browser, name: str) -> float:
    """Return when something happened, in seconds after the page was asked for."""
    script = "return performance.getEntriesByName(arguments[0])[0].startTime / 1000"
    return float(browser.ask(script, name))


def measure_report(folder: Path, steps: int, rounds: int, patience: Patience) -> dict[str, Any]:
    """Write and open a report."""
    page = folder / "report.html"
    write, paint, ready = [], [], []
    for _ in range(rounds):
        patience.wait()
        begun = time.perf_counter()
        done = write_report(folder / "run", page)
        write.append(time.perf_counter() - begun)
    with Browser() as browser:
        browser.open(page)  # starts what a browser starts once
        for _ in range(rounds):
            patience.wait()
            browser.open(page)
            check_spike(browser, steps)
            paint.append(moment(browser, "first-contentful-paint"))
            ready.append(moment(browser, "ready"))
    return {
        "steps": steps,
        "bytes": done.bytes,
        "write_s": median(write),
        "paint_s": median(paint),
        "ready_s": median(ready),
    }


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int]]:
    """Run `foundry-fastlog ui` on a directory; give its address and process id."""
    command = [sys.executable, "-m", "foundry_fastlog", "ui", str(folder), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http\S+", process.stdout.readline())
        assert found is not None
        try:
            yield found[0], process.pid
        finally:
            process.terminate()


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def measure_zoom(browser: Browser, steps: int, count: int) -> list[float]:
    """Zoom to random windows, and return the seconds until finer buckets are painted."""
    chance = random.Random(2)
    taken = []
    for _ in range(count):
        width = int(10 ** chance.uniform(2.5, math.log10(steps) - 0.5))
        first = chance.randrange(steps - width)
        taken.append(
            browser.ask(
                CHART
                + f"""
                const begun = performance.now();
                page.settings.set({{zoom: "{first}:{first + width}"}});
                const look = () => {{
                  if (!chart.shown[0].fine) return setTimeout(look, 2);
                  requestAnimationFrame(() => done((performance.now() - begun) / 1000));
                }};
                look();""",
                later=True,
            )
        )
    return taken


def measure_live(folder: Path, steps: int, seconds: float, patience: Patience) -> dict[str, Any]:
    """Open the live page on a large run, zoom in it, and follow a run that is being recorded."""
    patience.wait()
    result: dict[str, Any] = {"steps": steps, "runs": len(list(folder.iterdir()))}
    with serving(folder) as (address, pid), Browser() as browser:
        begun = time.perf_counter()
        browser.driver.get(f"{address}#show=run")
        browser.wait(CHART + "return chart?.shown.length === 1", timeout=120)
        result["first_s"] = time.perf_counter() - begun
        browser.driver.get("about:blank")
        browser.driver.get(address.split("?")[0] + "#show=run")
        browser.wait(CHART + "return chart?.shown.length === 1", timeout=120)
        browser.settle()
        result["paint_s"] = moment(browser, "first-contentful-paint")
        result["drawn_s"] = moment(browser, "drawn")
        check_spike(browser, steps)
        zooms = measure_zoom(browser, steps, 60)
        result["zoom_p50_s"], result["zoom_p99_s"] = median(zooms), quantiles(zooms, n=100)[98]
        browser.driver.get("about:blank")
        before, idle_from = cpu_seconds(pid), time.perf_counter()
        time.sleep(seconds)
        result["cpu_idle"] = (cpu_seconds(pid) - before) / (time.perf_counter() - idle_from)
        with Recorder(folder / "live", flush_interval_s=0.1) as recorder:
            recorder.record_dict(0, {f"m{n}": 0.0 for n in range(METRICS)})
            recorder.flush()
            browser.driver.get(address.split("?")[0] + "#show=live")
            browser.wait(CHART + "return page?.followed?.live?.length === 8", timeout=60)
            browser.driver.get_log("performance")
            before, begun = cpu_seconds(pid), time.perf_counter()
            step = 0
            while time.perf_counter() - begun < seconds:
                step += 1
                recorder.record_dict(
                    step, {f"m{n}": math.sin(step / 50 + n) for n in range(METRICS)}
                )
                time.sleep(1 / HZ)
            result["cpu_following"] = (cpu_seconds(pid) - before) / (time.perf_counter() - begun)
            recorder.flush()
            browser.wait(CHART + f"return chart.shown[0].view.steps.last.at(-1) === {step}")
            sizes = received(browser)
            result["updates"], result["update_bytes"] = len(sizes), median(sizes)
            result["records"] = step
    return result


def follow_many(address: str, run: str, count: int) -> list[socket.socket]:
    """Let clients without a browser follow all curves of a run; return their streams."""
    where = urlsplit(address)
    cookie = f"foundry-fastlog-{where.port}={parse_qs(where.query)['token'][0]}"
    names = [f"m{n}" for n in range(METRICS)]
    streams = []
    listing = http.client.HTTPConnection(where.netloc, timeout=60)
    listing.request("GET", "/api/runs", headers={"Cookie": cookie})
    assert run in {row["id"] for row in orjson.loads(listing.getresponse().read())}
    for number in range(count):
        stream = socket.create_connection(("127.0.0.1", where.port or 0), timeout=60)
        head = f"GET /api/events?client={number} HTTP/1.1\r\nHost: {where.netloc}\r\n"
        stream.sendall(f"{head}Cookie: {cookie}\r\n\r\n".encode())
        head_and_hello = b""
        while not head_and_hello.endswith(b"{}\n\n"):
            head_and_hello += stream.recv(1)
        streams.append(stream)
        body = orjson.dumps({"client": str(number), "runs": {run: names}})
        asked = http.client.HTTPConnection(where.netloc, timeout=60)
        asked.request("POST", "/api/follow", body, {"Cookie": cookie})
        assert asked.getresponse().status == 200
    return streams


def heard_of(stream: socket.socket, step: int) -> int:
    """Read a stream of events until a step is told; return how many bytes were told before."""
    told = b""
    wanted = (f",{step}]".encode(), f"[{step}]".encode())  # the end of an update's steps
    while not any(one in told[-(1 << 18) :] for one in wanted):
        part = stream.recv(1 << 16)
        assert part, "the stream has ended"
        told += part
    return len(told)


def measure_many(folder: Path, seconds: float) -> dict[str, Any]:
    """Let many clients follow a run that is being recorded."""
    with (
        serving(folder) as (address, pid),
        Recorder(folder / "many", flush_interval_s=0.1) as recorder,
    ):
        recorder.record_dict(0, {f"m{n}": 0.0 for n in range(METRICS)})
        recorder.flush()
        streams = follow_many(address, "many", MANY_CLIENTS)
        before, begun, step = cpu_seconds(pid), time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            step += 1
            recorder.record_dict(step, {f"m{n}": math.sin(step / 50 + n) for n in range(METRICS)})
            time.sleep(1 / HZ)
        used = (cpu_seconds(pid) - before) / (time.perf_counter() - begun)
        recorder.flush()
        sizes = {heard_of(stream, step) for stream in streams}
        assert max(sizes) > 0
        for stream in streams:
            stream.close()
    return {"clients": MANY_CLIENTS, "cpu": used}


def measure_frames(folder: Path, seconds: float) -> dict[str, Any]:
    """Count the frames of a page in which many charts, all of them in view, follow a run."""
    with (
        serving(folder) as (address, _),
        Recorder(folder / "charts", flush_interval_s=0.1) as recorder,
        Browser(1440, 900) as browser,
    ):
        values = [f"m{n}" for n in range(MANY_CHARTS)]
        for step in range(2000):
            recorder.record_dict(step, {name: math.sin(step / 50) for name in values})
        recorder.flush()
        browser.driver.get(f"{address}#show=charts")
        browser.resize(1440, 300 * MANY_CHARTS // 3 + 400)
        browser.wait(f"{CHART} return page?.grid.seen.size === {MANY_CHARTS}", timeout=120)
        browser.wait(f"{CHART} return page?.followed?.charts?.length === {MANY_CHARTS}", timeout=60)
        browser.settle()
        browser.ask(
            "window.frames_ = [];"
            "const look = (at) => { window.frames_.push(at); requestAnimationFrame(look); };"
            "requestAnimationFrame(look);"
        )
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            step += 1
            recorder.record_dict(step, {name: math.sin(step / 50) for name in values})
            time.sleep(1 / HZ)
        frames = browser.ask("return window.frames_.splice(0)")
        recorder.flush()
        browser.wait(
            f"{CHART} return [...page.grid.charts.values()].every((one) => "
            f"one.shown[0].view.steps.last.at(-1) === {step})"
        )
    gaps = [(later - earlier) / 1e3 for earlier, later in itertools.pairwise(frames)]
    return {
        "charts": MANY_CHARTS,
        "frames": len(gaps) / (frames[-1] - frames[0]) * 1e3,
        "gap_p50_s": median(gaps),
        "gap_p99_s": quantiles(gaps, n=100)[98],
    }


def received(browser: Browser) -> list[int]:
    """Return the bytes of the parts of event streams that have arrived."""
    import json

    found = []
    for entry in browser.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.eventSourceMessageReceived":
            data = message["params"]
            if data["eventName"] == "news":
                found.append(len(data["data"]) + len("event: news\ndata: \n\n"))
    return found


def render(result: dict[str, Any]) -> str:
    """Return the table."""
    report, live = result["report"], result["live"]
    many, frames = result["many"], result["frames"]
    rows = [
        [
            f"report, {report['steps']:,} steps x {METRICS} metrics: its size",
            f"{report['bytes'] / 1e6:.1f} MB",
            "6 MB",
        ],
        ["- written in", f"{report['write_s']:.1f} s", ""],
        ["- opened: first paint", f"{report['paint_s'] * 1e3:.0f} ms", ""],
        ["- opened: all charts in view drawn", f"{report['ready_s'] * 1e3:.0f} ms", "1 s"],
        [
            f"live page, {live['runs']:,} runs, one of {live['steps'] * METRICS:,} values: first",
            f"{live['first_s']:.1f} s",
            "",
        ],
        ["- opened again: first paint", f"{live['paint_s'] * 1e3:.0f} ms", ""],
        ["- opened again: first chart drawn", f"{live['drawn_s'] * 1e3:.0f} ms", ""],
        [
            "- zoom until finer buckets are painted, p50 (80 ms of it wait for the next move)",
            f"{live['zoom_p50_s'] * 1e3:.0f} ms",
            "",
        ],
        ["- zoom, p99", f"{live['zoom_p99_s'] * 1e3:.0f} ms", ""],
        ["- processor time of the server without clients", f"{live['cpu_idle']:.1%}", ""],
        [
            f"- with one that follows {METRICS} curves of {HZ} records/s",
            f"{live['cpu_following']:.1%}",
            "",
        ],
        [
            f"- an update of it ({live['records'] / max(1, live['updates']):.0f} records)",
            f"{live['update_bytes']:,.0f} bytes",
            "",
        ],
        [
            f"- processor time of the server with {many['clients']} that follow these",
            f"{many['cpu']:.1%}",
            "",
        ],
        ["- of it for each client", f"{many['cpu'] / many['clients']:.2%}", ""],
        [
            f"{frames['charts']} charts in view that follow {HZ} records/s: frames a second",
            f"{frames['frames']:.0f}",
            "60",
        ],
        ["- between two frames, p50", f"{frames['gap_p50_s'] * 1e3:.0f} ms", ""],
        ["- between two frames, p99", f"{frames['gap_p99_s'] * 1e3:.0f} ms", ""],
    ]
    return f"{machine(result)} {result['browser']}.\n\n{table(['what', 'median', 'goal'], rows)}"


def main() -> None:
    """Measure, and write result and table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the report's run")
    parser.add_argument("--live-steps", type=int, default=1_250_000, help="of the live page's")
    parser.add_argument("--runs", type=int, default=1000, help="beside the large one")
    parser.add_argument("--seconds", type=float, default=15.0, help="to follow a run")
    parser.add_argument("--patience", type=float, default=300.0, metavar="S")
    options = parser.parse_args()
    patience = Patience(options.patience)
    version = subprocess.run(["chromium", "--version"], capture_output=True, text=True, check=True)
    folder = Path(tempfile.mkdtemp(prefix="fastlog-pages-"))
    try:
        record(folder / "report" / "run", options.steps)
        report = measure_report(folder / "report", options.steps, options.rounds, patience)
        for number in range(options.runs):
            with Recorder(folder / "live" / f"small-{number:04}", ring="memory") as recorder:
                recorder.record(0, m0=float(number))
        record(folder / "live" / "run", options.live_steps)
        live = measure_live(folder / "live", options.live_steps, options.seconds, patience)
        patience.wait()
        many = measure_many(folder / "live", options.seconds)
        patience.wait()
        frames = measure_frames(folder / "live", options.seconds)
    finally:
        shutil.rmtree(folder)
    result = {
        "machine": patience.conditions(),
        "browser": version.stdout.strip(),
        "report": report,
        "live": live,
        "many": many,
        "frames": frames,
    }
    publish("pages", result, render(result))


if __name__ == "__main__":
    main()
