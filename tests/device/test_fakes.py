"""The fake driver keeps its promises: a test of the recorder is worth what its double is worth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from ctypes import POINTER, addressof, c_char, c_char_p, c_float, c_int, c_uint, c_void_p
from pathlib import Path
from typing import Any

import pytest
from device import fakes
from device.alone import eventually
from device.driving import Pinned, in_thread, new_event, recorded_event, until_ready
from device.fakes import FakeDriver as Cuda

TESTS = Path(__file__).parents[1]


def in_process(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script that has `cuda` and `fakes`."""
    start = "from device import fakes\ncuda = fakes.load_driver()\n"
    return subprocess.run(
        [sys.executable, "-c", start + script],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ---- contexts ------------------------------------------------------------------------------------


def test_a_primary_context_is_inactive_until_the_framework_makes_it(cuda: Cuda) -> None:
    """The state is told without a context, and asking makes none."""
    flags, active = c_uint(7), c_int(7)
    assert cuda.call("cuDevicePrimaryCtxGetState", 1, flags, active) == 0
    assert (flags.value, active.value) == (0, 0)
    cuda.activate(1)
    assert cuda.call("cuDevicePrimaryCtxGetState", 1, flags, active) == 0
    assert active.value == 1
    assert cuda.count("contexts_created") == 0


def test_retaining_an_inactive_context_counts_as_making_one(cuda: Cuda) -> None:
    """What must never happen can be seen; retaining an active one is free."""
    context = c_void_p()
    assert cuda.call("cuDevicePrimaryCtxRetain", context, 0) == 0
    assert cuda.count("contexts_created") == 1
    assert cuda.call("cuDevicePrimaryCtxRetain", context, 0) == 0
    assert cuda.count("contexts_created") == 1


def test_the_current_context_belongs_to_its_thread(cuda: Cuda) -> None:
    """Another thread starts without one, and what needs one says so."""
    cuda.use(0)
    current = c_void_p()
    assert cuda.call("cuCtxGetCurrent", current) == 0
    assert current.value

    def elsewhere() -> tuple[Any, int, int]:
        theirs, event = c_void_p(1), c_void_p()
        cuda.call("cuCtxGetCurrent", theirs)
        allocated = cuda.call("cuMemHostAlloc", c_void_p(), 8, 1)
        return theirs.value, cuda.call("cuEventCreate", event, 0), allocated

    assert in_thread(elsewhere) == (None, fakes.INVALID_CONTEXT, fakes.INVALID_CONTEXT)


def test_devices_beyond_the_last_are_refused(cuda: Cuda) -> None:
    """Two devices by default, more on request."""
    device = c_int()
    assert cuda.call("cuDeviceGet", device, 1) == 0
    assert cuda.call("cuDeviceGet", device, 2) == 101
    cuda.set_devices(3)
    assert cuda.call("cuDeviceGet", device, 2) == 0


def test_a_copy_under_the_context_of_another_device_is_refused(cuda: Cuda) -> None:
    """Stream and memory of device 1 while device 0 is current."""
    cuda.use(0)
    slot = Pinned(cuda)
    cuda.activate(1)
    stream, value = cuda.stream(1), cuda.malloc(1, 2.5)
    copy = ("cuMemcpyDtoHAsync_v2", slot.address, value, 4)
    assert cuda.call(*copy, stream) == fakes.INVALID_CONTEXT
    assert cuda.call(*copy, None) == fakes.INVALID_VALUE  # legacy of 0, memory of 1
    cuda.use(1)
    assert cuda.call(*copy, stream) == 0


def test_an_event_of_another_context_cannot_be_recorded(cuda: Cuda) -> None:
    """Event of device 0, stream of device 1."""
    cuda.use(0)
    event = new_event(cuda)
    cuda.use(1)
    assert cuda.call("cuEventRecord", event, cuda.stream(1)) == fakes.INVALID_HANDLE
    assert cuda.call("cuEventRecord", event, None) == fakes.INVALID_HANDLE
    assert cuda.call("cuEventRecord", event, cuda.stream(0)) == 0


# ---- memory and streams --------------------------------------------------------------------------


def test_a_host_read_of_device_memory_ends_the_process(cuda: Cuda) -> None:
    """A recorder that reads a device pointer dies of SIGSEGV, as with a real device."""
    script = "import ctypes\nctypes.string_at(cuda.malloc(0, 1.0), 4)\n"
    assert in_process(script).returncode == -signal.SIGSEGV


def test_a_stream_runs_its_operations_in_order(cuda: Cuda) -> None:
    """Each copy sees the store before it and not the one after it."""
    cuda.use(0)
    stream, value = cuda.stream(0), cuda.malloc(0, -1.0)
    slots = [Pinned(cuda) for _ in range(20)]
    with cuda.hanging(stream):
        for i, slot in enumerate(slots):
            cuda.store(stream, value, float(i))
            assert cuda.call("cuMemcpyDtoHAsync_v2", slot.address, value, 4, stream) == 0
        event = recorded_event(cuda, stream)
        assert cuda.call("cuEventQuery", event) == fakes.NOT_READY
    until_ready(cuda, event)
    assert [slot.value() for slot in slots] == [float(i) for i in range(20)]


def test_a_copy_returns_before_it_is_done(cuda: Cuda) -> None:
    """It only enqueues: behind a hang nothing moves."""
    cuda.use(0)
    stream, slot = cuda.stream(0), Pinned(cuda)
    before = slot.bytes.raw
    with cuda.hanging(stream):
        value = cuda.malloc(0, 3.0)
        assert cuda.call("cuMemcpyDtoHAsync_v2", slot.address, value, 4, stream) == 0
        assert not cuda.wait(stream, 0.02)
        assert slot.bytes.raw == before
    assert cuda.wait(stream)
    assert slot.value() == 3.0


def test_streams_do_not_wait_for_each_other(cuda: Cuda) -> None:
    """One hangs, the other completes."""
    cuda.use(0)
    slow, fast = cuda.stream(0), cuda.stream(0)
    with cuda.hanging(slow):
        first = recorded_event(cuda, slow)
        until_ready(cuda, recorded_event(cuda, fast))
        assert cuda.call("cuEventQuery", first) == fakes.NOT_READY
    until_ready(cuda, first)


def test_null_is_the_legacy_stream_of_the_current_context(cuda: Cuda) -> None:
    """A hang in device 1's legacy stream holds back NULL there, and not on device 0."""
    cuda.use(1)
    with cuda.hanging(cuda.legacy_stream(1)):
        late = recorded_event(cuda, None)
        cuda.use(0)
        until_ready(cuda, recorded_event(cuda, None))
        assert cuda.call("cuEventQuery", late) == fakes.NOT_READY
    until_ready(cuda, late)


def test_freed_memory_is_poisoned_in_stream_order_and_reused_at_once(cuda: Cuda) -> None:
    """A copy before the free gets the value; one after it gets poison, or the next value."""
    cuda.use(0)
    stream = cuda.stream(0)
    before, after, reused = Pinned(cuda), Pinned(cuda), Pinned(cuda)
    with cuda.hanging(stream):
        value = cuda.malloc(0, 1.5)
        cuda.call("cuMemcpyDtoHAsync_v2", before.address, value, 4, stream)
        cuda.free(value, stream)
        assert cuda.load(value) == 1.5, "the poison waits for the stream"
        cuda.call("cuMemcpyDtoHAsync_v2", after.address, value, 4, stream)
        assert cuda.allocate(0, 4) == value
        cuda.store(stream, value, 2.5)
        cuda.call("cuMemcpyDtoHAsync_v2", reused.address, value, 4, stream)
    assert cuda.wait(stream)
    assert before.value() == 1.5
    assert after.bytes.raw[:4] == bytes([fakes.POISON] * 4)
    assert reused.value() == 2.5


def test_memory_is_freed_once_and_only_if_it_was_given_out(cuda: Cuda) -> None:
    """A double free, the inside of a block and an unknown address are refused."""
    stream, value = cuda.stream(0), cuda.malloc(0, 1.0)
    for wrong in (value + 4, 0x1000):
        with pytest.raises(AssertionError):
            cuda.free(wrong, stream)
    cuda.free(value, stream)
    with pytest.raises(AssertionError):
        cuda.free(value, stream)


def test_a_copy_of_unmapped_memory_breaks_the_device(cuda: Cuda) -> None:
    """When it runs, not when it is enqueued; what is allocated there again is mapped."""
    cuda.use(0)
    stream, slot, value = cuda.stream(0), Pinned(cuda), cuda.malloc(0, 1.0)
    cuda.unmap(value)
    cuda.free(value, stream)
    assert cuda.wait(stream)
    assert cuda.malloc(0, 2.0) == value
    copy = ("cuMemcpyDtoHAsync_v2", slot.address, value, 4, stream)
    assert cuda.call(*copy) == 0
    assert cuda.wait(stream)
    assert slot.value() == 2.0
    cuda.hang(stream)
    assert cuda.call(*copy) == 0
    cuda.unmap(value)
    assert cuda.call("cuEventCreate", c_void_p(), 0) == 0
    cuda.release(stream)
    assert cuda.wait(stream)
    assert cuda.call("cuEventCreate", c_void_p(), 0) == fakes.ILLEGAL_ADDRESS


def test_a_context_beside_the_primary_one_has_streams_of_its_own(cuda: Cuda) -> None:
    """Its null stream is another one; events of one context are refused by streams of the other."""
    cuda.use(0)
    context = cuda.context(0)
    of_primary = new_event(cuda)
    assert cuda.call("cuEventRecord", of_primary, cuda.context_stream(context)) == (
        fakes.INVALID_HANDLE
    )
    assert cuda.call("cuCtxSetCurrent", context) == 0
    device = c_int(-1)
    assert cuda.call("cuCtxGetDevice", device) == 0
    assert device.value == 0
    assert cuda.call("cuEventRecord", of_primary, None) == fakes.INVALID_HANDLE
    cuda.hang(cuda.legacy_stream(0))
    until_ready(cuda, recorded_event(cuda, None))
    until_ready(cuda, recorded_event(cuda, cuda.context_stream(context)))
    cuda.release(cuda.legacy_stream(0))
    assert cuda.call("cuCtxSetCurrent", context + 4096) == fakes.INVALID_CONTEXT


def test_a_call_beyond_the_launch_queue_waits_for_room(cuda: Cuda) -> None:
    """Without its bound none does."""
    cuda.use(0)
    stream, event = cuda.stream(0), new_event(cuda)
    cuda.queue_depth(4)
    cuda.hang(stream)  # and is soon what the worker is busy with
    done: list[int] = []

    def record() -> None:
        cuda.use(0)
        done.extend(cuda.call("cuEventRecord", event, stream) for _ in range(8))

    thread = threading.Thread(target=record)
    thread.start()
    eventually(lambda: cuda.count("waiting_calls") == 1)
    assert cuda.count("cuEventRecord") == 4
    cuda.queue_depth(0)
    thread.join()
    assert done == [0] * 8
    assert cuda.call("cuEventQuery", event) == fakes.NOT_READY
    cuda.release(stream)
    until_ready(cuda, event)


def test_a_named_function_waits_until_it_is_let_go(cuda: Cuda) -> None:
    """No other one does."""
    cuda.use(0)
    cuda.stall("cuEventCreate")
    thread = threading.Thread(target=lambda: (cuda.use(0), new_event(cuda)))
    thread.start()
    eventually(lambda: cuda.count("waiting_calls") == 1)
    assert cuda.call("cuCtxGetCurrent", c_void_p()) == 0
    assert cuda.count("live_events") == 0
    cuda.stall("cuEventCreate", stalled=False)
    thread.join()
    assert cuda.count("live_events") == 1


def test_an_address_that_is_no_device_memory_cannot_be_copied(cuda: Cuda) -> None:
    """Host memory, NULL, and the end of what was given out."""
    cuda.use(0)
    slot, value = Pinned(cuda), cuda.allocate(0, 512)
    for address, size in ((0, 4), (slot.address, 4), (value + 512, 4), (value, 513)):
        code = cuda.call("cuMemcpyDtoHAsync_v2", slot.address, address, size, None)
        assert code == fakes.INVALID_VALUE


def test_a_copy_to_memory_that_is_not_pinned_is_counted(cuda: Cuda) -> None:
    """With a real driver it would wait for the device."""
    cuda.use(0)
    value, memory = cuda.malloc(0, 1.0), (c_char * 8)()
    slot = Pinned(cuda)
    assert cuda.call("cuMemcpyDtoHAsync_v2", slot.address, value, 4, None) == 0
    assert cuda.count("pageable_copies") == 0
    assert cuda.call("cuMemcpyDtoHAsync_v2", addressof(memory), value, 4, None) == 0
    assert cuda.wait(cuda.legacy_stream(0))
    assert cuda.count("pageable_copies") == 1


# ---- events --------------------------------------------------------------------------------------


def test_a_delay_holds_back_the_event_behind_it(cuda: Cuda) -> None:
    """The time between two events around a delay is that of the delay."""
    cuda.use(0)
    stream = cuda.stream(0)
    took = c_float()
    with cuda.hanging(stream):
        start = recorded_event(cuda, stream, 0)
        cuda.delay(stream, 20_000)
        end = recorded_event(cuda, stream, 0)
        assert cuda.call("cuEventElapsedTime", took, start, end) == fakes.NOT_READY
    until_ready(cuda, end)
    assert cuda.call("cuEventElapsedTime", took, start, end) == 0
    assert 19 < took.value < 2000


def test_elapsed_time_needs_events_with_timing_that_were_recorded(cuda: Cuda) -> None:
    """Both mistakes are an invalid handle."""
    cuda.use(0)
    timed, untimed = recorded_event(cuda, None, 0), recorded_event(cuda, None)
    until_ready(cuda, untimed)
    took = c_float()
    assert cuda.call("cuEventElapsedTime", took, timed, untimed) == fakes.INVALID_HANDLE
    assert cuda.call("cuEventElapsedTime", took, timed, new_event(cuda, 0)) == fakes.INVALID_HANDLE
    assert cuda.call("cuEventElapsedTime", took, timed, timed) == 0


def test_an_event_that_was_never_recorded_is_complete(cuda: Cuda) -> None:
    """As the driver's documentation has it."""
    cuda.use(0)
    assert cuda.call("cuEventQuery", new_event(cuda)) == 0


def test_an_event_recorded_again_waits_for_the_newer_record(cuda: Cuda) -> None:
    """The first record is complete, the second is not."""
    cuda.use(0)
    stream = cuda.stream(0)
    event = recorded_event(cuda, stream)
    until_ready(cuda, event)
    with cuda.hanging(stream):
        assert cuda.call("cuEventRecord", event, stream) == 0
        assert cuda.call("cuEventQuery", event) == fakes.NOT_READY
    until_ready(cuda, event)


def test_of_two_streams_that_record_an_event_the_later_call_counts(cuda: Cuda) -> None:
    """Whichever of them gets there first."""
    cuda.use(0)
    slow, fast = cuda.stream(0), cuda.stream(0)
    with cuda.hanging(slow):
        event = recorded_event(cuda, slow)
        assert cuda.call("cuEventRecord", event, fast) == 0
        until_ready(cuda, event)
    assert cuda.wait(slow)
    assert cuda.call("cuEventQuery", event) == 0


def test_a_destroyed_event_is_unknown(cuda: Cuda) -> None:
    """Even while the device still has it in a queue."""
    cuda.use(0)
    stream = cuda.stream(0)
    with cuda.hanging(stream):
        event = recorded_event(cuda, stream)
        assert cuda.count("live_events") == 1
        assert cuda.call("cuEventDestroy_v2", event) == 0
        assert cuda.call("cuEventQuery", event) == fakes.INVALID_HANDLE
    assert cuda.wait(stream)
    assert cuda.count("live_events") == 0


# ---- injections ----------------------------------------------------------------------------------


def test_ready_events_can_be_reported_as_not_ready(cuda: Cuda) -> None:
    """For the number of queries that was asked for."""
    cuda.use(0)
    event = recorded_event(cuda, None)
    until_ready(cuda, event)
    cuda.not_ready(2)
    codes = [cuda.call("cuEventQuery", event) for _ in range(3)]
    assert codes == [fakes.NOT_READY, fakes.NOT_READY, 0]


def test_a_named_function_fails_as_often_as_asked(cuda: Cuda) -> None:
    """A number of times, or for ever until it is taken back; an unknown name is an error."""
    cuda.use(0)
    cuda.fail("cuEventCreate", 2, 2)
    event = c_void_p()
    assert [cuda.call("cuEventCreate", event, 0) for _ in range(3)] == [2, 2, 0]
    cuda.fail("cuEventCreate", 2, -1)
    assert {cuda.call("cuEventCreate", event, 0) for _ in range(50)} == {2}
    cuda.fail("cuEventCreate", 0, 0)
    assert cuda.call("cuEventCreate", event, 0) == 0
    assert cuda.count("cuEventCreate") == 54
    with pytest.raises(AssertionError):
        cuda.fail("cuNothing", 1)


def test_a_broken_device_answers_everything_with_its_error(cuda: Cuda) -> None:
    """Its queues stand still; the other device goes on."""
    cuda.use(1)
    other = recorded_event(cuda, None)
    cuda.use(0)
    stream, slot = cuda.stream(0), Pinned(cuda)
    value = cuda.malloc(0, 1.0)
    cuda.hang(stream)
    before = slot.bytes.raw
    assert cuda.call("cuMemcpyDtoHAsync_v2", slot.address, value, 4, stream) == 0
    event = recorded_event(cuda, stream)
    cuda.break_device(0, fakes.ILLEGAL_ADDRESS)
    cuda.release(stream)
    assert cuda.wait(stream)
    assert slot.bytes.raw == before
    for call in (
        ("cuEventQuery", event),
        ("cuEventRecord", event, stream),
        ("cuEventCreate", c_void_p(), 0),
        ("cuMemHostAlloc", c_void_p(), 8, 1),
        ("cuMemcpyDtoHAsync_v2", slot.address, value, 4, stream),
        ("cuStreamIsCapturing", stream, c_int()),
    ):
        assert cuda.call(*call) == fakes.ILLEGAL_ADDRESS, call
    cuda.use(1)
    until_ready(cuda, other)
    assert cuda.call("cuEventQuery", event) == fakes.ILLEGAL_ADDRESS


# ---- counts, reset, processes --------------------------------------------------------------------


def test_every_way_to_wait_is_counted(cuda: Cuda) -> None:
    """And really waits: the value is there afterwards."""
    cuda.use(0)
    stream, slot, value = cuda.stream(0), Pinned(cuda), cuda.malloc(0, 4.0)
    cuda.delay(stream, 5000)
    event = recorded_event(cuda, stream)
    assert cuda.count("synchronisations") == 0
    assert cuda.call("cuStreamSynchronize", stream) == 0
    assert cuda.call("cuEventQuery", event) == 0
    assert cuda.call("cuEventSynchronize", event) == 0
    assert cuda.call("cuCtxSynchronize") == 0
    assert cuda.call("cuMemcpyDtoH_v2", slot.address, value, 4) == 0
    assert slot.value() == 4.0
    assert cuda.count("synchronisations") == 4


def test_live_host_allocations_are_counted(cuda: Cuda) -> None:
    """Freed memory counts no more."""
    cuda.use(0)
    slot, _ = Pinned(cuda), Pinned(cuda)
    assert cuda.count("live_host_allocations") == 2
    assert cuda.call("cuMemFreeHost", slot.address) == 0
    assert cuda.call("cuMemFreeHost", slot.address) == fakes.INVALID_VALUE
    assert cuda.count("live_host_allocations") == 1


def test_a_reset_ends_hangs_and_forgets_everything(cuda: Cuda) -> None:
    """Old handles are unknown for good, old slots stay readable."""
    cuda.use(0)
    stream, slot = cuda.stream(0), Pinned(cuda)
    event = recorded_event(cuda, stream)
    cuda.hang(stream)
    cuda.delay(stream, 60_000_000)
    cuda.fail("cuCtxGetCurrent", 1, -1)
    cuda.begin_capture(cuda.stream(0))
    started = time.monotonic()
    cuda.reset()
    assert time.monotonic() - started < 10
    current = c_void_p(1)
    assert cuda.call("cuCtxGetCurrent", current) == 0
    assert current.value is None
    counts = ("live_events", "live_host_allocations", "captured_ops", "cuEventRecord")
    assert [cuda.count(name) for name in counts] == [0, 0, 0, 0]
    cuda.use(0)
    new_event(cuda)
    assert cuda.call("cuEventQuery", event) == fakes.INVALID_HANDLE
    assert cuda.call("cuEventRecord", new_event(cuda), stream) == fakes.INVALID_HANDLE
    assert len(slot.bytes.raw) == 8


def test_counts_can_be_reset_alone(cuda: Cuda) -> None:
    """For a test beside a recorder that keeps its events."""
    cuda.use(0)
    event = new_event(cuda)
    cuda.fail("cuEventQuery", 1, -1)
    cuda.reset_counts()
    assert cuda.count("cuEventCreate") == 0
    assert cuda.count("live_events") == 1
    assert cuda.call("cuEventQuery", event) == 0


def test_calls_of_a_forked_child_are_refused_and_counted(cuda: Cuda) -> None:
    """Even where another thread was inside the driver at the fork: nothing there is touched."""
    script = """
import ctypes, os, threading
cuda.use(0)
event = ctypes.c_void_p()
assert cuda.call("cuEventCreate", event, 0) == 0
ended = threading.Event()
def query():
    cuda.use(0)
    while not ended.is_set():
        assert cuda.call("cuEventQuery", event) == 0
thread = threading.Thread(target=query)
thread.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        codes = {cuda.call("cuEventQuery", event), cuda.call("cuCtxSetCurrent", None)}
        os._exit(0 if codes == {fakes.NOT_INITIALIZED} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
ended.set()
thread.join()
assert cuda.calls_in_child() == 40
assert cuda.count("cuCtxSetCurrent") == 2
"""
    result = in_process(script)
    assert result.returncode == 0, result.stderr


def test_a_process_ends_while_a_stream_hangs(cuda: Cuda) -> None:
    """Workers keep no process alive."""
    script = "cuda.use(0)\nstream = cuda.stream(0)\ncuda.hang(stream)\ncuda.delay(stream, 10**9)\n"
    assert in_process(script).returncode == 0


def test_loading_the_same_path_twice_gives_one_instance(cuda: Cuda) -> None:
    """The recorder's dlopen() and the test's see the same devices."""
    other = Cuda(cuda.path)
    other.activate(0)
    assert cuda.call("cuCtxGetCurrent", c_void_p()) == 0
    assert other.count("cuCtxGetCurrent") == 1
    assert os.environ["FASTLOG_CUDA_LIBRARY"] == str(cuda.path)


def test_errors_have_names(cuda: Cuda, hip: Cuda) -> None:
    """Through cuGetErrorName, and for HIP as a result."""
    name = c_char_p()
    get = cuda.library["cuGetErrorName"]
    get.argtypes = [c_int, POINTER(c_char_p)]
    assert get(fakes.ILLEGAL_ADDRESS, name) == 0
    assert name.value == b"CUDA_ERROR_ILLEGAL_ADDRESS"
    assert get(424242, name) == fakes.INVALID_VALUE
    get = hip.library["hipGetErrorName"]
    get.restype = c_char_p
    assert get(fakes.NOT_READY) == b"hipErrorNotReady"


def test_the_same_machine_has_the_names_of_hip(hip: Cuda) -> None:
    """A value goes the whole way; CUDA's names are not there."""
    hip.use(0)
    stream, slot = hip.stream(0), Pinned(hip)
    value = hip.malloc(0, 0.5, "bf16")
    assert hip.call("cuMemcpyDtoHAsync_v2", slot.address, value, 2, stream) == 0
    until_ready(hip, recorded_event(hip, stream))
    assert slot.value("bf16") == 0.5
    assert hip.library.fake_count(b"hipMemcpyDtoHAsync") == hip.count("cuMemcpyDtoHAsync_v2") == 1
    with pytest.raises(AttributeError):
        _ = hip.library.cuEventQuery


# ---- sanitizers ----------------------------------------------------------------------------------


def stress(sanitizer: str) -> Path:
    """Build the stress program, or skip where the compiler cannot."""
    flags = ("-O1", "-g", f"-fsanitize={sanitizer}", "-pthread")
    try:
        return fakes.compile_c(f"stress-{sanitizer}", ("stress.c", *fakes.DRIVER_SOURCES), *flags)
    except subprocess.CalledProcessError:
        pytest.skip(f"the compiler has no -fsanitize={sanitizer}")


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_many_threads_at_once_find_no_fault(sanitizer: str) -> None:
    """Under ThreadSanitizer and AddressSanitizer."""
    result = subprocess.run([stress(sanitizer)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_slot_that_is_read_before_its_event_is_a_race() -> None:
    """The fake's own locks do not hide the reader's mistake from ThreadSanitizer."""
    result = subprocess.run(
        [stress("thread"), "early"], capture_output=True, text=True, check=False
    )
    assert "data race" in result.stderr
