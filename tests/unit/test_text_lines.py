"""How messages read in text logs."""

from __future__ import annotations

import logging
import time
from unittest.mock import Mock

import pytest

from foundry_fastlog.messages.text_lines import fields_of, record_message, settled, text_of

NOON = time.mktime((2025, 9, 30, 14, 30, 15, 0, 0, -1)) + 0.75


def line(message: str = "Training step completed", exception: str = "", **shown: object) -> str:
    return text_of((NOON, logging.INFO, "model_foundry.training.loop", message, shown, exception))


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_text_with_line_ends_cannot_look_like_another_message(end: str) -> None:
    """Continuation lines are indented, of message, value and traceback."""
    forged = f"a{end}2025-09-30 14:30:16 [ERROR] x: forged"
    text = line(forged, exception=forged + "\n", step=1, note=forged)
    assert "\r" not in text
    assert sum(row.startswith("2025") for row in text.splitlines()) == 1
    assert text.splitlines()[1:] == [
        "  2025-09-30 14:30:16 [ERROR] x: forged",
        "  step: 1",
        "  note: a",
        "    2025-09-30 14:30:16 [ERROR] x: forged",
        "  a",
        "  2025-09-30 14:30:16 [ERROR] x: forged",
    ]


def test_settled_values_do_not_change_any_more() -> None:
    """What may change, or is not plain, becomes text at once; long text is cut."""
    odd = type("Odd", (), {"__str__": Mock(side_effect=RuntimeError("no"))})()
    plain = {"a": 1, "b": 2.5, "c": "x", "d": True, "e": None}
    assert settled(plain) is plain
    values = [1, 2]
    fields = settled({"step": 1, "values": values, "odd": odd, "long": ["x" * 20_000]})
    values.append(3)
    assert fields["step"] == 1
    assert fields["values"] == "[1, 2]"
    assert fields["odd"] == "<Odd whose str() raised RuntimeError>"
    assert fields["long"].endswith("... (20004 characters)")
    assert len(fields["long"]) < 10_100


def record(**changes: object) -> logging.LogRecord:
    """Return a record of a plain logging call."""
    return logging.makeLogRecord(
        {"name": "x", "levelno": 30, "levelname": "WARNING", "msg": "n=%d", "args": (3,), **changes}
    )


def test_a_plain_record_becomes_a_message_with_its_extra_fields() -> None:
    message = record_message(record(step=7, taskName=None), logging.Formatter())
    assert message[1:] == (30, "x", "n=3", {"step": 7}, "")
    assert fields_of(record()) == {}
    # The parts that a StructuredLogger sent along win over the JSON text.
    parts = ("hello", {"experiment": "x", "step": 1}, {"step": 1})
    assert record_message(record(fastlog=parts), logging.Formatter())[3:5] == ("hello", {"step": 1})


def test_tracebacks_and_stacks_of_a_record_are_kept() -> None:
    """exc_info is rendered, a text that is there already is taken, a stack follows."""
    error = ValueError("bad")
    info = (ValueError, error, None)
    formatter = logging.Formatter()
    assert "ValueError: bad" in record_message(record(exc_info=info), formatter)[5]
    assert record_message(record(exc_info=info, exc_text="ready"), formatter)[5] == "ready"
    assert record_message(record(stack_info="stack"), formatter)[5] == "stack"
    both = record_message(record(exc_text="ready", stack_info="stack"), formatter)
    assert both[5] == "ready\nstack"
