"""MLflow's own server, as a process on this machine that can go away and come back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from sending import wait_for


class MlflowServer:
    """A server whose database is a file.

    Args:
        folder: Where its files are.

    Attributes:
        url: Its address, the same each time it runs.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            self._port = held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "--backend-store-uri": f"sqlite:///{self._folder / 'mlflow.db'}",
            "--default-artifact-root": str(self._folder / "artifacts"),
            "--host": "127.0.0.1",
            "--port": str(self._port),
            "--workers": "1",
        }
        command = [sys.executable, "-m", "mlflow", "server"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen more processes
        }
        with (self._folder / "server.log").open("ab") as said:
            self._process = subprocess.Popen(
                [*command, *(part for pair in options.items() for part in pair)],
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        wait_for(self._answers, timeout_s=240)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "server.log").read_text()
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def stop(self) -> None:
        """Take it away, without notice."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[MlflowServer]:
    """Serve until the end."""
    server = MlflowServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
