"""Finding runs, `python -m benchmarks.runs`: all runs of a directory, at first and from the cache.

Each figure is taken in a fresh process. Runs have 500 steps of three metrics and as many timings,
a tenth of them failed; what `read_runs` and the command say of each is checked against what was
written. The files are in the page cache, as after a training on the same machine.
Writes benchmarks/results/runs.json and the table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.sections import patience, spawn
from benchmarks.summary import describe
from benchmarks.tables import machine, publish, table

COUNTS = (1000, 3000)
STEPS = 500


def loss_of(run: int, step: int) -> float:
    """Return the loss of a run at a step."""
    return 1.0 + (run * 7919 % 1000) / 1000 + 1.0 / (step + 1)


def make_runs(root: Path, count: int) -> None:
    """Write runs as the recorder does, ten to a sweep."""
    stamp = "2026-01-30T14:{0:02d}:{1:02d}.{2:06d}Z"
    for run in range(count):
        path = root / f"sweep{run // 10:03d}" / f"run{run:05d}"
        (path / "starts").mkdir(parents=True)
        (path / ".fastlog").mkdir()
        lines = []
        timings = []
        for step in range(STEPS):
            head = f'{{"timestamp":"{stamp.format(step // 60 % 60, step % 60, run)}","seq":{step},'
            values = f'{{"loss":{loss_of(run, step)!r},"lr":1e-04,"val_loss":{2.0 + run!r}}}'
            lines.append(f'{head}"step":{step},"metrics":{values}}}\n')
            timings.append(f'{head}"name":"step","duration_s":0.9,"step":{step},"depth":0}}\n')
        (path / "metrics.jsonl").write_text("".join(lines))
        (path / "performance.jsonl").write_text("".join(timings))
        config = {"lr": 10.0 ** -(run % 5), "seed": run, "model": {"layers": run % 12, "name": "x"}}
        entry = {"format": 2, "start": 0, "started": stamp.format(0, 0, 0), "config": config}
        how: dict[str, Any] = {"how": "closed"}
        if run % 10 == 0:
            how = {"how": "exception", "error_type": "OSError", "error_message": "disk full"}
        end = {"format": 2, "start": 0, "label": "", "ended": stamp.format(9, 0, 0), **how}
        (path / "starts" / "000000.json").write_text(json.dumps(entry))
        (path / "starts" / "000000.end.json").write_text(json.dumps(end))
        (path / "run.json").write_text(json.dumps({"format": 2, "name": path.name, "attempts": []}))


def measure(rounds: int, counts: tuple[int, ...] = COUNTS) -> list[dict[str, Any]]:
    """Measure directories with so many runs, each in rounds of a first and a second look."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="fastlog-runs-") as directory:
            root = Path(directory) / "runs"
            make_runs(root, count)
            time.sleep(3.0)  # what was written within a tick of the clock is not kept
            found: dict[str, list[dict[str, Any]]] = {"cold": [], "cached": []}
            for turn in range(rounds):
                home = str(Path(directory) / f"cache{turn}")
                for taken in found.values():
                    taken.append(spawn("find_runs", root=os.fspath(root), count=count, cache=home))
                said = {kind: round(one[-1]["read_s"], 2) for kind, one in found.items()}
                print(f"{count} runs, round {turn + 1}/{rounds}", said, flush=True)
        rows += [
            {
                "runs": count,
                "kind": kind,
                **{
                    key: describe([one[key] for one in taken])
                    for key in ("read_s", "cpu_s", "where_s", "command_s", "peak_mib")
                },
                "verified": sum(one["verified"] for one in taken),
            }
            for kind, taken in found.items()
        ]
    return rows


def render(result: dict[str, Any]) -> str:
    """Return the table."""
    rows = [
        [
            f"{row['runs']:,} runs, {'the first time' if row['kind'] == 'cold' else 'again'}",
            f"{median_of(row, 'read_s'):.2f}",
            f"{1000 * median_of(row, 'cpu_s') / row['runs']:.2f}",
            f"{1000 * median_of(row, 'where_s'):.0f}",
            f"{median_of(row, 'command_s'):.2f}",
            f"{median_of(row, 'peak_mib'):.0f}",
            f"{row['verified']:,}",
        ]
        for row in result["rows"]
    ]
    head = [
        "`read_runs`",
        "s",
        "CPU, ms/run",
        "then `where` and `sort`, ms",
        "`foundry-fastlog runs`, s",
        "peak MiB",
        "verified",
    ]
    return f"{machine({'machine': result['machine']})}\n\n{table(head, rows)}"


def median_of(row: dict[str, Any], key: str) -> float:
    """Return the median over rounds."""
    found: float = row[key]["median"]
    return found


def main() -> None:
    """Run, and write the result and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patience", type=float, default=300.0, metavar="S")
    options = parser.parse_args()
    patience.left_s = options.patience
    rows = measure(options.rounds)
    result = {"machine": patience.conditions(), "rounds": options.rounds, "rows": rows}
    publish("runs", result, render(result))


if __name__ == "__main__":
    main()
