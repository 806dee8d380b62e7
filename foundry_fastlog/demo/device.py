"""The device to train on, and the memory that training uses."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

from foundry_fastlog.config.yaml_file import ConfigError

_MEBIBYTE = float(1 << 20)


def pick_device(name: str) -> torch.device:
    """Choose a device.

    Args:
        name: ``"auto"`` picks the first GPU that torch can use, else the CPU.
            Anything else is used as given.

    Returns:
        The device, checked to be usable.

    Raises:
        ConfigError: The device is not available.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = f"torch sees {count} of them" if count else "torch sees no CUDA GPU"
            raise ConfigError(f"device {name!r}: {found}. Use --device cpu or auto.")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps': torch sees no Apple GPU. Use --device cpu or auto.")
    return device


def describe_device(device: torch.device) -> str:
    """Describe a device for display, such as ``cpu (2 threads)``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({threads} thread{'s' if threads != 1 else ''})"
    return str(device)


class MemoryGauge:
    """Reads, in a few microseconds, the memory that a training run currently uses.

    On a GPU: the bytes that torch has allocated there. On the CPU: the
    process's resident set, or its peak if the system reports only that
    (macOS).
    """

    def __init__(self, device: torch.device) -> None:
        """Open the file that is read at every step."""
        self._device = device
        self._statm = -1
        if device.type == "cpu" and Path("/proc/self/statm").exists():
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._page = resource.getpagesize()

    def read_mb(self) -> float:
        """Return the memory in use, in MiB."""
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device) / _MEBIBYTE
        if self._device.type == "mps":
            return torch.mps.current_allocated_memory() / _MEBIBYTE
        if self._statm >= 0:
            return int(os.pread(self._statm, 128, 0).split()[1]) * self._page / _MEBIBYTE
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / _MEBIBYTE if sys.platform == "darwin" else peak / 1024.0

    def close(self) -> None:
        """Close the file; do not read the gauge afterwards."""
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1
