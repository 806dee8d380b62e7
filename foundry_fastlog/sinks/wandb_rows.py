"""Rows whose values are still on a device: they go to W&B once these have arrived, in order."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from foundry_fastlog.recording.host_copies import HostCopies, checked, is_device_scalar

__all__ = ["DelayedRows"]

_POLL_S = 0.001
_LONGEST_S = 120.0  # that a row waits for its values, as a line of a Recorder does by default

# Copies that were given up may still be under way: what they read must not be used by others.
_given_up: list[HostCopies] = []


def _keep(given_up: HostCopies) -> None:
    """Keep copies that were given up, and let go those that have ended since."""
    for copies in list(_given_up):
        with contextlib.suppress(Exception):  # of a device that has failed: nobody knows
            if copies.arrived():
                _given_up.remove(copies)
    _given_up.append(given_up)


class _Row(NamedTuple):
    """A row that waits, or that stands behind one that does."""

    what: str
    step: int
    values: dict[str, Any]
    names: list[str]  # of the values that `copies` has
    copies: HostCopies | None
    deadline: float  # on the monotonic clock: then it goes without them


class DelayedRows:
    """Rows in the order in which they were logged. The caller holds its lock around each call.

    W&B takes no older steps, so a row stands behind those before it.
    """

    def __init__(
        self,
        write: Callable[[str, int, Mapping[str, Any]], bool],
        failed: Callable[[str, Exception], bool],
        longest: float = _LONGEST_S,
    ) -> None:
        """Begin without rows.

        Args:
            write: Sends a row whose values are on the host: name of the call, step, values.
            failed: Counts and tells an error.
            longest: Seconds that a row waits at most; then it is sent without what is missing.
        """
        self._longest = longest
        self._write = write
        self._failed = failed
        self._rows: deque[_Row] = deque()

    def __len__(self) -> int:
        """Return how many rows wait."""
        return len(self._rows)

    def newest_step(self, newest: int) -> int:
        """Return the newest step of all rows, those that were written included."""
        return max([newest, *(row.step for row in self._rows)])

    def add(self, what: str, step: int, row: dict[str, Any]) -> bool:
        """Send a row, now or when its values and those before it have arrived.

        Args:
            what: Name of the call.
            step: The training step.
            row: Flat names and values.

        Returns:
            False when it was not taken.
        """
        names = [name for name, value in row.items() if is_device_scalar(value)]
        copies = None
        if names:
            try:
                copies = HostCopies(checked([row[name] for name in names]))
            except Exception as error:  # noqa: BLE001 - torch's, must not stop a training
                self._failed(what, error)
                row = {name: value for name, value in row.items() if name not in names}
        self.send_arrived()
        if copies is None and not self._rows:
            return self._write(what, step, row)
        self._rows.append(_Row(what, step, row, names, copies, time.monotonic() + self._longest))
        return True

    def send_arrived(self) -> None:
        """Send the rows at the front whose values are there, or came too late. Never waits."""
        now = time.monotonic()
        while self._rows and self._send_first(give_up=now >= self._rows[0].deadline):
            pass

    def finish(self, timeout: float) -> None:
        """Send all rows; those whose values have not arrived in time, without these.

        Args:
            timeout: Seconds to wait at most.
        """
        deadline = time.monotonic() + timeout
        while self._rows:
            if not self._send_first(give_up=time.monotonic() >= deadline):
                time.sleep(_POLL_S)

    def _send_first(self, *, give_up: bool) -> bool:
        row = self._rows[0]
        values = dict(row.values)
        if row.copies is not None:
            try:
                if row.copies.arrived():
                    read = (tensor.item() for tensor in row.copies.tensors)
                    values.update(zip(row.names, read, strict=True))
                elif give_up:
                    _keep(row.copies)
                    raise TimeoutError(  # noqa: TRY301 - ends as a device's own error does
                        f"values of step {row.step} have not arrived from their device"
                    )
                else:
                    return False
            except Exception as error:  # noqa: BLE001 - torch's, must not stop a training
                self._failed(row.what, error)
                values = {name: value for name, value in values.items() if name not in row.names}
        self._rows.popleft()
        self._write(row.what, row.step, values)
        return True
