"""Killed between each pair of steps of the protocol: the writer, and whoever recovers."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rings
from crash.acked import Life, parse
from crash.driving import SANITIZED, Process, Scene, Settings, draw_settings, size

from foundry_fastlog import read_run
from foundry_fastlog.reading.overlay import Overlay

MakeScene = Callable[[], Scene]

# Passed once in a writer's life, and often.
OPENING = ("ring_zeroed", "ring_mapped")
# Passed when the files are to lie under another label; the second passes, for the count that begins
# again there.
MOVING = ("files_left:1", "home_noted:2", "files_left:2")
BATCH = ("batch_filled", "stream_written", "rotated", "batch_written")
WRITING = (*BATCH, "slot_begun", "slot_filled", "epoch_stored", "committed")
# Passed once for each ring, and often.
RECOVERY = (
    *("recovery_before_cut", "recovery_after_cut", "recovery_synced", "recovery_unmarked"),
    "recovery_ring_removed",
)
RECOVERY_WRITING = (*BATCH, "recovery_slot_written", "recovery_epoch_written", "committed")
ALL_RECOVERY = RECOVERY + RECOVERY_WRITING
NOTED = "recovery_file_noted"  # in the ring's own run alone

FULL = Settings(threads=2, ring=1 << 16, segment=4096, flush_us=200, block_ms=0)


def leave_full_ring(scene: Scene, settings: Settings = FULL, point: str = "batch_filled:3") -> None:
    """Kill a writer whose flush thread stood still, so that its ring is full of records."""
    process = start_and_hold(scene, settings, point)
    assert process.kill() == -signal.SIGKILL


def start_and_hold(scene: Scene, settings: Settings, point: str = "batch_filled:3") -> Process:
    """Start a writer, hold its flush thread at a point, wait until the ring is full."""
    process = scene.start(settings, {"FASTLOG_KILL_AT": f"{point}:hold"})
    process.wait_stopped()
    process.signal(signal.SIGCONT)
    process.wait_quiet()
    return process


def recovered_files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("*.jsonl")}


def copy_of(scene: Scene, *, own: bool = False) -> Scene:
    """Another scene with the same files and lives; if `own`, as if they had lived there."""
    copy = Scene(scene.folder / "copy", scene.driver.parent)
    shutil.copytree(scene.run, copy.run, dirs_exist_ok=True)
    if own:
        rings.move_home(copy.run)
    copy.lives = scene.lives
    return copy


def lines_by_stream(files: dict[str, bytes]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for name, content in files.items():
        found.setdefault(name.split(".")[0], []).extend(content.splitlines())
    return {stream: sorted(lines) for stream, lines in found.items()}


def recover_a_copy(scene: Scene, *, own: bool = False) -> dict[str, bytes]:
    """What the files would be if nobody disturbed the recovery."""
    copy = copy_of(scene, own=own)
    copy.recover()
    files = recovered_files(copy.run)
    copy.remove()
    return files


@pytest.mark.parametrize("nth", [1, 2, 7])
@pytest.mark.parametrize("point", [*WRITING, "file_noted"])
def test_writer_killed_at(scene: Scene, point: str, nth: int) -> None:
    """Whatever the flush thread was doing, each accepted record is there once."""
    settings = Settings(threads=2, segment=4096, flush_us=200)
    assert scene.record(settings, {"FASTLOG_KILL_AT": f"{point}:{nth}"}) == -signal.SIGKILL
    scene.recover()
    scene.must_hold()


@pytest.mark.parametrize("point", OPENING)
def test_writer_killed_while_it_opens(scene: Scene, point: str) -> None:
    """Half a ring file is swept away when it is old, and the next start is as any other."""
    assert scene.record(Settings(), {"FASTLOG_KILL_AT": point}) == -signal.SIGKILL
    (half,) = (scene.run / ".fastlog").iterdir()
    assert half.suffix == ".tmp"
    os.utime(half, (0, 0))
    assert scene.record(Settings(records=50)) == 0
    scene.must_hold()


@pytest.mark.parametrize("point", MOVING)
def test_writer_killed_while_it_takes_another_label(scene: Scene, point: str) -> None:
    """Its lines are under the one label or the other, each once, and count from 0 under both."""
    # A life whose first message comes when there are lines of other streams.
    while "log" in {Life(len(scene.lives) + 1).stream_of(0, n) for n in range(12)}:
        scene.lives.append(Life(len(scene.lives) + 1, threads=0))
    process = scene.start(Settings(pace=30_000_000), {"FASTLOG_KILL_AT": point})
    process.life.moves = True
    process.wait_acked(4)
    (scene.run / "log.jsonl").touch(exist_ok=False)  # somebody's
    assert process.wait() == -signal.SIGKILL
    scene.recover()
    scene.must_hold()
    whole = read_run(scene.run)
    assert all(check.complete for check in whole.check()), whole.problems


@pytest.mark.parametrize("point", ["writer_unmarked", "ring_removed"])
def test_writer_killed_after_its_close(scene: Scene, point: str) -> None:
    """When close() has removed the mark, or the ring, all is there and none is missed."""
    settings = Settings(records=200)
    assert scene.record(settings, {"FASTLOG_KILL_AT": point}) == -signal.SIGKILL
    assert scene.lives[0].acked == [200]
    scene.recover()
    scene.must_hold()
    assert Overlay(scene.run).refresh() == []


@pytest.mark.parametrize("failing", [1, 2, 5])
@pytest.mark.parametrize("point", ["unsynced_moved:1", "batch_filled:4", "slot_filled:6"])
@pytest.mark.parametrize("fsync", ["every_flush", "interval"])
def test_killed_after_a_failed_fsync(scene: Scene, fsync: str, point: str, failing: int) -> None:
    """Lines that a failed fsync moved into another segment are in one of the two, not in both."""
    env = {"FASTLOG_KILL_AT": point, "FASTLOG_TEST_FAIL_SYNC": str(failing)}
    settings = Settings(threads=2, fsync=fsync, segment=1 << 20)
    assert scene.record(settings, env) == -signal.SIGKILL
    scene.recover()
    scene.must_hold()


@pytest.mark.parametrize(
    ("point", "own"),
    [*((point, own) for point in RECOVERY_WRITING for own in (True, False)), (NOTED, True)],
)
def test_recovery_killed_at_each_pass_of(scene: Scene, point: str, own: bool) -> None:
    """A recovery that was killed is done again, to the same bytes; in a copy to the same lines."""
    leave_full_ring(scene)
    assert kill_recovery_at_each_pass(scene, point, own=own) > 7


def sampled_passes() -> Iterator[int]:
    """Yield the first passes, and then ever fewer: each costs an everyday run two processes."""
    yield from range(1, 8)
    begun = random.randrange(8, 12)
    yield from itertools.count(begun, 4)


def kill_recovery_at_each_pass(scene: Scene, point: str, *, own: bool) -> int:
    """Recover a scene in copies; return at which pass nobody was killed any more."""
    undisturbed = recover_a_copy(scene, own=own)
    for nth in itertools.count(1) if SANITIZED else sampled_passes():
        copy = copy_of(scene, own=own)
        killed = copy.recover_until_killed(f"{point}:{nth}")
        copy.recover()
        found = recovered_files(copy.run)
        if own:
            assert found == undisturbed, f"killed at pass {nth}"
        else:  # each try begins segments of its own
            assert lines_by_stream(found) == lines_by_stream(undisturbed), f"killed at pass {nth}"
        copy.must_hold()
        copy.remove()
        if not killed:
            return nth
    raise AssertionError


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("point", RECOVERY)
def test_recovery_killed_at_the_nth_ring(scene: Scene, point: str, nth: int) -> None:
    """Of three rings some are recovered when the recovery is killed; then the rest is."""
    writers = [
        start_and_hold(scene, Settings(segment=4096, flush_us=200, block_ms=0, rank=rank))
        for rank in range(3)
    ]
    for writer in writers:  # only now: each would recover a dead one
        assert writer.kill() == -signal.SIGKILL
    undisturbed = recover_a_copy(scene, own=True)
    assert scene.recover_until_killed(f"{point}:{nth}")
    assert len(scene.rings()) == (3 - nth if point == "recovery_ring_removed" else 4 - nth)
    scene.recover()
    assert recovered_files(scene.run) == undisturbed
    scene.must_hold()


@pytest.mark.parametrize("point", [*ALL_RECOVERY, NOTED])
def test_next_start_killed_while_it_recovers(scene: Scene, point: str) -> None:
    """A start that dies in the recovery of the last life leaves all to the start after it."""
    leave_full_ring(scene)
    kill_at = {"FASTLOG_KILL_AT": point}
    assert scene.record(Settings(records=20), kill_at) == -signal.SIGKILL
    assert scene.record(Settings(records=20)) == 0
    scene.must_hold()


def kill_recovery(scene: Scene, rng: random.Random) -> bool:
    """Kill a recovery at a random named point, or at a random instant."""
    if rng.random() < 0.7:
        nth = rng.choice((1, 1, 2, 3, 5, 8, 13))
        return scene.recover_until_killed(f"{rng.choice(ALL_RECOVERY)}:{nth}")
    process = scene.start_recovery()
    time.sleep(rng.uniform(0, 0.006))
    process.kill()
    process.communicate()
    return process.returncode != 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_double_crashes(scenes: MakeScene, figures: dict[str, Any]) -> None:
    """The writer is killed, then recoveries at random points, until one gets through."""
    rng = random.Random(5)
    wanted = size(200, 20)
    total = {"double crashes": 0, "recoveries killed": 0, "violations": 0, "acked records": 0}
    while total["double crashes"] < wanted:
        scene = scenes()
        settings = draw_settings(
            rng, threads=rng.choice((1, 3)), place="file", ring=1 << 16, segment=4096
        )
        process = scene.start(settings)
        process.wait_acked(rng.choice((1, 100, 1000)))
        process.kill()
        killed = sum(kill_recovery(scene, rng) for _ in range(rng.randint(1, 4)))
        scene.recover()
        total["double crashes"] += killed > 0
        total["recoveries killed"] += killed
        total["acked records"] += scene.must_hold().acked
        scene.remove()
    figures.update(total)


def stop_recovery(scene: Scene, point: str) -> subprocess.Popen[str]:
    process = scene.start_recovery({"FASTLOG_KILL_AT": f"{point}:1:stop"})
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"{point} was not passed"
    return process


def resume(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("point", ALL_RECOVERY)
def test_second_recoverer_leaves_the_first_alone(scene: Scene, point: str) -> None:
    """At whatever step the first stands, the second finds the ring in use and changes nothing.

    The files hold whole lines only then, none twice, and none that goes away again.
    """
    leave_full_ring(scene)
    undisturbed = recover_a_copy(scene, own=True)
    first = stop_recovery(scene, point)
    before = recovered_files(scene.run)
    for name, raw in before.items():
        *whole, rest = raw.split(b"\n")
        assert len(set(whole)) == len(whole)
        for line in whole:
            parse(line)
        if point != "recovery_before_cut":  # a killed writer's last line may be torn until then
            assert rest == b""
            assert set(whole) <= set(undisturbed[name].split(b"\n"))
    second = [report["outcome"] for report in scene.recover()]
    assert second == ([] if point == "recovery_ring_removed" else ["live"])
    assert recovered_files(scene.run) == before
    assert [report["outcome"] for report in resume(first)] == ["recovered"]
    assert recovered_files(scene.run) == undisturbed
    scene.must_hold()
