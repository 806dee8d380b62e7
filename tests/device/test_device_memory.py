"""The memory of a value until it is copied: whose stream it was allocated on does not matter."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from device import fakes
from device.alone import alone, eventually
from device.driving import one_line, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import Recorder, device_tensors


class Memory:
    """Device memory of a stream: freed with its last owner, and used again by that stream."""

    def __init__(self, cuda: Cuda, stream: int, *, unmaps: bool = False) -> None:
        """Allocate it."""
        self.cuda, self.stream, self.unmaps = cuda, stream, unmaps
        self.address = cuda.malloc(0, 1.5)
        self.freed: list[int] = []

    def tensor(self, kind: Any) -> Any:
        """Make a tensor whose storage alone owns the memory."""
        owner = Owner()
        owner.memory = self
        return kind(self.address, (2, 32, 1), (fakes.CUDA, 0), owner=owner)

    def free(self) -> None:
        """Do what torch's allocator does, and empty_cache() with expandable segments."""
        self.freed.append(self.address)
        if self.unmaps:
            self.cuda.unmap(self.address)
        self.cuda.free(self.address, self.stream)
        if not self.unmaps:
            self.cuda.store(self.stream, self.cuda.malloc(0, 0.0), -1.0)  # the next owner's value


class Owner:
    """A storage."""

    memory: Memory

    def __del__(self) -> None:
        self.memory.free()


def ready(cuda: Cuda) -> tuple[int, int]:
    """Make the stream that is current, and another one that has nothing to do."""
    stream = working_stream(cuda)
    device_tensors._cuda_stream = lambda index: stream
    device_tensors._cuda_type = lambda: cuda.device_type
    return stream, cuda.stream(0, nonblocking=True)


@pytest.mark.parametrize("unmaps", [False, True])
@pytest.mark.parametrize("kind", ["FakeTensor", "LegacyFakeTensor"])
@alone
def test_memory_of_another_stream_is_kept_until_it_is_copied(
    cuda: Cuda, fake_tensor: ModuleType, run: Path, kind: str, unmaps: bool
) -> None:
    """Though the tensor, which may have a graph, is not; then the next call of all lets it go."""
    stream, other = ready(cuda)
    memory = Memory(cuda, other, unmaps=unmaps)
    with Recorder(run, flush_interval_s=0.002) as recorder:
        live = fake_tensor.live()
        with cuda.hanging(stream):
            recorder.record(0, loss=memory.tensor(getattr(fake_tensor, kind)))
            recorder.record(1, lr=0.5)
            gc.collect()
            assert fake_tensor.live() == live
            assert cuda.wait(other)
            assert memory.freed == []
        assert eventually(lambda: recorder.record(2, lr=0.5) and memory.freed)
        assert recorder.flush(20)
        assert recorder.stats()["device"]["missing"] == 0
    assert lines(run)[0]["metrics"] == {"loss": 1.5}


@pytest.mark.parametrize("call", ["flush", "flush_stream", "close"])
@alone
def test_flush_and_close_let_memory_go(
    cuda: Cuda, fake_tensor: ModuleType, run: Path, call: str
) -> None:
    """No record has to follow."""
    stream, other = ready(cuda)
    memory = Memory(cuda, other)
    with Recorder(run) as recorder:
        cuda.delay(stream, 20_000)
        recorder.record(0, loss=memory.tensor(fake_tensor.FakeTensor))
        if call == "flush_stream":
            assert recorder.flush(20, stream="metrics")
        else:
            assert getattr(recorder, call)(20)
        assert len(memory.freed) == 1
    assert one_line(run)["metrics"] == {"loss": 1.5}


@alone
def test_a_value_that_is_given_up_keeps_its_memory_until_its_copy_ends(
    cuda: Cuda, fake_tensor: ModuleType, run: Path
) -> None:
    """Its line is written before."""
    stream, other = ready(cuda)
    memory = Memory(cuda, other)
    with Recorder(run, device_timeout_s=0.05, flush_interval_s=0.002) as recorder:
        with cuda.hanging(stream):
            recorder.record(0, loss=memory.tensor(fake_tensor.FakeTensor))
            assert recorder.flush(20)
            assert one_line(run)["missing"] == {"loss": "timeout"}
            recorder.record(1, lr=0.5)
            assert memory.freed == []
        assert eventually(lambda: recorder.record(2, lr=0.5) and memory.freed)
    assert cuda.wait(stream)


@alone
def test_a_forked_child_lets_nothing_go(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """What the copies no longer need is the parent's."""
    stream, other = ready(cuda)
    memory = Memory(cuda, other)
    with Recorder(run, flush_interval_s=0.002) as recorder:
        recorder.record(0, loss=memory.tensor(fake_tensor.FakeTensor))
        eventually(lambda: lines(run))  # written: the next call would let it go
        pid = os.fork()
        if pid == 0:
            kept = recorder.record(1, lr=0.5) and recorder.flush(20) and recorder.close()
            os._exit(0 if kept and memory.freed == [] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert cuda.calls_in_child() == 0
        assert memory.freed == []
        assert recorder.flush(20)
        assert len(memory.freed) == 1
    assert cuda.wait(stream)


class Stubborn(Exception):  # noqa: N818 - no error of the package
    """What a storage raises."""


@pytest.mark.parametrize("interrupted", [False, True])
@alone
def test_a_tensor_without_a_storage_is_kept_itself(
    cuda: Cuda, fake_tensor: ModuleType, run: Path, interrupted: bool
) -> None:
    """Other frameworks have none. An interrupt goes on to the caller."""
    stream, other = ready(cuda)
    error = KeyboardInterrupt if interrupted else Stubborn

    class Bare(fake_tensor.FakeTensor):  # type: ignore[misc, name-defined]
        """A tensor that does not show what it is made of."""

        def untyped_storage(self) -> None:
            """Refuse."""
            raise error

    memory = Memory(cuda, other)
    with Recorder(run) as recorder:
        with cuda.hanging(stream):
            if interrupted:
                with pytest.raises(KeyboardInterrupt):
                    recorder.record(0, loss=memory.tensor(Bare))
            else:
                recorder.record(0, loss=memory.tensor(Bare))
            gc.collect()
            assert len(memory.freed) == interrupted
        assert recorder.flush(20)
    assert len(memory.freed) == 1
    assert [line["metrics"] for line in lines(run)] == [{"loss": 1.5}] * (not interrupted)
