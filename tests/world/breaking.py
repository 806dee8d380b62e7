"""What the world does to files, noting what it took away."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from crash.ring_file import RingFile

from world.oracle import Ledger, read_files

Frozen = Callable[[], contextlib.AbstractContextManager[None]]
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Breaker:
    """Breaks runs.

    Args:
        disk: The folder with the runs.
        ledger: Where to note what is gone.
        frozen: Stops all processes for as long as its block lasts.
    """

    def __init__(self, disk: Path, ledger: Ledger, frozen: Frozen) -> None:
        self.disk = disk
        self.ledger = ledger
        self.frozen = frozen

    def files(self, run: str) -> list[Path]:
        return [path for path, _ in read_files(self.disk / run)]

    def pick(self, run: str, number: int) -> Path | None:
        files = self.files(run)
        return files[number % len(files)] if files else None

    def _unlink(self, run: str, path: Path) -> None:
        """Remove a file; it is held, so that what it held can be looked at later."""
        if match := _UUID.search(path.name):
            self.ledger.rings.add(match[0])
            self.ledger.broken.add(self.ledger.family(run))
        try:
            fd = os.open(path, os.O_RDONLY)
            path.unlink()
        except FileNotFoundError:
            return
        if path.suffix == ".jsonl":
            self.ledger.take(run, fd)
        else:
            os.close(fd)

    def remove_run(self, run: str) -> None:
        """As `rm -rf` does; what writers make meanwhile goes as well."""
        self.ledger.removed.add(self.ledger.family(run))
        folder = self.disk / run
        for _ in range(1000):
            if not folder.exists():
                return
            for parent, _, names in os.walk(folder):
                for name in names:
                    self._unlink(run, Path(parent) / name)
            for parent, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):  # there is something in it again
                    Path(parent).rmdir()

    def remove_lines(self, run: str, files: int = 0) -> None:
        """As `rm RUN/*.jsonl` does; until so many are gone, for two seconds at most."""
        end = time.monotonic() + 2
        removed = 0
        while True:
            paths = self.files(run)
            for path in paths:
                self._unlink(run, path)
            removed += len(paths)
            if removed >= files or time.monotonic() > end:
                return

    def remove_file(self, run: str, file: int) -> None:
        if path := self.pick(run, file):
            self._unlink(run, path)

    def remove_rings(self, run: str) -> None:
        for path in sorted((self.disk / run / ".fastlog").glob("*.ring*")):
            self._unlink(run, path)

    def compress(self, run: str, file: int) -> None:
        if path := self.pick(run, file):
            with contextlib.suppress(OSError):  # the disk may be full
                with gzip.open(f"{path}.gz", "wb", 1) as packed:
                    packed.write(path.read_bytes())
                self._unlink(run, path)

    def rename(self, run: str, file: int, name: str) -> None:
        path = self.pick(run, file)
        if path is None:
            return
        to = path.parent / name.format(path.name, path.name.partition(".")[0])
        if to.exists():
            return
        fd = os.open(path, os.O_RDONLY)
        path.rename(to)
        self.ledger.take(run, fd)

    def truncate(self, run: str, file: int, keep: float) -> None:
        """As copytruncate does; all stand still, so that it is known what goes."""
        with self.frozen():
            path = self.pick(run, file)
            if path is None:
                return
            data = path.read_bytes()
            size = int(len(data) * keep)
            begin = data.rfind(b"\n", 0, size) + 1  # a line that is cut in its middle goes, too
            self.ledger.take_bytes(run, data[begin:])
            self.ledger.cut.add(path.stat().st_ino)
            os.truncate(path, size)

    def move(self, run: str, to: str) -> bool:
        with contextlib.suppress(OSError):
            (self.disk / run).rename(self.disk / to)
            self.ledger.families[to] = self.ledger.family(run)
            self.ledger.broken.add(self.ledger.family(run))
            return True
        return False

    def copy(self, run: str, to: str) -> bool:
        if not (self.disk / run).is_dir():
            return False
        (self.disk / to).mkdir(exist_ok=True)
        command = ["cp", "-a", f"{self.disk / run}/.", str(self.disk / to)]
        return subprocess.run(command, capture_output=True, check=False).returncode in (0, 1)

    def reboot(self, run: str) -> None:
        """Let the rings of dead processes look like those of another boot."""
        for path in self._dead_rings(run):
            ring = RingFile(path)
            ring.set_other_boot()
            ring.save()

    def _dead_rings(self, run: str) -> Iterator[Path]:
        for path in sorted((self.disk / run / ".fastlog").glob("*.ring")):
            with contextlib.suppress(OSError), path.open("r+b") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(handle.fileno()).st_nlink and len(path.read_bytes()) > 8192:
                    yield path

    def fill(self) -> None:
        block = bytes(1 << 16)
        with contextlib.suppress(OSError), (self.disk / "filler").open("ab", 0) as filler:
            while shutil.disk_usage(self.disk).total < (1 << 30):
                filler.write(block)

    def free(self) -> None:
        (self.disk / "filler").unlink(missing_ok=True)
