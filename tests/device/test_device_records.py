"""Records with values of devices: many in one, many streams, order, time; other streams go on."""

from __future__ import annotations

import ctypes
import logging
import random
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from device.alone import alone, at_once
from device.driving import losses, one_line, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines, segments, steps

from foundry_fastlog import ErrorTracker, Recorder


@pytest.mark.parametrize("count", [8, 9, 65, 300])
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
    before, after = ctypes.c_void_p(), ctypes.c_void_p()
    assert cuda.call("cuCtxGetCurrent", before) == 0
    order = (0, 4, 2, 1, 5, 3)
    for hung in range(3):
        with Recorder(run / str(hung), flush_interval_s=0.01) as recorder:
            with cuda.hanging(streams[hung]):
                values = {
                    f"v{i}": cuda.tensor(i + 0.5, device=i % 3, stream=streams[i % 3])
                    for i in order
                }
                assert recorder.record_dict(0, values)
                assert not recorder.flush(0.1)
                assert lines(recorder.path) == []
            assert cuda.call("cuCtxGetCurrent", after) == 0
            assert before.value == after.value
        assert one_line(run / str(hung))["metrics"] == {f"v{i}": i + 0.5 for i in order}
    assert cuda.count("contexts_created") == 0


@alone
def test_out_of_order_completion_does_not_misplace_a_value(cuda: Cuda, run: Path) -> None:
    """Streams of two devices, legacy ones too, end in any order; each line has its own values."""
    rng = random.Random(5)
    streams: list[list[int]] = []
    for device in (0, 1):
        cuda.use(device)
        own = [cuda.stream(device, nonblocking=True) for _ in range(3)]
        streams.append([*own, cuda.legacy_stream(device)])
    expected = []
    with Recorder(run, flush_interval_s=0.005) as recorder:
        for step in range(400):
            values = {}
            for device, name in ((0, "a"), (1, "b")):
                stream = rng.choice(streams[device])
                cuda.set_stream(stream, device)
                if rng.random() < 0.2:
                    cuda.delay(stream, rng.randrange(3000))
                values[name] = cuda.tensor(step + device / 2, device=device, stream=stream)
            recorder.record_dict(step, values)
            expected.append((step, {"a": float(step), "b": step + 0.5}))
    assert [(line["step"], line["metrics"]) for line in lines(run)] == expected


@alone
def test_lines_have_the_order_and_the_time_of_their_calls(cuda: Cuda, run: Path) -> None:
    """One that waits holds those behind it in its file, with values of the CPU or of others."""
    slow = working_stream(cuda)
    fast = cuda.stream(0, nonblocking=True)
    with Recorder(run, flush_interval_s=0.005) as recorder:
        recorder.record(0, loss=1.0)
        with cuda.hanging(slow):
            begin = time.time()
            recorder.record(1, loss=cuda.tensor(2.0, stream=slow))
            end = time.time()
            recorder.record(2, loss=3.0)
            cuda.set_stream(fast, 0)
            recorder.record(3, loss=cuda.tensor(4.0, stream=fast))
            assert cuda.wait(fast)
            assert not recorder.flush(0.2)
            assert steps(run) == [0]
    assert losses(run) == [1.0, 2.0, 3.0, 4.0]
    stamp = lines(run)[1]["timestamp"].replace("Z", "+00:00")
    assert begin - 0.01 <= datetime.fromisoformat(stamp).timestamp() <= end + 0.01


@alone
def test_other_streams_pass_a_metrics_line_that_waits(cuda: Cuda, run: Path) -> None:
    """log, errors and performance are in their files while the device hangs; errors at once."""
    stream = working_stream(cuda)
    quiet: Any = logging.getLogger("quiet")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    with Recorder(run, flush_interval_s=0.005) as recorder, cuda.hanging(stream):
        recorder.record(0, v=cuda.tensor(2.0, stream=stream))
        for step in range(50):
            with recorder.timer("block", step=step):
                recorder.event(f"message {step}")
        with at_once(3.0):
            ErrorTracker(quiet, run, recorder=recorder).log_error(ValueError("x"), {"step": 0})
        assert one_line(run, "errors")["error_message"] == "x"
        for name in ("log", "performance"):
            assert recorder.flush(20, stream=name), name
            assert len(lines(run, name)) == 50
        assert not recorder.flush(0.01, stream="metrics")
        assert lines(run) == []
    assert one_line(run)["metrics"] == {"v": 2.0}


@alone
def test_segments_rotate_around_lines_that_wait(cuda: Cuda, run: Path) -> None:
    stream = working_stream(cuda)
    with Recorder(run, segment_bytes=4096, flush_interval_s=0.002) as recorder:
        for step in range(300):
            if step % 50 == 0:
                cuda.delay(stream, 5000)
            recorder.record(step, loss=cuda.tensor(step / 4, stream=stream), lr=0.1)
    assert len(segments(run)) > 3
    assert losses(run) == [step / 4 for step in range(300)]
