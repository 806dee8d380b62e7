"""Rendering of contexts: nothing that somebody puts into one is lost, raises, or breaks a line."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import uuid
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import lines, run_python

from foundry_fastlog import Recorder
from foundry_fastlog.base.json_text import (
    IN_MEMORY,
    nonfinite_fields,
    plain_context,
    readable,
    render_members,
    safe_str,
    text_of_value,
)

Word = enum.Enum("Word", {"HELLO": "hello"}, type=str)
Number = enum.IntEnum("Number", {"ONE": 1})


@dataclasses.dataclass
class Point:
    x: Any = 1


class Bad:
    __str__ = Mock(side_effect=LookupError("no text"))


def rendered(value: object) -> Any:
    """Render one value; parse it strictly with both parsers."""
    text = b"{" + render_members({"v": value}) + b"}"
    parsed = orjson.loads(text)
    assert json.loads(text) == parsed
    return parsed["v"]


def test_members_have_no_braces() -> None:
    """The caller puts members together; order is kept, and nothing gives nothing."""
    assert render_members({"b": 1, "a": "x"}) == b'"b":1,"a":"x"'
    assert render_members({}) == b""


MOMENT = datetime(2026, 1, 30, tzinfo=timezone.utc)
WELL_KNOWN = [
    *((value, value) for value in (None, True, -(2**63), 2**63 - 1, 1.5, "text", "9" * 30)),
    *((huge, str(huge)) for huge in (2**63, 2**64 - 1, -(2**63) - 1, 10**400)),
    *((math.nan, None), (math.inf, None), ("\udc80", "\\udc80"), (b"x", "b'x'")),
    *(((1, 2), [1, 2]), ([1, [2]], [1, [2]]), ({1}, [1]), (frozenset({1}), [1])),
    *((UserDict(a=UserDict(b=1)), {"a": {"b": 1}}), (OrderedDict(a=1), {"a": 1})),
    ({1: "int", None: "none"}, {"1": "int", "null": "none"}),
    ({False: "bool", 1.5: "float"}, {"false": "bool", "1.5": "float"}),
    *(({date(2026, 1, 30): 1}, {"2026-01-30": 1}), ({"\udc80": 1}, {"\\udc80": 1})),
    ({("a", "b"): 1}, {"('a', 'b')": 1}),
    *((Word.HELLO, "hello"), (Number.ONE, 1)),
    *((Point(), {"x": 1}), (Point(2**63), {"x": str(2**63)})),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    *((date(2026, 1, 30), "2026-01-30"), (MOMENT, "2026-01-30T00:00:00+00:00")),
    *((Decimal("1.50"), "1.50"), (Path("/a"), "/a"), (1 + 2j, "(1+2j)"), (ValueError("v"), "v")),
    *((np.float32(0.5), 0.5), (np.float64(2.5), 2.5), (np.int64(5), 5), (np.bool_(1), True)),
    *((np.uint64(2**64 - 1), str(2**64 - 1)), (np.array([[1.5, 2.5]]), [[1.5, 2.5]])),
    (Bad(), "<Bad whose str() raised LookupError>"),
]


@pytest.mark.parametrize(("value", "expected"), WELL_KNOWN, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("beside", [0, 10**30, "\udc80"], ids=["alone", "huge int", "surrogate"])
def test_values(value: object, expected: object, beside: object) -> None:
    """A value is written in one way, whatever stands beside it in the context."""
    found = rendered([value, beside])[0]
    assert found == expected
    assert type(found) is type(expected)


def test_circles() -> None:
    """What contains itself is cut there; what is merely used twice is written twice."""
    circular: list[Any] = [1]
    circular.append(circular)
    assert rendered(circular) == [1, "<circular reference>"]
    mutual: dict[str, Any] = {}
    mutual["set"] = {"back": mutual}
    assert rendered(mutual) == {"set": {"back": "<circular reference>"}}
    twice = [10**30]
    assert rendered([twice, twice]) == [[str(10**30)]] * 2
    point = Point()
    point.x = {"point": point}
    assert plain_context({"p": point}) == {"p": "Point(x={'point': ...})"}


@pytest.mark.parametrize("depth", [30, 200, 2_000, 100_000])
def test_depth(depth: int) -> None:
    """Any depth is taken; too much of it is cut."""
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    found, levels = rendered(deep), 0
    while isinstance(found, list):
        (found,) = found
        levels += 1
    assert (found, levels) == (1, depth) if depth < 200 else found in (1, "<nested too deep>")
    while isinstance(deep, list):  # freed level by level: a recursion of its own otherwise
        deep = deep.pop()


@pytest.mark.parametrize(("depth", "kept"), [(32, True), (33, True), (34, False)])
def test_the_deepest_level_that_is_kept(depth: int, kept: bool) -> None:
    """In a copy, and by the search for numbers that are not finite, which has a mapping above."""
    deep: Any = math.nan
    for _ in range(depth):
        deep = [deep]
    assert ("<nested too deep>" in str(readable(deep))) is not kept
    assert bool(nonfinite_fields({"deep": deep[0]})) is kept


class Hostile:
    """An object whose every attribute raises."""

    def __getattribute__(self, name: str) -> Any:
        raise LookupError(name)


class NoKeys(UserDict[str, int]):
    __iter__ = Mock(side_effect=LookupError("no keys"))


class NoItem(UserDict[str, int]):
    """A mapping of which one item cannot be read."""

    def __getitem__(self, key: str) -> int:
        if key == "b":
            raise LookupError(key)
        return super().__getitem__(key)


class NoLength(list[int]):
    __len__ = Mock(side_effect=LookupError("len"))


class BadInt(int):
    __int__ = Mock(side_effect=LookupError("int"))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: NoKeys(a=1), "{'a': 1}"),
        (Hostile, "Hostile object at"),
        (lambda: NoLength([1]), "[1]"),
        (lambda: BadInt(2**63), str(2**63)),
        (lambda: 10**5000, "<int whose str() raised ValueError>"),
        (type("Odd", (), {"__module__": None, "__str__": lambda _: 5}), "<Odd whose str() raised"),
        (type("Gone", (), {"__str__": lambda _: exec("raise GeneratorExit")}), "GeneratorExit>"),
    ],
)
def test_values_that_raise(make: Callable[[], object], expected: str) -> None:
    """They are text, in messages and in text logs, and what stands beside them is what it is."""
    found = rendered([make(), {"n": 1}, 10**30])
    assert expected in str(found[0])
    assert found[1:] == [{"n": 1}, str(10**30)]
    assert expected in text_of_value(make())


def test_numbers_that_are_not_finite_stay_numbers() -> None:
    """A copy of a context is still searched for them."""
    found = plain_context({"array": np.array([[1.5, np.nan]], np.float32), "n": np.float16("inf")})
    assert str(found) == "{'array': [[1.5, nan]], 'n': inf}"


def test_contexts_that_raise() -> None:
    """What can be read of them is there, the rest is named."""
    assert plain_context(NoItem(a=1, b=2)) == {"a": 1, "b": "<not read: LookupError>"}
    assert plain_context(NoKeys(a=1)) == {"unreadable": "NoKeys raised LookupError"}


CUDA = SimpleNamespace(type="cuda")
ON_DEVICE = SimpleNamespace(shape=(10, 200), dtype="int8", device=CUDA)
BATCH = np.arange(1.0, 200_001.0, dtype=np.float32).reshape(2, 100, 1000)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (BATCH, "<ndarray of float32, shape (2, 100, 1000): 1, 2, 3, 4, 5, 6, ...>"),
        (BATCH.transpose(), "<ndarray of float32, shape (1000, 100, 2): 1, 100001, ...>"),
        (np.array(["x" * 50] * 2000), f"<ndarray of <U50, shape (2000,): {'x' * 40}... (50 char"),
        (b"x" * 5000, "<bytes of 5000 items: 120, 120, 120, 120, 120, 120, ...>"),
        (deque(range(5000)), "<deque of 5000 items: 0, 1, 2, 3, 4, 5, ...>"),
        (ON_DEVICE, "<SimpleNamespace of int8, shape (10, 200), on namespace(type='cuda')>"),
        (SimpleNamespace(shape=(10, 200), dtype="int8"), "<SimpleNamespace of int8, shape (10, 2"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_large_values_are_described(value: object, expected: str) -> None:
    """By type, shape and a few values, before anything of them is rendered; alike everywhere."""
    found = [rendered(value), rendered([value, 10**30])[0], text_of_value(value)]
    for one in (*found, readable(value, IN_MEMORY), plain_context({"v": value})["v"]):
        assert str(one).startswith(expected)


def test_what_a_cut_list_has_lost_is_not_named(tmp_path: Path) -> None:
    """A number that is not finite is named where the line still has its null."""
    with Recorder(tmp_path, ring_bytes=64 << 10) as recorder:
        context = {"list": [10] * 900 + [math.nan], "n": math.nan}
        assert recorder.event("m" * 99_999, context=context)
    (line,) = lines(tmp_path, "log")
    assert (line["nonfinite"], line["context"]["list"][256]) == ({"n": "nan"}, "... (901 items)")


def test_large_containers_are_cut() -> None:
    """With a note of how much there was; what comes later is there, too."""
    long = list(range(5000))
    found = plain_context({"list": long, "dict": dict.fromkeys(long), "deep": [long] * 50, "n": 1})
    assert found["list"] == [*range(1000), "... (5000 items)"]
    assert found["dict"].pop("...") == "(5000 items)"
    assert len(found["dict"]) == 1000
    assert sum(map(len, found["deep"])) < 11_000
    assert found["n"] == 1
    assert readable({"list": long, "text": "x" * 5000}, IN_MEMORY) == {
        "list": [*range(100), "... (5000 items)"],
        "text": "x" * 4000 + "... (5000 characters)",
    }
    assert text_of_value([long]).endswith("98, 99, '... (5000 items)']]")
    assert text_of_value((1, [2])) == "(1, [2])"
    assert text_of_value([b"x", {1: NoLength([1])}]).startswith("[\"b'x'\", {'1': ")


def test_an_unknown_object_imports_nothing() -> None:
    """Not numpy above all, which takes a fifth of a second."""
    run_python(
        "import sys; from foundry_fastlog.base.json_text import readable, render_members; "
        "render_members({'a': object()}); readable(object()); assert 'numpy' not in sys.modules"
    )


def test_interrupts_go_through() -> None:
    """Ctrl-C within a __str__ is no fault of the value's, although orjson takes it for one."""
    interrupted = type("Interrupted", (), {"__str__": Mock(side_effect=KeyboardInterrupt)})
    for call in (safe_str, text_of_value, readable, lambda value: render_members({"v": value})):
        with pytest.raises(KeyboardInterrupt):
            call(interrupted())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("plain", "plain"), ("\ud800", "\\ud800"), (5, "5"), (None, "None"), (Bad, str(Bad))),
        (Bad(), "<Bad whose str() raised LookupError>"),
    ],
)
def test_safe_str(value: object, expected: str) -> None:
    """Always a text that UTF-8 can say."""
    assert safe_str(value) == expected


def test_nonfinite_fields() -> None:
    """Dotted paths through mappings, lists, tuples and numpy, beside what raises, in circles."""
    nan, inf = math.nan, math.inf
    context: dict[Any, Any] = {"a": nan, "user": UserDict(x=nan), "ok": 1.0, "int": 10**400}
    context |= {"bool": True, "text": "nan", "none": None, "\udc80": nan}
    context |= {"f32": np.float32("nan"), "f64": np.float64("nan"), "f16": np.float16("-inf")}
    context |= {
        "b": {"c": [1.0, inf, {"d": -inf}], 5: (nan,), None: nan},
        "array": np.array([[1.0, nan]]),
        "long": np.longdouble("nan"),  # orjson writes it as text
        "strided": np.array([nan, 1.0, 2.0])[::2],  # likewise
    }
    expected = {"b.c.1": "inf", "b.c.2.d": "-inf", "f16": "-inf"}
    nans = ("a", "b.5.0", "b.null", "user.x", "\\udc80", "f32", "f64", "array.0.1")
    expected |= dict.fromkeys(nans, "nan")
    assert nonfinite_fields(context) == expected
    hostile = {"bad": Hostile(), "keys": NoKeys(a=1)}
    assert nonfinite_fields({**hostile, "n": nan}) == {"n": "nan"}
    circular: dict[str, Any] = {"n": nan}
    circular["again"] = circular
    found = nonfinite_fields(circular)
    assert found["n"] == found["again.n"] == "nan"
    assert len(found) < 50


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=4)
)
CONTEXTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), inner, max_size=3),
    ),
    max_leaves=10,
)


@given(CONTEXTS)
def test_anything_is_one_strict_json_value(value: object) -> None:
    """Both parsers take it, nonfinite values are null and named, and no int leaves 64 bits."""

    def walk(found: Any) -> None:
        if isinstance(found, (dict, list)):
            for item in found.values() if isinstance(found, dict) else found:
                walk(item)
        elif isinstance(found, int):
            assert -(2**63) <= found < 2**63

    found = rendered(value)
    walk(found)
    nothing = value is None or (isinstance(value, float) and not math.isfinite(value))
    assert (found is None) == nothing


@given(CONTEXTS)
def test_readable_is_what_orjson_takes(value: object) -> None:
    orjson.dumps(readable(value), option=orjson.OPT_NON_STR_KEYS)
