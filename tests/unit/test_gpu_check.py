"""`make gpu-check` without a GPU: its runner, its table, its judgement, and its rehearsal."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.check import __main__ as command
from benchmarks.gpu.check import build, gpu_tests, judge, report, runner, table
from benchmarks.gpu.check.runner import Part

ROOT = Path(__file__).parents[2]
GOOD = {"name": "it", "verdict": "ok", "expects": "it", "shows": "7 us", "why": "", "figures": {}}
WRITE = f"import sys; out = open(sys.argv[1], 'a'); out.write({json.dumps(GOOD)!r} + chr(10)); "
WRITE += "out.flush(); "
# Parts by what they do; all but the first are broken, and keep what they had found before.
PARTS = {
    "fine": (WRITE, "ok", ""),
    "hangs": (WRITE + "import time; time.sleep(600)", "broken", "it took more than"),
    "deaf": (
        WRITE + "import signal, time; signal.signal(signal.SIGABRT, signal.SIG_IGN); "
        "time.sleep(600)",
        "broken",
        "it took more than",
    ),
    "crashes": (
        WRITE + "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "broken",
        "killed by SIGSEGV",
    ),
    "fails": (WRITE + "print('the reason'); sys.exit(3)", "broken", "exit status 3"),
    "garbage": (
        WRITE + "out.write('\\x00{nonsense\\n[1]\\n{\"name\": 1}\\n'); out.close(); "
        "sys.stdout.buffer.write(bytes(range(256)) * 500)",
        "broken",
        "3 lines of its findings are garbage",
    ),
    "silent": ("pass", "broken", "it found nothing"),
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What is reported of each of the parts."""
    monkeypatch.setattr(runner, "STACKS_S", 0.2)
    parts = [
        Part(name, (sys.executable, "-c", code), 1.5 if name in ("hangs", "deaf") else 30.0, 0.0)
        for name, (code, _, _) in PARTS.items()
    ]
    parts.append(Part("absent", (str(tmp_path / "no such program"),), 5.0, 0.0))
    found: list[dict[str, Any]] = []
    runner.run_all(parts, tmp_path, 120.0, os.environ, tmp_path, found.append)
    assert [each["part"] for each in found] == [*PARTS, "absent"]
    return {each["part"]: each for each in found}


def test_each_part_is_reported_whatever_becomes_of_it(
    results: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Verdict, reason and what it had found; table and JSON are whole."""
    for name, (code, verdict, why) in PARTS.items():
        assert results[name]["verdict"] == verdict, name
        assert why in results[name]["why"], name
        assert results[name]["findings"] == ([GOOD] if WRITE in code else []), name
    assert "could not be started" in results["absent"]["why"]
    assert results["fails"]["output"] == "the reason\n"
    assert len(results["garbage"]["output"]) <= runner.TAIL
    text = table.table(list(results.values()), "heading")
    for part in results.values():
        assert f"{part['part']:<11} {part['verdict']:<11}" in text
    table.write(tmp_path / "out.json", {"parts": list(results.values()), "x": math.nan})
    assert json.loads((tmp_path / "out.json").read_text())["parts"][0]["verdict"] == "ok"
    assert [path.name for path in tmp_path.glob("out*")] == ["out.json"]


def test_a_part_takes_along_what_it_has_started(tmp_path: Path) -> None:
    """A child of a part that hangs, or is left behind, is ended with it."""
    code = WRITE + (
        "import subprocess; child = subprocess.Popen([sys.executable, '-c', 'import time; "
        "time.sleep(600)']); print(child.pid)"
    )
    part = Part("parent", (sys.executable, "-c", code), 30.0)
    found = runner.run_part(part, tmp_path, 30.0, os.environ, tmp_path)
    assert found["verdict"] == "ok"
    stat = Path(f"/proc/{int(found['output'])}/stat")
    deadline = time.monotonic() + 20
    # Gone, or dead and not yet collected by whoever adopts it.
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_parts_have_the_time_that_is_left_and_what_is_kept_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None takes what later ones need; one for which nothing is left says so."""
    limits: dict[str, float] = {}

    def run_part(part: Part, _: Path, limit_s: float, *__: Any) -> dict[str, Any]:
        limits[part.name] = limit_s
        return {}

    parts = [Part("a", (), 300.0), Part("b", (), 50.0, 20.0), Part("c", (), 200.0, 60.0)]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_part", run_part)
        runner.run_all(parts, tmp_path, 100.0, {}, tmp_path, lambda _: None)
    assert limits == pytest.approx({"a": 20.0, "b": 40.0, "c": 100.0}, abs=2.0)
    left = runner.run_part(parts[0], tmp_path, -1.0, {}, tmp_path)
    assert (left["verdict"], left["why"]) == ("broken", "no time was left for it")


@pytest.mark.parametrize(
    ("verdict", "gpu", "status"),
    [
        ("ok", None, 0),
        ("falls short", None, 0),  # of the fake driver: no figure of a GPU
        ("broken", None, 1),
        ("ok", "a card", 0),
        ("falls short", "a card", 1),
        ("broken", "a card", 1),
    ],
)
def test_the_command_reports_and_ends_with_what_it_found(
    verdict: str, gpu: str | None, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three files in OUT; a rehearsal fails only where something is broken."""
    machine = {**GOOD, "name": "machine", "verdict": verdict}
    machine["figures"] = {"gpu": gpu, "torch": "2.13", "why_none": "torch sees none"}
    code = f"import sys; open(sys.argv[1], 'w').write({json.dumps(machine)!r} + chr(10))"
    part = Part("machine", (sys.executable, "-c", code), 30.0)
    monkeypatch.setattr(command, "parts", lambda: (part,))
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    assert command.main([]) == status
    found = json.loads((tmp_path / "out" / "gpu-check.json").read_text())
    assert found["machine"] == machine["figures"]
    assert found["parts"][0]["verdict"] == verdict
    text = (tmp_path / "out" / "gpu-check.txt").read_text()
    assert text.startswith("GPU check: a card" if gpu else "REHEARSAL, no GPU (torch sees none)")
    assert f"==== machine: {verdict}" in (tmp_path / "out" / "gpu-check.log").read_text()


def test_findings_are_lines_that_strict_json_has(tmp_path: Path) -> None:
    """A raise is a finding; times of a rehearsal are not judged; the worst verdict stands."""
    path = tmp_path / "findings.jsonl"
    found = report.Report(path, rehearsal=True)
    found.judge("a", "", expects="x", nan=math.nan, path=path)
    found.judge("b", "wrong", expects="x")
    found.judge_times("c", "slow", expects="x", ms=3.0)
    with found.attempt("d", expects="x"):
        raise KeyError("gone")
    report.Report(path).judge_times("e", "slow", expects="x")
    lines, garbage = report.read(path)
    assert garbage == 0
    verdicts = [line["verdict"] for line in lines]
    assert verdicts == ["ok", "falls short", "needs a GPU", "broken", "falls short"]
    assert lines[0]["figures"] == {"nan": "nan", "path": str(path)}
    assert lines[3]["why"] == "KeyError: 'gone'"
    assert report.worst(verdicts) == "broken"
    assert report.worst(["ok", "needs a GPU"]) == "needs a GPU"
    assert report.worst([]) == "broken"


def test_the_build_is_current_until_a_source_is_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that a compiler did not finish, or that is older than a header, is built again."""
    monkeypatch.setattr(build, "ROOT", tmp_path)
    header, made = tmp_path / "csrc" / "core" / "a.hpp", tmp_path / "made.o"
    header.parent.mkdir(parents=True)
    header.touch()
    os.utime(header, (1000, 1000))
    assert not build.is_current(made)
    compiler = [sys.executable, "-c", "import sys; open(sys.argv[2], 'w').close(); "]
    with pytest.raises(RuntimeError, match="the compiler failed"):
        build.made([*compiler[:2], compiler[2] + "sys.exit('the reason')"], made)
    assert not build.is_current(made)
    build.made(compiler, made)
    assert build.is_current(made)
    os.utime(header, (2**32, 2**32))
    assert not build.is_current(made)


# ---- judgement -----------------------------------------------------------------------------------

NS = {"get current": 20.0, "is capturing": 90.0, "copy": 3000.0, "event record": 900.0}
ROW = {"call": "copy", "mode": "relaxed", "code": 0, "valid": True}
LINE = {"step": 0, "metrics": {"v": 1.0}}
GONE = {"step": 0, "metrics": {"v": None}, "missing": {"v": "no_slot"}}
LANES = {"record": {"gap_ms": 30.0, "blocked": True}, "add": {"gap_ms": 10.0, "blocked": True}}
TORN = {"device_duration_s": None, "missing": {"device_duration_s": "driver_error_600"}}
NAMED = {"device_duration_s": None, "missing": {"device_duration_s": "other_stream"}}
JUDGED = [
    (judge.driver_floor(NS), ""),
    (judge.driver_floor({**NS, "copy": 15_000.0}), "not under 50 us"),
    (judge.behind_kernel({"copy": 0.1}, {"copy": True}), ""),
    (judge.behind_kernel({"copy": 0.1}, {"copy": False}), "waited: copy"),
    (judge.behind_kernel({"copy": 900.0}, {"copy": True}), "waited: copy"),
    (judge.relaxed_matrix([ROW, {**ROW, "code": 600}]), ""),
    (judge.relaxed_matrix([{**ROW, "code": 900}]), "copy: code 900"),
    (judge.relaxed_matrix([{**ROW, "valid": False}]), "capture ended"),
    (judge.relaxed_matrix([{**ROW, "mode": "default", "code": 900}]), ""),
    (judge.heartbeat(LANES), ""),
    (judge.heartbeat({**LANES, "record": {"gap_ms": 1900.0, "blocked": True}}), "1900 ms"),
    (judge.heartbeat({**LANES, "record": {"gap_ms": 3.0, "blocked": False}}), "never full"),
    (judge.values([LINE], {0: 1.0}, "v"), ""),
    (judge.values([GONE], {0: 1.0}, "v"), ""),
    (judge.values([LINE], {0: 2.0}, "v"), "the device had 2.0"),
    (judge.values([{"step": 0, "metrics": {"v": None}}], {0: 2.0}, "v"), "has None"),
    (judge.values([LINE], {1: 1.0}, "v"), "step 1 is not in the file"),
    (judge.block({"device_duration_s": 0.1}), ""),
    (judge.block({"device_duration_s": -0.1}), "negative"),
    (judge.block(NAMED), ""),
    (judge.block(TORN), "driver_error_600"),
    (judge.block({}), "neither"),
    (judge.ended(0, 2.0, 5.0), ""),
    (judge.ended(-11, 2.0, 5.0), "-11"),
    (judge.ended(0, 6.0, 5.0), "6.0 s"),
    (judge.tests({"a": "passed", "b": "skipped"}), ""),
    (judge.tests({"a": "skipped"}), "no test passed"),
    (judge.tests({"x/a": "passed", "x/b": "hung"}), "1 of 2: b (hung)"),
]


@pytest.mark.parametrize(("why", "said"), JUDGED)
def test_figures_are_judged(why: str, said: str) -> None:
    """Nothing is said of what is as it should be, and what is wrong is named."""
    assert (said in why) if said else (why == "")


def test_the_default_mode_is_told_and_whether_sending_needs_the_relaxed_one() -> None:
    """Calls that are refused there, or that end the capture; a copy among them is what counts."""
    rows = [{**ROW, "mode": "default", "code": 900}, {**ROW, "call": "event query", "valid": False}]
    refused = judge.default_matrix([*rows, {**rows[1], "mode": "default"}])
    assert refused == ["copy 900", "event query 0 (ends the capture)"]
    assert judge.needs_relaxed(refused)
    assert not judge.needs_relaxed(refused[1:])
    assert judge.missing([LINE, GONE]) == {"no_slot": 1}


# ---- tests of tests/gpu, and the rehearsal -------------------------------------------------------


def test_a_test_that_hangs_or_crashes_costs_its_own_outcome_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others run in a fresh process; each test runs once."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_some.py").write_text(
        "import os, signal, time\n"
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): time.sleep(600)\n"
        "def test_c(): assert 1 == 2\n"
        "def test_d(): os.kill(os.getpid(), signal.SIGKILL)\n"
        "def test_e(): pytest.skip('why not')\n"
        "def test_f(): pass\n"
    )
    monkeypatch.setenv("GPU_CHECK_TEST_LIMIT_S", "2")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found = gpu_tests.run_tests(folder, tmp_path / "log.jsonl")
    outcomes = {name.rpartition("::test_")[2]: outcome for name, outcome in found.items()}
    assert outcomes == {
        "a": "passed",
        "b": "hung",
        "c": "failed",
        "d": "killed by SIGKILL",
        "e": "skipped",
        "f": "passed",
    }
    assert "3 of 6" in judge.tests(found)
    begun = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(line["outcome"] == "begun" for line in begun) == len(found)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the fake driver runs on Linux only")
def test_experiments_are_rehearsed_on_the_fake_driver(tmp_path: Path) -> None:
    """Values and codes are judged there; the set-up is not repeated."""
    pytest.importorskip("torch")
    names = ["basics", "captures"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.check", "--out", tmp_path, "--only", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu-check.json").read_text())
    assert [part["part"] for part in found["parts"]] == names
    verdicts = {
        each["name"]: each["verdict"] for part in found["parts"] for each in part["findings"]
    }
    judged = {"driver table", "one scalar", "matrix", "record beside a capture"}
    assert {verdicts[name] for name in judged} == {"ok"}
