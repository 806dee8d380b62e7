"""Sends rows to a run of Weights & Biases, or to an offline run for ``wandb sync``.

A row's number is W&B's step, which only grows; the training's step is a metric, and the x axis of
all charts. wandb's own process notes each row in its run file before it sends it: what is there is
safe, and is not sent again.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from foundry_fastlog.analysis.identity import config_of
from foundry_fastlog.base.extras import extra
from foundry_fastlog.importing.wandb_files import LastRow
from foundry_fastlog.reading.run import Run
from foundry_fastlog.sinks.sync_rows import Row, SyncError

__all__ = ["WandbTarget"]

_LAST_S = 30.0
_OWN = ("_step", "_runtime", "_wandb")  # of wandb's own in a row


class WandbTarget:
    """A run of wandb.

    Args:
        project: Its project. Default: ``WANDB_PROJECT``, or ``foundry_fastlog``.
        name: Its name. Default: the run's.
        entity: Whose it is.
        directory: Where wandb keeps its files. Default: ``RUN/.sync``.
        mode: ``online`` or ``offline``. Default: ``WANDB_MODE``, or online.
    """

    rate: float | None = 200.0  # rows a second, what W&B takes of a run at most

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        entity: str | None = None,
        directory: str | os.PathLike[str] | None = None,
        mode: str | None = None,
    ) -> None:
        self._project, self._name, self._entity = project, name, entity
        self._directory, self._mode = directory, mode
        self._files: dict[Path, LastRow] = {}
        self._sent = 0

    def open(self, run: Run, known: dict[str, Any]) -> int:
        """Begin a run of wandb, or go on with the one that is known."""
        with extra("wandb", "wandb"):
            import wandb  # noqa: F401 - whether it is there
        project = self._project or os.environ.get("WANDB_PROJECT") or "foundry_fastlog"
        known.setdefault("project", project)
        self._place = Path(self._directory or run.path / ".sync")
        self._place.mkdir(parents=True, exist_ok=True)
        self._run: Any = self._begin(run, known)
        self._run.define_metric("*", step_metric="step", step_sync=False)
        known["url"] = self._run.url
        there, noted = int(self._run.starting_step or 0), self._noted()
        if not self._run.offline:
            self._send_noted(there)
        return max(noted, there)

    def _send_noted(self, step: int) -> None:
        """Send again what is in wandb's run files alone: its process was killed, or gave up."""
        noted = {
            number: row for file in self._files.values() for number, row in file.rows_from(step)
        }
        for number in sorted(noted):
            row = {name: value for name, value in noted[number].items() if name not in _OWN}
            self._run.log(row, step=number, commit=True)

    def _begin(self, run: Run, known: dict[str, Any]) -> Any:  # noqa: ANN401 - wandb's Run
        import wandb

        end = time.monotonic() + _LAST_S
        while True:
            try:
                return wandb.init(
                    entity=self._entity,
                    project=known["project"],
                    id=known["id"],
                    name=self._name or str(run.info.get("name") or run.path.absolute().name),
                    dir=str(self._place),
                    config=config_of(run),
                    mode=self._mode,  # type: ignore[arg-type] # one of its words, or its error says so
                    resume="allow",
                    settings=wandb.Settings(
                        console="off",
                        disable_code=True,
                        disable_git=True,
                        x_disable_stats=True,  # of this process; the run's own are rows
                    ),
                )
            except Exception as error:  # noqa: PERF203 - it is asked twice a second
                # wandb's process takes a moment to see that a sender was killed.
                if "is in use" not in str(error) or time.monotonic() > end:
                    if type(error) is wandb.errors.CommError:  # no answer, which may yet come
                        raise
                    raise SyncError(f"wandb could not begin a run: {error}") from error
                time.sleep(0.5)

    def _noted(self) -> int:
        """Return how many rows are in wandb's run files, of this process and of earlier ones."""
        for path in self._place.glob(f"wandb/*run-*/run-{self._run.id}.wandb"):
            self._files.setdefault(path, LastRow(path))
        return max((file.look() + 1 for file in self._files.values()), default=0)

    def send(self, rows: list[Row]) -> None:
        """Send rows."""
        for row in rows:
            values = {f"{row.place}{name}": value for name, value in row.values.items()}
            if row.stream == "rewind":
                values["rewound to"] = row.step
            elif row.step is not None:
                values["step"] = row.step
            self._run.log({**values, "_timestamp": row.time}, step=row.number, commit=True)
            self._sent = row.number + 1

    def confirmed(self, number: int) -> int:
        """Return how many rows are in wandb's run file."""
        return min(number, self._noted())

    def close(self, state: str) -> None:
        """Wait until wandb has sent all, and say how the run ended."""
        self._run.finish(exit_code=1 if state in ("failed", "killed") else 0)
        end = time.monotonic() + _LAST_S
        while self._noted() < self._sent and time.monotonic() < end:
            time.sleep(0.05)  # wandb's process writes the last rows after finish()
