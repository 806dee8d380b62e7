"""Workers: a Dask cluster to which work on runs is handed out in batches.

A batch has as many runs as take about a second by what batches before have taken, the largest runs
first. Work is idempotent, so Dask repeats what a killed worker had; a batch that fails again and
again is done run by run, and a run that cannot be done is told of, not raised. Dask blames what
kills a worker on all that the worker had to do, so a run is blamed only for what it does alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from foundry_fastlog._version import __version__
from foundry_fastlog.base.extras import extra

if TYPE_CHECKING:  # an optional package
    from distributed import Client, Future

__all__ = ["Crew", "FleetError", "Item", "Lost", "Pace", "Progress"]


class Item(Protocol):
    """Something to work on, such as a run."""

    @property
    def size(self) -> int:
        """Bytes of its files, which say how long it takes."""


_Item = TypeVar("_Item", bound=Item)
_Result = TypeVar("_Result")

#: Told how much of what there is to do is done.
Progress = Callable[[int, int], object]

_TARGET_S, _FIRST_S = 1.0, 0.1  # of a batch; the first ones show how long it takes
_MOST_ITEMS = 500  # of a batch, whose results come back together
_AHEAD = 2  # batches for each thread, so that none waits for the next
_PATIENCE_S = 60.0
_LOOPBACK = (
    "127.0.0.1:0"  # Dask's own pages are on all interfaces else, at a port that may be taken
)
_START_S, _BYTES_PER_S = 0.004, 50e6  # until something is measured


class FleetError(RuntimeError):
    """The cluster, or the place of a dataset, is not as it has to be; the message says how."""


class Pace:
    """Cuts what is waiting into batches, by how long those before took."""

    def __init__(self) -> None:
        self._factor = 1.0  # what an item takes, in units of the estimate by its size
        self._target_s = _FIRST_S

    def seconds(self, item: Item) -> float:
        """Return how long one item is expected to take."""
        return self._factor * (_START_S + item.size / _BYTES_PER_S)

    def learn(self, batch: Sequence[Item], seconds: float) -> None:
        """Take in how long a batch took: the latest count for most."""
        seen = self._factor * max(seconds, 1e-6) / sum(map(self.seconds, batch))
        self._factor = seen if self._target_s == _FIRST_S else (self._factor + seen) / 2
        self._target_s = _TARGET_S

    def cut(self, waiting: deque[_Item], threads: int) -> list[_Item]:
        """Take off the front what makes a batch: at least one item.

        Args:
            waiting: The items.
            threads: Between how many what is left has to be shared.
        """
        most = min(_MOST_ITEMS, max(1, len(waiting) // (_AHEAD * threads)))
        batch = [waiting.popleft()]
        left = self._target_s - self.seconds(batch[0])
        while len(batch) < most and (left := left - self.seconds(waiting[0])) > 0:
            batch.append(waiting.popleft())
        return batch


@dataclass(frozen=True)
class Lost(Generic[_Item]):
    """An item of which no worker could say anything.

    Attributes:
        item: The item.
        reason: What became of the work on it.
    """

    item: _Item
    reason: str


class Crew:
    """The workers that read runs.

    Args:
        root: A directory that they all have to see.
        client: A ``distributed.Client``, the address of a scheduler, or None for a cluster of this
            machine, which is started when there is work and ends with this object.
        workers: How many processes that has; None for one per core.
    """

    def __init__(
        self, root: Path, client: Client | str | None = None, workers: int | None = None
    ) -> None:
        self._root = root
        self._given = client
        self._workers = workers
        self._client: Client | None = None
        self._owned = contextlib.ExitStack()

    def close(self) -> None:
        """End the cluster or the connection that it started; a client that was given stays."""
        self._client = None
        self._owned.close()

    @property
    def client(self) -> Client:
        """The client, whose cluster is started or asked for its workers on first use.

        Raises:
            FleetError: There is no such scheduler, it has no workers, or they have no such package.
            ImportError: Dask is not installed.
        """
        if self._client is None:
            with extra("fleet", "dask", "distributed"):
                import distributed
            if self._given is None:
                self._client = self._start(distributed)
            else:
                self._client = self._join(distributed)
        return self._client

    def _start(self, distributed: Any) -> Client:  # noqa: ANN401 - a module
        # Its processes do not run the user's script again, as those of a LocalCluster do.
        from dask.system import CPU_COUNT
        from distributed.deploy.subprocess import SubprocessCluster

        try:
            cluster = self._owned.enter_context(
                SubprocessCluster(
                    n_workers=self._workers or CPU_COUNT,
                    threads_per_worker=1,
                    dashboard_address=_LOOPBACK,
                    worker_kwargs={"dashboard_address": _LOOPBACK},
                )
            )
            client: Client = self._owned.enter_context(distributed.Client(cluster))
            _wait_for_workers(client)
        except (OSError, RuntimeError, asyncio.TimeoutError) as error:
            raise FleetError(f"no workers could be started here: {error}") from error
        return client

    def _join(self, distributed: Any) -> Client:  # noqa: ANN401 - a module
        client = self._given
        if isinstance(client, str):
            try:
                client = self._owned.enter_context(
                    distributed.Client(client, timeout=_PATIENCE_S / 6)
                )
            except (OSError, RuntimeError, ValueError, asyncio.TimeoutError) as error:
                raise FleetError(f"no scheduler answers at {self._given}: {error}") from error
        joined = cast("Client", client)
        _wait_for_workers(joined)
        for address, said in joined.run(_say, self._root, on_error="return").items():
            if said != _say(self._root):
                raise FleetError(
                    f"the worker {address} has to have foundry_fastlog {__version__} and to see "
                    f"{self._root}, and says: {said}"
                )
        return joined

    def each(
        self,
        work: Callable[[_Item], _Result],
        items: Iterable[_Item],
        progress: Progress | None = None,
    ) -> Iterator[_Result | Lost[_Item]]:
        """Work on items, in any order.

        Args:
            work: Done on a worker. It returns what can be pickled, and may be done again.
            items: Such as runs.
            progress: Told how many are done.

        Yields:
            What each came to.

        Raises:
            FleetError: The cluster cannot be used, or went away.
        """
        waiting = deque(sorted(items, key=lambda one: -one.size))
        if not waiting:
            return
        client, total, done = self.client, len(waiting), 0
        again: deque[list[_Item]] = deque()
        suspects: deque[_Item] = deque()
        pending: dict[Future, list[_Item]] = {}
        ready: queue.SimpleQueue[Future] = queue.SimpleQueue()
        pace, threads = Pace(), _Threads(client)

        def submit(batch: list[_Item]) -> None:
            future = client.submit(_do, work, batch, pure=False)
            pending[future] = batch
            future.add_done_callback(ready.put)

        try:
            while waiting or again or suspects or pending:
                while (waiting or again) and len(pending) < _AHEAD * threads.count():
                    submit(again.popleft() if again else pace.cut(waiting, threads.count()))
                is_trial = not pending
                if is_trial:
                    submit([suspects.popleft()])
                future = _first(ready, client)
                batch = pending.pop(future)
                found: Sequence[_Result | Lost[_Item]] = []
                if future.status == "finished":
                    found, seconds = future.result()
                    pace.learn(batch, seconds)
                elif future.status != "error":
                    raise FleetError(f"the scheduler went away; its work is {future.status}")
                elif len(batch) > 1:
                    again += [[one] for one in batch]
                elif _is_killed(future.exception()) and not is_trial:
                    suspects.append(batch[0])
                else:
                    found = [Lost(batch[0], _reason(future.exception()))]
                done += len(found)
                yield from found
                if progress is not None:
                    progress(done, total)
        finally:
            client.cancel(list(pending))


class _Threads:
    """How many threads the workers have: they come and go, as a batch system lets them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._count = 1
        self._until = -1.0

    def count(self) -> int:
        """Return how many there were within the last second, at least one."""
        if (now := time.monotonic()) >= self._until:
            self._count = max(1, sum(self._client.nthreads().values()))
            self._until = now + _TARGET_S
        return self._count


def _wait_for_workers(client: Client) -> None:
    """Wait until a worker is there.

    Raises:
        FleetError: None came.
    """
    try:
        client.wait_for_workers(1, timeout=_PATIENCE_S)
    except (TimeoutError, asyncio.TimeoutError) as error:  # not the same before Python 3.11
        raise FleetError(f"the scheduler has no workers after {_PATIENCE_S:.0f} s") from error


def _first(ready: queue.SimpleQueue[Future], client: Client) -> Future:
    """Return the first work that is done; see now and then that there is someone to do it."""
    while True:
        with contextlib.suppress(queue.Empty):
            return ready.get(timeout=_PATIENCE_S)
        _wait_for_workers(client)


def _do(work: Callable[[_Item], _Result], batch: list[_Item]) -> tuple[list[_Result], float]:
    """Work on a batch, on a worker; return the results, and how long they took."""
    begun = time.perf_counter()
    return [work(item) for item in batch], time.perf_counter() - begun


def _say(root: Path) -> str:
    """Say on a worker which version it has, and if it sees a directory."""
    return f"version {__version__}, {'sees' if root.is_dir() else 'does not see'} {root}"


def _reason(error: BaseException | None) -> str:
    if _is_killed(error):
        return "each worker that read it was killed; it may need more memory than they have"
    return f"{type(error).__name__}: {error}"


def _is_killed(error: BaseException | None) -> bool:
    return type(error).__name__ == "KilledWorker"
