"""The mutation check of the world test: old faults put back, and scripts that notice.

    python tests/world/mutations.py [WORDS OF A NAME...]

In a copy of the package only what a fault changes is built anew; the scripts must find nothing with
the sources as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import mutants  # noqa: E402 - the path comes first
from mutants import ROOT, Mutation  # noqa: E402

# Those of one file stand together, as what is built anew is the file that was mended and the next.
MUTATIONS = mutants.read(HERE / "mutations.txt")


class Workshop(mutants.Workshop):
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.csrc = folder / "csrc"
        for name in ("csrc", "foundry_fastlog"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so"))
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder / name)

    def ready(self, mutations: Sequence[Mutation]) -> None:
        self.build()
        for script in sorted({mutation.test for mutation in mutations}):
            if kinds := self.violations(script, 1):
                raise SystemExit(f"{script} fails with the sources as they are: {kinds}")

    def ask(self, mutation: Mutation) -> tuple[bool, str]:
        self.build()
        kinds = self.violations(mutation.test, mutation.times)
        return bool(kinds), f"{mutation.test} {kinds}"

    def build(self) -> None:
        """Build what changed of the extension, beside the package."""
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        # Not optimized, which is quick, and with assertions.
        mutants.build(command, cwd=self.folder, env={**os.environ, "FASTLOG_DEBUG": "1"})

    def violations(self, script: str, times: int) -> str:
        """Play a script with the copy until it finds something; return the kinds, or ''."""
        path = HERE / "scripts" / f"{script}.jsonl"
        for _ in range(times):
            done = subprocess.run(
                [sys.executable, "-m", "tests.world", "--script", str(path)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(self.folder)},
                capture_output=True,
                text=True,
                check=False,
            )
            *_, last = done.stdout.splitlines() or [""]
            _, found, kinds = last.partition("worlds, violations: ")
            if not found:
                raise SystemExit(f"{path} could not be played:\n{done.stdout}{done.stderr}")
            if done.returncode != 0:
                return kinds
        return ""


if __name__ == "__main__":
    sys.exit(mutants.main(__doc__, MUTATIONS, Workshop))
