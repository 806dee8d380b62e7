"""Sends rows to a run of an MLflow server.

MLflow's database keeps each (name, step, time, value) once, so a row that is sent again after a
kill is not seen twice. Its old store of plain files does not, and would show it twice.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from foundry_fastlog.analysis.identity import config_of
from foundry_fastlog.base.extras import extra
from foundry_fastlog.reading.run import Run
from foundry_fastlog.sinks.sync_rows import Row, SyncError
from foundry_fastlog.sinks.wandb_values import flat

__all__ = ["MlflowTarget"]

# Of a call, which takes 1 MB: with the longest names, of which a character may be six bytes.
_MOST = 500  # values; MLflow takes 1000
_MOST_PARAMETERS = 20  # MLflow takes 100
_LONGEST = 250  # name
_LONGEST_VALUE = 6000  # of a parameter
_ODD = re.compile(r"[^\w\-. /]")  # what names must not have
_DOT = re.compile(r"^\.")
_TAG = "foundry_fastlog.sync"
_STATUS = {"ended": "FINISHED", "failed": "FAILED", "killed": "KILLED", "running": "RUNNING"}


class MlflowTarget:
    """A run of MLflow.

    Args:
        uri: The server's address. Default: ``MLFLOW_TRACKING_URI``.
        experiment: The experiment's name. Default: ``MLFLOW_EXPERIMENT_NAME``, or ``Default``.
    """

    rate: float | None = 200.0

    def __init__(self, uri: str | None = None, experiment: str | None = None) -> None:
        self._uri, self._experiment = uri, experiment

    def open(self, run: Run, known: dict[str, Any]) -> None:
        """Create a run, or go on with the one that is known."""
        with extra("mlflow", "mlflow"):
            import mlflow
        with _refusals():
            self._client: Any = mlflow.MlflowClient(self._uri)
            self._run_id = known.get("run_id") or self._find_or_create(mlflow, run, known["id"])
            known["run_id"] = self._run_id
            self._names = _Names(known.setdefault("names", {}))
            self._client.update_run(self._run_id, status="RUNNING")  # a later start goes on
            self._configure(run, _Names(known.setdefault("parameters", {})))

    def _find_or_create(self, mlflow: Any, run: Run, mark: str) -> str:  # noqa: ANN401 - the module
        """Return the run with a mark: it may have been made just before a kill."""
        experiment = self._experiment_id(mlflow)
        for found in self._client.search_runs([experiment], f"tags.`{_TAG}` = '{mark}'"):
            return str(found.info.run_id)
        name = str(run.info.get("name") or run.path.absolute().name)
        created = self._client.create_run(experiment, run_name=name, tags={_TAG: mark})
        return str(created.info.run_id)

    def _experiment_id(self, mlflow: Any) -> str:  # noqa: ANN401 - the module
        name = (
            self._experiment
            or mlflow.environment_variables.MLFLOW_EXPERIMENT_NAME.get()
            or "Default"
        )
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _configure(self, run: Run, names: _Names) -> None:
        """Send what the configuration says, once: parameters of MLflow cannot change."""
        from mlflow.entities import Param

        there = self._client.get_run(self._run_id).data.params
        settings = {names.of(name): value for name, value in flat(config_of(run)).items()}
        new = [
            Param(name, str(value)[:_LONGEST_VALUE])
            for name, value in settings.items()
            if name not in there
        ]
        for begin in range(0, len(new), _MOST_PARAMETERS):
            self._client.log_batch(self._run_id, params=new[begin : begin + _MOST_PARAMETERS])

    def send(self, rows: list[Row]) -> None:
        """Send rows."""
        from mlflow.entities import Metric

        found = []
        for row in rows:
            for name, value in row.values.items():
                if isinstance(value, (int, float)):  # a metric of MLflow is a number
                    key = self._names.of(f"{row.place}{name}")
                    found.append(Metric(key, float(value), round(row.time * 1e3), row.step or 0))
        with _refusals():
            for begin in range(0, len(found), _MOST):
                self._client.log_batch(self._run_id, metrics=found[begin : begin + _MOST])

    def confirmed(self, number: int) -> int:
        """Return `number`: a call that returns has stored them."""
        return number

    def close(self, state: str) -> None:
        """Say how the run ended."""
        if (status := _STATUS.get(state)) not in (None, "RUNNING"):
            # It says on standard output where the run is.
            with _refusals(), contextlib.redirect_stdout(sys.stderr):
                self._client.set_terminated(self._run_id, status=status)


class _Names:
    """The names that MLflow takes for those that were recorded, each one of its own.

    Args:
        known: Those that were given earlier; it receives the others.
    """

    def __init__(self, known: dict[str, str]) -> None:
        self._known = known
        self._taken = set(known.values())

    def of(self, name: str) -> str:
        """Return MLflow's name for one."""
        if name not in self._known:
            # They may become paths of files: no part is empty, or leads elsewhere.
            parts = [_DOT.sub("_", part) or "_" for part in _ODD.sub("_", name).split("/")]
            plain = found = "/".join(parts)[:_LONGEST].rstrip("/")
            number = 1
            while found in self._taken:
                number += 1
                found = f"{plain[: _LONGEST - 8]}_{number}"
            self._known[name] = found
            self._taken.add(found)
        return self._known[name]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Raise a `SyncError` where MLflow says no, and will at the next try; it may be away, too."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if (
            400 <= error.get_http_status_code() < 500
            and error.error_code != "REQUEST_LIMIT_EXCEEDED"
        ):
            raise SyncError(f"mlflow refuses it: {error}") from error
        raise
