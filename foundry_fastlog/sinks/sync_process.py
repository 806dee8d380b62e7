"""Starts the process that sends a run while it is recorded; see `sync.py`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from foundry_fastlog.base.extras import how_to_get, is_installed

__all__ = ["start_sync", "start_syncs"]

_CODE = (
    "import sys; from foundry_fastlog import sync_run; "
    "sync_run(sys.argv[1], sys.argv[2], follow=True, wait=True, project=sys.argv[3] or None)"
)

#: The package that a target needs, which is called as it is, and the extra that brings it.
_EXTRAS = {"wandb": "wandb", "tensorboard": "export", "mlflow": "mlflow"}

_log = logging.getLogger("foundry_fastlog")


def start_syncs(directory: Path, targets: Iterable[str], *, project: str | None = None) -> None:
    """Start a process for each target; see `start_sync`."""
    for target in targets:
        start_sync(directory, target, project=project)


def start_sync(directory: Path, target: str, *, project: str | None = None) -> None:
    """Start a process that sends a run until it has ended, and then ends itself.

    A package that it needs and that is missing is said here, and nothing is started. What it says
    is in ``RUN/.sync/TARGET.log``; where it gives up while this process goes on, that is said here
    once. It outlives this process: what this one could not wait for is sent nevertheless. One of an
    earlier start that still sends is waited for.

    Args:
        directory: The run's directory.
        target: ``wandb``, ``tensorboard`` or ``mlflow``.
        project: Of wandb.
    """
    if target in _EXTRAS and not is_installed(target):
        # A short training ends before its sender could say it.
        _log.warning("%s gets nothing: %s", target, how_to_get(target, _EXTRAS[target]))
        return
    place = directory / ".sync"
    arguments = [str(directory), target, (project or "") if target == "wandb" else ""]
    log = place / f"{target}.log"
    try:
        place.mkdir(exist_ok=True)
        with log.open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE, *arguments],
                # Not by the process that wandb has for this one.
                env={key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # Ctrl-C is not for it
            )
    except OSError as error:
        _log.warning("could not start to send %s to %s: %s", directory, target, error)
    else:
        threading.Thread(target=_watch, args=(process, target, log), daemon=True).start()


def _watch(process: subprocess.Popen[bytes], target: str, log: Path) -> None:
    """Wait for a sender, and say why one gave up."""
    if code := process.wait():
        try:
            reason = log.read_text("utf-8", "replace").rstrip().rpartition("\n")[2]
        except OSError:
            reason = ""
        _log.warning("%s gets nothing more (exit code %d): %s; see %s", target, code, reason, log)
