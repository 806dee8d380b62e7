"""Each broken step of the protocol makes the test fail that is named for it."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from crash.driving import HERE, RELEASE


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_broken_protocols_are_noticed(figures: dict[str, Any]) -> None:
    """No mutant survives; without `make crash` only the ones that the protocol's text names."""
    command = [sys.executable, str(HERE / "mutations.py")]
    if not RELEASE:
        command.append("--named")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.fullmatch(
        r"(\d+) mutations, (\d+) noticed, 0 survived", done.stdout.splitlines()[-1]
    )
    assert counts
    assert counts[1] == counts[2]
    figures["mutations"] = int(counts[1])
    figures["noticed"] = int(counts[2])
