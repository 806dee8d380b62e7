"""The command ``foundry-fastlog migrate``: its listing and its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.text import Text

from foundry_fastlog.base.formatting import printable
from foundry_fastlog.cli.exit_codes import OK, PROBLEM
from foundry_fastlog.migrate.model import FileReport, Finding, Options
from foundry_fastlog.migrate.tree import migrate_paths

__all__ = ["Totals", "exit_code", "show_report", "show_totals", "survey"]

_MOST_SET_UP = 8
"""As many calls are listed."""


@dataclass(slots=True)
class Totals:
    """Totals over all files.

    Attributes:
        files: Files examined.
        convert: Prints that can be converted, or were.
        left: Prints that stay and need a person.
        kept: Prints that stay because they are marked.
        errors: Files that could not be read, parsed or written.
        set_up: Calls without which messages do not show, and the first file that needs each.
    """

    files: int = 0
    convert: int = 0
    left: int = 0
    kept: int = 0
    errors: int = 0
    set_up: dict[str, str] = field(default_factory=dict)

    def add(self, report: FileReport) -> None:
        """Count a file."""
        self.files += 1
        self.errors += report.error is not None
        self.convert += report.count("convert")
        self.left += report.count("left")
        self.kept += report.count("kept")
        if report.set_up and not report.set_up_at:
            self.set_up.setdefault(report.set_up, report.path)


def survey(
    paths: Sequence[Path], options: Options, *, write: bool, console: Console | None
) -> tuple[list[FileReport], Totals]:
    """Migrate files, and show the findings of each file as soon as it is done.

    Args:
        paths: Files and folders.
        options: How to convert.
        write: Write the results.
        console: Where to show them; if None, return the reports instead.
    """
    reports, totals = [], Totals()
    for report in migrate_paths(paths, options, write=write):
        totals.add(report)
        if console is None:
            report.source = report.result = ""  # there may be many files: keep only what is shown
            reports.append(report)
        else:
            show_report(report, console)
    return reports, totals


def show_report(report: FileReport, console: Console) -> None:
    """List the findings in a file, with the changed lines as in a diff."""
    if report.error is not None:
        console.print(
            Text(f"{printable(report.path)}: ", "bold").append(printable(report.error), "bold red"),
            soft_wrap=True,
        )
    if report.added:
        cell = report.cell or None
        _show_place(report, report.added_at, "adds a logger", "green", console, cell)
        _show_lines("+", "\n".join(report.added).strip("\n"), "green", console)
        if report.set_up_at and report.set_up not in report.added:
            _show_place(report, report.set_up_at, "sets up logging", "green", console, cell)
            _show_lines("+", report.set_up, "green", console)
    for finding in report.findings:
        _show_finding(report, finding, console)


def _show_finding(report: FileReport, finding: Finding, console: Console) -> None:
    if finding.new is None:
        what = f"{finding.status}: {finding.reason}"
        _show_place(report, finding.line, what, "yellow", console, finding.cell)
        _show_lines(" ", finding.old, "", console)
        return
    _show_place(report, finding.line, finding.level or "removed", "cyan", console, finding.cell)
    _show_lines("-", finding.old, "red", console)
    if finding.new:
        _show_lines("+", finding.new, "green", console)
    if finding.note:
        console.print(Text(f"    note: {printable(finding.note)}", "yellow"), soft_wrap=True)


def _show_place(
    report: FileReport, line: int, what: str, style: str, console: Console, cell: int | None = None
) -> None:
    where = line if cell is None else f"cell {cell}, line {line}"
    place = Text(f"{printable(report.path)}:{where}  ", "bold")
    console.print(place.append(printable(what), style), soft_wrap=True)


def _show_lines(mark: str, code: str, style: str, console: Console) -> None:
    """Show source; the lines after the first keep only their relative indentation."""
    lines = code.splitlines() or [""]
    rest = [len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()]
    margin = min(rest, default=0)
    for index, line in enumerate(lines):
        text = line if index == 0 else line[margin:]
        console.print(Text(f"  {mark} {printable(text)}", style), soft_wrap=True)


def show_totals(totals: Totals, console: Console, *, write: bool) -> None:
    """Show the totals and the next steps."""
    done = "converted" if write else "can be converted"
    kept = f", {totals.kept:,} kept as marked" if totals.kept else ""
    console.print(
        f"{_count(totals.files, 'file')}: {_count(totals.convert, 'print')} {done}, "
        f"{totals.left:,} left{kept}",
        soft_wrap=True,
    )
    if totals.errors:
        text = f"{_count(totals.errors, 'file')} could not be migrated"
        console.print(text, style="bold red")
    if totals.convert and not write:
        console.print("Nothing was changed. Run the command again with --write to apply this.")
    elif totals.convert:
        console.print("Review the diff, and run the tests.")
    if totals.set_up:
        _show_set_up(totals, console)


def _show_set_up(totals: Totals, console: Console) -> None:
    """Show which calls the programs need."""
    console.print(
        "The messages show only in a program that sets up logging. Call, where it starts:",
        soft_wrap=True,
    )
    console.print("    from foundry_fastlog import setup_logging", highlight=False)
    for call, path in list(totals.set_up.items())[:_MOST_SET_UP]:
        console.print(Text(f"    {call}  # {printable(path)}"), soft_wrap=True)
    more = len(totals.set_up) - _MOST_SET_UP
    if more > 0:
        console.print(f"    and {_count(more, 'more call')}: --json lists all")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def exit_code(totals: Totals, *, write: bool, check: bool) -> int:
    """Return 0 if nothing is left to do, else 1.

    A listing is not a failure: without `write` and `check`, only an unreadable file is.
    """
    if totals.errors or (write and totals.left) or (check and totals.left + totals.convert):
        return PROBLEM
    return OK
