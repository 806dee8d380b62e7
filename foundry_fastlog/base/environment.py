"""Facts about this process: the commit it runs, its device, its memory."""

from __future__ import annotations

import functools
import math
import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

__all__ = [
    "boot_id",
    "get_device",
    "get_git_commit_hash",
    "git_hash",
    "lifetime",
    "process_start",
    "rss_bytes",
    "utc_now",
]

_SHORT = 7
_HIDDEN = ("", "-1", "none")
# Present if there is a driver, whether or not this process has started the GPU's runtime.
_CUDA_NODES = ("/dev/nvidiactl", "/dev/dxg")
_ROCM_NODES = ("/dev/kfd",)


def utc_now() -> str:
    """Return the current time as written in lines: UTC, microseconds, ``Z``."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment_of(timestamp: str) -> float:
    """Return the seconds since 1970 that a line's timestamp says; NaN where it says none."""
    try:
        return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return math.nan


def git_hash(directory: str | os.PathLike[str] | None = None) -> str | None:
    """Return the checked-out commit, or None outside a git repository.

    Git is run once per directory.

    Args:
        directory: A directory of the checkout. Default: the current one.
    """
    try:
        return _commit(os.path.abspath(os.curdir if directory is None else directory))  # noqa: PTH100 - the key of the cache
    except FileNotFoundError:  # the current directory was removed
        return None


@functools.lru_cache(maxsize=64)
def _commit(directory: str) -> str | None:
    try:
        import subprocess  # imported here: it would slow down every start
    except OSError:  # no descriptor is free
        return None
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def get_git_commit_hash(path: str | os.PathLike[str] | None = None) -> str:
    """Return the short hash of the checked-out commit.

    Args:
        path: A directory of the checkout. Default: the current one.

    Returns:
        Seven hexadecimal digits, or ``"unknown"`` outside a git repository.
    """
    return (git_hash(path) or "unknown")[:_SHORT]


def get_device() -> str:
    """Return the device that this process trains on, in torch's notation.

    This does not import torch or start the GPU's runtime: a process that started it could not fork
    workers that use the GPU. Until the program starts it, the device is the one that the launcher
    assigned to this process (``LOCAL_RANK``), if there is a driver.

    Returns:
        ``"cuda:<index>"``, ``"mps"`` or ``"cpu"``.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return "cpu"
    try:
        return _torch_device(torch)
    except Exception:  # noqa: BLE001 - torch partly imported, or a driver error: not a reason to fail
        return "cpu"


def _torch_device(torch: Any) -> str:  # noqa: ANN401 - a module that may not be installed
    if torch.cuda.is_initialized():
        return f"cuda:{torch.cuda.current_device()}"
    if _gpu_expected(torch):
        local_rank = os.environ.get("LOCAL_RANK", "").strip()
        return f"cuda:{int(local_rank) if local_rank.isdecimal() else 0}"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _gpu_expected(torch: Any) -> bool:  # noqa: ANN401 - a module that may not be installed
    """Return whether torch will find a GPU, without asking the GPU's runtime."""
    nodes: tuple[str, ...]
    variables: tuple[str, ...]
    if torch.version.cuda is not None:
        nodes, variables = _CUDA_NODES, ("CUDA_VISIBLE_DEVICES",)
    elif getattr(torch.version, "hip", None) is not None:
        nodes, variables = _ROCM_NODES, ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
    else:
        return False
    if any(os.environ.get(name, "all").strip().lower() in _HIDDEN for name in variables):
        return False
    return any(Path(node).exists() for node in nodes)


def rss_bytes() -> int:
    """Return this process's resident set size; its peak, if the system hides the current one."""
    try:
        pages = Path("/proc/self/statm").read_bytes().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        import resource  # only without /proc

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def boot_id() -> str:
    """Return what names this start of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_start(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None where nothing says so.

    Args:
        pid: Its number.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def lifetime() -> float:
    """Return the seconds since this process began; infinity where nothing says so."""
    started = process_start(os.getpid())
    if started is None or not hasattr(time, "CLOCK_BOOTTIME"):
        return math.inf
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
