"""Each broken step of the protocol makes the test fail that is named for it."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from typing import Any

import pytest
from crash.driving import HERE, RELEASE
from crash.mutations import CPP, MUTATIONS, ROOT
from mutants import count_noticed, misplaced


def test_each_mutation_has_its_place_and_its_test() -> None:
    """What a change of the sources or the tests takes away is seen at once, not after an hour."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"]
    listed = subprocess.run([*command, HERE], capture_output=True, text=True, check=True).stdout
    tests = {line.removeprefix("tests/crash/") for line in listed.splitlines()}
    tests |= {test.partition("[")[0] for test in tests}
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "cpp").glob("*.cpp"))
    cases = re.findall(r'TEST_CASE\(\s*"([^"]*)"', sources)
    wanted = {mutation.test for mutation in MUTATIONS} - tests
    assert [t for t in wanted if not fnmatch.filter(cases, t.removeprefix(CPP))] == []
    assert misplaced(MUTATIONS) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not RELEASE, reason="builds anew each time: `make crash`")
def test_broken_protocols_are_noticed(figures: dict[str, Any]) -> None:
    figures.update(count_noticed(HERE / "mutations.py"))
