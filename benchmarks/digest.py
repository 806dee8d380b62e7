"""The figures of docs/performance.md and docs/peers.md: `python -m benchmarks.digest`.

They are drawn from results/, as the tables of this directory's page are, whenever a result is
written; a test compares both pages with the results.
"""

from __future__ import annotations

import json
from statistics import median
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.tables import HERE, number, table, write

RESULTS = HERE / "results"
PERFORMANCE = ROOT / "docs" / "performance.md"
COMPARISON = ROOT / "docs" / "peers.md"
# As a reader of the pages knows them: a peer's own title may be known only where it is installed.
NAMES = {
    "fastlog": "**foundry_fastlog** `Recorder.record`",
    "fastlog_metrics_logger": "**foundry_fastlog** `MetricsLogger.log_step`",
    "orjson_write": "`orjson.dumps` and a buffered `file.write`, by hand",
    "picologging_json": "picologging, orjson",
    "structlog_orjson": "structlog, orjson",
    "stdlib_queue": "stdlib `QueueHandler`, JSON",
    "trackio_local": "trackio, local",
    "wandb_offline": "wandb, offline",
    "loguru_enqueue": "loguru, `enqueue=True`, JSON",
    "tensorboard_scalars": "TensorBoard `SummaryWriter`, four `add_scalar`",
}


def result(name: str) -> dict[str, Any]:
    """Return a result by its name; that of the latest run of all tables is "calls"."""
    paths = RESULTS.glob("cp*.json") if name == "calls" else [RESULTS / f"{name}.json"]
    found: list[dict[str, Any]] = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return max(found, key=lambda each: str(each["machine"]["date"]))


def where(measured: dict[str, Any]) -> str:
    """Say when and on what a result was measured."""
    facts = measured["machine"]
    return f"{facts['date'][:10]}, {facts['cores']} cores of {facts['cpu']}"


def medians(section: dict[str, Any], figure: str, unit: float = 1) -> dict[str, str]:
    """Return the medians of a figure by peer, of those peers that could run."""
    return {
        peer: number(row[figure]["median"] / unit) for peer, row in section.items() if figure in row
    }


def glance() -> str:
    """Return the table of docs/performance.md."""
    calls, cold, messages = result("calls"), result("cold"), result("messages")
    reading, runs, pages = result("reading"), result("runs"), result("pages")
    call = medians(calls["calls"], "call_ns")
    steps = medians(cold["peers"], "cold_ns", 1e3)
    message = medians(messages["peers"], "call_ns")
    done = calls["durable"]
    columns = reading["cases"]["all columns, four metrics"]
    seconds = {
        peer: number(median([each["wall_s"] for each in rounds]))
        for peer, rounds in columns["peers"].items()
    }
    listed = {row["kind"]: row for row in runs["rows"] if row["runs"] == 1000}
    report = pages["report"]
    rows = [
        (
            "`record()` of four floats",
            f"{call['fastlog']} ns",
            f"an empty C method {call['empty_method']} ns; by hand {call['orjson_write']} ns",
            calls,
        ),
        (
            "the same with cold caches, as in a training step",
            f"{steps['fastlog']} us",
            f"by hand {steps['orjson_write']} us",
            cold,
        ),
        (
            "the demo's step with cold caches: five timed blocks and `log_step`",
            f"{steps['fastlog_demo_step']} us",
            "",
            cold,
        ),
        (
            "a message with five fields",
            f"{message['message_fastlog']} ns",
            f"structlog {message['message_structlog']} ns; stdlib {message['message_stdlib']} ns",
            messages,
        ),
        (
            f"{done['count']:,} records, complete in their file",
            f"{done['fastlog']['complete_s']['median']:.2f} s",
            f"by hand {done['orjson_write']['complete_s']['median']:.2f} s",
            calls,
        ),
        (
            "memory of the package and an open run",
            f"{calls['memory']['recorder']:.1f} MiB",
            f"{calls['memory']['ring_mib']:.0f} MiB of it are the ring",
            calls,
        ),
        (
            "`import foundry_fastlog`",
            f"{calls['imports']['import']['median']:.1f} ms",
            f"starting Python {calls['imports']['bare']['median']:.1f} ms",
            calls,
        ),
        (
            f"all columns of a run of {columns['bytes'] / 1e9:.1f} GB",
            f"{seconds['fastlog']} s",
            f"DuckDB {seconds['duckdb']} s; polars {seconds['polars']} s",
            reading,
        ),
        (
            "a list of 1,000 runs",
            f"{listed['cached']['read_s']['median'] * 1e3:.0f} ms",
            f"the first time {listed['cold']['read_s']['median'] * 1e3:.0f} ms",
            runs,
        ),
        (
            f"a report of {report['steps']:,} steps and eight metrics: written, opened",
            f"{report['write_s']:.1f} s, {report['ready_s'] * 1e3:.0f} ms",
            f"{report['bytes'] / 1e6:.1f} MB",
            pages,
        ),
    ]
    head = ["what", "takes", "beside it", "measured"]
    return table(head, [[what, takes, beside, where(of)] for what, takes, beside, of in rows])


def comparison() -> str:
    """Return the table of docs/peers.md: what a step costs with each peer."""
    section = result("calls")["calls"]
    call, done = medians(section, "call_ns"), medians(section, "complete_ns")
    cold = medians(result("cold")["peers"], "cold_ns", 1e3)
    rows = [
        [
            NAMES[peer],
            ", ".join(" ".join(each) for each in section[peer]["versions"].items()) or "-",
            call[peer],
            cold.get(peer, "-"),
            done[peer],
        ]
        for peer in sorted(NAMES.keys() & call.keys(), key=lambda each: _median(section[each]))
    ]
    head = [
        "a step with four floats",
        "versions",
        "call, ns",
        "call with cold caches, us",
        "until complete in its file, ns",
    ]
    measured = f"Calls: {where(result('calls'))}. Cold caches: {where(result('cold'))}."
    return f"{table(head, rows)}\n\n{measured}"


def _median(row: dict[str, Any]) -> float:
    return float(row["call_ns"]["median"])


def publish_digest() -> None:
    """Write the tables into the pages."""
    write(PERFORMANCE, "glance", f"\n{glance()}\n")
    write(COMPARISON, "comparison", f"\n{comparison()}\n")


if __name__ == "__main__":
    publish_digest()
