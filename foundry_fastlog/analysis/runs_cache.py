"""Keep what is known of the runs below a directory between calls, in the user's cache directory.

The file is never needed, and may be removed at any time. One that is damaged, of another version,
of another machine or from before its last start is ignored, and written anew. Those who look at
the same time do not disturb each other: each writes a file of its own, and renames it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson

from foundry_fastlog._version import __version__
from foundry_fastlog.analysis.accumulate import MetricStats
from foundry_fastlog.analysis.run_summary import RunSummary
from foundry_fastlog.base.environment import boot_id

__all__ = ["Kept", "cache_file", "pack", "read_kept", "unpack", "write_kept"]

_MAGIC = b"FLOGRUNS\x01\n"  # with the version
_WORD = 4
_MOST_BYTES = 256 << 10  # of a run: one with thousands of metrics is read anew
_STATS = [field.name for field in dataclasses.fields(MetricStats)][1:]
_FIELDS = [
    field.name
    for field in dataclasses.fields(RunSummary)
    if field.name not in ("path", "run", "metrics")
]
_NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

#: By the path of a run below the directory: its signature, and what is known of it.
Kept = dict[str, tuple[str, bytes]]


def cache_file(directory: Path, kind: str = "runs") -> Path:
    """Return where what is known of the runs below a directory is kept.

    Args:
        directory: The directory.
        kind: What is known: a file has the lines of one kind.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - may fail there
    digest = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:32]
    return Path(home) / "foundry_fastlog" / f"{kind}-{digest}"


def _reader() -> list[str]:
    """Return what the findings depend on besides the files: this package, and the machine."""
    return [__version__, os.uname().nodename, boot_id()]


def read_kept(directory: Path, kind: str = "runs") -> Kept:
    """Return what is kept of the runs below a directory; nothing where that cannot be trusted."""
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(os.open(cache_file(directory, kind), flags), "rb") as file:  # noqa: PTH123 - its flags
            data = file.read()
        body = memoryview(data)[len(_MAGIC) + _WORD :]
        checked = int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + _WORD], "little")
        if data.startswith(_MAGIC) and crc32(body) == checked:
            reader, *runs = bytes(body).split(b"\n")
            if orjson.loads(reader) == _reader():
                return {
                    orjson.loads(name): (signature.decode(), content)
                    for name, signature, content in zip(*[iter(runs)] * 3, strict=True)
                }
    return {}


def write_kept(directory: Path, kept: Kept, kind: str = "runs") -> None:
    """Keep what is known of the runs below a directory, where that can be done."""
    lines = [orjson.dumps(_reader())]
    for name, (signature, content) in kept.items():
        lines += [orjson.dumps(name), signature.encode(), content]
    body = b"\n".join(lines)
    path = cache_file(directory, kind)
    temporary = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        temporary.write_bytes(b"".join((_MAGIC, crc32(body).to_bytes(_WORD, "little"), body)))
        temporary.replace(path)
    except OSError:  # not writable, or full: the next call reads the runs again
        with contextlib.suppress(OSError):
            temporary.unlink()


def pack(summary: RunSummary) -> bytes | None:
    """Return what is known of a run as a line; None where it cannot be kept."""
    facts = {name: getattr(summary, name) for name in _FIELDS}
    metrics = [
        [name, *(_packed(getattr(stats, one)) for one in _STATS)]
        for name, stats in summary.metrics.items()
    ]
    try:
        summary.run.encode()  # a name that is not UTF-8 is none in JSON
        line = orjson.dumps([facts, metrics])
    except (TypeError, ValueError):
        return None
    return line if len(line) <= _MOST_BYTES else None


def unpack(line: bytes, path: Path, run: str) -> RunSummary:
    """Return what a line says of a run.

    Raises:
        KeyError, TypeError, ValueError: It is no such line.
    """
    facts, metrics = orjson.loads(line)
    return RunSummary(path=path, run=run, metrics=_Metrics(metrics), **facts)


def _packed(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a value so that JSON has it: in a list where it has not."""
    if isinstance(value, (list, dict)):
        return [value]
    if isinstance(value, float) and not math.isfinite(value):
        return [str(value)]
    return value


class _Metrics(Mapping[str, MetricStats]):
    """The metrics of a run, each made when it is asked for: most never are."""

    def __init__(self, packed: Iterable[list[Any]]) -> None:
        self._packed = {name: values for name, *values in packed}
        self._made: dict[str, MetricStats] = {}

    def __getitem__(self, name: str) -> MetricStats:
        if (made := self._made.get(name)) is None:
            values = self._packed[name]
            made = self._made[name] = MetricStats(name, *map(_unpacked, values))
        return made

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def __iter__(self) -> Any:  # noqa: ANN401 - of names
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def _unpacked(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, list):
        (inner,) = value
        return _NONFINITE.get(inner, inner) if isinstance(inner, str) else inner
    return value
