"""Exit while the device is busy, and the sanitizer's opinion of some records."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from benchmarks.gpu.check import judge
from benchmarks.gpu.check.lines import read_lines
from benchmarks.gpu.check.lives import live
from benchmarks.gpu.check.report import Report

EXIT_LIMIT_S = 25.0
SANITIZER_LIMIT_S = 45.0


def sanitizer() -> str | None:
    """Return compute-sanitizer's path: on PATH, or in a toolkit."""
    found = shutil.which("compute-sanitizer")
    places = sorted(Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))
    return found or (str(places[-1]) if places else None)


def run(report: Report) -> None:
    """End a process behind a busy device; sanitize twenty records."""
    expects = "the process ends by itself; what was on the CPU is in the file"
    with report.attempt("exit", expects=expects), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "run"
        ended = live("exit_busy", path, EXIT_LIMIT_S, {})
        lines = read_lines(path)
        why = judge.ended(ended.status, ended.seconds, EXIT_LIMIT_S)
        why = why or judge.values(lines, {0: 1.5, 1: 1.5}, "v")
        if not why and lines[1]["metrics"].get("lr") != 0.1:
            why = f"the line lost its float: {lines[1]}"
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
    if report.rehearsal or tool is None:
        why = "there is no device to check" if report.rehearsal else "no compute-sanitizer here"
        report.needs_gpu("sanitizer", why, expects=expects)
        return
    with report.attempt("sanitizer", expects=expects), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "run"
        # Every tensor is an allocation of its own then, whose bounds are checked.
        whole = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        wrapper = (tool, "--tool", "memcheck", "--error-exitcode", "99")
        ended = live("twenty_records", path, SANITIZER_LIMIT_S, whole, *wrapper)
        summary = re.findall(r"ERROR SUMMARY: (\d+) error", ended.output)
        why = judge.ended(ended.status, ended.seconds, SANITIZER_LIMIT_S)
        why = why or ("" if summary == ["0"] else f"its summary: {summary or 'none'}")
        why = why or judge.values(read_lines(path), {i: i + 1.0 for i in range(20)}, "v")
        report.judge("sanitizer", why, expects=expects, shows=f"{ended.seconds:.0f} s, no error")
