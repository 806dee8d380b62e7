"""Set-up from a plain checkout: packages from wheels, and the extension built in place."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.check import build
from benchmarks.gpu.check.report import Report
from benchmarks.machine import ROOT

FROM_WHEELS = ("orjson", "pydantic")
NEEDED = ("torch", "numpy", "pytest", "pybind11", *FROM_WHEELS)
SAID = 500


def missing(names: tuple[str, ...]) -> list[str]:
    """Return the packages that Python does not find."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def install_wheels(report: Report, folder: Path, site: Path) -> None:
    """Install missing packages from a folder of wheels, outside Python's own folders.

    pip picks the wheels that fit this Python, and their dependencies.
    """
    name, expects = "wheels", "pip finds the missing packages and their dependencies in the folder"
    with report.attempt(name, expects=expects):
        wanted = missing(FROM_WHEELS)
        if not wanted:
            report.judge(name, "", expects=expects, shows="nothing was missing")
            return
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        pip += ["--no-index", "--find-links", str(folder), "--no-compile", "--target", str(site)]
        command = [*pip, *wanted]
        print("$", *command, flush=True)
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
        said = (done.stdout + done.stderr).strip()
        print(said, flush=True)
        if done.returncode:
            raise RuntimeError(f"pip, exit status {done.returncode}: {said[-SAID:]}")
        importlib.invalidate_caches()
        report.judge(name, "", expects=expects, shows=f"installed {', '.join(wanted)}")


def run(report: Report) -> None:
    """Prepare everything for the other parts."""
    if wheels := os.environ.get("GPU_CHECK_WHEELS"):
        install_wheels(report, Path(wheels), Path(os.environ["GPU_CHECK_SITE"]))
    expects = (
        "Python has the packages for building, recording and testing; WHEELS=DIR adds the rest"
    )
    with report.attempt("packages", expects=expects):
        if lacking := missing(NEEDED):
            raise ImportError(f"missing: {', '.join(lacking)}")
        for name in FROM_WHEELS:
            importlib.import_module(name)  # present, and built for this Python
        report.judge("packages", "", expects=expects)
    expects = "the extension compiles"
    with report.attempt("build", expects=expects):
        known = build.is_current()
        if not known:
            build.build()
        report.judge("build", "", expects=expects, shows="was current" if known else "built")
