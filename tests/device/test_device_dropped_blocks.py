"""Blocks timed on a device that never end: each gives its ticket back."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from device.alone import alone, eventually
from device.driving import in_thread, one_line
from device.fakes import FakeDriver as Cuda
from device.test_device_timers import timed_stream
from recorded import lines

from foundry_fastlog import Recorder
from foundry_fastlog._core import Timer

MORE_THAN_ALL = 5000  # DevicePool::kTickets are 4,096


def in_use(recorder: Recorder) -> int:
    """Return how many tickets a recorder has."""
    return recorder.stats()["device"]["waiting"]


def is_timed(recorder: Recorder, run: Path, name: str = "after") -> bool:
    """Tell whether a further block has a time on its device."""
    with recorder.timer(name, device=True):
        pass
    assert recorder.flush(20)
    (line,) = [line for line in lines(run, "performance") if line["name"] == name]
    return "missing" not in line


def drop(recorder: Recorder) -> None:
    """Enter a block that nobody can leave."""
    recorder.timer("x", device=True).__enter__()


def drop_elsewhere(recorder: Recorder) -> None:
    """Enter a block in a thread that ends, and drop its timer here."""
    timer = recorder.timer("x", device=True)
    entered = threading.Thread(target=timer.__enter__)
    entered.start()
    entered.join()


def leave_elsewhere(recorder: Recorder) -> None:
    """Enter a block, and leave it in another thread: that is refused."""
    timer = recorder.timer("x", device=True)
    timer.__enter__()

    def leave() -> None:
        with pytest.raises(RuntimeError, match="without having been entered"):
            timer.__exit__(None, None, None)

    in_thread(leave)
    kept.append(timer)


def end_thread(recorder: Recorder) -> None:
    """End a thread within a block whose timer is kept."""
    timer = recorder.timer("x", device=True)
    in_thread(timer.__enter__)
    kept.append(timer)


kept: list[Timer] = []


@pytest.mark.parametrize(
    ("name", "count"),
    [("drop", MORE_THAN_ALL), ("drop_elsewhere", 50), ("leave_elsewhere", 50), ("end_thread", 50)],
)
@alone
def test_a_block_that_is_dropped_gives_its_ticket_back(
    cuda: Cuda, run: Path, name: str, count: int
) -> None:
    """Its timer goes, its exit is refused, or its thread ends."""
    timed_stream(cuda)
    with Recorder(run) as recorder:
        enter: Callable[[Recorder], None] = globals()[name]
        references = sys.getrefcount(recorder)
        for _ in range(count):
            enter(recorder)
        assert eventually(lambda: in_use(recorder) == 0)  # a thread that is joined still ends
        assert is_timed(recorder, run)
        assert one_line(run, "performance").get("parent") is None or name == "leave_elsewhere"
        kept.clear()
        assert in_use(recorder) == 0
        if name == "drop":  # frames of other threads' stacks, and of this one's, keep it
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
        assert recorder.stats()["device"]["waiting"] == 0
        assert in_use(other) == 1
        assert is_timed(other, run / "other")
        for timer in reversed(timers):
            timer.__exit__(None, None, None)
        assert is_timed(other, run / "other", "behind")
    assert lines(run / "run", "performance") == []
    (around,) = [x for x in lines(run / "other", "performance") if x["name"] == "around"]
    assert "missing" not in around


@alone
def test_the_thread_that_entered_may_leave_after_another_was_refused(cuda: Cuda, run: Path) -> None:
    """The line has the wall clock's time. One block is given up for one refusal."""
    timed_stream(cuda)
    with Recorder(run) as recorder:
        timer = recorder.timer("x", device=True)
        timer.__enter__()
        timer.__enter__()

        def leave() -> None:
            with pytest.raises(RuntimeError, match="without having been entered"):
                timer.__exit__(None, None, None)

        in_thread(leave)
        assert in_use(recorder) == 1
        timer.__exit__(None, None, None)
        timer.__exit__(None, None, None)
        assert recorder.flush(20)
        assert in_use(recorder) == 0
    inner, outer = lines(run, "performance")
    assert inner["missing"] == {"device_duration_s": "lost"}
    assert inner["duration_s"] >= 0
    assert "missing" not in outer


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
        assert in_use(recorder) == 3
        del generator
        gc.collect()
        assert recorder.flush(20)
        assert in_use(recorder) == 0
    found = lines(run, "performance")
    assert [(line["name"], line["depth"], line.get("parent")) for line in found] == [
        ("inner", 2, "x"),
        ("x", 1, "x"),
        ("x", 0, None),
    ]
    assert not any("missing" in line for line in found)
