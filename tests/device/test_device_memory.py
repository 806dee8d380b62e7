"""The memory of a value until it is copied: whose stream it was allocated on does not matter."""

from __future__ import annotations

import ctypes
import gc
import resource
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from device import fakes
from device.alone import alone
from device.driving import in_thread, losses, one_line, recorded_event, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import eventually, in_child, lines

from foundry_fastlog import Recorder
from foundry_fastlog.recording import device_tensors


class Memory:
    """Device memory of a stream: freed with its last owner, and used again by that stream."""

    def __init__(self, cuda: Cuda, stream: int, *, unmaps: bool = False, size: int = 512) -> None:
        self.cuda, self.stream, self.unmaps, self.size = cuda, stream, unmaps, size
        self.address = cuda.malloc(0, 1.5)
        self.freed: list[int] = []

    def tensor(self, kind: Any) -> Any:
        """Make a tensor whose storage alone owns the memory."""
        owner = Owner()
        owner.memory = self
        return kind(self.address, (2, 32, 1), (fakes.CUDA, 0), owner=owner)

    def free(self) -> None:
        self.freed.append(self.address)
        if self.unmaps:
            self.cuda.unmap(self.address)
        self.cuda.free(self.address, self.stream)
        if not self.unmaps:
            self.cuda.store(self.stream, self.cuda.malloc(0, 0.0), -1.0)  # the next owner's value


class Owner:
    memory: Memory

    def __del__(self) -> None:
        self.memory.free()

    def __len__(self) -> int:
        return self.memory.size


class Logits:
    """Makes values in large memory, and counts the copies that are made of them on the device."""

    def __init__(self, cuda: Cuda, stream: int, kind: Any) -> None:
        self.memories: list[Memory] = []
        self.copies: list[Memory] = []
        self.cuda, self.stream = cuda, stream
        logits = self

        class Large(kind):  # type: ignore[misc]
            def clone(self) -> Any:
                """Copy it; to another value, so that a test sees which of them was read."""
                return logits.copy(Large)

        self.kind = Large

    def value(self) -> Any:
        self.memories.append(Memory(self.cuda, self.stream, size=4097))
        return self.memories[-1].tensor(self.kind)

    def copy(self, kind: Any) -> Any:
        """Make a copy, of 2.5, behind what is on the stream."""
        copy = Memory(self.cuda, self.stream)
        self.cuda.store(self.stream, copy.address, 2.5)
        self.copies.append(copy)
        return copy.tensor(kind)


class Stubborn(Exception):  # noqa: N818 - no error of the package
    """What a storage raises."""


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


@alone
def test_flush_and_close_let_memory_go(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    stream, other = ready(cuda)
    for name in ("flush", "flush_stream", "close"):
        memory = Memory(cuda, other)
        with Recorder(run / name) as recorder:
            cuda.delay(stream, 20_000)
            recorder.record(0, loss=memory.tensor(fake_tensor.FakeTensor))
            if name == "flush_stream":
                assert recorder.flush(20, stream="metrics")
            else:
                assert getattr(recorder, name)(20)
            assert len(memory.freed) == 1
        assert one_line(run / name)["metrics"] == {"loss": 1.5}


@alone
def test_a_value_that_is_given_up_keeps_its_memory_until_its_copy_ends(
    cuda: Cuda, fake_tensor: ModuleType, run: Path
) -> None:
    """Its line is written before; if need be, the next recorder that records a value lets it go."""
    stream, other = ready(cuda)
    memory, left = Memory(cuda, other), Memory(cuda, other)
    with Recorder(run / "a", device_timeout_s=0.05, flush_interval_s=0.002) as recorder:
        with cuda.hanging(stream):
            recorder.record(0, loss=memory.tensor(fake_tensor.FakeTensor))
            assert recorder.flush(20)
            assert one_line(run / "a")["missing"] == {"loss": "timeout"}
            recorder.record(1, lr=0.5)
            assert memory.freed == []
        assert eventually(lambda: recorder.record(2, lr=0.5) and memory.freed)
    with cuda.hanging(stream):
        recorder = Recorder(run / "b")
        recorder.record(0, loss=left.tensor(fake_tensor.FakeTensor))
        assert recorder.close(0.2)
        assert one_line(run / "b")["missing"] == {"loss": "timeout"}
    assert cuda.wait(stream)
    with Recorder(run / "c", flush_interval_s=0.002) as recorder:
        assert recorder.record(1, lr=0.5)
        assert recorder.flush(20)
        assert left.freed == []
        assert recorder.record(2, loss=cuda.tensor(2.5))
        assert eventually(lambda: recorder.record(3, lr=0.5) and left.freed)


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

        def child() -> None:
            assert recorder.record(1, loss=value)
            assert recorder.flush(20)
            assert recorder.close()
            assert memory.freed == logits.copies == []

        in_child(child)
        assert cuda.calls_in_child() == 0
        assert memory.freed == []
        assert recorder.flush(20)
        assert len(memory.freed) == 1
    assert cuda.wait(stream)


@pytest.mark.parametrize("kind", ["FakeTensor", "LegacyFakeTensor"])
@alone
def test_no_large_memory_is_kept(cuda: Cuda, fake_tensor: ModuleType, run: Path, kind: str) -> None:
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
def test_a_large_copy_ends_no_capture(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """It is allocated, which a strict driver forbids in a global one; and is no part of any."""
    stream, captured = ready(cuda)
    event = recorded_event(cuda, stream)
    logits = Logits(cuda, stream, fake_tensor.FakeTensor)
    asked: list[int] = []

    class Allocating(logits.kind):  # type: ignore[misc, name-defined]
        """A tensor whose copy asks the driver, as torch's allocator does."""

        def clone(self) -> Any:
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
        cuda.begin_capture(stream)
        with pytest.raises(RuntimeError, match="captured into a graph"):
            recorder.record(0, loss=logits.value())
        assert cuda.end_capture(stream)
        assert len(logits.copies) == 1
    assert one_line(run)["metrics"] == {"loss": 2.5}


ODD = [("untyped_storage", answer) for answer in ("raises", "interrupts")]
ODD += [
    ("clone", answer)
    for answer in ("raises", "interrupts", "is large", "is of another type", "is no tensor")
]


@pytest.mark.parametrize(("method", "answer"), ODD)
@alone
def test_memory_is_kept_of_what_shows_no_storage_or_cannot_be_copied(
    cuda: Cuda, fake_tensor: ModuleType, run: Path, method: str, answer: str
) -> None:
    """As other frameworks' tensors, small and large. An interrupt goes on to the caller."""
    stream, other = ready(cuda)
    kind = type("Odd", (fake_tensor.FakeTensor,), {})

    def answers(self: Any) -> Any:
        if answer == "raises":
            raise Stubborn
        if answer == "interrupts":
            raise KeyboardInterrupt
        return {"is large": self, "is no tensor": 2.5}.get(answer) or cuda.tensor(2.5, "fp64")

    setattr(kind, method, answers)
    memory = Memory(cuda, other, size=4097 if method == "clone" else 512)
    interrupts = answer == "interrupts"
    with Recorder(run) as recorder:
        with cuda.hanging(stream):
            if interrupts:
                with pytest.raises(KeyboardInterrupt):
                    recorder.record(0, loss=memory.tensor(kind))
            else:
                recorder.record(0, loss=memory.tensor(kind))
            assert freed([memory]) == interrupts
        assert recorder.flush(20)
    assert freed([memory]) == 1
    assert losses(run) == [1.5] * (not interrupts)


@alone
def test_no_memory_at_first_is_an_error(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
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
