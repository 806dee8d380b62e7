"""The numbers in a page: buckets beside values counted one by one, arrays read back bit by bit."""

from __future__ import annotations

import math
import struct
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oracle import OracleWriter, attempt
from page_arrays import decode

from foundry_fastlog import read_run
from foundry_fastlog.pages import curves
from foundry_fastlog.pages.buckets import bucket
from foundry_fastlog.pages.curves import CurveReader, fitting
from foundry_fastlog.pages.encoding import encode

Patch = pytest.MonkeyPatch
PLACES = ("first", "last", "low", "high")


def bits(values: list[float]) -> list[bytes]:
    return [struct.pack("<d", value) for value in values]


def values_of(blobs: list[str], entry: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """The points of a curve by what they are, from its arrays."""
    steps, first, *more = decode(blobs[entry["blob"]])
    if entry["single"]:
        return {place: list(zip(steps, first, strict=True)) for place in PLACES}
    found = {"first": list(zip(steps, first, strict=True))}
    for number, place in enumerate(PLACES[1:]):
        offsets, values = more[2 * number : 2 * number + 2]
        at = [step + offset for step, offset in zip(steps, offsets, strict=True)]
        found[place] = list(zip(at, values, strict=True))
    return found


def read(run: Path, points: int = 100, starts: Any = "latest") -> tuple[Any, list[str]]:
    """All curves of a run by name, and the arrays."""
    opened, blobs = read_run(run), list[str]()
    reader = CurveReader(opened, starts, points, blobs)
    found = [*reader.metrics(opened.names(), 1000), *reader.system()]
    return {entry["name"]: entry for entry in found}, blobs


numbers = st.one_of(
    st.floats(), st.floats(width=32), st.integers(-(2**60), 2**60).map(float), st.just(-0.0)
).map(lambda number: math.nan if math.isnan(number) else number)  # lines have one kind of NaN
ascending = st.lists(st.integers(-1000, 2**34)).map(sorted)


@given(st.lists(st.one_of(st.lists(numbers, max_size=20), ascending), max_size=4))
@example([[0.0, 255.0, 510.0], [0.0, 2.0**32], [0.1, 0.1], [-0.0], [math.nan, 1e300]])
def test_arrays_are_read_back_bit_by_bit(arrays: list[list[float]]) -> None:
    found = decode(encode([np.array(array, "f8") for array in arrays]))
    assert [bits(values) for values in found] == [bits(list(map(float, a))) for a in arrays]


def test_arrays_are_small() -> None:
    """Steps cost next to nothing, and what was float32 once four bytes."""
    steps = np.arange(0, 640_000, 64)
    assert len(encode([steps])) < 200
    noise = np.random.default_rng(1).normal(size=10_000)
    assert len(encode([noise.astype("f4")])) < 0.6 * len(encode([noise]))


@given(
    st.lists(st.tuples(st.integers(-50, 3000), st.sampled_from([0.0, 1.0, -2.5, 1e308, -1e308]))),
    st.integers(2, 40),
)
def test_buckets_are_those_of_all_values(points: list[tuple[int, float]], most: int) -> None:
    """First, last, smallest and largest, each the first of equal ones, and the finest level."""
    points = sorted(points, key=lambda point: point[0])
    steps, values = (np.array(list(c)) for c in zip(*points, strict=True)) if points else ([], [])
    steps, values = np.asarray(steps, "i8"), np.asarray(values, "f8")
    found = bucket(steps, values, most)
    index = range(len(points))
    groups = [list(g) for _, g in groupby(index, lambda at: int(steps[at]) >> found.level)]
    assert found.first_at.tolist() == [group[0] for group in groups]
    assert found.last_at.tolist() == [group[-1] for group in groups]
    assert found.low_at.tolist() == [min(g, key=lambda at: (values[at], at)) for g in groups]
    assert found.high_at.tolist() == [max(g, key=lambda at: (values[at], -at)) for g in groups]
    assert found.count.tolist() == list(map(len, groups))
    for mean, group in zip(found.mean.tolist(), groups, strict=True):
        exact = sum(values[at] / len(group) for at in group)
        assert mean == pytest.approx(exact, rel=1e-9, abs=1e295)
    assert len(found) <= (4 * most if found.is_single else most)
    if found.level:  # a level less would be too many
        finer = len(set((steps >> (found.level - 1)).tolist()))
        assert finer > (4 * most if finer == len(points) else most)


def test_buckets_are_those_of_the_native_pyramid(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    for step in range(3000):
        writer.metrics(step, loss=math.sin(step * step))
    entries, blobs = read(tmp_path, points=100)
    entry = entries["loss"]
    curve = read_run(tmp_path).curve("loss", points=len(decode(blobs[entry["blob"]])[0]))
    assert entry["level"] == curve.level == 5
    for place, native in zip(PLACES, ("first", "last", "min", "max"), strict=True):
        points = zip(getattr(curve, f"{native}_step"), getattr(curve, native), strict=True)
        assert values_of(blobs, entry)[place] == list(points), place


def test_a_curve_has_its_times_and_epochs_and_shares_them(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, tick_s=0.25)
    written = [writer.metrics(step, step / 100, loss=1.5, lr=step) for step in range(300)]
    entries, blobs = read(tmp_path, points=20)
    loss, lr = entries["loss"], entries["lr"]
    assert loss["clock"] == lr["clock"]
    steps, times, epochs = decode(blobs[loss["clock"]])
    assert steps == [*range(0, 300, 16), 299]
    moments = np.array([written[int(s)]["timestamp"][:-1] for s in steps], "M8[ms]").view("i8")
    assert times == moments.tolist()
    assert epochs == [step / 100 for step in steps]


def test_nan_and_infinity_are_marks_with_their_steps(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(curves, "MOST_MARKS", 3)
    writer = OracleWriter(tmp_path)
    bad = {2: math.nan, 3: math.inf, 5: -math.inf, 6: math.nan}
    for step in range(8):
        writer.metrics(step, loss=bad.get(step, 1.0), all_bad=math.nan)
    entries, blobs = read(tmp_path)
    loss = entries["loss"]
    assert (loss["marks"], loss["bad"]) == ([[2, "NaN"], [3, "inf"], [6, "NaN"]], 4)
    assert [step for step, _ in values_of(blobs, loss)["first"]] == [0, 1, 4, 7]
    assert entries["all_bad"]["last"] is None
    assert decode(blobs[entries["all_bad"]["blob"]]) == [[], []]


def test_several_ranks_are_in_one_curve_by_step(tmp_path: Path) -> None:
    for rank in range(3):
        writer = OracleWriter(tmp_path, rank=rank)
        for step in range(5):
            writer.metrics(step, loss=float(rank))
    entries, blobs = read(tmp_path)
    assert (entries["loss"]["single"], entries["loss"]["level"]) == (False, 0)
    points = values_of(blobs, entries["loss"])
    assert points["low"] == [(step, 0.0) for step in range(5)]
    assert points["high"] == [(step, 2.0) for step in range(5)]


def test_what_counts_is_chosen_as_everywhere(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(10), loss=1.0)
    attempt(tmp_path, 1).fill(range(6, 9), loss=2.0)
    for starts, expected in (("latest", [1.0] * 6 + [2.0] * 3), (0, [1.0] * 10), (1, [2.0] * 3)):
        entries, blobs = read(tmp_path, starts=starts)
        assert [v for _, v in values_of(blobs, entries["loss"])["first"]] == expected


def test_epochs_and_system_figures_stand_at_the_step_of_their_time(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    writer.system(cpu=10.0)
    for step in range(0, 30, 10):
        writer.metrics(step, loss=1.0, note="text", odd="x" if step else 1.5)
        writer.system(cpu=float(step), host="node")
        writer.summary(step / 10, loss=2.0)
    entries, blobs = read(tmp_path)
    assert set(entries) == {"loss", "loss (epoch)", "cpu"}  # what is no number is not drawn
    epoch = entries["loss (epoch)"]
    assert epoch["kind"] == "epoch"
    assert values_of(blobs, epoch)["first"] == [(0, 2.0), (10, 2.0), (20, 2.0)]
    assert decode(blobs[epoch["clock"]])[2] == [0.0, 1.0, 2.0]
    cpu = entries["cpu"]
    assert cpu["kind"] == "system"
    assert values_of(blobs, cpu)["last"] == [(0, 0.0), (10, 10.0), (20, 20.0)]
    assert values_of(blobs, cpu)["high"][0] == (0, 10.0)


def test_system_figures_alone_stand_at_their_milliseconds(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, tick_s=2.0)
    for _ in range(3):
        writer.system(cpu=50.0)
    entries, blobs = read(tmp_path)
    assert values_of(blobs, entries["cpu"])["first"] == [(0, 50), (2000, 50), (4000, 50)]


def test_many_metrics_are_read_in_parts(tmp_path: Path, monkeypatch: Patch) -> None:
    """Also with names that are patterns, and some lines without an epoch."""
    monkeypatch.setattr(curves, "_MOST_CELLS", 3000)
    names = [f"layer[{number}]/*" for number in range(7)] + ["a\0b", "step"]
    writer = OracleWriter(tmp_path)
    for step in range(4):
        values = {name: step + number for number, name in enumerate(names)}
        writer.metrics_dict(step, values, epoch=None if step == 2 else 1)
    entries, blobs = read(tmp_path)
    assert list(entries) == names
    for number, name in enumerate(names):
        points = values_of(blobs, entries[name])["first"]
        assert points == [(step, step + number) for step in range(4)]
    epochs = decode(blobs[entries[names[0]]["clock"]])[2]
    assert [epochs[0], epochs[1], epochs[3]] == [1, 1, 1]
    assert math.isnan(epochs[2])


def test_steps_out_of_order_are_sorted(tmp_path: Path) -> None:
    """Of one step in the order in which they were recorded."""
    OracleWriter(tmp_path).fill([5], loss=1.0).fill([3, 3], loss=2.0).fill([4, 3], loss=3.0)
    entries, blobs = read(tmp_path)
    points = values_of(blobs, entries["loss"])
    assert points["first"] == [(3, 2.0), (4, 3.0), (5, 1.0)]
    assert points["last"] == [(3, 3.0), (4, 3.0), (5, 1.0)]


def test_patterns_choose_metrics() -> None:
    names = ["loss", "val_loss", "val_acc", "a[0]"]
    assert fitting(names, None) == names
    assert fitting(names, ["val_*"]) == ["val_loss", "val_acc"]
    assert fitting(names, ["a[0]", "loss"]) == ["loss", "a[0]"]
