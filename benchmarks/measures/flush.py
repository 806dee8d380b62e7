"""Throughput of the flush thread alone, and of `orjson.dumps` alone."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from benchmarks.peers.base import VerificationError
from benchmarks.peers.fastlog import Fastlog
from benchmarks.workload import KEYS, PERIOD, rows
from foundry_fastlog import Recorder

RING_BYTES = 64 << 20
RECORD_BYTES = 96
"""Four floats in the ring: header, step and key set, tags, values, rounded up."""
FILL = RING_BYTES // 2 // RECORD_BYTES * 9 // 10 // PERIOD * PERIOD
"""Records per filling: less than half of the ring, where the flush thread wakes up by itself."""


def fastlog(fillings: int, directory: Path) -> dict[str, float]:
    """Fill a ring while the flush thread sleeps, then time the flush of all of it; repeat.

    Every filling is a separate run: a flush thread that has just been active keeps processing what
    arrives, so part of the work would be done before the clock starts.
    """
    elapsed, size, cpu = 0.0, 0, 0.0
    for filling in range(fillings):
        place = directory / str(filling)
        place.mkdir()
        peer = Fastlog()
        peer.recorder = rec = Recorder(
            place / "run", ring_bytes=RING_BYTES, flush_interval_s=60.0, fsync="none"
        )
        for step, (loss, lr, grad_norm, tokens_per_sec) in rows(0, FILL):
            rec.record(step, loss=loss, lr=lr, grad_norm=grad_norm, tokens_per_sec=tokens_per_sec)
        if rec.stats()["written"]:
            raise VerificationError("the flush thread wrote before flush() was called")
        start = time.perf_counter()
        if not rec.flush(timeout=120.0):
            raise VerificationError("flush() timed out")
        elapsed += time.perf_counter() - start
        peer.finish()
        peer.verify(place, FILL)
        size += peer.bytes
        cpu += peer.stats["flush_cpu_s"]
    count = fillings * FILL
    return {
        "records_per_s": count / elapsed,
        "mb_per_s": size / elapsed / 1e6,
        "cpu_ns": cpu / count * 1e9,
    }


def orjson_alone(count: int) -> dict[str, float]:
    """Time `orjson.dumps` of ready-made dicts, without a file: only rendering."""
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
        count: Approximate number of records; rounded to whole fillings of the ring.

    Returns:
        `fastlog` (rendered, written to the file and verified; `cpu_ns` is the flush thread's CPU
        time per record) and `orjson_dumps` (rendered and discarded).
    """
    fillings = max(1, round(count / FILL))
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        flushed = fastlog(fillings, Path(scratch))
    return {"count": fillings * FILL, "fastlog": flushed, "orjson_dumps": orjson_alone(count)}
