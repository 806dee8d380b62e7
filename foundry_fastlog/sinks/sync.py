"""Send a run to another tool, by a process of its own that may be killed and started again.

    >>> from foundry_fastlog import sync_run           # doctest: +SKIP
    >>> sync_run("runs/exp0", "tensorboard", follow=True)

The run's files are read, so training does not wait, and what was recorded before goes along. Rows
are numbered in the order in which they are sent, and noted in ``RUN/.sync/TARGET.json`` before they
are: who goes on after a kill knows which rows may be there already, and asks the target which are.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from foundry_fastlog.analysis.run_summary import state_of
from foundry_fastlog.base.environment import moment_of
from foundry_fastlog.reading.cursor import Cursor
from foundry_fastlog.reading.lines import restore_nonfinite
from foundry_fastlog.reading.polled import Polled
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.files import StrPath
from foundry_fastlog.sinks.sync_rows import Row, SyncError, Target

__all__ = ["TARGETS", "SyncError", "SyncResult", "sync_run"]

#: Where rows can be sent.
TARGETS = ("wandb", "tensorboard", "mlflow")

_FORMAT = 1
_POLL_BYTES = 128 << 10  # of each stream of each process, so that few rows are noted at a time
_BATCH = 500  # rows
_IDLE_S = 1.0
_MOST_WAIT_S = 60.0
_TRIES = 5

_log = logging.getLogger("foundry_fastlog")
_Found = TypeVar("_Found")


@dataclass
class _State:
    """What is noted in the file.

    Attributes:
        known: What the target says of itself.
        rows: How many rows are safe with it.
        pending: The rows after these, which may be there or not.
        position: Where the cursor is behind them.
        run: When the run was created, which tells it from others.
    """

    known: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    pending: list[Row] = field(default_factory=list)
    position: dict[str, Any] | None = None
    run: object = None


@dataclass(frozen=True)
class SyncResult:
    """What was sent.

    Attributes:
        target: Where to.
        rows: How many rows in all, now and earlier.
        sent: How many now.
        state: The run's state.
        known: What the target says of itself: the id of its run, its directory.
    """

    target: str
    rows: int
    sent: int
    state: str
    known: dict[str, Any]


def sync_run(
    path: StrPath,
    target: str,
    *,
    follow: bool = False,
    rate: float | None = None,
    state_file: StrPath | None = None,
    wait: bool = False,
    **options: Any,  # noqa: ANN401 - the target's
) -> SyncResult:
    """Send what is recorded of a run, from where the last call got to.

    Args:
        path: The run's directory.
        target: ``wandb``, ``tensorboard`` or ``mlflow``.
        follow: Go on until the run has ended.
        rate: At most so many rows a second. Default: 200 for services, no limit for files.
        state_file: Where it is noted how far that is. Default: ``RUN/.sync/TARGET.json``.
        wait: Wait for another process that sends this run there, instead of raising an error.
        **options: ``project``, ``name``, ``entity``, ``directory`` and ``mode`` of wandb;
            ``directory`` of TensorBoard; ``uri`` and ``experiment`` of mlflow.

    Raises:
        ImportError: A package is missing; the message says which.
        OSError: The run cannot be read, or the file cannot be written.
        RunNotFoundError: There is no run.
        SyncError: Another process sends this run there, or the target cannot be reached.
        ValueError: An unknown target, a rate that is none, or a state file of something else or of
            another run.
    """
    made = _make(target, options)
    if rate is not None and not rate > 0:
        raise ValueError(f"rate must be above 0, got {rate}")
    run = Run(path)
    file = Path(state_file) if state_file else run.path / ".sync" / f"{target}.json"
    with _held(file, wait=wait):
        return _Sync(run, target, made, file, rate or made.rate).run(follow=follow)


def _make(target: str, options: dict[str, Any]) -> Target:
    given = {name: value for name, value in options.items() if value is not None}
    if target == "wandb":
        from foundry_fastlog.sinks.sync_wandb import WandbTarget

        return WandbTarget(**given)
    if target == "tensorboard":
        from foundry_fastlog.sinks.sync_tensorboard import TensorBoardTarget

        return TensorBoardTarget(**given)
    if target == "mlflow":
        from foundry_fastlog.sinks.sync_mlflow import MlflowTarget

        return MlflowTarget(**given)
    raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")


@contextlib.contextmanager
def _held(file: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes from sending the same; wait for one that does, or raise an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise SyncError(f"another process sends this run: it holds {file}.lock") from None
    try:
        yield
    finally:
        os.close(descriptor)


class _Sync:
    """Sends a run. For one thread."""

    def __init__(self, run: Run, name: str, target: Target, file: Path, rate: float | None) -> None:
        self._run = run
        self._name = name
        self._target = target
        self._file = file
        self._rate = rate
        self._state = self._load()
        self._sent = 0

    def run(self, *, follow: bool) -> SyncResult:
        """Send until there is nothing more, or, if it follows, until the run has ended."""
        state = self._state
        # Noted before there is anything of this name: who is killed now finds it again.
        state.known.setdefault("id", secrets.token_hex(4))
        self._save()
        there = self._try(lambda: self._target.open(self._run, state.known), follow=follow, tries=1)
        self._save()
        cursor = self._cursor(state.position)
        if there is not None:
            state.pending = [row for row in state.pending if row.number >= there]
            state.rows = max(state.rows, there)
        self._deliver(state.pending, follow=follow)
        ended = ""
        while True:
            polled = cursor.poll(_POLL_BYTES)
            if polled.anew and Run(self._run.path).info.get("created") != state.run:
                raise SyncError(f"{self._run.path} is another run now, and is not sent as this one")
            more_safe = self._confirm()
            rows = list(_rows_of(polled, state.rows + len(state.pending)))
            state.position = cursor.position
            if rows:
                state.pending += rows
                self._save()
                self._deliver(rows, follow=follow)
            if rows or polled.more:
                continue
            if more_safe:
                self._save()
            if not follow or ended:
                break
            ended = self._ended()  # and then look once more
            if not ended:
                time.sleep(_IDLE_S)
        ended = ended or state_of(Run(self._run.path).report_starts())
        self._target.close(ended)
        self._confirm()
        self._save()
        return SyncResult(self._name, state.rows, self._sent, ended, dict(state.known))

    def _ended(self) -> str:
        """Return the run's state once nothing more comes; else nothing."""
        state = state_of(Run(self._run.path).report_starts())
        return "" if state == "running" else state

    def _confirm(self) -> bool:
        """Ask what is safe with the target; return whether more is."""
        state = self._state
        before = state.rows
        safe = self._target.confirmed(before + len(state.pending))
        state.pending = [row for row in state.pending if row.number >= safe]
        state.rows = max(before, safe)
        return state.rows > before

    def _deliver(self, rows: list[Row], *, follow: bool) -> None:
        for begin in range(0, len(rows), _BATCH):
            part = rows[begin : begin + _BATCH]
            self._send(part, follow=follow)
            self._sent += len(part)
            if self._rate is not None:
                time.sleep(len(part) / self._rate)

    def _send(self, rows: list[Row], *, follow: bool) -> None:
        """Send rows."""
        self._try(lambda: self._target.send(rows), follow=follow, tries=_TRIES)

    def _try(self, action: Callable[[], _Found], *, follow: bool, tries: int) -> _Found:
        """Do something; where the target cannot be reached, try again.

        Who follows tries as often as it takes while the run goes on; after its end, as others do.
        """
        wait, told = 1.0, False
        while True:
            try:
                return action()
            except (ImportError, SyncError):  # noqa: PERF203 - a network is slower
                raise
            except Exception as error:
                if not follow or self._ended():
                    tries -= 1
                if not tries:
                    raise SyncError(f"{self._name} cannot be reached: {error}") from error
                if not told:
                    _log.warning("%s cannot be reached, trying again: %s", self._name, error)
                told = True
                time.sleep(wait)
                wait = min(2 * wait, _MOST_WAIT_S)

    def _load(self) -> _State:
        created = self._run.info.get("created")
        try:
            found = orjson.loads(self._file.read_bytes())
            if (found["format"], found["target"]) != (_FORMAT, self._name):
                raise ValueError(found["target"])  # noqa: TRY301 - as one that is damaged
            pending = [Row(**{**row, "values": _values(row["values"])}) for row in found["pending"]]
            known, rows, run = dict(found["known"]), int(found["rows"]), found.get("run")
            state = _State(known, rows, pending, found["position"], run)
            self._cursor(state.position)
        except FileNotFoundError:
            return _State(run=created)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError(
                f"{self._file} does not say how far a run was sent to {self._name}: remove it to "
                "begin anew, or name another file"
            ) from None
        if state.run not in (None, created):
            raise ValueError(
                f"{self._file} says how far another run was sent, which was created at "
                f"{state.run}: remove it to begin anew, or name another file"
            )
        state.run = created
        return state

    def _cursor(self, position: dict[str, Any] | None) -> Cursor:
        return Cursor(self._run.path, ["metrics", "system"], position=position)

    def _save(self) -> None:
        state = self._state
        pending = [{**asdict(row), "values": _texts(row.values)} for row in state.pending]
        content = {"format": _FORMAT, "target": self._name, "known": state.known, "run": state.run}
        content |= {"rows": state.rows, "pending": pending, "position": state.position}
        temporary = self._file.with_name(f"{self._file.name}.new")
        with temporary.open("wb") as file:
            file.write(orjson.dumps(content))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._file)


def _rows_of(polled: Polled, number: int) -> Iterator[Row]:
    """Yield the rows that were polled, numbered from a number on."""
    for timestamp, series, record, _ in polled.lines:
        found = restore_nonfinite(record)
        place = series.writer.rank, polled.numbers.get(series.writer, 0)
        if isinstance(step := found.get("rewind"), int):
            yield Row(number, "rewind", moment_of(timestamp), step, {}, *place)
            number += 1
            continue
        values = found.get(series.stream)
        if values is None and isinstance(summary := found.get("summary"), dict):
            values = {f"{name} (epoch)": value for name, value in summary.items()}
            values["epoch"] = found.get("epoch")
        if isinstance(values, dict) and values:
            moment = moment_of(timestamp)
            yield Row(number, series.stream, moment, found.get("step"), values, *place)
            number += 1


# JSON has no NaN: such values are noted as lists of one text.
def _texts(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [str(value)] if isinstance(value, float) and value - value != 0 else value
        for name, value in values.items()
    }


def _values(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: float(value[0]) if isinstance(value, list) else value
        for name, value in values.items()
    }
