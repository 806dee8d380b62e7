"""The floor: an empty C function called through a local name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import floor
from benchmarks.peers.base import Loop, Peer, VerificationError
from benchmarks.workload import Row


class EmptyFastcall(Peer):
    """Calls the floor; there is no output."""

    name = "empty_fastcall"
    title = "empty C function (`METH_FASTCALL \\| METH_KEYWORDS`): the floor"

    def setup(self, directory: Path) -> Loop:
        """Build and load the function."""
        self.empty = empty = floor.load().empty

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                empty(step, loss=loss, lr=lr, grad_norm=grad_norm, tokens_per_sec=tokens_per_sec)

        return loop

    def finish(self) -> None:
        """Do nothing: there is nothing to close."""

    def verify(self, directory: Path, count: int) -> None:
        """Check that the function accepts the call and that nothing was written."""
        if self.empty(0, loss=1.0, lr=1.0, grad_norm=1.0, tokens_per_sec=1.0) is not None:
            raise VerificationError("the empty function returned something")
        if any(directory.iterdir()):
            raise VerificationError("the empty function wrote a file")


PEER = EmptyFastcall
