"""Values are those at the moment of the call, in the order of the stream, and nobody waits."""

from __future__ import annotations

import gc
import random
import threading
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from device import fakes
from device.alone import alone, at_once, eventually
from device.driving import one_line, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import Recorder

# ---- snapshots -----------------------------------------------------------------------------------


@alone
def test_a_value_may_be_changed_in_place_right_after_the_call(cuda: Cuda, run: Path) -> None:
    """As `loss.zero_()` does: the next kernel of the stream writes to it."""
    stream = working_stream(cuda)
    loss = cuda.tensor(0.0)
    with Recorder(run) as recorder:
        cuda.delay(stream, 5000)
        for step in range(200):
            cuda.store(stream, loss.data_ptr(), float(step))
            recorder.record(step, loss=loss)
            cuda.store(stream, loss.data_ptr(), -1.0)
    assert [line["metrics"]["loss"] for line in lines(run)] == [float(i) for i in range(200)]


@alone
def test_a_value_may_be_freed_and_its_memory_reused_right_after_the_call(
    cuda: Cuda, run: Path
) -> None:
    """The allocator gives the same block out again, and what was in it is poisoned."""
    stream = working_stream(cuda)
    addresses = set()
    with Recorder(run) as recorder:
        cuda.delay(stream, 5000)
        for step in range(200):
            loss = cuda.tensor(step / 2, stream=stream)
            addresses.add(loss.data_ptr())
            recorder.record(step, loss=loss)
            cuda.free(loss.data_ptr(), stream)
            del loss
    assert len(addresses) == 1
    assert [line["metrics"]["loss"] for line in lines(run)] == [i / 2 for i in range(200)]


@alone
def test_a_value_that_is_still_being_computed_is_waited_for(cuda: Cuda, run: Path) -> None:
    """By its line, not by the caller: what is in the memory at the call is of no interest."""
    stream = working_stream(cuda)
    with Recorder(run) as recorder:
        with cuda.hanging(stream):
            loss = cuda.tensor(1.5, stream=stream)
            assert cuda.load(loss.data_ptr()) != 1.5
            recorder.record(0, loss=loss)
        assert recorder.flush(20)
    assert one_line(run)["metrics"] == {"loss": 1.5}


@alone
def test_no_reference_to_a_tensor_is_kept(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """Neither to it nor to the graph behind it, though its value is on the way."""
    stream = working_stream(cuda)
    with Recorder(run) as recorder, cuda.hanging(stream):
        before = fake_tensor.live()
        for step in range(50):
            recorder.record(step, loss=cuda.tensor(1.5, stream=stream, requires_grad=True))
        gc.collect()
        assert fake_tensor.live() == before
        assert fake_tensor.live_exports() == 0


@alone
def test_a_slot_is_used_again_only_when_its_value_was_read(cuda: Cuda, run: Path) -> None:
    """Far more values than slots at once, over streams that are slow by turns."""
    cuda.use(0)
    rng = random.Random(3)
    places = [(cuda.stream(0, nonblocking=True), cuda.tensor(0.0, "fp64")) for _ in range(3)]
    with Recorder(run, flush_interval_s=0.001) as recorder:
        for step in range(3000):
            stream, loss = places[step % 3]
            cuda.set_stream(stream, 0)
            if rng.random() < 0.01:
                cuda.delay(stream, rng.randrange(4000))
            cuda.store(stream, loss.data_ptr(), float(step), "fp64")
            recorder.record(step, a=loss, b=loss, c=loss)
    for step, line in enumerate(lines(run)):
        assert line["metrics"] == dict.fromkeys("abc", float(step)), step


# ---- nobody waits --------------------------------------------------------------------------------


@alone
def test_recording_never_synchronises(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """No call of the driver that waits, no copy to memory that is not pinned, no item()."""
    stream = working_stream(cuda)
    working_stream(cuda, 1)
    with Recorder(run) as recorder:
        for step in range(100):
            recorder.record(
                step, a=cuda.tensor(1.0, stream=stream), b=cuda.tensor(2, "i8", device=1)
            )
    assert len(lines(run)) == 100
    assert cuda.count("synchronisations") == 0
    assert cuda.count("pageable_copies") == 0
    assert cuda.count("contexts_created") == 0
    assert cuda.count("live_host_allocations") == 1
    assert fake_tensor.item_calls() == fake_tensor.to_calls() == 0


@alone
def test_a_call_returns_at_once_while_the_stream_hangs(cuda: Cuda, run: Path) -> None:
    """With four values each, as a training step has."""
    stream = working_stream(cuda)
    with Recorder(run) as recorder:
        with cuda.hanging(stream), at_once(2.0):
            for step in range(500):
                values = {name: cuda.tensor(1.0 + step, stream=stream) for name in "abcd"}
                recorder.record_dict(step, values)
        assert recorder.flush(30)
    assert [line["metrics"]["d"] for line in lines(run)] == [1.0 + i for i in range(500)]


@alone
def test_what_is_needed_of_the_driver_is_made_once(cuda: Cuda, run: Path) -> None:
    """Per call: the copy and the event; contexts, slots and events are kept."""
    stream = working_stream(cuda)
    loss = cuda.tensor(1.0)
    with Recorder(run, flush_interval_s=0.001) as recorder:
        for step in range(3):
            recorder.record(step, loss=loss)
            assert recorder.flush(20)
            assert eventually(lambda: recorder.stats()["device"]["waiting"] == 0)
        assert cuda.wait(stream)
        names = ("cuMemHostAlloc", "cuEventCreate", "cuDevicePrimaryCtxRetain", "cuDeviceGet")
        assert [cuda.count(name) for name in names] == [1, 1, 1 + 1, 1]  # use() retains, too
        assert cuda.count("cuMemFreeHost") == cuda.count("cuEventDestroy_v2") == 0
        copies = cuda.count("cuMemcpyDtoHAsync_v2"), cuda.count("cuEventRecord")
        recorder.record(3, loss=loss)
        assert (cuda.count("cuMemcpyDtoHAsync_v2"), cuda.count("cuEventRecord")) == (
            copies[0] + 1,
            copies[1] + 1,
        )


@alone
def test_only_the_oldest_event_of_a_stream_is_asked(cuda: Cuda, run: Path) -> None:
    """Many records that wait cost the flush thread one question a round."""
    stream = working_stream(cuda)
    with Recorder(run, flush_interval_s=0.02) as recorder, cuda.hanging(stream):
        for step in range(1000):
            recorder.record(step, loss=cuda.tensor(1.0, stream=stream))
        before = cuda.count("cuEventQuery")
        assert not recorder.flush(0.2)
        assert cuda.count("cuEventQuery") - before < 500


@alone
def test_events_that_are_not_ready_are_asked_again(cuda: Cuda, run: Path) -> None:
    """However often; never by waiting."""
    working_stream(cuda)
    with Recorder(run, flush_interval_s=0.001) as recorder:
        cuda.not_ready(200)
        recorder.record(0, loss=cuda.tensor(1.5))
        assert recorder.flush(20)
    assert cuda.count("cuEventQuery") > 200
    assert one_line(run)["metrics"] == {"loss": 1.5}


@alone
def test_importing_and_opening_touches_no_driver(cuda: Cuda, run: Path) -> None:
    """Nor do records of the CPU: a program without a device makes no context and loads nothing."""
    with Recorder(run) as recorder:
        recorder.record(0, loss=1.5, cpu=fakes.host_tensor(2.5))
        with recorder.timer("block"):
            pass
        recorder.event("message")
        assert recorder.flush(20)
        assert recorder.stats()["device"] == {
            "scalars": 0,
            "waiting": 0,
            "missing": 0,
            "error": None,
        }
    assert {name: cuda.count(name) for name in fakes.API} == dict.fromkeys(fakes.API, 0)
    assert cuda.count("contexts_created") == cuda.count("live_host_allocations") == 0


@alone
def test_no_context_is_made_where_the_framework_has_none(cuda: Cuda, run: Path) -> None:
    """A tensor of a device whose context is not active: its value is missing, the line is there."""
    working_stream(cuda, 1)
    with Recorder(run) as recorder:
        recorder.record(0, loss=cuda.tensor(1.0, device=0), other=cuda.tensor(2.0, device=1))
    assert cuda.count("contexts_created") == 0
    line = one_line(run)
    assert line["metrics"] == {"loss": None, "other": 2.0}
    assert line["missing"] == {"loss": "driver_error_201"}


@alone
def test_many_threads_record_values_of_devices(cuda: Cuda, run: Path) -> None:
    """Each on a stream of its own, as torch's current stream belongs to a thread."""
    cuda.use(0)
    errors: list[Any] = []

    def work(number: int) -> None:
        stream = cuda.stream(0, nonblocking=True)
        try:
            for step in range(300):
                value = cuda.tensor(number * 1000.0 + step, "fp64")
                if step % 40 == 0:
                    cuda.delay(stream, 500)
                assert recorder.record_dict(step, {f"v{number}": value, "cpu": number})
        except Exception:  # noqa: BLE001 - shown below
            errors.append(traceback.format_exc())

    with Recorder(run, flush_interval_s=0.002) as recorder:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    for number in range(4):
        mine = [line for line in lines(run) if line["metrics"]["cpu"] == number]
        assert [line["metrics"][f"v{number}"] for line in mine] == [
            number * 1000.0 + step for step in range(300)
        ]
    assert cuda.count("synchronisations") == 0


@pytest.mark.parametrize("requires_grad", [False, True])
@alone
def test_the_hot_path_runs_on_rocm(
    hip: Cuda, fake_tensor: ModuleType, run: Path, requires_grad: bool
) -> None:
    """The same calls under HIP's names, for tensors that torch calls `cuda`, too."""
    stream = working_stream(hip)
    with Recorder(run) as recorder, hip.hanging(stream), at_once():
        for step in range(20):
            loss = hip.tensor(step / 4, "bf16", stream=stream, requires_grad=requires_grad)
            recorder.record(step, loss=loss, lr=0.5)
            hip.store(stream, loss.data_ptr(), -1.0, "bf16")
    assert [line["metrics"]["loss"] for line in lines(run)] == [i / 4 for i in range(20)]
    assert hip.count("synchronisations") == hip.count("pageable_copies") == 0
    assert hip.count("cuMemcpyDtoHAsync_v2") == 20
    assert fake_tensor.item_calls() == 0


@alone
def test_both_drivers_may_be_in_one_process(cuda: Cuda, hip: Cuda, run: Path) -> None:
    """Each kind of device has a table and tickets of its own."""
    for driver in (cuda, hip):
        working_stream(driver)
    with Recorder(run) as recorder:
        for step in range(50):
            recorder.record(step, a=cuda.tensor(step), b=hip.tensor(-step, "i32"))
    assert [line["metrics"] for line in lines(run)] == [
        {"a": float(step), "b": -step} for step in range(50)
    ]
