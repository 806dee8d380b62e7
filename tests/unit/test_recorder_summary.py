"""Epoch summaries, stamps in file names, and values of metrics outside the native calls."""

from __future__ import annotations

import json
import math
import re
from collections import ChainMap
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from contract import VALIDATORS
from hypothesis import given
from hypothesis import strategies as st
from logging_support import run_processes
from recorded import lines, raw_lines, without_clock

from foundry_fastlog import Recorder, read_run
from foundry_fastlog.analysis.summarize import summarize
from foundry_fastlog.recording.recorder import recorder_of
from foundry_fastlog.recording.values import metric_value

STAMP = "2025-09-30_14-30-00"


def summaries(tmp_path: Path, *given: tuple[Any, dict[str, Any]]) -> list[dict[str, Any]]:
    """Record summaries; return their lines, checked against the schema."""
    with Recorder(tmp_path / "run", ring_bytes=64 << 10) as recorder:
        for epoch, summary in given:
            assert recorder.epoch_summary(epoch, summary)
    found = lines(tmp_path / "run")
    for line in found:
        VALIDATORS["metrics"].validate(line)
    return found


def test_a_summary_is_a_line_without_step(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        assert recorder.epoch_summary(5, {"avg_loss": 2.4, "tokens": 1_000_000, "note": "x"})
    (raw,) = raw_lines(tmp_path / "run" / "metrics.jsonl")
    assert re.sub(rb'"timestamp":"[^"]*"', b'"timestamp":"T"', raw) == (
        b'{"timestamp":"T","seq":0,"epoch":5,'
        b'"summary":{"avg_loss":2.4,"tokens":1000000,"note":"x"}}'
    )


def test_nonfinite_values_and_epochs_are_named(tmp_path: Path) -> None:
    """As in the lines of steps; readers put them back."""
    summary = {"a": math.nan, "b.c": math.inf, "d": -math.inf, "epoch": math.nan, "e": None}
    first, second = summaries(tmp_path, (1, summary), (math.inf, {"loss": 1.0}))
    assert first["nonfinite"] == {"a": "nan", "b.c": "inf", "d": "-inf", "epoch": "nan"}
    assert second["nonfinite"] == {"epoch": "inf"}
    back, late = read_run(tmp_path / "run").lines("metrics")
    assert back["epoch"] == 1
    values = [str(value) for value in back["summary"].values()]
    assert values == ["nan", "inf", "-inf", "nan", "None"]
    assert late["epoch"] == math.inf


def test_numpy_and_torch_values(tmp_path: Path) -> None:
    """Scalars, and arrays and tensors without dimensions, become plain numbers."""
    torch = pytest.importorskip("torch")
    summary = {"a": np.float32(1.5), "b": np.int64(2), "c": np.bool_(1), "d": np.array(2.5)}
    summary |= {"e": torch.tensor(3.5), "f": np.str_("x")}
    (line,) = summaries(tmp_path, (np.int32(3), summary))
    assert line["epoch"] == 3
    assert line["summary"] == {"a": 1.5, "b": 2, "c": True, "d": 2.5, "e": 3.5, "f": "x"}


NO_EPOCHS = (("1", "str"), (True, "bool"), (None, "NoneType"))


@pytest.mark.parametrize(
    ("epoch", "summary", "error", "message"),
    [
        *((e, {}, TypeError, "epoch must be an int or a float, got " + k) for e, k in NO_EPOCHS),
        (10**30, {}, OverflowError, "value of 'epoch' does not fit"),
        (1, [], TypeError, "summary must be a mapping, got list"),
        (1, {1: 2.0}, TypeError, "names in a summary must be str, got 1"),
        (1, {"a": [1]}, TypeError, "value of 'a' has type list"),
        (1, {"a": 2**64}, OverflowError, "value of 'a' does not fit"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, epoch: Any, summary: Any, error: type[Exception], message: str
) -> None:
    with Recorder(tmp_path) as recorder, pytest.raises(error, match=message):
        recorder.epoch_summary(epoch, summary)
    assert lines(tmp_path) == []


def test_many_values_become_several_lines(tmp_path: Path) -> None:
    """More than the ring has room for at once: nothing is lost, the epoch is the same."""
    summary = {f"layer.{i}.weight.norm": float(i) for i in range(2000)}
    found = summaries(tmp_path, (7, summary))
    assert len(found) > 1
    assert {line["epoch"] for line in found} == {7}
    assert dict(ChainMap(*(line["summary"] for line in found))) == summary
    assert sum(len(line["summary"]) for line in found) == len(summary)


def test_a_summary_is_accepted_only_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose first line alone was dropped is not."""
    answers = iter([False, True])

    def fitting(_: Recorder, __: float, values: dict[str, object], ___: bool) -> bool:
        if len(values) > 1:
            raise ValueError(values)
        return next(answers)

    monkeypatch.setattr(Recorder, "_summary_fitting", fitting)
    with Recorder(tmp_path / "run", ring_bytes=64 << 10) as recorder:
        assert not recorder.epoch_summary(1, {"a": "x" * 5000, "b": "y" * 5000})
    assert next(answers, None) is None


@pytest.mark.parametrize("text", ["x" * 100_000, "\0" * 100_000, "\udc80" * 100_000])
def test_one_value_larger_than_all_is_cut(tmp_path: Path, text: str) -> None:
    """The line says how long it was; a name may be as long."""
    cut, named = summaries(tmp_path, (1, {"note": text}), (2, {text: 1.5}))
    assert cut["summary"]["note"].endswith("... (100000 characters)")
    ((name, value),) = named["summary"].items()
    assert name.endswith("... (100000 characters)")
    assert value == 1.5


numbers = st.one_of(
    st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.none(), st.text(max_size=5)
)


@given(st.dictionaries(st.text(max_size=5), numbers, max_size=5), st.floats(allow_nan=False))
def test_any_summary_reads_back(
    tmp_path_factory: pytest.TempPathFactory, summary: dict[str, Any], epoch: float
) -> None:
    path = tmp_path_factory.mktemp("run")
    with Recorder(path, ring="memory", fsync="none") as recorder:
        assert recorder.epoch_summary(epoch, summary)
    (line,) = read_run(path, strict=True).lines("metrics")
    assert repr((line["epoch"], line["summary"])) == repr((epoch, summary))


LOST = SimpleNamespace(shape=(), item=Mock(side_effect=RuntimeError("device lost")))


@pytest.mark.parametrize("value", [[1], b"x", 1j, np.array([1.0, 2.0]), Decimal(1), LOST, object])
def test_values_that_are_no_metrics(value: Any) -> None:
    with pytest.raises(TypeError, match="value of 'k'"):
        metric_value("k", value)


def test_a_rewind_takes_back_the_summaries_of_epochs_that_were_finished_since(
    tmp_path: Path,
) -> None:
    """In all readers. One from before any step, or of an epoch that is no number, stays."""
    with Recorder(tmp_path) as recorder:
        recorder.epoch_summary(-1, {"mean": -1.0})
        for epoch in range(3):
            for step in range(10 * epoch, 10 * epoch + 10):
                recorder.record(step, loss=1.0)
            recorder.epoch_summary(math.nan, {"mean": 9.0})
            recorder.epoch_summary(epoch, {"mean": 1.0 * epoch})
        recorder.rewind(10)
        for step in range(10, 20):
            recorder.record(step, loss=2.0)
        recorder.epoch_summary(1, {"mean": 11.0})
        recorder.rewind(15)
        recorder.rewind(30)
    run = read_run(tmp_path)
    marks = [(line["rewind"], line.get("epoch")) for line in lines(tmp_path) if "rewind" in line]
    assert marks == [(10, 1), (15, 1), (30, None)]
    for line in lines(tmp_path):
        VALIDATORS["metrics"].validate(line)
    expected = [-1.0, *[9.0] * 3, 0.0]
    found = [line["summary"]["mean"] for line in run.lines("metrics") if "summary" in line]
    assert sorted(found) == sorted(expected)
    assert run.left_out["metrics"] == {"loss": 25, "mean": 3}
    shown = run.arrow("metrics", names=["mean"]).to_polars()["mean"].to_list()
    assert sorted(shown) == sorted(expected)
    raw = [json.loads(line) for _, line in run.raw_lines(["metrics"])]
    assert [line["summary"]["mean"] for line in raw if "summary" in line] == found
    summed = next(m for m in summarize(run).metrics if m.name == "mean (epoch)")
    assert summed.count == len(expected)


def test_a_rewind_forgets_what_it_took_back_and_a_child_what_its_parent_had(
    tmp_path: Path,
) -> None:
    """An epoch that ended earlier the second time stays, and so does one of the child's own."""
    recorder = Recorder(tmp_path)
    recorder.record(10, loss=1.0)
    recorder.epoch_summary(1, {"mean": 1.0})
    recorder.rewind(5)
    recorder.record(8, loss=1.0)
    recorder.epoch_summary(1, {"mean": 2.0})
    recorder.record(11, loss=1.0)
    recorder.rewind(9)

    def train(step: int) -> None:
        recorder.record(step, loss=1.0)
        recorder.epoch_summary(4, {"mean": 4.0})
        recorder.record(9, loss=1.0)
        recorder.rewind(8)

    run_processes(train, (5,))
    recorder.close()
    found = [line for line in read_run(tmp_path).lines("metrics") if "summary" in line]
    assert sorted(line["summary"]["mean"] for line in found) == [2.0, 4.0]


def test_stamps_are_in_all_file_names(tmp_path: Path) -> None:
    """The layout of section 7 of the plan; there is none by default."""
    with Recorder(tmp_path, stamp=STAMP) as recorder, recorder.timer("t"):
        recorder.record(1, loss=1.0)
        recorder.event("m")
        recorder.event("e", error=ValueError("v"))
        assert recorder.stamp == STAMP
    names = sorted(path.name.partition("_") for path in tmp_path.glob("*.jsonl"))
    streams = ("errors", "log", "metrics", "performance")
    assert names == [(stream, "_", f"{STAMP}.jsonl") for stream in streams]
    run = read_run(tmp_path)
    assert [writer.stamp for writer in run.writers] == [STAMP]
    assert [line["metrics"] for line in run.lines("metrics")] == [{"loss": 1.0}]
    with Recorder(tmp_path / "other") as recorder:
        assert recorder.stamp == ""


def test_starts_with_other_stamps_are_later_ones(tmp_path: Path) -> None:
    """Readers take a step from the later start; run.json has an entry for each start."""
    stamps = (STAMP, STAMP, "2025-10-01_00-00-00")
    for value, stamp in enumerate(stamps):
        with Recorder(tmp_path, stamp=stamp) as recorder:
            recorder.record(1, start=value)
            recorder.epoch_summary(1, {"start": value})
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == [
        f"metrics_{STAMP}.a1.jsonl",
        f"metrics_{STAMP}.jsonl",
        "metrics_2025-10-01_00-00-00.a2.jsonl",
    ]
    step, epoch = read_run(tmp_path).lines("metrics")
    assert (step["metrics"], epoch["summary"]) == ({"start": 2}, {"start": 2})
    run = json.loads((tmp_path / "run.json").read_text())
    VALIDATORS["run"].validate(run)
    starts = [(attempt["stamp"], attempt["attempt"]) for attempt in run["attempts"]]
    assert starts == [(STAMP, 0), (STAMP, 1), ("2025-10-01_00-00-00", 2)]
    assert all(attempt["ended"] for attempt in run["attempts"])


@pytest.mark.parametrize(
    ("stamp", "error"),
    [("now", ValueError), ("", ValueError), (STAMP + "x", ValueError), (5, TypeError)],
)
def test_wrong_stamps(tmp_path: Path, stamp: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="stamp must"):
        Recorder(tmp_path, stamp=stamp)


def _record_one(recorder: Recorder) -> None:
    recorder.record(2, loss=2.0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_have_the_stamp_too(tmp_path: Path, method: str) -> None:
    with Recorder(tmp_path, stamp=STAMP) as recorder:
        recorder.record(1, loss=1.0)
        (child,) = run_processes(_record_one, (recorder,), method=method)
    name = f"metrics_{STAMP}.w{child}.jsonl"
    (line,) = map(json.loads, raw_lines(tmp_path / name))
    assert without_clock(line) == {"seq": 0, "step": 2, "metrics": {"loss": 2.0}}
    assert [line["step"] for line in read_run(tmp_path).lines("metrics")] == [1, 2]


def test_the_recorder_of_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recorder_of("run") is None
    with Recorder("run", rank=1, world_size=2) as recorder:
        assert recorder_of(tmp_path / "run") is None
        assert recorder_of(tmp_path / "run", 1) is recorder
    assert recorder_of("run", 1) is None
