"""The ground a world stands on: its folder, its disk, and who cleans up whatever happens."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

# Waits for the end of its input, which comes when the driver is gone in whatever way; then kills
# what has the token in its environment, and removes what is left.
_GUARDIAN = r"""
cat >/dev/null
for round in 1 2 3; do
  for file in $(grep -las "WORLD_TOKEN=$1" /proc/[0-9]*/environ); do
    pid=${file#/proc/}
    kill -9 "${pid%/environ}" 2>/dev/null
  done
done
for ring in $(grep -aohsE '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}' "$2"/acks/*); do
  rm -f "/dev/shm/fastlog-$ring.ring" "/tmp/fastlog-$ring.ring" "/var/tmp/fastlog-$ring.ring"
done
umount -l "$2/tmpfs" "$2/overlay" 2>/dev/null
rm -rf "$2"
"""
TMPFS_BYTES = 48 << 20


class Session:
    """A folder for worlds, one after the other.

    Attributes:
        folder: With acks, the workers' messages and the user's files.
        root: Whether it may mount.
        mounted: The file systems that it may mount: a small one that may be filled, and one of
            which a mapping does not hold the file that was opened.
    """

    def __init__(self) -> None:
        # Files that were removed are held until the end.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.token = uuid.uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="fastlog-world-"))
        self._guardian = subprocess.Popen(
            ["sh", "-c", _GUARDIAN, "guardian", self.token, str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        layers = ",".join(
            f"{layer}dir={self.folder}/{layer}" for layer in ("lower", "upper", "work")
        )
        for name in ("lower", "upper", "work"):
            (self.folder / name).mkdir()
        options = {"tmpfs": f"size={TMPFS_BYTES}", "overlay": layers}
        self.mounted = [kind for kind in options if self._mount(kind, options[kind])]
        self.root = bool(self.mounted)

    def _mount(self, kind: str, options: str) -> bool:
        place = self.folder / kind
        place.mkdir()
        try:
            done = subprocess.run(
                ["mount", "-t", kind, "-o", options, kind, str(place)],
                capture_output=True,
                check=False,
            )
        except FileNotFoundError:
            return False
        return done.returncode == 0

    def clear(self) -> None:
        for name in ("acks", "user", "plain"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        for kind in self.mounted:
            for path in (self.folder / kind).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def disk(self, kind: str) -> Path:
        return self.folder / (kind if kind in self.mounted else "plain")

    def left(self) -> list[int]:
        """Processes of the world that still run."""
        mark = f"WORLD_TOKEN={self.token}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found

    def environment(self) -> dict[str, str]:
        """What workers get: the token, and a place for rings that find none in their run."""
        hidden = ("RANK", "WORLD_SIZE", "FASTLOG_CRASH")
        kept = {key: value for key, value in os.environ.items() if key not in hidden}
        return {**kept, "WORLD_TOKEN": self.token, "TMPDIR": str(self.folder)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._guardian.stdin is not None
        self._guardian.stdin.close()
        self._guardian.wait(60)
