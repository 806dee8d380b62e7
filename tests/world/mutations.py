"""The mutation check of the world test: old faults put back, and scripts that notice.

    python tests/world/mutations.py [WORDS OF A NAME...]

Works on a copy of the package, in which only what a fault changes is built anew; the scripts must
find nothing with the sources as they are. The status is 1 when a mutant survived.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Patch:
    """A change of one place.

    Attributes:
        file: In csrc.
        old: The text there, which must occur exactly once.
        new: What takes its place.
    """

    file: str
    old: str
    new: str


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


def put_patches(csrc: Path, name: str, patches: Sequence[Patch]) -> dict[Path, str]:
    """Put patches into a copy of csrc; return the files as they were."""
    before: dict[Path, str] = {}
    for patch in patches:
        path = csrc / patch.file
        text = path.read_text(encoding="utf-8")
        if text.count(patch.old) != 1:
            raise SystemExit(f"{name}: a text is not (once) in {patch.file}")
        before.setdefault(path, text)
        path.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
    return before


class Workshop:
    """A copy of the package, and its build."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("csrc", "foundry_fastlog"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so"))
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder / name)

    def build(self) -> None:
        """Build what changed of the extension, beside the package."""
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        # Not optimized, which is quick, and with assertions.
        env = {**os.environ, "FASTLOG_DEBUG": "1"}
        done = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"does not build:\n{done.stdout}{done.stderr}")

    def patch(self, mutation: Mutation) -> dict[Path, str]:
        """Break it; return the files as they were."""
        return put_patches(self.folder / "csrc", mutation.name, mutation.patches)

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


def check(mutations: list[Mutation]) -> int:
    """Check mutations, print a line for each; return how many survived."""
    survived = 0
    with tempfile.TemporaryDirectory(prefix="fastlog-world-mutations-") as folder:
        workshop = Workshop(Path(folder))
        workshop.build()
        for script in sorted({mutation.script for mutation in mutations}):
            if kinds := workshop.violations(script, 1):
                raise SystemExit(f"{script} fails with the sources as they are: {kinds}")
        for mutation in mutations:
            begun = time.monotonic()
            before = workshop.patch(mutation)
            workshop.build()
            kinds = workshop.violations(mutation.script, mutation.times)
            for path, text in before.items():
                path.write_text(text, encoding="utf-8")
            survived += not kinds
            print(
                f"{mutation.name:68} {'noticed' if kinds else 'SURVIVED'} "
                f"{mutation.script} {kinds} ({time.monotonic() - begun:.0f} s)",
                flush=True,
            )
    print(f"{len(mutations)} mutations, {len(mutations) - survived} noticed, {survived} survived")
    return survived


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only those whose name has one of these words")
    given = parser.parse_args()
    chosen = [
        mutation
        for mutation in MUTATIONS
        if not given.words or any(word in mutation.name for word in given.words)
    ]
    return 1 if check(chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
