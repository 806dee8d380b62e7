"""Each broken step of the protocol makes the test fail that is named for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from crash.driving import HERE, RELEASE


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


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_broken_protocols_are_noticed(figures: dict[str, Any]) -> None:
    """No mutant survives; without `make crash` only the ones that the protocol's text names."""
    figures.update(count_noticed(HERE / "mutations.py", *([] if RELEASE else ["--named"])))
