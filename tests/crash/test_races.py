"""ThreadSanitizer over what threads share in csrc/core: ring, recorder, flush thread.

The programs of test_protocol.py's TSan test and of the kills, run for minutes with ever new
settings and to their end: closed, not killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from crash.driving import SANITIZED, Scene, Settings, build, draw_settings, fix_addresses, size

pytestmark = pytest.mark.skipif(not SANITIZED, reason="a build of its own: CI=true")

REPORT_STATUS = 66
PRODUCERS = 3  # of ring_race


def draw_busy_settings(rng: random.Random) -> Settings:
    """Draw settings of a life that ends by itself, with all that threads may do at once."""
    drawn = draw_settings(
        rng,
        threads=rng.choice((2, 3, 4, 8)),
        records=rng.choice((200, 1000)),
        place=rng.choice(("file", "file", "shm", "memory")),
        block_ms=rng.choice((1000, 1, 0)),
        churn=rng.choice((0, 0, 5, 100)),
        watch=rng.choice((0, 1)),
    )
    # Closed in their midst: they have records until then, however slow the machine is.
    if rng.random() < 0.3:
        drawn = draw_settings(rng, **{**vars(drawn), "records": 0, "close_us": 30_000})
    return drawn


def race_ring(program: Path, records: int, env: dict[str, str]) -> None:
    command = [*fix_addresses(), program, str(records)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{PRODUCERS * records} records\n"


def disturb(run: Path, rng: random.Random) -> None:
    """Do to a run's files what others do to them."""
    files = sorted(run.glob("*.jsonl"))
    rings = sorted((run / ".fastlog").glob("*.ring"))
    deed = rng.choice(("unlink", "rename", "truncate", "replace", "rings", "remove", "sleep"))
    with contextlib.suppress(OSError):
        if deed == "remove":
            shutil.rmtree(run)
        elif deed == "rings":
            rng.choice(rings or [run]).unlink()
        elif deed == "sleep" or not files:
            time.sleep(0.05)
        elif deed == "rename":
            file = rng.choice(files)
            file.rename(f"{file}.{rng.randrange(100)}")
        elif deed == "truncate":
            file = rng.choice(files)
            os.truncate(file, rng.randint(0, file.stat().st_size))
        else:
            file = rng.choice(files)
            file.unlink()
            if deed == "replace":
                file.write_bytes(b"")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_races_while_files_are_taken_away(tmp_path: Path, figures: dict[str, Any]) -> None:
    """Files and the run go under the threads, dead rings are collected beside: no report."""
    programs = build("tsan", "driver")
    env = {"TSAN_OPTIONS": f"halt_on_error=1 exitcode={REPORT_STATUS}"}
    rng = random.Random(7)
    figures.update({"lives": 0, "deeds": 0, "reports": 0})
    begun = time.monotonic()
    while time.monotonic() - begun < size(120, 1):
        scene = Scene(tmp_path / f"scene-{figures['lives']}", programs, fix_addresses())
        try:
            settings = draw_settings(rng, records=0, close_us=6_500_000, threads=3, segment=4096)
            living = scene.start(settings, env)  # longer than its collector waits
            for _ in range(2):
                dead = scene.start(draw_settings(rng, records=0), env)
                dead.wait_acked(20)
                assert dead.kill() == -signal.SIGKILL
            while living.process.poll() is None:
                disturb(scene.run, rng)
                figures["deeds"] += 1
                time.sleep(rng.random() / 20)
            assert living.wait() == 0, settings
            figures["lives"] += 1
        finally:
            scene.end()
        scene.remove()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_races_in_the_record_path(tmp_path: Path, figures: dict[str, Any]) -> None:
    """Threads that come, go, record, drop, wait, flush, ask and close: no report, no loss."""
    programs = build("tsan", "driver", "ring_race")
    rng = random.Random(5)
    watched_s = 0.0
    total = {"lives": 0, "reports": 0, "violations": 0, "acked records": 0, "drop markers": 0}
    while watched_s < size(300, 8):
        scene = Scene(tmp_path / f"scene-{total['lives']}", programs, fix_addresses())
        env = {"TSAN_OPTIONS": f"halt_on_error=1 exitcode={REPORT_STATUS}"}
        env["TSAN_OPTIONS"] += f" random_seed={rng.randrange(1 << 30)}"
        begun = time.monotonic()
        try:
            settings = draw_busy_settings(rng)
            for _ in range(rng.randint(1, 2)):
                assert scene.record(settings, env) == 0, settings
                total["lives"] += 1
            race_ring(programs / "ring_race", 10_000, {**os.environ, **env})
            watched_s += time.monotonic() - begun
        finally:
            scene.end()
        verdict = scene.must_hold()
        assert verdict.extra == 0, "all was acked: nobody was killed"
        total["acked records"] += verdict.acked
        total["drop markers"] += verdict.drops
        scene.remove()
    figures["seconds under TSan"] = round(watched_s)
    figures.update(total)
