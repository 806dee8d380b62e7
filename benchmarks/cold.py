"""What logging costs in a real step, `python -m benchmarks.cold`: calls with cold caches.

A training step leaves the caches full of its own data, so the first call after it pays for every
line of code and data that it touches. Each peer runs in its own process, in turn with the empty C
function in the same state; every output is read back. Writes benchmarks/results/cold.json, the
table of benchmarks/README.md and the figure of README.md.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.peers import BLOCKS, load
from benchmarks.sections import attempt, patience, rotated
from benchmarks.summary import describe, median
from benchmarks.tables import machine, number, publish, table, write

PEERS = (
    *("fastlog", "fastlog_metrics_logger", *BLOCKS, "orjson_write", "stdlib_queue"),
    *("trackio_local", "tensorboard_scalars", "wandb_offline"),
)


def measure(rounds: int, steps: int) -> dict[str, Any]:
    """Measure all peers in `rounds` interleaved rounds.

    Returns:
        By peer: `cold_ns`, `p90_ns` and `empty_ns` over rounds, `ratio` to the empty function
        (median of the rounds' ratios), `verified` calls, `versions`; or `unavailable`.
    """
    found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in PEERS}
    missing: dict[str, str] = {}
    for turn in range(rounds):
        for peer in rotated(PEERS, turn):
            if peer in missing:
                continue
            result = attempt("cold", peer, steps=steps)
            if "unavailable" in result:
                missing[peer] = result["unavailable"]
            else:
                found[peer].append(result)
        ratios = {peer: round(each[-1]["ratio"], 2) for peer, each in found.items() if each}
        print(f"round {turn + 1}/{rounds}", ratios, flush=True)
    return {
        peer: {"unavailable": missing[peer]}
        if peer in missing
        else {
            "cold_ns": describe([each["cold_ns"]["median"] for each in found[peer]]),
            "p90_ns": median([each["cold_ns"]["p90"] for each in found[peer]]),
            "empty_ns": median([each["empty_ns"]["median"] for each in found[peer]]),
            "ratio": median([each["ratio"] for each in found[peer]]),
            "verified": sum(each["calls"] for each in found[peer]),
            "versions": load(peer).versions(),
            "title": load(peer).title,
        }
        for peer in PEERS
    }


def render(result: dict[str, Any]) -> str:
    """Return the table."""
    known = {peer: row for peer, row in result["peers"].items() if "unavailable" not in row}
    empty = median([row["empty_ns"] for row in known.values()])
    rows = [["an empty C function", "-", number(empty / 1e3), "-", "1.0x", "-"]]
    rows += [
        [
            row["title"],  # the page is rendered where a peer is not installed, too
            ", ".join(f"{name} {version}" for name, version in row["versions"].items()) or "-",
            number(row["cold_ns"]["median"] / 1e3),
            number(row["p90_ns"] / 1e3),
            f"{row['ratio']:.1f}x",
            f"{row['verified']:,}",
        ]
        for row in sorted(known.values(), key=lambda row: row["ratio"])
    ]
    head = ["one step, caches cold", "versions", "us", "p90, us", "ratio", "verified"]
    notes = [
        f"Not measured: `{peer}` ({row['unavailable']})."
        for peer, row in result["peers"].items()
        if "unavailable" in row
    ]
    return "\n\n".join([machine({"machine": result["machine"]}), table(head, rows), *notes])


def figure(result: dict[str, Any]) -> str:
    """Return the figure shown in the project's README."""
    ours, by_hand = result["peers"]["fastlog"], result["peers"]["orjson_write"]
    return (
        f"With cold caches, as a training step leaves them, the same call takes "
        f"**{number(ours['cold_ns']['median'] / 1e3)} us**, {ours['ratio']:.1f} times as long as "
        f"an empty C function in that state; `orjson.dumps` and a write, {by_hand['ratio']:.1f} "
        "times. "
        "Measured by [`benchmarks/cold.py`](benchmarks/cold.py)."
    )


def main() -> None:
    """Run, and write the result and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--patience", type=float, default=600.0, metavar="S")
    options = parser.parse_args()
    patience.left_s = options.patience
    peers = measure(options.rounds, options.steps)
    result = {"machine": patience.conditions(), "steps": options.steps, "peers": peers}
    publish("cold", result, render(result))
    write(ROOT / "README.md", "cold", figure(result))


if __name__ == "__main__":
    main()
