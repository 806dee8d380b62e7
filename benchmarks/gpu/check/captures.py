"""Driver calls that another thread may make while a graph is captured in global mode."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from ctypes import byref, c_float, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path
from typing import Any

from benchmarks.gpu.check import judge
from benchmarks.gpu.check.lines import flushed
from benchmarks.gpu.check.machines import Machine, address_of, find
from benchmarks.gpu.check.report import Report

GLOBAL, RELAXED = 0, 2
PORTABLE, DISABLE_TIMING = 1, 2
VALUE = 2.5


class Calls:
    """The calls of the matrix; everything they need is created before any capture."""

    def __init__(self, machine: Machine) -> None:
        """Create memory, a value, a stream, and an event for each call that consumes one."""
        self.machine = machine
        self.side = machine.stream()
        self.value = machine.scalar(VALUE)
        self.memory = c_void_p()
        self.do("cuMemHostAlloc", byref(self.memory), c_size_t(64), c_uint(PORTABLE))
        self.events = [c_void_p() for _ in range(3)]
        for event in self.events:
            self.do("cuEventCreate", byref(event), c_uint(DISABLE_TIMING))
        self.do("cuEventRecord", self.events[0], self.stream())
        machine.synchronize()

    def copied(self) -> float:
        """Return the copied value."""
        return c_float.from_address(self.memory.value or 0).value

    def do(self, name: str, *arguments: Any) -> None:
        """Make a call that must succeed."""
        if code := self.machine.call(name, *arguments):
            raise RuntimeError(f"{name} returned {code}")

    def stream(self) -> c_void_p:
        """Return the side stream's handle."""
        return c_void_p(self.machine.handle(self.side))

    def matrix(self) -> dict[str, Callable[[], int]]:
        """Return the calls by name; each returns its code."""
        call, memory, null = self.machine.call, self.memory, c_void_p(0)
        address, four = address_of(self.value), c_size_t(4)
        recorded, gone = self.events[0], list(self.events[1:])
        new, context = c_void_p(), c_void_p()
        return {
            "copy": lambda: call("cuMemcpyDtoHAsync_v2", memory, address, four, self.stream()),
            "copy on NULL": lambda: call("cuMemcpyDtoHAsync_v2", memory, address, four, null),
            "event record": lambda: call("cuEventRecord", recorded, self.stream()),
            "event record on NULL": lambda: call("cuEventRecord", recorded, null),
            "event query": lambda: call("cuEventQuery", recorded),
            "event create": lambda: call("cuEventCreate", byref(new), c_uint(DISABLE_TIMING)),
            "event destroy": lambda: call("cuEventDestroy_v2", gone.pop()),
            "host alloc": lambda: call("cuMemHostAlloc", byref(new), c_size_t(64), c_uint(1)),
            "context retain": lambda: call("cuDevicePrimaryCtxRetain", byref(context), c_int(0)),
        }


def in_thread(work: Callable[[], Any]) -> Any:
    """Run in a fresh thread, whose capture mode is the default; return its result or raise."""
    answers: list[Any] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            answers.append(work())
        except BaseException as error:  # noqa: BLE001 - re-raised in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]


def probe(machine: Machine, call: Callable[[], int], *, relaxed: bool) -> int:
    """Make one call in a separate thread."""

    def work() -> int:
        machine.enter()
        if relaxed:
            mode = c_int(RELAXED)
            machine.call("cuThreadExchangeStreamCaptureMode", byref(mode))
        return call()

    return int(in_thread(work))


def measured(machine: Machine) -> tuple[list[dict[str, Any]], int]:
    """Make each call in each mode during a capture.

    Returns:
        A row per call (its code, and whether the capture stayed valid), and the number of calls.

    Raises:
        RuntimeError: The copies, whatever their codes, copied no value.
    """
    calls = Calls(machine)
    captured = machine.stream()
    rows = []
    for mode in ("default", "relaxed"):
        for name, call in calls.matrix().items() if mode == "default" else again(calls):
            machine.synchronize()
            machine.begin_capture(captured, GLOBAL)
            code = probe(machine, call, relaxed=mode == "relaxed")
            rows.append(
                {"call": name, "mode": mode, "code": code, "valid": machine.end_capture(captured)}
            )
    machine.synchronize()
    if calls.copied() != VALUE:
        raise RuntimeError(f"the copies returned {calls.copied()}, not {VALUE}")
    return rows, len(calls.matrix())


def again(calls: Calls) -> list[tuple[str, Callable[[], int]]]:
    """Return the calls whose event to destroy still exists."""
    calls.events = [calls.events[0], calls.events[1]]
    return list(calls.matrix().items())


def record_beside(machine: Machine) -> tuple[list[dict[str, Any]], bool]:
    """Record in one thread while another one captures.

    Returns:
        The lines, and whether the capture was valid to its end.
    """
    from foundry_fastlog import Recorder

    captured, side = machine.stream(), machine.stream()
    value = machine.scalar(3.5)
    machine.synchronize()
    with tempfile.TemporaryDirectory() as scratch, Recorder(Path(scratch) / "run") as recorder:
        machine.begin_capture(captured, GLOBAL)

        def work() -> None:
            machine.enter()
            with machine.on(side):
                for step in range(20):
                    recorder.record(step, v=value)

        try:
            in_thread(work)
            lines = flushed(recorder)
        finally:
            valid = machine.end_capture(captured)
    return lines, valid


def run(report: Report) -> None:
    """Measure the matrix, and record during a capture."""
    machine = find()
    expects = "in relaxed mode every call succeeds, and the other thread's capture stays valid"
    with report.attempt("matrix", expects=expects):
        rows, calls = measured(machine)
        refused = judge.default_matrix(rows)
        shows = f"refused in the default mode: {', '.join(refused) or 'nothing'}"
        if judge.needs_relaxed(refused):
            shows += "; SENDING NEEDS THE RELAXED MODE TOO"
        why = judge.relaxed_matrix(rows, calls)
        report.judge("matrix", why, expects=expects, shows=shows, rows=rows)
    expects = "20 records during a capture, including the process's first, and both are right"
    with report.attempt("record during a capture", expects=expects):
        lines, valid = record_beside(machine)
        why = judge.values(lines, dict.fromkeys(range(20), 3.5), "v")
        report.judge(
            "record during a capture",
            why or ("" if valid else "the capture was ended"),
            expects=expects,
            missing=judge.missing(lines),
            valid=valid,
        )
