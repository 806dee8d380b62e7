"""The watch for values that turn NaN or infinite: an event with the step, when they arrive."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from device.alone import alone
from device.driving import one_line, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import Recorder


def events(run: Path) -> list[tuple[Any, ...]]:
    """Return step, key and value of each event."""
    found = lines(run, "errors")
    assert {line["event"] for line in found} <= {"nonfinite"}
    return [(line["step"], line["context"]["key"], line["context"]["value"]) for line in found]


@alone
def test_a_value_that_turns_nan_raises_an_event_with_its_step(cuda: Cuda, run: Path) -> None:
    """Without a read by the caller, and while the next steps have begun already."""
    stream = working_stream(cuda)
    with Recorder(run) as recorder:
        with cuda.hanging(stream):
            for step, loss in enumerate([1.0, math.nan, math.nan, 0.5]):
                recorder.record(step, loss=cuda.tensor(loss, stream=stream))
        assert recorder.flush(20)
    line = one_line(run, "errors")
    assert {key: v for key, v in line.items() if key != "timestamp"} == {
        "seq": 0,
        "level": "WARNING",
        "logger": "foundry_fastlog",
        "message": "loss became nan at step 1",
        "event": "nonfinite",
        "step": 1,
        "context": {"key": "loss", "value": "nan"},
    }
    assert cuda.count("synchronisations") == 0


@alone
def test_each_turn_of_each_key_is_an_event(cuda: Cuda, run: Path) -> None:
    """Finite again, and again not; infinities, too. A NaN that becomes infinite is none."""
    stream = working_stream(cuda)
    history = {
        "loss": [1.0, math.nan, math.nan, 2.0, math.nan, 3.0],
        "grad": [math.inf, -math.inf, math.nan, 1.0, 1.0, -math.inf],
        "fine": [1.0] * 6,
    }
    with Recorder(run) as recorder:
        for step in range(6):
            recorder.record_dict(
                step,
                {key: cuda.tensor(vs[step], "bf16", stream=stream) for key, vs in history.items()},
            )
    assert events(run) == [
        (0, "grad", "inf"),
        (1, "loss", "nan"),
        (4, "loss", "nan"),
        (5, "grad", "-inf"),
    ]


@pytest.mark.parametrize(
    ("watch", "expected"),
    [
        ("none", []),
        ("device", [(1, "loss", "nan")]),
        ("all", [(1, "loss", "nan"), (1, "lr", "inf"), (2, "other", "nan")]),
    ],
)
@alone
def test_what_is_watched_can_be_chosen(
    cuda: Cuda, run: Path, watch: str, expected: list[Any]
) -> None:
    """Values of devices, those of the CPU as well, or nothing."""
    working_stream(cuda)
    with Recorder(run, watch_nonfinite=watch) as recorder:
        recorder.record(0, loss=cuda.tensor(1.0), lr=0.1)
        recorder.record(1, loss=cuda.tensor(math.nan), lr=math.inf)
        recorder.record(2, other=math.nan)
        assert recorder.flush(20)
    assert events(run) == [tuple(event) for event in expected]
    assert len(lines(run)) == 3


@pytest.mark.parametrize("watch", ["device", "all"])
@alone
def test_an_event_of_the_last_record_survives_closing(cuda: Cuda, run: Path, watch: str) -> None:
    """The value arrives while the recorder is being closed."""
    stream = working_stream(cuda)
    recorder = Recorder(run, watch_nonfinite=watch, flush_interval_s=1.0)
    cuda.delay(stream, 50_000)
    recorder.record(7, loss=cuda.tensor(math.nan, stream=stream))
    assert recorder.close()
    assert events(run) == [(7, "loss", "nan")]


def test_an_event_of_the_cpu_survives_closing(tmp_path: Path) -> None:
    """Also where no value was on a device."""
    recorder = Recorder(tmp_path / "run", watch_nonfinite="all", flush_interval_s=1.0)
    recorder.record(7, loss=math.nan)
    assert recorder.close()
    assert events(tmp_path / "run") == [(7, "loss", "nan")]


@alone
def test_an_event_behind_a_device_that_hangs_survives_closing(cuda: Cuda, run: Path) -> None:
    """The lines behind the one that is given up are looked at as all others."""
    stream = working_stream(cuda)
    fast = cuda.stream(0, nonblocking=True)
    recorder = Recorder(run)
    with cuda.hanging(stream):
        recorder.record(0, loss=cuda.tensor(1.0, stream=stream))
        cuda.set_stream(fast, 0)
        recorder.record(1, grad=cuda.tensor(math.nan, stream=fast))
        assert cuda.wait(fast)
        assert recorder.close(1.0)
    assert lines(run)[0]["missing"] == {"loss": "timeout"}
    assert events(run) == [(1, "grad", "nan")]


@alone
def test_a_key_is_written_as_json_in_its_event(cuda: Cuda, run: Path) -> None:
    """Quotes, line feeds and letters of all kinds."""
    working_stream(cuda)
    key = 'a"b\\c\nd/é😀'
    with Recorder(run) as recorder:
        recorder.record_dict(-5, {key: cuda.tensor(-math.inf)})
    assert events(run) == [(-5, key, "-inf")]
    assert one_line(run, "errors")["message"] == f"{key} became -inf at step -5"


@alone
def test_events_wait_for_room_in_the_ring(cuda: Cuda, run: Path) -> None:
    """Thousands of keys turn at once in a small ring: as many events as are kept are written."""
    stream = working_stream(cuda)
    nan = cuda.tensor(math.nan, stream=stream)
    with Recorder(run, ring_bytes=64 << 10, flush_interval_s=0.002) as recorder:
        for step in range(40):
            assert recorder.record_dict(step, {f"s{step}.{i}": nan for i in range(5)})
        assert recorder.flush(20)
        assert cuda.wait(stream)
    found = events(run)
    assert found == [(step, f"s{step}.{i}", "nan") for step in range(40) for i in range(5)]
