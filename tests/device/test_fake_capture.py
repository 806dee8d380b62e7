"""The fake driver's captures: who may do what meanwhile, and what ends one."""

from __future__ import annotations

from ctypes import c_int, c_void_p

import pytest
from device import fakes
from device.driving import Pinned, in_thread, new_event, recorded_event, until_ready
from device.fakes import FakeDriver as Cuda


def capture_status(cuda: Cuda, stream: int | None) -> tuple[int, int]:
    status = c_int(-1)
    return cuda.call("cuStreamIsCapturing", stream, status), status.value


def test_a_capturing_stream_says_so_and_executes_nothing(cuda: Cuda) -> None:
    """Copies and records go into the graph; the capture stays valid."""
    cuda.use(0)
    stream, slot, value = cuda.stream(0), Pinned(cuda), cuda.malloc(0, 1.0)
    before = slot.bytes.raw
    event = new_event(cuda)
    assert capture_status(cuda, stream) == (0, 0)
    cuda.begin_capture(stream)
    assert capture_status(cuda, stream) == (0, 1)
    assert cuda.call("cuMemcpyDtoHAsync_v2", slot.address, value, 4, stream) == 0
    assert cuda.call("cuEventRecord", event, stream) == 0
    cuda.store(stream, value, 2.0)
    assert cuda.end_capture(stream)
    assert cuda.wait(stream)
    assert cuda.count("captured_ops") == 2
    assert slot.bytes.raw == before
    assert cuda.load(value) == 1.0
    assert cuda.call("cuEventQuery", event) == fakes.CAPTURED_EVENT
    assert cuda.call("cuEventRecord", event, stream) == 0
    until_ready(cuda, event)


def test_the_legacy_stream_is_refused_during_a_capture(cuda: Cuda) -> None:
    cuda.use(0)
    stream, slot, value = cuda.stream(0), Pinned(cuda), cuda.malloc(0, 1.0)
    event = new_event(cuda)
    cuda.begin_capture(stream, fakes.RELAXED)
    assert capture_status(cuda, None)[0] == fakes.CAPTURE_IMPLICIT
    assert cuda.end_capture(stream)
    copy = ("cuMemcpyDtoHAsync_v2", slot.address, value, 4, None)
    for call in (copy, ("cuEventRecord", event, None)):
        cuda.begin_capture(stream, fakes.RELAXED)
        assert cuda.call(*call) == fakes.CAPTURE_IMPLICIT
        assert capture_status(cuda, stream) == (0, 2)
        assert not cuda.end_capture(stream)
    # As before; and those of nonblocking streams, as torch's are, and of other devices are ignored.
    streams = [cuda.stream(0, nonblocking=True), cuda.stream(1)]
    for other in streams:
        cuda.begin_capture(other)
    assert capture_status(cuda, None) == (0, 0)
    assert cuda.call(*copy) == 0
    recorded_event(cuda, None)
    assert [cuda.end_capture(other) for other in streams] == [True, True]


@pytest.mark.parametrize("unsafe", ["query", "allocate", "synchronise"])
def test_an_unsafe_call_of_any_thread_ends_a_global_capture(cuda: Cuda, unsafe: str) -> None:
    """It gets 900, and the capturing stream then 901; a relaxed thread does no harm."""
    cuda.use(0)
    stream, event = cuda.stream(0), new_event(cuda)

    def call(mode: int) -> int:
        cuda.use(0)
        assert cuda.call("cuThreadExchangeStreamCaptureMode", c_int(mode)) == 0
        if unsafe == "query":
            return cuda.call("cuEventQuery", event)
        if unsafe == "allocate":
            return cuda.call("cuMemHostAlloc", c_void_p(), 8, 1)
        return cuda.call("cuCtxSynchronize")

    cuda.begin_capture(stream, fakes.GLOBAL)
    assert in_thread(lambda: call(fakes.RELAXED)) == 0
    assert capture_status(cuda, stream) == (0, 1)
    assert in_thread(lambda: call(fakes.GLOBAL)) == fakes.CAPTURE_UNSUPPORTED
    assert capture_status(cuda, stream) == (0, 2)
    assert cuda.call("cuEventRecord", event, stream) == fakes.CAPTURE_INVALIDATED
    assert not cuda.end_capture(stream)
    assert in_thread(lambda: call(fakes.GLOBAL)) == 0


def test_a_thread_local_capture_is_ended_by_its_own_thread_only(cuda: Cuda) -> None:
    """Another thread may query meanwhile; making an event is allowed to all."""
    cuda.use(0)
    stream, event = cuda.stream(0), new_event(cuda)

    def query() -> int:
        cuda.use(0)
        return cuda.call("cuEventQuery", event)

    cuda.begin_capture(stream, fakes.THREAD_LOCAL)
    assert in_thread(query) == 0
    new_event(cuda)
    assert capture_status(cuda, stream) == (0, 1)
    assert query() == fakes.CAPTURE_UNSUPPORTED
    assert not cuda.end_capture(stream)


def test_the_capture_mode_is_exchanged_and_belongs_to_its_thread(cuda: Cuda) -> None:
    def exchange(mode: int) -> tuple[int, int]:
        exchanged = c_int(mode)
        return cuda.call("cuThreadExchangeStreamCaptureMode", exchanged), exchanged.value

    assert exchange(fakes.RELAXED) == (0, fakes.GLOBAL)
    assert exchange(fakes.THREAD_LOCAL) == (0, fakes.RELAXED)
    assert in_thread(lambda: exchange(fakes.RELAXED)) == (0, fakes.GLOBAL)
    assert exchange(3)[0] == fakes.INVALID_VALUE
