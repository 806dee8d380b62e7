"""All runs below a directory, read by many workers.

>>> from foundry_fastlog.fleet import Fleet                 # doctest: +SKIP
>>> with Fleet("runs", "tcp://scheduler:8786") as fleet:
...     fleet.totals(by="config.lr", metric="loss")
...     fleet.compact("dataset")
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from foundry_fastlog.analysis.direction import is_more_better
from foundry_fastlog.analysis.run_summary import STALLED_AFTER_S
from foundry_fastlog.analysis.runs import Runs, is_old, known_summary, newest_first
from foundry_fastlog.analysis.runs_cache import Kept, read_kept, write_kept
from foundry_fastlog.base.extras import extra
from foundry_fastlog.fleet.compaction import CLOSED, Compacted, compact_runs
from foundry_fastlog.fleet.crew import Crew, Lost, Progress
from foundry_fastlog.fleet.failures import Failure, group_failures
from foundry_fastlog.fleet.findings import Study, find_out
from foundry_fastlog.fleet.goodput import FleetGoodput, add_goodput
from foundry_fastlog.fleet.hosts import FleetHosts, judge_hosts
from foundry_fastlog.fleet.rows import Row, read_row, unreadable
from foundry_fastlog.fleet.totals import Totals, best_value, total_up
from foundry_fastlog.reading.counting import known_streams
from foundry_fastlog.run.files import STREAMS, RunNotFoundError, StrPath
from foundry_fastlog.run.tree import FoundRun, find_all_runs

if TYPE_CHECKING:  # optional packages
    from distributed import Client
    from typing_extensions import Self

__all__ = ["Fleet", "Looked"]

# What is kept of runs besides the rows of `read_runs`.
_ERRORS = "errors"


@dataclass(frozen=True)
class Looked:
    """What one look at a directory came to.

    Attributes:
        rows: The runs.
        read: How many of them workers read: the others had not changed.
        walk_s: Seconds that it took to find them.
        read_s: Seconds that it took to read them, the start of workers included.
        unsearched: Directories that cannot be searched for runs, and why.
    """

    rows: tuple[Row, ...]
    read: int
    walk_s: float
    read_s: float
    unsearched: dict[str, str] = field(default_factory=dict)


class Fleet:
    """The runs below a directory, read by the workers of a Dask cluster.

    The first method that needs to know the runs looks at the directory; ``look`` does so again.
    Runs that have not changed since somebody looked are not read again, and where nothing has
    changed no worker is needed. A run that is damaged or removed meanwhile has a row that says so.

    Args:
        directory: Where to look, at any depth. Workers find it at the same path.
        client: A ``distributed.Client`` or the address of a scheduler. By default workers of this
            machine, which are started when they are needed; they end with ``close`` or ``with``.
        workers: How many those are, one per core by default.
        where: Only the runs of which this is true; see ``Runs.where``.
        stalled_after_s: As for ``read_runs``.
        progress: Called with how many runs are done and how many there are.

    Raises:
        RunNotFoundError: There is no such directory.
    """

    def __init__(
        self,
        directory: StrPath,
        client: Client | str | None = None,
        *,
        workers: int | None = None,
        where: str | None = None,
        stalled_after_s: float = STALLED_AFTER_S,
        progress: Progress | None = None,
    ) -> None:
        self.path = Path(directory).absolute()
        if not self.path.is_dir():
            raise RunNotFoundError(f"{directory} is not a directory. Name one with runs in it.")
        self._where = where
        self._stalled_after_s = stalled_after_s
        self._progress = progress
        self._crew = Crew(self.path, client, workers)
        self._looked: Looked | None = None
        self._runs: Runs | None = None
        self._at = 0.0  # when it looked
        self._said: dict[str, dict[str, dict[str, Any]]] = {}  # by kind and run, since then

    def __enter__(self) -> Self:
        """Return it; workers that it starts end with the ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the workers that it started."""
        self.close()

    def close(self) -> None:
        """End the workers that it started. A client that was given stays as it is."""
        self._crew.close()

    def look(self) -> Looked:
        """Look at the directory, and read the runs that changed.

        Raises:
            FleetError: The cluster cannot be used.
            ImportError: Dask or the extension is missing; the message says how to get it.
            WhereError: ``where`` cannot be understood.
        """
        begun, now = time.perf_counter(), time.time()
        unsearched: dict[str, str] = {}
        found = list(find_all_runs(self.path, unsearched))
        kept, kept_errors = read_kept(self.path), read_kept(self.path, _ERRORS)
        rows: dict[str, Row] = {}
        changed = []
        for one in found:
            row = _known(one, kept, kept_errors)
            if row is None:
                changed.append(one)
            else:
                rows[one.name] = row
        walked = time.perf_counter()
        work = functools.partial(read_row, self._stalled_after_s)
        try:
            for result in self._crew.each(work, changed, self._progress):
                row = unreadable(result.item, result.reason) if isinstance(result, Lost) else result
                rows[row.found.name] = row
        finally:  # whatever ended it: what was read need not be read again
            self._keep(rows.values(), kept, kept_errors, now)
        self._looked = Looked(
            tuple(rows.values()),
            len(changed),
            walked - begun,
            time.perf_counter() - walked,
            unsearched,
        )
        self._runs, self._at, self._said = None, now, {}
        return self._looked

    def _keep(self, rows: Collection[Row], kept: Kept, kept_errors: Kept, now: float) -> None:
        """Keep what is known of runs until they change, beside what `read_runs` keeps."""
        lasting = [(row, row.line) for row in rows if is_old(row.found, now)]
        some = [(row, line) for row, line in lasting if line is not None]
        summaries = {row.found.name: (row.found.signature, line) for row, line in some}
        errors = {row.found.name: (row.found.signature, row.errors) for row, _ in some}
        if summaries != kept:
            write_kept(self.path, summaries)
        if errors != kept_errors:
            write_kept(self.path, errors, _ERRORS)

    @property
    def unsearched(self) -> dict[str, str]:
        """Directories that the last look could not search for runs, and why."""
        return (self._looked or self.look()).unsearched

    @property
    def rows(self) -> tuple[Row, ...]:
        """What the last look found, of all runs; looks if there was none."""
        return (self._looked or self.look()).rows

    def runs(self) -> Runs:
        """Return the table of runs, those that started last first.

        Raises:
            FleetError, ImportError, WhereError: As for ``look``.
        """
        if self._runs is None:
            runs = newest_first(row.summary for row in self.rows)
            self._runs = runs if self._where is None else runs.where(self._where)
        return self._runs

    def totals(self, by: str | None = None, metric: str | None = None) -> list[Totals]:
        """Add up the runs.

        Args:
            by: An expression such as ``config.lr``: one row for each of its values.
            metric: A metric whose last values are described.

        Returns:
            One row for all runs, or those of ``by``, the one with the most runs first.

        Raises:
            FleetError, ImportError, WhereError: As for ``look``.
        """
        return total_up(self.runs(), by, metric)

    def best(self, metric: str, count: int = 10) -> Runs:
        """Return the runs that reached the best values of a metric, the best first.

        Whether more or less is better goes by its name, as in ``compare_runs``. Runs without a
        finite value are left out.

        Args:
            metric: Its name.
            count: At most so many.

        Raises:
            FleetError, ImportError, WhereError: As for ``look``.
        """
        values = [(best_value(run, metric), run) for run in self.runs()]
        some = [(value, run) for value, run in values if value is not None]
        some.sort(key=lambda pair: pair[0], reverse=is_more_better(metric))
        return Runs(run for _, run in some[:count])

    def failures(self) -> list[Failure]:
        """Group the errors of the runs by their fingerprints, and tell which runs they ended.

        Returns:
            First what ended the most runs, then what was in the most runs.

        Raises:
            FleetError, ImportError, WhereError: As for ``look``.
        """
        chosen = {run.run for run in self.runs()}
        return group_failures(row for row in self.rows if row.found.name in chosen)

    def goodput(self, by: str | None = None, *, worst: int = 10) -> list[FleetGoodput]:
        """Add up where the time of the runs went, by their device-seconds: wall time x ranks.

        Each run is split as by ``Run.goodput``, on a worker; that is kept until the run changes.

        Args:
            by: An expression such as ``config.lr``: one row for each of its values.
            worst: Of how many runs to tell what they lost, at most.

        Returns:
            One row for all runs, or those of ``by``, the one with the most device-seconds first.

        Raises:
            FleetError, ImportError, WhereError: As for ``look``.
        """
        with extra("fleet", "numpy"):
            from foundry_fastlog.fleet.goodput_study import study_goodput
        runs = self.runs()
        said = self._study("goodput", study_goodput, {run.run for run in runs})
        return add_goodput(runs, by, said, worst)

    def hosts(self) -> FleetHosts:
        """Compare hosts over all runs in which several took part, and say which are slow.

        The ranks of each run are compared as by ``compare_ranks``, on a worker; that is kept until
        the run changes. Which hosts are suspects, and why that is not by chance, is in
        ``docs/fleet.md``.

        Raises:
            FleetError, ImportError, WhereError: As for ``look``.
        """
        with extra("fleet", "numpy"):
            from foundry_fastlog.fleet.host_study import study_hosts
        runs = self.runs()
        several = {run.run for run in runs if run.ranks > 1 or run.state == "unreadable"}
        return judge_hosts(self._study("hosts", study_hosts, several), len(runs) - len(several))

    def _study(self, kind: str, study: Study, chosen: set[str]) -> dict[str, dict[str, Any]]:
        """Find out about runs, as they were in the last look."""
        if kind not in self._said:
            self._said[kind] = find_out(
                self._crew, self.path, kind, study, self.rows, chosen, self._at, self._progress
            )
        return self._said[kind]

    def compact(
        self,
        out: StrPath,
        *,
        streams: Collection[str] = STREAMS,
        states: Collection[str] = CLOSED,
    ) -> Compacted:
        """Write runs that have ended into a Parquet dataset, those alone that changed since.

        A file of the dataset has one stream of one rank of one run. It is replaced, at once, when
        its run has changed and has ended again; runs that are removed stay in the dataset.

        Args:
            out: The directory of the dataset, which is made where it is missing.
            streams: Which streams.
            states: The states of runs that are written; ``unknown`` may be among them.

        Raises:
            FleetError: ``out`` has other files, or the cluster cannot be used.
            ImportError: pyarrow, Dask or the extension is missing; the message says how to get it.
            ValueError: A stream or state is unknown.
            WhereError: ``where`` cannot be understood.
        """
        unsearched: dict[str, str] = {}
        if self._where is None:
            found = list(find_all_runs(self.path, unsearched))
        else:
            looked = self.look()
            chosen = {run.run for run in self.runs()}
            found = [row.found for row in looked.rows if row.found.name in chosen]
            unsearched = looked.unsearched
        place, chosen_streams = Path(out).absolute(), known_streams(streams)
        done = compact_runs(self._crew, found, place, chosen_streams, states, self._progress)
        return replace(done, failed={**unsearched, **done.failed})


def _known(found: FoundRun, kept: Kept, kept_errors: Kept) -> Row | None:
    """Return what was kept of a run, if that is still so."""
    entry, errors = kept.get(found.name), kept_errors.get(found.name)
    summary = known_summary(entry, found)
    if summary is None or entry is None or errors is None or errors[0] != found.signature:
        return None
    return Row(found, replace(summary, complete=None), errors[1], entry[1])
