"""Handlers of text files and console."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest

from foundry_fastlog import ConsoleHandler, TextFileHandler
from foundry_fastlog.messages import text_writer
from foundry_fastlog.messages.text_console import ConsoleOutput
from foundry_fastlog.messages.text_handlers import TextHandler, find_handler

Patch = pytest.MonkeyPatch
MESSAGE = (0.0, logging.WARNING, "x", "hello", {"step": 1}, "")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def logger() -> logging.Logger:
    logger = logging.Logger("handlers", logging.DEBUG)  # noqa: LOG001 - this test's alone
    logger.propagate = False
    return logger


def test_a_file_handler_takes_the_standard_librarys_calls(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: Patch
) -> None:
    """Arguments, extra fields, tracebacks, from its level on; a wrong call is told on stderr."""
    monkeypatch.setattr(text_writer, "_ERROR_S", 60.0)
    handler = TextFileHandler(tmp_path / "x.log", logging.INFO)
    logger.addHandler(handler)
    logger.debug("not this")
    logger.info("n=%d", 3, extra={"step": 7})
    logger.error("failed", exc_info=ValueError("bad"))
    logger.info("n=%d", "no number")  # noqa: PLE1205, RUF100 - the wrong call
    assert "TypeError" in capsys.readouterr().err
    logger.info("before")
    logger.critical("the end")
    text = handler.path.read_text()
    assert "[INFO] handlers: n=3\n  step: 7\n" in text
    assert "[ERROR] handlers: failed\n  ValueError: bad\n" in text
    assert "before" in text
    assert "[CRITICAL] handlers: the end\n" in text  # with all before it when the call returns
    assert "not this" not in text
    logger.info("after")
    handler.close()
    assert handler.path.read_text().endswith("[INFO] handlers: after\n")


def test_the_console_is_what_the_stream_is_at_the_time(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: Patch
) -> None:
    """Notebooks, tests and programs replace it after set-up."""
    handler = ConsoleHandler(logging.INFO)
    errors = ConsoleHandler(logging.ERROR, stream="stderr", kind="errors")
    logger.addHandler(handler)
    logger.addHandler(errors)
    logger.info("one")
    logger.error("two")
    handler.flush()
    captured = capsys.readouterr()
    assert captured.out.count("handlers: ") == 2
    assert captured.err.count("[ERROR] handlers: two") == 1
    other = io.StringIO()
    monkeypatch.setattr(sys, "stdout", other)
    logger.info("three")
    handler.close()
    assert "[INFO] handlers: three\n" in other.getvalue()


def test_a_terminal_gets_colours(monkeypatch: Patch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    output = ConsoleOutput()
    message = (0.0, logging.ERROR, "x", "[bold]\udc80", {"long": "y" * 300}, "")
    output.write([message], ["unused"])
    first = output._coloured
    output.write([message], ["unused"])
    assert output._coloured is first
    text = stream.getvalue()
    assert "\x1b[" in text
    assert "x: [bold]\\udc80\n" in text
    assert "  long: " + "y" * 300 in text  # no wrapping: a terminal does that itself
    assert text.count("ERROR") == 2


@pytest.mark.parametrize(
    ("variables", "fault", "kind"),
    [
        ({"NO_COLOR": "1"}, None, Terminal),
        ({"TERM": "dumb"}, None, Terminal),
        ({}, ImportError("none"), Terminal),
        ({}, OSError("Too many open files"), Terminal),
        ({}, None, io.StringIO),
    ],
)
def test_plain_lines(
    monkeypatch: Patch, variables: dict[str, str], fault: Exception | None, kind: type[io.StringIO]
) -> None:
    """Colours can be refused; rich is optional, and may be asked for too late to be loaded."""

    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "rich.console" and fault:
                raise fault

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if fault:
        monkeypatch.delitem(sys.modules, "rich.console", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    stream = kind()
    monkeypatch.setattr(sys, "stdout", stream)
    output = ConsoleOutput()
    output.write([MESSAGE], ["plain hello\n"])
    assert (stream.getvalue(), output.errors) == ("plain hello\n", 0)


def test_a_console_that_cannot_show_a_character_shows_its_number(monkeypatch: Patch) -> None:
    """LANG=C, or a lone surrogate. A closed stream is counted."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output = ConsoleOutput()
    output.write([MESSAGE], ["é\udc80\n"])
    assert raw.getvalue() == b"\\xe9\\udc80\n"
    assert output.errors == 0
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    output.write([MESSAGE], ["x\n"])
    assert output.errors == 1
    monkeypatch.setattr(sys, "stdout", None)  # a program without a console
    output.write([MESSAGE], ["x\n"])
    assert output.errors == 1


def test_a_handler_is_found_by_its_kind_whatever_its_class(logger: logging.Logger) -> None:
    """A module that was reloaded has other classes."""
    assert find_handler(logger, "console") is None
    logger.addHandler(logging.NullHandler())
    marks = {"fastlog_kind": "console", "fastlog_place": "stdout", "fastlog_takes": tuple}
    old = type("ConsoleHandler", (logging.NullHandler,), marks)()
    logger.addHandler(old)
    assert find_handler(logger, "console") is old
    assert not isinstance(old, TextHandler)
