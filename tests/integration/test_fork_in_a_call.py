"""Forks at awkward moments: in a call, as a recorder opens, in children that cannot go on."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from recorded import Play, lines, parse, raw_lines

HEAD = """
import ctypes, gc, os, resource, sys, threading, time
from foundry_fastlog import Recorder, recover
from recorded import in_child
run = sys.argv[1]
private = os.path.join(run, ".fastlog")

def opening():
    return os.path.isdir(private) and any(name.endswith(".tmp") for name in os.listdir(private))

def wait(pid):
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"

def stack_of_threads(size):
    \"\"\"Give new threads this much stack, in bytes; too much, and none can be started.\"\"\"
    libc = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(256)
    libc.pthread_attr_init(attributes)
    assert libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(size)) == 0
    assert libc.pthread_setattr_default_np(attributes) == 0
HUGE, USUAL = 1 << 46, 8 << 20
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's default of stack sizes")


def by_label(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of each writer's metrics, the main one's first."""
    found = {}
    for path in sorted(run.glob("metrics*.jsonl"), key=lambda path: len(path.name)):
        match = re.fullmatch(r"metrics\.?(.*)\.jsonl", path.name)
        assert match is not None
        found[match[1]] = [parse(line) for line in raw_lines(path)]
    return found


FORKING = """
class Forking:
    ndim = 0
    pid = None
    def fork(self):
        self.pid = os.fork()
        if self.pid == 0:  # the child has keys of its own before the call that forked goes on
            for n in range(20):
                recorder.record(n, **{f"inner{n}": n, "and": "x" * 50})
    def item(self):
        self.fork()
        return 7.0
    def __dlpack_device__(self):
        return (1, 0)
    def __index__(self):
        self.fork()
        return 5
    def keys(self):
        self.fork()
        return ["outer"]
    def __getitem__(self, key):
        return 7.0
    def __hash__(self):
        return hash("outer")
class Name(str):
    def __del__(self):
        forking.fork()
recorder = Recorder(run)
recorder.record(0, first=1.0, second=2.0)
forking = Forking()
"""


END = """
recorder.close()
if forking.pid == 0:
    assert recorder.stats()["accepted"] == recorder.stats()["written"] > 0
    os._exit(0)
wait(forking.pid)
"""
INNER = [{f"inner{n}": n, "and": "x" * 50} for n in range(20)]


@pytest.mark.parametrize(
    "call",
    [
        "recorder.record(5, outer=forking)",
        "recorder.record(forking, outer=7.0)",
        "recorder.record(outer=7.0, step=forking)",
        "recorder.record_dict(5, {'outer': forking})",
        "recorder.record_dict(5, forking)",
        "recorder.log({'o': {'outer': forking}}, 5)",
        "recorder.record(5, outer=forking, **{'k' * 300: 'long'})",
    ],
)
def test_a_value_that_forks(tmp_path: Path, play: Play, call: str) -> None:
    """Parent and child go on with the call, each in its own files and with its own names."""
    play(f"{FORKING}\nassert {call}\n{END}")
    (_, outer), inner = by_label(tmp_path).values()
    assert outer["metrics"] == inner[-1]["metrics"]
    assert outer["step"] == inner[-1]["step"] == 5
    assert 7.0 in outer["metrics"].values()
    assert [line["metrics"] for line in inner[:-1]] == INNER


def test_a_key_that_forks_as_it_is_freed(tmp_path: Path, play: Play) -> None:
    """The cache of names lets go of keys, whose end is anybody's code, in the middle of a call."""
    play(f"""{FORKING}
recorder.record_dict(1, {{Name("dying"): 1.0}})
kept = []  # so that each key has an address of its own
while forking.pid is None:  # until the entry of the dying key has to make room
    kept.append(f"outer{{len(kept)}}")
    assert recorder.record_dict(5, {{kept[-1]: 7.0}})
{END}""")
    outer, inner = by_label(tmp_path).values()
    assert [line["metrics"] for line in inner] == [*INNER, outer[-1]["metrics"]]


@linux
def test_a_child_that_gets_no_thread(tmp_path: Path, play: Play) -> None:
    """Its records are dropped and counted, one warning says so, and it goes on once it can."""
    done = play("""
recorder = Recorder(run)
recorder.record(0, x=1.0)
def work():
    stack_of_threads(HUGE)
    for step in range(1, 4):
        assert recorder.record(step, x=1.0) is False
    assert recorder.log({"x": 1.0}) is False
    assert recorder.event("m") is False
    with recorder.timer("t"):
        pass
    stats = recorder.stats()
    assert (stats["calls"], stats["dropped"], stats["accepted"]) == (6, 6, 0), stats
    assert recorder.flush() and recorder.files() == [] and recorder.label == ""
    stack_of_threads(USUAL)
    step = 4
    while not recorder.record(step, x=1.0):
        step += 1
    assert recorder.close()
    stats = recorder.stats()
    assert stats["calls"] == stats["dropped"] + stats["accepted"], stats
    assert stats["dropped"] == step + 2, (step, stats)
in_child(work)
recorder.close()
""")
    assert done.stderr.count("cannot record in this forked process") == 1
    _, (child, found) = by_label(tmp_path).items()
    assert re.fullmatch(r"w\d+", child)  # the tries before have left no file
    assert [min(line) for line in found] == ["dropped", "metrics"]
    assert not list((tmp_path / ".fastlog").glob("*.ring"))


@linux
def test_a_recorder_that_gets_no_thread(play: Play) -> None:
    """The constructor says so and leaves nothing, so that the next one is the first attempt."""
    play("""
stack_of_threads(HUGE)
try:
    Recorder(run)
except RuntimeError:
    pass
else:
    raise AssertionError("opened")
assert [names for _, _, names in os.walk(run) if names] == []
stack_of_threads(USUAL)
with Recorder(run) as recorder:
    assert (recorder.attempt, recorder.label) == (0, "")
""")


# By default a thread that has had memory has 64 MiB in reserve, and one that has not has none.
@linux
@pytest.mark.parametrize("arenas", [{}, {"MALLOC_ARENA_MAX": "1"}], ids=["arenas", "one arena"])
def test_a_flush_thread_without_memory(tmp_path: Path, play: Play, arenas: dict[str, str]) -> None:
    """Training goes on: what could not be rendered is, once there is memory again."""
    body = """
recorder = Recorder(run, ring="memory", flush_interval_s=3600)
text = "x" * 500_000
for step in range(6):
    assert recorder.record(step, text=text)
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))
hog = []
for size in (1 << 20, 1 << 16, 1 << 12, 256):
    try:
        while True: hog.append(bytearray(size))
    except MemoryError:
        pass
hog.pop()
recorder.flush(2)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
hog.clear()
assert recorder.close(60)
assert recorder.stats()["errors"] > 0 or "MALLOC_ARENA_MAX" not in os.environ
"""
    play(body, environment=arenas)
    assert [line["step"] for line in lines(tmp_path)] == list(range(6))
