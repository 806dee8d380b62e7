"""A Parquet dataset of runs: which runs its files have, and what their columns hold.

``OUT/STREAM/run=NAME/rank=N/part-0.parquet`` has one stream of one rank of one run, as an export
has, and says in its own metadata which run that is and how it looked when it was read. So all that
is known of a dataset is in its files; ``_manifest.json`` only spares opening those that are as they
were when it was written.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from foundry_fastlog.export.arrow_tables import schema_of
from foundry_fastlog.export.tables import common_kind
from foundry_fastlog.fleet.crew import FleetError
from foundry_fastlog.run.files import STREAMS

if TYPE_CHECKING:  # an optional package
    import pyarrow as pa

__all__ = ["PART", "Dataset", "Part", "beside", "part_at", "stamp_of", "told_by"]

PART = "part-0.parquet"
#: The key of a file's metadata that says of which run it is.
_KEY = b"foundry_fastlog.compacted"
_MANIFEST = "_manifest.json"
#: What Spark and Dask take for the columns of all files of a dataset.
_SCHEMA = "_common_metadata"
_STRAY_S = 3600.0  # what a killed writer left is removed once nobody can be writing it

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """One file of a dataset.

    Attributes:
        path: Its path below the dataset.
        stamp: Its size, time and inode: it is replaced, never changed.
        run: The run, by its path below the directory that was searched.
        key: What it was made of: how the run's files looked, and which streams were read.
        rows: How many rows it has.
        kinds: What its columns hold, by name, as ``Columns.kinds`` says it.
        complete: Whether nothing was missing in the run.
    """

    path: str
    stamp: Stamp
    run: str
    key: str
    rows: int
    kinds: dict[str, str]
    complete: bool

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.stamp[0]

    @property
    def stream(self) -> str:
        """The stream of its rows."""
        return self.path.partition("/")[0]


class Dataset:
    """The files of a dataset.

    Args:
        path: Its directory, which may be missing.

    Attributes:
        path: Its directory.
        parts: Its files by their paths.

    Raises:
        FleetError: There are other files in the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[str, Part] = {}
        known, self._empty = _read_manifest(path)
        for place, entry in _files(path):
            name = place.relative_to(path).as_posix()
            part = known.get(name)
            with contextlib.suppress(FileNotFoundError):  # another compaction removed it since
                stamp = stamp_of(entry.stat())
                if part is None or part.stamp != stamp:
                    part = part_at(place, name, stamp)
                self.parts[name] = part
        self._by_run: dict[str, list[str]] = {}
        for part in self.parts.values():
            self._by_run.setdefault(part.run, []).append(part.path)

    def keys(self) -> dict[str, str]:
        """Return for each run what its files were made of.

        One whose files are of several, as a killed writer leaves them, has none.
        """
        found: dict[str, set[str]] = {}
        for part in self.parts.values():
            found.setdefault(part.run, set()).add(part.key)
        keys = {run: next(iter(one)) if len(one) == 1 else "" for run, one in found.items()}
        return {**self._empty, **keys}

    def incomplete(self) -> set[str]:
        """Return the runs in which something was missing, or whose files are damaged."""
        return {part.run for part in self.parts.values() if not part.complete}

    def replace(self, run: str, key: str, parts: Iterable[Part]) -> None:
        """Take in the files of a run, and remove those that it no longer has.

        Args:
            run: The run.
            key: What they were made of.
            parts: The files; a run without rows has none.
        """
        now = {part.path: part for part in parts}
        for path in self._by_run.get(run, ()):
            if path not in now:
                (self.path / path).unlink(missing_ok=True)
            self.parts.pop(path, None)
        self.parts.update(now)
        self._by_run[run] = list(now)
        self._empty.pop(run, None)
        if not now:
            self._empty[run] = key

    def kinds(self) -> dict[str, dict[str, str]]:
        """Say by stream what a column has to hold so that it fits the rows of all files."""
        found: dict[str, dict[str, str]] = {}
        for part in self.parts.values():
            kinds = found.setdefault(part.stream, {})
            for column, kind in part.kinds.items():
                kinds[column] = common_kind(kinds.get(column, "null"), kind)
        return found

    def unlike(self) -> list[tuple[Part, dict[str, str]]]:
        """Return the files whose columns do not hold what others do, and what they should hold."""
        kinds = self.kinds()
        found = []
        for part in self.parts.values():
            wanted = {column: kinds[part.stream][column] for column in part.kinds}
            if wanted != part.kinds:
                found.append((part, wanted))
        return found

    def write_manifest(self) -> None:
        """Write what spares readers and the next compaction opening each file."""
        import pyarrow.parquet as pq

        self.path.mkdir(parents=True, exist_ok=True)
        rows = [
            [part.path, part.stamp, part.run, part.key, part.rows, part.kinds, part.complete]
            for _, part in sorted(self.parts.items())
        ]
        with beside(self.path / _MANIFEST) as temporary:
            temporary.write_text(json.dumps({"parts": rows, "empty": self._empty}), "utf-8")
        for stream, kinds in self.kinds().items():
            with beside(self.path / stream / _SCHEMA) as temporary:
                pq.write_metadata(schema_of(kinds, []), temporary)


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what changes when a file is replaced."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def told_by(run: str, key: str, *, complete: bool) -> dict[bytes, bytes]:
    """Return the metadata of a file that says of which run it is, and what it was made of."""
    return {_KEY: json.dumps({"run": run, "key": key, "complete": complete}).encode()}


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield where to write a file, which appears under its name at once, or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _files(path: Path) -> Iterator[tuple[Path, os.DirEntry[str]]]:
    """Yield the files of a dataset; remove what killed writers left.

    Raises:
        FleetError: There are files that no compaction writes.
    """
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as listing:
                entries = list(listing)
        except FileNotFoundError:
            continue
        except NotADirectoryError as error:
            raise FleetError(f"{path} is a file; name a directory") from error
        for entry in entries:
            if entry.name in (_MANIFEST, _SCHEMA):
                continue
            if entry.is_dir(follow_symlinks=False) and (folder != path or entry.name in STREAMS):
                waiting.append(Path(entry.path))
            elif entry.name == PART:
                yield Path(entry.path), entry
            elif entry.name.endswith(".tmp") and entry.name[0] == ".":
                _remove_stray(entry)
            else:
                raise FleetError(
                    f"{entry.path} is nothing that a compaction writes; choose another directory"
                )


def _remove_stray(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(OSError):
        if entry.stat().st_mtime < time.time() - _STRAY_S:
            os.unlink(entry.path)  # noqa: PTH108 - an entry, not a Path


def _read_manifest(path: Path) -> tuple[dict[str, Part], dict[str, str]]:
    """Return what the manifest says of files, and of runs without rows.

    Where it is missing or damaged that is nothing: the files are opened, and such runs read again.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        parts = [
            Part(name, (size, mtime, inode), run, key, count, dict(kinds), complete)
            for name, (size, mtime, inode), run, key, count, kinds, complete in told["parts"]
        ]
        return {part.path: part for part in parts}, dict(told["empty"])
    return {}, {}


def part_at(place: Path, name: str, stamp: Stamp | None = None) -> Part:
    """Return what a file says of itself.

    Args:
        place: The file.
        name: Its path below the dataset.
        stamp: What it looks like, if somebody has looked.

    Raises:
        FileNotFoundError: It was removed.
        FleetError: No compaction wrote it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    stamp = stamp or stamp_of(place.stat())
    try:
        footer = pq.read_metadata(place)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException):  # as a power loss leaves it: its run is written again
        run = unquote(name.split("/")[1].removeprefix("run="))
        return Part(name, stamp, run, "", 0, {}, complete=False)
    schema = footer.schema.to_arrow_schema()
    try:
        told = json.loads((schema.metadata or {})[_KEY])
    except (KeyError, ValueError) as error:
        raise FleetError(f"{place} is not of a compaction; choose another directory") from error
    kinds = _kinds_in(schema)
    return Part(name, stamp, told["run"], told["key"], footer.num_rows, kinds, told["complete"])


def _kinds_in(schema: pa.Schema) -> dict[str, str]:
    """Say what the columns of a file hold."""
    import pyarrow as pa

    names = {pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool", pa.null(): "null"}
    return {
        field.name: "time" if pa.types.is_timestamp(field.type) else names.get(field.type, "text")
        for field in schema
    }
