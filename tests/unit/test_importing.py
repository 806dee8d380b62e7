"""Runs of other tools, taken over: what is read back is what these tools have stored."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from contract import VALIDATORS
from wandb_files import write_log

from foundry_fastlog import Recorder, Run, SourceError, import_runs, read_run, read_runs
from foundry_fastlog.base.environment import moment_of
from foundry_fastlog.importing import json_lines

Command = Any


def series(run: Run) -> dict[str, list[tuple[int, Any]]]:
    found: dict[str, list[tuple[int, Any]]] = {}
    for line in run.lines("metrics"):
        for name, value in line["metrics"].items():
            found.setdefault(name, []).append((line["step"], value))
    return found


def check(run: Run) -> None:
    """The run is complete, and each of its files is as the format says."""
    assert all(check.complete for check in run.check())
    assert run.problems == []
    VALIDATORS["run"].validate(json.loads((run.path / "run.json").read_text()))
    for path in (run.path / "starts").iterdir():
        VALIDATORS["end" if ".end." in path.name else "start"].validate(
            json.loads(path.read_text())
        )
    for path in run.path.glob("*.jsonl"):
        for raw in path.read_text().splitlines():
            VALIDATORS[path.name.partition(".")[0]].validate(json.loads(raw))


WANDB = """
import sys, wandb
run = wandb.init(project="p", name="mlp", id=sys.argv[1], config={"lr": 0.1, "data": {"name": "x"}},
                 tags=["t"], group="g", resume="allow" if len(sys.argv) > 2 else None)
for step in range(5):
    run.log({"loss": 1 / (step + 1), "nested": {"a": step}, "odd": float("nan")}, step=step)
run.log({"hist": wandb.Histogram([1, 2, 3]), "big": 2**70})
run.config.update({"later": 1})
print("hello from the script")
run.alert("Low", "too low", level="WARN")
if len(sys.argv) > 2:
    import os; os._exit(0) if sys.argv[2] == "die" else run.finish(exit_code=3)
run.finish()
"""


def run_wandb(folder: Path, *arguments: str) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment = {**kept, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        environment[name] = str(folder)
    command = [sys.executable, "-c", WANDB, *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=120)


def test_offline_runs_of_wandb(tmp_path: Path, command: Command) -> None:
    """Two sessions of one run are its starts."""
    pytest.importorskip("wandb")
    run_wandb(tmp_path, "abc")
    run_wandb(tmp_path, "abc", "fail")
    said = command("import", tmp_path / "wandb", "--to", tmp_path / "runs").out
    assert "2 starts" in said
    assert "2 x histogram" in said
    run = read_run(tmp_path / "runs" / "p" / "mlp-abc")
    check(run)
    found = series(run)
    losses = [(step, 1 / (step + 1)) for step in range(5)]
    assert found["loss"] == losses
    assert found["nested.a"] == [(step, step) for step in range(5)]
    assert all(math.isnan(value) for _, value in found["odd"])
    assert found["big"] == [(4, 2.0**70)] or found["big"] == [(5, 2.0**70)]
    first, second = run.report_starts()
    about = {"project": "p", "id": "abc", "tags": ["t"], "group": "g"}
    assert {key: first.config["_wandb"][key] for key in about} == about
    settings = {key: value for key, value in first.config.items() if key != "_wandb"}
    assert settings == {"lr": 0.1, "data": {"name": "x"}, "later": 1}
    assert (first.state, second.state, second.error) == ("closed", "exception", "SystemExit: 3")
    assert run.info["name"] == "mlp"
    messages = {line["message"]: line for line in run.lines("log")}
    assert messages["Low"]["level"] == "WARNING"
    assert messages["hello from the script"]["logger"] == "stdout"
    (line, *_) = run.lines("metrics")
    assert abs(moment_of(line["timestamp"]) - (tmp_path / "wandb").stat().st_mtime) < 600
    (summary,) = read_runs(tmp_path / "runs")
    assert (summary.state, summary.step) == ("failed", int(found["big"][0][0]))


def test_a_run_of_wandb_that_was_killed(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run_wandb(tmp_path, "abc", "die")
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    file.write_bytes(file.read_bytes()[:-3])  # the last record is cut off
    (found,) = import_runs(file, tmp_path / "runs")
    run = read_run(found.path)
    check(run)
    assert run.report_starts()[0].state in ("killed", "closed")  # its service may note the end
    file.write_bytes(file.read_bytes()[:2000])
    (found,) = import_runs(file, tmp_path / "cut")
    run = read_run(found.path)
    check(run)
    assert run.report_starts()[0].state == "killed"
    other = tmp_path / "other.wandb"
    other.write_bytes(b"no run")
    with pytest.raises(SourceError, match="no run file of wandb"):
        import_runs(other, tmp_path / "runs")


def test_directories_of_tensorboard(tmp_path: Path, command: Command) -> None:
    pytest.importorskip("tensorboard")
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    values = np.linspace(1, 2, 20)
    with tensorboard.SummaryWriter(str(tmp_path / "tb" / "a")) as writer:
        for step, value in enumerate(values):
            writer.add_scalar("loss", value, step, walltime=1e9 + step)
            writer.add_scalar("exact", value, step, new_style=True, double_precision=True)
        writer.add_text("note", "hello", 3)
        writer.add_histogram("weights", values, 1)
        writer.add_hparams({"lr": 0.1, "name": "x", "on": True}, {"best": 0.5}, run_name=".")
    with tensorboard.SummaryWriter(str(tmp_path / "tb" / "b")) as writer:
        writer.add_scalar("loss", math.nan, 7)
    said = json.loads(command("import", tmp_path / "tb", "--to", tmp_path / "runs", "--json").out)
    assert [Path(one["path"]).name for one in said["runs"]] == ["a", "b"]
    assert said["runs"][0]["left_out"] == {"histograms": 1}
    run = read_run(tmp_path / "runs" / "a")
    check(run)
    found = series(run)
    assert [value for _, value in found["loss"]] == np.float32(values).astype("f8").tolist()
    assert [step for step, _ in found["loss"]] == list(range(20))
    assert found["best"][0][1] == 0.5
    line = next(iter(run.lines("metrics")))
    assert line["timestamp"] == "2001-09-09T01:46:40.000000Z"
    configs = [start.config for start in run.report_starts()]
    assert {"lr": 0.1, "name": "x", "on": True} in configs
    (message,) = run.lines("log")
    assert (message["message"], message["step"], message["context"]) == (
        "hello",
        3,
        {"tag": "note"},
    )
    assert math.isnan(series(read_run(tmp_path / "runs" / "b"))["loss"][0][1])
    (file,) = (tmp_path / "tb" / "b").iterdir()
    (one,) = import_runs(file, tmp_path / "single", format="tensorboard")
    assert (one.path, one.lines) == (tmp_path / "single" / "b", {"metrics": 1})


def make_trackio(path: Path, key: bool = True) -> None:
    """A database as trackio 0.43 makes it (see its sqlite_storage.py); earlier ones had no ids."""
    ids = "run_id TEXT NOT NULL," if key else ""
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(
            f"""
            CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, {ids}
              timestamp TEXT NOT NULL, run_name TEXT NOT NULL, step INTEGER NOT NULL,
              metrics TEXT NOT NULL);
            CREATE TABLE configs (id INTEGER PRIMARY KEY AUTOINCREMENT, {ids}
              run_name TEXT NOT NULL, config TEXT NOT NULL, created_at TEXT NOT NULL);
            """
        )
        if key:
            database.executescript(
                """
                CREATE TABLE system_metrics (id INTEGER PRIMARY KEY AUTOINCREMENT,
                  run_id TEXT NOT NULL, timestamp TEXT NOT NULL, run_name TEXT NOT NULL,
                  metrics TEXT NOT NULL);
                CREATE TABLE alerts (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL,
                  timestamp TEXT NOT NULL, run_name TEXT NOT NULL, title TEXT NOT NULL, text TEXT,
                  level TEXT NOT NULL, step INTEGER);
                """
            )
        runs = [("1", "a"), ("2", "a"), ("3", "b")] if key else [("a", "a"), ("b", "b")]
        for run, name in runs:
            for step in range(3):
                values = {
                    "loss": step + 0.5,
                    "odd": "NaN",
                    "far": "-Infinity",
                    "x": {"_type": "image"},
                }
                moment = f"2026-01-01T00:00:0{step}+00:00"
                row = [run] if key else []
                database.execute(
                    f"INSERT INTO metrics VALUES (NULL, {'?,' if key else ''} ?, ?, ?, ?)",
                    [*row, moment, name, step, json.dumps(values)],
                )
            config = json.dumps({"lr": 0.1})
            database.execute(
                f"INSERT INTO configs VALUES (NULL, {'?,' if key else ''} ?, ?, ?)",
                [*row, name, config, "2026-01-01T00:00:00+00:00"],
            )
        if key:
            database.execute(
                "INSERT INTO system_metrics VALUES (NULL, '3', '2026-01-01T00:00:01', 'b', ?)",
                [json.dumps({"gpu/0/util": 7.0})],
            )
            for level, step in (("warn", 2), ("info", None)):
                database.execute(
                    "INSERT INTO alerts VALUES (NULL, '3', '2026-01-01T00:00:02', 'b', ?, ?, ?, ?)",
                    [f"title {level}", None, level, step],
                )


def test_projects_of_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_trackio(tmp_path / "project.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = import_runs("project", tmp_path / "runs")
    assert [one.path.name for one in found] == ["a-1", "a-2", "b"]
    assert found[0].left_out == {"image": 3}
    run = read_run(found[2].path)
    check(run)
    values = series(run)
    assert values["loss"] == [(0, 0.5), (1, 1.5), (2, 2.5)]
    assert values["far"][0] == (0, -math.inf)
    assert [line["timestamp"] for line in run.lines("metrics")][1] == "2026-01-01T00:00:01.000000Z"
    assert [line["system"] for line in run.lines("system")] == [{"gpu/0/util": 7.0}]
    said = [(line["level"], line.get("step"), line["message"]) for line in run.lines("log")]
    assert said == [("WARNING", 2, "title warn"), ("INFO", None, "title info")]
    assert run.report_starts()[0].config == {"lr": 0.1}
    make_trackio(tmp_path / "old.db", key=False)
    found = import_runs(tmp_path / "old.db", tmp_path / "olds")
    assert [one.path.name for one in found] == ["a", "b"]
    with closing(sqlite3.connect(tmp_path / "other.db")) as database, database:
        database.execute("CREATE TABLE x (y)")
    with pytest.raises(SourceError, match="has no table of metrics"):
        import_runs(tmp_path / "other.db", tmp_path / "runs")
    (tmp_path / "broken.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(SourceError, match="cannot be read"):
        import_runs(tmp_path / "broken.db", tmp_path / "runs")


def test_the_real_trackio(tmp_path: Path) -> None:
    """What trackio itself writes."""
    pytest.importorskip("trackio")
    code = (
        "import trackio; trackio.init(project='p', name='r', config={'lr': 1}); "
        "[trackio.log({'loss': n / 2, 'odd': float('inf')}) for n in range(4)]; trackio.finish()"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    (found,) = import_runs(tmp_path / "p.db", tmp_path / "runs")
    values = series(read_run(found.path))
    assert values["loss"] == [(n, n / 2) for n in range(4)]
    assert values["odd"][0][1] == math.inf


def test_files_of_json_lines(tmp_path: Path, command: Command) -> None:
    lines = [
        {"global_step": 0, "time": "2026-01-01T00:00:00Z", "loss": 1.5, "epoch": 0.5, "note": "x"},
        {"global_step": 1, "time": 1767225601, "loss": math.nan, "a": {"b": 2}, "l": [1]},
        {"global_step": 2, "time": 1767225602500, "loss": math.inf, "ok": True, "none": None},
        {"global_step": 2.5, "loss": 0},
        {"global_step": 3, "epoch": True, "big": 2**64, "huge": 10**400},
        {"global_step": 4},
    ]
    texts = [json.dumps(line) for line in lines]
    texts[3:3] = ["", "no json", "[1]"]
    source = tmp_path / "old run.jsonl"
    source.write_text("\n".join(texts))
    said = command("import", source, "--to", tmp_path / "runs").out
    assert "not taken over: 3 x line, 1 x list, 1 x line without a step" in " ".join(said.split())
    run = read_run(tmp_path / "runs" / "old-run")
    check(run)
    found = series(run)
    assert found["loss"][0] == (0, 1.5)
    assert math.isnan(found["loss"][1][1])
    assert found["loss"][2] == (2, math.inf)
    assert (found["a.b"], found["ok"], found["none"]) == ([(1, 2)], [(2, True)], [(2, None)])
    assert found["big"] == [(3, 2.0**64)]
    assert found["huge"][0][1] == str(10**400)
    written = list(run.lines("metrics"))
    assert [line.get("epoch") for line in written] == [0.5, None, None, None]
    assert [line["timestamp"][11:23] for line in written] == [
        *("00:00:00.000", "00:00:01.000", "00:00:02.500", "00:00:02.502")
    ]
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"v": 1, "when": "2026-01-01T00:00:00"}\n{"v": 2}\n')
    (one,) = import_runs(plain, tmp_path / "runs", time="when")
    assert series(read_run(one.path))["v"] == [(0, 1), (1, 2)]
    (two,) = import_runs(plain, tmp_path / "byv", step="v")
    assert [line["step"] for line in read_run(two.path).lines("metrics")] == [1]
    many = tmp_path / "many.jsonl"
    many.write_text("".join('{"x": 1, "time": "then", "ts": 1e400}\n' for _ in range(200)))
    (three,) = import_runs(many, tmp_path / "runs")
    run = read_run(three.path)
    check(run)
    assert three.lines == {"metrics": 200}
    assert series(run)["time"][0] == (0, "then")


def test_a_run_is_written_whole_or_not_at_all(tmp_path: Path, command: Command) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"step": 1, "x": 1}\n')
    assert "metrics" in command("import", source, "--to", tmp_path / "runs").out
    said = command("import", source, "--to", tmp_path / "runs", code=2).err
    assert "is there already" in said
    twin = tmp_path / "twin" / "a.jsonl"
    twin.parent.mkdir()
    twin.write_text('{"step": 1, "x": 1}\n')
    found = import_runs([source, twin], tmp_path / "both")
    assert [one.path.name for one in found] == ["a", "a-2"]
    (tmp_path / "empty.jsonl").write_text("\n")
    for wrong in (tmp_path / "none", tmp_path / "empty.jsonl", tmp_path / "twin"):
        with pytest.raises(SourceError):
            import_runs(wrong, tmp_path / "more")
    with pytest.raises(SourceError, match="nothing of wandb"):
        import_runs(twin, tmp_path / "more", format="wandb")
    with pytest.raises(ValueError, match="format"):
        import_runs(twin, tmp_path / "more", format="csv")
    assert not (tmp_path / "more").exists()
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"step": 1, "x": 1}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "flattened", Mock(side_effect=RuntimeError))
        with pytest.raises(RuntimeError):
            import_runs(broken, tmp_path / "runs")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["a"]


def test_surrogates_and_strange_times(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"step": 1, "x": "\\ud800", "time": 1e300}\n')
    (found,) = import_runs(source, tmp_path)
    check(read_run(found.path))
    assert series(read_run(found.path))["x"] == [(1, "\\ud800")]


def test_an_imported_run_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("".join(f'{{"step": {step}, "x": {step}}}\n' for step in range(10)))
    (found,) = import_runs(source, tmp_path)
    with Recorder(found.path, resume="must") as recorder:
        recorder.log({"x": -1.0})
    run = read_run(found.path)
    assert run.metric("x").values.tolist() == [*range(10), -1.0]
    latest = max(line["timestamp"] for line in read_run(found.path).lines("metrics", starts=0))
    assert moment_of(latest) <= source.stat().st_mtime
    assert len(run.starts) == 2


def test_long_records_and_settings_that_were_removed(tmp_path: Path) -> None:
    """Records of several blocks, and blocks that are padded."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2 as module

    proto: Any = module
    run = proto.Record()
    run.run.run_id = "r"
    for name in ("kept", "gone"):
        run.run.config.update.add(key=name, value_json="1")
    removed = proto.Record()
    removed.config.remove.add(key="gone")
    records = [run, removed]
    for step in range(200):
        record = proto.Record()
        record.history.step.num = step
        record.history.item.add(key="text", value_json=json.dumps("x" * (step * 1000)))
        records.append(record)
    empty = proto.Record()
    empty.history.step.num = 1
    figures = proto.Record()
    figures.stats.item.add(key="list", value_json="[1]")
    blank = proto.Record()
    blank.output_raw.line = " \n"
    filler = proto.Record()
    filler.history.step.num = 200
    item = filler.history.item.add(key="text", value_json='""')
    while True:  # the next record's head does not fit into the block
        write_log(tmp_path / "run-r.wandb", [*records, filler])
        if 32768 - (tmp_path / "run-r.wandb").stat().st_size % 32768 < 7:
            break
        room = 32768 - (tmp_path / "run-r.wandb").stat().st_size % 32768
        item.value_json = json.dumps("y" * (len(item.value_json) - 2 + max(1, room - 20)))
    records.append(filler)
    write_log(tmp_path / "run-r.wandb", [*records, empty, figures, blank])
    (found,) = import_runs(tmp_path / "run-r.wandb", tmp_path / "runs")
    opened = read_run(found.path)
    check(opened)
    lengths = [len(value) for _, value in series(opened)["text"]]
    assert lengths == [*(n * 1000 for n in range(200)), len(item.value_json) - 2]
    assert opened.report_starts()[0].config == {"kept": 1, "_wandb": {"id": "r"}}
    assert found.lines == {"metrics": 201}
    with (tmp_path / "run-r.wandb").open("ab") as file:
        file.write(bytes(100))  # room that was kept
    assert import_runs(tmp_path / "run-r.wandb", tmp_path / "more")[0].lines == {"metrics": 201}
