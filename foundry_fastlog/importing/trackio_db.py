"""Reads projects of trackio: a database of SQLite with all runs of a project."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from foundry_fastlog.base.environment import moment_of
from foundry_fastlog.importing.session import Line, Session, SourceError, flattened

__all__ = ["find_database", "read_database"]

_ODD = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}
_LEVELS = {"warn": "WARNING", "error": "ERROR"}
_CONFIGS = "SELECT {key}, run_name, config, created_at FROM configs"
_METRICS = "SELECT timestamp, step, metrics FROM metrics WHERE {key} = ? ORDER BY id"
_SYSTEM = "SELECT timestamp, metrics FROM system_metrics WHERE {key} = ? ORDER BY id"
_ALERTS = "SELECT timestamp, step, level, title, text FROM alerts WHERE {key} = ? ORDER BY id"


def find_database(source: Path) -> Path | None:
    """Return the database that a path is, or that a project's name stands for; None for others."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    folder = Path(os.environ.get("TRACKIO_DIR") or Path(home, "trackio"))
    for path in (source, source.with_name(f"{source.name}.db"), folder / f"{source}.db"):
        if path.is_file() and path.suffix == ".db":
            return path
    return None


def read_database(path: Path) -> list[Session]:
    """Read the runs of a project.

    Raises:
        SourceError: It is no database of trackio.
    """
    try:
        with closing(_connect(path)) as database:
            columns = {row[1] for row in database.execute("PRAGMA table_info(metrics)")}
            if not {"run_name", "step", "metrics"} <= columns:
                raise SourceError(f"{path} is no database of trackio: it has no table of metrics")
            # Earlier versions had names alone.
            key = "run_id" if "run_id" in columns else "run_name"
            query = f"SELECT {key}, run_name FROM metrics GROUP BY {key} ORDER BY min(id)"  # noqa: S608 - of two names
            runs = database.execute(query).fetchall()
            configs = _configs(database, key)
    except sqlite3.Error as error:
        raise SourceError(f"{path} cannot be read: {error}") from None
    names = [name for _, name in runs]
    found = []
    for run_id, name in runs:
        own = name if names.count(name) == 1 else f"{name}-{run_id}"
        session = Session(name=name, key=f"{path}/{run_id}", lines=iter(()), directory=own)
        session.config, session.started = configs.get(run_id, ({}, None))
        session.lines = _lines(path, key, run_id, session)
        found.append(session)
    return found


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _configs(
    database: sqlite3.Connection, key: str
) -> dict[str, tuple[dict[str, Any], float | None]]:
    found: dict[str, tuple[dict[str, Any], float | None]] = {}
    if _has(database, "configs"):
        for run, _, config, created in database.execute(_CONFIGS.format(key=key)):
            found[run] = _values(config), moment_of(created)
    return found


def _has(database: sqlite3.Connection, table: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return database.execute(query, (table,)).fetchone() is not None


def _lines(path: Path, key: str, run: str, session: Session) -> Iterator[Line]:
    left_out = session.left_out
    with closing(_connect(path)) as database:
        for timestamp, step, text in database.execute(_METRICS.format(key=key), (run,)):
            metrics = flattened(_values(text), left_out)
            if metrics:
                yield Line("metrics", moment_of(timestamp), {"step": step, "metrics": metrics})
        if _has(database, "system_metrics"):
            for timestamp, text in database.execute(_SYSTEM.format(key=key), (run,)):
                figures = flattened(_values(text), left_out)
                yield Line("system", moment_of(timestamp), {"system": figures})
        if _has(database, "alerts"):
            for timestamp, step, level, title, text in database.execute(
                _ALERTS.format(key=key), (run,)
            ):
                fields = {"level": _LEVELS.get(level, "INFO"), "logger": "trackio"}
                fields |= {} if step is None else {"step": step}
                said = {"message": title, "context": {"text": text or ""}}
                yield Line("log", moment_of(timestamp), {**fields, **said})


def _values(text: str) -> dict[str, Any]:
    """Return values; NaN and infinities are texts in the database."""
    found = orjson.loads(text)
    return {
        name: _ODD.get(value, value) if isinstance(value, str) else value
        for name, value in (found.items() if isinstance(found, dict) else ())
    }
