"""From open to closed: flush, close, garbage collection, segments, files and their permissions."""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import os
import pickle
import stat
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recorded import in_threads, lines, raw_lines, segments, steps, written

from foundry_fastlog import Recorder, RecorderClosedError, RecorderConfig

# The flush thread sleeps for an hour unless it is asked.
RECORDER_OPTIONS = {"flush_interval_s": 3600}


def test_flush_puts_everything_into_the_files(recorder: Recorder) -> None:
    recorder.record(0, x=1.0)
    with recorder.timer("t"):
        pass
    recorder.event("m")
    recorder.event("e", error=ValueError("v"))
    assert recorder.flush()
    streams = ("metrics", "performance", "log", "errors")
    assert [len(lines(recorder.path, stream)) for stream in streams] == [1] * 4
    assert recorder.stats()["written"] == 4
    assert recorder.flush(0)  # nothing to do
    recorder.record(1, x=1.0)
    assert recorder.flush(None)
    assert steps(recorder.path) == [0, 1]


@pytest.mark.parametrize("timeout", [60, 60.0, float("inf"), 1e300, 10**400])
def test_timeouts(tmp_path: Path, timeout: float) -> None:
    recorder = Recorder(tmp_path)
    recorder.record(0, x=1.0)
    assert recorder.flush(timeout)
    assert recorder.close(timeout)


def test_odd_timeouts(recorder: Recorder) -> None:
    """A negative timeout, NaN and a text are errors, and nothing is closed."""
    for timeout in (-1, -1e-9, float("nan"), float("-inf"), -(10**400)):
        for wait in (recorder.flush, recorder.close):
            with pytest.raises(ValueError, match="timeout must be at least 0 seconds, got"):
                wait(timeout)
    assert not recorder.closed
    for call in (recorder.flush, recorder.close):
        with pytest.raises((TypeError, ValueError)):
            call("soon")  # type: ignore[arg-type]
    assert not recorder.closed


def test_close_writes_everything_and_may_come_again(recorder: Recorder) -> None:
    """close() returns True each time; the recorder stays closed, readable and harmless."""
    for step in range(1_000):
        recorder.record(step, x=1.0)
    assert not recorder.closed
    assert [recorder.close(), recorder.close(), recorder.close(0)] == [True] * 3
    assert recorder.closed
    assert steps(recorder.path) == list(range(1_000))
    assert recorder.stats()["written"] == 1_000
    assert recorder.flush()
    assert recorder.files() == [recorder.path / "metrics.jsonl"]
    with recorder as again:
        assert again is recorder
    with pytest.raises(RecorderClosedError):
        recorder.record(0, x=1.0)


def test_context_manager_closes_and_lets_exceptions_through(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.record(0, x=1.0)
    with pytest.raises(KeyError, match="own"), recorder:
        raise KeyError("own")
    assert recorder.closed
    assert steps(tmp_path) == [0]


def test_repr(recorder: Recorder) -> None:
    assert repr(recorder) == f"<Recorder '{recorder.path}' label='' open>"
    recorder.close()
    assert repr(recorder).endswith(" closed>")


def test_an_empty_run(tmp_path: Path) -> None:
    """It has an empty metrics file and no other stream's, and nothing temporary."""
    Recorder(tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "run.json", ".fastlog"}
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


@pytest.mark.parametrize("how", ["plainly", "in a cycle", "in another thread"])
def test_an_unclosed_recorder_is_written_when_it_is_collected(tmp_path: Path, how: str) -> None:
    """Wherever that is: a timer that is kept on it, say, is a cycle for the garbage collector."""
    holder = [Recorder(tmp_path, flush_interval_s=3600)]
    for step in range(100):
        holder[0].record(step, x=1.0)
    if how == "in a cycle":
        holder[0].mine = holder[0].timer("t")  # type: ignore[attr-defined]
        with holder[0].mine:  # type: ignore[attr-defined]
            pass
    alive = weakref.ref(holder[0])
    in_threads(lambda _: holder.clear(), how == "in another thread")
    holder.clear()
    assert (alive() is not None) == (how == "in a cycle")
    gc.collect()
    assert alive() is None
    assert steps(tmp_path) == list(range(100))
    assert len(lines(tmp_path, "performance")) == (how == "in a cycle")
    with Recorder(tmp_path) as again:  # the process no longer records there
        assert again.attempt == 1


def test_threads_and_descriptors_are_given_back(tmp_path: Path) -> None:
    def count(number: int = 0) -> list[int]:
        with Recorder(tmp_path / str(number)) as recorder, recorder.timer("t"):
            recorder.record(0, x=1.0)
        del recorder
        gc.collect()
        return [len(list(Path(f"/proc/self/{kind}").iterdir())) for kind in ("fd", "task")]

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs Linux's list of descriptors")
    before = count()
    assert [count(number) for number in range(20)][-1] <= before


def test_many_recorders_at_once(tmp_path: Path) -> None:
    recorders = [Recorder(tmp_path / str(number), ring_bytes=64 << 10) for number in range(20)]
    for step in range(200):
        for number, recorder in enumerate(recorders):
            recorder.record(step, **{f"key{number}": step})
    for number, recorder in enumerate(recorders):
        found = [line["metrics"] for line in written(recorder)]
        assert found == [{f"key{number}": step} for step in range(200)]


def test_a_recorder_is_one_per_process(recorder: Recorder) -> None:
    """Copied or unpickled in its own process it is the same object; closed it is refused."""
    assert copy.copy(recorder) is recorder
    assert copy.deepcopy(recorder) is recorder
    pickled = pickle.dumps(recorder)
    assert pickle.loads(pickled) is recorder
    recorder.close()
    with pytest.raises(RecorderClosedError, match="another process"):
        pickle.dumps(recorder)


def test_a_recorder_unpickled_elsewhere_is_a_worker(recorder: Recorder) -> None:
    """Where no such recorder is open, as in a spawned process, a worker's one is opened."""
    pickled = pickle.dumps(recorder)
    recorder.close()
    worker = pickle.loads(pickled)
    assert worker is not recorder
    assert worker.label == f"w{os.getpid()}"
    assert worker.record(1, loss=2.0)
    assert worker.close()
    assert [path.name for path in worker.files()] == [f"metrics.w{os.getpid()}.jsonl"]


def test_subclass(tmp_path: Path) -> None:
    class Doubling(Recorder):
        def record(self, step: int, /, **values: object) -> bool:
            return super().record(step, **values) and super().record(step, again=True, **values)

    with Doubling(tmp_path) as recorder:
        assert recorder.record(1, x=1.0)
    assert [line["metrics"] for line in lines(tmp_path)] == [{"x": 1.0}, {"again": True, "x": 1.0}]


SEGMENT = 4096


def test_segments_rotate_by_size(tmp_path: Path) -> None:
    """Segments are full but for a line, number on, and `seq` runs through all of them."""
    with Recorder(tmp_path, segment_bytes=SEGMENT, ring_bytes=64 << 10) as recorder:
        for step in range(2_000):
            recorder.record(step, loss=step / 3, note="x" * (step % 50))
        for number in range(100):
            with recorder.timer(f"t{number}"):
                pass
        assert recorder.flush()
        stats = recorder.stats()
    metrics = segments(tmp_path)
    numbered = [f"metrics.{number:06d}.jsonl" for number in range(1, len(metrics))]
    assert [path.name for path in metrics] == ["metrics.jsonl", *numbered]
    assert len(metrics) > 40
    sizes = [path.stat().st_size for path in metrics]
    assert max(sizes) <= SEGMENT
    longest = max(len(line) + 1 for path in metrics for line in raw_lines(path))
    assert min(sizes[:-1]) > SEGMENT - longest
    assert steps(tmp_path) == list(range(2_000))
    assert len(lines(tmp_path, "performance")) == 100
    assert stats["streams"]["metrics"]["segments"] == len(metrics)
    assert stats["streams"]["metrics"]["bytes"] == sum(sizes)
    assert set(recorder.files()) == {*metrics, *segments(tmp_path, "performance")}


def test_a_line_longer_than_a_segment(tmp_path: Path) -> None:
    """A line is never split: one that is too long has a segment for itself."""
    with Recorder(tmp_path, segment_bytes=SEGMENT) as recorder:
        for step in range(6):
            recorder.record(step, note="x" * (10_000 if step % 2 else 10))
            assert step % 3 or recorder.flush()
    assert [len(raw_lines(path)) for path in segments(tmp_path)] == [1] * 6
    assert steps(tmp_path) == list(range(6))
    assert [len(line["metrics"]["note"]) for line in lines(tmp_path)] == [10, 10_000] * 3


def test_segments_of_a_new_attempt(tmp_path: Path) -> None:
    for attempt in range(3):
        with Recorder(tmp_path, segment_bytes=SEGMENT) as recorder:
            for step in range(100):
                recorder.record(step, attempt=attempt)
    for attempt, label in enumerate(("", "a1", "a2")):
        assert len(segments(tmp_path, label=label)) == 3
        assert {line["metrics"]["attempt"] for line in lines(tmp_path, label=label)} == {attempt}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    """Files and directories get the permissions that open() and mkdir() would give them."""
    before = os.umask(umask)
    try:
        with Recorder(tmp_path / "a" / "run") as recorder:
            recorder.record(0, x=1.0)
            recorder.event("m")
    finally:
        os.umask(before)
    for name in ("metrics.jsonl", "log.jsonl", "run.json"):
        assert stat.S_IMODE((tmp_path / "a" / "run" / name).stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o777 & ~umask


def test_recorder_config(tmp_path: Path) -> None:
    config = RecorderConfig(ring_bytes=100_000, back_pressure="drop")
    with config.open(tmp_path, rank=2, world_size=3) as recorder:
        assert (recorder.stats()["ring_bytes"], recorder.label) == (128 << 10, "r2")


def test_messages_are_logged_not_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """What the core has to say comes as one warning of the `foundry_fastlog` logger."""
    with (
        caplog.at_level(logging.WARNING, "foundry_fastlog"),
        Recorder(tmp_path, ring_bytes=64 << 10) as recorder,
    ):
        assert not recorder.record(0, note="x" * 10_000)
        assert not recorder.record(1, note="x" * 10_000)
        assert recorder.record(2, x=1.0)
    (message,) = caplog.messages
    assert "dropped a record larger than 8160 bytes" in message
    assert "ring_bytes" in message
    assert caplog.records[0].levelno == logging.WARNING
    assert not recwarn.list


@contextlib.contextmanager
def filtered(react: Callable[[logging.LogRecord], object]) -> Iterator[None]:
    """Have the user's logging react to what the recorder says."""

    def react_and_pass(record: logging.LogRecord) -> bool:
        react(record)
        return True

    logger = logging.getLogger("foundry_fastlog")
    logger.addFilter(react_and_pass)
    try:
        yield
    finally:
        logger.removeFilter(react_and_pass)


def test_a_logging_handler_may_record(tmp_path: Path) -> None:
    """One that records every log message does not deadlock with the recorder's own."""
    recorder = Recorder(tmp_path, ring_bytes=64 << 10)
    with filtered(lambda said: recorder.event(said.getMessage(), level=said.levelno)), recorder:
        recorder.record(0, note="x" * 10_000)
        recorder.record(1, x=1.0)
    assert "dropped a record" in lines(tmp_path, "log")[0]["message"]


def test_a_handler_that_raises_does_not_reach_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the user's logging goes to the unraisable hook; the record is taken."""
    caught: list[str] = []
    monkeypatch.setattr("sys.unraisablehook", lambda about: caught.append(str(about.exc_value)))

    def fail(_: logging.LogRecord) -> None:
        raise LookupError("a broken filter")

    with filtered(fail), Recorder(tmp_path, ring_bytes=64 << 10) as recorder:
        assert not recorder.record(0, note="x" * 10_000)
        assert recorder.record(1, x=1.0)
    assert caught == ["a broken filter"]
    assert steps(tmp_path) == [1]
