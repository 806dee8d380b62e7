"""The GPU benchmark without a GPU: its smoke mode, its judgement, its counting of waits."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("torch")

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import goals, plot
from benchmarks.gpu.arms import ARMS, check_rows
from benchmarks.gpu.bare import BareCopies
from benchmarks.gpu.clock import settled_rate
from benchmarks.gpu.ratios import ratio
from benchmarks.gpu.syncs import CONTROL, WINDOW, copies_to_host, read, waits
from benchmarks.peers.base import VerificationError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("smoke")
    arguments = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--out", str(out)]
    done = subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not judged" in done.stdout
    return out


@pytest.fixture
def result(smoke: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((smoke / "smoke-no-gpu.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_a_smoke_run_says_so_and_verifies_every_arm(smoke: Path, result: dict[str, Any]) -> None:
    """JSON, page and plot, all labelled; every goal is left unjudged."""
    names = sorted(path.name for path in smoke.iterdir())
    assert names == ["smoke-no-gpu.json", "smoke-no-gpu.md", "smoke-no-gpu.svg"]
    assert (result["smoke"], result["gpu"]["name"]) == (True, "smoke, no GPU")
    assert [each["met"] for each in result["goals"]] == [None] * 5
    text = (smoke / "smoke-no-gpu.md").read_text(encoding="utf-8")
    assert text.startswith("# Device scalars: smoke, no GPU\n\n**Smoke, no GPU.**")
    assert "](smoke-no-gpu.svg)" in text
    (section,) = result["training"]
    assert set(section["arms"]) | set(section["unavailable"]) == set(ARMS)
    assert {"none", "none_again", "fastlog", "fastlog_item"} <= set(section["arms"])
    for name, arm in section["arms"].items():
        assert arm["step_ms"]["median"] > 0
        low, median, high = (arm["throughput"][key] for key in ("low", "median", "high"))
        assert low <= median <= high
        assert arm["profile"]["waits_per_step"] == 0  # nothing to wait for on a CPU
        assert (arm["verified"] > 0) is (name != "none")
    for found in result["scalars"]["counts"].values():
        assert set(found["ns"]) == {"record", "bare", "to", "item"}
        assert found["verified"] > 0


@pytest.mark.slow
def test_page_and_plot_are_rendered_again_from_the_result(
    smoke: Path, result: dict[str, Any], tmp_path: Path
) -> None:
    """The plot is well formed and shows every arm."""
    for path in smoke.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        assert command.main(["--render", str(tmp_path / path.name)]) == 0
    for path in smoke.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    drawing = ET.fromstring((smoke / "smoke-no-gpu.svg").read_text(encoding="utf-8"))
    namespace = "{http://www.w3.org/2000/svg}"
    assert drawing.tag == f"{namespace}svg"
    texts = {element.text for element in drawing.iter(f"{namespace}text")}
    assert texts >= {*plot.NAMES.values(), *(name for name, _ in plot.LANES.values())}
    colors = [element.get("fill") for element in drawing.iter(f"{namespace}circle")]
    for arm, color in plot.COLORS.items():
        assert colors.count(color) >= 1 + (arm in result["training"][0]["arms"])
    assert len(list(drawing.iter(f"{namespace}polyline"))) == len(plot.LANES)


def middle(median: float, spread: float = 0.001) -> dict[str, float]:
    return {"low": median - spread, "median": median, "high": median + spread}


def measured() -> dict[str, Any]:
    """Figures of a GPU that meet every goal."""

    def arm(idle_us: float, call_us: float, waits_per_step: float, copies: int) -> dict[str, Any]:
        profile = {
            "steps": 10,
            "waits_per_step": waits_per_step,
            "copies_to_host": {PINNED: copies} if copies else {},
            "seen": {"cuStreamSynchronize": True, "cuMemcpyDtoH_v2": True},
        }
        calls = {"call_us": middle(call_us), "idle_call_us": middle(idle_us), "profile": profile}
        return {"throughput": middle(1.0), "step_ms": {"median": 5.0}, **calls}

    arms = {
        "none": arm(0.1, 0.1, 0.0, 0),
        "none_again": arm(0.1, 0.1, 0.0, 0),
        "bare": arm(8.0, 400.0, 0.0, 40),
        "fastlog": arm(12.0, 420.0, 0.0, 40),
        "fastlog_item": arm(30.0, 4000.0, 4.0, 0),
    }
    scalars = {"counts": {"4": {"ratio": {"record": middle(1.5)}}}}
    section = {"wanted_ms": 5.0, "arms": arms}
    return {"smoke": False, "scalars": scalars, "training": [section]}


def of_ours(**figures: Any) -> Callable[[dict[str, Any]], None]:
    return lambda arms: arms["fastlog"].update(figures)


def profiled(arm: str = "fastlog", **figures: Any) -> Callable[[dict[str, Any]], None]:
    return lambda arms: arms[arm]["profile"].update(figures)


UNSEEN = {"cuStreamSynchronize": False, "cuMemcpyDtoH_v2": True}
PINNED = "Memcpy DtoH (Device -> Pinned)"
GOALS = ["waits", "ratio", "idle", "loop", "throughput"]
CHANGES: dict[str, tuple[str, bool | None, Callable[[dict[str, Any]], Any]]] = {
    "a wait": ("waits", False, profiled(waits_per_step=0.1)),
    "a control that is not seen": ("waits", None, profiled(seen=UNSEEN)),
    "no controls": ("waits", None, profiled(seen={})),
    "no waits of .item()": ("waits", None, profiled("fastlog_item", waits_per_step=3.0)),
    "no .item() lane": ("waits", None, lambda arms: arms.pop("fastlog_item")),
    "a copy too few": ("waits", False, profiled(copies_to_host={PINNED: 39})),
    "pageable": ("waits", False, profiled(copies_to_host={PINNED: 40, "DtoH -> Pageable": 1})),
    "a slow call": ("idle", False, of_ours(idle_call_us=middle(60.0))),
    "slow in the loop": ("loop", False, of_ours(call_us=middle(460.0))),
    "no bare copies": ("loop", None, lambda arms: arms.pop("bare")),
    "throughput": ("throughput", False, of_ours(throughput=middle(0.96, 0.01))),
}


@pytest.mark.parametrize("change", [*CHANGES, "a slow call beside bare copies"])
def test_goals_are_judged_on_a_gpu(change: str) -> None:
    """Each goal is met, missed by what it names, or not judged where nothing can be said."""
    result = measured()
    assert [each["met"] for each in goals.judge(result)] == [True] * len(GOALS)
    name, met, alter = CHANGES.get(change, ("ratio", False, lambda arms: None))
    alter(result["training"][0]["arms"])
    if change not in CHANGES:  # the only goal that the training has no part in
        result["scalars"]["counts"]["4"]["ratio"]["record"] = middle(2.1)
    found = dict(zip(GOALS, (each["met"] for each in goals.judge(result)), strict=True))
    assert found == {**dict.fromkeys(GOALS, True), name: met}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", str(ROOT / "benchmarks" / "results")], "a smoke run is no result"),
        (["--arms", "fastlog"], "--arms needs none"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, not after minutes; no smoke figure gets into benchmarks/results."""
    with pytest.raises(SystemExit):
        command.main(["--device", "cpu", *options])
    assert message in capsys.readouterr().err


def test_without_a_gpu_the_benchmark_says_what_to_do() -> None:
    import torch

    from benchmarks.gpu.target import Target

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="`--device cpu` runs the smoke mode"):
        Target("cuda")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([(0, (1.0,)), (1, (2.5,))], "the device had"),
        ([(0, (1.0,))], "1 of 2 steps"),
        ([(0, (1.0,)), (2, (2.0,))], "step 2"),
        ([(0, (1.0,)), (1, (2.0,)), (2, (3.0,))], "line 2"),
    ],
)
def test_a_wrong_output_fails_the_benchmark(found: Any, message: str) -> None:
    check_rows([(0, (1.0,)), (1, (2.0,))], [(1.0,), (2.0,)])
    with pytest.raises(VerificationError, match=message):
        check_rows(found, [(1.0,), (2.0,)])


def test_a_wandb_file_is_read_once_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service may write after finish(): without its exit, or torn, it is read again."""
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    from benchmarks.peers import wandb_offline

    def chunk(record: Any) -> bytes:
        payload: bytes = record.SerializeToString()
        return struct.pack("<IHB", 0, len(payload), wandb_offline.FULL) + payload

    history = chunk(proto.Record(history=proto.HistoryRecord()))
    end = chunk(proto.Record(exit=proto.RunExitRecord()))
    path = tmp_path / "run.wandb"
    states = [b":W&B\0\0\0" + text for text in (history, history + end[:3], history + end)]
    path.write_bytes(states.pop(0))
    late = lambda _: path.write_bytes(states.pop(0))  # noqa: E731 - short
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=late)
    monkeypatch.setattr(wandb_offline, "time", clock)
    assert wandb_offline.finished(path).endswith(end)
    assert states == []
    path.write_bytes(b":W&B\0\0\0" + history)
    assert wandb_offline.finished(path, timeout_s=-1.0).endswith(history)


def test_the_bare_copies_are_timed_and_bring_the_values(tmp_path: Path) -> None:
    """The C helper compiles, and copies what the pointers point at, in order."""
    import numpy as np

    values = np.arange(8, dtype=np.float32)
    bare = BareCopies(tmp_path, driver=False)
    pointers = [values.ctypes.data + 4 * i for i in range(len(values))]
    assert bare.time(pointers, [4] * 8, 0, steps=10) > 0
    assert bare.last_floats(8) == values.tolist()


def event(category: str, name: str, ts: float = 5.0, dur: float = 1.0) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": ts, "dur": dur}


def test_waits_are_counted_once_and_inside_the_window_only() -> None:
    """A wait that shows as call and as record counts once; before and after counts nothing."""
    events = [
        event("user_annotation", WINDOW, ts=2.0, dur=10.0),
        event("gpu_user_annotation", WINDOW, ts=100.0, dur=10.0),
        event("cuda_runtime", "cudaDeviceSynchronize", ts=1.0),
        event("cuda_runtime", "cudaLaunchKernel"),
        event("cuda_runtime", "cudaMemcpyAsync"),
        event("cuda_runtime", "cudaStreamSynchronize"),
        event("cuda_sync", "Stream Sync"),
        event("cuda_sync", "Stream Wait Event"),
        event("gpu_memcpy", PINNED),
        event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)"),
        event("cuda_runtime", "cudaDeviceSynchronize", ts=13.0),
        {"ph": "M", "name": "process_name"},
    ]
    traced = read(events)
    assert waits(traced.events) == {"cudaStreamSynchronize": 1}
    assert copies_to_host(traced.events) == {PINNED: 1}
    assert traced.seen == {}
    # A driver call that is not traced shows in its synchronization records.
    events = [event("cuda_runtime", "cudaLaunchKernel"), event("cuda_sync", "Event Sync")]
    assert waits(events) == {"Event Sync": 1}
    with pytest.raises(ValueError, match="no window"):
        read([])


def test_controls_are_seen_only_in_their_own_place() -> None:
    """A copy that the device makes after the window counts; those of the controls do not."""
    first, second = CONTROL + "cuStreamSynchronize", CONTROL + "cuMemcpyDtoH_v2"
    events = [
        event("user_annotation", WINDOW, ts=0.0, dur=10.0),
        event("gpu_memcpy", PINNED, ts=15.0),
        event("cuda_sync", "Context Sync", ts=16.0),
        event("user_annotation", first, ts=20.0, dur=5.0),
        event("user_annotation", second, ts=30.0, dur=5.0),
        event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", ts=32.0),
    ]
    traced = read(events)
    assert copies_to_host(traced.events) == {PINNED: 1}
    assert waits(traced.events) == {}
    assert traced.seen == {"cuStreamSynchronize": False, "cuMemcpyDtoH_v2": True}
    seen = read([*events, event("cuda_sync", "Stream Sync", ts=22.0)]).seen
    assert seen == {"cuStreamSynchronize": True, "cuMemcpyDtoH_v2": True}


@pytest.mark.parametrize(
    ("hertz", "expected"),
    [
        (lambda at: 2e9, 2e9),
        (lambda at: 345e6 if at < 0.4 else 1980e6, 1980e6),  # wakes up under load
        (lambda at: min(1980e6, 345e6 + at * 400e6), 1980e6),  # ramps up for four seconds
        (lambda at: 1e9 if int(at * 10) % 2 else 2e9, 2e9),  # never settles: the fastest
    ],
)
def test_the_clock_is_believed_when_it_has_settled(
    hertz: Callable[[float], float], expected: float
) -> None:
    """At least half a second, and two runs in a row that agree."""
    now, runs = 0.0, []

    def run(cycles: int) -> float:
        nonlocal now
        seconds = cycles / hertz(now)
        now += seconds
        runs.append(seconds)
        return seconds

    assert settled_rate(run) == pytest.approx(expected, rel=0.25)
    assert 0.5 <= now <= 8.0
    assert len(runs) >= 2


def test_ratios_are_of_pairs() -> None:
    """The median of the ratios of rounds, not the ratio of medians."""
    found = ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0])
    assert found == {"median": 2.0, "low": 2.0, "high": 2.0}
