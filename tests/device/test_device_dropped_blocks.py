"""Blocks timed on a device that never end: each gives its ticket back."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from device.alone import alone
from device.driving import TICKETS, in_thread, one_line, timed_stream, waiting
from device.fakes import FakeDriver as Cuda
from recorded import eventually, lines

from foundry_fastlog import Recorder
from foundry_fastlog._core import Timer

MORE_THAN_ALL = TICKETS + 900


def is_timed(recorder: Recorder, run: Path, name: str = "after") -> bool:
    """Tell whether a further block has a time on its device."""
    with recorder.timer(name, device=True):
        pass
    assert recorder.flush(20)
    (line,) = [line for line in lines(run, "performance") if line["name"] == name]
    return "missing" not in line


@pytest.mark.parametrize(
    ("name", "count"),
    [("drop", MORE_THAN_ALL), ("drop_elsewhere", 50), ("end_thread", 50)],
)
@alone
def test_a_dropped_block_gives_its_ticket_back(
    cuda: Cuda, run: Path, name: str, count: int
) -> None:
    """Its timer goes, in whatever thread, or its own thread ends."""
    timed_stream(cuda)
    kept: list[Timer] = []
    with Recorder(run) as recorder:
        references = sys.getrefcount(recorder)
        for _ in range(count):
            timer = recorder.timer("x", device=True)
            if name == "drop":
                timer.__enter__()
            else:
                in_thread(timer.__enter__)
            if name == "end_thread":
                kept.append(timer)
            del timer
        assert eventually(lambda: waiting(recorder) == 0)  # a thread that is joined still ends
        assert is_timed(recorder, run)
        assert one_line(run, "performance").get("parent") is None
        kept.clear()
        assert waiting(recorder) == 0
        if name != "end_thread":  # whose blocks may still be left
            assert sys.getrefcount(recorder) == references
    assert cuda.count("cuEventCreate") < 10


@alone
def test_a_closed_recorder_has_no_tickets(cuda: Cuda, run: Path) -> None:
    """Of no thread, though the blocks' timers are kept and left behind it. Others keep theirs."""
    timed_stream(cuda)
    with Recorder(run / "other") as other, other.timer("around", device=True):
        recorder = Recorder(run / "run")
        timers = [recorder.timer("x", device=True) for _ in range(MORE_THAN_ALL)]
        for timer in timers:
            timer.__enter__()
        recorder.close()
        assert waiting(recorder) == 0
        assert waiting(other) == 1
        assert is_timed(other, run / "other")
        for timer in reversed(timers):
            timer.__exit__(None, None, None)
        assert is_timed(other, run / "other", "behind")
    assert lines(run / "run", "performance") == []
    (around,) = [x for x in lines(run / "other", "performance") if x["name"] == "around"]
    assert "missing" not in around


@alone
def test_another_thread_may_leave_a_block(cuda: Cuda, run: Path) -> None:
    """The innermost of those that began with its timer; each has its device time."""
    timed_stream(cuda)
    with Recorder(run) as recorder:
        timer = recorder.timer("x", device=True)
        timer.__enter__()
        timer.__enter__()
        in_thread(lambda: timer.__exit__(None, None, None))
        assert recorder.flush(20)
        assert waiting(recorder) == 1
        timer.__exit__(None, None, None)
        assert recorder.flush(20)
        assert waiting(recorder) == 0
    found = lines(run, "performance")
    assert [line["depth"] for line in found] == [1, 0]
    assert not any("missing" in line for line in found)


@alone
def test_a_block_whose_thread_has_ended_may_be_left(cuda: Cuda, run: Path) -> None:
    """The line has the wall clock's time; the ticket went with the thread."""
    timed_stream(cuda)
    with Recorder(run) as recorder:
        timer = recorder.timer("x", device=True)
        in_thread(timer.__enter__)
        assert eventually(lambda: waiting(recorder) == 0)
        timer.__exit__(None, None, None)
    assert one_line(run, "performance")["missing"] == {"device_duration_s": "lost"}


@alone
def test_a_generator_that_is_dropped_ends_its_block(cuda: Cuda, run: Path) -> None:
    """As each `with` does; a recursion of one timer is as many blocks."""
    timed_stream(cuda)
    with Recorder(run) as recorder:
        timer = recorder.timer("x", device=True)

        def suspended() -> Generator[None, None, None]:
            with timer, timer, recorder.timer("inner", device=True):
                yield

        generator = suspended()
        next(generator)
        assert waiting(recorder) == 3
        del generator
        gc.collect()
        assert recorder.flush(20)
        assert waiting(recorder) == 0
    found = lines(run, "performance")
    assert [(line["name"], line["depth"], line.get("parent")) for line in found] == [
        ("inner", 2, "x"),
        ("x", 1, "x"),
        ("x", 0, None),
    ]
    assert not any("missing" in line for line in found)
