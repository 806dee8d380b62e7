"""Senders as processes of their own, which can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_SENDER = "import sys; from foundry_fastlog.cli.main import main; sys.exit(main())"


def start_sync(run: Path, *arguments: object, **variables: str) -> subprocess.Popen[bytes]:
    """Start to send a run, as from a shell; what it writes is in ``RUN.out``."""
    # With a process of wandb's own, not this one's.
    kept = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    environment = {**kept, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    command = [sys.executable, "-c", _SENDER, "sync", str(run), *map(str, arguments)]
    with run.with_name(f"{run.name}.out").open("ab") as said:
        return subprocess.Popen(
            command, env=environment, stdout=said, stderr=said, start_new_session=True
        )


def kill(process: subprocess.Popen[bytes], *, everything: bool = False) -> None:
    """Kill a sender without notice; if all is killed, then also what it has started."""
    (os.killpg if everything else os.kill)(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition: Callable[[], object], timeout_s: float = 120.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def send(run: Path, *arguments: object) -> None:
    """Send what is there of a run, by a process of its own."""
    assert start_sync(run, *arguments).wait(120) == 0, run.with_name(f"{run.name}.out").read_text()
