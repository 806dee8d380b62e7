"""What goes wrong in one process: limits, memory, descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foundry_fastlog import Recorder

LIMITS = {"nofile": resource.RLIMIT_NOFILE, "fsize": resource.RLIMIT_FSIZE}


def foreign_bytes(size: int) -> bytes:
    """What the world's own files hold, the user's."""
    return (b"nobody but its owner writes here\n" * (size // 33 + 1))[:size]


class Mishaps:
    """The part of a worker that has them."""

    folder: Path
    process: int
    recorder: Recorder | None
    limits: dict[int, tuple[int, int]]
    user_files: list[tuple[int, Path]]
    descriptors: int

    def fault(self, kind: str, text: str) -> None:
        """Note what went wrong; the worker does."""

    def record_some(self, thread: int, count: int, pause_us: int = 0) -> None:
        """Record; the worker does."""

    def do_limit(self, kind: str, size: int) -> None:
        self.do_relax()
        if kind == "nofile":
            size = os.dup(0)
            os.close(size)  # the lowest that is free
        number = LIMITS[kind]
        resource.setrlimit(number, (size, self.limits[number][1]))

    def do_relax(self) -> None:
        for number, limits in self.limits.items():
            resource.setrlimit(number, limits)

    @contextlib.contextmanager
    def unlimited(self) -> Iterator[None]:
        """Lift the limit of descriptors for a look of the world's own."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits[resource.RLIMIT_NOFILE])
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)

    def do_starve(self, count: int, kib: int) -> None:
        with self.unlimited():
            pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits = resource.getrlimit(resource.RLIMIT_AS)
        size = pages * resource.getpagesize() + kib * 1024
        resource.setrlimit(resource.RLIMIT_AS, (size, limits[1]))
        try:
            if self.recorder is not None:
                self.record_some(0, count, 100)
                self.recorder.flush(0.5)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)

    def do_close_descriptors(self) -> dict[str, Any]:
        """Close files below the recorder, and open some that take their numbers."""
        taken = self.descriptors = 0
        with self.unlimited():
            before = self._open_files()
            time.sleep(0.005)  # what is open for a moment is closed by two, whoever has it then
            for number, target in self._open_files().items():
                kept = (str(self.folder / "acks"), str(self.folder / "user"), "/dev", "/proc")
                if before.get(number) == target and not target.startswith(kept):
                    with contextlib.suppress(OSError):
                        os.close(number)
                        taken += 1
            for _ in range(taken):
                path = (
                    self.folder / "user" / f"{self.process}-{len(self.user_files)}-{time.time_ns()}"
                )
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
                os.write(fd, foreign_bytes(3000))
                self.user_files.append((fd, path))
        return {"taken": taken}

    def _open_files(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
            with contextlib.suppress(OSError):
                target = str(Path(f"/proc/self/fd/{name}").readlink())
                if int(name) > 2 and target.startswith("/"):
                    found[int(name)] = target
        return found

    def check_descriptors(self) -> None:
        """A recorder that is closed leaves none open."""
        with self.unlimited():
            names = os.listdir("/proc/self/fd")  # noqa: PTH208 - numbers, not paths
        if self.descriptors and len(names) > self.descriptors:
            links = [os.readlink(f"/proc/self/fd/{n}") for n in names[3:-1]]  # noqa: PTH115
            self.fault("descriptors", f"{self.descriptors} before, {len(names)} after: {links}")

    def check_user_files(self) -> None:
        """Nobody closes or replaces a descriptor that is not theirs, or writes to it."""
        with self.unlimited():
            self._check_user_files()

    def _check_user_files(self) -> None:
        for fd, path in self.user_files:
            if path.read_bytes() != foreign_bytes(3000):
                self.fault("foreign-changed", f"somebody wrote to {path.name}")
            with contextlib.suppress(OSError):
                if os.fstat(fd).st_ino == path.stat().st_ino:
                    continue
            self.fault("foreign-closed", f"somebody closed descriptor {fd}, which is {path.name}")
        self.user_files = []
