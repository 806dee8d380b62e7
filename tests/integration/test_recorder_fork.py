"""A forked child goes on with the object that it inherits, in files of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from recorded import Play, lines, steps

HEAD = """
import gc, multiprocessing, os, sys, threading
from foundry_fastlog import Recorder, RecorderClosedError, open_run
from recorded import in_child as fork  # the child leaves by os._exit
run = sys.argv[1]
"""


def children(run: Path) -> list[str]:
    matches = (re.fullmatch(r"metrics\.([^.]*w[^.]*)\.jsonl", path.name) for path in run.iterdir())
    return sorted(match[1] for match in matches if match)


def test_names_of_metrics_in_both(tmp_path: Path, play: Play) -> None:
    play("""
recorder = Recorder(run)
def call(step, **metrics):
    recorder.record(step, **metrics)
    recorder.record(step, first=1.0, second=2.0)
    with recorder.timer(f"timer{step % 3}"), recorder.timer("inner"):
        pass
for step in range(20):
    call(step, **{f"k{step % 5}": step})
def work():
    for step in range(20, 40):
        call(step, **{f"other{step % 7}": step, f"k{step % 5}": step})
    recorder.close()
fork(work)
for step in range(40, 60):
    call(step, **{f"late{step % 5}": step})
recorder.close()
""")
    (child,) = children(tmp_path)

    def expected(span: range, **names: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for step in span:
            found.append({f"{name}{step % count}": step for name, count in names.items()})
            found.append({"first": 1.0, "second": 2.0})
        return found

    parents = expected(range(20), k=5) + expected(range(40, 60), late=5)
    assert [line["metrics"] for line in lines(tmp_path)] == parents
    childs = expected(range(20, 40), other=7, k=5)
    assert [line["metrics"] for line in lines(tmp_path, label=child)] == childs
    timings = lines(tmp_path, "performance", child)
    assert [(line["name"], line.get("parent")) for line in timings] == [
        pair
        for step in range(20, 40)
        for pair in (("inner", f"timer{step % 3}"), (f"timer{step % 3}", None))
    ]
    assert not list((tmp_path / ".fastlog").glob("*.ring*"))


def test_fork_inside_a_timer(tmp_path: Path, play: Play) -> None:
    """A block that is open at the fork ends in both, each with its own line."""
    play("""
recorder = Recorder(run)
with recorder.timer("around", step=5):
    pid = os.fork()
    with recorder.timer("inside"):
        pass
recorder.close()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
""")
    (child,) = children(tmp_path)
    own, inherited = (lines(tmp_path, "performance", label) for label in ("", child))
    for found in (own, inherited):
        blocks = [(line["name"], line["depth"], line["step"]) for line in found]
        assert blocks == [("inside", 1, 5), ("around", 0, 5)]
    assert {line["thread"] for line in own}.isdisjoint(line["thread"] for line in inherited)


def test_labels_of_children(tmp_path: Path, play: Play) -> None:
    """Rank and attempt come first, then the pids from the outermost child inwards."""
    done = play("""
Recorder(run, rank=2).close()
recorder = Recorder(run, rank=2)
recorder.record(0, x=1.0)
def inner():
    recorder.record(2, x=1.0)
    assert recorder.label == f"r2-a1-w{os.getppid()}-w{os.getpid()}"
    assert (recorder.rank, recorder.attempt) == (2, 1)
    assert [path.name for path in recorder.files()] == [f"metrics.{recorder.label}.jsonl"]
    recorder.close()
def outer():
    recorder.record(1, x=1.0)
    assert recorder.label == f"r2-a1-w{os.getpid()}"
    fork(inner)
    recorder.record(3, x=1.0)
    recorder.close()
sys.stdout.write(str(fork(outer)))
recorder.close()
""")
    inner, outer = sorted(children(tmp_path), key=len, reverse=True)
    assert outer == f"r2-a1-w{done.stdout}"
    assert inner.startswith(outer + "-w")
    assert [steps(tmp_path, label) for label in ("r2-a1", outer, inner)] == [[0], [1, 3], [2]]


def test_statistics_of_a_child_are_its_own(tmp_path: Path, play: Play) -> None:
    """The child counts from zero; the parent's figures and its run.json are not touched."""
    play("""
recorder = Recorder(run, ring_bytes=8 << 20)
for step in range(10):
    recorder.record(step, x=1.0)
def work():
    recorder.record(10, x=1.0)
    assert recorder.flush()
    stats = recorder.stats()
    assert (stats["calls"], stats["written"], stats["key_sets"]) == (1, 1, 1), stats
    assert stats["ring_bytes"] == 1 << 20
    recorder.close()
    assert recorder.closed
fork(work)
assert not recorder.closed
assert recorder.record(11, x=1.0)
assert recorder.stats()["calls"] == 11
recorder.close()
""")
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert len(content["attempts"]) == 1
    assert steps(tmp_path) == [*range(10), 11]


def test_closed_before_the_fork(tmp_path: Path, play: Play) -> None:
    play("""
recorder = Recorder(run)
recorder.record(0, x=1.0)
recorder.close()
def work():
    assert recorder.closed
    for call in (lambda: recorder.record(1, x=1.0), lambda: recorder.event("m")):
        try:
            call()
        except RecorderClosedError:
            continue
        raise AssertionError("accepted")
    assert recorder.close() and recorder.flush()
    assert recorder.stats()["calls"] == 0
    open_run(run).record(2, x=1.0)
    open_run(run).close()
fork(work)
""")
    assert children(tmp_path) == []
    assert (steps(tmp_path), steps(tmp_path, "a1")) == ([0], [2])


def test_a_child_that_never_records(tmp_path: Path, play: Play) -> None:
    play("""
recorder = Recorder(run)
recorder.record(0, x=1.0)
for call in (lambda: True, recorder.flush, recorder.close):
    for leave in (os._exit, sys.exit):
        pid = os.fork()
        if pid == 0:
            assert call()
            leave(0)
        assert os.waitpid(pid, 0)[1] == 0, (call, leave)
recorder.record(1, x=1.0)
recorder.close()
""")
    assert children(tmp_path) == []
    assert steps(tmp_path) == [0, 1]


def test_the_inherited_object_may_die_in_the_child(tmp_path: Path, play: Play) -> None:
    """Collected in the child, recorded or not, the parent's half is left alone."""
    play("""
recorder = Recorder(run)
recorder.record(0, x=1.0)
def silent():
    global recorder
    del recorder
    gc.collect()
def recording():
    recorder.record(1, x=1.0)
    silent()
fork(silent)
fork(recording)
recorder.record(2, x=1.0)
recorder.close()
""")
    (child,) = children(tmp_path)
    assert (steps(tmp_path), steps(tmp_path, child)) == ([0, 2], [1])


def test_an_orderly_child_writes_without_help(tmp_path: Path, play: Play) -> None:
    play("""
recorder = Recorder(run, flush_interval_s=3600)
recorder.record(0, x=1.0)
pid = os.fork()
if pid == 0:
    for step in range(1, 100):
        recorder.record(step, x=1.0)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
with open(f"{run}/metrics.w{pid}.jsonl") as file:
    assert len(file.readlines()) == 99
""")
    (child,) = children(tmp_path)
    assert steps(tmp_path, child) == list(range(1, 100))


def test_large_first_event_of_a_child(tmp_path: Path, play: Play) -> None:
    """An event is shortened to what the child's ring takes, which is smaller than the parent's."""
    play("""
recorder = Recorder(run, ring_bytes=64 << 20)
def work():
    assert recorder.event("x" * 5_000_000)
    assert recorder.close()
fork(work)
work()
""")
    (child,) = children(tmp_path)
    assert len(lines(tmp_path, "log")[0]["message"]) == 5_000_000
    assert lines(tmp_path, "log", child)[0]["message"].endswith("(5000000 characters)")


def test_log_and_open_run_go_on_with_what_was_inherited(tmp_path: Path, play: Play) -> None:
    """Steps continue behind the parent's last one, in each process; the run's recorder is it."""
    play("""
recorder = Recorder(run)
recorder.record(10, x=1.0)
def work():
    recorder.log({"x": 1.0})
    assert open_run(run) is recorder
    open_run(run).log({"x": 1.0})
    recorder.close()
fork(work)
recorder.log({"x": 1.0})
recorder.close()
""")
    assert steps(tmp_path) == [10, 11]
    assert steps(tmp_path, children(tmp_path)[0]) == [11, 12]


def test_fork_from_a_thread_while_another_opens_a_run(tmp_path: Path, play: Play) -> None:
    """A child can open runs though a thread of the parent held the lock of opening at the fork."""
    play("""
from foundry_fastlog.recording import recorder as module
held, done = threading.Event(), threading.Event()
def hold():
    with module._open.lock:
        held.set()
        done.wait()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
def work():
    with open_run(f"{run}/child") as recorder:
        recorder.record(1, x=1.0)
forking = threading.Thread(target=fork, args=(work,))
forking.start()
forking.join()
done.set()
holder.join()
""")
    assert steps(tmp_path / "child") == [1]
