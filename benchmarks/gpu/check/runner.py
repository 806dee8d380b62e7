"""Runs parts in turn: each in its own process group, with a time limit, and always reported."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.gpu.check.report import BROKEN, read, worst

STACKS_S = 2.0
"""Seconds for a hung process to print its stacks."""
KILLED_S = 5.0
"""Seconds for a killed process to disappear; a driver may hold it in the kernel."""
LOOK_S = 0.1
"""Interval in seconds between checks for a signal."""
TAIL = 20_000
"""Bytes of a part's output in the result; the log has more."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LIMIT = "GPU_CHECK_LIMIT_S"
"""Environment variable: the seconds after which a part is killed."""


@dataclass(frozen=True)
class Part:
    """A part of the check."""

    name: str
    command: tuple[str, ...]
    """Receives the path of its findings as an additional argument."""
    limit_s: float
    least_s: float = 8.0
    """Seconds reserved for it if earlier parts take longer than they should."""


class Stop:
    """Whether a signal requested the end. Handlers only set it, so that nothing is interrupted."""

    def __init__(self) -> None:
        """Start without a signal."""
        self.number = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch Ctrl-C, SIGTERM and a lost terminal; under `nohup`, the latter stays ignored."""
        before = {each: signal.getsignal(each) for each in SIGNALS}
        for each, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(each, self.note)
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def note(self, number: int, _: FrameType | None) -> None:
        """Keep the first signal."""
        self.number = self.number or number

    def name(self) -> str:
        """Return the signal's name."""
        return signal.Signals(self.number).name


class Guard:
    """A process that ends the running part if this process is killed."""

    def __init__(self) -> None:
        """Start it in its own session, where no signal from a terminal reaches it."""
        self.process = subprocess.Popen(
            [sys.executable, "-S", str(Path(__file__).with_name("guard.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def tell(self, group: int) -> None:
        """Set the running group; 0 for none. Each part does this itself, before anything else."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            os.write(self.process.stdin.fileno(), b"%d\n" % group)

    def close(self) -> None:
        """Let it end."""
        self.process.communicate()


def ending(status: int) -> str:
    """Describe how a process ended; "" if it succeeded."""
    if status >= 0:
        return f"exit status {status}" if status else ""
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def tail(path: Path, size: int) -> bytes:
    """Return the last bytes of a file that may be long or missing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read(size)
    except OSError:
        return b""


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILLED_S)


@dataclass
class Runner:
    """Runs parts."""

    folder: Path
    """Folder for outputs and findings."""
    environment: Mapping[str, str]
    """The parts' environment; the caller may change it between parts."""
    directory: Path
    """Their working directory."""
    stop: Stop = field(default_factory=Stop)
    guard: Guard | None = None

    def run_all(
        self, parts: Sequence[Part], seconds: float, reported: Callable[[dict[str, Any]], None]
    ) -> None:
        """Run parts until the time is up; report each, even those with no time left.

        After a signal, only the running part is still reported.

        Args:
            parts: In order.
            seconds: Time limit for all of them.
            reported: Receives the result of each part when it has ended.
        """
        end = time.monotonic() + seconds
        for number, part in enumerate(parts):
            if self.stop.number:
                break
            kept = sum(later.least_s for later in parts[number + 1 :])
            left = end - time.monotonic()
            # Reserve time for later parts, but give each part at least its own minimum.
            allowed = min(part.limit_s, left, max(left - kept, part.least_s))
            reported(self.run_part(part, allowed))

    def run_part(self, part: Part, limit_s: float) -> dict[str, Any]:
        """Run one part.

        Args:
            part: What to run.
            limit_s: Seconds until it is killed.

        Returns:
            `part`, `verdict`, `why`, `seconds`, `findings`, and the end of its `output`.
        """
        findings, output = self.folder / f"{part.name}.jsonl", self.folder / f"{part.name}.log"
        started = time.monotonic()
        if limit_s <= 0:
            return result(part, "no time was left for it", 0.0, findings, output)
        try:
            with output.open("wb") as out:
                process = subprocess.Popen(
                    [*part.command, str(findings)],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=self.directory,
                    env={**self.environment, LIMIT: f"{limit_s:g}"},
                    preexec_fn=self._apart,  # noqa: PLW1509 - no thread runs here
                )
            try:
                why = self._waited(process, started + limit_s, limit_s)
            finally:
                kill_group(process)
                if self.guard:
                    self.guard.tell(0)
        except OSError as error:
            why = f"it could not be started: {error}"
        return result(part, why, time.monotonic() - started, findings, output)

    def _apart(self) -> None:
        """In the part's process: create its own group, and tell the guard."""
        os.setpgrp()
        if self.guard:
            self.guard.tell(os.getpid())

    def _waited(self, process: subprocess.Popen[bytes], end: float, limit_s: float) -> str:
        """Wait for a part; return what was wrong with its exit."""
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return ending(process.wait(LOOK_S))
            if self.stop.number:
                return f"interrupted by {self.stop.name()}"
        process.send_signal(signal.SIGABRT)  # faulthandler prints the stacks
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STACKS_S)
        return f"it took more than {limit_s:.0f} s"


def result(part: Part, why: str, seconds: float, findings: Path, output: Path) -> dict[str, Any]:
    """Assemble the result of a part that has ended."""
    found, garbage = read(findings)
    if garbage:
        why = "; ".join([*([why] if why else []), f"{garbage} lines of its findings are garbage"])
    elif not found and not why:
        why = "it found nothing"
    verdict = BROKEN if why else worst([each["verdict"] for each in found])
    return {
        "part": part.name,
        "verdict": verdict,
        "why": why,
        "seconds": round(seconds, 1),
        "findings": found,
        "output": tail(output, TAIL).decode("utf-8", "replace"),
    }
