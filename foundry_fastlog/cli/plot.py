"""The command ``foundry-fastlog plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from foundry_fastlog.base.extras import extra
from foundry_fastlog.base.formatting import printable, write_json
from foundry_fastlog.cli.arguments import AsJson, StartsChoice, starts_of, steps_of
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, to_json
from foundry_fastlog.export.jsonl import ExportError
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run, read_run

__all__ = ["EPILOG", "plot"]

EPILOG = (
    "**Example:** `foundry-fastlog plot runs/exp0 -m loss -m 'val_*' --smooth 0.9`  \n"
    "**Seeds:** `foundry-fastlog plot runs/* -m loss --group-by config.lr -o loss.png`  \n"
    "**Exit codes:** 0 drawn, 2 invalid argument, no run, or no such metric."
)
_KINDS = (".png", ".svg", ".pdf", ".html")
_POINTS = 2000  # buckets of a curve by steps, each with up to four points


@graceful
def plot(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs.")],
    *,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", "-m", metavar="PATTERN", help="Metrics that fit: 'val_*'. Default: losses."
        ),
    ] = None,
    x: Annotated[
        str,
        typer.Option(
            "--x",
            "-x",
            metavar="step|epoch|time|relative|METRIC",
            help="The x axis. time is UTC, relative counts from the run's first record.",
        ),
    ] = "step",
    log_x: Annotated[bool, typer.Option("--log-x", help="Logarithmic x axis.")] = False,
    log_y: Annotated[bool, typer.Option("--log-y", help="Logarithmic y axis.")] = False,
    smooth: Annotated[
        float,
        typer.Option(metavar="WEIGHT", help="Exponential moving average, 0 (none) to 1."),
    ] = 0.0,
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            "--group-by",
            metavar="KEY",
            help="Mean and standard error of runs that agree in this setting: config.lr. "
            "May be repeated.",
        ),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="A:B", help="From step A to step B; one may be absent.")
    ] = None,
    rank: Annotated[list[int] | None, typer.Option(help="Only this rank; may be repeated.")] = None,
    ranks: Annotated[bool, typer.Option("--ranks", help="One curve for each rank.")] = False,
    overlay: Annotated[
        bool | None,
        typer.Option("--overlay/--apart", help="All metrics on the same axes, or each on its own."),
    ] = None,
    checkpoints: Annotated[
        bool,
        typer.Option("--checkpoints", help="Mark checkpoints: blocks timed under such a name."),
    ] = False,
    starts: StartsChoice = "latest",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write .png, .svg, .pdf or .html."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw metrics of one or several runs, in the terminal or into a file.

    No spike is lost, however many steps there are. NaN and infinite values are marked where they
    are. Of several ranks the lowest that recorded a metric is drawn, unless --rank or --ranks says
    otherwise.
    """
    if out is not None and out.suffix.lower() not in _KINDS:
        raise fail(f"-o {out}: the name must end in {', '.join(_KINDS)}")
    runs = [read_or_fail(path, read_run) for path in paths]
    *_, which = (starts_of(run, starts) for run in runs)
    with extra("plot", "numpy"):
        from foundry_fastlog.analysis.points import AXES, Asked
        from foundry_fastlog.analysis.series import read_charts
    if out is not None and out.suffix.lower() == ".html":
        if group_by or rank or ranks or checkpoints or overlay or as_json:
            raise fail(
                "--group-by, --rank, --ranks, --checkpoints, --overlay and --json are for pictures"
            )
        if x not in AXES and not any(x in run.names() for run in runs):
            raise fail(f"-x {printable(x)}: there is no such metric, nor axis: {', '.join(AXES)}")
        if steps and x != "step":
            raise fail("--steps chooses a window of steps: without -x, or with a picture")
        shown = {"x": x, "logx": "1" if log_x else "", "logy": "1" if log_y else ""}
        shown |= {"smooth": f"{smooth:g}", "zoom": steps or ""}
        _write_page(runs, metric, x, out, which, shown)
        return
    wanted = "all" if ranks else tuple(rank) if rank else None
    asked = Asked(x, steps_of(steps), wanted, which, None if log_x else _POINTS)
    try:
        charts = read_charts(
            runs,
            metric,
            asked,
            weight=smooth,
            group_by=group_by or (),
            checkpoints=checkpoints,
            overlay=overlay,
        )
    except (LookupError, ValueError) as error:
        raise fail(str(error.args[0])) from None
    if not charts:
        asked_for = "" if wanted is None and not steps else " of these ranks and steps"
        raise fail(
            f"nothing to draw: there is no number{asked_for} in "
            + printable(", ".join(map(str, paths)))
        )
    if as_json:
        from foundry_fastlog.show.looks import charts_to_json

        write_json(to_json(charts_to_json(charts, log_x=log_x)))
    if out is not None:
        with extra("plot", "matplotlib"):
            from foundry_fastlog.show.figure import draw_figure
        figure = draw_figure(runs, charts, log_x=log_x, log_y=log_y, weight=smooth)
        figure.savefig(out)
        _say_written(out)
    elif not as_json:
        from foundry_fastlog.show.plotting import render_charts

        render_charts(
            charts,
            Console(highlight=False),
            log_x=log_x,
            log_y=log_y,
            weight=smooth,
            world=max(len(run.ranks) for run in runs),
            ranked=wanted is not None,
        )


def _write_page(
    runs: list[Run],
    metrics: list[str] | None,
    x: str,
    out: Path,
    starts: Starts,
    settings: dict[str, str],
) -> None:
    """Write a report of the metrics that opens with the plot's axes and smoothing."""
    from foundry_fastlog.pages.report import write_report

    if metrics and any(x in run.names() for run in runs):
        metrics = [*metrics, x]
    try:
        found = write_report(
            runs, out, metrics=metrics, starts=starts, settings=settings, force=True
        )
    except (ExportError, ValueError) as error:
        raise fail(str(error)) from None
    _say_written(found.path)


def _say_written(path: Path) -> None:
    said = Text(f"written to {printable(str(path))}")
    Console(stderr=True, highlight=False).print(said, soft_wrap=True)
