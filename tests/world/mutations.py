"""The mutation check of the world test: old faults put back, and scripts that notice.

    python tests/world/mutations.py [WORDS OF A NAME...]

Works on a copy of the package, whose extension is built anew for each (a minute); the script must
find nothing with the sources as they are. The status is 1 when a mutant survived.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Mutation:
    """A fault.

    Attributes:
        name: What is broken.
        file: In the checkout.
        old: The text there, which must occur exactly once.
        new: What takes its place.
        script: Who must notice, in scripts/.
        times: How often it is played: some faults need luck.
    """

    name: str
    file: str
    old: str
    new: str
    script: str
    times: int = 3


MUTATIONS = (
    Mutation(
        "recovery takes the rings of the living",
        "csrc/core/recovery.cpp",
        "        if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return true;\n"
        "        if (errno != EWOULDBLOCK",
        "        ::flock(fd, LOCK_EX | LOCK_NB);\n        return true;\n"
        "        if (errno != EWOULDBLOCK",
        "recovery_beside_the_living",
    ),
)


class Workshop:
    """A copy of the package, and its build."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("csrc", "foundry_fastlog"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so"))
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder / name)

    def build(self) -> None:
        """Build the extension beside the package."""
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        # Not optimized, which is quick, and with assertions.
        env = {**os.environ, "FASTLOG_DEBUG": "1"}
        done = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"does not build:\n{done.stdout}{done.stderr}")

    def notices(self, mutation: Mutation) -> bool:
        """Play a script with the copy; True when it finds something."""
        script = HERE / "scripts" / f"{mutation.script}.jsonl"
        command = [sys.executable, "-m", "tests.world", "--script", str(script)]
        done = subprocess.run(
            [*command, "--times", str(mutation.times)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        if "worlds, violations:" not in done.stdout:
            raise SystemExit(f"{script} could not be played:\n{done.stdout}{done.stderr}")
        return done.returncode != 0


def check(mutations: list[Mutation]) -> int:
    """Check mutations, print a line for each; return how many survived."""
    survived = 0
    with tempfile.TemporaryDirectory(prefix="fastlog-world-mutations-") as folder:
        workshop = Workshop(Path(folder))
        workshop.build()
        for mutation in mutations:
            if workshop.notices(mutation):
                raise SystemExit(f"{mutation.script} fails with the sources as they are")
        for mutation in mutations:
            path = workshop.folder / mutation.file
            before = path.read_text(encoding="utf-8")
            if before.count(mutation.old) != 1:
                raise SystemExit(f"{mutation.name}: its text is not (once) in {mutation.file}")
            path.write_text(before.replace(mutation.old, mutation.new), encoding="utf-8")
            workshop.build()
            noticed = workshop.notices(mutation)
            path.write_text(before, encoding="utf-8")
            survived += not noticed
            print(f"{mutation.name:58} {'noticed' if noticed else 'SURVIVED'} {mutation.script}")
    print(f"{len(mutations)} mutations, {len(mutations) - survived} noticed, {survived} survived")
    return survived


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only those whose name has one of these words")
    words = parser.parse_args().words
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    return 1 if check(chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
