"""The command ``foundry-fastlog export``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from foundry_fastlog.base.formatting import write_json
from foundry_fastlog.cli.arguments import AsJson, StartsChoice, Stream, starts_of
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, to_json
from foundry_fastlog.export.runs import FORMATS, export_runs
from foundry_fastlog.reading.run import read_run

__all__ = ["EPILOG", "export"]

EPILOG = (
    "**Example:** `foundry-fastlog export runs/exp0 --to exp0.jsonl`  \n"
    "**One stream to a pipe:** `foundry-fastlog export runs/exp0 -s metrics --to - | jq .step`  \n"
    "**For a frame:** `foundry-fastlog export runs/* --to metrics.csv`, or `--to dataset/` for "
    "Parquet  \n"
    "**For TensorBoard:** `foundry-fastlog export runs/* --to events --format tensorboard`  \n"
    "**Exit codes:** 0 written and complete, 1 written but lines are missing, damaged or were "
    "dropped, 2 nothing written."
)


class TagChoice(str, Enum):
    """Whether an export tags each line with its origin, as a choice."""

    auto = "auto"
    always = "always"
    never = "never"


Format = Enum("Format", {name: name for name in FORMATS}, type=str)  # type: ignore[misc]  # made of what there is


@graceful
def export(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="The run's directory; several in one go.")
    ],
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FILE",
            help="File or directory to write; - for standard output. Its ending says in which "
            "format: .jsonl, .csv, .parquet, .arrow, .pftrace, .prom, and / for a Parquet dataset.",
        ),
    ],
    form: Annotated[
        Format | None,
        typer.Option("--format", help="The format, whatever the ending."),
    ] = None,
    stream: Annotated[
        list[Stream] | None,
        typer.Option(
            "--stream",
            "-s",
            metavar="STREAM",
            help="Only this stream: metrics, performance, errors, log or system; may be repeated. "
            "Default: all, of a table metrics.",
        ),
    ] = None,
    starts: StartsChoice = "latest",
    tag: Annotated[
        TagChoice,
        typer.Option(
            help="In JSON Lines append each line's origin (stream; rank, start, label; run). auto: "
            "only if the file gets lines of several origins."
        ),
    ] = TagChoice.auto,
    as_json: AsJson = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file, or an earlier export.")
    ] = False,
    allow_dropped: Annotated[
        bool,
        typer.Option(
            "--allow-dropped", help="Exit with 0 even if the recorder itself dropped records."
        ),
    ] = False,
) -> None:
    """Write runs in other formats, and verify by `seq` that nothing is missing.

    JSON Lines merge a run in order. CSV, Parquet and Arrow hold it by columns. Others are for
    TensorBoard, Perfetto, OpenTelemetry (OTLP) and node_exporter (Prometheus).
    """
    if as_json and to == "-":
        raise fail("--json and --to - would both write to standard output: name a file")
    runs = [read_or_fail(path, read_run) for path in paths]
    which, *_ = [starts_of(run, starts) for run in runs]
    chosen = [item.value for item in stream] if stream else None
    try:
        result = export_runs(
            runs,
            to,
            format=None if form is None else form.value,
            streams=chosen,
            starts=which,
            tag=tag.value,
            force=force,
        )
    except ValueError as error:  # the target or the arguments: it says what to do
        raise fail(str(error)) from None
    if as_json:
        write_json(to_json(result.to_dict()))
    else:
        from foundry_fastlog.show.terminal import render_export

        render_export(runs, result, Console(stderr=True, highlight=False))
    if not result.complete or (result.dropped and not allow_dropped):
        raise typer.Exit(PROBLEM)
