"""Enable loggers again that a library's set-up of logging has disabled without meaning them.

``logging.config.dictConfig()`` and ``fileConfig()`` disable all loggers that exist and are not in
the configuration, unless told not to.
"""

from __future__ import annotations

import logging

__all__ = ["is_enabled", "remember"]

_log = logging.getLogger("foundry_fastlog")
# Nobody configures or disables this one by its name.
_canary = logging.getLogger("_foundry_fastlog_canary")
_names = {_log.name}


def remember(logger: logging.Logger) -> None:
    """Note a logger that is to be enabled again, whatever its handlers."""
    _names.add(logger.name)


def is_enabled(logger: logging.Logger, level: int) -> bool:
    """Return whether a logger takes messages of a level, enabled again if it has to be.

    A logger that the program itself has disabled stays so.
    """
    if logger.isEnabledFor(level):
        return True
    if not logger.disabled or not _canary.disabled:
        return False
    _canary.disabled = False
    for one in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(one, logging.Logger) and (one.name in _names or _is_ours(one)):
            one.disabled = False
    _log.warning(
        "logging.config has disabled the run's loggers; they are enabled again. Configure logging "
        "with disable_existing_loggers=False."
    )
    return logger.isEnabledFor(level)


def _is_ours(logger: logging.Logger) -> bool:
    """Whether messages of a logger get to handlers of this package, other than by the root's."""
    node: logging.Logger | None = logger
    while node is not None and node is not logging.root:
        if any(hasattr(handler, "fastlog_kind") for handler in node.handlers):
            return True
        node = node.parent if node.propagate else None
    return False
