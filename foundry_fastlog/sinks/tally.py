"""Counts the records given to a sink; the first failure of each kind is logged."""

from __future__ import annotations

import logging
from typing import Any

from foundry_fastlog.base.fork_lock import ForkLock
from foundry_fastlog.base.json_text import safe_str

__all__ = ["Tally"]

_log = logging.getLogger("foundry_fastlog")


class Tally:
    """The counts of one sink, and its first and last error."""

    def __init__(self, sink: str) -> None:
        """Start at zero.

        Args:
            sink: The sink's name, for messages.
        """
        self._sink = sink
        self._lock = ForkLock()  # reentrant: a signal handler may also log, and fail
        self._counts = {"sent": 0, "refused": 0, "errors": 0}
        self._told: set[str] = set()
        self._first_error: str | None = None
        self._last_error: str | None = None

    def sent(self) -> None:
        """Count a record that the sink accepted. The caller prevents concurrent calls."""
        self._counts["sent"] += 1

    def refused(self, reason: str, advice: str) -> bool:
        """Count a record that cannot be sent; log the first one for each advice.

        Takes no lock, so that a forked child may call it: a count that is off by one does no harm.

        Returns:
            False, as the failed call returns.
        """
        self._counts["refused"] += 1
        if advice not in self._told:
            self._told.add(advice)
            _log.warning(
                "%s: %s. Not sent; further ones are only counted. The run's files have it; %s.",
                self._sink,
                reason,
                advice,
            )
        return False

    def failed(self, what: str, error: Exception, outcome: str = "training goes on") -> bool:
        """Count an error; log the first one.

        Args:
            what: The call that failed.
            error: What it raised.
            outcome: What that means for the user.

        Returns:
            False, as the failed call returns.
        """
        text = f"{what}: {type(error).__name__}: {safe_str(error)}"
        with self._lock:
            first = self._first_error is None
            self._counts["errors"] += 1
            self._first_error = self._first_error or text
            self._last_error = text
        if first:
            _log.warning(
                "%s failed in %s; %s, and the run's files have all records. Further failures are "
                "only counted, see stats().",
                self._sink,
                text,
                outcome,
            )
        return False

    def counts(self) -> dict[str, Any]:
        """Return ``sent``, ``refused``, ``errors``, ``first_error`` and ``last_error``."""
        return {
            **self._counts,
            "first_error": self._first_error,
            "last_error": self._last_error,
        }
