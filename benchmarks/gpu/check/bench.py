"""The quick benchmark: its page goes beside the figures; its goals are findings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.check.report import Report
from benchmarks.gpu.check.runner import ending
from benchmarks.machine import ROOT

ARMS = ("none", "none_again", "bare", "fastlog", "fastlog_item")


def run(report: Report) -> None:
    """Run it, or its smoke mode where there is no GPU."""
    out = Path(os.environ["GPU_CHECK_OUT"]) / "bench"
    options = ["--device", "cpu"] if report.rehearsal else ["--quick"]
    command = [sys.executable, "-u", "-m", "benchmarks.gpu", *options, "--out", str(out)]
    expects = "it runs to its end, and every output is verified"
    with report.attempt("benchmark", expects=expects):
        for old in out.glob("*.json"):
            old.unlink()
        done = subprocess.run([*command, "--arms", *ARMS], check=False, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(ending(done.returncode))
        (path,) = out.glob("*.json")
        result = json.loads(path.read_text(encoding="utf-8"))
        report.judge("benchmark", "", expects=expects, shows=path.name, result=result)
        for goal in result["goals"]:
            name, found = goal["goal"], goal["found"]
            if report.rehearsal:
                report.needs_gpu(name, "a smoke run has no figures", expects=name)
            else:
                why = {True: "", False: found, None: f"not judged: {found}"}[goal["met"]]
                report.judge(name, why, expects=name, shows=found if not why else "")
