"""Shared by all commands: a console, helpful errors, and a graceful exit."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import orjson
import rich.console
import typer
from rich.text import Text

from foundry_fastlog.base.formatting import printable
from foundry_fastlog.cli.exit_codes import CLOSED_PIPE, INTERRUPTED, USAGE
from foundry_fastlog.run.files import RunNotFoundError

__all__ = ["Console", "fail", "graceful", "read_or_fail", "tell", "to_json"]

_P = ParamSpec("_P")
_Result = TypeVar("_Result")


class Console(rich.console.Console):
    """A console that leaves closed pipes to `graceful`."""

    def on_broken_pipe(self) -> None:
        """Raise the error that rich caught."""
        raise BrokenPipeError


def graceful(command: Callable[_P, None]) -> Callable[_P, None]:
    """Make a command exit on Ctrl-C or a closed pipe with the code that shells expect.

    A missing package is reported by name, and output that cannot be written in one line.
    """

    @functools.wraps(command)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except ModuleNotFoundError:  # a fault of the installation
            raise
        except ImportError as error:  # the message says how to get what is missing
            raise fail(str(error)) from error
        except BrokenPipeError:
            _discard_output()
            raise typer.Exit(CLOSED_PIPE) from None
        except OSError as error:
            if error.filename is None:  # not of opening something
                _discard_output()
            what = error.filename or "the output cannot be written"
            raise fail(f"{what}: {error.strerror or error}") from error

    return wrapped


def _discard_output() -> None:
    """Stop the interpreter from flushing at exit what has nowhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str, code: int = USAGE) -> typer.Exit:
    """Print an error, in red, to standard error; raise the result.

    Args:
        message: What is wrong and what to do.
        code: The exit code; by default that for an invalid argument.

    Returns:
        The exception to raise.
    """
    shown = "\n".join(map(printable, message.split("\n")))
    Console(stderr=True, highlight=False).print(
        Text("error: ", "bold red").append(shown, "default"), soft_wrap=True
    )
    return typer.Exit(code)


def tell(note: str) -> None:
    """Print a note to standard error, in yellow."""
    shown = "\n".join(map(printable, note.split("\n")))
    Console(stderr=True, highlight=False).print(
        Text("note: ", "bold yellow").append(shown, "default"), soft_wrap=True
    )


def read_or_fail(path: Path, read: Callable[[Path], _Result]) -> _Result:
    """Read a run, or exit with an error about its path."""
    try:
        return read(path)
    except RunNotFoundError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{path} cannot be read: {error.strerror or error}") from None


def to_json(value: dict[str, object], *, indent: bool = True) -> bytes:
    """Return a result as JSON: indented, or in a line of its own."""
    options = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
    try:
        return orjson.dumps(value, option=options) + b"\n"
    except TypeError:  # a path that is not UTF-8, or a sum of more than 64 bits: write as text
        from foundry_fastlog.base.json_text import readable

        return orjson.dumps(readable(value), option=options) + b"\n"
