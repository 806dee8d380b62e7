"""Latency of single `record()` calls while another process storms the disk with writes and fsyncs.

    python -m benchmarks.storm [--seconds 10] [--directory DIR]

A store to a mapped file can wait for the file system: for pages under write-back, or clean pages
that must be made writable again. So the three places for the ring (memory, file, shm) are measured
alternately, in several rounds in one run, with and without the storm. Calls come every 50 us, as
from a fast training loop. Each recorder's file is read back: a missing record fails the run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from foundry_fastlog import Recorder

PLACES = ("memory", "file", "shm")
RESULT = Path(__file__).parent / "results" / "storm.json"
PACE_NS = 50_000
BLOCK = os.urandom(1 << 20)


def storm(directory: str, stop: Any) -> None:
    """Repeatedly write and fsync a megabyte, cycling through a 64 MiB file."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        while not stop.is_set():
            file.seek(0)
            for _ in range(64):
                file.write(BLOCK)
                file.flush()
                os.fsync(file.fileno())
                if stop.is_set():
                    return


def one_round(place: str, directory: str, seconds: float) -> list[int]:
    """Time the calls of one recorder.

    Returns:
        Nanoseconds of each call, including the clock's own cost.
    """
    clock = time.perf_counter_ns
    samples: list[int] = []
    with tempfile.TemporaryDirectory(dir=directory) as run:
        recorder = Recorder(run, ring=place)
        began = due = clock()
        step = 0
        while due - began < seconds * 1e9:
            while clock() < due:
                pass
            before = clock()
            recorder.record(step, loss=2.5, lr=1e-4, grad_norm=0.7, tokens_per_sec=8500.5)
            samples.append(clock() - before)
            step += 1
            due = max(due + PACE_NS, before)
        recorder.close(60)
        written = (Path(run) / "metrics.jsonl").read_text().splitlines()
        if [json.loads(line)["step"] for line in written] != list(range(step)):
            raise SystemExit(f"the {place} ring lost records, so the figures are meaningless")
    return samples


def describe(samples: list[int]) -> dict[str, float]:
    """Return the percentiles of calls in nanoseconds."""
    ordered = sorted(samples)
    at = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
    result = {name: float(ordered[int(len(ordered) * share)]) for name, share in at.items()}
    return {**result, "max": float(ordered[-1]), "calls": float(len(ordered))}


def measure(directory: str, seconds: float, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Measure all places, calm and in the storm, in interleaved rounds."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    context = multiprocessing.get_context("spawn")
    for weather in ("calm", "storm"):
        stop = context.Event()
        other = context.Process(target=storm, args=(directory, stop), daemon=True)
        if weather == "storm":
            other.start()
        samples: dict[str, list[int]] = {place: [] for place in PLACES}
        for _ in range(rounds):
            for place in PLACES:
                samples[place] += one_round(place, directory, seconds / rounds)
        stop.set()
        if weather == "storm":
            other.join()
        result[weather] = {place: describe(samples[place]) for place in PLACES}
    return result


def table(result: dict[str, dict[str, dict[str, float]]]) -> str:
    """Render the result as Markdown, times in microseconds."""
    names = ("p50", "p99", "p99.9", "p99.99", "max")
    rows = [
        "| | ring in | " + " | ".join(f"{name}, us" for name in names) + " |",
        "| --- | --- |" + " --- |" * len(names),
    ]
    for weather, places in result.items():
        for place, figures in places.items():
            cells = " | ".join(f"{figures[name] / 1000:,.2f}" for name in names)
            rows.append(f"| {weather} | {place} | {cells} |")
    return "\n".join(rows)


def main() -> None:
    """Run and write benchmarks/results/storm.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="per place, calm and storm each"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default=".", help="a directory on the file system to test")
    arguments = parser.parse_args()
    result = measure(arguments.directory, arguments.seconds, arguments.rounds)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"machine": facts(), "nanoseconds": result}, indent=2) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
