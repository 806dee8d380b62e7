"""Measure reading: `python -m benchmarks.reading`; writes results/reading.json and README.md.

Each figure is of a fresh process, peers in turn; what they read is compared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.quiet import Patience
from benchmarks.reading.readers import CASES, COLUMNS, GOALS
from benchmarks.reading.runs import RUNS
from benchmarks.tables import machine, publish, table


def measure(case: str, peer: str, root: Path) -> dict[str, Any]:
    """Run one reader in a fresh interpreter."""
    command = [sys.executable, "-m", "benchmarks.reading.readers", case, peer, str(root)]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def compare(
    case: str, root: Path, rounds: int, patience: Patience
) -> dict[str, list[dict[str, Any]]]:
    """Measure all peers of a case in turn, and hold what they read against each other.

    Raises:
        AssertionError: They read different values.
    """
    taken: dict[str, list[dict[str, Any]]] = {peer: [] for peer in CASES[case][1]}
    for _ in range(rounds):
        for peer, results in taken.items():
            patience.wait()
            results.append(measure(case, peer, root))
    found = {peer: results[0]["facts"] for peer, results in taken.items()}
    assert len({json.dumps(values) for values in found.values()}) == 1, (case, found)
    return taken


def _describe(case: str, size: int) -> str:
    return f"{case} ({size / 1e6:,.0f} MB)" if size else case


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.2g}"


def _judge(case: str, peer: str, row: dict[str, float]) -> str:
    """Say what was wanted of a row, and by how much it was missed."""
    goals = GOALS[case]
    # Of a peer more is better, of what is our own less.
    said = [(f"{goals[peer]:g}x", row["ratio"] / goals[peer])] if peer in goals else []
    if peer == "fastlog":
        said = [(f"{goals[unit]:g} {unit}", goals[unit] / row[unit]) for unit in goals.keys() & row]
    return "; ".join(
        f"{goal}: {'reached' if part >= 1 else f'missed by {1 - part:.0%}'}"
        for goal, part in sorted(said, reverse=True)
    )


def render(result: dict[str, Any]) -> str:
    """Return the table."""
    rows = []
    columns = result["cases"].get(COLUMNS)
    for case, entry in result["cases"].items():
        ours = entry["peers"]["fastlog"]
        for peer, results in entry["peers"].items():
            ratio = {
                name: median(a[name] / b[name] for a, b in zip(results, ours, strict=True))
                for name in ("wall_s", "cpu_s")
            }
            wall, peak = (median(one[name] for one in results) for name in ("wall_s", "peak_mib"))
            figures = {"s": wall, "MiB": peak, "ratio": ratio["wall_s"]}
            if columns is not None:
                frame = median(one["wall_s"] for one in columns["peers"]["fastlog"])
                figures["x the columns"] = wall / frame
            rows.append(
                [
                    _describe(case, entry["bytes"]) if peer == "fastlog" else "",
                    f"**{results[0]['version']}**" if peer == "fastlog" else results[0]["version"],
                    _seconds(wall),
                    f"{ratio['wall_s']:.1f}x",
                    _seconds(median(one["cpu_s"] for one in results)),
                    f"{ratio['cpu_s']:.1f}x",
                    f"{peak:,.0f}",
                    _judge(case, peer, figures),
                ]
            )
    head = ["what is read", "by", "s", "ratio", "CPU s", "ratio", "peak MiB", "goal"]
    return f"{machine(result)}\n\n{table(head, rows)}"


def main() -> None:
    """Measure, and write result and table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=5_000_000, help="of the largest run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patience", type=float, default=600.0, metavar="S")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    patience = Patience(options.patience)
    cases: dict[str, Any] = {}
    for run, make in RUNS.items():
        wanted = [case for case in options.only if CASES[case][0] == run]
        if not wanted:
            continue
        root = Path(tempfile.mkdtemp(prefix="fastlog-reading-"))
        try:
            size = make(root, options.records)
            for case in wanted:
                peers = compare(case, root, options.rounds, patience)
                cases[case] = {"bytes": size, "peers": peers}
        finally:
            shutil.rmtree(root)
    ordered = {case: cases[case] for case in options.only}
    result = {
        "machine": patience.conditions(),
        "rounds": options.rounds,
        "records": options.records,
        "cases": ordered,
    }
    if set(options.only) == set(CASES):
        publish("reading", result, render(result))
    else:
        print(render(result))


if __name__ == "__main__":
    main()
