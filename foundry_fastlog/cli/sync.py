"""The command ``foundry-fastlog sync``."""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from foundry_fastlog.base.formatting import printable, write_json
from foundry_fastlog.cli.arguments import AsJson, RunPath
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, to_json
from foundry_fastlog.reading.run import read_run
from foundry_fastlog.run.files import RunNotFoundError

__all__ = ["EPILOG", "sync"]

EPILOG = (
    "**While it trains:** `foundry-fastlog sync runs/exp0 --to wandb --follow`  \n"
    "**Afterwards:** `foundry-fastlog sync runs/exp0 --to tensorboard`  \n"
    "**Exit codes:** 0 all is sent, 1 not all could be sent: call it again, 2 no run, 130 Ctrl-C."
)


class Where(str, Enum):
    """Where rows go, as a choice."""

    wandb = "wandb"
    tensorboard = "tensorboard"
    mlflow = "mlflow"


@graceful
def sync(
    path: RunPath,
    *,
    to: Annotated[Where, typer.Option("--to", help="The tool to send it to.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(metavar="ROWS", help="At most so many rows a second.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Of wandb.")] = None,
    entity: Annotated[str | None, typer.Option(help="Of wandb.")] = None,
    mode: Annotated[str | None, typer.Option(metavar="online|offline", help="Of wandb.")] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Of TensorBoard's event files, or wandb's."),
    ] = None,
    uri: Annotated[str | None, typer.Option(help="Of the MLflow server.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Of MLflow.")] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where it is noted how far that is; in the run else."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a run to wandb, TensorBoard or MLflow, by a process of its own.

    It goes on where the last call got to, also after a kill. The run itself is not changed.
    """
    from foundry_fastlog.sinks.sync import SyncError, sync_run

    read_or_fail(path, read_run)
    given: dict[str, dict[str, Any]] = {
        "wandb": {"project": project, "entity": entity, "mode": mode, "directory": directory},
        "tensorboard": {"directory": directory},
        "mlflow": {"uri": uri, "experiment": experiment},
    }
    every = {name: value for one in given.values() for name, value in one.items()}
    wrong = [name for name in every if every[name] is not None and name not in given[to.value]]
    if wrong:
        raise fail(f"--to {to.value} does not take --{wrong[0].replace('directory', 'dir')}")
    try:
        found = sync_run(
            path, to.value, follow=follow, rate=rate, state_file=state, **given[to.value]
        )
    except (RunNotFoundError, ValueError) as error:  # it may be removed while it is sent
        raise fail(str(error)) from None
    except SyncError as error:
        raise fail(str(error), PROBLEM) from None
    if as_json:
        write_json(to_json(dataclasses.asdict(found)))
        return
    where = found.known.get("url") or found.known.get("directory") or found.known.get("run_id")
    said = f"{found.rows:,} rows, {found.sent:,} of them now: {printable(str(where))}"
    Console(highlight=False).print(Text(said), soft_wrap=True)
