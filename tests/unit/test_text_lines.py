"""How messages read in text logs."""

from __future__ import annotations

import logging
import math
import time
from datetime import datetime
from typing import Any
from unittest.mock import Mock

import pytest

from foundry_fastlog.messages.text_lines import (
    PARTS,
    fields_of,
    line_tail_of,
    local_time,
    record_message,
    settled,
    text_of,
)

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


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ""),
        ({"step": 1234567, "loss": 3.2449871234, "lr": 1e-4, "ok": True}, ""),
        ({"loss": math.nan, "none": None}, "loss=nan none=None"),
        ({"note": "two words", "path": "/a/b", "empty": ""}, 'note="two words" path=/a/b empty=""'),
        ({"note": 'a "b"\nc=d', "o": "x=1"}, r'note="a \"b\"\nc=d" o="x=1"'),
        ({"names": ["a", "b"], "é": "naïve"}, "names=['a', 'b'] é=naïve"),
        ({"note": "[not\nbroken"}, r'note="[not\nbroken"'),
        ({"long": "x" * 300}, f'long="{"x" * 200}... (300 characters)"'),
    ],
)
def test_fields_in_a_line(fields: dict[str, Any], said: str) -> None:
    """Four digits of a float; quotes only where a value would not end otherwise."""
    said = said or " ".join(f"{k}={v}" for k, v in fields.items())
    said = said.replace("3.2449871234", "3.245")
    tail = line_tail_of((NOON, logging.INFO, "x", "m", settled(fields), ""))
    assert tail == (f"  {said}\n" if fields else "\n")


def test_a_traceback_follows_its_line() -> None:
    failed = (NOON, logging.ERROR, "x", "m", {"step": 1}, "Traceback:\n  a\nValueError: b\n")
    assert line_tail_of(failed) == "  step=1\n  Traceback:\n    a\n  ValueError: b\n"


@pytest.mark.parametrize(
    ("zone", "shown"), [("UTC", "+00:00"), ("CET-1", "+01:00"), ("XXX3:30", "-03:30")]
)
def test_local_times_name_their_zone(
    zone: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the UTC of the JSONL a reader knows which is which."""
    local_time(86_400.0 * 7)  # another second than the one that is known
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        first = local_time(86_400.0)
    time.tzset()
    assert first[19:] == shown
    assert datetime.fromisoformat(first).timestamp() == 86_400.0


def test_settled_values_do_not_change_any_more() -> None:
    """What may change, or is not plain, becomes text at once; long text is cut."""
    double = type("Double", (float,), {})  # as numpy's
    odd = type("Odd", (), {"__str__": Mock(side_effect=RuntimeError("no"))})()
    plain = {"a": 1, "b": 2.5, "c": "x", "d": True, "e": None}
    assert settled(plain) is plain
    values = [1, 2]
    fields = settled({"step": 1, "values": values, "odd": odd, "long": ["x" * 20_000]})
    values.append(3)
    assert fields["step"] == 1
    assert type(settled({"a": double(2.5)})["a"]) is float
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
    sent = record(**{PARTS: parts})
    assert record_message(sent, logging.Formatter())[3:5] == ("hello", {"step": 1})


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
