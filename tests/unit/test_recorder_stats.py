"""stats(): what the recorder says about itself, and the sums that always hold."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded import in_threads, lines, segments

from foundry_fastlog import ExperimentLogging, Recorder, read_run

KEYS = {
    *("calls", "accepted", "dropped", "written", "bytes_written", "blocked_s", "record_ns"),
    *("timer_ns", "record_calls", "timer_calls", "event_calls", "logging_s", "overhead_fraction"),
    *("wall_s", "flush_cpu_s", "ring_bytes", "ring_path", "ring_high_water_bytes", "errors"),
    *("first_error", "last_error", "key_sets", "left_out", "streams", "device"),
}
SMALL = 64 << 10


def check_sums(recorder: Recorder, run: Path) -> Any:
    """Check the sums of a closed recorder against each other and the files; return the stats."""
    stats = recorder.stats()
    assert stats["calls"] == stats["accepted"] + stats["dropped"]
    assert stats["calls"] == stats["record_calls"] + stats["timer_calls"] + stats["event_calls"]
    assert stats["written"] == stats["accepted"]
    streams = stats["streams"]
    totals: dict[Any, Any] = {"written": "written", "dropped": "dropped", "bytes": "bytes_written"}
    for counter, total in totals.items():
        assert sum(stream[counter] for stream in streams.values()) == stats[total]
    for name, stream in streams.items():
        files = segments(run, name, recorder.label)
        found = lines(run, name, recorder.label)
        assert stream["written"] == sum("dropped" not in line for line in found)
        assert stream["dropped"] == sum(line.get("dropped", 0) for line in found)
        assert stream["bytes"] == sum(path.stat().st_size for path in files)
        assert stream["segments"] == len(files)
    return stats


def test_before_the_first_record(tmp_path: Path) -> None:
    """All is 0; the size of the ring is rounded up."""
    with Recorder(tmp_path, ring_bytes=(4 << 20) + 1) as recorder:
        stats: dict[str, Any] = {**recorder.stats()}
    assert set(stats) == KEYS
    assert set(stats.pop("streams")) == {"metrics", "performance", "errors", "log", "system"}
    assert stats.pop("ring_bytes") == 8 << 20
    assert stats.pop("ring_path").startswith(str(tmp_path / ".fastlog"))
    assert (stats.pop("first_error"), stats.pop("last_error")) == (None, None)
    del stats["flush_cpu_s"], stats["device"]  # the second of the whole process
    assert stats == dict.fromkeys(stats, 0)


def test_sums(tmp_path: Path) -> None:
    """Calls by kind, written lines and bytes by stream; one that raises is no attempt."""
    with Recorder(tmp_path) as recorder:
        for wrong in ([], 2**64, {}):
            with pytest.raises((TypeError, OverflowError)):
                recorder.record(0, x=wrong)
        for step in range(10):
            recorder.record(step, x=1.0)
        for _ in range(3):
            recorder.log({"x": 1.0})
        with recorder.timer("a"), recorder.timer("b"):
            pass
        recorder.event("m")
        recorder.event("e", error=ValueError())
    stats = check_sums(recorder, tmp_path)
    assert (stats["record_calls"], stats["timer_calls"], stats["event_calls"]) == (13, 2, 2)
    assert stats["key_sets"] == 3  # x, and the timers' names
    assert stats["ring_high_water_bytes"] > 0
    assert stats["errors"] == 0


def test_sampled_times(tmp_path: Path) -> None:
    """After some hundred calls the mean times are known, and logging_s is made of them."""
    with Recorder(tmp_path, overhead_budget=1) as recorder:
        for step in range(1_000):
            with recorder.timer("t"):
                recorder.record(step, x=1.0)
        assert recorder.flush()
        stats = recorder.stats()
    assert 1 < stats["record_ns"] < 1e9
    assert 1 < stats["timer_ns"] < 1e9
    assert stats["blocked_s"] == 0
    assert 0 < stats["logging_s"] < stats["wall_s"]
    assert stats["overhead_fraction"] == pytest.approx(stats["logging_s"] / stats["wall_s"])
    assert 0 < recorder.stats()["flush_cpu_s"] < 60


class Slow:
    """A value that takes its time to become a text."""

    def __str__(self) -> str:
        time.sleep(SLEEP_S)
        return "slow"


SLEEP_S = 0.02
WAYS: dict[str, Callable[[Any], object]] = {
    "message": lambda logs: logs.logger("x").info("m", value=Slow()),
    "stdlib": lambda logs: logging.getLogger(f"{logs.logger('x').name}").info("%s", Slow()),
    "event": lambda logs: logs.recorder.event("m", context={"value": Slow()}),
    "taken": lambda logs: logs.recorder.message("INFO", "x", "m", {"value": Slow()}),
    "error": lambda logs: logs.errors.log_error(ValueError(), {"value": Slow()}),
    "echo": lambda logs: logs.log_step(10, 0, {"loss": 1.0, Slow(): 2.0}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_time_of_python_code_counts(tmp_path: Path, way: str) -> None:
    """All that the package does on the caller's thread, until it is closed; also for readers."""
    with ExperimentLogging("e", directory=tmp_path / "run", stamped=False) as logs:
        before = logs.recorder.stats()["logging_s"]
        WAYS[way](logs)
        taken = logs.recorder.stats()["logging_s"] - before
        assert taken >= SLEEP_S
    stats = logs.recorder.stats()
    with Recorder(tmp_path / "other") as other:
        other.event("m", context={"value": Slow()})
    for _ in range(100):
        with logs.performance.time_block("after"):
            pass
    assert logs.recorder.stats() == stats
    (start,) = read_run(tmp_path / "run").report_starts()
    assert start.logging_s == pytest.approx(stats["logging_s"], abs=1e-6)
    assert start.wall_s == pytest.approx(stats["wall_s"], abs=1e-6)


def test_without_the_native_part_nothing_is_counted() -> None:
    """As before it is loaded: a message is none of a recorder's then."""
    spec = importlib.util.find_spec("foundry_fastlog.base.caller_time")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.begin(), module.end(0)) == (0, None)


def test_wall_time_ends_with_close(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    assert recorder.stats()["wall_s"] == 0
    before = time.perf_counter()
    recorder.record(0, x=1.0)
    recorder.close()
    first = recorder.stats()["wall_s"]
    assert 0 < first <= (time.perf_counter() - before) * 2
    assert recorder.stats()["wall_s"] == first


@pytest.mark.parametrize("back_pressure", ["block", "drop"])
def test_sums_with_threads_and_drops(tmp_path: Path, back_pressure: str) -> None:
    """Threads that record more than the ring holds: nothing is lost without being counted."""
    count, threads = 5_000, 4
    accepted = [0] * threads
    options: dict[str, Any] = {"ring_bytes": SMALL, "block_timeout_s": 60, "segment_bytes": 100_000}

    def work(thread: int) -> None:
        for n in range(count):
            accepted[thread] += recorder.record(n, thread=thread, note="x" * 100)
            accepted[thread] += recorder.event("e", context={"thread": thread, "n": n})

    with Recorder(tmp_path, back_pressure=back_pressure, **options) as recorder:
        in_threads(work, threads)
    stats = check_sums(recorder, tmp_path)
    assert stats["calls"] == 2 * count * threads
    assert stats["accepted"] == sum(accepted)
    assert stats["blocked_s"] >= 0
    assert back_pressure == "drop" or stats["dropped"] == 0
    for thread in range(threads):
        own = [line for line in lines(tmp_path) if "metrics" in line]
        found = [line["step"] for line in own if line["metrics"]["thread"] == thread]
        assert found == sorted(set(found))


def test_markers_of_several_streams(tmp_path: Path) -> None:
    """Every stream marks its own drops; at close() the marker is the last line."""
    with Recorder(tmp_path, ring_bytes=SMALL) as recorder:
        with recorder.timer("t" * 2_000_000):  # fits neither the table of names nor the ring
            pass
        assert not recorder.record(0, note="x" * SMALL)
    stats = check_sums(recorder, tmp_path)
    for stream in ("metrics", "performance"):
        assert stats["streams"][stream]["dropped"] == 1
        assert [line["dropped"] for line in lines(tmp_path, stream)] == [1]


def test_budget_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Logging that takes more than its budget says so once, with figures."""
    deadline = time.monotonic() + 60
    with (
        caplog.at_level(logging.WARNING, "foundry_fastlog"),
        Recorder(tmp_path, overhead_budget=0, segment_bytes=1 << 50) as recorder,
    ):
        step = 0
        while not caplog.messages:  # it comes after five seconds of figures
            recorder.record(step, x=1.0)
            step += 1
            time.sleep(0.001)
            assert time.monotonic() < deadline
    (message,) = caplog.messages
    for part in ("% of wall time", "over the budget of 0.00 %", "overhead_budget"):
        assert part in message
