"""Who looks at the live page, and what waits to be sent to them as server-sent events."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from foundry_fastlog.pages.following import Wanted

__all__ = ["Client", "event_of", "wanted_of"]

_MOST_BYTES = 32 << 20  # that wait for one client
_BEAT_S = 15.0  # livepage.js gives up after more than twice that, and connects again


class Client:
    """Who follows runs: what it wants to hear of, and what it has not been told yet."""

    def __init__(self) -> None:
        self.wanted: dict[str, list[Wanted]] = {}
        self.waiting: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1000)
        self._size = 0  # bytes that wait

    def tell(self, kind: str, data: object) -> None:
        """Send an event; one that falls behind too far begins anew."""
        event = event_of(kind, data)
        if self.waiting.full() or self._size + len(event) > _MOST_BYTES:
            self._forget()
            event = event_of("anew", {})
        self._put(event)

    async def next(self) -> bytes:
        """Return what is to be sent next: a sign of life where there is nothing to tell."""
        try:
            event = await asyncio.wait_for(self.waiting.get(), _BEAT_S)
        except asyncio.TimeoutError:
            return event_of("beat", {})
        self._size -= len(event)
        return event

    def end(self) -> None:
        """Let its stream end."""
        self._forget()
        self._put(b"")

    def _put(self, event: bytes) -> None:
        self.waiting.put_nowait(event)
        self._size += len(event)

    def _forget(self) -> None:
        while not self.waiting.empty():
            self._size -= len(self.waiting.get_nowait())


def wanted_of(names: list[Any]) -> list[Wanted]:
    """Return the curves that a client names: by a text, or by the fields of `Wanted`."""
    return [Wanted(*map(str, one)) if isinstance(one, list) else Wanted(str(one)) for one in names]


def event_of(kind: str, data: object) -> bytes:
    """Return an event as it is sent."""
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"
