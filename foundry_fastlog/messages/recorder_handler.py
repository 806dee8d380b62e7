"""A `logging` handler that writes messages to a run's log stream: JSONL, crash-safe."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from foundry_fastlog.base import caller_time
from foundry_fastlog.base.arguments import known_level, step_of
from foundry_fastlog.base.error_facts import exception_text
from foundry_fastlog.base.error_marks import is_recorded, mark_recorded
from foundry_fastlog.base.json_text import safe_str
from foundry_fastlog.base.telemetry import span_of_record
from foundry_fastlog.base.unread import class_name
from foundry_fastlog.messages.own_handler import Targets
from foundry_fastlog.messages.text_lines import PARTS, Parts, fields_of, message_of
from foundry_fastlog.recording.extension import RecorderClosedError

if TYPE_CHECKING:
    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["RecorderHandler"]

RecordError = Callable[[BaseException, str, str, str, Mapping[str, Any]], object]
"""Records an exception that was logged: exception, level, logger, message, context."""

# The recorder's own messages are about the stream that they would go to.
_OWN = "foundry_fastlog"
_PLAIN = logging.Formatter()


class RecorderHandler(logging.Handler):
    """Passes messages to a `Recorder`, from StructuredLoggers and any other logger.

    Each message becomes a line of the log stream: a killed process loses none. An exception logged
    with its traceback (``exc_info``) is added to the context as ``error_type``, ``error_message``
    and ``traceback``; it is also a line of the errors stream, unless it is there already. After the
    recorder is closed, messages are dropped.

    Example:
        >>> handler = RecorderHandler(recorder)  # doctest: +SKIP
        >>> logging.getLogger("model_foundry").addHandler(handler)  # doctest: +SKIP

    Attributes:
        recorder: Where messages go.
        fastlog_kind: What this handler is for; a logger has one handler of each kind.
        fastlog_place: The run's directory.
        take: Records a message: `Recorder.message`.
    """

    def __init__(
        self,
        recorder: Recorder,
        level: int = logging.NOTSET,
        *,
        kind: str = "recorder",
        record_error: RecordError | None = None,
    ) -> None:
        """Record messages of at least the given level.

        Args:
            recorder: Where messages go.
            level: The lowest level to record.
            kind: What the handler is for; a logger has one handler of each kind.
            record_error: Records exceptions that were logged, instead of the recorder itself.

        Raises:
            TypeError: ``recorder`` is none; a path, for instance.
        """
        if not callable(getattr(recorder, "message", None)):
            raise TypeError(
                f"recorder must be a Recorder, got {type(recorder).__name__}; "
                "open_run(PATH) returns one"
            )
        super().__init__(level)
        self.recorder = recorder
        self._record_error = record_error or self._to_errors
        self.fastlog_kind = kind
        self.fastlog_place = str(recorder.path)
        self.take = recorder.message

    def fastlog_takes(self) -> Targets:
        """Return what takes this handler's messages without a LogRecord."""
        return (self.take,), ()

    def emit(self, record: logging.LogRecord) -> None:
        """Record a LogRecord; errors are handled as in any handler."""
        if record.name == _OWN:
            return
        begin = caller_time.begin()
        try:
            parts: Parts | None = getattr(record, PARTS, None)
            context: Mapping[str, Any]
            shown: Mapping[str, Any]
            if parts is None:
                message, context = message_of(record), fields_of(record)
                shown = context
            else:
                message, context, shown = parts
            context = span_of_record(record, context)
            error = record.exc_info[1] if record.exc_info else None
            if error is not None:
                # KeyboardInterrupt and the like are no errors.
                if isinstance(error, Exception) and not is_recorded(error, self.recorder):
                    level = known_level(record.levelname) or "ERROR"
                    self._record_error(error, level, record.name, message, shown)
                context = {
                    **context,
                    "error_type": class_name(type(error)),
                    "error_message": safe_str(error),
                    "traceback": exception_text(_PLAIN, record.exc_info),
                }
            if record.stack_info:
                context = {**context, "stack": record.stack_info}
            self.take(record.levelname, record.name, message, context)
        except Exception:  # noqa: BLE001 - as in any handler: the program goes on
            self.handleError(record)
        finally:
            caller_time.end(begin)

    def _to_errors(
        self,
        error: BaseException,
        level: str,
        logger: str,
        message: str,
        context: Mapping[str, Any],
    ) -> None:
        mark_recorded(error, self.recorder)
        with contextlib.suppress(RecorderClosedError):
            self.recorder.event(
                message,
                level=level,
                logger=logger,
                error=error,
                step=step_of(context),
                context=context,
            )

    def flush(self) -> None:
        """Wait until everything recorded so far is in the file."""
        if not self.recorder.closed:
            self.recorder.flush(stream="log")
