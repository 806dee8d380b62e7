"""What is said once: that something of another library's interface is not recorded."""

from __future__ import annotations

import logging
from threading import Lock

__all__ = ["Notices"]

_log = logging.getLogger("foundry_fastlog")


class Notices:
    """Says each thing once."""

    def __init__(self) -> None:
        self._said: set[object] = set()
        self._lock = Lock()

    def tell(self, key: object, text: str, *arguments: object) -> None:
        """Warn, unless that was done for this key before."""
        with self._lock:
            if key in self._said:
                return
            self._said.add(key)
        _log.warning(text, *arguments)
