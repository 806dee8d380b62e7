"""What the components that record share: their recorder's life, and loggers of both kinds."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from foundry_fastlog.recording.sharing import acquire, release

if TYPE_CHECKING:
    import os

    from typing_extensions import Self

    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["AnyLogger", "Component", "StructuredLike", "log_text", "stdlib_logger"]

_log = logging.getLogger("foundry_fastlog")


class StructuredLike(Protocol):
    """What a `StructuredLogger` has."""

    logger: logging.Logger

    def log_structured(self, level: int, message: str, /, **context: Any) -> None:  # noqa: ANN401 - any context
        """Log a message with context."""


AnyLogger = logging.Logger | StructuredLike


def stdlib_logger(logger: AnyLogger) -> logging.Logger:
    """Return the `logging.Logger` that decides about levels.

    Raises:
        TypeError: `logger` is neither a `logging.Logger` nor has one as a `StructuredLogger` does.
    """
    inner = logger if isinstance(logger, logging.Logger) else getattr(logger, "logger", None)
    if not isinstance(inner, logging.Logger):
        raise TypeError(
            f"logger must be a logging.Logger or a StructuredLogger, got {type(logger).__name__}"
        )
    return inner


def log_text(
    logger: AnyLogger,
    level: int,
    text: str,
    *,
    stacklevel: int = 1,
    **context: Any,  # noqa: ANN401 - any context
) -> None:
    """Log a text; a `StructuredLogger` gets the figures in it as context, too.

    Args:
        logger: A logger of either kind.
        level: The level.
        text: The whole message.
        stacklevel: As for `logging`: 1 names the caller of this function.
        **context: Figures; those that are None are left out.
    """
    if isinstance(logger, logging.Logger):
        logger.log(level, "%s", text, stacklevel=stacklevel + 1)
    else:
        known = {name: value for name, value in context.items() if value is not None}
        logger.log_structured(level, text, stacklevel=stacklevel + 1, **known)


class Component:
    """Something that records into a run's directory, through a recorder that it may share."""

    def __init__(
        self, directory: str | os.PathLike[str], recorder: Recorder | None, options: dict[str, Any]
    ) -> None:
        """Take the recorder, or the process's one for the directory.

        Args:
            directory: The run's directory, for a recorder of its own.
            recorder: Used when given; whoever opened it closes it.
            options: For opening one, see `Recorder`.
        """
        self._directory = Path(directory)
        self._told: set[str] = set()
        self._release: weakref.finalize[[Recorder], Component] | None = None
        if recorder is None:
            recorder = acquire(directory, **options)
            # Not at exit: the recorder closes itself then, after whoever still records.
            self._release = weakref.finalize(self, release, recorder)
            self._release.atexit = False
        self._recorder = recorder

    @property
    def recorder(self) -> Recorder:
        """The recorder behind it."""
        return self._recorder

    def _first_file(self, stream: str) -> Path:
        """Flush; return this process's first file of a stream, or where it would be."""
        self.flush()
        first = f"{stream}_" if self._recorder.stamp else f"{stream}."
        files = [path for path in self._recorder.files() if path.name.startswith(first)]
        return files[0] if files else self._directory / f"{stream}.jsonl"

    def _tell_once(self, what: str, text: str) -> None:
        """Warn through `logging`, the first time for each `what`."""
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s", text)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything recorded so far is in the files.

        Args:
            timeout: Seconds to wait at most; by default the recorder's ``close_timeout_s``.

        Returns:
            True when it is, False when the time was up first.
        """
        return self._recorder.flush(timeout)

    def close(self) -> bool:
        """Write what was recorded, and close the recorder unless others use it.

        Safe to call again.

        Returns:
            True when all is written.
        """
        if self._release is None:
            return self.flush()
        written = self._release()
        return self.flush() if written is None else written

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it; an exception goes on."""
        self.close()
