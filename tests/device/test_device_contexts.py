"""Contexts that are not the framework's own: green contexts, other libraries' ones."""

from __future__ import annotations

from ctypes import c_void_p
from pathlib import Path
from typing import Any

import pytest
from device.alone import alone
from device.driving import losses, one_line, timed_stream, waiting, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import Recorder
from foundry_fastlog.recording import device_tensors


def framework_copies(value: float) -> list[Any]:
    """Let the framework copy, which here knows the value; return the tensors that it was given."""
    given: list[Any] = []

    def start(tensors: list[tuple[Any, int]], deliver: Any) -> None:
        given.extend(tensor for tensor, _ in tensors)
        deliver([slot for _, slot in tensors], [value] * len(tensors))

    device_tensors.start_transfer = start  # type: ignore[assignment]
    return given


def enter(cuda: Cuda, context: int, stream: int = 0) -> None:
    """Make a context current, with its null stream as the framework's, as torch does."""
    assert cuda.call("cuCtxSetCurrent", context) == 0
    cuda.set_stream(stream, 0)


@pytest.mark.parametrize("first", [True, False])
@alone
def test_the_framework_copies_within_another_context(cuda: Cuda, run: Path, first: bool) -> None:
    """Its null stream is not the one that our copy would be on. Outside, all is as ever."""
    stream = working_stream(cuda)
    context = cuda.context(0)
    given = framework_copies(2.5)
    with Recorder(run) as recorder:
        if not first:
            recorder.record(0, loss=cuda.tensor(1.5))
        copies = cuda.count("cuMemcpyDtoHAsync_v2")
        enter(cuda, context)
        loss = cuda.tensor(-1.0, stream=cuda.context_stream(context, legacy=True))
        recorder.record(1, loss=loss, lr=0.5)
        current = c_void_p()
        assert cuda.call("cuCtxGetCurrent", current) == 0
        assert current.value == context
        assert cuda.count("cuMemcpyDtoHAsync_v2") == copies
        captured = cuda.context_stream(context)
        enter(cuda, context, captured)
        cuda.begin_capture(captured)
        with pytest.raises(RuntimeError, match="captured into a graph"):  # asked in that context
            recorder.record(99, loss=cuda.tensor(1.5))
        assert cuda.end_capture(captured)
        cuda.use(0)
        cuda.set_stream(stream, 0)
        recorder.record(2, loss=cuda.tensor(3.5))
    assert given == [loss]
    assert losses(run) == [1.5, 2.5, 3.5][first:]


@alone
def test_a_stream_of_another_context_is_the_frameworks_too(cuda: Cuda, run: Path) -> None:
    """It takes none of our events. Nothing is copied before that is known."""
    stream = working_stream(cuda)
    foreign = cuda.context_stream(cuda.context(0))
    framework_copies(2.5)
    with Recorder(run) as recorder:
        for step in range(100):
            cuda.set_stream(foreign if step % 2 else stream, 0)
            recorder.record(step, loss=cuda.tensor(1.5))
        assert recorder.flush(20)
        assert waiting(recorder) == 0
    assert losses(run) == [1.5, 2.5] * 50
    assert cuda.count("cuMemcpyDtoHAsync_v2") == 50


@alone
def test_a_context_of_another_device_does_not_matter(cuda: Cuda, run: Path) -> None:
    """The framework changes to the tensor's device for its own work, too."""
    working_stream(cuda, 1)
    cuda.activate(0)
    given = framework_copies(0.0)
    with Recorder(run) as recorder:
        assert cuda.call("cuCtxSetCurrent", cuda.context(0)) == 0
        recorder.record(0, loss=cuda.tensor(1.5, device=1))
    assert given == []
    assert one_line(run)["metrics"] == {"loss": 1.5}


@alone
def test_a_block_within_another_context_says_that_it_is_not_timed(cuda: Cuda, run: Path) -> None:
    """At its begin, at its end or by its stream. Its wall-clock time is there; others are timed."""
    stream = timed_stream(cuda)
    context = cuda.context(0)
    foreign = cuda.context_stream(context)
    with Recorder(run) as recorder:
        for where in ("begin", "end", "stream", "nowhere"):
            timed_on = foreign if where == "stream" else stream
            device_tensors.block_stream = lambda _, timed_on=timed_on: (2, 0, timed_on)
            if where == "begin":
                enter(cuda, context)
            with recorder.timer(where, device=True):
                if where == "end":
                    enter(cuda, context)
            cuda.use(0)
    *bad, fine = lines(run, "performance")
    assert [line["name"] for line in bad] == ["begin", "end", "stream"]
    assert all(line["duration_s"] >= 0 for line in bad)
    assert [line["missing"] for line in bad] == [{"device_duration_s": "other_context"}] * 3
    assert "missing" not in fine
