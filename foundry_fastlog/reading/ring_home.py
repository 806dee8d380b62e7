"""Whether a ring belongs to the run in which it was found, itself or a pointer to it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from foundry_fastlog.reading.ring_image import RingHeader

__all__ = ["RingHome", "boot_id"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_ID_COMMAND = ("sysctl", "-n", "kern.bootsessionuuid")  # where there is no such file: macOS
_BOOT_ID_LENGTH = 36


class RingHome(NamedTuple):
    """What is known of the directory that a ring's writer recorded in.

    Attributes:
        of_this_run: Whether it is the run in which the ring was found.
        same_boot: Whether the machine has run on since, with the run's file system mounted as it
            was. Otherwise devices say nothing, and lines go by number.
        pointer: Path of the pointer that led to the ring.
        other: The directory that it does belong to, where that is known.
    """

    of_this_run: bool
    same_boot: bool
    pointer: str | None
    other: str = ""

    @classmethod
    def find(
        cls, run: Path, header: RingHeader, descriptor: int, pointer: str | None, run_before: str
    ) -> RingHome:
        """Find out; the twin of ``csrc/core/ring_home.cpp``.

        Args:
            run: The run directory.
            header: What the ring says.
            descriptor: The open ring.
            pointer: Path of the pointer that led to it, or None.
            run_before: What that calls the run's directory.

        Raises:
            OSError: The run, or the pointer, cannot be looked at.
        """
        boot = boot_id()
        same_boot = boot != "" and boot == header.boot_id
        status = run.stat()
        if status.st_ino != header.run[1]:
            return cls(of_this_run=False, same_boot=same_boot, pointer=pointer)
        if status.st_dev == header.run[0] or not same_boot:
            return cls(of_this_run=True, same_boot=same_boot, pointer=pointer)
        # The same inode on another device: mounted anew since, or looked at through another mount,
        # or in a snapshot. Where the writer's directory is to be seen as it was, the ring is for
        # that one.
        if pointer is not None:
            other = run_before if _identify(run_before) == header.run else ""
            if other or not _is_writers(pointer, header, descriptor):
                return cls(of_this_run=False, same_boot=True, pointer=pointer, other=other)
        return cls(of_this_run=True, same_boot=False, pointer=pointer)

    def owns(self, header: RingHeader, status: os.stat_result) -> bool:
        """Whether a ring is the very file that its writer made, in the run that it recorded in.

        Args:
            header: What the ring says.
            status: Of the ring file.
        """
        if header.ring is None:
            return self.of_this_run
        device, inode = header.ring
        same = status.st_ino == inode and (status.st_dev == device or not self.same_boot)
        return self.of_this_run and same

    def elsewhere(self, ring: str) -> str | None:
        """Say why a ring is left alone, and what to do, where a pointer leads to another run's."""
        if self.of_this_run or self.pointer is None:
            return None
        return (
            f"{ring} belongs to the run's directory under another path or mount, or to the run "
            f"that this is a copy of{self.other and f': {self.other}'}. Recover there; in a copy, "
            f"remove the pointer {self.pointer}"
        )


def _identify(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - "" is no path, which Path makes "."
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _is_writers(pointer: str, header: RingHeader, descriptor: int) -> bool:
    """Whether a pointer is the writer's own: it has the ring's name, and its owner.

    On another device nothing but an inode tells the run, and a stranger can choose that.
    """
    name = os.path.basename(pointer).partition(".")[0]  # noqa: PTH119 - text
    return name == header.uuid and os.lstat(pointer).st_uid == os.fstat(descriptor).st_uid


def boot_id() -> str:
    """Which boot of which machine this is; empty where that cannot be known."""
    try:
        if _BOOT_ID.exists():
            text = _BOOT_ID.read_text(encoding="ascii")
        else:
            text = subprocess.run(
                _BOOT_ID_COMMAND, capture_output=True, text=True, check=True
            ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return text.strip()[:_BOOT_ID_LENGTH]
