"""The report: one page with everything about one or several runs, which needs no network.

    >>> from foundry_fastlog import write_report  # doctest: +SKIP
    >>> write_report(["runs/a", "runs/b"], "report.html")

It can be sent by mail and opened years later: scripts, styles and data are in it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from foundry_fastlog._version import __version__
from foundry_fastlog.export.jsonl import check_target, open_output
from foundry_fastlog.pages.bundle import BEGINNING, page_of
from foundry_fastlog.pages.curves import CurveReader, fitting
from foundry_fastlog.pages.facts import describe
from foundry_fastlog.pages.goodput import goodput_of
from foundry_fastlog.pages.ranks import rank_map
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run, read_run
from foundry_fastlog.run.files import StrPath
from foundry_fastlog.show.palette import COLORS, styles_of

__all__ = ["ReportResult", "write_report"]

#: Bytes of a page that a bucket takes: base64 of what compression leaves of some ten numbers.
_BUCKET_BYTES = 38
_FEWEST, _MOST = 64, 1 << 15


@dataclass(frozen=True)
class ReportResult:
    """A report that was written.

    Attributes:
        path: The file.
        bytes: Its size.
        runs: How many runs it shows.
        curves: How many curves.
        complete: Whether every accepted record of the runs is there, once and readable.
    """

    path: Path
    bytes: int
    runs: int
    curves: int
    complete: bool


def write_report(
    runs: Run | StrPath | Iterable[Run | StrPath],
    path: StrPath,
    *,
    metrics: str | Sequence[str] | None = None,
    starts: Starts = "latest",
    title: str | None = None,
    size: int = 5_000_000,
    force: bool = False,
    settings: Mapping[str, str] | None = None,
) -> ReportResult:
    """Write a page that shows runs: curves, timings, errors, messages, configuration, files.

    Curves with more values than there is room for are divided into buckets of steps that keep the
    first, last, smallest and largest value, so no spike is lost at any zoom.

    Args:
        runs: One run, or several to be shown together; or their directories.
        path: The file to write. A report that is there already is replaced.
        metrics: Only these metrics: names or patterns such as ``val_*``. Default: all.
        starts: ``"latest"``, ``"all"`` or a number; see ``Run.lines``.
        title: The page's title. Default: the names of the runs.
        size: About how many bytes the curves may take. Each keeps 64 buckets at least.
        force: Replace a file that is not a report.
        settings: How the page looks at first, as the fragment of its address says it: ``x``,
            ``logx``, ``logy``, ``smooth``, ``zoom``, ...

    Returns:
        What was written.

    Raises:
        RunNotFoundError: A path is not a run.
        ExportError: The file cannot be written.
        ImportError: numpy is not installed.
        ValueError: There is no run, an unknown start, or no metric fits.
    """
    given = [runs] if isinstance(runs, (Run, str, os.PathLike)) else list(runs)
    chosen = [run if isinstance(run, Run) else read_run(run) for run in given]
    if not chosen:
        raise ValueError("there is no run to report on")
    target = Path(path)
    for run in chosen:
        check_target(run, target, force=force or _is_report(target))
    patterns = [metrics] if isinstance(metrics, str) else metrics
    names = [fitting(run.names(), patterns) for run in chosen]
    if patterns is not None and not any(names):
        known = ", ".join(list(dict.fromkeys(name for run in chosen for name in run.names()))[:20])
        raise ValueError(f"no metric fits {', '.join(patterns)}; there are: {known or 'none'}")
    count = sum(map(len, names)) + sum(len(run.names("system")) for run in chosen)
    points = max(_FEWEST, min(_MOST, size // (max(1, count) * _BUCKET_BYTES)))
    blobs: list[str] = []
    facts = [
        _facts(run, wanted, starts, patterns, points, blobs)
        for run, wanted in zip(chosen, names, strict=True)
    ]
    shown = title or ", ".join(one["name"] for one in facts[:4])
    data: dict[str, Any] = {"title": shown, "runs": _distinct(facts), "colours": COLORS}
    data |= {"made": _made(), "settings": dict(settings or {})}
    with open_output(target, force=True) as handle:
        written = sum(map(handle.write, page_of(shown, "report.js", data, blobs)))
    curves = sum(len(one["curves"]) for one in facts)
    return ReportResult(target, written, len(facts), curves, all(one["complete"] for one in facts))


def _facts(
    run: Run,
    names: Sequence[str],
    starts: Starts,
    patterns: Sequence[str] | None,
    points: int,
    blobs: list[str],
) -> dict[str, Any]:
    """Describe a run, with its curves."""
    found = describe(run, starts, patterns)
    reader = CurveReader(run, starts, points, blobs)
    curves = list(reader.metrics(names, found["lines"]))
    return {
        **found,
        "curves": [*curves, *reader.system()],
        "goodput": goodput_of(run, starts),
        "rank_map": rank_map(run, starts),
    }


def _distinct(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each run a name of its own, and a colour."""
    seen: Counter[str] = Counter()
    for one in facts:
        seen[one["name"]] += 1
        if seen[one["name"]] > 1:
            one["name"] = f"{one['name']} ({seen[one['name']]})"
    styles = styles_of([one["name"] for one in facts])
    return [{**one, "style": styles[one["name"]]} for one in facts]


def _made() -> str:
    now = datetime.now(timezone.utc)
    return f"foundry_fastlog {__version__}, {now:%Y-%m-%d %H:%M} UTC"


def _is_report(path: Path) -> bool:
    """Say whether a file is a page that this module wrote."""
    try:
        with path.open("rb") as handle:
            return handle.read(len(BEGINNING)) == BEGINNING.encode()
    except OSError:
        return False
