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
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import mutants  # noqa: E402 - the path comes first
from mutants import ROOT, Patch  # noqa: E402


@dataclass(frozen=True)
class Mutation:
    """A fault; where several things protect from it, none of them does.

    Attributes:
        name: What is broken.
        script: Who must notice, in scripts/.
        patches: What breaks it.
        times: How often it is played at most: some faults need luck.
    """

    name: str
    script: str
    patches: tuple[Patch, ...]
    times: int = 3


# Those of one file stand together, as what is built anew is the file that was mended and the next.
MUTATIONS = (
    Mutation(
        "a name that is taken is no reason to take another",
        "removed_and_begun_anew",
        (
            Patch("core/stream_files.cpp", "O_CREAT | O_EXCL | O_NOFOLLOW", "O_CREAT | O_NOFOLLOW"),
            Patch("core/stream_files.cpp", "if (used.count(label_) != 0) continue;", ""),
        ),
    ),
    Mutation(
        "an open file is not known by its inode",
        "closed_descriptors",
        (
            Patch(
                "core/stream_files.cpp",
                "if (disk_.stat(f.fd, info) != 0 || id_of(info) != f.id) {",
                "if (disk_.stat(f.fd, info) != 0) {",
            ),
            Patch("core/run_files.hpp", "return fd < 0 ? fd : keep(fd);", "return fd;"),
        ),
    ),
    Mutation(
        "nobody asks whether a file has its name still",
        "renamed",
        (Patch("core/stream_files.cpp", "if (named == f.id) {", "if (f.id) {"),),
    ),
    Mutation(
        "a batch counts as written without a look behind it",
        "removed_under_the_writer",
        (
            Patch(
                "core/batch_writer.cpp",
                "if (batch_.bytes[s].empty()) continue;\n"
                "        look_at_file(static_cast<Stream>(s));",
                "if (batch_.bytes[s].empty()) continue;",
            ),
        ),
        times=12,
    ),
    Mutation(
        "a child's engine is known before its cache is empty",
        "first_records_at_once",
        (
            Patch(
                "bindings/handle.cpp",
                "            hand_over_lost_calls(own->core);\n",
                "            hand_over_lost_calls(own->core);\n"
                "            std::memcpy(static_cast<void*>(&own->key_sets), &inherited.key_sets,\n"
                "                        sizeof own->key_sets);\n",
            ),
            Patch(
                "bindings/handle.cpp",
                "    if (opened) {\n",
                "    if (opened) {\n        current().key_sets.clear();\n",
            ),
            Patch(
                "bindings/handle.cpp",
                "#include <cmath>\n",
                "#include <cmath>\n#include <cstring>\n",
            ),
        ),
    ),
    Mutation(
        "close() in a child does not wait for a first record",
        "close_beside_first_records",
        (
            Patch(
                "bindings/handle.cpp",
                "const OpeningLock lock;  // a thread may be opening the child's own",
                "//",
            ),
        ),
        times=10,
    ),
    Mutation(
        "an engine is kept while a value is asked what it is",
        "fork_in_a_value",
        (
            Patch(
                "bindings/bind_record.cpp",
                "return engine->inherited() ? find_engine_again() : 1;",
                "return 1;",
            ),
            Patch(
                "bindings/bind_record.cpp",
                "} while (call.engine->inherited());",
                "} while (false);",
            ),
        ),
    ),
    Mutation(
        "recovery takes the rings of the living",
        "recovery_beside_the_living",
        (
            Patch(
                "core/recovery.cpp",
                "        if (files.lock(fd, LOCK_EX | LOCK_NB) == 0) return true;\n"
                "        if (errno != EWOULDBLOCK",
                "        files.lock(fd, LOCK_EX | LOCK_NB);\n        return true;\n"
                "        if (errno != EWOULDBLOCK",
            ),
        ),
    ),
    Mutation(
        "a pointer has its name before its bytes, and is damaged when empty",
        "recovery_beside_starts",
        (
            Patch(
                "core/recovery.cpp",
                "return age < kYoungSeconds && age > -kYoungSeconds;",
                "return age > kYoungSeconds;",
            ),
            Patch(
                "core/ring_pointer.cpp",
                "temporary = pointer + kTemporarySuffix;",
                "temporary = pointer;",
            ),
        ),
        times=10,
    ),
    Mutation(
        "a copy's offsets are believed, and what lies behind them is cut",
        "copy_over_a_copy",
        (
            Patch(
                "core/recovery.cpp",
                "of_this_run && (!image->has_notes() ||",
                "of_this_run || (image->has_notes() ||",
            ),
            Patch(
                "core/line_inventory.cpp",
                "if (ring_.has_notes() && provenance_.own_ring) {",
                "if (ring_.has_notes() && !provenance_.own_ring) {",
            ),
            Patch(
                "core/line_inventory.cpp",
                "        if (provenance.own_ring || !provenance.rival) cut_bytes +=",
                "        if (provenance.certain()) {\n            seqs = before;\n"
                "            found.end = begin;\n        }\n"
                "        if (provenance.own_ring || !provenance.rival) cut_bytes +=",
            ),
        ),
    ),
)


class Workshop(mutants.Workshop):
    """A copy of the package, and its build."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.csrc = folder / "csrc"
        for name in ("csrc", "foundry_fastlog"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so"))
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder / name)

    def ready(self, mutations: Sequence[Mutation]) -> None:
        """Play all scripts."""
        self.build()
        for script in sorted({mutation.script for mutation in mutations}):
            if kinds := self.violations(script, 1):
                raise SystemExit(f"{script} fails with the sources as they are: {kinds}")

    def ask(self, mutation: Mutation) -> tuple[bool, str]:
        """Play the script."""
        self.build()
        kinds = self.violations(mutation.script, mutation.times)
        return bool(kinds), f"{mutation.script} {kinds}"

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
