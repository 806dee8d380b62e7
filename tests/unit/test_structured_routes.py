"""The direct way of messages, and that whoever wants LogRecords gets them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest
import recorded

from foundry_fastlog import Recorder, RecorderHandler, StructuredLogger, TextFileHandler
from foundry_fastlog.messages.direct_route import find_route

NUMBER = count()
RECORDER_OPTIONS = {"fsync": "none"}


class Seeing(logging.Handler):
    """A handler of somebody else, or a filter that lets nothing through."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.emit = self.records.append  # type: ignore[method-assign]

    def __call__(self, record: logging.LogRecord) -> bool:
        self.emit(record)
        return False


@pytest.fixture
def top(recorder: Recorder, tmp_path: Path) -> Iterator[logging.Logger]:
    top = logging.getLogger(f"routes{next(NUMBER)}")
    top.propagate = False
    top.setLevel(logging.DEBUG)
    top.addHandler(RecorderHandler(recorder))
    top.addHandler(TextFileHandler(tmp_path / "x.log", logging.INFO))
    ours = list(top.handlers)
    yield top
    for handler in ours:
        top.removeHandler(handler)
        handler.close()


def only_ours(top: logging.Logger) -> None:
    """Take off the handlers that pytest puts on loggers which do not propagate."""
    top.handlers = [handler for handler in top.handlers if hasattr(handler, "fastlog_takes")]


@pytest.fixture
def logger(top: logging.Logger) -> StructuredLogger:
    return StructuredLogger(f"{top.name}.training.loop", "exp0")


def lines(recorder: Recorder) -> list[dict[str, Any]]:
    assert recorder.flush()
    return recorded.lines(recorder.path, "log")


def text(top: logging.Logger) -> str:
    handler = top.handlers[1]
    handler.flush()
    assert isinstance(handler, TextFileHandler)
    return handler.path.read_text()


def takes_the_direct_way(logger: StructuredLogger) -> bool:
    factory = Mock(side_effect=logging.LogRecord)
    with patch.object(logging, "_logRecordFactory", factory):
        logger.info("which way?")
    return not factory.called


def test_the_direct_way_writes_what_the_other_one_writes(
    logger: StructuredLogger, top: logging.Logger, recorder: Recorder
) -> None:
    """Line by line, but for times and sequence numbers; with a foreign handler and without."""
    only_ours(top)
    seeing = Seeing()
    logger.update_context(run=1)

    def log() -> None:
        logger.debug("only recorded", step=1)
        logger.info("n=%d", 3, step=2, loss=2.5, values=[1, 2])
        logger.bind(bound=True).warning("bad", loss=float("nan"), big=1 << 60)
        logger.critical("end", text="a\nb", long="x" * 20_000)
        logger.log(25, "own level", nothing=None)

    assert takes_the_direct_way(logger)
    log()
    direct, direct_text = lines(recorder)[1:], text(top)
    top.addHandler(seeing)
    assert not takes_the_direct_way(logger)
    log()
    other, other_text = lines(recorder)[len(direct) + 2 :], text(top)[len(direct_text) :]
    for line in (*direct, *other):
        del line["timestamp"], line["seq"]
    assert direct == other
    messages = [line["message"] for line in direct]
    assert messages == ["only recorded", "n=3", "bad", "end", "own level"]
    assert direct[2]["nonfinite"] == {"loss": "nan"}
    assert direct[2]["context"]["big"] == 1 << 60

    def without_times(log: str) -> list[str]:
        return [row[19:] if row.startswith("20") else row for row in log.splitlines()]

    assert without_times(direct_text)[2:] == without_times(other_text)[2:]
    assert "only recorded" not in direct_text
    assert "run: 1" in direct_text
    assert "git_hash" not in direct_text
    assert [json.loads(r.getMessage())["message"] for r in seeing.records[1:]] == messages


def test_who_listens_is_noticed_at_once(logger: StructuredLogger, top: logging.Logger) -> None:
    """Handlers and filters on any logger of the chain, and their leaving again."""
    only_ours(top)
    for place, what in (
        *((place, "Handler") for place in (logger.logger, top)),
        *((place, "Filter") for place in (logger.logger, *top.handlers)),
    ):
        seeing = Seeing()
        assert takes_the_direct_way(logger)
        getattr(place, f"add{what}")(seeing if what == "Handler" else seeing.__call__)
        assert not takes_the_direct_way(logger)
        getattr(place, f"remove{what}")(seeing if what == "Handler" else seeing.__call__)
        assert takes_the_direct_way(logger)
        assert len(seeing.records) == 1


def test_a_logger_that_comes_between(logger: StructuredLogger, top: logging.Logger) -> None:
    """Loggers are made in any order, and get handlers later."""
    only_ours(top)
    assert takes_the_direct_way(logger)
    between = logging.getLogger(f"{top.name}.training")
    between.addHandler(Seeing())
    assert not takes_the_direct_way(logger)
    between.handlers = []
    assert takes_the_direct_way(logger)
    top.propagate = True
    assert takes_the_direct_way(logger) is not bool(logging.getLogger().handlers)


def test_a_longer_chain_is_noticed(recorder: Recorder) -> None:
    """A logger whose chain ended at the root may get others in between."""
    root = logging.Logger("chain-root")  # noqa: LOG001 - a root of this test's own
    low = logging.Logger("low", logging.DEBUG)  # noqa: LOG001 - likewise
    low.parent = root
    low.addHandler(RecorderHandler(recorder))
    route = find_route(low)
    assert route.direct
    assert route.holds(low)
    root.parent = logging.Logger("above")  # noqa: LOG001 - likewise
    assert not route.holds(low)
    low.parent = None
    assert not route.holds(low)


def test_levels_of_handlers_count_as_they_are(
    logger: StructuredLogger, top: logging.Logger, recorder: Recorder
) -> None:
    only_ours(top)
    logger.info("one")
    top.handlers[1].setLevel(logging.ERROR)
    logger.info("two")
    top.handlers[0].setLevel(logging.ERROR)
    logger.info("three")
    assert [line["message"] for line in lines(recorder)] == ["one", "two"]
    assert text(top).count("[INFO]") == 1
    assert takes_the_direct_way(logger)


def test_exceptions_are_recorded_with_their_traceback(
    logger: StructuredLogger, top: logging.Logger, recorder: Recorder
) -> None:
    """In the context of the line, below the fields of the text; fields of the call stay."""
    try:
        Path("absent/checkpoint").read_bytes()
    except OSError:
        logger.exception("Failed to read checkpoint", step=5000)
    line = lines(recorder)[0]
    assert line["level"] == "ERROR"
    assert line["context"]["step"] == 5000
    assert line["context"]["error_type"] == "FileNotFoundError"
    assert "No such file" in line["context"]["error_message"]
    assert line["context"]["traceback"].startswith("Traceback")
    found = text(top)
    assert (
        "Failed to read checkpoint\n  step: 5000\n  Traceback (most recent call last):\n" in found
    )
    assert "error_type" not in found


def test_a_patched_log_method(logger: StructuredLogger, top: logging.Logger) -> None:
    """As tests of programs do."""
    only_ours(top)
    logger.info("before")
    with patch.object(logger.logger, "log") as log:
        logger.info("m")
    log.assert_called_once()
    assert takes_the_direct_way(logger)


@pytest.mark.parametrize("step", ["handle", "callHandlers", "_log"])
def test_a_patched_class_gets_the_message(step: str, top: logging.Logger) -> None:
    """As error trackers do, before loggers are used."""
    original = getattr(logging.Logger, step)
    with patch.object(logging.Logger, step, autospec=True, side_effect=original) as patched:
        StructuredLogger(top.name, "exp0").info("m")
    patched.assert_called_once()


def test_plain_loggers_are_recorded_too(top: logging.Logger, recorder: Recorder) -> None:
    """Those of libraries, with what they give as extra."""
    logging.getLogger(f"{top.name}.data").warning("n=%d", 3, extra={"size": 5})
    top.error("failed", exc_info=(None, None, None))
    first, second = lines(recorder)
    assert (first["message"], first["logger"]) == ("n=3", f"{top.name}.data")
    assert (first["context"], second["context"]) == ({"size": 5}, {})


def test_what_is_not_recorded(top: logging.Logger, recorder: Recorder, capsys: Any) -> None:
    """What is about the stream that it would be written to. Of a wrong call the parts are."""
    emit = top.handlers[0].emit
    emit(logging.makeLogRecord({"name": "foundry_fastlog", "msg": "disk full"}))
    assert lines(recorder) == []
    emit(logging.makeLogRecord({"name": "x", "msg": "n=%d", "args": ("three",)}))
    assert [line["message"] for line in lines(recorder)] == ["n=%d three"]
    assert capsys.readouterr().err == ""


def test_after_the_recorder_is_closed_messages_go_on_to_the_text_log(
    logger: StructuredLogger, top: logging.Logger, recorder: Recorder
) -> None:
    """The run is over, the program may have things to say. A handler flushes its recorder."""
    only_ours(top)
    logger.info("m")
    top.handlers[0].flush()  # as logging.shutdown() does
    assert (recorder.path / "log.jsonl").read_text().count("\n") == 1
    recorder.close()
    logger.info("after")
    top.handlers[0].flush()
    assert "after" in text(top)
    assert not recorder.message("INFO", "x", "m", {})
