"""The memory of a value until it is copied: whose stream it was allocated on does not matter."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from device import fakes
from device.alone import alone, eventually
from device.driving import in_thread, one_line, recorded_event, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import Recorder
from foundry_fastlog.recording import device_tensors


class Memory:
    """Device memory of a stream: freed with its last owner, and used again by that stream."""

    def __init__(self, cuda: Cuda, stream: int, *, unmaps: bool = False, size: int = 512) -> None:
        """Allocate it."""
        self.cuda, self.stream, self.unmaps, self.size = cuda, stream, unmaps, size
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

    def __len__(self) -> int:
        return self.memory.size


class Logits:
    """Makes values in large memory, and counts the copies that are made of them on the device."""

    def __init__(self, cuda: Cuda, stream: int, kind: Any) -> None:
        """Have no values yet."""
        self.memories: list[Memory] = []
        self.copies: list[Memory] = []
        self.cuda, self.stream = cuda, stream
        logits = self

        class Large(kind):  # type: ignore[misc]
            """A tensor that can be copied on its device."""

            def clone(self) -> Any:
                """Copy it; to another value, so that a test sees which of them was read."""
                return logits.copy(Large)

        self.kind = Large

    def value(self) -> Any:
        """Make a value, of 1.5."""
        self.memories.append(Memory(self.cuda, self.stream, size=4097))
        return self.memories[-1].tensor(self.kind)

    def copy(self, kind: Any) -> Any:
        """Make a copy, of 2.5, behind what is on the stream."""
        copy = Memory(self.cuda, self.stream)
        self.cuda.store(self.stream, copy.address, 2.5)
        self.copies.append(copy)
        return copy.tensor(kind)


def freed(memories: list[Memory]) -> int:
    """Count those that nobody keeps."""
    gc.collect()
    return sum(len(memory.freed) for memory in memories)


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
def test_the_next_recorder_lets_go_what_the_last_one_gave_up(
    cuda: Cuda, fake_tensor: ModuleType, run: Path
) -> None:
    """Once it has recorded a value of a device; before, nobody asks whether the copy has ended."""
    stream, other = ready(cuda)
    memory = Memory(cuda, other)
    with cuda.hanging(stream):
        recorder = Recorder(run)
        recorder.record(0, loss=memory.tensor(fake_tensor.FakeTensor))
        assert recorder.close(0.2)
        assert one_line(run)["missing"] == {"loss": "timeout"}
    assert cuda.wait(stream)
    with Recorder(run, flush_interval_s=0.002) as recorder:
        assert recorder.record(1, lr=0.5)
        assert recorder.flush(20)
        assert memory.freed == []
        assert recorder.record(2, loss=cuda.tensor(2.5))
        assert eventually(lambda: recorder.record(3, lr=0.5) and memory.freed)


@alone
def test_a_forked_child_lets_nothing_go(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """What the copies no longer need is the parent's."""
    stream, other = ready(cuda)
    memory = Memory(cuda, other)
    with Recorder(run, flush_interval_s=0.002) as recorder:
        recorder.record(0, loss=memory.tensor(fake_tensor.FakeTensor))
        eventually(lambda: lines(run))  # written: the next call would let it go
        logits = Logits(cuda, stream, fake_tensor.FakeTensor)
        value = logits.value()
        pid = os.fork()
        if pid == 0:
            kept = recorder.record(1, loss=value) and recorder.flush(20) and recorder.close()
            os._exit(0 if kept and memory.freed == logits.copies == [] else 1)
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


@pytest.mark.parametrize("kind", ["FakeTensor", "LegacyFakeTensor"])
@alone
def test_large_memory_is_not_kept(
    cuda: Cuda, fake_tensor: ModuleType, run: Path, kind: str
) -> None:
    """However long a device hangs: each value is copied there, in the order of its stream."""
    stream, _ = ready(cuda)
    logits = Logits(cuda, stream, getattr(fake_tensor, kind))
    with Recorder(run) as recorder:
        live = fake_tensor.live()
        with cuda.hanging(stream):
            for step in range(20):
                recorder.record(step, loss=logits.value(), lr=0.5)
            assert freed(logits.memories) == 20
            assert freed(logits.copies) == 0
            assert fake_tensor.live() == live
        assert recorder.flush(20)
        assert freed(logits.copies) == 20
        assert recorder.stats()["device"]["missing"] == 0
    assert [line["metrics"] for line in lines(run)] == [{"loss": 2.5, "lr": 0.5}] * 20


@alone
def test_no_copy_of_large_memory_is_part_of_a_capture(
    cuda: Cuda, fake_tensor: ModuleType, run: Path
) -> None:
    """The record is refused before."""
    stream, _ = ready(cuda)
    logits = Logits(cuda, stream, fake_tensor.FakeTensor)
    with Recorder(run) as recorder:
        cuda.begin_capture(stream)
        with pytest.raises(RuntimeError, match="captured into a graph"):
            recorder.record(0, loss=logits.value())
        assert cuda.end_capture(stream)
        assert logits.copies == []
        assert freed(logits.memories) == 1


@alone
def test_a_copy_of_large_memory_ends_no_capture_elsewhere(
    cuda: Cuda, fake_tensor: ModuleType, run: Path
) -> None:
    """It is allocated, which a strict driver forbids during a global capture."""
    stream, captured = ready(cuda)
    event = recorded_event(cuda, stream)
    logits = Logits(cuda, stream, fake_tensor.FakeTensor)
    asked: list[int] = []

    class Allocating(logits.kind):  # type: ignore[misc, name-defined]
        """A tensor whose copy asks the driver, as torch's allocator does."""

        def clone(self) -> Any:
            """Copy it."""
            asked.append(cuda.call("cuEventQuery", event))
            return super().clone()

    logits.kind = Allocating

    def begin() -> None:
        cuda.use(0)
        cuda.begin_capture(captured)

    with Recorder(run) as recorder:
        in_thread(begin)
        recorder.record(0, loss=logits.value())
        assert asked == [0]
        assert cuda.end_capture(captured)
    assert one_line(run)["metrics"] == {"loss": 2.5}


@pytest.mark.parametrize(
    "copy", ["raises", "is large", "is of another type", "is no tensor", "interrupts"]
)
@alone
def test_large_memory_is_kept_where_no_copy_can_be_made(
    cuda: Cuda, fake_tensor: ModuleType, run: Path, copy: str
) -> None:
    """As small memory is. An interrupt goes on to the caller."""
    stream, _ = ready(cuda)
    logits = Logits(cuda, stream, fake_tensor.FakeTensor)

    class Odd(logits.kind):  # type: ignore[misc, name-defined]
        """A tensor of somebody else."""

        def clone(self) -> Any:
            """Do what may happen."""
            if copy == "raises":
                raise Stubborn
            if copy == "interrupts":
                raise KeyboardInterrupt
            if copy == "is large":
                return self
            if copy == "is no tensor":
                return 2.5
            return cuda.tensor(2.5, "fp64")

    logits.kind = Odd
    interrupts = copy == "interrupts"
    with Recorder(run) as recorder:
        with cuda.hanging(stream):
            if interrupts:
                with pytest.raises(KeyboardInterrupt):
                    recorder.record(0, loss=logits.value())
            else:
                recorder.record(0, loss=logits.value())
            assert freed(logits.memories) == interrupts
        assert recorder.flush(20)
    assert freed(logits.memories) == 1
    assert [line["metrics"] for line in lines(run)] == [{"loss": 1.5}] * (not interrupts)


@alone
def test_the_first_value_without_memory_is_an_error(
    cuda: Cuda, fake_tensor: ModuleType, run: Path
) -> None:
    """Of the caller's; the process goes on, and so does recording once there is memory."""
    stream, other = ready(cuda)
    value = Memory(cuda, other).tensor(fake_tensor.FakeTensor)
    allocate = ctypes.CDLL(None).malloc
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    with Recorder(run) as recorder:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        unlimited = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), unlimited[1]))
        try:
            while allocate(1 << 18):  # never freed; what the tickets take is more
                pass
            with pytest.raises(MemoryError):
                recorder.record(0, loss=value)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, unlimited)
        assert recorder.record(1, loss=value)
    assert cuda.wait(stream)
    assert one_line(run)["metrics"] == {"loss": 1.5}
