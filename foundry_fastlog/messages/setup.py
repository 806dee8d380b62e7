"""Set up loggers: where messages go, at which levels, and how many files are kept.

Everything may be called again, in a notebook, after a reload or in a child process: a logger has
one handler of each kind, found on the logger itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from foundry_fastlog.base.arguments import expanded
from foundry_fastlog.messages.capture import CaptureHandler, pass_to_tests
from foundry_fastlog.messages.listing import (
    cleanup_empty_logs,
    get_latest_log,
    list_experiment_logs,
)
from foundry_fastlog.messages.own_handler import place_of
from foundry_fastlog.messages.recorder_handler import RecorderHandler, RecordError
from foundry_fastlog.messages.structured import LEVEL_MARK
from foundry_fastlog.messages.text_handlers import ConsoleHandler, TextFileHandler, find_handler
from foundry_fastlog.run.files import timestamp

if TYPE_CHECKING:
    from foundry_fastlog.config.models import LoggingConfig
    from foundry_fastlog.recording.recorder import Recorder

__all__ = [
    "HIERARCHY",
    "apply_levels",
    "attach_experiment",
    "cleanup_empty_logs",
    "experiment_directory",
    "get_latest_log",
    "list_experiment_logs",
    "setup_experiment_logging",
    "setup_logging",
    "setup_multi_logging",
]

StrPath = str | os.PathLike[str]
# An experiment attached to a logger: its identity, its handlers, its configuration.
_Attached = tuple[tuple[str, "int | None"], list[logging.Handler], "LoggingConfig", CaptureHandler]

_ROOT = "model_foundry"

HIERARCHY: tuple[str, ...] = tuple(
    f"{_ROOT}.{name}" if name else _ROOT
    for name in (
        "",
        "trainer",
        "data",
        "data.validation",
        "data.chunking",
        "data.loading",
        "model",
        "training",
        "training.loop",
        "training.checkpointing",
        "training.tokenization",
        "metrics",
        "metrics.loss",
        "metrics.performance",
        "metrics.memory",
        "system",
        "system.errors",
        "system.warnings",
    )
)
"""The loggers of a training framework, by subsystem."""

_MB = 1_000_000
_BEFORE = "fastlog_before"
"""Attribute of a logger: its level and propagation before an experiment was attached."""
_ATTACHED = "fastlog_attached"
"""Attribute of a logger: the experiments attached to it; the last one gets the messages."""


def setup_logging(
    name: str,
    experiment: str = "default",
    log_dir: StrPath = "logs",
    level: int | str = logging.INFO,
    *,
    config: LoggingConfig | None = None,
) -> logging.Logger:
    """Give a logger its own text log and the console.

    The file is ``<log_dir>/<experiment>/<experiment>_<time>.log``. A further call changes the
    levels, and changes the file only if the experiment or the directory differs.

    Args:
        name: The logger's name.
        experiment: The experiment's name.
        log_dir: Directory of all experiments.
        level: The lowest level of file and console, unless ``config`` is given.
        config: Separate levels for file and console, and the size and number of files.

    Returns:
        The logger. Its messages do not propagate to the root's handlers.

    Raises:
        ValueError: The level is unknown, or the experiment's name cannot be a directory's name.
        TypeError: The level is neither an int nor a str.
    """
    file_level, console_level = _levels(level, config)
    directory = experiment_directory(log_dir, experiment)
    logger = _prepared(name, min(file_level, console_level))
    _ensure_file(logger, "file", directory, directory.name, file_level, config)
    _ensure_console(logger, console_level, config)
    pass_to_tests(logger)
    return logger


def setup_experiment_logging(
    experiment_name: str,
    log_dir: StrPath = "logs",
    level: int | str = logging.INFO,
    *,
    config: LoggingConfig | None = None,
) -> logging.Logger:
    """Set up an experiment's logger, which has the experiment's name; see setup_logging()."""
    return setup_logging(experiment_name, experiment_name, log_dir, level, config=config)


def setup_multi_logging(
    experiment: str = "default",
    log_dir: StrPath = "logs",
    level: int | str = logging.INFO,
    *,
    config: LoggingConfig | None = None,
) -> dict[str, logging.Logger]:
    """Set up four loggers of an experiment, each with a text log ``<kind>_<time>.log``.

    Args:
        experiment: The experiment's name.
        log_dir: Directory of all experiments.
        level: The lowest level of ``main`` and ``progress``, unless ``config`` is given.
        config: Separate levels for file and console, and the size and number of files.

    Returns:
        ``main``; ``errors``: WARNING and above; ``ablation``: DEBUG and above, to the
        file only; ``progress``. Their names are ``<experiment>.<kind>``.

    Raises:
        ValueError: As setup_logging().
        TypeError: As setup_logging().
    """
    file_level, console_level = _levels(level, config)
    directory = experiment_directory(log_dir, experiment)
    loggers = {}
    for kind, least, shown in (
        ("main", file_level, console_level),
        ("errors", logging.WARNING, logging.WARNING),
        ("ablation", logging.DEBUG, None),
        ("progress", file_level, console_level),
    ):
        logger = _prepared(f"{experiment}.{kind}", least if shown is None else min(least, shown))
        _ensure_file(logger, "file", directory, kind, least, config)
        if shown is not None:
            _ensure_console(logger, shown, config)
        pass_to_tests(logger)
        loggers[kind] = logger
    return loggers


def attach_experiment(
    directory: StrPath,
    *,
    stamp: str | None = None,
    config: LoggingConfig,
    recorder: Recorder | None = None,
    record_error: RecordError | None = None,
) -> Callable[[], None]:
    """Send the messages of all loggers below ``config.root_logger`` to an experiment.

    So are those of the loggers in ``config.capture``, at the levels that they have.

    ``main_<time>.log`` gets messages of at least INFO (and ``config.file_level``),
    ``debug_<time>.log`` everything if ``config.file_level`` is DEBUG, the console messages of at
    least ``config.console_level``, and the recorder's log stream everything that the loggers let
    through. Ranks other than 0 have their own text logs, ``main_<time>.r1.log``: they may be on
    other hosts, and not every shared file system supports appending from several hosts.

    One experiment gets messages at a time: the one attached last. When it is detached, the previous
    one gets them again. Attaching the same experiment again replaces it.

    Args:
        directory: The experiment's directory.
        stamp: The time in the file names. Default: now.
        config: Levels, size and number of files.
        recorder: The run's recorder; None for text logs only.
        record_error: As for `RecorderHandler`.

    Returns:
        A function that removes the handlers again; safe to call twice.
    """
    directory, stamp = Path(directory), stamp or timestamp()
    file_level, console_level = _levels(logging.INFO, config)
    logger = logging.getLogger(config.root_logger)
    vars(logger).setdefault(_BEFORE, (logger.level, logger.propagate))
    rank = getattr(recorder, "rank", None)
    key = (str(directory.absolute()), rank)
    attached: list[_Attached] = vars(logger).setdefault(_ATTACHED, [])
    for former in attached:
        former[3].stop()
        for handler in former[1]:
            logger.removeHandler(handler)
            if former[0] == key:
                handler.close()
    attached[:] = [former for former in attached if former[0] != key]
    for kind in ("main", "debug", "console", "recorder"):
        _drop(logger, kind)
    handlers: list[logging.Handler] = []
    others = (name for name in config.capture if not _is_below(name, logger))
    mine: _Attached = (key, handlers, config, CaptureHandler(others, handlers, logger))
    attached.append(mine)

    def detach() -> None:
        if not any(one is mine for one in attached):
            return
        newest = attached[-1] is mine
        mine[3].stop()
        attached[:] = [one for one in attached if one is not mine]
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        if newest and attached:
            _direct(logger, attached[-1])
        elif newest:
            level, logger.propagate = vars(logger).pop(_BEFORE)
            logger.setLevel(level)
            _clear_levels(logger.name)

    files = {"main": max(file_level, logging.INFO)}
    if file_level <= logging.DEBUG:
        files["debug"] = file_level
    try:
        for kind, least in files.items():
            path = directory / (f"{kind}_{stamp}.r{rank}.log" if rank else f"{kind}_{stamp}.log")
            handlers.append(_file_handler(path, least, kind, config))
        if config.console:
            handlers.append(ConsoleHandler(console_level, form=config.console_format))
        if recorder is not None:
            handlers.append(RecorderHandler(recorder, record_error=record_error))
        _direct(logger, mine)
    except BaseException:  # Ctrl-C, for one
        detach()
        raise
    return detach


def _direct(logger: logging.Logger, attached: _Attached) -> None:
    """Send a logger's messages to an experiment, at the experiment's levels."""
    _, handlers, config, capture = attached
    file_level, console_level = _levels(logging.INFO, config)
    _prepared(logger.name, min(file_level, console_level if config.console else file_level))
    for handler in handlers:
        logger.addHandler(handler)
    pass_to_tests(logger)
    apply_levels(config)
    capture.start()


def _is_below(name: str, logger: logging.Logger) -> bool:
    """Whether messages of a logger come to another one anyway."""
    return f"{name}.".startswith(f"{logger.name}.") or logger is logging.root


def apply_levels(config: LoggingConfig, root: str | None = None) -> None:
    """Apply ``config.subsystem_levels``; loggers below a subsystem inherit its level.

    Args:
        config: Levels by subsystem, such as ``{"data": "WARNING", "training.loop": "DEBUG"}``.
        root: The logger above all subsystems. Default: ``config.root_logger``.
    """
    root = config.root_logger if root is None else root
    _clear_levels(root)
    for subsystem, level in config.subsystem_levels.items():
        name = f"{root}.{subsystem}" if root and subsystem else root or subsystem
        logger = logging.getLogger(name)
        logger.setLevel(level)
        setattr(logger, LEVEL_MARK, logger.level)


def _levels(level: int | str, config: LoggingConfig | None) -> tuple[int, int]:
    """Return the levels of file and console as numbers."""
    if config is None:
        number = logging.Handler(level).level  # the standard library's own check
        return number, number
    return (
        logging.Handler(config.file_level).level,
        logging.Handler(config.console_level).level,
    )


def experiment_directory(log_dir: StrPath, experiment: str) -> Path:
    """Return an experiment's directory: ``sweep/lr=1e-3`` is one within another.

    Raises:
        ValueError: The name would lead outside, or a variable in ``log_dir`` is not set.
    """
    name = Path(experiment)
    if not name.parts or name.is_absolute() or ".." in name.parts:
        raise ValueError(
            "experiment_name must be an experiment's name that can name a directory in log_dir, "
            f"got {experiment!r}"
        )
    return expanded(log_dir) / name


def _prepared(name: str, level: int) -> logging.Logger:
    """Return a logger with a level, whose messages do not propagate."""
    logger = logging.getLogger(name)
    vars(logger).pop(LEVEL_MARK, None)  # from now on the level is the user's choice
    logger.setLevel(level)
    logger.propagate = False
    return logger


def _clear_levels(root: str) -> None:
    """Let the loggers below inherit again, unless the program has set their level."""
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if not isinstance(logger, logging.Logger) or not name.startswith(f"{root}."):
            continue
        if vars(logger).pop(LEVEL_MARK, None) == logger.level:
            logger.setLevel(logging.NOTSET)


def _ensure_file(
    logger: logging.Logger,
    kind: str,
    directory: Path,
    prefix: str,
    level: int,
    config: LoggingConfig | None,
) -> None:
    """Give a logger one text log; keep its present one if that belongs to this experiment."""
    present = find_handler(logger, kind)
    if present is not None:
        place = Path(place_of(present))
        if place.parent == directory.absolute() and place.name.startswith(f"{prefix}_"):
            present.setLevel(level)
            return
        _drop(logger, kind)
    path = directory / f"{prefix}_{timestamp()}.log"
    logger.addHandler(_file_handler(path, level, kind, config))


def _file_handler(
    path: Path, level: int, kind: str, config: LoggingConfig | None
) -> TextFileHandler:
    if config is None:
        return TextFileHandler(path, level, kind=kind)
    return TextFileHandler(
        path,
        level,
        kind=kind,
        max_bytes=config.max_log_size_mb * _MB,
        keep=config.max_log_files,
    )


def _ensure_console(logger: logging.Logger, level: int, config: LoggingConfig | None) -> None:
    """Give a logger one console handler, or none if the configuration disables the console."""
    present = find_handler(logger, "console")
    form = "line" if config is None else config.console_format
    wanted = config is None or config.console
    if wanted and isinstance(present, ConsoleHandler) and present.output.form == form:
        present.setLevel(level)
        return
    _drop(logger, "console")
    if wanted:
        logger.addHandler(ConsoleHandler(level, form=form))


def _drop(logger: logging.Logger, kind: str) -> None:
    while (handler := find_handler(logger, kind)) is not None:
        logger.removeHandler(handler)
        handler.close()
