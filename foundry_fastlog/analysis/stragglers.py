"""Finds ranks that are slow by themselves, and times in which all ranks are.

The times of one block are compared rank by rank in windows of steps:

- ``m[r, w]`` is the median of rank r over the steps of window w: a few long steps do not move it.
- ``ref[w]`` is the lower median of ``m`` over the ranks: up to half of them may be slow.
- ``x[r, w] = log(m[r, w] / ref[w])`` is how much slower a rank is than the others. What slows down
  all ranks alike cancels.
- The noise of ``x`` is taken from the differences of neighbouring windows and of neighbouring steps
  (median and 75th percentile), which a lasting slowdown does not touch.

A rank is slow where the mean of ``x`` over two windows or more is beyond the threshold and beyond
six times its noise, most of the windows and of the single steps agree, it stands out from the
spread of the other ranks, and the time lost is worth naming. The step at which it began is where
the cumulative sum of ``x - shift/2`` over single steps is lowest (CUSUM, Page 1954), its terms
bounded so that single long steps do not decide.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "LEAST_STEPS",
    "WINDOW",
    "Shift",
    "find_shared",
    "find_slow",
    "lower_median",
    "windows_of",
]

_Array = np.ndarray[Any, Any]

WINDOW = 16
"""Steps of a window."""

LEAST_STEPS = 2 * WINDOW
"""Fewer steps tell nothing."""

_SIGMAS = 6.0
_SPREADS = 5.0  # of the other ranks
_FEW_RANKS = 4  # whose spread says nothing
_MOSTLY = 0.65  # of the single steps of a slowdown
_LEAST_DIFFERENCES = 100  # that say how large noise is
_SAMPLED = 200_000
_AGREE = 0.75  # of the windows
_CLIP = 4.0  # thresholds that one window counts at most
_GAP = 2  # windows between two parts of one slowdown
_TINY_S = 1e-7


@dataclass(frozen=True)
class Shift:
    """A range of columns in which a rank, or all ranks, were slow.

    Attributes:
        rank: The row of the rank; -1 for all.
        first: The first column.
        last: The last column; None where it goes on to the end.
        ratio: Its time over that of the others, or of the other steps.
        excess_s: Seconds a step that it takes more.
    """

    rank: int
    first: int
    last: int | None
    ratio: float
    excess_s: float


def lower_median(values: _Array, axis: int = 0) -> _Array:
    """Return the lower of both middle values, without NaN: one of the values themselves."""
    ordered = np.sort(values, axis=axis)  # NaN last
    count = (~np.isnan(values)).sum(axis=axis, keepdims=True)
    found = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis)
    return np.squeeze(found, axis)


def windows_of(times: _Array, size: int = WINDOW) -> _Array:
    """Return the medians of windows of columns; NaN where more than half of one is absent."""
    whole = times.shape[-1] // size
    shaped = times[..., : whole * size].reshape(*times.shape[:-1], whole, size)
    found = lower_median(shaped, axis=-1)
    scarce = np.isnan(shaped).sum(axis=-1) * 2 > size
    return np.where(scarce, np.nan, found)


def find_slow(times: _Array, threshold: float, least_s: float) -> list[Shift]:
    """Find ranks that are slower than the others.

    Args:
        times: Seconds of one block, ranks x columns, NaN where there is none.
        threshold: The score (the time of the others over that of the rank) below which it is slow.
        least_s: Seconds a step that are worth naming.
    """
    columns = np.flatnonzero((~np.isnan(times)).sum(axis=0) >= 2)
    if len(columns) < LEAST_STEPS:
        return []
    chosen = times[:, columns]
    medians = windows_of(chosen)
    reference = lower_median(medians)
    ratios = _log_ratio(medians, reference)
    limit = -np.log(threshold)
    # Of few ranks the one that is compared with is often the rank itself, which has no noise.
    level = ratios if len(ratios) > _FEW_RANKS else _between(np.log(np.maximum(medians, _TINY_S)))
    flags = _beyond(ratios, limit, level, _noise_of_windows(chosen))
    single = None
    found = []
    for rank, first, last in _regions(flags):
        window = slice(first, last + 1)
        shift = float(np.nanmedian(ratios[rank, window]))
        excess = float(np.nanmedian(medians[rank, window] - reference[window]))
        if shift < limit or excess < least_s or not _stands_out(ratios[:, window], shift):
            continue
        if single is None:
            single = _log_ratio(chosen, lower_median(chosen))
        begin, end = _edges(single[rank], shift, first, last)
        if not _mostly(single[rank, begin : None if end is None else end + 1], limit / 2):
            continue
        until = None if end is None else int(columns[end])
        found.append(Shift(rank, int(columns[begin]), until, float(np.exp(shift)), excess))
    return found


def find_shared(
    times: _Array, threshold: float, least_s: float, *, joint: bool = False
) -> list[Shift]:
    """Find ranges of steps in which all ranks are slower than in the others.

    Args:
        times: As for `find_slow`.
        threshold: Likewise, over the time of the other steps.
        least_s: Likewise.
        joint: Whether ranks wait for each other in the block: its own time is the shortest then.
    """
    columns = np.flatnonzero((~np.isnan(times)).any(axis=0))
    theirs = (~np.isnan(times)).any(axis=1).sum()  # what few ranks do is not what all ranks do
    if len(columns) < 2 * LEAST_STEPS or 2 * theirs <= len(times):
        return []
    chosen = times[:, columns]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without values
        common = np.nanmin(chosen, axis=0) if joint else lower_median(chosen)
    level = windows_of(common)
    usual = lower_median(level)
    ratios = _log_ratio(level, usual)[None]
    limit = -np.log(threshold)
    flags = _beyond(ratios, limit, ratios, _noise_of_windows(common[None]))
    medians = windows_of(chosen)
    found = []
    for _, first, last in _regions(flags):
        window = slice(first, last + 1)
        shift = float(np.nanmedian(ratios[0, window]))
        excess = float(np.nanmedian(level[window]) - usual)
        outside = np.delete(medians, np.arange(first, last + 1), axis=1)
        if shift < limit or excess < least_s or not outside.size:
            continue
        if not joint and not _all_slower(medians[:, window], outside, limit):
            continue
        begin, end = _edges(_log_ratio(common, usual), shift, first, last)
        until = None if end is None else int(columns[end])
        found.append(Shift(-1, int(columns[begin]), until, float(np.exp(shift)), excess))
    return found


def _all_slower(inside: _Array, outside: _Array, limit: float) -> bool:
    """Return whether nearly all ranks that can tell are slower than at other times."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a rank without values
        change = _log_ratio(np.nanmedian(inside, axis=1), np.nanmedian(outside, axis=1))
    known = change[~np.isnan(change)]
    return bool(len(known) and (known > limit / 2).mean() > 0.95)


def _log_ratio(times: _Array, reference: Any) -> _Array:  # noqa: ANN401 - an array or a number
    found: _Array = np.log(np.maximum(times, _TINY_S) / np.maximum(reference, _TINY_S))
    return found


def _between(levels: _Array) -> _Array:
    """Return each row less another one: what all rows have in common cancels."""
    found: _Array = levels - np.roll(levels, 1, axis=0) if len(levels) > 1 else levels
    return found


def _noise(levels: _Array) -> float:
    """Return the standard deviation of windows around their rank's level; 0 of too few."""
    steps = np.abs(np.diff(levels, axis=1))
    steps = steps[~np.isnan(steps)]
    if len(steps) < _LEAST_DIFFERENCES:
        return 0.0
    middle, high = np.quantile(steps, (0.5, 0.75))
    return float(max(middle / 0.674, high / 1.15) / np.sqrt(2))  # quantiles of a normal one


def _noise_of_windows(times: _Array) -> float:
    """Return what single steps say of the noise of a window's median, were they independent."""
    changes = np.diff(np.log(np.maximum(times, _TINY_S)), axis=1)
    changes = np.abs(_between(changes)[:, :: max(1, changes.size // _SAMPLED)])
    changes = changes[~np.isnan(changes)]
    if not len(changes):
        return 0.0
    single = float(np.median(changes)) / 0.674 / np.sqrt(2 if len(times) == 1 else 4)
    return float(np.sqrt(np.pi / 2 / WINDOW) * single)  # of a median of normal values


def _beyond(ratios: _Array, limit: float, levels: _Array, single: float) -> _Array:
    """Flag windows within which, two or more together, a rank is beyond the limit and the noise."""
    flags = np.zeros(ratios.shape, bool)
    sums = _cumulated(np.clip(np.nan_to_num(ratios), -_CLIP * limit, _CLIP * limit))
    known = _cumulated(~np.isnan(ratios))
    over = _cumulated(np.nan_to_num(ratios) > limit / 2)
    level = _cumulated(np.nan_to_num(levels))
    single = max(single, _noise(levels))
    size = 2
    while size <= ratios.shape[1]:
        counts = known[:, size:] - known[:, :-size]
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (sums[:, size:] - sums[:, :-size]) / counts
            wider = (level[:, size::size] - level[:, :-size:size]) / counts[:, ::size]
        enough = (counts * 2 > size) & (over[:, size:] - over[:, :-size] >= _AGREE * counts)
        noise = max(single / np.sqrt(size), _noise(wider))
        for rank, at in np.argwhere(enough & (means > max(limit, _SIGMAS * noise))).tolist():
            flags[rank, at : at + size] = True
        size *= 4
    return flags & (ratios > limit / 2)


def _cumulated(values: _Array) -> _Array:
    kind = "f8" if values.dtype.kind == "f" else "i8"
    return np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1, dtype=kind)


def _stands_out(ratios: _Array, shift: float) -> bool:
    """Return whether a shift is far outside of the spread of all ranks over the same windows."""
    if len(ratios) <= _FEW_RANKS:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a rank without values
        means = np.nanmean(ratios, axis=1)
    return shift > _SPREADS / 0.674 * float(lower_median(np.abs(means)))


def _mostly(ratios: _Array, limit: float) -> bool:
    """Return whether most of the steps that a rank has are beyond the limit."""
    known = ratios[~np.isnan(ratios)]
    return len(known) > 0 and bool((known > limit).mean() > _MOSTLY)


def _regions(flags: _Array) -> Iterator[tuple[int, int, int]]:
    """Yield the row, the first and the last window of what is flagged, small gaps included."""
    for row in np.flatnonzero(flags.any(axis=1)).tolist():
        places = np.flatnonzero(flags[row])
        breaks = np.flatnonzero(np.diff(places) > _GAP + 1) + 1
        for part in np.split(places, breaks):
            if len(part) > 1:
                yield row, int(part[0]), int(part[-1])


def _edges(single: _Array, shift: float, first: int, last: int) -> tuple[int, int | None]:
    """Return the first and the last column of a shift; None for the last where it goes on."""
    terms = np.clip(np.nan_to_num(single - shift / 2, nan=0.0), -shift, shift)
    middle = (first + last + 1) * WINDOW // 2
    from_ = max(0, (first - 2) * WINDOW)
    sums = np.cumsum(np.concatenate([[0.0], terms[from_:middle]]))
    begin = from_ + int(np.argmin(sums))
    to = min(len(terms), (last + 3) * WINDOW)
    sums = np.cumsum(np.concatenate([[0.0], terms[middle:to]]))
    end = middle + int(np.argmax(sums)) - 1
    known = np.flatnonzero(~np.isnan(single))  # a rank that ended early was slow to its end
    return begin, None if end > known[-1] - WINDOW else end
