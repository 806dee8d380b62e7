"""Measure everything and write the tables: `python -m benchmarks.run`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import machine, sections, tables

HERE = Path(__file__).resolve().parent
SECTIONS = ("calls", "durable", "threads", "latency", "flush", "memory", "imports")


def say(line: str) -> None:
    """Print one progress line immediately."""
    print(line, flush=True)


def result_path() -> Path:
    """Return the result file for this interpreter and machine type."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    system = f"{platform.system()}-{platform.machine()}".lower()
    return HERE / "results" / f"{python}-{system}.json"


def measure(names: list[str], peers: list[str], rounds: int) -> dict[str, Any]:
    """Run the named sections.

    Args:
        names: Some of `SECTIONS`.
        peers: Peers in the section "calls".
        rounds: Fresh processes per figure.

    Returns:
        The result as written to the file.
    """
    result: dict[str, Any] = {"format": 1, "rounds": rounds, "machine": machine.facts()}
    steps = {
        "calls": lambda: sections.calls(rounds, peers, say),
        "durable": lambda: sections.durable(rounds, say),
        "threads": lambda: sections.threads(rounds, say),
        "latency": lambda: sections.latency(rounds, say),
        "flush": lambda: sections.flush(rounds, say),
        "memory": lambda: sections.memory(say),
        "imports": lambda: sections.imports(say),
    }
    for name in names:
        say(f"{name} (load average {machine.load_average()})")
        result[name] = steps[name]()
    patience = sections.patience
    result["machine"]["measurements"] = patience.measurements
    result["machine"]["started_busy"] = patience.busy
    return result


def publish(result: dict[str, Any]) -> None:
    """Write the tables of this directory's page and the figure in the project's README."""
    tables.write(HERE / "README.md", "results", f"\n{tables.render(result)}\n")
    tables.write(machine.ROOT / "README.md", "figure", tables.figure(result))
    tables.update_digest()


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Measure foundry_fastlog and its peers, each in fresh processes, and verify "
        "every output. A full run writes benchmarks/results/*.json and the tables of "
        "benchmarks/README.md and README.md; a run with --only or --peers prints its JSON.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes per figure (5)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="measure these sections")
    parser.add_argument("--peers", nargs="+", choices=sections.PEERS, help="compare these peers")
    parser.add_argument(
        "--patience",
        type=float,
        default=600.0,
        metavar="S",
        help="wait up to S seconds in total, a minute at a time, for an idle machine (600)",
    )
    parser.add_argument(
        "--render", action="store_true", help="measure nothing; regenerate the tables from the file"
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the command line.

    Returns:
        The exit status.
    """
    options = arguments(argv)
    path = result_path()
    if options.render:
        publish(json.loads(path.read_text(encoding="utf-8")))
        return 0
    sections.patience.left_s = options.patience
    started = time.perf_counter()
    peers = options.peers or list(sections.PEERS)
    result = measure(options.only or list(SECTIONS), peers, options.rounds)
    facts = result["machine"]
    say(
        f"{time.perf_counter() - started:.0f} s in total; {facts['started_busy']} of "
        f"{facts['measurements']} measurements started on a busy machine"
    )
    if options.only or options.peers:
        say(json.dumps(result, indent=1))
        return 0
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    publish(result)
    say(tables.render(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
