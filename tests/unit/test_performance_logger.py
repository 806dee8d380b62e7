"""PerformanceLogger: blocks, their statistics, messages and lines, memory, reports."""

from __future__ import annotations

import asyncio
import json
import logging
import mmap
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from recorded import lines

from foundry_fastlog import PerformanceLogger, Recorder
from foundry_fastlog.components import performance
from foundry_fastlog.components.performance import MAX_NAMES, OTHER, rss_bytes

LOGGER = logging.getLogger("test.performance")
KEYS = {"count", "mean", "std", "min", "max", "total", "p50", "p95", "p99"}


@pytest.fixture
def perf() -> PerformanceLogger:
    """Without a recorder."""
    return PerformanceLogger(LOGGER)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that blocks read: what is in the list, the last number again and again."""
    times = [0.0]
    monkeypatch.setattr(
        performance, "perf_counter", lambda: times.pop(0) if len(times) > 1 else times[0]
    )
    return times


def spend(perf: PerformanceLogger, name: str, seconds: float, clock: list[float]) -> None:
    """Run a block that takes so long by the clock."""
    clock[:] = [0.0, seconds]
    with perf.time_block(name):
        pass


def test_a_block_is_measured(perf: PerformanceLogger) -> None:
    """By a real clock; the block itself tells, too."""
    with perf.time_block("sleep") as block:
        assert block.elapsed == 0.0
        time.sleep(0.01)
    assert list(perf.timers) == ["sleep"]
    assert perf.timers["sleep"][0] == block.elapsed >= 0.01


def test_the_message(
    perf: PerformanceLogger, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG or the level that was asked for; with the place of the block."""
    with caplog.at_level(logging.DEBUG, LOGGER.name):
        spend(perf, "forward_pass", 0.02344, clock)
        with perf.time_block("load", logging.WARNING):
            pass
    first, second = caplog.records
    assert first.getMessage() == "forward_pass completed in 0.0234s"
    assert (first.levelname, second.levelname) == ("DEBUG", "WARNING")
    assert first.filename == second.filename == Path(__file__).name


def test_no_message_below_the_level(
    perf: PerformanceLogger, caplog: pytest.LogCaptureFixture
) -> None:
    """The time is kept all the same."""
    with caplog.at_level(logging.INFO, LOGGER.name), perf.time_block("a"):
        pass
    assert caplog.records == []
    assert len(perf.timers["a"]) == 1


def test_an_exception_goes_on(perf: PerformanceLogger, caplog: pytest.LogCaptureFixture) -> None:
    """The block is timed, and its message says how it ended."""
    with (
        caplog.at_level(logging.DEBUG, LOGGER.name),
        pytest.raises(ValueError, match="x"),
        perf.time_block("failing"),
    ):
        raise ValueError("x")
    assert caplog.records[0].getMessage().endswith("s (raised ValueError)")
    assert len(perf.timers["failing"]) == 1


def test_nesting_and_recursion(perf: PerformanceLogger) -> None:
    """An outer block takes at least as long as the inner ones."""

    def descend(depth: int) -> None:
        with perf.time_block("level"):
            if depth:
                descend(depth - 1)

    with perf.time_block("outer"):
        descend(3)
    times = list(perf.timers["level"])
    assert times == sorted(times)
    assert perf.timers["outer"][0] >= times[-1]


def test_as_a_decorator(perf: PerformanceLogger) -> None:
    """Each call is a block; functions, generators' callers and coroutines."""

    @perf.time_block("call")
    def double(x: int) -> int:
        """Doc."""
        return 2 * x

    @perf.time_block("await")
    async def triple(x: int) -> int:
        await asyncio.sleep(0)
        return 3 * x

    assert [double(1), double(2)] == [2, 4]
    assert asyncio.run(triple(2)) == 6
    assert (double.__name__, double.__doc__) == ("double", "Doc.")
    assert {name: len(times) for name, times in perf.timers.items()} == {"call": 2, "await": 1}


def test_lines_in_the_performance_stream(tmp_path: Path) -> None:
    """With a recorder each block is a line, nested ones with their parents and steps."""
    with Recorder(tmp_path) as recorder:
        perf = PerformanceLogger(LOGGER, recorder)
        with perf.time_block("step", step=7), perf.time_block("forward"):
            pass
        with pytest.raises(KeyError), perf.time_block("save"):
            raise KeyError
    found = lines(tmp_path, "performance")
    keys = ("name", "step", "depth", "parent", "error")
    assert [tuple(line.get(key) for key in keys) for line in found] == [
        ("forward", 7, 1, "step", None),
        ("step", 7, 0, None, None),
        ("save", None, 0, None, "KeyError"),
    ]
    for line in found:
        # Two clocks, read one after the other: of the same order is all that is sure.
        assert line["duration_s"] >= 0


def test_a_recorder_that_was_closed(tmp_path: Path) -> None:
    """Blocks go on; before, within and after the close."""
    recorder = Recorder(tmp_path)
    perf = PerformanceLogger(LOGGER, recorder)
    with perf.time_block("during"):
        recorder.close()
    with perf.time_block("after"):
        pass
    assert [len(times) for times in perf.timers.values()] == [1, 1]


def test_a_block_that_ends_in_another_thread(tmp_path: Path) -> None:
    """The recorder has no line of it, but its time is known and nothing raises."""
    with Recorder(tmp_path) as recorder:
        perf = PerformanceLogger(LOGGER, recorder)
        block = perf.time_block("wandering")
        thread = threading.Thread(target=block.__enter__)
        thread.start()
        thread.join()
        block.__exit__(None, None, None)
    assert len(perf.timers["wandering"]) == 1
    assert lines(tmp_path, "performance") == []


def test_without_profiling(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Blocks run; nothing is timed, logged or recorded. Memory is logged all the same."""
    with Recorder(tmp_path) as recorder, caplog.at_level(logging.DEBUG, LOGGER.name):
        perf = PerformanceLogger(LOGGER, recorder, profile=False)
        with perf.time_block("a") as block:
            pass
        assert block.elapsed == 0.0
        assert perf.time_block("b")(len) is len
        with pytest.raises(ValueError, match="x"), perf.time_block("c"):
            raise ValueError("x")
        assert caplog.records == []
        assert perf.log_memory_usage()["cpu_rss_gb"] > 0
    assert perf.timers == perf.get_timing_statistics() == {}
    assert not (tmp_path / "performance.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("x",), {}, TypeError, "logger must be a logging.Logger or a StructuredLogger"),
        ((LOGGER,), {"max_samples": 0}, ValueError, "max_samples must be at least 1"),
    ],
)
def test_wrong_arguments(
    arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    """Of the constructor."""
    with pytest.raises(error, match=message):
        PerformanceLogger(*arguments, **options)


@pytest.mark.parametrize("profile", [True, False])
def test_a_name_that_is_none(profile: bool) -> None:
    """Told with profiling on and off."""
    with pytest.raises(TypeError, match="block_name must be a str, got int"):
        PerformanceLogger(LOGGER, profile=profile).time_block(5)  # type: ignore[arg-type]


def test_statistics_are_of_all_durations(clock: list[float]) -> None:
    """Percentiles are of the latest ones; checked against numpy."""
    perf = PerformanceLogger(LOGGER, max_samples=100)
    durations = [((i * 7919) % 10_007) / 1000 for i in range(9000)]
    for duration in durations:
        spend(perf, "a", duration, clock)
    found = perf.get_timing_statistics("a")
    assert set(found) == KEYS
    assert found["count"] == 9000
    assert found["total"] == pytest.approx(np.sum(durations))
    assert found["mean"] == pytest.approx(np.mean(durations))
    assert found["std"] == pytest.approx(np.std(durations, ddof=1))
    assert (found["min"], found["max"]) == (min(durations), max(durations))
    for percent in (50, 95, 99):
        assert found[f"p{percent}"] == pytest.approx(np.percentile(durations[-100:], percent))
    assert list(perf.timers["a"]) == durations[-100:]


def test_statistics_of_one_and_of_none(perf: PerformanceLogger, clock: list[float]) -> None:
    """One has no spread, none has nothing."""
    spend(perf, "a", 0.5, clock)
    assert perf.get_timing_statistics() == {
        "a": {**dict.fromkeys(KEYS, 0.5), "count": 1, "std": 0.0}
    }
    assert perf.get_timing_statistics("unknown") == {**dict.fromkeys(KEYS), "count": 0}


def test_statistics_between_the_first_time_of_a_name_and_its_note(perf: PerformanceLogger) -> None:
    """A name that is known and has no times yet, as another thread may see it."""
    perf._new_series("a")
    assert perf.get_timing_statistics("a") == {**dict.fromkeys(KEYS), "count": 0}


def test_reset(perf: PerformanceLogger, clock: list[float]) -> None:
    """Nothing is left, and counting begins anew."""
    spend(perf, "a", 0.5, clock)
    perf.reset_timers()
    assert perf.timers == perf.get_timing_statistics() == {}
    spend(perf, "a", 0.25, clock)
    assert perf.get_timing_statistics("a")["max"] == 0.25


def test_names_without_end(perf: PerformanceLogger, clock: list[float]) -> None:
    """A name made of the step does not fill the memory; the rest shares one."""
    for i in range(MAX_NAMES + 50):
        spend(perf, f"step {i}", 0.5, clock)
    spend(perf, "step 0", 0.5, clock)
    assert len(perf.timers) == MAX_NAMES + 1
    assert perf.get_timing_statistics(OTHER)["count"] == 50
    assert perf.get_timing_statistics("step 0")["count"] == 2


def test_many_threads(perf: PerformanceLogger) -> None:
    """No duration is lost or counted twice, while others ask for statistics."""
    done = threading.Event()

    def work() -> None:
        for i in range(3000):
            with perf.time_block(f"name {i % 3}"):
                pass

    def ask() -> None:
        while not done.is_set():
            perf.get_timing_statistics()

    threads = [threading.Thread(target=work) for _ in range(4)]
    asker = threading.Thread(target=ask)
    for thread in (asker, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    asker.join()
    counts = {name: found["count"] for name, found in perf.get_timing_statistics().items()}
    assert counts == {f"name {i}": 4000 for i in range(3)}


def test_a_fold_within_a_fold_counts_nothing_twice(
    perf: PerformanceLogger, clock: list[float]
) -> None:
    """A signal handler may ask for the statistics between any two statements."""
    spend(perf, "a", 1.0, clock)
    nested: list[Any] = []

    class Interrupted(list[float]):
        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            if not nested:
                nested.append(None)
                nested[0] = perf.get_timing_statistics("a")["count"]
            return found

    perf._series["a"].pending = Interrupted(perf._series["a"].pending)
    assert perf.get_timing_statistics("a")["count"] == 1
    assert nested == [0]


def test_a_structured_logger_gets_the_step(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """As context."""
    caplog.set_level(logging.DEBUG, LOGGER.name)
    calls: list[Any] = []
    logger = SimpleNamespace(
        logger=LOGGER, log_structured=lambda *args, **kwargs: calls.append((args, kwargs))
    )
    perf = PerformanceLogger(logger)
    with perf.time_block("a", step=5):
        pass
    perf.log_memory_usage(step=6)
    assert calls[0] == ((logging.DEBUG, "a completed in 0.0000s"), {"stacklevel": 3, "step": 5})
    assert calls[1][1] == {"stacklevel": 3, "step": 6}
    assert calls[1][0][1].startswith("CPU memory - RSS: ")


def test_memory_of_the_cpu(perf: PerformanceLogger, caplog: pytest.LogCaptureFixture) -> None:
    """In the message and in the result."""
    with caplog.at_level(logging.DEBUG, LOGGER.name):
        usage = perf.log_memory_usage()
    (record,) = caplog.records
    assert record.getMessage() == f"CPU memory - RSS: {usage['cpu_rss_gb']:.2f}GB"
    assert record.filename == Path(__file__).name
    assert list(usage) == ["cpu_rss_gb"]


def test_memory_below_the_level(perf: PerformanceLogger, caplog: pytest.LogCaptureFixture) -> None:
    """No message; the figures are returned."""
    with caplog.at_level(logging.INFO, LOGGER.name):
        assert perf.log_memory_usage()["cpu_rss_gb"] > 0
    assert caplog.records == []


def test_the_resident_set_is_this_processes() -> None:
    """Ten megabytes that are written to are ten more."""
    before = rss_bytes()
    with mmap.mmap(-1, 10_000_000) as block:  # from the system: malloc may have resident ones free
        block.write(b"x" * len(block))
        assert rss_bytes() - before > 5_000_000


@pytest.mark.parametrize(("platform", "factor"), [("linux", 1024), ("darwin", 1)])
def test_where_there_is_no_proc(
    monkeypatch: pytest.MonkeyPatch, platform: str, factor: int
) -> None:
    """The highest resident set, in the system's unit."""
    import resource

    def absent(path: Path) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", absent)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=5))
    assert rss_bytes() == 5 * factor


def use_cuda(monkeypatch: pytest.MonkeyPatch, memory: Any) -> None:
    """Put a torch with a GPU in the place of torch."""
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        current_device=lambda: 0,
        memory_allocated=memory,
        memory_reserved=lambda: 2_500_000_000,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))


def test_memory_of_a_gpu(
    perf: PerformanceLogger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan's message."""
    use_cuda(monkeypatch, lambda: 1_234_000_000)
    with caplog.at_level(logging.DEBUG, LOGGER.name):
        usage = perf.log_memory_usage()
    assert caplog.messages[1] == "GPU memory - Allocated: 1.23GB, Reserved: 2.50GB"
    assert (usage["gpu_allocated_gb"], usage["gpu_reserved_gb"]) == (1.234, 2.5)


def test_a_gpu_that_fails(perf: PerformanceLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost device is no reason to end the training here."""

    def lost() -> int:
        raise RuntimeError("device lost")

    use_cuda(monkeypatch, lost)
    assert list(perf.log_memory_usage()) == ["cpu_rss_gb"]


@pytest.mark.gpu
def test_memory_of_a_real_gpu(perf: PerformanceLogger) -> None:
    """A tensor of 400 MB shows."""
    import torch

    block = torch.zeros(100_000_000, device="cuda")
    usage = perf.log_memory_usage()
    assert usage["gpu_reserved_gb"] >= usage["gpu_allocated_gb"] >= 0.4
    assert block.numel() == 100_000_000


def test_the_report(perf: PerformanceLogger, clock: list[float], tmp_path: Path) -> None:
    """The statistics as JSON; an old report is replaced, folders are made."""
    report = tmp_path / "new" / "report.json"
    for duration in (0.5, 0.25):
        spend(perf, "a", duration, clock)
        assert perf.export_timing_report(report)
    assert json.loads(report.read_text()) == perf.get_timing_statistics()
    assert list(report.parent.iterdir()) == [report]


def test_a_report_that_cannot_be_written(
    perf: PerformanceLogger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning, not the end of the training."""
    (tmp_path / "file").touch()
    assert not perf.export_timing_report(str(tmp_path / "file" / "report.json"))
    assert "could not be written" in caplog.text
