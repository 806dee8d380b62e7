"""Starts of a run: which stream takes the place of which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from foundry_fastlog.run.files import STREAMS, Series

__all__ = ["RERECORDED", "known_streams", "number_starts", "start_of"]

#: The streams in which a resumed run records a step again. Errors and messages are history: the
#: error that ended the first attempt must stay in sight.
RERECORDED = ("metrics", "performance")


def known_streams(streams: Iterable[str]) -> frozenset[str]:
    """Check names of streams.

    Raises:
        ValueError: One of them is unknown.
    """
    wanted = frozenset(streams)
    for stream in sorted(wanted):
        if stream not in STREAMS:
            raise ValueError(f"unknown stream {stream!r}; streams are {', '.join(STREAMS)}")
    return wanted


def start_of(series: Series) -> tuple[str, int]:
    """Order the starts of a rank: by the time in the file name, then by attempt."""
    return (series.writer.stamp, series.writer.attempt)


def number_starts(chosen: Sequence[Series]) -> dict[Series, tuple[int, int]]:
    """Number the ranks of some series, and the starts of each rank, by series."""
    found: dict[int, set[tuple[str, int]]] = {}
    for series in chosen:
        found.setdefault(series.writer.rank, set()).add(start_of(series))
    groups = {rank: number for number, rank in enumerate(found)}
    numbers = {
        rank: {start: number for number, start in enumerate(sorted(starts))}
        for rank, starts in found.items()
    }
    return {
        series: (groups[series.writer.rank], numbers[series.writer.rank][start_of(series)])
        for series in chosen
    }
