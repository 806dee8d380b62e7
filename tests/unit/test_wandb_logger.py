"""WandBLogger on real wandb, offline: what it records is read back from wandb's run files."""

from __future__ import annotations

import argparse
import logging
import math
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from wandb_files import WandbRun, only_run, run_files

from foundry_fastlog import WandBLogger
from foundry_fastlog.sinks import wandb as module

wandb: Any = pytest.importorskip("wandb")


@pytest.fixture(scope="module", autouse=True)
def wandb_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One service process of wandb for this file, with its caches in a temporary folder."""
    home = tmp_path_factory.mktemp("wandb-home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(home))
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_CONSOLE", "off")
        wandb.teardown()  # what another test file may have started has read another environment
        yield
        wandb.teardown()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Offline mode and no other setting of the user's; no run outlives its test."""
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    yield
    while wandb.run is not None:
        wandb.run.finish()
    assert module._own_runs == set()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., WandBLogger]]:
    """Makes WandBLoggers that write below tmp_path and are finished at the end."""
    made: list[WandBLogger] = []

    def make(*arguments: Any, **options: Any) -> WandBLogger:
        made.append(WandBLogger(*arguments, **{"dir": str(tmp_path), **options}))
        return made[-1]

    yield make
    for logger in made:
        logger.finish()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of the package so far."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "foundry_fastlog" and record.levelno >= logging.WARNING
    ]


class LoggingSection(BaseModel):
    """The part of an experiment's configuration that names the project."""

    use_wandb: bool = True
    wandb_project: str | None = None


class ExperimentConfig(BaseModel):
    """A pydantic configuration, as the plan's."""

    experiment_name: str = "exp0_baseline"
    lr: float = 1e-4
    logging: LoggingSection = LoggingSection()


@dataclass
class Settings:
    """A dataclass configuration with another inside."""

    @dataclass
    class Optimizer:
        """The inner one."""

        name: str = "adam"

    experiment_name: str = "exp0_baseline"
    lr: float = 1e-4
    optimizer: Optimizer = field(default_factory=Optimizer)


class OldModel:
    """Has dict() only, as a model of pydantic 1."""

    __slots__ = ()
    experiment_name = "exp0_baseline"

    def dict(self) -> dict[str, Any]:
        """Return the settings."""
        return {"experiment_name": self.experiment_name, "lr": 1e-4}


# ---- the two constructors of the plan ----------------------------------------------------


def test_from_an_experiment_config(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """WandBLogger(config): the experiment's name, the default project, all settings."""
    logger = start(ExperimentConfig(), enabled=True)
    assert logger.enabled
    logger.log_metrics(1, {"loss": 2.5})
    logger.finish()
    run = only_run(tmp_path)
    assert (run.project, run.name) == ("model_foundry", "exp0_baseline")
    assert run.config["lr"] == 1e-4
    assert run.config["logging"] == {"use_wandb": True, "wandb_project": None}


def test_the_guide_s_listing(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """The calls of the plan's guide, in its order, are all in the run file."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    checkpoint = tmp_path / "output" / "checkpoint-1000"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.pt").write_bytes(b"weights")

    wandb_logger = start(
        project="model-foundry",
        name="exp0_baseline",
        config=ExperimentConfig().model_dump(),
        tags=["baseline", "gpt2"],
    )
    wandb_logger.log_metrics(
        step=100, metrics={"train/loss": 2.5, "train/lr": 0.001, "train/grad_norm": 1.23}
    )
    wandb_logger.log_system_metrics(step=100)
    wandb_logger.watch_model(model, log_freq=1)
    model(torch.ones(4, 3)).sum().backward()
    wandb_logger.log_artifact(
        "output/checkpoint-1000", artifact_type="model", name="checkpoint-1000"
    )
    wandb_logger.finish()

    run = only_run(tmp_path)
    assert (run.project, run.name, run.tags) == (
        "model-foundry",
        "exp0_baseline",
        ["baseline", "gpt2"],
    )
    (row,) = run.rows
    assert (row["_step"], row["train/loss"], row["train/lr"]) == (100, 2.5, 0.001)
    assert row["system/rss_gb"] > 0
    assert row["gradients/weight._type"] == row["parameters/bias._type"] == "histogram"
    assert run.artifacts == [("checkpoint-1000", "model", ["model.pt"])]
    assert run.exit_code == 0
    assert wandb_logger.stats()["errors"] == 0


@pytest.mark.parametrize(
    "config",
    [
        ExperimentConfig(),
        Settings(),
        OldModel(),
        {"experiment_name": "exp0_baseline", "lr": 1e-4},
        argparse.Namespace(experiment_name="exp0_baseline", lr=1e-4),
    ],
    ids=lambda config: type(config).__name__,
)
def test_configurations_of_each_kind(
    start: Callable[..., WandBLogger], tmp_path: Path, config: object
) -> None:
    """The settings and the experiment's name are found in each kind of configuration."""
    start(config).finish()
    run = only_run(tmp_path)
    assert run.name == "exp0_baseline"
    assert run.config["lr"] == 1e-4
    if isinstance(config, Settings):
        assert run.config["optimizer"] == {"name": "adam"}


def test_settings_that_json_does_not_know(
    start: Callable[..., WandBLogger], tmp_path: Path
) -> None:
    """Paths, sets and huge numbers in a configuration are readable in W&B."""
    start(config={"path": Path("/data"), "big": 2**70, "tags": {"a"}}).finish()
    config = only_run(tmp_path).config
    assert config["path"] == "/data"
    assert config["big"] == str(2**70)
    assert config["tags"] == ["a"]


@pytest.mark.parametrize(
    ("argument", "variable", "setting", "expected"),
    [
        ("from-code", "from-env", "from-config", "from-code"),
        (None, "from-env", "from-config", "from-env"),
        (None, None, "from-config", "from-config"),
        (None, "", None, "model_foundry"),
    ],
)
def test_the_project(
    start: Callable[..., WandBLogger],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    argument: str | None,
    variable: str | None,
    setting: str | None,
    expected: str,
) -> None:
    """An argument, then WANDB_PROJECT, then the configuration, then the default."""
    if variable is not None:
        monkeypatch.setenv("WANDB_PROJECT", variable)
    config = ExperimentConfig(logging=LoggingSection(wandb_project=setting))
    start(config, project=argument, tags="alone").finish()
    run = only_run(tmp_path)
    assert (run.project, run.tags) == (expected, ["alone"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"project": 1}, "project must be a str, got int"),
        ({"name": b"x"}, "name must be a str, got bytes"),
        ({"step_metric": 1}, "step_metric must be a str, got int"),
        ({"tags": ["a", 1]}, "tags must be texts"),
        ({"config": 7}, "config must be a mapping"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    """What the caller got wrong is said at once."""
    with pytest.raises(TypeError, match=message):
        WandBLogger(**options)


# ---- metrics -----------------------------------------------------------------------------


def test_values(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """Numbers of every kind arrive as numbers, NaN and infinities included; the rest as text."""
    logger = start()
    values = {
        "float": 2.5,
        "int": 3,
        "bool": True,
        "none": None,
        "text": "x",
        "nan": math.nan,
        "inf": -math.inf,
        "numpy": np.float32(0.5),
        "numpy0d": np.array(7),
        "decimal": Decimal("1.5"),
        "longdouble": np.longdouble(0.25),
        "list": [1, 2],
    }
    assert logger.log_metrics(0, values)
    assert logger.log_metrics(1, {"odd": object(), "loss": 1.0})
    logger.finish()
    first, second = only_run(tmp_path).rows
    assert math.isnan(first.pop("nan"))
    assert {key: first[key] for key in values if key != "nan"} == {
        **{key: values[key] for key in ("float", "int", "bool", "none", "text", "inf", "list")},
        "numpy": 0.5,
        "numpy0d": 7,
        "decimal": 1.5,
        "longdouble": 0.25,
    }
    assert second["odd"].startswith("<object object")
    assert second["loss"] == 1.0
    assert logger.stats()["errors"] == 0


def test_tensors(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """Tensors without dimensions are read, also those that belong to a graph."""
    torch = pytest.importorskip("torch")
    logger = start()
    loss = torch.tensor(2.0, requires_grad=True) * 2
    logger.log_metrics(0, {"loss": loss, "half": torch.tensor(1.5, dtype=torch.bfloat16)})
    logger.finish()
    (row,) = only_run(tmp_path).rows
    assert (row["loss"], row["half"]) == (4.0, 1.5)


def test_wandb_s_own_types(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """A histogram stays one, also in a row where another value has to become text."""
    logger = start()
    histogram = wandb.Histogram(np_histogram=([1, 2], [0.0, 1.0, 2.0]))
    logger.log_metrics(0, {"spread": histogram, "odd": object()})
    logger.finish()
    (row,) = only_run(tmp_path).rows
    assert row["spread._type"] == "histogram"
    assert row["odd"].startswith("<object object")


def test_nested_metrics(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """Nested mappings become dotted names, as in Recorder.log(); keys become texts."""
    logger = start()
    assert logger.log_metrics(0, {"train": {"loss": 1.0, "lr": {"a": 2.0}}, 5: 3.0})
    assert logger.log_metrics(1, {})
    logger.finish()
    (row,) = only_run(tmp_path).rows
    assert (row["train.loss"], row["train.lr.a"], row["5"]) == (1.0, 2.0, 3.0)


def test_calls_of_one_step_make_one_row(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """A step may be logged in parts; an older one is refused, told once and counted."""
    logger = start()
    assert logger.log_metrics(10, {"loss": 1.0})
    assert logger.log_metrics(np.int64(10), {"lr": 2.0})
    assert logger.log_metrics(20, {"loss": 0.5})
    logger.finish()
    run = only_run(tmp_path)
    assert run.values("loss") == {10: 1.0, 20: 0.5}
    assert run.values("lr") == {10: 2.0}


def test_older_steps_are_refused(
    start: Callable[..., WandBLogger], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """W&B takes no older step: told once, with the way out, and counted."""
    logger = start()
    assert logger.log_metrics(10, {"loss": 1.0})
    assert not logger.log_metrics(9, {"loss": 2.0})
    assert not logger.log_metrics(-1, {"loss": 3.0})
    logger.finish()
    assert only_run(tmp_path).values("loss") == {10: 1.0}
    (warning,) = warnings_of(caplog)
    assert "step 9 comes after step 10" in warning
    assert "step_metric" in warning
    assert (logger.stats()["sent"], logger.stats()["refused"]) == (1, 2)


def test_steps_in_any_order(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """With step_metric each call is a row, and the step is the charts' x axis."""
    logger = start(step_metric="step")
    for step in (10, 5, 10):
        assert logger.log_metrics(step, {"loss": float(step)})
    assert logger.log_system_metrics()
    logger.finish()
    run = only_run(tmp_path)
    assert [row["step"] for row in run.rows] == [10, 5, 10, 10]
    assert [row.get("loss") for row in run.rows] == [10.0, 5.0, 10.0, None]
    assert ("*", "step") in [(metric.glob_name, metric.step_metric) for metric in run.metrics]


def test_threads(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """Threads that log the same steps lose nothing."""
    logger = start(step_metric="step")

    def log(thread: int) -> None:
        for step in range(25):
            assert logger.log_metrics(step, {f"thread{thread}": step})

    threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logger.finish()
    rows = only_run(tmp_path).rows
    for number in range(4):
        assert [r["step"] for r in rows if f"thread{number}" in r] == list(range(25))
    assert logger.stats()["sent"] == 100


@pytest.mark.parametrize("enabled", [True, False])
def test_calls_that_are_wrong_in_themselves(
    start: Callable[..., WandBLogger], enabled: bool
) -> None:
    """A step that is no int, or metrics that are no mapping, raise whether W&B is on or off."""
    logger = start(enabled=enabled)
    for step in (True, 1.5, "1"):
        with pytest.raises(TypeError, match="step must be an int"):
            logger.log_metrics(step, {})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="step must be an int"):
            logger.log_system_metrics(step)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="metrics must be a mapping, got list"):
        logger.log_metrics(1, [("loss", 1.0)])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        logger.watch_model("model")


def test_system_metrics_join_the_newest_row(
    start: Callable[..., WandBLogger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a step they begin no row, so the step goes on; torch's GPU memory is in them."""

    class Cuda:
        is_initialized = staticmethod(lambda: True)
        memory_allocated = staticmethod(lambda: 3_000_000_000)
        memory_reserved = staticmethod(lambda: 4_000_000_000)

    class Torch:
        cuda = Cuda

    monkeypatch.setitem(sys.modules, "torch", Torch)  # type: ignore[arg-type]
    logger = start()
    logger.log_metrics(7, {"loss": 1.0})
    assert logger.log_system_metrics()
    assert logger.log_metrics(7, {"lr": 2.0})
    monkeypatch.undo()
    logger.finish()
    (row,) = only_run(tmp_path).rows
    assert (row["_step"], row["loss"], row["lr"]) == (7, 1.0, 2.0)
    assert row["system/gpu_memory_allocated"] == 3.0
    assert row["system/gpu_memory_reserved"] == 4.0
    assert 0 < row["system/memory_percent"] <= 100


def test_system_metrics_that_cannot_be_read(
    start: Callable[..., WandBLogger],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault of the machine's figures is told and counted."""
    logger = start()

    def broken() -> dict[str, float]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr("foundry_fastlog.machine.reader.torch_memory", broken)
    assert not logger.log_system_metrics()
    assert "device-side assert" in warnings_of(caplog)[0]


# ---- models and artifacts ----------------------------------------------------------------


def test_hooks_of_a_watched_model_cannot_stop_training(
    start: Callable[..., WandBLogger],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What fails in wandb's hooks stays there; after finish() the hooks are gone."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    logger = start()
    assert logger.watch_model(model, log_freq=1, log="gradients")
    logger.log_metrics(1, {"loss": 1.0})
    model(torch.ones(1, 3)).sum().backward()

    def broken(*arguments: object, **options: object) -> None:
        raise ConnectionResetError("Connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(logger.run, "_log", broken)
        model(torch.ones(1, 3)).sum().backward()
    assert logger.stats()["errors"] == 2  # weight and bias
    assert len(warnings_of(caplog)) == 1
    assert "Connection lost" in warnings_of(caplog)[0]

    with monkeypatch.context() as patch:  # another run became the process's global one
        patch.setattr(wandb, "run", None)
        model(torch.ones(1, 3)).sum().backward()
    assert logger.stats()["errors"] == 2

    second = torch.nn.Linear(3, 2)
    assert logger.watch_model(second, log_freq=1)
    second(torch.ones(1, 3)).sum().backward()
    logger.finish()
    model(torch.ones(1, 3)).sum().backward()
    assert not any(parameter._backward_hooks for parameter in model.parameters())
    (row,) = only_run(tmp_path).rows
    assert row["gradients/weight._type"] == "histogram"
    assert row["gradients/graph_1weight._type"] == "histogram"
    assert "parameters/weight._type" not in row


def test_watching_without_wandb_s_hooks(
    start: Callable[..., WandBLogger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of wandb that keeps its hooks elsewhere is left to itself."""
    torch = pytest.importorskip("torch")
    logger = start()
    monkeypatch.setattr(type(logger.run), "_torch", None)
    watched: list[object] = []
    monkeypatch.setattr(logger.run, "watch", lambda model, **options: watched.append(options))
    monkeypatch.setattr(logger.run, "unwatch", lambda: watched.append("unwatch"))
    assert logger.watch_model(torch.nn.Linear(1, 1), log_freq=5)
    logger.finish()
    assert watched == [{"log": "all", "log_freq": 5, "idx": 0}, "unwatch"]


def test_wrong_calls_of_watch_model(start: Callable[..., WandBLogger]) -> None:
    """What cannot be watched, or how often, is said at once; wandb's own words are only told."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(1, 1)
    logger = start()
    with pytest.raises(ValueError, match="log_freq must be at least 1, got 0"):
        logger.watch_model(model, log_freq=0)
    with pytest.raises(TypeError, match="log_freq must be an int, got float"):
        logger.watch_model(model, log_freq=1.5)  # type: ignore[arg-type]
    assert not logger.watch_model(model, log="everything")
    assert "log must be one of" in logger.stats()["first_error"]


def test_artifacts(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """A file and a folder, with names that W&B takes; the original may go afterwards."""
    logger = start()
    file = tmp_path / "my model (best).pt"
    file.write_bytes(b"weights")
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text("a")
    assert logger.log_artifact(file)
    assert logger.log_artifact(folder, artifact_type="dataset", name="data/v1")
    file.unlink()
    assert not logger.log_artifact(tmp_path / "absent")
    with pytest.raises(TypeError):
        logger.log_artifact(5)  # type: ignore[arg-type]
    logger.finish()
    assert only_run(tmp_path).artifacts == [
        ("my-model--best-.pt", "model", ["my model (best).pt"]),
        ("data-v1", "dataset", ["inner/a.txt"]),
    ]
    assert logger.stats()["errors"] == 1
    assert "FileNotFoundError" in logger.stats()["first_error"]


# ---- runs --------------------------------------------------------------------------------


def test_finish(
    start: Callable[..., WandBLogger], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """finish() may be called again; what comes after it is told once, counted and dropped."""
    logger = start()
    logger.log_metrics(1, {"loss": 1.0})
    logger.finish()
    logger.finish()
    assert not logger.enabled
    assert logger.run is None
    assert not logger.log_metrics(2, {"loss": 2.0})
    assert not logger.log_system_metrics()
    assert not logger.log_artifact(tmp_path)
    assert only_run(tmp_path).values("loss") == {1: 1.0}
    assert logger.stats()["refused"] == 3
    assert len(warnings_of(caplog)) == 1


def test_a_failed_run_is_marked(tmp_path: Path) -> None:
    """An exception in the with block marks the run as failed and goes on."""
    with (
        pytest.raises(ZeroDivisionError),
        WandBLogger(name="bad", dir=str(tmp_path)) as logger,
    ):
        logger.log_metrics(1, {"loss": 1 / 0})
    assert only_run(tmp_path).exit_code == 1
    with WandBLogger(name="good", dir=str(tmp_path)):
        pass
    runs = {run.name: run.exit_code for run in map(WandbRun, run_files(tmp_path))}
    assert runs == {"bad": 1, "good": 0}


def test_runs_one_after_the_other(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """A second logger in the process begins a run of its own, from its own first step."""
    for name in ("first", "second"):
        logger = start(name=name)
        assert logger.log_metrics(1, {"loss": 1.0})
        logger.finish()
    runs = [WandbRun(path) for path in run_files(tmp_path)]
    assert sorted(run.name for run in runs) == ["first", "second"]
    assert all(run.values("loss") == {1: 1.0} for run in runs)


def test_runs_side_by_side(
    start: Callable[..., WandBLogger], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two loggers at once are two runs; models are watched in the first only, which is told."""
    torch = pytest.importorskip("torch")
    first, second = start(name="first"), start(name="second")
    assert first.run.id != second.run.id
    first.log_metrics(1, {"loss": 1.0})
    second.log_metrics(0, {"loss": 2.0})
    assert not second.watch_model(torch.nn.Linear(1, 1))
    assert "first run that a process has open" in warnings_of(caplog)[0]
    first.finish()
    assert second.log_metrics(1, {"loss": 3.0})
    second.finish()
    runs = {run.name: run.values("loss") for run in map(WandbRun, run_files(tmp_path))}
    assert runs == {"first": {1: 1.0}, "second": {0: 2.0, 1: 3.0}}


def test_the_program_s_own_run_is_joined(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """A run of wandb.init() gets our settings and metrics, and is left open at finish()."""
    own = wandb.init(
        project="mine", name="own", tags=["x"], mode="offline", dir=str(tmp_path), config={"a": 1}
    )
    own.log({"before": 1.0}, step=3)
    logger = start(project="other", config={"a": 2, "lr": 0.1}, tags=["y"])
    assert logger.run is own
    assert not logger.log_metrics(2, {"loss": 0.0})  # the run is further on
    assert logger.log_metrics(4, {"loss": 1.0})
    logger.finish()
    own.log({"after": 1.0}, step=5)
    joined_again = start()
    assert joined_again.run is own
    joined_again.finish()
    own.finish()
    run = only_run(tmp_path)
    assert (run.project, run.name, run.config["a"], run.config["lr"]) == ("mine", "own", 2, 0.1)
    assert [row["_step"] for row in run.rows] == [3, 4, 5]
    assert own.tags == ("x", "y")


# ---- processes ---------------------------------------------------------------------------


def test_a_forked_child_sends_nothing(start: Callable[..., WandBLogger], tmp_path: Path) -> None:
    """In a forked child nothing is sent, nothing raises and the parent's run goes on."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(1, 1)
    logger = start()
    logger.watch_model(model, log_freq=1, log="gradients")
    logger.log_metrics(1, {"loss": 1.0})
    child = os.fork()
    if child == 0:
        code = 1
        try:
            told: list[str] = []
            logging.getLogger("foundry_fastlog").addFilter(lambda r: told.append(r.msg) or True)
            calls = [
                logger.log_metrics(2, {"child": 1.0}),
                logger.log_system_metrics(),
                logger.watch_model(model),
                logger.log_artifact(tmp_path),
            ]
            model(torch.ones(1, 1)).sum().backward()
            logger.finish()
            sent = logger.stats()
            code = 0 if not any(calls) and len(told) == 1 and sent["refused"] == 4 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert logger.log_metrics(2, {"loss": 2.0})
    logger.finish()
    run = only_run(tmp_path)
    assert run.values("loss") == {1: 1.0, 2: 2.0}
    assert run.values("child") == {}
    assert run.values("gradients/weight._type") == {}


def test_what_a_child_is_told(
    start: Callable[..., WandBLogger],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The one message of a child says who sends, and what to do."""
    logger = start()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        assert not logger.log_metrics(1, {"loss": 1.0})
        assert not logger.log_metrics(2, {"loss": 1.0})
        assert logger._of_this_process() is None
        logger.finish()
    (warning,) = warnings_of(caplog)
    assert "another process started this W&B run" in warning
    assert logger.enabled
    assert logger.log_metrics(1, {"loss": 1.0})
    logger.finish()
    with monkeypatch.context() as patch:  # a child of a process that has finished its run
        patch.setattr(os, "getpid", lambda: 1)
        assert not logger.log_metrics(2, {"loss": 1.0})
    assert logger.stats()["refused"] == 2


def test_pickled_for_a_spawned_worker(start: Callable[..., WandBLogger]) -> None:
    """A copy in another process is switched off."""
    copy = pickle.loads(pickle.dumps(start()))
    assert isinstance(copy, WandBLogger)
    assert not copy.enabled
    assert not copy.log_metrics(1, {"loss": 1.0})
    copy.finish()
    assert copy.stats()["refused"] == 0


@pytest.mark.parametrize(("rank", "runs"), [("0", 1), ("", 1), ("1", 0)])
def test_ranks(
    start: Callable[..., WandBLogger],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rank: str,
    runs: int,
) -> None:
    """Of the ranks of a training only the first has a run."""
    monkeypatch.setenv("RANK", rank)
    logger = start()
    assert logger.enabled is bool(runs)
    logger.finish()
    assert len(run_files(tmp_path)) == runs


def test_all_ranks(
    start: Callable[..., WandBLogger], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where it is wanted each rank has a run; they are grouped by wandb's own option."""
    monkeypatch.setenv("RANK", "3")
    start(all_ranks=True, group="exp0").finish()
    assert len(run_files(tmp_path)) == 1


# ---- wandb's failures --------------------------------------------------------------------


def test_errors_are_told_once_and_counted(
    start: Callable[..., WandBLogger],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What wandb raises while logging or finishing stays out of the training."""
    logger = start()

    def broken(*arguments: object, **options: object) -> None:
        raise BrokenPipeError("no service")

    with monkeypatch.context() as patch:
        patch.setattr(logger.run, "log", broken)
        assert not logger.log_metrics(1, {"loss": 1.0})
        assert not logger.log_system_metrics(2)
        real_finish = logger.run.finish
        patch.setattr(logger.run, "finish", broken)
        logger.finish()
    real_finish()
    stats = logger.stats()
    assert (stats["sent"], stats["errors"], stats["enabled"]) == (0, 3, False)
    assert stats["first_error"] == "log_metrics: BrokenPipeError: no service"
    assert stats["last_error"] == "finish: BrokenPipeError: no service"
    (warning,) = warnings_of(caplog)
    assert "no service" in warning
    assert "training goes on" in warning


def test_a_row_that_cannot_be_read(start: Callable[..., WandBLogger]) -> None:
    """A mapping that contains itself, or a value that raises, is counted."""
    logger = start()
    circle: dict[str, Any] = {}
    circle["self"] = circle

    class Bad(Mapping[str, float]):
        def __getitem__(self, key: str) -> float:
            raise KeyError(key)

        def __iter__(self) -> Iterator[str]:
            yield "loss"

        def __len__(self) -> int:
            return 1

    assert not logger.log_metrics(1, circle)
    assert not logger.log_metrics(1, Bad())
    assert logger.stats()["errors"] == 2
    assert logger.log_metrics(1, {"loss": 1.0})


def test_finished_while_another_thread_logs(start: Callable[..., WandBLogger]) -> None:
    """A run that goes between the check and the call is no error."""
    logger = start()
    run, logger.run = logger.run, None
    assert not logger._send("log_metrics", 1, {"loss": 1.0})
    assert logger.stats()["errors"] == 0
    logger.run = run


@pytest.mark.parametrize("mode", ["online", None])
def test_going_offline_without_a_server(
    start: Callable[..., WandBLogger],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    mode: str | None,
) -> None:
    """A run that cannot go online is recorded offline, and that is told."""
    monkeypatch.delenv("WANDB_MODE")
    real_init = wandb.init

    def init(**options: Any) -> Any:
        if options.get("mode") != "offline":
            raise wandb.errors.CommError("no route to host")
        return real_init(**options)

    monkeypatch.setattr(wandb, "init", init)
    logger = start(**({"mode": mode} if mode else {}))
    assert logger.log_metrics(1, {"loss": 1.0})
    logger.finish()
    assert only_run(tmp_path).values("loss") == {1: 1.0}
    (warning,) = warnings_of(caplog)
    assert "no route to host" in warning
    assert "recorded offline" in warning


def test_a_start_that_fails(
    start: Callable[..., WandBLogger],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A mode that does not exist: W&B is off, which is told with wandb's words."""
    monkeypatch.setenv("WANDB_MODE", "ofline")
    logger = start()
    assert not logger.enabled
    assert not logger.log_metrics(1, {"loss": 1.0})
    logger.finish()
    (warning,) = warnings_of(caplog)
    assert "W&B is off for this run" in warning
    assert "ofline" in warning
    assert logger.stats()["errors"] == 1
