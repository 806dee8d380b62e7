"""The watch for values that turn NaN or infinite: an event with the step, when they arrive."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from device.alone import alone
from device.driving import working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import Recorder


def events(run: Path) -> list[tuple[Any, ...]]:
    found = lines(run, "errors")
    assert {line["event"] for line in found} <= {"nonfinite"}
    return [(line["step"], line["context"]["key"], line["context"]["value"]) for line in found]


@alone
def test_each_turn_of_each_key_is_an_event(cuda: Cuda, run: Path) -> None:
    """Finite again, and again not; infinities, too. A NaN that becomes infinite is none."""
    stream = working_stream(cuda)
    odd = 'a"b\\c\nd/é😀'
    history = {
        "loss": [1.0, math.nan, math.nan, 2.0, math.nan, 3.0],
        "grad": [math.inf, -math.inf, math.nan, 1.0, 1.0, -math.inf],
        odd: [1.0, 1.0, -math.inf, 1.0, 1.0, 1.0],
    }
    with Recorder(run) as recorder:
        with cuda.hanging(stream):  # the next steps begin before a value is there
            for step in range(6):
                values = {
                    key: cuda.tensor(vs[step], "bf16", stream=stream) for key, vs in history.items()
                }
                recorder.record_dict(step, values)
        assert recorder.flush(20)
    turns = [(0, "grad", "inf"), (1, "loss", "nan"), (2, odd, "-inf"), (4, "loss", "nan")]
    assert events(run) == [*turns, (5, "grad", "-inf")]
    _, line, of_odd, *_ = lines(run, "errors")
    del line["timestamp"]
    said = {"logger": "foundry_fastlog", "message": "loss became nan at step 1", "step": 1}
    said |= {"event": "nonfinite", "context": {"key": "loss", "value": "nan"}}
    assert line == {"seq": 1, "level": "WARNING", **said}
    assert of_odd["message"] == f"{odd} became -inf at step 2"
    assert cuda.count("synchronisations") == 0


FOUND = [(1, "loss", "nan"), (1, "lr", "inf"), (2, "other", "nan")]


@pytest.mark.parametrize(
    ("watch", "expected"), [("none", []), ("device", FOUND[:1]), ("all", FOUND)]
)
@alone
def test_what_is_watched_is_chosen(cuda: Cuda, run: Path, watch: str, expected: list[Any]) -> None:
    """Values of devices, those of the CPU as well, or nothing; also where they come at closing."""
    stream = working_stream(cuda)
    recorder = Recorder(run, watch_nonfinite=watch, flush_interval_s=1.0)
    recorder.record(0, loss=cuda.tensor(1.0), lr=0.1)
    cuda.delay(stream, 50_000)
    recorder.record(1, loss=cuda.tensor(math.nan, stream=stream), lr=math.inf)
    recorder.record(2, other=math.nan)
    assert recorder.close()
    assert events(run) == [tuple(event) for event in expected]
    assert len(lines(run)) == 3


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
def test_events_wait_for_room_in_the_ring(cuda: Cuda, run: Path) -> None:
    """Hundreds of keys turn at once in a small ring."""
    stream = working_stream(cuda)
    nan = cuda.tensor(math.nan, stream=stream)
    with Recorder(run, ring_bytes=64 << 10, flush_interval_s=0.002) as recorder:
        for step in range(40):
            assert recorder.record_dict(step, {f"s{step}.{i}": nan for i in range(5)})
        assert recorder.flush(20)
        assert cuda.wait(stream)
    # If the machine pauses the flush thread, the last values find no slot.
    found = [line["step"] for line in lines(run) if "missing" not in line]
    assert found[:30] == list(range(30))
    assert events(run) == [(step, f"s{step}.{i}", "nan") for step in found for i in range(5)]
