"""ErrorTracker: recording, counting, grouping, capture, and the hooks of the interpreter."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import math
import multiprocessing
import pickle
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from recorded import lines, run_python, without_clock

from foundry_fastlog import ErrorTracker, Recorder, read_run
from foundry_fastlog.cli.main import main
from foundry_fastlog.components.error_hooks import Hooks

LOGGER = logging.getLogger("test.errors")


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[ErrorTracker]:
    """A tracker of its own run."""
    with ErrorTracker(LOGGER, tmp_path / "run") as opened:
        yield opened


@pytest.fixture
def hooks() -> Iterator[dict[str, list[Any]]]:
    """Hooks that only note their calls, in the places of the interpreter's; what they noted."""
    seen: dict[str, list[Any]] = {"sys": [], "threading": []}
    before = sys.excepthook, threading.excepthook
    sys.excepthook = lambda *arguments: seen["sys"].append(arguments)
    threading.excepthook = seen["threading"].append
    yield seen
    sys.excepthook, threading.excepthook = before


def raised(error: BaseException) -> BaseException:
    """Give an exception a traceback."""
    try:
        raise error  # noqa: TRY301 - what is raised is what is tested
    except BaseException as caught:  # noqa: BLE001 - any
        return caught


def test_the_line(tracker: ErrorTracker, tmp_path: Path) -> None:
    """It is in the file when the call returns."""
    entry = tracker.log_error(raised(ValueError("no 5")), {"step": 100, "path": Path("/x")})
    (line,) = lines(tmp_path / "run", "errors")
    traceback = line.pop("traceback")
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith("ValueError: no 5\n")
    assert without_clock(line) == {
        "seq": 0,
        "level": "ERROR",
        "logger": "test.errors",
        "step": 100,
        "message": "ValueError: no 5",
        "error_type": "ValueError",
        "error_message": "no 5",
        "fingerprint": entry["fingerprint"],
        "context": {"step": 100, "path": "/x"},
    }
    assert {**entry, "timestamp": None} == {
        "timestamp": None,
        "level": "ERROR",
        "step": 100,
        "error_type": "ValueError",
        "error_message": "no 5",
        "traceback": traceback,
        "fingerprint": line["fingerprint"],
        "context": {"step": 100, "path": "/x"},
    }
    assert tracker.error_log == tmp_path / "run" / "errors.jsonl"


def test_a_disk_that_hangs_is_waited_for_once(
    tracker: ErrorTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it answers again, so does log_error() wait again."""
    waits: list[float] = []
    answers = [False, False, True, True]
    monkeypatch.setattr(
        tracker.recorder, "flush", lambda limit, stream: (waits.append(limit), answers.pop(0))[1]
    )
    for _ in range(4):
        tracker.log_error(ValueError("v"))
    assert waits == [2.0, 0.05, 0.05, 2.0]
    monkeypatch.undo()


def test_the_message(tracker: ErrorTracker, caplog: pytest.LogCaptureFixture) -> None:
    """At the level asked for, with the traceback, the context, and the place of the call."""
    error = raised(OSError("disk full"))
    tracker.log_error(error, {"batch": 3}, level="warning")
    (record,) = caplog.records
    assert (record.getMessage(), record.levelname) == ("OSError: disk full", "WARNING")
    assert record.exc_info == (OSError, error, error.__traceback__)
    assert record.__dict__["batch"] == 3
    assert record.filename == Path(__file__).name


def test_names_that_a_log_record_has_for_itself(
    tracker: ErrorTracker, caplog: pytest.LogCaptureFixture
) -> None:
    """They get a prefix in the record; the line has them as they are."""
    context = {"name": 1, "message": 2, "args": 3, "asctime": 4, "exc_info": 5, 6: 7}
    tracker.log_error(ValueError("v"), context)
    (record,) = caplog.records
    attributes = {key: value for key, value in vars(record).items() if key.startswith("context_")}
    assert attributes == {f"context_{key}": context[key] for key in list(context)[:5]}
    assert vars(record)["6"] == 7
    assert lines(tracker.recorder.path, "errors")[0]["context"] == {
        str(key): value for key, value in context.items()
    }


def test_a_structured_logger(tmp_path: Path) -> None:
    """Gets the context as its own, without the names of its parameters."""
    calls: list[Any] = []
    logger = SimpleNamespace(
        logger=LOGGER, log_structured=lambda *args, **kwargs: calls.append((args, kwargs))
    )
    error = raised(ValueError("v"))
    with ErrorTracker(logger, tmp_path) as tracker:
        tracker.log_error(error, {"batch": 3, "level": 4, "stacklevel": 5, "message": 6})
    ((arguments, options),) = calls
    assert arguments == (logging.ERROR, "ValueError: v")
    assert options == {
        "exc_info": (ValueError, error, error.__traceback__),
        "stacklevel": 4,
        "batch": 3,
        "context_level": 4,
        "context_stacklevel": 5,
        "context_message": 6,
    }
    assert lines(tmp_path, "errors")[0]["logger"] == LOGGER.name


@pytest.mark.parametrize(
    ("context", "step", "expected"),
    [
        (None, None, None),
        ({"step": 5}, None, 5),
        ({"step": 5}, 6, 6),
        ({"step": "five"}, None, None),
        ({"step": True}, None, None),
        (None, np.int64(7), 7),
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
    ("arguments", "options", "error", "message"),
    [
        (("failed",), {}, TypeError, "error must be an exception, got str"),
        ((ValueError,), {}, TypeError, "error must be an exception, got type"),
        ((ValueError(),), {"context": [1]}, TypeError, "context must be a mapping, got list"),
        ((ValueError(),), {"step": "5"}, TypeError, "step must be an int, got str"),
        ((ValueError(),), {"level": "LOUD"}, ValueError, "level must be one of DEBUG"),
        ((ValueError(),), {"level": 25}, ValueError, "level must be one of DEBUG"),
    ],
)
def test_wrong_calls(
    tracker: ErrorTracker, arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    """Nothing is recorded or counted."""
    with pytest.raises(error, match=message):
        tracker.log_error(*arguments, **options)
    assert tracker.get_error_summary() == {}
    assert tracker.recorder.stats()["calls"] == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_errors": 0}, ValueError, "max_errors must be at least 1"),
        ({"max_errors": True}, TypeError, "max_errors must be an int"),
        ({"logger": "x"}, TypeError, "logger must be a logging.Logger"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, options: Any, error: type[Exception], message: str
) -> None:
    """Of the constructor; no run is opened."""
    with pytest.raises(error, match=message):
        ErrorTracker(**{"logger": LOGGER, "experiment_dir": tmp_path / "run", **options})
    assert not (tmp_path / "run").exists()


def test_chained_exceptions(tracker: ErrorTracker) -> None:
    """The traceback has all of them, as Python prints them."""
    try:
        try:
            raise KeyError("inner")  # noqa: TRY301 - as above
        except KeyError as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        entry = tracker.log_error(error)
    assert "KeyError: 'inner'" in entry["traceback"]
    assert "direct cause" in entry["traceback"]
    assert lines(tracker.recorder.path, "errors")[0]["traceback"] == entry["traceback"]


def test_a_context_of_anything(tracker: ErrorTracker) -> None:
    """Numbers that JSON has not, numpy, circles: in the file and in memory as plain data."""
    circle: list[Any] = []
    circle.append(circle)
    context = {"loss": math.nan, "shape": (1, 2), "a": np.float32(1.5), "circle": circle}
    entry = tracker.log_error(ValueError("v"), context)
    (line,) = lines(tracker.recorder.path, "errors")
    assert line["context"] == {
        "loss": None,
        "shape": [1, 2],
        "a": 1.5,
        "circle": ["<circular reference>"],
    }
    assert line["nonfinite"] == {"loss": "nan"}
    assert math.isnan(entry["context"].pop("loss"))
    assert entry["context"] == {"shape": [1, 2], "a": 1.5, "circle": ["<circular reference>"]}


def test_nothing_of_the_context_is_kept_alive(
    tracker: ErrorTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor in it would keep its memory for as long as the error is remembered."""

    class Tensor:
        pass

    monkeypatch.setattr(LOGGER, "disabled", True)  # pytest keeps the records of all loggers
    tensor = Tensor()
    alive = weakref.ref(tensor)
    tracker.log_error(ValueError("v"), {"tensor": tensor})
    del tensor
    gc.collect()
    assert alive() is None


def test_long_texts_are_cut_in_memory(tracker: ErrorTracker) -> None:
    """The file has them whole."""
    entry = tracker.log_error(ValueError("x" * 50_000))
    assert entry["error_message"].startswith("(50000 characters) ...xxx")
    assert len(entry["error_message"]) < 20_000
    assert len(entry["traceback"]) < 20_000
    assert lines(tracker.recorder.path, "errors")[0]["error_message"] == "x" * 50_000


def test_counts(tracker: ErrorTracker) -> None:
    """By class; reset_counters() begins anew, and the list of errors stays."""
    for kind in (ValueError, KeyError, ValueError):
        tracker.log_error(kind("x"))
    assert (
        tracker.get_error_summary()
        == dict(tracker.error_counts)
        == {
            "ValueError": 2,
            "KeyError": 1,
        }
    )
    tracker.reset_counters()
    assert tracker.get_error_summary() == {}
    assert tracker.get_error_groups() == []
    assert len(tracker.get_recent_errors()) == 3


def test_recent_errors_are_bounded(tmp_path: Path) -> None:
    """Newest first; counts go on, and the file has all."""
    with ErrorTracker(LOGGER, tmp_path, max_errors=3) as tracker:
        for i in range(5):
            tracker.log_error(ValueError(str(i)), {"i": i})
        assert [entry["context"]["i"] for entry in tracker.get_recent_errors()] == [4, 3, 2]
        assert [entry["context"]["i"] for entry in tracker.get_recent_errors(2)] == [4, 3]
        assert tracker.get_recent_errors(0) == []
        assert tracker.error_counts["ValueError"] == 5
    assert len(lines(tmp_path, "errors")) == 5


def fail(message: str) -> None:
    """Raise."""
    raise ValueError(message)


def test_groups_of_equal_errors(tracker: ErrorTracker) -> None:
    """By fingerprint, the most frequent first; the first one is the example."""
    for step in (10, 20, 30):
        with tracker.capture(step=step, reraise=False):
            fail(f"bad batch {step}")
    tracker.log_error(KeyError("other"))
    many, one = tracker.get_error_groups()
    assert (many["count"], one["count"]) == (3, 1)
    assert (many["first_step"], many["last_step"]) == (10, 30)
    assert many["first_time"] < many["last_time"]
    assert many["example"]["error_message"] == "bad batch 10"
    assert (many["error_type"], one["error_type"]) == ("ValueError", "KeyError")
    prints = [line["fingerprint"] for line in lines(tracker.recorder.path, "errors")]
    assert prints == [many["fingerprint"]] * 3 + [one["fingerprint"]]


def test_groups_are_bounded(tmp_path: Path) -> None:
    """Those that were seen longest ago go."""
    with ErrorTracker(LOGGER, tmp_path, max_errors=2) as tracker:
        for text in ("a", "b", "a", "c"):
            tracker.log_error(ValueError(text))
        found = {g["example"]["error_message"]: g["count"] for g in tracker.get_error_groups()}
    assert found == {"a": 2, "c": 1}


def test_after_close(tracker: ErrorTracker, caplog: pytest.LogCaptureFixture) -> None:
    """Logged and counted; one warning says that the file has it not."""
    tracker.close()
    for _ in range(2):
        tracker.log_error(ValueError("v"))
    assert tracker.error_counts["ValueError"] == 2
    messages = caplog.messages
    assert messages.count("ValueError: v") == 2
    assert sum("after the recorder" in message for message in messages) == 1


def test_capture_records_and_goes_on(tracker: ErrorTracker) -> None:
    """The default; context, step and level are handed on."""
    with (
        pytest.raises(ValueError, match="v"),
        tracker.capture({"operation": "save"}, step=5, level="CRITICAL"),
    ):
        raise ValueError("v")
    (entry,) = tracker.get_recent_errors()
    assert (entry["context"], entry["step"], entry["level"]) == (
        {"operation": "save"},
        5,
        "CRITICAL",
    )


def test_capture_may_keep_the_exception(
    tracker: ErrorTracker, caplog: pytest.LogCaptureFixture
) -> None:
    """And may be entered again; the message has the place of the block."""
    capture = tracker.capture(reraise=False)
    for _ in range(2):
        with capture:
            raise ValueError("v")
    with capture:
        pass
    assert tracker.get_error_summary() == {"ValueError": 2}
    assert {record.filename for record in caplog.records} == {Path(__file__).name}


def test_capture_as_a_decorator(tracker: ErrorTracker) -> None:
    """Of functions and of coroutine functions."""

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


def test_nested_captures_record_once(tracker: ErrorTracker) -> None:
    """The innermost one does; the exception may still be sent to another process."""
    error = ValueError("v")
    with (
        pytest.raises(ValueError, match="v"),
        tracker.capture({"where": "outer"}),
        tracker.capture({"where": "inner"}),
    ):
        raise error
    (entry,) = tracker.get_recent_errors()
    assert entry["context"] == {"where": "inner"}
    assert repr(pickle.loads(pickle.dumps(error))) == repr(error)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_capture_leaves_what_is_no_error(tracker: ErrorTracker, kind: type[BaseException]) -> None:
    """Not recorded, and not kept."""
    with pytest.raises(kind), tracker.capture(reraise=False):
        raise kind
    assert tracker.get_error_summary() == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"context": 5}, TypeError, "context must be a mapping"),
        ({"step": "5"}, TypeError, "step must be an int"),
        ({"level": "LOUD"}, ValueError, "level must be one of"),
    ],
)
def test_wrong_captures(
    tracker: ErrorTracker, options: Any, error: type[Exception], message: str
) -> None:
    """Told before the block, not in place of its exception."""
    with pytest.raises(error, match=message):
        tracker.capture(**options)


def test_threads(tracker: ErrorTracker) -> None:
    """Nothing is lost or counted twice."""

    def work(n: int) -> None:
        for i in range(50):
            tracker.log_error(ValueError(f"{n} {i}"), {"n": n})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.get_error_summary() == {"ValueError": 200}
    (group,) = tracker.get_error_groups()
    assert group["count"] == 200
    assert len(lines(tracker.recorder.path, "errors")) == 200


def _fail_in_child(tracker: ErrorTracker) -> None:
    tracker.log_error(ValueError("child"))
    assert tracker.get_error_summary() == {"KeyError": 1, "ValueError": 1}


def test_a_forked_child(tracker: ErrorTracker) -> None:
    """Has files of its own; the run has the errors of both."""
    tracker.log_error(KeyError("parent"))
    child = multiprocessing.get_context("fork").Process(target=_fail_in_child, args=(tracker,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert tracker.get_error_summary() == {"KeyError": 1}
    found = [line["error_message"] for line in read_run(tracker.recorder.path).lines("errors")]
    assert found == ["'parent'", "child"]


def test_a_program_that_fails(tracker: ErrorTracker, hooks: dict[str, list[Any]]) -> None:
    """Recorded as CRITICAL, and passed on to the hook that was there."""
    tracker.install_hooks()
    tracker.install_hooks()  # once is enough
    error = raised(ValueError("v"))
    arguments = (ValueError, error, error.__traceback__)
    sys.excepthook(*arguments)
    assert hooks["sys"] == [arguments]
    (entry,) = tracker.get_recent_errors()
    assert (entry["level"], entry["context"]) == (
        "CRITICAL",
        {"uncaught": True, "thread": "MainThread"},
    )
    tracker.uninstall_hooks()
    tracker.uninstall_hooks()
    sys.excepthook(*arguments)
    assert len(hooks["sys"]) == 2
    assert len(tracker.get_recent_errors()) == 1


def test_a_thread_that_fails(tracker: ErrorTracker, hooks: dict[str, list[Any]]) -> None:
    """The same, with the thread's name."""
    tracker.install_hooks()
    thread = threading.Thread(target=lambda: fail("v"), name="loader")
    thread.start()
    thread.join()
    assert [arguments.exc_type for arguments in hooks["threading"]] == [ValueError]
    assert tracker.get_recent_errors()[0]["context"] == {"uncaught": True, "thread": "loader"}
    tracker.uninstall_hooks()


def test_what_a_hook_may_be_given(tracker: ErrorTracker, hooks: dict[str, list[Any]]) -> None:
    """Without an exception's object, and without a thread."""
    tracker.install_hooks()
    arguments = SimpleNamespace(exc_type=KeyError, exc_value=None, exc_traceback=None, thread=None)
    threading.excepthook(arguments)  # type: ignore[arg-type]
    assert hooks["threading"] == [arguments]
    (entry,) = tracker.get_recent_errors()
    assert (entry["error_type"], entry["context"]["thread"]) == ("KeyError", None)
    tracker.uninstall_hooks()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass_unrecorded(
    tracker: ErrorTracker, hooks: dict[str, list[Any]], kind: type[BaseException]
) -> None:
    """They are no errors."""
    tracker.install_hooks()
    sys.excepthook(kind, kind(), None)
    assert len(hooks["sys"]) == 1
    assert tracker.get_recent_errors() == []
    tracker.uninstall_hooks()


def test_what_was_recorded_already_is_passed_on_only(
    tracker: ErrorTracker, hooks: dict[str, list[Any]]
) -> None:
    """Code that records, and raises again."""
    tracker.install_hooks()
    error = raised(ValueError("v"))
    tracker.log_error(error)
    sys.excepthook(ValueError, error, error.__traceback__)
    assert len(hooks["sys"]) == 1
    assert tracker.get_error_summary() == {"ValueError": 1}
    tracker.uninstall_hooks()


def test_hooks_that_came_later_stay(tracker: ErrorTracker, hooks: dict[str, list[Any]]) -> None:
    """They may call this one, which is silent then, and may be installed on top of them again."""
    tracker.install_hooks()
    mine, mine_of_threads = sys.excepthook, threading.excepthook

    def later(*arguments: Any) -> None:
        mine(*arguments)

    sys.excepthook = later
    threading.excepthook = mine_of_threads_later = functools.partial(mine_of_threads)
    tracker.uninstall_hooks()
    assert sys.excepthook is later
    assert threading.excepthook is mine_of_threads_later
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
    """The former hook is called whatever happens."""

    def record(error: BaseException, context: dict[str, Any]) -> None:
        raise RuntimeError("disk")

    installed = Hooks(record)
    sys.excepthook(ValueError, ValueError("v"), None)
    assert len(hooks["sys"]) == 1
    installed.remove()


@pytest.mark.parametrize(
    ("ending", "thread"), [("fail()", "MainThread"), ("in_thread(fail)", "loader")]
)
def test_a_real_program_that_fails(tmp_path: Path, ending: str, thread: str) -> None:
    """Its traceback is on stderr as ever, and in the file."""
    code = f"""
import logging, sys, threading
from foundry_fastlog import ErrorTracker

logging.getLogger("x").addHandler(logging.NullHandler())
logging.getLogger("x").propagate = False
ErrorTracker(logging.getLogger("x"), sys.argv[1]).install_hooks()

def fail():
    raise ValueError("the end")

def in_thread(work):
    thread = threading.Thread(target=work, name="loader")
    thread.start()
    thread.join()

{ending}
"""
    done = run_python(code, tmp_path, returncode=None)
    assert done.returncode == (1 if thread == "MainThread" else 0)
    assert done.stderr.count("ValueError: the end") == 1
    (line,) = lines(tmp_path, "errors")
    assert (line["level"], line["context"]["thread"]) == ("CRITICAL", thread)
    assert "ValueError: the end" in line["traceback"]


def test_a_recorder_of_the_callers(tmp_path: Path) -> None:
    """Errors go where the rest of the run goes."""
    with Recorder(tmp_path, stamp="2025-09-30_14-30-00") as recorder:
        tracker = ErrorTracker(LOGGER, tmp_path, recorder=recorder)
        tracker.log_error(ValueError("v"))
        assert tracker.error_log == tmp_path / "errors_2025-09-30_14-30-00.jsonl"
        assert json.loads(tracker.error_log.read_text())["error_type"] == "ValueError"
        tracker.close()
        assert not recorder.closed


def test_an_error_whose_text_fails(tracker: ErrorTracker) -> None:
    """Recorded with a description of it."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise LookupError

    entry = tracker.log_error(MuteError())
    assert entry["error_message"] == "<MuteError whose str() raised LookupError>"


def test_the_command_line_shows_an_error_once(
    tracker: ErrorTracker, capsys: pytest.CaptureFixture[str]
) -> None:
    """Class and text are the message already; another message stands before them."""
    tracker.log_error(ValueError("bad batch"))
    tracker.recorder.event("while saving", error=OSError("disk full"))
    tracker.close()
    assert main(["tail", str(tracker.recorder.path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("errors ERROR ValueError: bad batch")
    assert second.endswith("errors ERROR while saving [OSError: disk full]")
    assert main(["summary", str(tracker.recorder.path)]) == 0
    shown = capsys.readouterr().out
    assert " ValueError: bad batch\n" in shown
    assert " OSError: while saving\n" in shown
