"""Host cost of driver calls, in C: with nothing queued, and behind a long kernel."""

from __future__ import annotations

import ctypes
import tempfile
from ctypes import c_float, c_int, c_longlong, c_ulonglong, c_void_p
from pathlib import Path

from benchmarks.gpu.bare import BareCopyError, build
from benchmarks.gpu.check import judge
from benchmarks.gpu.check.machines import Machine, find
from benchmarks.gpu.check.report import Report
from benchmarks.summary import median

SOURCE = Path(__file__).with_name("micro.c")
CALLS = ("get current", "is capturing", "copy", "event record", "event create", "event query")
ALLOCATE = "host alloc 256K"
BURST, BURSTS = 128, 30
"""A burst is well below the driver's queue of some thousand entries."""
KERNEL_S = 1.0
VALUE = 1.5


class Micro:
    """The loaded helper."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        """Build and open it."""
        self.machine = machine
        library = ctypes.CDLL(str(build(directory, SOURCE)))
        self.call = library.micro_time
        self.call.restype = c_longlong
        self.call.argtypes = [c_int, c_int, c_ulonglong, c_void_p]
        self.wrong = library.micro_wrong
        self.wrong.argtypes = [c_int, c_float]
        library.micro_open.argtypes = [ctypes.c_char_p]
        if code := library.micro_open(machine.library.encode()):
            raise BareCopyError(f"micro_open({machine.library}) returned {code}")
        self.stream = machine.stream()
        self.value = machine.scalar(VALUE)
        machine.synchronize()

    def ns(self, name: str, times: int) -> float:
        """Repeat a call; return the nanoseconds per call."""
        number = [*CALLS, ALLOCATE].index(name)
        handle = c_void_p(self.machine.handle(self.stream))
        spent = self.call(number, times, self.value.data_ptr(), handle)
        if spent < 0:
            raise BareCopyError(f"{name} returned {-spent}")
        return float(spent) / times

    def idle(self) -> dict[str, float]:
        """Return the median of each call with nothing queued, in nanoseconds."""
        samples: dict[str, list[float]] = {name: [] for name in CALLS}
        for number in range(BURSTS + 2):
            for name, found in samples.items():
                self.machine.synchronize()
                spent = self.ns(name, BURST)
                if number >= 2:  # the first ones are warm-up
                    found.append(spent)
        self.machine.synchronize()
        # A copy that copies nothing takes no time.
        if wrong := self.wrong(BURST, VALUE):
            raise BareCopyError(f"{wrong} of {BURST} copies copied no value")
        medians = {name: median(each) for name, each in samples.items()}
        return {**medians, ALLOCATE: self.ns(ALLOCATE, 1)}

    def behind(self) -> tuple[dict[str, float], dict[str, bool]]:
        """Return each call's time behind a kernel, in ms, and whether the kernel still ran."""
        ms, busy = {}, {}
        for name in (*CALLS, ALLOCATE):
            self.machine.synchronize()
            with self.machine.on(self.stream):
                self.machine.keep_busy(KERNEL_S)
                ms[name] = self.ns(name, 1) / 1e6
                busy[name] = self.machine.busy()
        self.machine.synchronize()
        return ms, busy


def run(report: Report) -> None:
    """Measure both."""
    machine = find()
    with tempfile.TemporaryDirectory() as scratch:
        micro = Micro(machine, Path(scratch))
        expects = "the driver's own calls for a record of four scalars take less than 1 % of 5 ms"
        with report.attempt("nothing queued", expects=expects):
            ns = micro.idle()
            report.judge_times(
                "nothing queued",
                judge.driver_floor(ns),
                expects=expects,
                shows="ns: " + ", ".join(f"{name} {value:.0f}" for name, value in ns.items()),
                ns=ns,
            )
        expects = "no call that a record may make waits for a kernel"
        with report.attempt("behind a kernel", expects=expects):
            ms, busy = micro.behind()
            alloc_ms, alloc_busy = ms.pop(ALLOCATE), busy.pop(ALLOCATE)
            report.judge_times(
                "behind a kernel",
                judge.behind_kernel(ms, busy),
                expects=expects,
                shows="ms: " + ", ".join(f"{name} {value:.3f}" for name, value in ms.items()),
                ms=ms,
                still_busy=busy,
                kernel_s=KERNEL_S,
            )
            # A fact, not a fault: if it waits, it must be made before the device is busy.
            waits, unknown = judge.allocation(alloc_ms, busy=alloc_busy, kernel_ms=KERNEL_S * 1e3)
            report.judge_times(
                "allocation behind a kernel",
                unknown,
                expects="it is known whether page-locked memory can be allocated behind a kernel",
                shows=f"{ALLOCATE}: {alloc_ms:.3f} ms, {'WAITS' if waits else 'does not wait'}",
                ms=alloc_ms,
                waits=waits,
            )
