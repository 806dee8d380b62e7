"""The facts of a run in its `run.json`, written by the main process at open and close.

Nothing here may stop a training run: a fact that cannot be determined is null, and a file that
cannot be written is reported once through `logging`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, BinaryIO

import orjson

from foundry_fastlog._version import __version__
from foundry_fastlog.base.environment import git_hash, utc_now
from foundry_fastlog.base.json_text import readable, safe_str

RUN_FILE = "run.json"
_TEMPORARY = ".run.json."
_LOOK = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
FORMAT = 2
_MOST_BYTES = 64 << 20
_MAX_DEPTH = 32

_log = logging.getLogger("foundry_fastlog")


def read_run_file(path: Path) -> bytes:
    """Read a `run.json` from an untrusted source: never wait for a pipe, never exhaust memory.

    Raises:
        OSError: It cannot be read, or no recorder has written it.
    """
    with open_untrusted(path) as file:
        status = os.fstat(file.fileno())
        if status.st_size > _MOST_BYTES:
            raise OSError(
                errno.EFBIG, "it is larger than any file that a recorder writes", str(path)
            )
        return file.read(status.st_size + 1)


def open_untrusted(path: Path) -> BinaryIO:
    """Open a file that anything may be in place of: never wait for a pipe.

    Raises:
        OSError: It cannot be opened, or is not a regular file.
    """
    file = open(  # noqa: SIM115 - the caller closes it
        path, "rb", opener=lambda name, _: os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    )
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return file


def plain_config(config: object) -> dict[str, Any]:
    """Return a configuration as plain data: a mapping, a pydantic model, a dataclass, a namespace.

    Nested configurations are converted, too. Values of other types are left as they are.

    Raises:
        TypeError: `config` is of another type.
    """
    if config is None:
        return {}
    members = _members(config)
    if members is None and hasattr(config, "__dict__") and not isinstance(config, type):
        members = dict(vars(config))
    if members is None:
        raise TypeError(
            f"config must be a mapping or a pydantic model, got {type(config).__name__}; "
            "pass a dict of the run's settings"
        )
    return {name: _plain(value, (id(config),)) for name, value in members.items()}


def _plain(value: object, above: tuple[int, ...]) -> object:
    """Convert a value inside a configuration to plain data, if it is a configuration itself."""
    if value is None or isinstance(value, (bool, int, float, str)) or len(above) > _MAX_DEPTH:
        return value
    if id(value) in above:
        return "<circular reference>"
    inside = (*above, id(value))
    if isinstance(value, (list, tuple)):
        return [_plain(item, inside) for item in value]
    try:
        members = _members(value)
    except Exception:  # noqa: BLE001 - an object that only looks like a model
        members = None
    if members is None:
        return value
    return {name: _plain(item, inside) for name, item in members.items()}


def _members(config: object) -> dict[Any, Any] | None:
    """Return the settings in an object that is clearly a configuration, otherwise None."""
    if isinstance(config, Mapping):
        return dict(config)
    if isinstance(config, type):  # a model's class, not a model
        return None
    if callable(dump := getattr(config, "model_dump", None)):
        try:
            return dict(dump(mode="json"))
        except Exception:  # noqa: BLE001 - a field that JSON cannot represent, or an error in a serializer
            return dict(dump())
    if hasattr(config, "__dataclass_fields__"):
        from dataclasses import fields, is_dataclass

        if is_dataclass(config):
            return {field.name: getattr(config, field.name) for field in fields(config)}
    if type(config).__name__ in ("Namespace", "SimpleNamespace"):  # argparse's, types'
        return dict(vars(config))
    return None


class RunFile:
    """This process's entry in `run.json`: one per attempt, written only by the main process."""

    def __init__(
        self,
        directory: Path,
        *,
        name: str | None,
        config: object,
        world_size: int | None,
        rank: int | None,
        stamp: str = "",
    ) -> None:
        """Collect the facts; write() writes them to the file.

        Args:
            directory: The run's directory.
            name: The run's name; None keeps the one in the file, or uses the directory's.
            config: See plain_config(); None or an empty one keeps what is in the file.
            world_size: Number of ranks; None keeps what is in the file.
            rank: This process's rank.
            stamp: The stamp in the file names, or empty. With one, attempts are counted afresh.
        """
        host, python, system = _machine()
        self._path = directory / RUN_FILE
        self._host = host
        self._git_hash = git_hash()
        self._given: dict[str, Any] = {
            "name": name,
            "config": plain_config(config),
            "world_size": world_size,
        }
        self._attempt: dict[str, Any] = {
            "attempt": 0,
            "label": "",
            "rank": rank or 0,
            "pid": os.getpid(),
            "host": self._host,
            "started": utc_now(),
            "ended": None,
            "python": python,
            "platform": system,
            "foundry_fastlog": __version__,
        }
        if stamp:
            self._attempt["stamp"] = stamp
        self._reported = False

    def add_config(self, config: Mapping[str, Any]) -> None:
        """Add to the configuration; write() writes it to the file."""
        self._given["config"] = {**self._given["config"], **config}

    def write(
        self,
        label: str,
        attempt: int,
        *,
        directory: tuple[int, int] | None = None,
        ended: bool = False,
    ) -> None:
        """Write this attempt to the file, beside the attempts already there.

        Args:
            label: The writer's label in the file names.
            attempt: The attempt number in the label.
            directory: Device and inode of the directory with the writer's files. Nothing is written
                if the name now refers to another directory.
            ended: Whether the attempt is over; if so, the time is stored.
        """
        self._attempt.update(label=label, attempt=attempt)
        if ended:
            self._attempt["ended"] = utc_now()
        try:
            self._check_directory(directory)
            self._replace(render(self._merge(_read(self._path))))
        except OSError as error:
            if not self._reported:
                self._reported = True
                _log.warning(
                    "could not write %s: %s. The records are not affected.", self._path, error
                )

    def _check_directory(self, directory: tuple[int, int] | None) -> None:
        status = self._path.parent.stat()
        if directory not in (None, (status.st_dev, status.st_ino)):
            raise OSError(errno.ESTALE, "its directory was renamed or replaced")

    def _merge(self, before: dict[str, Any]) -> dict[str, Any]:
        """Return the file's contents with this attempt merged in."""
        attempts = [
            a
            for a in before.get("attempts", [])
            if isinstance(a, dict) and _writer_of(a) != _writer_of(self._attempt)
        ]
        for a in attempts:  # this process under an earlier label, before its files existed
            if all(a.get(key) == self._attempt[key] for key in ("host", "pid", "started")):
                a["ended"] = self._attempt["ended"]
        # A later start that provides less must not remove what an earlier one provided.
        given = {key: value or before.get(key) for key, value in self._given.items()}
        return {
            "format": FORMAT,
            "name": given["name"] or self._path.parent.name,
            "created": before.get("created", self._attempt["started"]),
            "config": given["config"] or {},
            "git_hash": self._git_hash,
            "host": self._host,
            "world_size": given["world_size"],
            "attempts": [*attempts, self._attempt],
        }

    def _replace(self, content: bytes) -> None:
        """Write the whole file under a temporary name and rename it.

        A process that is killed in between leaves its temporary file behind. A writer holds a lock
        on its file, so that the next one can recognise leftovers and remove them.
        """
        import fcntl

        self._remove_leftovers()
        for last_try in (False, False, True):
            temporary = self._path.with_name(f"{_TEMPORARY}{os.getpid()}-{os.urandom(4).hex()}")
            # Not tempfile: its files have mode 0600, and the program's umask can only be read by
            # changing it. O_CREAT applies the umask.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o664), "wb") as file:  # noqa: PTH123 - see above
                try:
                    with contextlib.suppress(OSError):  # a file system without locks
                        fcntl.flock(file, fcntl.LOCK_EX)
                    file.write(content)
                    file.flush()
                    # Unless somebody removed it before it was locked.
                    if os.fstat(file.fileno()).st_nlink or last_try:
                        temporary.replace(self._path)
                        return
                except BaseException:
                    temporary.unlink(missing_ok=True)
                    raise

    def _remove_leftovers(self) -> None:
        import fcntl

        for path in self._path.parent.glob(f"{_TEMPORARY}*"):
            # Locked: another process is writing it. Gone, or no lock support: not ours to remove.
            with (
                contextlib.suppress(OSError),
                open(os.open(path, _LOOK), "rb") as file,  # noqa: PTH123 - without following links
            ):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _machine() -> tuple[str | None, str | None, str | None]:
    """Return the host, Python's version and the platform; None if no descriptor is free."""
    try:
        import platform
        import socket

        return socket.gethostname(), platform.python_version(), platform.platform()
    except (ImportError, OSError):
        return None, None, None


def last_unended(directory: Path) -> str | None:
    """Return the label of a run's last start from its `run.json`; None if that start has ended."""
    attempts = _read(directory / RUN_FILE).get("attempts") or [None]
    if not isinstance(attempts[-1], dict) or attempts[-1].get("ended", "") is not None:
        return None
    return safe_str(attempts[-1].get("label", ""))


def _read(path: Path) -> dict[str, Any]:
    try:
        run = orjson.loads(read_run_file(path))
    except (OSError, ValueError, MemoryError):
        return {}
    return run if isinstance(run, dict) and isinstance(run.get("attempts"), list) else {}


def _writer_of(attempt: dict[str, Any]) -> tuple[object, ...]:
    """Return which writer of the run an entry is of."""
    return (attempt.get("stamp", ""), attempt.get("attempt"), attempt.get("label", ""))


def _stored(value: object, depth: int = 0) -> object:
    """Return a setting as files have it, the same in each start.

    A number that is not finite is a text, as JSON would have null; a function or a class is its
    name, as its text would have an address.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, (type, FunctionType, BuiltinFunctionType, MethodType)):
        return f"{value.__module__ or 'builtins'}.{value.__qualname__}"
    if type(value) is dict and depth < _MAX_DEPTH:
        return {name: _stored(one, depth + 1) for name, one in value.items()}
    if type(value) is list and depth < _MAX_DEPTH:
        return [_stored(one, depth + 1) for one in value]
    return value


def render(run: dict[str, Any]) -> bytes:
    """Return the bytes of a file of facts; values that JSON has not become texts."""
    if "config" in run:
        run = {**run, "config": _stored(run["config"])}
    try:
        return orjson.dumps(run, default=safe_str, option=_WRITE_OPTIONS) + b"\n"
    except TypeError:  # an int beyond 64 bits, a lone surrogate, a circular reference
        return orjson.dumps(readable(run), option=_WRITE_OPTIONS) + b"\n"


_WRITE_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
