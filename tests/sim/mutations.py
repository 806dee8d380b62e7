"""The mutation check of the simulation: old faults and broken steps, and which world shows them.

    python tests/sim/mutations.py [--quick] [WORDS OF A NAME...]

Works on a copy of csrc. The patches are those of tests/world (faults of the past) and of
tests/crash (steps of the protocol). The status is 1 when a mutant survived a
minute of a core.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from crash.mutations import MUTATIONS as STEPS  # noqa: E402 - the path comes first
from world.mutations import MUTATIONS as FAULTS  # noqa: E402
from world.mutations import Patch, put_patches  # noqa: E402

#: A minute of a core, however many share it.
WORLDS = 25_000


@dataclass(frozen=True)
class Mutation:
    """What is broken, and by which patches."""

    name: str
    patches: tuple[Patch, ...]


#: Of the past: two writers of one file, a living writer in quarantine, a stale ring in a copy.
OLD = (
    "a name that is taken is no reason to take another",
    "a pointer has its name before its bytes, and is damaged when empty",
    "a copy's offsets are believed, and what lies behind them is cut",
)
#: What the simulation itself found.
FOUND = (
    Mutation(
        "a cut that failed is not tried again by whoever ends",
        (Patch("core/batch_writer.cpp", "commit()) && cut_moved() && ok", "commit()) && ok"),),
    ),
    Mutation(
        "who closes never comes to an end",
        (Patch("core/batch_writer.cpp", "        ok = ok && !error;\n", "        ok = false;\n"),),
    ),
)
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
#: CI has little time for builds.
QUICK = (*OLD, "recovery takes the rings of the living", "commit before write")


def mutations() -> list[Mutation]:
    """Those that the simulation is to notice."""
    known = {fault.name: Mutation(fault.name, fault.patches) for fault in FAULTS}
    for step in STEPS:
        file = step.file if "/" in step.file else f"core/{step.file}"
        known[step.name] = Mutation(step.name, (Patch(file, step.old, step.new),))
    return [*FOUND, *(known[name] for name in CHOSEN)]


class Workshop:
    """A copy of csrc, and its build."""

    def __init__(self, folder: Path) -> None:
        self.csrc = folder / "csrc"
        self.build_folder = folder / "build"
        shutil.copytree(ROOT / "csrc", self.csrc)

    def build(self) -> None:
        """Build what changed."""
        command = ["make", "--no-print-directory", "-C", str(HERE), f"-j{os.cpu_count() or 2}"]
        command += [f"BUILD={self.build_folder}", f"CSRC={self.csrc}"]
        env = {**os.environ, "CXXFLAGS": "-O1 -Wno-error"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"does not build:\n{done.stdout}{done.stderr}")

    def patch(self, mutation: Mutation) -> dict[Path, str]:
        """Break it; return the files as they were."""
        return put_patches(self.csrc, mutation.name, mutation.patches)

    def play(self) -> tuple[str, str]:
        """Play worlds; return the kind of what was found, or "", and the figures."""
        command = [self.build_folder / "sim", "--worlds", str(WORLDS), "--as-it-is"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        *_, figures = done.stdout.splitlines() or [""]
        if done.returncode == 0:
            return "", figures
        found = re.match(r"(\S+) in world", done.stdout)
        return (found[1] if found else f"status {done.returncode}"), figures


def check(chosen: list[Mutation]) -> int:
    """Check mutations, print a line for each; return how many survived."""
    survived = 0
    with tempfile.TemporaryDirectory(prefix="fastlog-sim-mutations-") as folder:
        workshop = Workshop(Path(folder))
        workshop.build()
        if found := workshop.play()[0]:
            raise SystemExit(f"{found} in a world of the sources as they are")
        for mutation in chosen:
            before = workshop.patch(mutation)
            workshop.build()
            kind, figures = workshop.play()
            for path, text in before.items():
                path.write_text(text, encoding="utf-8")
            survived += not kind
            print(f"{mutation.name:66} {kind or 'SURVIVED':16} {figures}", flush=True)
    print(f"{len(chosen)} mutations, {len(chosen) - survived} noticed, {survived} survived")
    return survived


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only those that CI asks")
    parser.add_argument("words", nargs="*", help="only those whose name has one of these words")
    given = parser.parse_args()
    chosen = [
        mutation
        for mutation in mutations()
        if (mutation.name in QUICK or not given.quick)
        and (not given.words or any(word in mutation.name for word in given.words))
    ]
    return 1 if check(chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
