"""log() takes a mapping of anything: one value that is none costs the others nothing."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from recorded import in_child, in_threads, lines, written

from foundry_fastlog import MetricsLogger, Recorder, read_run
from foundry_fastlog.analysis.summarize import summarize
from foundry_fastlog.recording.values import text_of

RECORDER_OPTIONS = {"ring_bytes": 64 << 10}


class Unprintable:
    __repr__ = Mock(side_effect=LookupError("no words"))


class Raising:
    """A value whose every property raises."""

    def __getattribute__(self, name: str) -> object:
        raise LookupError(name)


class OnDevice:
    """A tensor that must not be read."""

    shape = (3,)
    device = type("device", (), {"type": "cuda", "__str__": lambda self: "cuda:0"})()


CIRCULAR: dict[str, object] = {}
CIRCULAR["again"] = CIRCULAR
ODD: dict[str, object] = {
    "list": [1, 2],
    "big": 10**30,
    "array": np.zeros(2),
    "path": Path("a/b"),
    "bytes": b"x",
    "unprintable": Unprintable(),
    "raising": Raising(),
    "device": OnDevice(),
    "self": CIRCULAR,
}


def telling(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "foundry_fastlog"]


def test_values_that_are_none(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Each is null, counted, and told once for its name, with a way out; its neighbours stay."""
    for step in range(2):
        assert recorder.log({"loss": 0.5, **ODD, "n": np.int64(3), "note": "text"}, step)
    assert recorder.stats()["left_out"] == 2 * len(ODD)
    names = [*[*ODD][:-1], "self.again"]
    said = telling(caplog)
    assert len(said) == len(ODD)
    for name, text in zip(names, said, strict=True):
        assert text.startswith(f"value of {name!r} ")
        assert text.endswith("left out, and counted in stats(); on_bad_value= changes that")
    assert "pass a scalar such as value.mean()" in said[2]
    first, second = (line | {"step": 0, "seq": 0, "timestamp": 0} for line in written(recorder))
    assert first == second
    assert first["metrics"] == {"loss": 0.5, **dict.fromkeys(names), "n": 3, "note": "text"}
    assert first["missing"] == dict.fromkeys(names, "unsupported")
    summary = summarize(read_run(recorder.path))
    assert summary.missing == {name: {"unsupported": 2} for name in names}


def test_the_switch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said, or the call raises as record() does; each recorder tells on its own."""
    for n in range(2):
        with Recorder(tmp_path / f"warn{n}") as recorder:
            recorder.log({"odd": [1]})
    assert len(telling(caplog)) == 2
    with Recorder(tmp_path / "drop", on_bad_value="drop") as recorder:
        assert recorder.log({"odd": [1], "x": 1.0, "text": "x" * (2 << 20)})
        assert recorder.log({1: [2], "1": 3})
    assert recorder.stats()["left_out"] == 2
    assert written(recorder)[0]["missing"] == {"odd": "unsupported"}
    assert len(telling(caplog)) == 2
    with Recorder(tmp_path / "raise", on_bad_value="raise") as recorder:
        metrics = MetricsLogger("exp", tmp_path, recorder=recorder)
        for call in (
            lambda: recorder.log({"odd": [1], "x": 1.0}),
            lambda: metrics.log_step(0, 0, {"odd": [1], "x": 1.0}),
            lambda: metrics.log_epoch_summary(0, {"odd": [1], "x": 1.0}),
        ):
            with pytest.raises(TypeError, match="'odd' has type list"):
                call()
    assert written(recorder) == []
    with pytest.raises(ValueError, match="on_bad_value must be one of 'warn', 'drop', 'raise'"):
        Recorder(tmp_path / "other", on_bad_value="text")


def test_an_epoch_that_is_no_number(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """The line has none, and says so."""
    for epoch in ("1", [1], True, np.ma.masked):
        assert recorder.log({"x": 1.0, "epoch": epoch, "odd": [1]}, 0)
    assert recorder.log({"epoch": "1", "k" * 300: 1})
    assert recorder.stats()["left_out"] == 9
    assert [text[:13] for text in telling(caplog)] == ["value of 'odd", "epoch must be"]
    for line in written(recorder):
        assert "epoch" not in line
        assert line["missing"].pop("epoch") == "unsupported"
        assert list(line["metrics"]) in (["x", "odd"], ["k" * 300])


def test_what_has_no_place_in_its_line(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two of one name the last counts; more than a record can hold are cut; all is told."""
    assert recorder.log({"a": {"b": 1, "c": 2}, "a.b": 3, "x": 4}, 0)
    many = {"n": dict.fromkeys(range(65534)), "m": {"x": 1, "y": {"z": 2}}, "l": 0}
    assert not recorder.log(many, 1)  # too large for so small a ring
    assert telling(caplog)[0].startswith("two metrics of one record would be written as 'a.b'. ")
    assert recorder.stats()["left_out"] == 3
    (line, *_) = written(recorder)
    assert line["metrics"] == {"a.c": 2, "a.b": 3, "x": 4}


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
        ([1], TypeError),
        (None, TypeError),
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


def test_commit_as_in_wandb(recorder: Recorder) -> None:
    """False: the next call without a step has the same step. Each line is written at once."""
    assert recorder.log({"n": 0}, commit=False)
    assert recorder.log({"n": 1}, None, commit=False)
    assert recorder.log({"n": 2}, commit=True)
    assert recorder.log({"n": 3}, commit=None)
    assert recorder.log({"n": 4}, step=7, commit=False)
    assert recorder.log({"n": 5})
    assert recorder.log({"n": 6}, step=9, commit=True)
    assert recorder.log({"n": 7})
    recorder.log({"n": 8}, step=-(2**63), commit=False)
    assert [line["step"] for line in written(recorder)] == [0, 0, 0, 1, 7, 7, 9, 10, -(2**63)]


def test_a_forked_child_counts_its_own(recorder: Recorder) -> None:
    recorder.log({"odd": [1]})

    def child() -> None:
        assert recorder.log({"odd": [1], "x": 1.0})
        assert recorder.stats()["left_out"] == 1
        assert recorder.close()

    pid = in_child(child)
    assert lines(recorder.path, "metrics", f"w{pid}")[0]["missing"] == {"odd": "unsupported"}
    assert recorder.stats()["left_out"] == 1


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
