"""SIGKILL at random instants, checked by the acked-counter oracle."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from crash.driving import OPENED, Process, Scene, Settings, draw_settings, size

from foundry_fastlog import _core

MakeScene = Callable[[], Scene]


def wait_and_kill(process: Process, settings: Settings, rng: random.Random) -> None:
    """Kill at a random instant: from before the ring exists to many laps later."""
    if settings.place == "shm":
        # Nobody finds a ring in /dev/shm whose pointer was not written yet: it would stay there.
        process.wait_phase(OPENED)
    time.sleep(rng.choice((rng.uniform(0, 0.008), rng.uniform(0, 0.04))))
    assert process.kill() != 0


def finish(scene: Scene, settings: Settings, rng: random.Random) -> str:
    """Recover in one of the three ways that there are."""
    way = rng.choice(("the recover command", "recover_run()", "the next start"))
    if way == "the recover command":
        outcomes = {report["outcome"] for report in scene.recover()}
    elif way == "recover_run()":
        outcomes = {str(report["outcome"]) for report in _core.recover_run(str(scene.run))}
    else:
        assert scene.record(Settings(records=rng.randint(1, 50), segment=settings.segment)) == 0
        outcomes = {report["outcome"] for report in scene.recover()}
    assert outcomes <= {"recovered"}
    return way


def kill_often(
    make: MakeScene,
    threads: tuple[int, ...],
    kills: int,
    seed: int,
    figures: dict[str, Any],
    device: tuple[int, ...] = (0,),
) -> Counter[str]:
    """Kill lives, several in a run, and check each run; return reasons of values not there."""
    rng = random.Random(seed)
    total = {"kills": 0, "violations": 0, "acked records": 0, "not acked, but there": 0}
    missing: Counter[str] = Counter()
    while total["kills"] < kills:
        scene = make()
        settings = draw_settings(rng, threads=rng.choice(threads), device=rng.choice(device))
        for _ in range(rng.randint(1, 4)):
            wait_and_kill(scene.start(settings), settings, rng)
            total["kills"] += 1
        finish(scene, settings, rng)
        verdict = scene.must_hold()
        total["acked records"] += verdict.acked
        total["not acked, but there"] += verdict.extra
        missing += verdict.missing
        scene.remove()
    figures.update(total, **{f"values {reason}": count for reason, count in missing.items()})
    return missing


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_one_thread_loses_nothing(scenes: MakeScene, figures: dict[str, Any]) -> None:
    """Random kills of a process that records from one thread, with rotation and wraps."""
    kill_often(scenes, (1,), size(1200, 60), 1, figures)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_threads_lose_nothing(scenes: MakeScene, figures: dict[str, Any]) -> None:
    """Random kills of a process that records from two to eight threads."""
    kill_often(scenes, (2, 3, 4, 8), size(1200, 80), 2, figures)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_streams_behind_a_device_lose_nothing(scenes: MakeScene, figures: dict[str, Any]) -> None:
    """Random kills of lives whose values arrive in time, late or never."""
    device = (200, 2000, 20_000, 100_000)
    missing = kill_often(scenes, (1, 2, 4), size(1200, 60), 6, figures, device)
    assert missing["lost"] > 0
