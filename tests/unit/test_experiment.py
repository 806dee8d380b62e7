"""ExperimentLogging: everything of a run from one configuration."""

from __future__ import annotations

import copy
import json
import logging
import multiprocessing
import os
import pickle
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from logging_support import ExperimentConfig
from recorded import parse, raw_lines, run_python

from foundry_fastlog import (
    ConfigError,
    ExperimentLogging,
    LoggingConfig,
    RecorderClosedError,
    StructuredLogger,
    read_run,
)
from foundry_fastlog.components import experiment
from foundry_fastlog.messages.text_handlers import TextHandler

ROOT = "model_foundry"
STAMP = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"
Open = Callable[..., ExperimentLogging]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens experiments below tmp_path/logs and closes them at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    made: list[ExperimentLogging] = []

    def make(config: object = "exp0", **options: Any) -> ExperimentLogging:
        made.append(ExperimentLogging(config, **options))
        return made[-1]

    yield make
    for logs in reversed(made):
        logs.close()
    assert handlers() == []


def handlers() -> list[logging.Handler]:
    """List the handlers of this package on the root logger; pytest has its own there."""
    return [h for h in logging.getLogger(ROOT).handlers if hasattr(h, "fastlog_kind")]


def quiet(**options: Any) -> ExperimentConfig:
    """A configuration without the console and the sampler, which most tests do not look at."""
    section = {"console": False, "system_metrics_every_s": 0, **options}
    return ExperimentConfig(experiment_name="exp0", logging=LoggingConfig(**section))


def lines(logs: ExperimentLogging, stream: str) -> list[dict[str, Any]]:
    """Read all lines of a stream of a run, strictly."""
    logs.recorder.flush() if not logs.recorder.closed else None
    return [
        parse(line)
        for path in sorted(logs.directory.glob(f"{stream}*.jsonl"))
        for line in raw_lines(path)
    ]


def text(logs: ExperimentLogging, kind: str) -> str:
    """Read an experiment's text logs of a kind."""
    for handler in handlers():
        handler.flush()
    return "".join(path.read_text() for path in sorted(logs.directory.glob(f"{kind}_*.log")))


def messages(logs: ExperimentLogging) -> list[str]:
    """List the messages of a run's log stream."""
    return [line["message"] for line in lines(logs, "log")]


# ---- what is where -------------------------------------------------------------------------


def test_the_directory_is_laid_out_as_planned(start: Open, tmp_path: Path) -> None:
    """Six files with one time in their names, below log_dir/experiment_name, and run.json."""
    logs = start()
    logs.log_step(1, 0, {"loss": 2.5})
    with logs.performance.time_block("forward_pass"):
        pass
    logs.errors.log_error(ValueError("bad"))
    logs.close()
    assert logs.directory == tmp_path / "logs" / "exp0"
    names = sorted(path.name for path in logs.directory.iterdir() if path.is_file())
    stamps = {re.search(STAMP, name).group() for name in names if name != "run.json"}  # type: ignore[union-attr]
    assert len(stamps) == 1
    assert [re.sub(STAMP, "T", name) for name in names] == [
        "debug_T.log",
        "errors_T.jsonl",
        "log_T.jsonl",
        "main_T.log",
        "metrics_T.jsonl",
        "performance_T.jsonl",
        "run.json",
    ]


def test_text_logs_have_their_levels(start: Open) -> None:
    """The main log has INFO and up, debug everything, both in the plan's format."""
    logs = start(quiet())
    log = logs.logger("training.loop")
    log.info("Training step completed", step=100, loss=3.245)
    log.debug("forward_pass completed")
    assert "DEBUG" not in text(logs, "main")
    assert re.search(
        rf"^\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d \[INFO\] {ROOT}.training.loop: "
        r"Training step completed\n  step: 100\n  loss: 3.245$",
        text(logs, "main"),
        re.MULTILINE,
    )
    assert f"[DEBUG] {ROOT}.training.loop: forward_pass completed" in text(logs, "debug")


@pytest.mark.parametrize(("level", "kinds"), [("DEBUG", 2), ("INFO", 1), ("ERROR", 1)])
def test_file_level_decides_what_is_written(start: Open, level: str, kinds: int) -> None:
    """No debug log above DEBUG; messages below the level are in no file."""
    logs = start(quiet(file_level=level))
    for name in ("debug", "info", "warning", "error"):
        getattr(logs.logger(), name)(f"at {name}")
    number = logging.getLevelName(level)
    wanted = [
        f"at {name}"
        for name in ("debug", "info", "warning", "error")
        if logging.getLevelName(name.upper()) >= number
    ]
    assert [message for message in messages(logs) if message.startswith("at ")] == wanted
    assert len(list(logs.directory.glob("*.log"))) == kinds


def test_subsystems_have_levels_of_their_own(start: Open) -> None:
    """A noisy subsystem is quietened with all below it; closing takes the levels off again."""
    logs = start(quiet(subsystem_levels={"data": "WARNING"}))
    logs.logger("data.loading").info("noise")
    logs.logger("data").warning("worth reading")
    logs.logger("training").debug("still here")
    assert [m for m in messages(logs) if m != "Run started"] == ["worth reading", "still here"]
    logs.close()
    assert logging.getLogger(f"{ROOT}.data").level == logging.NOTSET


@pytest.mark.parametrize(("rank", "shown"), [(None, True), (0, True), (1, False)])
def test_rank_0_alone_writes_to_the_console(
    start: Open, capsys: pytest.CaptureFixture[str], rank: int | None, shown: bool
) -> None:
    """The console shows console_level and up of one rank; all ranks have their files."""
    config = quiet(console=True, console_level="WARNING")
    logs = start(config, rank=rank, world_size=2)
    logs.logger("trainer").info("not shown")
    logs.logger("trainer").warning("Loss is rising")
    assert "Loss is rising" in text(logs, "main")
    out = capsys.readouterr().out
    assert ("Loss is rising" in out) is shown
    assert "not shown" not in out


def test_other_ranks_do_not_sample_the_machine(start: Open) -> None:
    """Neither a sampler nor start and end messages for rank 1, and its files bear its label."""
    config = ExperimentConfig(experiment_name="exp0", logging=LoggingConfig(use_wandb=True))
    logs = start(config, rank=1, world_size=2)
    assert logs.system is None
    assert logs.wandb.enabled is False
    logs.close()
    assert messages(logs) == []
    assert [path.name.endswith(".r1.jsonl") for path in logs.directory.glob("*.jsonl")] == [True]


def test_the_start_shows_experiment_commit_and_device(start: Open) -> None:
    """As in the plan's appendix, with the directory and the number of the attempt."""
    logs = start(quiet())
    [line] = lines(logs, "log")
    assert (line["message"], line["logger"]) == ("Run started", f"{ROOT}.system")
    assert list(line["context"]) == ["experiment", "git_hash", "device", "directory", "attempt"]
    for field in ("experiment: exp0", "git_hash: ", "device: ", f"directory: {logs.directory}"):
        assert f"\n  {field}" in text(logs, "main")


def test_the_end_says_how_far_it_came(start: Open) -> None:
    """The last step, 0 included, and the number of errors."""
    logs = start(quiet())
    logs.log_step(0, 0, {"loss": 1.0})
    logs.errors.log_error(ValueError("x"))
    logs.close()
    last = lines(logs, "log")[-1]
    assert (last["message"], last["level"]) == ("Run ended", "INFO")
    assert (last["context"]["step"], last["context"]["errors"]) == (0, 1)


@pytest.mark.parametrize("directory", [None, "elsewhere"])
def test_the_directory_can_be_chosen(start: Open, tmp_path: Path, directory: str | None) -> None:
    """`directory` is the experiment's own; `log_dir` that of all; the configuration comes last."""
    logs = start(quiet(log_dir="configured"), log_dir="all", directory=directory)
    assert logs.directory == tmp_path / (directory or "all/exp0")
    logs.close()
    assert start(quiet(log_dir="configured")).directory == tmp_path / "configured" / "exp0"


def test_a_change_of_directory_moves_nothing(start: Open, tmp_path: Path) -> None:
    """A relative log_dir is that of the start, to the end."""
    logs = start(quiet(profile_performance=True))
    (tmp_path / "other").mkdir()
    os.chdir(tmp_path / "other")
    logs.logger().info("from there")
    logs.close()
    assert list((tmp_path / "other").iterdir()) == []
    assert list(logs.directory.glob("timing_*.json"))


def test_without_stamps_the_names_are_short(start: Open) -> None:
    """metrics.jsonl, and metrics.a1.jsonl for the next start; text logs have their time always."""
    logs = start(quiet(), stamped=False)
    logs.log_step(1, 0, {"loss": 1.0})
    logs.close()
    again = start(quiet(), stamped=False)
    again.log_step(2, 0, {"loss": 0.5})
    again.close()
    names = {path.name for path in logs.directory.glob("metrics*")}
    assert names == {"metrics.jsonl", "metrics.a1.jsonl"}
    assert "attempt: 1" in text(again, "main")
    assert list(logs.directory.glob("main_2*.log"))


# ---- configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        ExperimentConfig(experiment_name="e", logging=LoggingConfig(console_level="ERROR")),
        {"experiment_name": "e", "logging": {"console_level": "error"}},
        SimpleNamespace(experiment_name="e", logging=SimpleNamespace(console_level="ERROR")),
        SimpleNamespace(experiment_name="e", logging={"console_level": "ERROR"}),
    ],
    ids=["model", "mapping", "namespace", "mixed"],
)
def test_configurations_of_many_kinds(start: Open, config: object) -> None:
    """A pydantic model, a mapping or an object, and its section likewise; run.json has it."""
    logs = start(config)
    assert (logs.experiment_name, logs.config.console_level) == ("e", "ERROR")
    assert logs.config.max_log_files == 10
    logs.close()
    info = json.loads((logs.directory / "run.json").read_text())
    assert info["config"]["experiment_name"] == "e"


def test_a_name_is_enough(start: Open) -> None:
    """All defaults: W&B is off, the sampler on, and the name is the run's."""
    logs = start("exp0")
    assert logs.config == LoggingConfig()
    assert logs.wandb.enabled is False
    assert logs.system is not None
    assert logs.system.running
    logs.close()
    assert not logs.system.running
    assert json.loads((logs.directory / "run.json").read_text())["name"] == "exp0"


def test_the_environment_has_the_last_word(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the loggers: FASTLOG_USE_STRUCTURED_LOGGING is theirs."""
    monkeypatch.setenv("FASTLOG_USE_STRUCTURED_LOGGING", "false")
    monkeypatch.setenv("FASTLOG_RECORDER__RING", "memory")
    logs = start(quiet())
    assert logs.config.use_structured_logging is False
    assert logs.recorder.stats()["ring_path"] is None
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger(ROOT)
    root.addHandler(handler)
    try:
        logs.logger().info("plain", a=1)
    finally:
        root.removeHandler(handler)
    assert seen == ["plain | a=1"]


@pytest.mark.parametrize("config", [None, 7, {}, {"experiment_name": 5}, SimpleNamespace(name="x")])
def test_a_configuration_without_a_name_is_refused(start: Open, config: object) -> None:
    """The message says what is wanted and what came."""
    with pytest.raises(TypeError, match=r"must be the experiment's name, or have it as exp.* got"):
        start(config)


@pytest.mark.parametrize("name", ["", "  ", "a/b", "..", "a/", "/a"])
def test_a_name_that_names_no_directory_is_refused(start: Open, tmp_path: Path, name: str) -> None:
    """Nothing is made above or beside log_dir."""
    with pytest.raises(ValueError, match="experiment_name must"):
        start(name)
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_any_kind_may_have_a_directory_of_its_own(start: Open, tmp_path: Path) -> None:
    """With `directory` the name need not be a path's part."""
    assert start("team/exp", directory="here").directory == tmp_path / "here"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"console_levl": "INFO"},
            "logging.console_levl: unknown key. Did you mean 'console_level'?",
        ),
        ({"max_log_files": 0}, "logging.max_log_files: must be greater than or equal to 1, not 0."),
        (
            {"recorder": {"ring": "tape"}},
            "logging.recorder.ring: must be 'file', 'shm' or 'memory', not 'tape'.",
        ),
        (7, "logging: "),
    ],
)
def test_a_bad_section_is_refused(start: Open, tmp_path: Path, section: object, said: str) -> None:
    """One line for each mistake, before anything is made."""
    with pytest.raises(ConfigError) as caught:
        start({"experiment_name": "exp0", "logging": section})
    assert str(caught.value).startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_variable_is_refused(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable."""
    monkeypatch.setenv("FASTLOG_FILE_LEVEL", "loud")
    with pytest.raises(ConfigError, match="FASTLOG_FILE_LEVEL"):
        start()


def test_a_file_in_the_directory_s_place_is_refused(start: Open, tmp_path: Path) -> None:
    """The error names the file, and no logger is changed."""
    (tmp_path / "logs").write_text("mine")
    with pytest.raises(NotADirectoryError, match="logs is a file"):
        start()
    assert handlers() == []


# ---- loggers ---------------------------------------------------------------------------------


def test_loggers_are_structured_and_the_same(start: Open) -> None:
    """One StructuredLogger per subsystem, below root_logger."""
    logs = start(quiet(root_logger="my_lab"))
    log = logs.logger("training.loop")
    assert isinstance(log, StructuredLogger)
    assert log is logs.logger("training.loop")
    assert (log.name, logs.logger().name) == ("my_lab.training.loop", "my_lab")
    assert log.context["experiment"] == "exp0"
    log.info("hello")
    assert "my_lab.training.loop: hello" in (
        logging.getLogger("my_lab").handlers[0].flush()
        or next(logs.directory.glob("main_*.log")).read_text()
    )


def test_a_logger_s_name_is_a_text(start: Open) -> None:
    """Anything else is a mistake of the program."""
    with pytest.raises(TypeError, match="subsystem must be a str, got int"):
        start(quiet()).logger(5)  # type: ignore[arg-type]


def test_plain_loggers_of_the_hierarchy_are_recorded(start: Open) -> None:
    """A module that uses logging.getLogger() needs no change."""
    logs = start(quiet())
    logging.getLogger(f"{ROOT}.data.chunking").warning("Chunk %d is short", 7)
    assert messages(logs)[-1] == "Chunk 7 is short"
    assert "Chunk 7 is short" in text(logs, "main")


# ---- steps, epochs, blocks, errors -----------------------------------------------------------


def test_every_step_is_recorded_and_some_are_echoed(start: Open) -> None:
    """The interval is for the echo and the memory; the metrics file has all steps."""
    logs = start(quiet(log_metrics_every_n_steps=5, log_memory_every_n_steps=10))
    for step in range(1, 21):
        assert logs.log_step(step, step // 10, {"loss": 1.0 / step, "note": "x"}) is True
    recorded = lines(logs, "metrics")
    assert [line["step"] for line in recorded] == list(range(1, 21))
    assert recorded[9] == {**recorded[9], "epoch": 1, "metrics": {"loss": 0.1, "note": "x"}}
    said = messages(logs)
    assert [m for m in said if m.startswith("Step ")] == [
        "Step 5: loss=0.2000, note=x",
        "Step 10: loss=0.1000, note=x",
        "Step 15: loss=0.0667, note=x",
        "Step 20: loss=0.0500, note=x",
    ]
    memory = [line for line in lines(logs, "log") if line["message"].startswith("CPU memory - RSS")]
    assert [line["context"]["step"] for line in memory] == [10, 20]


@pytest.mark.parametrize(
    ("step", "metrics", "kind"),
    [("1", {"a": 1}, TypeError), (1, [1], TypeError), (1 << 63, {"a": 1}, OverflowError)],
)
def test_a_wrong_call_is_an_error_and_no_step(
    start: Open, step: Any, metrics: Any, kind: type[Exception]
) -> None:
    """The mistake is raised; what comes later does not refer to that step."""
    logs = start(quiet())
    with pytest.raises(kind):
        logs.log_step(step, 0, metrics)
    logs.close()
    assert "step" not in lines(logs, "log")[-1]["context"]


def test_epoch_summaries_go_to_the_metrics(start: Open) -> None:
    """As a line without a step, and to the log."""
    logs = start(quiet())
    assert logs.log_epoch_summary(2, {"avg_loss": 0.5}) is True
    assert lines(logs, "metrics")[0]["summary"] == {"avg_loss": 0.5}
    assert any("avg_loss" in message for message in messages(logs))
    with pytest.raises(TypeError):
        logs.log_epoch_summary("two", {})  # type: ignore[arg-type]


def test_the_sampler_knows_the_step(start: Open) -> None:
    """System metrics are of the newest step; before any they are messages."""
    config = quiet(system_metrics_every_s=0.01)
    logs = start(config)
    logs.log_step(7, 0, {"loss": 1.0})
    enough = threading.Event()
    for _ in range(1000):
        if any("system/rss_gb" in line["metrics"] for line in lines(logs, "metrics")):
            break
        enough.wait(0.01)
    sampled = [line for line in lines(logs, "metrics") if "system/rss_gb" in line["metrics"]]
    assert {line["step"] for line in sampled} == {7}


def test_an_exception_that_ends_the_run_is_recorded(start: Open) -> None:
    """At CRITICAL, with the step (0 is one), in file and log; it goes on, and all is closed."""
    logs = start(quiet())
    logs.log_step(0, 0, {"loss": 1.0})
    with pytest.raises(ZeroDivisionError), logs:
        _ = 1 / 0
    [error] = lines(logs, "errors")
    assert (error["error_type"], error["level"], error["step"]) == (
        "ZeroDivisionError",
        "CRITICAL",
        0,
    )
    assert error["context"] == {"step": 0}
    assert "ZeroDivisionError: division by zero" in text(logs, "main")
    last = lines(logs, "log")[-1]
    assert (last["message"], last["level"]) == ("Run stopped", "WARNING")
    assert last["context"]["reason"] == "ZeroDivisionError"
    assert logs.closed


def test_an_exception_before_the_first_step_has_no_step(start: Open) -> None:
    """Then the error line has none."""
    logs = start(quiet())
    with pytest.raises(ValueError, match="early"), logs:
        raise ValueError("early")
    [error] = lines(logs, "errors")
    assert "step" not in error
    assert error["context"] == {}


def test_an_exception_is_recorded_once(start: Open) -> None:
    """One that was tracked where it was caught is not recorded again on its way out."""
    logs = start(quiet())

    def save() -> None:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"), logs, logs.errors.capture({"operation": "save"}):
        save()
    [line] = lines(logs, "errors")
    assert line["context"] == {"operation": "save"}


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_stop_is_no_error(start: Open, kind: type[BaseException]) -> None:
    """Ctrl-C leaves a message, no line in the errors."""
    logs = start(quiet())
    with pytest.raises(kind), logs:
        raise kind
    assert lines(logs, "errors") == []
    assert lines(logs, "log")[-1]["context"]["reason"] == kind.__name__


def test_profiling_leaves_a_report_and_a_trace(start: Open) -> None:
    """timing_<time>.json and trace_<time>.json, with profile_performance alone."""
    logs = start(quiet(profile_performance=True))
    with logs.performance.time_block("step"), logs.performance.time_block("forward"):
        pass
    logs.close()
    [report] = logs.directory.glob("timing_*.json")
    assert set(orjson.loads(report.read_bytes())) == {"step", "forward"}
    [trace] = logs.directory.glob("trace_*.json")
    names = {event["name"] for event in orjson.loads(trace.read_bytes())["traceEvents"]}
    assert {"step", "forward"} <= names
    plain = start(ExperimentConfig(experiment_name="plain", logging=quiet().logging))
    plain.close()
    assert list(plain.directory.glob("*_*.json")) == []


def test_a_trace_that_cannot_be_written_stops_nobody(
    start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says so."""
    from foundry_fastlog.export import perfetto as trace

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(trace, "export_chrome_trace", full)
    logs = start(quiet(profile_performance=True))
    assert logs.close() is True
    [line] = [line for line in lines(logs, "log") if line["message"] == "Trace not written"]
    assert line["context"]["error"] == "No space left on device"


# ---- W&B -------------------------------------------------------------------------------------


class FakeWandB:
    """Stands for a WandBLogger that is on."""

    enabled = True

    def __init__(self, config: object = None, enabled: bool = True, **options: Any) -> None:
        """Note how it was made."""
        self.enabled = enabled
        self.config, self.options = config, options
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.system: list[int] = []
        self.ends: list[int] = []

    def log_metrics(self, step: int, metrics: dict[str, Any]) -> bool:
        """Keep a row."""
        self.rows.append((step, dict(metrics)))
        return True

    def log_system_metrics(self, step: int) -> bool:
        """Keep a step."""
        self.system.append(step)
        return True

    def finish(self, exit_code: int = 0) -> None:
        """Keep the exit code."""
        self.ends.append(exit_code)


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the double in WandBLogger's place."""
    from foundry_fastlog.sinks import wandb as module

    monkeypatch.setattr(module, "WandBLogger", FakeWandB)


@pytest.mark.parametrize(
    ("use", "log_to", "on"),
    [(False, True, False), (True, False, False), (True, True, True)],
)
@pytest.mark.usefixtures("fake_wandb")
def test_wandb_is_on_when_it_is_asked_for(start: Open, use: bool, log_to: bool, on: bool) -> None:
    """use_wandb and log_to_wandb, with the project, the name and the whole configuration."""
    config = quiet(use_wandb=use, log_to_wandb=log_to, wandb_project="p")
    logs = start(config)
    fake: Any = logs.wandb
    assert fake.enabled is on
    if on:
        assert fake.config is config
        assert fake.options == {"project": "p", "name": "exp0"}


@pytest.mark.usefixtures("fake_wandb")
def test_wandb_gets_steps_at_the_interval(start: Open) -> None:
    """Metrics each 5th step here, the machine's figures each 10th, summaries under epoch/."""
    logs = start(quiet(use_wandb=True, log_metrics_every_n_steps=5, log_memory_every_n_steps=10))
    fake: Any = logs.wandb
    logs.log_epoch_summary(0, {"before": 1})
    for step in range(1, 11):
        logs.log_step(step, 0, {"loss": float(step)})
    logs.log_epoch_summary(0, {"avg_loss": 5.5})
    assert fake.rows == [
        (0, {"epoch": 0, "epoch/before": 1}),
        (5, {"loss": 5.0}),
        (10, {"loss": 10.0}),
        (10, {"epoch": 0, "epoch/avg_loss": 5.5}),
    ]
    assert fake.system == [10]


@pytest.mark.usefixtures("fake_wandb")
def test_wandb_learns_how_the_run_ended(start: Open) -> None:
    """Exit code 1 when an exception ended it; once, however often close() is called."""
    good, bad = start(quiet(use_wandb=True)), None
    fake: Any = good.wandb
    good.close()
    good.close()
    assert fake.ends == [0]
    bad = start({"experiment_name": "bad", "logging": {"use_wandb": True, "console": False}})
    with pytest.raises(ValueError, match="x"), bad:
        raise ValueError("x")
    ends: Any = bad.wandb
    assert ends.ends == [1]


@pytest.mark.usefixtures("fake_wandb")
def test_wandb_of_a_bare_name_has_no_settings(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment can ask for W&B where there is only a name."""
    monkeypatch.setenv("FASTLOG_USE_WANDB", "true")
    fake: Any = start("exp0").wandb
    assert (fake.enabled, fake.config) == (True, None)


# ---- the life of it ---------------------------------------------------------------------------


def test_closing_twice_is_once(start: Open) -> None:
    """The second close() adds nothing; calls after it are refused or go nowhere, without a fuss."""
    logs = start(quiet(profile_performance=True))
    assert not logs.closed
    assert logs.close() is True
    before = {path: path.read_bytes() for path in logs.directory.rglob("*") if path.is_file()}
    assert logs.close() is True
    assert logs.closed
    assert logs.log_step(1, 0, {"loss": 1.0}) is False
    logs.logger("trainer").debug("too late")
    with logs.performance.time_block("late"):
        pass
    assert {p: p.read_bytes() for p in logs.directory.rglob("*") if p.is_file()} == before


def test_ctrl_c_while_it_closes_leaves_no_handlers(
    start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is interrupted, the loggers are put back and the data is written."""

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    logs = start(quiet())
    logs.log_step(1, 0, {"loss": 1.0})
    monkeypatch.setattr(logs, "_say_how_it_ended", interrupted)
    with pytest.raises(KeyboardInterrupt):
        logs.close()
    assert handlers() == []
    assert logs.recorder.closed
    assert [line["step"] for line in lines(logs, "metrics")] == [1]


def test_a_place_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    """Training goes on; the fault is told on stderr, once for each kind of file."""
    code = (
        "import sys; from foundry_fastlog import ExperimentLogging\n"
        "config = {'experiment_name': 'e', 'logging': {'console': False,"
        " 'profile_performance': True, 'recorder': {'close_timeout_s': 0.1}}}\n"
        "with ExperimentLogging(config, log_dir='/proc/nowhere') as logs:\n"
        "    logs.logger().info('x')\n"
        "    logs.log_step(1, 0, {'loss': 1.0})\n"
        "    logs.log_epoch_summary(0, {'loss': 1.0})\n"
        "    logs.errors.log_error(ValueError('x'))\n"
        "print('trained')\n"
    )
    done = run_python(code)
    assert done.stdout == "trained\n"
    assert "Traceback" not in done.stderr
    assert done.stderr.count("could not create directory") == 1


def test_closing_puts_the_loggers_back(start: Open) -> None:
    """Handlers, level and propagation of the root logger, and hooks, are what they were."""
    root = logging.getLogger(ROOT)
    root.setLevel(logging.ERROR)
    try:
        hook = sys.excepthook
        logs = start(quiet())
        logs.errors.install_hooks()
        assert root.level == logging.DEBUG
        logs.close()
        assert (root.level, root.propagate, handlers()) == (logging.ERROR, True, [])
        assert sys.excepthook is hook
    finally:
        root.setLevel(logging.NOTSET)


def test_a_program_that_does_not_close_loses_nothing(tmp_path: Path) -> None:
    """Its end closes: the text logs, W&B's and the profile's files are complete."""
    code = (
        "import sys; from foundry_fastlog import ExperimentLogging\n"
        "logs = ExperimentLogging({'experiment_name': 'e', 'logging': {'console': False,"
        " 'profile_performance': True}}, log_dir=sys.argv[1])\n"
        "logs.log_step(3, 0, {'loss': 1.0})\n"
    )
    run_python(code, tmp_path)
    run = tmp_path / "e"
    assert "Run ended\n  step: 3\n" in next(run.glob("main_*.log")).read_text()
    assert list(run.glob("timing_*.json"))
    assert json.loads((run / "run.json").read_text())["attempts"][0]["ended"] is not None


@pytest.mark.parametrize(
    ("last", "said", "code"),
    [
        ("raise OSError('No space left on device')", "Run stopped\n  reason: OSError\n", 1),
        ("raise KeyboardInterrupt", "Run stopped\n  reason: KeyboardInterrupt\n", 1),
        ("sys.exit(3)", "Run ended\n", 0),
        ("sys.ps1 = '>>> '; raise OSError", "Run ended\n", 0),
    ],
)
def test_a_program_that_dies_without_closing_says_why(
    tmp_path: Path, last: str, said: str, code: int
) -> None:
    """W&B learns it too; in an interactive session the last exception ended nothing."""
    script = (
        "import sys; from types import SimpleNamespace\n"
        "from foundry_fastlog import ExperimentLogging\n"
        "logs = ExperimentLogging({'experiment_name': 'e', 'logging': {'console': False}},"
        " log_dir=sys.argv[1])\n"
        "logs.wandb = SimpleNamespace(finish=lambda exit_code: print('exit code', exit_code))\n"
    )
    done = run_python(script + last, tmp_path, returncode=None)
    assert said in next((tmp_path / "e").glob("main_*.log")).read_text()
    assert done.stdout == f"exit code {code}\n"


def test_an_experiment_is_opened_once(start: Open, tmp_path: Path) -> None:
    """A second __init__ is an error that changes nothing."""
    logs = start("exp0")
    with pytest.raises(RuntimeError, match=r"was opened before, in .*exp0: make a new one"):
        logs.__init__("exp1", log_dir=tmp_path)  # type: ignore[misc]
    assert (logs.experiment_name, logs.closed) == ("exp0", False)
    assert not (tmp_path / "exp1").exists()


def test_the_same_experiment_is_open_once(start: Open) -> None:
    """The second is refused with advice, and the first goes on undisturbed."""
    logs = start(quiet())
    with pytest.raises(ValueError, match=r"already logs to .*exp0: use that Exp.*or close\(\) it"):
        start(quiet())
    logs.logger().info("still here")
    assert messages(logs)[-1] == "still here"


def test_a_restart_adds_files_and_overwrites_none(
    start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start's files keep every byte, and the reader shows both starts as one run."""
    logs = start(quiet())
    for step in (1, 2, 3):
        logs.log_step(step, 0, {"loss": float(step)})
    logs.close()
    before = {path: path.read_bytes() for path in logs.directory.glob("*.jsonl")}
    monkeypatch.setattr(experiment, "timestamp", lambda: "2099-01-01_00-00-00")
    again = start(quiet())
    for step in (3, 4):
        again.log_step(step, 0, {"loss": step * 10.0})
    again.close()
    assert {path: path.read_bytes() for path in before} == before
    steps = {
        line["step"]: line["metrics"]["loss"] for line in read_run(logs.directory).lines("metrics")
    }
    assert steps == {1: 1.0, 2: 2.0, 3: 30.0, 4: 40.0}
    assert len(list(logs.directory.glob("main_*.log"))) == 2
    assert [
        line["context"]["attempt"] for line in lines(again, "log") if "attempt" in line["context"]
    ] == [0, 1]


def test_a_restart_within_the_second_adds_files_too(start: Open) -> None:
    """Then the names differ by the attempt."""
    names = []
    for step in range(3):
        logs = start(quiet())
        logs.log_step(step, 0, {"loss": 1.0})
        names.append({path.name for path in logs.recorder.files()})
        logs.close()
    assert not names[0] & names[1]
    assert sorted(line["step"] for line in lines(logs, "metrics")) == [0, 1, 2]


def test_experiments_may_follow_each_other(start: Open) -> None:
    """Nothing of the second goes to the first."""
    for name in ("one", "two"):
        with start(ExperimentConfig(experiment_name=name, logging=quiet().logging)) as logs:
            logs.logger("trainer").info(f"I am {name}")
        assert messages(logs) == ["Run started", f"I am {name}", "Run ended"]


@pytest.mark.parametrize("inner_first", [True, False])
def test_the_experiment_opened_last_gets_the_messages(start: Open, inner_first: bool) -> None:
    """When it is closed the one before gets them again, at its own levels; data is kept apart."""
    outer = start(ExperimentConfig(experiment_name="outer", logging=quiet().logging))
    inner_section = quiet(file_level="WARNING", subsystem_levels={"data": "ERROR"}).logging
    inner = start(ExperimentConfig(experiment_name="inner", logging=inner_section))
    outer.logger("trainer").warning("while both are open")
    outer.log_step(1, 0, {"loss": 1.0})
    inner.log_step(2, 0, {"loss": 2.0})
    first, second = (inner, outer) if inner_first else (outer, inner)
    first.close()
    second.logger("data").debug("at the end")
    second.close()
    assert messages(inner) == ["while both are open"]
    wanted = ["Run started", "at the end", "Run ended"] if inner_first else ["Run started"]
    assert [m for m in messages(outer) if not m.startswith("Step")] == wanted
    assert [line["step"] for line in lines(outer, "metrics")] == [1]
    assert [line["step"] for line in lines(inner, "metrics")] == [2]
    assert handlers() == []
    assert logging.getLogger(ROOT).level == logging.NOTSET


def test_experiments_with_roots_of_their_own_do_not_meet(start: Open) -> None:
    """Each root_logger has its experiment."""
    first = start(ExperimentConfig(experiment_name="a", logging=quiet(root_logger="lab_a").logging))
    second = start(
        ExperimentConfig(experiment_name="b", logging=quiet(root_logger="lab_b").logging)
    )
    first.logger().info("to a")
    second.logger().info("to b")
    assert (messages(first)[1:], messages(second)[1:]) == (["to a"], ["to b"])


# ---- workers -----------------------------------------------------------------------------------


def test_a_forked_worker_logs(start: Open) -> None:
    """Its records are in files of its own, its messages in the same text log, once each."""
    logs = start(quiet(profile_performance=True))
    logs.logger("trainer").info("from the parent")

    def work() -> None:
        logs.logger("data.loading").info("from the worker", worker=0)
        logs.log_step(1, 0, {"loaded": 5})
        logs.close()

    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert not logs.closed
    assert list(logs.directory.glob("timing_*")) == []  # the worker's close() is not the run's
    logs.log_step(2, 0, {"loss": 1.0})
    logs.close()
    shown = text(logs, "main")
    assert [shown.count(m) for m in ("from the parent", "from the worker", "Run ended")] == [
        1,
        1,
        1,
    ]
    assert len([m for m in messages(logs) if m == "from the worker"]) == 1
    assert sorted(line["step"] for line in lines(logs, "metrics")) == [1, 2]
    assert any(re.search(r"\.w\d+\.jsonl$", path.name) for path in logs.directory.iterdir())


def test_pickling_in_one_process_finds_the_object(start: Open) -> None:
    """A copy is the thing itself: two would be two writers of one story."""
    logs = start(quiet())
    assert pickle.loads(pickle.dumps(logs)) is logs
    assert copy.deepcopy(logs) is logs
    log = pickle.loads(pickle.dumps(logs.logger("data").bind(a=1)))
    log.info("from a copy")
    assert lines(logs, "log")[-1]["context"]["a"] == 1


def test_an_unpickled_one_is_a_worker(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was not opened it logs to the same files, and neither starts nor ends the run."""
    logs = start(quiet(profile_performance=True))
    data = pickle.dumps(logs.logger("data"))
    monkeypatch.setattr(experiment, "_present", type(experiment._present)())
    log = pickle.loads(data)
    worker = log._experiment.logs
    assert worker is not logs
    assert pickle.loads(pickle.dumps(logs)) is worker
    assert (worker.system, worker.wandb.enabled, worker.directory) == (None, False, logs.directory)
    log.info("from the worker")
    worker.close()
    assert messages(logs) == ["Run started", "from the worker"]
    assert text(logs, "main").count("from the worker") == 1
    assert list(logs.directory.glob("timing_*")) == []


def test_a_closed_one_cannot_be_sent(start: Open) -> None:
    """It says so; its loggers can, and are plain loggers elsewhere."""
    logs = start(quiet())
    logs.close()
    with pytest.raises(RecorderClosedError, match="cannot be sent"):
        pickle.dumps(logs)
    log = pickle.loads(pickle.dumps(logs.logger("data")))
    assert (log.name, log._experiment.logs) == (f"{ROOT}.data", None)
    assert pickle.loads(pickle.dumps(log)).name == f"{ROOT}.data"


def test_it_says_what_it_is(start: Open) -> None:
    """Name, directory and state."""
    logs = start(quiet())
    assert repr(logs) == f"<ExperimentLogging 'exp0' in {str(logs.directory)!r} open>"
    logs.close()
    assert repr(logs).endswith(" closed>")


def test_a_text_log_that_hangs_does_not_keep_the_files_open(
    start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder is closed before anything waits for text logs or the console."""
    logs = start()
    closed: list[bool] = []
    close = TextHandler.close

    def observe(handler: TextHandler) -> None:
        closed.append(logs.recorder.closed)
        close(handler)

    monkeypatch.setattr(TextHandler, "close", observe)
    assert logs.close()
    assert set(closed) == {True}
