"""From open to closed: flush, close, collection, segments, files; and what was never opened."""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import logging
import pickle
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from recorded import in_threads, lines, run_python, steps

from foundry_fastlog import Recorder, RecorderClosedError, read_run

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


def test_timeouts(recorder: Recorder) -> None:
    """Any number of seconds; a negative timeout, NaN and a text are errors, and close nothing."""
    for timeout in (60, 60.0, float("inf"), 1e300, 10**400):
        recorder.record(0, x=1.0)
        assert recorder.flush(timeout)
    for timeout in (-1, -1e-9, float("nan"), float("-inf"), -(10**400)):
        for wait in (recorder.flush, recorder.close):
            with pytest.raises(ValueError, match="timeout must be at least 0 seconds, got"):
                wait(timeout)
    assert not recorder.closed
    for call in (recorder.flush, recorder.close):
        with pytest.raises((TypeError, ValueError)):
            call("soon")  # type: ignore[arg-type]
    assert not recorder.closed
    assert recorder.close(10**400)


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
    names = {"metrics.jsonl", "run.json", "starts", ".fastlog"}
    assert {path.name for path in tmp_path.iterdir()} == names
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
    assert [start.state for start in read_run(tmp_path).report_starts()] == ["closed"]
    assert json.loads((tmp_path / "run.json").read_text())["attempts"][0]["ended"] is not None
    with Recorder(tmp_path) as again:  # the process no longer records there
        assert again.attempt == 1


def test_a_recorder_that_could_not_close_in_time_notes_its_end_when_it_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread went on, and all is written by then."""
    recorder = Recorder(tmp_path)
    recorder.record(0, x=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "_close", lambda _: False)
        assert not recorder.close()
    assert read_run(tmp_path).report_starts()[0].state == "running"
    recorder._close(10)
    del recorder
    assert [start.state for start in read_run(tmp_path).report_starts()] == ["closed"]


def test_a_recorder_is_one_per_process(recorder: Recorder) -> None:
    """Copied or unpickled in its own process it is the same object; closed it is refused."""
    assert copy.copy(recorder) is recorder
    assert copy.deepcopy(recorder) is recorder
    pickled = pickle.dumps(recorder)
    assert pickle.loads(pickled) is recorder
    recorder.close()
    with pytest.raises(RecorderClosedError, match="another process"):
        pickle.dumps(recorder)


def test_subclass(tmp_path: Path) -> None:
    class Doubling(Recorder):
        def record(self, step: int, /, **values: object) -> bool:
            return super().record(step, **values) and super().record(step, again=True, **values)

    with Doubling(tmp_path) as recorder:
        assert recorder.record(1, x=1.0)
    assert [line["metrics"] for line in lines(tmp_path)] == [{"x": 1.0}, {"again": True, "x": 1.0}]


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


def test_a_block_ends_where_it_was_left_whatever_its_exit_does(tmp_path: Path) -> None:
    """Its timestamp less its duration is its begin, so that traces have it around what is in it."""
    slept: list[float] = []

    def sleep(_: logging.LogRecord) -> None:
        began = time.time()
        time.sleep(0.2)
        slept.append(time.time() - began)

    with filtered(sleep), Recorder(tmp_path, ring_bytes=64 << 10) as recorder:
        with recorder.timer("block"):
            recorder.record(0, note="x" * 10_000)  # the next call tells
            left = time.time()
        assert slept
    (line,) = lines(tmp_path, "performance")
    ended = datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00")).timestamp()
    assert ended - left < slept[0] / 2


def test_a_logging_handler_may_record(tmp_path: Path) -> None:
    """One that records every log message does not deadlock with the recorder's own."""
    recorder = Recorder(tmp_path, ring_bytes=64 << 10)
    with filtered(lambda said: recorder.event(said.getMessage(), level=said.levelno)), recorder:
        recorder.record(0, note="x" * 10_000)
        recorder.record(1, x=1.0)
    assert "dropped a record" in lines(tmp_path, "log")[0]["message"]


def test_a_raising_handler_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the user's logging goes to the unraisable hook; the record is taken."""
    caught: list[str] = []
    monkeypatch.setattr("sys.unraisablehook", lambda about: caught.append(str(about.exc_value)))

    fail = Mock(side_effect=LookupError("a broken filter"))
    with filtered(fail), Recorder(tmp_path, ring_bytes=64 << 10) as recorder:
        assert not recorder.record(0, note="x" * 10_000)
        assert recorder.record(1, x=1.0)
    assert caught == ["a broken filter"]
    assert steps(tmp_path) == [1]


def failed(path: Path) -> Recorder:
    """The object of a constructor that raised, as a traceback keeps it."""
    path.write_bytes(b"")
    try:
        Recorder(path)
    except NotADirectoryError as error:
        trace = error.__traceback__
        while trace is not None and "self" not in trace.tb_frame.f_locals:
            trace = trace.tb_next
        assert trace is not None
        recorder = trace.tb_frame.f_locals["self"]
    assert isinstance(recorder, Recorder)
    return recorder


USES = (
    *("record(0, x=1.0)", "record_dict(0, {'x': 1.0})", "log({'x': 1.0})", "timer('t')"),
    *("event('m')", "message('INFO', 'l', 'm', {})", "epoch_summary(1, {'x': 1.0})", "flush()"),
    *("flush(1.0, stream='log')", "close()", "closed", "stats()", "files()", "path", "rank"),
    *("world_size", "label", "stamp", "attempt", "_fragment(0, b'')", "_largest_fragment"),
    *("_label", "__enter__().__exit__(None, None, None)"),
)


@pytest.mark.parametrize("fails", [True, False], ids=["failed", "new"])
def test_every_use_says_that_it_was_never_opened(tmp_path: Path, *, fails: bool) -> None:
    recorder = failed(tmp_path / "file") if fails else Recorder.__new__(Recorder)
    assert repr(recorder) == "<Recorder, never opened>"
    uses = [partial(eval, f"recorder.{use}", {"recorder": recorder}) for use in USES]
    for use in (
        *uses,
        partial(pickle.dumps, recorder),
        partial(recorder.record.__call__, recorder),
    ):
        with pytest.raises((RuntimeError, AttributeError), match="never opened"):
            use()
    assert not hasattr(recorder, "unknown")
    recorder.mine = 1  # type: ignore[attr-defined]
    assert recorder.mine == 1  # type: ignore[attr-defined]
    del recorder.mine  # type: ignore[attr-defined]
    del recorder


@pytest.mark.parametrize("closed", [False, True])
def test_a_recorder_is_opened_once(tmp_path: Path, *, closed: bool) -> None:
    recorder = Recorder(tmp_path / "run", rank=1)
    assert recorder.record(0, x=1.0)
    if closed:
        assert recorder.close()
    with pytest.raises(RuntimeError, match=r"was already opened, in .*/run: create a new one"):
        recorder.__init__(tmp_path / "other", rank=-1)  # type: ignore[misc]
    assert (recorder.path, recorder.rank, recorder.closed) == (tmp_path / "run", 1, closed)
    assert not (tmp_path / "other").exists()
    assert recorder.close()
    assert recorder.stats()["written"] == 1


def test_methods_of_the_core_want_a_core() -> None:
    """A TypeError, whatever else they are called with."""
    for method in ("_flush", "_close"):
        with pytest.raises(TypeError, match="needs a Recorder"):
            getattr(Recorder, method)(42, 1.0)
    assert Recorder._opened.fget(42) is False  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there, Python itself refuses the import")
def test_a_subinterpreter_is_refused() -> None:
    code = """
import _xxsubinterpreters as interpreters
code = '''
try:
    import foundry_fastlog._core
    from foundry_fastlog import Recorder
except ImportError as error:
    print(error, flush=True)
'''
for _ in range(2):
    interpreters.run_string(interpreters.create(), code)
from foundry_fastlog import Recorder
"""
    done = run_python(code, timeout=60)
    assert done.stdout.count("in the main interpreter only") == 2


def test_copies_and_pickles_in_one_process(tmp_path: Path) -> None:
    """A copy is the object itself, also a closed one's; a pickle is for a worker of an open run."""
    with Recorder(tmp_path) as recorder:
        pickled = pickle.dumps(recorder)
        assert pickle.loads(pickled) is recorder
        assert copy.deepcopy([recorder])[0] is copy.copy(recorder) is recorder
    assert copy.deepcopy([recorder])[0] is copy.copy(recorder) is recorder
    with pytest.raises(RecorderClosedError, match="leave loggers out of what you pickle"):
        pickle.dumps(recorder)
    with pytest.raises(RecorderClosedError, match="was pickled in this process and is closed"):
        pickle.loads(pickled)
    assert len(list(tmp_path.glob("*.jsonl"))) <= 1


def test_a_pickle_that_is_opened_elsewhere(tmp_path: Path) -> None:
    """As one in a checkpoint: it records as a worker does, and one warning says so."""
    with Recorder(tmp_path / "run") as recorder:
        (tmp_path / "pickle").write_bytes(pickle.dumps(recorder))
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb')).record(1, x=1.0)"
    done = run_python(code, tmp_path / "pickle")
    assert "was unpickled where it is no spawned worker: it records in" in done.stderr
    labels = [writer.label for writer in read_run(tmp_path / "run").writers]
    assert [label[:1] for label in labels if label] == ["w"]
