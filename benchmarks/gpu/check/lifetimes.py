"""Memory that is freed, reused or unmapped while a recorded value's copy is in flight."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.check import judge
from benchmarks.gpu.check.lines import read_lines
from benchmarks.gpu.check.lives import live
from benchmarks.gpu.check.report import Report

EXPANDABLE = "expandable_segments:True"
# Function, steps, judgement and environment of each case.
CASES: dict[str, tuple[str, int, Callable[[Any], str], dict[str, str]]] = {
    "other stream": ("other_stream", 8, judge.reused, {}),
    "unmapped": (
        "unmapped",
        4,
        judge.unmapped,
        # The variable's name, before and since torch 2.9.
        {"PYTORCH_CUDA_ALLOC_CONF": EXPANDABLE, "PYTORCH_ALLOC_CONF": EXPANDABLE},
    ),
}
LIMIT_S = 25.0


def run(report: Report) -> None:
    """Run each case in its own process, which a fault may end."""
    expects = "each value is that of the call although its memory was reused; the process continues"
    for name, (function, count, shown, environment) in CASES.items():
        if report.rehearsal:
            report.needs_gpu(name, "the caching allocator is torch's on a GPU", expects=expects)
            continue
        with report.attempt(name, expects=expects), tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "run"
            ended = live(function, path, LIMIT_S, environment)
            lines = read_lines(path)
            why = judge.ended(ended.status, ended.seconds, LIMIT_S)
            why = why or judge.values(lines, {step: step + 0.5 for step in range(count)}, "v")
            facts = ended.facts()
            if not why and facts.get("expandable") is False:
                why = "this torch has no expandable segments here"
                report.not_judged(name, why, expects=expects, facts=facts)
                continue
            why = why or (shown(facts) if facts else "it printed no facts")
            report.judge(
                name,
                why,
                expects=expects,
                shows=", ".join(f"{key} {value}" for key, value in facts.items()),
                facts=facts,
                missing=judge.missing(lines),
                lines=lines[-count:],
            )
