"""StructuredLogger: messages with fields, as JSON, through the standard library's loggers."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from foundry_fastlog.base import caller_time
from foundry_fastlog.base.arguments import level_number
from foundry_fastlog.base.environment import get_device, get_git_commit_hash, utc_now
from foundry_fastlog.base.json_text import nonfinite_fields, render_members, safe_str
from foundry_fastlog.base.unread import is_a
from foundry_fastlog.config.experiment import name_and_config, setting
from foundry_fastlog.messages.capture import notice_removed
from foundry_fastlog.messages.context import ambient, layer, log_context
from foundry_fastlog.messages.direct_route import Route, find_route
from foundry_fastlog.messages.enabling import is_enabled, remember
from foundry_fastlog.messages.text_lines import (
    BASE_FIELDS,
    PARTS,
    ExcInfo,
    exact,
    exc_info_of,
    settled,
)
from foundry_fastlog.messages.text_writer import writer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LEVEL_MARK", "StructuredLogger", "log_context"]

LEVEL_MARK = "fastlog_level"
"""Attribute of a `logging.Logger`: a level set by this package, not by the program."""


DEBUG, INFO, WARNING, ERROR, CRITICAL = (
    logging.DEBUG,
    logging.INFO,
    logging.WARNING,
    logging.ERROR,
    logging.CRITICAL,
)
_NAMES = {level: logging.getLevelName(level) for level in (DEBUG, INFO, WARNING, ERROR, CRITICAL)}


class StructuredLogger:
    """Logs messages with named fields; every message also carries the experiment's context.

    It wraps a `logging.Logger`, which gets each message as one line of JSON, so that levels,
    handlers, filters and capturing work as usual. If only this package's handlers are attached,
    messages go to them directly.

    Values may be anything: what JSON cannot represent is written as its ``str()``. If a name occurs
    more than once, the call's value wins over bind(), which wins over context_fields() and
    log_context() (inner over outer), which win over the base context.

    Example:
        >>> logger = StructuredLogger("model_foundry.training.loop", "exp0")
        >>> logger.info("Training step completed", step=100, loss=3.245)
        >>> validation = logger.bind(split="validation")
        >>> validation.warning("Loss is rising", step=200)

    Attributes:
        logger: The standard library's logger.
        context: Fields of all messages: ``experiment``, ``git_hash``, ``device``, and fields added
            later. A dict of this logger alone; may be modified.
    """

    def __init__(self, name: str, experiment_config: object = None) -> None:
        """Wrap the logger with the given name.

        If only the root has a level, the logger gets the lowest level of the configuration (DEBUG
        by default), so that info() is not dropped by the root's WARNING.

        Args:
            name: Name of the logger, such as ``"model_foundry.training.loop"``.
            experiment_config: The experiment: an object or mapping with ``experiment_name`` and
                optionally ``logging`` (see LoggingConfig), just its name, or None.

        Raises:
            TypeError: ``name`` is not a str, or ``experiment_config`` has no ``experiment_name``.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, got {type(name).__name__}")
        experiment, config = name_and_config(experiment_config)
        self.logger = logging.getLogger(name)
        self._route: Route | None = None
        self.context = self._build_base_context(experiment)
        self._as_json = bool(setting(config, "use_structured_logging", default=True))
        self._bound: frozenset[str] = frozenset()
        self._family = object()
        _default_level(self.logger, config)
        remember(self.logger)

    def _build_base_context(self, experiment: str | None) -> dict[str, Any]:
        """Return the context included in all messages."""
        return {
            "experiment": experiment,
            "git_hash": get_git_commit_hash(),
            "device": get_device(),
        }

    @property
    def name(self) -> str:
        """The logger's name."""
        return self.logger.name

    def update_context(self, **fields: Any) -> None:  # noqa: ANN401 - fields are anything
        """Add fields to all further messages of this logger, or change them."""
        self.context.update(fields)

    def clear_context_field(self, *names: str) -> None:
        """Remove fields from the context; missing names are ignored."""
        for name in names:
            self.context.pop(name, None)

    def bind(self, **fields: Any) -> Self:  # noqa: ANN401 - fields are anything
        """Return a logger with additional fields; this logger does not get them.

        Args:
            **fields: Names and values.

        Returns:
            A logger with its own copy of the context, and the same ``logger``.
        """
        child = type(self).__new__(type(self))
        child.__dict__.update(self.__dict__)
        child.context = {**self.context, **fields}
        child._bound = self._bound.union(fields)  # noqa: SLF001 - its own class's
        return child

    @contextlib.contextmanager
    def context_fields(self, **fields: Any) -> Iterator[Self]:  # noqa: ANN401 - fields are anything
        """Add fields to all messages logged inside the block by this logger or loggers bound to it.

        They carry over to asyncio tasks started inside. A thread starts without them, unless Python
        hands it the context of its starter: ``-X thread_inherit_context``, the default without a
        GIL.

        Args:
            **fields: Names and values.
        """
        with layer(self._family, fields):
            yield self

    def is_enabled_for(self, level: int) -> bool:
        """Return whether a message of a level would be logged."""
        return is_enabled(self.logger, level)

    isEnabledFor = is_enabled_for  # noqa: N815 - the standard library's name for it

    def _revived(self, level: int) -> bool:
        return self.logger.disabled and is_enabled(self.logger, level)

    def log_structured(
        self,
        level: int | str,
        message: str,
        /,
        *args: object,
        exc_info: ExcInfo = None,
        stacklevel: int = 1,
        **fields: Any,  # noqa: ANN401 - fields are anything
    ) -> None:
        """Log a message with fields.

        Args:
            level: A `logging` level, or its name.
            message: What happened.
            *args: Values for ``%`` in the message, as in the standard library.
            exc_info: True for the exception being handled, or an exception.
            stacklevel: How many frames up the caller is that handlers report.
            **fields: Names and values.
        """
        level = level if type(level) is int else level_number(level)
        if self.logger.isEnabledFor(level) or self._revived(level):
            self._log(level, message, args, exc_info, stacklevel, fields)

    log = log_structured

    # The methods below repeat log_structured() with a level: a message costs about a microsecond,
    # and one more call would add a tenth of that.

    def debug(
        self,
        message: str,
        /,
        *args: object,
        exc_info: ExcInfo = None,
        stacklevel: int = 1,
        **fields: Any,  # noqa: ANN401 - fields are anything
    ) -> None:
        """Log details that are only needed for debugging; see log_structured()."""
        if self.logger.isEnabledFor(DEBUG) or self._revived(DEBUG):
            self._log(DEBUG, message, args, exc_info, stacklevel, fields)

    def info(
        self,
        message: str,
        /,
        *args: object,
        exc_info: ExcInfo = None,
        stacklevel: int = 1,
        **fields: Any,  # noqa: ANN401 - fields are anything
    ) -> None:
        """Log progress; see log_structured()."""
        if self.logger.isEnabledFor(INFO) or self._revived(INFO):
            self._log(INFO, message, args, exc_info, stacklevel, fields)

    def warning(
        self,
        message: str,
        /,
        *args: object,
        exc_info: ExcInfo = None,
        stacklevel: int = 1,
        **fields: Any,  # noqa: ANN401 - fields are anything
    ) -> None:
        """Log something unexpected but harmless; see log_structured()."""
        if self.logger.isEnabledFor(WARNING) or self._revived(WARNING):
            self._log(WARNING, message, args, exc_info, stacklevel, fields)

    def error(
        self,
        message: str,
        /,
        *args: object,
        exc_info: ExcInfo = None,
        stacklevel: int = 1,
        **fields: Any,  # noqa: ANN401 - fields are anything
    ) -> None:
        """Log what may affect the result; it is in file and console on return. See log()."""
        if self.logger.isEnabledFor(ERROR) or self._revived(ERROR):
            self._log(ERROR, message, args, exc_info, stacklevel, fields)

    def exception(
        self,
        message: str,
        /,
        *args: object,
        exc_info: ExcInfo = True,
        stacklevel: int = 1,
        **fields: Any,  # noqa: ANN401 - fields are anything
    ) -> None:
        """Log an error with the traceback of the exception being handled."""
        if self.logger.isEnabledFor(ERROR) or self._revived(ERROR):
            self._log(ERROR, message, args, exc_info, stacklevel, fields)

    def critical(
        self,
        message: str,
        /,
        *args: object,
        exc_info: ExcInfo = None,
        stacklevel: int = 1,
        **fields: Any,  # noqa: ANN401 - fields are anything
    ) -> None:
        """Log what ends the run; it is in file and console on return. See log()."""
        if self.logger.isEnabledFor(CRITICAL) or self._revived(CRITICAL):
            self._log(CRITICAL, message, args, exc_info, stacklevel, fields)

    def _log(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        exc_info: ExcInfo,
        stacklevel: int,
        fields: dict[str, Any],
    ) -> None:
        """Send an enabled message, directly if only handlers of this package are attached."""
        begin = caller_time.begin()
        try:
            if args or type(message) is not str:
                message = _formatted(message, args)
            around = ambient.get()
            if around is not None:
                fields = self._with_ambient(around.of(self._family), fields)
            route = self._route
            logger = self.logger
            if route is None or not route.holds(logger):
                self._route = route = find_route(logger)
                notice_removed()
            if exc_info is not None:
                exc_info = exc_info_of(exc_info)
            if exc_info or not route.direct:
                self._log_through_stdlib(level, message, exc_info, stacklevel + 2, fields)
                return
            context = {**self.context, **fields}
            takers, outputs = route.by_level.get(level) or route.find_targets(level)
            for take in takers:
                take(
                    _NAMES.get(level) or logging.getLevelName(level), logger.name, message, context
                )
            if outputs:
                shown = settled(_shown(self.context, context, fields))
                writer.put(outputs, (time.time(), level, logger.name, message, shown, ""))
        finally:
            caller_time.end(begin)

    def _with_ambient(self, around: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
        """Merge context fields under the bound ones, which are under the call's."""
        if not around:
            return fields
        context = self.context
        bound = {name: context[name] for name in self._bound if name in context}
        return {**around, **bound, **fields}

    def _log_through_stdlib(
        self,
        level: int,
        message: str,
        exc_info: ExcInfo,
        stacklevel: int,
        fields: dict[str, Any],
    ) -> None:
        context = {**self.context, **fields}
        shown = _shown(self.context, context, fields)
        if self._as_json:
            text = _json_text(level, self.logger.name, message, context)
        else:
            text = _plain_text(message, shown)
        # This package's handlers find the parts in the record, so nothing is parsed again.
        self.logger.log(
            level,
            text,
            exc_info=exc_info,
            stacklevel=stacklevel + 1,
            extra={PARTS: (message, context, shown)},
        )

    def __getstate__(self) -> dict[str, Any]:
        """Omit the cached handlers: another process has its own."""
        return {**self.__dict__, "_route": None}

    def __repr__(self) -> str:
        """Show the name and the experiment."""
        return f"<StructuredLogger {self.name!r} experiment={self.context.get('experiment')!r}>"


def _formatted(message: object, args: tuple[object, ...]) -> str:
    """Return the formatted text; if the values do not fit the message, append them."""
    text: str = message if is_a(message, str) else safe_str(message)  # type: ignore[assignment]
    if not args:
        return exact(text)
    try:
        # A single mapping is for %(name)s, as in the standard library.
        return exact(text % (args[0] if len(args) == 1 and isinstance(args[0], Mapping) else args))
    except Exception:  # noqa: BLE001 - a wrong placeholder, or a __str__ that raises
        return f"{exact(text)} {', '.join(safe_str(value) for value in args)}"


def _shown(base: dict[str, Any], context: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields for the text logs: without the base context, unless the call gave it."""
    if len(base) == len(BASE_FIELDS) and all(map(base.__contains__, BASE_FIELDS)):
        return fields
    return {
        name: value for name, value in context.items() if name not in BASE_FIELDS or name in fields
    }


def _json_text(level: int, logger: str, message: str, context: dict[str, Any]) -> str:
    entry: dict[str, Any] = {
        "timestamp": utc_now(),
        "level": logging.getLevelName(level),
        "logger": logger,
        "message": message,
        "context": context,
    }
    members = render_members(entry)
    if b"null" in members and (nonfinite := nonfinite_fields(context)):
        members = render_members({**entry, "nonfinite": nonfinite})
    return f"{{{members.decode()}}}"


def _plain_text(message: str, shown: Mapping[str, Any]) -> str:
    if not shown:
        return message
    return f"{message} | " + ", ".join(f"{exact(name)}={safe_str(v)}" for name, v in shown.items())


def _default_level(logger: logging.Logger, config: object) -> None:
    """Set a level on a logger that only inherits the root's."""
    node: logging.Logger | None = logger
    while node is not None and node.parent is not None:
        if node.level:
            return
        node = node.parent
    if logger.parent is None:  # the root itself: the program sets its level
        return
    names = [setting(config, key, "DEBUG") for key in ("console_level", "file_level")]
    numbers = [logging.getLevelName(name) for name in names]
    level = min((n for n in numbers if isinstance(n, int)), default=DEBUG)
    logger.setLevel(level)
    setattr(logger, LEVEL_MARK, level)
