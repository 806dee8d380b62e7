"""Checkpoints: written atomically, and read with a fallback."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from foundry_fastlog import ErrorTracker

FOLDER = "checkpoints"
"""Where a run keeps its checkpoints, inside the run directory."""

_NAME = re.compile(r"step-(\d{6,})\.pt")


class CheckpointError(Exception):
    """A file that is not a checkpoint, or not a complete one."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint made after ``step`` steps."""
    return folder / f"step-{step:06d}.pt"


def step_of(path: Path) -> int:
    """Read the number of finished steps from a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is not named like a checkpoint, step-000500.pt")
    return int(match[1])


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in a folder, newest first; none if there is no folder."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def save_checkpoint(path: Path, state: dict[str, Any], *, keep: int) -> int:
    """Write a checkpoint so that a reader never sees half of it.

    The file is written under a temporary name, flushed to the disk and renamed.
    Then the oldest checkpoints beyond ``keep`` are deleted.

    Args:
        path: From :func:`checkpoint_path`.
        state: Tensors, numbers, text, and lists and dicts of them.
        keep: Checkpoints to keep in the folder, at least 1.

    Returns:
        The file's size in bytes.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    # Save to memory first: writing to a file, torch.save() turns a full disk or Ctrl-C into a
    # RuntimeError.
    content = io.BytesIO()
    torch.save(state, content)
    try:
        with unfinished.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    for old in list_checkpoints(path.parent)[keep:]:
        old.unlink()
    return path.stat().st_size


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load one checkpoint.

    Args:
        path: A file written by :func:`save_checkpoint`.

    Returns:
        The saved state, with all tensors on the CPU.

    Raises:
        CheckpointError: The file cannot be read, or is damaged.
    """
    try:
        # weights_only: a checkpoint is data, and must not be able to run code.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # For a damaged file, torch may raise almost anything: OSError, RuntimeError, IndexError.
        raise CheckpointError(f"{path.name} is not a complete checkpoint: {error}") from error
    return state


def load_newest(
    folder: Path,
    errors: ErrorTracker,
    *,
    step: int | None = None,
) -> tuple[Path, dict[str, Any]] | None:
    """Load the newest checkpoint that can be read.

    An unreadable checkpoint is recorded as an error, and the previous one is
    tried.

    Args:
        folder: Where the checkpoints are.
        errors: Records the errors.
        step: The current training step, if there is one.

    Returns:
        The path and the state passed to :func:`save_checkpoint`, with all
        tensors on the CPU; None if no checkpoint can be read.
    """
    for path in list_checkpoints(folder):
        try:
            return path, load_checkpoint(path)
        except CheckpointError as error:  # noqa: PERF203  # a handful of files
            errors.log_error(
                error,
                context={
                    "operation": "load checkpoint, then try the previous one",
                    "path": str(path),
                    "bytes": path.stat().st_size,
                },
                step=step,
            )
    return None
