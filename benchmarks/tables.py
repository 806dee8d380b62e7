"""Markdown tables from a result file, and their insertion into the README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.peers import load

HERE = Path(__file__).resolve().parent
MARKERS = (
    "<!-- {0}:begin (written by `python -m benchmarks.run`; do not edit) -->",
    "<!-- {0}:end -->",
)
THREADS = ("1", "2", "4", "8")
FLOORS = ("empty_fastcall", "empty_method")
"""Peers that write nothing."""


def number(value: float) -> str:
    """Return `value` with three significant digits and thousands separators."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def machine(result: dict[str, Any]) -> str:
    """Return the paragraph about machine and date."""
    facts = result["machine"]
    nice = facts.get("nice", 0)  # older results without the field ran at normal priority
    priority = f", all of them at priority nice {nice}" if nice else ""
    return (
        f"{facts['date'][:10]}, commit {facts['commit']}: {facts['cpu']}, {facts['cores']} cores, "
        f"{facts['memory_gib']:.0f} GiB, {facts['system']}, {facts['filesystem']}; "
        f"{facts['python']} ({facts['python_compiler']}). "
        f"{facts['measurements'] - facts['started_busy']} of {facts['measurements']} measurements "
        f"started on an idle machine{priority}."
    )


def title(peer: str) -> str:
    """Return a peer's title, or its module's name if it cannot be imported."""
    try:
        return load(peer).title
    except ImportError:
        return f"`{peer}`"


def calls(section: dict[str, Any]) -> str:
    """Return the table for one call with four float metrics."""
    rows = []
    ran = {peer: row for peer, row in section.items() if "unavailable" not in row}
    for peer, row in sorted(ran.items(), key=lambda item: item[1]["call_ns"]["median"]):
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        call, done = row["call_ns"], row["complete_ns"]
        rows.append(
            [
                title(peer),
                versions or "-",
                number(call["median"]),
                f"{number(call['min'])} - {number(call['max'])}",
                f"{number(row['ratio']['median'])}x",
                "-" if peer in FLOORS else number(done["median"]),
                "-" if peer in FLOORS else f"{row['calls']:,}",
            ]
        )
    for peer, row in section.items():
        if "unavailable" in row:
            rows.append([title(peer), f"cannot run here: {row['unavailable']}", *["-"] * 5])
    head = [
        "a step with four float metrics",
        "versions",
        "call, ns",
        "range over rounds",
        "x empty call",
        "until complete in its file, ns/record",
        "records verified",
    ]
    return table(head, rows)


def durable(section: dict[str, Any]) -> str:
    """Return the table for a million records until durable."""
    rows = []
    for peer in ("fastlog", "orjson_write"):
        row = section[peer]
        rows.append(
            [
                title(peer),
                *(
                    f"{row[key]['median']:.3f} ({row[key]['min']:.3f} - {row[key]['max']:.3f})"
                    for key in ("calls_s", "complete_s", "fsync_s")
                ),
                number(row["bytes"]["median"] / 1e6),
            ]
        )
    head = [
        f"{section['count']:,} records, s since the first call",
        "last call returned",
        "closed, complete in the file",
        "and fsynced",
        "MB",
    ]
    return table(head, rows)


def threads(section: dict[str, Any]) -> str:
    """Return the table of records per second by threads."""
    rows = [
        [title(peer), *(number(section[peer][n]["records_per_s"]["median"]) for n in THREADS)]
        for peer in ("fastlog", "orjson_write")
    ]
    head = [
        f"records/s until durable, {section['count']:,} in total",
        "1 thread",
        *(f"{n} threads" for n in THREADS[1:]),
    ]
    return table(head, rows)


def latency(section: dict[str, Any]) -> str:
    """Return the table of percentiles."""
    points = ("p50", "p99", "p99.9", "max")
    rows = []
    for name, row in section.items():
        rows.append([name, *(number(row["call_ns"][point]) for point in points)])
        rows.append(
            ["- the clock alone, same process", *(number(row["clock_ns"][p]) for p in points)]
        )
    return table(["one call, ns, clock included", *points], rows)


def flush(section: dict[str, Any]) -> str:
    """Return the table of the flush thread and orjson."""
    names = {
        "fastlog": "flush thread: render, write, publish",
        "orjson_dumps": "`orjson.dumps` of ready-made dicts, discarded",
    }
    rows = [
        [
            name,
            number(section[key]["records_per_s"]["median"]),
            number(section[key]["mb_per_s"]["median"]),
            number(section[key]["cpu_ns"]["median"]) if "cpu_ns" in section[key] else "-",
        ]
        for key, name in names.items()
    ]
    return table(["one thread", "records/s", "MB/s", "CPU ns/record"], rows)


def memory_and_import(memory: dict[str, Any], imports: dict[str, Any]) -> str:
    """Return the table of memory and import time."""
    rows = [
        ["resident memory of the package and an open run, peak", f"{memory['recorder']:.1f} MiB"],
        [
            f"- after opening: ring ({memory['ring_mib']:.0f} MiB), buffers and files",
            f"{memory['open']:.1f} MiB",
        ],
        [
            f"growth from the first tenth to the end of {memory['count']:,} records",
            f"{memory['growth']:.1f} MiB",
        ],
        [
            "`import foundry_fastlog`, minus a bare interpreter",
            f"{imports['import']['median']:.1f} ms",
        ],
        [
            "`from foundry_fastlog import Recorder`, minus a bare interpreter",
            f"{imports['recorder']['median']:.1f} ms",
        ],
        ["a bare interpreter", f"{imports['bare']['median']:.1f} ms"],
    ]
    return table(["memory and import", "median"], rows)


def render(result: dict[str, Any]) -> str:
    """Return all tables of a full run."""
    blocks = [
        machine(result),
        "### One call",
        calls(result["calls"]),
        "### Time to durable",
        durable(result["durable"]),
        "### Threads",
        threads(result["threads"]),
        "### Single calls",
        latency(result["latency"]),
        "### The flush thread",
        flush(result["flush"]),
        "### Memory and import",
        memory_and_import(result["memory"], result["imports"]),
    ]
    return "\n\n".join(blocks)


def figure(result: dict[str, Any]) -> str:
    """Return the figures shown in the project's README, linked to their tables."""
    rows, durable = result["calls"], result["durable"]
    ours, empty = rows["fastlog"]["call_ns"]["median"], rows["empty_method"]["call_ns"]["median"]
    by_hand = rows["orjson_write"]["call_ns"]["median"]
    seconds = {peer: durable[peer]["complete_s"]["median"] for peer in ("fastlog", "orjson_write")}
    return (
        f"Recording a step with four float metrics takes **{number(ours)} ns**, "
        f"{number(ours / empty)} times as long as calling an empty C method; `orjson.dumps` and a "
        f"buffered `file.write` take {number(by_hand)} ns. A million such steps are complete in "
        f"their file after {seconds['fastlog']:.2f} s, by hand after "
        f"{seconds['orjson_write']:.2f} s. Measured by [`benchmarks/run.py`](benchmarks/run.py) "
        f"on {result['machine']['cores']} cores with {result['machine']['python']}; "
        "eight more loggers and the method: [benchmarks](benchmarks/README.md)."
    )


def publish(name: str, result: dict[str, Any], text: str) -> None:
    """Write a result and its text into this directory: results/NAME.json and the page's section."""
    (HERE / "results" / f"{name}.json").write_text(
        json.dumps(result, indent=1) + "\n", encoding="utf-8"
    )
    write(HERE / "README.md", name, f"\n{text}\n")
    update_digest()
    print(text)


def update_digest() -> None:
    """Write the figures of all results into the pages of docs/ that have some."""
    from benchmarks.digest import publish_digest  # which needs this module

    publish_digest()


def write(readme: Path, name: str, text: str) -> None:
    """Replace the text between the markers `name` in `readme`.

    Raises:
        ValueError: The markers do not occur exactly once and in order.
    """
    begin, end = (marker.format(name) for marker in MARKERS)
    page = readme.read_text(encoding="utf-8")
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"{readme} must have the markers {begin} and {end} once, in order")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
