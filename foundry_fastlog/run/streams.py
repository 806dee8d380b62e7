"""The names of the streams; a separate module, so that a start does not pay for more."""

from __future__ import annotations

__all__ = ["STREAMS"]

#: In the order in which they are listed everywhere, and numbered in ``csrc/core/record.hpp``.
STREAMS = ("metrics", "performance", "errors", "log", "system")
