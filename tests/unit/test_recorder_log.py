"""log() takes a mapping of anything: one value that is none costs the others nothing."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from recorded import in_threads, written

from foundry_fastlog import Recorder
from foundry_fastlog.recording import recorder as module
from foundry_fastlog.recording.values import text_of

RECORDER_OPTIONS = {"ring_bytes": 64 << 10}


@pytest.fixture(autouse=True)
def nothing_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has told of no value yet."""
    monkeypatch.setattr(module, "_told_odd", set())


class Unprintable:
    __repr__ = Mock(side_effect=LookupError("no words"))


class Unsized(list[int]):
    __len__ = Mock(side_effect=LookupError("no size"))


class OnDevice:
    """A tensor that must not be read."""

    shape = (3,)
    device = type("device", (), {"type": "cuda", "__str__": lambda self: "cuda:0"})()


ODD: list[tuple[object, str]] = [
    *(([1, 2], "[1, 2]"), ((1.0,), "(1.0,)"), (10**30, str(10**30)), (1 + 2j, "(1+2j)")),
    *((np.zeros(2), "[0. 0.]"), (Path("a/b"), "a/b")),
    (Unprintable(), "<Unprintable whose str() raised LookupError>"),
    ([Unprintable()], "<list whose str() raised LookupError>"),
    (Unsized(), "[]"),
    (OnDevice(), "<OnDevice, shape (3,), on cuda:0>"),
    ([0.5] * 200_000, "[0.5, 0.5"),
    (np.zeros(100_000), "<ndarray of float64, shape (100000,): 0, 0"),
    (b"x" * 5000, "<bytes of 5000 items: 120"),
]


def test_values_that_are_none(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Each becomes a bounded text, told once for its name; what is beside it stays what it was."""
    with caplog.at_level(logging.WARNING, "foundry_fastlog"):
        for step in range(2):
            values = {f"odd{n}": value for n, (value, _) in enumerate(ODD)}
            assert recorder.log({"loss": 0.5, **values, "n": np.int64(3), "note": "text"}, step)
            recorder.flush()
    said = [f"metric 'odd{n}' is not a single value: recorded as text" for n in range(len(ODD))]
    assert caplog.messages == said
    for line in written(recorder):
        found = line["metrics"]
        assert (found["loss"], found["n"], found["note"]) == (0.5, 3, "text")
        for n, (_, text) in enumerate(ODD):
            assert found[f"odd{n}"].startswith(text)
            assert len(found[f"odd{n}"]) < 1100


@pytest.mark.parametrize("key", ["text", "k" * 300], ids=["known", "long"])
@pytest.mark.parametrize("character", ["x", "\u00e9", "\U0001f600", '"', "\x01"])
def test_texts_too_long_for_the_ring(recorder: Recorder, key: str, character: str) -> None:
    """The longest are cut, saying how long they were; short ones and numbers are whole."""
    many = {f"long{n}": character * (20_000 + n) for n in range(3)}
    assert recorder.log({"loss": 0.5, "short": "s" * 100, **many, key: character * 9000}, 1)
    assert not recorder.record(2, text="x" * 9000)  # strict: dropped as a whole, and told
    line = written(recorder)[0]["metrics"]
    assert (line["loss"], line["short"]) == (0.5, "s" * 100)
    for name, text in {**many, key: character * 9000}.items():
        kept, end = line[name].split("... ")
        assert set(kept) == {character}
        assert end == f"({len(text)} characters)"
        assert key != "text" or len(kept.encode()) > 1000


def test_many_texts_too_long_for_the_ring(recorder: Recorder) -> None:
    """Where not even a few characters of each have room, the numbers are still there."""
    assert recorder.log({"loss": 0.5, **{f"t{n}": "x" * 1000 for n in range(800)}}, 1)
    found = written(recorder)[0]["metrics"]
    assert found["loss"] == 0.5
    assert len(found) == 801


class Interrupted:
    __dlpack_device__ = Mock(side_effect=KeyboardInterrupt)


@pytest.mark.parametrize(
    ("metrics", "error"),
    [
        ({"v": Interrupted()}, KeyboardInterrupt),
        ({"epoch": [1], "loss": 1.0}, TypeError),
        ({1: [2]}, TypeError),
        ({"a": {"b": 1}, "a.b": [2]}, ValueError),
    ],
)
def test_what_log_still_refuses(recorder: Recorder, metrics: Any, error: type[Exception]) -> None:
    """What is wrong with the call, and not with a value; it takes no step's number."""
    with pytest.raises(error):
        recorder.log(metrics)
    assert recorder.log({"x": 1.0})
    assert [line["step"] for line in written(recorder)] == [0]


def test_steps_of_threads_are_all_different(recorder: Recorder) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    in_threads(lambda _: [recorder.log({"x": np.int64(1)}) for _ in range(2000)], 3)
    sys.setswitchinterval(before)
    assert sorted(line["step"] for line in written(recorder)) == list(range(6000))


def test_text_of_a_deep_container() -> None:
    """Not even a container of itself, or of a hundred levels, makes a long text."""
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    circular: list[object] = []
    circular.append(circular)
    for value in (deep, circular, {"a": {"b": [1] * 10_000}}, {n: n for n in range(10_000)}):
        assert len(text_of(value)) < 1100


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_a_signal_raises_during_a_warning_is_the_callers(
    recorder: Recorder, error: type[BaseException]
) -> None:
    """A handler of SIGINT or SIGTERM may run in a log handler; the record is written."""
    interrupt = Mock(spec=[], side_effect=error)  # it has no filter()
    log = logging.getLogger("foundry_fastlog")
    log.addFilter(interrupt)
    try:
        with pytest.raises(error):  # noqa: PT012 - it comes at one of the next instructions
            assert recorder.log({"odd": [1]}, step=7)
            for _ in range(1000):
                len("x")
    finally:
        log.removeFilter(interrupt)
    assert recorder.record(8, x=1.0)
    assert [line["step"] for line in written(recorder)] == [7, 8]
