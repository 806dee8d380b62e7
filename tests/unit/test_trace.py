"""Traces: events that Perfetto can nest, names of processes and threads, the command."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import OracleWriter, write_run_json
from recorded import in_threads

from foundry_fastlog import Recorder, export_chrome_trace, read_run
from foundry_fastlog.cli.main import main
from foundry_fastlog.export.blocks import ThreadBlocks
from foundry_fastlog.export.jsonl import ExportError
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.files import RunNotFoundError


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_bytes())
    assert list(loaded) == ["displayTimeUnit", "otherData", "traceEvents"]
    return loaded


def blocks(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """The complete events, in whole nanoseconds."""
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    return [{**e, "ts": round(e["ts"] * 1000), "dur": round(e["dur"] * 1000)} for e in events]


def names(trace: dict[str, Any], kind: str) -> dict[tuple[int, int], Any]:
    events = [e for e in trace["traceEvents"] if e["ph"] == "M" and e["name"] == kind]
    return {(e["pid"], e["tid"]): next(iter(e["args"].values())) for e in events}


def overlaps(events: list[dict[str, Any]]) -> int:
    """Count events of one thread that neither nest nor follow each other."""
    stack: list[int] = []
    count = 0
    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        end = event["ts"] + event["dur"]
        while stack and stack[-1] <= event["ts"]:
            stack.pop()
        count += bool(stack) and end > stack[-1]
        stack.append(end)
    return count


def exported(run: Path | Run, to: Path, events: int, processes: int = 1) -> dict[str, Any]:
    result = export_chrome_trace(run, to)
    assert (result.events, result.processes) == (events, processes)
    return load(to)


def test_what_a_block_becomes(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, tick_s=0.001)
    writer.timing("forward", 0.0005, step=3, depth=1, parent="step")
    writer.timing("step", 0.0035, step=3, error="ValueError")
    result = export_chrome_trace(tmp_path, tmp_path / "trace.json")
    assert (result.events, result.processes, result.complete) == (2, 1, True)
    trace = load(tmp_path / "trace.json")
    common = {"ph": "X", "pid": 1, "tid": 4711, "cat": "performance"}
    forward = {"name": "forward", "ts": 2000.0, "dur": 500.0, **common}
    step = {"name": "step", "ts": 0.0, "dur": 3500.0, **common}
    assert [e for e in trace["traceEvents"] if e["ph"] == "X"] == [
        {**forward, "args": {"step": 3, "parent": "step"}},
        {**step, "args": {"step": 3, "error": "ValueError"}},
    ]
    assert trace["displayTimeUnit"] == "ms"
    # The step's line is written a millisecond after the first one, at its end.
    start = "2026-01-30T14:32:15.120956+00:00"
    assert trace["otherData"] == {"run": tmp_path.name, "start": start}


def test_the_time_of_a_device_is_an_argument_of_its_block(tmp_path: Path) -> None:
    """When it began there nobody knows, so it is no block; one that is missing says why."""
    writer = OracleWriter(tmp_path)
    writer.timing("a", 0.0005, device="cuda:0", device_duration_s=0.25)
    writer.timing("a", 0.0005, step=1, device="cuda:1", device_duration_s="timeout")
    events = blocks(exported(tmp_path, tmp_path / "trace.json", 2))
    assert [event["args"] for event in events] == [
        {"device": "cuda:0", "device_duration_s": 0.25},
        {"step": 1, "device": "cuda:1", "missing": {"device_duration_s": "timeout"}},
    ]
    assert [event["dur"] for event in events] == [500_000, 500_000]


def test_writers_are_processes(tmp_path: Path) -> None:
    write_run_json(tmp_path, name="exp0")
    OracleWriter(tmp_path).timing("a", 0.001, thread=4711)
    OracleWriter(tmp_path).timing("a", 0.001, thread=5)
    OracleWriter(tmp_path, rank=1).timing("a", 0.001)
    OracleWriter(tmp_path, rank=1, children=("w88", "w99x2")).timing("a", 0.001, thread=99)
    OracleWriter(tmp_path, rank=2).metrics(1, loss=1.0)
    trace = exported(read_run(tmp_path), tmp_path / "trace.json", 4, processes=3)
    processes = ["rank 0: main", "rank 1: r1", "rank 1: r1-w88-w99x2"]
    assert names(trace, "process_name") == {(n, 0): name for n, name in enumerate(processes, 1)}
    assert names(trace, "process_sort_index") == {(1, 0): 1, (2, 0): 2, (3, 0): 3}
    threads = {(1, 5): "thread 5", (1, 4711): "main thread", (2, 4711): "thread 4711"}
    assert names(trace, "thread_name") == {**threads, (3, 99): "main thread"}
    assert trace["otherData"]["run"] == "exp0"


@pytest.mark.parametrize("info", ["[]", '{"attempts":5,"name":5}', '{"attempts":[5,{"pid":"x"}]}'])
def test_a_run_json_that_says_nothing(tmp_path: Path, info: str) -> None:
    OracleWriter(tmp_path).timing("a", 0.001)
    (tmp_path / "run.json").write_text(info)
    trace = exported(tmp_path, tmp_path / "trace.json", 1)
    assert names(trace, "thread_name") == {(1, 4711): "thread 4711"}
    assert trace["otherData"]["run"] == tmp_path.name


def test_lines_that_no_recorder_writes(tmp_path: Path) -> None:
    """Odd numbers do no harm: a time that is none, a negative duration, an endless one."""
    writer = OracleWriter(tmp_path)
    writer.write("performance", {"name": "a", "duration_s": -1, "depth": -5, "thread": "x"})
    writer.write("performance", {"name": "b", "duration_s": 1e308, "depth": 10**9})
    writer.dropped("performance", 5)
    writer.torn("performance", b'{"timestamp":"soon","seq":3,"name":"c","duration_s":1}\n')
    found = blocks(exported(tmp_path, tmp_path / "trace.json", 3))
    durations = [(e["name"], e["tid"], e["dur"]) for e in found]
    assert durations == [("a", 0, 0), ("b", 0, 10**18), ("c", 0, 10**9)]


def test_small_runs(tmp_path: Path) -> None:
    """One without timings, one of two starts, and the same bytes at each export."""
    writer = OracleWriter(tmp_path).fill([1])
    assert exported(tmp_path, tmp_path / "0.json", 0, processes=0)["traceEvents"] == []
    writer.timing("a", 0.001, step=1)
    OracleWriter(tmp_path, attempt=1).rewind(1).timing("a", 0.001, step=1)
    exported(tmp_path, tmp_path / "last.json", 1)
    every = export_chrome_trace(tmp_path, tmp_path / "every.json", starts="all")
    assert (every.events, every.processes) == (2, 2)
    for name in ("b.json.gz", "c.json.gz"):
        export_chrome_trace(tmp_path, tmp_path / name)
    packed = (tmp_path / "b.json.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "last.json").read_bytes()
    assert packed == (tmp_path / "c.json.gz").read_bytes()


def test_where_it_may_not_be_written(tmp_path: Path) -> None:
    OracleWriter(tmp_path).timing("a", 0.001)
    (tmp_path / "there.json").touch()
    with pytest.raises(ExportError, match="exists"):
        export_chrome_trace(tmp_path, tmp_path / "there.json")
    with pytest.raises(ExportError, match="would look like a file of the run"):
        export_chrome_trace(tmp_path, tmp_path / "metrics.x.jsonl")
    with pytest.raises(RunNotFoundError):
        export_chrome_trace(tmp_path / "no", tmp_path / "trace.json")
    with pytest.raises(ValueError, match="starts must be"):
        export_chrome_trace(tmp_path, tmp_path / "trace.json", starts="first")  # type: ignore[arg-type]
    assert not (tmp_path / "trace.json").exists()


def test_recorded_blocks_nest(tmp_path: Path) -> None:
    """Of a real recorder, thousands of very short ones, in several threads."""

    def work(_: int = 0) -> None:
        for step in range(300):
            with recorder.timer("step", step=step):
                with recorder.timer("a"):
                    for name in "bc":
                        with recorder.timer(name):
                            pass
                with recorder.timer("d"):
                    pass

    with Recorder(tmp_path / "run") as recorder:
        in_threads(work, 3)
        work()
    trace = exported(recorder.path, tmp_path / "trace.json", 4 * 300 * 5)
    found = blocks(trace)
    tids = {e["tid"] for e in found}
    assert len(tids) == 4
    assert names(trace, "thread_name")[(1, os.getpid())] == "main thread"
    assert [overlaps([e for e in found if e["tid"] == tid]) for tid in tids] == [0] * 4


tree = st.recursive(
    st.just([]), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=25
)


@given(tree, st.data())
def test_rounded_blocks_nest_again(root: list[Any], data: st.DataObject) -> None:
    """Any nesting, with ends cut to microseconds and durations exact, as lines have them."""
    time = 0
    exact: list[tuple[int, int, int]] = []

    def walk(node: list[Any], depth: int) -> None:
        nonlocal time
        begin = time
        time += data.draw(st.integers(0, 1500))
        for child in node:
            walk(child, depth + 1)
            time += data.draw(st.integers(0, 1500))
        exact.append((depth, begin, time))

    for node in root:
        walk(node, 0)
    thread = ThreadBlocks()
    placed = []
    for depth, begin, end in exact:
        cut = end // 1000 * 1000
        start, stop = thread.place(depth, cut - (end - begin), cut)
        assert abs(start - begin) <= 1000
        assert abs(stop - end) <= 1000
        placed.append({"ts": start, "dur": stop - start})
    assert overlaps(placed) == 0


@pytest.mark.parametrize(
    "blocks",
    [
        # The clock that gives the ends was adjusted by a few microseconds.
        [(1, 0, 5000, 0, 5000), (0, 0, 4000, 0, 5000)],
        # Coroutines that take turns, and a clock that was set back: left as it is.
        [
            *[(0, 0, 1_000_000, 0, 1_000_000), (0, 500_000, 1_500_000, 500_000, 1_500_000)],
            *[(1, 100_000, 200_000, 100_000, 200_000), (0, 150_000, 180_000, 150_000, 180_000)],
        ],
    ],
    ids=["ends no earlier than those inside it", "really overlaps"],
)
def test_where_a_block_is_placed(blocks: list[tuple[int, int, int, int, int]]) -> None:
    thread = ThreadBlocks()
    for depth, begin, end, start, stop in blocks:
        assert thread.place(depth, begin, end) == (start, stop)


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "trace.json"

    def trace(*arguments: str) -> tuple[int, str, str]:
        code = main(["trace", str(run), *(arguments or ("-o", str(out)))])
        return code, *capfd.readouterr()

    writer = OracleWriter(run).fill([1])
    code, _, said = trace()
    assert code == 2
    assert "has no timings" in said  # and how to record some
    writer.timing("a", 0.001)
    code, _, said = trace()
    assert code == 0
    assert "1 blocks of 1 processes written to" in said
    assert len(blocks(load(out))) == 1
    code, _, said = trace()
    assert code == 2
    assert "--force" in said
    assert trace("-o", str(out), "--force")[0] == 0
    code, shown, said = trace("--out", "-")  # which has the trace and nothing else
    assert (code, len(json.loads(shown)["traceEvents"])) == (0, 4)
    assert "to standard output" in said
    writer.torn("performance", b'{"timest')
    code, _, said = trace("-o", str(out), "--force")
    assert (code, len(blocks(load(out)))) == (1, 1)
    assert "torn" in said
