"""Entry point of the ``foundry-fastlog`` command.

The commands are in ``commands``; this module starts without typer and rich, and says
how to get them where they are missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from foundry_fastlog.cli.exit_codes import OK, PROBLEM, USAGE

__all__ = ["main"]

_EXTRA = {"typer", "rich", "click", "shellingham"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code: 0 ok, 1 something is missing or wrong in the run, 2 a wrong
        argument or no run, 130 after Ctrl-C, 141 when the reader of a pipe left.
    """
    try:
        from foundry_fastlog.cli.commands import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise  # not a missing extra, but a broken installation
        print(
            f"error: the command line needs {error.name}, which is not installed. "
            f"Run: {sys.executable} -m pip install 'foundry_fastlog[cli]'",
            file=sys.stderr,
        )
        return USAGE
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where a test or a notebook replaced it
            # A terminal that cannot show a character shows its escape, not a traceback.
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    code: object = OK
    try:
        app(arguments or ["--help"], prog_name="foundry-fastlog")
    except SystemExit as stop:  # typer leaves this way, whatever happened
        code = stop.code
    if not arguments:
        return USAGE  # whatever this version of typer makes of it
    return code if isinstance(code, int) else OK if code is None else PROBLEM
