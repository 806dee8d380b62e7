"""Errors are recorded, whatever their class, their context or the system does at that moment."""

from __future__ import annotations

import logging
import sys
import traceback
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from logging_support import raised
from recorded import lines, run_python

from foundry_fastlog import ErrorTracker, Recorder, RecorderHandler, TextFileHandler
from foundry_fastlog.base import error_facts as module
from foundry_fastlog.base.error_facts import error_facts, formatted
from foundry_fastlog.base.fingerprint import fingerprint

Caplog, Patch = pytest.LogCaptureFixture, pytest.MonkeyPatch


def fail(*_: object, **__: object) -> Any:
    raise LookupError("hostile")


def raise_self(self: Any) -> str:
    raise self


def kind(base: type[BaseException] = Exception, **members: Any) -> type[BaseException]:
    return type("Odd", (base,), members)


class Meta(type):
    """Classes that do not tell their names."""

    __getattribute__ = fail
    __eq__ = __hash__ = fail  # type: ignore[assignment]


class NoDir:
    """An object that does not list its attributes, of which a suggestion would be made."""

    __dir__ = fail
    __class__ = property(fail)  # type: ignore[assignment]


def chained(length: int, *, circle: bool = False) -> BaseException:
    first = error = ValueError("odd 0")
    for n in range(1, length):
        cause, error = error, ValueError(f"odd {n}")
        error.__cause__ = cause
    first.__cause__ = error if circle else None
    return error


def noted(notes: object) -> BaseException:
    error = ValueError("odd")
    error.__notes__ = notes  # type: ignore[assignment]
    return error


MEMBERS = [f"__{name}__" for name in ("cause", "context", "traceback", "notes", "dict")]
MEMBERS += ["args", "__suppress_context__"]
HOSTILE: dict[str, Callable[[], BaseException]] = {
    "getattribute": kind(__getattribute__=fail),
    "getattr": kind(__getattr__=fail),
    "setattr": kind(__setattr__=fail),
    "module None": kind(__module__=None),
    "module 5": kind(__module__=5),
    "str raises": kind(__str__=fail),
    "str is no text": kind(__str__=lambda _: 5),
    "str recurses": kind(__str__=lambda self: f"{self}"),
    "str has no memory": kind(__str__=lambda _: [0] * (1 << 62)),
    "str raises itself": kind(__str__=raise_self),
    "str is huge": kind(__str__=lambda _: "odd " * (1 << 20)),
    "repr raises": kind(__repr__=fail),
    "str raises no Exception": kind(__str__=lambda _: exec("raise GeneratorExit")),
    "members": kind(with_traceback=fail, **dict.fromkeys(MEMBERS, property(fail))),
    "class lies": kind(__class__=property(lambda _: int)),
    "class raises": kind(__class__=property(fail)),
    # Made when it is called: libraries look at all classes of exceptions when they are imported.
    "metaclass": lambda: Meta("Odd", (Exception,), {})(),  # noqa: PLW0108
    "no equality": kind(__eq__=fail, __hash__=fail, __bool__=fail, __len__=fail),
    "slots": kind(__slots__=()),
    "notes 5": lambda: noted(5),
    "notes of anything": lambda: noted([5, NoDir(), "x" * (1 << 20)]),
    "circle": lambda: chained(3, circle=True),
    "many causes": lambda: chained(3000),
    "no Exception": kind(BaseException),
    "exit": kind(SystemExit, code=property(fail)),
    "syntax": lambda: SyntaxError("odd", ("f.py", 10**30, -5, "x" * 5000, None, 7)),
    "attribute": lambda: AttributeError("odd", name="x", obj=NoDir()),
    "name": lambda: NameError("odd", name="\udc80"),
    "key": lambda: KeyError(NoDir()),
    "surrogate": lambda: ValueError("odd \udc80"),
}
if sys.version_info >= (3, 11):
    HOSTILE["group"] = lambda: ExceptionGroup("odd", [chained(2), kind(__str__=fail)()])  # noqa: F821


@pytest.mark.parametrize("name", HOSTILE)
def test_an_error_of_any_kind_is_everywhere(tmp_path: Path, name: str) -> None:
    """In the errors file twice, in the log and the text log, with its class and its place."""
    error = raised(HOSTILE[name]())
    class_name = error_facts(error).kind
    logger = logging.Logger("hostile")  # noqa: LOG001 - this test's alone
    with Recorder(tmp_path) as recorder:
        logger.addHandler(RecorderHandler(recorder))
        logger.addHandler(TextFileHandler(tmp_path / "main.log"))
        assert recorder.event("failed", error=error)
        with ErrorTracker(logger, tmp_path, recorder=recorder) as tracker:
            entry = tracker.log_error(error)
            tracker._record_uncaught(error, {})  # recorded already
        assert tracker.get_recent_errors() == [entry]
        for handler in logger.handlers:
            handler.flush()
    first, second = lines(tmp_path, "errors")
    (message,) = lines(tmp_path, "log")
    for line in (first, second, message["context"]):
        assert line["error_type"] == class_name
        assert "in raised" in line["traceback"] or len(line["traceback"]) > 16_000
    assert len(first["fingerprint"]) == 16
    assert first["fingerprint"] == second["fingerprint"] == entry["fingerprint"]
    assert f"{class_name}: " in (tmp_path / "main.log").read_text()


class NoKeys(UserDict[str, int]):
    """A mapping that lists nothing."""

    keys = __iter__ = fail  # type: ignore[assignment]


def test_a_context_that_raises(tmp_path: Path) -> None:
    """The error is recorded, and the log says what is wrong with its context."""
    with ErrorTracker(logging.getLogger("hostile"), tmp_path) as tracker:
        entry = tracker.log_error(ValueError("odd"), NoKeys(a=1))
        assert tracker.recorder.event("m", error=ValueError("odd"), context=NoKeys(a=1))
        assert tracker.recorder.message("INFO", "x", "m", NoKeys(a=1))
    expected = {"unreadable": "NoKeys raised LookupError"}
    assert entry["context"] == expected
    for stream in ("errors", "log"):
        for line in lines(tmp_path, stream):
            assert line["context"] == expected


@pytest.mark.parametrize("who", ["logger", "recorder"])
def test_who_raises_is_told(tmp_path: Path, who: str, caplog: Caplog, monkeypatch: Patch) -> None:
    """It is told once; the error itself is counted and is in what still works."""
    logger = logging.Logger("hostile")  # noqa: LOG001 - this test's alone
    if who == "logger":
        logger.addFilter(fail)
    with ErrorTracker(logger, tmp_path) as tracker:
        if who == "recorder":
            monkeypatch.setattr(tracker._recorder, "event", fail)
        for _ in range(2):
            tracker.log_error(ValueError("odd"))
        assert tracker.get_error_summary() == {"ValueError": 2}
    told = [r.getMessage() for r in caplog.records if r.name == "foundry_fastlog"]
    said = {"logger": "hostile raised", "recorder": "an error could not be recorded:"}
    assert told == [f"{said[who]} LookupError"]


def test_without_a_free_descriptor(tmp_path: Path) -> None:
    """Nothing is imported when it is too late, and the line is as at other times."""
    script = """
        import logging, os, resource, sys
        from foundry_fastlog import ErrorTracker, Recorder

        recorder = Recorder(sys.argv[1])
        tracker = ErrorTracker(logging.getLogger("x"), sys.argv[1], recorder=recorder)
        recorder.event("opens the file", error=ValueError("first"))
        recorder.flush()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            open("/dev/null")
        except OSError as error:
            assert recorder.event("failed", error=error, context={"x": object()})
            tracker.log_error(error)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        assert recorder.close()
    """
    run_python(dedent(script), tmp_path)
    _, first, second = lines(tmp_path, "errors")
    assert first["traceback"] == second["traceback"]
    assert first["traceback"].endswith("OSError: [Errno 24] Too many open files: '/dev/null'\n")
    assert set(first["fingerprint"]) != {"0"}


def test_what_cannot_be_imported_or_computed(monkeypatch: Patch) -> None:
    """Costs that part alone."""
    error = raised(ValueError("odd"))
    whole = formatted(error)
    monkeypatch.setitem(sys.modules, "hashlib", None)
    module.prepare()
    assert fingerprint(error) == "0" * 16
    monkeypatch.setattr(traceback, "format_exception", fail)
    assert formatted(error) == whole
    monkeypatch.setattr(traceback, "format_tb", fail)
    assert formatted(error) == "ValueError: odd\n"
