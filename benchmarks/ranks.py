"""Many ranks, `python -m benchmarks.ranks`: system calls, time and memory of reading such a run.

Counts the files that commands open and look at in a run of 64 and of 512 ranks, with strace, and
takes time and peak memory of `ranks` for 64 ranks of 100,000 steps with six blocks each, and for
512 ranks of 10,000. Beside the latter, polars and DuckDB read the same lines by a glob, for median
and 95th percentile of each block of each rank, which is a part of what `ranks` says.
Writes benchmarks/results/ranks.json and the table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from benchmarks.sections import patience
from benchmarks.tables import number, publish, table

START = datetime(2026, 1, 30, 14, 32, 15, tzinfo=timezone.utc)
BLOCKS = (("data", 0.01), ("forward", 0.03), ("backward", 0.05), ("optimizer", 0.01))
SHAPES = ((64, 1), (64, 4), (512, 1))  # ranks, and segments of each of their streams
COMMANDS = ("summary", "ranks", "runs", "logs", "tail")
SLOW, SINCE, FACTOR = 37, 0.4, 1.2
DISTINCT = 3  # ranks of the long run that are written; the others are links to them
WIDE, WIDE_STEPS = 512, 10_000
_TAKEN = """
used = resource.getrusage(resource.RUSAGE_SELF)
taken = {"s": time.perf_counter() - begun, "cpu_s": used.ru_utime + used.ru_stime,
         "peak_mib": used.ru_maxrss / 1024}
import json; print(json.dumps({**taken, **said}))
"""
_TIMED = "import resource, sys, time; begun = time.perf_counter()\n"
ARMS = {
    "fastlog": """
from foundry_fastlog import compare_ranks
said = {"said": compare_ranks(sys.argv[1]).sentences}
""",
    "polars": """
import polars as pl
schema = {"name": pl.String, "duration_s": pl.Float64}
source = f"{sys.argv[1]}/performance*.jsonl"
lines = pl.scan_ndjson(source, schema=schema, include_file_paths="path")
took = pl.col("duration_s")
by_rank = lines.group_by("path", "name").agg(
    took.median().alias("median"), took.quantile(0.95).alias("p95"), took.count().alias("count"))
found = by_rank.collect(engine="streaming")
slow = found.filter(pl.col("name") == "forward").sort("median", descending=True)
said = {"groups": len(found), "rows": found["count"].sum(), "slowest": slow["path"][0]}
""",
    "duckdb": """
import duckdb
columns = "{'name': 'VARCHAR', 'duration_s': 'DOUBLE'}"
source = f"read_ndjson('{sys.argv[1]}/performance*.jsonl', columns = {columns}, filename = true)"
found = duckdb.sql(
    "SELECT filename, name, median(duration_s), quantile_cont(duration_s, 0.95), count(*) "
    f"FROM {source} GROUP BY filename, name").fetchall()
slow = max((row for row in found if row[1] == "forward"), key=lambda row: row[2])
said = {"groups": len(found), "rows": sum(row[4] for row in found), "slowest": slow[0]}
""",
}
TITLES = {
    "fastlog": "**foundry_fastlog** `ranks`",
    "polars": "polars, median and p95 of each block and rank",
    "duckdb": "DuckDB, the same",
}
CALL = re.compile(r"(?:\[pid +\d+\] )?(?:\d+ +)?(\w+)\(")
KINDS = {"openat": "opens", "open": "opens", "getdents64": "lists"}
STATS = ("newfstatat", "stat", "lstat", "statx", "fstat", "access", "faccessat", "faccessat2")


def blocks(rank: int, steps: range, total: int) -> Iterator[tuple[str, float, int]]:
    """Yield the blocks of a rank: name, seconds, step; one rank is slow in one of them."""
    chance = random.Random(rank)
    for step in steps:
        spent = 0.0
        for name, seconds in BLOCKS:
            slow = rank == SLOW and name == "forward" and step >= SINCE * total
            taken = seconds * chance.lognormvariate(0, 0.03) * (FACTOR if slow else 1.0)
            spent += taken
            yield name, taken, step
        yield "all_reduce", max(0.002, 0.13 - spent), step
        yield "step", max(0.132, spent + 0.002), step


def write_rank(run: Path, rank: int, steps: int, segments: int) -> None:
    """Write the files of a rank as the recorder names them."""
    label = f".r{rank}" if rank else ""
    size = -(-steps // segments)
    seq = 0
    for segment in range(segments):
        number = f".{segment:06d}" if segment else ""
        part = range(segment * size, min(steps, (segment + 1) * size))
        lines = []
        for name, seconds, step in blocks(rank, part, steps):
            moment = START + timedelta(seconds=step * 0.135)
            head = f'{{"timestamp":"{moment:%Y-%m-%dT%H:%M:%S.%f}Z","seq":{seq},"name":"{name}",'
            nested = '"depth":0' if name == "step" else '"depth":1,"parent":"step"'
            lines.append(f'{head}"duration_s":{seconds!r},"step":{step},{nested},"thread":1}}\n')
            seq += 1
        (run / f"performance{label}{number}.jsonl").write_text("".join(lines))
        values = [
            f'{{"timestamp":"{START + timedelta(seconds=step * 0.135):%Y-%m-%dT%H:%M:%S.%f}Z",'
            f'"seq":{step},"step":{step},"metrics":{{"loss":{2.0 + rank / 1000}}}}}\n'
            for step in part
        ]
        (run / f"metrics{label}{number}.jsonl").write_text("".join(values))


def make_run(run: Path, ranks: int, steps: int, segments: int) -> None:
    """Write a run of many ranks that has ended."""
    (run / "starts").mkdir(parents=True)
    (run / ".fastlog").mkdir()
    stamp = f"{START:%Y-%m-%dT%H:%M:%S.%f}Z"
    entry = {"format": 2, "start": 0, "started": stamp, "rank": 0, "world_size": ranks}
    (run / "starts" / "000000.json").write_text(json.dumps(entry))
    end = {"format": 2, "start": 0, "label": "", "ended": stamp, "how": "closed"}
    (run / "starts" / "000000.end.json").write_text(json.dumps(end))
    (run / "run.json").write_text(json.dumps({"format": 2, "name": run.name, "attempts": []}))
    for rank in range(ranks):
        write_rank(run, rank, steps, segments)


def count_calls(run: Path, command: str) -> Counter[str]:
    """Count the calls of a command that name the run's files."""
    if shutil.which("strace") is None:
        raise SystemExit("counting system calls needs strace: apt-get install strace")
    with tempfile.NamedTemporaryFile() as log:
        traced = [*("strace", "-f", "-qq", "-y", "-e", "trace=%file,%desc", "-o", log.name)]
        target = run.parent if command == "runs" else run
        home = {**os.environ, "XDG_CACHE_HOME": str(run.parent / "cache")}
        made = [*traced, sys.executable, "-m", "foundry_fastlog", command, str(target)]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, env=home)
        found: Counter[str] = Counter()
        for line in Path(log.name).read_text(errors="replace").splitlines():
            call = CALL.match(line)
            if call is None or str(run) not in line:
                continue
            name = call[1]
            kind = KINDS.get(name) or (
                "stats" if name in STATS else "reads" if "read" in name else ""
            )
            if kind:
                found[kind] += 1
    return found


def take_time(ranks: int, steps: int, arms: Sequence[str]) -> dict[str, Any]:
    """Take time and memory of comparing the ranks of a long run."""
    with tempfile.TemporaryDirectory(prefix="fastlog-ranks-") as directory:
        run = Path(directory) / "run"
        make_run(run, 0, 0, 1)
        # Some ranks are written and the others are the same files: what is read is as much.
        for rank in range(ranks):
            if rank < DISTINCT or rank == SLOW:
                write_rank(run, rank, steps, 1)
            else:
                for stream in ("performance", "metrics"):
                    label = f".r{rank % DISTINCT}" if rank % DISTINCT else ""
                    os.link(run / f"{stream}{label}.jsonl", run / f"{stream}.r{rank}.jsonl")
        size = sum(path.stat().st_size for path in run.glob("performance*"))
        taken = {}
        for arm in arms:
            made = [sys.executable, "-c", _TIMED + ARMS[arm] + _TAKEN, str(run)]
            said = subprocess.run(made, check=True, capture_output=True, text=True).stdout
            taken[arm] = json.loads(said.splitlines()[-1])  # behind a peer's progress
            print(ranks, steps, arm, taken[arm], flush=True)
            check(taken[arm], ranks, steps)
    return {"ranks": ranks, "steps": steps, "bytes": size, "arms": taken}


def check(taken: dict[str, Any], ranks: int, steps: int) -> None:
    """Check what was said: the slow rank was found, and all lines were read."""
    if "said" not in taken:
        assert taken["slowest"].endswith(f".r{SLOW}.jsonl"), taken
        names = len(BLOCKS) + 2
        assert (taken["groups"], taken["rows"]) == (ranks * names, ranks * steps * names), taken
        return
    assert taken["said"][0].startswith(f"Rank {SLOW} is slow since step "), taken["said"]
    found = int(taken["said"][0].split(" step ")[1].split(" ")[0].replace(",", ""))
    assert abs(found - int(SINCE * steps)) <= 16, taken["said"]


def measure(steps: int, long: int) -> dict[str, Any]:
    """Measure all of it."""
    rows = []
    for ranks, segments in SHAPES:
        with tempfile.TemporaryDirectory(prefix="fastlog-ranks-") as directory:
            run = Path(directory) / "run"
            make_run(run, ranks, steps, segments)
            files = sum(1 for path in run.rglob("*") if path.is_file())
            for command in COMMANDS:
                begun = time.perf_counter()
                calls = count_calls(run, command)
                print(ranks, segments, command, dict(calls), f"{time.perf_counter() - begun:.1f} s")
                rows.append(
                    {"ranks": ranks, "files": files, "command": command, "calls": dict(calls)}
                )
    times = [take_time(64, long, ["fastlog"]), take_time(WIDE, WIDE_STEPS, tuple(ARMS))]
    return {"machine": patience.conditions(), "rows": rows, "times": times}


def render(result: dict[str, Any]) -> str:
    """Return the tables."""
    rows = [
        [
            f"{row['ranks']} ranks, {row['files']:,} files",
            f"`{row['command']}`",
            *(f"{row['calls'].get(kind, 0):,}" for kind in ("opens", "stats", "lists")),
            f"{row['calls'].get('opens', 0) / row['files']:.2f}",
        ]
        for row in result["rows"]
    ]
    head = ["run", "command", "opens", "stats", "directory reads", "opens per file"]
    times = [
        [
            f"{each['ranks']} ranks x {each['steps']:,} steps ({each['bytes'] / 1e9:.1f} GB)",
            TITLES[arm],
            *(number(taken[key]) for key in ("s", "cpu_s")),
            f"{taken['peak_mib']:,.0f}",
        ]
        for each in result["times"]
        for arm, taken in each["arms"].items()
    ]
    said = result["times"][0]["arms"]["fastlog"]["said"][0]
    long = (
        table(["run, 6 blocks a step", "what", "s", "CPU, s", "peak MiB"], times)
        + f"\n\nIt said: {said}"
    )
    facts = result["machine"]
    where = (
        f"{facts['date'][:10]}, commit {facts['commit']}: {facts['cpu']}, {facts['cores']} cores, "
        f"{facts['filesystem']}; {facts['python']}. Calls are counted; the time is of one reading, "
        "and that of the processor tells more where the machine has other work."
    )
    return f"{where}\n\n{table(head, rows)}\n\n{long}"


def main() -> None:
    """Run, and write the result and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--long", type=int, default=100_000)
    options = parser.parse_args()
    result = measure(options.steps, options.long)
    publish("ranks", result, render(result))


if __name__ == "__main__":
    main()
