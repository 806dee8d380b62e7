"""The host's waits in a traced block of code, from torch.profiler's trace.

Kineto drops driver calls that it does not know, so a trace may miss waits made there. Each trace
therefore ends with controls: waits made in the driver through ctypes, which must be visible. If
they are not, the trace proves nothing, and only the timing behind a long kernel counts.
"""

from __future__ import annotations

import ctypes
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

WINDOW = "fastlog_measured"
CONTROL = "fastlog_control_"
# Runtime and driver calls that return only when the device has reached a point. cudaMemcpy without
# Async waits, too; `.item()`'s asynchronous copy into pageable memory is followed by such a call.
WAITING = (
    "cudaDeviceSynchronize",
    "cudaStreamSynchronize",
    "cudaEventSynchronize",
    "cudaMemcpy",
    "cudaMemcpyToSymbol",
    "cudaMemcpyFromSymbol",
    "cuCtxSynchronize",
    "cuStreamSynchronize",
    "cuEventSynchronize",
    "cuMemcpyDtoH_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpy",
)
# The profiler's own records of waits, from any call; a stream waiting for an event only concerns
# the device.
DEVICE_SIDE = "Stream Wait Event"


@dataclass(frozen=True)
class Traced:
    """What a trace shows."""

    events: list[dict[str, Any]]
    """The host's calls inside the window, and the device's copies until it was idle again."""
    seen: dict[str, bool]
    """The controls that the trace shows; empty without a GPU."""


def trace(work: Callable[[], None]) -> Traced:
    """Run `work` under the profiler, then the controls."""
    cuda = torch.cuda.is_available()
    profiler = torch.profiler
    activities = [profiler.ProfilerActivity.CPU]
    options: dict[str, Any] = {}
    if cuda:
        activities.append(profiler.ProfilerActivity.CUDA)
        options["experimental_config"] = profiler._ExperimentalConfig(  # noqa: SLF001 - there is no public way
            enable_cuda_sync_events=True
        )
        torch.cuda.synchronize()
    with profiler.profile(activities=activities, **options) as profile:
        with profiler.record_function(WINDOW):
            work()
        if cuda:
            torch.cuda.synchronize()
            for name, call in controls().items():
                # The profiler omits waits for streams on which it saw no kernel.
                torch.zeros((), device="cuda").add_(1)
                with profiler.record_function(CONTROL + name):
                    call()
                torch.cuda.synchronize()
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        path = Path(scratch) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return read(events)


def controls() -> dict[str, Callable[[], None]]:
    """Return calls that wait in the driver, bypassing torch and the runtime, by name."""
    driver = ctypes.CDLL("libcuda.so.1")
    value = torch.ones((), device="cuda")
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    to = ctypes.c_float()

    def checked(code: int) -> None:
        if code:
            raise RuntimeError(f"the driver refused a control: error {code}")

    def wait_for_the_stream() -> None:
        checked(driver.cuStreamSynchronize(stream))

    def copy() -> None:
        address = ctypes.c_uint64(value.data_ptr())
        checked(driver.cuMemcpyDtoH_v2(ctypes.byref(to), address, ctypes.c_size_t(4)))

    return {"cuStreamSynchronize": wait_for_the_stream, "cuMemcpyDtoH_v2": copy}


def read(events: list[dict[str, Any]]) -> Traced:
    """Split a trace's events into those of the window and those of the controls.

    Raises:
        ValueError: The trace has no window.
    """
    complete = [event for event in events if event.get("ph") == "X"]
    start, end = span(complete, WINDOW) or (0.0, -1.0)
    if end < start:
        raise ValueError("the trace has no window")
    names = {
        str(event["name"])
        for event in complete
        if str(event["name"]).startswith(CONTROL) and "annotation" in kind(event)
    }
    spans = {name.removeprefix(CONTROL): span(complete, name) for name in sorted(names)}
    # The device was idle between the window and the first control, so copies before that are ours.
    idle = min((found[0] for found in spans.values() if found), default=float("inf"))
    kept = [
        event
        for event in complete
        if start <= float(event["ts"]) <= (idle if kind(event) == "gpu_memcpy" else end)
    ]
    seen = {}
    for name, found in spans.items():
        first, last = found or (0.0, -1.0)
        inside = [event for event in complete if first <= float(event["ts"]) <= last]
        seen[name] = bool(waits(inside) or copies_to_host(inside))
    return Traced(kept, seen)


def span(complete: list[dict[str, Any]], name: str) -> tuple[float, float] | None:
    """Return the start and end of an annotation on the host; None if there is none."""
    found = [event for event in complete if event["name"] == name and "annotation" in kind(event)]
    host = [event for event in found if not kind(event).startswith("gpu")] or found
    if not host:
        return None
    start = float(host[0]["ts"])
    return start, start + float(host[0]["dur"])


def kind(event: dict[str, Any]) -> str:
    """Return an event's category, in lower case ("" without one)."""
    return str(event.get("cat", "")).lower()


def waits(events: list[dict[str, Any]]) -> Counter[str]:
    """Count the host's waits.

    A wait may be in the trace twice, as a call and as a synchronisation record: calls are counted,
    and records only if there is no call (a driver call that is not traced).
    """
    calls: Counter[str] = Counter()
    records: Counter[str] = Counter()
    for event in events:
        name = str(event["name"])
        if kind(event) in ("cuda_runtime", "cuda_driver") and name in WAITING:
            calls[name] += 1
        elif kind(event) == "cuda_sync" and DEVICE_SIDE not in name:
            records[name] += 1
    return calls if calls.total() >= records.total() else records


def copies_to_host(events: list[dict[str, Any]]) -> Counter[str]:
    """Count device-to-host copies by name, which includes the kind of memory."""
    names = (str(event["name"]) for event in events if kind(event) == "gpu_memcpy")
    return Counter(name for name in names if "DtoH" in name)
