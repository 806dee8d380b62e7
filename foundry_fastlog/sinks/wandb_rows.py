"""Rows with values still on a device: sent to W&B in order, once the values have arrived."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from foundry_fastlog.recording.host_copies import HostCopies, checked, is_device_scalar

__all__ = ["DelayedRows"]

_POLL_S = 0.001
_LONGEST_S = 120.0  # the longest that a row waits, the same as a Recorder's default for lines

# Abandoned copies may still be in progress: the memory they read must not be reused.
_given_up: list[HostCopies] = []


def _keep(given_up: HostCopies) -> None:
    """Keep abandoned copies, and release those that have completed since."""
    for copies in list(_given_up):
        with contextlib.suppress(Exception):  # of a failed device: unknown
            if copies.arrived():
                _given_up.remove(copies)
    _given_up.append(given_up)


class _Row(NamedTuple):
    """A row that waits, or that is queued after a waiting row."""

    what: str
    step: int
    values: dict[str, Any]
    names: list[str]  # of the values in `copies`
    copies: HostCopies | None
    deadline: float  # monotonic; after it, the row is sent without them


class DelayedRows:
    """Rows in the order in which they were logged. The caller holds its lock around each call.

    W&B accepts no older steps, so a row waits for those before it.
    """

    def __init__(
        self,
        write: Callable[[str, int, Mapping[str, Any]], bool],
        failed: Callable[[str, Exception], bool],
        longest: float = _LONGEST_S,
    ) -> None:
        """Start without rows.

        Args:
            write: Sends a row whose values are on the host: name of the call, step, values.
            failed: Counts and reports an error.
            longest: The longest that a row waits, in seconds; then it is sent without the missing
                values.
        """
        self._longest = longest
        self._write = write
        self._failed = failed
        self._rows: deque[_Row] = deque()

    def __len__(self) -> int:
        """Return how many rows are waiting."""
        return len(self._rows)

    def newest_step(self, newest: int) -> int:
        """Return the newest step of all rows, including those already written."""
        return max([newest, *(row.step for row in self._rows)])

    def add(self, what: str, step: int, row: dict[str, Any]) -> bool:
        """Send a row, now or once its values and the rows before it have arrived.

        Args:
            what: Name of the call.
            step: The training step.
            row: Flat names and values.

        Returns:
            False when it was not accepted.
        """
        names = [name for name, value in row.items() if is_device_scalar(value)]
        copies = None
        if names:
            try:
                copies = HostCopies(checked([row[name] for name in names]))
            except Exception as error:  # noqa: BLE001 - torch errors must not stop a training
                self._failed(what, error)
                row = {name: value for name, value in row.items() if name not in names}
        self.send_arrived()
        if copies is None and not self._rows:
            return self._write(what, step, row)
        self._rows.append(_Row(what, step, row, names, copies, time.monotonic() + self._longest))
        return True

    def send_arrived(self) -> None:
        """Send the leading rows whose values have arrived or timed out. Never waits."""
        now = time.monotonic()
        while self._rows and self._send_first(give_up=now >= self._rows[0].deadline):
            pass

    def finish(self, timeout: float) -> None:
        """Send all rows; those whose values do not arrive in time, without them.

        Args:
            timeout: The longest wait in seconds.
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
                    raise TimeoutError(  # noqa: TRY301 - handled like a device's own error
                        f"values of step {row.step} have not arrived from their device"
                    )
                else:
                    return False
            except Exception as error:  # noqa: BLE001 - torch errors must not stop a training
                self._failed(row.what, error)
                values = {name: value for name, value in values.items() if name not in row.names}
        self._rows.popleft()
        self._write(row.what, row.step, values)
        return True
