"""Write a directory beside its place, and rename it when it is whole."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from foundry_fastlog.export.jsonl import ExportError
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.files import PRIVATE_DIR

__all__ = ["bytes_in", "check_directory", "open_directory"]


def check_directory(
    runs: Sequence[Run], target: Path, *, force: bool, ours: Callable[[str], bool]
) -> Path:
    """Check where an export to a directory goes.

    Args:
        runs: The runs to export; they must not be replaced.
        target: The directory. It may be there, if it is empty.
        force: Replace one that has nothing but an earlier export in it.
        ours: Says of a file's name whether such an export writes it.

    Returns:
        The directory, absolute.

    Raises:
        ExportError: The directory must not be written.
    """
    target = target.resolve()
    for run in runs:
        home = run.path.resolve()
        if target == home or target in home.parents:
            raise ExportError(f"{target} holds the run {run.path}; choose another directory")
        if home / PRIVATE_DIR in (target, *target.parents):
            raise ExportError(f"{target} is in the recorder's own directory; choose another place")
    if not target.parent.is_dir():
        raise ExportError(
            f"{target.parent} does not exist; create it first: mkdir -p {target.parent}"
        )
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target} is a file; name a directory")
    if target.is_dir() and (files := [name for *_, names in os.walk(target) for name in names]):
        foreign = [name for name in files if not ours(name)]
        if foreign:
            raise ExportError(
                f"{target} has files that no such export writes ({foreign[0]}); it is not "
                "replaced, choose another directory"
            )
        if not force:
            raise ExportError(f"{target} exists; use --force to replace it, or choose another name")
    return target


@contextmanager
def open_directory(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield a directory to fill, which appears under its name only at the end.

    Args:
        path: The directory, as ``check_directory`` gave it.
        force: Replace what is there.

    Raises:
        ExportError: It cannot be written.
    """
    token = secrets.token_hex(4)
    scratch, former = (path.with_name(f".{path.name}.{token}.{end}") for end in ("tmp", "old"))
    try:
        scratch.mkdir()
        yield scratch
        for file in _files(scratch):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if force and path.exists():
            path.rename(former)
        try:
            scratch.rename(path)  # an empty directory is replaced, no other one
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            raise ExportError(
                f"{path} was created by another process in the meantime; nothing was written"
            ) from None
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def bytes_in(path: Path) -> int:
    """Return the size of all files of a directory."""
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> list[Path]:
    return [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
