"""The GPU benchmark without a GPU: its smoke mode, its judgement, its counting of waits."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("torch")

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import goals, page, plot
from benchmarks.gpu.arms import ARMS, check_rows
from benchmarks.gpu.bare import BareCopies
from benchmarks.gpu.ratios import ratio
from benchmarks.gpu.syncs import WINDOW, copies_to_host, waits, within
from benchmarks.peers.base import VerificationError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a smoke run with every arm."""
    out = tmp_path_factory.mktemp("smoke")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not judged" in done.stdout
    return out


@pytest.fixture
def result(smoke: Path) -> dict[str, Any]:
    """The smoke run's result."""
    found: dict[str, Any] = json.loads((smoke / "smoke-no-gpu.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_a_smoke_run_writes_three_files_that_say_so(smoke: Path, result: dict[str, Any]) -> None:
    """JSON, page and plot, all labelled; every goal is left unjudged."""
    names = sorted(path.name for path in smoke.iterdir())
    assert names == ["smoke-no-gpu.json", "smoke-no-gpu.md", "smoke-no-gpu.svg"]
    assert result["smoke"] is True
    assert result["gpu"]["name"] == "smoke, no GPU"
    assert [each["met"] for each in result["goals"]] == [None] * 4
    text = (smoke / "smoke-no-gpu.md").read_text(encoding="utf-8")
    assert text.startswith("# Device scalars: smoke, no GPU\n\n**Smoke, no GPU.**")
    assert "](smoke-no-gpu.svg)" in text


@pytest.mark.slow
def test_a_smoke_run_measures_and_verifies_every_arm(result: dict[str, Any]) -> None:
    """Every arm was verified, or says why it cannot run here."""
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
def test_the_plot_is_well_formed_and_shows_every_arm(smoke: Path, result: dict[str, Any]) -> None:
    """The SVG parses; each measured arm and each way to read a value is drawn."""
    drawing = ET.fromstring((smoke / "smoke-no-gpu.svg").read_text(encoding="utf-8"))
    namespace = "{http://www.w3.org/2000/svg}"
    assert drawing.tag == f"{namespace}svg"
    texts = [element.text for element in drawing.iter(f"{namespace}text")]
    for name in (*plot.NAMES.values(), *(name for name, _ in plot.LANES.values())):
        assert name in texts
    colors = [element.get("fill") for element in drawing.iter(f"{namespace}circle")]
    for arm, color in plot.COLORS.items():
        assert colors.count(color) >= 1 + (arm in result["training"][0]["arms"])
    assert len(list(drawing.iter(f"{namespace}polyline"))) == len(plot.LANES)


@pytest.mark.slow
def test_page_and_plot_are_rendered_again_from_the_result(smoke: Path, tmp_path: Path) -> None:
    """`--render` gives the same bytes."""
    for path in smoke.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        assert command.main(["--render", str(tmp_path / path.name)]) == 0
    for path in smoke.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_goals_are_judged_on_a_gpu(result: dict[str, Any]) -> None:
    """With figures of a GPU each goal is met, or missed by what it names."""
    result["smoke"] = False
    (section,) = result["training"]
    arms = section["arms"]
    even = {"low": 0.999, "median": 1.0, "high": 1.001}
    arms["none_again"]["throughput"] = arms["fastlog"]["throughput"] = even
    arms["none"]["step_ms"]["median"] = 5.0
    arms["fastlog"]["call_us"]["median"] = 20.0
    result["scalars"]["counts"]["4"]["ratio"]["record"] = {"low": 1.4, "median": 1.5, "high": 1.6}
    assert [each["met"] for each in goals.judge(result)] == [True] * 4

    def judged(change: Callable[[dict[str, Any]], None]) -> list[bool | None]:
        other = copy.deepcopy(result)
        change(other)
        page.render({**other, "goals": goals.judge(other)}, "plot.svg")
        return [each["met"] for each in goals.judge(other)]

    def fastlog(other: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = other["training"][0]["arms"]["fastlog"]
        return found

    assert judged(lambda r: fastlog(r)["profile"].update(waits_per_step=0.1)).index(False) == 0
    ratios = {"low": 2.0, "median": 2.1, "high": 2.2}
    assert (
        judged(lambda r: r["scalars"]["counts"]["4"]["ratio"].update(record=ratios)).index(False)
        == 1
    )
    assert judged(lambda r: fastlog(r)["call_us"].update(median=60.0)).index(False) == 2
    slow = {"low": 0.95, "median": 0.96, "high": 0.97}
    assert judged(lambda r: fastlog(r).update(throughput=slow)).index(False) == 3


def test_a_smoke_run_is_refused_where_results_are(capsys: pytest.CaptureFixture[str]) -> None:
    """No smoke figure gets into benchmarks/results."""
    with pytest.raises(SystemExit):
        command.main(["--device", "cpu", "--out", str(ROOT / "benchmarks" / "results")])
    assert "a smoke run is no result" in capsys.readouterr().err


def test_arms_that_the_goals_need_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Leaving out no logging is refused at once, not after minutes."""
    with pytest.raises(SystemExit):
        command.main(["--device", "cpu", "--arms", "fastlog"])
    assert "--arms needs none" in capsys.readouterr().err


def test_without_a_gpu_the_benchmark_says_what_to_do() -> None:
    """`python -m benchmarks.gpu` on a machine without a GPU names the smoke mode."""
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
    """Another value, a step too few, out of place, or too many."""
    check_rows([(0, (1.0,)), (1, (2.0,))], [(1.0,), (2.0,)])
    with pytest.raises(VerificationError, match=message):
        check_rows(found, [(1.0,), (2.0,)])


def test_the_bare_copies_are_timed_and_bring_the_values(tmp_path: Path) -> None:
    """The C helper compiles, and copies what the pointers point at, in order."""
    import numpy as np

    values = np.arange(8, dtype=np.float32)
    bare = BareCopies(tmp_path, driver=False)
    pointers = [values.ctypes.data + 4 * i for i in range(len(values))]
    assert bare.time(pointers, 4, 0, steps=10) > 0
    assert bare.last_floats(8) == values.tolist()


def event(category: str, name: str, ts: float = 5.0, dur: float = 1.0) -> dict[str, Any]:
    """An event as torch.profiler writes it."""
    return {"ph": "X", "cat": category, "name": name, "ts": ts, "dur": dur}


def test_waits_are_counted_once_and_inside_the_window_only() -> None:
    """A wait that shows as call and as record counts once; before and after counts nothing."""
    events = within(
        [
            event("user_annotation", WINDOW, ts=2.0, dur=10.0),
            event("gpu_user_annotation", WINDOW, ts=100.0, dur=10.0),
            event("cuda_runtime", "cudaDeviceSynchronize", ts=1.0),
            event("cuda_runtime", "cudaLaunchKernel"),
            event("cuda_runtime", "cudaMemcpyAsync"),
            event("cuda_runtime", "cudaStreamSynchronize"),
            event("cuda_sync", "Stream Sync"),
            event("cuda_sync", "Stream Wait Event"),
            event("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)"),
            event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)"),
            event("cuda_runtime", "cudaDeviceSynchronize", ts=13.0),
            {"ph": "M", "name": "process_name"},
        ]
    )
    assert waits(events) == {"cudaStreamSynchronize": 1}
    assert copies_to_host(events) == {"Memcpy DtoH (Device -> Pinned)": 1}


def test_a_wait_without_a_traced_call_counts() -> None:
    """A driver call that the profiler does not trace shows in its synchronization records."""
    events = [event("cuda_runtime", "cudaLaunchKernel"), event("cuda_sync", "Event Sync")]
    assert waits(events) == {"Event Sync": 1}


def test_ratios_are_of_pairs() -> None:
    """The median of the ratios of rounds, not the ratio of medians."""
    found = ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0])
    assert found == {"median": 2.0, "low": 2.0, "high": 2.0}
