"""A live page's server in a thread, and what asks it."""

from __future__ import annotations

import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from foundry_fastlog.pages.server import LivePage, listen

TOKEN = "a-token"


class Served:
    """A server in a thread, and what asks it."""

    def __init__(self, root: Path) -> None:
        import uvicorn

        self.page = LivePage(root, TOKEN)
        self._socket = listen("127.0.0.1", 0)
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(self.page.app(), log_level="error", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        options = {"sockets": [self._socket]}
        self._thread = threading.Thread(target=self._server.run, kwargs=options)
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()
        assert not self._thread.is_alive()

    def request(self, path: str, body: bytes | None = None, **headers: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        cookie = {"Cookie": f"foundry-fastlog-{self.port}={TOKEN}"}
        connection.request("POST" if body else "GET", path, body, {**cookie, **headers})
        response = connection.getresponse()
        response.body = response.read()
        connection.close()
        return response

    def get(self, path: str, code: int = 200, **parameters: Any) -> Any:
        response = self.request(f"{path}?{urlencode(parameters)}")
        assert response.status == code, response.body
        return json.loads(response.body)

    @contextmanager
    def events(self, client: str) -> Iterator[queue.Queue[tuple[str, Any]]]:
        """What a client is told."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        cookie = {"Cookie": f"foundry-fastlog-{self.port}={TOKEN}"}
        connection.request("GET", f"/api/events?client={client}", headers=cookie)
        response = connection.getresponse()
        assert response.headers["content-type"].startswith("text/event-stream")
        told: queue.Queue[tuple[str, Any]] = queue.Queue()

        def read() -> None:
            kind = ""
            for raw in response:
                line = raw.decode().rstrip()
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: "):
                    told.put((kind, json.loads(line[6:])))
            told.put(("end", None))

        thread = threading.Thread(target=read)
        thread.start()
        assert told.get(timeout=20) == ("hello", {})
        try:
            yield told
        finally:
            connection.sock.shutdown(socket.SHUT_RDWR)
            thread.join(20)
            response.close()
            connection.close()

    def follow(self, client: str, **runs: Sequence[str | list[str]]) -> None:
        body = json.dumps({"client": client, "runs": runs}).encode()
        assert self.request("/api/follow", body).status == 200


def news(told: queue.Queue[tuple[str, Any]]) -> dict[str, Any]:
    """The next news, whatever else is told."""
    while True:
        kind, data = told.get(timeout=20)
        if kind == "news":
            return dict(data)


def until(check: Any, timeout: float = 20.0) -> None:
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)
