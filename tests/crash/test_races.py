"""ThreadSanitizer over what threads share in csrc/core: ring, recorder, flush thread.

The programs of test_protocol.py's TSan test and of the kills, run for minutes with ever new
settings and to their end: closed, not killed.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from crash.driving import Scene, Settings, build, draw_settings, fix_addresses, size

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
    """Run the ring alone."""
    command = [*fix_addresses(), program, str(records)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{PRODUCERS * records} records\n"


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
