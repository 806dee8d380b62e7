"""Starts the process that sends a run while it is recorded; see `sync.py`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["start_sync", "start_syncs"]

_CODE = (
    "import sys; from foundry_fastlog import sync_run; "
    "sync_run(sys.argv[1], sys.argv[2], follow=True, project=sys.argv[3] or None)"
)

_log = logging.getLogger("foundry_fastlog")
_started: list[subprocess.Popen[bytes]] = []  # nobody waits for them, but they are meant to run


def start_syncs(directory: Path, targets: Iterable[str], *, project: str | None = None) -> None:
    """Start a process for each target; see `start_sync`."""
    for target in targets:
        start_sync(directory, target, project=project)


def start_sync(directory: Path, target: str, *, project: str | None = None) -> None:
    """Start a process that sends a run until it has ended, and then ends itself.

    What it says is in ``RUN/.sync/TARGET.log``. It outlives this process: what this one could not
    wait for is sent nevertheless.

    Args:
        directory: The run's directory.
        target: ``wandb``, ``tensorboard`` or ``mlflow``.
        project: Of wandb.
    """
    place = directory / ".sync"
    arguments = [str(directory), target, (project or "") if target == "wandb" else ""]
    try:
        place.mkdir(exist_ok=True)
        with (place / f"{target}.log").open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE, *arguments],
                # Not by the process that wandb has for this one.
                env={key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # Ctrl-C is not for it
            )
        _started.append(process)
    except OSError as error:
        _log.warning("could not start to send %s to %s: %s", directory, target, error)
