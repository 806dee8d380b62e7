"""A fleet, `python -m benchmarks.fleet`: tables, a Parquet dataset, goodput and hosts of many runs.

Three directories are made: one of many runs, as the recorder writes them (a hundred bodies of lines
that runs have in turn), one of a run of many ranks, and one of runs on four of forty hosts each, of
which one is slow. Each figure is taken in a fresh process whose workers are ready, with an empty
cache, and files in the page cache; goodput and hosts, when the table is known. The peers read the
same lines by a glob: polars lazily, DuckDB by SQL. Everybody's table is checked against what was
written, everybody's dataset is read again, and the slow host has to be found. What 100 workers
would take is computed, not measured. Writes benchmarks/results/fleet.json and the table of
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.ranks import SLOW, write_rank
from benchmarks.sections import patience, spawn
from benchmarks.summary import describe, median
from benchmarks.tables import HERE, machine, number, publish, table

BODIES = 100
PAPER = 100
"""Workers of the estimate."""
PEERS = ("polars", "duckdb")
SAID = {
    "table": "a table of runs",
    "dataset": "a Parquet dataset",
    "goodput": "goodput of all",
    "hosts": "slow hosts",
}
MEASURED = {
    "runs": ("table", "dataset", "goodput"),
    "ranks": ("table", "dataset"),
    "hosts": ("hosts",),
}
HOSTS, HOSTS_OF_RUN, PER_HOST, SLOW_HOST = 40, 4, 2, 5
JITTERS = 16
"""Ranks of `benchmarks.ranks` whose lines others have, too."""
TITLES = {
    "fastlog 1": "**foundry_fastlog**, 1 worker",
    "fastlog 2": "**foundry_fastlog**, 2 workers",
    "read_runs": "**foundry_fastlog** `read_runs`, no workers",
    "polars": "polars, `scan_ndjson` of a glob",
    "duckdb": "DuckDB, `read_ndjson` of a glob",
}
Make = Callable[[Path, int, int], None]


def loss_of(body: int, step: int) -> float:
    """Return the loss of runs with a body at a step."""
    return 1.0 + body * 7919 % 1000 / 1000 + 1.0 / (step + 1)


def lines_of(body: int, steps: int) -> bytes:
    """Return the lines of a body."""
    stamp = "2026-01-30T14:{0:02d}:{1:02d}.{2:06d}Z"
    return "".join(
        f'{{"timestamp":"{stamp.format(step // 60 % 60, step % 60, body)}","seq":{step},'
        f'"step":{step},"metrics":{{"loss":{loss_of(body, step)!r},"lr":{1e-4 / (step + 1)!r},'
        f'"val_loss":{2.0 + body!r}}}}}\n'
        for step in range(steps)
    ).encode()


def make_runs(root: Path, runs: int, steps: int) -> None:
    """Write runs, a hundred to a sweep; a tenth of them failed."""
    bodies = [lines_of(body, steps) for body in range(BODIES)]
    for run in range(runs):
        path = root / f"sweep{run // 100:03d}" / f"run{run:06d}"
        _make_start(path, {"lr": 10.0 ** -(run % 5), "seed": run}, failed=run % 10 == 0)
        (path / "metrics.jsonl").write_bytes(bodies[run % BODIES])


def make_ranks(root: Path, ranks: int, steps: int) -> None:
    """Write one run of many ranks."""
    bodies = [lines_of(body, steps) for body in range(min(ranks, BODIES))]
    path = root / "wide"
    _make_start(path, {}, failed=False)
    for rank in range(ranks):
        name = f"metrics{f'.r{rank}' if rank else ''}.jsonl"
        (path / name).write_bytes(bodies[rank % BODIES])


def make_hosts(root: Path, runs: int, steps: int) -> None:
    """Write runs on some hosts each: the last rank of one of them is slow."""
    bodies = root.parent / "bodies"
    bodies.mkdir()
    for rank in (*range(JITTERS), SLOW):
        write_rank(bodies, rank, steps, 1)
    chance = random.Random(0)
    for run in range(runs):
        path = root / f"sweep{run // 100:03d}" / f"run{run:06d}"
        ranks = HOSTS_OF_RUN * PER_HOST
        hosts = chance.sample(range(HOSTS), HOSTS_OF_RUN)
        facts = {"rank": 0, "world_size": ranks, "local_world_size": PER_HOST}
        _make_start(path, {}, failed=False, host=f"node{hosts[0]:02d}", **facts)
        for place, host in enumerate(hosts):
            note = {"format": 2, "start": 0, "rank": place * PER_HOST, "host": f"node{host:02d}"}
            if place:
                name = f"000000.r{place * PER_HOST}.host.json"
                (path / "starts" / name).write_text(json.dumps({**note, "boot": ""}))
        for rank, jitter in enumerate(chance.sample(range(JITTERS), ranks)):
            is_slow = hosts[rank // PER_HOST] == SLOW_HOST and rank % PER_HOST == PER_HOST - 1
            body = SLOW if is_slow else jitter
            source = bodies / f"performance{f'.r{body}' if body else ''}.jsonl"
            os.link(source, path / f"performance{f'.r{rank}' if rank else ''}.jsonl")


def _make_start(path: Path, config: dict[str, Any], *, failed: bool, **facts: Any) -> None:
    (path / "starts").mkdir(parents=True)
    (path / ".fastlog").mkdir()
    entry = {"format": 2, "start": 0, "started": "2026-01-30T14:00:00.000000Z", "config": config}
    entry |= facts
    how: dict[str, Any] = {"how": "closed"}
    if failed:
        how = {"how": "exception", "error_type": "OSError", "error_message": "disk full"}
    end = {"format": 2, "start": 0, "label": "", "ended": "2026-01-30T14:59:00.000000Z", **how}
    (path / "starts" / "000000.json").write_text(json.dumps(entry))
    (path / "starts" / "000000.end.json").write_text(json.dumps(end))
    (path / "run.json").write_text(json.dumps({"format": 2, "name": path.name, "attempts": []}))


def measure(case: str, make: Make, count: int, steps: int, rounds: int) -> dict[str, Any]:
    """Measure one directory.

    Args:
        case: ``runs``, ``ranks`` or ``hosts``.
        make: Makes it.
        count: Of how many.
        steps: Of how many steps each.
        rounds: How often a table is taken; datasets are written once.
    """
    with tempfile.TemporaryDirectory(prefix="fastlog-fleet-") as directory:
        root = Path(directory) / "runs"
        make(root, count, steps)
        size = sum(path.stat().st_size for path in root.rglob("*.jsonl"))
        time.sleep(3.0)  # what was written within a tick of the clock is not kept
        found: dict[str, Any] = {"count": count, "steps": steps, "bytes": size}
        common = {"root": str(root), "case": case, "count": count, "steps": steps}
        for what in MEASURED[case]:
            arms = ["fastlog 1", "fastlog 2"]
            arms += {"table": ["read_runs", *PEERS], "dataset": PEERS}.get(what, ())
            found[what] = {arm: [] for arm in arms}
            for turn in range(1 if what == "dataset" else rounds):
                for arm in arms:
                    found[what][arm].append(_spawn(what, arm, common, directory, f"{turn}"))
        return found


def _spawn(what: str, arm: str, common: dict[str, Any], directory: str, turn: str) -> Any:
    arm_name, _, workers = arm.partition(" ")
    place = f"{directory}/{what}-{arm.replace(' ', '-')}-{turn}"
    arguments = {**common, "what": what, "arm": arm_name, "place": place}
    taken = spawn("fleet", **arguments, workers=int(workers or 0), timeout=1500.0)
    print(common["case"], what, arm, {k: round(v, 2) for k, v in taken.items()}, flush=True)
    return taken


def _rows(what: str, found: dict[str, Any]) -> list[list[str]]:
    rows = []
    arms: dict[str, list[dict[str, Any]]] = found[what]
    unit = found["count"]
    base = median([taken["cpu_s"] for taken in arms["fastlog 1"]])
    for arm, taken in arms.items():
        wall = describe([one["wall_s"] for one in taken])
        again = [one["again_s"] for one in taken if "again_s" in one]
        rows.append(
            [
                TITLES[arm],
                number(wall["median"]),
                number(1000 * (cpu := median([one["cpu_s"] for one in taken])) / unit),
                f"{cpu / base:.1f}x",
                f"{median([one['peak_mib'] for one in taken]):,.0f}",
                number(median(again)) if again else "-",
                f"{sum(one['verified'] for one in taken):,}",
            ]
        )
    return rows


def estimate(found: dict[str, Any], what: str) -> dict[str, float]:
    """Compute what more workers take, from the CPU time that one took.

    Finding the runs, and taking in results, is the work of one process, the latter while others
    read; the rest is shared.
    """
    one = {
        key: median([taken[key] for taken in found[what]["fastlog 1"]])
        for key in ("cpu_s", "walk_s", "client_s")
    }
    shared = one["cpu_s"] - one["walk_s"] - one["client_s"]
    return {
        **one,
        "per_run_ms": 1000 * shared / found["count"],
        "paper_s": one["walk_s"] + max(shared / PAPER, one["client_s"]),
        **{
            f"wall_{workers}": median(
                [taken["wall_s"] for taken in found[what][f"fastlog {workers}"]]
            )
            for workers in (1, 2)
        },
    }


def render(result: dict[str, Any]) -> str:
    """Return the tables."""
    parts = [machine({"machine": result["machine"]})]
    names = {
        "runs": "{count:,} runs of {steps:,} steps",
        "ranks": "a run of {count} ranks, {steps:,} steps",
        "hosts": f"{{count:,}} runs of {HOSTS_OF_RUN * PER_HOST} ranks and {{steps:,}} timed steps",
    }
    for case, found in result["cases"].items():
        title = names[case].format(**found) + f" ({found['bytes'] / 1e6:,.0f} MB)"
        each = "rank" if case == "ranks" else "run"
        for what in filter(found.__contains__, SAID):
            head = [
                f"{title}: {SAID[what]}",
                "s",
                f"CPU, ms/{each}",
                "x 1 worker",
                "peak MiB",
                "again, s",
                f"{each}s verified",
            ]
            parts.append(table(head, _rows(what, found)))
    parts += [_scaling(found) for case, found in result["cases"].items() if case != "ranks"]
    return "\n\n".join(parts)


def _scaling(found: dict[str, Any]) -> str:
    """Return the table of workers."""
    rows = []
    for what in filter(found.__contains__, SAID):
        cost = estimate(found, what)
        rows.append(
            [
                SAID[what],
                number(cost["wall_1"]),
                number(cost["wall_2"]),
                number(cost["per_run_ms"]),
                number(cost["walk_s"]),
                number(cost["client_s"]),
                number(cost["paper_s"]),
            ]
        )
    head = [
        f"{found['count']:,} runs",
        "1 worker, s",
        "2 workers, s",
        "workers, CPU ms/run",
        "finding the runs, CPU s",
        "taking in results, CPU s",
        f"{PAPER} workers on as many free cores, computed, s",
    ]
    return table(head, rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Run, and write the result and the table; what is not asked for stays as it was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=tuple(MEASURED))
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--ranks", type=int, default=512)
    parser.add_argument("--rank-steps", type=int, default=10_000)
    parser.add_argument("--wide", type=int, default=1000, help="runs on several hosts")
    parser.add_argument("--wide-steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="see that it works; publish nothing")
    parser.add_argument("--patience", type=float, default=300.0, metavar="S")
    options = parser.parse_args(argv)
    if options.quick:
        vars(options).update(runs=200, steps=100, ranks=16, rank_steps=500, wide=120, wide_steps=64)
        vars(options).update(rounds=1, patience=0.0)
    patience.left_s = options.patience
    stored = HERE / "results" / "fleet.json"
    cases = json.loads(stored.read_text())["cases"] if options.only and stored.exists() else {}
    asked = {
        "runs": (make_runs, options.runs, options.steps),
        "ranks": (make_ranks, options.ranks, options.rank_steps),
        "hosts": (make_hosts, options.wide, options.wide_steps),
    }
    for case, (make, count, steps) in asked.items():
        if options.only in (None, case):
            cases[case] = measure(case, make, count, steps, options.rounds)
    result = {"machine": patience.conditions(), "rounds": options.rounds, "cases": cases}
    if options.quick:
        print(render(result))
    else:
        publish("fleet", result, render(result))


if __name__ == "__main__":
    main()
