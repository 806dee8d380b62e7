"""Identifies the machine, which decides between a check and a rehearsal for the whole run."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.gpu.check.machines import no_gpu
from benchmarks.gpu.check.report import BROKEN, Report

NAME = "machine"
DEVICES = Path("/dev")
HIDDEN = ("", "-1")
"""Values of CUDA_VISIBLE_DEVICES that ask for a run without a GPU."""


def unused() -> str:
    """Return the device file of an NVIDIA GPU that is not hidden from this process, or ""."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in HIDDEN:
        return ""
    return next((str(path) for path in sorted(DEVICES.glob("nvidia[0-9]*"))), "")


def run(report: Report) -> None:
    """Report which GPU this is, or why none can be used."""
    expects = "torch sees this machine's NVIDIA GPU, if it has one"
    with report.attempt(NAME, expects=expects):
        if why := no_gpu():
            if path := unused():
                # A run on a GPU that torch cannot use proves nothing, and must not look good.
                why = f"{why}, but there is {path}; set CUDA_VISIBLE_DEVICES= for a rehearsal"
                report.add(NAME, BROKEN, expects=expects, why=why, why_none=why)
            else:
                report.needs_gpu(NAME, why, expects=expects, why_none=why)
            return
        from benchmarks.gpu.target import Target

        found = Target("cuda").facts()
        report.judge(
            NAME,
            "",
            expects=expects,
            shows=f"{found['name']}, torch {found['torch']}",
            gpu=found["name"],
            driver=found.get("driver_version"),
            torch=found["torch"],
            facts=found,
        )
