"""Damaged and hostile ring files, under ASan and UBSan in CI."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from crash.driving import SANITIZED, build, size


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_ring_file_breaks_who_reads_it(tmp_path: Path, figures: dict[str, Any]) -> None:
    """Valid rings, mutated; half of them with their checksums made right again."""
    driver = build("asan" if SANITIZED else "plain") / "driver"
    workers = os.cpu_count() or 1
    share = size(1_200_000, 6_000) // workers
    environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}
    running = []
    for worker in range(workers):
        command = [driver, "fuzz", f"scratch={tmp_path / str(worker)}"]
        command += [f"first={worker * share}", f"executions={share}", "recover_every=100"]
        running.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    total = dict.fromkeys(("executions", "rings", "records", "rendered", "recovered"), 0)
    for process in running:
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        for key, value in json.loads(output).items():
            total[key] += value
    # Most mutated files are still rings, so what reads them was reached.
    assert total["rings"] > total["executions"] // 3
    assert total["rendered"] > total["executions"]
    assert total["recovered"] > total["executions"] // 200
    figures["executions"] = total["executions"]
    figures["read as a ring"] = total["rings"]
    figures["lines rendered"] = total["rendered"]
    figures["whole recoveries"] = total["recovered"]
