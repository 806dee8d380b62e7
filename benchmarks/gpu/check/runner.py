"""Run parts in turn: each in a process group of its own, bounded, and always reported."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.check.report import BROKEN, read, worst

STACKS_S = 2.0
"""How long a process that hangs has to print its stacks."""
KILLED_S = 5.0
"""How long a killed one may take to be gone; a driver may hold it in the kernel."""
TAIL = 20_000
"""Bytes of a part's output in the result; more of it is in the log."""


@dataclass(frozen=True)
class Part:
    """A part of the check."""

    name: str
    command: tuple[str, ...]
    """Gets the path of its findings as one argument more."""
    limit_s: float
    least_s: float = 8.0
    """Kept for it when others before it take longer than they should."""


def ending(status: int) -> str:
    """Return in words how a process ended; "" when it was well."""
    if status >= 0:
        return f"exit status {status}" if status else ""
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def tail(path: Path, size: int) -> bytes:
    """Return the last bytes of a file that may be long, or may not be there."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read(size)
    except OSError:
        return b""


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of a process's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILLED_S)


def run_part(
    part: Part, folder: Path, limit_s: float, environment: Mapping[str, str], directory: Path
) -> dict[str, Any]:
    """Run one part.

    Args:
        part: What to run.
        folder: Where its output and findings go.
        limit_s: Seconds until it is killed.
        environment: Of the process.
        directory: Its working directory.

    Returns:
        `part`, `verdict`, `why`, `seconds`, `findings`, and the last of its `output`.
    """
    findings, output = folder / f"{part.name}.jsonl", folder / f"{part.name}.log"
    started = time.monotonic()
    why = ""
    if limit_s <= 0:
        return result(part, "no time was left for it", 0.0, findings, output)
    try:
        with output.open("wb") as out:
            process = subprocess.Popen(
                [*part.command, str(findings)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=dict(environment),
                # A group, not a session: who ends this session ends the part as well.
                preexec_fn=os.setpgrp,  # noqa: PLW1509 - no thread runs here
            )
        try:
            why = ending(process.wait(limit_s))
        except subprocess.TimeoutExpired:
            why = f"it took more than {limit_s:.0f} s"
            process.send_signal(signal.SIGABRT)  # faulthandler prints the stacks
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STACKS_S)
        finally:
            kill_group(process)
    except OSError as error:
        why = f"it could not be started: {error}"
    return result(part, why, time.monotonic() - started, findings, output)


def result(part: Part, why: str, seconds: float, findings: Path, output: Path) -> dict[str, Any]:
    """Put together what is known of a part that has ended."""
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


def run_all(
    parts: Sequence[Part],
    folder: Path,
    seconds: float,
    environment: Mapping[str, str],
    directory: Path,
    reported: Callable[[dict[str, Any]], None],
) -> None:
    """Run parts until the time is up; each is reported, those without any time left too.

    Args:
        parts: In order.
        folder: Where outputs and findings go.
        seconds: For all of them.
        environment: Of the processes.
        directory: Their working directory.
        reported: Gets the result of each part when it has ended.
    """
    end = time.monotonic() + seconds
    for number, part in enumerate(parts):
        kept = sum(later.least_s for later in parts[number + 1 :])
        left = end - time.monotonic()
        # What is kept for later parts is theirs, but nobody gets less than its own least.
        allowed = min(part.limit_s, left, max(left - kept, part.least_s))
        reported(run_part(part, folder, allowed, environment, directory))
