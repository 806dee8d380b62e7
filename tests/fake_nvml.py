"""Stands in for nvidia-ml-py's module `pynvml`, on machines without a GPU."""

# ruff: noqa: N802 - the names, and what they do, are NVML's

from __future__ import annotations

import types
from typing import Any


class FakeNvml(types.ModuleType):
    """Has the names, signatures and error classes of nvidia-ml-py's module, and two GPUs."""

    NVML_TEMPERATURE_GPU = 0
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_LIBRARY_NOT_FOUND = 12

    class NVMLError(Exception):
        """An error code of NVML."""

        def __init__(self, value: int) -> None:
            super().__init__(value)
            self.value = value

    def __init__(self, uuids: tuple[str, ...] = ("GPU-aaaa", "GPU-bbbb")) -> None:
        super().__init__("pynvml")
        self.uuids = uuids
        self.unsupported: set[str] = set()
        self.opened = self.closed = 0

    def _check(self, name: str, code: int = NVML_ERROR_NOT_SUPPORTED) -> None:
        if name in self.unsupported:
            raise self.NVMLError(code)

    def nvmlInit(self) -> None:
        self._check("nvmlInit", self.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self._check("nvmlShutdown")
        self.closed += 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self._check(f"index {index}")
        return self.uuids[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.uuids:
            raise self.NVMLError(self.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int | None = None) -> Any:
        self._check("memory")
        used = 20_000_000_000 * (1 + self.uuids.index(handle))
        return types.SimpleNamespace(total=80_000_000_000, free=80_000_000_000 - used, used=used)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        self._check("utilization")
        return types.SimpleNamespace(gpu=93, memory=41)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        self._check("power")
        return 412_500
