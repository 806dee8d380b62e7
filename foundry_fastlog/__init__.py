"""foundry_fastlog: record what a training run does without slowing it down.

    from foundry_fastlog import Recorder

    with Recorder("runs/exp0") as recorder:
        for step in range(1000):
            recorder.record(step, loss=loss, lr=lr)

Importing the package is cheap: each name is loaded on first use.
"""

from __future__ import annotations

import importlib

from foundry_fastlog._version import __version__

TYPE_CHECKING = False  # type checkers know this name; importing typing takes longer than the rest
if TYPE_CHECKING:
    from foundry_fastlog.analysis.alerts import Alert, WatchRules
    from foundry_fastlog.analysis.compare import compare_runs
    from foundry_fastlog.analysis.rank_results import RankComparison
    from foundry_fastlog.analysis.ranks import compare_ranks
    from foundry_fastlog.analysis.runs import Runs, read_runs
    from foundry_fastlog.analysis.watching import RunWatch
    from foundry_fastlog.analysis.where import WhereError
    from foundry_fastlog.base.environment import get_device, get_git_commit_hash
    from foundry_fastlog.components.errors import ErrorTracker
    from foundry_fastlog.components.experiment import ExperimentLogging
    from foundry_fastlog.components.metrics import MetricsLogger
    from foundry_fastlog.components.performance import PerformanceLogger
    from foundry_fastlog.config.models import LoggingConfig, RecorderConfig
    from foundry_fastlog.config.yaml_file import ConfigError
    from foundry_fastlog.export.perfetto import export_chrome_trace
    from foundry_fastlog.export.runs import export_runs
    from foundry_fastlog.fleet.crew import FleetError
    from foundry_fastlog.fleet.fleet import Fleet
    from foundry_fastlog.importing.runs import ImportedRun, SourceError, import_runs
    from foundry_fastlog.machine.sampler import SystemMetrics
    from foundry_fastlog.messages.recorder_handler import RecorderHandler
    from foundry_fastlog.messages.setup import (
        HIERARCHY,
        apply_levels,
        cleanup_empty_logs,
        get_latest_log,
        list_experiment_logs,
        setup_experiment_logging,
        setup_logging,
        setup_multi_logging,
    )
    from foundry_fastlog.messages.structured import StructuredLogger, log_context
    from foundry_fastlog.messages.text_handlers import ConsoleHandler, TextFileHandler
    from foundry_fastlog.messages.text_recovery import recover
    from foundry_fastlog.pages.report import write_report
    from foundry_fastlog.reading.cursor import Cursor
    from foundry_fastlog.reading.found_rings import RingReport
    from foundry_fastlog.reading.run import Run, read_run
    from foundry_fastlog.recording.recorder import Recorder, RecorderClosedError, open_run
    from foundry_fastlog.run.files import RunNotFoundError
    from foundry_fastlog.show.plot_runs import plot_runs
    from foundry_fastlog.sinks.sync import SyncError, SyncResult, sync_run
    from foundry_fastlog.sinks.wandb import WandBLogger

__all__ = [
    "HIERARCHY",
    "Alert",
    "ConfigError",
    "ConsoleHandler",
    "Cursor",
    "ErrorTracker",
    "ExperimentLogging",
    "Fleet",
    "FleetError",
    "ImportedRun",
    "LoggingConfig",
    "MetricsLogger",
    "PerformanceLogger",
    "RankComparison",
    "Recorder",
    "RecorderClosedError",
    "RecorderConfig",
    "RecorderHandler",
    "RingReport",
    "Run",
    "RunNotFoundError",
    "RunWatch",
    "Runs",
    "SourceError",
    "StructuredLogger",
    "SyncError",
    "SyncResult",
    "SystemMetrics",
    "TextFileHandler",
    "WandBLogger",
    "WatchRules",
    "WhereError",
    "__version__",
    "apply_levels",
    "cleanup_empty_logs",
    "compare_ranks",
    "compare_runs",
    "export_chrome_trace",
    "export_runs",
    "get_device",
    "get_git_commit_hash",
    "get_latest_log",
    "import_runs",
    "list_experiment_logs",
    "log_context",
    "open_run",
    "plot_runs",
    "read_run",
    "read_runs",
    "recover",
    "setup_experiment_logging",
    "setup_logging",
    "setup_multi_logging",
    "sync_run",
    "write_report",
]

_HOMES = {
    "Alert": "foundry_fastlog.analysis.alerts",
    "RunWatch": "foundry_fastlog.analysis.watching",
    "WatchRules": "foundry_fastlog.analysis.alerts",
    "ExperimentLogging": "foundry_fastlog.components.experiment",
    "ConfigError": "foundry_fastlog.config.yaml_file",
    "ConsoleHandler": "foundry_fastlog.messages.text_handlers",
    "Cursor": "foundry_fastlog.reading.cursor",
    "SyncError": "foundry_fastlog.sinks.sync",
    "SyncResult": "foundry_fastlog.sinks.sync",
    "sync_run": "foundry_fastlog.sinks.sync",
    "ImportedRun": "foundry_fastlog.importing.runs",
    "SourceError": "foundry_fastlog.importing.runs",
    "import_runs": "foundry_fastlog.importing.runs",
    "Fleet": "foundry_fastlog.fleet.fleet",
    "FleetError": "foundry_fastlog.fleet.crew",
    "ErrorTracker": "foundry_fastlog.components.errors",
    "HIERARCHY": "foundry_fastlog.messages.setup",
    "LoggingConfig": "foundry_fastlog.config.models",
    "MetricsLogger": "foundry_fastlog.components.metrics",
    "PerformanceLogger": "foundry_fastlog.components.performance",
    "Recorder": "foundry_fastlog.recording.recorder",
    "RecorderClosedError": "foundry_fastlog.recording.recorder",
    "RecorderConfig": "foundry_fastlog.config.models",
    "RankComparison": "foundry_fastlog.analysis.rank_results",
    "RecorderHandler": "foundry_fastlog.messages.recorder_handler",
    "RingReport": "foundry_fastlog.reading.found_rings",
    "Run": "foundry_fastlog.reading.run",
    "RunNotFoundError": "foundry_fastlog.run.files",
    "Runs": "foundry_fastlog.analysis.runs",
    "StructuredLogger": "foundry_fastlog.messages.structured",
    "SystemMetrics": "foundry_fastlog.machine.sampler",
    "TextFileHandler": "foundry_fastlog.messages.text_handlers",
    "WandBLogger": "foundry_fastlog.sinks.wandb",
    "WhereError": "foundry_fastlog.analysis.where",
    "apply_levels": "foundry_fastlog.messages.setup",
    "cleanup_empty_logs": "foundry_fastlog.messages.setup",
    "compare_ranks": "foundry_fastlog.analysis.ranks",
    "compare_runs": "foundry_fastlog.analysis.compare",
    "export_chrome_trace": "foundry_fastlog.export.perfetto",
    "export_runs": "foundry_fastlog.export.runs",
    "get_device": "foundry_fastlog.base.environment",
    "get_git_commit_hash": "foundry_fastlog.base.environment",
    "get_latest_log": "foundry_fastlog.messages.setup",
    "list_experiment_logs": "foundry_fastlog.messages.setup",
    "log_context": "foundry_fastlog.messages.structured",
    "open_run": "foundry_fastlog.recording.recorder",
    "plot_runs": "foundry_fastlog.show.plot_runs",
    "read_run": "foundry_fastlog.reading.run",
    "read_runs": "foundry_fastlog.analysis.runs",
    "recover": "foundry_fastlog.messages.text_recovery",
    "setup_experiment_logging": "foundry_fastlog.messages.setup",
    "setup_logging": "foundry_fastlog.messages.setup",
    "setup_multi_logging": "foundry_fastlog.messages.setup",
    "write_report": "foundry_fastlog.pages.report",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from foundry_fastlog.base.extras import extra

    with extra("plot", "numpy"):
        value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
