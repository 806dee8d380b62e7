"""Power loss: single pages that are old or lost; tests/sim has any mixture of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from crash.acked import Life
from crash.driving import Scene, Settings
from crash.power_loss import check_image, check_untouched, read_files
from crash.ring_file import KEY_TABLE, PAD, PAGE, RingFile
from crash.test_kill_points import leave_full_ring

# One file a stream, and a record of each is written but not committed.
HELD = Settings(threads=2, ring=1 << 16, segment=1 << 20, flush_us=200, block_ms=60_000)


def leave_other_boot(
    scene: Scene, settings: Settings = HELD, point: str = "batch_written:20"
) -> tuple[Life, RingFile]:
    """A writer dies with lines written and not committed; then the machine is started anew."""
    leave_full_ring(scene, settings, point=point)
    ring = RingFile(scene.rings()[0])
    ring.set_other_boot()
    ring.save()
    return scene.lives[0], ring


def recover_and_check(scene: Scene, life: Life) -> dict[str, Any]:
    """Recover; whole lines stay, all parse, none is there twice. Returns the report."""
    image = read_files(scene.run)
    [report] = scene.recover()
    assert report["outcome"] == "recovered"
    verdict = check_image(image, read_files(scene.run), life)
    assert verdict.violations == [], "\n".join(verdict.violations)
    return report


def test_a_page_of_nuls_between_whole_lines_goes(scene: Scene) -> None:
    """A page in the middle of a file never reached the disk: its lines go, all others stay."""
    life, _ = leave_other_boot(scene)
    path = scene.run / "metrics.jsonl"
    content = bytearray(path.read_bytes())
    content[PAGE : 2 * PAGE] = bytes(PAGE)
    path.write_bytes(content)
    assert recover_and_check(scene, life)["cut_bytes"] >= PAGE


def leave_uncommitted(make: Callable[[], Scene]) -> tuple[Scene, Life, RingFile, list[bytes], int]:
    """Leave a file with more than five lines that are not committed; return the first's number."""
    for _ in range(20):
        scene = make()
        life, ring = leave_other_boot(scene, replace(HELD, flush_us=5000))
        lines = (scene.run / "metrics.jsonl").read_bytes().split(b"\n")
        first = ring.slot().streams[0][2]
        if len(lines) > first + 5:
            return scene, life, ring, lines, first
    raise AssertionError("at most five lines that are not committed, twenty times")


def test_behind_a_hole_no_line_is_written_twice(scenes: Callable[[], Scene]) -> None:
    """A record is lost in the ring and a later line in the file: numbers do not fit any more."""
    scene, life, ring, lines, first = leave_uncommitted(scenes)
    metrics = [record for record in ring.pending() if record.kind != PAD and record.stream == 0]
    ring.bytes[metrics[1].at : metrics[1].at + 8] = bytes(8)
    ring.save()
    lines[first + 3] = bytes(len(lines[first + 3]))
    (scene.run / "metrics.jsonl").write_bytes(b"\n".join(lines))
    recover_and_check(scene, life)


def test_a_recovery_behind_a_hole_that_is_killed_knows_of_it_later(scene: Scene) -> None:
    """What a killed recovery knew of lost records is in its commits."""
    life, ring = leave_other_boot(scene, replace(HELD, segment=4096))
    metrics = [record for record in ring.pending() if record.kind != PAD and record.stream == 0]
    ring.bytes[metrics[1].at : metrics[1].at + 8] = bytes(8)
    ring.save()
    for nth in range(2, 6):
        scene.recover_until_killed(f"committed:{nth}")
    recover_and_check(scene, life)


def test_records_without_a_time_are_put_aside(scene: Scene) -> None:
    """No commit slot reached the disk: nobody can say what a record's ticks mean."""
    _, ring = leave_other_boot(scene, point="batch_written:1")
    ring.bytes[PAGE : 2 * PAGE] = bytes(PAGE)
    ring.save()
    image = read_files(scene.run)
    [report] = scene.recover()
    assert report["outcome"] == "quarantined"
    assert "the times of its records are unknown" in report["reason"]
    assert check_untouched(image, read_files(scene.run)).violations == []


def test_key_sets_on_a_lost_page_are_not_guessed(scene: Scene) -> None:
    """Records whose keys did not reach the disk are left out, and said so."""
    life, ring = leave_other_boot(
        scene, replace(HELD, keys=1, ring=1 << 17), point="batch_filled:1"
    )
    published = int.from_bytes(ring.bytes[KEY_TABLE : KEY_TABLE + 8], "little")
    assert published > 2 * PAGE
    last = KEY_TABLE + published // PAGE * PAGE
    ring.bytes[last : last + PAGE] = bytes(PAGE)
    ring.save()
    assert recover_and_check(scene, life)["damaged"] > 0


def test_lines_of_somebody_else_stay(scene: Scene) -> None:
    """A line that someone added is no damage."""
    leave_other_boot(scene)
    path = scene.run / "log.jsonl"
    path.write_bytes(path.read_bytes() + b'{"note":"mine"}\n\0\0\0\0\n{"note":"also mine"}\n')
    scene.recover()
    lines = path.read_bytes().split(b"\n")
    assert b'{"note":"mine"}' in lines
    assert b'{"note":"also mine"}' in lines
    assert not any(b"\0" in line for line in lines)
