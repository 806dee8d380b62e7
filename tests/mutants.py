"""Mutation checks: patches that break a copy of csrc one after the other, and who is asked."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


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
    """Something that is broken.

    Attributes:
        name: What it is.
        patches: What breaks it; where several things protect from it, none of them does.
        test: Who must notice.
        variant: The build for that.
        times: How often it is tried at most: some faults need luck.
    """

    name: str
    patches: tuple[Patch, ...]
    test: str
    variant: str
    times: int


def read(path: Path) -> tuple[Mutation, ...]:
    """Read a file of mutations: blocks with a name, fields, and patches as of `diff`."""
    found = []
    for block in path.read_text(encoding="utf-8").rstrip("\n").split("\n\n"):
        head, *places = block.split("\n--- ")
        name, *fields = head.splitlines()
        given = {"test": "", "variant": "plain", "times": "3"}
        given.update(field.split(" ", 1) for field in fields)
        patches = []
        for file, *lines in (place.split("\n") for place in places):
            old, new = ("\n".join(x[1:] for x in lines if x[0] == sign) for sign in "-+")
            patches.append(Patch(file, old, new))
        test, variant, times = given["test"], given["variant"], int(given["times"])
        found.append(Mutation(name.removeprefix("# "), tuple(patches), test, variant, times))
    return tuple(found)


class Workshop:
    """A copy of the sources, its build, and who is asked about it.

    Attributes:
        csrc: The copy.
    """

    csrc: Path

    def ready(self, mutations: Sequence[Mutation]) -> None:
        """Build the sources as they are, of which nobody may complain."""
        raise NotImplementedError

    def ask(self, mutation: Mutation) -> tuple[bool, str]:
        """Build what changed; return whether the mutation was noticed, and what was said."""
        raise NotImplementedError

    def check(self, mutation: Mutation) -> bool:
        """Break the copy, ask, mend it; print a line."""
        begun = time.monotonic()
        before: dict[Path, str] = {}
        for patch in mutation.patches:
            path = self.csrc / patch.file
            text = path.read_text(encoding="utf-8")
            if text.count(patch.old) != 1:
                raise SystemExit(f"{mutation.name}: a text is not (once) in {patch.file}")
            before.setdefault(path, text)
            path.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
        noticed, said = self.ask(mutation)
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")
        verdict = "noticed" if noticed else "SURVIVED"
        took = time.monotonic() - begun
        sys.stdout.write(f"{mutation.name:68} {verdict:8} {said} ({took:.0f} s)\n")
        sys.stdout.flush()
        return noticed


def build(command: Sequence[object], **options: Any) -> None:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    if done.returncode != 0:
        raise SystemExit(f"does not build:\n{done.stdout}{done.stderr}")


def main(doc: str, mutations: Sequence[Mutation], make: Callable[[Path], Workshop]) -> int:
    """Check those that the command line names, or all; the status is 1 when one survived."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only those whose name has one of these words")
    words = parser.parse_args().words
    chosen = [m for m in mutations if not words or any(word in m.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="fastlog-mutations-") as folder:
        workshop = make(Path(folder))
        workshop.ready(chosen)
        noticed = sum(workshop.check(mutation) for mutation in chosen)
    survived = len(chosen) - noticed
    sys.stdout.write(f"{len(chosen)} mutations, {noticed} noticed, {survived} survived\n")
    return int(survived > 0)


def count_noticed(script: Path, *words: str) -> dict[str, int]:
    """Run a mutation check, in which no mutant may survive; return its counts."""
    command = [sys.executable, str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.fullmatch(
        r"(\d+) mutations, (\d+) noticed, 0 survived", done.stdout.splitlines()[-1]
    )
    assert counts
    assert counts[1] == counts[2] != "0"
    return {"mutations": int(counts[1]), "noticed": int(counts[2])}


def misplaced(mutations: Sequence[Mutation]) -> list[str]:
    """Mutations whose texts are not, once each, in the sources as they are."""
    csrc = ROOT / "csrc"
    return [
        mutation.name
        for mutation in mutations
        for patch in mutation.patches
        if (csrc / patch.file).read_text("utf-8").count(patch.old) != 1
    ]
