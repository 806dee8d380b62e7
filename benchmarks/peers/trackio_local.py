"""trackio, local: its thread writes to a SQLite file; no Space, no server, no hardware metrics."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.base import Loop, Peer, check_steps
from benchmarks.workload import Row


class TrackioLocal(Peer):
    """`trackio.log({...}, step=...)`."""

    name = "trackio_local"
    title = "trackio, local"
    packages = ("trackio",)
    in_process = False  # reads TRACKIO_DIR once, at its import

    def setup(self, directory: Path) -> Loop:
        """Start a run whose database lies in `directory`."""
        os.environ.update(TRACKIO_DIR=str(directory), HF_HUB_OFFLINE="1")
        import trackio

        self.trackio = trackio
        with contextlib.redirect_stdout(io.StringIO()):
            run = trackio.init(project="bench", embed=False, auto_log_cpu=False, auto_log_gpu=False)
        log = run.log

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                log(
                    {
                        "loss": loss,
                        "lr": lr,
                        "grad_norm": grad_norm,
                        "tokens_per_sec": tokens_per_sec,
                    },
                    step=step,
                )

        return loop

    def finish(self) -> None:
        """Finish the run, which drains its queue."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.trackio.finish()

    def verify(self, directory: Path, count: int) -> None:
        """Read the database back."""
        with contextlib.closing(sqlite3.connect(directory / "bench.db")) as database:
            found = database.execute("SELECT step, metrics FROM metrics ORDER BY id")
            check_steps(((step, json.loads(metrics)) for step, metrics in found), count)


PEER = TrackioLocal
