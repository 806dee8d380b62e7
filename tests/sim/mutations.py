"""The mutation check of the simulation: old faults and broken steps, and which world shows them.

    python tests/sim/mutations.py [WORDS OF A NAME...]

The patches are those of tests/world (faults of the past) and of tests/crash (steps of the
protocol). A mutant survived when nothing was found in a minute of a core.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import mutants  # noqa: E402 - the path comes first
from crash.mutations import MUTATIONS as STEPS  # noqa: E402
from mutants import ROOT, Mutation  # noqa: E402
from world.mutations import MUTATIONS as FAULTS  # noqa: E402

#: A minute of a core, however many share it.
WORLDS = 25_000
#: Of the past: two writers of one file, a living writer in quarantine, a stale ring in a copy.
OLD = (
    "a name that is taken is no reason to take another",
    "a pointer has its name before its bytes, and is damaged when empty",
    "a copy's offsets are believed, and what lies behind them is cut",
)
#: What the simulation itself found.
FOUND = mutants.read(HERE / "mutations.txt")
CHOSEN = (
    *OLD,
    "nobody asks whether a file has its name still",
    "a batch counts as written without a look behind it",
    "recovery takes the rings of the living",
    "head moves before the commit slot is published",
    "commit before write",
    "older commit slot preferred",
    "pad taken for a record by recovery",
    "recovery does not cut torn lines",
    "recovery does not know the segments that were begun",
    "recovery keeps lines twice that were being moved",
    "lines moved after a failed fsync stay where they were, too",
    "after a power loss all is written again",
)
BUILT = ROOT / "build" / "core" / "plain"


def mutations() -> list[Mutation]:
    known = {broken.name: broken for broken in (*FAULTS, *STEPS)}
    return [*FOUND, *(known[name] for name in CHOSEN)]


class Workshop(mutants.Workshop):
    """A copy of csrc, and its build, which begins with what is built already."""

    def __init__(self, folder: Path) -> None:
        self.csrc = folder / "csrc"
        self.build_folder = folder / "build"
        shutil.copytree(ROOT / "csrc", self.csrc)
        mutants.build(["make", "--no-print-directory", "-C", HERE, "-j2"])
        shutil.copytree(BUILT, self.build_folder)
        for names in self.build_folder.glob("*.d"):
            text = names.read_text(encoding="utf-8").replace(str(BUILT), str(self.build_folder))
            names.write_text(text.replace("../../csrc", str(self.csrc)), encoding="utf-8")

    def ready(self, mutations: Sequence[Mutation]) -> None:
        # Few worlds: test_sim.py has looked at the others.
        found, said = self._play(WORLDS // 25)
        if found:
            raise SystemExit(f"in a world of the sources as they are: {said}")

    def ask(self, mutation: Mutation) -> tuple[bool, str]:
        return self._play()

    def _play(self, worlds: int = WORLDS) -> tuple[bool, str]:
        command = ["make", "--no-print-directory", "-C", HERE, "-j2", f"CSRC={self.csrc}"]
        mutants.build([*command, f"BUILD={self.build_folder}", "WERROR="])
        play = [self.build_folder / "sim", "--worlds", str(worlds), "--as-it-is"]
        done = subprocess.run(play, capture_output=True, text=True, check=False)
        *_, figures = done.stdout.splitlines() or [""]
        found = re.match(r"(\S+) in world", done.stdout)
        kind = found[1] if found else f"status {done.returncode}"
        return done.returncode != 0, f"{kind:16} {figures}"


if __name__ == "__main__":
    sys.exit(mutants.main(__doc__, mutations(), Workshop))
