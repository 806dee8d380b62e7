"""The quick benchmark: its page is written next to the figures; its goals are findings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu.__main__ import PARTIAL
from benchmarks.gpu.check.leftovers import end_leftovers
from benchmarks.gpu.check.report import BROKEN, OK, Report
from benchmarks.gpu.check.runner import LIMIT, ending
from benchmarks.machine import ROOT

ARMS = ("none", "none_again", "bare", "fastlog", "fastlog_item")
LEFT_S = 8.0
"""Seconds of the part's time reserved for the work after the benchmark."""


def run_benchmark(command: list[str]) -> str:
    """Run it, ending it before this part's time is up; return what was wrong with its end."""
    limit_s = max(1.0, float(os.environ.get(LIMIT, "inf")) - LEFT_S)
    try:
        return ending(subprocess.run(command, check=False, cwd=ROOT, timeout=limit_s).returncode)
    except subprocess.TimeoutExpired:
        end_leftovers()
        return f"cut off after {limit_s:.0f} s: the results so far are judged"


def kept(made: Path, out: Path) -> str:
    """Write the page to its place; return what went wrong; the figures are already saved."""
    try:
        shutil.copytree(made, out, dirs_exist_ok=True)
    except OSError as error:
        return f"its page cannot be written: {error}"
    return ""


def run(report: Report) -> None:
    """Run it, or its smoke mode if there is no GPU."""
    options = ["--device", "cpu"] if report.rehearsal else ["--quick"]
    expects = "it finishes, and every output is verified"
    with report.attempt("benchmark", expects=expects), tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "bench"
        command = [sys.executable, "-u", "-m", "benchmarks.gpu", *options, "--out", str(out)]
        why = run_benchmark([*command, "--arms", *ARMS])
        paths = sorted(out.glob("*.json"), key=lambda path: path.name == PARTIAL)
        if not paths:
            raise RuntimeError(why or "it wrote no figures")
        path = paths[0]
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["smoke"] and not report.rehearsal:
            why = why or "it ran without the GPU"
        shows = kept(out, Path(os.environ["GPU_CHECK_OUT"]) / "bench") or path.name
        verdict = BROKEN if why else OK
        report.add("benchmark", verdict, expects=expects, shows=shows, why=why, result=result)
        for goal in result["goals"]:
            name, found = goal["goal"], goal["found"]
            if report.rehearsal:
                report.needs_gpu(name, "a smoke run has no figures", expects=name)
            else:
                why = {True: "", False: found, None: f"not judged: {found}"}[goal["met"]]
                report.judge(name, why, expects=name, shows=found if not why else "")
