"""Processes that record what they are told to."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from recorded import start_python

# Obeys: "record N" (flushed), "event N" (flushed), "keep N" (in the ring alone: the flush thread
# takes all that it meets, so it must sleep before), "close N";
# "shut N" closes all descriptors from N on, "fork N" forks a child that lives for N seconds.
TRAINER = """
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from foundry_fastlog import Recorder
path, who, options = sys.argv[1:]
recorder = Recorder(path, **{"flush_interval_s": 3600, **json.loads(options)})
step = 0
def asleep():  # how often each flush thread has fallen asleep; None while one works
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended
            lines = (task / "status").read_text().splitlines()
            status = dict(line.partition(":\\t")[::2] for line in lines)
            if status["Name"] == "fastlog-flush":
                if not status["State"].startswith("S"):
                    return None
                found[task.name] = status["voluntary_ctxt_switches"]
    return found
def flush_thread_sleeps():
    before = asleep()
    time.sleep(0.01)
    return before is not None and before == asleep()
for line in sys.stdin:
    what, count = line.split()
    while what == "keep" and not flush_thread_sleeps():
        pass
    if what == "shut":
        os.closerange(int(count), 4096)
    if what == "fork" and os.fork() == 0:
        time.sleep(int(count))
        os._exit(0)
    if what in ("shut", "fork"):
        print(what, flush=True)
        continue
    for _ in range(int(count)):
        if what == "event":
            assert recorder.event("hello")
            continue
        assert recorder.record(step, who=who)
        step += 1
    if what == "close":
        assert recorder.close()
    else:
        assert what == "keep" or recorder.flush(30)
    print(recorder.label, flush=True)
"""


class Trainer:
    """A process that records what it is told to."""

    def __init__(self, run: Path, who: str, **options: object) -> None:
        self.process = start_python(TRAINER, run, who, json.dumps(options), stdin=subprocess.PIPE)
        self.do("record 0")

    def do(self, *commands: str) -> str:
        """Have something done, one command after the other; returns the label then."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        answer = ""
        for what in commands:
            self.process.stdin.write(what + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
            assert answer, "it ended"
        return answer.rstrip("\n")

    def kill(self) -> None:
        """End it as the OOM killer does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


Begin = Callable[..., Trainer]
