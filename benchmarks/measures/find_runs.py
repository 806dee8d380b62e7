"""Find all runs of a directory, and check what is said of each."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.runs import STEPS, loss_of


def run(root: str, count: int, cache: str) -> dict[str, Any]:
    """Read the runs of a directory, then filter and sort them, then let the command do all.

    Args:
        root: The directory.
        count: How many runs it has.
        cache: The user's cache directory; the first look is one without.
    """
    os.environ["XDG_CACHE_HOME"] = cache
    from foundry_fastlog import read_runs

    cold = not os.path.exists(cache)  # noqa: PTH110 - before anything is made
    begun, cpu = time.perf_counter(), time.process_time()
    runs = read_runs(root)
    read_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    begun = time.perf_counter()
    chosen = runs.where("config.lr >= 1e-3 and last.loss < 1.5 and state == 'ended'").sort(
        "-last.loss"
    )
    where_s = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _check(list(runs), count)
    wanted = [n for n in range(count) if n % 10 and n % 5 <= 3 and loss_of(n, STEPS - 1) < 1.5]
    wanted.sort(key=lambda n: -loss_of(n, STEPS - 1))
    assert [loss_of(int(one.name[3:]), STEPS - 1) for one in chosen] == [
        loss_of(n, STEPS - 1) for n in wanted
    ]
    environment = {**os.environ, "XDG_CACHE_HOME": f"{cache}-command" if cold else cache}
    command = [sys.executable, "-m", "foundry_fastlog", "runs", root, "--json"]
    begun = time.perf_counter()
    said = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)
    command_s = time.perf_counter() - begun
    assert [json.loads(line)["run"] for line in said.stdout.splitlines()] == [r.run for r in runs]
    return {
        "read_s": read_s,
        "cpu_s": cpu_s,
        "where_s": where_s,
        "command_s": command_s,
        "peak_mib": peak,
        "verified": count,
    }


def _check(runs: list[Any], count: int) -> None:
    assert len(runs) == count
    for one in runs:
        number = int(one.name[3:])
        loss = one.metrics["loss"]
        assert (one.step, one.duration_s) == (STEPS - 1, 540.0)
        assert (loss.last, loss.max) == (loss_of(number, STEPS - 1), loss_of(number, 0))
        assert one.config["seed"] == number
        assert one.state == ("failed" if number % 10 == 0 else "ended")
