"""`make gpu-check` without a GPU: its runner, its table, its judgement, and its rehearsal."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from recorded import eventually

from benchmarks.gpu.check import __main__ as command
from benchmarks.gpu.check import build, child, files, machine, machines, report, runner, table
from benchmarks.gpu.check.runner import Part, Runner

ROOT = Path(__file__).parents[2]
Patch = pytest.MonkeyPatch
GOOD = {"name": "it", "verdict": "ok", "expects": "it", "shows": "7 us", "why": "", "figures": {}}
WRITE = f"import sys; out = open(sys.argv[1], 'a'); out.write({json.dumps(GOOD)!r} + chr(10)); "
WRITE += "out.flush(); "
SLEEPS = "import time; time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGABRT, signal.SIG_IGN); "
GARBAGE = "out.write('\\x00{nonsense\\n[1]\\n{\"name\": 1}\\n'); out.close(); "
GARBAGE += "sys.stdout.buffer.write(bytes(range(256)) * 500)"
# Parts by what they do; all but the first are broken, and keep what they had found before.
PARTS = {
    "fine": (WRITE, "ok", ""),
    "hangs": (WRITE + SLEEPS, "broken", "it took more than"),
    "deaf": (WRITE + DEAF + SLEEPS, "broken", "it took more than"),
    "crashes": (WRITE + "import os; os.kill(os.getpid(), 11)", "broken", "killed by SIGSEGV"),
    "fails": (WRITE + "print('the reason'); sys.exit(3)", "broken", "exit status 3"),
    "garbage": (WRITE + GARBAGE, "broken", "3 lines of its findings are garbage"),
    "silent": ("pass", "broken", "it found nothing"),
}


def python(name: str, code: str, limit_s: float = 30.0, *least_s: float) -> Part:
    return Part(name, (sys.executable, "-c", code), limit_s, *least_s)


def test_each_part_is_reported_whatever_becomes_of_it(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(runner, "STACKS_S", 0.2)
    limits = {"hangs": 1.5, "deaf": 1.5}
    parts = [python(name, PARTS[name][0], limits.get(name, 30.0), 0.0) for name in PARTS]
    parts.append(Part("absent", (str(tmp_path / "no such program"),), 5.0, 0.0))
    found: list[dict[str, Any]] = []
    Runner(tmp_path, os.environ, tmp_path).run_all(parts, 120.0, found.append)
    assert [each["part"] for each in found] == [*PARTS, "absent"]
    results = {each["part"]: each for each in found}
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


CHILD = "import subprocess; child = subprocess.Popen([sys.executable, '-c', "
CHILD += f"{SLEEPS!r}]); "


def test_a_part_takes_along_what_it_has_started(tmp_path: Path) -> None:
    """A child of a part that hangs, or is left behind, is ended with it."""
    part = python("parent", WRITE + CHILD + "print(child.pid)")
    found = Runner(tmp_path, os.environ, tmp_path).run_part(part, 30.0)
    assert found["verdict"] == "ok"
    until_gone(int(found["output"]))


def test_a_part_ends_what_it_has_lost_sight_of(tmp_path: Path) -> None:
    """Processes of its group but itself, as those of a test that crashed; never another's group."""
    ends = "from benchmarks.gpu.check.leftovers import end_leftovers; end_leftovers(); "
    part = python("parent", WRITE + CHILD + ends + "print(child.wait(30))")
    ours = {**os.environ, "PYTHONPATH": str(ROOT), "GPU_CHECK_OUT": str(tmp_path)}
    assert Runner(tmp_path, ours, tmp_path).run_part(part, 30.0)["output"] == "-9\n"


def test_parts_have_the_time_that_is_left(tmp_path: Path, monkeypatch: Patch) -> None:
    """None takes what later ones need; one for which nothing is left says so."""
    limits: dict[str, float] = {}

    def run_part(_: Runner, part: Part, limit_s: float) -> dict[str, Any]:
        limits[part.name] = limit_s
        return {}

    parts = [Part("a", (), 300.0), Part("b", (), 50.0, 20.0), Part("c", (), 200.0, 60.0)]
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "run_part", run_part)
        Runner(tmp_path, {}, tmp_path).run_all(parts, 100.0, lambda _: None)
    assert limits == pytest.approx({"a": 20.0, "b": 40.0, "c": 100.0}, abs=2.0)
    left = Runner(tmp_path, {}, tmp_path).run_part(parts[0], -1.0)
    assert (left["verdict"], left["why"]) == ("broken", "no time was left for it")
    told = python("told", "import os; print(os.environ['GPU_CHECK_LIMIT_S'])")
    assert Runner(tmp_path, os.environ, tmp_path).run_part(told, 30.0)["output"] == "30\n"


def machine_part(gpu: str | None, verdict: str = "ok") -> Part:
    """A first part that has found this GPU, or none."""
    machine = {**GOOD, "name": "machine", "verdict": verdict}
    machine["figures"] = {"gpu": gpu, "torch": "2.13", "why_none": "torch sees none"}
    code = f"import sys; open(sys.argv[1], 'w').write({json.dumps(machine)!r} + chr(10))"
    return python("machine", code)


TELLS = (
    "import json, os, sys; open(sys.argv[1], 'w').write(json.dumps({'name': 'it', 'verdict': %r, "
    "'expects': '', 'shows': '', 'why': 'w', 'figures': dict(os.environ)}) + chr(10))"
)


@pytest.mark.parametrize(
    ("verdict", "gpu", "status"),
    [
        ("ok", None, 0),
        ("falls short", None, 0),  # of the fake driver: no figure of a GPU
        ("broken", None, 1),
        ("ok", "a card", 0),
        ("not judged", "a card", 0),
        ("falls short", "a card", 1),
        ("broken", "a card", 1),
    ],
)
def test_the_command_reports_and_ends_with_what_it_found(
    verdict: str, gpu: str | None, status: int, tmp_path: Path, monkeypatch: Patch
) -> None:
    """Three files in OUT; a rehearsal, as the first part decides, fails only of what is broken."""
    part = python("some", TELLS % verdict)
    monkeypatch.setattr(command, "parts", lambda: (machine_part(gpu), part, part))
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setenv("GPU_CHECK_REHEARSAL", "of an outer one")
    assert command.main(["--only", "some"]) == status
    found = json.loads((tmp_path / "out" / "gpu-check.json").read_text())
    assert [each["part"] for each in found["parts"]] == ["machine", "some", "some"]
    assert found["machine"]["gpu"] == gpu
    assert found["parts"][1]["verdict"] == verdict
    told = found["parts"][1]["findings"][0]["figures"]["GPU_CHECK_REHEARSAL"]
    assert told == ("" if gpu else "1")
    text = (tmp_path / "out" / "gpu-check.txt").read_text()
    assert text.startswith("GPU check: a card" if gpu else "REHEARSAL, no GPU (torch sees none)")
    assert f"==== some: {verdict}" in (tmp_path / "out" / "gpu-check.log").read_text()


@pytest.mark.parametrize("present", [False, True])
def test_a_machine_that_was_not_found_out_is_rehearsed_only_without_a_gpu(
    present: bool, tmp_path: Path, monkeypatch: Patch
) -> None:
    """As where importing torch takes longer than the first part may: killed, it says nothing."""
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if present:
        (tmp_path / "nvidia0").touch()
    parts = (python("machine", "import os; os.abort()"), python("some", TELLS % "falls short"))
    monkeypatch.setattr(command, "parts", lambda: parts)
    assert command.main(["--out", str(tmp_path / "out")]) == 1
    found = json.loads((tmp_path / "out" / "gpu-check.json").read_text())
    assert [each["verdict"] for each in found["parts"]] == ["broken", "falls short"]
    told = found["parts"][1]["findings"][0]["figures"]["GPU_CHECK_REHEARSAL"]
    assert told == ("" if present else "1")
    text = (tmp_path / "out" / "gpu-check.txt").read_text()
    assert text.startswith("GPU check: which GPU" if present else "REHEARSAL, no GPU (what machine")


def test_a_part_that_misses_the_gpu_of_a_run_is_broken(tmp_path: Path, monkeypatch: Patch) -> None:
    """It is no rehearsal because the GPU is gone."""
    monkeypatch.setenv(machines.REHEARSAL, "")
    for module in (child, machines):
        monkeypatch.setattr(module, "no_gpu", lambda: "torch sees none")
    assert child.main(["timers", str(tmp_path / "found")]) == 0
    ((only,), _) = report.read(tmp_path / "found")
    assert (only["verdict"], only["why"]) == ("broken", "it is gone: torch sees none")
    with pytest.raises(RuntimeError, match="no rehearsal: torch sees none"):
        machines.find()


@pytest.mark.parametrize(
    ("device", "hidden", "verdict"),
    [
        ("nvidiactl", None, "needs a GPU"),
        ("nvidia0", None, "broken"),
        ("nvidia0", "", "needs a GPU"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_no_reason_to_rehearse(
    device: str, hidden: str | None, verdict: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    """Unless it is hidden on purpose."""
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    monkeypatch.setattr(machine, "no_gpu", lambda: "torch sees none")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    (tmp_path / device).touch()
    machine.run(report.Report(tmp_path / "found"))
    ((only,), _) = report.read(tmp_path / "found")
    assert only["verdict"] == verdict
    assert "torch sees none" in only["figures"]["why_none"]


# A job of `nohup make test &` has them ignored, and so have its children.
RUN = """
import signal, sys
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
from benchmarks.gpu.check import __main__ as command
from benchmarks.gpu.check.runner import Part
command.parts = lambda: [Part(name, (sys.executable, "-c", sys.argv[2]), 60.0)
                         for name in ("machine", "later")]
sys.exit(command.main(["--out", sys.argv[1]]))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_a_part_ends_with_its_runner_and_what_it_found_is_told(name: str, tmp_path: Path) -> None:
    """Ctrl-C, the end, a lost terminal; of a killed runner nothing is left running."""
    number = signal.Signals[name]
    pid = tmp_path / "pid"
    tells = f"""
import os
print('its output', flush=True)
open({str(pid) + "~"!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')
os.rename({str(pid) + "~"!r}, {str(pid)!r})
"""
    code = WRITE + CHILD + tells + SLEEPS
    arguments = [sys.executable, "-c", RUN, str(tmp_path / "out"), code]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    eventually(pid.exists)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    for each in pid.read_text().split():
        until_gone(int(each))
    if number == signal.SIGKILL:
        return
    assert process.returncode == 128 + number
    assert f"INTERRUPTED by {name}; not run: later" in printed
    found = json.loads((tmp_path / "out" / "gpu-check.json").read_text())
    (part,) = found["parts"]
    assert (found["interrupted"], part["verdict"]) == (name, "broken")
    assert (part["why"], part["findings"]) == (f"interrupted by {name}", [GOOD])
    assert "its output" in (tmp_path / "out" / "gpu-check.log").read_text()
    assert f"INTERRUPTED by {name}" in (tmp_path / "out" / "gpu-check.txt").read_text()


def until_gone(pid: int) -> None:
    """Wait until a process is gone, or dead and not yet collected by whoever adopts it."""
    stat = Path(f"/proc/{pid}/stat")
    eventually(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_folder_that_cannot_be_written_any_more_stops_nothing(
    tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each part is run, the table is printed, each fault told once; one at the start is refused."""
    out = tmp_path / "out"
    code = f"import shutil; shutil.rmtree({str(out)!r}); open({str(out)!r}, 'w').close(); "
    parts = (machine_part(None), python("takes", code + WRITE), python("after", WRITE))
    monkeypatch.setattr(command, "parts", lambda: parts)
    assert command.main(["--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "3 parts in" in printed
    assert printed.count("gpu-check.json cannot be written") == 1
    assert "all figures" not in printed
    assert command.main(["--out", str(out)]) == 2
    assert "cannot be written, choose another folder" in capsys.readouterr().out


def test_two_checks_do_not_share_a_folder_nor_a_build(
    tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second one says so; of two builds the second waits, and finds its work done."""
    with files.locked(tmp_path / files.LOCK) or pytest.fail("it is locked"):
        assert command.main(["--out", str(tmp_path)]) == 2
    assert "another check is writing to" in capsys.readouterr().out
    built: list[Path] = []
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "is_current", lambda: bool(built))
    inside, leave = threading.Event(), threading.Event()

    def compile_all(folder: Path) -> None:
        inside.set()
        leave.wait(30)
        built.append(folder)

    monkeypatch.setattr(build, "compile_all", compile_all)
    threads = [threading.Thread(target=build.build) for _ in range(2)]
    threads[0].start()
    assert inside.wait(30)
    threads[1].start()
    said = ""
    while "waiting for it" not in said:
        said += capsys.readouterr().out
        time.sleep(0.01)
    leave.set()
    for each in threads:
        each.join(30)
    assert len(built) == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("by", "name"), [("environment", "asked"), ("command", "asked"), ("nobody", None)]
)
def test_make_takes_the_python_that_is_asked_for(by: str, name: str | None, tmp_path: Path) -> None:
    """On the command line and in the environment, whatever was set up in the checkout."""
    own = tmp_path / "bin" / "python"
    own.parent.mkdir()
    own.touch()
    # Nor what a make that runs these tests was given.
    hidden = ("PYTHON", "VENV", "MAKEFLAGS", "MAKEOVERRIDES")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    asked = {"environment": {**environment, "PYTHON": "asked"}}.get(by, environment)
    options = [f"VENV={tmp_path}", *(["PYTHON=asked"] if by == "command" else [])]
    make = ["make", "-n", "gpu-check", *options]
    done = subprocess.run(make, cwd=ROOT, env=asked, capture_output=True, text=True, check=True)
    assert f" {name or own} -m benchmarks.gpu.check" in done.stdout


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


def test_the_build_is_current_until_a_source_is_newer(tmp_path: Path, monkeypatch: Patch) -> None:
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the fake driver runs on Linux only")
def test_experiments_are_rehearsed_on_the_fake_driver(tmp_path: Path) -> None:
    """Values and codes are judged there; the set-up is not repeated, the machine is looked at."""
    pytest.importorskip("torch")
    names = ["basics", "captures", "heartbeat", "nosync", "timers"]
    check = [sys.executable, "-m", "benchmarks.gpu.check", "--out", tmp_path, "--only", *names]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        check, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu-check.json").read_text())
    assert [part["part"] for part in found["parts"]] == ["machine", *names]
    findings = [each for part in found["parts"] for each in part["findings"]]
    verdicts = {each["name"]: each["verdict"] for each in findings}
    judged = {"driver table", "one scalar", "matrix", "record during a capture", "values"}
    judged |= {"by time", "one stream", "begins late", "ends late"}
    assert {verdicts[name] for name in judged} == {"ok"}
