"""What other loggers log: into a run; what a run logs: to pytest; what disables its loggers."""

from __future__ import annotations

import io
import json
import logging
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from recorded import run_python

from foundry_fastlog import (
    ExperimentLogging,
    LoggingConfig,
    StructuredLogger,
    read_run,
    setup_logging,
)

Patch = pytest.MonkeyPatch
NUMBER = count()


@pytest.fixture
def name() -> str:
    return f"captured{next(NUMBER)}"


@pytest.fixture
def library() -> Iterator[logging.Logger]:
    """Return a library's logger, as transformers sets up its own."""
    logger = logging.getLogger(f"library{next(NUMBER)}")
    logger.setLevel(logging.INFO)
    yield logger
    logger.handlers, logger.propagate = [], True


def opened(tmp_path: Path, name: str, **section: Any) -> ExperimentLogging:
    config = LoggingConfig(root_logger=name, system_metrics_every_s=0, **section)
    experiment = SimpleNamespace(experiment_name="e", logging=config)
    return ExperimentLogging(experiment, directory=tmp_path / name)


def messages(logs: ExperimentLogging) -> list[str]:
    """Return the messages of the log stream but the first and the last, which the run says."""
    return [line["message"] for line in read_run(logs.directory).lines("log")][1:-1]


def text(logs: ExperimentLogging) -> str:
    return next(logs.directory.glob("main_*.log")).read_text()


LOGS_STDERR = """
import logging, sys
from types import SimpleNamespace
from foundry_fastlog import ExperimentLogging, StructuredLogger

class ToLogger:  # the well-known recipe
    def __init__(self, log): self.log = log
    def write(self, text):
        if text.strip(): self.log(text.rstrip())
    def flush(self): pass
    def isatty(self): return False

where, how = sys.argv[1:]
config = {'experiment_name': 'e', 'logging': {'capture': ['root'], 'system_metrics_every_s': 0}}
logs = ExperimentLogging(config, directory=where)
log = {'logger': logging.getLogger('stderr').warning, 'own': logs.logger('stderr').info}[how]
sys.stderr = ToLogger(log)
print('printed', file=sys.stderr)
logs.logger('a').info('said')
logs.logger('a').error('failed')
logs.close()
"""


@pytest.mark.parametrize(("how", "again"), [("logger", False), ("own", True)])
def test_a_stderr_that_logs_does_not_go_round_in_circles(
    tmp_path: Path, how: str, again: bool
) -> None:
    """What the console writes is not captured, and never written to the console again."""
    done = run_python(LOGS_STDERR, tmp_path / "run", how, timeout=60)
    assert done.stderr.count("\n") <= 1  # the beginning, if before it was replaced
    found = [line["message"] for line in read_run(tmp_path / "run").lines("log")]
    assert [text for text in found if " [" not in text][1:4] == ["printed", "said", "failed"]
    echoes = [text for text in found if " [" in text]
    assert bool(echoes) is again
    assert len(echoes) <= len(found) / 2


def test_warnings_root_and_libraries_are_in_the_run(
    tmp_path: Path, name: str, library: logging.Logger
) -> None:
    """Each message once, though it comes by its own logger and by the root's; then as before."""
    show = warnings.showwarning
    chosen = ["warnings", "root", library.name, f"{name}.data", "asyncio"]
    with opened(tmp_path, name, console=False, capture=chosen) as logs:
        library.info("loading %s", "weights", extra={"n": 1})
        logging.getLogger(f"{library.name}.sub").warning("slow")
        logging.getLogger(f"unknown{name}").error("somebody's")
        logging.getLogger(f"{name}.data").warning("own")
        library.debug("too low")
        StructuredLogger(f"beside{name}").warning("structured", step=3)
        library.propagate = False
        library.info("alone")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("deprecated", stacklevel=1)
    library.info("after")
    assert warnings.showwarning is show
    *said, warned = messages(logs)
    assert said == ["loading weights", "slow", "somebody's", "own", "structured", "alone"]
    assert "UserWarning: deprecated" in warned
    assert f"[INFO] {library.name}: loading weights\n  n: 1\n" in text(logs)
    assert "py.warnings: " in text(logs)
    assert not [h for h in logging.root.handlers if type(h).__name__ == "CaptureHandler"]


def test_what_a_library_shows_itself_is_not_shown_twice(
    tmp_path: Path, name: str, library: logging.Logger, monkeypatch: Patch
) -> None:
    """Its own handler is left to it, rich's too; without one the console shows the message."""
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with opened(tmp_path, name, capture=[library.name]) as logs:
        library.warning("bare")
        library.propagate = False
        for handler in (logging.StreamHandler(screen), logging.NullHandler()):
            library.addHandler(handler)
        library.warning("shown")
        vars(handler)["console"] = "rich's"
        library.removeHandler(library.handlers[-2])
        library.warning("by rich")
    assert [screen.getvalue().count(said) for said in ("bare", "shown", "by rich")] == [1, 1, 0]
    assert messages(logs) == ["bare", "shown", "by rich"]


def test_two_experiments_that_capture(tmp_path: Path, name: str, library: logging.Logger) -> None:
    """The last opened gets what is captured; warnings are caught until the last one ends."""
    show = warnings.showwarning
    chosen = [library.name, "warnings"]
    outer = opened(tmp_path, name, console=False, capture=chosen)
    config = LoggingConfig(
        root_logger=name, console=False, capture=chosen, system_metrics_every_s=0
    )
    inner = ExperimentLogging(
        SimpleNamespace(experiment_name="i", logging=config), directory=tmp_path / "inner"
    )
    other = opened(tmp_path, f"{name}x", console=False, capture=["warnings"])
    library.info("inner's")
    inner.close()
    library.info("outer's")
    outer.close()
    assert warnings.showwarning is not show
    other.close()
    assert warnings.showwarning is show
    assert (messages(inner), messages(outer)) == (["inner's"], ["outer's"])


def test_names_in_one_text() -> None:
    """As in an environment variable."""
    config = LoggingConfig.from_env({"FASTLOG_CAPTURE": "warnings, root,transformers,"})
    assert config.capture == ["warnings", "root", "transformers"]


@pytest.mark.parametrize("structured", [True, False])
def test_caplog_sees_what_a_run_logs(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture, structured: bool
) -> None:
    """Once, with the fields, as JSON or as text; plain loggers and those of setup_logging too."""
    with opened(tmp_path, name, use_structured_logging=structured) as logs:
        caplog.clear()
        logs.logger("training").warning("Loss is rising", step=7)
        logging.getLogger(f"{name}.data").error("plain")
        setup_logging(f"{name}x", "e", tmp_path).warning("set up")
    first, second, third, *_ = [record.getMessage() for record in caplog.records]
    if structured:
        assert json.loads(first)["context"]["step"] == 7
    else:
        assert first == "Loss is rising | step=7"
    assert (second, third) == ("plain", "set up")
    caplog.clear()
    logging.getLogger(name).warning("after")  # it propagates again
    assert caplog.messages == ["after"]


def test_extra_fields_of_any_name(tmp_path: Path, name: str) -> None:
    """A user's `fastlog` is a field as any other."""
    with opened(tmp_path, name, console=False) as logs:
        logging.getLogger(f"{name}.x").info("plain", extra={"fastlog": "mine"})
        logs.logger("x").info("structured", fastlog=2)
        assert logs.logger("x").is_enabled_for(logging.INFO)
    found = [line["context"].get("fastlog") for line in read_run(logs.directory).lines("log")]
    assert found[1:-1] == ["mine", 2]
    assert "  fastlog: mine\n" in text(logs)


DISABLED = """
    import logging, logging.config, sys
    from foundry_fastlog import ExperimentLogging, StructuredLogger

    logs = ExperimentLogging("e", directory=sys.argv[1])
    bare = StructuredLogger("bare")
    log, quiet = logs.logger("training"), logs.logger("data")
    plain, other = logging.getLogger("model_foundry.plain"), logging.getLogger("other")
    quiet.logger.disabled = True
    quiet.error("meant to be silent")
    log.info("before")
    logging.config.dictConfig({"version": 1})
    log.debug("first")
    plain.info("second")
    bare.logger.addHandler(logging.StreamHandler(sys.stdout))
    bare.warning("third")
    kept = map(logging.getLogger, ("foundry_fastlog", "py.warnings"))
    assert other.disabled and not any(logger.disabled for logger in kept)
    quiet.logger.disabled = True
    quiet.error("meant to be silent")
    logging.config.dictConfig({"version": 1})
    assert log.is_enabled_for(logging.INFO)
    logs.close()
"""


def test_a_library_that_disables_all_loggers(tmp_path: Path) -> None:
    """They are enabled again with the next message; one that the program disables stays so."""
    capture = {"FASTLOG_CAPTURE": "warnings,root"}
    done = run_python(textwrap.dedent(DISABLED), tmp_path, environment=capture)
    said = [line["message"] for line in read_run(tmp_path).lines("log")]
    assert said == ["Run started", "before", "first", "second", "third", "Run ended"]
    assert done.stdout.count("third") == 1
    assert done.stderr.count("disable_existing_loggers=False") == 2
    assert "second" in next(tmp_path.glob("main_*.log")).read_text()


REMOVED = """
    import logging, logging.config, sys, threading
    from foundry_fastlog import ExperimentLogging

    logs = ExperimentLogging("e", directory=sys.argv[1])
    log = logs.logger("training")
    logs.logger("x").info("before")
    {change}
    for thread in threading.enumerate():
        if thread.daemon and not thread.name.startswith("fastlog"):
            thread.join()
    {then}
    logs.close()
"""
CONFIG = 'logging.config.dictConfig({"version": 1, "disable_existing_loggers": %s, %s})'
ROOT, OWN = '"root": {"level": "INFO"}', '"loggers": {"model_foundry": {"level": "INFO"}}'


@pytest.mark.parametrize("then", ["log.info('after')", "pass"])
@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (CONFIG % (False, ROOT), "root"),
        (CONFIG % (True, OWN), "model_foundry"),
        (CONFIG % (False, f"{ROOT}, {OWN}"), "root, model_foundry"),
        ("logging.basicConfig(force=True)", "root"),
        ("logging.getLogger('model_foundry').handlers.clear()", "model_foundry"),
        ("log.logger.parent.removeHandler(log.logger.parent.handlers[0])", None),
        ("logging.shutdown()", None),
    ],
)
def test_handlers_that_are_taken_away_are_told(
    tmp_path: Path, change: str, lost: str | None, then: str
) -> None:
    """Once, by what it means and what to do; who takes one of several away means it."""
    script = textwrap.dedent(REMOVED).format(change=change, then=then)
    done = run_python(script, tmp_path, environment={"FASTLOG_CAPTURE": "root"})
    told = [row for row in done.stderr.splitlines() if "were taken off" in row]
    assert len(told) == (lost is not None)
    if lost is not None:
        assert f"loggers: {lost}. Their messages no longer" in told[0]


def test_without_threads_it_is_told_at_the_end(
    tmp_path: Path, name: str, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path, name, console=False, capture=[f"library{name}"]):
        (capture,) = logging.getLogger(f"library{name}").handlers
        refuse = Mock(side_effect=RuntimeError("can't start new thread"))
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            logging.getLogger(f"library{name}").removeHandler(capture)
            capture.close()
        assert "were taken off" not in caplog.text
    assert caplog.text.count("were taken off") == 1
    capture.close()
