"""Check an installed wheel from outside the source tree: record, close, read, check its files."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import foundry_fastlog
from foundry_fastlog import Recorder

STEPS = 1000


def main() -> int:
    """Record a small run with the installed package and verify every line.

    Returns:
        0; a failure raises an AssertionError that says what is wrong.
    """
    source_tree = Path(__file__).resolve().parents[1]
    installed = Path(foundry_fastlog.__file__).resolve()
    assert source_tree not in installed.parents, f"tested the source tree, not a wheel: {installed}"
    assert foundry_fastlog.__version__ == importlib.metadata.version("foundry_fastlog")
    for name in ("py.typed", "_core.pyi", "pages/assets/report.js", "pages/vendor/uPlot.LICENSE"):
        assert files(foundry_fastlog).joinpath(name).is_file(), f"{name} is not in the wheel"

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        with Recorder(run) as recorder:
            for step in range(STEPS):
                with recorder.timer("step", step=step):
                    assert recorder.record(step, loss=1.0 / (step + 1), lr=1e-4)
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert [row["step"] for row in rows] == list(range(STEPS))
        assert [row["metrics"]["loss"] for row in rows] == [1.0 / (n + 1) for n in range(STEPS)]
        timings = (run / "performance.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(timings) == STEPS

    sys.stdout.write(f"foundry_fastlog {foundry_fastlog.__version__}: wheel works, {installed}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
