"""torchtitan: `FastlogLogger` for its metrics, `add_trace_handler` for its structured logger."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_fastlog.base.extras import extra
from foundry_fastlog.integrations.adapter import Adapter, Adapting
from foundry_fastlog.recording.recorder import Recorder

with extra("torchtitan", "torchtitan", "torch"):
    from torchtitan.components.metrics import BaseLogger

__all__ = ["FastlogLogger", "TraceHandler", "add_trace_handler"]

_FOLDER = "fastlog"


class FastlogLogger(Adapting, BaseLogger):
    """Records torchtitan's metrics: add it to the logger of its `MetricsProcessor`.

    torchtitan decides which process logs: create it there.

    Example:
        >>> logger = FastlogLogger("outputs/fastlog")  # doctest: +SKIP
        >>> trainer.metrics_processor.logger.add_logger(logger)  # doctest: +SKIP
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None = None,
        *,
        recorder: Recorder | None = None,
        config: Mapping[str, Any] | None = None,
        tag: str | None = None,
        **options: Any,  # noqa: ANN401 - Recorder's, which types them
    ) -> None:
        """Open the run.

        Args:
            run_dir: The run's directory, unless a recorder is given.
            recorder: The recorder to use; whoever opened it closes it.
            config: The run's configuration: ``trainer.config.to_dict()``.
            tag: What each metric's name begins with, before a slash.
            **options: Options for opening the run, see `Recorder`.

        Raises:
            TypeError: Neither, or both, of directory and recorder.
            NotADirectoryError: The directory, or a part of it, is a file.
        """
        super().__init__()
        self._prefix = "" if tag is None else f"{tag}/"
        self._adapter = Adapter(run_dir, recorder, logger="torchtitan", options=options)
        self._adapter.open(config)

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Record the metrics of a step; a step that is trained again replaces the old one."""
        self._adapter.log({f"{self._prefix}{name}": metrics[name] for name in metrics}, step)


class TraceHandler(logging.Handler):
    """Records the events of torchtitan's structured logger.

    The end of a span becomes a timing, a scalar a metric of its step, anything else a message; the
    beginning of a span is told by its end.
    """

    def __init__(self, run_dir: str | os.PathLike[str], rank: int, source: str) -> None:
        """Open this rank's part of the run.

        Args:
            run_dir: The run's directory.
            rank: The process's rank.
            source: What the process is, such as ``trainer``; names the logger of messages.
        """
        super().__init__()
        self._adapter = Adapter(run_dir, None, logger=source, options={"rank": rank})
        self._adapter.open()

    def emit(self, record: logging.LogRecord) -> None:
        """Record an event; errors are handled as in any handler."""
        try:
            self._record(record)
        except Exception:  # noqa: BLE001 - as in any handler: the program goes on
            self.handleError(record)

    def _record(self, record: logging.LogRecord) -> None:
        fields = vars(record)
        name, value = str(fields.get("log_type_name")), fields.get("value")
        step = fields.get("step")
        span = fields.get("log_type") == "event"
        if span and name.endswith("_end") and value is not None:
            self._adapter.timing(name.removesuffix("_end"), value / 1e3, step)
        elif name == "metric_value" and step is not None:
            self._adapter.log({str(fields.get("event_name")): value}, step)
        elif not (span and name.endswith("_start")):
            task = fields.get("task_name")
            context = {} if task is None else {"task": task}
            self._adapter.say(record.getMessage(), context, step=step, level=record.levelname)

    def close(self) -> None:
        """Write everything, and close the run unless others use it."""
        self._adapter.close()
        super().close()


def add_trace_handler(
    *, structured_logger: logging.Logger, rank: int, source: str, output_dir: str, **_: object
) -> None:
    """Attach a `TraceHandler` that records in ``fastlog/`` of the output directory.

    torchtitan calls it if the environment has
    ``TITAN_STRUCT_LOGGER_HANDLERS=foundry_fastlog.integrations.torchtitan.add_trace_handler``.
    """
    structured_logger.addHandler(TraceHandler(Path(output_dir) / _FOLDER, rank, source))
