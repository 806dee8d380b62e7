"""ErrorTracker: records errors with their context, counts them and groups them by fingerprint."""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from foundry_fastlog.base import caller_time
from foundry_fastlog.base.arguments import level_name, step_of, whole_number
from foundry_fastlog.base.environment import utc_now
from foundry_fastlog.base.error_facts import ErrorFacts, error_facts
from foundry_fastlog.base.error_marks import is_recorded, mark_recorded
from foundry_fastlog.base.fingerprint import member
from foundry_fastlog.base.fork_lock import ForkLock
from foundry_fastlog.base.json_text import (
    IN_MEMORY,
    read_context,
    readable,
    safe_str,
)
from foundry_fastlog.base.unread import class_name
from foundry_fastlog.components.component import (
    PLAIN_LOGGERS,
    AnyLogger,
    Component,
    stdlib_logger,
)
from foundry_fastlog.components.error_capture import Capture
from foundry_fastlog.components.error_hooks import Hooks
from foundry_fastlog.messages.text_lines import PARTS
from foundry_fastlog.recording.recorder import RecorderClosedError

if TYPE_CHECKING:
    import os

    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["ErrorTracker"]

FLUSH_TIMEOUT_S = 2.0
HUNG_FLUSH_TIMEOUT_S = 0.05
_MAX_TEXT = 16_000  # characters of a text kept in memory; the file has all of it
# Attribute names of LogRecord, and the parameters of StructuredLogger.log_structured().
_RESERVED = frozenset(
    {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
    | {"self", "level", "extra", "stack_info", "stacklevel", PARTS}
)


class ErrorTracker(Component):
    """Records errors to ``errors.jsonl``, logs them, counts them and groups equal ones.

    May be used from any thread and in forked children. Counts and lists cover this process only;
    the files have the errors of all processes.

    Attributes:
        logger: Where errors are logged.
        error_counts: Number of errors per exception class.

    Example:
        >>> tracker = ErrorTracker(logging.getLogger("train"), "runs/exp0")  # doctest: +SKIP
        >>> with tracker.capture({"operation": "save"}):  # doctest: +SKIP
        ...     save_checkpoint()
    """

    def __init__(
        self,
        logger: AnyLogger,
        experiment_dir: str | os.PathLike[str],
        max_errors: int = 1000,
        *,
        recorder: Recorder | None = None,
    ) -> None:
        """Open the run's directory, unless a recorder is given.

        Args:
            logger: A `logging.Logger` or a `StructuredLogger`.
            experiment_dir: The run's directory; created if absent. Components of one process with
                the same directory share one recorder.
            max_errors: Errors, and groups of errors, to keep in memory; the file has all.
            recorder: The recorder to use instead of the directory's own; whoever opened it closes
                it.

        Raises:
            TypeError: ``logger`` is not a logger, or ``max_errors`` is not an int.
            ValueError: ``max_errors`` is below 1.
            NotADirectoryError: ``experiment_dir``, or a part of it, is a file.
        """
        if isinstance(max_errors, bool) or not isinstance(max_errors, int):
            raise TypeError(f"max_errors must be an int, got {type(max_errors).__name__}")
        if max_errors < 1:
            raise ValueError(f"max_errors must be at least 1, got {max_errors}")
        self.logger = logger
        self._logger_name = stdlib_logger(logger).name
        super().__init__(experiment_dir, recorder, {})
        self.error_counts: defaultdict[str, int] = defaultdict(int)
        self._max_errors = max_errors
        self._recent: deque[dict[str, Any]] = deque(maxlen=max_errors)
        self._groups: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = ForkLock()
        self._hooks: Hooks | None = None
        self._hung = False  # the last wait for the disk timed out

    @property
    def error_log(self) -> Path:
        """The first errors file of this process, including everything recorded so far."""
        return self._first_file("errors")

    def log_error(
        self,
        error: BaseException,
        context: Mapping[str, Any] | None = None,
        *,
        step: int | None = None,
        level: str | int = "ERROR",
    ) -> dict[str, Any]:
        """Record an error with its traceback, log it and count it.

        Returns when the line is in the file, or after two seconds if the disk does not respond;
        after such a wait, further calls wait only a twentieth of a second until it responds. Never
        fails because of the exception, the context or the logger: it records whatever it can
        obtain.

        Args:
            error: The exception.
            context: Additional fields. Values that JSON cannot represent are written as their
                ``str()``, large arrays as type, shape and a few values.
            step: The training step. Default: the context's ``step``, if that is an int.
            level: DEBUG, INFO, WARNING, ERROR or CRITICAL.

        Returns:
            The entry kept in memory: ``timestamp``, ``level``, ``step``, ``error_type``,
            ``error_message``, ``traceback``, ``fingerprint`` and ``context``, as plain data.

        Raises:
            TypeError: ``error`` is not an exception, ``context`` not a mapping or ``step`` not an
                int.
            ValueError: An unknown level.
        """
        return self._log_error(error, context, step, level, stacklevel=3)

    def _log_error(
        self,
        error: BaseException,
        context: Mapping[str, Any] | None,
        step: int | None,
        level: str | int,
        *,
        stacklevel: int,
    ) -> dict[str, Any]:
        begin = caller_time.begin()
        try:
            level = level_name(level, "ERROR")
            if context is not None and not isinstance(context, Mapping):
                raise TypeError(f"context must be a mapping, got {type(context).__name__}")
            if not isinstance(error, BaseException):
                raise TypeError(f"error must be an exception, got {type(error).__name__}")
            fields = {} if context is None else read_context(context)
            if step is not None:
                step = whole_number("step", step)
            elif type(fields.get("step")) is int:
                step = fields["step"]
            facts = error_facts(error)
            message = f"{facts.kind}: {facts.text}"
            self._record(message, error, fields, step, level, self._logger_name, wait=True)
            entry = self._count(facts, fields, step, level)
            mark_recorded(error, self._recorder)
            self._log(getattr(logging, level), message, error, fields, stacklevel + 1)
            return entry
        finally:
            caller_time.end(begin)

    def record_logged(
        self,
        error: BaseException,
        level: str,
        logger: str,
        message: str,
        context: Mapping[str, Any],
    ) -> None:
        """Record and count an exception that was logged: by ``log.exception()``, say.

        Args:
            error: The exception.
            level: DEBUG, INFO, WARNING, ERROR or CRITICAL.
            logger: The logger's name.
            message: The message that it was logged with.
            context: The message's fields.
        """
        mark_recorded(error, self._recorder)
        fields = read_context(context)
        step = step_of(fields)
        self._record(message, error, fields, step, level, logger, wait=False)
        self._count(error_facts(error), fields, step, level)

    def _record(
        self,
        message: str,
        error: BaseException,
        context: dict[str, Any],
        step: int | None,
        level: str,
        logger: str,
        *,
        wait: bool,
    ) -> None:
        fields: dict[str, Any] = {
            "level": level,
            "logger": logger,
            "error": error,
            "context": context,
        }
        try:
            try:
                self._recorder.event(message, step=step, **fields)
            except OverflowError:  # a step beyond 64 bits; the context has it
                self._recorder.event(message, **fields)
            if not wait:
                return
            # Does not wait for metrics: when a device hangs, errors still have to reach the file. A
            # hung disk is waited for only once, since errors then come in large numbers.
            timeout = HUNG_FLUSH_TIMEOUT_S if self._hung else FLUSH_TIMEOUT_S
            self._hung = not self._recorder.flush(timeout, stream="errors")
        except RecorderClosedError:
            self._warn_once(
                "closed", f"errors were logged after the recorder of {self._directory} was closed"
            )
        except Exception as fault:  # noqa: BLE001 - such as no memory: the error is still logged and counted
            self._warn_once(
                "recorder", f"an error could not be recorded: {class_name(type(fault))}"
            )

    def _count(
        self, facts: ErrorFacts, context: dict[str, Any], step: int | None, level: str
    ) -> dict[str, Any]:
        """Count an error, and return the entry kept in memory."""
        kind = facts.kind
        entry: dict[str, Any] = {
            "timestamp": utc_now(),
            "level": level,
            "step": step,
            "error_type": kind,
            "error_message": _cut(facts.text),
            "traceback": _cut(facts.traceback),
            "fingerprint": facts.fingerprint,
            # Plain data: a tensor in the context would otherwise stay alive with its whole graph.
            "context": readable(context, IN_MEMORY),
        }
        with self._lock:
            self.error_counts[kind] += 1
            self._recent.append(entry)
            group = self._groups.get(entry["fingerprint"])
            if group is None:
                if len(self._groups) >= self._max_errors:
                    self._groups.popitem(last=False)  # the least recently seen
                group = self._groups[entry["fingerprint"]] = {
                    "fingerprint": entry["fingerprint"],
                    "error_type": kind,
                    "count": 0,
                    "first_step": entry["step"],
                    "first_time": entry["timestamp"],
                    "example": entry,
                }
            self._groups.move_to_end(entry["fingerprint"])
            group["count"] += 1
            group["last_step"] = entry["step"]
            group["last_time"] = entry["timestamp"]
        return entry

    def _log(
        self,
        level: int,
        message: str,
        error: BaseException,
        context: dict[str, Any],
        stacklevel: int,
    ) -> None:
        extra = {_safe_name(name): value for name, value in context.items()}
        exc_info = (type(error), error, member(error, "__traceback__"))
        try:
            if isinstance(self.logger, PLAIN_LOGGERS):
                self.logger.log(
                    level, "%s", message, exc_info=exc_info, extra=extra, stacklevel=stacklevel
                )
            else:
                self.logger.log_structured(
                    level, message, exc_info=exc_info, stacklevel=stacklevel, **extra
                )
        except Exception as fault:  # noqa: BLE001 - any kind of logger, filter or handler
            self._warn_once("logger", f"{self._logger_name} raised {class_name(type(fault))}")

    def get_error_summary(self) -> dict[str, int]:
        """Return the number of errors per exception class, since start or reset_counters()."""
        with self._lock:
            return dict(self.error_counts)

    def get_recent_errors(self, n: int = 10) -> list[dict[str, Any]]:
        """Return the latest errors, newest first.

        Args:
            n: The maximum number; ``max_errors`` are kept.

        Returns:
            Entries as log_error() returns them.
        """
        with self._lock:
            return [entry for _, entry in zip(range(n), reversed(self._recent), strict=False)]

    def get_error_groups(self) -> list[dict[str, Any]]:
        """Return groups of equal errors, most frequent first.

        Returns:
            Dicts with ``fingerprint``, ``error_type``, ``count``, ``first_step``, ``last_step``,
            ``first_time``, ``last_time`` and ``example``, the group's first entry. The
            ``max_errors`` most recently seen groups are kept.
        """
        with self._lock:
            groups = [dict(group) for group in self._groups.values()]
        return sorted(groups, key=lambda group: -group["count"])

    def reset_counters(self) -> None:
        """Reset all counts and forget the groups; get_recent_errors() keeps its list."""
        with self._lock:
            self.error_counts.clear()
            self._groups.clear()

    def capture(
        self,
        context: Mapping[str, Any] | None = None,
        *,
        reraise: bool = True,
        step: int | None = None,
        level: str | int = "ERROR",
    ) -> Capture:
        """Record exceptions raised by a block of code, as a context manager or a decorator.

        Exceptions that this tracker has already recorded are not recorded again, so blocks may
        nest. Neither are KeyboardInterrupt, SystemExit and the like.

        Args:
            context: As for log_error().
            reraise: False suppresses the exception.
            step: As for log_error().
            level: As for log_error().

        Raises:
            TypeError: ``context`` is not a mapping, or ``step`` is not an int.
            ValueError: An unknown level.
        """
        if context is not None and not isinstance(context, Mapping):
            raise TypeError(f"context must be a mapping, got {type(context).__name__}")
        if step is not None and not isinstance(step, SupportsIndex):
            raise TypeError(f"step must be an int, got {type(step).__name__}")
        level = level_name(level, "ERROR")

        def record(error: Exception) -> None:
            if not self._has_recorded(error):
                self._log_error(error, context, step, level, stacklevel=4)

        return Capture(record, reraise=reraise)

    def install_hooks(self) -> None:
        """Record exceptions that end the program or a thread, through sys and threading.excepthook.

        Each hook then calls the one that was installed before. KeyboardInterrupt is not recorded.
        Safe to call again.
        """
        if self._hooks is None:
            self._hooks = Hooks(self._record_uncaught)

    def uninstall_hooks(self) -> None:
        """Restore the previous hooks. If others were installed since, these stay but do nothing."""
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None

    def _has_recorded(self, error: BaseException) -> bool:
        return is_recorded(error, self._recorder)

    def _record_uncaught(self, error: BaseException, context: dict[str, Any]) -> None:
        """Record an uncaught exception, unless it is already recorded."""
        if not self._has_recorded(error):
            self._log_error(error, context, None, "CRITICAL", stacklevel=3)


def _safe_name(name: object) -> str:
    """Convert a context key to a name that a LogRecord can have as an attribute."""
    text = safe_str(name)
    return f"context_{text}" if text in _RESERVED else text


def _cut(text: str) -> str:
    """Keep the end of a text: in a traceback, that is where the error is."""
    return text if len(text) <= _MAX_TEXT else f"({len(text)} characters) ...{text[-_MAX_TEXT:]}"
