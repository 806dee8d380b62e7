"""Play worlds by hand: ``python -m tests.world --seed 1 --seconds 60``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from world.driver import Result, play
from world.minimise import minimise
from world.schedule import WEIGHTS, Schedule, draw
from world.session import Session


def show(schedule: Schedule, result: Result) -> None:
    counts = dict(result.counts)
    print(f"seed {schedule.seed} {schedule.disk}: {counts}", flush=True)
    for violation in result.violations[:8]:
        print(f"  VIOLATION {violation.kind}: {violation.text}", flush=True)


def print_script(
    session: Session, schedule: Schedule, kind: str, arguments: argparse.Namespace
) -> None:
    def fails(candidate: Schedule) -> bool:
        return any(kind in play(session, candidate).kinds for _ in range(max(3, arguments.times)))

    least = minimise(schedule, fails, arguments.minimise)
    print(f"# {kind}, {len(least.actions)} actions of {len(schedule.actions)}")
    print(least.dump(), end="")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.world", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first world's; then the next")
    parser.add_argument("--seconds", type=float, default=20.0, help="begin no world after that")
    parser.add_argument("--only", default="", help=f"actions to draw: {','.join(WEIGHTS)}")
    parser.add_argument("--without", default="", help="actions to leave out")
    parser.add_argument("--script", type=Path, help="play this one instead")
    parser.add_argument("--times", type=int, default=1, help="how often to play a script")
    parser.add_argument(
        "--minimise",
        type=float,
        metavar="SECONDS",
        help="look for the least actions that fail, and print them as a script",
    )
    parser.add_argument("--kind", help="of violation, to minimise; by default a world's first")
    arguments = parser.parse_args()
    only, without = (
        [name for name in text.split(",") if name] for text in (arguments.only, arguments.without)
    )
    kinds: Counter[str] = Counter()
    begun = time.monotonic()
    worlds = 0
    with Session() as session:
        while True:
            if arguments.script:
                schedule = Schedule.load(arguments.script.read_text())
            else:
                schedule = draw(arguments.seed + worlds, only, without)
            result = play(session, schedule)
            show(schedule, result)
            kinds.update(result.kinds)
            worlds += 1
            if result.kinds and arguments.minimise and arguments.kind in (None, *result.kinds):
                print_script(
                    session, schedule, arguments.kind or result.violations[0].kind, arguments
                )
                return 1
            if arguments.script and worlds >= arguments.times:
                break
            if not arguments.script and time.monotonic() - begun > arguments.seconds:
                break
    print(f"{worlds} worlds, violations: {dict(kinds)}")
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
