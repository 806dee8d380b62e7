"""The fake driver keeps its promises: a test of the recorder is worth what its double is worth."""

from __future__ import annotations

import signal
import subprocess
import time
from ctypes import addressof, c_char, c_float, c_int, c_uint, c_void_p
from typing import Any

import pytest
from device import fakes
from device.driving import Pinned, in_thread, new_event, recorded_event, until_ready
from device.fakes import FakeDriver as Cuda
from recorded import run_python

LOADED = "from device import fakes\ncuda = fakes.load_driver()\n"


def copied(cuda: Cuda, slot: Pinned, value: int, stream: int | None, size: int = 4) -> int:
    """Copy to a slot; return the code."""
    return cuda.call("cuMemcpyDtoHAsync_v2", slot.address, value, size, stream)


# ---- contexts ------------------------------------------------------------------------------------


def test_a_primary_context_is_inactive_until_the_framework_makes_it(cuda: Cuda) -> None:
    """Asking makes none; retaining an inactive one is counted as making it."""
    flags, active, context = c_uint(7), c_int(7), c_void_p()
    assert cuda.call("cuDevicePrimaryCtxGetState", 1, flags, active) == 0
    assert (flags.value, active.value) == (0, 0)
    cuda.activate(1)
    assert cuda.call("cuDevicePrimaryCtxGetState", 1, flags, active) == 0
    assert (active.value, cuda.count("contexts_created")) == (1, 0)
    for _ in range(2):
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


def test_what_belongs_to_another_device_is_refused(cuda: Cuda) -> None:
    """Streams, memory and events of device 1 while device 0 is current; devices beyond the last."""
    cuda.use(0)
    slot, event = Pinned(cuda), new_event(cuda)
    cuda.activate(1)
    stream, value = cuda.stream(1), cuda.malloc(1, 2.5)
    assert copied(cuda, slot, value, stream) == fakes.INVALID_CONTEXT
    assert copied(cuda, slot, value, None) == fakes.INVALID_VALUE  # legacy of 0, memory of 1
    cuda.use(1)
    assert copied(cuda, slot, value, stream) == 0
    assert cuda.call("cuEventRecord", event, stream) == fakes.INVALID_HANDLE
    assert cuda.call("cuEventRecord", event, None) == fakes.INVALID_HANDLE
    assert cuda.call("cuEventRecord", event, cuda.stream(0)) == 0
    device = c_int()
    assert [cuda.call("cuDeviceGet", device, index) for index in (1, 2)] == [0, 101]
    cuda.set_devices(3)
    assert cuda.call("cuDeviceGet", device, 2) == 0


def test_a_context_beside_the_primary_one_has_streams_of_its_own(cuda: Cuda) -> None:
    """Its null stream is another one; events of one context are refused by streams of the other."""
    cuda.use(0)
    context = cuda.context(0)
    of_primary, foreign = new_event(cuda), cuda.context_stream(context)
    assert cuda.call("cuEventRecord", of_primary, foreign) == fakes.INVALID_HANDLE
    assert cuda.call("cuCtxSetCurrent", context) == 0
    device = c_int(-1)
    assert cuda.call("cuCtxGetDevice", device) == 0
    assert device.value == 0
    assert cuda.call("cuEventRecord", of_primary, None) == fakes.INVALID_HANDLE
    with cuda.hanging(cuda.legacy_stream(0)):
        until_ready(cuda, recorded_event(cuda, None))
        until_ready(cuda, recorded_event(cuda, foreign))
    assert cuda.call("cuCtxSetCurrent", context + 4096) == fakes.INVALID_CONTEXT


# ---- memory and streams --------------------------------------------------------------------------


def test_a_host_read_of_device_memory_ends_the_process(cuda: Cuda) -> None:
    """A recorder that reads a device pointer dies of SIGSEGV, as with a real device."""
    script = "import ctypes\nctypes.string_at(cuda.malloc(0, 1.0), 4)\n"
    run_python(LOADED + script, returncode=-signal.SIGSEGV)


def test_a_stream_runs_its_operations_in_order_and_behind_its_calls(cuda: Cuda) -> None:
    """Each copy sees the store before it and not the one after it; behind a hang nothing moves."""
    cuda.use(0)
    stream, value = cuda.stream(0), cuda.malloc(0, -1.0)
    slots = [Pinned(cuda) for _ in range(20)]
    before = slots[0].bytes.raw
    with cuda.hanging(stream):
        for i, slot in enumerate(slots):
            cuda.store(stream, value, float(i))
            assert copied(cuda, slot, value, stream) == 0
        event = recorded_event(cuda, stream)
        assert not cuda.wait(stream, 0.02)
        assert cuda.call("cuEventQuery", event) == fakes.NOT_READY
        assert {slot.bytes.raw for slot in slots} == {before}
    until_ready(cuda, event)
    assert [slot.value() for slot in slots] == [float(i) for i in range(20)]


def test_streams_do_not_wait_for_each_other(cuda: Cuda) -> None:
    """One hangs, the other completes. NULL is the legacy stream of the current context's device."""
    cuda.use(1)
    with cuda.hanging(cuda.legacy_stream(1)):
        late = recorded_event(cuda, None)
        until_ready(cuda, recorded_event(cuda, cuda.stream(1)))
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
        copied(cuda, before, value, stream)
        cuda.free(value, stream)
        assert cuda.load(value) == 1.5, "the poison waits for the stream"
        copied(cuda, after, value, stream)
        assert cuda.allocate(0, 4) == value
        cuda.store(stream, value, 2.5)
        copied(cuda, reused, value, stream)
    assert cuda.wait(stream)
    assert before.value() == 1.5
    assert after.bytes.raw[:4] == bytes([fakes.POISON] * 4)
    assert reused.value() == 2.5
    for wrong in (value + 4, 0x1000):  # the inside of a block, an unknown address
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
    assert copied(cuda, slot, value, stream) == 0
    assert cuda.wait(stream)
    assert slot.value() == 2.0
    with cuda.hanging(stream):
        assert copied(cuda, slot, value, stream) == 0
        cuda.unmap(value)
        assert cuda.call("cuEventCreate", c_void_p(), 0) == 0
    assert cuda.wait(stream)
    assert cuda.call("cuEventCreate", c_void_p(), 0) == fakes.ILLEGAL_ADDRESS


def test_a_copy_is_refused_of_what_is_no_device_memory_and_counted_to_what_is_not_pinned(
    cuda: Cuda,
) -> None:
    """Of host memory, NULL, the end of what was given out; with a real driver the other waits."""
    cuda.use(0)
    slot, value, memory = Pinned(cuda), cuda.allocate(0, 512), (c_char * 8)()
    for address, size in ((0, 4), (slot.address, 4), (value + 512, 4), (value, 513)):
        assert copied(cuda, slot, address, None, size) == fakes.INVALID_VALUE
    assert copied(cuda, slot, value, None) == 0
    assert cuda.count("pageable_copies") == 0
    assert cuda.call("cuMemcpyDtoHAsync_v2", addressof(memory), value, 4, None) == 0
    assert cuda.wait(cuda.legacy_stream(0))
    assert cuda.count("pageable_copies") == 1


# ---- events --------------------------------------------------------------------------------------


def test_elapsed_time_is_that_between_two_timed_events(cuda: Cuda) -> None:
    """Around a delay it is that of the delay; of others there is none."""
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
    untimed = recorded_event(cuda, None)
    until_ready(cuda, untimed)
    for other in (untimed, new_event(cuda, 0)):
        assert cuda.call("cuEventElapsedTime", took, start, other) == fakes.INVALID_HANDLE


def test_an_event_waits_for_its_newest_record(cuda: Cuda) -> None:
    """Of any stream, whichever gets there first; one that was never recorded is complete."""
    cuda.use(0)
    slow, fast = cuda.stream(0), cuda.stream(0)
    event = new_event(cuda)
    until_ready(cuda, event)
    with cuda.hanging(slow):
        assert cuda.call("cuEventRecord", event, slow) == 0
        assert cuda.call("cuEventQuery", event) == fakes.NOT_READY
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


# ---- injections, counts, processes ---------------------------------------------------------------


def test_a_broken_device_answers_everything_with_its_error(cuda: Cuda) -> None:
    """Its queues stand still; the other device goes on."""
    cuda.use(1)
    other = recorded_event(cuda, None)
    cuda.use(0)
    stream, slot = cuda.stream(0), Pinned(cuda)
    value = cuda.malloc(0, 1.0)
    cuda.hang(stream)
    before = slot.bytes.raw
    assert copied(cuda, slot, value, stream) == 0
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


def test_every_way_to_wait_is_counted_and_waits(cuda: Cuda) -> None:
    """The value is there afterwards. Host memory that is freed counts no more."""
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
    assert cuda.count("live_host_allocations") == 1
    freed = [cuda.call("cuMemFreeHost", slot.address) for _ in range(2)]
    assert freed == [0, fakes.INVALID_VALUE]
    assert cuda.count("live_host_allocations") == 0


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
cuda.hang(cuda.stream(0))  # which keeps no process alive
"""
    run_python(LOADED + script)


# ---- sanitizers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sanitizer", "arguments", "found"),
    [("thread", [], ""), ("address", [], ""), ("thread", ["early"], "data race")],
)
def test_many_threads_find_no_fault(sanitizer: str, arguments: list[str], found: str) -> None:
    """But a slot that is read before its event: the fake's own locks do not hide that mistake."""
    flags = ("-O1", "-g", f"-fsanitize={sanitizer}", "-pthread")
    sources = ("stress.c", *fakes.DRIVER_SOURCES)
    try:
        program = fakes.compile_c(f"stress-{sanitizer}", sources, *flags)
    except subprocess.CalledProcessError:
        pytest.skip(f"the compiler has no -fsanitize={sanitizer}")
    result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0 or found, result.stderr
    assert found in result.stderr
