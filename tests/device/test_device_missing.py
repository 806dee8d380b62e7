"""Values that do not arrive: null with a reason, counted once; all else of the line is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from device import fakes
from device.alone import alone, at_once
from device.driving import TICKETS, busy_tickets, one_line, timed_stream, waiting, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import eventually, lines

from foundry_fastlog import Recorder
from foundry_fastlog.recording import device_tensors


def block(recorder: Recorder, name: str = "b") -> None:
    with recorder.timer(name, device=True):
        pass


def timeout(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """A stream that hangs: not given up before its time."""
    with cuda.hanging(stream):
        recorder.record(0, v=cuda.tensor(1.0, stream=stream), lr=0.5)
        block(recorder)
        assert not recorder.flush(0.05)
        assert recorder.flush(20)


def no_slot(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """All tickets are on their way, but one; that has the first of nine values."""
    v = cuda.tensor(1.0)
    with cuda.hanging(stream), at_once(10):
        for step in range(TICKETS - 1):
            recorder.record(step, v=v, lr=0.5)
        recorder.record_dict(step, {"lr": 0.5, **{f"v{i}": v for i in range(9)}})
        block(recorder)


def no_room(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """Lines behind them fill half of the ring: training is never blocked, and no line is lost."""
    with cuda.hanging(stream):
        recorder.record(0, v=cuda.tensor(1.0, stream=stream), lr=0.5)
        block(recorder)
        for step in range(3000):
            with at_once(0.9):
                assert recorder.record(step, lr=0.5)
        assert recorder.flush(20, stream="metrics")
        assert recorder.flush(20)
    assert recorder.stats()["dropped"] == 0


def driver_error_999(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """A copy that fails, and an elapsed time."""
    cuda.fail("cuMemcpyDtoHAsync_v2", 999)
    recorder.record(0, v=cuda.tensor(1.0), w=cuda.tensor(2.0), lr=0.5)
    cuda.fail("cuEventElapsedTime", 999)
    block(recorder)


def backend_error(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """A framework that copies nothing, and one that leaves CUDA."""

    def deliver(tensors: list[Any], deliver: Callable[[list[int], list[Any]], None]) -> None:
        deliver([slot for _, slot in tensors], [None] * len(tensors))

    device_tensors.start_transfer = deliver
    recorder.record(0, v=fakes.host_tensor(1.0, device=(fakes.XPU, 0)), lr=0.5)
    with recorder.timer("b", device=True):
        device_tensors.block_stream = lambda which: None


def other_context(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """Another library's context is current at the end."""
    with recorder.timer("b", device=True):
        assert cuda.call("cuCtxSetCurrent", cuda.context(0)) == 0
    cuda.use(0)


def unordered(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """A block's end on a stream of its own runs before its begin."""
    second = cuda.stream(0, nonblocking=True)
    with cuda.hanging(stream):
        with recorder.timer("b", device=True):
            device_tensors.block_stream = lambda which: (2, 0, second)
        assert cuda.wait(second)


def capture(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """A block within a capture."""
    cuda.begin_capture(stream)
    block(recorder)
    assert cuda.end_capture(stream)


def no_key_space(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """Names that are too long: their line is made at once."""
    recorder.record_dict(0, {"k" * 300: cuda.tensor(1.0), "lr": 0.5})
    block(recorder, "k" * 300)
    assert cuda.count("cuMemcpyDtoHAsync_v2") == waiting(recorder) == 0


def masked(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """Of no device: it is not counted."""
    import numpy as np

    recorder.record(0, v=np.ma.masked, lr=0.5)


VALUE_AND_BLOCK = (timeout, no_slot, no_room, driver_error_999, backend_error, no_key_space)
REASONS = {
    **{reason.__name__: (reason, 2) for reason in VALUE_AND_BLOCK},
    **{reason.__name__: (reason, 1) for reason in (other_context, unordered, capture)},
    "masked": (masked, 0),
}


@pytest.mark.parametrize("reason", REASONS)
@alone
def test_each_reason_counts_once(cuda: Cuda, run: Path, reason: str) -> None:
    """As many as the lines in the files name: a value's, and a block's where it can have it."""
    stream = timed_stream(cuda)
    cause, count = REASONS[reason]
    options: dict[str, Any] = {"device_timeout_s": 0.2} if reason == "timeout" else {}
    ring = (64 << 10) if reason == "no_room" else (1 << 20)
    with Recorder(run, ring_bytes=ring, flush_interval_s=0.01, **options) as recorder:
        cause(cuda, recorder, stream)
        assert recorder.flush(20)
        assert eventually(lambda: waiting(recorder) == 0)
        assert recorder.stats()["device"]["missing"] == count
        recorder.record(-1, v=cuda.tensor(7.0), lr=0.5)
    *found, last = lines(run)
    assert last["metrics"] == {"v": 7.0, "lr": 0.5}
    assert {line["metrics"]["lr"] for line in found} <= {0.5}
    for line in found:
        empty = {key for key, value in line["metrics"].items() if value is None}
        assert empty == set(line.get("missing", {}))
    found += lines(run, "performance")
    named = [why for line in found for why in line.get("missing", {}).values()]
    assert named == [reason] * max(count, 1)


@alone
def test_a_large_record_takes_what_slots_there_are(cuda: Cuda, run: Path) -> None:
    """Its first values have slots, the others are missing."""
    stream = working_stream(cuda)
    loss = cuda.tensor(1.5)
    with Recorder(run) as recorder:
        with cuda.hanging(stream):
            for step in range(TICKETS - 1):
                recorder.record(step, loss=loss)
            recorder.record_dict(TICKETS, {f"v{i}": loss for i in range(20)})
        assert recorder.flush(30)
    line = lines(run)[-1]
    assert line["metrics"] == {f"v{i}": 1.5 if i < 8 else None for i in range(20)}
    assert line["missing"] == {f"v{i}": "no_slot" for i in range(8, 20)}


@alone
def test_an_answer_about_captures_that_fails_is_no_capture(cuda: Cuda, run: Path) -> None:
    """What is wrong shows when something is copied; here nothing is."""
    working_stream(cuda)
    with Recorder(run) as recorder:
        cuda.fail("cuStreamIsCapturing", 999, -1)
        recorder.record(0, loss=cuda.tensor(1.5))
    assert one_line(run)["metrics"] == {"loss": 1.5}


@alone
def test_a_record_too_large_leaves_no_ticket_and_counts_nothing(cuda: Cuda, run: Path) -> None:
    """It is dropped, and its copies arrive for nobody."""
    stream = working_stream(cuda)
    with Recorder(run, ring_bytes=64 << 10) as recorder:
        assert not recorder.record(0, loss=cuda.tensor(1.5), text="x" * 9000)
        cuda.fail("cuMemcpyDtoHAsync_v2", 999)
        assert not recorder.record(0, loss=cuda.tensor(1.0), text="x" * 9000)
        assert recorder.record(1, loss=cuda.tensor(2.5))
        assert cuda.wait(stream)
        assert busy_tickets(cuda, recorder, stream) == 0
        assert recorder.stats()["device"]["missing"] == 0
    found = [line["metrics"] for line in lines(run) if line.get("step", -1) >= 0]
    assert found == [{"loss": 2.5}]


@alone
def test_tickets_of_dropped_records_come_back(cuda: Cuda, run: Path) -> None:
    """The copies were on their way already when the ring had no room."""
    stream = working_stream(cuda)
    loss = cuda.tensor(1.5)
    with Recorder(run, ring_bytes=64 << 10, back_pressure="drop", fsync="none") as recorder:
        accepted = []
        for step in range(100_000):
            accepted.append(recorder.record(step, loss=loss, text="x" * 4000))
            if accepted.count(False) == 20:
                break
            if step > 50:
                cuda.fail("cuEventQuery", 600, 50)  # not ready: the flush thread is slowed down
        assert not all(accepted)
        assert cuda.wait(stream)
        assert recorder.flush(20)
        assert eventually(lambda: waiting(recorder) == 0)
        assert busy_tickets(cuda, recorder, stream) == 0
    steps = [line["step"] for line in lines(run) if line.get("step", -1) >= 0]
    assert steps == [step for step, taken in enumerate(accepted) if taken]
    assert sum(line.get("dropped", 0) for line in lines(run)) == accepted.count(False)


@alone
def test_a_late_arrival_does_not_touch_a_later_record(cuda: Cuda, run: Path) -> None:
    """A slot that was given up is used again only when its copy has ended."""
    stuck = working_stream(cuda)
    other = cuda.stream(0, nonblocking=True)
    with Recorder(run, device_timeout_s=0.1, flush_interval_s=0.005) as recorder:
        cuda.hang(stuck)
        for step in range(20):
            recorder.record(step, loss=cuda.tensor(-5.0, stream=stuck))
        assert recorder.flush(20)
        assert waiting(recorder) == 0  # they are given up, and their slots are not free
        cuda.set_stream(other, 0)
        assert busy_tickets(cuda, recorder, other) == 20
        for step in range(20, 60):
            if step == 40:
                cuda.delay(other, 20_000)
                cuda.release(stuck)
            recorder.record(step, loss=cuda.tensor(float(step), stream=other))
            time.sleep(0.001)
        assert cuda.wait(stuck)
        assert recorder.flush(20)
        assert busy_tickets(cuda, recorder, other) == 0
    found = [line for line in lines(run) if line["step"] >= 0]
    assert [line.get("missing") for line in found] == [{"loss": "timeout"}] * 20 + [None] * 40
    assert [line["metrics"]["loss"] for line in found[20:]] == list(map(float, range(20, 60)))
