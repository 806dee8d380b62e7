"""No text is made of a tensor on a device: it would wait for it."""

from __future__ import annotations

import builtins
import json
import logging
import re
import sys
from argparse import Namespace
from collections import UserDict, UserList, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
from logging_support import raised
from recorded import lines

from foundry_fastlog import (
    ErrorTracker,
    MetricsLogger,
    Recorder,
    RecorderHandler,
    StructuredLogger,
    TextFileHandler,
)
from foundry_fastlog.base.error_facts import error_facts, formatted
from foundry_fastlog.base.json_text import render_members, safe_str, text_of_value
from foundry_fastlog.base.unread import described_unread, shows_unread


class Device:
    """As torch names one."""

    type = "cuda"

    def __str__(self) -> str:
        return "cuda:1"


class Unread:
    """A tensor on a device; whoever asks for its values is noted."""

    shape = (2, 3)
    dtype = "torch.float32"
    device = Device()
    asked: list[str] = []  # noqa: RUF012 - of all

    def _ask(self, *_: object) -> Any:
        self.asked.append(sys._getframe(1).f_code.co_name)
        return "read"

    __str__ = __repr__ = __format__ = __float__ = __bool__ = __len__ = __iter__ = _ask
    item = tolist = numpy = _ask


SHOWN = "<Unread of torch.float32, shape (2, 3), on cuda:1>"
Single = type("Single", (Unread,), {"shape": ()})


class Pair(NamedTuple):
    loss: Any
    step: int


@dataclass
class Batch:
    """Its own text shows all of its fields."""

    loss: Any
    name: str = "b"
    around: Any = None


class Named:
    """What has a text of its own, and is no tensor on a device."""

    def __repr__(self) -> str:
        return type(self).__name__


class OnHost(Named):
    shape = (1,)
    dtype = "float32"


class Model(Named):
    device = Device()


class Hostile(Named):
    """A value whose device cannot be told, nor its parts."""

    __dataclass_fields__ = ("absent",)
    device = property(Mock(side_effect=LookupError("no device")))


class Shapeless(Unread):
    """A tensor that does not say its type."""

    dtype = property(Mock(side_effect=LookupError("no type")))  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def nothing_is_read() -> Any:
    """Fail where anybody has asked."""
    Unread.asked.clear()
    yield
    assert Unread.asked == []


T = Unread()
OBJECTS = np.empty(2, object)
OBJECTS[0] = T
TEXTS: list[tuple[object, str]] = [
    *((T, SHOWN), ([T], str([SHOWN])), ({"n": {"x": T}}, str({"n": {"x": SHOWN}}))),
    *(({T: 1}, str({SHOWN: 1})), (Pair(T, 3), str([SHOWN, 3]))),
    (Shapeless(), "<Shapeless on cuda:1>"),
    ((1, "a", None, True, [{T}]), str([1, "a", None, True, [[SHOWN]]])),
    (Batch(T), f"Batch(loss={SHOWN}, name='b', around=None)"),
    *((ValueError(T), SHOWN), (ValueError("bad", 3, T), f"('bad', 3, {SHOWN})")),
    (KeyError([T]), str([SHOWN])),
    # in what else of Python's own, and of numpy's, shows its parts
    *((deque([T]), f"deque({SHOWN})"), ({"k": T}.values(), f"dict_values({SHOWN})")),
    ({"k": T}.items(), f"dict_items({['k', SHOWN]})"),
    *(({T: 1}.keys(), f"dict_keys({SHOWN})"), (UserList([T]), f"UserList({SHOWN})")),
    (UserDict({"k": T}), str({"k": SHOWN})),
    (SimpleNamespace(k=T), f"SimpleNamespace({ {'k': SHOWN} })"),
    (Namespace(k=T), f"Namespace({ {'k': SHOWN} })"),
    (slice(T, 1), f"slice({SHOWN}, 1, None)"),
    (MethodType(print, T), f"method(<built-in function print>, {SHOWN})"),
    *((repeat(T, 2), f"repeat({SHOWN})"), (OBJECTS, f"ndarray({SHOWN}, None)")),
    (OBJECTS[0:1].reshape(()), f"ndarray({SHOWN})"),
    # and what is no such tensor has its own
    *((deque([OnHost()]), "deque([OnHost])"), (Unread, repr(Unread)), (Model(), "Model")),
    ([OnHost(), Hostile(), Model()], "[OnHost, Hostile, Model]"),
    (ValueError("bad", OnHost()), "('bad', OnHost)"),
    (Batch(OnHost()), "Batch(loss=OnHost, name='b', around=None)"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
@pytest.mark.parametrize("render", [safe_str, text_of_value])
def test_the_text_describes(render: Callable[[object], str], value: object, text: str) -> None:
    assert render(value) == text


def test_parts_are_described_at_any_depth_and_in_themselves() -> None:
    """Of containers of each kind in others; a list, a dataclass and an exception in themselves."""
    nested = [deque([{"a": SimpleNamespace(k=(partial(max, T, key=OBJECTS),))}])]
    assert shows_unread(nested)
    circle: list[Any] = [T]
    circle.append(circle)
    batch = Batch(T)
    batch.around = [batch]
    for value in (nested, circle, batch):
        assert SHOWN in safe_str(value)
    error = ValueError("a", T)
    error.args = (error, T)
    assert safe_str(error) == f"(..., {SHOWN})"
    empty: list[Any] = []
    empty.append(empty)
    assert safe_str(empty) == "[[...]]"


def test_members_describe() -> None:
    """Of a line: values, keys, what orjson knows by itself."""
    fields = {"a": T, "b": [T], "c": Batch(T), "d": {"e": Pair(T, 1)}, "f": ValueError(T)}
    assert json.loads(b"{" + render_members(fields) + b"}") == {
        "a": SHOWN,
        "b": [SHOWN],
        "c": {"loss": SHOWN, "name": "b", "around": None},
        "d": {"e": str([SHOWN, 1])},
        "f": SHOWN,
    }
    assert SHOWN in render_members({"keys": {T: 1}}).decode()


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return raised(error)


def while_handling(first: BaseException, second: BaseException) -> BaseException:
    """Return an exception that was raised while another was handled."""
    second.__context__ = raised(first)
    return raised(second)


def noted(notes: Any) -> BaseException:
    """Return an exception with notes of any type."""
    error = ValueError("a")
    error.__notes__ = notes  # type: ignore[attr-defined, unused-ignore]
    return raised(error)


BAD_JSON = "json.decoder.JSONDecodeError: a: line 1 column 1 (char 0)"
CHAIN = [f"KeyError: {SHOWN}", "direct cause", BAD_JSON, "RuntimeError: after"]
CONTEXT = [f"ValueError: {SHOWN}", "During handling of", "RuntimeError: after"]
ERRORS: list[tuple[BaseException, list[str]]] = [
    (raised(ValueError("bad", T)), [f"ValueError: ('bad', {SHOWN})"]),
    (ValueError(T), [f"ValueError: {SHOWN}"]),
    (caused(RuntimeError("after"), caused(json.JSONDecodeError("a", "b", 0), KeyError(T))), CHAIN),
    (while_handling(ValueError(T), RuntimeError("after")), CONTEXT),
    (noted([T, "second"]), ["ValueError: a", SHOWN, "second"]),
    (noted((deque([T]),)), ["ValueError: a", f"deque({SHOWN})"]),
    (noted({"k": T}), ["ValueError: a", str({"k": SHOWN})]),
]
if group := getattr(builtins, "ExceptionGroup", None):  # from Python 3.11 on
    parts = ["ExceptionGroup: all (2 sub-", "  | ValueError: fine", f"  | ValueError: {SHOWN}"]
    ERRORS.append((raised(group("all", [ValueError("fine"), raised(ValueError(T))])), parts))


@pytest.mark.parametrize(("error", "parts"), ERRORS, ids=range(len(ERRORS)))
def test_a_traceback_describes(error: BaseException, parts: list[str]) -> None:
    """With all exceptions of the chain, in Python's order."""
    text = formatted(error)
    places = [text.find(part) for part in parts]
    assert -1 not in places, text
    assert places == sorted(places)
    assert ("Traceback (most recent call last):" in text) == (error.__traceback__ is not None)
    assert error_facts(error).traceback == text


def test_errors_messages_and_metrics_describe(tmp_path: Path) -> None:
    """Through every logger and handler, and what is kept in memory."""
    with Recorder(tmp_path / "run", ring_bytes=64 << 10) as recorder:
        root = logging.getLogger("unread")
        root.setLevel(logging.INFO)
        root.propagate = False
        files = TextFileHandler(tmp_path / "text.log")
        root.handlers = [RecorderHandler(recorder), files]
        structured = StructuredLogger("unread.structured")
        section = {"use_structured_logging": False}
        plain = StructuredLogger("unread.plain", {"experiment_name": "e", "logging": section})
        error = caused(ValueError("bad", T), raised(KeyError(T)))
        for logger in (root, structured):
            with ErrorTracker(logger, tmp_path / "run", recorder=recorder) as tracker:
                entry = tracker.log_error(error, {"loss": T, "all": [T]})
                assert entry["context"] == {"loss": SHOWN, "all": [SHOWN]}
                assert entry["error_message"] == f"('bad', {SHOWN})"
        for one in (structured, plain):
            one.info("message", loss=T, all={"x": [T]}, batch=Batch(T))
            one.error("failed", exc_info=error, loss=T)
        root.info("extra", extra={"loss": T})
        with MetricsLogger("exp", tmp_path / "run", recorder=recorder, logger=root) as metrics:
            assert metrics.log_step(1, None, {"n": {"x": T}, "b": [T], "t": T})
            assert metrics.log_detailed(1, None, {"n": {"x": T}})
            assert metrics.log_epoch_summary(1, {"n": {"x": T}, "t": T, "e": ValueError(T)})
            assert metrics.log_step(1, None, {T: 1.0})  # type: ignore[dict-item]
            for call in (recorder.epoch_summary, recorder.record_dict):
                with pytest.raises(TypeError, match=re.escape(f"must be str, got {SHOWN}")):
                    call(1, {T: 1.0})  # type: ignore[dict-item]
        assert recorder.log({"n": [T], "t": T}, step=2)
        files.close()
        root.handlers = []
    for stream in ("errors", "log"):
        assert all("Unread of" in json.dumps(line) for line in lines(tmp_path / "run", stream)[:4])
    first, detailed, summary, by_tensor, logged = lines(tmp_path / "run", "metrics")
    left_out = [line.get("missing") for line in (first, detailed, summary, logged)]
    names = ("n.x", "b", "t"), ("n.x",), ("n.x", "t", "e"), ("n", "t")
    assert left_out == [dict.fromkeys(each, "unsupported") for each in names]
    assert by_tensor["metrics"] == {SHOWN: 1.0}
    assert (tmp_path / "text.log").read_text().count(SHOWN) > 10


def test_an_epoch_is_a_number_of_the_host(tmp_path: Path) -> None:
    """One on a device would have to be waited for: it is refused, as record() does."""
    epoch: Any = Single()
    with Recorder(tmp_path) as recorder, MetricsLogger("e", tmp_path, recorder=recorder) as logger:
        for call in (recorder.epoch_summary, logger.log_epoch_summary, partial(logger.log_step, 1)):
            with pytest.raises(TypeError, match="epoch"):
                call(epoch, {"loss": 1.0})
        assert recorder.stats()["accepted"] == 0


def test_what_cannot_be_asked_is_no_tensor() -> None:
    assert described_unread(Hostile()) is None
    assert not shows_unread([Hostile(), OnHost()])
