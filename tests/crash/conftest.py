"""What the crash tests share: the built driver, and the figures that they print and keep."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crash.driving import RELEASE, ROOT, Scene, build

FIGURES = ROOT / "build" / "crash" / ("figures" if RELEASE else "figures-ci")


@pytest.fixture(scope="session")
def plain_build() -> Path:
    """The driver as users' code is built, with kill points."""
    return build("plain")


@pytest.fixture
def scenes(tmp_path: Path, plain_build: Path) -> Iterator[Callable[[], Scene]]:
    """Make empty run directories with the driver."""
    made: list[Scene] = []

    def make() -> Scene:
        made[:] = [Scene(tmp_path / f"scene-{next(count)}", plain_build)]
        return made[0]

    count = itertools.count(1)
    yield make
    for scene in made:
        scene.end()


@pytest.fixture
def scene(scenes: Callable[[], Scene]) -> Scene:
    return scenes()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Figures of a test: shown at the end of the session, kept for docs/reliability.md."""
    figures: dict[str, Any] = {}
    begun = time.monotonic()
    yield figures
    figures["seconds"] = round(time.monotonic() - begun, 1)
    name = request.node.name
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"{name}.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    line = f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items())
    # A report's property reaches the process that prints, wherever the test ran.
    request.node.user_properties.append(("figures", line))
