"""Read the logging settings from an experiment's configuration of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foundry_fastlog.config.models import LoggingConfig

__all__ = ["name_and_config", "name_and_section", "setting"]


def setting(config: object, name: str, default: Any = None) -> Any:  # noqa: ANN401 - any setting
    """Return a setting from a mapping or from an object with attributes."""
    if isinstance(config, Mapping):
        return config.get(name, default)
    return getattr(config, name, default)


def name_and_config(config: object) -> tuple[str, object]:
    """Return an experiment's name, and its logging configuration if it has one.

    Raises:
        TypeError: It has no name.
    """
    if config is None or isinstance(config, str):
        return config or "default", None
    name = setting(config, "experiment_name")
    if not isinstance(name, str):
        raise TypeError(
            "experiment_config must have an experiment_name (a str), or be that name itself; "
            f"got {type(config).__name__}"
        )
    return name, setting(config, "logging")


def name_and_section(experiment_config: object) -> tuple[str, LoggingConfig]:
    """Return an experiment's name and its validated logging section.

    Raises:
        TypeError: The configuration has no name.
        ValueError: The name is empty.
        ConfigError: The section is invalid.
    """
    from foundry_fastlog.config.models import LoggingConfig

    if isinstance(experiment_config, str):
        name: object = experiment_config
        section: object = None
    else:
        name = setting(experiment_config, "experiment_name")
        section = setting(experiment_config, "logging")
    if not isinstance(name, str):
        raise TypeError(
            "experiment_config must be the experiment's name, or have it as experiment_name (a "
            f"str); got {name!r} in a {type(experiment_config).__name__}"
        )
    if not name.strip():
        raise ValueError("experiment_name must not be empty")
    if section is None:
        return name, LoggingConfig()
    if isinstance(section, LoggingConfig):
        return name, section
    from pydantic import ValidationError

    from foundry_fastlog.config.yaml_file import ConfigError, explain

    try:
        return name, LoggingConfig.model_validate(section, from_attributes=True)
    except ValidationError as error:
        lines = [
            explain(problem, ".".join(["logging", *map(str, problem["loc"])]), LoggingConfig)
            for problem in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from error
