"""Kills while the metrics stream waits for values of a device and the other streams go on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

import pytest
import rings
from crash.driving import Scene, Settings
from crash.ring_file import RingFile
from crash.test_kill_points import (
    RECOVERY_WRITING,
    WRITING,
    kill_recovery_at_each_pass,
    start_and_hold,
)

MakeScene = Callable[[], Scene]

WAITING = Settings(threads=3, ring=1 << 14, segment=4096, flush_us=100, block_ms=5, device=20_000)


def leave_stream_behind(scene: Scene, settings: Settings = WAITING) -> RingFile:
    """Kill a writer when some stream is well ahead of another; return its ring."""
    for _ in range(300):
        process = scene.start(settings)
        process.wait_acked(40)
        time.sleep(0.002)
        process.kill()
        ring = RingFile(scene.rings()[0])
        if max(ring.slot().ahead) > 1000:
            return ring
        scene.recover()
    raise AssertionError("no stream was ahead in 300 lives")


@pytest.mark.parametrize("nth", [1, 2, 7, 40])
@pytest.mark.parametrize("point", WRITING)
def test_writer_killed_while_a_stream_waits_at(scene: Scene, point: str, nth: int) -> None:
    """Whatever the flush thread was doing, each accepted record is there once."""
    assert scene.record(WAITING, {"FASTLOG_KILL_AT": f"{point}:{nth}"}) == -signal.SIGKILL
    scene.recover()
    scene.must_hold()


@pytest.mark.parametrize("nth", [2, 9, 30])
@pytest.mark.parametrize("point", WRITING)
def test_bytes_of_a_record_that_waits_are_not_reused(scene: Scene, point: str, nth: int) -> None:
    """With the flush thread held anywhere, the others fill the ring and overwrite no such byte."""
    process = start_and_hold(scene, WAITING, f"{point}:{nth}")
    process.kill()
    scene.recover()
    scene.must_hold()


def test_a_stream_that_is_ahead_is_not_written_twice(scene: Scene) -> None:
    """Recovery passes over what lies behind the slot's position and is in its file already.

    Values that waited are lost with their process: null, with the reason, and nothing else is.
    """
    ring = leave_stream_behind(scene)
    slot = ring.slot()
    passed_over = [
        record
        for record in ring.pending()
        if record.kind and record.position < slot.position + slot.ahead[record.stream]
    ]
    assert passed_over
    [report] = scene.recover()
    assert report["holes"] <= WAITING.threads
    assert scene.must_hold().missing["lost"] > 0


@pytest.mark.parametrize("point", RECOVERY_WRITING)
def test_recovery_killed_with_a_stream_ahead_at_each_pass_of(scene: Scene, point: str) -> None:
    """A recovery that was killed is done again, to the same bytes."""
    for _ in range(20):  # how full the ring was decides whether its recovery rotates
        leave_stream_behind(scene)
        passes = kill_recovery_at_each_pass(scene, point, own=True)
        scene.recover()
        if passes > 1:
            return
    raise AssertionError(f"{point} was not passed")


def test_lines_behind_the_noted_place_are_met_before_a_commit(scene: Scene) -> None:
    """A recovery that is killed before that finds them there again, and writes none twice."""
    late = scene.run / "performance.jsonl"
    line = '{"timestamp":"2026-01-30T14:32:15.123456Z","seq":%d,"late":1}\n'
    late.write_text(line % 0 + line % 1)
    builder = rings.RingBuilder(ring_bytes=1 << 20, version=3)
    for _ in range(400):  # more than a batch
        builder.fragment(f'"x":"{"y" * 1000}"', stream=0)
    builder.fragment('"late":1', stream=1)
    # Offset, seq and that its file is there: the first line was noted, not the second.
    builder.streams[1][:2], builder.streams[1][5] = [len(line % 0), 1], 1
    builder.note_files(scene.run)
    builder.put(scene.run)
    assert scene.recover_until_killed("committed:1")
    scene.recover()
    assert late.read_text() == line % 0 + line % 1
    lines = (scene.run / "metrics.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(400))


@pytest.mark.parametrize("close_us", [0, 5000])
def test_all_is_there_after_a_close_with_values_under_way(scene: Scene, close_us: int) -> None:
    """close() waits for what comes, gives the rest up, and loses no line."""
    settings = Settings(
        threads=3, ring=1 << 16, records=300, flush_us=500, device=3000, close_us=close_us
    )
    assert scene.record(settings) == 0
    verdict = scene.must_hold()
    assert set(verdict.missing) <= {"timeout", "no_room"}
