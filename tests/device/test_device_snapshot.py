"""Values are those at the moment of the call, in the order of the stream, and nobody waits."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from device import fakes
from device.alone import alone, at_once
from device.driving import losses, one_line, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import Recorder


@alone
def test_a_value_may_be_changed_or_freed_right_after_the_call(cuda: Cuda, run: Path) -> None:
    """`loss.zero_()` is the next kernel; the allocator gives out the same, poisoned block again."""
    stream = working_stream(cuda)
    kept = cuda.tensor(0.0)
    addresses = set()
    with Recorder(run) as recorder:
        cuda.delay(stream, 5000)
        for step in range(200):
            loss = cuda.tensor(step / 2, stream=stream)
            addresses.add(loss.data_ptr())
            cuda.store(stream, kept.data_ptr(), float(step))
            recorder.record(step, loss=loss, kept=kept)
            cuda.store(stream, kept.data_ptr(), -1.0)
            cuda.free(loss.data_ptr(), stream)
            del loss
    assert len(addresses) == 1
    assert losses(run) == [i / 2 for i in range(200)]
    assert losses(run, "kept") == [float(i) for i in range(200)]


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("make", ["cuda", "hip"])
@alone
def test_recording_waits_for_nothing_and_keeps_no_graph(
    cuda: Cuda, hip: Cuda, fake_tensor: ModuleType, run: Path, make: str, requires_grad: bool
) -> None:
    """No waiting call, no unpinned copy, no item(); of ROCm, which torch calls cuda, likewise."""
    driver = {"cuda": cuda, "hip": hip}[make]
    stream = working_stream(driver)
    working_stream(driver, 1)
    other = driver.tensor(2, "i8", device=1)
    with Recorder(run) as recorder, driver.hanging(stream), at_once(2.0):
        live = fake_tensor.live()
        for step in range(1, 101):
            a = driver.tensor(step / 4, "bf16", stream=stream, requires_grad=requires_grad)
            assert driver.load(a.data_ptr(), "bf16") != step / 4
            recorder.record(step, loss=a, b=other)
            driver.store(stream, a.data_ptr(), -1.0, "bf16")
        del a
        gc.collect()
        assert fake_tensor.live() == live
    assert losses(run) == [i / 4 for i in range(1, 101)]
    assert driver.count("cuMemcpyDtoHAsync_v2") == 200
    for name in ("synchronisations", "pageable_copies", "contexts_created"):
        assert driver.count(name) == 0
    assert driver.count("live_host_allocations") == 1
    assert fake_tensor.item_calls() == fake_tensor.to_calls() == 0


@alone
def test_both_drivers_may_be_in_one_process(cuda: Cuda, hip: Cuda, run: Path) -> None:
    """Each kind of device has a table and tickets of its own."""
    for driver in (cuda, hip):
        working_stream(driver)
    with Recorder(run) as recorder:
        for step in range(50):
            recorder.record(step, loss=cuda.tensor(step), b=hip.tensor(-step, "i32"))
    assert losses(run) == [float(step) for step in range(50)]
    assert losses(run, "b") == [-step for step in range(50)]


@alone
def test_importing_and_opening_touches_no_driver(cuda: Cuda, run: Path) -> None:
    """Nor do records of the CPU: a program without a device makes no context and loads nothing."""
    with Recorder(run) as recorder:
        recorder.record(0, loss=1.5, cpu=fakes.host_tensor(2.5))
        with recorder.timer("block"):
            pass
        recorder.event("message")
        assert recorder.flush(20)
        nothing = {"scalars": 0, "waiting": 0, "missing": 0, "error": None}
        assert recorder.stats()["device"] == nothing
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

    def work(number: int) -> None:
        stream = cuda.stream(0, nonblocking=True)
        for step in range(300):
            value = cuda.tensor(number * 1000.0 + step, "fp64")
            if step % 40 == 0:
                cuda.delay(stream, 500)
            assert recorder.record_dict(step, {f"v{number}": value, "cpu": number})

    with Recorder(run, flush_interval_s=0.002) as recorder, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    for number in range(4):
        mine = [line for line in lines(run) if line["metrics"]["cpu"] == number]
        expected = [number * 1000.0 + step for step in range(300)]
        assert [line["metrics"][f"v{number}"] for line in mine] == expected
    assert cuda.count("synchronisations") == 0
