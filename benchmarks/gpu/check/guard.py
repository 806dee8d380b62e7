"""Ends the part that its runner leaves behind, even if the runner was killed. Run as a script.

Standard input is a pipe whose other end only the runner has. Each line is the process group of a
part that begins, or 0; the end of the pipe is the end of the runner.
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
