"""What machine this is: it decides, for the whole run, between a check and a rehearsal."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.gpu.check.machines import no_gpu
from benchmarks.gpu.check.report import BROKEN, Report

NAME = "machine"
DEVICES = Path("/dev")
HIDDEN = ("", "-1")
"""Values of CUDA_VISIBLE_DEVICES that say: without a GPU, please."""


def unused() -> str:
    """Return the device file of an NVIDIA GPU that nobody has hidden from this process, or ""."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in HIDDEN:
        return ""
    return next((str(path) for path in sorted(DEVICES.glob("nvidia[0-9]*"))), "")


def run(report: Report) -> None:
    """Say which GPU this is, or why there is none to use."""
    expects = "torch sees the NVIDIA GPU of this machine, where it has one"
    with report.attempt(NAME, expects=expects):
        if why := no_gpu():
            if path := unused():
                # A run on a GPU that torch cannot use proves nothing, and must not look well.
                why = f"{why}, but there is {path}; with CUDA_VISIBLE_DEVICES= all is rehearsed"
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
