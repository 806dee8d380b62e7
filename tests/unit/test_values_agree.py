"""Every way in takes the same values, and leaves out the same ones.

The exceptions: the context of an event takes anything (docs/logging.md), and a step is an int.
"""

from __future__ import annotations

import datetime as dt
import enum
import logging
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import VALIDATORS
from recorded import lines, written

from foundry_fastlog import (
    ErrorTracker,
    ExperimentLogging,
    MetricsLogger,
    PerformanceLogger,
    Recorder,
    WandBLogger,
)

RECORDER_OPTIONS = {"ring_bytes": 64 << 10}
LONG = "k" * 300  # its name goes into its record
SEED = 2**64 - 59  # as torch.seed() returns it
BEYOND = object()  # stands for: refused


class Histogram:
    """As wandb's: no scalar, and with a text of no use."""


class Series:
    """As those of pandas and polars: an array of one element that is none for DLPack."""

    def __init__(self, element: Any, *shape: int, kind: str = "f") -> None:
        self.shape = shape
        self.dtype = type("dtype", (), {"kind": kind})
        self.item = lambda: element


Mode = enum.Enum("Mode", ["TRAIN"])
Level = enum.IntEnum("Level", ["LOW"])

VALUES: dict[str, tuple[Any, Any]] = {
    "float": (0.5, 0.5),
    "nan": (math.nan, "nan"),
    "inf": (-math.inf, "-inf"),
    "int": (3, 3),
    "bool": (True, True),
    "None": (None, None),
    "text": ("x", "x"),
    "IntEnum": (Level.LOW, 1),
    "seed": (SEED, float(SEED)),
    "least": (-(2**63), -(2**63)),
    "below 64 bits": (-(2**63) - 1, BEYOND),
    "above 64 bits": (2**64, BEYOND),
    "a googol": (10**100, BEYOND),
    "Enum": (Mode.TRAIN, BEYOND),
    "list": ([0.5], BEYOND),
    "tuple": ((0.5,), BEYOND),
    "set": ({1}, BEYOND),
    "bytes": (b"x", BEYOND),
    "complex": (1j, BEYOND),
    "Decimal": (Decimal("0.5"), BEYOND),
    "Fraction": (Fraction(1, 2), BEYOND),
    "Path": (Path("x"), BEYOND),
    "datetime": (dt.datetime(2026, 1, 30), BEYOND),  # noqa: DTZ001 - none is written
    "function": (len, BEYOND),
    "class": (float, BEYOND),
    "object": (Histogram(), BEYOND),
    "masked": (np.ma.masked, "masked"),
    "one masked": (np.ma.array([0.5], mask=[True]), "masked"),
    "one not masked": (np.ma.array([0.5], mask=[False]), 0.5),
    "two": (np.zeros(2), BEYOND),
    "empty": (np.zeros(0), BEYOND),
    "of objects": (np.array([Decimal(1)], dtype=object), BEYOND),
    "of an int": (np.array([3], dtype=object), 3),
    "of text": (np.array(["x"]), "x"),
    "record": (np.zeros(1, dtype=[("a", float)]), BEYOND),
    "Series": (Series(0.5, 1), 0.5),
    "Series of two": (Series(0.5, 2), BEYOND),
    "Series of a date": (Series(10**18, 1, kind="M"), BEYOND),
    "Series of a list": (Series([1], 1), BEYOND),
}
NUMPY = {
    **dict.fromkeys(("float16", "float32", "float64", "longdouble"), 0.5),
    **{f"{sign}int{bits}": 3 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "bool": True,
    **dict.fromkeys(("complex64", "complex128", "datetime64[ns]", "timedelta64[ns]"), BEYOND),
}
for name, expected in NUMPY.items():
    given = 3 if expected is BEYOND else expected
    for shape in ((), (1,), (1, 1)):
        VALUES[f"numpy {name} {shape}"] = (np.array(given).astype(name).reshape(shape), expected)
    VALUES[f"numpy {name}"] = (np.array(given).astype(name)[()], expected)
for shape in ((), (1,), (1, 1)):
    VALUES[f"numpy seed {shape}"] = (np.full(shape, SEED, np.uint64), float(SEED))
    VALUES[f"numpy date {shape}"] = (np.full(shape, 1, "datetime64[D]"), BEYOND)
VALUES["numpy seed"] = (np.uint64(SEED), float(SEED))

TORCH = ("float16", "bfloat16", "float32", "float64", "uint8", "uint64", "int8", "int64", "bool")


def torch_values() -> dict[str, tuple[Any, Any]]:
    torch: Any = pytest.importorskip("torch")
    values: dict[str, tuple[Any, Any]] = {}
    for name in TORCH:
        dtype = getattr(torch, name)
        expected = 0.5 if "float" in name else name == "bool" or 3
        for shape in ((), (1,), (1, 1)):
            values[f"{name} {shape}"] = (torch.full(shape, expected, dtype=dtype), expected)
    seeds = torch.from_numpy(np.full(1, SEED, np.uint64))
    values["seed"] = (seeds, float(SEED))
    values["torch.seed()"] = (seed := torch.seed(), seed if seed < 2**63 else float(seed))
    values["two"] = (torch.zeros(2), BEYOND)
    values["complex"] = (torch.zeros(1, dtype=torch.complex64), BEYOND)
    values["gradient"] = (torch.full((1,), 0.5, requires_grad=True), 0.5)
    return values


def found_in(line: dict[str, Any], name: str = "v") -> Any:
    """What a line has of a value: itself, how it is not finite, or why there is none."""
    VALIDATORS["system" if "system" in line else "metrics"].validate(line)
    values = line.get("metrics") or line.get("summary") or line.get("system")
    assert isinstance(values, dict)
    assert values.get("beside") in (0.25, None)
    why = line.get("nonfinite", {}).get(name) or line.get("missing", {}).get(name)
    return why if values[name] is None and why else values[name]


Call = Callable[[Recorder, Any], object]
STRICT: dict[str, Call] = {
    "record": lambda r, v: r.record(0, v=v),
    "record of others": lambda r, v: r.record(0, v=v, beside=0.25, text="x", n=3),
    "record_dict": lambda r, v: r.record_dict(0, {"v": v, "beside": 0.25}),
    "epoch_summary": lambda r, v: r.epoch_summary(0, {"v": v, "beside": 0.25}),
    "long name": lambda r, v: r.record_dict(0, {"v": v, LONG: 1}),
    "system": lambda r, v: r.system({"v": v, "beside": 0.25}),
}
TOLERANT: dict[str, Call] = {
    "log": lambda r, v: r.log({"v": v, "beside": 0.25}),
    "log of a long name": lambda r, v: r.log({"v": v, LONG: 1}),
    "log_step": lambda r, v: logger_of(r).log_step(0, None, {"v": v, "beside": 0.25}),
    "log_detailed": lambda r, v: logger_of(r).log_detailed(0, 1, {"v": v, "beside": 0.25}),
    "log_epoch_summary": lambda r, v: logger_of(r).log_epoch_summary(0, {"v": v, "beside": 0.25}),
}


def logger_of(recorder: Recorder) -> MetricsLogger:
    return MetricsLogger("exp", recorder.path, recorder=recorder)


def check(recorder: Recorder, values: dict[str, tuple[Any, Any]], call: str) -> None:
    """Send each value one way; compare with what was to be expected."""
    strict = call in STRICT
    send = STRICT.get(call) or TOLERANT[call]
    accepted = []
    for name, (value, expected) in values.items():
        if strict and expected is BEYOND:
            with pytest.raises((TypeError, OverflowError), match="'v'"):
                send(recorder, value)
        else:
            assert send(recorder, value), name
            accepted.append((name, expected))
    lines = written(recorder, "system" if call == "system" else "metrics")
    assert len(lines) == len(accepted)
    for line, (name, expected) in zip(lines, accepted, strict=True):
        wanted = "unsupported" if expected is BEYOND else expected
        if call == "system" and wanted == "masked":
            wanted = None  # a stream without `missing`
        assert (name, repr(found_in(line))) == (name, repr(wanted))
    left_out = 0 if strict else sum(expected is BEYOND for _, expected in accepted)
    assert recorder.stats()["left_out"] == left_out


@pytest.mark.parametrize("call", [*STRICT, *TOLERANT])
def test_all_ways_agree(recorder: Recorder, call: str) -> None:
    check(recorder, VALUES, call)


@pytest.mark.parametrize("call", [*STRICT, *TOLERANT])
def test_all_ways_agree_about_tensors(recorder: Recorder, call: str) -> None:
    check(recorder, torch_values(), call)


ALL = {name: value for name, (value, _) in VALUES.items()}


def test_no_value_ends_a_training(tmp_path: Path) -> None:
    """Whatever is logged, by whatever component; what an event has of it is in docs/logging.md."""
    with ExperimentLogging({"experiment_name": "exp"}, directory=tmp_path / "run") as logs:
        log = logs.logger("training")
        for step, (name, value) in enumerate(ALL.items()):
            assert logs.log_step(step, None, {name: value, "loss": 0.5})
            assert logs.log_epoch_summary(step, {name: value})
            log.info("Message", **{name: value})
            assert logs.recorder.event("m", context={name: value})
            logs.errors.log_error(ValueError(value), context={name: value, "in": [value]})
        assert logs.log_step(len(ALL), None, ALL)
    found = [line["metrics"]["loss"] for line in lines(tmp_path / "run") if "loss" in line]
    assert found == [0.5] * len(found)
    with WandBLogger(enabled=False) as wandb:
        assert wandb.log_metrics(0, ALL) is False
    tracker = ErrorTracker(logging.getLogger("test.values"), tmp_path / "errors")
    tracker.log_error(ValueError(ALL), context=ALL)
    assert tracker.close()


STEPS = [(3, 3), (np.int64(3), 3), (np.array(3), 3), (True, None), (3.0, None), ("3", None)]


@pytest.mark.parametrize(("step", "expected"), STEPS)
def test_steps_are_ints_everywhere(recorder: Recorder, step: Any, expected: int | None) -> None:
    """A wrong step is a wrong call, and raises."""
    blocks = PerformanceLogger(logging.getLogger("test.values"), recorder)
    calls = (
        lambda: recorder.record(step, v=1.0),
        lambda: recorder.record(step, v=1),
        lambda: recorder.record(step=step, v=1),
        lambda: recorder.record_dict(step, {"v": 1.0}),
        lambda: recorder.log({"v": 1.0}, step),
        lambda: recorder.event("m", step=step),
        lambda: recorder.system({"v": 1}, step=step),
        lambda: logger_of(recorder).log_step(step, None, {"v": 1.0}),
        lambda: blocks.time_block("b", step=step).__enter__().__exit__(None, None, None),
        lambda: recorder.timer("b", step=step).__enter__().__exit__(None, None, None),
    )
    for call in calls:
        if expected is None:
            with pytest.raises(TypeError, match="step must be an int"):
                call()
        else:
            call()
    recorder.close()
    found = [lines(recorder.path, name) for name in ("metrics", "log", "system", "performance")]
    steps = [line["step"] for stream in found for line in stream]
    assert steps == ([] if expected is None else [expected] * len(calls))
