"""The commands ``foundry-fastlog logs`` and ``foundry-fastlog errors``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from foundry_fastlog.base.arguments import bounds_of, known_level, moment
from foundry_fastlog.base.formatting import printable, write_json
from foundry_fastlog.base.patterns import compile_pattern
from foundry_fastlog.cli.arguments import AsJson, RunPath, StartsChoice, starts_of, steps_of
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, tell, to_json
from foundry_fastlog.reading.run import Run, read_run

if TYPE_CHECKING:
    from foundry_fastlog.analysis.messages import MessageFilter
    from foundry_fastlog.reading.lines import Entry

__all__ = ["ERRORS_EPILOG", "LOGS_EPILOG", "errors", "logs"]

LOGS_EPILOG = (
    "**Example:** `foundry-fastlog logs runs/exp0 --level WARNING --grep 'out of memory'`  \n"
    "**By fields:** `foundry-fastlog logs runs/exp0 --where 'num_examples > 1000'`  \n"
    "**Exit codes:** 0 shown, 1 a file or ring cannot be read, 2 no run or a wrong option."
)
ERRORS_EPILOG = (
    "**Example:** `foundry-fastlog errors runs/exp0`  \n"
    "**Exit codes:** 0 shown, 1 a file or ring cannot be read, 2 no run or a wrong option."
)

Rank = Annotated[int | None, typer.Option(min=0, help="Only this rank.")]


@graceful
def logs(
    path: RunPath,
    *,
    level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="This level and above: WARNING.")
    ] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option("--logger", "-l", metavar="NAME", help="This logger and those below it."),
    ] = None,
    grep: Annotated[
        str | None,
        typer.Option("--grep", "-g", metavar="PATTERN", help="A regular expression in the text."),
    ] = None,
    fixed: Annotated[
        bool, typer.Option("--fixed", "-F", help="--grep is a plain text, not an expression.")
    ] = False,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            "-w",
            metavar="EXPRESSION",
            help="True of the fields: 'num_examples > 1000', 'step < 10 or rank == 1'.",
        ),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="A:B", help="Only from step A to step B.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From then on: 2026-01-30T14:00 (UTC), or 10m for ago."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Up to then, likewise.")] = None,
    tail: Annotated[
        int | None,
        typer.Option("--tail", "-n", min=0, help="Only the last so many; 0 for all."),
    ] = None,
    rank: Rank = None,
    starts: StartsChoice = "latest",
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they are.")] = False,
) -> None:
    """Show the messages and errors of a run, filtered.

    On a terminal the last screenful, elsewhere all. Names in --where: time, level, logger, message,
    step, stream (log, errors), rank, start, label, error_type, error_message, event, and each field
    of a message's context by its own name.
    """
    from foundry_fastlog.analysis.messages import FIELDS, find_messages

    run = read_or_fail(path, read_run)
    wanted = _filter(level, logger, grep, where, steps, since, until, fixed=fixed)
    out = Console(highlight=False)
    found = find_messages(run, wanted, starts=starts_of(run, starts), rank=rank)
    if tail is None and not as_json and out.is_terminal:
        tail = max(5, out.height - 3)
    chosen: Iterable[Entry] = found
    if tail:
        counted = _Counted(found)
        chosen = deque(counted, tail)
        if (left := counted.count - len(chosen)) > 0:
            note = f"... {left:,} before these; --tail 0 shows all"
            Console(stderr=True, highlight=False).print(Text(note, "dim"), soft_wrap=True)
    _show(chosen, run, out, as_json=as_json)
    if wanted.where is not None and run.streams:
        for _, note in wanted.where.missing(lambda: [*wanted.known, *FIELDS]):
            tell(note)
    _end(run)


@graceful
def errors(
    path: RunPath,
    *,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=0, help="At most so many kinds; 0: all, unabridged."),
    ] = None,
    rank: Rank = None,
    starts: StartsChoice = "latest",
    as_json: AsJson = False,
) -> None:
    """Show the errors of a run: equal ones together, how often, when, where, and a traceback."""
    from foundry_fastlog.analysis.error_groups import group_errors

    run = read_or_fail(path, read_run)
    groups = group_errors(run, starts=starts_of(run, starts), rank=rank)
    if as_json:
        chosen = groups[:limit] if limit else groups
        write_json(to_json({"errors": [group.to_dict() for group in chosen]}))
    else:
        from foundry_fastlog.show.errors import render_errors

        console = Console(highlight=False)
        render_errors(groups, console, limit=limit)
        for report in run.report_starts():  # what ended a start need not have been recorded
            if report.error:
                said = f"start {report.number} ended with {printable(report.error, 300)}"
                console.print(Text(said, "red"), soft_wrap=True)
    _end(run)


def _filter(
    level: str | None,
    loggers: list[str] | None,
    grep: str | None,
    where: str | None,
    steps: str | None,
    since: str | None,
    until: str | None,
    *,
    fixed: bool,
) -> MessageFilter:
    from foundry_fastlog.analysis.messages import MessageFilter
    from foundry_fastlog.analysis.where import compile_where

    now = datetime.now(timezone.utc)
    wanted = MessageFilter(loggers=loggers or ())
    option = ""
    try:
        if level is not None:
            wanted.level = known_level(level)
            if wanted.level is None:
                raise fail("--level takes DEBUG, INFO, WARNING, ERROR or CRITICAL")
        if grep is not None:
            option = "--grep: "
            wanted.grep = (lambda text: grep in text) if fixed else compile_pattern(grep)
        wanted.steps = bounds_of(steps_of(steps))
        option = "--since: "
        wanted.since = moment(since, now) if since is not None else ""
        option = "--until: "
        wanted.until = moment(until, now) if until is not None else ""
        option = ""
        wanted.where = compile_where(where) if where is not None else None
    except ValueError as error:
        raise fail(f"{option}{error}") from None
    return wanted


class _Counted:
    """Counts what goes by."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = entries
        self.count = 0

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._entries:
            self.count += 1
            yield entry


def _show(entries: Iterable[Entry], run: Run, out: Console, *, as_json: bool) -> None:
    from foundry_fastlog.show.line_text import format_line

    unlabelled = "main" if len(run.writers) > 1 else ""
    for _, series, record, raw in entries:
        if as_json:
            write_json(raw + b"\n")
            continue
        line = format_line(series, record, unlabelled=unlabelled)
        if out.is_terminal:
            out.print(line, soft_wrap=True)
        else:  # a pipe needs no layout, which would take most of the time
            out.file.write(line.plain + "\n")


def _end(run: Run) -> None:
    """Say what could not be read."""
    if run.problems:
        from foundry_fastlog.show.terminal import render_problems

        console = Console(stderr=True, highlight=False)
        render_problems(run.problems, run.problems_omitted, console)
        raise typer.Exit(PROBLEM)
