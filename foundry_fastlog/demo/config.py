"""The experiment file: its schema, and clear errors if it is invalid.

An experiment is a YAML file with the sections ``model``, ``data``,
``training`` and ``logging``. Every key has a default, unknown keys are
rejected, and an error names the file, the line, the key and what to do.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from foundry_fastlog.config.models import Count, Level, LoggingConfig
from foundry_fastlog.config.yaml_file import ConfigError, ConfigFile, explain

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DEFAULT_CONFIG = "demo.yaml"
_ADVICE = (
    "Give the path of a YAML experiment file, or omit --config to run the one that comes with the "
    "package."
)
_PATTERNS = {
    "device": "auto, cpu, cuda, cuda:N or mps",
    "experiment_name": "letters, digits, '.', '_' and '-' only",
}


def _to_float(value: object) -> object:
    """Accept ``1e-3``, which YAML 1.1 reads as text.

    Returns:
        A float if ``value`` is the text of a number; otherwise ``value`` itself,
        for pydantic to validate.
    """
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Float = Annotated[float, BeforeValidator(_to_float), Field(allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelConfig(_Section):
    """The GPT's shape."""

    layers: PositiveInt = 4
    heads: PositiveInt = 4
    width: PositiveInt = 128
    context: PositiveInt = 64
    dropout: Annotated[Float, Field(ge=0.0, lt=1.0)] = 0.0

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ModelConfig:
        if self.width % self.heads:
            raise ValueError(
                f"width ({self.width}) must be a multiple of heads ({self.heads})",
            )
        return self


class DataConfig(_Section):
    """The text and its split."""

    file: str | None = None
    """A UTF-8 text file, relative to the experiment file; None: the manual
    pages inside CPython (``pydoc_data.topics``)."""
    validation_fraction: Annotated[Float, Field(gt=0.0, lt=1.0)] = 0.1
    """The share of the text, at its end, that is held out from training."""


class TrainingConfig(_Section):
    """The schedule of the run."""

    steps: PositiveInt = 800
    batch_size: PositiveInt = 16
    learning_rate: Annotated[Float, Field(gt=0.0)] = 4e-3
    min_learning_rate: Annotated[Float, Field(ge=0.0)] = 1e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[Float, Field(ge=0.0)] = 0.1
    grad_clip: Annotated[Float, Field(gt=0.0)] = 1.0
    """The norm to which gradients are clipped."""
    validate_every: PositiveInt = 100
    validation_batches: PositiveInt = 8
    checkpoint_every: PositiveInt = 200
    keep_checkpoints: PositiveInt = 2
    resume: bool = True
    """Resume from the newest checkpoint if the run directory has one."""
    restart_drill: bool = True
    """At the end, check that a restart survives a half-written checkpoint."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    threads: PositiveInt | None = 1
    """Threads for torch on the CPU; None: torch's choice. More than one is
    faster on an idle machine and much slower on a busy one, where threads
    mostly wait for each other on such small operations."""

    @model_validator(mode="after")
    def _learning_rates_are_ordered(self) -> TrainingConfig:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate ({self.min_learning_rate:g}) must not be above "
                f"learning_rate ({self.learning_rate:g})",
            )
        return self


class DemoLogging(LoggingConfig):
    """The logging options, with defaults for a program that draws its own console output."""

    model_config = ConfigDict(frozen=True)

    file_level: Level = "INFO"
    log_metrics_every_n_steps: Count = 100
    log_dir: Annotated[str, Field(min_length=1)] = "runs"
    console: bool = False
    system_metrics_every_s: Annotated[float, Field(ge=0, le=86400)] = 0.0


class ExperimentConfig(_Section):
    """A whole experiment file."""

    experiment_name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    ] = "demo"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1337
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    logging: DemoLogging = DemoLogging()


def load_config(
    path: Path | None = None,
    *,
    steps: int | None = None,
    device: str | None = None,
) -> ExperimentConfig:
    """Read and check an experiment file.

    Args:
        path: The YAML file; None reads the one that comes with the package.
        steps: Replaces ``training.steps``.
        device: Replaces ``training.device``.

    Returns:
        The experiment, with ``data.file`` made absolute and the environment's overrides of
        ``logging`` applied.

    Raises:
        ConfigError: The file cannot be read, is not a YAML mapping, or is not
            a valid experiment. The message has one line for each problem.
    """
    known = list(ExperimentConfig.model_fields)
    if path is None:
        text = (resources.files(__package__) / "configs" / DEFAULT_CONFIG).read_text("utf-8")
        file = ConfigFile(DEFAULT_CONFIG, text, known)
    else:
        file = ConfigFile.read(path, advice=_ADVICE, known=known)
    given: dict[str, Any] = {"steps": steps, "device": device}
    overrides = {key: value for key, value in given.items() if value is not None}
    # A section whose keys are all commented out parses as null: use all defaults.
    values = {key: {} if value is None else value for key, value in file.values.items()}
    training = values.get("training", {})
    if overrides and isinstance(training, dict):
        values["training"] = {**training, **overrides}
    try:
        config = ExperimentConfig.model_validate(values)
    except ValidationError as error:
        lines = [_explain(file, overrides, problem) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from error
    config = config.model_copy(update={"logging": config.logging.with_environment()})
    if path is not None and config.data.file is not None:
        absolute = str((path.parent / config.data.file).expanduser().resolve())
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"file": absolute})},
        )
    return config


def dump_config(config: ExperimentConfig) -> str:
    """Serialise an experiment as YAML that :func:`load_config` reads back unchanged.

    Args:
        config: The experiment.

    Returns:
        The YAML text, with every key.
    """
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def _explain(file: ConfigFile, overrides: dict[str, Any], problem: ErrorDetails) -> str:
    """Describe one pydantic error: file and line, or command line option, and what to do."""
    keys = [str(part) for part in problem["loc"]]
    overridden = keys[:1] == ["training"] and len(keys) > 1 and keys[1] in overrides
    where = f"--{keys[1]}" if overridden else file.place(keys)
    return explain(problem, where, ExperimentConfig, _PATTERNS)
