"""The command ``foundry-fastlog query``."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from foundry_fastlog.base.formatting import write_json
from foundry_fastlog.cli.arguments import StartsChoice, starts_of
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail
from foundry_fastlog.reading.run import Run, read_run

__all__ = ["EPILOG", "query"]

EPILOG = (
    "**Example:** `foundry-fastlog query runs/exp0 'SELECT step, loss FROM metrics "
    "ORDER BY loss LIMIT 5'`  \n"
    "**Several runs:** `foundry-fastlog query runs/* 'SELECT run, min(loss) FROM metrics "
    "GROUP BY run' -o best.csv`  \n"
    "**Exit codes:** 0 shown or written, 1 likewise, but lines are missing or damaged, 2 no run, "
    "or an error in the SQL."
)


class Format(str, Enum):
    """How a result is written, as a choice."""

    table = "table"
    csv = "csv"
    json = "json"


@graceful
def query(
    arguments: Annotated[
        list[str], typer.Argument(metavar="RUN... SQL", help="Directories of runs, then the SQL.")
    ],
    *,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="A table by default, or what the file's name ends in."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to this file.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=0, help="At most so many rows of a table; 0 for all."),
    ] = None,
    starts: StartsChoice = "latest",
    as_json: Annotated[bool, typer.Option("--json", help="As --format json.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Query runs with SQL, by DuckDB: nothing is changed, and only what is named is read.

    Tables: metrics, performance, errors, log, system, starts. Columns of metrics: timestamp, seq,
    step, epoch, each metric by its name ("val/loss" in double quotes), rank, start, label; with
    several runs also run. DESCRIBE metrics lists them.
    """
    if len(arguments) < 2:
        raise fail("name a run and an SQL statement: query runs/exp0 'SELECT * FROM metrics'")
    from foundry_fastlog.analysis.query import QueryError, query_runs
    from foundry_fastlog.show.query_rows import csv_of, json_of, render_rows

    *paths, sql = arguments
    runs = [read_or_fail(Path(path), read_run) for path in paths]
    which, *_ = [starts_of(run, starts) for run in runs]
    if as_json:
        form = Format.json
    if form is None:
        suffix = "" if out is None else out.suffix.lower()
        if suffix in (".parquet", ".arrow", ".feather", ".xlsx"):
            raise fail(
                f"-o {out}: query writes .csv, .json or a table of text. For {suffix} let a frame "
                "write it: foundry_fastlog.read_run(...).to_polars('metrics')"
            )
        form = Format.csv if suffix == ".csv" else Format.json if "json" in suffix else Format.table
    try:
        result = query_runs(runs, sql, starts=which)
        if form is Format.table and out is None:
            render_rows(result.names, result.rows(), Console(highlight=False), limit=limit)
        else:
            write = {Format.table: _table, Format.csv: csv_of, Format.json: json_of}[form]
            with _opened(out, runs, force=force) as put:
                for part in write(result.names, result.rows()):
                    put(part)
    except QueryError as error:
        raise fail(str(error)) from None
    if problems := [problem for run in runs for problem in run.problems]:
        from foundry_fastlog.show.terminal import render_problems

        omitted = sum(run.problems_omitted for run in runs)
        render_problems(problems, omitted, Console(stderr=True, highlight=False))
        raise typer.Exit(PROBLEM)


@contextmanager
def _opened(
    out: Path | None, runs: list[Run], *, force: bool
) -> Iterator[Callable[[bytes], object]]:
    """Give what writes to a file, which appears when it is whole, or to standard output."""
    if out is None:
        yield write_json
        return
    if any(out.resolve().is_relative_to(run.path.resolve()) for run in runs):
        raise fail(f"{out} is in the run: choose a place outside")
    if os.path.lexists(out) and not force:
        raise fail(f"{out} exists: choose another name, or add --force")
    temporary = out.with_name(f".{out.name}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file.write
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _table(names: list[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[bytes]:
    """Yield rows as the text of a table, whole."""
    from foundry_fastlog.show.query_rows import render_rows

    text = io.StringIO()
    render_rows(names, rows, Console(file=text, width=10_000, highlight=False), limit=0)
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    yield "\n".join([*lines, ""]).encode("utf-8", "backslashreplace")
