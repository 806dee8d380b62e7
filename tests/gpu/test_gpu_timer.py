"""`timer(name, device=True)`: the device's own time, without waiting for it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from gpu_support import busy, flushed, keep_busy
from recorded import lines

from foundry_fastlog import Recorder

torch: Any = pytest.importorskip("torch")

# torch's own warnings differ from machine to machine: shown, no errors.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

RELATIVE = 0.05
ABSOLUTE_S = 200e-6
"""What two events of torch inside the block may differ by from the recorder's around them."""


def blocks(recorder: Recorder) -> list[dict[str, Any]]:
    flushed(recorder)
    return lines(recorder.path, "performance")


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.4])
def test_the_device_time_is_what_torch_events_measure(recorder: Recorder, seconds: float) -> None:
    """Within 5 % and some launches; the line names the device."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    keep_busy(0.01)
    with recorder.timer("forward", step=3, device=True):
        start.record()
        keep_busy(seconds)
        end.record()
    (line,) = blocks(recorder)
    assert (line["name"], line["step"], line["device"]) == ("forward", 3, "cuda:0")
    measured = start.elapsed_time(end) / 1e3
    assert line["device_duration_s"] == pytest.approx(measured, rel=RELATIVE, abs=ABSOLUTE_S)


def test_a_timer_waits_for_nothing(recorder: Recorder) -> None:
    """The block ends while its kernel runs: wall time is the host's, device time the kernel's."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    with recorder.timer("forward", device=True):
        keep_busy(0.5)
    spent = time.perf_counter() - begun
    assert busy()
    assert spent < 0.02
    (line,) = blocks(recorder)
    assert line["duration_s"] < 0.02
    assert 0.25 < line["device_duration_s"] < 1.0


def test_timers_nest_and_have_their_own_streams(recorder: Recorder) -> None:
    """The outer block's device time is that of its stream, the inner one's of the side stream."""
    side = torch.cuda.Stream()
    with recorder.timer("outer", device=True):
        keep_busy(0.05)
        with torch.cuda.stream(side), recorder.timer("inner", device=True):
            keep_busy(0.2)
    found = {line["name"]: line for line in blocks(recorder)}
    assert found["inner"]["parent"] == "outer"
    assert 0.02 < found["outer"]["device_duration_s"] < 0.12
    assert 0.12 < found["inner"]["device_duration_s"] < 0.4


def test_a_thousand_timers_have_a_time_each(recorder: Recorder) -> None:
    """Events are used again, and none is read before its block has ended."""
    x = torch.zeros((), device="cuda")
    for step in range(1000):
        with recorder.timer("block", step=step, device=True):
            x.add_(1)
    found = blocks(recorder)
    assert [line["step"] for line in found] == list(range(1000))
    assert all(0 <= line["device_duration_s"] < 1.0 for line in found)


def test_a_block_that_raises_has_a_time_and_one_without_device_has_none(
    recorder: Recorder,
) -> None:
    def fail() -> None:
        with recorder.timer("block", device=True):
            keep_busy(0.05)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    with recorder.timer("host"):
        keep_busy(0.01)
    raised, host = blocks(recorder)
    assert raised["device_duration_s"] > 0.02
    assert host.keys().isdisjoint({"device", "device_duration_s"})


def test_the_device_of_a_block_is_the_current_one(recorder: Recorder, second_device: str) -> None:
    """Under `torch.cuda.device(1)` it is the second."""
    with torch.cuda.device(second_device), recorder.timer("block", device=True):
        torch.zeros((), device=second_device).add_(1)
    (line,) = blocks(recorder)
    assert line["device"] == second_device
    assert line["device_duration_s"] >= 0
