"""The command ``foundry-fastlog watch``."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from foundry_fastlog.analysis.alerts import Alert, WatchRules
from foundry_fastlog.base.formatting import printable, write_json
from foundry_fastlog.cli.arguments import RunPath
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail

__all__ = ["EPILOG", "watch"]

EPILOG = (
    "**Example:** `foundry-fastlog watch runs/exp0 --stall 5`  \n"
    "**Tell somebody:** `foundry-fastlog watch runs/exp0 --webhook https://hooks.example.com/x`  \n"
    "**From cron:** `foundry-fastlog watch runs/exp0 --once || mail -s 'look at exp0' me`  \n"
    "**Exit codes:** 0 the run ended, or --once was enough, without an alert, 1 there were alerts, "
    "2 no run, 130 Ctrl-C."
)
_TOLD_S = 30


@graceful
def watch(
    path: RunPath,
    *,
    spike: Annotated[
        list[str] | None,
        typer.Option("--spike", "-m", metavar="PATTERN", help="Metrics whose rise is a spike."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="MADs above the median of the values before that a spike is.")
    ] = WatchRules.threshold,
    window: Annotated[
        int, typer.Option(help="How many values before it a value is compared with.")
    ] = WatchRules.window,
    falls: Annotated[bool, typer.Option("--falls", help="A sudden fall is a spike, too.")] = False,
    stall: Annotated[
        float, typer.Option(help="Minutes without progress; 0 for no such alert.")
    ] = 10.0,
    errors: Annotated[
        float, typer.Option(help="Errors per minute that are still few; 0 for no such alert.")
    ] = 10.0,
    disk: Annotated[
        float, typer.Option(help="GiB that must be free for the run; 0 for no such alert.")
    ] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look at what is there now, and exit.")
    ] = False,
    first: Annotated[
        bool, typer.Option("--exit", help="Exit with the first alert, with status 1.")
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Tell only of what is recorded from now on.")
    ] = False,
    command: Annotated[
        str | None,
        typer.Option(
            "--command",
            metavar="CMD",
            help="Run this with the shell for each alert, which is JSON on its standard input; "
            "$FASTLOG_KIND, $FASTLOG_MESSAGE and $FASTLOG_RUN have the most important.",
        ),
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="POST each alert there as JSON; `text` is its message."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one alert a line.")] = False,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Watch a run for spikes, NaN, errors, no progress and a full disk, until it ends."""
    from foundry_fastlog.analysis.watching import RunWatch

    if webhook is not None and not webhook.startswith(("http://", "https://")):
        raise typer.BadParameter(f"--webhook takes http://... or https://..., not {webhook!r}")
    try:
        rules = WatchRules(
            spikes=tuple(spike or WatchRules.spikes),
            window=window,
            least=min(WatchRules.least, window),
            threshold=threshold,
            falls=falls,
            stall_s=_or_none(stall * 60),
            errors_per_minute=_or_none(errors),
            disk_free=int(disk * (1 << 30)) or None,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    watching = read_or_fail(path, lambda run: RunWatch(run, rules, only_new=new))
    tell = _Teller(path, command=command, webhook=webhook, as_json=as_json)
    while True:
        try:
            alerts = watching.look()
        except OSError as error:
            raise fail(f"{path} can no longer be read: {error.strerror or error}") from None
        for alert in alerts:
            tell(alert)
            if first:
                raise typer.Exit(PROBLEM)
        if once or watching.ended:
            raise typer.Exit(PROBLEM if watching.alerts else 0)
        time.sleep(interval)


def _or_none(value: float) -> float | None:
    return value or None


class _Teller:
    """Tells of an alert: on the terminal, to a command, to a webhook."""

    def __init__(
        self, path: Path, *, command: str | None, webhook: str | None, as_json: bool
    ) -> None:
        self._run = str(path)
        self._command = command
        self._webhook = webhook
        self._as_json = as_json
        self._console = Console(highlight=False)
        self._notes = Console(stderr=True, highlight=False)

    def __call__(self, alert: Alert) -> None:
        from foundry_fastlog.show.alerts import render_alert

        found = {"run": self._run, **alert.to_dict()}
        text = json.dumps(found)
        if self._as_json:
            write_json(text.encode() + b"\n")
        else:
            render_alert(alert, self._console)
        if self._command is not None:
            self._run_command(self._command, alert, text)
        if self._webhook is not None:
            said = f"{self._run}: {alert.message}"
            self._post(self._webhook, json.dumps({"text": said, **found}))

    def _run_command(self, command: str, alert: Alert, text: str) -> None:
        facts = {
            "FASTLOG_KIND": alert.kind,
            "FASTLOG_MESSAGE": alert.message,
            "FASTLOG_RUN": self._run,
        }
        try:
            done = subprocess.run(  # noqa: S602 - the user's own command
                command,
                shell=True,
                input=text.encode() + b"\n",
                env={**os.environ, **facts},
                timeout=_TOLD_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._note(f"--command: {error}")
        else:
            if done.returncode:
                self._note(f"--command ended with status {done.returncode}")

    def _post(self, url: str, text: str) -> None:
        request = urllib.request.Request(  # noqa: S310 - its scheme was looked at
            url, text.encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_TOLD_S):  # noqa: S310 - likewise
                pass
        except (OSError, ValueError) as error:
            self._note(f"--webhook: {error}")

    def _note(self, text: str) -> None:
        self._notes.print(Text(f"note: {printable(text)}", "yellow"), soft_wrap=True)
