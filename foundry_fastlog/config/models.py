"""Configuration models (pydantic), for experiment files and for programs that validate theirs."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from foundry_fastlog.base.arguments import LEVELS, known_level
from foundry_fastlog.config.yaml_file import ConfigError, ConfigFile, explain
from foundry_fastlog.recording.options import LIMITS

if TYPE_CHECKING:
    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["LOG_LEVELS", "ConfigError", "LoggingConfig", "RecorderConfig"]

LOG_LEVELS = LEVELS
_PREFIX = "FASTLOG_"


def _option(name: str, default: object, description: str) -> Any:  # noqa: ANN401 - as Field()
    """Return a field for an option of `Recorder`, with its limits."""
    least, most = LIMITS.get(name, (None, None))
    unit = {"bytes": ", in bytes", "s": ", in seconds"}.get(name.rpartition("_")[2], "")
    return Field(default=default, ge=least, le=most, description=description + unit)


class RecorderConfig(BaseModel):
    """The options of a `Recorder`, with its defaults and limits.

    Example:
        >>> RecorderConfig(back_pressure="drop").back_pressure
        'drop'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ring_bytes: int = _option("ring_bytes", 8 << 20, "Size of the ring, rounded to a power of two")
    back_pressure: Literal["block", "drop"] = _option(
        "back_pressure", "block", "What to do when the ring is full"
    )
    block_timeout_s: float = _option("block_timeout_s", 1.0, "Longest wait for room in the ring")
    flush_interval_s: float = _option("flush_interval_s", 0.1, "How often the flush thread wakes")
    segment_bytes: int = _option("segment_bytes", 256 << 20, "Largest size of one JSONL file")
    overhead_budget: float = _option(
        "overhead_budget", 0.01, "Fraction of wall time before one warning"
    )
    close_timeout_s: float = _option(
        "close_timeout_s", 10.0, "Default timeout of flush() and close()"
    )
    ring: Literal["file", "shm", "memory"] = _option(
        "ring", "file", "Where the ring is kept: a mapped file survives a kill"
    )
    fsync: Literal["none", "interval", "every_flush"] = _option(
        "fsync", "interval", "When lines are synced to the disk, to survive a power loss"
    )
    fsync_interval_s: float = _option("fsync_interval_s", 1.0, "Time between two syncs")
    device_timeout_s: float = _option(
        "device_timeout_s", 120.0, "Longest wait for a device's value"
    )
    watch_nonfinite: Literal["none", "device", "all"] = _option(
        "watch_nonfinite", "device", "Which metrics produce an event when they turn NaN or infinite"
    )
    on_bad_value: Literal["warn", "drop", "raise"] = _option(
        "on_bad_value", "warn", "What to do with a value that is no scalar; others are recorded"
    )
    compress: Literal["zstd", "gzip"] | None = _option(
        "compress", None, "How files are compressed once they are continued in another one"
    )

    def open(
        self,
        path: str | Path,
        **facts: Any,  # noqa: ANN401 - passed to Recorder, which types them
    ) -> Recorder:
        """Open a recorder with these options.

        Args:
            path: The run's directory.
            **facts: ``rank``, ``world_size``, ``config`` and ``name`` of the run, see `Recorder`.

        Returns:
            The open recorder.
        """
        from foundry_fastlog.recording.recorder import (
            Recorder,  # load the native part only when needed
        )

        return Recorder(path, **self.model_dump(), **facts)


def _level(value: object) -> object:
    """Turn ``"info"`` and ``logging.INFO`` into ``"INFO"``; reject anything that is not a level."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = logging.getLevelName(value)
    if isinstance(value, str) and (name := known_level(value.strip())) is not None:
        return name
    raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}, not {value!r}")


def _no_bool(value: object) -> object:
    """Reject true and false as numbers; pydantic would accept them as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")  # noqa: TRY004 - pydantic's protocol
    return value


def _levels(value: object) -> object:
    """Also accept levels as one text, as in an environment variable."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(name.strip() and sign for name, sign, _ in pairs):
        raise ValueError(f"must look like 'data=WARNING,training.loop=DEBUG', not {value!r}")
    return {name.strip(): level for name, _, level in pairs}


def _split(value: object) -> object:
    """Also accept names as one text, as in an environment variable."""
    if not isinstance(value, str):
        return value
    return [name.strip() for name in value.split(",") if name.strip()]


Level = Annotated[str, BeforeValidator(_level)]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
_Names = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_split)]
_Targets = Annotated[list[Literal["wandb", "tensorboard", "mlflow"]], BeforeValidator(_split)]
# Defined here because the model below has a method named dict.
_Levels = Annotated[dict[str, Level], BeforeValidator(_levels)]
_Fields = dict[str, Any]


class LoggingConfig(BaseModel):
    """The logging settings of a training framework's `ExperimentConfig`.

    Embed it as ``logging: LoggingConfig = LoggingConfig()``. Metrics go to W&B if both
    ``use_wandb`` and ``log_to_wandb`` are true: the first enables W&B, the second can exclude a
    single run.

    Example:
        >>> LoggingConfig(console_level="warning").console_level
        'WARNING'
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, validate_default=True)

    console_level: Level = Field(default="INFO", description="Console log level")
    file_level: Level = Field(default="DEBUG", description="File log level")

    use_structured_logging: bool = Field(
        default=True,
        description="Give other handlers (the root's, caplog) messages as JSON; false: as text. "
        "The run's own files are the same",
    )
    log_to_wandb: bool = Field(default=True, description="Send logs to W&B, if use_wandb is on")

    max_log_files: Count = Field(default=10, description="Maximum number of text logs of a kind")
    max_log_size_mb: Count = Field(default=100, description="Maximum size of a text log, in 10^6 B")

    log_metrics_every_n_steps: Count = Field(default=10, description="Steps between metric echoes")
    log_detailed_metrics_every_n_steps: Count = Field(
        default=100, description="Steps between detailed metrics"
    )

    profile_performance: bool = Field(default=False, description="Enable performance profiling")
    log_memory_every_n_steps: Count = Field(default=100, description="Steps between memory logs")

    max_errors_to_track: Count = Field(default=1000, description="Errors to keep in memory")

    use_wandb: bool = Field(default=False, description="Use Weights & Biases")
    wandb_project: str | None = Field(default=None, description="The W&B project")

    log_dir: str = Field(default="logs", min_length=1, description="Directory of all experiments")
    root_logger: str = Field(
        default="model_foundry", min_length=1, description="The logger above all subsystems"
    )
    subsystem_levels: _Levels = Field(
        default={}, description="Levels of subsystems below root_logger, e.g. training.loop: DEBUG"
    )
    console: bool = Field(default=True, description="Write messages to the console, stderr")
    console_format: Literal["line", "block"] = Field(
        default="line", description="A line a message on the console, or a block as in files"
    )
    catch_sigterm: bool = Field(
        default=True,
        description="Close the run when SIGTERM ends the program, unless it has its own handler",
    )
    capture: _Names = Field(
        default=[],
        description="What else goes into the run: warnings, root, and names of libraries' loggers",
    )
    system_metrics_every_s: float = Field(
        default=10.0, ge=0, le=86400, description="Seconds between system metrics; 0 for none"
    )
    sync: _Targets = Field(
        default=[],
        description="Where a process of its own sends the run: wandb, tensorboard, mlflow",
    )
    recorder: RecorderConfig = Field(
        default=RecorderConfig(), description="The options of the run's Recorder"
    )

    @property
    def wandb_enabled(self) -> bool:
        """Whether W&B is used: use_wandb and log_to_wandb."""
        return self.use_wandb and self.log_to_wandb

    def dict(self, **options: Any) -> _Fields:  # noqa: ANN401 - as model_dump()
        """Return the fields as plain data: model_dump() under pydantic's older name.

        Args:
            **options: As for ``model_dump()``.
        """
        return self.model_dump(**options)

    def with_environment(self, environ: Mapping[str, str] | None = None) -> LoggingConfig:
        """Return a copy with the environment's overrides applied.

        ``FASTLOG_<FIELD>`` sets a field (``FASTLOG_CONSOLE_LEVEL=debug``); two underscores lead to
        the recorder's fields (``FASTLOG_RECORDER__RING=memory``); subsystem levels are written
        ``data=WARNING,training.loop=DEBUG``, what is captured ``warnings,root``. ``WANDB_PROJECT``
        sets the project unless ``FASTLOG_WANDB_PROJECT`` does, and ``WANDB_MODE=disabled`` turns
        W&B off.

        Args:
            environ: Used instead of ``os.environ``.

        Raises:
            ConfigError: A variable is invalid; the message names it.
        """
        variables = _variables(os.environ if environ is None else environ)
        values = self.model_dump()
        for keys, _, text in variables:
            target = values
            for key in keys[:-1]:
                target = target[key]
            target[keys[-1]] = text
        try:
            return type(self).model_validate(values)
        except ValidationError as error:
            names = {keys: name for keys, name, _ in variables}
            lines = []
            for problem in error.errors():
                keys = tuple(str(part) for part in problem["loc"])
                name = names.get(keys) or names.get(keys[:1]) or ".".join(keys)
                lines.append(explain(problem, f"environment variable {name}", type(self)))
            raise ConfigError("\n".join(lines)) from error

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> LoggingConfig:
        """Return the defaults with the environment's overrides; see with_environment()."""
        return cls().with_environment(environ)

    @classmethod
    def from_yaml(
        cls,
        path: str | Path,
        section: str | None = "logging",
        *,
        environ: Mapping[str, str] | None = None,
    ) -> LoggingConfig:
        """Read the logging section of an experiment file; the environment overrides it.

        Args:
            path: The YAML file.
            section: The key of the section, with dots for nested sections; None if the whole file
                is the section. An absent or empty section means all defaults.
            environ: Used instead of ``os.environ``.

        Raises:
            ConfigError: The file or a variable is invalid. The message has one line per problem,
                with file, line and key.
            ImportError: PyYAML is not installed.
        """
        file = ConfigFile.read(Path(path), advice="Give the path of a YAML experiment file.")
        above = section.split(".") if section else []
        values: object = file.values
        for depth, key in enumerate(above):
            if not isinstance(values, dict):
                where = file.place(above[:depth])
                raise ConfigError(f"{where}: must be a section of 'key: value' lines.")
            values = values.get(key)
            if values is None:
                values = {}
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            lines = [
                explain(problem, file.place([*above, *map(str, problem["loc"])]), cls)
                for problem in error.errors()
            ]
            raise ConfigError("\n".join(lines)) from error
        return config.with_environment(environ)


def _variables(environ: Mapping[str, str]) -> list[tuple[tuple[str, ...], str, str]]:
    """List the overrides in an environment as (key path, variable, text)."""
    known = {
        _PREFIX + name.upper(): (name,)
        for name in LoggingConfig.model_fields
        if name != "recorder"  # not an option itself but a group of options
    } | {
        f"{_PREFIX}RECORDER__{name.upper()}": ("recorder", name)
        for name in RecorderConfig.model_fields
    }
    found: list[tuple[tuple[str, ...], str, str]] = []
    if environ.get("WANDB_PROJECT"):
        found.append((("wandb_project",), "WANDB_PROJECT", environ["WANDB_PROJECT"]))
    for name, text in environ.items():
        if keys := known.get(name):
            found.append((keys, name, text))
        elif name.startswith(_PREFIX) and (
            close := difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        ):
            raise ConfigError(f"environment variable {name}: unknown. Did you mean {close[0]}?")
    if environ.get("WANDB_MODE", "").strip().lower() == "disabled":
        found.append((("use_wandb",), "WANDB_MODE", "false"))
    return found
