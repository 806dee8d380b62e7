"""The command ``foundry-fastlog ui``."""

from __future__ import annotations

import errno
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from foundry_fastlog.base.formatting import printable
from foundry_fastlog.cli.terminal import Console, fail, graceful

__all__ = ["EPILOG", "ui"]

EPILOG = (
    "**Example:** `foundry-fastlog ui runs`, then open the address that it prints  \n"
    "**From another machine:** `ssh -L 8765:localhost:8765 HOST`, then the same address there  \n"
    "**Exit codes:** 0 stopped, 2 invalid argument, or the port is in use."
)


@graceful
def ui(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A directory with runs below it, or a run.")
    ] = Path(),
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where to listen; 0: any free port.")
    ] = 8765,
    host: Annotated[
        str, typer.Option(help="The address to listen on; others than this machine's are open.")
    ] = "127.0.0.1",
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show runs in a browser, while they train and after: curves follow what is recorded.

    Only this machine is listened to, and only who has the address with its token is answered.
    """
    from foundry_fastlog.pages.server import listen, new_token, serve

    if not directory.is_dir():
        raise fail(f"{directory} is no directory; name one that has runs below it")
    try:
        opened = listen(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise fail(f"port {port} is in use; choose another one, or any: --port 0") from None
        raise fail(f"cannot listen on {host}: {error.strerror or error}") from None
    token = new_token()
    name = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host  # noqa: S104 - as asked for
    shown = f"[{name}]" if ":" in name else name
    address = f"http://{shown}:{opened.getsockname()[1]}/?token={token}"
    console = Console(highlight=False)
    console.print(Text(f"{printable(str(directory))}: {address}"), soft_wrap=True)
    console.print(Text("Ctrl-C ends it.", "dim"))
    if show:
        webbrowser.open(address)
    with opened:
        serve(directory, opened, token, (shown,))
