"""How record(), record_dict() and log() are called, and what a wrong call says."""

from __future__ import annotations

import types
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import lines, written

from foundry_fastlog import Recorder, RecorderClosedError


def read(recorder: Recorder) -> list[tuple[int, dict[str, Any]]]:
    return [(line["step"], line["metrics"]) for line in written(recorder)]


def refused(recorder: Recorder, error: Any, match: str, *calls: Callable[[], object]) -> None:
    """Each call raises, and nothing is written."""
    for call in calls:
        with pytest.raises(error, match=match):
            call()
    assert read(recorder) == []


class Index:
    """An object with __index__, as torch tensors and numpy ints have."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.mark.parametrize(
    "step",
    [*(0, -1, 2**30, -(2**30), 2**60, 2**63 - 1, -(2**63)), *(np.int32(7), np.uint8(7), Index(9))],
)
def test_steps(recorder: Recorder, step: Any) -> None:
    assert recorder.record(step, x=1.0)
    assert recorder.record(step=step, x=2.0)
    assert recorder.record_dict(step, {"x": 3.0})
    assert recorder.log({"x": 4.0}, step)
    assert [found for found, _ in read(recorder)] == [step.__index__()] * 4


@pytest.mark.parametrize(
    ("error", "step"),
    [
        *((TypeError, step) for step in (None, True, 1.0, "1", [1], np.float32(1))),
        *((OverflowError, step) for step in (2**63, -(2**63) - 1, Index(2**64))),
    ],
)
def test_wrong_steps(recorder: Recorder, step: Any, error: type[Exception]) -> None:
    calls: list[Callable[[], object]] = [
        lambda: recorder.record(step, x=1.0),
        lambda: recorder.record(step=step, x=1.0),
        lambda: recorder.record_dict(step, {"x": 1.0}),
        lambda: recorder.timer("t", step=step),
    ]
    refused(recorder, error, "step", *calls[: None if step is not None else -1])


def test_step_as_keyword(recorder: Recorder) -> None:
    """`step` may stand anywhere among the keywords, and is no metric then."""
    assert recorder.record(step=5, loss=1.0)
    assert recorder.record(loss=2.0, epoch=1, step=6, note="x")
    everything = {"loss": 3.0, "step": 7}
    assert recorder.record(**everything)
    assert recorder.record(step=8)
    expected = [{"loss": 1.0}, {"loss": 2.0, "note": "x"}, {"loss": 3.0}, {}]
    assert read(recorder) == list(enumerate(expected, 5))
    assert lines(recorder.path)[1]["epoch"] == 1


@pytest.mark.parametrize(
    "call",
    [
        *("record()", "record(loss=1.0)", "record(1, 2.0)", "record(1, {'loss': 1.0})"),
        *("record(1, 2, step=3)", "record(1, step=1, loss=1.0)"),
        *("record_dict()", "record_dict(1)", "record_dict({'x': 1.0})"),
        *("record_dict(1, {'x': 1.0}, 2)", "record_dict(1, {'x': 1.0}, metrics={})"),
        *("record_dict(1, {'x': 1.0}, step=1)", "record_dict(1, values={'x': 1.0})"),
        *("log()", "log(step=1)", "log({}, 1, 2)", "log({}, 1, None, 2)"),
        *("log({}, commit=1)", "log({}, commit='yes')", "log({}, sync=True)"),
        *("timer()", "timer(5)", "timer('a', 1)", "timer('a', name='b')", "timer('a', epoch=1)"),
    ],
)
def test_misuse(recorder: Recorder, call: str) -> None:
    """Too few, too many and unknown arguments: TypeError that names the function's arguments."""
    names = {"recorder": recorder}
    refused(
        recorder, TypeError, "step|metrics|name|commit", lambda: eval(f"recorder.{call}", names)
    )


def test_keyword_arguments(recorder: Recorder) -> None:
    """record_dict() and log() take their arguments by name in any order."""
    assert recorder.record_dict(metrics={"a": 1.0}, step=1)
    assert recorder.record_dict(2, metrics={"a": 2.0})
    assert recorder.log(step=3, data={"a": 3.0})
    assert recorder.log(data={"a": 4.0})
    with recorder.timer(name="t"):
        pass
    assert read(recorder) == [(n, {"a": float(n)}) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("epoch", [0, -1, 2, 1.5, np.int64(3), np.float32(0.5), None, 2**63 - 1])
def test_epoch(recorder: Recorder, epoch: Any) -> None:
    assert recorder.record(1, epoch=epoch, x=1.0)
    assert recorder.record_dict(1, {"x": 1.0, "epoch": epoch})
    assert recorder.log({"epoch": epoch, "x": 1.0}, 1)
    for line in written(recorder):
        assert line["metrics"] == {"x": 1.0}
        assert line.get("epoch") == epoch


@pytest.mark.parametrize(
    ("epoch", "error"),
    [("2", TypeError), (True, TypeError), ([1], TypeError), (2**64, OverflowError)],
)
def test_wrong_epoch(recorder: Recorder, epoch: object, error: type[Exception]) -> None:
    refused(recorder, error, "epoch", lambda: recorder.record(1, x=1.0, epoch=epoch))


class Minimal(Mapping[str, float]):
    """A mapping by the letter of collections.abc."""

    def __getitem__(self, key: str) -> float:
        return {"a": 1.0, "b": 2.0}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("a", "b"))

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    "mapping",
    [
        *({"a": 1.0, "b": 2.0}, OrderedDict(a=1.0, b=2.0), UserDict(a=1.0, b=2.0), Minimal()),
        *(defaultdict(float, a=1.0, b=2.0), types.MappingProxyType({"a": 1.0, "b": 2.0})),
        ChainMap({"b": 2.0}, {"a": 1.0, "b": 3.0}),
    ],
    ids=lambda mapping: type(mapping).__name__,
)
def test_mappings(recorder: Recorder, mapping: Mapping[str, float]) -> None:
    before = dict(mapping)
    assert recorder.record_dict(0, mapping)
    assert recorder.log(mapping)
    assert dict(mapping) == before
    assert read(recorder) == [(0, {"a": 1.0, "b": 2.0}), (1, {"a": 1.0, "b": 2.0})]


def test_counter_and_special_keys(recorder: Recorder) -> None:
    """`step` is a metric in record_dict() and log(); only the key `epoch` itself is special."""
    assert recorder.record_dict(3, Counter("aab"))
    assert recorder.record_dict(4, {"step": 1})
    assert recorder.log({"step": 2}, step=5)
    assert recorder.log({"train": {"epoch": "first"}, "epochs": 3})
    expected = [{"a": 2, "b": 1}, {"step": 1}, {"step": 2}, {"train.epoch": "first", "epochs": 3}]
    assert read(recorder) == list(enumerate(expected, 3))


@pytest.mark.parametrize(
    "wrong", [None, 1, 1.0, "a", [("a", 1.0)], {"a"}, ["a"], iter(()), object()]
)
def test_no_mapping(recorder: Recorder, wrong: Any) -> None:
    calls = (lambda: recorder.record_dict(0, wrong), lambda: recorder.log(wrong))
    refused(recorder, TypeError, rf"mapping.*{type(wrong).__name__}", *calls)


@pytest.mark.parametrize("key", [1, None, b"x", 1.5, ("a",), Path("x")])
def test_keys_must_be_text(recorder: Recorder, key: Any) -> None:
    calls = (
        lambda: recorder.record_dict(0, {key: 1.0}),
        lambda: recorder.epoch_summary(0, {key: 1.0}),
    )
    refused(recorder, TypeError, "must be str", *calls)


def test_log_makes_text_of_keys(recorder: Recorder) -> None:
    """At any depth; whatever else has that name already."""
    for key in (1, None, b"x", 1.5, ("a",), Path("x")):
        recorder.log({key: 1, "deep": {key: 2}, "last": {"deep": {key: 3}}})
        recorder.log({key: {"deep": 1}})
    names = [str(key) for key in (1, None, b"x", 1.5, ("a",), Path("x"))]
    expected = [
        line
        for name in names
        for line in ({name: 1, f"deep.{name}": 2, f"last.deep.{name}": 3}, {f"{name}.deep": 1})
    ]
    assert [values for _, values in read(recorder)] == expected


def test_what_the_callers_own_code_raises_reaches_the_caller(recorder: Recorder) -> None:
    class Broken(Minimal):
        def __getitem__(self, key: str) -> float:
            raise LookupError("mine")

        def __index__(self) -> int:
            raise LookupError("mine")

    calls = (lambda: recorder.record_dict(0, Broken()), lambda: recorder.record(Broken(), x=1.0))
    refused(recorder, LookupError, "mine", *calls)


def test_values_may_change_the_mapping(recorder: Recorder) -> None:
    """A value whose method empties the mapping meanwhile is recorded with all the others."""
    metrics: dict[str, Any] = {}

    class Clearing:
        ndim = 0

        def __dlpack_device__(self) -> tuple[int, int]:
            metrics.clear()
            return (1, 0)

        def item(self) -> float:
            return 1.0

    metrics.update(a=Clearing(), b="text" * 10, c=2.0)
    assert recorder.record_dict(0, metrics)
    assert read(recorder) == [(0, {"a": 1.0, "b": "text" * 10, "c": 2.0})]


def test_log_flattens_dicts(recorder: Recorder) -> None:
    """Nested dicts become dotted names, in order; empty ones vanish; 32 levels are enough."""
    recorder.log({"a": {"b": {"c": 1, "d": 2}, "e": {}}, "f": 3, "": {"": 4}})
    deep: Any = 1.0
    for _ in range(33):
        deep = {"x": deep}
    assert recorder.log(deep)
    circular: dict[str, Any] = {}
    circular["again"] = circular
    for wrong in ({"x": deep}, circular):  # what is deeper is a value like any other
        recorder.log(wrong)
    with pytest.raises(TypeError, match="'a' has type dict"):
        recorder.record_dict(0, {"a": {"b": 1.0}})  # takes keys as they are
    assert read(recorder) == [
        (0, {"a.b.c": 1, "a.b.d": 2, "f": 3, ".": 4}),
        (1, {".".join("x" * 33): 1.0}),
        (2, {".".join("x" * 33): None}),
        (3, {"again.again": None}),
    ]


def test_names_that_become_the_same(recorder: Recorder) -> None:
    """One line has every name once: a ValueError names the one that comes twice."""
    path = recorder.path.parent
    with Recorder(path / "log", on_bad_value="raise") as recorder:
        refused(recorder, ValueError, r"'a\.b'", lambda: recorder.log({"a": {"b": 1}, "a.b": 2}))
    with Recorder(path / "record") as recorder:
        both: dict[str, Any] = {"\udc80": 1, "\\udc80": 2}
        refused(recorder, ValueError, "udc80", lambda: recorder.record_dict(0, both))


def test_log_counts_steps(recorder: Recorder) -> None:
    """Without a step log() takes the last accepted one plus 1, whatever recorded that."""
    with pytest.raises(TypeError):
        recorder.record(50, x=[])
    recorder.log({"n": 0})
    recorder.log({"n": 1})
    recorder.record(10, n=10)
    recorder.log({"n": 11}, step=None)
    recorder.record_dict(20, {"n": 20})
    recorder.log({"n": 21})
    recorder.log({"n": 5}, step=5)
    recorder.log({"n": 6})
    recorder.record(2**63 - 1, n=2**63 - 1)
    recorder.log({"n": 2**63 - 1})  # there is none behind it
    steps = (0, 1, 10, 11, 20, 21, 5, 6, 2**63 - 1, 2**63 - 1)
    assert read(recorder) == [(n, {"n": n}) for n in steps]


@pytest.mark.parametrize(
    "call",
    [
        *("record(1, x=1.0)", "record_dict(1, {'x': 1.0})", "log({'x': 1.0})", "event('m')"),
        *("epoch_summary(1, {})", "timer('t').__enter__()"),
    ],
)
def test_closed(recorder: Recorder, call: str) -> None:
    """Recording after close() is a named error, a RuntimeError too."""
    recorder.close()
    with pytest.raises(RecorderClosedError, match="closed") as caught:
        eval(f"recorder.{call}", {"recorder": recorder})
    assert isinstance(caught.value, RuntimeError)
    assert recorder.stats()["calls"] == 0
