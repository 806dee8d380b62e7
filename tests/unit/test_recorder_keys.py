"""Names of metrics: many, long, new at every call, more than the key table holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded import lines, raw_lines, written

from foundry_fastlog import Recorder

RECORDER_OPTIONS = {"ring_bytes": 64 << 20}


def metrics_of(recorder: Recorder) -> list[dict[str, Any]]:
    found = [line["metrics"] for line in written(recorder)]
    assert recorder.stats()["dropped"] == 0
    return found


def test_ten_thousand_names_over_many_calls(recorder: Recorder) -> None:
    given = [{f"name{n}": n, f"other{n}": 0} for n in range(10_000)]
    given += [{f"name{n}": n, f"other{n}": 1} for n in reversed(range(10_000))]
    for metrics in given:
        recorder.record_dict(0, metrics)
    assert recorder.stats()["key_sets"] == 10_000
    assert metrics_of(recorder) == given


def test_most_and_too_many_metrics(recorder: Recorder) -> None:
    most = {f"m{n}": float(n) for n in range(65_535)}
    assert recorder.record_dict(0, most)
    with pytest.raises(ValueError, match=r"65536 metrics.*65535"):
        recorder.record_dict(1, {**most, "more": 1.0})
    assert metrics_of(recorder) == [most]


def test_long_names(recorder: Recorder) -> None:
    given = [{"k" * n: 1.0, "é" * 10: 2} for n in (1_000, 100_000, 2_000_000) for _ in range(2)]
    assert all(recorder.record_dict(0, metrics) for metrics in given)
    assert metrics_of(recorder) == given


def test_more_key_sets_than_the_table_holds(tmp_path: Path) -> None:
    """Past 65,536 sets, or 1 MiB of names, a record carries its keys: the lines are the same."""
    names = [f"n{n:06d}" for n in range(70_000)]
    values: dict[str, Any] = {"é\n": float("nan"), "epoch": 3, "text": "x\udc80", "i": -1}

    def carried(recorder: Recorder) -> None:
        recorder.record_dict(-1, {"new": None, **values})
        recorder.record(-2, newer=None, **values)

    with Recorder(tmp_path / "sets", ring_bytes=64 << 20) as recorder:
        for step, name in enumerate(names):
            recorder.record_dict(step, {name: 1.5})
        full = recorder.stats()["key_sets"]
        carried(recorder)
        with recorder.timer("a new timer"), recorder.timer(names[0]):
            pass
        with pytest.raises(ZeroDivisionError), recorder.timer("another", step=1):
            raise ZeroDivisionError
    assert full < 65_536  # 1 MiB of names came first
    assert recorder.stats()["key_sets"] == full
    found = lines(tmp_path / "sets")
    assert [line["metrics"] for line in found[:-2]] == [{name: 1.5} for name in names]
    timings = lines(tmp_path / "sets", "performance")
    assert [(line["name"], line.get("parent"), line["depth"]) for line in timings] == [
        (names[0], "a new timer", 1),
        ("a new timer", None, 0),
        ("another", None, 0),
    ]
    assert timings[2]["error"] == "ZeroDivisionError"
    assert all(line["duration_s"] > 0 for line in timings)

    with Recorder(tmp_path / "few") as recorder:
        carried(recorder)
    few = [line.split(b',"step"')[1] for line in raw_lines(tmp_path / "few" / "metrics.jsonl")]
    many = [line.split(b',"step"')[1] for line in raw_lines(tmp_path / "sets" / "metrics.jsonl")]
    assert many[-2:] == few


@pytest.mark.parametrize(
    "name",
    [
        lambda step: chr(0x10000 + step),  # more sets than the table takes, of the shortest names
        lambda step: f"{'x' * (step % 13)}{step % 251}",  # an address that comes again
    ],
    ids=["many", "dying"],
)
def test_names_that_were_made_for_one_call(recorder: Recorder, name: Callable[[int], str]) -> None:
    """The table stops at 65,536 sets, no old name is brought, and every line is right."""
    comes_again = name(0) == name(251 * 13)
    steps = range(10_000 if comes_again else 70_000)
    for step in steps:
        recorder.record_dict(step, {name(step): step})
    assert comes_again or 20_000 < recorder.stats()["key_sets"] <= 65_536
    assert metrics_of(recorder) == [{name(step): step} for step in steps]


def test_fresh_dicts(recorder: Recorder) -> None:
    for step in range(300):
        metrics = {"loss": step / 7, "lr": 1.0} if step % 2 else {f"lo{'ss'}": step / 7, "lr": 1.0}
        assert recorder.record(step, **metrics)
    for step in range(300, 600):
        assert recorder.record(step, **{"".join(("lo", "ss")): step / 7, f"l{'r'}": 1.0})
    assert recorder.stats()["key_sets"] == 1
    assert metrics_of(recorder) == [{"loss": step / 7, "lr": 1.0} for step in range(600)]


def test_order_of_names_is_the_order_of_the_call(recorder: Recorder) -> None:
    for _ in range(3):
        recorder.record(0, a=1, b=2)
        recorder.record(0, b=2, a=1)
        recorder.record_dict(0, {"b": 2, "a": 1})
    names = ["".join(metrics) for metrics in metrics_of(recorder)]
    assert names == ["ab", "ba", "ba"] * 3


def test_names_of_a_str_subclass(recorder: Recorder) -> None:
    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "another"

    assert recorder.record(0, **{Name("own"): 1.0})
    assert recorder.record_dict(1, {Name("own"): 2.0})
    assert recorder.log({Name("a"): {Name("b"): 3.0}})
    assert metrics_of(recorder) == [{"own": 1.0}, {"own": 2.0}, {"a.b": 3.0}]


def test_names_with_code_in_their_finalizer(recorder: Recorder) -> None:
    """Names whose __del__ records again, run from inside the cache, do no harm."""

    class Name(str):
        __slots__ = ("__weakref__",)

        def __del__(self) -> None:
            if not recorder.closed:
                recorder.record(-1, died=1)

    for step in range(3_000):
        recorder.record_dict(step, {Name(f"n{step}"): step})
    found = metrics_of(recorder)
    given = [{f"n{step}": step} for step in range(3_000)]
    assert [metrics for metrics in found if "died" not in metrics] == given
    assert {"died": 1} in found


def test_call_sites_that_come_and_go(recorder: Recorder) -> None:
    """The names of a call that is gone may lie where another one's did."""
    given: list[dict[str, Any]] = []
    for n in range(4_000):
        metrics = {f"come{n % 700}": 1.0, f"go{n % 900}": 2.0}
        keywords = ", ".join(f"{name}={value}" for name, value in metrics.items())
        made: dict[str, Any] = {}
        exec(f"def call(recorder): recorder.record(0, {keywords})", made)
        for _ in range(2):
            made["call"](recorder)
            given.append(metrics)
    assert metrics_of(recorder) == given


def test_blocks_whose_names_come_and_go(recorder: Recorder) -> None:
    """The same for the names of blocks, which are one object each."""
    given = [f"block {n % 700}" for n in range(6_000)]
    for name in given:
        with recorder.timer("".join(name)):
            pass
    recorder.flush()
    assert [line["name"] for line in lines(recorder.path, "performance")] == given
