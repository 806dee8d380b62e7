"""PerformanceLogger: blocks, their statistics, messages and lines, memory, reports."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from logging_support import structured_double
from recorded import in_threads, lines, run_python

from foundry_fastlog import PerformanceLogger, Recorder
from foundry_fastlog.components.performance import MAX_NAMES, OTHER, rss_bytes

LOGGER = logging.getLogger("test.performance")
HERE = Path(__file__).name
KEYS = {"count", "mean", "std", "min", "max", "total", "p50", "p95", "p99"}
Patch, Caplog = pytest.MonkeyPatch, pytest.LogCaptureFixture


@pytest.fixture
def perf(caplog: Caplog) -> PerformanceLogger:
    """Without a recorder."""
    caplog.set_level(logging.DEBUG, LOGGER.name)
    return PerformanceLogger(LOGGER)


def spend(perf: PerformanceLogger, name: str, seconds: float) -> None:
    """Note a duration, as a block of that length does."""
    perf._new_series(name).add(seconds)


def test_blocks_are_measured(perf: PerformanceLogger) -> None:
    """By a real clock; the block itself tells, too. They may nest, and one in itself."""
    block = perf.time_block
    with block("outer") as outer, block("sleep") as middle, block("sleep") as inner:
        assert inner.elapsed == 0.0
        time.sleep(0.01)
    found = {name: list(times) for name, times in perf.timers.items()}
    assert found == {"sleep": [inner.elapsed, middle.elapsed], "outer": [outer.elapsed]}
    assert 0.01 <= inner.elapsed <= middle.elapsed <= outer.elapsed


def test_every_look_has_every_block(perf: PerformanceLogger) -> None:
    """They are gathered before they get to their statistics: no number of them is one too many."""
    wanted = dict.fromkeys("abc", 0)
    for _ in range(67):
        for name in "abc":
            with perf.time_block(name):
                pass
            wanted[name] += 1
            assert perf.get_timing_statistics(name)["count"] == wanted[name]
    for n in (63, 64, 65, 129):
        for _ in range(n):
            with perf.time_block("a"):
                pass
        wanted["a"] += n
        assert {name: len(times) for name, times in perf.timers.items()} == wanted

    def time_a_thousand(_: int) -> None:
        for _ in range(1000):
            with perf.time_block("threads"):
                pass

    in_threads(time_a_thousand, count=4)
    assert perf.get_timing_statistics("threads")["count"] == 4000
    perf.reset_timers()
    assert perf.timers == {}


def test_a_block_is_as_long_as_its_line_says(tmp_path: Path) -> None:
    """Both clocks agree, however the recorder is doing."""
    with Recorder(tmp_path / "run") as recorder:
        perf = PerformanceLogger(LOGGER, recorder)
        begin = time.monotonic()
        with perf.time_block("recorded") as block:
            time.sleep(0.02)
        outside = time.monotonic() - begin
        closing = perf.time_block("closing")
        with closing:
            recorder.close()
            time.sleep(0.01)
    with perf.time_block("closed") as closed:
        time.sleep(0.01)
    (line,) = lines(tmp_path / "run", "performance")
    assert line["duration_s"] == pytest.approx(block.elapsed, rel=1e-3)
    assert 0.0199 <= block.elapsed <= outside
    assert min(closing.elapsed, closed.elapsed) >= 0.0099


def test_the_message(perf: PerformanceLogger, caplog: Caplog) -> None:
    """At DEBUG or the level that was asked for, with the place of the block and how it ended."""
    with perf.time_block("forward_pass") as block:
        time.sleep(0.001)
    with perf.time_block("load", logging.WARNING):
        pass
    with pytest.raises(ValueError, match="x"), perf.time_block("failing"):
        raise ValueError("x")
    caplog.set_level(logging.INFO, LOGGER.name)
    with perf.time_block("quiet"):
        pass
    told = [(r.levelname, r.filename, r.getMessage()) for r in caplog.records]
    assert told[0] == ("DEBUG", HERE, f"forward_pass completed in {block.elapsed:.4f}s")
    patterns = [
        r"load completed in 0\.\d{4}s",
        r"failing completed in 0\.\d{4}s \(raised ValueError\)",
    ]
    for (level, file, text), wanted, pattern in zip(
        told[1:], ("WARNING", "DEBUG"), patterns, strict=True
    ):
        assert (level, file) == (wanted, HERE)
        assert re.fullmatch(pattern, text)
    counts = {name: len(times) for name, times in perf.timers.items()}
    assert counts == dict.fromkeys(("forward_pass", "load", "failing", "quiet"), 1)


def test_as_a_decorator(perf: PerformanceLogger) -> None:
    """Each call is a block; functions and coroutine functions."""

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
    """A line for each block, with parent and step, also of one that ends in another thread."""
    with Recorder(tmp_path) as recorder:
        perf = PerformanceLogger(LOGGER, recorder)
        with perf.time_block("step", step=7), perf.time_block("forward"):
            pass
        with pytest.raises(KeyError), perf.time_block("save"):
            raise KeyError
        wandering = perf.time_block("wandering")
        in_threads(lambda _: wandering.__enter__())
        wandering.__exit__(None, None, None)
        during = perf.time_block("during").__enter__()
        recorder.close()
        during.__exit__(None, None, None)
        with perf.time_block("after"):
            pass
    found = lines(tmp_path, "performance")
    keys = ("name", "step", "depth", "parent", "error")
    assert [tuple(line.get(key) for key in keys) for line in found] == [
        ("forward", 7, 1, "step", None),
        ("step", 7, 0, None, None),
        ("save", None, 0, None, "KeyError"),
        ("wandering", None, 0, None, None),
    ]
    # Two clocks, read one after the other: of the same order is all that is sure.
    assert all(line["duration_s"] >= 0 for line in found)
    assert [len(perf.timers[name]) for name in ("wandering", "during", "after")] == [1, 1, 1]


def test_without_profiling(caplog: Caplog, tmp_path: Path) -> None:
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


def test_wrong_arguments() -> None:
    """A name that is none is told with profiling on and off."""
    with pytest.raises(TypeError, match=r"logger must be a logging.Logger, a LoggerAdapter or"):
        PerformanceLogger("x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_samples must be between 1"):
        PerformanceLogger(LOGGER, max_samples=0)
    for wrong in (1.5, True, "a"):
        with pytest.raises(TypeError, match="max_samples must be an int"):
            PerformanceLogger(LOGGER, max_samples=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="recorder must be a Recorder, got str"):
        PerformanceLogger(LOGGER, "runs/a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"time_block\(\) takes the arguments \(block_name"):
        PerformanceLogger(LOGGER).time_block("a", nmae=1)  # type: ignore[call-arg]
    for profile in (True, False):
        with pytest.raises(TypeError, match="block_name must be a str, got int"):
            PerformanceLogger(LOGGER, profile=profile).time_block(5)  # type: ignore[arg-type]


def test_statistics_are_of_all_durations() -> None:
    """Percentiles are of the latest ones; checked against numpy."""
    perf = PerformanceLogger(LOGGER, max_samples=100)
    durations = [((i * 7919) % 10_007) / 1000 for i in range(9000)]
    for duration in durations:
        spend(perf, "a", duration)
    wanted = {f"p{n}": np.percentile(durations[-100:], n) for n in (50, 95, 99)}
    wanted |= {"total": np.sum(durations), "mean": np.mean(durations), "count": 9000}
    wanted["std"] = np.std(durations, ddof=1)
    found = perf.get_timing_statistics("a")
    assert (found.pop("min"), found.pop("max")) == (min(durations), max(durations))
    assert found == pytest.approx(wanted)
    assert found["count"] == 9000
    assert list(perf.timers["a"]) == durations[-100:]


def test_statistics_of_one_and_of_none(perf: PerformanceLogger) -> None:
    """One has no spread; none, or a name that another thread is about to note, has nothing."""
    one = {**dict.fromkeys(KEYS, 0.5), "count": 1, "std": 0.0}
    nothing = {**dict.fromkeys(KEYS), "count": 0}
    spend(perf, "a", 0.5)
    assert perf.get_timing_statistics() == {"a": one}
    assert perf.get_timing_statistics("unknown") == nothing
    perf._new_series("b")
    assert perf.get_timing_statistics("b") == nothing
    perf.reset_timers()
    assert perf.timers == perf.get_timing_statistics() == {}
    spend(perf, "a", 0.25)
    assert perf.get_timing_statistics("a")["max"] == 0.25


def test_names_without_end(perf: PerformanceLogger) -> None:
    """A name made of the step does not fill the memory; the rest shares one."""
    for i in range(MAX_NAMES + 50):
        spend(perf, f"step {i}", 0.5)
    spend(perf, "step 0", 0.5)
    assert len(perf.timers) == MAX_NAMES + 1
    assert perf.get_timing_statistics(OTHER)["count"] == 50
    assert perf.get_timing_statistics("step 0")["count"] == 2


def test_names_without_end_are_said_once(perf: PerformanceLogger, caplog: Caplog) -> None:
    """Who asks for a later one finds nothing: where it went has been said."""
    for i in range(MAX_NAMES):
        spend(perf, f"step {i}", 0.5)
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
    for name in ("one more", "and another", "step 0"):
        spend(perf, name, 0.5)
    (said,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "more than 1,000 names of timed blocks" in said.message
    assert "'one more' and further ones together, as '(other blocks)'" in said.message
    assert perf.get_timing_statistics("and another")["count"] == 0


def test_a_level_may_be_a_name(perf: PerformanceLogger, caplog: Caplog) -> None:
    """One that is none is said once, and the block counts: it has run already."""
    for level in ("INFO", "warning", logging.ERROR, None, "loud", "loud"):
        with perf.time_block("x", log_level=level):  # type: ignore[arg-type]
            pass
    blocks = [one.levelname for one in caplog.records if one.message.startswith("x completed")]
    assert blocks == ["INFO", "WARNING", "ERROR", "DEBUG", "DEBUG", "DEBUG"]
    (said,) = [one.message for one in caplog.records if "log_level" in one.message]
    assert said.endswith("DEBUG, INFO, WARNING, ERROR, CRITICAL, got None; DEBUG is taken")
    assert perf.get_timing_statistics("x")["count"] == 6


def test_many_threads() -> None:
    """No duration is lost or counted twice, while others ask for statistics."""
    perf, done = PerformanceLogger(LOGGER), threading.Event()

    def work(_: int) -> None:
        for i in range(3000):
            with perf.time_block(f"name {i % 3}"):
                pass

    def ask() -> None:
        while not done.is_set():
            perf.get_timing_statistics()

    asker = threading.Thread(target=ask)
    asker.start()
    in_threads(work, 4)
    done.set()
    asker.join()
    counts = {name: found["count"] for name, found in perf.get_timing_statistics().items()}
    assert counts == {f"name {i}": 4000 for i in range(3)}


def test_a_level_is_asked_for_as_long_as_it_is_not_known(caplog: Caplog) -> None:
    """By setLevel(), disable() and loggers that decide themselves, at any time."""

    class Choosy(logging.Logger):
        def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the standard library's
            return level == logging.ERROR

    def told(logger: logging.Logger, level: int) -> int:
        caplog.clear()
        for _ in range(2):
            with PERFS[logger].time_block("a", level):
                pass
        return len(caplog.records)

    choosy = Choosy("choosy", logging.CRITICAL)
    choosy.addHandler(caplog.handler)
    PERFS = {logger: PerformanceLogger(logger) for logger in (LOGGER, choosy)}  # noqa: N806 - above
    caplog.set_level(logging.INFO, LOGGER.name)
    assert [told(LOGGER, level) for level in (logging.DEBUG, logging.INFO)] == [0, 2]
    caplog.set_level(logging.DEBUG, LOGGER.name)
    assert told(LOGGER, logging.DEBUG) == 2
    logging.disable(logging.INFO)
    assert told(LOGGER, logging.DEBUG) == 0
    logging.disable(logging.NOTSET)
    assert [told(choosy, level) for level in (logging.WARNING, logging.ERROR)] == [0, 2]


def test_what_only_a_subclass_can_do_wrong() -> None:
    class Forgetful(PerformanceLogger):
        def __init__(self) -> None:
            pass

    class Odd(PerformanceLogger):
        def _new_series(self, name: str) -> Any:
            return name

    with pytest.raises(RuntimeError, match="a subclass has to call it"):
        Forgetful().time_block("a")
    odd = Odd(LOGGER)
    with odd.time_block("a"):
        pass
    with pytest.raises(TypeError, match="must return Durations"):
        odd.get_timing_statistics()
    assert odd.get_timing_statistics() == {}


def test_an_error_of_one_name_is_not_anothers(perf: PerformanceLogger, monkeypatch: Patch) -> None:
    """It does not end that block's code, nor hide an error of its own, nor lose its duration."""
    real = perf._new_series

    def fails(name: str) -> Any:
        if name == "odd":
            raise MemoryError("no more")
        if name == "stopped":
            raise KeyboardInterrupt
        return real(name)

    monkeypatch.setattr(perf, "_new_series", fails)
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: told.append(repr(hook.exc_value)))
    with perf.time_block("odd"):
        pass
    for _ in range(63):
        with perf.time_block("good"):
            pass
    with pytest.raises(KeyError), perf.time_block("good"):
        raise KeyError("its own")
    assert told == ["MemoryError('no more')"]
    assert perf.get_timing_statistics("good")["count"] == 64
    with perf.time_block("stopped"):
        pass
    for _ in range(63):
        with perf.time_block("good"):
            pass
    with pytest.raises(KeyboardInterrupt), perf.time_block("good"):
        pass
    assert perf.get_timing_statistics("good")["count"] == 128


def test_a_look_while_another_thread_is_in_the_midst(
    perf: PerformanceLogger, monkeypatch: Patch
) -> None:
    """It finds what has ended, and a reset forgets what was on its way."""
    inside, go_on = threading.Event(), threading.Event()
    real = perf._new_series

    def waits(name: str) -> Any:
        if threading.current_thread() is other:
            inside.set()
            assert go_on.wait(60)
        return real(name)

    def settle() -> None:
        with perf.time_block("others"):
            pass
        perf.get_timing_statistics()

    monkeypatch.setattr(perf, "_new_series", waits)
    other = threading.Thread(target=settle)
    with perf.time_block("mine"):
        pass
    other.start()
    assert inside.wait(60)
    assert perf.get_timing_statistics("mine")["count"] == 1
    assert perf.get_timing_statistics("others")["count"] == 1
    perf.reset_timers()
    go_on.set()
    other.join()
    assert all(not times for times in perf.timers.values())


def test_names_of_a_subclass_are_not_kept(perf: PerformanceLogger) -> None:
    """One may refer to the logger, which nothing would free then."""

    class Name(str):
        __slots__ = ("owner",)

    def make() -> weakref.ref[PerformanceLogger]:
        own = PerformanceLogger(LOGGER)
        name = Name("a")
        name.owner = own
        with own.time_block(name):
            pass
        return weakref.ref(own)

    gone = make()
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_childs_set_up_is_not_part_of_its_first_block(tmp_path: Path) -> None:
    """Nor of the duration in the line."""
    code = """
        import logging, os, sys, time
        from pathlib import Path
        from foundry_fastlog import PerformanceLogger, Recorder

        with Recorder(sys.argv[1]) as recorder:
            perf = PerformanceLogger(logging.getLogger("x"), recorder)
            child = os.fork()
            if child == 0:
                begin = time.perf_counter()
                block = perf.time_block("first")
                with block:
                    entered = time.perf_counter()
                    left = time.perf_counter()
                outside = time.perf_counter() - begin
                Path(sys.argv[2]).write_text(f"{block.elapsed} {entered - begin} {outside}")
                recorder.close()
                os._exit(0)
            os.waitpid(child, 0)
    """
    run_python(textwrap.dedent(code), tmp_path / "run", tmp_path / "times")
    elapsed, entering, outside = map(float, (tmp_path / "times").read_text().split())
    assert elapsed < outside - entering / 2


def test_a_structured_logger_gets_the_step(caplog: Caplog) -> None:
    caplog.set_level(logging.DEBUG, LOGGER.name)
    logger, calls = structured_double(LOGGER)
    perf = PerformanceLogger(logger)
    with perf.time_block("a", step=5):
        pass
    perf.log_memory_usage(step=6)
    (block, first), (memory, second) = calls
    assert (block[0], block[1][:17]) == (logging.DEBUG, "a completed in 0.")
    assert memory[1].startswith("CPU memory - RSS: ")
    assert (first, second) == ({"stacklevel": 3, "step": 5}, {"stacklevel": 3, "step": 6})


def test_memory_of_the_cpu(perf: PerformanceLogger, caplog: Caplog) -> None:
    """In the message and in the result; below the level in the result."""
    usage = perf.log_memory_usage()
    (record,) = caplog.records
    assert record.getMessage() == f"CPU memory - RSS: {usage['cpu_rss_gb']:.2f}GB"
    assert record.filename == HERE
    assert list(usage) == ["cpu_rss_gb"]
    caplog.set_level(logging.INFO, LOGGER.name)
    assert perf.log_memory_usage()["cpu_rss_gb"] > 0
    assert caplog.records == [record]


def test_the_resident_set_is_this_processes() -> None:
    """Asked in a process of its own: here, what earlier tests have used may be given back."""
    run_python("""
import mmap
from foundry_fastlog.components.performance import rss_bytes
before = rss_bytes()
with mmap.mmap(-1, 10_000_000) as block:
    block.write(b"x" * len(block))
    assert 5_000_000 < rss_bytes() - before < 20_000_000
""")


@pytest.mark.parametrize(("platform", "factor"), [("linux", 1024), ("darwin", 1)])
def test_where_there_is_no_proc(monkeypatch: Patch, platform: str, factor: int) -> None:
    """The highest resident set, in the system's unit."""
    import resource

    monkeypatch.setattr(Path, "read_bytes", Mock(side_effect=FileNotFoundError))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=5))
    assert rss_bytes() == 5 * factor


def test_memory_of_a_gpu(perf: PerformanceLogger, caplog: Caplog, monkeypatch: Patch) -> None:
    """The plan's message; a lost device is no reason to end the training here."""
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        current_device=lambda: 0,
        memory_allocated=Mock(side_effect=[1_234_000_000, RuntimeError("device lost")]),
        memory_reserved=lambda: 2_500_000_000,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    usage = perf.log_memory_usage()
    assert caplog.messages[1] == "GPU memory - Allocated: 1.23GB, Reserved: 2.50GB"
    assert (usage["gpu_allocated_gb"], usage["gpu_reserved_gb"]) == (1.234, 2.5)
    assert list(perf.log_memory_usage()) == ["cpu_rss_gb"]


@pytest.mark.gpu
def test_memory_of_a_real_gpu(perf: PerformanceLogger) -> None:
    import torch

    block = torch.zeros(100_000_000, device="cuda")
    usage = perf.log_memory_usage()
    assert usage["gpu_reserved_gb"] >= usage["gpu_allocated_gb"] >= 0.4
    assert block.numel() == 100_000_000


def test_the_report(perf: PerformanceLogger, tmp_path: Path, caplog: Caplog) -> None:
    """The statistics as JSON; an old one is replaced, folders are made; a fault is a warning."""
    report = tmp_path / "new" / "report.json"
    for duration in (0.5, 0.25):
        spend(perf, "a", duration)
        assert perf.export_timing_report(report)
    assert json.loads(report.read_text()) == perf.get_timing_statistics()
    assert list(report.parent.iterdir()) == [report]
    assert not perf.export_timing_report(str(report / "report.json"))
    assert "could not write the timing report" in caplog.text


def test_a_decorated_function_is_timed_on_the_device(tmp_path: Path) -> None:
    """Each call asks for the block's device, as the refusal of one shows."""
    pytest.importorskip("torch")
    with Recorder(tmp_path) as recorder:
        timed = PerformanceLogger(LOGGER, recorder).time_block("b", device="nowhere")(int)
        for _ in range(2):
            with pytest.raises(TypeError, match="or its text, got nowhere"):
                timed()
