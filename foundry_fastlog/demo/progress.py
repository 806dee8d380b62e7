"""Training progress: a bar on a terminal, lines everywhere else."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from foundry_fastlog.demo.train import Progress

LINE_EVERY_S = 15.0
"""Without a terminal: the longest time between two lines, in seconds."""


@contextlib.contextmanager
def progress_view(
    console: Console,
    *,
    first: int,
    total: int,
) -> Iterator[Callable[[Progress], None]]:
    """Show training progress for the duration of a block.

    Args:
        console: Where to show it.
        first: Steps already done.
        total: Steps in the whole run.

    Yields:
        A function to call with the progress after each step.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        yield _lines(console, total)
        return
    bar = Bar(
        TextColumn("[bold]training"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        # Drawing takes time from training, so refresh rarely.
        refresh_per_second=4,
        expand=True,
    )
    task = bar.add_task("training", total=total, completed=first, numbers="")
    val_loss = ""

    def update(progress: Progress) -> None:
        nonlocal val_loss
        if progress.val_loss is not None:
            val_loss = f" val [magenta]{progress.val_loss:.3f}[/]"
        speed = f" [green]{_speed(progress.tokens_per_sec)}[/]"
        numbers = f"loss [cyan]{progress.loss:.3f}[/]{val_loss}{speed}"
        bar.update(task, completed=progress.step, numbers=numbers)

    with bar:
        yield update


def _lines(console: Console, total: int) -> Callable[[Progress], None]:
    """Print a plain line from time to time, for a log file or CI."""
    started = last_line = time.monotonic()
    width = len(str(total))

    def update(progress: Progress) -> None:
        nonlocal last_line
        now = time.monotonic()
        if progress.val_loss is None and now - last_line < LINE_EVERY_S:
            return
        last_line = now
        line = f"step {progress.step:>{width}}/{total}  loss {progress.loss:.3f}"
        if progress.val_loss is not None:
            line += f"  val_loss {progress.val_loss:.3f}"
        line += f"  {_speed(progress.tokens_per_sec)}  {now - started:.0f} s"
        console.print(Text(line), soft_wrap=True)
        console.file.flush()

    return update


def _speed(tokens_per_sec: float) -> str:
    return f"{tokens_per_sec / 1000:.1f}k tok/s"
