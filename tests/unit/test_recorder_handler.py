"""RecorderHandler as what it is, a handler of `logging`: in configurations, beside queues."""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import queue
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from foundry_fastlog import Recorder, RecorderHandler, open_run, read_run
from foundry_fastlog.messages.text_handlers import ConsoleHandler

# As docs/logging.md has it, for a module `train` with a recorder and a function.
CONFIGURATION = """
version: 1
disable_existing_loggers: false
handlers:
  run:
    class: foundry_fastlog.RecorderHandler
    recorder: ext://train.recorder
    level: DEBUG
  errors:
    (): train.run_handler
    path: {path}
    level: ERROR
loggers:
  library: {{handlers: [run, errors], level: INFO, propagate: false}}
  library.loud: {{level: ERROR}}
  py.warnings: {{handlers: [run], propagate: false}}
"""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A program's module; what it configures is taken back."""
    module: Any = ModuleType("train")
    module.recorder = Recorder(tmp_path / "run")
    module.run_handler = lambda path: RecorderHandler(open_run(path))
    monkeypatch.setitem(sys.modules, "train", module)
    yield module
    logging.captureWarnings(False)  # noqa: FBT003 - it takes no name
    for name in ("library", "library.loud", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    module.recorder.close()


def said(run: Path) -> list[tuple[str, str, str]]:
    lines = read_run(run).lines("log")
    return [(line["logger"], line["level"], line["message"]) for line in lines]


def test_a_configuration_file_names_handler_recorder_and_function(
    train: Any, tmp_path: Path
) -> None:
    text = CONFIGURATION.format(path=tmp_path / "errors")
    for _ in range(2):  # another time replaces the handlers, and nothing comes twice
        logging.config.dictConfig(yaml.safe_load(text))
    logging.captureWarnings(True)  # noqa: FBT003 - it takes no name
    logging.getLogger("library").debug("too low")
    logging.getLogger("library.loud").warning("too loud")
    logging.getLogger("library.part").info("hello", extra={"step": 3})
    logging.getLogger("library").error("failed")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    train.recorder.close()
    open_run(tmp_path / "errors").close()
    hello, failed, warning = said(tmp_path / "run")
    assert (hello, failed) == (("library.part", "INFO", "hello"), ("library", "ERROR", "failed"))
    assert warning[:2] == ("py.warnings", "WARNING")
    assert "DeprecationWarning: old" in warning[2]
    assert said(tmp_path / "errors") == [failed]
    logging.getLogger("library").error("after the end")  # dropped without an error
    assert len(said(tmp_path / "run")) == 3


def test_what_a_queue_before_it_takes_away(tmp_path: Path) -> None:
    """The page says what: the exception is in the text, and no line of the errors stream."""
    waiting: queue.Queue[logging.LogRecord] = queue.Queue()
    logger = logging.getLogger("queued")
    logger.propagate = False
    for name in ("direct", "queued"):
        with Recorder(tmp_path / name) as recorder:
            handler = RecorderHandler(recorder)
            before = logging.handlers.QueueHandler(waiting) if name == "queued" else handler
            logger.addHandler(before)
            try:
                Path(tmp_path / "none").read_text()
            except OSError:
                logger.exception("not saved", extra={"step": 3})
            if name == "queued":
                handler.handle(waiting.get())
            logger.removeHandler(before)
    found = {name: list(read_run(tmp_path / name).lines("log")) for name in ("direct", "queued")}
    assert "FileNotFoundError" in found["direct"][0]["context"]["traceback"]
    assert found["direct"][0]["message"] == "not saved"
    assert "FileNotFoundError" in found["queued"][0]["message"]
    assert found["queued"][0]["context"] == {"step": 3}
    assert len(list(read_run(tmp_path / "direct").lines("errors"))) == 1
    assert not (tmp_path / "queued" / "errors.jsonl").exists()


def test_a_path_is_no_recorder() -> None:
    """Nothing half made is left to be closed at exit."""
    with pytest.raises(TypeError, match=r"recorder must be a Recorder, got str; open_run\(PATH\)"):
        RecorderHandler("runs/x")  # type: ignore[arg-type]


def test_a_stack_that_was_asked_for_is_a_field(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        logger = logging.getLogger("stacks.of.this.test")
        handler = RecorderHandler(recorder)
        logger.addHandler(handler)
        logger.warning("here", stack_info=True)
        logger.removeHandler(handler)
    (line,) = read_run(tmp_path / "run").lines("log")
    assert "test_a_stack_that_was_asked_for_is_a_field" in line["context"]["stack"]


@pytest.mark.parametrize("kind", ["run", "console"])
def test_a_handler_that_fails_is_told_as_loggings_own_are(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By handleError(): the program goes on."""
    with Recorder(tmp_path / "run") as recorder:
        handler = RecorderHandler(recorder) if kind == "run" else ConsoleHandler()
        failed: list[logging.LogRecord] = []

        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("no")

        monkeypatch.setattr(handler, "take", refuse)
        monkeypatch.setattr(handler, "handleError", failed.append)
        handler.handle(logging.makeLogRecord({"msg": "said", "levelno": 20, "levelname": "INFO"}))
        assert [record.getMessage() for record in failed] == ["said"]
