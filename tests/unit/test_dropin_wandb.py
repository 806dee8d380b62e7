"""wandb's interface, recording into runs: what scripts do with it besides log()."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from foundry_fastlog import Run, read_run, read_runs
from foundry_fastlog.integrations import wandb, wandb_run, wandb_types

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


class Unreadable(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise RuntimeError("not now")


class Figure:
    savefig = print


def only(folder: Path) -> Run:
    (summary,) = read_runs(folder)
    return read_run(summary.path)


def lines(run: Run) -> list[tuple[int, dict[str, Any]]]:
    return [(line["step"], line["metrics"]) for line in run.lines("metrics")]


def test_what_wandb_notes_of_a_run_is_no_column(tmp_path: Path) -> None:
    for lr in (1, 2):
        with wandb.init(project="p", group=f"g{lr}", config={"lr": lr}) as run:
            run.log({"loss": 1.0})
    runs = read_runs(tmp_path)
    assert runs.differing_keys() == ["lr"]
    assert {"_wandb.id", "_wandb.group"} <= set(runs.config_keys())
    assert len(runs.where("config._wandb.group == 'g2'")) == 1


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
        "figure": Figure(),
        "unreadable": Unreadable(a=1),
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
        "figure": "Figure",
        "unreadable": "Unreadable",
    }
    assert {name: found[name] for name in kept} == kept
    assert (found["one"], found["text"], found["nested.loss"]) == (1.0, "words", 1.0)
    assert found["when"] == "2026-01-01T00:00:00"  # as wandb stores it
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
        (Path(run.dir) / "model.pt").touch()
        assert run.dir == run.dir
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


def test_values_are_those_that_wandb_stores(tmp_path: Path) -> None:
    """Where a recorder has no number for them: see what wandb's own files have."""
    inside: dict[str, Any] = {}
    inside["itself"] = inside
    with wandb.init(project="p") as run:
        run.log({"big": 2**70, "bigger": 10**400, "decimal": Decimal("1.5"), "path": Path("a/b")})
        run.log({"kind": Enum("Kind", "A").A, "complex": 1j})  # type: ignore[attr-defined]
        run.log({"loop": inside})
    (_, first), (_, second), (_, third) = lines(only(tmp_path))
    assert first.pop("bigger").startswith("1000")
    assert first == {"big": float(2**70), "decimal": "1.5", "path": "a/b"}
    assert second == {"kind": 1, "complex": "1j"}
    assert list(third.values()) == ["dict"]


def test_what_a_run_is_called_may_change(tmp_path: Path) -> None:
    """As `wandb.run.name = ...` does: the configuration has the latest."""
    run = wandb.init(project="p", name="old", tags="one", group="g", config={"lr": 1})
    run.name = "new"
    run.tags += ("two",)
    run.tags = "three"
    run.notes = "later"
    assert (run.name, run.tags, run.notes) == ("new", ("three",), "later")
    assert (run.get_url(), run.project_name(), run.to_html()) == (None, "p", "")
    assert run.status().sync_items_pending == 0
    assert run.start_time > 0
    wandb.finish()
    about = {"name": "new", "tags": ["three"], "notes": "later", "group": "g"}
    found = only(tmp_path).report_starts()[-1].config
    assert found == {"lr": 1, "_wandb": {"project": "p", "id": run.id, **about}}


def test_a_summary_is_what_define_metric_asks_for() -> None:
    run = wandb.init(project="p")
    run.define_metric("val/*", summary="min,max,mean,first,last,best")
    run.define_metric("hidden", summary="none")
    for value in (3.0, 1.0, float("nan"), 2.0):
        run.log({"val/loss": value, "hidden": 1, "epoch": np.float64(value), "val/name": "x"})
    known = {"min": 1, "max": 3, "mean": 2, "first": 3, "last": 2, "best": 1}
    assert run.summary["val/loss"] == known
    assert (run.summary["epoch"], run.summary["val/name"]) == (2.0, "x")
    assert "hidden" not in run.summary
    del run.summary["epoch"]
    assert "epoch" not in run.summary


def test_a_summary_keeps_no_graph() -> None:
    """A tensor in it would hold all activations of its step."""
    torch = pytest.importorskip("torch")
    run = wandb.init(project="p")
    run.log({"loss": torch.ones(1, requires_grad=True).sum(), "by": {"a": torch.ones(())}})
    assert (run.summary["loss"], run.summary["by"]) == (1.0, {"a": 1.0})
    run.log({"loss": Mock(detach=lambda: SimpleNamespace(device="cuda"), shape=())})
    assert run.summary["loss"].device == "cuda"


def test_what_comes_after_the_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = wandb.init(project="p", id="r")
    run.log({"a": 1})
    run.finish()
    for _ in range(2):
        run.log({"a": 2})
        run.summary["x"] = 1
        run.config.update({"x": 1})
        run.alert("late")
        run.name = "late"
    assert lines(only(tmp_path)) == [(0, {"a": 1})]
    assert caplog.text.count("run r is finished") == 1
    assert run.step == 1


def test_threads_have_steps_of_their_own(tmp_path: Path) -> None:
    run = wandb.init(project="p")

    def log(name: str) -> None:
        for value in range(200):
            run.log({name: value})

    threads = [Thread(target=log, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wandb.finish()
    assert sorted(step for step, _ in lines(only(tmp_path))) == list(range(800))


def test_arguments_of_init(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is without effect here is told, and a file may be the configuration."""
    file = tmp_path / "settings.yaml"
    file.write_text("wandb_version: 1\nlr:\n  desc: rate\n  value: 0.1\nbatch: {size: 3}\n")
    with wandb.init(project=1, name=2, id=3, config=str(file), sync_tensorboard=True) as run:
        assert (run.project, run.name, run.id) == ("1", "2", "3")
        assert dict(run.config) == {"lr": 0.1, "batch": {"size": 3}}
    with wandb.init(project="p", projct="x", settings=wandb.Settings(mode="disabled")) as run:
        assert run.disabled
    with wandb.init(project="p", settings={"mode": "disabled"}, save_code=True) as run:
        assert run.disabled
    assert "change the import line of the SummaryWriter, too" in caplog.text
    assert "does not know projct" in caplog.text
    with pytest.raises(wandb.Error, match="need wandb itself"):
        wandb.init(project="p", resume_from="other?_step=3")


def test_names_that_scripts_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of a training none of them may be missing."""
    assert wandb.__version__ > "0.2"
    for name in ("config", "log_model"):
        with pytest.raises(wandb.UsageError, match=f"before wandb.{name}$"):
            getattr(wandb, name)
    table = wandb.Table(columns=["a", "b"], data=[[1, 2], [3, 4]])
    table.add_computed_columns(lambda at, row: {"sum": row["a"] + row["b"]})
    table.add_row(5, 6, 11)
    assert table.get_column("sum") == [3, 7, 11]
    assert table.get_column("a", convert_to="numpy").tolist() == [1, 3, 5]
    assert [row[0] for _, row in table.iterrows()] == [1, 3, 5]
    assert table.get_index() == [0, 1, 2]
    run = wandb.init(project="p")
    run.log({"molecule": wandb.Molecule.from_smiles("C"), "box": wandb.box3d(center=(0, 0, 0))})
    run.log({"curve": wandb.plot_table("id", table, {}), "image": wandb.data_types.Image()})
    wandb.log({"a": 1}, sync=True)
    wandb.log_model("a.pt", name="m")
    wandb.run.link_artifact(wandb.Artifact("x", "y"), "registry")
    wandb.Artifact("x", "y").finalize()
    wandb.mark_preempting()
    for fetch in (wandb.use_model, wandb.restore):
        with pytest.raises(wandb.errors.Error, match="cannot be fetched"):
            fetch("best.pt")
    wandb.termlog("said")
    wandb.termwarn("warned")
    wandb.termerror("failed")
    assert "warned" in caplog.text
    assert "failed" in caplog.text
    wandb.finish()
    assert lines(only(tmp_path))[1][1] == {"curve": "plot_table", "image": "Image"}


def test_a_table_as_a_frame() -> None:
    pytest.importorskip("pandas")
    assert list(wandb.Table(columns=["a"], data=[[1]]).get_dataframe()["a"]) == [1]


def test_what_scripts_put_into_checkpoints(tmp_path: Path) -> None:
    """A configuration in one is values of its own; media and tables can be pickled, too."""
    run = wandb.init(project="p", id="r", config={"lr": 1})
    run.log({"loss": 2.0})
    assert copy.deepcopy(run) is copy.copy(run) is run
    for values in (run.config, run.summary):
        for other in (pickle.loads(pickle.dumps(values)), copy.deepcopy(values)):
            assert dict(other) == dict(values)
            other["new"] = 1
            assert "new" not in values
    for value in (
        wandb.Image(np.zeros((2, 3))),
        wandb.Table(["a"], [[1]]),
        wandb.Artifact("a", "b"),
    ):
        assert vars(pickle.loads(pickle.dumps(value))) == vars(value)
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        _ = wandb_types.Other
    again = pickle.loads(pickle.dumps(run))  # in the same process it has the same recorder
    again.log({"loss": 3.0})
    again.config.lr = 2
    wandb.finish()
    assert lines(only(tmp_path)) == [(0, {"loss": 2.0}), (1, {"loss": 3.0})]
    assert only(tmp_path).report_starts()[-1].config["lr"] == 2


def test_files_where_nothing_can_be_written() -> None:
    """A script that saves its model there goes on."""
    run = wandb.init(project="p", dir="/proc/none")
    (Path(run.dir) / "model.pt").touch()
    assert run.dir == run.dir
    run._recorder.close(0.1)
