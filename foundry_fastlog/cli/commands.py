"""The commands of ``foundry-fastlog``. Needs the extra ``cli`` (typer and rich)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from foundry_fastlog._version import __version__
from foundry_fastlog.base.formatting import printable, write_json
from foundry_fastlog.cli import (
    compare,
    compress,
    export,
    fleet,
    goodput,
    importing,
    logs,
    migrate,
    plot,
    query,
    ranks,
    recover,
    report,
    runs,
    summary,
    sync,
    ui,
    watch,
)
from foundry_fastlog.cli.arguments import RunPath, StartsChoice, Stream, number_of, starts_of
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail
from foundry_fastlog.export.jsonl import ExportError
from foundry_fastlog.reading.cursor import Cursor, Polled
from foundry_fastlog.reading.run import Run, read_run
from foundry_fastlog.run.files import RunNotFoundError, open_run_dir

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Inspect runs recorded with foundry_fastlog, or try it out.",
    epilog="RUN is the directory passed to Recorder(path). Start with: foundry-fastlog demo",
)


def _open(path: Path) -> Run:
    return read_or_fail(path, read_run)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"foundry-fastlog {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            callback=lambda v: _version(wanted=v),
            is_eager=True,
        ),
    ] = False,
) -> None:
    del version  # its callback did it


@app.command(
    epilog="**Example:** `foundry-fastlog demo --steps 200`  \n"
    "**Exit codes:** 0 trained, 1 failed, 2 invalid argument or file, 130 Ctrl-C."
)
@graceful
def demo(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="Experiment file (YAML)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Run directory; runs/NAME-TIME by default."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; overrides the file.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; overrides the file.")
    ] = None,
) -> None:
    """Train a small GPT for about a minute and record every step."""
    from foundry_fastlog.demo import run

    raise typer.Exit(run(config, out=out, steps=steps, device=device))


app.command(epilog=summary.EPILOG)(summary.summary)


app.command(epilog=export.EPILOG)(export.export)


@app.command(
    epilog="**Example:** `foundry-fastlog trace runs/exp0 -o trace.json`, then open the file at "
    "https://ui.perfetto.dev (it stays in the browser)  \n"
    "**Exit codes:** 0 written, 1 written but timings are missing or damaged, 2 nothing written."
)
@graceful
def trace(
    path: RunPath,
    *,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File to write, compressed if it ends in .gz; - for standard output.",
        ),
    ],
    starts: StartsChoice = "latest",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Export the timings as a trace for Perfetto or chrome://tracing."""
    from foundry_fastlog.export.perfetto import export_chrome_trace
    from foundry_fastlog.show.terminal import render_problems

    run = _open(path)
    if "performance" not in run.streams:
        raise fail(f"{path} has no timings: record some with Recorder.timer or PerformanceLogger")
    try:
        result = export_chrome_trace(run, out, starts=starts_of(run, starts), force=force)
    except ExportError as error:
        raise fail(str(error)) from None
    console = Console(stderr=True, highlight=False)
    name = "standard output" if result.path is None else str(result.path)
    console.print(
        Text(f"{result.events:,} blocks of {result.processes:,} processes written to {name}"),
        soft_wrap=True,
    )
    if not result.complete:
        render_problems(run.problems, run.problems_omitted, console)
        raise typer.Exit(PROBLEM)


@app.command(
    epilog="**Example:** `foundry-fastlog tail -f runs/exp0`  \n"
    "**Timings as JSON:** `foundry-fastlog tail -f --raw -s performance runs/exp0`  \n"
    "**Exit codes:** 0 shown, 1 a file or ring cannot be read, 2 no run, 130 Ctrl-C."
)
@graceful
def tail(
    path: RunPath,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep showing new lines until Ctrl-C.")
    ] = False,
    count: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="Number of last lines to show.")
    ] = 10,
    stream: Annotated[
        list[Stream] | None,
        typer.Option(
            "--stream",
            "-s",
            metavar="STREAM",
            help="Only this stream: metrics, performance, errors, log or system; may be repeated. "
            "Default: all except performance.",
        ),
    ] = None,
    starts: Annotated[
        str,
        typer.Option(metavar="all|N", help="Follow all starts, or one, which may be yet to come."),
    ] = "all",
    raw: Annotated[bool, typer.Option("--raw", help="Print the JSON lines as they are.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.01, help="Polling interval in seconds, with --follow.")
    ] = 0.25,
) -> None:
    """Show the last lines of a run; with -f, also each new line while it trains."""
    chosen = [item.value for item in stream or (Stream.metrics, Stream.errors, Stream.log)]
    only: int | Literal["all"] | None = "all" if starts == "all" else number_of(starts)
    if only is None:
        raise typer.BadParameter(f"--starts takes all or a number here, not {printable(starts)!r}")
    if follow:
        _await_run(path, interval)
    elif only != "all":
        read_or_fail(path, lambda run: starts_of(read_run(run), starts))
    cursor = read_or_fail(path, lambda run: Cursor(run, chosen, starts=only))
    show = _Shower(raw=raw)
    polled = _look(path, lambda: cursor.last(count))
    show(polled)
    while follow:
        polled = _look(path, cursor.poll)
        show(polled)
        if not polled.more:
            time.sleep(interval)
    if polled.unread:
        raise typer.Exit(PROBLEM)


app.command(epilog=runs.EPILOG)(runs.runs)
app.command(epilog=fleet.EPILOG)(fleet.fleet)
app.command(epilog=logs.LOGS_EPILOG)(logs.logs)
app.command(epilog=logs.ERRORS_EPILOG)(logs.errors)
app.command(epilog=query.EPILOG)(query.query)
app.command(epilog=plot.EPILOG)(plot.plot)
app.command(epilog=compare.EPILOG)(compare.compare)
app.command(epilog=ranks.EPILOG)(ranks.ranks)
app.command(epilog=goodput.EPILOG)(goodput.goodput)
app.command(epilog=recover.EPILOG)(recover.recover)
app.command(epilog=compress.EPILOG)(compress.compress)
app.command(epilog=migrate.EPILOG)(migrate.migrate)
app.command(epilog=watch.EPILOG)(watch.watch)
app.command(epilog=report.EPILOG)(report.report)
app.command(epilog=sync.EPILOG)(sync.sync)
app.command("import", epilog=importing.EPILOG)(importing.import_)
app.command(epilog=ui.EPILOG)(ui.ui)


def _await_run(path: Path, interval: float) -> None:
    """Wait for a run that is about to start: for a directory with anything in it."""
    told = False
    while not path.exists() or (path.is_dir() and not any(path.iterdir())):
        if not told:
            try:
                open_run_dir(path)
            except RunNotFoundError as error:  # it says what is there instead
                Console(stderr=True, highlight=False).print(
                    Text(f"waiting for a run: {printable(str(error))}", "dim"), soft_wrap=True
                )
        told = True
        time.sleep(interval)


def _look(path: Path, read: Callable[[], Polled]) -> Polled:
    try:
        return read()
    except OSError as error:
        raise fail(f"{path} can no longer be read: {error.strerror or error}") from None


class _Shower:
    """Prints the result of a poll: lines to standard output, notes to standard error."""

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._several = False  # processes: then the one without a label is named, too
        self._out = Console(highlight=False)
        self._notes = Console(stderr=True, highlight=False)

    def __call__(self, polled: Polled) -> None:
        from foundry_fastlog.show.line_text import format_line

        if self._raw:
            write_json(b"".join(raw + b"\n" for _, _, _, raw in polled.lines))
        else:
            self._several |= any(series.writer.label for _, series, _, _ in polled.lines)
            for _, series, record, _ in polled.lines:
                line = format_line(series, record, unlabelled="main" if self._several else "")
                if self._out.is_terminal:
                    self._out.print(line, soft_wrap=True)
                else:  # a pipe needs no layout, which would take most of the time
                    self._out.file.write(line.plain + "\n")
            self._out.file.flush()
        for note in polled.notes:
            self._notes.print(Text(f"note: {printable(note)}", "yellow"), soft_wrap=True)
