"""The folder OUT: one check at a time writes to it, and a write error stops no check."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import IO

LOCK = ".gpu-check.lock"


def say(text: str) -> None:
    """Print immediately; do not stop if the terminal is gone."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        say(text.encode("ascii", "backslashreplace").decode())
    except OSError:
        pass


def locked(path: Path) -> IO[str] | None:
    """Return a file that is locked while it is open; None if another process has it.

    Raises:
        OSError: The file cannot be written.
    """
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        pass  # a file system without locks
    return file


class Files:
    """Writes files to the folder, as far as possible."""

    def __init__(self, folder: Path) -> None:
        """Start without faults."""
        self.folder = folder
        self.lost: set[str] = set()
        """Files whose last write failed."""
        self.told: set[str] = set()

    def attempt(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a file; report each fault once."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(self.folder / name)
            self.lost.discard(name)
        except OSError as error:
            self.lost.add(name)
            fault = f"{name} cannot be written: {error}"
            if fault not in self.told:
                self.told.add(fault)
                say(fault)
