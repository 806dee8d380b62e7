"""Time of `import foundry_fastlog` in fresh interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.summary import describe, median

HEAVY = ("torch", "wandb", "polars", "rich", "typer", "pydantic", "numpy")
"""Packages that `import foundry_fastlog` must not load."""


def with_caches(directory: str) -> dict[str, str]:
    """Return this environment with bytecode caches in `directory`, as an installed package has.

    Where they are switched off (images often do), each start would compile the sources anew.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": directory}


def start_s(code: str, env: Mapping[str, str]) -> float:
    """Return the wall time in seconds of a fresh interpreter that runs `code`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=env)
    return time.perf_counter() - start


def heavy_imports() -> list[str]:
    """Return which of `HEAVY` a fresh `import foundry_fastlog` loads."""
    code = (
        "import foundry_fastlog, sys; foundry_fastlog.Recorder; "
        f"sys.stdout.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.split()


def run(rounds: int = 15) -> dict[str, Any]:
    """Alternate between a bare interpreter, the import, and the import with `Recorder` resolved.

    Args:
        rounds: Fresh interpreters of each kind.

    Returns:
        Milliseconds: `bare`, and `import` and `recorder` as the median of the differences to the
        bare start of the same round, with percentiles; `heavy` lists packages that should not have
        been loaded.
    """
    codes = {
        "bare": "pass",
        "import": "import foundry_fastlog",
        "recorder": "from foundry_fastlog import Recorder",
    }
    times: dict[str, list[float]] = {name: [] for name in codes}
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as directory:
        env = with_caches(directory)
        for code in codes.values():
            start_s(code, env)  # writes the bytecode caches
        for turn in range(rounds):
            order = list(codes)[turn % 3 :] + list(codes)[: turn % 3]
            for name in order:
                times[name].append(start_s(codes[name], env) * 1e3)
    result: dict[str, Any] = {"bare": describe(times["bare"]), "heavy": heavy_imports()}
    for name in ("import", "recorder"):
        differences = [a - b for a, b in zip(times[name], times["bare"], strict=True)]
        result[name] = {**describe(differences), "median_start": median(times[name])}
    return result
