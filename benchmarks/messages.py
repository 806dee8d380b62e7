"""The message path, `python -m benchmarks.messages`: a message with five fields, and its peers.

All peers are measured in alternating bursts in one process, which gives the caller's cost; then
each in its own process, without a pause, until every message is complete in its file. Each output
is read back: a message that is missing, out of order or altered fails the run.
Writes benchmarks/results/messages.json and the table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.peers import MESSAGES, load
from benchmarks.sections import patience, rotated, spawn
from benchmarks.summary import describe, median
from benchmarks.tables import machine, number, publish, table, title

OURS = "message_fastlog"
COUNT = 100_000


def measure(rounds: int, count: int = COUNT) -> dict[str, Any]:
    """Measure all peers in `rounds` interleaved rounds.

    Returns:
        By peer: `call_ns` and `complete_ns` over rounds, `call_ratio` and `complete_ratio` to this
        package's log stream (medians of the rounds' ratios), `verified` messages, `versions`.
    """
    calls: dict[str, list[float]] = {peer: [] for peer in MESSAGES}
    complete: dict[str, list[float]] = {peer: [] for peer in MESSAGES}
    verified = dict.fromkeys(MESSAGES, 0)
    for turn in range(rounds):
        order = rotated(MESSAGES, turn)
        found = spawn("compare", peers=order, bursts=40, seconds=15.0)
        for peer in order:
            calls[peer].append(found[peer]["median"])
            done = spawn("durable", peer=peer, count=count)
            complete[peer].append(done["ns_per_record"])
            verified[peer] += found[peer]["calls"] + count
        print(f"round {turn + 1}/{rounds}", {p: round(calls[p][-1]) for p in order}, flush=True)
    return {
        peer: {
            "call_ns": describe(calls[peer]),
            "call_ratio": _ratio(calls[peer], calls[OURS]),
            "complete_ns": describe(complete[peer]),
            "complete_ratio": _ratio(complete[peer], complete[OURS]),
            "verified": verified[peer],
            "versions": load(peer).versions(),
        }
        for peer in MESSAGES
    }


def _ratio(theirs: list[float], ours: list[float]) -> float:
    """Return the median over rounds; in each, the two were measured at the same time."""
    return median([a / b for a, b in zip(theirs, ours, strict=True)])


def render(result: dict[str, Any]) -> str:
    """Return the table."""
    rows = []
    for peer, row in sorted(result["peers"].items(), key=lambda item: item[1]["call_ratio"]):
        call, complete = row["call_ns"], row["complete_ns"]
        rows.append(
            [
                title(peer),
                ", ".join(f"{name} {version}" for name, version in row["versions"].items()) or "-",
                f"{number(call['median'])} ({number(call['min'])} - {number(call['max'])})",
                f"{row['call_ratio']:.2f}x",
                number(complete["median"]),
                f"{row['complete_ratio']:.2f}x",
                f"{row['verified']:,}",
            ]
        )
    head = [
        "a message with five fields",
        "versions",
        "call, ns (range over rounds)",
        "ratio",
        "until complete in its file, ns/message",
        "ratio",
        "verified",
    ]
    return f"{machine({'machine': result['machine']})}\n\n{table(head, rows)}"


def main() -> None:
    """Run, and write the result and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--patience", type=float, default=600.0, metavar="S")
    options = parser.parse_args()
    patience.left_s = options.patience
    peers = measure(options.rounds)
    where = patience.conditions()
    result = {"machine": where, "rounds": options.rounds, "count": COUNT, "peers": peers}
    publish("messages", result, render(result))


if __name__ == "__main__":
    main()
