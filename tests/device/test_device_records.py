"""Records with values of devices: many in one, many streams, order, time; other streams go on."""

from __future__ import annotations

import logging
import random
import time
from datetime import datetime
from pathlib import Path

import pytest
from device import fakes
from device.alone import alone, at_once, eventually
from device.driving import one_line, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines, segments, steps

from foundry_fastlog import ErrorTracker, Recorder


@pytest.mark.parametrize("count", [8, 9, 64, 65, 300])
@alone
def test_a_record_has_room_for_many_values(cuda: Cuda, run: Path, count: int) -> None:
    """Eight share an event; each value has its key."""
    stream = working_stream(cuda)
    with Recorder(run) as recorder:
        given = {f"layer.{i}": cuda.tensor(i * 0.5, stream=stream) for i in range(count)}
        assert recorder.record_dict(3, {"first": -1.0, **given, "last": "x"})
    assert cuda.count("cuEventRecord") == (count + 7) // 8 + 1  # one tries the stream first
    assert cuda.count("cuMemcpyDtoHAsync_v2") == count
    expected = {"first": -1.0, **{f"layer.{i}": i * 0.5 for i in range(count)}, "last": "x"}
    assert one_line(run)["metrics"] == expected


@alone
def test_one_record_takes_values_of_several_devices(cuda: Cuda, run: Path) -> None:
    """On each one's current stream; the line waits for the last, whichever it is."""
    cuda.set_devices(3)
    streams = [working_stream(cuda, device) for device in range(3)]
    cuda.use(1)  # the thread's current context is neither the first nor the last
    for hung in range(3):
        with Recorder(run / str(hung), flush_interval_s=0.01) as recorder:
            cuda.hang(streams[hung])
            values = {
                f"v{i}": cuda.tensor(i + 0.5, device=i % 3, stream=streams[i % 3])
                for i in (0, 4, 2, 1, 5, 3)
            }
            assert recorder.record_dict(0, values)
            assert not recorder.flush(0.1)
            assert lines(recorder.path) == []
            cuda.release(streams[hung])
        assert one_line(run / str(hung))["metrics"] == {
            f"v{i}": i + 0.5 for i in (0, 4, 2, 1, 5, 3)
        }
    assert cuda.count("contexts_created") == 0


@alone
def test_the_threads_own_context_stays_current(cuda: Cuda, run: Path) -> None:
    """Recording a value of another device changes nothing for the program."""
    import ctypes

    working_stream(cuda, 1)
    working_stream(cuda, 0)
    before, after = ctypes.c_void_p(), ctypes.c_void_p()
    assert cuda.call("cuCtxGetCurrent", before) == 0
    with Recorder(run) as recorder:
        assert recorder.record(0, v=cuda.tensor(1.0, device=1))
        assert cuda.call("cuCtxGetCurrent", after) == 0
    assert before.value == after.value
    assert one_line(run)["metrics"] == {"v": 1.0}


@alone
def test_each_record_uses_the_stream_that_is_current(cuda: Cuda, run: Path) -> None:
    """A value is copied behind the work of the stream on which it was computed."""
    cuda.use(0)
    streams = [cuda.stream(0, nonblocking=True) for _ in range(5)]
    with Recorder(run) as recorder:
        for step in range(100):
            stream = streams[step % 5]
            cuda.set_stream(stream, 0)
            cuda.delay(stream, 200 * (5 - step % 5))
            recorder.record(step, v=cuda.tensor(step * 1.0, stream=stream))
    assert [line["metrics"]["v"] for line in lines(run)] == [float(i) for i in range(100)]


@alone
def test_the_legacy_stream_is_a_stream_like_others(cuda: Cuda, run: Path) -> None:
    """NULL, what torch uses by default."""
    cuda.use(0)
    stream = cuda.legacy_stream(0)
    with Recorder(run) as recorder:
        cuda.delay(stream, 20_000)
        recorder.record(0, v=cuda.tensor(1.5, stream=stream))
    assert one_line(run)["metrics"] == {"v": 1.5}


@alone
def test_out_of_order_completion_does_not_misplace_a_value(cuda: Cuda, run: Path) -> None:
    """Streams of two devices end in any order; each line has its own values."""
    rng = random.Random(5)
    for device in (1, 0):
        cuda.use(device)
    streams = [(d, cuda.stream(d, nonblocking=True)) for d in (0, 1) for _ in range(4)]
    expected = []
    with Recorder(run, flush_interval_s=0.005) as recorder:
        for step in range(400):
            values = {}
            for name in ("a", "b"):
                device, stream = rng.choice(streams)
                cuda.set_stream(stream, device)
                if rng.random() < 0.2:
                    cuda.delay(stream, rng.randrange(3000))
                values[name] = cuda.tensor(step + len(values) / 2, device=device, stream=stream)
            # Both on one device would use its last current stream: the first's is waited for.
            if values["a"].device == values["b"].device:
                assert cuda.wait(streams[0][1])
                for _, stream in streams:
                    assert cuda.wait(stream)
            recorder.record_dict(step, values)
            expected.append({"a": float(step), "b": step + 0.5})
    found = lines(run)
    assert [line["step"] for line in found] == list(range(400))
    assert [line["metrics"] for line in found] == expected


@alone
def test_ten_thousand_records_arrive_in_order(cuda: Cuda, run: Path) -> None:
    """Each value in the line of its step, with its neighbours from the CPU."""
    stream = working_stream(cuda)
    loss, grad = cuda.malloc(0, 0.0), cuda.malloc(0, 0, "i64")
    make = fakes.load_tensors().FakeTensor
    tensors = (
        make(loss, fakes.tensor_dtype("fp32"), (fakes.CUDA, 0)),
        make(grad, fakes.tensor_dtype("i64"), (fakes.CUDA, 0)),
    )
    with Recorder(run) as recorder:
        for step in range(10_000):
            cuda.store(stream, loss, step / 8)
            cuda.store(stream, grad, -step, "i64")
            assert recorder.record(step, loss=tensors[0], lr=step * 2, grad=tensors[1])
        assert cuda.wait(stream)
        assert recorder.flush(30)
        stats = recorder.stats()["device"]
        assert (stats["scalars"], stats["missing"]) == (20_000, 0)
        assert eventually(lambda: recorder.stats()["device"]["waiting"] == 0)
    found = lines(run)
    assert [line["step"] for line in found] == list(range(10_000))
    for step, line in enumerate(found):
        assert line["metrics"] == {"loss": step / 8, "lr": step * 2, "grad": -step}, step
    assert cuda.count("synchronisations") == cuda.count("pageable_copies") == 0


@alone
def test_the_timestamp_is_that_of_the_call(cuda: Cuda, run: Path) -> None:
    """Not that of the value's arrival, half a second later."""
    stream = working_stream(cuda)
    with Recorder(run, flush_interval_s=0.01) as recorder:
        cuda.hang(stream)
        begin = time.time()
        recorder.record(0, v=cuda.tensor(1.0, stream=stream))
        end = time.time()
        time.sleep(0.5)
        cuda.release(stream)
    stamp = one_line(run)["timestamp"].replace("Z", "+00:00")
    found = datetime.fromisoformat(stamp).timestamp()
    assert begin - 0.01 <= found <= end + 0.01


@alone
def test_lines_stay_in_the_order_of_their_calls(cuda: Cuda, run: Path) -> None:
    """One that waits holds those behind it in its file, with values of the CPU or of others."""
    slow = working_stream(cuda)
    fast = cuda.stream(0, nonblocking=True)
    with Recorder(run, flush_interval_s=0.005) as recorder:
        recorder.record(0, v=1.0)
        with cuda.hanging(slow):
            recorder.record(1, v=cuda.tensor(2.0, stream=slow))
            recorder.record(2, v=3.0)
            cuda.set_stream(fast, 0)
            recorder.record(3, v=cuda.tensor(4.0, stream=fast))
            assert cuda.wait(fast)
            assert not recorder.flush(0.1)
            assert steps(run) == [0]
    assert [line["metrics"]["v"] for line in lines(run)] == [1.0, 2.0, 3.0, 4.0]


@alone
def test_other_streams_pass_a_metrics_line_that_waits(cuda: Cuda, run: Path) -> None:
    """log, errors and performance are in their files while the device hangs."""
    stream = working_stream(cuda)
    with Recorder(run, flush_interval_s=0.005) as recorder, cuda.hanging(stream):
        recorder.record(0, v=cuda.tensor(2.0, stream=stream))
        for step in range(50):
            with recorder.timer("block", step=step):
                recorder.event(f"message {step}")
            recorder.event("fault", error=ValueError("x"))
        for name in ("log", "errors", "performance"):
            assert recorder.flush(20, stream=name), name
            assert len(lines(run, name)) == 50
        assert not recorder.flush(0.01, stream="metrics")
        assert lines(run) == []
    assert one_line(run)["metrics"] == {"v": 2.0}


@alone
def test_an_error_is_logged_at_once_while_the_device_hangs(cuda: Cuda, run: Path) -> None:
    """ErrorTracker waits for its own line, and for no other."""
    stream = working_stream(cuda)
    quiet = logging.getLogger("quiet")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    recorder = Recorder(run)
    tracker = ErrorTracker(quiet, run, recorder=recorder)
    with cuda.hanging(stream):
        recorder.record(0, v=cuda.tensor(2.0, stream=stream))
        with at_once(3.0):
            tracker.log_error(ValueError("CUDA error"), {"step": 0})
        assert one_line(run, "errors")["error_message"] == "CUDA error"
        assert lines(run) == []
    recorder.close()
    assert one_line(run)["metrics"] == {"v": 2.0}


@alone
def test_segments_rotate_around_lines_that_wait(cuda: Cuda, run: Path) -> None:
    """Small segments, values on the way: every line once, in order."""
    stream = working_stream(cuda)
    with Recorder(run, segment_bytes=4096, flush_interval_s=0.002) as recorder:
        for step in range(500):
            if step % 50 == 0:
                cuda.delay(stream, 5000)
            recorder.record(step, v=cuda.tensor(step / 4, stream=stream), lr=0.1)
    assert len(segments(run)) > 5
    assert [line["metrics"]["v"] for line in lines(run)] == [step / 4 for step in range(500)]
