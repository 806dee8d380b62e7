"""The tables of the benchmarks are rendered from results that were stored, old ones included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cold, tables

RESULTS = Path(tables.__file__).parent / "results"


@pytest.fixture
def result() -> dict[str, Any]:
    """A stored result of a full run."""
    text = (RESULTS / "cp311-linux-x86_64.json").read_text(encoding="utf-8")
    stored: dict[str, Any] = json.loads(text)
    return stored


def test_a_result_from_before_the_priority_was_noted_is_rendered(result: dict[str, Any]) -> None:
    """It was measured at no priority, as one that says so."""
    result["machine"]["nice"] = 0
    with_field = tables.render(result)
    del result["machine"]["nice"]
    assert tables.render(result) == with_field
    assert "priority" not in with_field


def test_a_priority_is_shown(result: dict[str, Any]) -> None:
    """Figures taken at another one say it."""
    result["machine"]["nice"] = 10
    assert tables.machine(result).endswith(", all of them at priority nice 10.")


def test_the_readmes_figures_are_of_the_stored_results(result: dict[str, Any]) -> None:
    """Hot and cold: nobody has edited one of them."""
    readme = (tables.HERE.parent / "README.md").read_text(encoding="utf-8")
    cold_result = json.loads((RESULTS / "cold.json").read_text(encoding="utf-8"))
    assert tables.figure(result) in readme
    assert cold.figure(cold_result) in readme
    assert cold.render(cold_result) in (tables.HERE / "README.md").read_text(encoding="utf-8")
