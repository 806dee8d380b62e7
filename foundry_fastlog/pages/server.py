"""The live page's server: `foundry-fastlog ui`. Needs the extra ``ui`` (starlette and uvicorn).

It listens on this machine alone, and answers only who has its token: the address that it prints has
it, and the first visit puts it into a cookie. A run is named by its path below the directory, and
only names that a listing of it has found are looked up, so no request leads anywhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from foundry_fastlog.analysis.runs import Runs, read_runs
from foundry_fastlog.base.extras import extra
from foundry_fastlog.base.formatting import printable
from foundry_fastlog.pages.bundle import page_of, policy_of
from foundry_fastlog.pages.clients import Client, event_of, wanted_of
from foundry_fastlog.pages.following import Follower, Wanted
from foundry_fastlog.pages.live import LiveRuns, id_of, path_of, rows_of
from foundry_fastlog.run.files import RunNotFoundError
from foundry_fastlog.show.palette import COLORS, styles_of

if TYPE_CHECKING:
    from types import FrameType

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["LivePage", "listen", "new_token", "serve"]

_logger = logging.getLogger(__name__)

_POLL_S = 0.5
_LIST_S = 3.0
_STALE_S = 30.0  # a list that is older is not shown at first
_MOST_POINTS = 20_000
_MOST_BODY = 1 << 20
_COOKIE = "foundry-fastlog"
_LOCAL = ("127.0.0.1", "localhost", "[::1]")


class LivePage:
    """The application, and what it knows of the runs.

    Args:
        root: The directory of runs.
        token: What a client must know.
        hosts: Names by which it may be asked for, beside those of this machine.
    """

    def __init__(self, root: Path, token: str, hosts: tuple[str, ...] = ()) -> None:
        self.root = root.resolve()
        self.token = token
        self._hosts = {*_LOCAL, *hosts}
        self._found = Runs([])
        self._rows: dict[str, dict[str, Any]] = {}
        self._fresh_until = 0.0
        self._runs = LiveRuns()
        self._clients: dict[str, Client] = {}
        self._followers: dict[str, Follower] = {}
        self._gone: set[str] = set()  # runs that were followed
        self._said: set[str] = set()
        self._polling = asyncio.Lock()  # what is wanted does not change meanwhile

    def app(self) -> Starlette:
        """Return the ASGI application."""
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.gzip import GZipMiddleware
        from starlette.routing import Route

        routes = [
            Route("/", self._allowed(self._page)),
            Route("/api/runs", self._allowed(self._list)),
            Route("/api/names", self._allowed(self._names)),
            Route("/api/run", self._allowed(self._facts)),
            Route("/api/curve", self._allowed(self._curve)),
            Route("/api/clock", self._allowed(self._clock)),
            Route("/api/events", self._allowed(self._events)),
            Route("/api/follow", self._allowed(self._follow), methods=["POST"]),
        ]
        packed = [Middleware(GZipMiddleware, minimum_size=2000)]
        return Starlette(routes=routes, middleware=packed, lifespan=self._lifespan)

    def close(self) -> None:
        """Let the clients' streams end."""
        for client in self._clients.values():
            client.end()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(self._keep_listing()),
            asyncio.create_task(self._keep_polling()),
        ]
        try:
            yield
        finally:
            self.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _allowed(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """Answer only those who know the token, by a name of this machine."""
        from starlette.responses import PlainTextResponse, RedirectResponse

        async def checked(request: Request) -> Response:
            host = request.headers.get("host", "")
            name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
            if name not in self._hosts:  # another site's name that leads here
                return PlainTextResponse(f"not known as {name}", 403)
            given = request.query_params.get("token")
            if given is not None and _same(given, self.token):
                response = RedirectResponse(request.url.path)
                response.set_cookie(
                    self._cookie(request), self.token, httponly=True, samesite="strict"
                )
                return response
            if not _same(request.cookies.get(self._cookie(request), ""), self.token):
                return PlainTextResponse(
                    "open the address that foundry-fastlog ui has printed", 403
                )
            try:
                found: Response = await answer(request)
            except RunNotFoundError as error:
                return _json({"error": str(error)}, 404)
            except OSError as error:
                return _json({"error": f"cannot be read: {error.strerror or error}"}, 404)
            except ValueError as error:
                return _json({"error": str(error)}, 400)
            except (TypeError, KeyError, AttributeError) as error:  # of what was asked
                return _json({"error": f"{type(error).__name__}: {error}"}, 400)
            return found

        return checked

    @staticmethod
    def _cookie(request: Request) -> str:
        return f"{_COOKIE}-{request.url.port or 80}"  # browsers do not tell ports apart

    async def _page(self, _: Request) -> Response:
        from starlette.responses import Response

        title = printable(self.root.name or str(self.root))
        data = {"title": title, "colours": COLORS}
        body = b"".join(page_of(title, "live.js", data, connect="'self'"))
        headers = {
            "content-security-policy": policy_of("live.js", "'self'") + "; frame-ancestors 'none'",
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        }
        return Response(body, media_type="text/html; charset=utf-8", headers=headers)

    async def _list(self, request: Request) -> Response:
        """Give all runs, or the names of those of which an expression is true."""
        expression = request.query_params.get("where")
        if expression is not None:
            chosen = await asyncio.to_thread(self._found.where, expression)
            return _json({"runs": [id_of(run) for run in chosen], "notes": chosen.notes})
        if not self._clients and time.monotonic() > self._fresh_until:
            await self._read_rows()  # with clients they are looked at all the time
        return _json(self._shown())

    def _shown(self) -> list[dict[str, Any]]:
        """Return the rows of the table, each run with its own colour, whatever others have."""
        return [
            {"id": name, "style": styles_of([row["name"]])[row["name"]], **row}
            for name, row in self._rows.items()
        ]

    async def _names(self, request: Request) -> Response:
        run = self._runs.get(self._path(request))
        return _json(await asyncio.to_thread(run.names))

    async def _facts(self, request: Request) -> Response:
        run = self._runs.get(self._path(request))
        return _json(await asyncio.to_thread(run.facts))

    async def _curve(self, request: Request) -> Response:
        query = request.query_params
        points = min(_MOST_POINTS, max(2, int(query.get("points", "2000"))))
        steps = None
        if "first" in query:
            steps = int(query["first"]), int(query["last"])
        run, kind = self._runs.get(self._path(request)), query.get("kind", "")
        return _json(await asyncio.to_thread(run.curve, query["name"], points, steps, kind))

    async def _clock(self, request: Request) -> Response:
        run = self._runs.get(self._path(request))
        name = request.query_params["name"]
        return _json({"arrays": await asyncio.to_thread(run.clock, name)})

    def _path(self, request: Request) -> Path:
        name = request.query_params.get("run", "")
        if name not in self._rows:
            raise RunNotFoundError(f"there is no run {name!r} here")
        return path_of(self.root, name)

    async def _events(self, request: Request) -> Response:
        from starlette.responses import StreamingResponse

        name = request.query_params["client"]
        if before := self._clients.get(name):  # a connection that is dead without a word
            before.end()
        client = self._clients[name] = Client()

        async def stream() -> AsyncIterator[bytes]:
            try:
                yield event_of("hello", {})
                while part := await client.next():
                    yield part
            finally:
                if self._clients.get(name) is client:
                    del self._clients[name]

        headers = {"cache-control": "no-store", "content-encoding": "identity"}
        return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)

    async def _follow(self, request: Request) -> Response:
        """Note what a client wants to hear of, and say from where on it hears all of that."""
        body = b""
        async for part in request.stream():
            body += part[: _MOST_BODY - len(body)]  # the rest is not kept, and it is no JSON then
        asked = orjson.loads(body)
        client = self._clients.get(str(asked["client"]))
        if client is None:
            raise ValueError("no such client: connect to /api/events first")
        async with self._polling:
            runs = asked["runs"].items()
            client.wanted = {run: wanted_of(names) for run, names in runs if run in self._rows}
            for run in client.wanted:
                await asyncio.to_thread(self._begin, run)
            followed = {run: self._followers.get(run) for run in client.wanted}
            return _json({run: one.reached for run, one in followed.items() if one})

    async def _keep_listing(self) -> None:
        while True:
            begun = time.monotonic()
            with self._said_once("the runs cannot be listed"):
                await self._list_again()
            # A twentieth of the time, at most: of thousands of runs a look takes a second.
            await asyncio.sleep(max(_LIST_S, 20 * (time.monotonic() - begun)))

    async def _list_again(self) -> None:
        """Tell the clients which runs there are, if that has changed."""
        if not self._clients:
            return
        before = self._rows
        await self._read_rows()
        if self._rows != before:
            for client in list(self._clients.values()):
                client.tell("runs", self._shown())

    async def _read_rows(self) -> None:
        with contextlib.suppress(RunNotFoundError):  # the directory is gone: it may come back
            self._found = await asyncio.to_thread(read_runs, self.root)
            self._rows = rows_of(self._found)
            self._fresh_until = time.monotonic() + _STALE_S

    async def _keep_polling(self) -> None:
        while True:
            async with self._polling:
                await self._poll_all()
            await asyncio.sleep(_POLL_S)

    @contextlib.contextmanager
    def _said_once(self, what: str) -> Iterator[None]:
        """Go on after what nobody foresaw, as the page would stand still without a word."""
        try:
            yield
        except Exception as error:
            reason = f"{what}: {type(error).__name__}: {error}"
            if reason not in self._said:
                self._said.add(reason)
                _logger.warning(reason, exc_info=error)

    async def _poll_all(self) -> None:
        """Poll each run that anybody follows, once for all who do."""
        wanted: dict[str, set[Wanted]] = {}
        for client in self._clients.values():
            for run, curves in client.wanted.items():
                wanted.setdefault(run, set()).update(curves)
        for run in self._followers.keys() - wanted.keys():
            self._followers.pop(run, None)
        self._gone &= wanted.keys()
        for run, all_of in wanted.items():
            found: dict[str, Any] = {}
            with self._said_once(f"{run} cannot be followed"):
                found = await asyncio.to_thread(self._poll, run, all_of)
            for client in list(self._clients.values()) if found else ():
                if run in client.wanted:
                    client.tell("news", _own(run, found, client.wanted[run]))

    def _begin(self, run: str) -> None:
        if run not in self._followers:
            with contextlib.suppress(OSError, RunNotFoundError):  # the next poll says so
                self._followers[run] = Follower(path_of(self.root, run))

    def _poll(self, run: str, wanted: set[Wanted]) -> dict[str, Any]:
        """Return what is new of a run; empty if nothing is."""
        was_gone = run in self._gone
        self._begin(run)
        follower = self._followers.get(run)
        found = {"gone": True} if follower is None else follower.poll(wanted)
        if "gone" in found:
            self._followers.pop(run, None)
            self._runs.forget(path_of(self.root, run))
            self._gone.add(run)
            return found
        self._gone.discard(run)
        return {"anew": True} if was_gone else found  # it may be another one


def _own(run: str, found: dict[str, Any], wanted: list[Wanted]) -> dict[str, Any]:
    """Return of what is new what a client asked for."""
    known = found.get("values", {})
    values = {one.name: known[one.name] for one in wanted if one.name in known}
    return {**found, "run": run, "values": values}


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to serve on.

    Raises:
        OSError: The port is in use, or the host is none of this machine.
    """
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(kind, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except BaseException:
        found.close()
        raise
    return found


def serve(root: Path, opened: socket.socket, token: str, hosts: tuple[str, ...] = ()) -> None:
    """Serve until Ctrl-C.

    Args:
        root: The directory of runs.
        opened: From `listen`.
        token: What a client must know; see `new_token`.
        hosts: Names by which the page may be asked for, beside those of this machine.

    Raises:
        ImportError: starlette or uvicorn is missing; the message says how to get them.
    """
    with extra("ui", "starlette", "uvicorn"):
        import starlette  # noqa: F401 - whether it is there
        import uvicorn
    page = LivePage(root, token, hosts)
    config = uvicorn.Config(
        page.app(), log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            page.close()  # or the clients' streams would never end
            # What is cut off now, such as a request that was never sent whole, is no error.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            super().handle_exit(sig, frame)

    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[opened])


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(24)


def _same(given: str, known: str) -> bool:
    return secrets.compare_digest(given.encode(), known.encode())


def _json(data: object, status: int = 200) -> Response:
    from starlette.responses import Response

    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(orjson.dumps(data), status, media_type="application/json", headers=headers)
