"""Contexts that are not the framework's own: green contexts, other libraries' ones."""

from __future__ import annotations

from ctypes import c_void_p
from pathlib import Path
from typing import Any

import pytest
from device.alone import alone
from device.driving import one_line, working_stream
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


def enter(cuda: Cuda, context: int) -> None:
    """Make a context current, with its null stream as the framework's, as torch does."""
    assert cuda.call("cuCtxSetCurrent", context) == 0
    cuda.set_stream(0, 0)


@pytest.mark.parametrize("first", [True, False])
@alone
def test_a_value_within_another_context_is_copied_by_the_framework(
    cuda: Cuda, run: Path, first: bool
) -> None:
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
        cuda.use(0)
        cuda.set_stream(stream, 0)
        recorder.record(2, loss=cuda.tensor(3.5))
    assert given == [loss]
    assert [line["metrics"]["loss"] for line in lines(run)][-2:] == [2.5, 3.5]


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
        assert recorder.stats()["device"]["waiting"] == 0
    assert [line["metrics"]["loss"] for line in lines(run)] == [1.5, 2.5] * 50
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
def test_a_capture_within_another_context_refuses_the_value(cuda: Cuda, run: Path) -> None:
    """Its stream is asked in that context."""
    cuda.use(0)
    context = cuda.context(0)
    stream = cuda.context_stream(context)
    framework_copies(2.5)
    with Recorder(run) as recorder:
        enter(cuda, context)
        cuda.set_stream(stream, 0)
        cuda.begin_capture(stream)
        with pytest.raises(RuntimeError, match="captured into a graph"):
            recorder.record(0, loss=cuda.tensor(1.5))
        assert cuda.end_capture(stream)
    assert lines(run) == []


@pytest.mark.parametrize("where", ["begin", "end", "stream"])
@alone
def test_a_block_within_another_context_says_that_it_is_not_timed(
    cuda: Cuda, run: Path, where: str
) -> None:
    """Its wall-clock time is there; later blocks are timed."""
    stream = working_stream(cuda)
    context = cuda.context(0)
    where_now = [stream]
    device_tensors.block_stream = lambda which: (2, 0, where_now[0])
    with Recorder(run) as recorder:
        if where == "begin":
            enter(cuda, context)
        if where == "stream":
            where_now = [cuda.context_stream(context)]
        with recorder.timer("block", device=True):
            if where == "end":
                enter(cuda, context)
        cuda.use(0)
        where_now[:] = [stream]
        with recorder.timer("fine", device=True):
            pass
    bad, fine = lines(run, "performance")
    assert bad["duration_s"] >= 0
    assert bad["missing"] == {"device_duration_s": "other_context"}
    assert "missing" not in fine
