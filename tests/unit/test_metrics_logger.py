"""MetricsLogger: recording, the echo, reading back, many threads and processes, a kill."""

from __future__ import annotations

import logging
import math
import shutil
import signal
import statistics
from collections import ChainMap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logging_support import run_processes, structured_double
from recorded import lines, start_python, without_clock

from foundry_fastlog import LoggingConfig, MetricsLogger, Recorder, RecorderConfig, read_run

NAME = "model_foundry.metrics"
HERE = Path(__file__).name
Caplog = pytest.LogCaptureFixture


class Raising:
    """A value whose every property raises."""

    def __getattr__(self, name: str) -> object:
        raise LookupError(name)

    def __str__(self) -> str:
        return "raising"


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[MetricsLogger]:
    with MetricsLogger("exp", tmp_path / "run") as opened:
        yield opened


def warnings(caplog: Caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_step_is_a_line(metrics: MetricsLogger) -> None:
    """An epoch of None is left out; the run has the experiment's name."""
    assert metrics.log_step(step=100, epoch=2, metrics={"loss": 2.5, "lr": 1e-3})
    assert metrics.log_step(101, None, {"loss": 2.25})
    assert metrics.log_step(102, 2.5, {"epoch": 7, "loss": 2.0})
    metrics.close()
    assert [without_clock(line) for line in lines(metrics.output_dir)] == [
        {"seq": 0, "step": 100, "epoch": 2, "metrics": {"loss": 2.5, "lr": 1e-3}},
        {"seq": 1, "step": 101, "metrics": {"loss": 2.25}},
        {"seq": 2, "step": 102, "epoch": 2.5, "metrics": {"loss": 2.0}},
    ]
    assert read_run(metrics.output_dir).info["name"] == metrics.experiment_name == "exp"
    assert metrics.logger is logging.getLogger(NAME)
    assert metrics.recorder.path == metrics.output_dir


def test_the_file_is_this_writers(tmp_path: Path) -> None:
    """After a resume, and with a stamp."""
    for name in ("metrics.jsonl", "metrics.a1.jsonl"):
        with MetricsLogger("exp", tmp_path) as metrics:
            assert metrics.metrics_file == tmp_path / name
    stamp = "2025-09-30_14-30-00"
    with Recorder(tmp_path, stamp=stamp) as recorder:
        with MetricsLogger("exp", tmp_path / "elsewhere", recorder=recorder) as metrics:
            assert metrics.metrics_file == tmp_path / f"metrics_{stamp}.a2.jsonl"
        assert not recorder.closed
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"loss": 2.5, "lr": 0.001}, "loss=2.5000, lr=0.0010"),
        ({"lr": 1e-5, "z": 0.0, "n": math.nan}, "lr=1.0000e-05, z=0.0000, n=nan"),
        ({"t": 8500, "ok": True, "s": "x", "z": None}, "t=8500, ok=True, s=x, z=None"),
        ({"a": [1], "b": list(range(99))}, "a=[1], b=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11..."),
        ({}, ""),
    ],
)
def test_the_echo(metrics: MetricsLogger, caplog: Caplog, given: Any, shown: str) -> None:
    """At INFO, with the place of the call; a value that is no metric is cut to a short text."""
    with caplog.at_level(logging.INFO, NAME):
        metrics.log_step(100, 2, given)
        metrics.log_epoch_summary(5, {"avg_loss": 2.4})
    found = [record for record in caplog.records if record.levelname == "INFO"]
    step, summary = (record.getMessage() for record in found)
    assert (step, summary) == (f"Step 100: {shown}", "Epoch 5 summary: avg_loss=2.4000")
    assert {(record.name, record.filename) for record in found} == {(NAME, HERE)}


def test_intervals_of_the_configuration(tmp_path: Path, caplog: Caplog) -> None:
    """Every step is recorded; the echo and the detailed metrics come now and then."""
    config = LoggingConfig(
        root_logger="mine",
        log_metrics_every_n_steps=3,
        log_detailed_metrics_every_n_steps=4,
        recorder=RecorderConfig(ring_bytes=64 << 10),
    )
    detail = Mock(side_effect=lambda: {"grad_norm": 1.0 * step})
    with (
        caplog.at_level(logging.INFO, "mine"),
        MetricsLogger("exp", tmp_path, config=config) as metrics,
    ):
        assert metrics.recorder.stats()["ring_bytes"] == 64 << 10
        for step in range(8):
            metrics.log_step(step, 0, {"loss": 1.0})
            assert metrics.log_detailed(step, 0, detail) is (step % 4 == 0)
        assert metrics.log_detailed(8, None, {"given": 1})
    echoes = [record.getMessage() for record in caplog.records if record.name == "mine.metrics"]
    assert echoes == [f"Step {step}: loss=1.0000" for step in (0, 3, 6)]
    assert detail.call_count == 2
    found = [(line["step"], line["metrics"]) for line in lines(tmp_path)]
    assert [step for step, values in found if "loss" in values] == list(range(8))
    others = [(0, {"grad_norm": 0.0}), (4, {"grad_norm": 4.0}), (8, {"given": 1})]
    assert [pair for pair in found if "loss" not in pair[1]] == others


def test_the_echo_of_a_structured_logger(tmp_path: Path, caplog: Caplog) -> None:
    """It gets step and epoch as context; nothing is rendered for a level that is off."""
    logger, calls = structured_double(logging.getLogger("test.structured"))
    with MetricsLogger("exp", tmp_path, logger=logger) as metrics:
        with caplog.at_level(logging.INFO, "test.structured"):
            metrics.log_step(1, None, {"loss": 1.0})
            metrics.log_epoch_summary(2, {"a": 1.0})
        with caplog.at_level(logging.WARNING, "test.structured"):
            metrics.log_step(2, None, {"loss": type("", (float,), {"__format__": pytest.fail})()})
    assert calls == [
        ((logging.INFO, "Step 1: loss=1.0000"), {"stacklevel": 4, "step": 1}),
        ((logging.INFO, "Epoch 2 summary: a=1.0000"), {"stacklevel": 4, "epoch": 2}),
    ]


@pytest.mark.parametrize(
    ("call", "arguments", "error", "message"),
    [
        ("log_step", ("1", 0, {}), TypeError, "step must be an int"),
        ("log_step", (1.5, 0, {}), TypeError, "step must be an int"),
        ("log_step", (1, "0", {"a": 1}), TypeError, "epoch must be an int, a float or None"),
        ("log_step", (1, "0", {"a": [1]}), TypeError, "epoch must be an int, a float or None"),
        ("log_step", (1, 0, [1]), TypeError, "metrics must be a mapping"),
        ("log_step", (1, 0, None), TypeError, "metrics must be a mapping"),
        ("log_step", (2**63, 0, {}), OverflowError, "step does not fit"),
        ("log_epoch_summary", (1, [1]), TypeError, "summary must be a mapping"),
        ("log_epoch_summary", ("1", {}), TypeError, "epoch must be"),
        ("log_detailed", (1, 0, 5), TypeError, "metrics must be a mapping"),
    ],
)
def test_wrong_calls(
    metrics: MetricsLogger, call: str, arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        getattr(metrics, call)(*arguments)
    metrics.close()
    assert lines(metrics.output_dir) == []


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="experiment_name must be a str"):
        MetricsLogger(5, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"logger must be a logging.Logger, a LoggerAdapter or"):
        MetricsLogger("x", tmp_path, logger=SimpleNamespace())  # type: ignore[arg-type]


def test_values_that_are_no_metrics(metrics: MetricsLogger, caplog: Caplog) -> None:
    """A training run is not ended by a list in its metrics; one warning per name says so."""
    for step in range(2):
        assert metrics.log_step(step, 0, {"loss": 1.5, "shape": [1, 2], "big": 10**30, 7: 1})
    assert metrics.log_detailed(2, 0, {"shape": "x" * 50, "set": {1}})
    assert metrics.log_epoch_summary(0, {"shape": [1, 2], "long": [1], "in": {"a": {2: 3}}})
    metrics.close()
    first, second, third, summary = lines(metrics.output_dir)
    assert (
        first["metrics"] == second["metrics"] == {"loss": 1.5, "shape": None, "big": None, "7": 1}
    )
    assert first["missing"] == second["missing"] == dict.fromkeys(("shape", "big"), "unsupported")
    assert third["metrics"] == {"shape": "x" * 50, "set": None}
    assert summary["summary"] == {"shape": None, "long": None, "in.a.2": 3}
    assert [text.split("'")[1] for text in warnings(caplog)] == ["shape", "big", "set", "long"]
    assert metrics.recorder.stats()["left_out"] == 7


def test_a_value_is_what_it_is_alone(metrics: MetricsLogger) -> None:
    """Whatever stands beside it, in steps and in summaries."""
    cases: dict[str, tuple[Any, Any]] = {
        "loss": (1.5, 1.5),
        "one": (SimpleNamespace(shape=(1, 1), item=lambda: 2.5), 2.5),
        "numpy": (np.array([3.5]), 3.5),
        "uint64": (np.uint64(2**63 + 2**20), float(2**63 + 2**20)),
        "text": ("t" * 5000, "t" * 5000),
        "raises": (Raising(), None),
        "array": (np.zeros((100, 100)), None),
        "list": (list(range(200_000)), None),
    }
    values = {name: given for name, (given, _) in cases.items()}
    assert metrics.log_step(1, 0, values)
    assert metrics.log_detailed(2, 0, values)
    assert metrics.log_epoch_summary(0, values)
    metrics.close()
    for line in lines(metrics.output_dir):
        found = line.get("metrics") or line["summary"]
        assert found == {name: shown for name, (_, shown) in cases.items()}
    assert line["seq"] == 2


def test_tensors(metrics: MetricsLogger, caplog: Caplog) -> None:
    torch = pytest.importorskip("torch")
    with caplog.at_level(logging.INFO, NAME):
        metrics.log_step(1, 0, {"a": np.float32(1.5), "b": torch.tensor(2.5)})
    assert caplog.records[-1].getMessage() == "Step 1: a=1.5000, b=2.5000"
    assert metrics.get_metrics_history()[0]["metrics"] == {"a": 1.5, "b": 2.5}


def test_a_text_that_is_too_long_for_the_ring(metrics: MetricsLogger, caplog: Caplog) -> None:
    """The rest of the step is recorded, with its beginning, and one warning says so."""
    text = "x" * (metrics.recorder.stats()["ring_bytes"] // 4)
    for record in (metrics.log_step, metrics.log_detailed):
        assert record(1, 0, {"loss": 1.5, "text": text, "list": [1]})
        assert record(2, 0, {"loss": 1.5, "text": text})
    metrics.close()
    assert metrics.recorder.stats()["dropped"] == 0
    found = [line["metrics"] for line in lines(metrics.output_dir)]
    assert [values["loss"] for values in found] == [1.5] * 4
    for values in found:
        kept, end = values["text"].split("... ")
        assert (set(kept), end) == ({"x"}, f"({len(text)} characters)")
        assert len(kept) > len(text) // 3
    told = [message for message in warnings(caplog) if "too long" in message]
    assert told == ["metric 'text' is too long: only its beginning is recorded"]


@pytest.mark.parametrize("names", [["a"], [f"{'n' * 99}{i}" for i in range(700)]])
def test_many_texts_are_cut_to_fit(names: list[str], metrics: MetricsLogger) -> None:
    values = dict.fromkeys(names, "x" * 900) | {f"k{n}": "x" * 900 for n in range(1300)}
    assert metrics.log_step(1, 0, values)
    assert metrics.log_epoch_summary(1, values)  # in several lines, with nothing cut
    metrics.close()
    step, *summaries = lines(metrics.output_dir)
    assert len(step["metrics"]) == len(values)
    assert dict(ChainMap(*(line["summary"] for line in summaries))) == values


def test_what_does_not_fit_is_dropped_once(metrics: MetricsLogger) -> None:
    """Where it is the names that are too many."""
    assert not metrics.log_step(1, 0, {f"{'n' * 99}{i}": i for i in range(20_000)})
    assert metrics.recorder.stats()["dropped"] == 1


def test_after_close_nothing_raises(metrics: MetricsLogger, caplog: Caplog) -> None:
    """The calls say False, and one warning says why."""
    metrics.log_step(1, 0, {"loss": 1.0})
    metrics.close()
    assert not metrics.log_step(2, 0, {"loss": 1.0})
    assert not metrics.log_detailed(2, 0, {"loss": 1.0})
    assert not metrics.log_epoch_summary(2, {"loss": 1.0})
    (warning,) = warnings(caplog)
    assert "after the recorder" in warning
    assert [line["step"] for line in metrics.get_metrics_history()] == [1]
    assert metrics.flush()


def test_history(metrics: MetricsLogger) -> None:
    """Steps as recorded, without summaries; NaN is a float again."""
    for step in (5, 3, 4):
        metrics.log_step(step, 0, {"loss": math.inf if step == 3 else 1.0 * step})
    metrics.log_epoch_summary(0, {"loss": math.nan})
    history = [(line["step"], line["metrics"]["loss"]) for line in metrics.get_metrics_history()]
    assert history == [(5, 5.0), (3, math.inf), (4, 4.0)]
    assert [line["step"] for line in metrics.get_metrics_for_steps(4, 5)] == [5, 4]
    assert metrics.get_metrics_for_steps(6, 9) == metrics.get_metrics_for_steps(5, 4) == []
    (summary,) = metrics.get_epoch_summaries()
    assert math.isnan(summary["summary"]["loss"])


def test_history_after_a_resume(tmp_path: Path) -> None:
    for attempt, steps in enumerate((range(5), range(3, 6))):
        with MetricsLogger("exp", tmp_path) as metrics:
            for step in steps:
                metrics.log_step(step, 0, {"attempt": attempt})
    history = [(line["step"], line["metrics"]["attempt"]) for line in metrics.get_metrics_history()]
    assert history == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]


def test_statistics(metrics: MetricsLogger) -> None:
    """Over finite numbers; the others are counted."""
    for step, value in enumerate([3.0, math.nan, 2, "text", True, None, math.inf, 2.5]):
        metrics.log_step(step, 0, {"loss": value})
    metrics.log_step(99, 0, {"other": 1.0})
    metrics.log_epoch_summary(0, {"loss": 100.0})
    counts = {"count": 4, "nonfinite": 2, "other": 2}
    std = statistics.stdev([3.0, 2.0, 1.0, 2.5])
    spread = {"mean": pytest.approx(2.125), "std": pytest.approx(std)}
    ends = {"min": 1.0, "max": 3.0, "total": 8.5, "first": 3.0, "last": 2.5}
    assert metrics.compute_statistics("loss") == {**counts, **spread, **ends}
    nothing = metrics.compute_statistics("unknown")
    assert (nothing["count"], nothing["mean"], nothing["last"]) == (0, None, None)


def test_statistics_of_a_run_that_is_not_there(metrics: MetricsLogger, tmp_path: Path) -> None:
    """Its place was removed, or could never be written: nothing is known, and nothing raised."""
    shutil.rmtree(tmp_path / "run")
    assert metrics.compute_statistics("loss")["count"] == 0


@pytest.mark.parametrize(
    "recorded", [[3, 5, 4], [3.0, math.nan, 2.5, math.inf], [1, 2.5], [True, False, True]]
)
def test_statistics_of_nothing_but_numbers(metrics: MetricsLogger, recorded: list[float]) -> None:
    """They are read by columns, and are the same."""
    for step, value in enumerate(recorded):
        metrics.log_step(step, 0, {"loss": value})
    found = metrics.compute_statistics("loss")
    numbers = [value for value in recorded if math.isfinite(value)]
    ends = (len(numbers), min(numbers), max(numbers))
    assert (found["count"], found["min"], found["max"]) == ends
    assert found["std"] == pytest.approx(statistics.stdev(numbers))
    assert (found["first"], found["nonfinite"]) == (recorded[0], len(recorded) - len(numbers))
    assert (found["last"], found["other"]) == (recorded[-1], 0)


@pytest.mark.parametrize("last", [2**53 + 1, -(2**60) - 1])
def test_the_first_and_the_last_value_are_exact(metrics: MetricsLogger, last: int) -> None:
    """Integers that no float holds."""
    for step, value in enumerate([1, last]):
        metrics.log_step(step, 0, {"tokens": value})
    assert metrics.compute_statistics("tokens")["last"] == last


int64 = st.integers(-(2**63), 2**63 - 1)
values = st.one_of(st.floats(), int64, st.booleans(), st.text(max_size=3))
names = st.text(max_size=3).filter(lambda key: key != "epoch")
epochs = st.one_of(st.none(), st.integers(0, 99))
steps = st.tuples(int64, epochs, st.dictionaries(names, values, max_size=4))


@given(st.lists(steps, max_size=5))
def test_any_metrics_read_back(tmp_path_factory: pytest.TempPathFactory, given: list[Any]) -> None:
    config = LoggingConfig(recorder=RecorderConfig(ring="memory", fsync="none"))
    with MetricsLogger("exp", tmp_path_factory.mktemp("run"), config=config) as metrics:
        for step in given:
            assert metrics.log_step(*step)
        history = metrics.get_metrics_history()
    found = [(line["step"], line.get("epoch"), line["metrics"]) for line in history]
    assert repr(found) == repr(given)


def _log_many(metrics: MetricsLogger, worker: int) -> None:
    for i in range(200):
        metrics.log_step(worker * 1000 + i, 0, {"worker": worker})


def test_forked_processes(metrics: MetricsLogger) -> None:
    """Each child has files of its own; the parent's history has all lines."""
    metrics.log_step(0, 0, {"worker": 0})
    run_processes(_log_many, *((metrics, n) for n in (1, 2, 3)))
    expected = [0, *(n * 1000 + i for n in (1, 2, 3) for i in range(200))]
    assert sorted(line["step"] for line in metrics.get_metrics_history()) == expected
    assert len(list(metrics.output_dir.glob("metrics*.jsonl"))) == 4


KILLED = """
import os, sys
from foundry_fastlog import LoggingConfig, MetricsLogger, RecorderConfig

config = LoggingConfig(recorder=RecorderConfig(flush_interval_s=3600))
metrics = MetricsLogger("exp", sys.argv[1], config=config)
for step in range(10**9):
    metrics.log_step(step, step // 100, {"loss": step / 8, "note": "x"})
    if step % 100 == 99:
        metrics.log_epoch_summary(step // 100, {"mean": step / 8})
        os.write(1, b"%d\\n" % step)
"""


@pytest.mark.parametrize("after", [99, 4999])
def test_a_kill_loses_nothing(tmp_path: Path, after: int) -> None:
    """SIGKILL in the middle of logging: what a call returned for is there, before and after."""
    with start_python(KILLED, tmp_path) as process:
        assert process.stdout is not None
        acked = -1
        while acked < after:
            acked = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:  # what it had said before it died
            acked = int(line)
        process.wait(60)
    for _ in range(2):  # read from the dead process's ring, then recovered by the next start
        steps = [line["step"] for line in read_run(tmp_path).lines("metrics") if "step" in line]
        assert steps == list(range(len(steps)))
        assert len(steps) > acked
        with MetricsLogger("exp", tmp_path) as metrics:
            history = metrics.get_metrics_history()
            assert [line["step"] for line in history] == steps
            assert all(line["metrics"]["loss"] == line["step"] / 8 for line in history)
            assert len(metrics.get_epoch_summaries()) >= (acked + 1) // 100
    assert all(check.complete for check in read_run(tmp_path).check())
