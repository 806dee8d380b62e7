"""Ends the part that its runner leaves behind, even one that was killed: run as a script.

Standard input is a pipe whose other end only the runner has. A line of it is the process group of
a part that begins, or 0; its end is the runner's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    """Wait for the runner's end."""
    group = 0
    for line in sys.stdin.buffer:
        group = int(line)
    if group > 0:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
