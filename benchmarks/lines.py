"""How many cache lines and pages a call touches, `python -m benchmarks.lines` (needs valgrind).

With cold caches a call costs what it fetches from memory, so this is what benchmarks/cold.py
measures, without the noise of a clock: a look into memory for a line, several one after another for
a page whose translation is not at hand. Callgrind's simulated cache is empty when a call begins,
and large enough to lose nothing: each miss is a line that the call touches for the first time, or a
page, where its lines are as large as pages. What the
loop, the count and an empty C function touch is subtracted. Other threads count where they run
meanwhile; the median of some calls leaves most of that out. Writes benchmarks/results/lines.json
and the table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.child import ChildError
from benchmarks.floor import CACHE, compiler
from benchmarks.machine import ROOT, facts
from benchmarks.peers import BLOCKS, load
from benchmarks.summary import median
from benchmarks.tables import publish, table

EMPTY = "empty_fastcall"
PEERS = (
    *("fastlog", "fastlog_metrics_logger", *BLOCKS, "orjson_write", "stdlib_queue"),
    "tensorboard_scalars",
)
KINDS = {"code": "ILmr", "read": "DLmr", "written": "DLmw"}
SOURCE = Path(__file__).with_name("floor") / "callgrind.c"
CACHES = ("--I1=32768,8,64", "--D1=32768,8,64")
LARGE = 256 << 20  # bytes of what is simulated behind them
UNITS = {"lines": 64, "pages": 4096}  # bytes


def build() -> Path:
    """Compile what starts and ends the count.

    Raises:
        ChildError: valgrind's headers, or a compiler, are missing; the message says what to do.
    """
    CACHE.mkdir(exist_ok=True)
    target = CACHE / "callgrind.so"
    command = [*compiler(), str(SOURCE), "-o", str(target)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ChildError(f"apt-get install valgrind, which has its headers, too:\n{done.stderr}")
    return target


def read_counts(path: Path) -> dict[str, int]:
    """Return what one call touches, by kind, from a file of callgrind's."""
    fields = dict(
        line.split(":", 1)
        for line in path.read_text().splitlines()
        if line.startswith(("ev", "to"))
    )
    by_event = dict(zip(fields["events"].split(), map(int, fields["totals"].split()), strict=False))
    return {kind: by_event.get(event, 0) for kind, event in KINDS.items()}


def count(peer: str, counter: Path, steps: int) -> dict[str, Any]:
    """Count one peer's lines and pages.

    Returns:
        `lines` and `pages`, by kind the median of the calls; `verified` calls, `versions`. Or
        `unavailable`.
    """
    found: dict[str, Any] = {}
    for unit, size in UNITS.items():
        counted = count_units(peer, counter, steps, size)
        if "unavailable" in counted:
            return counted
        found |= {unit: counted.pop("units"), **counted}
    return found


def count_units(peer: str, counter: Path, steps: int, size: int) -> dict[str, Any]:
    """The same for units of `size` bytes, as `units`."""
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        out, result = Path(scratch) / "callgrind", Path(scratch) / "result.json"
        arguments = {"peer": peer, "counter": str(counter), "steps": steps}
        command = [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--cache-sim=yes", *CACHES),
            f"--LL={LARGE},1,{size}",
            *(f"--callgrind-out-file={out}", sys.executable, "-m", "benchmarks.child", "lines"),
            *(json.dumps(arguments), str(result)),
        ]
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
        if done.returncode or not result.exists():
            raise ChildError(f"{peer} exited with {done.returncode}:\n{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(result.read_text())
        if "unavailable" in found:
            return found
        calls = [read_counts(out.with_name(f"{out.name}.{n + 1}")) for n in range(steps)]
        units = {kind: median([call[kind] for call in calls]) for kind in KINDS}
        return {"units": units, "verified": found["calls"], "versions": found["versions"]}


def render(result: dict[str, Any]) -> str:
    """Return the table."""
    known = {peer: row for peer, row in result["peers"].items() if "lines" in row}
    rows = [
        [
            load(peer).title,
            ", ".join(f"{name} {version}" for name, version in row["versions"].items()) or "-",
            *(f"{row['lines'][kind]:,.0f}" for kind in KINDS),
            *(f"{sum(row[unit].values()):,.0f}" for unit in UNITS),
        ]
        for peer, row in sorted(known.items(), key=lambda item: sum(item[1]["lines"].values()))
    ]
    head = ["one step", "versions", *(f"{kind}, lines" for kind in KINDS), "all lines", "pages"]
    made = result["machine"]
    return (
        f"{made['date'][:10]}, commit {made['commit']}, {made['python']}, {result['valgrind']}; "
        f"beyond an empty C function.\n\n{table(head, rows)}"
    )


def main() -> None:
    """Run, and write the result and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=9)
    options = parser.parse_args()
    counter = build()
    version = subprocess.run(["valgrind", "--version"], check=True, capture_output=True, text=True)
    empty = count(EMPTY, counter, options.steps)
    peers = {}
    for peer in PEERS:
        peers[peer] = found = count(peer, counter, options.steps)
        for unit in UNITS if "lines" in found else ():
            found[unit] = {kind: n - empty[unit][kind] for kind, n in found[unit].items()}
        print(peer, found, flush=True)
    result = {
        "machine": facts(),
        "valgrind": version.stdout.strip(),
        "steps": options.steps,
        "empty": {unit: empty[unit] for unit in UNITS},
        "peers": peers,
    }
    publish("lines", result, render(result))


if __name__ == "__main__":
    main()
