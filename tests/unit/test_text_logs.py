"""Handlers of text files and console."""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path

import pytest

from foundry_fastlog import ConsoleHandler, TextFileHandler
from foundry_fastlog.messages import text_writer
from foundry_fastlog.messages.text_console import ConsoleOutput
from foundry_fastlog.messages.text_handlers import TextHandler, find_handler
from foundry_fastlog.messages.text_lines import text_of

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
    blocks = ConsoleHandler(logging.ERROR, stream="stdout", form="block", kind="errors")
    logger.addHandler(handler)
    logger.addHandler(blocks)
    logger.info("one")
    logger.error("two", extra={"step": 1})
    handler.flush()
    captured = capsys.readouterr()
    assert captured.err.count("handlers: ") == 2
    assert "[ERROR] handlers: two  step=1\n" in captured.err
    assert captured.out.endswith("[ERROR] handlers: two\n  step: 1\n")
    other = io.StringIO()
    monkeypatch.setattr(sys, "stderr", other)
    assert handler.stream is other
    logger.info("three")
    handler.close()
    assert "[INFO] handlers: three\n" in other.getvalue()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stream": "stdin"}, "stream must be one of stderr, stdout, got 'stdin'"),
        ({"form": "json"}, "form must be one of line, block, got 'json'"),
    ],
)
def test_a_console_that_there_is_not(options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ConsoleHandler(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("block", r"\d{4}-\d\d-\d\d HH:MM:SS HEAD\n  long: LONG\n  a: 0.123456\n"),
        ("line", r"HH:MM:SS HEAD  long=LONG a=0.1235\n"),
    ],
)
def test_a_terminal_gets_colours(form: str, wanted: str, monkeypatch: Patch) -> None:
    """And no line is wrapped: a terminal does that itself."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    output = ConsoleOutput(form=form)
    fields = {"long": "y" * 190, "a": 0.123456}
    message = (0.0, logging.ERROR, "x", "[bold]", fields, "")
    output.write([message, message], ["unused"] * 2)
    assert "\x1b[" in stream.getvalue()
    text = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    for name, meant in (
        ("HH:MM:SS", r"\d\d:\d\d:\d\d"),
        ("HEAD", r"\[ERROR\] x: \[bold\]"),
        ("LONG", "y" * 190),
    ):
        wanted = wanted.replace(name, meant)
    assert re.fullmatch(f"(?:{wanted}){{2}}", text)


@pytest.mark.parametrize(
    ("variables", "kind"),
    [({"NO_COLOR": "1"}, Terminal), ({"TERM": "dumb"}, Terminal), ({}, io.StringIO)],
)
def test_plain_lines(
    monkeypatch: Patch, variables: dict[str, str], kind: type[io.StringIO]
) -> None:
    """Colours can be refused. What is no terminal gets the date and the zone, too."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for form, tail in (("line", r"  step=1\n"), ("block", r"\n  step: 1\n")):
        stream = kind()
        monkeypatch.setattr(sys, "stderr", stream)
        output = ConsoleOutput(form=form)
        output.write([MESSAGE], [text_of(MESSAGE)])
        moment = r"\d\d:\d\d:\d\d" if kind is Terminal else r"\S{10} \d\d:\d\d:\d\d[+-]\d\d:\d\d"
        moment = r"\S{10} \d\d:\d\d:\d\d" if form == "block" else moment
        assert re.fullmatch(rf"{moment} \[WARNING\] x: hello{tail}", stream.getvalue())
        assert output.errors == 0


def test_a_console_that_cannot_show_a_character_shows_its_number(monkeypatch: Patch) -> None:
    """LANG=C, or a lone surrogate. A closed stream is counted."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    output = ConsoleOutput(form="block")
    output.write([MESSAGE], ["é\udc80\n"])
    assert raw.getvalue() == b"\\xe9\\udc80\n"
    assert output.errors == 0
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    output.write([MESSAGE], ["x\n"])
    assert output.errors == 1
    monkeypatch.setattr(sys, "stderr", None)  # a program without a console
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
