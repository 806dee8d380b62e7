"""The command ``foundry-fastlog goodput``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from foundry_fastlog.base.extras import extra
from foundry_fastlog.base.formatting import printable, write_json
from foundry_fastlog.cli.arguments import AsJson, RunPath, number_of, starts_of
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, tell, to_json
from foundry_fastlog.reading.run import Run, read_run

__all__ = ["EPILOG", "goodput"]

EPILOG = (
    "**Example:** `foundry-fastlog goodput runs/exp0`  \n"
    "**MFU:** `foundry-fastlog goodput runs/exp0 --tokens-per-step 524288 --flops-per-token 4.2e9 "
    "--peak-flops 989e12 --devices 8`  \n"
    "**Exit codes:** 0 shown; 1 shown, but lines are missing or damaged, or a file or ring cannot "
    "be read; 2 invalid argument, no run, or nothing recorded."
)


def _blocks(kind: str, what: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(
        f"--{kind}", metavar="PATTERN", help=f"Blocks {what}, instead of the usual names."
    )
    return found


@graceful
def goodput(
    path: RunPath,
    *,
    rank: Annotated[
        int | None, typer.Option(min=0, help="Whose records tell of it; the lowest by default.")
    ] = None,
    starts: Annotated[
        str, typer.Option(metavar="all|N", help="All starts of the run, or one.")
    ] = "all",
    data: Annotated[list[str] | None, _blocks("data", "that wait for data")] = None,
    checkpoint: Annotated[list[str] | None, _blocks("checkpoint", "of checkpoints")] = None,
    evaluation: Annotated[list[str] | None, _blocks("evaluation", "of evaluation")] = None,
    step: Annotated[list[str] | None, _blocks("step", "of training steps")] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens-per-step",
            metavar="N|METRIC",
            help="Tokens of a step, or a metric of tokens: per step, so far, or per second.",
        ),
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option("--flops-per-token", help="The model's operations for a token, for MFU."),
    ] = None,
    peak: Annotated[
        float | None,
        typer.Option("--peak-flops", help="Operations per second of a device at its peak."),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="How many devices; as many as ranks by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show where the wall time went: what trained, and what was lost to what, over all starts."""
    run = read_or_fail(path, read_run)
    which = _which(run, starts)
    with extra("plot", "numpy"):
        from foundry_fastlog.analysis.goodput import measure_goodput
        from foundry_fastlog.show.goodput import render_goodput
    given = {"data": data, "checkpoint": checkpoint, "evaluation": evaluation, "step": step}
    try:
        found = measure_goodput(
            run,
            rank=rank,
            starts=which,
            blocks={kind: patterns for kind, patterns in given.items() if patterns},
            tokens=_number_or_name(tokens),
            flops_per_token=flops,
            peak_flops=peak,
            devices=devices,
        )
    except (LookupError, ValueError) as error:
        raise fail(str(error.args[0])) from None
    if as_json:
        write_json(to_json(found.to_dict()))
    else:
        render_goodput(found, Console(highlight=False))
    if not found.complete:
        tell(f"lines are missing or damaged: foundry-fastlog summary {path}")
        raise typer.Exit(PROBLEM)


def _which(run: Run, text: str) -> Literal["all"] | int:
    if text != "all" and number_of(text) is None:
        raise typer.BadParameter(f"--starts takes all or a number here, not {printable(text)!r}")
    return starts_of(run, text)  # type: ignore[return-value]  # one of both


def _number_or_name(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text.replace("_", ""))
    except ValueError:
        return text
