"""Show the ranks of a run on a terminal: what is slow, tables, and a heat map of rank x step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.text import Text

from foundry_fastlog.analysis.rank_results import numbers_said
from foundry_fastlog.base.formatting import format_seconds, printable
from foundry_fastlog.show.tables import show_rest, show_row, show_table, table

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

    from foundry_fastlog.analysis.rank_results import HeatMap, OneRank, RankComparison

__all__ = ["draw_heat_map", "render_ranks", "render_ranks_shortly"]

_Array = np.ndarray[Any, Any]

_MOST_RANKS, _MOST_BLOCKS, _MOST_SENTENCES = 8, 10, 8
_FEW_RANKS = 3  # of a summary
_ROWS = 16  # of the heat map
_LEVELS = (1.05, 1.1, 1.25, 1.5)
_SHADES, _ASCII = "·░▒▓█", ".-+*#"
_STYLES = ("dim", "", "yellow", "red", "bold red")
_LONGEST, _LONGEST_NAME = 400, 80  # characters of a sentence, of a block's name
_RESOLUTION_S = 1e-6  # of timestamps
_LEGEND = """\
call, p95: median and 95th percentile of a call, with the blocks in it; own: median
of a step, without them; share: of all time in steps; score: best own / its own"""
_NARROWEST, _WIDEST = 24, 100


def render_ranks(found: RankComparison, console: Console) -> None:
    """Show a comparison of ranks: what is slow first, then the figures behind it."""
    console.print(_head(found), soft_wrap=True)
    sentences = found.sentences
    for sentence in sentences[:_MOST_SENTENCES]:
        style = "bold red" if found.stragglers else "green"
        console.print(Text(printable(sentence, _LONGEST), style), soft_wrap=True)
    show_rest(len(sentences), console, _MOST_SENTENCES, "; --json has them all")
    for note in found.notes:
        console.print(Text(printable(f"note: {note}"), "yellow"), soft_wrap=True)
    _blocks(found, console)
    _ranks(found, console)
    if found.heat_map is not None and len(found.ranks) > 1:
        console.print()
        console.print(draw_heat_map(found.heat_map, console), soft_wrap=True)
    if found.heat_map is not None:
        console.print()
    _what_if(found, console)
    _clocks(found, console)


def render_ranks_shortly(found: RankComparison, console: Console) -> None:
    """Show which ranks are slow and the slowest ones, as a part of a summary."""
    if len(found.ranks) < 2:
        return
    _ranks(found, console, _FEW_RANKS)
    for sentence in found.sentences[:_FEW_RANKS]:
        style = "bold red" if found.stragglers else "green"
        console.print(Text(printable(sentence, _LONGEST), style), soft_wrap=True)


def _head(found: RankComparison) -> Text:
    ranks = numbers_said(tuple(one.rank for one in found.ranks))
    text = Text(printable(found.path.absolute().name), "bold")
    word = "rank" if len(found.ranks) == 1 else "ranks"
    text.append(
        f"  {len(found.ranks):,} {word} ({ranks})" if found.ranks else "  no ranks", "default"
    )
    if found.first_step is not None:
        text.append(f", steps {found.first_step:,} to {found.last_step:,}", "default")
    return text


def _blocks(found: RankComparison, console: Console) -> None:
    """Show for each block what ranks take in the middle, and the one that takes longest itself."""
    names = list(dict.fromkeys(one.block for one in found.blocks))
    if not names:
        return
    columns = ("call", "p95", "own", "share", "slowest", "its own", "score")
    several_ranks = len(found.ranks) > 1
    title = "Blocks: the median rank, and the slowest" if several_ranks else "Blocks"
    shown = table(title, "block", *columns)
    for name in names[:_MOST_BLOCKS]:
        rows = [one for one in found.blocks if one.block == name]
        worst = max(rows, key=lambda one: one.own_s)
        several = len(rows) > 1 and not worst.collective
        shares = [one.share for one in rows if one.share is not None]
        show_row(
            shown,
            printable(name, _LONGEST_NAME) + (" (collective)" if worst.collective else ""),
            format_seconds(_middle([one.median_s for one in rows])),
            format_seconds(_middle([one.p95_s for one in rows])),
            format_seconds(_middle([one.own_s for one in rows])),
            f"{_middle(shares):.1%}" if shares else "-",
            f"rank {worst.rank}" if several else "-",
            format_seconds(worst.own_s) if several else "-",
            _score(worst.score if several else None),
        )
    show_table(shown, console)
    show_rest(len(names), console, _MOST_BLOCKS, "; --json has them all")
    console.print(_LEGEND, style="dim", soft_wrap=True)


def _ranks(found: RankComparison, console: Console, most: int = _MOST_RANKS) -> None:
    """Show the slowest ranks."""
    if len(found.ranks) < 2:
        return
    order = sorted(found.ranks, key=_place)
    slow = {rank for one in found.stragglers for rank in one.ranks}
    chosen = sorted(order, key=lambda one: one.rank not in slow)[:most]
    hosts = any(one.host for one in chosen)
    title = "Ranks" if len(chosen) == len(order) else "Ranks: those with the lowest scores"
    columns = ["step", "own work", "waiting", "score", "own history", "S_w"]
    shown = table(title, "rank", *(["host"] if hosts else []), *columns)
    for one in chosen:
        waiting = "-" if one.wait_s is None else format_seconds(one.wait_s)
        show_row(
            shown,
            str(one.rank),
            *([printable(one.host)] if hosts else []),
            format_seconds(one.step_s),
            format_seconds(one.work_s),
            waiting,
            _score(one.score),
            _score(one.history_score),
            "-" if one.slowdown is None else f"{one.slowdown:.3f}",
            style="red" if one.rank in slow else "",
        )
    show_table(shown, console)
    show_rest(len(order), console, len(chosen), "; foundry-fastlog ranks --json has them all")


def _place(one: OneRank) -> tuple[float, float]:
    return (1.0 if one.score is None else one.score, -one.work_s)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _middle(values: Sequence[float]) -> float:
    return float(np.median(values))


def _what_if(found: RankComparison, console: Console) -> None:
    if found.slowdown is None:
        return
    saved = 1 - 1 / found.slowdown
    text = f"What if: S = {found.slowdown:.3f}; if each block took the mean of all ranks, "
    console.print(f"{text}the steps would take {saved:.1%} less.", soft_wrap=True)


def _clocks(found: RankComparison, console: Console) -> None:
    """Say how far the clocks of ranks are apart."""
    clocks = [(one.rank, one.clock) for one in found.ranks if one.clock is not None]
    if len(clocks) < 2:
        return
    rank, widest = max(clocks, key=lambda one: abs(one[1].offset_s))
    spread = max(clock.spread_s for _, clock in clocks)
    by = f"ends of common {found.clocks_from}"
    if abs(widest.offset_s) <= max(3 * spread, 1e-4):
        # A clock that drifts is off by more than its median at one end, and by less at the other.
        within = max(abs(widest.offset_s) + 2 * spread, _RESOLUTION_S)
        said = f"Clocks agree within {format_seconds(within)}"
    else:
        ahead = "ahead of" if widest.offset_s > 0 else "behind"
        said = f"Clock of rank {rank}: {format_seconds(abs(widest.offset_s))} {ahead} the median"
        said += f" rank's, the farthest; within {format_seconds(max(spread, _RESOLUTION_S))}"
    console.print(f"{said} (by {by}).", soft_wrap=True)


def draw_heat_map(found: HeatMap, console: Console) -> Text:
    """Draw ranks as rows and steps as columns, the darker the slower.

    Of more ranks than rows the slowest of a row's ranks is shown, of more steps than columns their
    median; the legend says so.

    Args:
        found: What to draw.
        console: Its width and whether it can show more than ASCII decide how.
    """
    shades = _ASCII if console.options.ascii_only else _SHADES
    per_row = -(-len(found.ranks) // _ROWS)
    groups = [found.ranks[at : at + per_row] for at in range(0, len(found.ranks), per_row)]
    labels = [f"{one[0]}" if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in groups]
    margin = max(map(len, labels)) + 1
    room = max(_NARROWEST, min(console.width, _WIDEST) - margin - 1)
    per_cell = -(-found.ratio.shape[1] // room)
    cells = _cells(found.ratio, per_row, per_cell)
    what = f"block {found.block!r}" if found.block else "own work"
    typical = format_seconds(found.typical_s)
    text = Text(f"Heat map of {printable(what)}, as a multiple of the median {typical}\n", "bold")
    for label, row in zip(labels, cells, strict=True):
        text.append(f"{label:>{margin - 1}} ", "default")
        for value in row:
            if np.isnan(value):
                text.append(" ")
                continue
            level = int(np.searchsorted(_LEVELS, value, side="right"))
            text.append(shades[level], _STYLES[level])
        text.append("\n")
    first, last = f"step {found.steps[0]:,}", f"{found.last_step:,}"
    gap = max(1, cells.shape[1] - len(first) - len(last))
    text.append(" " * margin + first + " " * gap + last + "\n", "dim")
    bounds = ["below 1.05", *(f"{level:g}" for level in _LEVELS)]
    keys = "  ".join(f"{shade} {bound}" for shade, bound in zip(shades, bounds, strict=True))
    text.append(f"{' ' * margin}{keys} or more; blank: no time\n", "dim")
    steps = found.width * per_cell
    cell = "a cell is one step" if steps == 1 else f"a cell is the median of {steps:,} steps"
    cell += f", the slowest of {per_row} ranks" if per_row > 1 else ""
    return text.append(f"{' ' * margin}{cell}", "dim")


def _cells(ratio: _Array, per_row: int, per_cell: int) -> _Array:
    """Return the largest of ranks of the medians of steps."""
    rows, columns = ratio.shape
    padding = ((0, -rows % per_row), (0, -columns % per_cell))
    padded = np.pad(ratio, padding, constant_values=np.nan)
    shaped = padded.reshape(-1, per_row, padded.shape[1] // per_cell, per_cell)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing but NaN
        found: _Array = np.nanmax(np.nanmedian(shaped, axis=3), axis=1)
    return found
