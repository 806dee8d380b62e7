"""The tables of the benchmarks are rendered from results that were stored, old ones included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cold, digest, fleet, tables

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


def test_the_tables_of_a_fleet_are_of_the_stored_result() -> None:
    """What more workers would take is computed from it, too."""
    stored = json.loads((RESULTS / "fleet.json").read_text(encoding="utf-8"))
    assert fleet.render(stored) in (tables.HERE / "README.md").read_text(encoding="utf-8")
    cost = fleet.estimate(stored["cases"]["runs"], "table")
    assert cost["walk_s"] + cost["client_s"] <= cost["paper_s"]


def test_the_pages_figures_are_of_the_stored_results() -> None:
    """After a measurement on another branch: `python -m benchmarks.digest`."""
    assert digest.glance() in digest.PERFORMANCE.read_text(encoding="utf-8")
    assert digest.comparison() in digest.COMPARISON.read_text(encoding="utf-8")


def test_a_published_result_is_in_all_pages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The benchmarks' own page and those of docs/, between their markers."""
    monkeypatch.setattr(tables, "HERE", tmp_path)
    monkeypatch.setattr(digest, "PERFORMANCE", tmp_path / "performance.md")
    monkeypatch.setattr(digest, "COMPARISON", tmp_path / "peers.md")
    (tmp_path / "results").mkdir()
    for name, page in (("cold", "README"), ("glance", "performance"), ("comparison", "peers")):
        begin, end = (marker.format(name) for marker in tables.MARKERS)
        (tmp_path / f"{page}.md").write_text(f"above\n{begin}\nstale\n{end}\nbelow\n")
    tables.publish("cold", {"figure": 1}, "a table")
    assert json.loads((tmp_path / "results" / "cold.json").read_text()) == {"figure": 1}
    wanted = {"README": "a table", "performance": digest.glance(), "peers": digest.comparison()}
    for page, text in wanted.items():
        found = (tmp_path / f"{page}.md").read_text()
        assert f"\n{text}\n" in found
        assert "stale" not in found


def test_peers_that_could_not_run_have_no_figure() -> None:
    """A table is made of the others."""
    section = {"fastlog": {"call_ns": {"median": 56.0}}, "wandb_offline": {"unavailable": "no"}}
    assert digest.medians(section, "call_ns") == {"fastlog": "56.0"}
