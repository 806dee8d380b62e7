"""Shared by the recording components: owning a recorder, and logging to both kinds of loggers."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from foundry_fastlog.recording.sharing import acquire, release

if TYPE_CHECKING:
    import os

    from typing_extensions import Self

    from foundry_fastlog.recording.recorder import Recorder

__all__ = [
    "PLAIN_LOGGERS",
    "AnyLogger",
    "Component",
    "StructuredLike",
    "known_levels",
    "log_text",
    "stdlib_logger",
]

_log = logging.getLogger("foundry_fastlog")


class StructuredLike(Protocol):
    """The part of `StructuredLogger` that components use."""

    logger: logging.Logger

    def log_structured(self, level: int, message: str, /, **context: Any) -> None:  # noqa: ANN401 - any context
        """Log a message with context."""


PLAIN_LOGGERS = (logging.Logger, logging.LoggerAdapter)
"""Those that are called as the standard library's."""

AnyLogger: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any] | StructuredLike"


def known_levels(logger: logging.Logger) -> Mapping[int, bool]:
    """Return where a logger keeps whether levels are enabled, as far as it has been asked.

    Looking there costs a tenth of `isEnabledFor()` when the caches are cold. Empty for a logger
    that decides in another way.
    """
    if type(logger).isEnabledFor is logging.Logger.isEnabledFor:
        known = getattr(logger, "_cache", None)  # cleared, never replaced, when a level changes
        if type(known) is dict:
            return known
    return {}


def stdlib_logger(logger: AnyLogger) -> logging.Logger:
    """Return the `logging.Logger` that decides which levels are enabled.

    Raises:
        TypeError: `logger` is neither a `logging.Logger`, nor an adapter of one, nor wraps one as
            `StructuredLogger` does.
    """
    inner: object = logger
    while isinstance(inner, logging.LoggerAdapter):  # of an adapter, perhaps
        inner = inner.logger
    if callable(getattr(inner, "log_structured", None)):
        inner = getattr(inner, "logger", None)
    if not isinstance(inner, logging.Logger):
        raise TypeError(
            "logger must be a logging.Logger, a LoggerAdapter or a StructuredLogger, got "
            f"{type(logger).__name__}"
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
    """Log a text; a `StructuredLogger` also gets its figures as context.

    Args:
        logger: A logger of either kind.
        level: The level.
        text: The whole message.
        stacklevel: As for `logging`: 1 names the caller of this function.
        **context: Figures; those that are None are omitted.
    """
    if isinstance(logger, PLAIN_LOGGERS):
        logger.log(level, "%s", text, stacklevel=stacklevel + 1)
    else:
        known = {name: value for name, value in context.items() if value is not None}
        logger.log_structured(level, text, stacklevel=stacklevel + 1, **known)


class Component:
    """An object that records into a run's directory, through a recorder that may be shared."""

    def __init__(
        self, directory: str | os.PathLike[str], recorder: Recorder | None, options: dict[str, Any]
    ) -> None:
        """Use the given recorder, or the process's recorder for the directory.

        Args:
            directory: The run's directory, if no recorder is given.
            recorder: The recorder to use; whoever opened it closes it.
            options: Options for opening a recorder, see `Recorder`.
        """
        self._directory = Path(directory)
        self._told: set[str] = set()
        self._release: weakref.finalize[[Recorder], Component] | None = None
        if recorder is None:
            recorder = acquire(directory, **options)
            # Not at exit: the recorder closes itself then, after everyone who still records.
            self._release = weakref.finalize(self, release, recorder)
            self._release.atexit = False
        self._recorder = recorder

    @property
    def recorder(self) -> Recorder:
        """The recorder in use."""
        return self._recorder

    def _first_file(self, stream: str) -> Path:
        """Flush; return this process's first file of a stream, or the path it would have."""
        self.flush()
        first = f"{stream}_" if self._recorder.stamp else f"{stream}."
        files = [path for path in self._recorder.files() if path.name.startswith(first)]
        return files[0] if files else self._directory / f"{stream}.jsonl"

    def _warn_once(self, what: str, text: str) -> None:
        """Log a warning, once for each `what`."""
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s", text)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything recorded so far is in the files.

        Args:
            timeout: The longest wait in seconds. Default: the recorder's ``close_timeout_s``.

        Returns:
            True when it is, False when the timeout expired first.
        """
        return self._recorder.flush(timeout)

    def close(self) -> bool:
        """Write everything recorded so far and close the recorder unless others use it.

        Safe to call again.

        Returns:
            True when everything is written.
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
        """Close it; exceptions propagate."""
        self.close()
