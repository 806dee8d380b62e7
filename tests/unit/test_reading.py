"""Reading runs: lines in order, values restored, and everything that is wrong reported."""

from __future__ import annotations

import json
import math
import resource
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import START, OracleWriter, attempt, write_run_json

import foundry_fastlog.reading.lines
import foundry_fastlog.run.checks
from foundry_fastlog.reading.run import ReadProblemError, Run, RunNotFoundError, read_run
from foundry_fastlog.run.checks import SeriesCheck

HOUR = timedelta(hours=1)
Patch = pytest.MonkeyPatch
STREAMS = ("metrics", "performance", "errors", "log", "system")

int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.dictionaries(
    text, st.one_of(st.floats(), int64, st.booleans(), st.none(), text), max_size=6
)
in_any_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def equal(left: Any, right: Any) -> bool:
    """Whether two values are the same, type and NaN included."""
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    return type(left) is type(right) and left == right


def steps(run: Run, stream: str = "metrics", **options: Any) -> list[int]:
    return [line["step"] for line in run.lines(stream, **options)]


def kinds(run: Run) -> list[str]:
    return [problem.kind for problem in run.problems]


def rewrite(path: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    lines = edit(path.read_bytes().split(b"\n")[:-1])
    path.write_bytes(b"".join(line + b"\n" for line in lines))


@in_any_directory
@given(st.lists(st.tuples(int64, values), max_size=5))
def test_values_read_back_as_they_were_recorded(
    tmp_path_factory: pytest.TempPathFactory, recorded: list[tuple[int, dict[str, Any]]]
) -> None:
    path = tmp_path_factory.mktemp("run")
    writer = OracleWriter(path, segment_lines=2)
    for step, metrics in recorded:
        writer.metrics_dict(step, metrics)
    run = read_run(path)
    read = [(line["step"], line["metrics"]) for line in run.lines("metrics")]
    assert run.problems == []
    assert [step for step, _ in read] == [step for step, _ in recorded]
    for (_, got), (_, metrics) in zip(read, recorded, strict=True):
        assert list(got) == list(metrics)
        assert all(equal(got[key], metrics[key]) for key in metrics)


@in_any_directory
@given(values, text)
def test_contexts_and_messages_read_back_as_they_were_recorded(
    tmp_path_factory: pytest.TempPathFactory, context: dict[str, Any], message: str
) -> None:
    path = tmp_path_factory.mktemp("run")
    writer = OracleWriter(path)
    writer.log(message, context=context)
    writer.error(message, ValueError(message), step=7, context=context)
    run = read_run(path)
    (log,), (error,) = run.lines("log"), run.lines("errors")
    assert log["message"] == error["message"] == error["error_message"] == message
    assert error["step"] == 7
    assert "step" not in log
    for line in (log, error):
        assert all(equal(line["context"][key], value) for key, value in context.items())
    assert run.problems == []


def read_context(run: Path, context: dict[str, Any], nonfinite: dict[str, str]) -> Any:
    fields = {"level": "INFO", "logger": "x", "message": "m", "context": context}
    OracleWriter(run).write("log", {**fields, "nonfinite": nonfinite})
    opened = read_run(run)
    (line,) = opened.lines("log")
    assert (line["message"], opened.problems) == ("m", [])
    return line["context"]


def test_numbers_deep_in_a_context_are_restored(tmp_path: Path) -> None:
    context = {"a": {"b": None, "c": [1, None, {"d": None}]}, "a.b": {"c": None}, "x.y": None}
    context |= {"list": [[None]], "kept": None, "number": 3}
    nonfinite = {"a.c.1": "inf", "a.c.2.d": "-inf", "a.b.c": "nan", "x.y": "inf"}
    nonfinite |= {"list.0.0": "nan", "kept": "unknown"}
    nowhere = ("a.c.9", "a.c.x", "a.c.0", "a.c.0.0", "number", "no.such")
    got = read_context(tmp_path, context, nonfinite | dict.fromkeys(nowhere, "nan"))
    assert got["a"] == {"b": None, "c": [1, math.inf, {"d": -math.inf}]}
    assert math.isnan(got["a.b"]["c"])
    assert got["x.y"] == math.inf
    assert math.isnan(got["list"][0][0])
    assert (got["kept"], got["number"]) == (None, 3)
    # A hostile path costs a bounded number of steps and no exception.
    deep: dict[str, Any] = {"a": None}
    for _ in range(500):
        deep = {"a": deep}
    read_context(tmp_path / "deep", deep, {".".join("a" * 501): "nan"})


def test_writers_are_merged_by_time_and_keep_their_own_order(tmp_path: Path) -> None:
    """A clock that stepped back within a writer does not reorder its lines."""
    fast = OracleWriter(tmp_path, tick_s=1).fill(range(4))
    slow_start = START + timedelta(seconds=0.5)
    OracleWriter(tmp_path, rank=1, tick_s=1, start=slow_start).fill(range(100, 104))
    fast.now -= HOUR
    fast.fill([4, 5])
    run = read_run(tmp_path)
    assert steps(run) == [0, 100, 1, 101, 2, 102, 3, 4, 5, 103]
    assert steps(run, rank=0) == [0, 1, 2, 3, 4, 5]
    assert steps(run, rank=1) == [100, 101, 102, 103]
    assert steps(run, rank=7) == []
    assert run.problems == []


def test_three_ranks_two_starts_and_segments_merge_into_one_story(tmp_path: Path) -> None:
    for rank in range(3):
        for number in range(2):
            start = START + number * HOUR + timedelta(milliseconds=rank)
            options = {"rank": rank, "segment_lines": 7, "start": start, "tick_s": 1}
            writer = attempt(tmp_path, number, **options)
            for step in range(number * 20, 30 + number * 20):
                writer.metrics(step, loss=float(number))
                writer.timing("step", 0.5, step=step)
    run = read_run(tmp_path)
    assert run.ranks == (0, 1, 2)
    assert run.streams == ("metrics", "performance")
    assert [writer.label for writer in run.writers] == ["", "a1", "r1", "r1-a1", "r2", "r2-a1"]
    read = [(line["step"], line["metrics"]["loss"]) for line in run.lines("metrics")]
    assert read == [(s, 0.0 if s < 20 else 1.0) for s in range(50) for _ in range(3)]
    assert steps(run, "performance", rank=1) == list(range(50))
    assert steps(run, starts="all", rank=2) == [*range(30), *range(20, 50)]
    assert [(check.complete, check.lines) for check in run.check()] == [(True, 30)] * 12
    assert (len(run.check(["metrics"])), len(run.check(["metrics"], rank=1))) == (6, 2)
    # Leaving lines out for a later start is no gap, and is counted.
    checks: list[SeriesCheck] = []
    assert len(list(run.entries(["metrics"], rank=2, checks=checks))) == 50
    assert [(check.superseded, check.complete) for check in checks] == [(10, True), (0, True)]
    assert run.problems == []
    assert repr(run).endswith("streams=('metrics', 'performance'), writers=6)")


def test_a_later_start_takes_over_from_its_first_step(tmp_path: Path) -> None:
    """Also from one that got further: what comes behind was abandoned."""
    for number, last in enumerate((10, 6, 8)):
        writer = attempt(tmp_path, number).fill(range(5 if number else 0, last), attempt=number)
        writer.summary(epoch=0, attempt=number)
    lines = list(read_run(tmp_path).lines("metrics"))
    won = {line["step"]: line["metrics"]["attempt"] for line in lines if "step" in line}
    assert won == {**dict.fromkeys(range(5), 0), 5: 2, 6: 2, 7: 2}
    assert [line["summary"]["attempt"] for line in lines if "summary" in line] == [2]


def test_which_start_of_a_rank_counts(tmp_path: Path) -> None:
    for hour in (1, 2):  # file names with a start time need no attempt to be told apart
        stamp = f"2026-01-30_0{hour}-00-00"
        writer = OracleWriter(tmp_path / "stamps", stamp=stamp, start=START + hour * HOUR)
        writer.fill([0], hour=hour)
    (line,) = read_run(tmp_path / "stamps").lines("metrics")
    assert line["metrics"]["hour"] == 2
    # What a worker of a later start recorded replaces the step in all ranks of the one before.
    OracleWriter(tmp_path).fill([5], who="main")
    OracleWriter(tmp_path, children=("w1",)).fill([5], who="child")
    OracleWriter(tmp_path, attempt=1, children=("w2",)).fill([5], who="resumed child")
    OracleWriter(tmp_path, rank=1).fill([5], who="other rank").fill([5], other=1)
    read = [line["metrics"] for line in read_run(tmp_path).lines("metrics")]
    assert read == [{"who": "resumed child"}, {"other": 1}]
    # The error that ended a start stays in sight, as does what no step tells to have come again.
    for number in range(2):
        writer = attempt(tmp_path / "errors", number)
        writer.error("boom", ValueError(str(number)), step=5)
        writer.timing("untied", 0.1)
    run = read_run(tmp_path / "errors")
    assert [line["error_message"] for line in run.lines("errors")] == ["0", "1"]
    assert len(list(run.lines("performance"))) == 2


def test_merging_many_writers_needs_no_handle_for_each(tmp_path: Path) -> None:
    for child in range(300):
        OracleWriter(tmp_path, children=(f"w{child}",)).fill([child])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, limits[1]), limits[1]))
    try:
        assert sorted(steps(read_run(tmp_path))) == list(range(300))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_large_run_is_read_in_little_memory(tmp_path: Path) -> None:
    line = '{"timestamp":"2026-01-30T14:32:15.123456Z","seq":%d,"step":%d,"metrics":{"x":1.5}}\n'
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for start in range(0, 200_000, 10_000):
            file.write("".join(line % (n, n) for n in range(start, start + 10_000)))
        assert file.tell() > 17e6
    run = read_run(tmp_path)
    tracemalloc.start()
    try:
        assert sum(1 for _ in run.lines("metrics")) == 200_000
        assert tracemalloc.get_traced_memory()[1] < 6e6
    finally:
        tracemalloc.stop()


def test_empty_files_are_a_run_without_lines(tmp_path: Path) -> None:
    OracleWriter(tmp_path)
    run = read_run(tmp_path)
    assert [list(run.lines(stream)) for stream in ("metrics", "log")] == [[], []]
    assert [check.complete for check in run.check()] == [True]
    assert (run.problems, run.info) == ([], {})
    info = write_run_json(tmp_path / "info", name="exp0", config={"lr": 0.1})
    run = read_run(tmp_path / "info")
    assert run.info == info
    assert run.writers == run.streams == run.ranks == ()


TORN = b'{"timestamp":"2026-01-30T14:32:15.123456Z","seq":3,"st'
TORN_END = (
    "the last line is torn (54 bytes without newline) and was skipped: "
    "its writer was killed, or is writing it now"
)
ORDER = [0, 1, 1, 5, 3, 2, 4, 4, 7]


def reorder(writer: OracleWriter) -> None:
    rewrite(writer.path("metrics"), lambda lines: [lines[n] for n in ORDER])


# Lines of a segment, lines in all, what is done to them, what is read, in the check, problems.
DAMAGE: dict[str, tuple[int, int, Callable[[OracleWriter], object], Any, Any, list[str]]] = {
    "torn end": (
        *(9, 3, lambda writer: writer.torn("metrics", TORN), [0, 1, 2]),
        *({"torn": 1, "damaged": 0, "lines": 3}, [f"metrics.jsonl:4: {TORN_END}"]),
    ),
    "torn end of an earlier segment": (
        *(2, 2, lambda writer: writer.torn("metrics", b'{"torn') or writer.fill([2])),
        *([0, 1, 2], {"torn": 0, "damaged": 1, "lines": 3}),
        ["metrics.jsonl:3: damaged line: 6 bytes without newline, yet a later segment exists"],
    ),
    "missing segment": (
        *(10, 35, lambda writer: (writer.run / "metrics.000001.jsonl").unlink()),
        [*range(10), *range(20, 35)],
        {"missing": 10, "next_seq": 35, "missing_files": ["metrics.000001.jsonl"]},
        [
            "metrics.000001.jsonl: segment is missing, but later ones exist",
            "metrics.000002.jsonl:1: seq 10 to 19 missing before this line (10)",
        ],
    ),
    "missing first segment": (
        *(5, 8, lambda writer: (writer.run / "metrics.jsonl").unlink(), [5, 6, 7]),
        {"missing": 5, "missing_files": ["metrics.jsonl"]},
        [
            "metrics.000001.jsonl:1: seq 0 to 4 missing before this line (5)",
            "metrics.jsonl: segment is missing, but later ones exist",
        ],
    ),
    # A number seen before is a duplicate; one that fills a gap came late.
    "doubled and late lines": (
        *(9, 8, reorder, ORDER, {"duplicates": 2, "out_of_order": 3, "missing": 1}),
        [
            "metrics.jsonl:3: seq 1 is a duplicate",
            "metrics.jsonl:5: seq 3 is out of order",
            "metrics.jsonl:6: seq 2 is out of order",
            "metrics.jsonl:7: seq 4 is out of order",
            "metrics.jsonl:8: seq 4 is a duplicate",
            "metrics.jsonl:9: seq 6 missing before this line (1)",
        ],
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_wrong_is_told_once_however_often_a_run_is_read(kind: str, tmp_path: Path) -> None:
    segment_lines, count, damage, read, facts, problems = DAMAGE[kind]
    damage(OracleWriter(tmp_path, segment_lines=segment_lines).fill(range(count)))
    run = read_run(tmp_path)
    assert [steps(run) for _ in range(3)] == [read] * 3
    assert list(map(str, run.problems)) == problems
    (check,) = run.check()
    assert {name: getattr(check, name) for name in facts} == facts
    assert not check.complete


WHOLE = b'{"timestamp":"x","seq":1,"step":1,"metrics":{}'


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"timestamp":"2026', "not JSON"),
        *((raw, "not JSON") for raw in (b"\xff\xfe{}", b'{"a":NaN}')),
        (b"", "empty"),
        (b"\0" * 4096, "4096 NUL bytes"),
        (b"[1,2]", "JSON, but not an object"),
        (b'{"timestamp":"x","step":1,"metrics":{}}', "no seq"),
        *((WHOLE.replace(b"1", seq, 1) + b"}", "no seq") for seq in (b"true", b"-1")),
        (b'{"timestamp":5,"seq":1,"step":1,"metrics":{}}', "no timestamp"),
        (b'{"timestamp":"x","seq":1,"step":"1","metrics":{}}', "step is not an integer"),
        (b'{"timestamp":"x","seq":1,"epoch":"1","metrics":{}}', "epoch is not a number"),
        (b'{"timestamp":"x","seq":1,"step":1}', "no metrics object"),
        (b'{"timestamp":"x","seq":1,"step":1,"metrics":[]}', "no metrics object"),
        (b'{"timestamp":"x","seq":1,"dropped":"x"}', "dropped is not a count"),
        (b'{"timestamp":"x","seq":1,"dropped":-1}', "dropped is not a count"),
        (WHOLE + b',"nonfinite":[]}', "nonfinite is not an object of strings"),
        (WHOLE + b',"nonfinite":{"a":1}}', "nonfinite is not an object of strings"),
        (WHOLE + b',"missing":"lost"}', "missing is not an object of strings"),
        (WHOLE[:-1] + b'"a":null},"missing":{"a":null}}', "missing is not an object of strings"),
    ],
)
def test_a_damaged_line_is_told_with_file_and_line(tmp_path: Path, raw: bytes, reason: str) -> None:
    """Damage in the middle is counted, and stops the reading only where that is asked for."""
    OracleWriter(tmp_path).fill(range(3))
    rewrite(tmp_path / "metrics.jsonl", lambda lines: [lines[0], raw, lines[2]])
    run = read_run(tmp_path)
    assert steps(run) == [0, 2]
    problems = {problem.kind: str(problem) for problem in run.problems}
    assert problems["damaged"].startswith(f"metrics.jsonl:2: damaged line: {reason}")
    assert problems["gap"] == "metrics.jsonl:3: seq 1 missing before this line (1)"
    (check,) = run.check()
    assert (check.damaged, check.missing, check.lines, check.complete) == (1, 1, 2, False)
    lines = read_run(tmp_path, strict=True).lines("metrics")
    assert next(lines)["step"] == 0
    with pytest.raises(ReadProblemError, match=r"metrics.jsonl:2: damaged line") as raised:
        next(lines)
    assert raised.value.problem.line == 2


TIMING = {"name": "x", "duration_s": 1}


@pytest.mark.parametrize(
    ("stream", "fields", "reason"),
    [
        ("performance", {"duration_s": 0.1}, "no name"),
        ("performance", {"name": "x", "duration_s": None}, "no duration_s"),
        ("performance", {**TIMING, "device": 0}, "device is not a string"),
        ("performance", {**TIMING, "device_duration_s": "1"}, "device_duration_s is not a number"),
        ("performance", {**TIMING, "missing": [1]}, "missing is not an object of strings"),
        ("errors", {"level": "ERROR"}, "no level or message"),
        ("log", {"message": "x"}, "no level or message"),
        ("log", {"level": "INFO", "message": "x", "context": []}, "context is not an object"),
    ],
)
def test_own_fields_are_checked(tmp_path: Path, stream: str, fields: Any, reason: str) -> None:
    OracleWriter(tmp_path).write(stream, fields)
    run = read_run(tmp_path)
    assert list(run.lines(stream)) == []
    assert str(run.problems[0]) == f"{stream}.jsonl:1: damaged line: {reason}"


def test_a_line_past_the_limit_is_damage(tmp_path: Path, monkeypatch: Patch) -> None:
    """One that is longer than a block alone is whole."""
    writer = OracleWriter(tmp_path / "whole")
    for step, size in enumerate((10, 3_000_000, 10)):
        writer.metrics(step, note="x" * size)
    notes = [line["metrics"]["note"] for line in read_run(tmp_path / "whole").lines("metrics")]
    assert list(map(len, notes)) == [10, 3_000_000, 10]
    monkeypatch.setattr(foundry_fastlog.reading.lines, "MAX_LINE_BYTES", 2 << 20)
    writer = OracleWriter(tmp_path).fill([0]).fill([1], note="x" * (5 << 20)).fill([2])
    run = read_run(tmp_path)
    assert steps(run) == [0, 2]
    assert "metrics.jsonl:2: damaged line: longer than 2 MiB" in map(str, run.problems)
    writer.torn("metrics", b"x" * (5 << 20))
    run = read_run(tmp_path)
    assert steps(run) == [0, 2]
    assert kinds(run) == ["damaged", "gap", "torn"]


@given(st.lists(st.integers(0, 30), max_size=60))
def test_the_account_of_seq_agrees_with_a_set(seen: list[int]) -> None:
    check = SeriesCheck(series=None)  # type: ignore[arg-type]  # only its numbers are tested
    for seq in seen:
        if seq == check.next_seq:
            check.next_seq += 1
        else:
            check.note_seq(seq, "metrics.jsonl", 1)
    absent = set(range(max(seen, default=-1) + 1)) - set(seen)
    assert {n for gap in check.gaps for n in range(gap.first, gap.last + 1)} == absent
    assert (check.missing, check.duplicates) == (len(absent), len(seen) - len(set(seen)))


def test_drop_markers_are_counted_and_take_a_seq(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path).fill([0])
    writer.dropped("metrics", 17)
    writer.fill([18]).dropped("metrics", 3)
    run = read_run(tmp_path)
    assert steps(run) == [0, 18]
    assert len(list(run.entries())) == 4
    (check,) = run.check()
    assert (check.dropped, check.lines, check.missing, check.complete) == (20, 4, 0, True)
    assert run.problems == []


def test_many_problems_are_counted_not_kept(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(foundry_fastlog.run.checks, "MAX_KEPT", 5)
    path = OracleWriter(tmp_path).fill(range(20)).path("metrics")
    rewrite(path, lambda lines: [line if n % 2 else b"x" for n, line in enumerate(lines)])
    run = read_run(tmp_path)
    assert steps(run) == list(range(1, 20, 2))
    # Ten damaged lines and the five gaps that were kept.
    assert (len(run.problems), run.problems_omitted) == (5, 10)
    (check,) = run.check()
    assert (check.damaged, check.missing, len(check.gaps)) == (10, 10, 5)


def test_a_file_that_vanishes_is_a_problem_not_an_exception(tmp_path: Path) -> None:
    OracleWriter(tmp_path, segment_lines=2).fill(range(4))
    run = read_run(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    assert steps(run) == [2, 3]
    assert "metrics.jsonl: cannot be read: No such file or directory" in map(str, run.problems)
    (check,) = run.check()
    assert (check.unreadable, check.complete) == (1, False)


def test_a_damaged_run_json_is_told_and_not_needed(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill([0])
    for content in (b"{", b"[]", b""):
        (tmp_path / "run.json").write_bytes(content)
        run = read_run(tmp_path)
        assert (run.info, steps(run), kinds(run)) == ({}, [0], ["run-info"])
        assert str(run.problems[0]).startswith("run.json: cannot be read")


def test_wrong_arguments_are_named_at_once(tmp_path: Path) -> None:
    OracleWriter(tmp_path)
    run = read_run(tmp_path)
    with pytest.raises(ValueError, match="unknown stream 'metric'; streams are metrics, perf"):
        list(run.lines("metric"))
    with pytest.raises(ValueError, match="unknown stream"):
        run.check(["x"])
    with pytest.raises(ValueError, match="starts must be 'latest', 'all' or one of 0, got 'first'"):
        list(run.lines("metrics", starts="first"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown stream"):
        run.to_polars("metric")
    with pytest.raises(RunNotFoundError):
        read_run(tmp_path / "nope")


@pytest.fixture
def mixed(tmp_path: Path) -> Run:
    """A run with values of all types, absent ones, and names that collide."""
    main = OracleWriter(tmp_path)
    main.metrics(0, epoch=1, loss=2.5, n=3, ok=True, note="x", mixed=1, both=1)
    main.dropped("metrics", 2)
    main.metrics(1, loss=math.nan, mixed="two", both=0.5)
    main.metrics_dict(2, {"rank": 9.0, "": 7, "loss": None}, missing={"loss": "timeout"})
    main.summary(1, loss=4.0)
    other = OracleWriter(tmp_path, rank=1, attempt=1)
    other.timing("forward", 0.25, step=5, depth=1, parent="step")
    main.timing("x", 0.1, device="cuda:0", device_duration_s="lost")
    main.timing("x", 0.1, device="cuda:1", device_duration_s=0.5)
    main.log("hello", context={"x": math.inf, "y": [1]})
    main.nonfinite("loss", "nan", 1)
    main.error("boom", ValueError("x"))
    main.system(step=1, cpu=math.nan, rank=1)
    main.rewind(7)
    return read_run(tmp_path)


def test_polars_frames_have_a_column_per_metric(mixed: Run) -> None:
    """Types are kept, absent values are null, NaN stays NaN, colliding names are prefixed."""
    frame = mixed.to_polars("metrics")
    assert frame.columns == [
        *("timestamp", "seq", "step", "epoch", "loss", "n", "ok", "note", "mixed", "both"),
        *("metrics.rank", "metrics.", "rank", "start", "label"),
    ]
    expected: dict[str, list[Any]] = {
        "step": [0, 1, 2, None],
        "loss": [2.5, math.nan, None, 4.0],
        "n": [3, None, None, None],
        "ok": [True, None, None, None],
        "mixed": ["1", "two", None, None],
        "both": [1.0, 0.5, None, None],
        "metrics.rank": [None, None, 9.0, None],
    }
    assert repr({name: frame[name].to_list() for name in expected}) == repr(expected)
    assert frame["timestamp"][0] == START


def test_every_stream_becomes_a_frame_even_an_empty_one(mixed: Run, tmp_path: Path) -> None:
    """With the times of devices, and null for what never arrived."""
    timings = mixed.to_polars("performance")
    names = ("name", "step", "parent", "device", "device_duration_s", "label")
    assert timings.select(names).rows() == [
        ("forward", 5, "step", None, None, "r1-a1"),
        ("x", None, None, "cuda:0", None, ""),
        ("x", None, None, "cuda:1", 0.5, ""),
    ]
    assert timings.select("duration_s", "rank", "start").row(0) == (0.25, 1, 1)
    assert json.loads(mixed.to_polars("log")["context"][0]) == {"x": None, "y": [1]}
    errors = mixed.to_polars("errors")
    kinds = [("nonfinite", None), (None, "ValueError")]
    assert errors.select("event", "error_type").rows() == kinds
    system = mixed.to_polars("system")
    assert system.columns[2:] == ["step", "cpu", "metrics.rank", "rank", "start", "label"]
    assert repr(system.row(0)[2:5]) == "(1, nan, 1)"
    for stream in STREAMS:
        empty = read_run(OracleWriter(tmp_path / "empty").run).to_polars(stream)
        assert empty.height == 0
        assert set(empty.schema.items()) <= set(mixed.to_polars(stream).schema.items())
    writer = OracleWriter(tmp_path / "lost")
    writer.timing("x", 0.1, device="cuda:0", device_duration_s="lost")
    lost = read_run(writer.run).to_polars("performance")
    assert lost.schema["device_duration_s"] == timings.schema["device_duration_s"]
    assert errors.schema["step"] == timings.schema["step"]


def test_pandas_frames_have_the_same_columns(mixed: Run) -> None:
    """Integers with absent values are nullable integers, times are in UTC."""
    for stream in STREAMS:
        assert list(mixed.to_pandas(stream).columns) == mixed.to_polars(stream).columns
    frame = mixed.to_pandas("metrics")
    assert [str(frame[name].dtype) for name in ("step", "seq")] == ["Int64", "int64"]
    assert str(frame["timestamp"].dtype).endswith("UTC]")
    assert frame["loss"][0] == 2.5
    assert frame["both"].tolist()[:2] == [1.0, 0.5]


@pytest.mark.parametrize("package", ["polars", "pandas"])
def test_a_missing_extra_is_named(mixed: Run, monkeypatch: Patch, package: str) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'foundry_fastlog\[{package}\]'"):
        getattr(mixed, f"to_{package}")("metrics")
