"""The demo's console output before and after training."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from foundry_fastlog import read_run, write_report
from foundry_fastlog.analysis.summarize import summarize
from foundry_fastlog.base.formatting import format_bytes, format_seconds, printable
from foundry_fastlog.demo.checkpoint import FOLDER, list_checkpoints, step_of
from foundry_fastlog.demo.config import DEFAULT_CONFIG
from foundry_fastlog.demo.device import describe_device
from foundry_fastlog.export.jsonl import ExportError
from foundry_fastlog.show.terminal import render_curves, render_metrics, render_timings

if TYPE_CHECKING:
    from foundry_fastlog import Recorder
    from foundry_fastlog.demo.train import Trainer


def show_setup(console: Console, trainer: Trainer, resumed: Path | None) -> None:
    """Show what is trained, on which device, and where it is recorded."""
    config, corpus, recorder = trainer.config, trainer.corpus, trainer.logs.recorder
    shape, training = config.model, config.training
    characters = len(corpus.train) + len(corpus.validation)
    held_out = len(corpus.validation) / characters
    model = f"GPT, {shape.layers} layers x {shape.width}, context {shape.context}"
    rows = [
        ("model", f"{model}: {trainer.model.size():,} parameters"),
        ("text", f"{corpus.source}: {characters:,} characters, {held_out:.0%} for validation"),
        ("device", describe_device(trainer.device)),
        ("plan", f"{training.steps:,} steps of {training.batch_size} x {shape.context} characters"),
        ("run", str(_short(recorder.path))),
    ]
    if resumed is not None:
        rows.append(("resumed", f"attempt {recorder.attempt}, from {resumed.name}"))
    console.print(_facts(rows))
    console.print()


def show_sample(console: Console, step: int, text: str) -> None:
    """Show text generated after ``step`` steps."""
    console.print(Text(f"the model's output after {step:,} steps", style="dim"))
    for line in text.splitlines():
        # Characters that the terminal cannot show become "?"; control characters are escaped.
        shown = printable(line).encode(console.encoding, "replace")
        console.print(Text(f"  {shown.decode(console.encoding)}", "italic"), soft_wrap=True)
    console.print()


def show_drill(console: Console, trainer: Trainer, *, survived: bool) -> None:
    """Report the outcome of the restart drill, whose error is expected and recorded."""
    newest = list_checkpoints(trainer.logs.directory / FOLDER)[0].name
    if survived:
        console.print(
            "restart drill: a truncated checkpoint was refused and recorded as an error; "
            f"{newest} was loaded instead, and all weights are equal.",
        )
    else:
        show_error(f"restart drill: {newest} could not be read back, see errors.jsonl")


def show_result(console: Console, recorder: Recorder) -> None:
    """Show a closed run: its metrics, the cost of recording, its files, the next commands."""
    summary = summarize(read_run(recorder.path))
    render_metrics(summary, console)
    render_curves(summary, console)
    render_timings(summary, console)
    console.print()
    show_cost(console, recorder, complete=summary.complete)
    show_files(console, recorder)
    report = write_page(recorder.path)
    show_next(console, recorder.path, report)


def write_page(run: Path) -> Path | None:
    """Write the run's report beside it; None, with the reason shown, where that is impossible."""
    try:
        return write_report(run, run.parent / f"{run.name}.html").path
    except (OSError, ImportError, ExportError) as error:
        show_error(f"the report was not written: {error}")
        return None


def show_cost(console: Console, recorder: Recorder, *, complete: bool) -> None:
    """Show what the recorder measured about itself.

    Args:
        console: Where to show it.
        recorder: A closed recorder.
        complete: Whether a reader found every line of the run.
    """
    stats = recorder.stats()
    calls = stats["record_calls"] + stats["timer_calls"] + stats["event_calls"]
    share = _percent(stats["overhead_fraction"])
    spent, wall = format_seconds(stats["logging_s"]), format_seconds(stats["wall_s"])
    read_back = "read back complete" if complete else "READ BACK INCOMPLETE, see summary"
    beside, ring = (
        format_seconds(stats["flush_cpu_s"]),
        format_bytes(stats["ring_high_water_bytes"]),
    )
    rows = [
        ("share", f"{share} of the time: {spent} in {calls:,} calls, of {wall}"),
        ("records", f"{stats['written']:,} written, {stats['dropped']:,} dropped, {read_back}"),
        ("in the background", f"{beside} of CPU time, at most {ring} waiting in memory"),
    ]
    if stats["record_ns"] > 0:  # a very short run has no timed call
        rows.insert(1, ("one record()", f"{format_seconds(stats['record_ns'] / 1e9)} on average"))
    if stats["first_error"]:
        rows.append(("first error", str(stats["first_error"])))
    _heading(console, "Cost of recording")
    console.print(_facts(rows))
    console.print()


def show_files(console: Console, recorder: Recorder) -> None:
    """List the files of the run with their sizes."""
    paths = [*recorder.files(), recorder.path / "run.json"]
    entry = f"starts/{recorder.attempt:06d}*.json"
    for pattern in (entry, "*.log*", "timing_*.json", "trace_*.json"):
        paths += sorted(recorder.path.glob(pattern))
    paths += list_checkpoints(recorder.path / FOLDER)
    _heading(console, "Files")
    for path in paths:
        if path.exists():
            line = f"  {format_bytes(path.stat().st_size):>9}  {_short(path)}"
            console.print(line, markup=False, soft_wrap=True)
    console.print()


def show_next(console: Console, run: Path, report: Path | None = None) -> None:
    """Suggest the next commands, and say where the report is."""
    where = shlex.quote(str(_short(run)))
    if report is not None:
        page, above = (shlex.quote(str(_short(path))) for path in (report, run.parent))
        _heading(console, "Report")
        console.print(f"  open {page} in a browser", markup=False, soft_wrap=True)
        console.print(f"  live: {command()} ui {above}", markup=False, soft_wrap=True)
        console.print()
    _heading(console, "Next")
    for arguments in (
        f"summary {where}",
        f"plot {where}",
        f"tail {where}",
        f"export {where} --to demo.jsonl",
    ):
        console.print(f"  {command()} {arguments}", markup=False, soft_wrap=True)
    folder = _short(Path(__file__).parent)
    experiment = shlex.quote(str(folder / "configs" / DEFAULT_CONFIG))
    copy = f"cp {experiment} mine.yaml && {command()} demo --config mine.yaml"
    console.print(f"  {copy}", markup=False, soft_wrap=True)
    console.print(f"The trainer's source: {folder / 'train.py'}", markup=False, soft_wrap=True)


def show_finished(console: Console, run: Path, step: int) -> None:
    """Report that training is already finished, and how to view the run."""
    console.print(
        f"{run} is finished: its newest checkpoint is of step {step:,}. Use a larger --steps to "
        "continue training, or another --out to start a new run.",
        markup=False,
        soft_wrap=True,
    )
    console.print()
    show_next(console, run)


def show_interrupted(console: Console, trainer: Trainer) -> None:
    """Show how to resume after Ctrl-C."""
    run = trainer.logs.directory
    saved = list_checkpoints(run / FOLDER)
    where = f"from step {step_of(saved[0]):,}" if saved else "from the start (no checkpoint yet)"
    console.print(f"Stopped after step {trainer.step:,}. To resume {where}:", markup=False)
    console.print(
        f"  {command()} demo --out {shlex.quote(str(_short(run)))}",
        markup=False,
        soft_wrap=True,
    )
    console.print()


def show_error(message: str) -> None:
    """Print a problem to standard error."""
    Console(stderr=True, highlight=False).print(
        f"error: {message}",
        style="red",
        markup=False,
        soft_wrap=True,
    )


def command() -> str:
    """Return the command line tool's name in a form that can be pasted into a shell."""
    name = "foundry-fastlog"
    if shutil.which(name) is not None:
        return name
    beside = Path(sys.executable).parent / name  # a virtual environment that is not active
    return shlex.quote(str(_short(beside))) if beside.exists() else name


def _short(path: Path) -> Path:
    """Return a path relative to the current directory, if it is below it."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _heading(console: Console, text: str) -> None:
    console.print(Text(text, style="bold"))


def _facts(rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in rows:
        table.add_row(name, Text(fact))
    return table


def _percent(fraction: float) -> str:
    """Format a fraction as per cent, with two significant digits if it is small."""
    percent = 100.0 * fraction
    if percent <= 0.0:
        return "0 %"
    return f"{percent:.2f} %" if percent >= 0.1 else f"{percent:.2g} %"
