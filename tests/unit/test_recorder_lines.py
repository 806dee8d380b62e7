"""Golden lines: the bytes of every kind of line, apart from clock, thread and traceback."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from contract import VALIDATORS
from recorded import written

from foundry_fastlog import Recorder


def golden(recorder: Recorder, stream: str) -> list[str]:
    """Close the recorder; return a stream's lines with fixed clock and thread, and without seq."""
    assert recorder.close()
    text = (recorder.path / f"{stream}.jsonl").read_bytes().decode()
    for fixed, pattern in (
        ('{"timestamp":"T"', r'^{"timestamp":"[0-9TZ:.-]{27}"'),
        ('"duration_s":D', r'"duration_s":[0-9.e-]+'),
        ('"thread":1', r'"thread":\d+'),
    ):
        text = re.sub(pattern, fixed, text, flags=re.MULTILINE)
    found = text.split("\n")
    assert found.pop() == ""
    for number, line in enumerate(found):
        assert line.startswith(f'{{"timestamp":"T","seq":{number},'), line
    return ["{" + line.split(",", 2)[2] for line in found]


NAN, INF = float("nan"), float("inf")


def test_metrics_lines(recorder: Recorder) -> None:
    """Values in the order of the call, `epoch` beside `step`, what is not finite named behind."""
    recorder.record(100, loss=2.456, lr=0.0001, epoch=2, note="x", ok=True, off=False, n=3, z=None)
    recorder.record(0, a=NAN, b=1.0, c=-INF, d=INF, epoch=NAN)
    recorder.record(7)
    recorder.record(8, epoch=1)
    recorder.record(9, epoch=None)
    recorder.record_dict(10, {"": 1, 'a"b\\c\n\x01': 2, "é😀": 3, "\udfff": 4})
    assert golden(recorder, "metrics") == [
        (
            '{"step":100,"epoch":2,"metrics":{"loss":2.456,"lr":1e-04,'
            '"note":"x","ok":true,"off":false,"n":3,"z":null}}'
        ),
        (
            '{"step":0,"epoch":null,"metrics":{"a":null,"b":1.0,"c":null,"d":null},'
            '"nonfinite":{"epoch":"nan","a":"nan","c":"-inf","d":"inf"}}'
        ),
        '{"step":7,"metrics":{}}',
        '{"step":8,"epoch":1,"metrics":{}}',
        '{"step":9,"metrics":{}}',
        '{"step":10,"metrics":{"":1,"a\\"b\\\\c\\n\\u0001":2,"é😀":3,"\\\\udfff":4}}',
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0.0"), (-0.0, "-0.0"), (1.0, "1.0"), (0.1, "0.1"), (1e16, "1e+16")),
        *((123456789.0, "123456789.0"), (1.7976931348623157e308, "1.7976931348623157e+308")),
        *((5e-324, "5e-324"), (2.2250738585072014e-308, "2.2250738585072014e-308")),
        *((0, "0"), (-1, "-1")),
        *((2**63 - 1, "9223372036854775807"), (-(2**63), "-9223372036854775808")),
        ("", '""'),
        ('say "hi"\\', '"say \\"hi\\"\\\\"'),
        ("\0\x01\b\t\n\x0b\f\r\x1f\x7f", '"\\u0000\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f\x7f"'),
        ("é語😀\u2028", '"é語😀\u2028"'),
        ("\udc80x", '"\\\\udc80x"'),
    ],
)
def test_value_text(recorder: Recorder, value: object, text: str) -> None:
    """The JSON text of single values: shortest digits, escapes, surrogates as their escape."""
    recorder.record(0, v=value)
    assert golden(recorder, "metrics") == [f'{{"step":0,"metrics":{{"v":{text}}}}}']


def test_timing_lines(recorder: Recorder) -> None:
    """An inner block comes first, with depth, parent and the step of the block around it."""
    with pytest.raises(KeyError), recorder.timer("step", step=4), recorder.timer("inner \udc80"):
        raise KeyError
    with recorder.timer("alone"):
        pass
    assert golden(recorder, "performance") == [
        (
            '{"name":"inner \\\\udc80","duration_s":D,"step":4,"depth":1,'
            '"parent":"step","thread":1,"error":"KeyError"}'
        ),
        '{"name":"step","duration_s":D,"step":4,"depth":0,"thread":1,"error":"KeyError"}',
        '{"name":"alone","duration_s":D,"depth":0,"thread":1}',
    ]


def test_log_lines(recorder: Recorder) -> None:
    recorder.event("hi")
    context = {"x": INF, "y": [1]}
    recorder.event('a "b"\n', level="warning", logger="train", step=3, context=context)
    assert golden(recorder, "log") == [
        '{"level":"INFO","logger":"foundry_fastlog","message":"hi","context":{}}',
        (
            '{"level":"WARNING","logger":"train","step":3,'
            '"message":"a \\"b\\"\\n","context":{"x":null,"y":[1]},"nonfinite":{"x":"inf"}}'
        ),
    ]


def test_error_line(recorder: Recorder) -> None:
    """An error that was never raised has a traceback of one line."""
    recorder.event("saving", error=OSError("disk full"), step=5, context={"path": Path("/ckpt")})
    (line,) = golden(recorder, "errors")
    assert line == (
        '{"level":"ERROR","logger":"foundry_fastlog","step":5,'
        '"message":"saving","error_type":"OSError","error_message":"disk full",'
        '"traceback":"OSError: disk full\\n","fingerprint":"b120f114578cb22d",'
        '"context":{"path":"/ckpt"}}'
    )
    assert not (recorder.path / "log.jsonl").exists()


def test_timestamp_is_the_time_of_the_call(recorder: Recorder) -> None:
    slack = timedelta(milliseconds=50)  # the wall clock may be adjusted meanwhile
    before = datetime.now(timezone.utc)
    recorder.record(0, x=1.0)
    after = datetime.now(timezone.utc)
    recorder.record(1, x=1.0)
    texts = [line["timestamp"].replace("Z", "+00:00") for line in written(recorder)]
    first, second = map(datetime.fromisoformat, texts)
    assert before - slack <= first <= after + slack
    assert first <= second


def test_every_line_matches_its_schema(recorder: Recorder) -> None:
    recorder.record(0, epoch=1.5, loss=NAN, note="x", n=1, ok=True, z=None)
    recorder.record(1, loss=1.0)
    recorder.record(2, note="x" * (9 << 20))  # dropped: leaves a marker
    timer = recorder.timer
    with pytest.raises(ValueError, match="v") as caught, timer("outer", step=1), timer("inner"):
        raise ValueError("v")
    recorder.event("e", error=caught.value, step=1, context={"a": INF})
    recorder.event("m", context={"deep": {"list": [1, None, "x"]}})
    for stream, count in {"metrics": 3, "performance": 2, "errors": 1, "log": 1}.items():
        found = written(recorder, stream)
        assert len(found) == count
        for line in found:
            VALIDATORS[stream].validate(line)
