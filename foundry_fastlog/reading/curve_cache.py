"""Keep curves in a file between readers. It is never needed, and may be removed at any time.

A file that is damaged, of another version or of another run is ignored, and written anew. Readers
at the same time do not disturb each other: each writes a file of its own, and renames it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson

from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.run.files import PRIVATE_DIR

__all__ = ["CACHE_DIR", "Cached", "read_cache", "write_cache"]

#: The directory of caches, in the run's private directory.
CACHE_DIR = "cache"

_MAGIC = b"FLOGCURVES\x02\n"  # with the version
_WORD = 4

#: Rank, name, level and buckets.
_Curve = tuple[int, str, int, bytes]


@dataclass
class Cached:
    """What a file holds.

    Attributes:
        facts: What the curves are of, as JSON values.
        places: Rank, name, level and bytes of each curve.
        content: The bytes of all of them.
    """

    facts: dict[str, Any]
    places: list[tuple[int, str, int, int]]
    content: memoryview

    @classmethod
    def of(cls, facts: dict[str, Any], curves: list[_Curve]) -> Cached:
        """Make what is to be written."""
        places = [(rank, name, level, len(buckets)) for rank, name, level, buckets in curves]
        return cls(facts, places, memoryview(b"".join(buckets for *_, buckets in curves)))

    @classmethod
    def parse(cls, data: bytes) -> Cached:
        """Return what a file holds.

        Raises:
            KeyError, TypeError, ValueError: It is damaged, or of another version.
        """
        at = len(_MAGIC)
        view = memoryview(data)
        if view[:at] != _MAGIC or crc32(view[at + _WORD :]) != _int(view[at : at + _WORD]):
            raise ValueError("not a cache of curves")
        begin = at + 2 * _WORD
        end = begin + _int(view[at + _WORD : begin])
        head = orjson.loads(view[begin:end])
        return cls(head["facts"], head["places"], view[end:])

    def curves(self) -> Iterator[tuple[int, str, int, memoryview]]:
        """Yield rank, name, level and buckets of each curve."""
        at = 0
        for rank, name, level, size in self.places:
            yield rank, name, level, self.content[at : at + size]
            at += size

    def render(self) -> bytes:
        """Return the bytes of the file."""
        head = orjson.dumps({"facts": self.facts, "places": self.places})
        body = b"".join((len(head).to_bytes(_WORD, "little"), head, self.content))
        return b"".join((_MAGIC, crc32(body).to_bytes(_WORD, "little"), body))


def _int(data: memoryview) -> int:
    return int.from_bytes(data, "little")


def _directories(run: Path) -> Iterator[Path]:
    """Yield where caches of a run may be: with it, or else with those of the user."""
    private = run / PRIVATE_DIR
    # It is never made here: that it is missing tells readers something.
    if private.is_dir():
        yield private / CACHE_DIR
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - may fail there
    digest = hashlib.sha256(os.fsencode(run.resolve())).hexdigest()[:32]
    yield Path(home) / "foundry_fastlog" / digest


def read_cache(run: Path, starts: Starts) -> Iterator[Cached]:
    """Yield the caches of a run that can be read, the nearest one first."""
    for directory in _directories(run):
        with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            with open(os.open(directory / f"curves-{starts}", flags), "rb") as file:  # noqa: PTH123 - its flags
                cached = Cached.parse(file.read())
            if cached.facts.get("starts") == starts:
                yield cached


def write_cache(run: Path, starts: Starts, cached: Cached) -> None:
    """Write a cache where that can be done; where it cannot, there is none."""
    cached.facts["starts"] = starts
    content = cached.render()
    for directory in _directories(run):
        temporary = directory / f".{os.urandom(8).hex()}.tmp"
        try:
            directory.mkdir(0o775, parents=directory.parent.name != PRIVATE_DIR, exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(directory / f"curves-{starts}")
        except OSError:  # not writable, or full: the next place, or none
            with contextlib.suppress(OSError):
                temporary.unlink()
            continue
        return
