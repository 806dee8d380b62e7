"""Time to durable: from the first call until every record is complete in the file."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.peers import load
from benchmarks.workload import rows


def fsync_tree(directory: Path) -> int:
    """Force every file under `directory` to the device.

    Returns:
        The bytes in those files.
    """
    total = 0
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                total += os.fstat(file.fileno()).st_size
    return total


def run(peer: str, count: int) -> dict[str, Any]:
    """Log `count` steps without a pause, close, fsync, then verify every record.

    Args:
        peer: Its name.
        count: Steps.

    Returns:
        Seconds since the first call: `calls_s` when the last call returned, `complete_s` when the
        peer was closed and every record in its file, `fsync_s` when the file was on the device.
        For every peer, verification comes after the clock has stopped. Or `unavailable`.
    """
    try:
        subject = load(peer)
    except ImportError as error:
        return {"unavailable": f"{type(error).__name__}: {error}"}
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        directory = Path(scratch)
        loop = subject.setup(directory)
        batch = rows(0, count)
        start = time.perf_counter()
        loop(batch)
        calls = time.perf_counter() - start
        subject.finish()
        complete = time.perf_counter() - start
        size = fsync_tree(directory)
        synced = time.perf_counter() - start
        subject.verify(directory, count)
        return {
            "count": count,
            "calls_s": calls,
            "complete_s": complete,
            "fsync_s": synced,
            "bytes": size,
            "ns_per_record": complete / count * 1e9,
            "facts": subject.facts(),
        }
