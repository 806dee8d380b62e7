"""ExperimentLogging: everything of a run from one configuration."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import orjson
import pytest
from logging_support import ExperimentConfig, run_processes
from recorded import eventually, parse, raw_lines, run_python

from foundry_fastlog import (
    ConfigError,
    ExperimentLogging,
    LoggingConfig,
    RecorderClosedError,
    StructuredLogger,
    get_latest_log,
    open_run,
    read_run,
    setup_logging,
)
from foundry_fastlog.components import experiment
from foundry_fastlog.export import perfetto
from foundry_fastlog.messages import setup
from foundry_fastlog.messages.text_handlers import TextHandler
from foundry_fastlog.recording import recorder
from foundry_fastlog.run import starts

ROOT = "model_foundry"
STAMP = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"
Open = Callable[..., ExperimentLogging]
Patch = pytest.MonkeyPatch


@pytest.fixture
def start(tmp_path: Path, monkeypatch: Patch) -> Iterator[Open]:
    """Opens experiments below tmp_path/logs and closes them at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(experiment, "WandBLogger", FakeWandB)
    made: list[ExperimentLogging] = []

    def make(config: object = "exp0", **options: Any) -> ExperimentLogging:
        made.append(ExperimentLogging(config, **options))
        return made[-1]

    yield make
    for logs in reversed(made):
        logs.close()
    assert handlers() == []
    logging.getLogger(ROOT).setLevel(logging.NOTSET)


def handlers() -> list[logging.Handler]:
    """List the handlers of this package on the root logger; pytest has its own there."""
    return [h for h in logging.getLogger(ROOT).handlers if hasattr(h, "fastlog_kind")]


def quiet(name: str = "exp0", **options: Any) -> ExperimentConfig:
    """A configuration without the console and the sampler, which most tests do not look at."""
    section = {"console": False, "system_metrics_every_s": 0, **options}
    return ExperimentConfig(experiment_name=name, logging=LoggingConfig(**section))


def lines(logs: ExperimentLogging, stream: str) -> list[dict[str, Any]]:
    """Read all lines of a stream of a run, strictly."""
    logs.recorder.flush() if not logs.recorder.closed else None
    paths = sorted(logs.directory.glob(f"{stream}*.jsonl"))
    return [parse(line) for path in paths for line in raw_lines(path)]


def text(logs: ExperimentLogging, kind: str) -> str:
    for handler in handlers():
        handler.flush()
    return "".join(path.read_text() for path in sorted(logs.directory.glob(f"{kind}_*.log")))


def messages(logs: ExperimentLogging) -> list[str]:
    """List the messages of a run, but those of the sampler, which come when they will."""
    found = [line["message"] for line in lines(logs, "log")]
    return [message for message in found if message != "System metrics"]


def steps(logs: ExperimentLogging) -> list[int]:
    return [line["step"] for line in lines(logs, "metrics")]


def test_a_run_from_its_start_to_its_end(start: Open, tmp_path: Path) -> None:
    """The layout, the formats and the messages are the plan's."""
    logs = start(quiet(profile_performance=True))
    (tmp_path / "other").mkdir()
    os.chdir(tmp_path / "other")  # moves nothing
    assert repr(logs) == f"<ExperimentLogging 'exp0' in {str(logs.directory)!r} open>"
    assert logs.directory == tmp_path / "logs" / "exp0"
    [line] = lines(logs, "log")
    assert (line["message"], line["logger"]) == ("Run started", f"{ROOT}.system")
    assert list(line["context"]) == [
        "experiment",
        "git_hash",
        "device",
        "directory",
        "attempt",
        "utc_offset",
    ]
    for field in ("experiment: exp0", "git_hash: ", "device: ", f"directory: {logs.directory}"):
        assert f"\n  {field}" in text(logs, "main")
    log = logs.logger("training.loop")
    log.info("Training step completed", step=100, loss=3.245)
    log.debug("forward_pass completed")
    logging.getLogger(f"{ROOT}.data.chunking").warning("Chunk %d is short", 7)  # a plain logger
    assert messages(logs)[-1] == "Chunk 7 is short"
    main = text(logs, "main")
    assert "DEBUG" not in main
    assert "Chunk 7 is short" in main
    wanted = rf"\[INFO\] {ROOT}.training.loop: Training step completed\n  step: 100\n  loss: 3.245$"
    assert re.search(rf"^\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d {wanted}", main, re.MULTILINE)
    assert f"[DEBUG] {ROOT}.training.loop: forward_pass completed" in text(logs, "debug")
    logs.log_step(0, 0, {"loss": 2.5})
    with logs.performance.time_block("step"), logs.performance.time_block("forward"):
        pass
    assert logs.log_epoch_summary(0, {"loss": 2.5}) is True
    logs.errors.log_error(ValueError("bad"))
    assert not logs.closed
    assert logs.close() is True
    assert logs.closed
    assert repr(logs).endswith(" closed>")
    last = lines(logs, "log")[-1]
    assert (last["message"], last["level"]) == ("Run ended", "INFO")
    assert (last["context"]["step"], last["context"]["errors"]) == (0, 1)
    files = {path: path.read_bytes() for path in logs.directory.rglob("*") if path.is_file()}
    names = sorted(path.name for path in files)
    assert len({stamp for name in names for stamp in re.findall(STAMP, name)}) == 1
    assert " ".join(re.sub(STAMP, "T", name) for name in names) == (
        "000000.end.json 000000.json debug_T.log errors_T.jsonl log_T.jsonl main_T.log "
        "metrics_T.jsonl performance_T.jsonl run.json timing_T.json trace_T.json"
    )
    [report], [trace] = logs.directory.glob("timing_*.json"), logs.directory.glob("trace_*.json")
    assert set(orjson.loads(files[report])) == {"step", "forward"}
    events = orjson.loads(files[trace])["traceEvents"]
    assert {"step", "forward"} <= {event["name"] for event in events}
    assert logs.close() is True  # again: nothing is added, and what comes later goes nowhere
    assert logs.log_step(1, 0, {"loss": 1.0}) is False
    logs.logger("trainer").debug("too late")
    with logs.performance.time_block("late"):
        pass
    assert {p: p.read_bytes() for p in logs.directory.rglob("*") if p.is_file()} == files
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize(("rank", "first"), [(None, True), (0, True), (1, False)])
def test_rank_0_alone_has_console_sampler_and_wandb(
    start: Open, capsys: pytest.CaptureFixture[str], rank: int | None, first: bool
) -> None:
    """And says when the run starts and ends; all ranks have files, with their labels."""
    config = quiet(console=True, console_level="WARNING", use_wandb=True, system_metrics_every_s=99)
    logs = start(config, rank=rank, world_size=2)
    assert (logs.system is not None, logs.wandb.enabled) == (first, first)
    said = ["not shown", "Loss is rising"]
    logs.logger("trainer").info(said[0])
    logs.logger("trainer").warning(said[1])
    logs.close()
    err = capsys.readouterr().err
    assert [message in err for message in said] == [False, first]
    assert said[1] in text(logs, "main")
    assert messages(logs) == (["Run started", *said, "Run ended"] if first else said)
    labelled = {path.name.endswith(".r1.jsonl") for path in logs.directory.glob("*.jsonl")}
    assert labelled == {rank == 1}


def test_the_directory_can_be_chosen(start: Open, tmp_path: Path) -> None:
    def place(name: str, **options: str) -> str:
        logs = start(quiet(name, log_dir="configured"), **options)
        return str(logs.directory.relative_to(tmp_path))

    assert place("exp0") == "configured/exp0"
    assert place("exp0", log_dir="all") == "all/exp0"
    assert place("exp0", log_dir="all", directory="elsewhere") == "elsewhere"
    assert place("team/exp", directory="here") == "here"  # the name need not be a path's part


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
    logs = start(config)
    assert (logs.experiment_name, logs.config.console_level) == ("e", "ERROR")
    assert logs.config.max_log_files == 10
    logs.close()
    info = json.loads((logs.directory / "run.json").read_text())
    assert info["config"]["experiment_name"] == "e"


def test_a_name_is_enough(start: Open) -> None:
    """All defaults: W&B and profiling are off, the sampler on, and the name is the run's."""
    logs = start("exp0")
    assert logs.config == LoggingConfig()
    assert logs.wandb.enabled is False
    assert logs.system is not None
    assert logs.system.running
    logs.close()
    assert not logs.system.running
    assert list(logs.directory.glob("*_*.json")) == []
    assert json.loads((logs.directory / "run.json").read_text())["name"] == "exp0"


def test_the_environment_has_the_last_word(start: Open, monkeypatch: Patch) -> None:
    monkeypatch.setenv("FASTLOG_USE_STRUCTURED_LOGGING", "false")
    monkeypatch.setenv("FASTLOG_RECORDER__RING", "memory")
    logs = start(quiet())
    assert logs.config.use_structured_logging is False
    assert logs.recorder.stats()["ring_path"] is None
    seen: list[str] = []
    see = [lambda record: seen.append(record.getMessage())]
    monkeypatch.setattr(logging.getLogger(ROOT), "filters", see)
    logs.logger().info("plain", a=1)
    assert seen == ["plain | a=1"]


NO_NAME = ".*must be the experiment's name, or have it as exp.* got"
NO_DIRECTORY = ".*experiment_name must"
BAD_RING = "logging.recorder.ring: must be 'file', 'shm' or 'memory', not 'tape'."
BAD_SECTIONS = [
    ({"console_levl": 1}, "logging.console_levl: unknown key. Did you mean 'console_level'?"),
    ({"max_log_files": 0}, "logging.max_log_files: must be greater than or equal to 1, not 0."),
    ({"recorder": {"ring": "tape"}}, BAD_RING),
    (7, "logging: "),
]


@pytest.mark.parametrize(
    ("config", "kind", "said"),
    [
        *((name, ValueError, NO_DIRECTORY) for name in ("", "  ", "..", "a/../b", "/a")),
        *((bad, TypeError, NO_NAME) for bad in (None, 7, {}, SimpleNamespace(name="x"))),
        ({"experiment_name": 5}, TypeError, NO_NAME),
        *(
            ({"experiment_name": "exp0", "logging": section}, ConfigError, re.escape(said))
            for section, said in BAD_SECTIONS
        ),
    ],
)
def test_a_bad_configuration_is_refused(
    start: Open, tmp_path: Path, config: object, kind: type[Exception], said: str
) -> None:
    """Before anything is made, also above or beside log_dir."""
    with pytest.raises(kind) as caught:
        start(config)
    assert re.match(said, str(caught.value))
    assert list(tmp_path.iterdir()) == []


def test_names_of_experiments_may_nest(start: Open, tmp_path: Path) -> None:
    """As those of sweeps; the text log of a single logger is in the innermost directory."""
    logs = start(quiet("sweep/lr=1e-3"))
    assert logs.directory == tmp_path / "logs" / "sweep" / "lr=1e-3"
    assert logs.recorder.flush()
    assert read_run(logs.directory).info["name"] == "sweep/lr=1e-3"
    logger = setup_logging("test.nested", "a/b", config=LoggingConfig(console=False))
    logger.info("here")
    logger.handlers[0].close()
    latest = get_latest_log("a/b")
    assert latest is not None
    assert (latest.parent, latest.name[:2]) == (Path("logs/a/b"), "b_")


def test_a_directory_as_in_a_shell(start: Open, tmp_path: Path, monkeypatch: Patch) -> None:
    """``~`` and variables; one that is not set is named."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("NOWHERE", raising=False)
    assert start(quiet("a", log_dir="~/logs")).directory == tmp_path / "home/logs/a"
    assert start(quiet("a", log_dir="${SCRATCH}/x")).directory == tmp_path / "scratch/x/a"
    assert start(quiet("b"), log_dir="$SCRATCH").directory == tmp_path / "scratch/b"
    for wrong in ("$NOWHERE/logs", "${NOWHERE}"):
        with pytest.raises(ValueError, match="environment variable NOWHERE is not set"):
            start(quiet(log_dir=wrong))


STAGES = [
    *((experiment, name) for name in ("attach_experiment", "MetricsLogger", "PerformanceLogger")),
    *((experiment, name) for name in ("ErrorTracker", "on_sigterm", "SystemMetrics")),
    *((setup, name) for name in ("TextFileHandler", "RecorderHandler", "apply_levels")),
    *((recorder, name) for name in ("RunFile", "_prepare_device")),
]


@pytest.mark.parametrize(("place", "name"), STAGES)
def test_a_set_up_that_fails_leaves_nothing_open(
    start: Open, monkeypatch: Patch, place: Any, name: str
) -> None:
    """As by Ctrl-C in a notebook, where nobody has the object to close it: the cell runs again."""
    config = quiet(system_metrics_every_s=60)
    before = start(quiet("before"))
    with monkeypatch.context() as patch:
        patch.setattr(place, name, Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ExperimentLogging(config)
    before.logger().info("mine")
    assert messages(before)[-1] == "mine"
    logs = start(config)
    assert logs.recorder.attempt == 1
    logs.logger().info("again")
    assert "again" in messages(logs)
    assert len(handlers()) == 3
    assert read_run(logs.directory).report_starts()[0].state == "signal"


def test_what_is_in_the_way_is_named(start: Open, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("FASTLOG_FILE_LEVEL", "loud")
    with pytest.raises(ConfigError, match="FASTLOG_FILE_LEVEL"):
        start()
    monkeypatch.delenv("FASTLOG_FILE_LEVEL")
    (tmp_path / "logs").write_text("mine")
    with pytest.raises(NotADirectoryError, match="logs is a file"):
        start()
    assert handlers() == []


def test_loggers_are_structured_and_the_same(start: Open) -> None:
    logs = start(quiet(root_logger="my_lab"))
    log = logs.logger("training.loop")
    assert isinstance(log, StructuredLogger)
    assert log is logs.logger("training.loop")
    assert (log.name, logs.logger().name) == ("my_lab.training.loop", "my_lab")
    assert log.context["experiment"] == "exp0"
    log.info("hello")
    logging.getLogger("my_lab").handlers[0].flush()
    assert "my_lab.training.loop: hello" in next(logs.directory.glob("main_*.log")).read_text()
    with pytest.raises(TypeError, match="subsystem must be a str, got int"):
        logs.logger(5)  # type: ignore[arg-type]


class FakeWandB:
    """Stands for a WandBLogger, and keeps what it gets."""

    def __init__(self, config: object = None, enabled: bool = True, **options: Any) -> None:
        self.enabled, self.config, self.options = enabled, config, options
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.system: list[int] = []
        self.ends: list[int] = []
        self.log_system_metrics = self.system.append

    def log_metrics(self, step: int, metrics: dict[str, Any]) -> None:
        self.rows.append((step, dict(metrics)))

    def finish(self, exit_code: int = 0) -> None:
        self.ends.append(exit_code)


def test_steps_and_summaries_go_where_the_intervals_say(start: Open) -> None:
    """The intervals are for the echo, W&B and the memory; the metrics file has all steps."""
    logs = start(quiet(use_wandb=True, log_metrics_every_n_steps=5, log_memory_every_n_steps=10))
    assert logs.log_epoch_summary(0, {"before": 1}) is True
    for step in range(1, 21):
        assert logs.log_step(step, step // 10, {"loss": 1.0 / step, "note": "x"}) is True
    assert logs.log_epoch_summary(2, {"avg_loss": 0.5}) is True
    before, *recorded, after = lines(logs, "metrics")
    assert (before["summary"], after["summary"]) == ({"before": 1}, {"avg_loss": 0.5})
    assert [line["step"] for line in recorded] == list(range(1, 21))
    assert recorded[9] == {**recorded[9], "epoch": 1, "metrics": {"loss": 0.1, "note": "x"}}
    said = messages(logs)
    echo = zip((5, 10, 15, 20), ("0.2000", "0.1000", "0.0667", "0.0500"), strict=True)
    assert [m for m in said if "Step " in m] == [f"Step {n}: loss={x}, note=x" for n, x in echo]
    assert any("avg_loss" in message for message in said)
    memory = [line for line in lines(logs, "log") if line["message"].startswith("CPU memory - RSS")]
    assert [line["context"]["step"] for line in memory] == [10, 20]
    fake: Any = logs.wandb
    assert fake.rows == [
        (0, {"epoch": 0, "epoch/before": 1}),
        *((step, {"loss": 1.0 / step, "note": "x"}) for step in (5, 10, 15, 20)),
        (20, {"epoch": 2, "epoch/avg_loss": 0.5}),
    ]
    assert fake.system == [10, 20]


@pytest.mark.parametrize(("use", "log_to"), [(False, True), (True, False), (True, True)])
def test_wandb_is_on_when_it_is_asked_for(start: Open, use: bool, log_to: bool) -> None:
    """use_wandb and log_to_wandb, with the project, the name and the whole configuration."""
    config = quiet(use_wandb=use, log_to_wandb=log_to, wandb_project="p")
    fake: Any = start(config).wandb
    assert fake.enabled is (use and log_to)
    if fake.enabled:
        assert fake.config is config
        assert fake.options == {"project": "p", "name": "exp0"}


def test_wandb_learns_how_the_run_ended(start: Open, monkeypatch: Patch) -> None:
    """Once, however often close() is called; a bare name has no settings for it."""
    monkeypatch.setenv("FASTLOG_USE_WANDB", "true")
    good: Any = start("exp0")
    assert (good.wandb.enabled, good.wandb.config) == (True, None)
    good.close()
    good.close()
    assert good.wandb.ends == [0]
    assert messages(good) == ["Run started", "Run ended"]
    bad: Any = start(quiet("bad"))
    with pytest.raises(KeyboardInterrupt), bad:
        raise KeyboardInterrupt
    assert bad.wandb.ends == [1]
    assert messages(bad) == ["Run started", "Run stopped"]


@pytest.mark.parametrize(
    ("step", "metrics", "kind"),
    [("1", {"a": 1}, TypeError), (1, [1], TypeError), (1 << 63, {"a": 1}, OverflowError)],
)
def test_a_wrong_call_is_no_step(start: Open, step: Any, metrics: Any, kind: Any) -> None:
    logs = start(quiet())
    with pytest.raises(kind):
        logs.log_step(step, 0, metrics)
    with pytest.raises(TypeError):
        logs.log_epoch_summary("two", {})  # type: ignore[arg-type]
    logs.close()
    assert "step" not in lines(logs, "log")[-1]["context"]


def test_a_trace_that_cannot_be_written_stops_nobody(start: Open, monkeypatch: Patch) -> None:
    full = Mock(side_effect=OSError("No space left on device"))
    monkeypatch.setattr(perfetto, "export_chrome_trace", full)
    logs = start(quiet(profile_performance=True))
    assert logs.close() is True
    [line] = [line for line in lines(logs, "log") if line["message"] == "Trace not written"]
    assert line["context"]["error"] == "No space left on device"


def test_text_logs_that_hang_do_not_keep_the_files_open(start: Open, monkeypatch: Patch) -> None:
    """The recorder is closed before anything waits for text logs or the console."""
    logs, close, closed = start(), TextHandler.close, set()
    monkeypatch.setattr(
        TextHandler, "close", lambda h: (closed.add(logs.recorder.closed), close(h))
    )
    assert logs.close()
    assert closed == {True}


def test_the_sampler_knows_the_step(start: Open) -> None:
    """Figures of the machine say the newest step; before any they say none."""
    logs = start(quiet(system_metrics_every_s=0.01))
    logs.log_step(7, 0, {"loss": 1.0})
    found = eventually(lambda: [x for x in lines(logs, "system") if "step" in x])
    assert {line["step"] for line in found} == {7}


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        (ZeroDivisionError, {}),
        (ZeroDivisionError, {"step": 0}),
        (KeyboardInterrupt, {"step": 0}),
        (SystemExit, {}),
    ],
)
def test_an_exception_that_ends_the_run_is_recorded(
    start: Open, kind: type[BaseException], context: dict[str, int]
) -> None:
    """At CRITICAL, with the step where there was one, in file and log; a stop is no error."""
    logs = start(quiet())
    for step in context.values():
        logs.log_step(step, 0, {"loss": 1.0})
    with pytest.raises(kind), logs:
        raise kind("by zero")
    for error in (errors := lines(logs, "errors")):
        assert (error["error_type"], error["level"]) == (kind.__name__, "CRITICAL")
        assert error["context"] == {key: error[key] for key in error if key == "step"} == context
        assert "ZeroDivisionError: by zero" in text(logs, "main")
    assert len(errors) == issubclass(kind, Exception)
    last = lines(logs, "log")[-1]
    assert (last["message"], last["level"]) == ("Run stopped", "WARNING")
    assert last["context"]["reason"] == kind.__name__
    assert logs.closed


def test_an_exception_is_recorded_once(start: Open) -> None:
    logs = start(quiet())
    with pytest.raises(OSError, match="No space"), logs, logs.errors.capture({"operation": "save"}):
        raise OSError("No space left on device")
    [line] = lines(logs, "errors")
    assert line["context"] == {"operation": "save"}


@pytest.mark.parametrize("interrupted", [False, True])
def test_closing_puts_the_loggers_back(start: Open, monkeypatch: Patch, interrupted: bool) -> None:
    """And writes the data, also when Ctrl-C comes while it closes."""
    root, hook = logging.getLogger(ROOT), sys.excepthook
    root.setLevel(logging.ERROR)
    logs = start(quiet())
    logs.errors.install_hooks()
    logs.log_step(1, 0, {"loss": 1.0})
    assert root.level == logging.DEBUG
    if interrupted:
        monkeypatch.setattr(logs, "_say_how_it_ended", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
        logs.close()
    assert (root.level, root.propagate, handlers()) == (logging.ERROR, True, [])
    assert sys.excepthook is hook
    assert logs.recorder.closed
    assert steps(logs) == [1]


OPENS = """
import sys; from types import SimpleNamespace; from foundry_fastlog import ExperimentLogging
section = {'console': False, 'profile_performance': True, 'recorder': {'close_timeout_s': 0.1}}
config = {'experiment_name': 'e', 'logging': section}
logs = ExperimentLogging(config, log_dir=sys.argv[1])
logs.log_step(3, 0, {'loss': 1.0})
"""


def test_a_place_that_cannot_be_written_stops_nobody() -> None:
    """Training goes on; the fault is told on stderr, once for each kind of file."""
    code = OPENS + (
        "with logs:\n"
        "    logs.logger().info('x')\n"
        "    logs.log_epoch_summary(0, {'loss': 1.0})\n"
        "    logs.errors.log_error(ValueError('x'))\n"
        "print('trained')\n"
    )
    done = run_python(code, "/proc/nowhere")
    assert done.stdout == "trained\n"
    assert "Traceback" not in done.stderr
    assert done.stderr.count("could not create directory") == 1


@pytest.mark.parametrize(
    ("last", "said", "code"),
    [
        ("", "Run ended\n", 0),
        ("raise OSError('No space left on device')", "Run stopped\n  reason: OSError\n", 1),
        ("raise KeyboardInterrupt", "Run stopped\n  reason: KeyboardInterrupt\n", 1),
        ("sys.exit(3)", "Run ended\n", 0),
        ("sys.ps1 = '>>> '; raise OSError", "Run ended\n", 0),  # there it ended nothing
    ],
)
def test_a_program_that_does_not_close(tmp_path: Path, last: str, said: str, code: int) -> None:
    """Its end closes: text logs and profile are complete, and W&B learns how it ended."""
    script = (
        OPENS.replace("0.1", "60")
        + "logs.wandb = SimpleNamespace(finish=lambda exit_code: print('exit code', exit_code))\n"
    )
    done = run_python(script + last, tmp_path, returncode=None)
    run = tmp_path / "e"
    assert f"{said}  step: 3\n" in next(run.glob("main_*.log")).read_text()
    assert list(run.glob("timing_*.json"))
    assert json.loads((run / "run.json").read_text())["attempts"][0]["ended"] is not None
    assert done.stdout == f"exit code {code}\n"


def test_an_experiment_is_open_once(start: Open, tmp_path: Path) -> None:
    """A second __init__, or a second object, is refused with advice and disturbs nothing."""
    logs = start(quiet())
    with pytest.raises(RuntimeError, match=r"was already opened, in .*exp0: create a new one"):
        logs.__init__("exp1", log_dir=tmp_path)  # type: ignore[misc]
    assert (logs.experiment_name, logs.closed) == ("exp0", False)
    assert not (tmp_path / "exp1").exists()
    with pytest.raises(ValueError, match=r"already records in .*exp0: use open_run.*or close it"):
        start(quiet())
    logs.logger().info("still here")
    assert messages(logs)[-1] == "still here"
    open_run(logs.directory).close()  # for whom the object is lost
    assert start(quiet()).recorder.attempt == 1


FIRST, LATER = "2025-09-30_14-30-00", "2025-09-30_14-30-01"


@pytest.mark.parametrize(
    ("stamped", "stamp", "second"),
    [(True, LATER, f"_{LATER}.a1"), (True, FIRST, f"_{FIRST}.a1"), (False, LATER, ".a1")],
    ids=["later", "within the second", "without stamps"],
)
def test_a_restart_adds_files_and_overwrites_none(
    start: Open, monkeypatch: Patch, stamped: bool, stamp: str, second: str
) -> None:
    """The first start's files keep every byte, and the reader shows both starts as one run."""
    before: dict[Path, bytes] = {}
    for attempt, (now, given) in enumerate(((FIRST, (1, 2, 3)), (stamp, (3, 4)))):
        for module in (experiment, starts):
            monkeypatch.setattr(module, "timestamp", Mock(return_value=now))
        logs = start(quiet(), stamped=stamped)
        for step in given:
            logs.log_step(step, 0, {"loss": step * 10.0**attempt})
        logs.close()
        assert {path: path.read_bytes() for path in before} == before
        before = {path: path.read_bytes() for path in logs.directory.glob("*.jsonl")}
    names = {path.name for path in logs.directory.glob("metrics*")}
    assert names == {f"metrics{f'_{FIRST}' if stamped else ''}.jsonl", f"metrics{second}.jsonl"}
    found = read_run(logs.directory).lines("metrics")
    assert {line["step"]: line["metrics"]["loss"] for line in found} == {1: 1, 2: 2, 3: 30, 4: 40}
    texts = {path.name for path in logs.directory.glob("main*")}
    assert texts == {f"main_{FIRST}.log", f"main_{stamp}.log"}  # these have a time always
    assert "attempt: 1" in text(logs, "main")
    contexts = [line["context"] for line in lines(logs, "log")]
    assert sorted(context["attempt"] for context in contexts if "attempt" in context) == [0, 1]


def test_experiments_with_roots_of_their_own_do_not_meet(start: Open) -> None:
    for logs in (opened := [start(quiet(name, root_logger=f"lab_{name}")) for name in "ab"]):
        logs.logger().info(f"to {logs.experiment_name}")
    assert [messages(logs)[1:] for logs in opened] == [["to a"], ["to b"]]


def test_a_forked_worker_logs(start: Open) -> None:
    """Its records are in files of its own, its messages in the same text log, once each."""
    logs = start(quiet(profile_performance=True))
    logs.logger("trainer").info("from the parent")

    def work() -> None:
        logs.logger("data.loading").info("from the worker", worker=0)
        logs.log_step(1, 0, {"loaded": 5})
        logs.close()

    run_processes(work, ())
    assert not logs.closed
    assert list(logs.directory.glob("timing_*")) == []  # the worker's close() is not the run's
    logs.log_step(2, 0, {"loss": 1.0})
    logs.close()
    for said in ("from the parent", "from the worker", "Run ended"):
        assert text(logs, "main").count(said) == messages(logs).count(said) == 1, said
    assert sorted(steps(logs)) == [1, 2]
    assert any(re.search(r"\.w\d+\.jsonl$", path.name) for path in logs.directory.iterdir())


def test_pickling(start: Open, monkeypatch: Patch) -> None:
    """In its process the object is found: two would be two writers of one story."""
    logs = start(quiet(profile_performance=True))
    assert pickle.loads(pickle.dumps(logs)) is logs
    assert copy.deepcopy(logs) is logs
    pickle.loads(pickle.dumps(logs.logger("data").bind(a=1))).info("from a copy")
    assert lines(logs, "log")[-1]["context"]["a"] == 1
    # Elsewhere it logs to the same files, and neither starts nor ends the run.
    data = pickle.dumps(logs.logger("data"))
    monkeypatch.setattr(experiment, "_present", type(experiment._present)())
    log = pickle.loads(data)
    worker = log._experiment.logs
    assert worker is not logs
    assert pickle.loads(pickle.dumps(logs)) is worker
    assert (worker.system, worker.wandb.enabled, worker.directory) == (None, False, logs.directory)
    log.info("from the worker")
    worker.close()
    assert messages(logs) == ["Run started", "from a copy", "from the worker"]
    assert text(logs, "main").count("from the worker") == 1
    assert list(logs.directory.glob("timing_*")) == []
    # A closed one cannot be sent; its loggers can, and are plain loggers elsewhere.
    logs.close()
    with pytest.raises(RecorderClosedError, match="cannot be sent"):
        pickle.dumps(logs)
    log = pickle.loads(pickle.dumps(logs.logger("data")))
    assert (log.name, log._experiment.logs) == (f"{ROOT}.data", None)
    assert pickle.loads(pickle.dumps(log)).name == f"{ROOT}.data"


def test_a_start_without_a_free_descriptor(tmp_path: Path) -> None:
    """Nothing raises; what was logged meanwhile is written once there is one, and is sampled."""
    script = """
        import logging, os, resource, sys, time
        from foundry_fastlog import ExperimentLogging
        from foundry_fastlog.components import experiment
        from foundry_fastlog.machine import sampler

        sampler._FIRST_S = 0.01
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        logs = ExperimentLogging(
            {"experiment_name": "e", "logging": {"system_metrics_every_s": 0.01}},
            log_dir=sys.argv[1],
        )
        assert logs.log_step(1, 0, {"loss": 0.5})
        logs.logger("x").info("early")
        while not logs.system.errors:
            time.sleep(0.001)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        while not logs.system.samples:
            time.sleep(0.001)
        assert logs.close()
    """
    run_python(dedent(script), tmp_path)
    run = read_run(tmp_path / "e", strict=True)
    assert [line["metrics"] for line in run.lines("metrics")] == [{"loss": 0.5}]
    assert "early" in [line["message"] for line in run.lines("log")]
    assert list(run.lines("system"))
