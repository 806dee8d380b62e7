"""Find the text logs of experiments: list them, get the newest, remove empty ones."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from foundry_fastlog.base.arguments import expanded
from foundry_fastlog.messages.text_files import remove_unused

__all__ = ["cleanup_empty_logs", "get_latest_log", "list_experiment_logs"]

StrPath = str | os.PathLike[str]


def get_latest_log(experiment_name: str, log_dir: StrPath = "logs") -> Path | None:
    """Return an experiment's newest text log, or None if there is none."""
    logs = _by_time(expanded(log_dir) / experiment_name, "*.log")
    return logs[0][0] if logs else None


def list_experiment_logs(
    experiment_name: str, log_dir: StrPath = "logs", max_files: int = 10
) -> list[tuple[str, str, int]]:
    """List an experiment's text logs, newest first.

    Args:
        experiment_name: The experiment.
        log_dir: Directory of all experiments.
        max_files: The maximum number to list.

    Returns:
        File name, local time of the last change (``YYYY-mm-dd HH:MM:SS``) and size in bytes.
    """
    return [
        (
            path.name,
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(info.st_mtime)),
            info.st_size,
        )
        for path, info in _by_time(expanded(log_dir) / experiment_name, "*.log", "*.log.[0-9]*")[
            : max(max_files, 0)
        ]
    ]


def cleanup_empty_logs(log_dir: StrPath = "logs") -> int:
    """Remove empty text logs of all experiments.

    Files that a process has open for writing are kept, and so is everything that is not a text log.

    Args:
        log_dir: Directory of all experiments.

    Returns:
        How many files were removed.
    """
    removed = 0
    for path in expanded(log_dir).rglob("*.log"):
        try:
            empty = path.is_file() and not path.is_symlink() and path.stat().st_size == 0
        except OSError:  # removed in between, or not accessible
            continue
        removed += empty and remove_unused(path)
    return removed


def _by_time(directory: Path, *patterns: str) -> list[tuple[Path, os.stat_result]]:
    """List files of a directory, most recently modified first."""
    logs = []
    for path in (path for pattern in patterns for path in directory.glob(pattern)):
        with contextlib.suppress(OSError):  # removed since it was listed
            logs.append((path, path.stat()))
    return sorted(logs, key=lambda log: log[1].st_mtime_ns, reverse=True)
