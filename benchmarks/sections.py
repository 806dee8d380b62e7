"""The sections of a full run: each measures in fresh processes, interleaved, and returns JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.child import ChildError
from benchmarks.child import spawn as spawn_now
from benchmarks.peers import PEERS
from benchmarks.quiet import Patience
from benchmarks.summary import describe, median

REQUIRED = ("empty_fastcall", "empty_method", "fastlog", "fastlog_bound", "orjson_write")
"""Peers that must run; others that cannot run are listed in the table with the reason."""

Say = Callable[[str], None]
MILLION = 1_000_000


class RequiredPeerError(RuntimeError):
    """A peer that the figures are compared with cannot run here."""


patience = Patience(total_s=600.0)


def spawn(measure: str, **arguments: Any) -> dict[str, Any]:
    """Run a measure in a fresh process once the machine is idle."""
    patience.wait()
    return spawn_now(measure, **arguments)


def rotated(items: Sequence[str], turn: int) -> list[str]:
    """Return `items`, rotated by one more in each turn."""
    first = turn % len(items)
    return [*items[first:], *items[:first]]


def attempt(measure: str, peer: str, **arguments: Any) -> dict[str, Any]:
    """Run a measure of one peer; if a third-party peer fails, its row has the reason."""
    try:
        result = spawn(measure, peer=peer, **arguments)
    except ChildError as error:
        if peer in REQUIRED:
            raise
        result = {"unavailable": str(error).strip().splitlines()[-1]}
    if peer in REQUIRED and "unavailable" in result:
        raise RequiredPeerError(f"{peer}: {result['unavailable']}")
    return result


def _sustained_count(call_ns: float) -> int:
    """Return the steps a peer takes about 1.5 seconds for, between 2,048 and a million."""
    return max(2048, min(MILLION, int(1.5e9 / call_ns)))


def calls(rounds: int, peers: Sequence[str], say: Say) -> dict[str, Any]:
    """Measure one call, and one record until it is complete in the file, for every peer.

    Args:
        rounds: Fresh processes per peer; the order changes with each round.
        peers: Names.
        say: Receives progress lines.

    Returns:
        By peer: `call_ns`, `ratio` and `complete_ns` described over rounds, `calls` (verified
        records in total), `versions`; or `unavailable`.
    """
    found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    complete: dict[str, list[float]] = {peer: [] for peer in peers}
    missing: dict[str, str] = {}
    for turn in range(rounds):
        for peer in rotated(peers, turn):
            if peer in missing:
                continue
            result = attempt("call", peer)
            if "unavailable" in result:
                missing[peer] = result["unavailable"]
                say(f"  {peer}: cannot run here: {missing[peer]}")
                continue
            found[peer].append(result)
            count = _sustained_count(result["call_ns"]["median"])
            sustained = attempt("durable", peer, count=count)
            if "unavailable" in sustained:
                missing[peer] = sustained["unavailable"]
                continue
            complete[peer].append(sustained["ns_per_record"])
            say(
                f"  round {turn + 1}/{rounds} {peer}: {result['call_ns']['median']:,.1f} ns, "
                f"{result['ratio']:,.2f} x empty, {sustained['ns_per_record']:,.0f} ns to complete"
            )
    return {
        peer: {"unavailable": missing[peer]}
        if peer in missing
        else {
            "call_ns": describe([r["call_ns"]["median"] for r in found[peer]]),
            "empty_ns": describe([r["empty_ns"]["median"] for r in found[peer]]),
            "ratio": describe([r["ratio"] for r in found[peer]]),
            "complete_ns": describe(complete[peer]),
            "calls": sum(r["calls"] for r in found[peer]),
            "versions": found[peer][0]["versions"],
            "facts": [r["facts"] for r in found[peer]],
        }
        for peer in peers
    }


def durable(rounds: int, say: Say, count: int = MILLION) -> dict[str, Any]:
    """Time until durable for `count` records, alternating fastlog and orjson + write."""
    peers = ("fastlog", "orjson_write")
    found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    for turn in range(rounds):
        for peer in rotated(peers, turn):
            found[peer].append(attempt("durable", peer, count=count))
            say(f"  round {turn + 1}/{rounds} {peer}: {found[peer][-1]['complete_s']:.3f} s")
    table: dict[str, Any] = {"count": count}
    for peer, results in found.items():
        table[peer] = {
            key: describe([r[key] for r in results])
            for key in ("calls_s", "complete_s", "fsync_s", "bytes")
        }
        table[peer]["facts"] = [r["facts"] for r in results]
    return table


def threads(rounds: int, say: Say, count: int = MILLION) -> dict[str, Any]:
    """Records per second until durable with 1, 2, 4 and 8 threads."""
    table: dict[str, Any] = {"count": count}
    for peer in ("fastlog", "orjson_write"):
        table[peer] = {}
        for producers in (1, 2, 4, 8):
            results = [
                attempt("threads", peer, threads=producers, count=count) for _ in range(rounds)
            ]
            table[peer][str(producers)] = {
                key: describe([r[key] for r in results]) for key in ("records_per_s", "calls_per_s")
            }
            rate = table[peer][str(producers)]["records_per_s"]["median"]
            say(f"  {peer}, {producers} threads: {rate:,.0f} records/s to durable")
    return table


def latency(rounds: int, say: Say) -> dict[str, Any]:
    """Percentiles of single calls: one call per 50 us, and back to back."""
    kinds = {
        "fastlog, a call every 50 us": ("fastlog", 100_000, 50_000),
        "fastlog, back to back": ("fastlog", MILLION, 0),
        "orjson + write, a call every 50 us": ("orjson_write", 100_000, 50_000),
        "orjson + write, back to back": ("orjson_write", MILLION, 0),
    }
    table = {}
    for title, (peer, count, interval) in kinds.items():
        results = [
            attempt("latency", peer, count=count, interval_ns=interval) for _ in range(rounds)
        ]
        table[title] = {
            which: {
                point: median([r[which][point] for r in results])
                for point in ("p50", "p99", "p99.9", "max")
            }
            for which in ("call_ns", "clock_ns")
        }
        table[title]["count"] = results[0]["count"]
        say(f"  {title}: {table[title]['call_ns']}")
    return table


def memory(say: Say, count: int = 2 * MILLION) -> dict[str, Any]:
    """Resident set of a process that records."""
    result = spawn("memory", count=count)
    say(f"  recorder {result['recorder']:.1f} MiB at its peak, growth {result['growth']:.1f} MiB")
    return result


def flush(rounds: int, say: Say, count: int = MILLION) -> dict[str, Any]:
    """Throughput of the flush thread alone and of `orjson.dumps` alone."""
    results = [spawn("flush", count=count) for _ in range(rounds)]
    table: dict[str, Any] = {"count": results[0]["count"]}
    for which in ("fastlog", "orjson_dumps"):
        table[which] = {
            key: describe([r[which][key] for r in results]) for key in results[0][which]
        }
        say(f"  {which}: {table[which]['records_per_s']['median']:,.0f} records/s")
    return table


def imports(say: Say, rounds: int = 25) -> dict[str, Any]:
    """Time of `import foundry_fastlog`."""
    result = spawn("imports", rounds=rounds)
    say(f"  import {result['import']['median']:.1f} ms over a bare interpreter")
    return result


__all__ = ["PEERS", "calls", "durable", "flush", "imports", "latency", "memory", "threads"]
