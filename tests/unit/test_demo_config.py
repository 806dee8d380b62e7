"""The experiment file of the demo: defaults, round trip, and errors that help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import foundry_fastlog.demo
from foundry_fastlog.config.models import LoggingConfig, RecorderConfig
from foundry_fastlog.demo.config import (
    ConfigError,
    DataConfig,
    DemoLogging,
    ExperimentConfig,
    ModelConfig,
    TrainingConfig,
    dump_config,
    load_config,
)

Patch = pytest.MonkeyPatch


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(folder: Path, text: str) -> str:
    """Return what is said about an experiment file that is wrong, without its folder."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value).replace(str(path), "experiment.yaml")


def test_the_shipped_file_names_every_key() -> None:
    """A user who copies the packaged file sees all there is to change, and the defaults."""
    import yaml

    assert load_config() == ExperimentConfig()
    folder = Path(foundry_fastlog.demo.__file__).parent / "configs"
    values = yaml.safe_load((folder / "demo.yaml").read_text("utf-8"))
    for section, model in (
        (values, ExperimentConfig),
        (values["model"], ModelConfig),
        (values["data"], DataConfig),
        (values["training"], TrainingConfig),
        (values["logging"], LoggingConfig),
        (values["logging"]["recorder"], RecorderConfig),
    ):
        assert set(section) == set(model.model_fields)


def test_what_a_logging_section_leaves_out_is_the_demos(tmp_path: Path) -> None:
    """A section with one key does not turn the console on."""
    config = load_config(write(tmp_path, "logging:\n  max_log_files: 3\n"))
    assert config.logging == DemoLogging(max_log_files=3)
    assert config.logging.console is False
    # YAML 1.1 reads 1e-3 as text; a user means the number.
    config = load_config(write(tmp_path, "training:\n  learning_rate: 1e-3\n"))
    assert config.training.learning_rate == 1e-3


def test_the_environment_overrides_it(tmp_path: Path, monkeypatch: Patch) -> None:
    """And a variable that cannot be used is named."""
    monkeypatch.setenv("FASTLOG_LOG_DIR", "elsewhere")
    assert load_config().logging.log_dir == "elsewhere"
    monkeypatch.setenv("FASTLOG_FILE_LEVEL", "loud")
    with pytest.raises(ConfigError, match="FASTLOG_FILE_LEVEL"):
        load_config()


RATES = {"learning_rate": st.floats(1e-3, 1e300), "min_learning_rate": st.floats(0.0, 1e-3)}
DEVICES = st.sampled_from(["auto", "cpu", "cuda", "cuda:3", "mps"])
THREADS = st.none() | st.integers(1, 256)
POLICIES, INTERVALS = st.sampled_from(["block", "drop"]), st.floats(0.001, 3600.0)
RECORDERS = st.builds(RecorderConfig, back_pressure=POLICIES, flush_interval_s=INTERVALS)
SUBSYSTEMS = st.dictionaries(st.sampled_from(["data", "x.y"]), st.just("INFO"))
FILE_LEVELS = st.sampled_from(["DEBUG", "ERROR"])
FRACTIONS = st.floats(0, 1, exclude_min=True, exclude_max=True)
SECTIONS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.builds(
        ModelConfig, heads=st.just(2), width=st.integers(1, 99).map(lambda n: 2 * n)
    ),
    "data": st.builds(DataConfig, validation_fraction=FRACTIONS),
    "training": st.builds(
        TrainingConfig, **RATES, threads=THREADS, device=DEVICES, resume=st.booleans()
    ),
    "logging": st.builds(
        DemoLogging, file_level=FILE_LEVELS, subsystem_levels=SUBSYSTEMS, recorder=RECORDERS
    ),
}
NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z")
SEEDS = st.integers(0, 2**63 - 1)


@given(st.builds(ExperimentConfig, experiment_name=NAMES, seed=SEEDS, **SECTIONS))
def test_an_experiment_survives_a_round_trip_through_yaml(
    tmp_path_factory: pytest.TempPathFactory, config: ExperimentConfig
) -> None:
    """What dump_config() writes, load_config() reads back equal, floats to the last bit."""
    path = write(tmp_path_factory.mktemp("round-trip"), dump_config(config))
    assert load_config(path) == config


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n", "training:\nmodel:\n"])
def test_what_is_left_out_has_its_default(tmp_path: Path, text: str) -> None:
    assert load_config(write(tmp_path, text)) == ExperimentConfig()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:\n  widht: 64\n", "2: model.widht: unknown key. Did you mean 'width'?"),
        ("training:\n  steps: 0\n",
         "2: training.steps: must be greater than or equal to 1, not 0."),
        ("training:\n  learning_rate: .nan\n",
         "2: training.learning_rate: must be a finite number, not nan."),
        ("training:\n  learning_rate: true\n",
         "2: training.learning_rate: must be a valid number, not true."),
        ("training:\n  device: gpu\n",
         "2: training.device: use auto, cpu, cuda, cuda:N or mps, not 'gpu'."),
        ("training:\n  learning_rate: 1.0e-5\n",
         "1: training: min_learning_rate (0.0001) must not be above learning_rate (1e-05)."),
        ("model:\n  width: 130\n", "1: model: width (130) must be a multiple of heads (4)."),
        ("logging:\n  recorder:\n    back_pressure: wait\n",
         "3: logging.recorder.back_pressure: must be 'block' or 'drop', not 'wait'."),
        ("experiment_name: a/b\n",
         "1: experiment_name: use letters, digits, '.', '_' and '-' only, not 'a/b'."),
        ("- 1\n- 2\n",
         (" must be a mapping with the keys experiment_name, seed, model, data, training, logging; "
          "found a list.")),
    ],
)  # fmt: skip
def test_an_error_names_file_line_key_and_remedy(tmp_path: Path, text: str, expected: str) -> None:
    """The message alone is enough to find the mistake and correct it."""
    assert complaint(tmp_path, text) == f"experiment.yaml:{expected}"


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    """A user corrects a file in one go, not error by error."""
    lines = complaint(tmp_path, "seed: -1\nmodel:\n  layers: 0\n  lairs: 1\n").splitlines()
    assert [line.split(": ")[1] for line in lines] == ["seed", "model.layers", "model.lairs"]
    # It is data: a tag that names a Python function is an error.
    text = "experiment_name: !!python/object/apply:os.getcwd []\n"
    assert "not valid YAML: could not determine a constructor" in complaint(tmp_path, text)


def test_a_file_that_is_missing_is_not_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"experiment\.yaml: no such file\. .*--config"):
        load_config(tmp_path / "experiment.yaml")


def test_steps_and_device_replace_what_the_file_says(tmp_path: Path) -> None:
    path = write(tmp_path, "training:\n  steps: 7\n  device: cuda\n  batch_size: 3\n")
    training = load_config(path, steps=9, device="cpu").training
    assert (training.steps, training.device, training.batch_size) == (9, "cpu", 3)
    with pytest.raises(ConfigError) as caught:  # of the options, and not of the file
        load_config(path, steps=0, device="tpu")
    assert str(caught.value).splitlines() == [
        "--steps: must be greater than or equal to 1, not 0.",
        "--device: use auto, cpu, cuda, cuda:N or mps, not 'tpu'.",
    ]


def test_a_text_file_is_found_beside_the_experiment_file(tmp_path: Path) -> None:
    """A relative data.file does not depend on where the command is run."""
    config = load_config(write(tmp_path, "data:\n  file: texts/novel.txt\n"))
    assert config.data.file == str(tmp_path / "texts" / "novel.txt")


def test_an_experiment_cannot_be_changed_by_accident() -> None:
    """The configuration that is recorded is the one that was trained with."""
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="frozen"):
        ExperimentConfig().seed = 2
