"""The entries of a run's starts: files that are whole or not there at all.

``starts/000001.json`` says what a start is, ``starts/000001.config.json`` what its configuration
has become since, ``starts/000001.end.json`` how it ended, ``starts/000001.r8.host.json`` on which
host a rank of it runs; see ``docs/format.md``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from foundry_fastlog._version import __version__
from foundry_fastlog.base.environment import boot_id, git_hash, utc_now
from foundry_fastlog.base.telemetry import resource
from foundry_fastlog.run.info import FORMAT, read_run_file, render
from foundry_fastlog.run.launch import Launch, Place, find_local_rank, find_local_size
from foundry_fastlog.run.names import Writer, make_directories

__all__ = [
    "STARTS_DIR",
    "LiveWriter",
    "Start",
    "add_config",
    "alive_in",
    "entry_path",
    "has_begun",
    "list_entries",
    "list_names",
    "note_end",
    "note_host",
    "note_killed",
    "put_entry",
    "read_ends",
    "read_entry",
    "read_hosts",
]

#: Where the entries are, in the run's directory.
STARTS_DIR = "starts"

LiveWriter = tuple[str, str, int]
"""Label, host and number of a process that records in the run now."""

_HOST = ".host.json"
_LEFT_S = 600.0  # the age of a temporary file at which nobody works on it

_LETTERS = frozenset("rapwx0123456789-")  # of labels


class Start(NamedTuple):
    """The start that this process is part of.

    Attributes:
        number: 0 for the first.
        stamp: When it began, as file names have it, the same for all its processes.
        began: Whether this process began it, and so wrote its entry.
        peers: The processes of the same rank that record in it now.
    """

    number: int
    stamp: str
    began: bool = False
    peers: tuple[LiveWriter, ...] = ()

    def label(self, rank: int | None) -> str:
        """Return the label of its writer with this rank."""
        return Writer(rank or 0, attempt=self.number).label


def list_entries(directory: Path) -> list[tuple[int, Path]]:
    """List the entries of a run's starts, as numbers and paths, by number."""
    place = directory / STARTS_DIR
    parsed = ((_parse(name), name) for name in list_names(place))
    return sorted((found[0], place / name) for found, name in parsed if found and found[1] is None)


def _parse(name: str) -> tuple[int, str | None] | None:
    """Return the number that a file's name has, and for an end the label; None for others."""
    number, _, rest = name.partition(".")
    if len(number) < 6 or not (number.isascii() and number.isdecimal()):
        return None
    if rest == "json":
        return int(number), None
    label = rest[: -len(".end.json")] if rest.endswith(".end.json") else ""
    is_end = rest == "end.json" or (label and _LETTERS.issuperset(label))
    return (int(number), label) if is_end else None


def entry_path(directory: Path, number: int) -> Path:
    """Return where the entry of a start is."""
    return directory / STARTS_DIR / f"{number:06d}.json"


def read_entry(directory: Path, number: int) -> dict[str, Any]:
    """Return what the entry of a start says; nothing where there is none that could be read.

    What was added to its configuration later is in it.
    """
    entry = _read(entry_path(directory, number))
    added = _read(_config_path(directory, number)).get("config") if entry else None
    if isinstance(added, dict):
        before = entry.get("config")
        entry["config"] = {**(before if isinstance(before, dict) else {}), **added}
    return entry


def add_config(directory: Path, number: int, config: Mapping[str, Any]) -> None:
    """Add to the configuration of a start, or change it. The caller is within `opening()`.

    Args:
        directory: The run's directory.
        number: The start.
        config: By name; the values of others stay.

    Raises:
        OSError: It cannot be written.
    """
    path = _config_path(directory, number)
    before = _read(path).get("config")
    added = {**(before if isinstance(before, dict) else {}), **config}
    with _temporary(path, render({"format": FORMAT, "start": number, "config": added})) as file:
        file.replace(path)


def _config_path(directory: Path, number: int) -> Path:
    return directory / STARTS_DIR / f"{number:06d}.config.json"


def has_begun(writer: Writer, entry: Mapping[str, Any]) -> bool:
    """Whether a writer is the process that began its start, and so always says how it ended."""
    return writer.rank == (entry.get("rank") or 0) and not writer.peer


def alive_in(entry: Mapping[str, Any]) -> frozenset[str]:
    """Return the labels of the processes that recorded in the run when a start began."""
    alive = entry.get("alive")
    return frozenset(map(str, alive)) if isinstance(alive, list) else frozenset()


def put_entry(
    directory: Path,
    start: Start,
    place: Place,
    launch: Launch | None,
    alive: list[LiveWriter],
    facts: Mapping[str, Any],
) -> None:
    """Write the entry of a start that this process begins.

    Args:
        directory: The run's directory.
        start: The start.
        place: This process's rank and its world's size.
        launch: The launch that it belongs to.
        alive: The processes that record in the run now.
        facts: ``config``, if there is one.

    Raises:
        FileExistsError: Another process has begun this start.
        OSError: It cannot be written.
    """
    entry = {
        "format": FORMAT,
        "start": start.number,
        "started": utc_now(),
        "stamp": start.stamp,
        "launch": None if launch is None else launch._asdict(),
        "rank": place.rank,
        "world_size": place.world_size,
        "local_world_size": find_local_size(),
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "boot": boot_id(),
        "argv": list(sys.argv),
        "config": facts.get("config") or {},
        "git_hash": git_hash(),
        "alive": sorted(label for label, _, _ in alive),
        "foundry_fastlog": __version__,
    }
    if known := resource():
        entry["resource"] = known
    _put(entry_path(directory, start.number), entry)


def read_ends(directory: Path) -> dict[int, dict[str, dict[str, Any]]]:
    """Return how the processes of a run ended, as far as they said so, by start and label."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for name in list_names(directory / STARTS_DIR):
        parsed = _parse(name)
        if parsed is not None and parsed[1] is not None:
            end = _read(directory / STARTS_DIR / name)
            found.setdefault(parsed[0], {})[str(end.get("label", parsed[1]))] = end
    return found


def note_end(directory: Path, start: Start, label: str, how: str, **facts: Any) -> None:  # noqa: ANN401 - JSON
    """Write how this process's part of a start ended. The first word counts.

    Args:
        directory: The run's directory.
        start: The start.
        label: This process's label.
        how: ``closed``, ``exception``, ``signal`` or ``killed``.
        **facts: What else is known.

    Raises:
        OSError: It cannot be written.
    """
    if not start.began and how == "closed":
        return
    middle = "" if start.began else f".{label or 'p0'}"
    end = {"format": FORMAT, "start": start.number, "label": label, "ended": utc_now(), "how": how}
    with contextlib.suppress(FileExistsError):
        _put(directory / STARTS_DIR / f"{start.number:06d}{middle}.end.json", {**end, **facts})


def note_killed(directory: Path, labels: Iterable[str]) -> None:
    """Write that processes were killed, where the process that began their start may say otherwise.

    Args:
        directory: The run's directory.
        labels: Labels of processes whose rings were recovered.

    Raises:
        OSError: It cannot be written.
    """
    found = [writer for writer in map(Writer.from_label, labels) if not writer.children]
    ends = read_ends(directory) if found else {}
    for writer in found:
        number, label = writer.attempt, writer.label
        entry = read_entry(directory, number)
        if entry and not has_begun(writer, entry) and label not in ends.get(number, {}):
            note_end(directory, Start(number, writer.stamp), label, "killed", ended=None)


def note_host(directory: Path, number: int, rank: int, entry: Mapping[str, Any]) -> None:
    """Write on which host a process that joined a start runs, where its entry does not say it.

    The first process of a host does, where the launcher says which one that is.

    Args:
        directory: The run's directory.
        number: The start.
        rank: The process's rank.
        entry: What the entry of the start says.

    Raises:
        OSError: It cannot be written.
    """
    host = os.uname().nodename
    if host == entry.get("host") or find_local_rank():
        return
    path = directory / STARTS_DIR / f"{number:06d}.r{rank}{_HOST}"
    facts = {"format": FORMAT, "start": number, "rank": rank, "host": host, "boot": boot_id()}
    with _temporary(path, render(facts)) as file:
        file.replace(path)


def read_hosts(directory: Path, number: int) -> dict[int, str]:
    """Return by rank on which host it ran in a start, as far as processes that joined said it."""
    found = {}
    for name in sorted(list_names(directory / STARTS_DIR)):
        if name.startswith(f"{number:06d}.") and name.endswith(_HOST):
            said = _read(directory / STARTS_DIR / name)
            rank, host = said.get("rank"), said.get("host")
            if type(rank) is int and isinstance(host, str) and host:
                found[rank] = host
    return found


def list_names(directory: Path) -> list[str]:
    """Return the names in a directory; none where it cannot be read."""
    try:
        return os.listdir(directory)  # noqa: PTH208 - names are enough
    except OSError:
        return []


def _put(path: Path, entry: dict[str, Any]) -> None:
    """Make an entry, whole or not at all.

    Raises:
        FileExistsError: It is there already.
        OSError: It cannot be made.
    """
    content = render(entry)
    with _temporary(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            _write(path, content)


@contextlib.contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[Path]:
    """Write a file beside another one; it is removed in the end if it is still there."""
    make_directories(path.parent)
    temporary = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        _sweep(path.parent, _write(temporary, content))
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> float:
    """Write a file that is not there; return when, by the file system's clock."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, 0o664), "wb") as file:  # noqa: PTH123 - its mode
        file.write(content)
        return os.fstat(file.fileno()).st_mtime


def _sweep(directory: Path, now: float) -> None:
    """Remove what processes left that were killed while they made an entry."""
    for name in list_names(directory):
        if name.startswith(".") and name.endswith(".tmp"):
            with contextlib.suppress(OSError):
                if (directory / name).stat().st_mtime < now - _LEFT_S:
                    (directory / name).unlink()


def _read(path: Path) -> dict[str, Any]:
    try:
        entry = orjson.loads(read_run_file(path))
    except (OSError, ValueError, MemoryError):
        return {}
    return entry if isinstance(entry, dict) else {}
