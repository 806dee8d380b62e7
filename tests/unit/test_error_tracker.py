"""ErrorTracker: recording, counting, grouping, capture, and the hooks of the interpreter."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import math
import pickle
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from logging_support import raised, run_processes, structured_double
from recorded import in_threads, lines, run_python, without_clock

from foundry_fastlog import ErrorTracker, Recorder, read_run
from foundry_fastlog.components.error_hooks import Hooks

LOGGER = logging.getLogger("test.errors")
Patch, Caplog = pytest.MonkeyPatch, pytest.LogCaptureFixture


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[ErrorTracker]:
    with ErrorTracker(LOGGER, tmp_path / "run") as opened:
        yield opened


@pytest.fixture
def hooks(monkeypatch: Patch) -> dict[str, list[Any]]:
    """Hooks that only note their calls, in the places of the interpreter's; what they noted."""
    seen: dict[str, list[Any]] = {"sys": [], "threading": []}
    monkeypatch.setattr(sys, "excepthook", lambda *arguments: seen["sys"].append(arguments))
    monkeypatch.setattr(threading, "excepthook", seen["threading"].append)
    return seen


def fail(message: str) -> None:
    raise ValueError(message)


def test_the_line(tracker: ErrorTracker, tmp_path: Path) -> None:
    """It is in the file when the call returns."""
    entry = tracker.log_error(raised(ValueError("no 5")), {"step": 100, "path": Path("/x")})
    (line,) = lines(tmp_path / "run", "errors")
    facts = {"level": "ERROR", "step": 100, "error_type": "ValueError", "error_message": "no 5"}
    found = {"traceback": line["traceback"], "fingerprint": line["fingerprint"]}
    both = {**facts, **found, "context": {"step": 100, "path": "/x"}}
    assert line["traceback"].startswith("Traceback (most recent call last):\n")
    assert line["traceback"].endswith("ValueError: no 5\n")
    own = {"seq": 0, "logger": "test.errors", "message": "ValueError: no 5"}
    assert without_clock(line) == {**own, **both}
    assert {**entry, "timestamp": None} == {"timestamp": None, **both}
    assert tracker.error_log == tmp_path / "run" / "errors.jsonl"


def test_a_disk_that_hangs_is_waited_for_once(tracker: ErrorTracker, monkeypatch: Patch) -> None:
    """When it answers again, so does log_error() wait again."""
    flush = Mock(side_effect=[False, False, True, True])
    with monkeypatch.context() as patch:
        patch.setattr(tracker.recorder, "flush", flush)
        for _ in range(4):
            tracker.log_error(ValueError("v"))
    assert [call.args[0] for call in flush.call_args_list] == [2.0, 0.05, 0.05, 2.0]


def test_the_message(tracker: ErrorTracker, caplog: Caplog) -> None:
    """Names that a log record has for itself get a prefix in it; the line has them as they are."""
    error = raised(OSError("disk full"))
    context = {"name": 1, "message": 2, "args": 3, "asctime": 4, "exc_info": 5, 6: 7, "batch": 8}
    tracker.log_error(error, context, level="warning")
    (record,) = caplog.records
    assert (record.getMessage(), record.levelname) == ("OSError: disk full", "WARNING")
    assert record.exc_info == (OSError, error, error.__traceback__)
    assert record.filename == Path(__file__).name
    attributes = {key: value for key, value in vars(record).items() if key.startswith("context_")}
    assert attributes == {f"context_{key}": context[key] for key in list(context)[:5]}
    assert (vars(record)["6"], vars(record)["batch"]) == (7, 8)
    (line,) = lines(tracker.recorder.path, "errors")
    assert line["context"] == {str(key): value for key, value in context.items()}


def test_a_structured_logger(tmp_path: Path) -> None:
    """Gets the context as its own, without the names of its parameters."""
    logger, calls = structured_double(LOGGER)
    error = raised(ValueError("v"))
    with ErrorTracker(logger, tmp_path) as tracker:
        tracker.log_error(error, {"batch": 3, "level": 4, "stacklevel": 5, "message": 6})
    info = (ValueError, error, error.__traceback__)
    context = {"batch": 3, "context_level": 4, "context_stacklevel": 5, "context_message": 6}
    options = {"exc_info": info, "stacklevel": 4, **context}
    assert calls == [((logging.ERROR, "ValueError: v"), options)]
    assert lines(tmp_path, "errors")[0]["logger"] == LOGGER.name


@pytest.mark.parametrize(
    ("context", "step", "expected"),
    [
        *((None, None, None), (None, np.int64(7), 7), ({"step": 5}, None, 5), ({"step": 5}, 6, 6)),
        *(({"step": "five"}, None, None), ({"step": True}, None, None)),
        ({"step": 2**63}, None, 2**63),
    ],
)
def test_the_step(tracker: ErrorTracker, context: Any, step: Any, expected: int | None) -> None:
    """Given, or the context's; one beyond 64 bits is in the context only."""
    entry = tracker.log_error(ValueError("v"), context, step=step)
    assert entry["step"] == expected
    assert type(entry["step"]) in (int, type(None))
    (line,) = lines(tracker.recorder.path, "errors")
    assert line.get("step") == (expected if expected != 2**63 else None)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"error": "failed"}, TypeError, "error must be an exception, got str"),
        ({"error": ValueError}, TypeError, "error must be an exception, got type"),
        ({"context": [1]}, TypeError, "context must be a mapping, got list"),
        ({"step": "5"}, TypeError, "step must be an int, got str"),
        ({"level": "LOUD"}, ValueError, "level must be one of DEBUG"),
        ({"level": 25}, ValueError, "level must be one of DEBUG"),
    ],
)
def test_wrong_calls(tracker: ErrorTracker, options: Any, kind: Any, message: str) -> None:
    """Nothing is recorded or counted; capture() tells before the block, not for its exception."""
    with pytest.raises(kind, match=message):
        tracker.log_error(**{"error": ValueError(), **options})
    if "error" not in options:
        with pytest.raises(kind, match=message):
            tracker.capture(**options)
    assert tracker.get_error_summary() == {}
    assert tracker.recorder.stats()["calls"] == 0


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"max_errors": 0}, ValueError, "max_errors must be at least 1"),
        ({"max_errors": True}, TypeError, "max_errors must be an int"),
        ({"logger": "x"}, TypeError, "logger must be a logging.Logger"),
    ],
)
def test_wrong_arguments(tmp_path: Path, options: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        ErrorTracker(**{"logger": LOGGER, "experiment_dir": tmp_path / "run", **options})
    assert not (tmp_path / "run").exists()


def test_errors_of_many_kinds(tracker: ErrorTracker) -> None:
    """Chained ones have all tracebacks; long texts are cut in memory and whole in the file."""
    outer = RuntimeError("outer")
    outer.__cause__ = raised(ValueError("inner"))
    chained = tracker.log_error(raised(outer))
    assert "ValueError: inner" in chained["traceback"]
    assert "direct cause" in chained["traceback"]
    long = tracker.log_error(ValueError("x" * 50_000))
    assert long["error_message"].startswith("(50000 characters) ...xxx")
    assert max(len(long["error_message"]), len(long["traceback"])) < 20_000
    mute_error = type("MuteError", (Exception,), {"__str__": Mock(side_effect=LookupError)})
    mute = tracker.log_error(mute_error())
    assert mute["error_message"] == "<MuteError whose str() raised LookupError>"
    first, second, _ = lines(tracker.recorder.path, "errors")
    assert first["traceback"] == chained["traceback"]
    assert second["error_message"] == "x" * 50_000


def test_a_context_of_anything(tracker: ErrorTracker, monkeypatch: Patch) -> None:
    """Numbers that JSON has not, numpy, circles: in the file and in memory as plain data."""
    tensor = type("Tensor", (), {})()
    alive = weakref.ref(tensor)
    circle: list[Any] = []
    circle.append(circle)
    context = {"loss": math.nan, "shape": (1, 2), "a": np.float32(1.5), "circle": circle}
    monkeypatch.setattr(LOGGER, "disabled", True)  # pytest keeps the records of all loggers
    entry = tracker.log_error(ValueError("v"), context)
    (line,) = lines(tracker.recorder.path, "errors")
    plain = {"shape": [1, 2], "a": 1.5, "circle": ["<circular reference>"]}
    assert line["context"] == {"loss": None, **plain}
    assert line["nonfinite"] == {"loss": "nan"}
    assert math.isnan(entry["context"].pop("loss"))
    assert entry["context"] == plain
    tracker.log_error(ValueError("v"), {"tensor": tensor})
    del tensor
    gc.collect()
    assert alive() is None  # it would keep its memory for as long as the error is remembered


def test_counts_and_groups(tracker: ErrorTracker) -> None:
    """By class; and by fingerprint, the most frequent first; the first one is the example."""
    for step in (10, 20, 30):
        with tracker.capture(step=step, reraise=False):
            fail(f"bad batch {step}")
    tracker.log_error(KeyError("other"))
    counts = {"ValueError": 3, "KeyError": 1}
    assert tracker.get_error_summary() == dict(tracker.error_counts) == counts
    many, one = tracker.get_error_groups()
    assert (many["count"], one["count"]) == (3, 1)
    assert (many["first_step"], many["last_step"]) == (10, 30)
    assert many["first_time"] < many["last_time"]
    assert many["example"]["error_message"] == "bad batch 10"
    assert (many["error_type"], one["error_type"]) == ("ValueError", "KeyError")
    prints = [line["fingerprint"] for line in lines(tracker.recorder.path, "errors")]
    assert prints == [many["fingerprint"]] * 3 + [one["fingerprint"]]
    tracker.reset_counters()
    assert tracker.get_error_summary() == {}
    assert tracker.get_error_groups() == []
    assert len(tracker.get_recent_errors()) == 4


def test_memory_is_bounded(tmp_path: Path) -> None:
    """The newest errors stay, newest first, and the groups seen last; counts and the file go on."""
    with ErrorTracker(LOGGER, tmp_path, max_errors=3) as tracker:
        for text in "abcaad":
            tracker.log_error(ValueError(text), {"text": text})
        recent = [[e["context"]["text"] for e in tracker.get_recent_errors(n)] for n in (10, 2, 0)]
        assert recent == [["d", "a", "a"], ["d", "a"], []]
        assert tracker.error_counts["ValueError"] == 6
        found = {g["example"]["error_message"]: g["count"] for g in tracker.get_error_groups()}
    assert found == {"a": 3, "c": 1, "d": 1}
    assert len(lines(tmp_path, "errors")) == 6


def test_after_close(tracker: ErrorTracker, caplog: Caplog) -> None:
    """Logged and counted; one warning says that the file has it not."""
    tracker.close()
    for _ in range(2):
        tracker.log_error(ValueError("v"))
    assert tracker.error_counts["ValueError"] == 2
    assert caplog.messages.count("ValueError: v") == 2
    assert sum("after the recorder" in message for message in caplog.messages) == 1


def test_capture_records_and_goes_on(tracker: ErrorTracker) -> None:
    """Of nested ones the innermost records; the exception may still be sent to a process."""
    error = ValueError("v")
    with (
        pytest.raises(ValueError, match="v"),
        tracker.capture({"where": "outer"}),
        tracker.capture({"operation": "save"}, step=5, level="CRITICAL"),
    ):
        raise error
    (entry,) = tracker.get_recent_errors()
    found = entry["context"], entry["step"], entry["level"]
    assert found == ({"operation": "save"}, 5, "CRITICAL")
    assert repr(pickle.loads(pickle.dumps(error))) == repr(error)


def test_capture_may_keep_the_exception(tracker: ErrorTracker, caplog: Caplog) -> None:
    """And may be entered again; the message has the place of the block. A stop is no error."""
    capture = tracker.capture(reraise=False)
    for _ in range(2):
        with capture:
            raise ValueError("v")
    with capture:
        pass
    for kind in (KeyboardInterrupt, SystemExit, GeneratorExit):
        with pytest.raises(kind), capture:
            raise kind
    assert tracker.get_error_summary() == {"ValueError": 2}
    assert {record.filename for record in caplog.records} == {Path(__file__).name}


def test_capture_as_a_decorator(tracker: ErrorTracker) -> None:
    @tracker.capture(reraise=False)
    def divide(a: float, b: float) -> float:
        """Doc."""
        return a / b

    @tracker.capture(reraise=False)
    async def wait(seconds: float) -> float:
        await asyncio.sleep(0)
        return 1 / seconds

    assert (divide(1, 2), divide(1, 0)) == (0.5, None)
    assert (asyncio.run(wait(1)), asyncio.run(wait(0))) == (1.0, None)
    assert (divide.__name__, divide.__doc__) == ("divide", "Doc.")
    assert tracker.get_error_summary() == {"ZeroDivisionError": 2}


def test_threads(tracker: ErrorTracker) -> None:
    def work(n: int) -> None:
        for i in range(50):
            tracker.log_error(ValueError(f"{n} {i}"), {"n": n})

    in_threads(work, 4)
    assert tracker.get_error_summary() == {"ValueError": 200}
    (group,) = tracker.get_error_groups()
    assert group["count"] == 200
    assert len(lines(tracker.recorder.path, "errors")) == 200


def test_a_forked_child(tracker: ErrorTracker) -> None:
    """Has files of its own; the run has the errors of both."""

    def work() -> None:
        tracker.log_error(ValueError("child"))
        assert tracker.get_error_summary() == {"KeyError": 1, "ValueError": 1}

    tracker.log_error(KeyError("parent"))
    run_processes(work, ())
    assert tracker.get_error_summary() == {"KeyError": 1}
    found = [line["error_message"] for line in read_run(tracker.recorder.path).lines("errors")]
    assert found == ["'parent'", "child"]


def test_a_program_that_fails(tracker: ErrorTracker, hooks: dict[str, list[Any]]) -> None:
    """Recorded as CRITICAL, and passed on to the hook that was there, as is what is no error."""
    tracker.install_hooks()
    tracker.install_hooks()  # once is enough
    error = raised(ValueError("v"))
    arguments = (ValueError, error, error.__traceback__)
    sys.excepthook(*arguments)
    assert hooks["sys"] == [arguments]
    (entry,) = tracker.get_recent_errors()
    context = {"uncaught": True, "thread": "MainThread"}
    assert (entry["level"], entry["context"]) == ("CRITICAL", context)
    for kind in (KeyboardInterrupt, SystemExit):
        sys.excepthook(kind, kind(), None)
    recorded = raised(ValueError("v"))
    tracker.log_error(recorded)  # by code that raises it again
    sys.excepthook(ValueError, recorded, recorded.__traceback__)
    tracker.uninstall_hooks()
    tracker.uninstall_hooks()
    sys.excepthook(ValueError, raised(ValueError("v")), None)
    assert len(hooks["sys"]) == 5
    assert tracker.get_error_summary() == {"ValueError": 2}


def test_a_thread_that_fails(tracker: ErrorTracker, hooks: dict[str, list[Any]]) -> None:
    """With its name; the hook may be given no exception's object and no thread."""
    tracker.install_hooks()
    thread = threading.Thread(target=lambda: fail("v"), name="loader")
    thread.start()
    thread.join()
    arguments = SimpleNamespace(exc_type=KeyError, exc_value=None, exc_traceback=None, thread=None)
    threading.excepthook(arguments)  # type: ignore[arg-type]
    assert hooks["threading"][1:] == [arguments]
    assert hooks["threading"][0].exc_type is ValueError
    second, first = tracker.get_recent_errors()
    assert first["context"] == {"uncaught": True, "thread": "loader"}
    assert (second["error_type"], second["context"]["thread"]) == ("KeyError", None)
    tracker.uninstall_hooks()


def test_hooks_that_came_later_stay(tracker: ErrorTracker, hooks: dict[str, list[Any]]) -> None:
    """They may call this one, which is silent then, and may be installed on top of them again."""
    tracker.install_hooks()
    sys.excepthook = later = functools.partial(sys.excepthook)
    threading.excepthook = later_of_threads = functools.partial(threading.excepthook)
    tracker.uninstall_hooks()
    assert sys.excepthook is later
    assert threading.excepthook is later_of_threads
    error = raised(ValueError("v"))
    sys.excepthook(ValueError, error, None)
    assert tracker.get_recent_errors() == []
    tracker.install_hooks()
    sys.excepthook(ValueError, error, None)
    assert tracker.get_error_summary() == {"ValueError": 1}
    assert len(hooks["sys"]) == 2
    tracker.uninstall_hooks()
    assert sys.excepthook is later


def test_recording_that_fails_hides_no_error(hooks: dict[str, list[Any]]) -> None:
    installed = Hooks(Mock(side_effect=RuntimeError("disk")))
    sys.excepthook(ValueError, ValueError("v"), None)
    assert len(hooks["sys"]) == 1
    installed.remove()


FAILS = """
import logging, sys, threading
from foundry_fastlog import ErrorTracker
def fail():
    raise ValueError("the end")
logger = logging.Logger("x")
logger.addHandler(logging.NullHandler())
ErrorTracker(logger, sys.argv[1]).install_hooks()
thread = threading.Thread(target=fail, name="loader")
"""


@pytest.mark.parametrize(
    ("ending", "name"), [("fail()", "MainThread"), ("thread.start(); thread.join()", "loader")]
)
def test_a_real_program_that_fails(tmp_path: Path, ending: str, name: str) -> None:
    done = run_python(FAILS + ending, tmp_path, returncode=int(name == "MainThread"))
    assert done.stderr.count("ValueError: the end") == 1
    (line,) = lines(tmp_path, "errors")
    assert (line["level"], line["context"]["thread"]) == ("CRITICAL", name)
    assert "ValueError: the end" in line["traceback"]


def test_a_recorder_of_the_callers(tmp_path: Path) -> None:
    with Recorder(tmp_path, stamp="2025-09-30_14-30-00") as recorder:
        tracker = ErrorTracker(LOGGER, tmp_path, recorder=recorder)
        tracker.log_error(ValueError("v"))
        assert tracker.error_log == tmp_path / "errors_2025-09-30_14-30-00.jsonl"
        assert json.loads(tracker.error_log.read_text())["error_type"] == "ValueError"
        tracker.close()
        assert not recorder.closed
