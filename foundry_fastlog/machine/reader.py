"""What the machine and this process currently use: CPU, memory, disk, NVIDIA GPUs.

psutil and nvidia-ml-py are optional (``pip install 'foundry_fastlog[system]'``). Without psutil,
figures come from /proc. Without nvidia-ml-py, a driver or a GPU, there are no GPU figures.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from foundry_fastlog.base.environment import rss_bytes

__all__ = ["SystemReader", "torch_memory"]

_GB = 1e9  # bytes
_PROC = Path("/proc")
# Fields of /proc/stat's first line that count idle time: idle, iowait.
_IDLE_FIELDS = (3, 4)
# The fields after these are guest and guest_nice, already included in user and nice.
_TIME_FIELDS = 8

_log = logging.getLogger("foundry_fastlog")


class _Probe(Protocol):
    """A source of CPU and memory figures."""

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the machine's (busy, total) CPU time since boot, in the same unit."""

    def rss(self) -> int:
        """Return this process's resident memory in bytes."""

    def memory(self) -> tuple[int, int]:
        """Return the machine's (available, total) memory in bytes."""


class _ProcProbe:
    """Linux's /proc."""

    def cpu_seconds(self) -> tuple[float, float]:
        with (_PROC / "stat").open() as file:
            fields = [float(field) for field in file.readline().split()[1 : _TIME_FIELDS + 1]]
        return sum(fields) - sum(fields[i] for i in _IDLE_FIELDS), sum(fields)

    def rss(self) -> int:
        return rss_bytes()

    def memory(self) -> tuple[int, int]:
        kib = {}
        with (_PROC / "meminfo").open() as file:
            for line in file:
                name, _, rest = line.partition(":")
                kib[name] = int(rest.split()[0])
        return kib["MemAvailable"] << 10, kib["MemTotal"] << 10


class _PsutilProbe:
    """psutil, if installed."""

    def __init__(self, psutil: Any) -> None:  # noqa: ANN401 - may be absent
        self._psutil = psutil
        self._process = psutil.Process()

    def cpu_seconds(self) -> tuple[float, float]:
        # Not psutil.cpu_percent(): its state from the last call is shared with the user's calls.
        times = self._psutil.cpu_times()
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        total = float(sum(times)) - guest
        return total - times.idle - getattr(times, "iowait", 0.0), total

    def rss(self) -> int:
        return int(self._process.memory_info().rss)

    def memory(self) -> tuple[int, int]:
        memory = self._psutil.virtual_memory()
        return int(memory.available), int(memory.total)


def _gpu_memory(nvml: Any, handle: Any) -> dict[str, float]:  # noqa: ANN401 - may be absent
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    percent = 100.0 * memory.used / max(memory.total, 1)
    return {"memory_used_gb": memory.used / _GB, "memory_percent": percent}


def _gpu_utilization(nvml: Any, handle: Any) -> dict[str, float]:  # noqa: ANN401 - may be absent
    return {"utilization_percent": float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)}


def _gpu_temperature(nvml: Any, handle: Any) -> dict[str, float]:  # noqa: ANN401 - may be absent
    celsius = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
    return {"temperature_c": float(celsius)}


def _gpu_power(nvml: Any, handle: Any) -> dict[str, float]:  # noqa: ANN401 - may be absent
    return {"power_w": nvml.nvmlDeviceGetPowerUsage(handle) / 1e3}


_GPU_FIGURES = (_gpu_memory, _gpu_utilization, _gpu_temperature, _gpu_power)


class _Gpus:
    """NVML's view of the GPUs that this process may use."""

    def __init__(self) -> None:
        """Import NVML's Python module; the driver is queried at the first read."""
        self._handles: list[tuple[int, Any]] | None = None
        try:
            self._nvml: Any = importlib.import_module("pynvml")
        except ImportError:
            self._nvml = None
            self._handles = []

    def read(self) -> dict[str, float]:
        """Return the figures; those that a GPU or its driver does not provide are omitted."""
        if self._handles is None:
            self._handles = self._open()
        return {
            f"system/gpu{ordinal}/{name}": value
            for ordinal, handle in self._handles
            for ask in _GPU_FIGURES
            for name, value in self._answer(ask, handle).items()
        }

    def _answer(
        self,
        ask: Callable[[Any, Any], dict[str, float]],
        handle: Any,  # noqa: ANN401 - NVML's
    ) -> dict[str, float]:
        try:
            return ask(self._nvml, handle)
        except self._nvml.NVMLError as error:  # not supported by this GPU, or the GPU is lost
            _log.debug("GPU: no figures from %s: %s", ask.__name__, error)
            return {}

    def _open(self) -> list[tuple[int, Any]]:
        """Return the GPUs' handles, numbered as CUDA numbers them in this process."""
        nvml = self._nvml
        try:
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:  # no driver: an ordinary machine without a GPU
            _log.debug("no GPU figures: %s", error)
            return []
        handles = ((number, self._find(device)) for number, device in _visible(count))
        return [(number, handle) for number, handle in handles if handle is not None]

    def _find(self, device: int | str) -> Any:  # noqa: ANN401 - NVML's handle
        try:
            if isinstance(device, int):
                return self._nvml.nvmlDeviceGetHandleByIndex(device)
            return self._nvml.nvmlDeviceGetHandleByUUID(device)
        except self._nvml.NVMLError as error:
            _log.debug("GPU %s: no figures: %s", device, error)
            return None

    def close(self) -> None:
        """Release the driver."""
        if self._handles:
            self._handles = []
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError as error:
                _log.debug("NVML: %s", error)


def _visible(count: int) -> list[tuple[int, int | str]]:
    """List the GPUs visible to CUDA in this process as (CUDA's number, NVML's index or UUID).

    A process with LOCAL_RANK gets only its own: other processes record the others.
    """
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices: list[int | str] = []
    if text is None:
        devices = list(range(count))
    else:
        for part in (part.strip() for part in text.split(",")):
            if part.startswith(("GPU-", "MIG-")):
                devices.append(part)
            elif part.isdecimal() and int(part) < count:
                devices.append(int(part))
            else:  # CUDA stops at the first entry it does not know, such as -1
                break
    numbered = list(enumerate(devices))
    rank = os.environ.get("LOCAL_RANK", "")
    if rank.isdecimal() and int(rank) < len(numbered):
        return numbered[int(rank) : int(rank) + 1]
    return numbered


class SystemReader:
    """Reads the figures; CPU percentages cover the time since the previous read.

    Only one thread at a time may use it.
    """

    def __init__(self, path: str | os.PathLike[str] = ".") -> None:
        """Import the available sources, and read the CPU's clocks for the first time.

        Args:
            path: A file or directory on the disk to measure.
        """
        self._path = path
        self._open()

    def _open(self) -> None:
        self._pid = os.getpid()
        self._gpus = _Gpus()
        self._probe: _Probe | None = _find_probe()
        self._before = self._clocks()

    def _clocks(self) -> tuple[float, float, float, float]:
        busy, total = self._probe.cpu_seconds() if self._probe else (0.0, 0.0)
        return busy, total, time.process_time(), time.monotonic()

    def read(self) -> dict[str, float]:
        """Return the current figures.

        Returns:
            ``system/cpu_percent`` (of all cores), ``system/process_cpu_percent`` (100 is one core),
            ``system/rss_gb``, ``system/memory_percent``, ``system/disk_used_gb``,
            ``system/disk_free_gb``, and for each GPU N ``system/gpuN/memory_used_gb``,
            ``memory_percent``, ``utilization_percent``, ``temperature_c`` and ``power_w``. GB are
            10^9 bytes. Unavailable figures are omitted.
        """
        if os.getpid() != self._pid:  # a forked child: its own process, its own NVML
            self._open()
        figures: dict[str, float] = {}
        before, now = self._before, self._clocks()
        busy, total, process, wall = (b - a for a, b in zip(before, now, strict=True))
        if total > 0:  # the clocks tick a hundred times a second
            figures["system/cpu_percent"] = 100.0 * min(max(busy / total, 0.0), 1.0)
        if wall > 0:
            figures["system/process_cpu_percent"] = 100.0 * process / wall
        self._before = now
        if self._probe is not None:
            available, memory = self._probe.memory()
            figures["system/rss_gb"] = self._probe.rss() / _GB
            figures["system/memory_percent"] = 100.0 * (1 - available / memory)
        try:
            disk = shutil.disk_usage(self._path)
        except OSError as error:
            _log.debug("no disk figures: %s", error)
        else:
            figures["system/disk_used_gb"] = disk.used / _GB
            figures["system/disk_free_gb"] = disk.free / _GB
        return figures | self._gpus.read()

    def close(self) -> None:
        """Release the GPUs' driver; later reads have no GPU figures."""
        if os.getpid() == self._pid:
            self._gpus.close()


def _find_probe() -> _Probe | None:
    try:
        return _PsutilProbe(importlib.import_module("psutil"))
    except ImportError:
        return _ProcProbe() if (_PROC / "self" / "statm").exists() else None


def torch_memory() -> dict[str, float]:
    """Return torch's GPU memory, without importing torch or starting CUDA."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return {}
    return {
        "system/gpu_memory_allocated": cuda.memory_allocated() / 1e9,
        "system/gpu_memory_reserved": cuda.memory_reserved() / 1e9,
    }
