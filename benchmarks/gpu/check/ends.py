"""Exit while the device is busy, and some records under the sanitizer."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.check import judge
from benchmarks.gpu.check.lines import read_lines
from benchmarks.gpu.check.lives import live
from benchmarks.gpu.check.report import OK, SHORT, Report
from benchmarks.gpu.check.runner import LIMIT

EXIT_LIMIT_S = 25.0
SANITIZER_LIMIT_S = 70.0
LEFT_S = 8.0
"""Seconds of the part's time reserved for the work after the sanitizer."""


def sanitizer() -> str | None:
    """Return the path of compute-sanitizer: on PATH, or in a toolkit."""
    found = shutil.which("compute-sanitizer")
    places = sorted(Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))
    return found or (str(places[-1]) if places else None)


def busy_exit(lines: list[dict[str, Any]]) -> str:
    """Judge the lines of a process that ended while its device was busy."""
    if why := judge.values(lines, {0: 1.5}, "v"):
        return why
    last = next((line for line in lines if line["step"] == 1), {})
    if last.get("metrics") != {"v": None, "lr": 0.1}:
        return f"not the float alone: {last or 'no line'}"
    # Were it there, the device would not have been busy: nothing was tested.
    reasons = last.get("missing")
    return "" if reasons == {"v": "timeout"} else f"missing: {reasons}, not by timeout"


def memcheck(tool: str) -> tuple[str, ...]:
    """Return the command to prefix a script with.

    Failed driver API calls are not memory errors: torch makes some when it looks for optional
    functions.
    """
    options = ("--tool", "memcheck", "--report-api-errors", "no")
    return (tool, *options, "--error-exitcode", str(judge.SANITIZER_ERROR))


def run(report: Report) -> None:
    """End a process while the device is busy; check twenty records with the sanitizer."""
    begun = time.monotonic()
    expects = "the process ends by itself; the CPU values are in the file"
    with report.attempt("exit", expects=expects), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "run"
        ended = live("exit_busy", path, EXIT_LIMIT_S, {})
        lines = read_lines(path)
        why = judge.ended(ended.status, ended.seconds, EXIT_LIMIT_S)
        why = why or busy_exit(lines)
        report.judge(
            "exit",
            why,
            expects=expects,
            shows=f"{ended.seconds:.1f} s, missing {judge.missing(lines)}",
            status=ended.status,
            seconds=ended.seconds,
            lines=lines,
        )
    expects = "compute-sanitizer's memcheck finds no error in twenty records"
    tool = sanitizer()
    if report.rehearsal:
        report.needs_gpu("sanitizer", "there is no device to check", expects=expects)
        return
    if tool is None:
        report.not_judged("sanitizer", "no compute-sanitizer here", expects=expects)
        return
    with report.attempt("sanitizer", expects=expects), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "run"
        # Then every tensor is a separate allocation, whose bounds are checked.
        whole = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        left = float(os.environ.get(LIMIT, "inf")) - (time.monotonic() - begun) - LEFT_S
        limit_s = max(1.0, min(SANITIZER_LIMIT_S, left))
        ended = live("twenty_records", path, limit_s, whole, *memcheck(tool))
        verdict, why = judge.sanitized(ended.status, ended.output, limit_s)
        if verdict == OK:
            why = judge.values(read_lines(path), {i: i + 1.0 for i in range(20)}, "vw")
            verdict = SHORT if why else OK
        shows = f"{ended.seconds:.0f} s"
        report.add("sanitizer", verdict, expects=expects, shows=shows, why=why)
