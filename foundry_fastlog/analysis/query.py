"""Query runs by SQL: DuckDB over their streams, of which only those are read that are named.

    >>> from foundry_fastlog import read_run                 # doctest: +SKIP
    >>> result = query_runs([read_run("runs/exp0")], "SELECT max(loss) FROM metrics")
    >>> result.names, list(result.rows())

The database is in memory and has no access to files and networks, so a query changes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from foundry_fastlog.base.extras import extra
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.files import STREAMS

if TYPE_CHECKING:  # an optional package
    import duckdb

__all__ = ["TABLES", "QueryError", "QueryResult", "query_runs"]

#: The tables of a query: the streams, and the starts of the runs.
TABLES = (*STREAMS, "starts")

_FETCHED = 1000  # rows at a time
_SETTINGS = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # Python's variables are no tables
}
_STARTS = {
    "start": "BIGINT",
    "state": "VARCHAR",
    "started": "VARCHAR",
    "ended": "VARCHAR",
    "error": "VARCHAR",
    "logging_s": "DOUBLE",
    "wall_s": "DOUBLE",
    "ranks": "BIGINT[]",
    "host": "VARCHAR",
    "git_hash": "VARCHAR",
    "config": "VARCHAR",
}


class QueryError(ValueError):
    """A query that DuckDB does not understand or cannot answer. The message is DuckDB's."""


class QueryResult:
    """The rows that a query gave.

    Args:
        connection: Holds the result.

    Attributes:
        names: The names of its columns.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.names: list[str] = []
        for name, *_ in connection.description or ():
            count = sum(one == name or one.startswith(f"{name}:") for one in self.names)
            self.names.append(f"{name}:{count}" if count else name)  # of a join

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows, once.

        Raises:
            QueryError: A row cannot be computed.
        """
        import duckdb

        try:
            while self.names and (found := self._connection.fetchmany(_FETCHED)):
                yield from found
        except duckdb.Error as error:
            raise QueryError(str(error)) from None


def query_runs(runs: Sequence[Run], sql: str, *, starts: Starts = "latest") -> QueryResult:
    """Query runs by SQL.

    Tables are ``metrics``, ``performance``, ``errors``, ``log`` and ``system``, with columns as
    ``Run.arrow`` has them, and ``starts``. Of several runs a table has the rows of all, with a
    column ``run`` before the others; a column that a run does not have is NULL in its rows.

    Args:
        runs: The runs, at least one.
        sql: A statement for DuckDB.
        starts: As for ``Run.lines``.

    Returns:
        The result.

    Raises:
        ImportError: DuckDB is not installed; the message says how to get it.
        QueryError: The statement is wrong. The message says where.
        ValueError: An unknown start.
    """
    with extra("query", "duckdb"):
        import duckdb

    connection = duckdb.connect(":memory:", config=dict(_SETTINGS))
    connection.execute("SET TimeZone = 'UTC'")
    names = _names(runs) if len(runs) > 1 else [""]
    for table in TABLES:
        # More than needed is read where it is only the name of a column, say.
        if re.search(rf"\b{table}\b", sql, re.IGNORECASE):
            parts = []
            for place, (run, name) in enumerate(zip(runs, names, strict=True)):
                part = f"__{table}_{place}"
                if table == "starts":
                    _add_starts(connection, part, run)
                else:
                    connection.register(part, run.arrow(table, starts=starts))
                parts.append(_select(connection, part, name))
            view = " UNION ALL BY NAME ".join(parts)
            connection.execute(f"CREATE VIEW {table} AS {view}")
    connection.execute("SET lock_configuration = true")
    try:
        if len(connection.extract_statements(sql)) != 1:
            raise QueryError("give one SQL statement; what others return would not be shown")
        connection.execute(sql)
    except duckdb.Error as error:
        raise QueryError(str(error)) from None
    return QueryResult(connection)


def _names(runs: Sequence[Run]) -> list[str]:
    """Return what the runs are called: their directories, as far as they differ."""
    paths = [os.path.abspath(run.path) for run in runs]  # noqa: PTH100 - links keep their names
    root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120 - text
    return [os.path.relpath(path, root) for path in paths]


def _select(connection: duckdb.DuckDBPyConnection, part: str, name: str) -> str:
    """Return what selects the rows of a run, with its name where there are several."""
    if not name:
        return f"SELECT * FROM {part}"  # noqa: S608 - a name made above
    columns = [row[0] for row in connection.execute(f"DESCRIBE {part}").fetchall()]
    taken = [column for column in columns if column.lower() == "run"]
    renamed = f' RENAME ("{taken[0]}" AS "metrics.{taken[0]}")' if taken else ""
    quoted = name.replace("'", "''").encode("utf-8", "backslashreplace").decode()
    return f"SELECT '{quoted}' AS run, *{renamed} FROM {part}"  # noqa: S608 - quoted


def _add_starts(connection: duckdb.DuckDBPyConnection, part: str, run: Run) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in _STARTS.items())
    connection.execute(f"CREATE TABLE {part} ({columns})")
    for report in run.report_starts():
        values = [
            *(report.number, report.state, report.started or None, report.ended or None),
            *(report.error or None, report.logging_s, report.wall_s, list(report.ranks)),
            *(_text(report.entry.get("host")), _text(report.entry.get("git_hash"))),
            orjson.dumps(report.config).decode(),
        ]
        marks = ", ".join("?" for _ in values)
        connection.execute(f"INSERT INTO {part} VALUES ({marks})", values)  # noqa: S608 - marks


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
