"""The parts of `make gpu-check`: what each must have seen, and what it says where it has not."""

from __future__ import annotations

import json
import sys
import types
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from recorded import run_python

from benchmarks.gpu import __main__ as benchmark
from benchmarks.gpu.check import bench, ends, gpu_tests, judge, lifetimes, lives, prepare, timers
from benchmarks.gpu.check.report import Report, read

ROOT = Path(__file__).parents[2]
Patch = pytest.MonkeyPatch

# A driver that fails: no part passes by seeing nothing.
FAILING = """
import sys
from importlib import import_module
from pathlib import Path
from benchmarks.gpu.check.machines import Fake
from benchmarks.gpu.check.report import Report
name, call, path = sys.argv[1:]
part = import_module(f"benchmarks.gpu.check.{name}")
fake = Fake()
part.find = lambda: fake
if call:
    fake.driver.fail(call, 400, -1)
part.run(Report(Path(path)))
"""
BLIND = [
    ("basics", "cuMemcpyDtoHAsync_v2", ["one scalar"]),
    ("micro", "cuMemcpyDtoHAsync_v2", ["nothing queued"]),
    ("captures", "cuMemcpyDtoHAsync_v2", ["matrix", "record during a capture"]),
    ("heartbeat", "cuMemcpyDtoHAsync_v2", ["values"]),
    ("heartbeat", "cuMemHostAlloc", ["values"]),
    ("nosync", "cuMemcpyDtoHAsync_v2", ["by time"]),
    ("nosync", "cuMemHostAlloc", ["by time"]),
    ("timers", "cuEventRecord", ["one stream", "begins late", "ends late"]),
    ("timers", "cuEventElapsedTime", ["one stream", "begins late", "ends late"]),
]


@pytest.mark.skipif(sys.platform != "linux", reason="the fake driver runs on Linux only")
@pytest.mark.parametrize(("part", "call", "findings"), BLIND)
def test_a_part_whose_driver_refuses_a_call_falls_short(
    part: str, call: str, findings: list[str], tmp_path: Path
) -> None:
    """Values that did not arrive, and blocks without a time, are no success."""
    path = tmp_path / "found"
    run_python(FAILING, part, call, path)
    found = {each["name"]: each for each in read(path)[0]}
    for name in findings:
        assert found[name]["verdict"] in ("falls short", "broken"), found[name]


NS = {"get current": 20.0, "is capturing": 90.0, "copy": 3000.0, "event record": 900.0}
ROW = {"call": "copy", "mode": "relaxed", "code": 0, "valid": True}
CONTROL = {"call": "copy", "mode": "default", "code": 900, "valid": False}
LINE = {"step": 0, "metrics": {"v": 1.0, "w": 1.0}}
GONE = {"step": 0, "metrics": {"v": None, "w": 1.0}, "missing": {"v": "no_slot"}}
LANES = {"record": {"gap_ms": 30.0, "blocked": True}, "add": {"gap_ms": 10.0, "blocked": True}}
TORN = {"device_duration_s": None, "missing": {"device_duration_s": "driver_error_600"}}
LATE = {"device_duration_s": None, "missing": {"device_duration_s": "unordered"}}
REUSED = {"steps": 8, "control": 8, "reused": 0, "busy": 8}
GIVEN = {"control": 2 << 20, "small": 0, "large": 254 << 20, "size": 256 << 20}
GIVEN |= {"busy": True, "works": True}
SAID = judge.STARTED + "\n========= ERROR SUMMARY: 0 errors\n"
WRONG = "========= Invalid __global__ read of size 4\n========= ERROR SUMMARY: 2 errors\n"
LEFT = [
    {"step": 0, "metrics": {"v": 1.5}},
    {"step": 1, "metrics": {"v": None, "lr": 0.1}, "missing": {"v": "timeout"}},
]
NINE = {"one stream": {"device_duration_s": 9.0}}
JUDGED = [
    (judge.driver_floor(NS), ""),
    (judge.driver_floor({**NS, "copy": 15_000.0}), "not under 50 us"),
    (judge.behind_kernel({"copy": 0.1}, {"copy": True}), ""),
    (judge.behind_kernel({"copy": 0.1}, {"copy": False}), "waited: copy"),
    (judge.behind_kernel({"copy": 900.0}, {"copy": True}), "waited: copy"),
    (judge.allocation(0.1, busy=True, kernel_ms=1000.0)[1], ""),
    (judge.allocation(990.0, busy=False, kernel_ms=1000.0)[1], ""),
    (judge.allocation(0.1, busy=False, kernel_ms=1000.0)[1], "nothing is known"),
    (judge.kernel(0.1, 0.11), ""),
    (judge.kernel(0.1, 0.0), "a kernel of 100 ms ran 0.0 ms"),
    (judge.relaxed_matrix([CONTROL, {**ROW, "code": 600}], 1), ""),
    (judge.relaxed_matrix([CONTROL, {**ROW, "code": 900}], 1), "copy: code 900"),
    (judge.relaxed_matrix([CONTROL, {**ROW, "valid": False}], 1), "capture ended"),
    (judge.relaxed_matrix([CONTROL], 1), "1 and 0 calls were made"),
    (judge.relaxed_matrix([{**ROW, "mode": "default"}, ROW], 1), "refuses nothing"),
    (judge.heartbeat(LANES), ""),
    (judge.heartbeat({**LANES, "record": {"gap_ms": 1900.0, "blocked": True}}), "1900 ms"),
    (judge.heartbeat({**LANES, "record": {"gap_ms": 3.0, "blocked": False}}), "never full"),
    (judge.values([LINE], {0: 1.0}, "vw"), ""),
    (judge.values([GONE], {0: 1.0}, "w"), ""),
    (judge.values([GONE], {0: 1.0}, "wv"), "v of step 0 is the first: {'no_slot': 1}"),
    (judge.values([LINE], {0: 2.0}, "v"), "the device had 2.0"),
    (judge.values([{"step": 0, "metrics": {"v": None}}], {0: 2.0}, "v"), "has None"),
    (judge.values([LINE], {1: 1.0}, "v"), "step 1 is not in the file"),
    (judge.block({"device_duration_s": 0.1}, 0.05, 0.2), ""),
    (judge.block({"device_duration_s": 0.0}, 0.05), "0.000000 s, not 0.05 to inf s"),
    (judge.block({"device_duration_s": 0.3}, 0.05, 0.2), "not 0.05 to 0.2 s"),
    (judge.block(TORN, 0.05), "no time: driver_error_600"),
    (judge.block({}, 0.05), "neither"),
    (judge.unordered(LATE), ""),
    (judge.unordered(TORN), "'driver_error_600', not 'unordered'"),
    (judge.unordered({"device_duration_s": 0.1}), "it has a time"),
    (timers.judged(NINE, rehearsal=True)["one stream"][1], ""),
    (timers.judged(NINE, rehearsal=False)["one stream"][1], "9.000000 s, not"),
    (judge.reused(REUSED), ""),
    (judge.reused({**REUSED, "control": 0}), "nothing was tested"),
    (judge.reused({**REUSED, "busy": 3}), "in only 3 of 8 steps"),
    (judge.unmapped(GIVEN), ""),
    (judge.unmapped({**GIVEN, "control": 0}), "nothing was tested"),
    (judge.unmapped({**GIVEN, "large": 0}), "nothing was tested"),
    (judge.unmapped({**GIVEN, "busy": False}), "no copy of a small value was in flight"),
    (judge.unmapped({**GIVEN, "small": 1}), "1 bytes of a small value were returned before"),
    (judge.unmapped({**GIVEN, "works": False}), "no longer works"),
    (judge.ended(0, 2.0, 5.0), ""),
    (judge.ended(-11, 2.0, 5.0), "-11"),
    (judge.ended(0, 6.0, 5.0), "6.0 s"),
    (judge.ended(None, 5.0, 5.0), "5.0 s"),
    (ends.busy_exit(LEFT), ""),
    (ends.busy_exit(LEFT[1:]), "step 0 is not in the file"),
    (ends.busy_exit(LEFT[:1]), "no line"),
    (ends.busy_exit([LEFT[0], {**LEFT[1], "missing": {"v": "no_slot"}}]), "not by timeout"),
    (judge.sanitized(0, SAID, 70.0), "ok"),
    (judge.sanitized(99, judge.STARTED + "\n" + WRONG, 70.0), "falls short: 2 errors: ====="),
    (judge.sanitized(None, WRONG, 70.0), "falls short: 2 errors"),
    (judge.sanitized(99, "", 70.0), "falls short: 0 errors: see its output"),
    (judge.sanitized(1, SAID, 70.0), "falls short: it ended with 1"),
    (judge.sanitized(None, "", 70.0), "not judged: torch did not start within 70 s"),
    (judge.sanitized(None, judge.STARTED, 70.0), "not judged: the records did not end"),
    (judge.sanitized(0, "========= ERROR SUMMARY: 0 errors", 70.0), "did not check it"),
    (judge.sanitized(255, "no injection library", 70.0), "255: no injection library"),
    (judge.test("passed", ""), "ok"),
    (judge.test("skipped", "Skipped: needs two GPUs"), "not judged: Skipped: needs two GPUs"),
    (judge.test("skipped", "needs an NVIDIA GPU"), "falls short: skipped: needs an NVIDIA GPU"),
    (judge.test("hung", "hung"), "falls short: hung"),
    (judge.test("skipped", "this profiler proves nothing: x"), "falls short: skipped: this prof"),
    (judge.tests({"a": "passed", "b": "skipped"}), ""),
    (judge.tests({"a": "skipped"}), "no test passed"),
    (judge.tests({}), "no test passed"),
    (judge.tests({"x/a": "passed", "x/b": "collected"}), "1 of 2 were not run: b"),
]


@pytest.mark.parametrize(("why", "said"), JUDGED)
def test_figures_are_judged(why: str | tuple[str, str], said: str) -> None:
    """Nothing is said of what is as it should be; what is wrong, or was not seen, is named."""
    text = why if isinstance(why, str) else ": ".join(filter(None, why))
    assert (said in text) if said and said != "ok" else (text == said)


def test_the_default_mode_is_told_and_whether_sending_needs_the_relaxed_one() -> None:
    """Calls that are refused there, or that end the capture; a copy among them is what counts."""
    rows = [{**ROW, "mode": "default", "code": 900}, {**ROW, "call": "event query", "valid": False}]
    refused = judge.default_matrix([*rows, {**rows[1], "mode": "default"}])
    assert refused == ["copy 900", "event query 0 (ends the capture)"]
    assert judge.needs_relaxed(refused)
    assert not judge.needs_relaxed(refused[1:])
    assert judge.missing([LINE, GONE]) == {"no_slot": 1}


@pytest.mark.parametrize(("elements", "kept"), [(lives.SMALL, False), (lives.LARGE, True)])
def test_a_large_value_of_another_stream_is_kept_as_the_guide_asks(
    elements: int, kept: bool, monkeypatch: Patch
) -> None:
    """`record_stream()` before it goes, for storages over 4 KiB; none for those kept by itself."""
    calls: list[str] = []

    class Block:
        __getitem__ = staticmethod(lambda _: "value")
        element_size = staticmethod(lambda: 4)
        record_stream = staticmethod(lambda _: calls.append("record_stream"))

    stream = types.SimpleNamespace(wait_stream=lambda _: None)
    reserved = iter([2 << 20, 0])
    cuda = types.SimpleNamespace(
        empty_cache=lambda: calls.append("empty_cache"),
        stream=lambda _: nullcontext(),
        current_stream=lambda: stream,
        memory_reserved=lambda: next(reserved),
    )
    torch = types.SimpleNamespace(cuda=cuda, full=lambda *_, **__: Block())
    monkeypatch.setitem(sys.modules, "torch", torch)
    machine: Any = types.SimpleNamespace(keep_busy=lambda _: calls.append("busy"), busy=bool)
    recorder: Any = types.SimpleNamespace(record=lambda *_, **__: calls.append("record"))
    assert lives.given_back(machine, None, elements, 0, recorder) == (2 << 20, False)
    asked = ["record_stream"] if kept else []
    assert calls == ["empty_cache", "busy", "record", *asked, "empty_cache"]


def test_lifetimes_say_what_they_must_have_shown(tmp_path: Path, monkeypatch: Patch) -> None:
    """Right values alone prove nothing where the memory was never used again."""
    lines = [{"step": step, "metrics": {"v": step + 0.5}} for step in range(8)]
    said = [{**REUSED, "control": 0}, {**GIVEN, "expandable": False}]
    ended = [lives.Ended(0, 1.0, "a warning\n" + json.dumps(each)) for each in said]
    monkeypatch.setattr(lifetimes, "live", lambda *_: ended.pop(0))
    monkeypatch.setattr(lifetimes, "read_lines", lambda _: lines)
    lifetimes.run(Report(tmp_path / "found"))
    found, _ = read(tmp_path / "found")
    assert [each["verdict"] for each in found] == ["falls short", "not judged"]
    assert lives.Ended(0, 1.0, "no facts\n").facts() == {}


def test_the_sanitizer_looks_at_memory_and_has_its_time(tmp_path: Path) -> None:
    """Failed calls of the API are no errors of memory; one that never starts is ended and told."""
    command = " ".join(ends.memcheck("tool"))
    assert "--tool memcheck --report-api-errors no --error-exitcode 99" in command
    ended = lives.live("twenty_records", tmp_path, 0.2, {}, "sh", "-c", "echo it; exec sleep 600")
    assert (ended.status, ended.output) == (None, "it\n")


def test_what_a_benchmark_knew_when_cut_off_is_judged(tmp_path: Path, monkeypatch: Patch) -> None:
    """It keeps its figures after each measure; goals are told, and that it was cut off."""
    ratio = {"record": {"median": 1.5, "low": 1.4, "high": 1.6}}
    scalars = iter([{"gpu": {"name": "a card"}, "counts": {"4": {"ratio": ratio}}}])
    monkeypatch.setattr(benchmark, "spawn", lambda *_, **__: next(scalars))

    def cut_off(command: list[str]) -> str:
        with pytest.raises(StopIteration):
            benchmark.main(command[command.index("benchmarks.gpu") + 1 :])
        return "cut off"

    monkeypatch.setattr(bench, "run_benchmark", cut_off)
    monkeypatch.setenv("GPU_CHECK_OUT", str(tmp_path))
    bench.run(Report(tmp_path / "found"))
    found = {each["name"]: each for each in read(tmp_path / "found")[0]}
    assert (found["benchmark"]["verdict"], found["benchmark"]["why"]) == ("broken", "cut off")
    assert found["benchmark"]["figures"]["result"]["gpu"] == {"name": "a card"}
    met = found["4 device scalars in at most 2x the four bare copies"]
    assert (met["verdict"], met["shows"]) == ("ok", "1.50x (1.40 - 1.60)")
    assert found["0 synchronisations a step"]["why"] == "not judged: not profiled"
    assert [path.name for path in (tmp_path / "bench").iterdir()] == ["partial.json"]


def wheel(folder: Path, tag: str, content: str) -> None:
    name = "fastlog_wheel_test"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as file:
        file.writestr(f"{name}.py", content)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")


def test_wheels_that_fit_bring_what_is_missing(tmp_path: Path, monkeypatch: Patch) -> None:
    """Those of another Python are left; pip's words are told; none where nothing is missing."""
    pytest.importorskip("pip")
    folder, site, path = tmp_path / "wheels", tmp_path / "site", tmp_path / "found"
    folder.mkdir()
    wheel(folder, "cp27-cp27m-win32", "raise SystemExit")
    monkeypatch.setattr(prepare, "FROM_WHEELS", ("fastlog_wheel_test",))
    prepare.install_wheels(Report(path), folder, site)
    wheel(folder, "py3-none-any", "VALUE = 7")
    prepare.install_wheels(Report(path), folder, site)
    assert "VALUE = 7" in (site / "fastlog_wheel_test.py").read_text()
    monkeypatch.setattr(prepare, "FROM_WHEELS", ("json",))
    prepare.install_wheels(Report(path), tmp_path / "absent", site)
    found, _ = read(path)
    assert [each["verdict"] for each in found] == ["broken", "ok", "ok"]
    assert "No matching distribution found for fastlog_wheel_test" in found[0]["why"]
    assert found[2]["shows"] == "nothing was missing"


PREAMBLE = "import os, signal, time\nimport pytest\n"


def reported(folder: Path, seconds: float) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Run a folder's tests: their outcomes at the end, and as they were reported."""

    def short(name: str) -> str:
        return name.rpartition("::test_")[2].rpartition("/")[2]

    told: list[tuple[str, str]] = []
    tell = lambda test, outcome, _: told.append((short(test), outcome))  # noqa: E731 - short
    found = gpu_tests.run_tests(folder, folder.parent / "log.jsonl", tell, seconds)
    return {short(name): outcome for name, outcome in found.items()}, told


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "tests").mkdir()
    return tmp_path / "tests"


def test_a_test_that_hangs_or_crashes_costs_only_its_own(folder: Path, monkeypatch: Patch) -> None:
    (folder / "test_none.py").write_text("import fastlog_no_such_module\n")
    (folder / "test_some.py").write_text(
        PREAMBLE
        + "def test_a(): pass\ndef test_b(): time.sleep(600)\ndef test_c(): assert 1 == 2\n"
        "def test_d(): os.kill(os.getpid(), signal.SIGKILL)\n"
        "def test_e(): pytest.skip('why not')\n"
        "@pytest.fixture\ndef hangs():\n    yield\n    time.sleep(600)\n"
        "def test_f(hangs): pass\ndef test_g(): pass\n"
    )
    monkeypatch.setattr(gpu_tests, "TEST_S", 2.0)
    found, told = reported(folder, 120.0)
    outcomes = ["passed", "hung", "failed", "killed by SIGKILL", "skipped", "hung", "passed"]
    assert found == {"test_none.py": "failed", **dict(zip("abcdefg", outcomes, strict=True))}
    assert told == list(found.items())
    assert judge.tests(found) == ""


def test_what_had_run_is_known_when_the_time_is_up(folder: Path) -> None:
    """The test under way is cut off, and those behind it were not run."""
    (folder / "test_some.py").write_text(
        PREAMBLE + "def test_a(): pass\ndef test_b(): time.sleep(600)\ndef test_c(): pass\n"
    )
    found, told = reported(folder, 6.0)
    cut = "cut off: the part's time was up"
    assert found == {"a": "passed", "b": cut, "c": "collected"}
    assert told == [("a", "passed"), ("b", cut)]
    assert judge.tests(found) == "1 of 3 were not run: c"
