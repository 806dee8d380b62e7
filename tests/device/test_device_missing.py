"""Each value that a line lacks is counted, once, whatever the reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from device import fakes
from device.alone import alone, eventually
from device.driving import working_stream
from device.fakes import FakeDriver as Cuda
from device.test_device_timers import timed_stream
from recorded import lines

from foundry_fastlog import Recorder
from foundry_fastlog.recording import device_tensors

TICKETS = 4096  # DevicePool::kTickets


def block(recorder: Recorder, name: str = "b") -> None:
    """Time an empty block."""
    with recorder.timer(name, device=True):
        pass


def timeout(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """A stream that hangs."""
    with cuda.hanging(stream):
        recorder.record(0, v=cuda.tensor(1.0, stream=stream))
        block(recorder)
        assert recorder.flush(20)


def no_slot(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """All tickets are on their way."""
    loss = cuda.tensor(1.0)
    with cuda.hanging(stream):
        for step in range(TICKETS + 1):
            recorder.record(step, v=loss)
        block(recorder)


def no_room(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """Lines behind them fill half of the ring."""
    with cuda.hanging(stream):
        recorder.record(0, v=cuda.tensor(1.0, stream=stream))
        block(recorder)
        for step in range(3000):
            recorder.record(step, lr=0.5)
        assert recorder.flush(20, stream="metrics")
        assert recorder.flush(20)


def driver_error_999(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """A copy that fails, and an elapsed time."""
    cuda.fail("cuMemcpyDtoHAsync_v2", 999)
    recorder.record(0, v=cuda.tensor(1.0), w=cuda.tensor(2.0))
    cuda.fail("cuEventElapsedTime", 999)
    block(recorder)


def backend_error(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """A framework that copies nothing, and one that leaves CUDA."""

    def deliver(tensors: list[Any], deliver: Callable[[list[int], list[Any]], None]) -> None:
        deliver([slot for _, slot in tensors], [None] * len(tensors))

    device_tensors.start_transfer = deliver
    recorder.record(0, v=fakes.host_tensor(1.0, device=(fakes.XPU, 0)))
    with recorder.timer("b", device=True):
        device_tensors.block_stream = lambda which: None


def other_context(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """Another library's context is current at the end."""
    with recorder.timer("b", device=True):
        assert cuda.call("cuCtxSetCurrent", cuda.context(0)) == 0


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
    """Names that are too long."""
    recorder.record_dict(0, {"k" * 300: cuda.tensor(1.0), "lr": 0.5})
    block(recorder, "k" * 300)


def masked(cuda: Cuda, recorder: Recorder, stream: int) -> None:
    """Of no device: it is not counted."""
    import numpy as np

    recorder.record(0, v=np.ma.masked)


REASONS = {
    **{reason.__name__: (reason, 2) for reason in (timeout, no_slot, no_room, driver_error_999)},
    **{reason.__name__: (reason, 1) for reason in (other_context, unordered, capture)},
    **{reason.__name__: (reason, 2) for reason in (backend_error, no_key_space)},
    "masked": (masked, 0),
}


@contextmanager
def recording(run: Path, reason: str) -> Iterator[Recorder]:
    """Open a recorder that soon has that reason."""
    options: dict[str, Any] = {"timeout": {"device_timeout_s": 0.1}}.get(reason, {})
    ring = (64 << 10) if reason == "no_room" else (1 << 20)
    with Recorder(run, ring_bytes=ring, flush_interval_s=0.01, **options) as recorder:
        yield recorder


@pytest.mark.parametrize("reason", REASONS)
@alone
def test_each_reason_counts_once(cuda: Cuda, run: Path, reason: str) -> None:
    """As many as the lines in the files name: a value's, and a block's where it can have it."""
    stream = timed_stream(cuda)
    cause, count = REASONS[reason]
    with recording(run, reason) as recorder:
        cause(cuda, recorder, stream)
        assert recorder.flush(20)
        assert eventually(lambda: recorder.stats()["device"]["waiting"] == 0)
        assert recorder.stats()["device"]["missing"] == count
    found = [*lines(run), *lines(run, "performance")]
    named = [why for line in found for why in line.get("missing", {}).values()]
    assert named == [reason] * max(count, 1)


@alone
def test_a_forked_childs_values_count_once(cuda: Cuda, run: Path) -> None:
    """In the child."""
    working_stream(cuda)
    timed_stream(cuda)
    with Recorder(run) as recorder:
        loss = cuda.tensor(1.0)
        recorder.record(0, v=loss)
        timer = recorder.timer("b", device=True)
        timer.__enter__()
        pid = os.fork()
        if pid == 0:
            recorder.record(1, v=loss)
            timer.__exit__(None, None, None)
            recorder.flush(20)
            os._exit(recorder.stats()["device"]["missing"])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
        timer.__exit__(None, None, None)
        assert recorder.flush(20)
        assert recorder.stats()["device"]["missing"] == 0


@alone
def test_a_record_that_is_dropped_counts_nothing(cuda: Cuda, run: Path) -> None:
    """No line lacks its values."""
    working_stream(cuda)
    with Recorder(run, ring_bytes=64 << 10) as recorder:
        cuda.fail("cuMemcpyDtoHAsync_v2", 999)
        assert not recorder.record(0, v=cuda.tensor(1.0), text="x" * 9000)
        assert recorder.flush(20)
        assert recorder.stats()["device"]["missing"] == 0
