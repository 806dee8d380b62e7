"""The names of the streams; a module of its own, since it costs a start nothing."""

from __future__ import annotations

__all__ = ["STREAMS"]

#: In the order in which they are listed everywhere, and numbered in ``csrc/core/record.hpp``.
STREAMS = ("metrics", "performance", "errors", "log", "system")
