"""Run one measure in this fresh interpreter: `python -m benchmarks.child MEASURE JSON_ARGS OUT`.

`spawn` is the parent's side. The result is passed through a file, so that a peer may print.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT


class ChildError(RuntimeError):
    """A measure ended with an error; the message has its output."""


class ChildTimeoutError(ChildError):
    """A measure timed out and was killed."""


def spawn(measure: str, *, timeout: float = 600.0, **arguments: Any) -> dict[str, Any]:
    """Run `benchmarks.measures.<measure>.run(**arguments)` in a fresh interpreter.

    Args:
        measure: Module name under `benchmarks.measures`.
        timeout: Seconds until the child is killed.
        **arguments: JSON values.

    Returns:
        What the measure returned.

    Raises:
        ChildTimeoutError: It ran out of time.
        ChildError: It exited with an error.
    """
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as directory:
        out = Path(directory) / "result.json"
        command = [
            sys.executable,
            "-m",
            "benchmarks.child",
            measure,
            json.dumps(arguments),
            str(out),
        ]
        try:
            done = subprocess.run(
                command,
                check=False,
                cwd=ROOT,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise ChildTimeoutError(f"{measure} {arguments} took more than {timeout} s") from error
        if done.returncode or not out.exists():
            tail = (done.stdout + done.stderr)[-4000:]
            raise ChildError(f"{measure} {arguments} exited with {done.returncode}:\n{tail}")
        result: dict[str, Any] = json.loads(out.read_text())
        return result


def main(argv: list[str]) -> int:
    """Run the measure named on the command line.

    Returns:
        The exit status.
    """
    measure, arguments, out = argv
    result = import_module(f"benchmarks.measures.{measure}").run(**json.loads(arguments))
    Path(out).write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
