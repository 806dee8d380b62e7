"""Worlds in one process: the core on a simulated disk, by a seeded schedule."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from crash.driving import CI, RELEASE, SANITIZED, build
from mutants import count_noticed, misplaced

from sim.mutations import OLD, mutations

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="wraps calls of glibc")

HERE = Path(__file__).parent
SECONDS = 3600 if RELEASE else 60 if CI else 5
#: A release looks at worlds that nobody has seen; the others at the same ones each time.
FIRST_SEED = random.SystemRandom().randrange(1 << 32) if RELEASE else 1


@pytest.fixture(scope="module")
def sim() -> Path:
    return build("plain", makefile=HERE) / "sim"


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_promises_hold_in_any_simulated_world(sim: Path, figures: dict[str, Any]) -> None:
    """Whoever dies, and whatever users and disk do between any two calls."""
    done = run(sim, "--seed", FIRST_SEED, "--seconds", SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.fullmatch(
        r"(\d+) worlds in [\d.]+ s \(([\d.]+) s of a core\), (\d+) points, "
        r"(\d+) acked records, 0 violations\n",
        done.stdout,
    )
    assert told, done.stdout
    figures["worlds"] = int(told[1])
    figures["worlds a minute of a core"] = round(60 * int(told[1]) / float(told[2]))
    figures["points"] = int(told[3])
    figures["acked"] = int(told[4])
    figures["violations"] = 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not SANITIZED, reason="a build of its own: CI=true")
def test_the_same_under_sanitizers() -> None:
    """No access out of bounds and no leak, in processes that die as well."""
    program = build("asan", makefile=HERE) / "sim"
    done = run(program, "--seed", FIRST_SEED + 50_000, "--worlds", 3000 if RELEASE else 200)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_is_a_world(sim: Path) -> None:
    """The same seeds make the same calls in the same order, in every process."""
    first, again = (run(sim, "--seed", 7, "--worlds", 40, "--traces").stdout for _ in range(2))
    assert first.splitlines()[:-1] == again.splitlines()[:-1]
    assert len(set(first.splitlines())) == 41


def test_a_script_is_a_world(sim: Path, tmp_path: Path) -> None:
    """Decisions that are read are taken, the same each time."""
    script = tmp_path / "script"
    script.write_text("seed 11\n40 S 8\n90 K 0\n120 R 0\n")
    first, again = (run(sim, "--script", script, "--verbose") for _ in range(2))
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout == again.stdout
    assert "recover" in first.stdout
    script.write_text("worlds\n")
    assert run(sim, "--script", script).returncode == 2


def test_each_mutation_has_its_places() -> None:
    """What a change of the sources takes away is seen at once."""
    assert misplaced(mutations()) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not (CI or RELEASE), reason="each one is a build")
def test_a_simulated_world_shows_each_old_fault(figures: dict[str, Any]) -> None:
    """Within a minute each. Each one is a build, for which CI has little time."""
    figures.update(count_noticed(HERE / "mutations.py", *([] if RELEASE else OLD)))
