"""Values that do not arrive: they are null with a reason, and all else of the line is there."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from device.alone import alone, at_once, eventually
from device.driving import busy_tickets, one_line, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import Recorder

TICKETS = 4096  # DevicePool::kTickets
OUT_OF_MEMORY = 2


def reasons(run: Path, key: str = "loss") -> list[str | None]:
    """Return why each line lacks a value, or None where it does not."""
    return [line.get("missing", {}).get(key) for line in lines(run)]


def waiting(recorder: Recorder) -> int:
    """Return how many values a recorder waits for."""
    return recorder.stats()["device"]["waiting"]


# ---- slots ---------------------------------------------------------------------------------------


@alone
def test_without_a_free_slot_the_values_of_the_cpu_reach_the_file(cuda: Cuda, run: Path) -> None:
    """The stream hangs until all slots wait for it; then recording recovers."""
    stream = working_stream(cuda)
    loss = cuda.tensor(1.5)
    with Recorder(run) as recorder:
        with cuda.hanging(stream), at_once(10):
            for step in range(TICKETS + 100):
                assert recorder.record(step, loss=loss, lr=float(step))
            assert waiting(recorder) == TICKETS
        assert recorder.flush(30)
        assert eventually(lambda: waiting(recorder) == 0)
        recorder.record(TICKETS + 100, loss=loss, lr=-1.0)
        assert recorder.stats()["device"]["missing"] == 100
    assert reasons(run) == [None] * TICKETS + ["no_slot"] * 100 + [None]
    found = lines(run)
    assert [line["metrics"]["lr"] for line in found] == [
        *map(float, range(TICKETS + 100)),
        -1.0,
    ]
    assert {line["metrics"]["loss"] for line in found[:TICKETS]} == {1.5}


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
def test_another_device_gets_slots_after_one_had_them_all(cuda: Cuda, run: Path) -> None:
    """Neither it nor a block's timing is short of them for ever."""
    from foundry_fastlog.recording import device_tensors

    stream = working_stream(cuda)
    working_stream(cuda, 1)
    loss = cuda.tensor(1.5)
    device_tensors.block_stream = lambda device: (2, 0, stream)
    with Recorder(run) as recorder:
        with cuda.hanging(stream):
            for step in range(TICKETS):
                recorder.record(step, loss=loss)
        assert recorder.flush(30)
        assert eventually(lambda: waiting(recorder) == 0)
        for step in range(20):
            recorder.record(step, loss=cuda.tensor(2.5, device=1), here=loss)
            with recorder.timer("block", device=True):
                pass
    assert reasons(run)[-20:] == [None] * 20
    assert lines(run)[-1]["metrics"] == {"loss": 2.5, "here": 1.5}
    assert not any("missing" in line for line in lines(run, "performance"))


# ---- errors of the driver ------------------------------------------------------------------------


@alone
def test_a_copy_that_fails_costs_its_value_only(cuda: Cuda, run: Path) -> None:
    """Once: the other values of the record and the next records are there."""
    working_stream(cuda)
    with Recorder(run) as recorder:
        cuda.fail("cuMemcpyDtoHAsync_v2", OUT_OF_MEMORY)
        recorder.record(0, loss=cuda.tensor(1.0), grad=cuda.tensor(2.0), lr=0.1)
        recorder.record(1, loss=cuda.tensor(3.0))
    first, second = lines(run)
    assert first["metrics"] == {"loss": None, "grad": 2.0, "lr": 0.1}
    assert first["missing"] == {"loss": "driver_error_2"}
    assert second["metrics"] == {"loss": 3.0}
    assert "missing" not in second


@pytest.mark.parametrize(
    "function",
    [
        "cuMemcpyDtoHAsync_v2",
        "cuCtxGetCurrent",
        "cuMemHostAlloc",
        "cuDevicePrimaryCtxGetState",
        "cuDevicePrimaryCtxRetain",
        "cuDeviceGet",
    ],
)
@alone
def test_a_function_that_fails_for_long_costs_no_line(cuda: Cuda, run: Path, function: str) -> None:
    """And when it works again, values arrive again."""
    working_stream(cuda)
    loss = cuda.tensor(1.5)
    with Recorder(run) as recorder:
        cuda.fail(function, OUT_OF_MEMORY, -1)
        for step in range(20):
            assert recorder.record(step, loss=loss, lr=0.1)
        assert recorder.flush(20)
        cuda.fail(function, 0, 0)
        recorder.record(20, loss=loss, lr=0.1)
        assert recorder.flush(20)
        assert eventually(lambda: waiting(recorder) == 0)
    assert reasons(run) == ["driver_error_2"] * 20 + [None]
    assert [line["metrics"]["lr"] for line in lines(run)] == [0.1] * 21


@alone
def test_an_answer_about_captures_that_fails_is_no_capture(cuda: Cuda, run: Path) -> None:
    """What is wrong shows when something is copied; here nothing is."""
    working_stream(cuda)
    with Recorder(run) as recorder:
        cuda.fail("cuStreamIsCapturing", 999, -1)
        recorder.record(0, loss=cuda.tensor(1.5))
    assert one_line(run)["metrics"] == {"loss": 1.5}


@pytest.mark.parametrize("function", ["cuEventRecord", "cuEventCreate"])
@alone
def test_an_event_that_fails_costs_the_values_of_its_record(
    cuda: Cuda, run: Path, function: str
) -> None:
    """Nothing would tell when they are there. The next record has another event."""
    working_stream(cuda)
    with Recorder(run) as recorder:
        for step in range(10):
            cuda.fail(function, 999)
            recorder.record(step, loss=cuda.tensor(1.0), lr=0.1)
            recorder.record(step, loss=cuda.tensor(2.0), lr=0.2)
        assert recorder.flush(20)
    found = lines(run)
    assert [line.get("missing") for line in found[::2]] == [{"loss": "driver_error_999"}] * (
        10 if function == "cuEventRecord" else len(found[::2])
    )
    assert [line["metrics"]["loss"] for line in found[1::2]] == [2.0] * 10


@alone
def test_an_error_of_the_device_ends_its_values_and_no_others(cuda: Cuda, run: Path) -> None:
    """An illegal address, as a faulty kernel causes: nothing of that context works any more."""
    stream = working_stream(cuda)
    working_stream(cuda, 1)
    with Recorder(run, flush_interval_s=0.005) as recorder:
        cuda.hang(stream)
        recorder.record(0, loss=cuda.tensor(1.0, stream=stream), lr=0.1)
        recorder.record(1, loss=cuda.tensor(2.0, device=1), lr=0.2)
        cuda.break_device(0, 700)
        assert recorder.flush(20)
        queries = cuda.count("cuEventQuery")
        for step in range(2, 50):
            recorder.record(step, loss=cuda.tensor(1.0), other=cuda.tensor(3.0, device=1))
        assert recorder.flush(20)
        assert cuda.count("cuEventQuery") - queries < 2000
    found = lines(run)
    assert reasons(run) == ["driver_error_700", None, *["driver_error_700"] * 48]
    assert [found[0]["metrics"], found[1]["metrics"]] == [
        {"loss": None, "lr": 0.1},
        {"loss": 2.0, "lr": 0.2},
    ]
    assert {line["metrics"]["other"] for line in found[2:]} == {3.0}


@alone
def test_a_question_that_fails_is_the_end_of_the_device(cuda: Cuda, run: Path) -> None:
    """The driver's errors are sticky: what it says once about an event holds for all."""
    working_stream(cuda)
    with Recorder(run) as recorder:
        cuda.fail("cuEventQuery", 719)
        recorder.record(0, loss=cuda.tensor(1.0))
        assert recorder.flush(20)
        recorder.record(1, loss=cuda.tensor(1.0))
    assert reasons(run) == ["driver_error_719"] * 2


@pytest.mark.parametrize("library", ["/nonexistent/libcuda.so", "libm.so.6"])
@alone
def test_without_a_driver_the_value_is_missing(cuda: Cuda, run: Path, library: str) -> None:
    """No library, or one without the functions: its framework is asked, which has no copy here."""
    os.environ["FASTLOG_CUDA_LIBRARY"] = library
    seen: list[Any] = []
    sys.unraisablehook = seen.append
    working_stream(cuda)
    cuda.reset_counts()
    with Recorder(run) as recorder:
        recorder.record(0, loss=cuda.tensor(1.0), lr=0.1)
        assert recorder.flush(20)
        assert eventually(lambda: waiting(recorder) == 0)
    line = one_line(run)
    assert line["metrics"] == {"loss": None, "lr": 0.1}
    assert line["missing"] == {"loss": "backend_error"}
    assert len(seen) == 1
    assert cuda.count("cuMemcpyDtoHAsync_v2") == 0


# ---- deadlines, room in the ring -----------------------------------------------------------------


@alone
def test_a_value_that_takes_too_long_is_given_up(cuda: Cuda, run: Path) -> None:
    """Not before its time, and the line has what was on the CPU."""
    stream = working_stream(cuda)
    with Recorder(run, device_timeout_s=0.3, flush_interval_s=0.01) as recorder:
        with cuda.hanging(stream):
            recorder.record(0, loss=cuda.tensor(1.0, stream=stream), lr=0.1)
            begin = time.monotonic()
            assert not recorder.flush(0.1)
            assert recorder.flush(20)
            assert time.monotonic() - begin > 0.2
            assert one_line(run)["metrics"] == {"loss": None, "lr": 0.1}
        assert recorder.stats()["device"]["missing"] == 1
    assert reasons(run) == ["timeout"]


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
        assert recorder.flush(20)
        assert eventually(lambda: waiting(recorder) == 0)
        for step in range(60, 100):
            recorder.record(step, loss=cuda.tensor(float(step), stream=other))
        assert cuda.wait(stuck)
        assert busy_tickets(cuda, recorder, other) == 0
    found = [line for line in lines(run) if line["step"] >= 0]
    assert [line.get("missing") for line in found] == [{"loss": "timeout"}] * 20 + [None] * 80
    assert [line["metrics"]["loss"] for line in found[20:]] == list(map(float, range(20, 100)))


@alone
def test_values_are_given_up_when_the_ring_needs_their_room(cuda: Cuda, run: Path) -> None:
    """A small ring and a stream that hangs: training is never blocked, and no line is lost."""
    stream = working_stream(cuda)
    loss = cuda.tensor(1.5)
    with Recorder(run, ring_bytes=64 << 10, flush_interval_s=0.02) as recorder:
        with cuda.hanging(stream):
            for step in range(3000):
                with at_once(0.9):
                    assert recorder.record(step, loss=loss, lr=float(step))
        assert recorder.flush(20)
        stats = recorder.stats()
        assert stats["dropped"] == 0
    assert [line["metrics"]["lr"] for line in lines(run)] == list(map(float, range(3000)))
    found = reasons(run)
    assert set(found) <= {"no_room", None}
    assert found[0] == "no_room"
    assert found[-1] is None  # it still waited when the stream went on


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
def test_a_record_that_is_too_large_leaves_no_ticket(cuda: Cuda, run: Path) -> None:
    """It is dropped, and its copies arrive for nobody."""
    stream = working_stream(cuda)
    with Recorder(run, ring_bytes=64 << 10) as recorder:
        assert not recorder.record(0, loss=cuda.tensor(1.5), text="x" * 9000)
        assert recorder.record(1, loss=cuda.tensor(2.5))
        assert cuda.wait(stream)
        assert busy_tickets(cuda, recorder, stream) == 0
    found = [line["metrics"] for line in lines(run) if line.get("step", -1) >= 0]
    assert found == [{"loss": 2.5}]


@alone
def test_keys_without_room_in_the_table_make_values_missing(cuda: Cuda, run: Path) -> None:
    """Their line is made at once: nothing is copied for it."""
    working_stream(cuda)
    key = "k" * 300
    with Recorder(run) as recorder:
        recorder.record_dict(0, {key: cuda.tensor(1.5), "lr": 0.1})
    line = one_line(run)
    assert line["metrics"] == {key: None, "lr": 0.1}
    assert line["missing"] == {key: "no_key_space"}
    assert cuda.count("cuMemcpyDtoHAsync_v2") == 0
