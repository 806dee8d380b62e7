"""Throughput of the flush thread alone, beside `orjson.dumps` alone."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from benchmarks.peers.fastlog import Fastlog, check_accounting
from benchmarks.workload import KEYS, rows
from foundry_fastlog import Recorder

RING_BYTES = 256 << 20


def fastlog(count: int, directory: Path) -> dict[str, float]:
    """Fill a ring that is large enough, then time the flush that renders and writes all of it."""
    peer = Fastlog()
    peer.recorder = rec = Recorder(directory / "run", ring_bytes=RING_BYTES, flush_interval_s=60.0)
    for step, (loss, lr, grad_norm, tokens_per_sec) in rows(0, count):
        rec.record(step, loss=loss, lr=lr, grad_norm=grad_norm, tokens_per_sec=tokens_per_sec)
    left = count - rec.stats()["written"]
    start = time.perf_counter()
    if not rec.flush(timeout=120.0):
        raise RuntimeError("flush() timed out")
    elapsed = time.perf_counter() - start
    peer.finish()
    peer.verify(directory, count)
    check_accounting(peer.stats, count)
    size = peer.bytes * left / count
    cpu_ns = peer.stats["flush_cpu_s"] / count * 1e9
    return {"records_per_s": left / elapsed, "mb_per_s": size / elapsed / 1e6, "cpu_ns": cpu_ns}


def orjson_alone(count: int) -> dict[str, float]:
    """Time `orjson.dumps` of ready-made dicts, no file: rendering and nothing else."""
    entries = [
        {
            "timestamp": 1769783535.123456,
            "seq": step,
            "step": step,
            "metrics": dict(zip(KEYS, values, strict=True)),
        }
        for step, values in rows(0, min(count, 100_000))
    ]
    dumps, newline = orjson.dumps, orjson.OPT_APPEND_NEWLINE
    size = sum(len(dumps(entry, option=newline)) for entry in entries)
    passes = max(1, count // len(entries))
    start = time.perf_counter()
    for _ in range(passes):
        for entry in entries:
            dumps(entry, option=newline)
    elapsed = time.perf_counter() - start
    total = passes * len(entries)
    return {"records_per_s": total / elapsed, "mb_per_s": passes * size / elapsed / 1e6}


def run(count: int) -> dict[str, Any]:
    """Measure both.

    Args:
        count: Records; four floats each, the ring (256 MiB) must hold them.

    Returns:
        `fastlog` (rendered, written to the file and verified; `cpu_ns` is the flush thread's CPU
        time per record) and `orjson_dumps` (rendered and thrown away).
    """
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        flushed = fastlog(count, Path(scratch))
    return {"count": count, "fastlog": flushed, "orjson_dumps": orjson_alone(count)}
