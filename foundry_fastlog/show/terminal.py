"""Show a summary on a terminal with rich: tables, and curves of the losses."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from foundry_fastlog.base.formatting import (
    format_bytes,
    format_moment,
    format_seconds,
    format_value,
    printable,
)
from foundry_fastlog.run.checks import Problem, SeriesCheck
from foundry_fastlog.show.curve import draw_curves, format_number
from foundry_fastlog.show.many_ranks import FEW, render_starts_of_ranks, render_streams
from foundry_fastlog.show.names import Name
from foundry_fastlog.show.tables import MOST
from foundry_fastlog.show.tables import show_rest as _rest
from foundry_fastlog.show.tables import show_row as _row
from foundry_fastlog.show.tables import show_table as _show
from foundry_fastlog.show.tables import table as _table

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

    from foundry_fastlog.analysis.summary import Summary
    from foundry_fastlog.export.result import Exported
    from foundry_fastlog.reading.found_rings import RingReport
    from foundry_fastlog.reading.run import Run
    from foundry_fastlog.reading.start_states import StartReport

__all__ = [
    "format_bytes",
    "format_seconds",
    "format_value",
    "plural",
    "printable",
    "render_checks",
    "render_curves",
    "render_export",
    "render_metrics",
    "render_problems",
    "render_rings",
    "render_summary",
    "render_timings",
]

_LINE_CURVES = ("loss", "train_loss", "train/loss", "train.loss")
_MARK_CURVES = ("val_loss", "valid_loss", "eval_loss", "val/loss", "val.loss", "test_loss")
_MOST_REASONS = 6
_MOST = MOST
_MOST_NAMES = 40  # metrics, or timers


def render_checks(checks: Iterable[SeriesCheck], console: Console) -> None:
    """Show what is missing: one row per incomplete stream and process."""
    columns = ("writer", "lines", "missing", "seq missing", "damaged", "torn", "double", "dropped")
    table = _table("What is missing", "stream", *columns)
    for check in checks:
        if check.whole and not check.dropped:
            continue
        ranges = [
            f"{gap.first}" if gap.first == gap.last else f"{gap.first}-{gap.last}"
            for gap in check.gaps[:3]
        ]
        more = ["..."] if len(check.gaps) > 3 else []
        _row(
            table,
            check.series.stream,
            check.series.writer.display,
            f"{check.lines:,}",
            f"{check.missing:,}",
            ", ".join(ranges + more) or "-",
            f"{check.damaged:,}",
            f"{check.torn}",
            f"{check.duplicates + check.out_of_order:,}",
            f"{check.dropped:,}",
        )
    if table.rows:
        _show(table, console)


def plural(count: int, one: str, many: str = "") -> str:
    """Say how many there are: ``1 run``, ``2 runs``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _extreme(value: float | None, step: int | None) -> str:
    number = format_number(value)
    return number if step is None else f"{number} @{step}"


def _facts(summary: Summary, console: Console) -> None:
    info = summary.info
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    _row(grid, "run", printable(str(summary.path)))
    if isinstance(info.get("name"), str) and info["name"]:
        _row(grid, "name", printable(info["name"]))
    if isinstance(info.get("git_hash"), str) and info["git_hash"]:
        _row(grid, "git", printable(info["git_hash"]))
    if summary.first:
        when = f"{printable(summary.first)} for {format_seconds(summary.wall_s)}"
        _row(grid, "recorded", when)
    if summary.first_step is not None and summary.last_step is not None:
        _row(grid, "steps", f"{summary.first_step:,} to {summary.last_step:,}")
    ranks = plural(len(summary.ranks), "rank")
    processes = plural(len(summary.attempts), "process", "processes")
    _row(grid, "writers", f"{processes}: {ranks}, {plural(len(summary.starts), 'start')}")
    if summary.starts:
        _row(grid, "state", _state(summary.starts[-1], 200))
        if cost := _cost(summary.starts[-1]):
            _row(grid, "cost", cost)
    _row(grid, "files", f"{plural(len(summary.files), 'file')}, {format_bytes(summary.bytes)}")
    lines = sum(check.lines for check in summary.checks)
    live = sum(ring.outcome == "live" for ring in summary.rings)
    if summary.complete and live:
        at_work = plural(live, "process", "processes")
        text = f"so far: {lines:,} lines, none missing; {at_work} still running"
        grid.add_row(Text("complete"), Text(text, "green"))
    elif summary.complete:
        grid.add_row(Text("complete"), Text(f"yes: {lines:,} lines, none missing", "green"))
    else:
        grid.add_row(Text("complete"), Text("NO: see the problems below", "bold red"))
    if summary.dropped:
        text = ", ".join(f"{stream} {count:,}" for stream, count in summary.dropped.items())
        grid.add_row(Text("dropped"), Text(f"{text} (the recorder's ring was full)", "yellow"))
    if summary.missing:
        reasons = Counter[str]()
        for found in summary.missing.values():
            reasons.update(found)
        grid.add_row(Text("missing"), Text(_missing_text(reasons), "yellow"))
    pending = sum(ring.emitted for ring in summary.rings)
    if pending:
        text = f"{plural(pending, 'line')} in the rings of killed processes; to write them, run: "
        text += f"foundry-fastlog recover {summary.path}"
        grid.add_row(Text("pending"), Text(printable(text), "yellow"))
    if summary.left_out:
        _row(grid, "omitted", describe_left_out(summary.left_out))
    console.print(grid)


def describe_left_out(left_out: Mapping[str, Mapping[str, int]]) -> str:
    """Say which values count no longer: ``1,200 values recorded again: loss 1,000, lr 200``."""
    counts = Counter[str]()
    for names in left_out.values():
        counts.update(names)
    shown = [f"{printable(name, 40)} {n:,}" for name, n in counts.most_common(_MOST_REASONS)]
    if len(counts) > len(shown):
        shown.append(f"{len(counts) - len(shown):,} more names")
    total = plural(sum(counts.values()), "value")
    return f"{total} recorded again or rewound: {', '.join(shown)} (--starts all keeps them)"


def _missing_text(reasons: Mapping[str, int]) -> str:
    """Format how many values are missing: ``3 values missing: timeout 2, lost 1``."""
    shown = Counter(reasons).most_common(_MOST_REASONS)
    why = [f"{printable(reason, 40)} {count:,}" for reason, count in shown]
    total = sum(reasons.values())
    if others := total - sum(count for _, count in shown):
        why.append(f"others {others:,}")
    return f"{plural(total, 'value')} missing: {', '.join(why)}"


def _render_missing(summary: Summary, console: Console) -> None:
    if not summary.missing:
        return
    console.print()
    console.print(Text("Missing values", "bold"))
    for name, reasons in _first(list(summary.missing.items())):
        console.print(Text(f"  {printable(name, 80)}: {_missing_text(reasons)}", "yellow"))
    _rest(len(summary.missing), console)


def render_metrics(summary: Summary, console: Console, most: int = _MOST_NAMES) -> None:
    """Show the table of metrics, with so many of them at most."""
    if not summary.metrics:
        return
    # What is odd is seen, wherever it stands.
    odd = [stats for stats in summary.metrics if stats.nonfinite]
    shown = {stats.name for stats in [*odd[: most // 2], *summary.metrics][:most]}
    nonfinite = bool(odd)
    columns = ["first", "last", "min @step", "mean", "max @step", "count"]
    table = _table("Metrics", "metric", *columns, *(["NaN/Inf"] if nonfinite else []))
    for stats in summary.metrics:
        if stats.name not in shown:
            continue
        _row(
            table,
            printable(stats.name),
            format_value(stats.first),
            format_value(stats.last),
            _extreme(stats.min, stats.min_step),
            format_number(stats.mean),
            _extreme(stats.max, stats.max_step),
            f"{stats.count:,}",
            *([f"{stats.nonfinite:,}"] if nonfinite else []),
            style="red" if stats.nonfinite else "",
        )
    _show(table, console)
    _rest(len(summary.metrics), console, len(shown), "; -m 'PATTERN' shows those that fit")


def render_curves(summary: Summary, console: Console, *, height: int = 10) -> None:
    """Draw the training and validation loss, or the first metric if there is no loss."""
    curves = {name: points for name, points in summary.curves.items() if len(points) > 1}
    line = next((name for name in _LINE_CURVES if name in curves), None)
    mark = next((name for name in _MARK_CURVES if name in curves), None)
    names = [name for name in (line, mark) if name] or list(curves)[:1]
    if names:
        # Of the run, so that a tail of NaN is seen to be one.
        first, last = summary.first_step, summary.last_step
        ends = None if first is None or last is None else (first, last)
        text = draw_curves(
            {printable(name, 24): curves[name] for name in names},
            width=min(console.width, 100) - 1,
            height=height,
            ascii_only=console.options.ascii_only,
            ends=ends,
        )
        console.print()
        console.print(text, soft_wrap=True)


def render_timings(summary: Summary, console: Console) -> None:
    """Show the table of timings."""
    if not summary.timings:
        return
    base = "step" if summary.timing_base == "step" else "wall time"
    columns = ["timer", "count", "total", "mean", "p50", "p95", "p99", "max", f"of {base}"]
    table = _table("Timings", *columns)
    for timing in summary.timings[:_MOST_NAMES]:
        name = printable(timing.name) + (f" ({timing.errors} failed)" if timing.errors else "")
        times = (timing.total_s, timing.mean_s, timing.p50_s, timing.p95_s, timing.p99_s)
        share = "-" if timing.share is None else f"{timing.share:.1%}"
        _row(
            table,
            name,
            f"{timing.count:,}",
            *map(format_seconds, (*times, timing.max_s)),
            share,
        )
    _show(table, console)
    _rest(len(summary.timings), console, _MOST_NAMES, " that took less; --json has them all")
    if any(timing.sampled for timing in summary.timings):
        console.print(Text("Beyond 131,072 blocks, percentiles are of a random sample.", "dim"))


def _render_events(summary: Summary, console: Console) -> None:
    if summary.errors_by_level or summary.log_by_level:
        table = _table("Errors and messages", "what", "count")
        for kind, count in summary.errors_by_type.items():
            _row(table, f"error {printable(kind) or '(no exception)'}", f"{count:,}", style="red")
        for name, count in summary.events.items():
            _row(table, f"event {printable(name)}", f"{count:,}", style="yellow")
        for level, count in summary.log_by_level.items():
            _row(table, f"log {printable(level)}", f"{count:,}")
        _show(table, console)
    latest = sorted(summary.last_errors + summary.last_events, key=lambda one: one.timestamp)
    for error in latest:
        where = f" {error.label}" if error.label else ""
        where += "" if error.step is None else f" step {error.step}"
        kind = printable(error.error_type or error.level)
        text = Text(f"{printable(error.timestamp)}{where} ", "dim")
        message = error.message.removeprefix(f"{error.error_type}: ")
        text.append(kind, "red").append(f": {printable(message, 200)}", "default")
        console.print(text)


def _state(start: StartReport, most: int) -> str:
    """Say how a start is doing; of an error at most so many characters."""
    return f"{start.state} ({printable(start.error, most)})" if start.error else start.state


def _cost(start: StartReport) -> str:
    """Say what logging took on the threads that logged; nothing where nobody noted it."""
    if start.logging_s is None or not start.wall_s or not 0 <= start.logging_s / start.wall_s < 1e6:
        return ""
    share = format_number(100 * start.logging_s / start.wall_s)
    return f"logging took {share} % of the time ({format_seconds(start.logging_s)})"


def _render_starts(summary: Summary, console: Console) -> None:
    if len(summary.starts) < 2:
        return
    table = _table("Starts", "start", "began", "state", "ranks")
    for start in _first(summary.starts):
        state = _state(start, 80)
        ranks = ", ".join(map(str, start.ranks[:8])) + (", ..." if len(start.ranks) > 8 else "")
        _row(table, str(start.number), format_moment(start.started) or "-", state, ranks or "-")
    _show(table, console)
    _rest(len(summary.starts), console)


def _render_attempts(summary: Summary, console: Console) -> None:
    if len(summary.attempts) < 2:
        return
    if len(summary.attempts) > FEW:
        render_starts_of_ranks(summary, console)
        return
    table = _table("Processes", "writer", "rank", "start", "steps", "lines", "first line", "time")
    for attempt in _first(summary.attempts):
        steps = "-"
        if attempt.first_step is not None:
            steps = f"{attempt.first_step:,} to {attempt.last_step:,}"
        _row(
            table,
            attempt.label or "main",
            str(attempt.rank),
            str(attempt.attempt),
            steps,
            f"{sum(attempt.lines.values()):,}",
            format_moment(attempt.first) or "-",
            format_seconds(attempt.wall_s),
        )
    _show(table, console)
    _rest(len(summary.attempts), console)


def _render_files(summary: Summary, console: Console) -> None:
    if len(summary.attempts) > FEW:
        render_streams(summary, console)
        return
    table = _table("Files", "file", "segments", "lines", "size")
    for check in _first(summary.checks):
        segments = check.series.segments
        _row(
            table,
            segments[0].path.name,
            f"{len(segments):,}",
            f"{check.lines:,}",
            format_bytes(check.series.size),
        )
    _show(table, console)
    _rest(len(summary.checks), console)


def render_problems(problems: list[Problem], omitted: int, console: Console) -> None:
    """Show the first problems, one per row."""
    if not problems:
        return
    console.print()
    console.print(Text("Problems", "bold red"))
    for problem in _first(problems):
        console.print(Text(f"  {printable(str(problem))}"))
    _rest(len(problems) + omitted, console)


def render_export(runs: Sequence[Run], result: Exported, console: Console) -> None:
    """Show what an export has written, what changed on the way, and whether it is complete."""
    name = "standard output" if result.path is None else str(result.path)
    word = "line" if result.format == "jsonl" else "row"
    rows = plural(sum(result.rows.values()), word)
    if len(result.rows) > 1:
        rows += f" ({', '.join(f'{count:,} of {s}' for s, count in result.rows.items())})"
    console.print(Text(f"{rows}, {format_bytes(result.bytes)}, written to {name}"), soft_wrap=True)
    for note in result.notes:
        console.print(Text(printable(note)), soft_wrap=True)
    if result.left_out:
        console.print(f"omitted: {describe_left_out(result.left_out)}", soft_wrap=True)
    if result.complete and not result.dropped:
        console.print("[green]complete[/]: seq has no gap in any stream of any process")
        return
    if result.complete:
        console.print(
            f"complete except for {result.dropped:,} records that the recorder dropped because its "
            "ring was full; marker lines show where",
            style="yellow",
            soft_wrap=True,
        )
    else:
        console.print("NOT complete", style="bold red")
    render_checks(result.checks, console)
    for run in runs:
        render_problems(run.problems, run.problems_omitted, console)


_OUTCOME_STYLES = {
    "recovered": "green",
    "recoverable": "green",
    "live": "cyan",
    "gone": "dim",
    "elsewhere": "yellow",
}


def render_rings(reports: list[RingReport], root: Path, console: Console) -> None:
    """Show the outcome of each ring, actual or expected: one row each, with its reason, if any."""
    if not reports:
        console.print("nothing to recover: no process left a ring file behind")
        return
    counts = ("found", "emitted", "skipped", "damaged", "holes", "cut")
    table = _table("Rings", "run", "writer", "ring", "outcome", *counts)
    table.columns[3].no_wrap = True
    for report in reports:
        run = os.path.relpath(report.run, root)
        known = report.outcome in ("recovered", "recoverable")
        counted = (report.found, report.emitted, report.skipped, report.damaged, report.holes)
        table.add_row(
            Name(printable(root.resolve().name if run == "." else run)),
            Text(printable(report.label) or ("main" if known else "-")),
            Text(printable(Path(report.ring).name.removeprefix("fastlog-")[:8])),
            Text(report.outcome, _OUTCOME_STYLES.get(report.outcome, "bold red")),
            *(Text(f"{count:,}" if count else "-") for count in counted),
            Text(format_bytes(report.cut_bytes) if report.cut_bytes else "-"),
        )
    _show(table, console)
    for report in reports:
        if report.reason:
            console.print(Text(f"  {printable(report.ring)}: {printable(report.reason)}", "yellow"))
    lines = sum(report.emitted for report in reports)
    looked = any(report.outcome in ("recoverable", "damaged") for report in reports)
    verb = "would be written" if looked and lines else "written"
    console.print(f"{plural(len(reports), 'ring')}, {plural(lines, 'line')} {verb}")


def _first(items: list[Any]) -> Iterable[Any]:
    return items[:_MOST]


def render_summary(summary: Summary, console: Console, most: int = _MOST_NAMES) -> None:
    """Show a whole summary: facts, tables, curves, problems; with so many metrics at most."""
    _facts(summary, console)
    render_metrics(summary, console, most)
    render_curves(summary, console)
    render_timings(summary, console)
    _render_missing(summary, console)
    _render_events(summary, console)
    _render_starts(summary, console)
    _render_attempts(summary, console)
    _render_files(summary, console)
    render_problems(summary.problems, summary.problems_omitted, console)
