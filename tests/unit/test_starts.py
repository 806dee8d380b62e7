"""Starts of a run, peers, resumes and rewinds: who records where, and which values count."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import math
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from contract import schema
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from oracle import OracleWriter
from recorded import eventually

from foundry_fastlog import Recorder, _core, read_run, recover
from foundry_fastlog.analysis.summarize import summarize
from foundry_fastlog.base.arguments import INT64_MAX, INT64_MIN
from foundry_fastlog.export.jsonl import export_run
from foundry_fastlog.reading import curves
from foundry_fastlog.reading import run as reading
from foundry_fastlog.reading.counting import number_starts
from foundry_fastlog.recording import recovery
from foundry_fastlog.run import starts
from foundry_fastlog.run.files import Writer
from foundry_fastlog.run.launch import Launch, Place, find_launch, find_place, is_restart
from foundry_fastlog.run.start_entries import LiveWriter, put_entry, read_hosts

OPTIONS: dict[str, Any] = {"ring_bytes": 64 << 10, "ring": "file", "fsync": "none"}
NAMES = ("loss", "acc")
Patch = pytest.MonkeyPatch


# ---- any history, against an oracle -------------------------------------------------------------


@dataclass
class Process:
    """A writer: its start and rank, and its deeds in order."""

    start: int
    rank: int
    # Name (or rewind), step, value.
    lines: list[tuple[str, int, float]] = field(default_factory=list)


class Oracle:
    """What a run is, said once more and by brute force."""

    def __init__(self) -> None:
        self.starts: list[str] = []  # the launch of each
        self.beside: list[list[Process]] = []  # who lived when it began
        self.processes: list[Process] = []
        self.live: list[Process] = []

    def open(self, rank: int, launch: str) -> Process:
        newest = len(self.starts) - 1
        alive = {p.rank for p in self.live if p.start == newest}
        recorded = {p.rank for p in self.processes if p.start == newest}
        peer = rank in alive
        fits = rank not in recorded and (alive or self.starts[newest:] == [launch])
        if newest < 0 or not (peer or fits):
            self.starts.append(launch)
            self.beside.append(list(self.live))
        process = Process(len(self.starts) - 1, rank)
        self.processes.append(process)
        self.live.append(process)
        return process

    def counting(self) -> list[tuple[str, int, float]]:
        first: dict[tuple[int, int, str], int] = {}

        def took_over(start: int, rank: int, p: Process) -> bool:
            """From who went on beside it only the successor did."""
            goes_on = any(p is one for one in self.beside[start])
            return start > p.start and (rank == p.rank or not goes_on)

        for p in self.processes:
            for name, step, _ in p.lines:
                key = p.start, p.rank, name
                first[key] = min(step, first.get(key, step))
        return sorted(
            (name, step, value)
            for p in self.processes
            for at, (name, step, value) in enumerate(p.lines)
            if name != "rewind"
            and not any(
                n == name and f <= step and took_over(start, rank, p)
                for (start, rank, n), f in first.items()
            )
            and not any(n == "rewind" and to <= step for n, to, _ in p.lines[at:])
        )


deeds = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(0, 2), st.sampled_from([None, "a", "b"])),
        st.tuples(st.just("record"), st.integers(0, 9), st.integers(0, 6), st.sampled_from(NAMES)),
        st.tuples(st.just("rewind"), st.integers(0, 9), st.integers(0, 6)),
        st.tuples(st.just("close"), st.integers(0, 9)),
    ),
    max_size=25,
)


class Run:
    """The same deeds with real recorders."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.oracle = Oracle()
        self.open: list[tuple[Recorder, Process]] = []
        self.value = 0.0

    def do(self, deed: tuple[Any, ...]) -> None:
        kind, *rest = deed
        if kind == "open":
            rank, launch = rest
            if any(p.rank == rank for _, p in self.open):  # one recorder of a rank in a process
                return
            recorder = Recorder(self.path, rank=rank, launch=launch, **OPTIONS)
            process = self.oracle.open(rank, launch or "the parent's")
            assert recorder.attempt == process.start
            self.open.append((recorder, process))
        elif self.open:
            recorder, process = self.open[rest[0] % len(self.open)]
            if kind == "close":
                self.open.remove((recorder, process))
                self.oracle.live.remove(process)
                recorder.close()
            elif kind == "rewind":
                recorder.rewind(rest[1])
                process.lines.append(("rewind", rest[1], 0.0))
            else:
                self.value += 1
                recorder.record(rest[1], **{rest[2]: self.value})
                process.lines.append((rest[2], rest[1], self.value))


# A rank that is started again alone; its old namesake; one that began while the other lived.
BESIDE: list[tuple[Any, ...]] = [("open", rank, None) for rank in (0, 1)]
BESIDE += [("record", 1, 3, "loss"), ("close", 1), ("open", 1, None), ("record", 1, 2, "loss")]
BESIDE += [("record", 0, step, "loss") for step in (1, 4)]


@settings(max_examples=60)
@given(deeds)
@example(BESIDE)
@example([*BESIDE, ("close", 0), ("open", 0, None), ("record", 1, 3, "loss")])
def test_any_history_reads_as_the_oracle_says(history: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run = Run(Path(directory, "run"))
        for deed in history:
            run.do(deed)
        for recorder, _ in run.open:
            recorder.close()
        if not run.oracle.processes:
            return
        found = read_run(run.path)
        read = sorted(
            (name, line["step"], value)
            for line in found.lines("metrics")
            for name, value in line["metrics"].items()
        )
        assert read == run.oracle.counting()
        everything = sum(len(line["metrics"]) for line in found.lines("metrics", starts="all"))
        assert everything == run.value
        found.check()
        left = found.left_out.get("metrics", {})
        list(found.lines("metrics"))
        assert sum(found.left_out.get("metrics", left).values()) == everything - len(read)
        assert not found.problems


def test_of_a_line_a_part_may_count(tmp_path: Path) -> None:
    """What no longer counts goes from its values, and from the marks of them."""
    first = OracleWriter(tmp_path)
    values = {"loss": None, "acc": math.nan, "lr": 0.1, "norm": None}
    first.metrics_dict(3, values, missing={"loss": "lost", "norm": "timeout"})
    first.metrics_dict(4, {"loss": None, "lr": math.inf}, missing={"loss": "lost"})
    first.summary(1, loss=1.0, acc=math.nan, lr=2.0)
    OracleWriter(tmp_path, attempt=1).metrics(3, loss=2.0, acc=1.0)
    OracleWriter(tmp_path, attempt=2).summary(1, acc=0.5)
    run = read_run(tmp_path)
    export_run(run, tmp_path / "out", streams=["metrics"], tag="never")
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [{k: line[k] for k in list(line)[2:]} for line in lines if line["seq"] < 3][:6] == [
        {"step": 3, "metrics": {"lr": 0.1, "norm": None}, "missing": {"norm": "timeout"}},
        {"step": 3, "metrics": {"loss": 2.0, "acc": 1.0}},
        {"epoch": 1, "summary": {"acc": 0.5}},
        {"step": 4, "metrics": {"lr": None}, "nonfinite": {"lr": "inf"}},
        {"epoch": 1, "summary": {"loss": 1.0, "lr": 2.0}},
    ]
    assert run.left_out["metrics"] == {"loss": 2, "acc": 2}
    assert list(run.lines("metrics", starts=1)) == [{**lines[1]}]
    with pytest.raises(ValueError, match="'all' or one of 0, 1, 2, got 3"):
        list(run.lines("metrics", starts=3))


# ---- a process's place and launch ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place(None, None)),
        ({"RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "2", "SLURM_NTASKS": "3"}, Place(1, 4)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "3"}, Place(2, 3)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, Place(None, None)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "3"}, Place(None, None)),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8"}, Place(3, 8)),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, Place(0, 2)),
        ({"PMI_RANK": "x", "PMI_SIZE": "2"}, Place(None, None)),
    ],
)
def test_launchers_say_rank_and_size(
    monkeypatch: Patch, environment: dict[str, str], place: Place
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_place() == place
    assert find_place(0).rank == 0
    # The world of another rank than the launcher's is not the launcher's.
    assert find_place(9).world_size in (None, 4) if "RANK" not in environment else True


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_frameworks_say_rank_and_size_once_initialised(monkeypatch: Patch, framework: str) -> None:
    up = False

    class Distributed:
        is_available = staticmethod(lambda: True)
        is_initialized = staticmethod(lambda: up)
        get_rank = staticmethod(lambda: 2)
        get_world_size = staticmethod(lambda: 4)

    class Module:
        distributed = Distributed
        process_index = Distributed.get_rank
        process_count = Distributed.get_world_size

    monkeypatch.setitem(__import__("sys").modules, framework, Module)
    assert find_place() == Place(None, None)
    up = True
    assert find_place() == Place(2, 4)
    Distributed.is_initialized = staticmethod(lambda: 1 / 0)  # half imported
    assert find_place() == Place(None, None)


MASTER = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
ELASTIC = {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "2", **MASTER}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "1", "SLURM_RESTART_COUNT": "3"}
LOCAL = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        (ELASTIC, Launch("torchelastic", "x.2 node1:29500")),
        (SLURM, Launch("slurm", "7.1.3")),
        ({"PMIX_NAMESPACE": "prterun-1@1"}, Launch("mpi", "prterun-1@1")),
        (MASTER, Launch("env", "node1:29500 4")),
        (LOCAL, Launch("env", f"{socket.gethostname()}:1 4")),
    ],
)
def test_what_names_a_launch(
    monkeypatch: Patch, environment: dict[str, str], launch: Launch
) -> None:
    assert find_launch(None, Place(None, None)) is None
    parent = find_launch(None, Place(0, 4))
    assert parent is not None
    assert parent.by == "parent"
    assert str(os.getppid()) in parent.id
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_launch(None, Place(0, 4)) == launch
    assert find_launch("mine", Place(0, 4)) == Launch("argument", "mine")


@pytest.mark.parametrize(
    ("now", "earlier", "restarts"),
    [
        (("torchelastic", "a b.1 node:1"), ("torchelastic", "a b.0 node:2"), True),
        (("torchelastic", "x.1 "), ("torchelastic", "x.0 "), True),
        (("torchelastic", "x.1 node:1"), ("torchelastic", "x.1 node:2"), False),
        (("torchelastic", "x.0 node:1"), ("torchelastic", "x.1 node:1"), False),
        (("slurm", "7.batch.10"), ("slurm", "7.batch.9"), True),
        (("slurm", "8.batch.1"), ("slurm", "7.batch.0"), False),
        (("slurm", "7.0.1"), ("torchelastic", "7.0.0"), False),
        (("argument", "x.1"), ("argument", "x.0"), False),
        (("slurm", "7.0.1"), None, False),
        (("slurm", "7.0.1"), ("slurm", None), False),
    ],
)
def test_launchers_say_that_they_start_a_job_again(
    now: tuple[str, str], earlier: tuple[str, object] | None, restarts: bool
) -> None:
    entry = None if earlier is None else dict(zip(("by", "id"), earlier, strict=True))
    assert is_restart(Launch(*now)._asdict(), entry) is restarts


# ---- entries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(("count", "start"), [(0, 0), (1, 1)])
def test_a_rank_of_a_job_that_is_started_again_joins_nobody_who_is_slow_to_end(
    tmp_path: Path, rank: int, count: int, start: int
) -> None:
    """Be it his namesake, or others; but agents of one job, which count apart, begin together."""
    first = Launch("torchelastic", "job.0 node:1")
    assert starts.begin(tmp_path, Place(0, 3), first, list, {}).number == 0
    for label in ("", ".r1"):
        (tmp_path / f"metrics{label}.jsonl").touch()
    launch = Launch("torchelastic", f"job.{count} node:1")

    def begin() -> starts.Start:
        return starts.begin(tmp_path, Place(rank, 3), launch, lambda: [("r1", "vm", 7)], {})

    assert begin().number == 0
    os.utime(tmp_path / "starts/000000.json", (time.time() - 86400,) * 2)
    found = begin()
    assert (found.number, found.began) == (start, bool(start))
    assert len(found.peers) == (not count and rank == 1)


@pytest.mark.parametrize(("by", "start"), [("argument", 0), ("env", 1)])
def test_a_launch_that_the_caller_names_may_begin_at_any_time(
    tmp_path: Path, by: str, start: int
) -> None:
    """A launcher may use a name again; on another host nobody sees the others alive."""
    launch = Launch(by, "job")
    starts.begin(tmp_path, Place(0, 2), launch, list, {})
    (tmp_path / "metrics.jsonl").touch()
    os.utime(tmp_path / "starts/000000.json", (time.time() - 86400,) * 2)
    assert starts.begin(tmp_path, Place(1, 2), launch, list, {}).number == start


@pytest.mark.parametrize(
    ("alive", "start", "peers"),
    [
        ([("p1", "vm", 7)], 1, 0),
        ([("", "vm", 5), ("p1", "vm", 7)], 0, 2),
        ([("p1", "vm", os.getpid())], 0, 1),  # the first one, whose files somebody had replaced
    ],
)
def test_who_comes_when_only_a_peer_is_left_goes_on_for_the_first(
    tmp_path: Path, alive: list[LiveWriter], start: int, peers: int
) -> None:
    starts.begin(tmp_path, Place(None, None), None, list, {})
    for label in ("", ".p1"):
        (tmp_path / f"metrics{label}.jsonl").touch()
    found = starts.begin(tmp_path, Place(None, None), None, lambda: alive, {})
    assert (found.number, len(found.peers)) == (start, peers)
    if start:
        assert json.loads((tmp_path / "starts/000001.json").read_text())["alive"] == ["p1"]


def test_an_evaluation_goes_on_beside_a_trainer_that_is_started_again(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    """In all readers, in a kept run and by a cache, too; a second one is no successor of it."""
    monkeypatch.setattr(curves, "is_worth_it", lambda *_: True)
    trainer, evaluation = OracleWriter(tmp_path), OracleWriter(tmp_path, peer=1)
    for step in range(4):
        trainer.metrics(step, loss=step / 2, acc=0.5)
        evaluation.metrics(step, acc=0.25)
    put_entry(tmp_path, starts.Start(0, "s"), Place(None, None), None, [], {})
    put_entry(tmp_path, starts.Start(1, "s"), Place(None, None), None, [("p1", "vm", 7)], {})
    kept = read_run(tmp_path)
    assert len(kept.metric("acc").values) == 8
    assert sum(kept.curve("acc").count) == 8

    def check(expected: list[tuple[int, float]]) -> None:
        found = read_run(tmp_path)
        lines = [(line["step"], line["metrics"].get("acc")) for line in found.lines("metrics")]
        raw = [json.loads(line) for _, line in found.raw_lines(["metrics"])]
        assert sorted(line for line in lines if line[1] is not None) == expected
        columns = found.metric("acc")
        assert sorted(zip(columns.steps, columns.values, strict=True)) == expected
        parsed = [
            (line["step"], line["metrics"]["acc"]) for line in raw if "acc" in line["metrics"]
        ]
        assert sorted(parsed) == expected
        assert next(m for m in summarize(found).metrics if m.name == "acc").count == len(expected)
        for curve in (found.curve("acc"), kept.curve("acc")):
            assert sum(curve.count) == len(expected)

    again = OracleWriter(tmp_path, attempt=1)
    again.metrics(1, loss=9.0, acc=0.75)
    evaluation.metrics(4, acc=0.25)
    check([(0, 0.25), (0, 0.5), (1, 0.25), (1, 0.75), (2, 0.25), (3, 0.25), (4, 0.25)])
    OracleWriter(tmp_path, attempt=1, peer=1).metrics(3, acc=1.0)
    check([(0, 0.25), (0, 0.5), (1, 0.25), (1, 0.75), (2, 0.25), (3, 0.25), (3, 1.0), (4, 0.25)])


ELASTIC_JOBS = [Launch("torchelastic", f"job.{n} node:1") for n in range(2)]


@pytest.mark.parametrize(
    ("alive", "launches", "later", "shown"),
    [
        # Rank 1 is started again alone; rank 0, which went on, joins it at its checkpoint.
        (["", "r1-w7"], (None, None), {1: (2, 6), 0: (4, 6)}, {0: range(6), 1: range(6)}),
        # What a child goes on with counts, though its parent was killed.
        (["r1-w7"], (None, None), {0: (2, 3)}, {0: range(3), 1: (0, 1, 7, 8)}),
        # Its job is started again with fewer ranks while it is slow to end.
        (["r1"], ELASTIC_JOBS, {0: (2, 3)}, {0: range(3), 1: (0, 1)}),
        (["r1"], ELASTIC_JOBS[::-1], {0: (2, 3)}, {0: range(3), 1: (*range(6), 7, 8)}),
    ],
)
def test_only_a_successor_takes_over_from_who_lived_when_it_began(
    tmp_path: Path,
    alive: list[str],
    launches: tuple[Launch | None, ...],
    later: dict[int, tuple[int, int]],
    shown: dict[int, Iterable[int]],
) -> None:
    """From its own first step, and not from those of its start's other ranks."""
    for number, (labels, launch) in enumerate(zip(([], alive), launches, strict=True)):
        live = [(label, "vm", 7) for label in labels]
        put_entry(tmp_path, starts.Start(number, "s"), Place(0, 2), launch, live, {})
    for rank in (0, 1):
        OracleWriter(tmp_path, rank=rank).fill(range(6))
        if rank in later:
            OracleWriter(tmp_path, rank=rank, attempt=1).fill(range(*later[rank]))
    OracleWriter(tmp_path, rank=1, children=("w7",)).fill((7, 8))
    found = read_run(tmp_path)
    check_steps(found, shown)
    assert pickle.loads(pickle.dumps(found)).left_out == found.left_out


def test_a_peer_of_the_successor_takes_over_from_nobody_who_goes_on(tmp_path: Path) -> None:
    """An evaluation that is started beside the rank that was started again."""
    for number, labels in enumerate(([], ["", "r1"])):
        live = [(label, "vm", 7) for label in labels]
        put_entry(tmp_path, starts.Start(number, "s"), Place(0, 2), None, live, {})
    for rank in (0, 1):
        OracleWriter(tmp_path, rank=rank).fill(range(6))
    OracleWriter(tmp_path, attempt=1).fill((4, 5, 6))
    OracleWriter(tmp_path, attempt=1, peer=1).fill((1, 2))
    check_steps(read_run(tmp_path), {0: [0, 1, 1, 2, 2, 3, 4, 5, 6], 1: range(6)})


def check_steps(found: reading.Run, shown: dict[int, Iterable[int]]) -> None:
    """The steps of each rank, by lines, by columns and as a curve."""
    lines = {rank: found.lines("metrics", rank=rank) for rank in shown}
    by_lines = {rank: sorted(line["step"] for line in of) for rank, of in lines.items()}
    assert by_lines == {rank: list(steps) for rank, steps in shown.items()}
    for rank, steps in by_lines.items():
        assert sorted(found.metric("loss", ranks=rank).steps) == steps
        assert sum(found.curve("loss", ranks=rank).count) == len(steps)


def read_starts(run: Path) -> dict[str, Any]:
    files = {path.name: json.loads(path.read_bytes()) for path in (run / "starts").iterdir()}
    for name, content in files.items():
        kind = next((one for one in ("end", "host") if f".{one}." in name), "start")
        Draft202012Validator(schema(kind)).validate(content)
    return files


def test_the_first_rank_of_another_host_says_where_it_is(
    tmp_path: Path, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each host; the latest process of a rank counts."""
    run = tmp_path / "run"

    def on(host: str, rank: int, local: str | None) -> None:
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", host, "6", "1", "x")))
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        if local is not None:
            monkeypatch.setenv("LOCAL_RANK", local)
        with Recorder(run, rank=rank, world_size=8, launch="one", **OPTIONS):
            pass
        (run / f"metrics.r{rank}.jsonl").unlink(missing_ok=True)

    on("node1", 0, "0")
    on("node1", 1, "1")
    on("node2", 2, "0")
    on("node2", 3, "1")
    on("node3", 4, None)
    on("node9", 6, "0")
    on("node4", 6, "0")
    found = read_starts(run)
    hosts = {name: said["host"] for name, said in found.items() if ".host." in name}
    assert hosts == {
        "000000.r2.host.json": "node2",
        "000000.r4.host.json": "node3",
        "000000.r6.host.json": "node4",
    }
    assert len(read_run(run).report_starts()) == 1
    (run / "starts" / "000000.r4.host.json").write_text("[")
    assert read_hosts(run, 0) == {2: "node2", 6: "node4"}
    assert caplog.messages == []
    monkeypatch.setattr(starts, "note_host", Mock(side_effect=OSError(errno.ENOSPC, "No space")))
    on("node2", 2, "0")
    assert "on which host rank 2 is" in caplog.text


def test_each_start_has_its_entry_and_its_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Recorder(run, config={"lr": 1}, **OPTIONS):
        before = (run / "starts/000000.json").read_bytes()
    with pytest.raises(ZeroDivisionError), Recorder(run, config={"lr": 2}, **OPTIONS):
        raise ZeroDivisionError("no more")
    with pytest.raises(KeyboardInterrupt), Recorder(run, **OPTIONS):
        raise KeyboardInterrupt
    found = read_starts(run)
    assert (run / "starts/000000.json").read_bytes() == before
    assert [found[f"{n:06d}.json"]["config"] for n in range(3)] == [{"lr": 1}, {"lr": 2}, {}]
    hows = ["closed", "exception", "signal"]
    assert [report.state for report in read_run(run).report_starts()] == hows
    ends = [found[f"{n:06d}.end.json"] for n in range(3)]
    assert [end["how"] for end in ends] == hows
    assert ends[1]["error_type"] == "ZeroDivisionError"
    assert ends[1]["error_message"] == "no more"
    assert ends[2]["signal"] == "SIGINT"


def test_a_rank_that_fails_says_so_beside_the_one_that_began(tmp_path: Path) -> None:
    with Recorder(tmp_path, rank=1, **OPTIONS), pytest.raises(ValueError, match="rank 0"):  # noqa: SIM117
        with Recorder(tmp_path, rank=0, **OPTIONS):
            raise ValueError("rank 0")
    found = read_starts(tmp_path)
    assert sorted(found) == ["000000.end.json", "000000.json", "000000.p0.end.json"]
    assert found["000000.p0.end.json"]["how"] == "exception"


def test_a_recorder_that_cannot_open_leaves_no_start(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Recorder, "_open_core", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Recorder(tmp_path / "run", **OPTIONS)
    assert list((tmp_path / "run").iterdir()) == []


def test_what_happened_to_be_killed_has_no_end_and_the_next_start_follows(tmp_path: Path) -> None:
    if (pid := os.fork()) == 0:
        recorder = Recorder(tmp_path, **OPTIONS)
        recorder.record(0, loss=1.0)
        os._exit(9)
    os.waitpid(pid, 0)
    assert read_run(tmp_path).report_starts()[0].state == "killed"
    with Recorder(tmp_path, **OPTIONS) as recorder:
        assert recorder.attempt == 1
        states = [report.state for report in read_run(tmp_path).report_starts()]
        assert states == ["killed", "running"]
    assert sorted(read_starts(tmp_path)) == ["000000.json", "000001.end.json", "000001.json"]
    assert [line["step"] for line in read_run(tmp_path).lines("metrics")] == [0]


@pytest.mark.parametrize("ended", ["closed", "exception"])
def test_a_rank_that_was_killed_is_not_hidden_by_one_that_closed(
    tmp_path: Path, ended: str
) -> None:
    """Recovery notes it, since its ring is gone then; a failure is worse."""
    ready, told = os.pipe()
    first = Recorder(tmp_path, rank=0, launch="one", **OPTIONS)
    if (pid := os.fork()) == 0:
        second = Recorder(tmp_path, rank=1, launch="one", **OPTIONS)
        second.record(0, loss=1.0)
        os.write(told, b"x")
        signal.pause()
    os.read(ready, 1)
    if ended == "exception":
        first.ended_by(ValueError("no"))
    first.close()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    expected = "killed" if ended == "closed" else ended
    for _ in range(2):
        (report,) = read_run(tmp_path).report_starts()
        assert (report.state, report.ranks, bool(report.ended)) == (expected, (0, 1), True)
        recover(tmp_path)
    found = read_starts(tmp_path)
    assert sorted(found) == ["000000.end.json", "000000.json", "000000.r1.end.json"]
    end = found["000000.r1.end.json"]
    assert (end["how"], end["ended"]) == ("killed", None)


def test_of_a_rank_whose_ring_cannot_be_seen_nobody_says_that_it_closed(tmp_path: Path) -> None:
    with Recorder(tmp_path, rank=0, launch="one", **OPTIONS):
        second = Recorder(tmp_path, rank=1, launch="one", **{**OPTIONS, "ring": "memory"})
        second.record(0, loss=1.0)
    assert [report.state for report in read_run(tmp_path).report_starts()] == ["unknown"]
    second.close()
    assert [report.state for report in read_run(tmp_path).report_starts()] == ["closed"]


def test_an_end_that_cannot_be_noted_is_said_and_recovery_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Patch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(recovery, "note_killed", refused)
    Recorder(tmp_path, **OPTIONS).close()
    recovery.finish_dead(str(tmp_path))
    assert "could not write how processes of" in caplog.text


def test_a_ring_that_is_being_recovered_is_nobodys(tmp_path: Path) -> None:
    """Who recovers it holds its lock, too: a rank that comes then is no peer of the dead one."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        recorder = Recorder(tmp_path, **OPTIONS)
        recorder.record(0, loss=1.0)
        os.write(told, b"x")
        signal.pause()
    os.read(ready, 1)
    (ring,) = (tmp_path / ".fastlog").glob("*.ring")
    assert [live[2] for live in _core.live_writers(os.fsencode(tmp_path))] == [pid]
    with ring.open("rb") as held:
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: _flocked(held.fileno()))
        assert _core.live_writers(os.fsencode(tmp_path)) == []  # not waited for yet
        os.waitpid(pid, 0)
        assert _core.live_writers(os.fsencode(tmp_path)) == []
        with Recorder(tmp_path, **OPTIONS) as again:
            assert again.label == "a1"


def _flocked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_nobody_can_say_how_a_start_with_its_ring_in_memory_is_doing(tmp_path: Path) -> None:
    """Until it says so itself."""
    with Recorder(tmp_path, **{**OPTIONS, "ring": "memory"}) as recorder:
        recorder.record(0, loss=1.0)
        assert [report.state for report in read_run(tmp_path).report_starts()] == ["unknown"]
    assert [report.state for report in read_run(tmp_path).report_starts()] == ["closed"]


def test_an_entry_that_no_listing_shows_yet_counts(tmp_path: Path, monkeypatch: Patch) -> None:
    """As those of a network file system may be late."""
    Recorder(tmp_path / "run", **OPTIONS).close()
    monkeypatch.setattr(starts, "list_names", lambda _: [])
    monkeypatch.setattr(starts, "list_entries", lambda _: [])
    place, launch = Place(None, None), Launch("argument", "x")
    for number in (1, 2):
        start = starts.begin(tmp_path / "run", place, None, list, {})
        assert (start.number, start.began) == (number, True)
    assert starts.begin(tmp_path / "new", Place(0, 2), launch, list, {}).began
    assert not starts.begin(tmp_path / "new", Place(1, 2), launch, list, {}).began


def test_entries_are_made_where_there_are_no_links(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(os, "link", Mock(side_effect=OSError(errno.EPERM, "no")))
    for _ in range(2):
        Recorder(tmp_path, **OPTIONS).close()
    assert len(read_starts(tmp_path)) == 4


def test_a_start_of_which_nothing_says_how_old_it_is_is_of_no_later_launch(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    """Its entry cannot be compared with the clock of the file system."""
    one, other = Launch("env", "x"), Launch("env", "y")
    assert starts.begin(tmp_path, Place(0, 2), one, list, {}).number == 0
    assert starts.begin(tmp_path, Place(1, 2), other, list, {}).number == 1
    assert starts.begin(tmp_path, Place(0, 2), other, list, {}).number == 1
    monkeypatch.setattr(starts, "_now_there", Mock(side_effect=OSError(errno.EROFS, "read-only")))
    assert starts.begin(tmp_path, Place(0, 2), other, list, {}).number == 2


def test_a_start_keeps_its_number_where_an_entry_is_lost(tmp_path: Path) -> None:
    """The disk was full when it began, or lost the entry: the number is in the label, too."""
    for start in range(4):
        with Recorder(tmp_path, **OPTIONS) as recorder:
            for step in range(5 * start, 5 * start + 10):
                recorder.record(step, loss=100.0 * start + step)

    def shown() -> list[Any]:
        run = read_run(tmp_path)
        lines = [run.metric("loss", starts=start).values.tolist() for start in range(4)]
        return [run.starts, run.metric("loss").values.tolist(), lines, run.ranks]

    before = shown()
    entries = [tmp_path / "starts" / f"{number:06}.json" for number in range(4)]
    kept = [path.read_bytes() for path in entries]
    for lost in range(1, 16):
        for number, path in enumerate(entries):
            if lost >> number & 1:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(kept[number])
        assert shown() == before
        assert len(read_run(tmp_path).report_starts()) == 4
    with Recorder(tmp_path, **OPTIONS) as recorder:
        assert recorder.label == "a4"


def test_an_entry_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(starts, "put_entry", full)
    with Recorder(tmp_path, **OPTIONS) as recorder:
        recorder.record(0, loss=1.0)
    assert "000000.json cannot be written (No space left" in caplog.text
    assert read_run(tmp_path).metric("loss").values.tolist() == [1.0]


@pytest.mark.parametrize(
    ("writers", "entries", "numbers"),
    [
        ([("a", 0), ("a", 1), ("b", 0)], [], [0, 1, 2]),  # format 1: anew for each stamp
        ([("a", 0), ("a", 1), ("b", 0), ("", 3), ("", 4)], [3], [0, 1, 2, 3, 4]),
        ([("a", 0), ("a", 1), ("b", 0), ("", 4)], [3], [0, 1, 2, 4]),
        ([("", 0), ("", 2)], [], [0, 2]),
        ([("", 1), ("", 3)], [0, 2], [1, 3]),
    ],
)
def test_numbers_of_starts(
    writers: list[tuple[str, int]], entries: list[int], numbers: list[int]
) -> None:
    asked = [Writer(stamp=stamp, attempt=attempt) for stamp, attempt in writers]
    assert list(number_starts(asked, entries).values()) == numbers


def test_others_that_open_the_run_are_waited_for(tmp_path: Path) -> None:
    """Until they can be seen, or, where one hangs, for a while."""
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    opened: list[Recorder] = []
    thread = threading.Thread(target=lambda: opened.append(Recorder(tmp_path, **OPTIONS)))
    thread.start()
    while not starts._held:
        time.sleep(0.001)
    assert not opened
    os.close(directory)
    thread.join()
    opened[0].close()


def test_a_forked_child_holds_back_nobody(tmp_path: Path) -> None:
    with starts.opening(tmp_path):
        if (pid := os.fork()) == 0:
            os._exit(len(starts._held))
        assert os.waitpid(pid, 0)[1] == 0
        (held,) = starts._held
        starts._drop_in_child()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(held)


def test_labels_of_somebody_are_of_no_start() -> None:
    assert not starts._is_main_of("x7", 0)
    assert not starts._is_main_of("w7", 0)
    assert starts._is_main_of("r1-a2-p3", 2)


@pytest.mark.parametrize("there", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_start_without_an_entry_is_one(there: Callable[[Path], object], tmp_path: Path) -> None:
    """Something is in the place of the entries: the run is recorded all the same."""
    there(tmp_path / "starts")
    for number in range(2):
        with Recorder(tmp_path, **OPTIONS) as recorder:
            recorder.record(number, loss=1.0)
            assert recorder.attempt == number
    run = read_run(tmp_path)
    assert [line["step"] for line in run.lines("metrics")] == [0, 1]
    assert [report.state for report in run.report_starts()] == ["closed", "closed"]


# ---- processes at the same time -----------------------------------------------------------------


def at_once(run: Path, ranks: list[int | None], **options: Any) -> list[str]:
    """Open a recorder in as many processes, which live until the last has opened; their labels."""
    ready, go = os.pipe(), os.pipe()
    pids = []
    for rank in ranks:
        pids.append(os.fork())
        if pids[-1] == 0:
            try:
                recorder = Recorder(run, rank=rank, **OPTIONS, **options)
                recorder.record(0, loss=1.0)
                os.write(ready[1], f"{recorder.path.name}/{recorder.label}\n".encode())
                os.close(go[1])
                os.read(go[0], 1)
                recorder.close()
            finally:
                os._exit(0)
    os.close(ready[1])  # a child that fails ends the wait
    labels = b""
    while labels.count(b"\n") < len(ranks) and (more := os.read(ready[0], 4096)):
        labels += more
    os.close(go[1])
    for pid in pids:
        os.waitpid(pid, 0)
    os.close(ready[0])
    os.close(go[0])
    return sorted(labels.decode().splitlines())


def test_processes_of_one_rank_are_peers(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert at_once(run, [None] * 6) == ["run/", *(f"run/p{n}" for n in range(1, 6))]
    assert len(list(read_run(run).lines("metrics"))) == 6
    assert at_once(run, [None] * 2) == ["run/a1", "run/a1-p1"]


def test_ranks_that_begin_at_once_are_one_start(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for start in range(3):
        labels = at_once(run, [0, 1, 2, 3])
        assert labels == sorted(f"run/{Writer(rank, attempt=start).label}" for rank in range(4))
    assert sorted(read_run(run).starts) == [0, 1, 2]


def test_ranks_find_the_new_directory_that_one_of_them_took(tmp_path: Path) -> None:
    run = tmp_path / "run"
    Recorder(run, **OPTIONS).close()
    assert at_once(run, [0, 1, 2], resume="new") == ["run-2/", "run-2/r1", "run-2/r2"]
    assert at_once(run, [None] * 3, resume="new") == ["run-3/", "run-4/", "run-5/"]


def test_a_peer_is_told_of_the_other_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        if (pid := os.fork()) == 0:
            recorder = Recorder(tmp_path, **OPTIONS)
            recorder.record(0, x=1)
            while True:
                signal.pause()
        try:
            while not list(tmp_path.glob(".fastlog/*.writer")):
                time.sleep(0.001)
            with Recorder(tmp_path, **OPTIONS) as recorder:
                assert recorder.label == "p1"
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    (message,) = [r.getMessage() for r in caplog.records if "peers" in r.getMessage()]
    assert f"process {pid} on " in message
    assert "pass rank=" in message


# ---- resume -------------------------------------------------------------------------------------


def test_resume_says_what_to_do_where_a_run_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        Recorder(run, resume="must", **OPTIONS)
    assert not run.exists()
    Recorder(run, resume="never", **OPTIONS).close()
    with pytest.raises(FileExistsError, match="has a run already"):
        Recorder(run, resume="never", **OPTIONS)
    with Recorder(run, resume="must", **OPTIONS) as recorder:
        assert recorder.label == "a1"
    with Recorder(run, resume="new", **OPTIONS) as recorder:
        assert recorder.path == tmp_path / "run-2"
    with pytest.raises(ValueError, match="resume must be one of"):
        Recorder(run, resume="maybe", **OPTIONS)


@pytest.mark.parametrize("resume", ["new", "never"])
def test_a_directory_that_another_process_takes_meanwhile_is_its(
    resume: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    run, choose = tmp_path / "run", starts.choose_directory

    def choose_late(*arguments: Any) -> Path:
        chosen = choose(*arguments)
        monkeypatch.setattr(starts, "choose_directory", choose)
        Recorder(run, **OPTIONS).close()
        return chosen

    monkeypatch.setattr(starts, "choose_directory", choose_late)
    if resume == "new":
        with Recorder(run, resume=resume, **OPTIONS) as recorder:
            assert recorder.path == tmp_path / "run-2"
    else:
        with pytest.raises(FileExistsError, match="has a run already"):
            Recorder(run, resume=resume, **OPTIONS)
    assert sorted(read_starts(run)) == ["000000.end.json", "000000.json"]


def test_a_rewind_is_seen_however_its_line_is_spaced(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(4))
    line = b'{"timestamp" : "2026-01-30T14:32:18.123456Z", "seq" : 4, "rewind" : 2}\n'
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(line)
    run = read_run(tmp_path)
    steps = [0, 1]
    assert [line["step"] for line in run.lines("metrics")] == steps
    assert run.metric("loss").steps.tolist() == steps


def test_log_of_a_new_rank_goes_on_behind_the_last_step_of_the_others(tmp_path: Path) -> None:
    """But not behind those of its own start, which may have begun before it."""
    with Recorder(tmp_path, rank=0, world_size=1, launch="one") as alone:
        for _ in range(5):
            alone.log({"loss": 1.0})
    with Recorder(tmp_path, rank=0, world_size=2, launch="two") as first:
        for _ in range(3):
            first.log({"loss": 2.0})
        first.flush()
        with Recorder(tmp_path, rank=1, world_size=2, launch="two") as second:
            second.log({"loss": 3.0})
    steps = {
        rank: read_run(tmp_path).metric("loss", ranks=[rank]).steps.tolist() for rank in (0, 1)
    }
    assert steps == {0: [0, 1, 2, 3, 4, 5, 6, 7], 1: [5]}


def test_log_goes_on_behind_the_last_step(tmp_path: Path) -> None:
    with Recorder(tmp_path, segment_bytes=4096, **OPTIONS) as recorder:
        for step in range(100):
            recorder.record(step, loss=1.0)
    with Recorder(tmp_path, **OPTIONS) as recorder:
        recorder.log({"loss": 2.0})
        recorder.rewind(50)
        recorder.log({"loss": 3.0})
    with Recorder(tmp_path, **OPTIONS) as recorder:
        recorder.log({"loss": 4.0})
        recorder.rewind(52)
    with Recorder(tmp_path, **OPTIONS) as recorder:
        recorder.log({"loss": 5.0})
    found = read_run(tmp_path).lines("metrics")
    steps = [(line["step"], line["metrics"]["loss"]) for line in found]
    assert steps == [*((step, 1.0) for step in range(50)), (50, 3.0), (51, 4.0), (52, 5.0)]


@pytest.mark.parametrize(
    ("last", "expected"),
    [(INT64_MIN, [INT64_MIN + 1, INT64_MIN + 2]), (INT64_MAX, [INT64_MAX, INT64_MAX])],
)
def test_log_goes_on_behind_the_first_and_the_last_step_of_all(
    tmp_path: Path, last: int, expected: list[int]
) -> None:
    """And behind no step of more than 64 bits, which only somebody else can have written."""
    with Recorder(tmp_path, **OPTIONS) as recorder:
        recorder.rewind(last)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step":9223372036854775808}\n{"rewind":-9223372036854775809}\n')
    with Recorder(tmp_path, **OPTIONS) as recorder:
        recorder.log({"loss": 1.0})
        recorder.log({"loss": 2.0})
    steps = [line["step"] for line in read_run(tmp_path).lines("metrics")]
    assert steps == expected


@pytest.mark.parametrize(
    "content", [b"", b"\n", b'[]\n{\n{"step":1.5}\n{"rewind":"x"}\n{"step":7}', None]
)
def test_log_counts_from_0_where_no_step_can_be_found(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And waits for no pipe that somebody put there; what cannot be read is told."""
    path = tmp_path / "metrics.jsonl"
    _ = os.mkfifo(path) if content is None else path.write_bytes(content)
    with Recorder(tmp_path, **OPTIONS) as recorder:
        recorder.log({"loss": 2.0})
        assert recorder.flush()
        (line,) = (json.loads(text) for text in recorder.files()[0].read_text().splitlines())
    assert line["step"] == 0
    told = [text for text in caplog.messages if "cannot be read" in text]
    assert len(told) == (content is None)


def test_log_goes_on_from_what_can_be_read_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    OracleWriter(tmp_path, segment_lines=10).fill(range(40))
    for segment in (2, 3):
        path = tmp_path / f"metrics.00000{segment}.jsonl"
        path.rename(f"{path}.zst")  # as if its library was not there
    assert starts.last_step(tmp_path, None, 1) == 19
    (told,) = caplog.messages
    assert "metrics.000003.jsonl.zst cannot be read" in told
    assert "goes on from 20. Pass step=" in told


def test_what_a_killed_process_left_of_an_entry_is_removed(tmp_path: Path) -> None:
    """Once nobody can be at work on it."""
    place = tmp_path / "starts"
    place.mkdir()
    old, young = place / ".0123456789abcdef.tmp", place / ".fedcba9876543210.tmp"
    for path, age in ((old, 601), (young, 599)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    with Recorder(tmp_path, **OPTIONS):
        pass
    assert not old.exists()
    assert young.exists()
