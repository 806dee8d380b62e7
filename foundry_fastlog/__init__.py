"""foundry_fastlog: record what a training run does, at no cost to the run.

    from foundry_fastlog import Recorder

    with Recorder("runs/exp0") as recorder:
        for step in range(1000):
            recorder.record(step, loss=loss, lr=lr)

Importing the package is cheap: everything is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from foundry_fastlog._version import __version__

if TYPE_CHECKING:
    from foundry_fastlog.config import LoggingConfig, RecorderConfig
    from foundry_fastlog.config_file import ConfigError
    from foundry_fastlog.errors import ErrorTracker
    from foundry_fastlog.files import RunNotFoundError
    from foundry_fastlog.metrics import MetricsLogger
    from foundry_fastlog.performance import PerformanceLogger
    from foundry_fastlog.reading import Run, read_run
    from foundry_fastlog.recorder import Recorder, RecorderClosedError, open_run, recover
    from foundry_fastlog.ring_files import RingReport
    from foundry_fastlog.sinks.wandb import WandBLogger
    from foundry_fastlog.system_metrics import SystemMetrics
    from foundry_fastlog.trace import export_chrome_trace

__all__ = [
    "ConfigError",
    "ErrorTracker",
    "LoggingConfig",
    "MetricsLogger",
    "PerformanceLogger",
    "Recorder",
    "RecorderClosedError",
    "RecorderConfig",
    "RingReport",
    "Run",
    "RunNotFoundError",
    "SystemMetrics",
    "WandBLogger",
    "__version__",
    "export_chrome_trace",
    "open_run",
    "read_run",
    "recover",
]

_HOMES = {
    "ConfigError": "foundry_fastlog.config_file",
    "ErrorTracker": "foundry_fastlog.errors",
    "LoggingConfig": "foundry_fastlog.config",
    "MetricsLogger": "foundry_fastlog.metrics",
    "PerformanceLogger": "foundry_fastlog.performance",
    "Recorder": "foundry_fastlog.recorder",
    "RecorderClosedError": "foundry_fastlog.recorder",
    "RecorderConfig": "foundry_fastlog.config",
    "RingReport": "foundry_fastlog.ring_files",
    "Run": "foundry_fastlog.reading",
    "RunNotFoundError": "foundry_fastlog.files",
    "SystemMetrics": "foundry_fastlog.system_metrics",
    "WandBLogger": "foundry_fastlog.sinks.wandb",
    "export_chrome_trace": "foundry_fastlog.trace",
    "open_run": "foundry_fastlog.recorder",
    "read_run": "foundry_fastlog.reading",
    "recover": "foundry_fastlog.recorder",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module at its first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
