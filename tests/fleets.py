"""What tests of a fleet share: runs as the recorder leaves them, and workers in this process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oracle import START, OracleWriter, stamp_text, write_run_json

OLD = "2026-01-30T14:33:15.123456Z"


def make_run(
    path: Path, *, how: str = "closed", config: Any = None, start: int = 0, **metrics: list[Any]
) -> OracleWriter:
    """A run with metrics by step, with an entry of its start, and how that ended."""
    writer = OracleWriter(path, attempt=start)
    for step in range(max(map(len, metrics.values()), default=0)):
        row = {name: values[step] for name, values in metrics.items() if step < len(values)}
        writer.metrics(step, **row)
    write_run_json(path, name=path.name)
    (path / "starts").mkdir(exist_ok=True)
    entry = {"start": start, "started": stamp_text(START), "config": config or {}, "host": "node1"}
    (path / "starts" / f"{start:06d}.json").write_text(json.dumps(entry))
    if how:
        end_start(path, start, how=how)
    return writer


def end_start(path: Path, start: int = 0, *, how: str = "closed") -> None:
    """Say how a start ended."""
    error = {"exception": {"error_type": "OSError", "error_message": "disk full"}}
    end = {"start": start, "label": "", "ended": OLD, "how": how, **error.get(how, {})}
    (path / "starts" / f"{start:06d}.end.json").write_text(json.dumps(end))


@contextmanager
def workers_here(count: int = 2) -> Iterator[Any]:
    """A cluster whose workers are threads of this process, and its client."""
    from distributed import Client, LocalCluster

    options = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(processes=False, **options) as cluster, Client(cluster) as client:
        yield client


def rows_of(run: Path, stream: str = "metrics") -> list[dict[str, Any]]:
    """The rows that a run has itself, as the dataset should have them."""
    from foundry_fastlog import read_run

    return read_run(run).to_polars(stream).to_dicts()


def parquet_files(out: Path) -> list[str]:
    """The files of a dataset, and what killed writers left beside them."""
    return sorted(
        os.path.relpath(Path(folder, name), out)
        for folder, _, names in os.walk(out)
        for name in names
        if not name.startswith("_")
    )


def hold(place: str, work: Any, batch: list[Any]) -> Any:
    """Do a batch on a worker that stops with each run just before its files get their names.

    Args:
        place: A directory: a worker that waits there makes ``at-PID``, and ``go`` lets it go on.
        work: What is done.
        batch: The runs.
    """
    from foundry_fastlog.fleet import compaction

    check, folder = compaction._check_same, Path(place)

    def wait(before: Any) -> None:
        (folder / f"at-{os.getpid()}").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        check(before)

    compaction._check_same = wait
    try:
        return [work(found) for found in batch], 1.0
    finally:
        compaction._check_same = check
