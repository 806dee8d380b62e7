"""The interface of a peer, and shared verifiers."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import orjson

from benchmarks.workload import Row, expected

Loop = Callable[[Iterator[Row]], None]


class VerificationError(AssertionError):
    """A peer's output differs from its input."""


class Peer(abc.ABC):
    """One way to log a training step.

    Life cycle in a process: `setup`, any number of loop calls (with `settle` between them, off the
    clock), `finish`, `verify`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions are reported."""
    in_process: ClassVar[bool] = True
    """False if the peer cannot share an interpreter with others (global state, own services)."""

    @abc.abstractmethod
    def setup(self, directory: Path) -> Loop:
        """Open the peer's output under `directory`.

        Returns:
            A function that makes one call per row, written inline, so that no wrapper is timed.

        Raises:
            ImportError: The peer is not installed.
        """

    def settle(self) -> None:
        """Wait until the backlog of a background thread is empty, if the peer can tell."""
        return

    @abc.abstractmethod
    def finish(self) -> None:
        """Close the peer; on return, every record is complete in its file."""

    @abc.abstractmethod
    def verify(self, directory: Path, count: int) -> None:
        """Check that steps 0..count-1 are there exactly once, in order, with the right values.

        Raises:
            VerificationError: They are not.
        """

    def facts(self) -> dict[str, Any]:
        """Return additional figures of this run (valid after `finish`)."""
        return {}

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the versions of this peer's distributions."""
        return {package: metadata.version(package) for package in cls.packages}


def check_steps(records: Iterable[tuple[int, dict[str, float]]], count: int) -> None:
    """Check that `records` are steps 0..count-1 in order with the workload's values.

    Raises:
        VerificationError: A record is missing, repeated, out of place or has another value.
    """
    step = -1
    for position, (step, metrics) in enumerate(records):
        if step != position:
            raise VerificationError(f"record {position} is step {step}")
        if metrics != expected(step):
            raise VerificationError(f"step {step} has {metrics}, not {expected(step)}")
    if step + 1 != count:
        raise VerificationError(f"{step + 1} of {count} records are in the output")


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Parse every line of a file; a torn last line is an error.

    Raises:
        VerificationError: The last line has no newline.
        orjson.JSONDecodeError: A line is not JSON.
    """
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                raise VerificationError(f"{path.name} ends in a torn line")
            yield orjson.loads(line)
