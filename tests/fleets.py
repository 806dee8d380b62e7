"""What tests of a fleet share: runs as the recorder leaves them, and workers in this process."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from many_ranks import durations, write_ranks
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


def make_timed(
    path: Path,
    *,
    steps: int = 20,
    start: int = 0,
    wait_s: float = 1.0,
    world: int | None = None,
    after_s: float = 0.0,
    how: str = "closed",
    config: Any = None,
) -> None:
    """A start whose steps take a second each and wait for data, and the entry of the start.

    Args:
        path: The run.
        steps: How many, each counted on from those of the start before.
        start: Its number.
        wait_s: For data, once in five steps.
        world: How many ranks it says that it has.
        after_s: How long after the first start it begins.
        how: How it ended; "" where it did not say so.
        config: Its configuration.
    """
    begun = START + timedelta(seconds=after_s)
    writer = OracleWriter(path, attempt=start, start=begun, tick_s=0.0)
    writer.log("begun")
    for step in range(start * steps, (start + 1) * steps):
        if step % 5 == 0:
            writer.now += timedelta(seconds=wait_s)
            writer.timing("data", wait_s, step)
        writer.now += timedelta(seconds=1)
        writer.timing("step", 1.0, step)
    write_run_json(path, name=path.name)
    (path / "starts").mkdir(exist_ok=True)
    entry = {"start": start, "started": stamp_text(begun), "config": config or {}, "host": "node1"}
    (path / "starts" / f"{start:06d}.json").write_text(json.dumps({**entry, "world_size": world}))
    if how:
        end = {"start": start, "label": "", "ended": stamp_text(writer.now), "how": how}
        (path / "starts" / f"{start:06d}.end.json").write_text(json.dumps(end))


def make_wide(
    path: Path,
    hosts: Sequence[str],
    *,
    slow: Mapping[str, float] | None = None,
    per_host: int | None = 2,
    steps: int = 64,
    start: int = 0,
    seed: int = 0,
    told: bool = True,
) -> None:
    """A start with some ranks on each host.

    Args:
        path: The run.
        hosts: The hosts, in the order of their ranks.
        slow: Hosts whose last rank is slow, and by which factor.
        per_host: How many ranks are on each, as the start says it; None where it does not.
        steps: How many there are.
        start: Its number.
        seed: Of the jitter.
        told: Whether hosts other than the first have a name.
    """
    count = per_host or 1
    factors = {(at + 1) * count - 1: (slow or {}).get(host, 1.0) for at, host in enumerate(hosts)}

    def factor(block: str, rank: int, step: int) -> float:
        return factors.get(rank, 1.0) if block == "forward" else 1.0

    times = durations(len(hosts) * count, steps, factor, seed=seed)
    write_ranks(path, times, attempt=start, first=start * steps)
    (path / "starts").mkdir(exist_ok=True)
    entry = {"start": start, "started": stamp_text(START), "rank": 0, "host": hosts[0]}
    entry |= {"local_world_size": per_host, "world_size": len(hosts) * count}
    (path / "starts" / f"{start:06d}.json").write_text(json.dumps(entry))
    for at, host in enumerate(hosts[1:], 1) if told else ():
        note = {"format": 2, "start": start, "rank": at * count, "host": host, "boot": "x"}
        (path / "starts" / f"{start:06d}.r{at * count}.host.json").write_text(json.dumps(note))
    end_start(path, start)


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


def hold_batch(place: str, work: Any, batch: list[Any]) -> Any:
    """Do a batch on a worker that stops before it; see `hold`."""
    folder = Path(place)
    (folder / f"at-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return [work(found) for found in batch], 1.0


def kill_one_of(place: Path) -> threading.Thread:
    """Kill one of two workers as soon as both are held, and let the other go on."""

    def kill() -> None:
        while len(found := sorted(place.glob("at-*"))) < 2:
            time.sleep(0.01)
        os.kill(int(found[0].name.partition("-")[2]), signal.SIGKILL)
        (place / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    return killer


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
