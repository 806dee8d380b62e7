"""Where the experiments run: a GPU through torch, or the fake driver of tests/device.

Both have the same methods. The fake driver's times say nothing about a device, so times are not
judged there; values, orders and codes are.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys
from collections.abc import Iterator
from ctypes import byref, c_int, c_uint64, c_void_p
from typing import Any, Protocol

REHEARSAL = "GPU_CHECK_REHEARSAL"
"""Variable of the parts: "1" if the runner has found no GPU. Decided once per run."""


class Machine(Protocol):
    """A device, its streams and its driver."""

    fake: bool
    library: str
    """The driver's name for dlopen."""

    def call(self, name: str, *arguments: Any) -> int:
        """Call a driver function with ctypes arguments; return its code."""

    def enter(self) -> None:
        """Make the device's context this thread's current one."""

    def stream(self) -> Any:
        """Return a new stream that does not wait for the legacy stream."""

    def handle(self, stream: Any) -> int:
        """Return the driver's handle of a stream."""

    def on(self, stream: Any) -> contextlib.AbstractContextManager[Any]:
        """Make a stream the current one for a block."""

    def scalar(self, value: float) -> Any:
        """Return a tensor of one float32 on the device."""

    def add(self, tensor: Any, amount: float) -> None:
        """Launch a kernel on the current stream that adds in place."""

    def keep_busy(self, seconds: float) -> None:
        """Launch a kernel on the current stream that runs for the given time."""

    def busy(self) -> bool:
        """Return whether the current stream has work left."""

    def synchronize(self) -> None:
        """Wait until the device is idle."""

    def begin_capture(self, stream: Any, mode: int) -> None:
        """Begin capturing a stream into a graph, in this thread."""

    def end_capture(self, stream: Any) -> bool:
        """End the capture; return whether it stayed valid."""


class Cuda:
    """An NVIDIA GPU; torch's current device."""

    fake = False
    library = "libcuda.so.1"

    def __init__(self, *, clock: bool) -> None:
        """Create a context and measure the clock now, because that waits for the device."""
        import torch

        from benchmarks.gpu.clock import cycles_per_second

        self.torch = torch
        torch.zeros((), device="cuda")
        self.driver = ctypes.CDLL(self.library)
        self.context = c_void_p()
        self.check("cuCtxGetCurrent", byref(self.context))
        if clock:
            cycles_per_second()
        torch.cuda.synchronize()

    def call(self, name: str, *arguments: Any) -> int:
        """Call a driver function."""
        return int(self.driver[name](*arguments))

    def check(self, name: str, *arguments: Any) -> None:
        """Call a function that must succeed."""
        if code := self.call(name, *arguments):
            raise RuntimeError(f"{name} returned {code}")

    def enter(self) -> None:
        """Make the context current."""
        self.check("cuCtxSetCurrent", self.context)

    def stream(self) -> Any:
        """Create one from torch's pool."""
        return self.torch.cuda.Stream()

    def handle(self, stream: Any) -> int:
        """Return torch's handle."""
        return int(stream.cuda_stream)

    def on(self, stream: Any) -> contextlib.AbstractContextManager[Any]:
        """Use torch's context manager."""
        manager: contextlib.AbstractContextManager[Any] = self.torch.cuda.stream(stream)
        return manager

    def scalar(self, value: float) -> Any:
        """Fill one with a kernel."""
        return self.torch.full((), value, device="cuda")

    def add(self, tensor: Any, amount: float) -> None:
        """Add in place."""
        tensor.add_(amount)

    def keep_busy(self, seconds: float) -> None:
        """Spin on the device."""
        from benchmarks.gpu.clock import keep_busy

        keep_busy(seconds)

    def busy(self) -> bool:
        """Ask torch."""
        return not self.torch.cuda.current_stream().query()

    def synchronize(self) -> None:
        """Wait for the device."""
        self.torch.cuda.synchronize()

    def begin_capture(self, stream: Any, mode: int) -> None:
        """Begin through the driver."""
        self.check("cuStreamBeginCapture_v2", c_void_p(self.handle(stream)), c_int(mode))

    def end_capture(self, stream: Any) -> bool:
        """End the capture, and drop the graph."""
        graph = c_void_p()
        code = self.call("cuStreamEndCapture", c_void_p(self.handle(stream)), byref(graph))
        if graph.value:
            self.call("cuGraphDestroy", graph)
        return code == 0 and bool(graph.value)


class Fake:
    """The fake driver with one device; each of its tensors has one float32."""

    fake = True

    def __init__(self) -> None:
        """Build it, and make the recorder use it."""
        from device import fakes

        from foundry_fastlog.recording import device_tensors

        self.driver = fakes.load_driver()
        self.library = str(self.driver.path)
        os.environ["FASTLOG_CUDA_LIBRARY"] = self.library
        self.enter()
        self.streams = [self.driver.stream(0, nonblocking=True)]
        self.current = self.streams[0]
        self.driver.set_stream(self.current, 0)
        device_tensors.block_stream = lambda _: (fakes.CUDA, 0, self.current)
        self.values: dict[int, float] = {}

    def call(self, name: str, *arguments: Any) -> int:
        """Call a driver function."""
        return self.driver.call(name, *arguments)

    def enter(self) -> None:
        """Make the context current."""
        self.driver.use(0)

    def stream(self) -> int:
        """Make one."""
        self.streams.append(self.driver.stream(0, nonblocking=True))
        return self.streams[-1]

    def handle(self, stream: int) -> int:
        """Return the stream, which is its handle."""
        return stream

    @contextlib.contextmanager
    def on(self, stream: int) -> Iterator[None]:
        """Make it current in all threads: there is only one current stream."""
        before, self.current = self.current, stream
        self.driver.set_stream(stream, 0)
        try:
            yield
        finally:
            self.current = before
            self.driver.set_stream(before, 0)

    def scalar(self, value: float) -> Any:
        """Return a value immediately."""
        tensor = self.driver.tensor(value)
        self.values[tensor.data_ptr()] = value
        return tensor

    def add(self, tensor: Any, amount: float) -> None:
        """Store the sum in stream order."""
        address = tensor.data_ptr()
        self.values[address] += amount
        self.driver.store(self.current, address, self.values[address])

    def keep_busy(self, seconds: float) -> None:
        """Delay the stream."""
        self.driver.delay(self.current, int(seconds * 1e6))

    def busy(self) -> bool:
        """Query without waiting."""
        return not self.driver.wait(self.current, 0.0)

    def synchronize(self) -> None:
        """Wait for all streams."""
        if not all(self.driver.wait(stream) for stream in self.streams):
            raise RuntimeError("the fake device did not become idle")

    def begin_capture(self, stream: int, mode: int) -> None:
        """Begin it."""
        self.driver.begin_capture(stream, mode)

    def end_capture(self, stream: int) -> bool:
        """End it."""
        return self.driver.end_capture(stream)


def no_gpu() -> str:
    """Return why no NVIDIA GPU can be used, or ""."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    if torch.version.hip:
        return f"torch {torch.__version__} is a build for ROCm"
    return "" if torch.cuda.is_available() else f"torch {torch.__version__} sees no CUDA device"


def rehearsed() -> bool:
    """Return whether this run is a rehearsal, as decided by its runner."""
    return os.environ.get(REHEARSAL) == "1"


def find(*, clock: bool = True) -> Machine:
    """Return the GPU, or the fake driver in a rehearsal.

    Args:
        clock: `keep_busy` will be called.

    Raises:
        RuntimeError: This run's GPU is gone, or the fake driver does not run here.
    """
    if not rehearsed():
        if why := no_gpu():
            raise RuntimeError(f"no GPU can be used, and this is no rehearsal: {why}")
        return Cuda(clock=clock)
    if sys.platform != "linux":
        raise RuntimeError("no GPU, and the fake driver runs on Linux only")
    return Fake()


def address_of(tensor: Any) -> c_uint64:
    """Return a tensor's device address as a driver argument."""
    return c_uint64(tensor.data_ptr())
