"""Each broken step of the protocol makes the test fail that is named for it."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from crash.driving import HERE, RELEASE
from crash.mutations import CPP, MUTATIONS, ROOT


def count_noticed(script: Path, *options: str) -> dict[str, int]:
    """Run a mutation check, in which no mutant may survive; return its counts."""
    command = [sys.executable, str(script), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.fullmatch(
        r"(\d+) mutations, (\d+) noticed, 0 survived", done.stdout.splitlines()[-1]
    )
    assert counts
    assert counts[1] == counts[2] != "0"
    return {"mutations": int(counts[1]), "noticed": int(counts[2])}


def count_places(file: str, text: str) -> int:
    """Count how often a text is in a file of csrc, or of csrc/core."""
    found = [ROOT / "csrc" / folder / file for folder in ("", "core")]
    return sum(path.read_text("utf-8").count(text) for path in found if path.is_file())


def test_each_mutation_has_its_place_and_its_test() -> None:
    """What a change of the sources or the tests takes away is seen at once, not after an hour."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"]
    listed = subprocess.run([*command, HERE], capture_output=True, text=True, check=True).stdout
    tests = {line.removeprefix("tests/crash/") for line in listed.splitlines()}
    tests |= {test.partition("[")[0] for test in tests}
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "cpp").glob("*.cpp"))
    cases = re.findall(r'TEST_CASE\(\s*"([^"]*)"', sources)
    faults = []
    for mutation in MUTATIONS:
        if mutation.test.startswith(CPP):
            known = bool(fnmatch.filter(cases, mutation.test.removeprefix(CPP)))
        else:
            known = mutation.test in tests
        if not known or count_places(mutation.file, mutation.old) != 1:
            faults.append(mutation.name)
    assert faults == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not RELEASE, reason="builds anew each time: `make crash`")
def test_broken_protocols_are_noticed(figures: dict[str, Any]) -> None:
    """No mutant survives."""
    figures.update(count_noticed(HERE / "mutations.py"))
