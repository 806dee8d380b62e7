"""Fields that the code which runs now gives to messages, whoever logs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

__all__ = ["Ambient", "ambient", "layer", "log_context"]


class Ambient:
    """Fields of the code that runs now, layer upon layer; never changed once it is made."""

    def __init__(self, layers: tuple[tuple[object, dict[str, Any]], ...]) -> None:
        self.layers = layers
        self._merged: dict[object, dict[str, Any]] = {}

    def of(self, family: object) -> dict[str, Any]:
        """Return the fields for the loggers of a family; inner layers win."""
        merged = self._merged.get(family)
        if merged is None:
            merged = {}
            for owner, fields in self.layers:
                if owner is None or owner is family:
                    merged.update(fields)
            self._merged[family] = merged
        return merged


ambient: ContextVar[Ambient | None] = ContextVar("foundry_fastlog_fields", default=None)


@contextlib.contextmanager
def log_context(**fields: Any) -> Iterator[None]:  # noqa: ANN401 - fields are anything
    """Give fields to all messages of all StructuredLoggers that are logged within.

    They follow the code into asyncio tasks that it starts; a thread has its own.

    Args:
        **fields: Names and values.

    Example:
        >>> with log_context(epoch=3):  # doctest: +SKIP
        ...     logger.info("Validated", loss=2.1)
    """
    with layer(None, fields):
        yield


@contextlib.contextmanager
def layer(owner: object, fields: dict[str, Any]) -> Iterator[None]:
    """Give fields within, to the loggers of a family or, without an owner, to all."""
    outer = ambient.get()
    layers = outer.layers if outer is not None else ()
    token = ambient.set(Ambient((*layers, (owner, fields))))
    try:
        yield
    finally:
        ambient.reset(token)
