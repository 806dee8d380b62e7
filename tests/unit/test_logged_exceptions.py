"""Exceptions that are logged are errors: in the errors stream, counted and grouped, once each."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from logging_support import raised
from recorded import in_threads

from foundry_fastlog import (
    ErrorTracker,
    ExperimentLogging,
    LoggingConfig,
    Recorder,
    RecorderHandler,
    read_run,
)
from foundry_fastlog.recording.recorder import recorder_of

NUMBER = count()


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[ExperimentLogging]:
    config = LoggingConfig(
        root_logger=f"logged{next(NUMBER)}", console=False, system_metrics_every_s=0
    )
    experiment = SimpleNamespace(experiment_name="e", logging=config)
    with ExperimentLogging(experiment, directory=tmp_path / "run") as logs:
        yield logs


def errors(run: Path) -> list[dict[str, Any]]:
    if (recorder := recorder_of(run)) is not None:
        recorder.flush()
    return list(read_run(run).lines("errors"))


@pytest.mark.parametrize(
    ("log", "level"),
    [
        (lambda log, error: log.exception("failed", step=5, exc_info=error), "ERROR"),  # noqa: LOG004
        (lambda log, error: log.error("failed", step=5, exc_info=error), "ERROR"),
        (lambda log, error: log.warning("failed", step=5, exc_info=error), "WARNING"),
        (lambda log, error: log.log(45, "failed", step=5, exc_info=error), "ERROR"),
        (lambda log, error: log.logger.error("failed", exc_info=error, extra={"step": 5}), ""),
    ],
)
def test_a_logged_exception_is_an_error(
    logs: ExperimentLogging, log: Callable[[Any, BaseException], None], level: str
) -> None:
    """With message, step, chain and fingerprint; the message itself is in the log stream too."""
    error = raised(OSError("Disk 7 is full"))
    log(logs.logger("checkpoint"), error)
    (line,) = errors(logs.directory)
    assert (line["message"], line["step"]) == ("failed", 5)
    assert (line["level"], line["logger"]) == (level or "ERROR", logs.logger("checkpoint").name)
    assert (line["error_type"], line["error_message"]) == ("OSError", "Disk 7 is full")
    assert line["context"] == {"step": 5}
    assert "Traceback" in line["traceback"]
    assert logs.errors.get_error_summary() == {"OSError": 1}
    (group,) = logs.errors.get_error_groups()
    assert (group["fingerprint"], group["last_step"]) == (line["fingerprint"], 5)
    said = [one for one in read_run(logs.directory).lines("log") if one["message"] == "failed"]
    assert [one["context"]["error_type"] for one in said] == ["OSError"]


def test_an_exception_on_its_way_up_counts_once(tmp_path: Path) -> None:
    """Logged twice, captured, and then leaving the run's block; "Run ended" knows the number."""
    config = LoggingConfig(root_logger="way_up", console=False, system_metrics_every_s=0)
    experiment = SimpleNamespace(experiment_name="e", logging=config)

    def logged(logs: ExperimentLogging, message: str, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError:
            logs.logger("x").exception(message)
            raise

    def fails(logs: ExperimentLogging) -> None:
        with logs.errors.capture({"operation": "save"}):
            logged(logs, "second", lambda: logged(logs, "first", lambda: Path("/no/such").stat()))

    with (
        pytest.raises(OSError, match="No such"),
        ExperimentLogging(experiment, directory=tmp_path) as logs,
    ):
        fails(logs)
    assert [line["message"] for line in errors(tmp_path)] == ["first"]
    last = list(read_run(tmp_path).lines("log"))[-1]
    assert (last["message"], last["context"]["errors"]) == ("Run stopped", 1)


def test_log_error_is_one_error(logs: ExperimentLogging) -> None:
    """It logs with the traceback; and always records, as it is told to."""
    error = raised(ValueError("v"))
    logs.errors.log_error(error)
    logs.errors.log_error(error)
    assert len(errors(logs.directory)) == 2
    logs.logger("x").error("again", exc_info=error)
    assert logs.errors.get_error_summary() == {"ValueError": 2}
    assert len(errors(logs.directory)) == 2


def test_chains_and_equal_errors(logs: ExperimentLogging) -> None:
    """A cause is told with the error that it led to; equal ones are one group."""
    for n in range(3):
        error = RuntimeError(f"no batch {n}")
        error.__cause__ = KeyError(n)
        logs.logger("data").error("Batch not read", n=n, exc_info=raised(error))
    (group,) = logs.errors.get_error_groups()
    assert group["count"] == 3
    assert all("KeyError" in line["traceback"] for line in errors(logs.directory))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), None])
def test_what_is_no_error(logs: ExperimentLogging, error: BaseException | None) -> None:
    """Ctrl-C, an exit, and `exc_info=True` where nothing is handled."""
    log = logs.logger("x")
    log.error("stopped", exc_info=True if error is None else error)
    log.error("no exception")
    assert errors(logs.directory) == []
    assert logs.errors.get_error_summary() == {}


def test_a_captured_library(tmp_path: Path) -> None:
    config = LoggingConfig(
        root_logger="capturing", console=False, capture=["lib.errors"], system_metrics_every_s=0
    )
    experiment = SimpleNamespace(experiment_name="e", logging=config)
    with ExperimentLogging(experiment, directory=tmp_path) as logs:
        logging.getLogger("lib.errors").error("retry", exc_info=raised(TimeoutError("t")))
        assert logs.errors.get_error_summary() == {"TimeoutError": 1}
    assert [line["logger"] for line in errors(tmp_path)] == ["lib.errors"]


def test_errors_of_many_threads(logs: ExperimentLogging) -> None:
    def work(n: int) -> None:
        for i in range(20):
            logs.logger("x").error("failed", exc_info=ValueError(f"{n} {i}"))

    in_threads(work, 8)
    assert logs.errors.get_error_summary() == {"ValueError": 160}
    assert len(errors(logs.directory)) == 160


def test_a_recorder_handler_alone(tmp_path: Path) -> None:
    """It writes the line itself; a tracker of the same run does not write it again."""
    logger = logging.Logger("alone")  # noqa: LOG001 - this test's alone
    with Recorder(tmp_path) as recorder:
        logger.addHandler(RecorderHandler(recorder))
        error = raised(OSError("full"))
        logger.error("save %d", 7, exc_info=error, extra={"step": 7})
        logger.error("far", exc_info=ValueError("v"), extra={"step": 1 << 70})
        tracker = ErrorTracker(logger, tmp_path, recorder=recorder)
        with tracker.capture(reraise=False):
            raise error
    logger.error("closed", exc_info=ValueError("after"))
    first, second = errors(tmp_path)
    assert (first["message"], first["step"], first["context"]) == ("save 7", 7, {"step": 7})
    assert "step" not in second
    copy = pickle.loads(pickle.dumps(error))
    assert not tracker._has_recorded(copy)


@pytest.mark.parametrize("nested", [False, True])
def test_a_logger_adapter(tmp_path: Path, nested: bool) -> None:
    """It is a logger; errors are recorded and logged through it."""
    logger = logging.Logger("adapted")  # noqa: LOG001 - this test's alone
    records: list[logging.LogRecord] = []
    handler = logging.NullHandler()
    handler.handle = records.append  # type: ignore[assignment,method-assign]
    logger.addHandler(handler)
    adapter: Any = logging.LoggerAdapter(logger, {"job": 3})
    adapter = logging.LoggerAdapter(adapter, {}) if nested else adapter
    with ErrorTracker(adapter, tmp_path) as tracker:
        tracker.log_error(OSError("full"))
    assert [record.getMessage() for record in records] == ["OSError: full"]
    assert [line["logger"] for line in errors(tmp_path)] == ["adapted"]


@pytest.mark.parametrize("wrong", [SimpleNamespace(logger=logging.getLogger("x")), "x", None])
def test_what_is_no_logger(tmp_path: Path, wrong: Any) -> None:
    """Told at once, not in place of the first error."""
    with pytest.raises(TypeError, match=r"must be a logging\.Logger, a LoggerAdapter or a"):
        ErrorTracker(wrong, tmp_path)
