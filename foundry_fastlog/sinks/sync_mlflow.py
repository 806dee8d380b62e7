"""Sends rows to a run of an MLflow server.

MLflow's database keeps each (name, step, time, value) once, so a row that is sent again after a
kill is not seen twice. Its old store of plain files does not, and would show it twice.
"""

from __future__ import annotations

import re
from typing import Any

from foundry_fastlog.analysis.identity import config_of
from foundry_fastlog.base.extras import extra
from foundry_fastlog.reading.run import Run
from foundry_fastlog.sinks.sync_rows import Row, SyncError
from foundry_fastlog.sinks.wandb_values import flat

__all__ = ["MlflowTarget"]

_MOST = 1000  # values of a call, which is MLflow's limit
_MOST_PARAMETERS = 100  # likewise
_ODD = re.compile(r"[^\w\-. /]")  # what names must not have
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
        try:
            self._client: Any = mlflow.MlflowClient(self._uri)
            if "run_id" not in known:
                experiment = self._experiment_id(mlflow)
                name = str(run.info.get("name") or run.path.absolute().name)
                created = self._client.create_run(experiment, run_name=name)
                known["run_id"] = created.info.run_id
            self._run_id = known["run_id"]
            self._configure(run, known)
        except Exception as error:
            raise SyncError(f"mlflow could not begin a run: {error}") from error

    def _experiment_id(self, mlflow: Any) -> str:  # noqa: ANN401 - the module
        name = (
            self._experiment
            or mlflow.environment_variables.MLFLOW_EXPERIMENT_NAME.get()
            or "Default"
        )
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _configure(self, run: Run, known: dict[str, Any]) -> None:
        """Send what the configuration says, once: parameters of MLflow cannot change."""
        from mlflow.entities import Param

        settings = flat(config_of(run))
        sent: list[str] = known.setdefault("parameters", [])
        new = [
            Param(_ODD.sub("_", name), str(one)[:6000])
            for name, one in settings.items()
            if name not in sent
        ]
        for begin in range(0, len(new), _MOST_PARAMETERS):
            self._client.log_batch(self._run_id, params=new[begin : begin + _MOST_PARAMETERS])
        sent += [name for name in settings if name not in sent]

    def send(self, rows: list[Row]) -> None:
        """Send rows."""
        from mlflow.entities import Metric

        found = []
        for row in rows:
            for name, value in row.values.items():
                if isinstance(value, (int, float)):  # a metric of MLflow is a number
                    key = _ODD.sub("_", f"{row.place}{name}")[:250]
                    found.append(Metric(key, float(value), round(row.time * 1e3), row.step or 0))
        for begin in range(0, len(found), _MOST):
            self._client.log_batch(self._run_id, metrics=found[begin : begin + _MOST])

    def confirmed(self, number: int) -> int:
        """Return all: the server answers once it has them."""
        return number

    def close(self, state: str) -> None:
        """Say how the run ended."""
        if (status := _STATUS.get(state)) not in (None, "RUNNING"):
            self._client.set_terminated(self._run_id, status=status)
