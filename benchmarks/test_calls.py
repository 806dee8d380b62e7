"""pytest-benchmark: one call with four float metrics, for every peer that can share a process.

Run it with `python -m pytest benchmarks/test_calls.py`. A round is one burst of 256 calls with the
loop around them; the extra info of `--benchmark-json` has `ns_per_call`. The published figures come
from `python -m benchmarks.run`, which uses a fresh process for each peer and subtracts the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import PEERS
from benchmarks.peers.base import Peer
from benchmarks.sections import REQUIRED
from benchmarks.workload import Row, rows

BURST = 256
ROUNDS = 60


def peers() -> list[Any]:
    """Return a parameter per peer; a third-party peer that is not installed is skipped."""
    found: list[Any] = []
    for name in PEERS:
        try:
            peer: type[Peer] = import_module(f"benchmarks.peers.{name}").PEER
        except ImportError as error:
            if name in REQUIRED:
                raise
            found.append(pytest.param(name, marks=pytest.mark.skip(reason=f"{name}: {error}")))
            continue
        if peer.in_process:
            found.append(name)
    return found


@pytest.mark.parametrize("name", peers())
# Third-party peers emit their own warnings and leave open files to the garbage collector.
@pytest.mark.filterwarnings("default")
def test_call(name: str, tmp_path: Path, benchmark: Any) -> None:
    """One burst of steps; afterwards, every record is verified in the output."""
    peer: Peer = import_module(f"benchmarks.peers.{name}").PEER()
    loop = peer.setup(tmp_path)
    done = 0

    def batch() -> tuple[tuple[Iterator[Row]], dict[str, Any]]:
        nonlocal done
        peer.settle()
        done += BURST
        return (rows(done - BURST, BURST),), {}

    benchmark.group = "one call with four float metrics"
    benchmark.pedantic(loop, setup=batch, rounds=ROUNDS, warmup_rounds=2)
    peer.finish()
    peer.verify(tmp_path, done)
    benchmark.extra_info.update(calls=BURST, verified=done, **peer.versions())
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["ns_per_call"] = benchmark.stats.stats.median / BURST * 1e9
