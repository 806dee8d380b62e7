"""One part in its own process: `python -m benchmarks.gpu.check.child PART FINDINGS`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.gpu.check.machines import no_gpu, rehearsed
from benchmarks.gpu.check.report import BROKEN, Report

BEFORE = ("machine", "prepare")
"""Parts that do not rely on a GPU found by an earlier one: they look for it, or need none."""


def main(argv: list[str]) -> int:
    """Run the part named on the command line.

    Returns:
        The exit status.
    """
    part, path = argv
    report = Report(Path(path), rehearsal=rehearsed())
    if part not in BEFORE and not report.rehearsal and (why := no_gpu()):
        report.add(
            part, BROKEN, expects="the GPU that this run has found", why=f"it is gone: {why}"
        )
        return 0
    import_module(f"benchmarks.gpu.check.{part}").run(report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
