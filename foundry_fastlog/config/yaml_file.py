"""Read experiment files in YAML, with clear errors when they are wrong.

An error gives the file, the line, the key and what to do. PyYAML is imported when a file is read;
install it with `pip install "foundry_fastlog[yaml]"`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails


class ConfigError(ValueError):
    """Raised for an invalid experiment file or configuration; the message says why."""


class ConfigFile:
    """The content of one YAML file, and the line of each key."""

    def __init__(self, source: str, text: str, known: Sequence[str] = ()) -> None:
        """Parse the text.

        Args:
            source: The file's name, for messages.
            text: The YAML text; it must be a mapping, or empty.
            known: The keys allowed in the mapping, for messages.

        Raises:
            ConfigError: It is not YAML, not a mapping, or repeats a key.
            ImportError: PyYAML is not installed.
        """
        yaml = _yaml()
        self.source = source
        try:
            self._node = yaml.compose(text, Loader=yaml.SafeLoader)
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            where = getattr(error, "problem_mark", None)
            line = f":{where.line + 1}" if where is not None else ""
            what = getattr(error, "problem", None) or str(error)
            raise ConfigError(f"{source}{line}: not valid YAML: {what}.") from error
        if values is not None and not isinstance(values, dict):
            keys = f" with the keys {', '.join(known)}" if known else ""
            raise ConfigError(
                f"{source}: must be a mapping{keys}; found a {type(values).__name__}."
            )
        self.values: dict[str, Any] = values or {}
        self._reject_repeated_keys(self._node, "")

    @classmethod
    def read(cls, path: Path, *, advice: str, known: Sequence[str] = ()) -> ConfigFile:
        """Read and parse a file.

        Args:
            path: The YAML file.
            advice: What to do if the file does not exist, for the message.
            known: The keys allowed in the mapping, for messages.

        Raises:
            ConfigError: As for the constructor, and if the file cannot be read.
            ImportError: PyYAML is not installed.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file. {advice}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}.") from error
        return cls(str(path), text, known)

    def place(self, keys: Sequence[str]) -> str:
        """Return the location of a key path: ``exp.yaml:7: training.steps``."""
        line, path = self._line_of(keys), ".".join(keys)
        return f"{self.source}:{line}: {path}" if line is not None else f"{self.source}: {path}"

    def _reject_repeated_keys(self, node: yaml.Node | None, prefix: str) -> None:
        """Raise if a mapping repeats a key: YAML would keep only the last value."""
        import yaml

        if not isinstance(node, yaml.MappingNode):
            return
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ConfigError(
                    f"{self.source}:{line}: {prefix}{key.value}: given twice (first on line "
                    f"{seen[key.value]}). Remove one of them."
                )
            seen[key.value] = line
            self._reject_repeated_keys(value, f"{prefix}{key.value}.")

    def _line_of(self, keys: Sequence[str]) -> int | None:
        """Find the line of a key path, or of the deepest part of it that exists."""
        import yaml

        node, line = self._node, None
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


def _yaml() -> Any:  # noqa: ANN401 - a module that may be absent
    try:
        import yaml
    except ImportError as error:
        raise ImportError(
            'reading YAML files needs PyYAML: install it with `pip install "foundry_fastlog[yaml]"`'
        ) from error
    return yaml


def explain(
    problem: ErrorDetails,
    where: str,
    model: type[BaseModel],
    patterns: Mapping[str, str] | None = None,
) -> str:
    """Describe one problem found by pydantic.

    Args:
        problem: An entry of ``ValidationError.errors()``.
        where: The place, at the beginning of the message; see ConfigFile.place().
        model: The model that rejected the value.
        patterns: What a key with a pattern accepts, in words: ``{"device": "auto or cpu"}``.

    Returns:
        One line: the place, what is wrong and what to do.
    """
    keys = [str(part) for part in problem["loc"]]
    kind, context, value = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "extra_forbidden":
        known = _known_keys(model, keys)
        close = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."
        return f"{where}: unknown key. {hint}"
    if kind == "value_error":
        return f"{where}: {context['error']}."
    if kind == "string_pattern_mismatch" and patterns and keys[-1] in patterns:
        return f"{where}: use {patterns[keys[-1]]}, not {value!r}."
    if kind == "model_type":
        return f"{where}: must be a section of 'key: value' lines, not {show(value)}."
    message = problem["msg"].replace("Input should be", "must be")
    message = message[:1].lower() + message[1:]
    return f"{where}: {message}, not {show(value)}."


def _known_keys(model: type[BaseModel], keys: Sequence[str]) -> list[str]:
    """Name the keys allowed next to the last of ``keys``."""
    from pydantic import BaseModel

    for name in keys[:-1]:
        annotation = model.model_fields[name].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)


def show(value: object) -> str:
    """Show a wrong value as in YAML, truncated to one short line."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
