"""Which values record() takes, and how it refuses the others."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from contract import VALIDATORS
from recorded import written

from foundry_fastlog import Recorder


def value_of(recorder: Recorder, value: object) -> object:
    assert recorder.record(0, v=value)
    (line,) = written(recorder)
    return float(line["nonfinite"]["v"]) if "nonfinite" in line else line["metrics"]["v"]


def check(found: object, expected: object) -> None:
    assert (type(found), repr(found)) == (type(expected), repr(expected))


Color = enum.IntEnum("Color", {"RED": 3})
Flags = enum.IntFlag("Flags", {"A": 1, "B": 2})
Word = enum.Enum("Word", {"HELLO": "hello"}, type=str)


class LoudFloat(float):
    """A float that lies about itself; likewise the next two."""

    __float__ = Mock(return_value=-1.0)
    __repr__ = Mock(return_value="loud")


class LoudInt(int):
    __index__ = Mock(return_value=-1)


class LoudStr(str):
    __slots__ = ()
    __str__ = Mock(return_value="loud")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((LoudFloat(2.5), 2.5), (LoudInt(7), 7), (LoudStr("quiet"), "quiet"), (Color.RED, 3)),
        *((Flags.A | Flags.B, 3), (Word.HELLO, "hello"), (True, True), (None, None)),
    ],
)
def test_subclasses_of_python_scalars(recorder: Recorder, value: object, expected: object) -> None:
    """Subclasses are recorded by the value that they hold, whatever their methods say."""
    check(value_of(recorder, value), expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((np.float16(0.5), 0.5), (np.float32(0.1), 0.10000000149011612), (np.float64(0.1), 0.1)),
        *((np.longdouble("0.1"), 0.1), (np.longdouble("inf"), math.inf)),
        *((np.float32("nan"), math.nan), (np.float32("-inf"), -math.inf)),
        *((np.int8(-128), -128), (np.int16(-5), -5), (np.int32(2**31 - 1), 2**31 - 1)),
        *((np.int64(-(2**63)), -(2**63)), (np.uint8(255), 255), (np.uint16(7), 7)),
        *((np.uint32(2**32 - 1), 2**32 - 1), (np.uint64(2**63 - 1), 2**63 - 1)),
        *((np.bool_(1), True), (np.bool_(0), False), (np.str_("text"), "text")),
    ],
)
@pytest.mark.parametrize("as_array", [False, True], ids=["scalar", "0-dim"])
def test_numpy(recorder: Recorder, value: Any, expected: object, *, as_array: bool) -> None:
    check(value_of(recorder, np.array(value) if as_array else value), expected)


def test_masked_values_of_numpy(recorder: Recorder) -> None:
    """An element that its array calls invalid is null and named; the number below it is none."""
    array = np.ma.array([1.0, 2.0], mask=[True, False])
    masked = {
        "constant": np.ma.masked,
        "element": array[0],
        "whole": np.ma.array(3.0, mask=True),
        "count": np.ma.array(3, mask=True),
        "empty": np.ma.array([1.0], mask=True).mean(),
    }
    there = {"valid": array[1], "mean": array.mean(), "unmasked": np.ma.array(3.0)}
    assert recorder.record(0, **masked, **there)
    assert recorder.record(1, **{"k" * 300: np.ma.masked})
    with pytest.raises(TypeError, match="epoch must be"):
        recorder.record(2, epoch=np.ma.masked)
    assert recorder.epoch_summary(1, {"m": np.ma.masked, "w": np.ma.array(3.0, mask=True)})
    found = line, long, summary = written(recorder)
    values = {"valid": 2.0, "mean": 2.0, "unmasked": 3.0}
    assert line["metrics"] == dict.fromkeys(masked) | values
    assert line["missing"] == dict.fromkeys(masked, "masked")
    assert long["missing"] == {"k" * 300: "masked"}
    assert summary["summary"] == {"m": None, "w": None}
    for one in found:
        VALIDATORS["metrics"].validate(one)


@pytest.mark.parametrize(
    "value",
    [
        *(2**64, -(2**63) - 1, 10**400, -(10**400)),
        *(np.array(2**64, dtype=object), LoudInt(2**64)),
    ],
)
def test_int_beyond_64_bits(recorder: Recorder, value: Any) -> None:
    """An OverflowError that names the key and what to pass instead."""
    with pytest.raises(OverflowError, match=r"'v'.*float\(x\).*str\(x\)"):
        recorder.record(0, fine=1.0, v=value)
    assert recorder.stats()["calls"] == 0


@dataclass
class Plain:
    x: int = 1


class Raising:
    """Looks like an array until one looks closer."""

    ndim = 0
    __dlpack_device__ = Mock(side_effect=RuntimeError("the device is gone"))


class NoItem:
    """An array without dimensions, on the CPU, that gives no element."""

    ndim = 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def odd_array(device: object, **members: object) -> object:
    """What looks like an array, with members that may be wrong."""
    return type("Odd", (), {"__dlpack_device__": lambda _: device, **members})()


ON_GPU = odd_array((2, 0), ndim=0)  # kDLCUDA is 2


REFUSED: list[tuple[object, str]] = [
    *(([1.0], "list"), ((1.0,), "tuple"), ({"a": 1.0}, "dict"), ({1.0}, "set")),
    *((b"bytes", "bytes"), (bytearray(b"x"), "bytearray"), (1 + 2j, "complex")),
    *((Decimal("1.5"), "Decimal"), (Fraction(1, 2), "Fraction"), (Plain(), "Plain")),
    *((object(), "object"), (float, "type"), (len, "builtin_function_or_method")),
    *((lambda: 1.0, "function"), (Path("x"), "Path")),
    *((np.float64, "type"), (np.ndarray, "type")),
    *((np.zeros(0), "ndarray"), (np.zeros((2, 2)), "ndarray")),
    *((np.complex64(1), "complex64"), (np.complex128(1), "complex128")),
    *((np.clongdouble(1 + 2j), "clongdouble|complex256"), (np.array(1 + 2j), "complex128")),
    (np.datetime64("2020-01-01"), "datetime64"),
    (np.datetime64("2020-01-01", "ns"), "datetime64"),
    (np.array(np.datetime64("2020-01-01", "ns")), "datetime64"),
    *((np.datetime64("NaT", "ns"), "datetime64"), (np.timedelta64(5, "ns"), "timedelta64")),
    *((np.bytes_(b"x"), "bytes_"), (np.void(b"x"), "void")),
    (np.array({"a": 1}, dtype=object), "ndarray"),
    (np.array([[1], 2], dtype=object)[:1], "ndarray"),
    *((Raising(), "Raising"), (odd_array("cpu"), "Odd"), (odd_array(("cpu", 0)), "Odd")),
    *((odd_array((1, 0)), "Odd"), (odd_array((1, 0), ndim="none"), "Odd"), (NoItem(), "NoItem")),
    *((odd_array((1, 0), ndim=0, item=lambda _: [1]), "Odd"), (ON_GPU, "Odd")),
]


@pytest.mark.parametrize(
    ("value", "kind"), REFUSED, ids=[f"{k}-{n}" for n, (_, k) in enumerate(REFUSED)]
)
def test_other_types_are_refused(recorder: Recorder, value: object, kind: str) -> None:
    """A TypeError names the key and the type, and the record leaves no trace."""
    for call in (
        lambda: recorder.record(1, before=1.0, **{"the key": value}, behind=2.0),
        lambda: recorder.record_dict(1, {"before": 1.0, "the key": value}),
    ):
        with pytest.raises(TypeError, match=rf"'the key' has type [\w.]*({kind})"):
            call()
    assert recorder.record(2, fine=1.0)
    assert [line["step"] for line in written(recorder)] == [2]
    assert recorder.stats()["calls"] == 1


def test_what_a_refusal_says(recorder: Recorder) -> None:
    """The way out; what the value raised, as the cause; keys with any characters."""
    with pytest.raises(TypeError, match=r"value\.mean\(\)"):
        recorder.record(0, v=np.zeros(3))
    with pytest.raises(TypeError, match=r"value\.item\(\)"):
        recorder.record(0, v=ON_GPU)
    with pytest.raises(TypeError, match="'v' has type Raising") as caught:
        recorder.record(0, v=Raising())
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(TypeError, match=r"value of 'a\\n\\udc80' has type list"):
        recorder.record_dict(0, {"a\n\udc80": []})


def test_keyboard_interrupt_goes_through(recorder: Recorder) -> None:
    """Only errors become a TypeError; Ctrl-C in a value's method stays what it is."""
    interrupted = NoItem()
    interrupted.item = Mock(side_effect=KeyboardInterrupt)  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        recorder.record(0, v=interrupted)


def test_values_may_record_themselves(recorder: Recorder) -> None:
    """A value whose method calls the recorder again does not disturb the record around it."""

    class Recording(NoItem):
        def item(self) -> float:
            recorder.record_dict(1, {f"inner{n}": float(n) for n in range(50)})
            return 7.0

    assert recorder.record(2, a=1.0, v=Recording(), b=2.0)
    inner, outer = written(recorder)
    assert len(inner["metrics"]) == 50
    assert outer["metrics"] == {"a": 1.0, "v": 7.0, "b": 2.0}
