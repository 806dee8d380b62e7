"""A real training run that shows the logging in action.

``foundry-fastlog demo`` trains a small GPT on English text that every machine
has, and records every step. Read :mod:`foundry_fastlog.demo.train` first: it
is the trainer, written to be copied.

Importing this package is cheap: torch, rich and pydantic are imported when
:func:`run` is called.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

__all__ = ["run"]

# What the demo needs beyond the package itself: module and package name.
_NEEDED = {"torch": "torch", "numpy": "numpy", "rich": "rich", "yaml": "pyyaml"}


def run(
    config: Path | None = None,
    *,
    out: Path | None = None,
    steps: int | None = None,
    device: str | None = None,
) -> int:
    """Train the demo model and print what was recorded.

    Problems that a user can solve (no torch, a wrong key in the experiment
    file, a run directory in use) are printed to standard error as one message
    that says what to do; they are not raised.

    Args:
        config: Experiment file (YAML). None uses the one that comes with the
            package.
        out: Run directory. None creates ``runs/<name>-<timestamp>`` under the
            current directory. If the directory has a checkpoint of the same
            experiment, it is resumed if ``training.resume`` is true.
        steps: Number of training steps; overrides ``training.steps``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``;
            overrides ``training.device``.

    Returns:
        The exit code: 0 for a run that finished, 1 for one that failed, 2 for
        an invalid argument or experiment file, 130 after Ctrl-C.
    """
    try:
        from foundry_fastlog.demo.app import run_demo
    except ModuleNotFoundError as error:
        package = _NEEDED.get((error.name or "").partition(".")[0])
        if package is None:
            raise  # not a missing extra, but a broken installation
        print(
            f"error: the demo needs {package}, which is not installed. Run: "
            f"{shlex.quote(sys.executable)} -m pip install {package}",
            file=sys.stderr,
        )
        return 1
    return run_demo(config, out=out, steps=steps, device=device)
