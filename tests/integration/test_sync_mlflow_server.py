"""Runs that are sent to MLflow's own server: each row gets there once, whatever happens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_server import MlflowServer, serve
from oracle import OracleWriter, attempt, write_run_json
from sending import kill, start_sync, wait_for

from foundry_fastlog import Recorder, SyncError, sync_run

mlflow = pytest.importorskip("mlflow")
for needed in ("uvicorn", "flask", "aiohttp", "graphene"):
    pytest.importorskip(needed)

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of its own packages
    pytest.mark.timeout(600),  # the server imports half a gigabyte, twice
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with serve(tmp_path_factory.mktemp("mlflow")) as found:
        yield found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client tells of a server that is away at once, not after minutes."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def sent(server: MlflowServer, run: Path, metric: str) -> list[tuple[int, float]]:
    """Steps and values of a metric of a run, of which there must be one."""
    client = mlflow.MlflowClient(server.url)
    experiment = client.get_experiment_by_name(run.parent.name)
    (found,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(found.info.run_id, metric)
    return [(one.step, one.value) for one in history]


def state_of(run: Path) -> dict[str, Any]:
    """What is noted of a run."""
    return dict(json.loads((run / ".sync" / "mlflow.json").read_text()))


def send(server: MlflowServer, run: Path, **options: Any) -> Any:
    return sync_run(run, "mlflow", uri=server.url, experiment=run.parent.name, rate=1e6, **options)


def test_starts_are_one_run_with_their_rows(
    server: MlflowServer, tmp_path: Path, command: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    write_run_json(run, name="exp0", config={"lr": 0.1}, attempts=1)
    writer = OracleWriter(run, tick_s=1.0)
    for step in range(1200):  # more than go into a call
        writer.metrics(step, loss=step / 2, odd=math.nan if step else math.inf)
    arguments = ("--to", "mlflow", "--uri", server.url, "--experiment", tmp_path.name)
    said = json.loads(command("sync", run, *arguments, "--rate", 1e6, "--json").out)
    client = mlflow.MlflowClient(server.url)
    found = client.get_run(said["known"]["run_id"])
    assert (found.info.run_name, found.info.status) == ("exp0", "FINISHED")
    assert found.data.params == {"lr": "0.1"}
    attempt(run, 1, tick_s=1.0).fill(range(1190, 1210), loss=-1.0)
    assert send(server, run).sent == 20
    steps = [*range(1200), *range(1190, 1210)]
    values = [*(step / 2 for step in range(1200)), *[-1.0] * 20]
    assert sent(server, run, "loss") == [*zip(steps, values, strict=True)]
    odd = [value for _, value in sent(server, run, "odd")]
    assert odd[0] > 1e308  # MLflow has no infinity
    assert all(math.isnan(value) for value in odd[1:])


def test_names_that_mlflow_refuses(server: MlflowServer, tmp_path: Path) -> None:
    """Each metric and each setting gets a name of its own, the same at each call."""
    run = tmp_path / "run"
    names = ["", "/a", "a/", "a//b", "..", "../x", ".", "a(b)", "a[b]", "a_b_", "x" * 300, "é\n"]
    config = {name: place for place, name in enumerate(names)}
    with Recorder(run, config=config) as recorder:
        for step in range(2):
            recorder.record_dict(step, {name: float(place) for name, place in config.items()})
    found = send(server, run)
    client = mlflow.MlflowClient(server.url)
    data = client.get_run(found.known["run_id"]).data
    assert sorted(data.metrics.values()) == [float(place) for place in range(len(names))]
    assert sorted(data.params.values(), key=int) == [str(place) for place in range(len(names))]
    with Recorder(run, config=config, resume="must") as recorder:
        recorder.record_dict(2, dict.fromkeys(reversed(names), -1.0))
    send(server, run)
    data = client.get_run(found.known["run_id"]).data
    assert set(data.metrics.values()) == {-1.0}
    assert len(data.metrics) == len(names)


def test_a_server_that_goes_away_and_comes_back(server: MlflowServer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Recorder(run) as recorder:
        for step in range(2000):
            recorder.record(step, loss=float(step))
        assert recorder.flush()
        process = start_sync(
            *(run, "--to", "mlflow", "--follow", "--rate", 1e6),
            *("--uri", server.url, "--experiment", tmp_path.name),
        )
        said = run.with_name("run.out")
        wait_for((run / ".sync" / "mlflow.json").exists)
        wait_for(lambda: state_of(run)["rows"] == 2000)
        server.stop()
        for step in range(2000, 4000):
            recorder.record(step, loss=float(step))
        wait_for(lambda: "trying again" in said.read_text())
        server.start()
    assert process.wait(200) == 0, said.read_text()
    assert sent(server, run, "loss") == [(step, float(step)) for step in range(4000)]


def test_senders_are_killed_at_any_time(server: MlflowServer, tmp_path: Path) -> None:
    """Also between the making of a run and the note of it: there is one run, with each row once."""
    run = tmp_path / "run"
    writer = OracleWriter(run)
    arguments = ("--uri", server.url, "--experiment", tmp_path.name)
    client = mlflow.MlflowClient(server.url)
    experiment = client.create_experiment(tmp_path.name)
    total = 0
    for rows in (-1, 0, 300, 900):
        for _ in range(400):
            writer.metrics(total, loss=float(total))
            total += 1
        process = start_sync(run, "--to", "mlflow", "--follow", "--rate", 2000, *arguments)
        if rows < 0:  # the run is made, and nobody has noted which it is
            wait_for(lambda: client.search_runs([experiment]))
        else:
            wait_for(lambda rows=rows: state_of(run)["rows"] > rows)
        kill(process)
    send(server, run)
    assert sent(server, run, "loss") == [(step, float(step)) for step in range(total)]


def test_a_run_that_was_deleted_is_no_server_that_is_away(
    server: MlflowServer, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    writer = OracleWriter(run).fill(range(3), loss=1.0)
    found = send(server, run)
    mlflow.MlflowClient(server.url).delete_run(found.known["run_id"])
    writer.fill(range(3, 6), loss=1.0)
    with pytest.raises(SyncError, match="mlflow refuses it"):
        send(server, run, follow=True)
