"""Runs that W&B's own client sends to a server: each row gets there once, whatever happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from oracle import OracleWriter, attempt, write_run_json
from sending import kill, send, start_sync, wait_for
from wandb_server import API_KEY, WandbServer, serve

from foundry_fastlog import read_run
from foundry_fastlog.base.environment import moment_of
from foundry_fastlog.importing.wandb_files import LastRow

pytest.importorskip("wandb")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    with serve() as found:
        settings = {
            "WANDB_BASE_URL": found.url,
            "WANDB_API_KEY": API_KEY,
            "WANDB_MODE": "online",
            "WANDB_SILENT": "true",
            # Instead of every 15 s, and after some.
            "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
            "WANDB__FILE_STREAM_RETRY_WAIT_MIN_SECONDS": "0.1",
            "WANDB__FILE_STREAM_RETRY_WAIT_MAX_SECONDS": "0.2",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield found


def test_starts_are_one_run_with_their_rows(server: WandbServer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_run_json(run, name="exp0", config={"lr": 0.1}, attempts=1)
    writer = OracleWriter(run, tick_s=1.0)
    for step in range(50):
        writer.metrics(step, loss=step / 2, note="é\n")
    send(run, "--to", "wandb", "--project", "gpt", "--rate", 1e6)
    attempt(run, 1, tick_s=1.0).fill(range(40, 60), loss=-1.0)
    send(run, "--to", "wandb", "--rate", 1e6)
    (served,) = server.runs.values()
    assert (served.project, served.name) == ("gpt", "exp0")
    assert served.config["lr"] == {"value": 0.1}
    assert (served.changed, served.exit_code) == (0, 0)
    assert [row["_step"] for row in served.rows] == list(range(70))
    steps = [*range(50), *range(40, 60)]
    losses = [*(step / 2 for step in range(50)), *[-1.0] * 20]
    assert [(row["step"], row["loss"]) for row in served.rows] == [*zip(steps, losses, strict=True)]
    assert served.rows[0]["note"] == "é\n"
    lines = [line for start in (0, 1) for line in read_run(run).lines("metrics", starts=start)]
    moments = [moment_of(line["timestamp"]) for line in lines]
    assert [row["_timestamp"] for row in served.rows] == pytest.approx(moments, abs=1e-5)


def noted(run: Path) -> int:
    """How many rows wandb has noted in its run files."""
    files = (run / ".sync").glob("wandb/run-*/*.wandb")
    return max((LastRow(file).look() + 1 for file in files), default=0)


def test_rows_are_there_once_after_kills(server: WandbServer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    writer = OracleWriter(run)
    total = 0
    for rows in (1, 500):
        writer.fill(range(total, total + 400), loss=1.0)
        total += 400
        process = start_sync(run, "--to", "wandb", "--follow", "--rate", 500)
        wait_for(lambda rows=rows: sum(len(one.rows) for one in server.runs.values()) >= rows)
        kill(process)
    send(run, "--to", "wandb", "--rate", 1e6)
    (served,) = server.runs.values()
    assert [row["step"] for row in served.rows] == list(range(total))
    assert served.changed == 0


def test_rows_that_wandb_had_noted_are_sent_after_it_was_killed_too(
    server: WandbServer, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    writer = OracleWriter(run)
    for total in (400, 800):
        server.failing = [503] * 10_000
        writer.fill(range(total - 400, total), loss=1.0, note="x")
        process = start_sync(run, "--to", "wandb", "--follow", "--rate", 1e6)
        wait_for(lambda total=total: noted(run) >= total - 100)
        kill(process, everything=True)
        server.failing = []
    send(run, "--to", "wandb", "--rate", 1e6)
    (served,) = server.runs.values()
    assert [row["step"] for row in served.rows] == list(range(800))
    assert {(row["loss"], row["note"]) for row in served.rows} == {(1.0, "x")}


def test_a_server_that_fails_for_a_while(server: WandbServer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    OracleWriter(run).fill(range(100), loss=1.0)
    server.failing = [500, 429, 503, 502]
    send(run, "--to", "wandb", "--rate", 1e6)
    (served,) = server.runs.values()
    assert not server.failing
    assert [row["step"] for row in served.rows] == list(range(100))


def test_rows_come_no_faster_than_was_asked(server: WandbServer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    OracleWriter(run).fill(range(1500), loss=1.0)
    send(run, "--to", "wandb", "--rate", 500)
    came = server.requests
    assert sum(count for _, count in came) == 1500
    # Of 500 at a time, the last come when those before had their time; the first may be late.
    assert came[-1][0] - came[0][0] > 0.8
    assert json.loads((run / ".sync" / "wandb.json").read_text())["rows"] == 1500
