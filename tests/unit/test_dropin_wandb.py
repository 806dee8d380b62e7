"""wandb's interface, recording into runs: what scripts do with it besides log()."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from foundry_fastlog import Run, read_run, read_runs
from foundry_fastlog.integrations import wandb, wandb_run

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: Patch) -> Iterator[None]:
    """No settings of the user's; and no run is left open."""
    for name in ("PROJECT", "NAME", "RUN_ID", "MODE", "RESUME", "DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wandb_run, "_notices", wandb_run.Notices())
    yield
    wandb.finish()


def only(folder: Path) -> Run:
    (summary,) = read_runs(folder)
    return read_run(summary.path)


def lines(run: Run) -> list[tuple[int, dict[str, Any]]]:
    return [(line["step"], line["metrics"]) for line in run.lines("metrics")]


def test_steps_go_on_as_wandbs_do(tmp_path: Path) -> None:
    with wandb.init(project="p", id="r") as run:
        assert (run.step, run.path, run.resumed) == (0, "p/r", False)
        run.log({"a": 1})
        run.log({"a": 2}, commit=False)
        run.log({"b": 2})
        run.log({"a": 5}, step=5)
        run.log({"b": 5})
        run.log({"a": 9}, step=9, commit=True)
        assert run.step == 10
        run.log({"a": 10})
    found = lines(read_run(tmp_path / "runs" / "p" / "r"))
    assert [step for step, _ in found] == [0, 1, 1, 5, 5, 9, 10]
    assert wandb.run is None
    with wandb.init(project="p", id="r", resume="must") as run:
        assert (run.step, run.starting_step, run.resumed) == (11, 11, True)


def test_a_step_that_goes_back_is_recorded_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = wandb.init(project="p", id="r")
    run.log({"a": 1.0}, step=5)
    run.log({"a": 2.0}, step=3)
    run.log({"a": 3.0}, step=2)
    run.log(["no", "dict"])
    run.log({"a": 4.0})
    wandb.finish()
    assert lines(only(tmp_path)) == [(5, {"a": 1}), (3, {"a": 2}), (2, {"a": 3}), (5, {"a": 4})]
    assert caplog.text.count("wandb would drop it") == 1
    assert "takes a dict of values, got list" in caplog.text


def test_what_is_no_scalar_is_kept_by_name_and_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = wandb.Table(columns=["a", "b"], data=[[1, 2]])
    table.add_data(3, 4)
    table.add_column("c", [5, 6])
    frame = SimpleNamespace(columns=["x"], to_numpy=lambda: np.ones((2, 1)))
    empty = wandb.Table()
    empty.add_column("only", [1])
    values = {
        "image": wandb.Image(np.zeros((4, 5, 3)), caption="x"),
        "file": wandb.Image("picture.png"),
        "table": table,
        "frame": wandb.Table(dataframe=frame),
        "empty": empty,
        "plot": wandb.plot.line(table, "a", "b"),
        "list": [1, 2, 3],
        "array": np.zeros((2, 3)),
        "bad": Mock(shape=(1, "x")),
        "worse": Mock(shape=(2, "x")),
        "one": np.ones((1, 1)),
        "text": "words",
        "when": datetime(2026, 1, 1),  # noqa: DTZ001 - any
        "nested": {"media": wandb.Html("<b>"), "loss": 1.0},
    }
    with wandb.init(project="p") as run:
        for _ in range(2):
            run.log(values)
    (_, found), (_, again) = lines(only(tmp_path))
    assert found == again
    kept = {
        "image": "Image of 4x5x3",
        "file": "Image",
        "table": "Table of 2 rows: a, b, c",
        "frame": "Table of 2 rows: x",
        "empty": "Table of 1 rows: Input, Output, Expected, only",
        "plot": "line",
        "list": "list of 3",
        "array": "ndarray of 2x3",
        "nested.media": "Html",
    }
    assert {name: found[name] for name in kept} == kept
    assert (found["one"], found["text"], found["nested.loss"]) == (1.0, "words", 1.0)
    assert found["when"] is None  # left out, as any other odd value
    assert all(caplog.text.count(f"of '{name}' only its class") == 1 for name in kept)


def test_configuration_and_summary(tmp_path: Path) -> None:
    config = SimpleNamespace(lr=0.1, seed=3, secret="x")
    run = wandb.init(project="p", config=config, config_exclude_keys=["secret"], tags=["a"])
    assert dict(wandb.config) == {"lr": 0.1, "seed": 3}
    wandb.config.lr = 0.2
    wandb.config["new"] = [1]
    wandb.config.update({"more": 1}, allow_val_change=True)
    wandb.config.update()
    wandb.config.setdefaults({"lr": 9, "last": 1})
    wandb.config.persist()
    assert (wandb.config.lr, wandb.config["new"], len(wandb.config)) == (0.2, [1], 5)
    assert wandb.config.get("none") is None
    assert wandb.config.as_dict() == eval(repr(wandb.config))
    with pytest.raises(AttributeError, match="no 'absent'"):
        _ = wandb.config.absent
    with pytest.raises(TypeError, match="recorded already"):
        del wandb.config["lr"]
    run.log({"loss": 3.0})
    assert wandb.summary["loss"] == 3.0
    wandb.summary["best"] = 1.0
    wandb.summary.update({"by": {"class": 2.0}}, late=np.zeros(3))
    assert wandb.summary.best == 1.0
    wandb.finish()
    found = only(tmp_path)
    about = {"project": "p", "id": run.id, "tags": ["a"]}
    settings = {"lr": 0.2, "seed": 3, "new": [1], "more": 1, "last": 1}
    assert found.report_starts()[-1].config == {**settings, "_wandb": about}
    values = {name: value for _, metrics in lines(found) for name, value in metrics.items()}
    expected = {"loss": 3.0, "summary.best": 1.0, "summary.by.class": 2.0}
    assert values == {**expected, "summary.late": "ndarray of 3"}
    with wandb.init(config={"a": 1, "b": 2}, config_include_keys=["a"], mode="disabled") as run:
        assert dict(run.config) == {"a": 1}


def test_messages_artifacts_and_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = wandb.init(project="p", entity="team", group="g", job_type="train", notes="n")
    assert (run.entity, run.group, run.job_type, run.notes) == ("team", "g", "train", "n")
    run.log({"loss": 1.0})
    metric = wandb.define_metric("val", step_metric=wandb.define_metric("epoch"), summary="min")
    assert (metric.name, metric.step_metric) == ("val", "epoch")
    wandb.alert("Low", "too low", wandb.AlertLevel.WARN)
    wandb.alert("Odd", level="loud")
    artifact = wandb.Artifact("model", type="model", metadata={"k": 1})
    artifact.add_file("a.pt")
    artifact.add_dir("folder", name="data")
    artifact.add_reference("s3://x")
    artifact.add(3, "three")
    with artifact.new_file("notes.txt") as handle:
        handle.write("x")
    assert wandb.log_artifact(artifact).wait() is artifact
    assert run.log_model("b.pt", name="b").files == ["b.pt"]
    assert wandb.use_artifact(artifact) is artifact
    with pytest.raises(wandb.Error, match="cannot be fetched"):
        wandb.use_artifact("team/model:latest")
    assert wandb.save("*.pt") == []
    wandb.watch(None)
    wandb.watch(None, log="all")
    wandb.unwatch()
    (Path(run.dir) / "own.txt").write_text("x")
    wandb.finish(exit_code=3)
    wandb.finish()
    run.finish()
    found = only(tmp_path)
    said = {line["message"]: line for line in found.lines("log")}
    assert said["Low"]["level"] == "WARNING"
    assert said["Odd"]["level"] == "INFO"
    assert said["Metric defined"]["context"] == {
        "name": "val",
        "step_metric": "epoch",
        "summary": "min",
    }
    (model, other) = (line for line in found.lines("log") if line["message"] == "Artifact")
    assert model["context"]["files"] == [
        *("a.pt", "data (folder)", "s3://x", "three (3)", "notes.txt (not kept)")
    ]
    assert other["context"]["files"] == ["b.pt"]
    assert caplog.text.count("wandb.watch is not recorded") == 1
    assert caplog.text.count("files stay where they are") == 2
    start = found.report_starts()[-1]
    assert (start.state, start.error) == ("exception", "SystemExit: 3")


def test_one_run_is_open_at_a_time(tmp_path: Path, monkeypatch: Patch) -> None:
    with pytest.raises(wandb.UsageError, match="You must call"):
        wandb.log({"a": 1})
    with pytest.raises(wandb.UsageError, match="config"):
        _ = wandb.config
    assert wandb.login()
    assert wandb.setup() is None
    first = wandb.init(project="p", name="a/b ../c")
    assert wandb.init() is first is wandb.run
    second = wandb.init(project="../up", reinit=True)
    assert second is not first
    third = wandb.init(project="p", reinit="create_new", name="third")
    assert third is wandb.run
    second.log({"a": 1.0})
    second.finish()
    assert wandb.run is third
    wandb.finish()
    names = sorted(run.run.rsplit("-", 1)[0] for run in read_runs(tmp_path))
    assert names[0] == "runs/p/a-b-..-c"
    assert names[1] == "runs/p/third"
    assert names[2].startswith("runs/up/run-2")
    with pytest.raises(FileNotFoundError):
        wandb.init(project="p", id="none", resume="must")
    with pytest.raises(ValueError, match="resume must be"):
        wandb.init(resume="sometimes")
    for name, value in (("DIR", "elsewhere"), ("PROJECT", "q"), ("NAME", "n"), ("RUN_ID", "i")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_RESUME", "never")
    with wandb.init() as run:
        run.log({"a": 1})
    with pytest.raises(FileExistsError):
        wandb.init()
    assert read_run(tmp_path / "elsewhere" / "q" / "i").info["name"] == "n"


def test_a_disabled_run_records_nothing(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with wandb.init(project="p", config={"a": 1}) as run:
        assert run.disabled
        run.log({"a": 1})
        run.config.update({"a": 2})
        run.summary["x"] = 1
        run.alert("title")
        assert run.config.a == 2
        assert run.dir
    assert list(tmp_path.iterdir()) == []


def test_an_exception_is_how_a_run_ended(tmp_path: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), wandb.init(project="p") as run:
        run.log({"a": Decimal(1)})
        _ = 1 / 0
    assert only(tmp_path).report_starts()[-1].error == "ZeroDivisionError: division by zero"


def test_what_is_not_there_says_so(monkeypatch: Patch) -> None:
    with pytest.raises(AttributeError, match="Use wandb itself"):
        _ = wandb.sweep
    with pytest.raises(AttributeError):
        _ = wandb.plot.__wrapped__
    assert str(wandb.Video()) == "Video"
    assert wandb.Settings(console="off").console == "off"
    assert len(wandb.util.generate_id()) == 8
    monkeypatch.setattr(wandb_run, "SystemMetrics", Mock(side_effect=ImportError("psutil")))
    with wandb.init(project="p") as run:
        assert run._system is None
