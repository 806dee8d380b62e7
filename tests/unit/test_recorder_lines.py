"""Golden lines: the bytes of every kind of line, apart from clock, thread and traceback."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import jsonschema
import pytest
from recorded import lines, parse, raw_lines

import foundry_fastlog
from foundry_fastlog import Recorder

SCHEMAS = Path(foundry_fastlog.__file__).parent / "run" / "schema"


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A recorder of the run in tmp_path / "run"."""
    with Recorder(tmp_path / "run") as opened:
        yield opened


def golden(recorder: Recorder, stream: str) -> list[str]:
    """Close the recorder; return a stream's lines with fixed clock and thread."""
    assert recorder.close()
    texts = [line.decode() for line in raw_lines(recorder.path / f"{stream}.jsonl")]
    fixed = [re.sub(r'^{"timestamp":"[0-9TZ:.-]{27}"', '{"timestamp":"T"', text) for text in texts]
    fixed = [re.sub(r'"duration_s":[0-9.e-]+', '"duration_s":D', text) for text in fixed]
    return [re.sub(r'"thread":\d+', '"thread":1', text) for text in fixed]


def test_metrics_line(recorder: Recorder) -> None:
    """Every value type in one line, in the order of the call, `epoch` beside `step`."""
    recorder.record(100, loss=2.456, lr=0.0001, epoch=2, note="x", ok=True, off=False, n=3, z=None)
    assert golden(recorder, "metrics") == [
        (
            '{"timestamp":"T","seq":0,"step":100,"epoch":2,"metrics":{"loss":2.456,"lr":1e-04,'
            '"note":"x","ok":true,"off":false,"n":3,"z":null}}'
        )
    ]


def test_nonfinite_metrics_line(recorder: Recorder) -> None:
    """NaN and infinities are null, and named in call order behind the metrics."""
    recorder.record(0, a=float("nan"), b=1.0, c=float("-inf"), d=float("inf"), epoch=float("nan"))
    assert golden(recorder, "metrics") == [
        (
            '{"timestamp":"T","seq":0,"step":0,"epoch":null,"metrics":{"a":null,"b":1.0,"c":null,'
            '"d":null},"nonfinite":{"epoch":"nan","a":"nan","c":"-inf","d":"inf"}}'
        )
    ]


def test_line_without_metrics(recorder: Recorder) -> None:
    """A record may carry nothing but its step, or its step and epoch."""
    recorder.record(7)
    recorder.record(8, epoch=1)
    recorder.record(9, epoch=None)
    recorder.record_dict(10, {})
    assert golden(recorder, "metrics") == [
        '{"timestamp":"T","seq":0,"step":7,"metrics":{}}',
        '{"timestamp":"T","seq":1,"step":8,"epoch":1,"metrics":{}}',
        '{"timestamp":"T","seq":2,"step":9,"metrics":{}}',
        '{"timestamp":"T","seq":3,"step":10,"metrics":{}}',
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (1e16, "1e+16"),
        (123456789.0, "123456789.0"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (2.2250738585072014e-308, "2.2250738585072014e-308"),
        (0, "0"),
        (-1, "-1"),
        (2**63 - 1, "9223372036854775807"),
        (-(2**63), "-9223372036854775808"),
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
    assert golden(recorder, "metrics") == [
        f'{{"timestamp":"T","seq":0,"step":0,"metrics":{{"v":{text}}}}}'
    ]


def test_key_text(recorder: Recorder) -> None:
    """Keys are escaped like values, and an empty one is one."""
    recorder.record_dict(0, {"": 1, 'a"b\\c\n\x01': 2, "é😀": 3, "\udfff": 4})
    assert golden(recorder, "metrics") == [
        (
            '{"timestamp":"T","seq":0,"step":0,"metrics":{"":1,"a\\"b\\\\c\\n\\u0001":2,"é😀":3,'
            '"\\\\udfff":4}}'
        )
    ]


def test_timing_lines(recorder: Recorder) -> None:
    """An inner block comes first, with depth, parent and the step of the block around it."""
    with pytest.raises(KeyError), recorder.timer("step", step=4), recorder.timer("inner \udc80"):
        raise KeyError
    with recorder.timer("alone"):
        pass
    assert golden(recorder, "performance") == [
        (
            '{"timestamp":"T","seq":0,"name":"inner \\\\udc80","duration_s":D,"step":4,"depth":1,'
            '"parent":"step","thread":1,"error":"KeyError"}'
        ),
        (
            '{"timestamp":"T","seq":1,"name":"step","duration_s":D,"step":4,"depth":0,"thread":1,'
            '"error":"KeyError"}'
        ),
        '{"timestamp":"T","seq":2,"name":"alone","duration_s":D,"depth":0,"thread":1}',
    ]


def test_log_line(recorder: Recorder) -> None:
    """A message with and without step, logger and context."""
    recorder.event("hi")
    recorder.event(
        'a "b"\n', level="warning", logger="train", step=3, context={"x": float("inf"), "y": [1]}
    )
    assert golden(recorder, "log") == [
        (
            '{"timestamp":"T","seq":0,"level":"INFO","logger":"foundry_fastlog","message":"hi",'
            '"context":{}}'
        ),
        (
            '{"timestamp":"T","seq":1,"level":"WARNING","logger":"train","step":3,'
            '"message":"a \\"b\\"\\n","context":{"x":null,"y":[1]},"nonfinite":{"x":"inf"}}'
        ),
    ]


def test_error_line(recorder: Recorder) -> None:
    """An error that was never raised has a traceback of one line."""
    recorder.event("saving", error=OSError("disk full"), step=5, context={"path": Path("/ckpt")})
    assert golden(recorder, "errors") == [
        (
            '{"timestamp":"T","seq":0,"level":"ERROR","logger":"foundry_fastlog","step":5,'
            '"message":"saving","error_type":"OSError","error_message":"disk full",'
            '"traceback":"OSError: disk full\\n","fingerprint":"b120f114578cb22d",'
            '"context":{"path":"/ckpt"}}'
        )
    ]
    assert not (recorder.path / "log.jsonl").exists()


def test_timestamp_is_the_time_of_the_call(recorder: Recorder) -> None:
    """Timestamps lie between the clock readings around the call, not at the flush."""
    slack = timedelta(milliseconds=50)  # the wall clock may be adjusted meanwhile
    before = datetime.now(timezone.utc)
    recorder.record(0, x=1.0)
    after = datetime.now(timezone.utc)
    recorder.record(1, x=1.0)
    recorder.close()
    first, second = (
        datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00"))
        for line in lines(recorder.path)
    )
    assert before - slack <= first <= after + slack
    assert first <= second


def test_every_line_matches_its_schema(recorder: Recorder) -> None:
    """Lines of all four streams, with all their optional fields, satisfy the shipped schemas."""
    recorder.record(0, epoch=1.5, loss=float("nan"), note="x", n=1, ok=True, z=None)
    recorder.record(1, loss=1.0)
    recorder.record(2, note="x" * (9 << 20))  # dropped: leaves a marker
    with (
        pytest.raises(ValueError, match="v") as caught,
        recorder.timer("outer", step=1),
        recorder.timer("inner"),
    ):
        raise ValueError("v")
    recorder.event("e", error=caught.value, step=1, context={"a": float("inf")})
    recorder.event("m", context={"deep": {"list": [1, None, "x"]}})
    recorder.close()
    counts = {}
    for stream in ("metrics", "performance", "errors", "log"):
        schema = json.loads((SCHEMAS / f"{stream}.schema.json").read_text(encoding="utf-8"))
        validator = jsonschema.Draft202012Validator(schema)
        found = [parse(line) for line in raw_lines(recorder.path / f"{stream}.jsonl")]
        for line in found:
            validator.validate(line)
        counts[stream] = len(found)
    assert counts == {"metrics": 3, "performance": 2, "errors": 1, "log": 1}
