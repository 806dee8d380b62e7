"""What the tests of adapters share: other libraries, and what they recorded."""

from __future__ import annotations

import importlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from foundry_fastlog import read_run

EXAMPLES = Path(__file__).parents[1] / "examples"
# Importing and using other libraries warns of things that are theirs.
THEIR_WARNINGS = pytest.mark.filterwarnings("ignore")


def library(name: str) -> Any:
    """Import a trainer's library, or this package's module for it.

    Skips where it is missing, unless FASTLOG_ALL_LIBRARIES says that none is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.startswith("foundry_fastlog.") or os.environ.get("FASTLOG_ALL_LIBRARIES"):
            return importlib.import_module(name)
        return pytest.importorskip(name)


def points(run: Path, name: str, starts: Any = "latest") -> list[tuple[int, float]]:
    """Return the steps and values of a metric, in the order of steps."""
    found = [
        (line["step"], line["metrics"][name])
        for line in read_run(run).lines("metrics", starts=starts)
        if name in line.get("metrics", {})
    ]
    return sorted(found, key=lambda point: point[0])


def messages(run: Path) -> list[tuple[str, int | None]]:
    """Return the messages of a run, each with its step."""
    return [(line["message"], line.get("step")) for line in read_run(run).lines("log")]


def summaries(run: Path) -> list[tuple[float, dict[str, Any]]]:
    """Return the values of epochs."""
    lines = read_run(run).lines("metrics")
    return [(line["epoch"], line["summary"]) for line in lines if "summary" in line]


def ends(run: Path) -> list[tuple[str, str | None]]:
    """Return how each start ended, and by which error."""
    files = sorted((run / "starts").glob("*.end.json"))
    found = [json.loads(path.read_text()) for path in files]
    return [(end["how"], end.get("error_type")) for end in found]


def starts(run: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's starts."""
    files = sorted((run / "starts").glob("[0-9]*.json"))
    return [json.loads(path.read_text()) for path in files if path.name.count(".") == 1]


def complete(run: Path) -> bool:
    """Whether nothing is missing from a run."""
    read = read_run(run)
    return all(check.complete for check in read.check()) and not read.problems
