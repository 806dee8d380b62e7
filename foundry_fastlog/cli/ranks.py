"""The command ``foundry-fastlog ranks``."""

from __future__ import annotations

from typing import Annotated

import typer

from foundry_fastlog.base.extras import extra
from foundry_fastlog.base.formatting import printable, write_json
from foundry_fastlog.cli.arguments import (
    AsJson,
    RunPath,
    StartsChoice,
    number_of,
    starts_of,
    steps_of,
)
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, tell, to_json
from foundry_fastlog.reading.run import Run, read_run

__all__ = ["EPILOG", "ranks"]

EPILOG = (
    "**Example:** `foundry-fastlog ranks runs/exp0`  \n"
    "**Of a pipeline stage:** `foundry-fastlog ranks runs/exp0 --ranks 0:15 --block forward`  \n"
    "**In a script:** `foundry-fastlog ranks --exit-code runs/exp0 --json | jq -r '.sentences[0]'`"
    "  \n"
    "**Exit codes:** 0 compared; 1 lines are damaged or a file or ring cannot be read, or, with "
    "--exit-code, a rank is a straggler; 2 invalid argument, no run, or no such block, rank or "
    "step."
)


@graceful
def ranks(
    path: RunPath,
    *,
    rank: Annotated[
        list[int] | None, typer.Option(min=0, help="Compare only this rank; may be repeated.")
    ] = None,
    among: Annotated[
        str | None,
        typer.Option("--ranks", metavar="A:B", help="Compare only ranks A to B, both included."),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="A:B", help="Only from step A to step B.")
    ] = None,
    block: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Look for stragglers in this block, and draw it."),
    ] = None,
    collective: Annotated[
        list[str] | None,
        typer.Option(
            "--collective",
            metavar="PATTERN",
            help="Blocks in which ranks wait for each other; may be repeated. Default: names like "
            "all_reduce, barrier, grad_sync.",
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=0.999,
            metavar="SCORE",
            help="A rank is slow where the median rank's time divided by its own is below this.",
        ),
    ] = 0.9,
    ranks_per_host: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Ranks of a host, where the run does not say it."),
    ] = None,
    starts: StartsChoice = "latest",
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if a rank is a straggler.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the ranks of a run: which one is slow, since which step, in which block.

    Needs timed blocks with a step. A block counts by its own time, without the blocks in it, so
    that only the one that is slow by itself is named, and not those that wait for it.
    """
    run = read_or_fail(path, read_run)
    with extra("plot", "numpy"):
        from foundry_fastlog.analysis.ranks import compare_ranks
        from foundry_fastlog.show.ranks import render_ranks
    try:
        found = compare_ranks(
            run,
            steps=steps_of(steps),
            ranks=_chosen(run, rank or [], among),
            starts=starts_of(run, starts),
            block=block,
            collectives=collective,
            threshold=threshold,
            ranks_per_host=ranks_per_host,
        )
    except (LookupError, ValueError) as error:  # no such block or steps
        raise fail(str(error.args[0])) from None
    if as_json:
        write_json(to_json(found.to_dict()))
    else:
        render_ranks(found, Console(highlight=False))
    damaged = bool(run.unread or run.problems)
    if damaged:
        tell(f"lines are missing or damaged: foundry-fastlog summary {path}")
    if damaged or (exit_code and found.stragglers):
        raise typer.Exit(PROBLEM)


def _chosen(run: Run, single: list[int], among: str | None) -> tuple[int, ...] | None:
    """Return the ranks that were asked for; None for all."""
    if not single and among is None:
        return None
    wanted = set(single)
    if among is not None:
        first, _, last = among.partition(":")
        ends = [number_of(one) if one else bound for one, bound in ((first, 0), (last, 1 << 31))]
        if ":" not in among or None in ends:
            shown = printable(among, 40)
            raise typer.BadParameter(f"--ranks takes FIRST:LAST, such as 0:7, not {shown!r}")
        low, high = ends
        wanted |= {one for one in run.ranks if low <= one <= high}  # type: ignore[operator]
    missing = sorted(set(single) - set(run.ranks))
    if missing or not wanted:
        from foundry_fastlog.analysis.rank_results import numbers_said  # needs numpy

        which = f"no rank {missing[0]}" if missing else "none of these ranks"
        raise fail(f"{run.path} has {which}; it has {numbers_said(run.ranks) or 'none'}")
    return tuple(sorted(wanted))
