"""The facts of a run, in its `run.json`: written by the main process when it opens and closes.

Nothing here may stop a training run: what cannot be found out is null, and a file that cannot be
written is reported through `logging` once.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson

from foundry_fastlog._version import __version__
from foundry_fastlog.members import safe_str

RUN_FILE = "run.json"
FORMAT = 1

_log = logging.getLogger("foundry_fastlog")


def utc_now() -> str:
    """Return the time as the lines write it: UTC, microseconds, ``Z``."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def git_hash(directory: str | os.PathLike[str] | None = None) -> str | None:
    """Return the commit that is checked out, or None outside a git repository.

    Args:
        directory: A directory of the checkout; the current one by default.
    """
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


def plain_config(config: object) -> dict[str, Any]:
    """Return a configuration as plain data: a mapping, a pydantic model, a dataclass-like object.

    Raises:
        TypeError: `config` is nothing of the kind.
    """
    if config is None:
        return {}
    dump = getattr(config, "model_dump", None)
    if callable(dump):
        return dict(dump(mode="json"))
    if isinstance(config, Mapping):
        return dict(config)
    if hasattr(config, "__dict__") and not isinstance(config, type):
        return dict(vars(config))
    raise TypeError(
        f"config must be a mapping or a pydantic model, got {type(config).__name__}; "
        "pass a dict of the run's settings"
    )


class RunFile:
    """This process's entry in `run.json`; one per attempt, written by the main process only."""

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        config: object,
        world_size: int | None,
        rank: int | None,
        label: str,
        attempt: int,
    ) -> None:
        """Collect the facts; write() puts them into the file."""
        self._path = directory / RUN_FILE
        self._run: dict[str, Any] = {
            "format": FORMAT,
            "name": name,
            "created": utc_now(),
            "config": plain_config(config),
            "git_hash": git_hash(),
            "host": socket.gethostname(),
            "world_size": world_size,
        }
        self._attempt: dict[str, Any] = {
            "attempt": attempt,
            "label": label,
            "rank": rank or 0,
            "pid": os.getpid(),
            "host": self._run["host"],
            "started": self._run["created"],
            "ended": None,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "foundry_fastlog": __version__,
        }
        self._reported = False

    def write(self, *, ended: bool = False) -> None:
        """Put this attempt into the file, beside the attempts that are there.

        Args:
            ended: Whether the attempt is over; notes the time.
        """
        if ended:
            self._attempt["ended"] = utc_now()
        before = self._read()
        attempts = [
            a
            for a in before.get("attempts", [])
            if isinstance(a, dict) and a.get("attempt") != self._attempt["attempt"]
        ]
        run = {**self._run, "created": before.get("created", self._run["created"])}
        run["attempts"] = [*attempts, self._attempt]
        try:
            self._replace(orjson.dumps(run, default=safe_str, option=_WRITE_OPTIONS) + b"\n")
        except (OSError, TypeError) as error:
            if not self._reported:
                self._reported = True
                _log.warning(
                    "could not write %s: %s. The records are not affected.", self._path, error
                )

    def _read(self) -> dict[str, Any]:
        try:
            run = orjson.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return run if isinstance(run, dict) and isinstance(run.get("attempts"), list) else {}

    def _replace(self, content: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=".run.json.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            # mkstemp makes 0600: give the file the permissions that open() would have given.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(self._path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


_WRITE_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
