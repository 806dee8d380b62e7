"""Arguments that several commands take."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from foundry_fastlog.base.formatting import printable
from foundry_fastlog.cli.terminal import fail
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run

__all__ = ["AsJson", "RunPath", "StartsChoice", "Stream", "number_of", "starts_of", "steps_of"]

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The run's directory.")]
StartsChoice = Annotated[
    str,
    typer.Option(
        metavar="latest|all|N",
        help="If a later start recorded a step again: read what counts, everything, or one start.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class Stream(str, Enum):
    """The streams of a run, as a choice."""

    metrics = "metrics"
    performance = "performance"
    errors = "errors"
    log = "log"
    system = "system"


def number_of(text: str) -> int | None:
    """Return a number from 0 on; None for any other text."""
    return int(text) if text.isdecimal() and len(text) < 10 else None


def starts_of(run: Run, text: str) -> Starts:
    """Take the choice of starts as the readers do."""
    if text in ("latest", "all"):
        return text  # type: ignore[return-value]  # one of both
    if (number := number_of(text)) is not None:
        if number not in run.starts:
            known = ", ".join(map(str, run.starts)) or "none"
            raise fail(f"{run.path} has no start {number}; it has {known}")
        return number
    raise typer.BadParameter(f"--starts takes latest, all or a number, not {printable(text)!r}")


def steps_of(text: str | None) -> tuple[int | None, int | None] | None:
    """Take a range of steps: ``100:200``, ``100:`` or ``:200``, both ends included."""
    if text is None:
        return None
    try:
        first, last = (int(end) if end.strip() else None for end in text.split(":"))
    except ValueError:
        shown = printable(text, 40)
        raise typer.BadParameter(
            f"--steps takes FIRST:LAST, such as 100:200, not {shown!r}"
        ) from None
    return first, last
