"""Set-up from a plain checkout: packages from wheels, the extension built in place, the machine."""

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

NEEDED = ("torch", "numpy", "pytest", "pybind11", "orjson", "pydantic")


def run_command(command: list[str]) -> str:
    """Run a command whose output goes to ours; return what went wrong, or ""."""
    print("$", *command, flush=True)
    status = subprocess.run(command, check=False, cwd=ROOT).returncode
    return f"exit status {status}" if status else ""


def install_wheels(report: Report, folder: Path, site: Path) -> None:
    """Install a folder's wheels beside Python, not into it."""
    name, expects = "wheels", "pip installs each wheel of the folder into a temporary one"
    with report.attempt(name, expects=expects):
        wheels = sorted(str(path) for path in folder.glob("*.whl"))
        if not wheels:
            raise FileNotFoundError(f"no wheel in {folder}")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        pip += ["--no-index", "--no-deps", "--no-compile", "--target", str(site)]
        why = run_command([*pip, *wheels])
        if why:
            raise RuntimeError(f"pip: {why}")
        report.judge(name, "", expects=expects, shows=f"{len(wheels)} wheels")


def machine(report: Report) -> None:
    """Say which GPU this is, or why there is none to use."""
    expects = "a CUDA build of torch sees an NVIDIA GPU"
    with report.attempt("machine", expects=expects):
        import torch

        from benchmarks.gpu.check.machines import no_gpu
        from benchmarks.gpu.target import Target

        if why := no_gpu():
            report.needs_gpu("machine", why, expects=expects, torch=torch.__version__, why_none=why)
            return
        found = Target("cuda").facts()
        report.judge(
            "machine",
            "",
            expects=expects,
            shows=f"{found['name']}, torch {found['torch']}",
            gpu=found["name"],
            driver=found.get("driver_version"),
            torch=found["torch"],
            facts=found,
        )


def run(report: Report) -> None:
    """Prepare what the other parts need."""
    site = Path(os.environ["GPU_CHECK_SITE"])
    if wheels := os.environ.get("GPU_CHECK_WHEELS"):
        install_wheels(report, Path(wheels), site)
        importlib.invalidate_caches()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    expects = "Python has what building, recording and testing need; WHEELS=DIR brings the rest"
    with report.attempt("packages", expects=expects):
        if missing:
            raise ImportError(f"missing: {', '.join(missing)}")
        report.judge("packages", "", expects=expects)
    machine(report)
    expects = "the extension compiles"
    with report.attempt("build", expects=expects):
        known = build.is_current()
        if not known:
            build.build()
        report.judge("build", "", expects=expects, shows="was current" if known else "built")
