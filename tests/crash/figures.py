"""Write the figures of the last release run into docs/reliability.md and benchmarks/results.

    python tests/crash/figures.py

`make crash` calls it when all of its tests have passed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.machine import facts  # noqa: E402 - the path comes first

FIGURES = ROOT / "build" / "crash" / "figures"
RESULT = ROOT / "benchmarks" / "results" / "crash.json"
PAGE = ROOT / "docs" / "reliability.md"
MARKER = "<!-- figures -->"

#: Tests in the order of the table, with what they do.
TITLES = {
    "test_one_thread_loses_nothing": "SIGKILL at a random instant, one thread",
    "test_many_threads_lose_nothing": "SIGKILL at a random instant, two to eight threads",
    "test_streams_behind_a_device_lose_nothing": "the same with values of a device",
    "test_double_crashes": "the recovery is killed, too",
    "test_a_long_run_stays_whole_and_the_same_size": "ten minutes of deaths and of full disks",
    "test_the_promises_hold_in_any_world": "processes, faults and readers at random, all at once",
    "test_the_promises_hold_in_any_simulated_world": "worlds of one process, simulated",
    "test_no_ring_file_breaks_who_reads_it": "damaged ring files under ASan and UBSan",
    "test_no_line_breaks_who_reads_it": "damaged lines, read under ASan and UBSan",
    "test_no_races_in_the_record_path": "ThreadSanitizer over recorder, flush thread and ring",
    "test_no_races_while_files_are_taken_away": "the same while its files and run are taken away",
    "test_broken_protocols_are_noticed": "mutation check: steps of the protocol broken",
    "test_old_faults_are_noticed_when_they_are_put_back": "old faults put back, and played",
    "test_a_simulated_world_shows_each_old_fault": "faults put back, and simulated",
}


def number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(results: dict[str, dict[str, Any]], machine: dict[str, Any]) -> str:
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}"
    lines = [
        f"Release run of {machine['date'][:10]} (commit {machine['commit']}) on {where}:",
        "",
        "| what | figures |",
        "| --- | --- |",
    ]
    for name, title in TITLES.items():
        cells = [
            f"{number(value)} {key}" for key, value in results[name].items() if key != "seconds"
        ]
        lines.append(f"| {title} | {', '.join(cells)} |")
    minutes = sum(result["seconds"] for result in results.values()) / 60
    lines += ["", f"{minutes:.0f} minutes. Writer and recovery killed at every named point between"]
    lines[-1] += " two steps, and each pass of it, are further tests of the same run."
    return "\n".join(lines)


def main() -> int:
    results = {}
    for name in TITLES:
        path = FIGURES / f"{name}.json"
        if not path.exists():
            raise SystemExit(f"{path} is missing: run FASTLOG_CRASH=release pytest tests/crash")
        results[name] = json.loads(path.read_text(encoding="utf-8"))
    machine = facts()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(
        json.dumps({"machine": machine, "figures": results}, indent=2) + "\n", encoding="utf-8"
    )
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else f"{MARKER}\n{MARKER}\n"
    before, _, rest = text.partition(MARKER)
    _, _, behind = rest.partition(MARKER)
    middle = f"{MARKER}\n\n{table(results, machine)}\n\n{MARKER}"
    PAGE.write_text(before + middle + behind, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
