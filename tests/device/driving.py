"""What tests call the fake driver with: slots, events, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from ctypes import c_char, c_void_p
from pathlib import Path
from typing import Any

from device import fakes
from device.fakes import FakeDriver as Cuda
from recorded import eventually, lines

from foundry_fastlog import Recorder
from foundry_fastlog.recording import device_tensors

TICKETS = 4096  # DevicePool::kTickets


def working_stream(cuda: Cuda, device: int = 0) -> int:
    """Have a context and a current stream, as a program that trains has; return the stream."""
    cuda.use(device)
    stream = cuda.stream(device, nonblocking=True)
    cuda.set_stream(stream, device)
    return stream


def timed_stream(cuda: Cuda, device: int = 0) -> int:
    """Make a current stream on which blocks are timed, as torch would name it."""
    stream = working_stream(cuda, device)
    device_tensors.block_stream = lambda which: (cuda.device_type, device, stream)
    return stream


def waiting(recorder: Recorder) -> int:
    return recorder.stats()["device"]["waiting"]


def losses(run: Path, key: str = "loss") -> list[Any]:
    return [line["metrics"][key] for line in lines(run)]


def one_line(run: Path, stream: str = "metrics") -> dict[str, Any]:
    (line,) = lines(run, stream)
    return line


def busy_tickets(cuda: Cuda, recorder: Recorder, stream: int, step: int = -9) -> int:
    """Return how many tickets of a device are not free, though nothing is on its way.

    That shows when as many records wait at once as there are tickets with an event.
    """
    loss = cuda.tensor(0.5)
    recorder.record(step, probe=loss)
    assert recorder.flush(20)  # a round of the flush thread, which frees what it can
    known = cuda.count("cuEventCreate")
    with cuda.hanging(stream):
        for _ in range(known):
            recorder.record(step, probe=loss)
        busy = cuda.count("cuEventCreate") - known
    assert recorder.flush(20)
    return busy


class Pinned:
    """A pinned slot of a few bytes."""

    def __init__(self, cuda: Cuda, size: int = 8) -> None:
        pointer = c_void_p()
        assert cuda.call("cuMemHostAlloc", pointer, size, 1) == 0
        assert pointer.value is not None
        self.address = pointer.value
        self.bytes = (c_char * size).from_address(self.address)

    def value(self, dtype: str = "fp32") -> Any:
        return fakes.decode(self.bytes.raw[: fakes.size_of(dtype)], dtype)


def new_event(cuda: Cuda, flags: int = fakes.DISABLE_TIMING) -> int:
    event = c_void_p()
    assert cuda.call("cuEventCreate", event, flags) == 0
    assert event.value is not None
    return event.value


def recorded_event(cuda: Cuda, stream: int | None, flags: int = fakes.DISABLE_TIMING) -> int:
    event = new_event(cuda, flags)
    assert cuda.call("cuEventRecord", event, stream) == 0
    return event


def until_ready(cuda: Cuda, event: int) -> None:
    assert eventually(lambda: cuda.call("cuEventQuery", event) != fakes.NOT_READY)
    assert cuda.call("cuEventQuery", event) == 0


def in_thread(function: Callable[[], Any]) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join()
    return answers[0]


def of_child(run: Path, stream: str = "metrics") -> list[dict[str, Any]]:
    (path,) = run.glob(f"{stream}.w*.jsonl")
    return lines(run, stream, label=path.name.removeprefix(f"{stream}.").removesuffix(".jsonl"))
