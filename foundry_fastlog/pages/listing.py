"""The runs below a directory, for the live page: which there are, and how each is doing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundry_fastlog.base.formatting import printable
from foundry_fastlog.pages.facts import state_of
from foundry_fastlog.reading.cursor import Cursor
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.files import PRIVATE_DIR, RUN_INFO, looks_like_stream_file
from foundry_fastlog.run.start_entries import STARTS_DIR

__all__ = ["Listing"]

_MOST_DEPTH = 12


class Listing:
    """Lists runs, and looks again only at those that may have changed. For one thread at a time.

    Args:
        root: The directory. It may be a run itself.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, tuple[object, dict[str, Any]]] = {}

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the runs by their path below the root: what the table of runs shows of each."""
        found: dict[str, tuple[object, dict[str, Any]]] = {}
        for path, sign in _runs_below(os.fspath(self.root), 0, set()):
            name = os.path.relpath(path, self.root)
            known = self._known.get(name)
            if known is None or known[0] != sign or known[1]["state"] == "running":
                try:
                    known = sign, _row(Path(path))
                except OSError:  # it was removed meanwhile
                    continue
            found[name] = known
        self._known = found
        return {name: row for name, (_, row) in found.items()}


def _runs_below(
    folder: str, depth: int, seen: set[tuple[int, int]]
) -> Iterator[tuple[str, object]]:
    """Yield the runs in a tree, each with what changes when it does. Each directory once."""
    try:
        status = os.stat(folder)  # noqa: PTH116 - links are followed, but not in a circle
        place = status.st_dev, status.st_ino
        entries = [] if place in seen else sorted(os.scandir(folder), key=lambda one: one.name)
    except OSError:
        return
    seen.add(place)
    signs: list[tuple[str, int, int]] = []
    inner: list[str] = []
    for entry in entries:
        if entry.name == RUN_INFO or looks_like_stream_file(entry.name):
            try:
                found = entry.stat()
            except OSError:
                continue
            signs.append((entry.name, found.st_mtime_ns, found.st_size))
        elif not entry.name.startswith(".") and entry.is_dir():
            inner.append(entry.path)
    if signs:
        signs += [(name, *_sign(f"{folder}/{name}")) for name in (STARTS_DIR, PRIVATE_DIR)]
        yield folder, tuple(signs)
    elif depth < _MOST_DEPTH:
        for path in inner:
            yield from _runs_below(path, depth + 1, seen)


def _sign(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _row(path: Path) -> dict[str, Any]:
    run = Run(path)
    starts = run.report_starts()
    step, last = None, ""
    if "metrics" in run.streams:
        for timestamp, _, line, _ in Cursor(path, ["metrics"]).last(1).lines:
            step, last = line.get("step"), timestamp
    started = starts[0].started if starts else ""
    return {
        "name": printable(path.absolute().name),
        "path": printable(str(path.absolute())),
        **state_of(starts),
        "started": started,
        "last": last,
        "step": step,
        "starts": len(starts),
    }
