"""WandBLogger on real wandb, offline: what it records is read back from wandb's run files."""

from __future__ import annotations

import argparse
import logging
import math
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from pydantic import BaseModel
from recorded import in_child, in_threads
from wandb_files import WandbRun, only_run, run_files

from foundry_fastlog import WandBLogger
from foundry_fastlog.sinks import wandb as module

wandb: Any = pytest.importorskip("wandb")

Patch = pytest.MonkeyPatch
Warned = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def wandb_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One service process of wandb for this file, with its caches in a temporary folder."""
    home = tmp_path_factory.mktemp("wandb-home")
    with Patch.context() as patch:
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(home))
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_CONSOLE", "off")
        wandb.teardown()  # what another test file may have started has read another environment
        yield
        wandb.teardown()


@pytest.fixture(autouse=True)
def offline(monkeypatch: Patch, tmp_path: Path) -> Iterator[None]:
    """Offline mode and no other setting of the user's; no run outlives its test."""
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    yield
    while wandb.run is not None:
        wandb.run.finish()
    assert module._own_runs == set()


class Start:
    """Makes WandBLoggers that write below a folder, and finishes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[WandBLogger] = []

    def __call__(self, *arguments: Any, **options: Any) -> WandBLogger:
        self.made.append(WandBLogger(*arguments, **{"dir": str(self.folder), **options}))
        return self.made[-1]

    def finish(self) -> None:
        for logger in self.made:
            logger.finish()

    def run(self) -> WandbRun:
        self.finish()
        return only_run(self.folder)

    def runs(self) -> dict[str, WandbRun]:
        self.finish()
        return {run.name: run for run in map(WandbRun, run_files(self.folder))}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made = Start(tmp_path)
    yield made
    made.finish()


@pytest.fixture
def logger(start: Start) -> WandBLogger:
    return start()


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Warned:
    """Asserts that the package has warned once so far, in these words."""

    def check(*words: str) -> None:
        (text,) = (
            record.getMessage()
            for record in caplog.records
            if record.name == "foundry_fastlog" and record.levelno >= logging.WARNING
        )
        assert [word for word in words if word not in text] == [], text

    return check


def backward(model: Any) -> None:
    import torch

    model(torch.ones(1, model.in_features)).sum().backward()


class LoggingSection(BaseModel):
    use_wandb: bool = True
    wandb_project: str | None = None


class ExperimentConfig(BaseModel):
    experiment_name: str = "exp0_baseline"
    lr: float = 1e-4
    logging: LoggingSection = LoggingSection()


@dataclass
class Settings:
    experiment_name: str = "exp0_baseline"
    lr: float = 1e-4
    inner: Settings | None = None


class OldModel:
    """Has dict() only, as a model of pydantic 1."""

    __slots__ = ()
    experiment_name = "exp0_baseline"

    def dict(self) -> dict[str, Any]:
        return {"experiment_name": self.experiment_name, "lr": 1e-4}


PLAIN = {"experiment_name": "exp0_baseline", "lr": 1e-4}
ODD = {"path": Path("/data"), "big": 2**70, "tags": {"a"}}  # what JSON does not know


@pytest.mark.parametrize(
    ("config", "more"),
    [
        (ExperimentConfig(), {"logging": {"use_wandb": True, "wandb_project": None}}),
        (Settings(inner=Settings(lr=1.0)), {"inner": asdict(Settings(lr=1.0))}),
        (OldModel(), {}),
        (PLAIN | ODD, {"path": "/data", "big": str(2**70), "tags": ["a"]}),
        (argparse.Namespace(**PLAIN), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_configurations_of_each_kind(start: Start, config: object, more: dict[str, Any]) -> None:
    """The settings and the experiment's name are found in each, and the project is the default."""
    assert start(config, enabled=True).enabled
    run = start.run()
    assert (run.project, run.name) == ("model_foundry", "exp0_baseline")
    expected = {"lr": 1e-4, **more}
    assert {key: run.config[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("argument", "given", "expected"),
    [
        ("from-code", ("from-env", "from-config"), "from-code"),
        (None, ("from-env", "from-config"), "from-env"),
        (None, (None, "from-config"), "from-config"),
        (None, ("", None), "model_foundry"),
    ],
)
def test_the_project(
    start: Start, monkeypatch: Patch, argument: str | None, given: tuple[Any, Any], expected: str
) -> None:
    """An argument, then WANDB_PROJECT, then the configuration, then the default."""
    variable, setting = given
    if variable is not None:
        monkeypatch.setenv("WANDB_PROJECT", variable)
    start(ExperimentConfig(logging={"wandb_project": setting}), project=argument, tags="alone")
    assert (start.run().project, start.run().tags) == (expected, ["alone"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"project": 1}, "project must be a str, got int"),
        ({"name": b"x"}, "name must be a str, got bytes"),
        ({"step_metric": 1}, "step_metric must be a str, got int"),
        ({"tags": ["a", 1]}, "tags must be strings"),
        ({"config": 7}, "config must be a mapping"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        WandBLogger(**options)


def test_values(start: Start, logger: WandBLogger) -> None:
    """Numbers, NaN and infinities included, and wandb's own types stay; the rest is text."""
    same = {"float": 2.5, "int": 3, "bool": True, "none": None, "text": "x", "inf": -math.inf}
    numbers = {"numpy": np.float32(0.5), "numpy0d": np.array(7), "decimal": Decimal("1.5")}
    numbers["longdouble"] = np.longdouble(0.25)
    wanted = {**same, "list": [1, 2], **dict(zip(numbers, (0.5, 7, 1.5, 0.25), strict=True))}
    histogram = wandb.Histogram(np_histogram=([1, 2], [0.0, 1.0, 2.0]))
    assert logger.log_metrics(0, {**wanted, **numbers, "nan": math.nan})
    assert logger.log_metrics(1, {"odd": object(), "loss": 1.0, "spread": histogram})
    # Nested mappings become dotted names, as in Recorder.log(); keys become texts.
    assert logger.log_metrics(2, {"train": {"loss": 1.0, "lr": {"a": 2.0}}, 5: 3.0})
    assert logger.log_metrics(3, {})
    first, second, third = start.run().rows
    assert math.isnan(first["nan"])
    assert {key: first[key] for key in wanted} == wanted
    assert second["odd"].startswith("<object object")
    assert (second["loss"], second["spread._type"]) == (1.0, "histogram")
    assert (third["train.loss"], third["train.lr.a"], third["5"]) == (1.0, 2.0, 3.0)
    assert logger.stats()["errors"] == 0


def test_tensors(start: Start) -> None:
    torch = pytest.importorskip("torch")
    loss = torch.tensor(2.0, requires_grad=True) * 2
    start().log_metrics(0, {"loss": loss, "half": torch.tensor(1.5, dtype=torch.bfloat16)})
    (row,) = start.run().rows
    assert (row["loss"], row["half"]) == (4.0, 1.5)


def test_steps_in_parts_and_in_order(start: Start, logger: WandBLogger, warned: Warned) -> None:
    """W&B takes no older step: told once, with the way out, and counted."""
    assert logger.log_metrics(10, {"loss": 1.0})
    assert logger.log_metrics(np.int64(10), {"lr": 2.0})
    assert logger.log_metrics(20, {"loss": 0.5})
    assert not logger.log_metrics(19, {"loss": 2.0})
    assert not logger.log_metrics(-1, {"loss": 3.0})
    run = start.run()
    assert run.values("loss") == {10: 1.0, 20: 0.5}
    assert run.values("lr") == {10: 2.0}
    warned("step 19 comes after step 20", "step_metric")
    assert (logger.stats()["sent"], logger.stats()["refused"]) == (3, 2)


def test_steps_in_any_order(start: Start) -> None:
    """With step_metric each call is a row, and the step is the charts' x axis."""
    logger = start(step_metric="step")
    for step in (10, 5, 10):
        assert logger.log_metrics(step, {"loss": float(step)})
    assert logger.log_system_metrics()
    run = start.run()
    rows = [(row["step"], row.get("loss")) for row in run.rows]
    assert rows == [(10, 10.0), (5, 5.0), (10, 10.0), (10, None)]
    assert ("*", "step") in [(metric.glob_name, metric.step_metric) for metric in run.metrics]


def test_threads(start: Start) -> None:
    logger = start(step_metric="step")

    def log(thread: int) -> None:
        for step in range(25):
            assert logger.log_metrics(step, {f"thread{thread}": step})

    in_threads(log, 4)
    rows = start.run().rows
    for number in range(4):
        assert [r["step"] for r in rows if f"thread{number}" in r] == list(range(25))
    assert logger.stats()["sent"] == 100


@pytest.mark.parametrize("enabled", [True, False])
def test_calls_that_are_wrong_in_themselves(start: Start, enabled: bool) -> None:
    """A step that is no int, or metrics that are no mapping, raise whether W&B is on or off."""
    logger: Any = start(enabled=enabled)
    for step in (True, 1.5, "1"):
        for call in (lambda step: logger.log_metrics(step, {}), logger.log_system_metrics):
            with pytest.raises(TypeError, match="step must be an int"):
                call(step)
    with pytest.raises(TypeError, match="metrics must be a mapping, got list"):
        logger.log_metrics(1, [("loss", 1.0)])
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        logger.watch_model("model")


def test_system_metrics_join_a_row(start: Start, logger: WandBLogger, monkeypatch: Patch) -> None:
    """Without a step they begin no row, so the step goes on; torch's GPU memory is in them."""
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        memory_allocated=lambda: 3_000_000_000,
        memory_reserved=lambda: 4_000_000_000,
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
        logger.log_metrics(7, {"loss": 1.0})
        assert logger.log_system_metrics()
        assert logger.log_metrics(7, {"lr": 2.0})
    (row,) = start.run().rows
    assert (row["_step"], row["loss"], row["lr"]) == (7, 1.0, 2.0)
    assert row["system/gpu_memory_allocated"] == 3.0
    assert row["system/gpu_memory_reserved"] == 4.0
    assert 0 < row["system/memory_percent"] <= 100


def test_hooks_of_a_watched_model_cannot_stop_training(
    start: Start, logger: WandBLogger, monkeypatch: Patch, warned: Warned
) -> None:
    """What fails in wandb's hooks stays there; after finish() the hooks are gone."""
    torch = pytest.importorskip("torch")
    model, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    assert logger.watch_model(model, log_freq=1, log="gradients")
    logger.log_metrics(1, {"loss": 1.0})
    backward(model)
    with monkeypatch.context() as patch:
        patch.setattr(logger.run, "_log", Mock(side_effect=ConnectionResetError("Connection lost")))
        backward(model)
    assert logger.stats()["errors"] == 2  # weight and bias
    warned("Connection lost")

    with monkeypatch.context() as patch:  # another run became the process's global one
        patch.setattr(wandb, "run", None)
        backward(model)
    assert logger.stats()["errors"] == 2

    assert logger.watch_model(second, log_freq=1)
    backward(second)
    logger.finish()
    backward(model)
    assert not any(parameter._backward_hooks for parameter in model.parameters())
    (row,) = start.run().rows
    assert row["gradients/weight._type"] == "histogram"
    assert row["gradients/graph_1weight._type"] == "histogram"
    assert row["parameters/graph_1bias._type"] == "histogram"  # the second's, of which all is sent
    assert "parameters/weight._type" not in row


def test_calls_of_watch_model(logger: WandBLogger, monkeypatch: Patch) -> None:
    """What cannot be watched, or how often, is said at once; wandb's own words are only told."""
    model = pytest.importorskip("torch").nn.Linear(1, 1)
    with pytest.raises(ValueError, match="log_freq must be at least 1, got 0"):
        logger.watch_model(model, log_freq=0)
    with pytest.raises(TypeError, match="log_freq must be an int, got float"):
        logger.watch_model(model, log_freq=1.5)  # type: ignore[arg-type]
    assert not logger.watch_model(model, log="everything")
    assert "log must be one of" in logger.stats()["first_error"]
    # A version of wandb that keeps its hooks elsewhere is left to itself.
    monkeypatch.setattr(type(logger.run), "_torch", None)
    watched: list[object] = []
    monkeypatch.setattr(logger.run, "watch", lambda model, **options: watched.append(options))
    monkeypatch.setattr(logger.run, "unwatch", lambda: watched.append("unwatch"))
    assert logger.watch_model(model, log_freq=5)
    logger.finish()
    assert watched == [{"log": "all", "log_freq": 5, "idx": 0}, "unwatch"]


def test_artifacts(start: Start, logger: WandBLogger, tmp_path: Path) -> None:
    """A file and a folder, with names that W&B takes; the original may go afterwards."""
    file, folder = tmp_path / "my model (best).pt", tmp_path / "data"
    file.write_bytes(b"weights")
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text("a")
    assert logger.log_artifact(file)
    assert logger.log_artifact(folder, artifact_type="dataset", name="data/v1")
    file.unlink()
    assert not logger.log_artifact(tmp_path / "absent")
    with pytest.raises(TypeError):
        logger.log_artifact(5)  # type: ignore[arg-type]
    assert start.run().artifacts == [
        ("my-model--best-.pt", "model", ["my model (best).pt"]),
        ("data-v1", "dataset", ["inner/a.txt"]),
    ]
    assert logger.stats()["errors"] == 1
    assert "FileNotFoundError" in logger.stats()["first_error"]


def test_finish(logger: WandBLogger, tmp_path: Path, warned: Warned) -> None:
    """finish() may be called again; what comes after it is told once, counted and dropped."""
    run, logger.run = logger.run, None  # it may go between the check and the call
    assert not logger._send("log_metrics", 1, {"loss": 1.0})
    logger.run = run
    logger.log_metrics(1, {"loss": 1.0})
    logger.finish()
    logger.finish()
    assert not logger.enabled
    assert logger.run is None
    assert not logger.log_metrics(2, {"loss": 2.0})
    assert not logger.log_system_metrics()
    assert not logger.log_artifact(tmp_path)
    assert only_run(tmp_path).values("loss") == {1: 1.0}
    assert (logger.stats()["refused"], logger.stats()["errors"]) == (3, 0)
    warned()


def test_runs_one_after_the_other(start: Start) -> None:
    """Each begins at its own first step; an exception in the with block marks one as failed."""
    with pytest.raises(ZeroDivisionError), start(name="bad") as logger:
        assert logger.log_metrics(1, {"loss": 1.0}) / 0
    with start(name="good") as logger:
        assert logger.log_metrics(1, {"loss": 1.0})
    runs = {name: (run.exit_code, run.values("loss")) for name, run in start.runs().items()}
    assert runs == {"bad": (1, {1: 1.0}), "good": (0, {1: 1.0})}


def test_runs_side_by_side(start: Start, warned: Warned) -> None:
    """Two loggers at once are two runs; models are watched in the first only, which is told."""
    torch = pytest.importorskip("torch")
    first, second = start(name="first"), start(name="second")
    assert first.run.id != second.run.id
    first.log_metrics(1, {"loss": 1.0})
    second.log_metrics(0, {"loss": 2.0})
    assert not second.watch_model(torch.nn.Linear(1, 1))
    warned("first run that a process has open")
    first.finish()
    assert second.log_metrics(1, {"loss": 3.0})
    runs = {name: run.values("loss") for name, run in start.runs().items()}
    assert runs == {"first": {1: 1.0}, "second": {0: 2.0, 1: 3.0}}


def test_the_program_s_own_run_is_joined(start: Start, tmp_path: Path) -> None:
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
    run = start.run()
    assert (run.project, run.name, run.config["a"], run.config["lr"]) == ("mine", "own", 2, 0.1)
    assert [row["_step"] for row in run.rows] == [3, 4, 5]
    assert own.tags == ("x", "y")


def test_a_forked_child_sends_nothing(start: Start, logger: WandBLogger, tmp_path: Path) -> None:
    model = pytest.importorskip("torch").nn.Linear(1, 1)
    logger.watch_model(model, log_freq=1, log="gradients")
    logger.log_metrics(1, {"loss": 1.0})

    def child() -> None:
        told: list[str] = []
        logging.getLogger("foundry_fastlog").addFilter(lambda r: told.append(r.msg) or True)
        assert not logger.log_metrics(2, {"child": 1.0})
        assert not logger.log_system_metrics()
        assert not logger.watch_model(model)
        assert not logger.log_artifact(tmp_path)
        backward(model)
        logger.finish()
        assert (len(told), logger.stats()["refused"]) == (1, 4)

    in_child(child)
    assert logger.log_metrics(2, {"loss": 2.0})
    run = start.run()
    assert run.values("loss") == {1: 1.0, 2: 2.0}
    assert run.values("child") == run.values("gradients/weight._type") == {}


def test_what_a_child_is_told(logger: WandBLogger, monkeypatch: Patch, warned: Warned) -> None:
    """The one message of a child says who sends, and what to do."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        assert not logger.log_metrics(1, {"loss": 1.0})
        assert not logger.log_metrics(2, {"loss": 1.0})
        assert logger._of_this_process() is None
        logger.finish()
    warned("another process started this W&B run")
    assert logger.enabled
    assert logger.log_metrics(1, {"loss": 1.0})
    logger.finish()
    with monkeypatch.context() as patch:  # a child of a process that has finished its run
        patch.setattr(os, "getpid", lambda: 1)
        assert not logger.log_metrics(2, {"loss": 1.0})
    assert logger.stats()["refused"] == 2
    copy = pickle.loads(pickle.dumps(logger))  # for a spawned worker: it is switched off
    assert isinstance(copy, WandBLogger)
    assert not copy.enabled
    assert not copy.log_metrics(1, {"loss": 1.0})
    copy.finish()
    assert copy.stats()["refused"] == 0


@pytest.mark.parametrize(
    ("rank", "options", "runs"),
    [("0", {}, 1), ("", {}, 1), ("1", {}, 0), ("3", {"all_ranks": True, "group": "exp0"}, 1)],
)
def test_ranks(start: Start, monkeypatch: Patch, rank: str, options: Any, runs: int) -> None:
    """Of the ranks only the first has a run, unless each is to have one."""
    monkeypatch.setenv("RANK", rank)
    assert start(**options).enabled is bool(runs)
    start.finish()
    assert len(run_files(start.folder)) == runs


class Bad(Mapping[str, float]):
    """Has a value that raises."""

    __getitem__ = Mock(side_effect=KeyError("loss"))
    __iter__ = staticmethod(lambda: iter(["loss"]))  # type: ignore[assignment]
    __len__ = staticmethod(lambda: 1)  # type: ignore[assignment]


def test_errors_are_counted(logger: WandBLogger, monkeypatch: Patch, warned: Warned) -> None:
    """What wandb, a row or the machine's figures raise stays out of the training."""
    broken = Mock(side_effect=BrokenPipeError("no service"))
    circle: dict[str, Any] = {}
    circle["self"] = circle
    with monkeypatch.context() as patch:
        patch.setattr(logger.run, "log", broken)
        assert not logger.log_metrics(1, {"loss": 1.0})
        assert not logger.log_system_metrics(2)
    assert not logger.log_metrics(1, circle)
    assert not logger.log_metrics(1, Bad())
    with monkeypatch.context() as patch:
        memory = "foundry_fastlog.machine.reader.torch_memory"
        patch.setattr(memory, Mock(side_effect=RuntimeError("device-side assert")))
        assert not logger.log_system_metrics()
    assert logger.stats()["last_error"] == "log_system_metrics: RuntimeError: device-side assert"
    assert logger.log_metrics(1, {"loss": 1.0})
    with monkeypatch.context() as patch:
        real_finish = logger.run.finish
        patch.setattr(logger.run, "finish", broken)
        logger.finish()
    real_finish()
    stats = logger.stats()
    assert (stats["sent"], stats["errors"], stats["enabled"]) == (1, 6, False)
    assert stats["first_error"] == "log_metrics: BrokenPipeError: no service"
    assert stats["last_error"] == "finish: BrokenPipeError: no service"
    warned("no service", "training goes on")


@pytest.mark.parametrize("options", [{"mode": "online"}, {}])
def test_going_offline_without_a_server(
    start: Start, monkeypatch: Patch, warned: Warned, options: dict[str, str]
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    real_init = wandb.init

    def init(**options: Any) -> Any:
        if options.get("mode") != "offline":
            raise wandb.errors.CommError("no route to host")
        return real_init(**options)

    monkeypatch.setattr(wandb, "init", init)
    assert start(**options).log_metrics(1, {"loss": 1.0})
    assert start.run().values("loss") == {1: 1.0}
    warned("no route to host", "recorded offline")


def test_a_start_that_fails(start: Start, monkeypatch: Patch, warned: Warned) -> None:
    """A mode that does not exist: W&B is off, which is told with wandb's words."""
    monkeypatch.setenv("WANDB_MODE", "ofline")
    logger = start()
    assert not logger.enabled
    assert not logger.log_metrics(1, {"loss": 1.0})
    logger.finish()
    warned("W&B is off for this run", "ofline")
    assert logger.stats()["errors"] == 1
