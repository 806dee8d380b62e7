"""Traces in Perfetto's own format, parsed by its messages: nested, named, with all values."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import START, OracleWriter, write_run_json

from foundry_fastlog import Recorder, export_runs
from foundry_fastlog.export.blocks import Lanes, ThreadBlocks

protos = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")

BEGAN = round(START.timestamp() * 1e6) * 1000
SECOND = 1_000_000_000


class Trace:
    """A trace as Perfetto understands it: packets in the order of their times, stable."""

    def __init__(self, path: Path) -> None:
        packets = protos.Trace.FromString(path.read_bytes()).packet
        self.tracks = {
            packet.track_descriptor.uuid: packet.track_descriptor
            for packet in packets
            if packet.HasField("track_descriptor")
        }
        self.clocks = [packet for packet in packets if packet.HasField("clock_snapshot")]
        events = [packet for packet in packets if packet.HasField("track_event")]
        assert all(packet.trusted_packet_sequence_id for packet in packets)
        self.slices: list[tuple[int, str, int, int, int, dict[str, Any]]] = []
        self.counters: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.instants: dict[str, list[tuple[int, str, dict[str, Any]]]] = defaultdict(list)
        stacks: dict[int, list[tuple[str, int, dict[str, Any]]]] = defaultdict(list)
        for packet in sorted(events, key=lambda packet: packet.timestamp):
            event, time = packet.track_event, packet.timestamp
            stack, name = stacks[event.track_uuid], self.tracks[event.track_uuid].name
            notes = {
                note.name: getattr(note, note.WhichOneof("value"))
                for note in event.debug_annotations
            }
            if event.type == event.TYPE_SLICE_BEGIN:
                stack.append((event.name, time, notes))
            elif event.type == event.TYPE_SLICE_END:
                begun, since, notes = stack.pop()
                self.slices.append((event.track_uuid, begun, len(stack), since, time, notes))
            elif event.type == event.TYPE_INSTANT:
                self.instants[name].append((time, event.name, notes))
            else:
                kind = event.WhichOneof("counter_value_field")
                self.counters[name].append((time, getattr(event, kind)))
        assert not any(stacks.values())

    def above(self, track: int) -> str:
        return str(self.tracks[self.tracks[track].parent_uuid].process.process_name)


def exported(run: Path | list[Path], to: Path, **options: Any) -> Trace:
    export_runs(run, to, **options)
    return Trace(to)


def test_blocks_are_slices_of_threads_of_processes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run_json(tmp_path / "runs" / name)
        writer = OracleWriter(tmp_path / "runs" / name)
        writer.timing("forward", 0.0005, step=3, depth=1, parent="step")
        writer.timing("step", 0.0035, step=3, error="ValueError")
        OracleWriter(writer.run, rank=1).timing("step", 0.001, thread=1 << 40)
    trace = exported([tmp_path / "runs" / name for name in ("one", "two")], tmp_path / "x.pftrace")
    forward, step = (found for found in trace.slices if trace.above(found[0]) == "one rank 0: main")
    assert forward[1:] == ("forward", 1, BEGAN - 500_000, BEGAN, {"step": 3})
    end = BEGAN + 1_000_000
    assert step[1:] == ("step", 0, end - 3_500_000, end, {"step": 3, "error": "ValueError"})
    thread = trace.tracks[step[0]].thread
    assert (thread.tid, thread.thread_name) == (4711, "main thread")
    assert sorted({trace.above(found[0]) for found in trace.slices}) == [
        *["one rank 0: main", "one rank 1: r1", "two rank 0: main", "two rank 1: r1"]
    ]
    assert len({track.process.pid for track in trace.tracks.values() if not track.parent_uuid}) == 4
    assert f"thread {1 << 40}" in {track.name for track in trace.tracks.values()}
    (clocks,) = trace.clocks
    assert len({clock.timestamp for clock in clocks.clock_snapshot.clocks}) == 1


def test_metrics_and_figures_are_counters_and_texts_are_instants(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path / "run")
    writer.metrics(1, loss=0.5, n=1 << 60, ok=True, note="x", none=None)
    writer.metrics(2, loss=float("nan"))
    writer.summary(0, loss=0.25)
    writer.system(cpu=2.5)
    writer.log("hello", step=2, context={"a": [1], "b": True})
    writer.error("", ValueError("bad"))
    result = export_runs(writer.run, tmp_path / "x.perfetto-trace")
    trace = Trace(tmp_path / "x.perfetto-trace")
    assert trace.counters == {
        "loss": [(BEGAN, 0.5)],
        "n": [(BEGAN, 1 << 60)],
        "ok": [(BEGAN, 1)],
        "loss (epoch)": [(BEGAN + 2_000_000, 0.25)],
        "cpu (system)": [(BEGAN + 3_000_000, 2.5)],
    }
    counters = [track for track in trace.tracks.values() if track.HasField("counter")]
    assert [track.name for track in counters] == list(trace.counters)
    assert [name for _, name, _ in trace.instants["loss"]] == ["nan"]
    assert [name for _, name, _ in trace.instants["note"]] == ["x"]
    (_, said, facts), *_ = trace.instants["log"]
    assert (said, facts["level"], facts["step"], facts["logger"]) == ("hello", "INFO", 2, "train")
    assert facts["context"] == '{"a":[1],"b":true}'
    assert [name for _, name, _ in trace.instants["errors"]] == ["ValueError"]
    assert result.rows == {"metrics": 3, "errors": 1, "log": 1, "system": 1}
    assert result.notes == (
        "values that are null or never arrived, left out: 1",
        "values that are NaN or infinite, instants there as texts are: 1",
    )


def test_device_times_follow_each_other_on_their_own_tracks(tmp_path: Path) -> None:
    """A device does one block after another, later than the thread that launched them."""
    writer = OracleWriter(tmp_path / "run", tick_s=0.001)
    for depth, name in ((1, "a"), (1, "b"), (0, "step")):
        parent = {"parent": "step"} if depth else {}
        seconds = 0.003 - depth * 0.0005
        duration = 0.0009 if depth else 0.0035
        device = {"device": "cuda:0", "device_duration_s": seconds * (2 - depth)}
        writer.timing(name, duration, step=1, depth=depth, **parent, **device)  # type: ignore[arg-type]
    writer.timing("lost", 0.001, device="cuda:0", device_duration_s="lost")
    result = export_runs(writer.run, tmp_path / "x.pftrace")
    trace = Trace(tmp_path / "x.pftrace")
    on_device = [one for one in trace.slices if trace.tracks[one[0]].name == "cuda:0"]
    a, b, step = on_device
    assert [(one[1], one[2]) for one in on_device] == [("a", 1), ("b", 1), ("step", 0)]
    assert (a[3], a[4] - a[3]) == (BEGAN - 900_000, 2_500_000)
    assert b[3] == a[4]
    assert step[3] < a[3]
    assert (step[4] - step[3], step[5]) == (6_000_000, {"step": 1})
    host = {one[1]: one[5] for one in trace.slices if one not in on_device}
    assert (host["a"]["device_duration_s"], host["lost"]) == (
        0.0025,
        {"missing": '{"device_duration_s":"lost"}'},
    )
    assert "no line says when it began" in result.notes[0]


def test_recorded_blocks_nest_and_tasks_that_take_turns_have_lanes(tmp_path: Path) -> None:
    async def work(recorder: Recorder, name: str) -> None:
        for _ in range(3):
            with recorder.timer(name):
                await asyncio.sleep(0.001)
                with recorder.timer("inner"):
                    await asyncio.sleep(0)

    async def both(recorder: Recorder) -> None:
        await asyncio.gather(*(work(recorder, f"task{n}") for n in range(3)))

    with Recorder(tmp_path / "run") as recorder:
        for step in range(200):
            with recorder.timer("step", step=step):
                for name in "abc":
                    with recorder.timer(name), recorder.timer("deep"):
                        pass
        asyncio.run(both(recorder))
    trace = exported(recorder.path, tmp_path / "x.pftrace")
    assert len(trace.slices) == 200 * 7 + 18
    depths = {"step": 0, **dict.fromkeys("abc", 1), "deep": 2}
    for track, name, depth, since, until, _ in trace.slices:
        if name in depths:
            assert depth == depths[name]
            assert trace.tracks[track].thread.thread_name
        assert until >= since
    tasks = {track for track, name, *_ in trace.slices if name.startswith("task")}
    assert len(tasks) >= 3
    assert {trace.tracks[track].name for track in tasks} >= {"main thread (2)", "main thread (3)"}


tree = st.recursive(
    st.just([]), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=25
)


@given(tree, st.data())
def test_rounded_blocks_begin_apart(root: list[Any], data: st.DataObject) -> None:
    """Any nesting, cut as lines are: one lane, and nothing begins with what encloses it."""
    time = 1_000_000
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
    blocks, lanes = ThreadBlocks(apart=1), Lanes()
    events: list[tuple[int, int, int]] = []
    for number, (depth, begin, end) in enumerate(exact):
        cut = end // 1000 * 1000
        since, until = blocks.place(depth, cut - (end - begin), cut)
        assert abs(since - begin) <= 1100
        assert lanes.choose(depth, since, until) == 0
        events += [(since, number, 1), (until, number, 0)]
    stack: list[int] = []
    for _, number, begins in sorted(events, key=lambda event: event[0]):
        if begins:
            assert exact[number][0] == len(stack)
            stack.append(number)
        else:
            assert stack.pop() == number


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 40)), max_size=40))
def test_lanes_nest_whatever_comes(blocks: list[tuple[int, int, int]]) -> None:
    lanes = Lanes()
    placed: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for depth, one, other in blocks:
        begin, end = sorted((one, other))
        lane = placed[lanes.choose(depth, begin, end)]
        for since, until in lane:
            assert until <= begin or (begin < since and until <= end)
        lane.append((begin, end))
