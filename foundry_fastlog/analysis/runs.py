"""All runs below a directory: find, filter and sort them.

>>> from foundry_fastlog import read_runs              # doctest: +SKIP
>>> runs = read_runs("runs").where("config.lr >= 1e-3 and last.loss < 2").sort("last.loss")
>>> runs[0].path, runs[0].metrics["loss"].min
>>> runs.to_polars()
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import orjson

from foundry_fastlog.analysis.identity import is_private
from foundry_fastlog.analysis.run_summary import ROOTS, STALLED_AFTER_S, RunSummary, read_summary
from foundry_fastlog.analysis.runs_cache import Kept, pack, read_kept, unpack, write_kept
from foundry_fastlog.analysis.where import ABSENT, Where, WhereError, compile_where
from foundry_fastlog.base.formatting import format_seconds, format_value, printable
from foundry_fastlog.reading.watch import TICK_S
from foundry_fastlog.run.files import RunNotFoundError, StrPath
from foundry_fastlog.run.tree import FoundRun, find_all_runs

if TYPE_CHECKING:  # optional packages
    import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
    import polars as pl

__all__ = ["Runs", "WhereError", "is_old", "known_summary", "newest_first", "read_runs"]

_MOST_SHOWN = 50  # rows of a table in a notebook
_SHOWN = ("run", "state", "started", "duration", "step")
_TEXTS = frozenset(("run", "state", "started"))  # the others are numbers, as a rule
# Of a notebook's cells: not all notebooks have rules for tables.
_LEFT, _RIGHT = (
    f"style='text-align:{to};padding:2px 8px;white-space:nowrap'" for to in ("left", "right")
)
_LOSSES = ("loss", "train_loss", "train/loss", "train.loss")
_CHECKS = ("val_loss", "valid_loss", "eval_loss", "val/loss", "val.loss", "eval/loss", "test_loss")


class Runs(Sequence[RunSummary]):
    """Runs, in an order.

    Args:
        runs: The runs.
        notes: What is odd about how they were chosen.

    Attributes:
        notes: Directories that could not be searched, and names in expressions that no run has,
            each with its place and the nearest known.
    """

    def __init__(self, runs: Iterable[RunSummary], notes: Iterable[str] = ()) -> None:
        self._runs = tuple(runs)
        self.notes: tuple[str, ...] = tuple(notes)

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> RunSummary: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> RunSummary | Runs:
        """Return a run by its place, or several as ``Runs``."""
        if isinstance(index, slice):
            return Runs(self._runs[index], self.notes)
        return self._runs[index]

    def __repr__(self) -> str:
        return f"Runs({len(self):,} runs)"

    def where(self, expression: str) -> Runs:
        """Return the runs of which an expression is true, in the same order.

        Args:
            expression: Such as ``config.lr >= 1e-3 and last.loss < 2 and state == "killed"``; see
                ``docs/finding.md``.

        Raises:
            WhereError: It cannot be understood. The message shows the place, and what is known.
        """
        where = self._compile(expression)
        chosen = [run for run in self if where(run.look_up)]
        return Runs(chosen, [*self.notes, *self._odd(where)])

    def sort(self, key: str) -> Runs:
        """Return the runs sorted: numbers before texts, and what is absent or NaN last.

        Args:
            key: An expression as for ``where``, such as ``last.loss``; with ``-`` before it the
                largest come first.

        Raises:
            WhereError: It cannot be understood.
        """
        key = key.strip()
        down = key.startswith("-")
        where = self._compile(key[1:] if down else key)
        numbers: list[tuple[float, RunSummary]] = []
        texts: list[tuple[str, RunSummary]] = []
        rest = []
        for run in self:
            value = where.value(run.look_up)
            if isinstance(value, (int, float)) and value == value:
                numbers.append((value, run))
            elif isinstance(value, str):
                texts.append((value, run))
            else:
                rest.append(run)
        numbers.sort(key=lambda pair: pair[0], reverse=down)
        texts.sort(key=lambda pair: pair[0], reverse=down)
        ordered = [run for _, run in numbers] + [run for _, run in texts] + rest
        return Runs(ordered, [*self.notes, *self._odd(where)])

    def config_keys(self) -> list[str]:
        """List the keys of all configurations, nested ones dotted, in order of appearance."""
        return list(dict.fromkeys(key for run in self for key in _leaves(run.config)))

    def differing_keys(self) -> list[str]:
        """List the keys of configurations that are not the same in all runs.

        Private ones, such as ``_wandb.id``, are left out: they are different by themselves.
        """
        rows = [_leaves(run.config) for run in self]
        return [
            key
            for key in self.config_keys()
            if not is_private(key) and len({repr(row.get(key, ABSENT)) for row in rows}) > 1
        ]

    def metric_names(self) -> list[str]:
        """List the metrics of all runs, in order of appearance."""
        return list(dict.fromkeys(name for run in self for name in run.metrics))

    def main_metrics(self) -> list[str]:
        """Return the training and the validation loss; without one, the first metric."""
        names = self.metric_names()
        plain = {name.removesuffix(" (epoch)"): name for name in reversed(names)}
        found = [
            next((plain[name] for name in known if name in plain), None)
            for known in (_LOSSES, _CHECKS)
        ]
        return [name for name in found if name is not None] or names[:1]

    def _known(self) -> list[str]:
        """List the names below roots that expressions over these runs may have."""
        config = [f"config.{key}" for key in self.config_keys()]
        return [*config, *(f"last.{name}" for name in self.metric_names())]

    def column(self, expression: str) -> list[Any]:
        """Return the value of an expression for each run, ``ABSENT`` where there is none.

        Raises:
            WhereError: It cannot be understood.
        """
        where = self._compile(expression)
        return [where.value(run.look_up) for run in self]

    def to_polars(self) -> pl.DataFrame:
        """Return a polars DataFrame: one row per run.

        Columns: the fields of ``RunSummary`` without its mappings, then ``config.KEY`` of each
        configuration, and ``first.``, ``last.``, ``min.``, ``max.`` and ``mean.`` of each metric.
        What is of several types is text.

        Raises:
            ImportError: polars is not installed; the message says how to get it.
        """
        try:
            import polars as pl
        except ImportError as error:
            raise ImportError(_missing("polars")) from error
        return pl.DataFrame(self._columns(), strict=False)

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas DataFrame; columns as for ``to_polars``.

        Raises:
            ImportError: pandas is not installed; the message says how to get it.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(_missing("pandas")) from error
        return pd.DataFrame(self._columns())

    def _repr_html_(self) -> str:
        """Show a table in a notebook."""
        columns = [*_SHOWN, *(f"last.{name}" for name in self.main_metrics())]
        columns += [f"config.{key}" for key in self.differing_keys()[:6]]
        shown = self[:_MOST_SHOWN]
        styles = {name: _LEFT if name in _TEXTS else _RIGHT for name in columns}
        head = "".join(f"<th {style}>{_escaped(name)}</th>" for name, style in styles.items())
        rows = [
            "".join(
                f"<td {to}>{_escaped(shown.cell(run, name))}</td>" for name, to in styles.items()
            )
            for run in shown
        ]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        more = len(self) - len(shown)
        rest = f"<p>... and {more:,} more</p>" if more > 0 else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div style='overflow-x:auto'>{table}{rest}</div>"

    @staticmethod
    def cell(run: RunSummary, column: str) -> str:
        """Return what a table shows of a run: of a field, or of ``last.NAME``, ``config.KEY``."""
        root, _, rest = column.partition(".")
        value = run.look_up(root)
        if rest:
            value = (
                _leaves(value).get(rest, ABSENT) if root == "config" else value.get(rest, ABSENT)
            )
        return show_cell(column, value)

    def _columns(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {
            name: [_plain(getattr(run, name)) for run in self] for name in _COLUMNS
        }
        rows = [_leaves(run.config) for run in self]
        for key in self.config_keys():
            columns[f"config.{key}"] = _alike([row.get(key) for row in rows])
        for statistic in ("first", "last", "min", "max", "mean"):
            for name in self.metric_names():
                values = [
                    getattr(run.metrics[name], statistic) if name in run.metrics else None
                    for run in self
                ]
                columns[f"{statistic}.{name}"] = _alike(values)
        return columns

    def _compile(self, expression: str) -> Where:
        return compile_where(expression, ROOTS, known=self._known)

    def _odd(self, where: Where) -> list[str]:
        if not len(self):
            return []
        missing = where.missing(lambda: [*self._known(), *ROOTS])
        return [note for path, note in missing if len(path) > 1]  # one without an error is not odd


_COLUMNS = (
    *("run", "path", "name", "state", "error", "starts", "started", "ended", "duration_s"),
    *("step", "ranks", "host", "git", "bytes", "complete"),
)


def read_runs(
    directory: StrPath, *, complete: bool = False, stalled_after_s: float = STALLED_AFTER_S
) -> Runs:
    """Read all runs below a directory: what each is, how it ended, and what its metrics came to.

    What is known of runs that have ended is kept in the user's cache directory, until one of their
    files changes; runs that are running are read each time.

    Args:
        directory: Where to look, at any depth; it may be a run itself.
        complete: Also read each run to its end, to see if it is complete.
        stalled_after_s: A run that is running but recorded no metrics and no timings for so many
            seconds is stalled.

    Returns:
        The runs, those that started last first.

    Raises:
        ImportError: The extension is missing; the message says how to build it.
        RunNotFoundError: There is no such directory.
    """
    root = Path(directory)
    if not root.is_dir():
        raise RunNotFoundError(f"{root} is not a directory. Name one with runs in it.")
    kept = read_kept(root)
    now = time.time()
    keeps: Kept = {}
    runs = []
    unsearched: dict[str, str] = {}
    for found in find_all_runs(root, unsearched):
        entry = kept.get(found.name)
        summary = known_summary(entry, found, complete=complete)
        if summary is None:
            summary, settled = read_summary(
                found.path,
                found.name,
                idle_s=now - found.recorded if found.recorded else 0.0,
                stalled_after_s=stalled_after_s,
                complete=complete,
            )
            line = pack(summary) if settled and is_old(found, now) else None
            entry = None if line is None else (found.signature, line)
        if entry is not None:
            keeps[found.name] = entry
        # What was looked at before does not depend on what is asked for now.
        runs.append(summary if complete else replace(summary, complete=None))
    if keeps != kept:
        write_kept(root, keeps)
    return newest_first(runs, [f"{name} {why}" for name, why in unsearched.items()])


def newest_first(runs: Iterable[RunSummary], notes: Iterable[str] = ()) -> Runs:
    """Return runs in their usual order: those that started last first, and then by path."""
    by_path = sorted(runs, key=lambda run: run.run)
    return Runs(sorted(by_path, key=lambda run: run.started, reverse=True), notes)


def is_old(found: FoundRun, now: float) -> bool:
    """Whether a run cannot change without a new signature.

    What changes twice within a tick of the file system's clock looks the same.
    """
    return found.changed < now - TICK_S


def known_summary(
    entry: tuple[str, bytes] | None, found: FoundRun, *, complete: bool = False
) -> RunSummary | None:
    """Return what was kept of a run, if that is still so, and enough."""
    if entry is None or entry[0] != found.signature:
        return None
    try:
        summary = unpack(entry[1], found.path, found.name)
    except (KeyError, TypeError, ValueError):
        return None
    return summary if summary.complete is not None or not complete else None


def show_cell(column: str, value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return how a value is shown in a table."""
    if value is ABSENT:
        return "-"
    if column in ("started", "ended") and isinstance(value, str):
        return printable(value[:16].replace("T", " "))
    if column == "duration" and isinstance(value, (int, float)):
        return format_seconds(value)
    if column in ("run", "path", "name", "error") and isinstance(value, str):
        return printable(value)
    if isinstance(value, (list, dict)):
        return printable(_json(value), 24)
    if isinstance(value, Mapping):
        return printable(", ".join(value), 24)
    return format_value(value)


def _leaves(config: Any, prefix: str = "", depth: int = 0) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return nested settings by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value and depth < 8:
            found |= _leaves(value, f"{prefix}{key}.", depth + 1)
        else:
            found[f"{prefix}{key}"] = value
    return found


def _alike(values: list[Any]) -> list[Any]:
    """Return values of one type: as they are, or as texts."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 and not kinds & {list, dict}:
        return values
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values]
    return [value if value is None or isinstance(value, str) else _json(value) for value in values]


def _json(value: Any) -> str:  # noqa: ANN401 - any JSON
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError):
        return "(nested too deeply to be shown)"


def _plain(value: Any) -> Any:  # noqa: ANN401 - a field
    return str(value) if isinstance(value, Path) else value


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _missing(package: str) -> str:
    return f"{package} is not installed. Get it with: pip install 'foundry_fastlog[{package}]'"
