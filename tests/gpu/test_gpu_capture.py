"""CUDA graphs: no record inside a capture, right values after replays, no harm to a capture."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from gpu_support import busy, keep_busy, metrics

from foundry_fastlog import Recorder

torch: Any = pytest.importorskip("torch")

# torch's own warnings differ from machine to machine: shown, no errors.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


def warmed_up(tensor: Any) -> None:
    """Run the captured operations once on a side stream, as torch asks for."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        (tensor * 2).sum()
    torch.cuda.current_stream().wait_stream(side)


def test_a_record_inside_a_capture_is_refused_and_the_capture_goes_on(recorder: Recorder) -> None:
    """A RuntimeError that says so; floats are recorded; the graph can be replayed."""
    x = torch.ones(4, device="cuda")
    warmed_up(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = (x * 2).sum()
        with pytest.raises(RuntimeError, match="captur"):
            recorder.record(0, loss=loss)
        assert recorder.record(1, lr=0.1)
    graph.replay()
    recorder.record(2, loss=loss)
    assert metrics(recorder) == {1: {"lr": 0.1}, 2: {"loss": 8.0}}


def test_a_record_after_each_replay_has_the_value_of_that_replay(recorder: Recorder) -> None:
    x = torch.ones(4, device="cuda")
    warmed_up(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = (x * 2).sum()
    keep_busy(0.3)
    for step in range(100):
        x.fill_(step)
        graph.replay()
        recorder.record(step, loss=loss)
    assert busy()
    assert metrics(recorder) == {step: {"loss": 8.0 * step} for step in range(100)}


@pytest.mark.parametrize("mode", ["global", "thread_local", "relaxed"])
def test_a_capture_in_another_thread_is_not_disturbed(recorder: Recorder, mode: str) -> None:
    """The flush thread asks for values and this thread records, all while a graph is captured."""
    steps = 20_000
    base = torch.arange(1000, dtype=torch.float32, device="cuda")
    values = list(base.unbind())
    static = torch.zeros((), device="cuda")
    capture_stream, busy_stream = torch.cuda.Stream(), torch.cuda.Stream()
    with torch.cuda.stream(capture_stream):
        static.add_(1)
        static.zero_()
    # What this thread does during the capture has been done once: nothing is set up in it.
    with torch.cuda.stream(busy_stream):
        keep_busy(0.001)
        recorder.record(0, v=values[0])
    metrics(recorder)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    failures: list[BaseException] = []
    begun, ended = threading.Event(), threading.Event()

    def capture() -> None:
        try:
            with torch.cuda.stream(capture_stream):
                graph.capture_begin(capture_error_mode=mode)
                begun.set()
                for _ in range(50):
                    static.add_(1)
                    time.sleep(0.005)
                graph.capture_end()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)
        finally:
            begun.set()
            ended.set()

    with torch.cuda.stream(busy_stream):
        keep_busy(0.1)
        recorder.record(1, v=values[1])
        worker = threading.Thread(target=capture)
        worker.start()
        begun.wait()
        step = 2
        while not ended.is_set() and step < steps:
            recorder.record(step, v=values[step % 1000])
            step += 1
            time.sleep(0.002)
        worker.join()
    assert failures == []
    with torch.cuda.stream(capture_stream):
        graph.replay()
        recorder.record(step, v=static)
    found = metrics(recorder)
    assert found.pop(step) == {"v": 50.0}
    assert found == {i: {"v": float(i % 1000)} for i in range(step)}
