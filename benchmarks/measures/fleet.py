"""A table, dataset or other figure of a directory of runs, by this package or a peer; its check."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.fleet import BODIES, SLOW_HOST, loss_of

MIB = 2**20
_SAMPLE_S = 0.05
_COLUMNS = (
    "{'timestamp': 'TIMESTAMP', 'seq': 'BIGINT', 'step': 'BIGINT', "
    "'metrics': 'STRUCT(loss DOUBLE, lr DOUBLE, val_loss DOUBLE)'}"
)
# By run: the smallest and the largest loss, the highest step, and how many there are.
Table = dict[str, tuple[float, float, int, int]]


def run(
    root: str, case: str, count: int, steps: int, what: str, arm: str, workers: int, place: str
) -> dict[str, float]:
    """Make a table, a dataset or another figure, and check it.

    Args:
        root: The directory with the runs.
        case: ``runs``, ``ranks`` of one run, or ``hosts`` of runs of several ranks.
        count: How many runs or ranks there are.
        steps: How many steps each has.
        what: ``table``, ``dataset``, ``goodput`` or ``hosts``.
        arm: Who makes it.
        workers: How many processes read.
        place: Where to keep things: the cache, the dataset.
    """
    os.environ["XDG_CACHE_HOME"] = f"{place}-cache"
    if arm == "fastlog":
        taken, found = _fastlog(root, what, workers, place, count, steps)
    else:
        make: Callable[[str, str], Table] = globals()[f"_{arm}_{what}"]
        with watched() as taken:
            found = make(f"{root}/{'*' if case == 'ranks' else '*/*'}", place)
    if what == "dataset":
        _check_dataset(place, count, steps)
    elif what == "table":
        _check_table(found, case, count, steps)
    return {**taken, "verified": count}


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Take time, CPU time and the largest memory of this process and its children."""
    import psutil

    taken: dict[str, float] = {}
    peak = [0]
    done = threading.Event()
    tree = [psutil.Process(), *psutil.Process().children(recursive=True)]

    def sample() -> None:
        while not done.wait(_SAMPLE_S):
            peak[0] = max(peak[0], sum(one.memory_info().rss for one in tree))

    def cpu() -> float:
        return sum(sum(one.cpu_times()[:2]) for one in tree)

    sampler = threading.Thread(target=sample)
    sampler.start()
    begun, used = time.perf_counter(), cpu()
    try:
        yield taken
    finally:
        taken |= {"wall_s": time.perf_counter() - begun, "cpu_s": cpu() - used}
        done.set()
        sampler.join()
        taken["peak_mib"] = peak[0] / MIB


def _fastlog(
    root: str, what: str, workers: int, place: str, count: int, steps: int
) -> tuple[dict[str, float], Table]:
    from distributed import Client
    from distributed.deploy.subprocess import SubprocessCluster

    from foundry_fastlog.fleet import Fleet
    from foundry_fastlog.run.tree import find_all_runs

    with ExitStack() as stack:
        cluster = stack.enter_context(
            SubprocessCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            )
        )
        client = stack.enter_context(Client(cluster))
        client.wait_for_workers(workers, timeout=60)
        client.run(_warm)
        begun = time.process_time()
        assert list(find_all_runs(root))
        walk_s = time.process_time() - begun
        fleet = Fleet(root, client)
        own = time.process_time()
        if what == "table":
            with watched() as taken:
                fleet.look()
            client_s = time.process_time() - own - walk_s
            with watched() as again:
                runs = Fleet(root, client).runs()
            found = _table_of(runs)
        elif what != "dataset":
            fleet.look()  # that is the table
            ask = Fleet.goodput if what == "goodput" else Fleet.hosts
            walk_s, own = 0.0, time.process_time()
            with watched() as taken:
                said = ask(fleet)
            client_s = time.process_time() - own
            with watched() as again:
                assert ask(Fleet(root, client)) == said
            check = _check_goodput if what == "goodput" else _check_hosts
            check(said, count, steps)
            found = {}
        else:
            with watched() as taken:
                assert fleet.compact(place).complete
            client_s = time.process_time() - own - walk_s
            with watched() as again:
                assert fleet.compact(place).written == 0
            found = {}
        return {
            **taken,
            "again_s": again["wall_s"],
            "walk_s": walk_s,
            "client_s": client_s,
        }, found


def _warm() -> None:
    """Import on a worker what it needs, as one that has worked before has."""
    import pyarrow.parquet  # noqa: F401

    import foundry_fastlog.fleet.goodput_study
    import foundry_fastlog.fleet.host_study
    from foundry_fastlog.reading import scan  # noqa: F401

    assert foundry_fastlog.fleet


def _table_of(runs: Any) -> Table:
    found: Table = {}
    for one in runs:
        loss = one.metrics["loss"]
        assert one.state == ("failed" if one.config.get("seed", 1) % 10 == 0 else "ended")
        found[one.run.rpartition("/")[2]] = (loss.min, loss.max, one.step, loss.count)
    return found


def _read_runs_table(glob: str, place: str) -> Table:
    from foundry_fastlog import read_runs

    del place
    return _table_of(read_runs(glob.partition("/*")[0]))


def _polars_lines(glob: str) -> Any:
    import polars as pl

    metrics = pl.Struct(dict.fromkeys(("loss", "lr", "val_loss"), pl.Float64))
    schema = {"timestamp": pl.String, "seq": pl.Int64, "step": pl.Int64, "metrics": metrics}
    lines = pl.scan_ndjson(f"{glob}/metrics*.jsonl", schema=schema, include_file_paths="path")
    moment = pl.col("timestamp").str.to_datetime("%Y-%m-%dT%H:%M:%S%.6fZ")
    name = pl.col("path").str.split("/").list
    lines = lines.with_columns(moment, run=name.get(-2), file=name.get(-1))
    return lines.drop("path").unnest("metrics")


def _polars_table(glob: str, place: str) -> Table:
    import polars as pl

    del place
    loss = pl.col("loss")
    found = (
        _polars_lines(glob)
        .group_by("run")
        .agg(
            loss.min().alias("a"),
            loss.max().alias("b"),
            pl.col("step").max(),
            loss.count().alias("n"),
        )
    )
    return {row[0]: row[1:] for row in found.collect(engine="streaming").rows()}


def _polars_dataset(glob: str, place: str) -> Table:
    import polars as pl

    target = pl.PartitionBy(f"{place}/metrics", key=["run", "file"], include_key=False)
    _polars_lines(glob).sink_parquet(target, mkdir=True)
    return {}


def _duckdb_lines(glob: str) -> str:
    return (
        "SELECT timestamp, seq, step, metrics.loss AS loss, metrics.lr AS lr, "
        "metrics.val_loss AS val_loss, split_part(filename, '/', -2) AS run, "
        "split_part(filename, '/', -1) AS file "
        f"FROM read_ndjson('{glob}/metrics*.jsonl', columns = {_COLUMNS}, filename = true)"
    )


def _duckdb_table(glob: str, place: str) -> Table:
    import duckdb

    del place
    rows = duckdb.sql(
        f"SELECT run, min(loss), max(loss), max(step), count(loss) FROM ({_duckdb_lines(glob)}) "
        "GROUP BY run"
    ).fetchall()
    return {row[0]: row[1:] for row in rows}


def _duckdb_dataset(glob: str, place: str) -> Table:
    import duckdb

    Path(place).mkdir()
    duckdb.sql(
        f"COPY ({_duckdb_lines(glob)}) TO '{place}/metrics' "
        "(FORMAT parquet, COMPRESSION zstd, PARTITION_BY (run, file))"
    )
    return {}


def _check_table(found: Table, case: str, count: int, steps: int) -> None:
    if case == "ranks":
        bodies = range(min(count, BODIES))
        low = min(loss_of(body, steps - 1) for body in bodies)
        high = max(loss_of(body, 0) for body in bodies)
        assert found == {"wide": (low, high, steps - 1, count * steps)}, found
        return
    assert len(found) == count, len(found)
    for name, row in found.items():
        body = int(name[3:]) % BODIES
        assert row == (loss_of(body, steps - 1), loss_of(body, 0), steps - 1, steps), (name, row)


def _check_goodput(found: Any, count: int, steps: int) -> None:
    """An hour less a minute each, of which each step took a second."""
    (total,) = found
    assert (total.runs, total.steps) == (count, count * steps), total
    assert abs(total.device_s - count * 59 * 60) < 1e-3 * count, total.device_s
    assert abs(total.goodput - steps / (59 * 60)) < 1e-3, total.goodput


def _check_hosts(found: Any, count: int, steps: int) -> None:
    """The slow host is found, and no other."""
    del steps
    assert found.compared == count, found
    assert [one.host for one in found.suspects] == [f"node{SLOW_HOST:02d}"], found.sentences


def _check_dataset(place: str, count: int, steps: int) -> None:
    """Read a dataset again: all rows are there, and their sum is that of what was written."""
    import math

    import duckdb

    rows, total, files = duckdb.sql(
        "SELECT count(*), sum(loss), count(DISTINCT filename) "
        f"FROM read_parquet('{place}/metrics/**/*.parquet', filename = true)"
    ).fetchall()[0]
    sums = [math.fsum(loss_of(body, step) for step in range(steps)) for body in range(BODIES)]
    wanted = math.fsum(sums[one % BODIES] for one in range(count))
    assert (rows, files) == (count * steps, count), (rows, files)
    assert math.isclose(total, wanted, rel_tol=1e-9), (total, wanted)
