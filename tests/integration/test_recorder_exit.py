"""How a program ends: what was accepted is in the files; the end is no crash and no hang."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recorded import Play, lines, run_python, steps

HEAD = """
import atexit, gc, os, sys, threading, time
from foundry_fastlog import Recorder, RecorderClosedError, open_run
run = sys.argv[1]
"""


@pytest.mark.parametrize("ring", ["file", "memory"])
@pytest.mark.parametrize(
    ("end", "returncode"),
    [
        ("pass", 0),
        ("sys.exit(3)", 3),
        ("raise KeyboardInterrupt", 130),
        ("raise RuntimeError('unhandled')", 1),
        ("recorder = None", 0),
        ("recorder.mine = recorder", 0),
        ("builtins = __import__('builtins'); builtins.kept = recorder", 0),
        ("recorder.timer('never left').__enter__()", 0),
        ("threading.Thread(target=lambda: recorder.record(500, late=True)).start()", 0),
    ],
)
def test_orderly_ends(tmp_path: Path, play: Play, end: str, returncode: int, ring: str) -> None:
    """Without close(), every orderly end leaves complete files, whatever the ring lies in."""
    body = f"""
recorder = Recorder(run, flush_interval_s=3600, ring={ring!r})
for step in range(500):
    recorder.record(step, x=1.0)
recorder.event("done", error=ValueError("v"))
{end}
"""
    done = play(body, returncode=None)
    # A KeyboardInterrupt that nobody handles ends the process by the signal itself.
    assert done.returncode in ({130, -2} if returncode == 130 else {returncode}), done.stderr
    assert steps(tmp_path) == list(range(501 if "Thread" in end else 500))
    assert len(lines(tmp_path, "errors")) == 1
    assert not list((tmp_path / ".fastlog").glob("*.ring*"))
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert content["attempts"][-1]["ended"] is not None or end == "recorder = None"


def test_exit_handlers_of_the_program(tmp_path: Path) -> None:
    """Handlers registered after the import record; earlier ones meet a closed recorder."""
    code = """
import atexit, sys
def early():
    try:
        recorder.record(3, x=1.0)
    except foundry_fastlog.RecorderClosedError:
        sys.stdout.write("closed by then")
atexit.register(early)
import foundry_fastlog
recorder = foundry_fastlog.Recorder(sys.argv[1])
recorder.record(1, x=1.0)
atexit.register(lambda: recorder.record(2, x=1.0))
"""
    assert run_python(code, tmp_path).stdout == "closed by then"
    assert steps(tmp_path) == [1, 2]


def test_records_from_finalizers(tmp_path: Path, play: Play) -> None:
    """Objects that record when they die: also those that die with the interpreter do no harm."""
    play("""
recorder = Recorder(run)
class Dying:
    def __del__(self):
        recorder.record(7, died=True)
first, second = Dying(), Dying()
del first
""")
    assert steps(tmp_path) == [7]


def test_open_run_in_an_exit_handler(tmp_path: Path, play: Play) -> None:
    play("""
recorder = Recorder(run)
recorder.close()
@atexit.register
def late():
    open_run(run).record(1, x=1.0)
""")
    assert steps(tmp_path, "a1") == [1]


BUSY = {
    "record": "recorder.record(step, a=1.0, b=step)",
    "dict": "recorder.record_dict(step, {f'k{step % 9}': 1.0, 'v': Slow()})",
    "log": "recorder.log({'deep': {'a': Slow()}})",
    "timer": "\n            with recorder.timer('t'): pass",
    "event": "recorder.event('e', error=ValueError('v'), context={'s': Slow()})",
    "flush": "recorder.record(step, a=1.0); recorder.flush()",
    "stats": "recorder.stats(); recorder.files()",
    "close": "recorder.close()",
    "open": "Recorder(f'{run}/{threading.get_ident()}').close()",
}


@pytest.mark.parametrize("call", BUSY)
def test_daemon_threads_at_the_end(tmp_path: Path, call: str) -> None:
    """Daemon threads inside each call while the interpreter ends: no crash, no hang, whole lines.

    CPython before 3.14 stops such threads by unwinding their stacks, which aborts the process at
    the first C++ frame that must not be unwound.
    """
    code = f"""{HEAD}
small = dict(ring_bytes=65536, block_timeout_s=0.01, close_timeout_s=5)
recorder = Recorder(run, **(small if sys.argv[2] != "3" else {{}}))
recorder.record(-1, first=True)
class Slow:  # its methods give other threads the chance to run
    ndim = 0
    def __dlpack_device__(self):
        for _ in range(50): pass
        return (1, 0)
    def item(self):
        for _ in range(50): pass
        return 1.0
    __str__ = lambda self: "slow"
sys.setswitchinterval(1e-5)
running = threading.Barrier(4)
def work():
    step = 0
    running.wait()
    while True:
        try:
            {BUSY[call]}
        except (RecorderClosedError, ValueError):
            pass
        step += 1
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
running.wait()
for _ in range(2_000): pass
"""
    for attempt in range(4):  # the last with the usual ring
        run = tmp_path / str(attempt)
        done = run_python(code, run, attempt, returncode=None, timeout=60)
        assert done.returncode == 0, (done.returncode, done.stderr[-2_000:])
        assert steps(run).count(-1) == 1
        for stream in ("performance", "errors"):
            lines(run, stream)


def test_a_thread_that_waits_for_room_does_not_hold_the_end_up(play: Play) -> None:
    """A daemon thread blocked by a full ring and a dead disk: the program ends all the same."""
    play("""
import resource
recorder = Recorder(run, ring_bytes=65536, block_timeout_s=3600, close_timeout_s=0.2)
recorder.record(0, x=1.0)
recorder.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(f"{run}/metrics.jsonl"), -1))
def work():
    for step in range(1, 10_000):
        recorder.record(step, x=1.0)
thread = threading.Thread(target=work, daemon=True)
thread.start()
while recorder.stats()["ring_high_water_bytes"] < 32768 or recorder.stats()["errors"] == 0:
    time.sleep(0.01)
""")
