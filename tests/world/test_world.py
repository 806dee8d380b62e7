"""Worlds at random, and those in which something once went wrong."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash.driving import CI, RELEASE, ROOT
from mutants import count_noticed, misplaced

from world.driver import play
from world.minimise import minimise
from world.mutations import MUTATIONS
from world.processes import SANITIZED
from world.schedule import Schedule, draw
from world.session import Session

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs pidfds and /proc")

#: Kinds of violations that are known and open; none when all is mended.
KNOWN: frozenset[str] = frozenset()
SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.jsonl"))
SECONDS = 3600 if RELEASE else 30 if CI else 10
#: A sanitizer's allocator ends the process when there is no memory.
WITHOUT = ("starve",) if SANITIZED else ()
#: A release looks at worlds that nobody has seen; the others at the same ones each time.
FIRST_SEED = random.SystemRandom().randrange(1 << 32) if RELEASE else 1000 if CI else 1


def schedules() -> Iterator[tuple[str, Schedule]]:
    for path in SCRIPTS:
        yield path.stem, Schedule.load(path.read_text(encoding="utf-8"))
    seed = FIRST_SEED
    while True:
        yield f"seed {seed}", draw(seed, without=WITHOUT)
        seed += 1


def explain(session: Session, name: str, schedule: Schedule, kinds: set[str]) -> str:
    """Minimise a world that fails; keep and show its script."""
    kept = ROOT / "build" / "world" / f"{name.replace(' ', '-')}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(schedule.dump(), encoding="utf-8")

    def fails(candidate: Schedule) -> bool:
        return any(play(session, candidate).kinds & kinds for _ in range(3))

    # The scripts have been minimised.
    least = schedule if schedule.seed == 0 else minimise(schedule, fails, 120)
    return f"{name}, kept in {kept}; python -m tests.world --script FILE\n{least.dump()}"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_promises_hold_in_any_world(figures: dict[str, Any]) -> None:
    """Whatever processes, files and disk do: nothing acknowledged is lost, no claim is false."""
    total: Counter[str] = Counter()
    begun = time.monotonic()
    with Session() as session:
        for name, schedule in schedules():
            if time.monotonic() - begun > SECONDS:
                break
            result = play(session, schedule)
            total.update({"worlds": 1, **result.counts})
            found = [violation for violation in result.violations if violation.kind not in KNOWN]
            if found:
                said = "\n".join(f"{violation.kind}: {violation.text}" for violation in found)
                kinds = {violation.kind for violation in found}
                pytest.fail(f"{explain(session, name, schedule, kinds)}\n{said}", pytrace=False)
    for key in ("worlds", "actions", "processes", "kills"):
        figures[key] = total[key]
    # One child in a hundred, or so; where all stop, nothing is tested.
    assert total["stuck in a sanitizer"] <= total["processes"] / 10
    figures["records acknowledged"] = total["acked"]
    figures["violations"] = 0


def test_each_old_fault_has_its_places() -> None:
    """What a change of the sources takes away is seen at once."""
    assert misplaced(MUTATIONS) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(SANITIZED or not RELEASE, reason="builds anew each time: `make crash`")
def test_old_faults_are_noticed_when_they_are_put_back(figures: dict[str, Any]) -> None:
    figures.update(count_noticed(Path(__file__).with_name("mutations.py")))
