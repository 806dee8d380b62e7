"""What a page says about a run, beside its curves: state, metrics, timings, configuration, files.

Everything is JSON that orjson writes, of bounded size; what is left out is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from foundry_fastlog.analysis.accumulate import MetricStats
from foundry_fastlog.analysis.run_summary import state_of
from foundry_fastlog.analysis.summarize import summarize
from foundry_fastlog.analysis.summary import Summary
from foundry_fastlog.base.formatting import printable
from foundry_fastlog.pages.blocks import medians_by_rank, parents_of
from foundry_fastlog.pages.curves import fitting
from foundry_fastlog.pages.happenings import read_errors, read_messages
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run
from foundry_fastlog.reading.start_states import StartReport

__all__ = ["describe"]

_MOST_KEYS = 3000  # of a configuration
_MOST_TEXT = 2000
_MOST_PROBLEMS = 100
_MOST_CHECKS = 500
_MOST_MARKS = 50  # checkpoints
_MOST_BLOCKS = 20  # that are shown by rank
_EPOCH = " (epoch)"
_SYSTEM = " (system)"


def describe(run: Run, starts: Starts, patterns: Sequence[str] | None = None) -> dict[str, Any]:
    """Describe a run.

    Args:
        run: The run.
        starts: Which starts count.
        patterns: Only metrics that fit one of these; None for all.

    Returns:
        What `assets/report.js` shows, without ``curves``.
    """
    found = summarize(run, starts=starts)
    shown = fitting([stats.name.removesuffix(_EPOCH) for stats in found.metrics], patterns)
    wanted = set(shown)
    nested = parents_of(run, starts) if "performance" in run.streams else {}
    errors, messages = read_errors(run, starts), read_messages(run, starts)
    configs = [report.config for report in reversed(found.starts) if report.config]
    config = next(iter(configs), run.info.get("config"))
    return {
        "name": printable(run.path.absolute().name),
        "path": printable(str(run.path.absolute())),
        "state": state_of(found.starts),
        "error": found.starts[-1].error[:_MOST_TEXT] if found.starts else "",
        "started": (found.starts[0].started if found.starts else "") or found.first,
        "first": found.first,
        "last": found.last,
        "wall_s": found.wall_s,
        "steps": [found.first_step, found.last_step],
        "ranks": list(found.ranks),
        "git": _git(run, found.starts),
        "bytes": found.bytes,
        "complete": found.complete,
        "lines": sum(check.lines for check in found.checks),
        "cost": _cost(found.starts),
        "metrics": [
            _stats(stats)
            for stats in found.metrics
            if stats.name.endswith(_SYSTEM) or stats.name.removesuffix(_EPOCH) in wanted
        ],
        "timings": [
            {
                "name": timing.name,
                "parent": nested.get(timing.name),
                **{
                    key: getattr(timing, key)
                    for key in ("count", "total_s", "p50_s", "p99_s", "max_s", "share", "errors")
                },
            }
            for timing in found.timings
        ],
        "timing_base": [found.timing_base, found.timing_base_s],
        "by_rank": medians_by_rank(run, starts, [one.name for one in found.timings[:_MOST_BLOCKS]]),
        "errors": errors,
        "messages": messages,
        "config": _flat(config),
        "starts": [_start(report) for report in found.starts],
        "marks": [*_first_steps(run, found), *errors.pop("marks"), *_checkpoints(run, starts)],
        "checks": _checks(found),
        "problems": [printable(str(one), 400) for one in found.problems[:_MOST_PROBLEMS]],
        "more_problems": max(0, len(found.problems) - _MOST_PROBLEMS) + found.problems_omitted,
        "left_out": {stream: sum(names.values()) for stream, names in found.left_out.items()},
        "dropped": found.dropped,
        "unread": found.unread,
    }


def _checkpoints(run: Run, starts: Starts) -> list[list[Any]]:
    """Return where the last checkpoints were saved, as ``[step, word]``."""
    from foundry_fastlog.analysis.checkpoints import saves_of  # loads numpy

    return [[step, "checkpoint"] for step in sorted(saves_of(run, starts))[-_MOST_MARKS:]]


def _git(run: Run, starts: Sequence[StartReport]) -> str:
    known = [report.entry.get("git_hash") for report in starts[-1:]]
    found = next((one for one in (*known, run.info.get("git_hash")) if isinstance(one, str)), "")
    return found[:100]


def _cost(starts: Sequence[StartReport]) -> list[float] | None:
    """Return seconds of logging and of all, over the starts that noted them."""
    known = [(one.logging_s, one.wall_s) for one in starts if one.logging_s is not None]
    return [sum(float(one[at] or 0) for one in known) for at in (0, 1)] if known else None


def _stats(stats: MetricStats) -> dict[str, Any]:
    return {
        "name": stats.name,
        "count": stats.count,
        "bad": stats.nonfinite,
        "last": _value(stats.last),
        "min": stats.min,
        "min_step": stats.min_step,
        "max": stats.max,
        "max_step": stats.max_step,
        "mean": stats.mean,
    }


def _value(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return "NaN" if value != value else "inf" if value > 0 else "-inf"
    return value if isinstance(value, (int, float, bool, type(None))) else _short(value)


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return value[:_MOST_TEXT]
    try:
        return orjson.dumps(value).decode()[:_MOST_TEXT]
    except TypeError:  # nested more deeply than can be written
        return "..."


def _flat(config: object) -> list[list[str]]:
    """Return a configuration as dotted names and JSON texts, in its order."""
    found: list[list[str]] = []
    waiting: list[tuple[str, Any]] = [("", config)] if isinstance(config, dict) and config else []
    while waiting and len(found) < _MOST_KEYS:
        name, value = waiting.pop()
        if isinstance(value, dict) and value and name.count(".") < 100:
            inner = [(f"{name}.{key}" if name else str(key), one) for key, one in value.items()]
            waiting += reversed(inner)
        else:
            found.append([name[:_MOST_TEXT], _short(value)])
    if waiting:
        found.append(["...", f"{len(waiting)} more"])
    return found


def _start(report: StartReport) -> dict[str, Any]:
    return {
        "number": report.number,
        "state": state_of([report]),
        "how": report.state,
        "started": report.started,
        "ended": report.ended,
        "error": report.error[:_MOST_TEXT],
        "logging_s": report.logging_s,
        "wall_s": report.wall_s,
        "ranks": len(report.ranks),
        "host": _short(report.entry.get("host") or ""),
        "git": _short(report.entry.get("git_hash") or "")[:12],
        "command": _command(report.entry.get("argv")),
    }


def _command(argv: object) -> str:
    return " ".join(map(str, argv))[:_MOST_TEXT] if isinstance(argv, list) else ""


def _first_steps(run: Run, found: Summary) -> list[list[Any]]:
    """Return where each start but the first began, as marks of a chart."""
    numbers = {(one.label, one.stamp): run.number_of(one) for one in run.writers}
    began: dict[int, int] = {}
    for attempt in found.attempts:
        if attempt.first_step is not None:
            number = numbers[attempt.label, attempt.stamp]
            began[number] = min(began.get(number, attempt.first_step), attempt.first_step)
    return [[step, f"start {number}"] for number, step in sorted(began.items())[1:]]


def _checks(found: Summary) -> list[dict[str, Any]]:
    """Return what is known of each stream of each process, what is incomplete first."""
    rows = [
        {
            "stream": check.series.stream,
            "writer": check.series.writer.display,
            "lines": check.lines,
            "complete": check.complete,
            **{
                key: getattr(check, key)
                for key in ("missing", "duplicates", "damaged", "torn", "dropped", "superseded")
            },
        }
        for check in found.checks
    ]
    return sorted(rows, key=lambda row: bool(row["complete"]))[:_MOST_CHECKS]
