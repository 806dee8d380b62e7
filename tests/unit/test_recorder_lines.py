"""The bytes of metrics and timings, and any value under any key, read back with two parsers."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oracle
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from recorded import lines, parse

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


INT64 = st.integers(-(2**63), 2**63 - 1)
# Any code point, lone surrogates too.
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
FLOATS = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
BITS = st.binary(min_size=8, max_size=8).map(lambda data: struct.unpack("<d", data)[0])
VALUES = st.one_of(FLOATS, BITS, INT64, st.booleans(), st.none(), TEXT)
# As written: keys that differ in memory only by how a lone surrogate is spelled are refused.
METRICS = st.dictionaries(TEXT, VALUES, max_size=40).filter(
    lambda metrics: len({oracle.text(key) for key in metrics}) == len(metrics)
)


class Tail:
    """An open recorder, and what it wrote since the last look."""

    def __init__(self, run: Path) -> None:
        self.recorder = Recorder(run)
        self.offsets: dict[str, int] = {}

    def last_line(self, stream: str = "metrics") -> bytes:
        assert self.recorder.flush()
        with (self.recorder.path / f"{stream}.jsonl").open("rb") as file:
            file.seek(self.offsets.get(stream, 0))
            new = file.read()
        self.offsets[stream] = self.offsets.get(stream, 0) + len(new)
        assert (new.count(b"\n"), new[-1:]) == (1, b"\n")
        return new[:-1]


@pytest.fixture(scope="module")
def tail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tail]:
    """One recorder for all examples; at the end, `seq` has no gap over all of them."""
    opened = Tail(tmp_path_factory.mktemp("roundtrip") / "run")
    with opened.recorder as recorder:
        yield opened
    for stream in ("metrics", "performance", "errors", "log"):
        lines(recorder.path, stream)
    assert recorder.stats()["dropped"] == 0


def check_values(metrics: dict[str, Any], line: bytes) -> None:
    """Compare a metrics line with what was recorded, as both parsers read it."""
    expected, nonfinite = oracle.plain(metrics)
    epoch = expected.pop("epoch", None)
    for loads in (json.loads, orjson.loads):
        read = loads(line)
        assert list(read["metrics"]) == list(expected)
        for key, value in expected.items():
            found = read["metrics"][key]
            assert type(found) is type(value)
            assert repr(found) == repr(value)  # -0.0 is not 0.0
        assert read.get("nonfinite", {}) == nonfinite
        assert read.get("epoch") == epoch


LINE_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@given(step=INT64, metrics=METRICS, epoch=st.one_of(st.none(), INT64, FLOATS))
@example(0, {"": float("nan"), "\x00": 5e-324, "\udcff": "\ud800\udc00", "n": -(2**63)}, 1)
@example(0, {LINE_BREAKS: LINE_BREAKS}, None)
def test_round_trip(tail: Tail, step: int, metrics: dict[str, Any], epoch: float | None) -> None:
    """By record_dict() and, where no name is `step`, by record()."""
    metrics["epoch"] = epoch
    calls = [lambda: tail.recorder.record_dict(step, metrics)]
    calls += [lambda: tail.recorder.record(step, **metrics)] * ("step" not in metrics)
    for call in calls:
        assert call()
        line = tail.last_line()
        assert parse(line)["step"] == step
        check_values(metrics, line)


NAMES = TEXT.filter(lambda key: "." not in key)
NESTED = st.recursive(
    st.dictionaries(NAMES, VALUES, max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(VALUES, inner), max_size=4),
    max_leaves=12,
)


def flatten(nested: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Join the keys of nested dicts with dots, in order."""
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@given(step=INT64, nested=NESTED)
def test_log_round_trip(tail: Tail, step: int, nested: dict[str, Any]) -> None:
    """log() writes nested dicts under dotted names, or refuses two that become the same."""
    flat = list(flatten(nested))
    metrics = dict(flat)
    metrics.pop("epoch", None)
    if any(key == "epoch" for key, _ in flat):
        return  # its type is checked: see test_recorder_calls.py
    if len({oracle.text(key) for key, _ in flat}) < len(flat):
        with pytest.raises(ValueError, match="would be written as"):
            tail.recorder.log(nested, step=step)
        return
    assert tail.recorder.log(nested, step)
    check_values(metrics, tail.last_line())


JSON_LIKE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)


def as_written(value: object) -> object:
    """What the format makes of a context: null for NaN, text for huge ints and surrogates."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return oracle.text(value)
    if isinstance(value, list):
        return [as_written(item) for item in value]
    if isinstance(value, dict):
        return {oracle.text(key): as_written(item) for key, item in value.items()}
    return value


@given(message=TEXT, logger=TEXT, context=st.dictionaries(TEXT, JSON_LIKE, max_size=5))
def test_event_round_trip(tail: Tail, message: str, logger: str, context: dict[str, Any]) -> None:
    """event() writes any text and any JSON-like context; nothing in it can fail the call."""
    assert tail.recorder.event(message, logger=logger, context=context)
    line = orjson.loads(tail.last_line("log"))
    assert line["message"] == oracle.text(message)
    assert line["logger"] == (oracle.text(logger) or "foundry_fastlog")
    assert line["context"] == as_written(context)


@given(name=TEXT, outer=TEXT, step=st.one_of(st.none(), INT64))
def test_timer_round_trip(tail: Tail, name: str, outer: str, step: int | None) -> None:
    with tail.recorder.timer(outer, step=step):
        with tail.recorder.timer(name):
            pass
        inner = parse(tail.last_line("performance"))
    parse(tail.last_line("performance"))
    assert (inner["name"], inner["parent"]) == (oracle.text(name), oracle.text(outer))
    assert inner.get("step") == step
