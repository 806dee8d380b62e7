"""What the tests on a GPU share: a busy device, driver facts, values read back by step."""

from __future__ import annotations

from typing import Any

from recorded import lines

from benchmarks.gpu.clock import cycles_per_second, keep_busy
from foundry_fastlog import Recorder

__all__ = ["cycles_per_second", "keep_busy"]

FLUSH_S = 60.0
"""Longest wait for values; generous, the machine may be busy."""


def busy() -> bool:
    """Tell whether the current stream has work left."""
    import torch

    return not torch.cuda.current_stream().query()


def flushed(recorder: Recorder) -> None:
    """Wait until all values have arrived and are in the files."""
    assert recorder.flush(timeout=FLUSH_S)


def metrics(recorder: Recorder) -> dict[int, dict[str, Any]]:
    """Flush, and return the metrics of each step, not-finite numbers restored; none is missing."""
    flushed(recorder)
    found: dict[int, dict[str, Any]] = {}
    for line in lines(recorder.path):
        assert "missing" not in line, line
        values = dict(line["metrics"])
        for key, name in line.get("nonfinite", {}).items():
            assert values[key] is None
            values[key] = float(name)
        found.setdefault(line["step"], {}).update(values)
    return found


def device_stats(recorder: Recorder) -> dict[str, int]:
    """Return `stats()["device"]`."""
    stats: dict[str, Any] = {**recorder.stats()}
    found: dict[str, int] = stats["device"]
    return found


def same(left: float | bool, right: float | bool) -> bool:
    """Tell whether two values are the same, of one kind; a NaN is the same as a NaN."""
    both_nan = left != left and right != right
    return isinstance(left, bool) is isinstance(right, bool) and (both_nan or left == right)


# For scripts in processes of their own: what the driver knows of this process.
DRIVER = """
import ctypes

def has_context(index):
    "Tell whether this process has a primary context on a device, without making one."
    cuda = ctypes.CDLL("libcuda.so.1")
    flags, active = ctypes.c_uint(), ctypes.c_int()
    # Not initialized (3) is an answer, too: then there is none.
    error = cuda.cuDevicePrimaryCtxGetState(index, ctypes.byref(flags), ctypes.byref(active))
    assert error in (0, 3), error
    return error == 0 and bool(active.value)
"""
