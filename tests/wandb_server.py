"""A server on this machine that W&B's own client takes for W&B's: it keeps the rows it is sent.

It answers what the client asks to begin and to resume a run (GraphQL) and takes what the client
streams (``file_stream``), as the requests are in wandb/wandb: ``core/api/graphql`` and
``core/internal/filestream``. A line of the stream has a place, so that one that comes twice is
there once, as at W&B; what comes to a place with other content is counted.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API_KEY = "0" * 40
_HISTORY = "wandb-history.jsonl"
_SUMMARY = "wandb-summary.json"
_ENTITY = "somebody"


@dataclass
class ServedRun:
    """What the server has of a run.

    Attributes:
        project: Its project.
        name: What it is called.
        config: Its configuration, as W&B wraps it.
        files: Lines by place, by the name of their file.
        changed: How many lines came to the place of another one.
        exit_code: How it ended; None while it has not.
    """

    project: str = ""
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[int, str]] = field(default_factory=dict)
    changed: int = 0
    exit_code: int | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of its history, whose places must have no gap."""
        lines = self.files.get(_HISTORY, {})
        assert sorted(lines) == list(range(len(lines)))
        return [json.loads(lines[place]) for place in sorted(lines)]

    def take(self, name: str, offset: int, content: list[str]) -> None:
        """Take lines from a place on."""
        lines = self.files.setdefault(name, {})
        for place, line in enumerate(content, offset):
            if name == _HISTORY and lines.get(place, line) != line:
                self.changed += 1
            lines[place] = line

    def resumed(self, name: str) -> dict[str, Any]:
        """What a client that resumes it is told."""
        history = self.files.get(_HISTORY, {})
        summary = self.files.get(_SUMMARY, {})
        last = [history[place] for place in sorted(history)[-1:]]
        counts = {"historyLineCount": len(history), "eventsLineCount": 0, "logLineCount": 0}
        return {
            "id": f"storage-{name}",
            "name": name,
            "displayName": self.name,
            **counts,
            "historyTail": json.dumps(last),
            "eventsTail": "[]",
            "tags": [],
            "notes": "",
            "summaryMetrics": summary[max(summary)] if summary else "{}",
            "config": json.dumps(self.config),
            "wandbConfig": json.dumps({"t": 1}),
        }


class WandbServer:
    """The server.

    Attributes:
        url: Its address.
        runs: By id.
        failing: Statuses with which the next requests of the stream are refused.
        requests: When rows came, in monotonic seconds, and how many.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ServedRun] = {}
        self.failing: list[int] = []
        self.requests: list[tuple[float, int]] = []
        self.url = ""
        self._lock = threading.Lock()

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer a question in GraphQL."""
        with self._lock:
            if "UpsertBucket" in query:
                return {"upsertBucket": {"bucket": self._upsert(variables), "inserted": True}}
            if "RunResumeStatus" in query:
                run = self.runs.get(variables["name"])
                found = run and run.resumed(variables["name"])
                project, entity = variables["project"], {"id": "e", "name": _ENTITY}
                return {"model": {"id": "p", "name": project, "entity": entity, "bucket": found}}
        if "Viewer" in query or "viewer" in query:
            about = {"id": "u", "entity": _ENTITY, "username": _ENTITY, "email": "", "flags": "{}"}
            return {"viewer": {**about, "teams": {"edges": []}}}
        if "ServerFeatures" in query:
            return {"serverInfo": {"features": []}}
        if "serverInfo" in query:
            versions = {"max_cli_version": "100.0.0", "min_cli_version": "0.0.0"}
            return {"serverInfo": {"cliVersionInfo": versions, "latestLocalVersionInfo": None}}
        if "RunStoppedStatus" in query:
            return {"project": {"run": {"stopped": False}}}
        if "CreateRunFiles" in query:
            names = variables["files"]
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in names]
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        return {}

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        run = self.runs.setdefault(name, ServedRun())
        run.project = variables.get("project") or run.project
        run.name = variables.get("displayName") or run.name
        if variables.get("config"):
            run.config = json.loads(variables["config"])
        project = {"id": "p", "name": run.project, "entity": {"id": "e", "name": _ENTITY}}
        about = {"id": f"storage-{name}", "name": name, "displayName": run.name}
        lines = len(run.files.get(_HISTORY, {}))
        more = {"description": None, "config": "{}", "sweepName": None, "historyLineCount": lines}
        return {**about, **more, "project": project}

    def stream(self, name: str, sent: dict[str, Any]) -> int:
        """Take a request of the stream; return the status."""
        with self._lock:
            if self.failing:
                return self.failing.pop(0)
            run = self.runs.setdefault(name, ServedRun())
            for file, lines in sent.get("files", {}).items():
                run.take(file, lines["offset"], lines["content"])
                if file == _HISTORY:
                    self.requests.append((time.monotonic(), len(lines["content"])))
            run.exit_code = sent.get("exitcode") if sent.get("complete") else None
        return 200


@contextlib.contextmanager
def serve() -> Iterator[WandbServer]:
    """Serve on a port of this machine that is free."""
    made = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if found := re.fullmatch(r"/files/[^/]*/[^/]*/([^/]*)/file_stream", self.path):
                self._reply(made.stream(found[1], json.loads(body)), {"exitcode": None})
                return
            if self.path != "/graphql":
                self._reply(404, {})  # figures of the client's own
                return
            asked = json.loads(body)
            answer = made.answer(asked["query"], asked.get("variables") or {})
            self._reply(200, {"data": answer})

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._reply(200, {})

        def do_GET(self) -> None:
            self._reply(200, {})

        def _reply(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
