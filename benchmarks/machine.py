"""Facts about the machine, without which a figure is worthless."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def cpu_model() -> str:
    """Return the processor's name as reported by the system."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float:
    """Return the physical memory in GiB."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def filesystem(path: str) -> str:
    """Return the type of `path`'s file system ("unknown" except on Linux)."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    target, best, kind = Path(path).resolve(), -1, "unknown"
    for line in mounts.read_text().splitlines():
        _, point, fs = line.split()[:3]
        if target.is_relative_to(point) and len(point) > best:
            best, kind = len(point), fs
    return kind


def commit() -> str:
    """Return the commit of the working tree, with "+" if tracked files differ from it."""
    git = ["git", "-C", str(ROOT)]
    ask = [*git, "rev-parse", "--short=12", "HEAD"]
    head = subprocess.run(ask, check=False, capture_output=True, text=True)
    if head.returncode:
        return "unknown"
    ask = [*git, "diff", "--quiet", "HEAD", "--", "csrc", "foundry_fastlog"]
    changed = subprocess.run(ask, check=False)
    return head.stdout.strip() + ("+" if changed.returncode else "")


def load_average() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def facts() -> dict[str, Any]:
    """Return the facts stored with every result. No host name, no path."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": cpu_model(),
        "cores": cores(),
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "filesystem": filesystem(tempfile.gettempdir()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python_compiler": platform.python_compiler(),
        "nice": os.nice(0),
        "python_flags": sysconfig.get_config_var("CONFIG_ARGS") or "",
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
    }
