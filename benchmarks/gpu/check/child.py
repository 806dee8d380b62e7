"""One part in a process of its own: `python -m benchmarks.gpu.check.child PART FINDINGS`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.gpu.check.machines import no_gpu
from benchmarks.gpu.check.report import Report


def main(argv: list[str]) -> int:
    """Run the part that the command line names.

    Returns:
        The exit status.
    """
    part, path = argv
    # The first part is there to find out.
    rehearsal = part != "prepare" and bool(no_gpu())
    import_module(f"benchmarks.gpu.check.{part}").run(Report(Path(path), rehearsal=rehearsal))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
