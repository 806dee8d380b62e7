"""LoggingConfig: the plan's fields and defaults, validation, YAML files and the environment."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from foundry_fastlog import ConfigError, LoggingConfig, RecorderConfig
from foundry_fastlog.config.models import LOG_LEVELS
from foundry_fastlog.config.yaml_file import ConfigFile, show

FIELDS = LoggingConfig.model_fields
COUNTS = [name for name, field in FIELDS.items() if field.annotation is int]

LEVELS = "DEBUG, INFO, WARNING, ERROR, CRITICAL"
NO_LEVELS = ["INVALID", "", 25, True, None, 1.5, ["INFO"]]


def test_fields_and_defaults() -> None:
    """Those that the plan does not list (see tests/acceptance); every field is described."""
    assert all(field.description for field in FIELDS.values())
    config = LoggingConfig()
    assert dict(list(config)[11:]) == {
        "use_wandb": False,
        "wandb_project": None,
        "log_dir": "logs",
        "root_logger": "model_foundry",
        "subsystem_levels": {},
        "console": True,
        "console_format": "line",
        "catch_sigterm": True,
        "capture": [],
        "system_metrics_every_s": 10.0,
        "sync": [],
        "recorder": RecorderConfig(),
    }
    config.subsystem_levels["data"] = "DEBUG"
    assert LoggingConfig().subsystem_levels == {}  # one's levels are not another's


@pytest.mark.parametrize("field", ["console_level", "file_level"])
@pytest.mark.parametrize(
    ("given", "name"),
    [
        *((level, level) for level in LOG_LEVELS),
        *(("info", "INFO"), (" Warn ", "WARNING"), ("fatal", "CRITICAL")),
        (logging.ERROR, "ERROR"),
    ],
)
def test_levels_become_names(field: str, given: object, name: str) -> None:
    assert getattr(LoggingConfig(**{field: given}), field) == name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *(({"console_level": level}, LEVELS) for level in NO_LEVELS),
        *(({"subsystem_levels": {"data": level}}, "must be one of") for level in NO_LEVELS),
        *(({name: v}, name) for name in COUNTS for v in (0, -1, True, "many", 1.5, None)),
        *(
            ({"subsystem_levels": text}, "must look like 'data=WARNING")
            for text in ("data", "=DEBUG", "data=DEBUG,loop")
        ),
        ({"console_lvl": "INFO"}, "console_lvl"),  # a misspelt option never passes for a default
    ],
)
def test_what_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LoggingConfig.model_validate(given)


def test_assignments_are_checked() -> None:
    config = LoggingConfig()
    config.console_level = "debug"
    assert config.console_level == "DEBUG"
    with pytest.raises(ValidationError, match="max_log_files"):
        config.max_log_files = 0


def test_subsystem_levels_from_a_mapping_and_from_a_text() -> None:
    wanted = {"data": "WARNING", "training.loop": "DEBUG"}
    text = " data = WARNING, training.loop=debug,"
    for levels in (wanted, {"data": "warning", "training.loop": 10}, text):
        config = LoggingConfig.model_validate({"subsystem_levels": levels})
        assert config.subsystem_levels == wanted


def test_embedded_in_an_experiments_config_of_any_kind() -> None:
    """As a field of a strict, frozen model; from a dict; and through dict(), the older name."""

    class ExperimentConfig(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
        experiment_name: str
        logging: LoggingConfig = LoggingConfig()

    given = {"experiment_name": "exp0", "logging": LoggingConfig(console_level="DEBUG").dict()}
    config = ExperimentConfig(**given)
    assert config.logging == LoggingConfig(console_level="DEBUG")
    assert ExperimentConfig.model_validate_json(config.model_dump_json()) == config
    assert LoggingConfig().dict(include={"log_dir"}) == {"log_dir": "logs"}


config_values = st.fixed_dictionaries(
    {},
    optional={
        "console_level": st.sampled_from(LOG_LEVELS),
        "max_log_files": st.integers(1, 10**9),
        "profile_performance": st.booleans(),
        "subsystem_levels": st.dictionaries(
            st.from_regex(r"[a-z]+(\.[a-z]+)?", fullmatch=True),
            st.sampled_from(LOG_LEVELS),
            max_size=3,
        ),
        "system_metrics_every_s": st.floats(0, 86400),
        "recorder": st.builds(RecorderConfig, ring=st.sampled_from(["file", "shm", "memory"])),
    },
)


@given(config_values)
def test_environment_says_what_the_model_says(values: dict[str, Any]) -> None:
    config = LoggingConfig(**values)
    environ = {}
    for name, value in values.items():
        if name == "recorder":
            environ["FASTLOG_RECORDER__RING"] = value.ring
        elif name == "subsystem_levels":
            pairs = (f"{part}={level}" for part, level in value.items())
            environ["FASTLOG_SUBSYSTEM_LEVELS"] = ",".join(pairs)
        else:
            environ[f"FASTLOG_{name.upper()}"] = str(value)
    assert LoggingConfig.from_env(environ) == config


def test_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """from_env() reads os.environ; FASTLOG_ variables that resemble no field are ignored."""
    assert LoggingConfig.from_env() == LoggingConfig()
    assert LoggingConfig.from_env({"FASTLOG_DEBUG": "1", "FASTLOG_WERROR": "1"}) == LoggingConfig()
    monkeypatch.setenv("FASTLOG_CONSOLE", "no")
    monkeypatch.setenv("FASTLOG_RECORDER__FSYNC", "none")
    config = LoggingConfig.from_env()
    assert (config.console, config.recorder.fsync) == (False, "none")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WANDB_PROJECT": "p"}, {"wandb_project": "p"}),
        ({"WANDB_PROJECT": ""}, {"wandb_project": "mine"}),
        ({"WANDB_PROJECT": "p", "FASTLOG_WANDB_PROJECT": "q"}, {"wandb_project": "q"}),
        ({"FASTLOG_WANDB_PROJECT": "q", "WANDB_PROJECT": "p"}, {"wandb_project": "q"}),
        ({"WANDB_MODE": "disabled"}, {"use_wandb": False}),
        ({"WANDB_MODE": " Disabled "}, {"use_wandb": False}),
        ({"WANDB_MODE": "offline"}, {"use_wandb": True}),
        ({"WANDB_MODE": "disabled", "FASTLOG_USE_WANDB": "1"}, {"use_wandb": False}),
    ],
)
def test_wandb_s_own_variables(environ: dict[str, str], expected: dict[str, object]) -> None:
    """WANDB_PROJECT and WANDB_MODE=disabled have an effect; this package's names the project."""
    config = LoggingConfig(use_wandb=True, wandb_project="mine").with_environment(environ)
    assert config.model_dump(include=set(expected)) == expected


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"FASTLOG_MAX_LOG_FILES": "0"}, "FASTLOG_MAX_LOG_FILES: must be greater than or equal"),
        ({"FASTLOG_CONSOLE_LEVEL": "loud"}, "FASTLOG_CONSOLE_LEVEL: must be one of DEBUG"),
        ({"FASTLOG_RECORDER__RING": "disk"}, "FASTLOG_RECORDER__RING: must be 'file', 'shm'"),
        ({"FASTLOG_CONSOLE": "x", "FASTLOG_MAX_LOG_SIZE_MB": "x"}, r"^[^\n]+\n[^\n]+$"),  # both
        ({"FASTLOG_SUBSYSTEM_LEVELS": "data=x"}, "FASTLOG_SUBSYSTEM_LEVELS: must be one of"),
        ({"FASTLOG_MAX_LOG_FILE": "3"}, "MAX_LOG_FILE: unknown. Did you mean FASTLOG_MAX_LOG_F"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoggingConfig.from_env(environ)


def test_a_field_that_was_made_wrong_without_validation() -> None:
    """A fault that no variable made is told by its field."""
    config = LoggingConfig.model_construct(**{**dict(LoggingConfig()), "max_log_files": 0})
    with pytest.raises(ConfigError, match="max_log_files: must be"):
        config.with_environment({})


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "exp.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


YAML = """\
model:
  layers: 2
logging:
  console_level: warning
  max_log_files: 5
  subsystem_levels:
    training.loop: DEBUG
  recorder:
    ring: memory
"""


def test_from_an_experiment_file(tmp_path: Path) -> None:
    path = write(tmp_path, YAML)
    expected = LoggingConfig(
        console_level="WARNING",
        max_log_files=5,
        subsystem_levels={"training.loop": "DEBUG"},
        recorder=RecorderConfig(ring="memory"),
    )
    assert LoggingConfig.from_yaml(path) == expected
    overridden = LoggingConfig.from_yaml(str(path), environ={"FASTLOG_MAX_LOG_FILES": "7"})
    assert overridden == expected.model_copy(update={"max_log_files": 7})


@pytest.mark.parametrize(
    ("text", "section", "files"),
    [
        ("max_log_files: 5\n", None, 5),
        ("run:\n  logging:\n    max_log_files: 5\n", "run.logging", 5),
        *((text, "logging", 10) for text in ("", "logging:\n", "model: {}\n", "# nothing\n")),
    ],
)
def test_places_of_the_section(tmp_path: Path, text: str, section: str | None, files: int) -> None:
    """The whole file, or one below others; an absent or empty one means defaults."""
    config = LoggingConfig.from_yaml(write(tmp_path, text), section)
    assert config == LoggingConfig(max_log_files=files)


SECTION = "must be a section of 'key: value' lines"
FAULTS = [
    ("console_lvl: INFO", "2: logging.console_lvl: unknown key. Did you mean 'console_level'"),
    ("zzz: 1", "2: logging.zzz: unknown key. Known keys: console_level, file_level"),
    ("recorder:\n    rink: 1", "3: logging.recorder.rink: unknown key. Did you mean 'ring'"),
    ("max_log_files: x", "2: logging.max_log_files: must be a valid integer.*, not 'x'"),
    ("max_log_files: true", "2: logging.max_log_files: must be a number, not true"),
    ("console_level: 7", "2: logging.console_level: must be one of .* not 'Level 7'"),
    ("recorder: [1]", "2: logging.recorder: must be a section of 'key: value' lines"),
    ("console: [", "3: not valid YAML"),
    ("console: true\n  console: true", r"3: logging.console: given twice \(first on line 2\)"),
]


@pytest.mark.parametrize(
    ("text", "section", "message"),
    [
        *((f"logging:\n  {text}\n", "logging", f"exp.yaml:{said}") for text, said in FAULTS),
        ("logging: 5\n", "logging", f"exp.yaml:1: logging: {SECTION}, not 5"),
        ("- 1\n", "logging", "exp.yaml: must be a mapping; found a list"),
        ("run: 5\n", "run.logging", "exp.yaml:1: run: must be a section"),
        (b"logging: \xff\n", "logging", "cannot be read as UTF-8"),
    ],
)
def test_faults_of_a_file(tmp_path: Path, text: str | bytes, section: str, message: str) -> None:
    """So that they can be mended without a search."""
    with pytest.raises(ConfigError, match=message):
        LoggingConfig.from_yaml(write(tmp_path, text), section)


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"gone.yaml: no such file\. Give the path"):
        LoggingConfig.from_yaml(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8 text"):
        LoggingConfig.from_yaml(tmp_path)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError, match=r"foundry_fastlog\[yaml\]"):
        LoggingConfig.from_yaml(write(tmp_path, YAML))


def test_places_in_a_file() -> None:
    """The deepest known part of a path has the line; without any there is none."""
    file = ConfigFile("f.yaml", "a:\n  b: 1\n")
    assert file.place(["a", "b", "c"]) == "f.yaml:2: a.b.c"
    assert file.place(["a", "x"]) == "f.yaml:1: a.x"
    assert file.place(["x"]) == "f.yaml: x"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "empty"), (False, "false"), (float("nan"), "nan"), (1.5, "1.5")),
        ("x" * 80, "'" + "x" * 56 + "..."),
    ],
)
def test_values_in_messages(value: object, text: str) -> None:
    assert show(value) == text
