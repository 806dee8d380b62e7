"""What a traced block of code made the host wait for, from torch.profiler's trace."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WINDOW = "fastlog_measured"
# Runtime and driver calls that return when the device has come so far. cudaMemcpy without Async
# waits, too; the asynchronous copy into pageable memory that `.item()` makes is followed by one.
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
# The profiler's own records of waiting, whatever call it came from; a stream that waits for an
# event is the device's business.
DEVICE_SIDE = "Stream Wait Event"


def trace(work: Callable[[], None]) -> list[dict[str, Any]]:
    """Run `work` under the profiler.

    Returns:
        The events of the trace that began while `work` ran, of all threads.
    """
    profiler = torch.profiler
    activities = [profiler.ProfilerActivity.CPU]
    options: dict[str, Any] = {}
    if torch.cuda.is_available():
        activities.append(profiler.ProfilerActivity.CUDA)
        options["experimental_config"] = profiler._ExperimentalConfig(  # noqa: SLF001 - no other way
            enable_cuda_sync_events=True
        )
        torch.cuda.synchronize()
    with profiler.profile(activities=activities, **options) as profile:
        with profiler.record_function(WINDOW):
            work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        path = Path(scratch) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return within(events)


def within(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the complete events that began inside the window.

    Raises:
        ValueError: The trace has no window.
    """
    complete = [event for event in events if event.get("ph") == "X"]
    windows = [
        event for event in complete if event["name"] == WINDOW and "annotation" in kind(event)
    ]
    host = [event for event in windows if not kind(event).startswith("gpu")] or windows
    if not host:
        raise ValueError("the trace has no window")
    start = float(host[0]["ts"])
    end = start + float(host[0]["dur"])
    return [event for event in complete if start <= float(event["ts"]) <= end]


def kind(event: dict[str, Any]) -> str:
    """Return an event's category, in lower case ("" without one)."""
    return str(event.get("cat", "")).lower()


def waits(events: list[dict[str, Any]]) -> Counter[str]:
    """Count what made the host wait.

    One wait may be in the trace twice, as a call and as a synchronization record: calls are
    counted, and the records only where no call shows (a driver call that is not traced).
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
    """Count copies from the device to the host by their name, which tells the kind of memory."""
    names = (str(event["name"]) for event in events if kind(event) == "gpu_memcpy")
    return Counter(name for name in names if "DtoH" in name)
