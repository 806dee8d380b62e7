"""The soak: one process that records for long while others die around it and the disk fills up."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
from crash.acked import Life, check_run
from crash.driving import HERE, ROOT, size
from crash.python_lives import recover
from crash.steady import MIB, MOST_GROWTH, Sample, ends, find_growth, read_samples

SHIM = HERE.parent / "faults" / "shim.c"


class Soak:
    """The processes of a soak and the disk's faults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.run.mkdir(parents=True)
        self._full = folder / "disk-is-full"
        self._faults = folder / "faults"
        self._faults.touch()
        library = folder / "shim.so"
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
        assert compiler is not None, "a C compiler builds the package, so there is one"
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", library, SHIM, "-ldl"]
        subprocess.run(command, check=True)
        self._env = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "FAULT_DIR": str(self.run),
            "FAULT_SWITCH": str(self._full),
            "FAULT_CALL": "pwrite",
            "FAULT_ERRNO": str(ENOSPC),
            "FAULT_SUFFIX": ".jsonl",
            "FAULT_LOG": str(self._faults),
        }
        self._processes: dict[str, subprocess.Popen[Any]] = {}

    def start(self, part: str, seconds: float, seed: int) -> None:
        """Start one of the two processes of soak_lives.py."""
        # Python 3.12 warns of every fork of a process with threads: what this is about.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", HERE / "soak_lives.py"]
        with (self._output(part)).open("w") as output, self._errors(part).open("w") as errors:
            self._processes[part] = subprocess.Popen(
                [*command, part, self.folder, str(seconds), str(seed)],
                stdout=output,
                stderr=errors,
                env=self._env,
                start_new_session=True,
            )

    def running(self) -> bool:
        """Tell whether both still run."""
        return all(process.poll() is None for process in self._processes.values())

    def fill_disk(self, seconds: float) -> bool:
        """Let every write of lines fail for a while; True when one did."""
        before = self._faults.stat().st_size
        self._full.touch()
        time.sleep(seconds)
        self._full.unlink()
        return self._faults.stat().st_size > before

    def finish(self, part: str) -> dict[str, int]:
        """Wait for a process, which must end well; return what it counted."""
        try:
            status = self._processes[part].wait(180)
        except subprocess.TimeoutExpired:
            status = None
        assert status == 0, f"{part}: {status}\n{self._errors(part).read_text()[-4000:]}"
        counts: dict[str, int] = json.loads(self._output(part).read_text().splitlines()[-1])
        return counts

    def end(self) -> None:
        """Kill what a failed test left running, children included."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def lives(self) -> list[Life]:
        """All that recorded, with their counters."""
        lives = []
        for path in sorted(self.folder.glob("*.lives")):
            for line in path.read_text(encoding="utf-8").splitlines():
                life = Life(**json.loads(line))
                counters = self.folder / f"acks-{life.number}"
                words = counters.read_bytes() if counters.exists() else b""
                # Killed before it had them: it has recorded nothing.
                words = words.ljust(64 * (life.threads + 1), b"\0")
                life.acked = [
                    struct.unpack_from("<Q", words, 64 * (thread + 1))[0]
                    for thread in range(life.threads)
                ]
                lives.append(life)
        return lives

    def _output(self, part: str) -> Path:
        return self.folder / f"{part}.out"

    def _errors(self, part: str) -> Path:
        return self.folder / f"{part}.err"


@pytest.fixture
def soak(tmp_path: Path) -> Iterator[Soak]:
    """The processes, not started yet."""
    soak = Soak(tmp_path / "soak")
    yield soak
    soak.end()


def must_hold(soak: Soak) -> int:
    """Ask the oracle; return how many records were acked. What fails is kept."""
    verdict = check_run(soak.run, soak.lives())
    if verdict.violations:
        kept = ROOT / "build" / "crash" / "failed" / "soak"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(soak.folder, kept)
    assert verdict.violations == [], "\n".join(verdict.violations)
    return verdict.acked


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_long_run_stays_whole_and_the_same_size(soak: Soak, figures: dict[str, Any]) -> None:
    """Kills, forks and a full disk for minutes: nothing is lost, nothing grows, nothing is left."""
    seconds = size(600, 15)
    rng = random.Random(6)
    soak.start("trainer", seconds, seed=7)
    soak.start("ranks", seconds - 1, seed=8)
    end = time.monotonic() + seconds - 2
    phases = 0
    while soak.running() and time.monotonic() < end:
        time.sleep(rng.uniform(0.5, size(6, 2)))
        phases += soak.fill_disk(rng.uniform(0.3, size(4, 1)))
    ranks, trainer = soak.finish("ranks"), soak.finish("trainer")
    recover(soak.run)

    samples = read_samples(soak.folder / "samples")
    # Within seconds arenas still fill, on a busy machine late: the long run judges what is left.
    assert find_growth(samples, size(MOST_GROWTH, 4 * MIB)) == []
    first, last = ends(samples, "rss")
    figures["kills"] = ranks["kills"] + trainer["kills"]
    figures["forks"] = trainer["forks"]
    figures["spawned"] = trainer["spawned"]
    figures["times without space"] = phases
    figures["acked records"] = must_hold(soak)
    figures["violations"] = 0
    figures["MiB RSS behind the warm-up"] = round(first / MIB, 1)
    figures["MiB RSS at the end"] = round(last / MIB, 1)
    assert phases > 0
    assert trainer["errors"] > 0, "the trainer did not notice that the disk was full"


def make_samples(
    growth: Callable[[float], float] = lambda t: 0.0, *, fds: float = 0, threads: float = 0
) -> list[Sample]:
    """Make samples of ten minutes: 30 MiB with noise and peaks, and what grows, in MiB or units."""
    rng = random.Random(9)
    samples = []
    for i in range(600):
        rss = 30 + rng.gauss(0, 0.1) + (20 if rng.random() < 0.05 else 0) + growth(i / 599)
        samples.append(Sample(i, int(rss * MIB), 10 + int(fds * i), 5 + int(threads * i)))
    return samples


def test_a_process_that_stays_the_same_is_passed() -> None:
    """Noise, peaks, and growth within the warm-up are no growth."""
    assert find_growth(make_samples()) == []
    assert find_growth(make_samples(lambda t: min(t, 0.3) * 100)) == []
    assert find_growth(make_samples(lambda t: -5 * t)) == []


def test_a_slow_leak_is_found() -> None:
    """Three MiB in ten minutes, evenly: seen by the fit."""
    assert any("steadily" in sentence for sentence in find_growth(make_samples(lambda t: 3 * t)))


@pytest.mark.parametrize("at", [0.55, 0.65, 0.8])
def test_a_step_is_found(at: float) -> None:
    """Two MiB more at once, behind the warm-up: seen by the medians of the ends."""
    found = find_growth(make_samples(lambda t: 2.0 if t > at else 0.0))
    assert any("grew from 30.0 to 32.0 MiB" in sentence for sentence in found)


def test_the_bound_is_what_it_says() -> None:
    """Half of the allowed growth passes, twice of it does not."""
    most = MOST_GROWTH / MIB
    assert find_growth(make_samples(lambda t: (t - 1 / 3) * 1.5 * most / 2)) == []
    assert len(find_growth(make_samples(lambda t: (t - 1 / 3) * 1.5 * most * 2))) == 2


def test_leaked_files_and_threads_are_found() -> None:
    """A descriptor or a thread that stays open every two minutes."""
    assert find_growth(make_samples(fds=1 / 120)) == ["fds grew from 12 to 14"]
    assert find_growth(make_samples(threads=1 / 120)) == ["threads grew from 7 to 9"]


def test_too_few_samples_are_no_evidence() -> None:
    """A process that was hardly looked at is not passed."""
    with pytest.raises(ValueError, match="say nothing"):
        find_growth(make_samples()[:9])
