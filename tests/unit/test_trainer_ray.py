"""FastlogLoggerCallback records a run for each trial of Ray Tune."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from adapters import THEIR_WARNINGS, complete, ends, library, messages, points, starts
from recorded import run_python

from foundry_fastlog import read_run

library("ray.tune")
FastlogLoggerCallback = library("foundry_fastlog.integrations.ray").FastlogLoggerCallback

pytestmark = [THEIR_WARNINGS, pytest.mark.slow]

SWEEP = """
import json, sys, tempfile, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import ray
from ray import tune
from foundry_fastlog.integrations.ray import FastlogLoggerCallback

def train(config):
    for step in range(1, 11):
        if config["lr"] > 0.5 and step == 6:
            raise ValueError("bad batch")
        figures = {"loss": config["lr"] / step, "nested": {"acc": step}, "epoch": step // 5}
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "model").touch()
            saved = tune.Checkpoint.from_directory(folder) if step == 10 else None
            tune.report(figures, checkpoint=saved)

here = Path(sys.argv[1])
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
results = tune.Tuner(
    train,
    param_space={"lr": tune.grid_search([0.1, 0.9])},
    run_config=tune.RunConfig(
        name="sweep",
        storage_path=str(here / "ray"),
        callbacks=[FastlogLoggerCallback(here / "runs")],
        verbose=0,
    ),
).fit()
found = {}
for result in results:
    frame = result.metrics_dataframe
    columns = ["training_iteration", "loss", "nested/acc", "time_total_s"]
    found[result.metrics["trial_id"]] = {
        "lr": result.config["lr"],
        "rows": frame[columns].values.tolist(),
        "error": str(result.error),
    }
(here / "found.json").write_text(json.dumps(found))
ray.shutdown()
"""


def test_a_sweep(tmp_path: Path) -> None:
    """Equal values at equal iterations for each trial, one of which fails."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "RAY_TMPDIR": "/tmp"}
    run_python(SWEEP, tmp_path, environment=quiet, timeout=240)
    found = json.loads((tmp_path / "found.json").read_text())
    assert {path.name for path in (tmp_path / "runs").iterdir()} == set(found)
    for trial, known in found.items():
        run = tmp_path / "runs" / trial
        for column, name in enumerate(("loss", "nested.acc", "time_total_s"), 1):
            wanted = [(int(row[0]), row[column]) for row in known["rows"]]
            assert points(run, name) == wanted, name
        (start,) = starts(run)
        assert start["config"] == {"lr": known["lr"]}
        assert complete(run)
        if known["lr"] > 0.5:
            assert len(points(run, "loss")) == 5
            assert [how for how, _ in ends(run)] == ["exception"]
            (line,) = read_run(run).lines("errors")
            assert "bad batch" in line["error_message"] + line["traceback"]
            assert line["step"] == 5
        else:
            assert ends(run) == [("closed", None)]
            assert messages(run) == [("Checkpoint saved", 10)]


def trial() -> Any:
    return SimpleNamespace(
        trial_id="t1", config={"lr": 1}, checkpoint=None, pickled_error_file=None
    )


def test_a_trial_that_is_restored(tmp_path: Path) -> None:
    """In this process, iterations that it runs again replace the old ones; later, a new start."""
    callback = FastlogLoggerCallback(tmp_path)
    one = trial()
    callback.log_trial_save(one)
    callback.log_trial_end(one)
    for iteration in (1, 2, 3, 4, 3, 4):
        callback.log_trial_start(one)
        callback.log_trial_result(1, one, {"training_iteration": iteration, "x": 1, "pid": 4711})
    assert vars(pickle.loads(pickle.dumps(callback)))["_adapters"] == {}
    callback.log_trial_end(one, failed=True)
    run = tmp_path / "t1"
    assert [step for step, _ in points(run, "x")] == [1, 2, 3, 4]
    callback.log_trial_result(1, one, {"training_iteration": 3, "x": 1})
    callback.log_trial_end(one)
    assert [step for step, _ in points(run, "x")] == [1, 2, 3]
    assert ends(run) == [("exception", "RuntimeError"), ("closed", None)]
    assert "pid" not in read_run(run).names("metrics")


def test_an_unwritable_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Trials go on; a directory that is none is refused before."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="choose another path"):
        FastlogLoggerCallback(tmp_path / "file")
    with caplog.at_level(logging.WARNING, "foundry_fastlog"):
        callback = FastlogLoggerCallback("/proc/no", close_timeout_s=0.1)
        callback.log_trial_result(1, trial(), {"training_iteration": 1, "x": 1})
    assert len([one for one in caplog.records if one.name == "foundry_fastlog"]) == 1
    callback.log_trial_end(trial())
