"""Handlers of text files and console."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO
from unittest.mock import Mock

import pytest

from foundry_fastlog import ConsoleHandler, TextFileHandler
from foundry_fastlog.messages import text_console, text_writer
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
    """Arguments, extra fields, tracebacks, from its level on; a wrong call is shown in parts."""
    monkeypatch.setattr(text_writer, "_ERROR_S", 60.0)
    handler = TextFileHandler(tmp_path / "x.log", logging.INFO)
    logger.addHandler(handler)
    logger.debug("not this")
    logger.info("n=%d", 3, extra={"step": 7})
    logger.error("failed", exc_info=ValueError("bad"))
    logger.info("n=%d", "no number")  # noqa: PLE1205, RUF100 - the wrong call
    logger.info("before")
    logger.critical("the end")
    text = handler.path.read_text()
    assert "[INFO] handlers: n=3\n  step: 7\n" in text
    assert "[INFO] handlers: n=%d no number\n" in text
    assert "Error" not in capsys.readouterr().err
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


@pytest.mark.parametrize("lacks", ["nothing", "isatty", "flush"])
def test_a_stream_of_the_program_needs_write_alone(
    logger: logging.Logger, monkeypatch: Patch, lacks: str
) -> None:
    """Such as a tee; without isatty(), or with one that raises, it is no terminal."""
    texts: list[str] = []
    methods = {"write": texts.append, "isatty": Mock(side_effect=OSError), "flush": lambda: None}
    methods.pop(lacks, None)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(**methods))
    handler = ConsoleHandler()
    logger.addHandler(handler)
    logger.error("seen")
    handler.close()
    assert "".join(texts).endswith(" [ERROR] handlers: seen\n")
    assert handler.output.errors == 0


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


@pytest.fixture
def refusing() -> Iterator[tuple[int, TextIO]]:
    """Give a full pipe's reader, and its writer, which refuses instead of making wait."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(writer, "w", encoding="utf-8", buffering=1) as stream:
        _fill(writer)
        yield reader, stream
    os.close(reader)


def _fill(writer: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4095 + b"\n")


def test_a_stream_that_refuses_is_waited_for_by_the_console(
    refusing: tuple[int, TextIO], logger: logging.Logger, monkeypatch: Patch
) -> None:
    """As node, ssh and asyncio leave a terminal: no line is lost, cut, or joined to the next."""
    reader, stream = refusing
    monkeypatch.setattr(sys, "stderr", stream)
    console = ConsoleHandler()
    logger.addHandler(console)
    wanted = [f"[INFO] handlers: {n}" for n in range(300)]
    wanted[7] += "x" * 200_000
    for text in wanted:
        logger.info(text.split(": ")[1])
    found = b""
    while wanted[-1].encode() + b"\n" not in found:
        found += os.read(reader, 1000)
    rows = [row.split(" ", 2)[2] for row in found.decode().split("\n") if "handlers" in row]
    assert rows == wanted
    assert console.output.errors == 0


def test_a_stream_that_refuses_is_waited_for_briefly_by_others(
    refusing: tuple[int, TextIO], monkeypatch: Patch
) -> None:
    """At the exit, say: what is missing is told by its number, on a line of its own."""
    reader, stream = refusing
    monkeypatch.setattr(sys, "stderr", stream)
    polls: list[object] = []
    poll = select.poll

    def counting() -> select.poll:
        polls.append(poll)
        return poll()

    monkeypatch.setattr(select, "poll", counting)
    monkeypatch.setattr(text_console, "_WAIT_MS", 1)
    output = ConsoleOutput()
    long = (0.0, logging.INFO, "x", "y" * 200_000, {}, "")
    for messages in ([MESSAGE] * 2, [MESSAGE], [MESSAGE]):
        output.write(messages, ["unused"] * len(messages))
    assert len(polls) == 1
    os.read(reader, 1 << 16)
    output.write([long], ["unused"])
    found = os.read(reader, 1 << 17)
    output.write([MESSAGE], ["unused"])
    found += os.read(reader, 1 << 17)
    rows = [row for row in found.decode().split("\n") if row.strip(".")]
    assert "messages missing here: 4." in rows[0]
    assert "messages missing here: 1." in rows[2]
    assert set(rows[1].partition("x: ")[2]) == {"y"}
    assert rows[3].endswith("[WARNING] x: hello  step=1")
    assert output.errors == 5


@pytest.mark.parametrize("error", [BlockingIOError, SystemExit])
def test_what_a_stream_has_not_taken_is_told(
    error: type[BaseException], monkeypatch: Patch
) -> None:
    """Of a class of the program's: what of a text was written before it raised is unknown."""
    stream = io.StringIO()
    output = ConsoleOutput()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Mock(write=Mock(side_effect=error), isatty=lambda: False))
        with pytest.raises(error) if error is SystemExit else contextlib.nullcontext():
            output.write([MESSAGE] * 2, ["unused"] * 2)
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in range(2):
        output.write([MESSAGE], ["unused"])
    first, *rows = stream.getvalue().rstrip("\n").rsplit("\n", 2)
    assert "messages missing here: 2. The console did not take them." in first
    assert first.startswith("\n") == (error is BlockingIOError)
    assert [row.endswith("x: hello  step=1") for row in rows] == [True] * 2


def test_a_handler_is_found_by_its_kind_whatever_its_class(logger: logging.Logger) -> None:
    """A module that was reloaded has other classes."""
    assert find_handler(logger, "console") is None
    logger.addHandler(logging.NullHandler())
    marks = {"fastlog_kind": "console", "fastlog_place": "stdout", "fastlog_takes": tuple}
    old = type("ConsoleHandler", (logging.NullHandler,), marks)()
    logger.addHandler(old)
    assert find_handler(logger, "console") is old
    assert not isinstance(old, TextHandler)
