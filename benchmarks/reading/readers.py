"""What is timed: one function per case and peer; each returns facts of all values that it read.

Run in a fresh interpreter: `python -m benchmarks.reading.readers CASE PEER ROOT`.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Facts = list[float]


def _facts(frame: Any, names: list[str]) -> Facts:
    """Rows, the sum of steps, and the sum of all values, rounded: sums run in another order."""
    total = sum(float(frame[name].sum()) for name in names)
    return [frame.height, float(frame["step"].sum()), float(f"{total:.9g}")]


def _metrics_of(frame: Any) -> list[str]:
    fixed = {"timestamp", "seq", "step", "epoch", "rank", "attempt", "label", "filename"}
    return [name for name in frame.columns if name not in fixed]


def fastlog_frame(root: Path) -> Any:
    """A frame by this package."""
    from foundry_fastlog import read_run

    return read_run(root).to_polars("metrics")


def duckdb_frame(root: Path) -> Any:
    """A frame by DuckDB, handed to polars by Arrow."""
    import duckdb
    import polars as pl

    # Without a limit on names it would make a map of more than 200.
    query = f"""SELECT timestamp, seq, step, unnest(metrics), filename FROM
        read_ndjson('{root}/metrics*.jsonl', filename = true, map_inference_threshold = -1)"""
    return pl.DataFrame(duckdb.sql(query))


def polars_frame(root: Path) -> Any:
    """A frame by polars alone."""
    import polars as pl

    return pl.scan_ndjson(f"{root}/metrics*.jsonl").unnest("metrics").collect()


def each(frame: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Read all runs below a directory, one after the other."""

    def read(root: Path) -> Any:
        import polars as pl

        frames = [frame(run) for run in sorted(root.iterdir())]
        return pl.concat([one.select("step", *_metrics_of(one)) for one in frames])

    return read


def fastlog_metric(root: Path) -> Facts:
    """Extremes and sum of the loss, by this package."""
    from foundry_fastlog import read_run

    loss = read_run(root).metric("loss").values
    return [float(loss.min()), float(loss.max()), float(f"{loss.sum():.9g}")]


def duckdb_metric(root: Path) -> Facts:
    """The same by DuckDB, without a frame."""
    import duckdb

    (found,) = duckdb.sql(f"""SELECT min(metrics.loss), max(metrics.loss), sum(metrics.loss)
        FROM read_ndjson('{root}/metrics.jsonl')""").fetchall()
    return [found[0], found[1], float(f"{found[2]:.9g}")]


def polars_metric(root: Path) -> Facts:
    """The same by polars, without a frame."""
    import polars as pl

    loss = pl.col("metrics").struct.field("loss")
    lines = pl.scan_ndjson(f"{root}/metrics.jsonl")
    (found,) = (
        lines.select(loss.min().alias("a"), loss.max().alias("b"), loss.sum()).collect().rows()
    )
    return [found[0], found[1], float(f"{found[2]:.9g}")]


FRAMES = {"fastlog": fastlog_frame, "duckdb": duckdb_frame, "polars": polars_frame}
#: Run, and by peer what reads it.
CASES: dict[str, tuple[str, dict[str, Callable[[Path], Any]]]] = {
    "all columns, four metrics": ("one", FRAMES),
    "all columns, 200 metrics": ("wide", FRAMES),
    "all columns, 64 ranks": ("ranks", FRAMES),
    "1,000 small runs, each": ("small", {name: each(read) for name, read in FRAMES.items()}),
    "one metric of four": (
        "one",
        {"fastlog": fastlog_metric, "duckdb": duckdb_metric, "polars": polars_metric},
    ),
}


def main(argv: list[str]) -> None:
    """Time one reader and print what it took and found, as JSON."""
    case, peer, root = argv
    import duckdb  # noqa: F401  # what is measured is reading, not importing
    import numpy as np  # noqa: F401
    import polars as pl  # noqa: F401

    import foundry_fastlog  # noqa: F401

    read = CASES[case][1][peer]
    wall, cpu = time.perf_counter(), time.process_time()
    found = read(Path(root))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    facts = found if isinstance(found, list) else _facts(found, _metrics_of(found))
    package = {"fastlog": "foundry_fastlog"}.get(peer, peer)
    result = {"wall_s": wall, "cpu_s": cpu, "peak_mib": peak, "facts": facts}
    print(json.dumps({**result, "version": f"{package} {version(package)}"}))


if __name__ == "__main__":
    main(sys.argv[1:])
