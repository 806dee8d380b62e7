"""Convert values for wandb: a configuration as plain data, metrics as one flat row."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from typing import Any

from foundry_fastlog.base.json_text import readable, safe_str
from foundry_fastlog.base.unread import described_unread, shows_unread
from foundry_fastlog.recording.host_copies import is_device_scalar
from foundry_fastlog.recording.plain_tensors import readable_tensor
from foundry_fastlog.recording.values import name_of, text_of
from foundry_fastlog.run.info import plain_config

__all__ = ["DEFAULT_PROJECT", "config_project", "experiment_name", "flat", "settings", "textual"]

DEFAULT_PROJECT = "model_foundry"
_PLAIN = (float, int, str, bool, type(None))


def settings(config: object) -> dict[str, Any]:
    """Return an experiment's configuration as plain data.

    Raises:
        TypeError: It is not a mapping, model, dataclass or namespace.
    """
    if (
        not isinstance(config, (Mapping, type))
        and not hasattr(config, "model_dump")
        and callable(dump := getattr(config, "dict", None))
    ):
        config = dump()
    plain = readable(plain_config(config))
    return plain if isinstance(plain, dict) else {}


def _member(config: object, name: str) -> object:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def experiment_name(config: object) -> str | None:
    """Return a configuration's ``experiment_name``, if it has one."""
    return _text(_member(config, "experiment_name"))


def config_project(config: object) -> str:
    """Return a configuration's ``logging.wandb_project``, or the default project."""
    return _text(_member(_member(config, "logging"), "wandb_project")) or DEFAULT_PROJECT


def flat(metrics: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted names, with values as wandb accepts them.

    Device scalars stay as they are: reading one would wait for it. A value that contains an unread
    tensor is replaced with the text that `Recorder.log()` writes.
    """
    row: dict[str, Any] = {}
    for key, value in metrics.items():
        name = prefix + name_of(key)
        if type(value) in _PLAIN:
            row[name] = value
        elif isinstance(value, Mapping):
            row.update(flat(value, name + "."))
        else:
            row[name] = _taken(value)
    return row


def _taken(value: Any) -> Any:  # noqa: ANN401 - anything with item()
    """Convert a scalar of numpy, torch, jax or decimal; leave anything else to wandb."""
    if _is_wandbs(value):
        return value
    try:
        value = readable_tensor(value)
    except Exception:  # noqa: BLE001 - from a part of a value, such as a DTensor's; any type
        return text_of(value)
    if is_device_scalar(value):
        return value
    if described_unread(value) is not None or shows_unread(value):
        return text_of(value)
    if getattr(value, "ndim", None) == 0 and callable(item := getattr(value, "item", None)):
        value = item()
    if isinstance(value, Number) and not isinstance(value, (float, int, complex)):
        return float(value)  # type: ignore[arg-type]  # Decimal, Fraction, numpy.longdouble
    return value


def _is_wandbs(value: object) -> bool:
    """Return whether wandb has a type for a value: an image, a table."""
    return type(value).__module__.partition(".")[0] == "wandb"


def textual(value: Any) -> Any:  # noqa: ANN401 - anything
    """Return the text of a value, unless wandb has a type for it."""
    if type(value) in _PLAIN or _is_wandbs(value):
        return value
    return safe_str(value)
