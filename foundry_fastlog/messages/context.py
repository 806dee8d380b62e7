"""Context fields added to every message logged in the current context."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

__all__ = ["Ambient", "ambient", "layer", "log_context"]


class Ambient:
    """The fields of the current context, in layers; immutable."""

    def __init__(self, layers: tuple[tuple[object, dict[str, Any]], ...]) -> None:
        self.layers = layers
        self._merged: dict[object, dict[str, Any]] = {}

    def of(self, family: object) -> dict[str, Any]:
        """Return the fields for a family of loggers; inner layers win."""
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
    """Add fields to all messages that any StructuredLogger logs inside the block.

    They carry over to asyncio tasks started inside. A thread starts without them, unless Python
    hands it the context of its starter: ``-X thread_inherit_context``, the default without a GIL.

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
    """Add fields inside the block, for one family of loggers or, without an owner, for all."""
    outer = ambient.get()
    layers = outer.layers if outer is not None else ()
    token = ambient.set(Ambient((*layers, (owner, fields))))
    try:
        yield
    finally:
        ambient.reset(token)
