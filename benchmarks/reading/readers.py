"""What is timed: one function per case and peer; each returns facts of all values that it read.

Run in a fresh interpreter: `python -m benchmarks.reading.readers CASE PEER ROOT`.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.reading.runs import FOUR

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


def _rounded(values: Iterable[float]) -> Facts:
    return [float(f"{value:.9g}") for value in values]


def fastlog_summary(root: Path) -> Facts:
    """Count, extremes and mean of each metric, by the command that says much more."""
    from foundry_fastlog.cli.main import main

    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["summary", str(root), "--json"]) == 0
    metrics = {each["name"]: each for each in json.loads(said.getvalue())["metrics"]}
    return _rounded(metrics[name][key] for name in FOUR for key in ("count", "min", "max", "mean"))


def duckdb_summary(root: Path) -> Facts:
    """The same by DuckDB, without a frame."""
    import duckdb

    wanted = ("count({0})", "min({0})", "max({0})", "avg({0})")
    columns = [text.format(f"metrics.{name}") for name in FOUR for text in wanted]
    (found,) = duckdb.sql(f"""SELECT {", ".join(columns)}
        FROM read_ndjson('{root}/metrics.jsonl')""").fetchall()
    return _rounded(found)


def polars_summary(root: Path) -> Facts:
    """The same by polars, without a frame."""
    import polars as pl

    lines = pl.scan_ndjson(f"{root}/metrics.jsonl").unnest("metrics")
    wanted = [
        getattr(pl.col(name), key)().alias(f"{name} {key}")
        for name in FOUR
        for key in ("count", "min", "max", "mean")
    ]
    (found,) = lines.select(wanted).collect().rows()
    return _rounded(found)


def fastlog_curve(root: Path) -> Callable[[], Facts]:
    """A curve of the loss whose cache another reader wrote; opened by one that knows nothing."""
    from foundry_fastlog import read_run

    os.environ["XDG_CACHE_HOME"] = str(root / ".cache")
    read_run(root).curve("loss")

    def read() -> Facts:
        curve = read_run(root).curve("loss")
        return [float(curve.min.min()), float(curve.max.max()), float(curve.count.sum())]

    return read


def polars_curve(root: Path) -> Callable[[], Facts]:
    """The same extremes by polars, from the lines."""
    import polars as pl

    loss = pl.col("metrics").struct.field("loss")

    def read() -> Facts:
        lines = pl.scan_ndjson(f"{root}/metrics.jsonl")
        extremes = lines.select(loss.min().alias("a"), loss.max().alias("b"), loss.count())
        (found,) = extremes.collect().rows()
        return [float(value) for value in found]

    return read


def fastlog_looks(ranks: int) -> Callable[[Path], Callable[[], Facts]]:
    """A cursor on a live run: each rank's recorder lives, and records nothing more."""

    def prepare(root: Path) -> Callable[[], Facts]:
        from foundry_fastlog import Cursor, Recorder
        from foundry_fastlog.reading import watch
        from foundry_fastlog.run.streams import STREAMS

        place = Path(tempfile.mkdtemp(dir=root)) / "run"
        recorders = [
            Recorder(place, rank=rank, world_size=ranks, ring_bytes=1 << 16, flush_interval_s=3600)
            for rank in range(ranks)
        ]
        atexit.register(lambda: [recorder.close() for recorder in recorders])
        for recorder in recorders:
            for number in range(len(STREAMS)):
                members = _MEMBERS[STREAMS[number]]
                recorder._fragment(number, members)  # noqa: SLF001 - any stream, alike
            recorder.flush()
        cursor = Cursor(place)
        given = sum(columns.rows for columns in cursor.poll().columns.values())
        assert given == ranks * len(STREAMS), given
        time.sleep(2 * watch.TICK_S)  # until the directory's time says that all is listed
        for _ in range(3):
            cursor.poll()

        def read() -> Facts:
            return [float(sum(len(cursor.poll().series) for _ in range(LOOKS)))]

        return read

    return prepare


LOOKS = 1000
_MEMBERS = {
    "metrics": b'"step":0,"metrics":{"loss":1.5}',
    "performance": b'"name":"step","duration_s":0.1',
    "errors": b'"level":"ERROR","logger":"","message":"","context":{}',
    "log": b'"level":"INFO","logger":"","message":"","context":{}',
    "system": b'"system":{"cpu":1.5}',
}
FRAMES = {"fastlog": fastlog_frame, "duckdb": duckdb_frame, "polars": polars_frame}
#: What a summary of the same run is held against.
COLUMNS = "all columns, four metrics"
#: Run, and by peer what reads it.
CASES: dict[str, tuple[str, dict[str, Callable[[Path], Any]]]] = {
    COLUMNS: ("one", FRAMES),
    "all columns, 200 metrics": ("wide", FRAMES),
    "all columns, 64 ranks": ("ranks", FRAMES),
    "1,000 small runs, each": ("small", {name: each(read) for name, read in FRAMES.items()}),
    "one metric of four": (
        "one",
        {"fastlog": fastlog_metric, "duckdb": duckdb_metric, "polars": polars_metric},
    ),
    "summary, four metrics": (
        "one",
        {"fastlog": fastlog_summary, "duckdb": duckdb_summary, "polars": polars_summary},
    ),
    "a curve, cached": ("one", {"fastlog": fastlog_curve, "polars": polars_curve}),
    "1,000 looks of a cursor, unchanged": ("none", {"fastlog": fastlog_looks(1)}),
    "1,000 looks of a cursor, 64 ranks with 5 streams": ("none", {"fastlog": fastlog_looks(64)}),
}
#: What is wanted of a case: how many times as long peers take; of us, the most seconds and MiB.
GOALS: dict[str, dict[str, float]] = {
    **{case: {"duckdb": 2, "polars": 5} for case, (_, peers) in CASES.items() if "duckdb" in peers},
    "one metric of four": {"duckdb": 3},
    "summary, four metrics": {"x the columns": 2, "MiB": 200},
    "a curve, cached": {"s": 0.05},
    **{case: {"s": 1} for case in CASES if "looks" in case},
}
#: What gives a function that is timed.
PREPARED = (fastlog_curve, polars_curve, *(CASES[c][1]["fastlog"] for c in CASES if "looks" in c))


def main(argv: list[str]) -> None:
    """Time one reader and print what it took and found, as JSON."""
    case, peer, root = argv
    import duckdb  # noqa: F401  # what is measured is reading, not importing
    import numpy as np  # noqa: F401
    import polars as pl  # noqa: F401

    import foundry_fastlog  # noqa: F401

    read = CASES[case][1][peer]
    if read in PREPARED:
        ready = read(Path(root))
        read = lambda _: ready()  # noqa: E731 - as the others have it
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
