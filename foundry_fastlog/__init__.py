"""foundry_fastlog: record what a training run does, at no cost to the run.

    from foundry_fastlog import Recorder

    with Recorder("runs/exp0") as recorder:
        for step in range(1000):
            recorder.record(step, loss=loss, lr=lr)

Importing the package is cheap: everything is loaded when it is first used.
"""

from __future__ import annotations

import importlib

from foundry_fastlog._version import __version__

TYPE_CHECKING = False  # type checkers know the name: typing would take longer than all the rest
if TYPE_CHECKING:
    from foundry_fastlog.config import LoggingConfig, RecorderConfig
    from foundry_fastlog.config_file import ConfigError
    from foundry_fastlog.engine_handler import RecorderHandler
    from foundry_fastlog.environment import get_device, get_git_commit_hash
    from foundry_fastlog.errors import ErrorTracker
    from foundry_fastlog.experiment import ExperimentLogging
    from foundry_fastlog.files import RunNotFoundError
    from foundry_fastlog.log_setup import (
        HIERARCHY,
        apply_levels,
        cleanup_empty_logs,
        get_latest_log,
        list_experiment_logs,
        setup_experiment_logging,
        setup_logging,
        setup_multi_logging,
    )
    from foundry_fastlog.metrics import MetricsLogger
    from foundry_fastlog.performance import PerformanceLogger
    from foundry_fastlog.reading import Run, read_run
    from foundry_fastlog.recorder import Recorder, RecorderClosedError, open_run, recover
    from foundry_fastlog.ring_files import RingReport
    from foundry_fastlog.sinks.wandb import WandBLogger
    from foundry_fastlog.structured import StructuredLogger, log_context
    from foundry_fastlog.system_metrics import SystemMetrics
    from foundry_fastlog.text_logs import ConsoleHandler, TextFileHandler
    from foundry_fastlog.trace import export_chrome_trace

__all__ = [
    "HIERARCHY",
    "ConfigError",
    "ConsoleHandler",
    "ErrorTracker",
    "ExperimentLogging",
    "LoggingConfig",
    "MetricsLogger",
    "PerformanceLogger",
    "Recorder",
    "RecorderClosedError",
    "RecorderConfig",
    "RecorderHandler",
    "RingReport",
    "Run",
    "RunNotFoundError",
    "StructuredLogger",
    "SystemMetrics",
    "TextFileHandler",
    "WandBLogger",
    "__version__",
    "apply_levels",
    "cleanup_empty_logs",
    "export_chrome_trace",
    "get_device",
    "get_git_commit_hash",
    "get_latest_log",
    "list_experiment_logs",
    "log_context",
    "open_run",
    "read_run",
    "recover",
    "setup_experiment_logging",
    "setup_logging",
    "setup_multi_logging",
]

_HOMES = {
    "ExperimentLogging": "foundry_fastlog.experiment",
    "ConfigError": "foundry_fastlog.config_file",
    "ConsoleHandler": "foundry_fastlog.text_logs",
    "ErrorTracker": "foundry_fastlog.errors",
    "HIERARCHY": "foundry_fastlog.log_setup",
    "LoggingConfig": "foundry_fastlog.config",
    "MetricsLogger": "foundry_fastlog.metrics",
    "PerformanceLogger": "foundry_fastlog.performance",
    "Recorder": "foundry_fastlog.recorder",
    "RecorderClosedError": "foundry_fastlog.recorder",
    "RecorderConfig": "foundry_fastlog.config",
    "RecorderHandler": "foundry_fastlog.engine_handler",
    "RingReport": "foundry_fastlog.ring_files",
    "Run": "foundry_fastlog.reading",
    "RunNotFoundError": "foundry_fastlog.files",
    "StructuredLogger": "foundry_fastlog.structured",
    "SystemMetrics": "foundry_fastlog.system_metrics",
    "TextFileHandler": "foundry_fastlog.text_logs",
    "WandBLogger": "foundry_fastlog.sinks.wandb",
    "apply_levels": "foundry_fastlog.log_setup",
    "cleanup_empty_logs": "foundry_fastlog.log_setup",
    "export_chrome_trace": "foundry_fastlog.trace",
    "get_device": "foundry_fastlog.environment",
    "get_git_commit_hash": "foundry_fastlog.environment",
    "get_latest_log": "foundry_fastlog.log_setup",
    "list_experiment_logs": "foundry_fastlog.log_setup",
    "log_context": "foundry_fastlog.structured",
    "open_run": "foundry_fastlog.recorder",
    "read_run": "foundry_fastlog.reading",
    "recover": "foundry_fastlog.recorder",
    "setup_experiment_logging": "foundry_fastlog.log_setup",
    "setup_logging": "foundry_fastlog.log_setup",
    "setup_multi_logging": "foundry_fastlog.log_setup",
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
