"""Damaged and hostile files, under ASan and UBSan in CI."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from crash.driving import SANITIZED, build, size


def fuzz(command: list[str], executions: int, scratch: Path) -> Counter[str]:
    """Run a program on all processors, each with its own numbers; sum up their figures."""
    program = build("asan" if SANITIZED else "plain") / command[0]
    workers = os.cpu_count() or 1
    share = executions // workers
    environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}
    running = [
        subprocess.Popen(
            [
                *(program, *command[1:], f"scratch={scratch / str(worker)}"),
                *(f"first={worker * share}", f"executions={share}"),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for worker in range(workers)
    ]
    total: Counter[str] = Counter()
    for process in running:
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        total.update(json.loads(output))
    return total


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_ring_file_breaks_who_reads_it(tmp_path: Path, figures: dict[str, Any]) -> None:
    """Valid rings, mutated; half of them with their checksums made right again."""
    command = ["driver", "fuzz", "recover_every=100"]
    total = fuzz(command, size(1_200_000, 6_000), tmp_path)
    # Most mutated files are still rings, so what reads them was reached.
    assert total["rings"] > total["executions"] // 3
    assert total["rendered"] > total["executions"]
    assert total["recovered"] > total["executions"] // 200
    figures["executions"] = total["executions"]
    figures["read as a ring"] = total["rings"]
    figures["lines rendered"] = total["rendered"]
    figures["whole recoveries"] = total["recovered"]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_line_breaks_who_reads_it(tmp_path: Path, figures: dict[str, Any]) -> None:
    """Mutated lines, in any parts: all ways of reading agree on what is sound."""
    total = fuzz(["reader_fuzz"], size(1_200_000, 6_000), tmp_path)
    # Many are sound, so what is behind the parser was reached.
    assert total["sound"] > total["lines"] // 4
    assert total["shown"] > total["lines"] // 25
    figures["executions"] = total["executions"]
    figures["lines"] = total["lines"]
    figures["sound"] = total["sound"]
