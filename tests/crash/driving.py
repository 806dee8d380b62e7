"""Start, kill and recover processes that record with the driver."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from crash.acked import Life, Verdict, check_run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

#: Read at import: tests run without the variables that configure the package.
RELEASE = os.environ.get("FASTLOG_CRASH") == "release"
CI = bool(os.environ.get("CI"))
#: Other sources and programs than this checkout's, from mutations.py.
_CSRC = os.environ.get("FASTLOG_CRASH_CSRC")
_BUILD = os.environ.get("FASTLOG_CRASH_BUILD", ROOT / "build" / "core")
#: Sanitizers have builds of their own, for which an everyday run has no time.
SANITIZED = RELEASE or CI or bool(_CSRC)

ACKS_BYTES = 4096
OPENED, STALLED, CLOSED = 1, 2, 3


def size(release: int, ci: int) -> int:
    """How often to do something: `make crash` sets FASTLOG_CRASH=release, elsewhere half of CI."""
    return release if RELEASE else ci if CI else (ci + 1) // 2


def build(variant: str, *targets: str, makefile: Path = HERE) -> Path:
    """Build the programs of a variant, or some of them; return their folder."""
    folder = Path(_BUILD) / variant
    command = ["make", "--no-print-directory", "-C", str(makefile), f"-j{os.cpu_count() or 2}"]
    command += [f"BUILD={folder}", f"VARIANT={variant}", *targets]
    command += [f"CSRC={_CSRC}"] if _CSRC else []
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Of the processes that test, one builds.
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@cache
def fix_addresses() -> list[str]:
    """Return what to write before a program under ThreadSanitizer.

    Older ones need it where addresses have many random bits.
    """
    try:
        done = subprocess.run(["setarch", "-R", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return []
    return ["setarch", "-R"] if done.returncode == 0 else []


class Acks:
    """The counter file that a recording process shares with us."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(ACKS_BYTES))
        self.path = path
        with path.open("r+b") as handle:
            words = mmap.mmap(handle.fileno(), ACKS_BYTES)
        self._words = (ctypes.c_uint64 * (ACKS_BYTES // 8)).from_buffer(words)

    @property
    def phase(self) -> int:
        """How far the process is: OPENED, STALLED or CLOSED; 0 before."""
        return self._words[0]

    def of(self, thread: int) -> int:
        return self._words[8 * (thread + 1)]

    def counts(self, threads: int) -> list[int]:
        return [self.of(thread) for thread in range(threads)]


@dataclass(frozen=True)
class Settings:
    """How a process records; the driver's arguments of the same names."""

    threads: int = 1
    ring: int = 4096
    segment: int = 16384
    flush_us: int = 1000
    block_ms: int = 1000
    fsync: str = "none"
    place: str = "file"
    fill: int = 80
    keys: int = 64
    pace: int = 0
    records: int = 0
    rank: int = 0
    recover: int = 1
    stall: str = ""
    churn: int = 0
    watch: int = 0
    close_us: int = 0
    device: int = 0

    def arguments(self) -> list[str]:
        return [f"{name}={value}" for name, value in vars(self).items() if value != ""]


def draw_settings(rng: random.Random, **fixed: Any) -> Settings:
    """Draw settings in which wraps, back-pressure and rotation happen within milliseconds."""
    drawn = Settings(
        ring=rng.choice((4096, 4096, 16384, 65536)),
        segment=rng.choice((4096, 16384, 1 << 20)),
        flush_us=rng.choice((100, 1000, 20_000)),
        block_ms=rng.choice((1000, 1000, 1000, 0)),
        fsync=rng.choice(("none", "none", "interval", "every_flush")),
        place=rng.choice(("file", "file", "file", "shm")),
        fill=rng.choice((20, 80)),
        keys=rng.choice((1, 64)),
        pace=rng.choice((0, 0, 2000, 20_000)),
    )
    return replace(drawn, **fixed)


class Process:
    def __init__(self, life: Life, acks: Acks, process: subprocess.Popen[bytes]) -> None:
        self.life = life
        self.acks = acks
        self.process = process

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def kill(self) -> int:
        """Kill it, if it still lives, and wait; return its status (-9: killed)."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def wait(self, timeout: float = 120) -> int:
        """Wait for its end and take its counters."""
        status = self.process.wait(timeout)
        self.life.acked = self.acks.counts(self.life.threads)
        assert status in (0, -signal.SIGKILL), f"the driver ended with status {status}"
        return status

    def wait_stopped(self) -> None:
        """Wait until it has stopped itself at a kill point."""
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.process.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            raise AssertionError(f"it ended without stopping (status {status})")

    def wait_phase(self, phase: int) -> None:
        self._wait(lambda: self.acks.phase >= phase, f"phase {phase}")

    def wait_acked(self, total: int) -> None:
        self._wait(lambda: sum(self.acks.counts(self.life.threads)) >= total, f"{total} records")

    def wait_quiet(self, quiet_s: float = 0.1) -> None:
        """Wait until no record was accepted for a while: all its threads stand still."""
        before = (-1, time.monotonic())
        deadline = time.monotonic() + 30
        while True:
            count = sum(self.acks.counts(self.life.threads))
            now = time.monotonic()
            assert now < deadline, "its threads go on although nothing is written"
            if count != before[0]:
                before = (count, now)
            elif now - before[1] > quiet_s:
                return
            time.sleep(0.005)

    def _wait(self, done: Any, what: str) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert self.process.poll() is None, f"it ended before {what}"
            assert time.monotonic() < deadline, f"no {what} within a minute"
            time.sleep(0.0005)


class Scene:
    """A run directory, the lives that recorded into it, and their counters."""

    def __init__(self, folder: Path, driver: Path, prefix: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.run = folder / "run"
        self.run.mkdir()
        self.driver = driver / "driver"
        self.prefix = prefix
        self.lives: list[Life] = []
        self._processes: list[subprocess.Popen[Any]] = []

    def start(self, settings: Settings, env: Mapping[str, str] | None = None) -> Process:
        """Start a process that records until it is killed (or has its records)."""
        life = Life(
            number=len(self.lives) + 1,
            threads=settings.threads,
            fill=settings.fill,
            keys=settings.keys,
            segment=settings.segment,
            device=settings.device != 0,
        )
        self.lives.append(life)
        acks = Acks(self.folder / f"acks-{life.number}")
        command = [*self.prefix, self.driver, "record", f"dir={self.run}", f"acks={acks.path}"]
        command += [f"life={life.number}", *settings.arguments()]
        # close_fds=False lets Python use vfork(): twice as many lives a second.
        process = subprocess.Popen(command, env={**os.environ, **(env or {})}, close_fds=False)
        self._processes.append(process)
        return Process(life, acks, process)

    def record(self, settings: Settings, env: Mapping[str, str] | None = None) -> int:
        return self.start(settings, env).wait()

    def start_recovery(self, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [self.driver, "recover", f"dir={self.run}"],
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            text=True,
            close_fds=False,
        )
        self._processes.append(process)
        return process

    def end(self) -> None:
        """Kill what a failed test left running."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                process.communicate()

    def recover(self, env: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Recover to the end; return the reports."""
        process = self.start_recovery(env)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, f"recovery ended with status {process.returncode}"
        return [json.loads(line) for line in output.splitlines()]

    def recover_until_killed(self, point: str) -> bool:
        """Recover with a kill point; True when it was passed."""
        process = self.start_recovery({"FASTLOG_KILL_AT": point})
        process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL)
        return process.returncode != 0

    def rings(self) -> list[Path]:
        return sorted((self.run / ".fastlog").glob("*.ring"))

    def check(self, *, leftovers: bool = True) -> Verdict:
        """Ask the oracle; a scene that fails is kept under build/crash/failed."""
        verdict = check_run(self.run, self.lives, leftovers=leftovers)
        if verdict.violations:
            kept = ROOT / "build" / "crash" / "failed" / self.folder.name
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(self.folder, kept)
            verdict.violations.append(f"kept in {kept}")
        return verdict

    def must_hold(self) -> Verdict:
        verdict = self.check()
        assert verdict.violations == [], "\n".join(verdict.violations)
        return verdict

    def remove(self) -> None:
        shutil.rmtree(self.folder)
