"""RecorderConfig: the same options, defaults and limits as Recorder."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pydantic
import pytest

from foundry_fastlog import Recorder, RecorderConfig

FACTS = {"path", "rank", "world_size", "config", "name", "stamp", "resume", "launch"}
OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(Recorder).parameters.items()
    if name not in FACTS
}


def test_options_and_defaults_are_the_recorder_s() -> None:
    """Every option of Recorder that is no fact of one run, with its default."""
    fields = RecorderConfig.model_fields
    assert {name: field.default for name, field in fields.items()} == OPTIONS
    assert all(field.description for field in fields.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("ring_bytes", (64 << 10) - 1), ("ring_bytes", (64 << 20) + 1)),
        *(("block_timeout_s", -1), ("block_timeout_s", 3601), ("flush_interval_s", 0)),
        *(("segment_bytes", 4095), ("overhead_budget", 1.1), ("close_timeout_s", -1)),
        ("back_pressure", "wait"),
    ],
)
def test_limits_are_the_recorder_s(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(pydantic.ValidationError, match=name):
        RecorderConfig(**{name: value})
    with pytest.raises(ValueError, match=name):
        Recorder(tmp_path, **{name: value})


@pytest.mark.parametrize(
    "edge",
    [
        {"ring_bytes": 64 << 10, "block_timeout_s": 0, "flush_interval_s": 0.001},
        {"segment_bytes": 4096, "overhead_budget": 0, "close_timeout_s": 0},
        {"ring_bytes": 64 << 20, "block_timeout_s": 3600, "flush_interval_s": 3600},
        {"segment_bytes": 1 << 50, "overhead_budget": 1, "close_timeout_s": 86400},
    ],
)
def test_edges_are_the_recorder_s(tmp_path: Path, edge: dict[str, Any]) -> None:
    assert RecorderConfig(**edge).open(tmp_path).close(60)


def test_open(tmp_path: Path) -> None:
    config = RecorderConfig(ring_bytes=64 << 10)
    with config.open(tmp_path, rank=1, world_size=2, config=config, name="n") as recorder:
        assert recorder.stats()["ring_bytes"] == 64 << 10
        assert (recorder.label, recorder.world_size) == ("r1", 2)
    with pytest.raises(TypeError, match="ring_bytes"):
        config.open(tmp_path, ring_bytes=1 << 20)


def test_the_model() -> None:
    with pytest.raises(pydantic.ValidationError, match="ring_byte"):
        RecorderConfig(ring_byte=1 << 20)  # type: ignore[call-arg]
    config = RecorderConfig.model_validate({"ring_bytes": "131072", "block_timeout_s": "0.5"})
    assert (config.ring_bytes, config.block_timeout_s) == (131072, 0.5)
    assert RecorderConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.ring_bytes = 1 << 20  # type: ignore[misc]
