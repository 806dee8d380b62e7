"""Checks that the driver's functions exist, torch has its table, and a scalar arrives."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import tempfile
from ctypes import byref, c_int
from pathlib import Path

from benchmarks.gpu.check import judge
from benchmarks.gpu.check.lines import flushed
from benchmarks.gpu.check.machines import find
from benchmarks.gpu.check.report import Report
from benchmarks.machine import ROOT

VALUE = 0.625
KERNEL_S = 0.1


def names() -> list[str]:
    """Return the symbols that the recorder looks up, from the table in csrc/device."""
    text = (ROOT / "csrc" / "device" / "driver.cpp").read_text(encoding="utf-8")
    return re.findall(r'\{offsetof\(DriverApi, \w+\),\s*"(\w+)"', text)


def run(report: Report) -> None:
    """Check what everything else depends on."""
    machine = find()
    expects = "each function of the driver table is found by name"
    with report.attempt("driver table", expects=expects):
        library, version = ctypes.CDLL(machine.library), c_int()
        missing = [name for name in names() if not hasattr(library, name)]
        if not machine.fake:
            machine.call("cuDriverGetVersion", byref(version))
        report.judge(
            "driver table",
            f"missing: {', '.join(missing)}" if missing or not names() else "",
            expects=expects,
            shows=f"{len(names())} functions",
            missing=missing,
            driver_api=version.value,
        )
    expects = "the clock settles, so that kernels run for the requested time"
    if not machine.fake:
        with report.attempt("clock", expects=expects):
            from benchmarks.gpu.clock import cycles_per_second, kernel_seconds

            rate = cycles_per_second()
            ran = kernel_seconds(int(rate * KERNEL_S))
            report.judge(
                "clock",
                judge.kernel(KERNEL_S, ran),
                expects=expects,
                shows=f"{rate / 1e6:.0f} MHz",
                mhz=rate / 1e6,
                kernel_s=ran,
            )
    expects = "torch 2.10 and later have DLPack's exchange table, a capsule"
    with report.attempt("exchange table", expects=expects):
        if importlib.util.find_spec("torch") is None:
            report.needs_gpu("exchange table", "torch is not installed", expects=expects)
        else:
            import torch

            kind = type(getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)).__name__
            late = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 10)
            report.judge(
                "exchange table",
                f"it is a {kind}" if late and kind != "PyCapsule" else "",
                expects=expects,
                shows=f"torch {torch.__version__}: {kind}",
                torch=torch.__version__,
                kind=kind,
            )
    expects = "a recorded scalar is in the file with its value, and nothing is missing"
    with report.attempt("one scalar", expects=expects), tempfile.TemporaryDirectory() as scratch:
        from foundry_fastlog import Recorder

        with Recorder(Path(scratch) / "run") as recorder:
            recorder.record(7, v=machine.scalar(VALUE), lr=0.1)
            (line,) = flushed(recorder)
        right = line["metrics"] == {"v": VALUE, "lr": 0.1} and "missing" not in line
        report.judge("one scalar", "" if right else f"{line}", expects=expects, line=line)
