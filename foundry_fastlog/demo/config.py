"""The experiment file: what it may say, and clear words when it is wrong.

An experiment is a YAML file with the sections ``model``, ``data``,
``training`` and ``recorder``. Every key has a default, unknown keys are
rejected, and an error names the file, the line, the key and what to do.
"""

from __future__ import annotations

import difflib
import math
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from foundry_fastlog.config import RecorderConfig

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DEFAULT_CONFIG = "demo.yaml"


class ConfigError(ValueError):
    """An experiment file that cannot be used; the message says why."""


def _to_float(value: object) -> object:
    """Accept YAML's ``1e-3``, which YAML 1.1 reads as text; reject the rest.

    Returns:
        A float where ``value`` is the text of a number, else ``value`` itself
        for pydantic to judge.
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
    """The share of the text, at its end, that is never trained on."""


class TrainingConfig(_Section):
    """The schedule of the run."""

    steps: PositiveInt = 800
    batch_size: PositiveInt = 16
    learning_rate: Annotated[Float, Field(gt=0.0)] = 4e-3
    min_learning_rate: Annotated[Float, Field(ge=0.0)] = 1e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[Float, Field(ge=0.0)] = 0.1
    grad_clip: Annotated[Float, Field(gt=0.0)] = 1.0
    """The norm that gradients are clipped to."""
    validate_every: PositiveInt = 100
    validation_batches: PositiveInt = 8
    checkpoint_every: PositiveInt = 200
    keep_checkpoints: PositiveInt = 2
    resume: bool = True
    """Go on from the newest checkpoint when the run directory has one."""
    restart_drill: bool = True
    """At the end, check that a restart survives a half-written checkpoint."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    threads: PositiveInt | None = 1
    """Threads for torch on the CPU; None: torch's choice. More than one is
    faster on an idle machine and much slower on a busy one, where the threads
    of such small operations mostly wait for each other."""

    @model_validator(mode="after")
    def _learning_rates_are_ordered(self) -> TrainingConfig:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate ({self.min_learning_rate:g}) must not be above "
                f"learning_rate ({self.learning_rate:g})",
            )
        return self


class ExperimentConfig(_Section):
    """A whole experiment file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)] = "demo"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1337
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    recorder: RecorderConfig = RecorderConfig()


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
        The experiment, with ``data.file`` made absolute.

    Raises:
        ConfigError: The file cannot be read, is no YAML mapping, or says
            something that an experiment cannot say. The message has one line
            for each problem.
    """
    if path is None:
        source = DEFAULT_CONFIG
        text = (resources.files(__package__) / "configs" / DEFAULT_CONFIG).read_text("utf-8")
    else:
        source = str(path)
        text = _read(path)
    node, values = _parse(source, text)
    given: dict[str, Any] = {"steps": steps, "device": device}
    overrides = {key: value for key, value in given.items() if value is not None}
    # A section whose keys are all commented out reads as null: all defaults.
    values = {key: {} if value is None else value for key, value in values.items()}
    training = values.get("training", {})
    if overrides and isinstance(training, dict):
        values["training"] = {**training, **overrides}
    try:
        config = ExperimentConfig.model_validate(values)
    except ValidationError as error:
        lines = [_explain(source, node, overrides, problem) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from error
    if path is not None and config.data.file is not None:
        absolute = str((path.parent / config.data.file).expanduser().resolve())
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"file": absolute})},
        )
    return config


def dump_config(config: ExperimentConfig) -> str:
    """Write an experiment as YAML that :func:`load_config` reads back equal.

    Args:
        config: The experiment.

    Returns:
        The YAML text, every key included.
    """
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def _read(path: Path) -> str:
    """Read an experiment file as text, or say why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file. Give the path of a YAML experiment file, or leave "
            "--config out to run the one that comes with the package.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}.") from error


def _parse(source: str, text: str) -> tuple[yaml.Node | None, dict[str, Any]]:
    """Parse YAML into its node tree (for line numbers) and its values."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where is not None else ""
        what = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{source}{line}: not valid YAML: {what}.") from error
    if values is None:
        return node, {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{source}: must be a mapping with the keys "
            f"{', '.join(ExperimentConfig.model_fields)}; found a {type(values).__name__}.",
        )
    _reject_repeated_keys(source, node, "")
    return node, values


def _reject_repeated_keys(source: str, node: yaml.Node | None, prefix: str) -> None:
    """Raise for a key that a mapping has twice: YAML would keep the last one."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            raise ConfigError(
                f"{source}:{line}: {prefix}{key.value}: given twice (first on line "
                f"{seen[key.value]}). Remove one of them.",
            )
        seen[key.value] = line
        _reject_repeated_keys(source, value, f"{prefix}{key.value}.")


def _line_of(node: yaml.Node | None, keys: list[str]) -> int | None:
    """Find the line of a key path, or of the deepest part of it that exists."""
    line = None
    for name in keys:
        if not isinstance(node, yaml.MappingNode):
            break
        for key, value in node.value:
            if key.value == name:
                line, node = key.start_mark.line + 1, value
                break
        else:
            break
    return line


def _known_keys(keys: list[str]) -> list[str]:
    """Name the keys that may stand beside the last of ``keys``."""
    model: type[BaseModel] = ExperimentConfig
    for name in keys[:-1]:
        annotation = model.model_fields[name].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)


def _explain(
    source: str,
    node: yaml.Node | None,
    overrides: dict[str, Any],
    problem: ErrorDetails,
) -> str:
    """Word one pydantic problem: file, line, key path, and what to do."""
    keys = [str(part) for part in problem["loc"]]
    path = ".".join(keys)
    if keys[:1] == ["training"] and len(keys) > 1 and keys[1] in overrides:
        where = f"--{keys[1]}"
    else:
        line = _line_of(node, keys)
        where = f"{source}:{line}: {path}" if line is not None else f"{source}: {path}"
    kind, context, value = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "extra_forbidden":
        known = _known_keys(keys)
        close = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."
        return f"{where}: unknown key. {hint}"
    if kind == "value_error":
        return f"{where}: {context['error']}."
    if kind == "string_pattern_mismatch" and keys[-1] == "device":
        return f"{where}: use auto, cpu, cuda, cuda:N or mps, not {value!r}."
    if kind == "string_pattern_mismatch":
        return f"{where}: use letters, digits, '.', '_' and '-' only, not {value!r}."
    if kind == "model_type":
        return f"{where}: must be a section of 'key: value' lines, not {_show(value)}."
    message = problem["msg"].replace("Input should be", "must be")
    message = message[:1].lower() + message[1:]
    return f"{where}: {message}, not {_show(value)}."


def _show(value: object) -> str:
    """Show a wrong value as YAML users know it, cut to one short line."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
